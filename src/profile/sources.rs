//! The kernels' sources, which the program carries: to show lines with their counts wherever it runs.

use include_dir::{Dir, include_dir};

static KERNELS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/kernels");

/// The text of a file such as `kernels/common/reduce.cuh`; none for what is not ours, such as a toolkit's header.
pub fn text(path: &str) -> Option<&'static str> {
    KERNELS.get_file(path.strip_prefix("kernels/")?)?.contents_utf8()
}

/// The file and number of a place such as `kernels/gelu.cu:31`.
pub fn place(place: &str) -> Option<(&str, usize)> {
    let (file, line) = place.rsplit_once(':')?;
    Some((file, line.parse().ok()?))
}

/// The line at a place, without its indentation.
pub fn line(at: &str) -> Option<&'static str> {
    let (file, line) = place(at)?;
    text(file)?.lines().nth(line.checked_sub(1)?).map(str::trim)
}
