//! The kernels' sources. They are embedded, so that the program can show lines with their counts wherever it runs.

use include_dir::{Dir, include_dir};

static KERNELS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/kernels");

/// The text of a file such as `kernels/common/reduce.cuh`; `None` for a file of another project, such as a header of
/// the CUDA toolkit.
pub fn text(path: &str) -> Option<&'static str> {
    KERNELS.get_file(path.strip_prefix("kernels/")?)?.contents_utf8()
}

/// File and line number of a location such as `kernels/gelu.cu:31`.
pub fn split(location: &str) -> Option<(&str, usize)> {
    let (file, line) = location.rsplit_once(':')?;
    Some((file, line.parse().ok()?))
}

/// The source line at a location, without its indentation.
pub fn line(location: &str) -> Option<&'static str> {
    let (file, line) = split(location)?;
    text(file)?.lines().nth(line.checked_sub(1)?).map(str::trim)
}
