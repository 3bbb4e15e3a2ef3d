//! GPU architectures, as `IRONWARP_ARCHS` lists them.

use std::fmt;

use crate::{Error, Result};

/// An architecture that kernels are compiled for: `80`, `90a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arch {
    /// Ten times the major compute capability, plus the minor one.
    pub number: u32,
    /// `a`: with the instructions of this architecture alone, such as wgmma, and so for no other.
    pub specific: bool,
}

impl Arch {
    /// bf16 arithmetic and `cp.async`, which every kernel may use, came with 80.
    const OLDEST: u32 = 80;
    /// The architectures of a build that names none.
    pub const DEFAULT: &str = "80,90a";

    /// A comma-separated list, in order and without repetitions.
    ///
    /// # Errors
    /// [`Error::Archs`] for an entry that is none, or an empty list.
    pub fn list(list: &str) -> Result<Vec<Arch>> {
        let bad = |entry: &str| Error::Archs { list: list.to_owned(), entry: entry.to_owned() };
        let entries = list.split(',').map(str::trim);
        let mut archs =
            entries.map(|entry| Arch::parse(entry).ok_or_else(|| bad(entry))).collect::<Result<Vec<_>>>()?;
        archs.sort();
        archs.dedup();
        Ok(archs)
    }

    fn parse(entry: &str) -> Option<Arch> {
        let (digits, specific) = entry.strip_suffix('a').map_or((entry, false), |digits| (digits, true));
        // `parse` alone would take "+80".
        let number = digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())??;
        (number >= Arch::OLDEST).then_some(Arch { number, specific })
    }

    /// Whether a kernel file of this stem is compiled for it: `matmul_sm90` needs 90 or newer.
    pub(crate) fn runs(self, stem: &str) -> bool {
        let written_for = stem.rsplit_once("_sm").and_then(|(_, digits)| digits.parse().ok());
        written_for.is_none_or(|oldest: u32| self.number >= oldest)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.number, if self.specific { "a" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_checked() {
        let names = |list| Arch::list(list).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(Arch::DEFAULT), ["80", "90a"]);
        assert_eq!(names(" 120, 90a,80 ,90,90a"), ["80", "90", "90a", "120"]);
        for (list, entry) in
            [("", ""), ("80,", ""), ("80;90", "80;90"), ("sm_80", "sm_80"), ("75", "75"), ("+80", "+80")]
        {
            let error = Arch::list(list).unwrap_err().to_string();
            assert!(error.starts_with(&format!("IRONWARP_ARCHS = {list:?}: {entry:?} is no architecture")), "{error}");
        }
    }

    #[test]
    fn a_file_name_says_what_it_needs() {
        let [a80, a90a, a120] = Arch::list("80,90a,120").unwrap()[..] else { unreachable!() };
        for (stem, runs) in [
            ("gelu", [true; 3]),
            ("matmul_sm80", [true; 3]),
            ("matmul_sm90", [false, true, true]),
            ("a_smooth", [true; 3]),
        ] {
            assert_eq!([a80, a90a, a120].map(|arch| arch.runs(stem)), runs, "{stem}");
        }
    }
}
