//! Prints profiles: as a table, with the details of each kernel, as annotated source, and as an HTML page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::json;

use super::counts::{KernelProfile, KernelResources, Profile, add_line};
use super::sass::Sass;
use super::sources;
use crate::bench::report::commit;
use crate::cuda::runtime::emulation::LineCounts;
use crate::error::{Error, Result};

/// The heading of the table.
pub fn header() -> String {
    format!(
        "{:<54}{:>8}{:>12}{:>13}{:>9}{:>12}{:>10}{:>11}{:>5}{:>6}{:>7}\n",
        "operation",
        "bound",
        "floor B",
        "bytes/floor",
        "sect/req",
        "sect/ideal",
        "conflicts",
        "wavefronts",
        "regs",
        "spill",
        "occup."
    )
}

/// A row of the table. `bytes/floor` is requested bytes divided by the floor (minimum bytes), `sect/req` sectors per
/// request, `sect/ideal` sectors divided by the minimum number that holds the requested bytes.
pub fn row(profile: &Profile) -> String {
    let Profile { shape, bound, floor_bytes, totals, registers, spill_bytes, occupancy, .. } = profile;
    let bytes_over_floor = totals.global_bytes as f64 / *floor_bytes as f64;
    let optional = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let percent = occupancy.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", 100.0 * share));
    format!(
        "{:<54}{:>8}{floor_bytes:>12}{bytes_over_floor:>13.3}{:>9.2}{:>12.3}{:>10}{:>11}{:>5}{:>6}{percent:>7}\n",
        shape.to_string(),
        bound.to_string(),
        totals.sectors_per_request,
        totals.sectors_over_ideal,
        totals.bank_conflicts,
        totals.shared_wavefronts,
        optional(*registers),
        optional(*spill_bytes),
    )
}

/// Resources, instruction mix and main loop of each kernel, and the source lines with the most bank conflicts and
/// sectors.
pub fn details(profile: &Profile) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    for kernel in &profile.kernels {
        let KernelProfile { kernel: name, launches, grid: [x, y, z], block: [threads, ..], resources, totals, sass } =
            kernel;
        let _ = writeln!(text, "  {name}: {launches} × ({x}, {y}, {z}) blocks of {threads} threads");
        if let Some(KernelResources { registers, stack_bytes, shared_bytes, blocks, occupancy, limited_by, .. }) =
            resources
        {
            let _ = writeln!(
                text,
                "    {registers} registers, {stack_bytes} bytes of stack, {shared_bytes} of shared memory; {blocks} blocks \
                 per SM, occupancy {:.0}%, limited by {}",
                100.0 * occupancy,
                format!("{limited_by:?}").to_lowercase()
            );
        }
        let _ =
            writeln!(text, "    executed: {}", mix(totals.mix.iter().map(|(class, count)| (class.as_str(), *count))));
        if let Some(Sass { instructions, main_loop, .. }) = sass {
            let _ = match main_loop {
                Some(main_loop) => writeln!(
                    text,
                    "    SASS: {instructions} instructions; main loop of {} at {}: {}",
                    main_loop.instructions,
                    main_loop.source.as_deref().unwrap_or("an unknown line"),
                    mix(main_loop.mix.iter().map(|(class, count)| (*class, *count)))
                ),
                None => writeln!(text, "    SASS: {instructions} instructions, no main loop"),
            };
        }
    }
    let mut hottest: Vec<&LineCounts> =
        profile.lines.iter().filter(|line| line.sectors + line.bank_conflicts > 0).collect();
    hottest.sort_by_key(|line| std::cmp::Reverse((line.bank_conflicts, line.sectors)));
    for line in hottest.iter().take(6) {
        let LineCounts { source, called_from, bytes, sectors, bank_conflicts, .. } = line;
        let called = if called_from.is_empty() { String::new() } else { format!(", called from {called_from}") };
        // For a helper of kernels/common, the line that calls it says more than the helper's own line.
        let own = called_from.is_empty() || !source.contains("/common/") && sources::line(source).is_some();
        let code = sources::line(if own { source } else { called_from }).unwrap_or("");
        let _ = writeln!(
            text,
            "    {bytes:>10} B {sectors:>8} sectors {bank_conflicts:>6} conflicts  {source}{called}  {code}"
        );
    }
    text
}

/// Classes of instructions, the most frequent first.
fn mix<'a>(classes: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut classes: Vec<_> = classes.collect();
    classes.sort_by_key(|(class, count)| (std::cmp::Reverse(*count), *class));
    classes.iter().map(|(class, count)| format!("{class} {count}")).collect::<Vec<_>>().join(", ")
}

/// Inclusive counts of lines: an instruction counts in its own line, and also in the kernel's line that its code was
/// inlined into.
fn inclusive(profile: &Profile) -> Vec<LineCounts> {
    let mut lines = BTreeMap::new();
    for line in &profile.lines {
        let own = LineCounts { called_from: String::new(), ..line.clone() };
        if !line.called_from.is_empty() {
            add_line(&mut lines, &LineCounts { source: line.called_from.clone(), ..own.clone() });
        }
        add_line(&mut lines, &own);
    }
    lines.into_values().collect()
}

/// The source files that an operation executed, each line with its counts.
pub fn annotated(profile: &Profile) -> String {
    let lines = inclusive(profile);
    let files: BTreeSet<&str> = lines.iter().filter_map(|line| Some(sources::split(&line.source)?.0)).collect();
    let mut text = String::new();
    for (file, source) in files.iter().filter_map(|file| Some((file, sources::text(file)?))) {
        let by_number: BTreeMap<usize, &LineCounts> = lines
            .iter()
            .filter_map(|line| sources::split(&line.source).filter(|(name, _)| name == file).map(|(_, n)| (n, line)))
            .collect();
        let _ = writeln!(text, "{file}, in {}", profile.shape);
        let _ = writeln!(
            text,
            "{:>11}{:>9}{:>11}{:>9}{:>8}{:>7}",
            "warp instr.", "requests", "bytes", "sectors", "waves", "confl."
        );
        for (i, code) in source.lines().enumerate() {
            let counts = by_number.get(&(i + 1)).map(|line| {
                let LineCounts {
                    warp_instructions, requests, bytes, sectors, shared_wavefronts, bank_conflicts, ..
                } = line;
                [*warp_instructions, *requests, *bytes, *sectors, *shared_wavefronts, *bank_conflicts]
            });
            let cells = counts.map_or([const { String::new() }; 6], |counts| {
                // Zeros are printed as dots, so that the other numbers stand out.
                counts.map(|count| if count == 0 { ".".into() } else { count.to_string() })
            });
            let [a, b, c, d, e, f] = cells;
            let _ = writeln!(text, "{a:>11}{b:>9}{c:>11}{d:>9}{e:>8}{f:>7} {:>4} {code}", i + 1);
        }
        text.push('\n');
    }
    text
}

/// An HTML page that contains everything it needs: profiles, sources and script.
///
/// # Errors
/// [`Error::Invalid`] if a profile cannot be converted to JSON, which does not happen.
pub fn page(device: &str, profiles: &[Profile]) -> Result<String> {
    /// The element of the page that the data are inserted into.
    const SLOT: &str = r#"<script type="application/json" id="profile">{}</script>"#;
    let page = include_str!("report.html");
    let invalid = |error: serde_json::Error| Error::invalid(error.to_string());
    let mut all = Vec::new();
    for profile in profiles {
        let mut value = serde_json::to_value(profile).map_err(invalid)?;
        value["lines"] = serde_json::to_value(inclusive(profile)).map_err(invalid)?;
        all.push(value);
    }
    let locations =
        profiles.iter().flat_map(|profile| &profile.lines).flat_map(|line| [&line.source, &line.called_from]);
    let files: BTreeSet<&str> = locations.filter_map(|location| Some(sources::split(location)?.0)).collect();
    let texts: BTreeMap<&str, &str> = files.into_iter().filter_map(|file| Some((file, sources::text(file)?))).collect();
    let data = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit(),
        "device": device,
        "sources": texts,
        "profiles": all,
    });
    // `</` is escaped, because an end tag within the data would end the script element.
    let data = serde_json::to_string(&data).map_err(invalid)?.replace("</", "<\\/");
    let (before, after) =
        page.split_once(SLOT).ok_or_else(|| Error::invalid("report.html has no element for its data"))?;
    Ok(format!("{before}{}{after}", SLOT.replace("{}", &data)))
}
