//! Makes PTX independent of the machine: replaces paths in `.file` lines, and the path hashes that nvcc puts into
//! names.

use std::path::{Component, Path, PathBuf};

/// In names with internal linkage, nvcc puts these markers before eight hex digits: a hash of the source's absolute
/// path.
const BEFORE_PATH_HASH: [&[u8]; 2] = [b"_INTERNAL_", b"_GLOBAL__N__"];

/// Returns PTX that does not depend on the location of its sources. `rename` maps a path of the compiler's to the path
/// to write.
///
/// The hash is replaced by zeros. It distinguishes files that are linked together, but here every PTX file is a module
/// of its own.
pub(crate) fn portable(ptx: &str, rename: impl Fn(&Path) -> String) -> String {
    let mut text = String::with_capacity(ptx.len());
    let mut lines = ptx.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with(".b8 ") {
            // Names of inlined functions as byte values; a name may continue on the following lines.
            let mut run = vec![numbers(line)];
            while let Some(line) = lines.next_if(|line| line.starts_with(".b8 ")) {
                run.push(numbers(line));
            }
            text += &debug_strings(run);
        } else {
            text += &file_line(line, &rename).unwrap_or_else(|| line.to_owned());
            text.push('\n');
        }
    }
    let mut bytes = text.into_bytes();
    blank_path_hashes(&mut bytes);
    String::from_utf8(bytes).expect("digits were replaced by digits")
}

fn numbers(line: &str) -> Vec<u8> {
    let list = line.trim_start_matches(".b8 ").split(',');
    list.map(|number| number.trim().parse().unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn debug_strings(lines: Vec<Vec<u8>>) -> String {
    let mut bytes = lines.concat();
    blank_path_hashes(&mut bytes);
    let mut text = String::new();
    for line in &lines {
        let rest = bytes.split_off(line.len());
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        text += &format!(".b8 {}\n", numbers.join(","));
        bytes = rest;
    }
    text
}

fn blank_path_hashes(bytes: &mut [u8]) {
    for marker in BEFORE_PATH_HASH {
        let mut at = 0;
        while at + marker.len() + 8 <= bytes.len() {
            let hash = at + marker.len()..at + marker.len() + 8;
            if bytes[at..].starts_with(marker) && bytes[hash.clone()].iter().all(u8::is_ascii_hexdigit) {
                bytes[hash].fill(b'0');
            }
            at += 1;
        }
    }
}

/// A line `.file 1 "path"` with the path replaced; `None` for any other line.
fn file_line(line: &str, rename: impl Fn(&Path) -> String) -> Option<String> {
    let (head, rest) = line.trim_start().starts_with(".file").then(|| line.split_once('"'))??;
    let (path, tail) = rest.split_once('"')?;
    Some(format!("{head}\"{}\"{tail}", rename(Path::new(path))))
}

/// Normalises a path lexically: `a/../b` becomes `b`, and empty components and `.` are removed. Symbolic links are not
/// resolved.
pub(crate) fn normalise(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if normal.file_name().is_some_and(|name| name != "..") => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_renamed_and_hashes_are_blanked() {
        let ptx = "\
.func _ZN37_INTERNAL_714cb096_7_gelu_cu_81880a6439_GLOBAL__N__714cb096_7_gelu_cu_81880a644anonEf()
	.file	1 \"/home/me/kernels/gelu.cu\"
	.loc	1 5 1
	.section	.debug_str
	{
.b8 95,73,78,84,69,82
.b8 78,65,76,95,55,49
.b8 52,99,98,48,57,54,95,0
$L__info_string0:
.b8 95,0
	}
";
        let rename = |path: &Path| path.strip_prefix("/home/me").unwrap().display().to_string();
        let want = ptx.replace("/home/me/", "").replace("714cb096", "00000000");
        let want = want.replace("95,55,49", "95,48,48").replace("52,99,98,48,57,54", "48,48,48,48,48,48");
        assert_eq!(portable(ptx, rename), want);
    }

    #[test]
    fn other_names_are_not_changed() {
        for text in ["_INTERNAL_714cb09\n", "_INTERNAL_notahash_\n", "_GLOBAL__N__\n"] {
            assert_eq!(portable(text, |_| unreachable!()), text);
        }
    }

    #[test]
    fn paths_are_normalised() {
        for (path, want) in [
            ("/t/bin/..//include/a.h", "/t/include/a.h"),
            ("kernels/./ladder/../common/b.cuh", "kernels/common/b.cuh"),
            ("../../a", "../../a"),
        ] {
            assert_eq!(normalise(Path::new(path)), Path::new(want));
        }
    }
}
