//! Stamps: a text file next to an output that records the recipe and the sources, to decide whether to recompile.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::portable::normalise;

/// A stamp of compiler, flags and the content of every source; `None` if a source cannot be read. Content is hashed
/// instead of comparing times, because a checkout changes the times of unchanged files.
pub(crate) fn stamp(recipe: &str, root: &Path, sources: &[PathBuf]) -> Option<String> {
    let mut stamp = format!("{recipe}\n");
    for source in sources {
        let mut hasher = DefaultHasher::new();
        fs::read(root.join(source)).ok()?.hash(&mut hasher);
        stamp += &format!("{:016x} {}\n", hasher.finish(), source.display());
    }
    Some(stamp)
}

/// The sources that a stamp lists, if the recipe and the content of every source are unchanged.
pub(crate) fn unchanged(old: &str, recipe: &str, root: &Path) -> Option<Vec<PathBuf>> {
    let lines = old.strip_prefix(recipe)?.strip_prefix('\n')?.lines();
    let sources: Vec<PathBuf> = lines.map(|line| Some(line.split_once(' ')?.1.into())).collect::<Option<_>>()?;
    (stamp(recipe, root, &sources)? == old).then_some(sources)
}

/// The prerequisites in a make rule, as compilers write them.
pub(crate) fn prerequisites(rule: &str) -> Vec<PathBuf> {
    let Some((_, list)) = rule.split_once(" : ") else { return Vec::new() };
    // A space within a name is written `\ `. No name contains the placeholder.
    const SPACE: &str = "\0";
    let list = list.replace("\\\n", " ").replace("\\ ", SPACE);
    list.split_whitespace().map(|path| normalise(Path::new(&path.replace(SPACE, " ")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_until_recipe_or_content_changes() {
        let root = tempfile::tempdir().unwrap();
        let source = PathBuf::from("a file.cu");
        fs::write(root.path().join(&source), "1").unwrap();
        let old = stamp("nvcc 13 -O3", root.path(), std::slice::from_ref(&source)).unwrap();
        assert_eq!(unchanged(&old, "nvcc 13 -O3", root.path()), Some(vec![source.clone()]));
        assert_eq!(unchanged(&old, "nvcc 13 -O2", root.path()), None);
        assert_eq!(unchanged(&old[..old.len() / 2], "nvcc 13 -O3", root.path()), None);
        fs::write(root.path().join(&source), "2").unwrap();
        assert_eq!(unchanged(&old, "nvcc 13 -O3", root.path()), None);
        fs::remove_file(root.path().join(&source)).unwrap();
        assert_eq!(unchanged(&old, "nvcc 13 -O3", root.path()), None);
    }

    #[test]
    fn make_rules_are_parsed() {
        let rule = "out dir/x.ptx : kernels/gelu.cu \\\n    /t/bin/..//include/a.h \\\n    my\\ kernels/b.cuh\n";
        let want = ["kernels/gelu.cu", "/t/include/a.h", "my kernels/b.cuh"];
        assert_eq!(prerequisites(rule), want.map(PathBuf::from));
    }
}
