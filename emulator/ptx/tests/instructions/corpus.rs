//! The corpus of instruction forms: expands the templates of the `.toml` files to complete PTX texts. `README.md`
//! describes their format. The texts depend on these files alone, so that everyone who reads the corpus gets the same.

#[path = "kernel.rs"]
mod kernel;
#[path = "list.rs"]
mod list;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One form of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Folder and form: `integer/add.u32`
    pub name: String,
    /// A complete PTX module with an entry `test`, after the `//@` header that `case.rs` reads.
    pub text: String,
}

/// The keys of a form, of a template or of a table of values.
type Keys = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Tables that `like` can name.
    #[serde(default)]
    values: BTreeMap<String, Keys>,
    #[serde(default)]
    template: Vec<Template>,
}

#[derive(Deserialize)]
struct Template {
    /// Forms without keys of their own.
    #[serde(default)]
    forms: Vec<String>,
    /// Forms with keys of their own.
    #[serde(default)]
    form: BTreeMap<String, Keys>,
    #[serde(flatten)]
    keys: Keys,
}

/// Keys with a meaning, which a form may have although its text does not depend on them. Other keys are placeholders.
const KNOWN: &[&str] = &["names", "like", "about", "target", "launch", "finding", "refuse", "registers", "module"];

/// Placeholders may stand within placeholders to this depth: a key whose value contains itself is an error.
const MAX_DEPTH: u32 = 16;

/// The folders of the corpus, sorted.
///
/// # Errors
/// The folder cannot be read.
pub fn folders(root: &Path) -> Result<Vec<String>, String> {
    Ok(entries(root)?.iter().filter(|path| path.is_dir()).map(|path| file_name(path)).collect())
}

/// All forms of a folder, sorted by name.
///
/// # Errors
/// Names the file and the form, and says what is wrong with them.
pub fn folder(root: &Path, folder: &str) -> Result<Vec<Form>, String> {
    let mut files = Vec::new();
    for path in entries(&root.join(folder))? {
        let name = format!("{folder}/{}", file_name(&path));
        let text = fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
        files.push((name, text));
    }
    expand(folder, &files)
}

/// The forms of a folder whose files have these names and texts, sorted by name.
///
/// # Errors
/// Names the file and the form, and says what is wrong with them.
pub fn expand(folder: &str, files: &[(String, String)]) -> Result<Vec<Form>, String> {
    let mut parsed = Vec::new();
    for (name, text) in files {
        let file: File = toml::from_str(text).map_err(|error| format!("{name}: {error}"))?;
        parsed.push((name.as_str(), file));
    }
    let tables = Tables::collect(&parsed)?;
    let mut forms = Vec::new();
    for entry in tables.forms.values() {
        let wrong = |what| format!("{}: form `{}`: {what}", entry.file, entry.name);
        let scope = Scope::new(entry, &tables).map_err(wrong)?;
        let text = kernel::text(&scope).map_err(wrong)?;
        scope.check_own_keys().map_err(wrong)?;
        forms.push(Form { name: format!("{folder}/{}", entry.name), text });
    }
    tables.check_used(&parsed)?;
    Ok(forms)
}

/// The paths in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> = read.map_err(|error| format!("{}: {error}", folder.display()))?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A form as its file has it.
struct Entry<'a> {
    file: &'a str,
    name: &'a str,
    own: &'a Keys,
    template: &'a Keys,
    /// The placeholders in the template's `names`, with what each stands for in the form's name.
    captured: Keys,
}

/// All forms and tables of values of a folder, by name.
struct Tables<'a> {
    forms: BTreeMap<&'a str, Entry<'a>>,
    values: BTreeMap<&'a str, &'a Keys>,
    /// The keys that were found, by the address of the table they were found in.
    used: RefCell<BTreeSet<(*const Keys, String)>>,
}

impl<'a> Tables<'a> {
    fn collect(files: &'a [(&'a str, File)]) -> Result<Self, String> {
        static NONE: Keys = Keys::new();
        let mut tables = Tables { forms: BTreeMap::new(), values: BTreeMap::new(), used: RefCell::default() };
        for (file, File { values, template: templates }) in files {
            for (name, keys) in values {
                if tables.values.insert(name, keys).is_some() {
                    return Err(format!("{file}: a second table [values.{name}]"));
                }
            }
            for Template { forms, form, keys } in templates {
                let pattern = keys.get("names").map_or("*", String::as_str);
                for (name, own) in forms.iter().map(|name| (name, &NONE)).chain(form) {
                    let captured = captures(pattern, name)
                        .ok_or(format!("{file}: the form `{name}` does not match the names `{pattern}`"))?;
                    let entry = Entry { file, name, own, template: keys, captured };
                    if tables.forms.insert(name, entry).is_some() {
                        return Err(format!("{file}: a second form `{name}`"));
                    }
                }
            }
        }
        Ok(tables)
    }

    /// Every key of a template and of a table of values must be used by some form, so that a misspelt one is noticed.
    fn check_used(&self, files: &[(&str, File)]) -> Result<(), String> {
        let used = self.used.borrow();
        for (file, File { values, template: templates }) in files {
            for keys in values.values().chain(templates.iter().map(|template| &template.keys)) {
                let at = std::ptr::from_ref(keys);
                if let Some(key) = keys.keys().find(|key| *key != "names" && !used.contains(&(at, (*key).clone()))) {
                    return Err(format!("{file}: no form uses the key `{key}` = {:?}", keys[key]));
                }
            }
        }
        Ok(())
    }
}

/// What the placeholders of a pattern stand for in a name: `{key}` is one segment between dots, `{key*}` one or more, and
/// `*` is any text.
fn captures(pattern: &str, name: &str) -> Option<Keys> {
    let Some(at) = pattern.find(['{', '*']) else { return (pattern == name).then(Keys::new) };
    let (literal, rest) = pattern.split_at(at);
    let name = name.strip_prefix(literal)?;
    let (key, rest) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_once('}')?,
        None => rest.split_at(1),
    };
    let (key, dots) = key.strip_suffix('*').map_or((key, false), |key| (key, true));
    let fits = |text: &str| match key {
        // A placeholder that follows `*` begins a segment.
        "" => text.is_empty() || text.ends_with('.') || !rest.starts_with('{'),
        _ => !text.is_empty() && (dots || !text.contains('.')),
    };
    // The longest text with which the rest matches.
    (0..=name.len()).rev().filter(|&end| fits(&name[..end])).find_map(|end| {
        let mut keys = captures(rest, &name[end..])?;
        keys.insert(key.to_owned(), name[..end].to_owned());
        Some(keys)
    })
}

/// A form while it is expanded: looks keys up and replaces placeholders.
struct Scope<'a> {
    entry: &'a Entry<'a>,
    tables: &'a Tables<'a>,
    /// The tables that `like` names.
    like: Vec<&'a Keys>,
    depth: Cell<u32>,
}

impl<'a> Scope<'a> {
    fn new(entry: &'a Entry<'a>, tables: &'a Tables<'a>) -> Result<Self, String> {
        let mut scope = Scope { entry, tables, like: Vec::new(), depth: Cell::new(0) };
        for name in scope.key("like")?.unwrap_or_default().split_whitespace() {
            if let Some(keys) = tables.values.get(name) {
                scope.like.push(keys);
            } else if let Some(form) = tables.forms.get(name) {
                scope.like.extend([form.own, form.template]);
            } else {
                return Err(format!("there is neither a form `{name}` nor a table [values.{name}] to be like"));
            }
        }
        Ok(scope)
    }

    fn name(&self) -> &str {
        self.entry.name
    }

    /// The form's own keys, and its template's.
    fn own_tables(&self) -> [&'a Keys; 2] {
        [self.entry.own, self.entry.template]
    }

    /// The value of a key with its placeholders replaced. The form's own value goes before the template's, and that before
    /// the values of the tables that the form is like.
    fn key(&self, key: &str) -> Result<Option<String>, String> {
        let [own, template] = self.own_tables();
        let tables = [own, &self.entry.captured, template].into_iter().chain(self.like.iter().copied());
        let Some((table, text)) = tables.filter_map(|table| Some((table, table.get(key)?))).next() else {
            return Ok(None);
        };
        self.tables.used.borrow_mut().insert((table, key.to_owned()));
        if self.depth.get() > MAX_DEPTH {
            return Err(format!("the value of `{key}` contains itself"));
        }
        self.depth.set(self.depth.get() + 1);
        let filled = self.fill(text)?;
        self.depth.set(self.depth.get() - 1);
        Ok(Some(filled))
    }

    /// A key that the form must have.
    fn needed(&self, key: &str) -> Result<String, String> {
        self.key(key)?.ok_or(format!("it has no `{key}`"))
    }

    /// Replaces `{key}`, the innermost first. Braces around anything else belong to PTX.
    fn fill(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        let mut from = 0;
        while let Some(end) = text[from..].find('}').map(|at| from + at) {
            let start = text[..end].rfind('{').filter(|start| is_key(&text[start + 1..end]));
            let Some(start) = start else {
                from = end + 1;
                continue;
            };
            let value = self.placeholder(&text[start + 1..end])?;
            text.replace_range(start..=end, &value);
            from = start;
        }
        Ok(text)
    }

    /// `{name}` is the form's name; `{type.bytes}` and `{type.bits}` are the size of the type that the key `type` holds.
    fn placeholder(&self, key: &str) -> Result<String, String> {
        let missing = || format!("there is no value for `{{{key}}}`");
        if key == "name" {
            return Ok(self.name().to_owned());
        }
        let Some((of, unit)) = key.split_once('.') else { return self.key(key)?.ok_or_else(missing) };
        let bytes = kernel::Element::parse(&self.key(of)?.ok_or_else(missing)?)?.bytes();
        match unit {
            "bytes" => Ok(bytes.to_string()),
            "bits" => Ok((8 * bytes).to_string()),
            _ => Err(missing()),
        }
    }

    /// Every own key must be used, so that a misspelt one is noticed.
    fn check_own_keys(&self) -> Result<(), String> {
        let used = self.tables.used.borrow();
        let at = std::ptr::from_ref(self.entry.own);
        let unused = |key: &&String| !KNOWN.contains(&key.as_str()) && !used.contains(&(at, (*key).clone()));
        match self.entry.own.keys().find(unused) {
            Some(key) => Err(format!("nothing uses its key `{key}`")),
            None => Ok(()),
        }
    }
}

fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c))
}
