//! Lists of values as the corpus writes them, and as a header has them.

/// The list as a header has it: `[1, 2]`, or `[1, 2; 32]` if it repeats. It repeats until there are `enough` elements. A
/// generator such as `iota(32, 0, 1)` stays as it is.
///
/// # Errors
/// Says what is wrong with the list.
pub fn listed(values: &str, enough: usize) -> Result<String, String> {
    let values = one_line(values);
    let mut count = enough;
    let elements: Vec<String> = match values.split_once('(').map(|(name, rest)| (name, rest.strip_suffix(')'))) {
        Some((_, None)) => return Err(format!("`{values}`: a bracket is open")),
        Some(("pairs", Some(list))) => {
            let list = elements(list)?;
            list.iter().zip(list.iter().rev()).flat_map(|(low, high)| [low.clone(), high.clone()]).collect()
        }
        Some(("reversed", Some(arguments))) => {
            let (size, list) = arguments.split_once(", ").ok_or("`reversed` needs a size and a list")?;
            let size =
                size.parse().ok().filter(|&size| size > 0).ok_or(format!("`{size}` is not a size of a group"))?;
            elements(list)?.chunks(size).flat_map(|group| group.iter().rev().cloned()).collect()
        }
        Some(_) => return Ok(values),
        None => match values.split_once("; ") {
            Some((list, explicit)) => {
                count = explicit.parse().map_err(|_| format!("`{explicit}` is not a number"))?;
                elements(list)?
            }
            None => elements(&values)?,
        },
    };
    let list = elements.join(", ");
    Ok(if count > elements.len() { format!("[{list}; {count}]") } else { format!("[{list}]") })
}

/// The elements of a list. `0*3` is three zeros, `5..=8` are the integers from 5 to 8.
fn elements(list: &str) -> Result<Vec<String>, String> {
    let mut elements = Vec::new();
    for element in list.split(',').map(str::trim) {
        let number = |text: &str| text.parse::<i64>().map_err(|_| format!("`{element}`: `{text}` is not a number"));
        if let Some((value, count)) = element.split_once('*') {
            elements.extend((0..number(count)?).map(|_| value.to_owned()));
        } else if let Some((first, last)) = element.split_once("..=") {
            elements.extend((number(first)?..=number(last)?).map(|value| value.to_string()));
        } else {
            elements.push(element.to_owned());
        }
    }
    Ok(elements)
}

/// The words of a text, with one space between them.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
