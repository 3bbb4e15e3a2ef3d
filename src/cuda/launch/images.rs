//! The compiled kernels that are embedded in the program.

/// A kernel file compiled for an architecture.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The file's name without `.cu`.
    pub stem: &'static str,
    /// Ten times the compute capability, with an `a` if the code runs on this architecture only: `80`, `90a`.
    pub arch: &'static str,
    /// PTX, which the driver compiles for the GPU at hand.
    pub ptx: &'static str,
    /// Machine code that ptxas compiled from `ptx`.
    pub cubin: &'static [u8],
    /// Resource usage of each kernel in `cubin`, sorted by name.
    pub resources: &'static [Resources],
}

/// Resource usage of a kernel as ptxas reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Name of the entry point.
    pub kernel: &'static str,
    /// Registers per thread.
    pub registers: u32,
    /// Local memory per thread, in bytes.
    pub stack_bytes: u32,
    /// Bytes per thread that spill stores write. Always 0, as the build fails on spills.
    pub spill_store_bytes: u32,
    /// Bytes per thread that spill loads read. Always 0, as the build fails on spills.
    pub spill_load_bytes: u32,
    /// Static shared memory per block in bytes, without the 1 KiB that the driver reserves. A launch adds dynamic shared
    /// memory.
    pub shared_bytes: u32,
}

/// Every kernel file for every architecture of the build, sorted by stem and architecture; empty if the environment
/// variable `DOCS_RS` was set for the build.
pub static IMAGES: &[Image] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Code of an [`Image`] that a driver can load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code<'a> {
    /// Machine code for exactly the device's architecture.
    Cubin(&'a [u8]),
    /// PTX for the same or an older architecture, which the driver compiles.
    Ptx(&'a str),
}

/// The code of a kernel file for a compute capability such as `(9, 0)`, best first: machine code for exactly this
/// architecture, then PTX from the newest architecture that fits to the oldest. If the driver rejects one candidate, it
/// may accept the next.
pub fn candidates(stem: &str, capability: (u32, u32)) -> Vec<Code<'static>> {
    select(IMAGES, stem, capability)
}

/// Why there is no [candidate](candidates), for an error message.
pub(crate) fn why_none() -> &'static str {
    if IMAGES.is_empty() {
        "the build embeds no kernels, because DOCS_RS was set"
    } else {
        "the build has no code for this architecture"
    }
}

fn select(images: &[Image], stem: &str, (major, minor): (u32, u32)) -> Vec<Code<'static>> {
    let device = 10 * major + minor;
    let mut fitting: Vec<&Image> = images.iter().filter(|image| image.stem == stem && image.fits(device)).collect();
    // Of two images for one architecture the specific one (90a) comes first: it may use all instructions.
    fitting.sort_by_key(|image| std::cmp::Reverse((image.number(), image.is_specific())));
    let exact = fitting.first().filter(|image| image.number() == device).map(|image| Code::Cubin(image.cubin));
    exact.into_iter().chain(fitting.iter().map(|image| Code::Ptx(image.ptx))).collect()
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
        Image { stem, arch, ptx, cubin, resources: &[] }
    }

    #[test]
    fn the_exact_cubin_then_the_newest_ptx_that_fits() {
        let images = [
            image("a", "80", "a80", b"A80"),
            image("a", "90", "a90", b"A90"),
            image("a", "90a", "a90a", b"A90a"),
            image("b_sm90", "90a", "b90a", b"B90a"),
        ];
        let (cubin, ptx) = (|code: &'static str| Code::Cubin(code.as_bytes()), Code::Ptx);
        for (stem, capability, want) in [
            ("a", (8, 0), vec![cubin("A80"), ptx("a80")]),
            ("a", (8, 9), vec![ptx("a80")]),
            ("a", (9, 0), vec![cubin("A90a"), ptx("a90a"), ptx("a90"), ptx("a80")]),
            ("a", (12, 1), vec![ptx("a90"), ptx("a80")]),
            ("a", (7, 5), vec![]),
            ("b_sm90", (9, 0), vec![cubin("B90a"), ptx("b90a")]),
            // wgmma exists on Hopper only.
            ("b_sm90", (10, 0), vec![]),
            ("c", (9, 0), vec![]),
        ] {
            assert_eq!(select(&images, stem, capability), want, "{stem} on {capability:?}");
        }
    }

    /// PTX contains source paths relative to the project's folder, wherever it was built.
    #[test]
    fn the_build_embedded_every_kernel() {
        assert!(IMAGES.iter().any(|image| image.stem == "gelu"));
        for Image { stem, arch, ptx, cubin, resources } in IMAGES {
            assert!(ptx.contains(&format!("\n.target sm_{arch}\n")), "{stem} for {arch}");
            assert_eq!(cubin[..4], *b"\x7fELF", "{stem} for {arch}");
            let entries = ptx.matches(".entry ").count();
            assert!(resources.len() == entries && entries > 0, "{stem} for {arch}: {entries} kernels, {resources:?}");
            for taken in *resources {
                assert!((1..=255).contains(&taken.registers), "{stem} for {arch}: {taken:?}");
                assert!(ptx.contains(&format!(".entry {}(", taken.kernel)), "{stem} for {arch}: {taken:?}");
            }
            for line in ptx.lines().filter(|line| line.trim_start().starts_with(".file")) {
                assert!(line.contains("\"kernels/") || line.contains("\"include/"), "{stem} for {arch}: {line}");
            }
        }
    }
}
