//! Source locations: which line of the CUDA source an instruction comes from, by `.loc`.

use std::collections::HashMap;

/// File number, line and column, as `.loc` names them.
pub type Location = (u32, u32, u32);

/// Maps the `.loc` directives of a module to source locations.
///
/// ```
/// use ptx_emulator::source_map::SourceMap;
///
/// let files = [(1, "a.cu".to_owned()), (2, "include/cuda_bf16.h".to_owned())];
/// let mut map = SourceMap::new(&files);
/// // A line of a toolkit header that is inlined into line 8 of a.cu.
/// let (shown, outermost) = map.locate((2, 99, 1), Some((1, 8, 1)));
/// assert_eq!(map.name(shown).as_deref(), Some("a.cu:8"));
/// assert_eq!(shown, outermost);
/// ```
pub struct SourceMap<'a> {
    files: &'a [(u32, String)],
    /// By location: the location that it is inlined at.
    inlined_at: HashMap<Location, Location>,
    /// Result of the last [`SourceMap::locate`].
    last: Option<(Location, Location)>,
}

impl<'a> SourceMap<'a> {
    /// A map for the numbered paths of a module's `.file` directives.
    pub fn new(files: &'a [(u32, String)]) -> Self {
        Self { files, inlined_at: HashMap::new(), last: None }
    }

    /// The locations for a `.loc` directive, which must be passed in the order of the text: the innermost one in a file of
    /// the program itself, and the outermost one that it is inlined at. Toolkit headers are skipped in favour of the code
    /// that calls them. Line 0 means that there is no line: the last locations are returned again.
    pub fn locate(&mut self, location: Location, inlined_at: Option<Location>) -> (Location, Location) {
        if location.1 == 0
            && let Some(last) = self.last
        {
            return last;
        }
        match inlined_at {
            Some(outer) => self.inlined_at.insert(location, outer),
            None => self.inlined_at.remove(&location),
        };
        let (mut shown, mut outermost) = (location, location);
        // The limit ends malformed chains that are cyclic; no real chain is this long.
        for _ in 0..64 {
            let Some(&outer) = self.inlined_at.get(&outermost) else { break };
            outermost = outer;
            if !self.is_own_file(shown.0) {
                shown = outer;
            }
        }
        *self.last.insert((shown, outermost))
    }

    /// `kernels/x.cu:12`; `None` if no `.file` has the location's number.
    pub fn name(&self, location: Location) -> Option<String> {
        self.file_index(location.0).map(|index| format!("{}:{}", self.files[index].1, location.1))
    }

    /// The position of a file number in the list of files.
    pub fn file_index(&self, file: u32) -> Option<usize> {
        self.files.iter().position(|&(number, _)| number == file)
    }

    /// Toolkit headers have absolute paths, or `include/…` if the build has made the paths portable.
    fn is_own_file(&self, file: u32) -> bool {
        let path = self.file_index(file).map(|index| self.files[index].1.as_str());
        path.is_some_and(|path| !path.starts_with('/') && !path.starts_with("include/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_named_by_the_programs_own_file() {
        let files = [(1, "a.cu".to_owned()), (2, "b.cuh".to_owned()), (3, "include/cuda_bf16.h".to_owned())];
        let mut map = SourceMap::new(&files);
        assert_eq!(map.locate((1, 8, 1), None), ((1, 8, 1), (1, 8, 1)));
        assert_eq!(map.locate((2, 5, 1), Some((1, 8, 1))), ((2, 5, 1), (1, 8, 1)));
        assert_eq!(map.locate((3, 99, 1), Some((2, 5, 1))), ((2, 5, 1), (1, 8, 1)));
        assert_eq!(map.locate((1, 0, 1), None), ((2, 5, 1), (1, 8, 1)));
        // A cyclic chain ends; a file without a number has no name.
        assert_eq!(map.locate((1, 8, 1), Some((3, 99, 1))).0, (1, 8, 1));
        assert_eq!(map.name((2, 5, 1)).as_deref(), Some("b.cuh:5"));
        assert_eq!(map.name((7, 5, 1)), None);
    }
}
