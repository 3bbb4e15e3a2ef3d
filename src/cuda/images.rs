//! The compiled kernels that the program carries.

/// A kernel file compiled for an architecture.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The file's name without `.cu`.
    pub stem: &'static str,
    /// Ten times the compute capability, with an `a` where the code runs on no other: `80`, `90a`.
    pub arch: &'static str,
    /// Assembly that a driver compiles for the GPU it finds.
    pub ptx: &'static str,
    /// Machine code, made of `ptx`.
    pub cubin: &'static [u8],
}

/// Every kernel file with every architecture of the build, by stem and architecture.
pub static IMAGES: &[Image] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What to load of an [`Image`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Machine code for the very architecture.
    Cubin(&'static [u8]),
    /// PTX of an older architecture, for the driver to compile.
    Ptx(&'static str),
}

/// The code of a kernel file for a compute capability such as `(9, 0)`: the exact cubin, else the newest PTX that fits.
pub fn find(stem: &str, capability: (u32, u32)) -> Option<Code> {
    select(IMAGES, stem, capability)
}

fn select(images: &[Image], stem: &str, (major, minor): (u32, u32)) -> Option<Code> {
    let device = 10 * major + minor;
    let fitting = images.iter().filter(|image| image.stem == stem && image.fits(device));
    // Of two for the same architecture, the one that may use all its instructions.
    let newest = fitting.max_by_key(|image| (image.number(), image.is_specific()))?;
    Some(if newest.number() == device { Code::Cubin(newest.cubin) } else { Code::Ptx(newest.ptx) })
}

impl Image {
    fn is_specific(&self) -> bool {
        self.arch.ends_with('a')
    }

    fn number(&self) -> u32 {
        self.arch.trim_end_matches('a').parse().expect("the build writes architectures as numbers")
    }

    fn fits(&self, device: u32) -> bool {
        if self.is_specific() { self.number() == device } else { self.number() <= device }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn image(stem: &'static str, arch: &'static str, ptx: &'static str, cubin: &'static [u8]) -> Image {
        Image { stem, arch, ptx, cubin }
    }

    #[test]
    fn the_exact_cubin_else_the_newest_ptx_that_fits() {
        let images = [
            image("a", "80", "a80", b"A80"),
            image("a", "90", "a90", b"A90"),
            image("a", "90a", "a90a", b"A90a"),
            image("b_sm90", "90a", "b90a", b"B90a"),
        ];
        for (stem, capability, want) in [
            ("a", (8, 0), Some(Code::Cubin(b"A80"))),
            ("a", (8, 9), Some(Code::Ptx("a80"))),
            ("a", (9, 0), Some(Code::Cubin(b"A90a"))),
            ("a", (12, 1), Some(Code::Ptx("a90"))),
            ("a", (7, 5), None),
            ("b_sm90", (9, 0), Some(Code::Cubin(b"B90a"))),
            // wgmma is Hopper's alone.
            ("b_sm90", (10, 0), None),
            ("c", (9, 0), None),
        ] {
            assert_eq!(select(&images, stem, capability), want, "{stem} on {capability:?}");
        }
    }

    /// PTX names its sources from the project's folder, wherever it was built.
    #[test]
    fn the_build_embedded_every_kernel() {
        assert!(IMAGES.iter().any(|image| image.stem == "gelu"));
        for Image { stem, arch, ptx, cubin } in IMAGES {
            assert!(ptx.contains(&format!("\n.target sm_{arch}\n")), "{stem} for {arch}");
            assert_eq!(cubin[..4], *b"\x7fELF", "{stem} for {arch}");
            for line in ptx.lines().filter(|line| line.trim_start().starts_with(".file")) {
                assert!(line.contains("\"kernels/") || line.contains("\"include/"), "{stem} for {arch}: {line}");
            }
        }
    }
}
