//! Where an instruction comes from in the source, by `.loc`.

use std::collections::HashMap;

/// File number, line and column.
pub type Place = (u32, u32, u32);

/// The places of a module's `.loc`, as they are met.
pub struct Places<'a> {
    files: &'a [(u32, String)],
    /// Where each place is inlined.
    inlined: HashMap<Place, Place>,
    /// What the last `.loc` came to.
    last: Option<(Place, Place)>,
}

impl<'a> Places<'a> {
    /// `files` as `.file` numbers them.
    pub fn new(files: &'a [(u32, String)]) -> Self {
        Self { files, inlined: HashMap::new(), last: None }
    }

    /// Takes a `.loc`. Gives the place to name: the innermost one in a file of the program's own, and the outermost
    /// that it is inlined in. The toolkit's headers are passed over towards the code that calls them.
    /// Line 0 stands for no line; what follows is counted to the line before.
    pub fn locate(&mut self, place: Place, inlined_at: Option<Place>) -> (Place, Place) {
        if place.1 == 0
            && let Some(last) = self.last
        {
            return last;
        }
        match inlined_at {
            Some(outer) => self.inlined.insert(place, outer),
            None => self.inlined.remove(&place),
        };
        let (mut shown, mut outermost) = (place, place);
        // A chain that runs in a circle is malformed; no real one is this long.
        for _ in 0..64 {
            let Some(&outer) = self.inlined.get(&outermost) else { break };
            outermost = outer;
            if !self.own(shown.0) {
                shown = outer;
            }
        }
        *self.last.insert((shown, outermost))
    }

    /// `kernels/x.cu:12`; `None` for a file that has no number.
    pub fn name(&self, place: Place) -> Option<String> {
        self.index(place.0).map(|index| format!("{}:{}", self.files[index].1, place.1))
    }

    /// The index of a file in the list.
    pub fn index(&self, file: u32) -> Option<usize> {
        self.files.iter().position(|&(number, _)| number == file)
    }

    /// The toolkit's headers go by absolute paths, or by `include/…` where the build has made them portable.
    fn own(&self, file: u32) -> bool {
        let path = self.index(file).map(|index| self.files[index].1.as_str());
        path.is_some_and(|path| !path.starts_with('/') && !path.starts_with("include/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_by_the_programs_own_file() {
        let files = [(1, "a.cu".to_owned()), (2, "b.cuh".to_owned()), (3, "include/cuda_bf16.h".to_owned())];
        let mut places = Places::new(&files);
        assert_eq!(places.locate((1, 8, 1), None), ((1, 8, 1), (1, 8, 1)));
        assert_eq!(places.locate((2, 5, 1), Some((1, 8, 1))), ((2, 5, 1), (1, 8, 1)));
        assert_eq!(places.locate((3, 99, 1), Some((2, 5, 1))), ((2, 5, 1), (1, 8, 1)));
        assert_eq!(places.locate((1, 0, 1), None), ((2, 5, 1), (1, 8, 1)));
        // A circle ends; a file without a number has no name.
        assert_eq!(places.locate((1, 8, 1), Some((3, 99, 1))).0, (1, 8, 1));
        assert_eq!(places.name((2, 5, 1)).as_deref(), Some("b.cuh:5"));
        assert_eq!(places.name((7, 5, 1)), None);
    }
}
