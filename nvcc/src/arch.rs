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
    /// The architectures that the list `all` names, for builds that run on other machines: those of the GPUs for servers
    /// and desktops since Ampere. GPUs of a later minor version run the machine code of an earlier one.
    pub const ALL: &str = "80,86,89,90a,100,120";

    /// Parses a comma-separated list, or `all`, which stands for [`Arch::ALL`]. The result is sorted and has no
    /// duplicates.
    ///
    /// # Errors
    /// [`Error::Archs`] for an entry that is not a supported architecture, or an empty list.
    pub fn list(list: &str) -> Result<Vec<Arch>> {
        let bad = |entry: &str| Error::Archs { list: list.to_owned(), entry: entry.to_owned() };
        let entries = if list.trim() == "all" { Arch::ALL } else { list }.split(',').map(str::trim);
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
        self.number >= Arch::oldest(stem)
    }

    /// The architecture whose PTX of a kernel file of this stem is assembled for this one: a specific architecture has its
    /// own. All others share that of the oldest one that the file supports. It is the text that the emulator runs, and the
    /// front end writes different instructions for 100 and 120, with which ptxas spilled registers in attention.
    pub(crate) fn of_ptx(self, stem: &str) -> Arch {
        if self.specific { self } else { Arch { number: Arch::oldest(stem), specific: false } }
    }

    /// Number of the oldest architecture that a kernel file of this stem supports.
    fn oldest(stem: &str) -> u32 {
        let written_for = stem.rsplit_once("_sm").and_then(|(_, digits)| digits.parse().ok());
        written_for.map_or(Arch::OLDEST, |oldest: u32| oldest.max(Arch::OLDEST))
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
        assert_eq!([names(" all "), names(Arch::ALL)], [["80", "86", "89", "90a", "100", "120"]; 2]);
        assert_eq!(names(" 120, 90a,80 ,90,90a"), ["80", "90", "90a", "120"]);
        for (list, entry) in [
            ("", ""),
            ("80,", ""),
            ("80;90", "80;90"),
            ("sm_80", "sm_80"),
            ("75", "75"),
            ("+80", "+80"),
            ("all,80", "all"),
        ] {
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
        for (stem, ptx) in [("gelu", ["80", "90a", "80"]), ("matmul_sm90", ["90", "90a", "90"])] {
            assert_eq!([a80, a90a, a120].map(|arch| arch.of_ptx(stem).to_string()), ptx, "{stem}");
        }
    }
}
