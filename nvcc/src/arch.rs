//! GPU architectures, as `IRONWARP_ARCHS` lists them.

use std::fmt;

use crate::{Error, Result};

/// An architecture that kernels are compiled for: `80`, `90a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arch {
    /// Ten times the major compute capability, plus the minor one.
    pub number: u32,
    /// Suffix `a`: code may use the instructions that only this architecture has, such as wgmma, and runs on no other.
    pub specific: bool,
}

impl Arch {
    /// Every kernel may use bf16 arithmetic and `cp.async`, which sm_80 introduced.
    const OLDEST: u32 = 80;
    /// The architectures of a build for which `IRONWARP_ARCHS` is not set.
    pub const DEFAULT: &str = "80,90a";

    /// Parses a comma-separated list. The result is sorted and has no duplicates.
    ///
    /// # Errors
    /// [`Error::Archs`] for an entry that is not a supported architecture, or an empty list.
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
        // `parse` would accept "+80".
        let number = digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())??;
        (number >= Arch::OLDEST).then_some(Arch { number, specific })
    }

    /// Whether a kernel file of this stem is compiled for this architecture: `matmul_sm90` needs 90 or newer.
    pub(crate) fn supports(self, stem: &str) -> bool {
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
            assert!(
                error.starts_with(&format!("IRONWARP_ARCHS = {list:?}: {entry:?} is not an architecture")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_suffix_of_a_file_is_its_oldest_architecture() {
        let [a80, a90a, a120] = Arch::list("80,90a,120").unwrap()[..] else { unreachable!() };
        for (stem, supported) in [
            ("gelu", [true; 3]),
            ("matmul_sm80", [true; 3]),
            ("matmul_sm90", [false, true, true]),
            ("a_smooth", [true; 3]),
        ] {
            assert_eq!([a80, a90a, a120].map(|arch| arch.supports(stem)), supported, "{stem}");
        }
    }
}
