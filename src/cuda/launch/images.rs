//! The compiled kernels that are embedded in the program.

/// A kernel file compiled for an architecture.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The file's name without `.cu`.
    pub stem: &'static str,
    /// Ten times the compute capability, with an `a` if the code runs on this architecture only: `80`, `90a`.
    pub arch: &'static str,
    /// PTX, which the driver compiles for the GPU at hand: for `arch` if its code runs on this architecture only, else for
    /// the oldest architecture that the file supports.
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
    /// Machine code for the device's architecture, or for an earlier minor version of the same major one.
    Cubin(&'a [u8]),
    /// PTX for the same or an older architecture, which the driver compiles.
    Ptx(&'a str),
}

/// The code of a kernel file for a compute capability such as `(8, 6)`, best first: machine code for this architecture,
/// then for earlier minor versions of the same major one, then PTX from the newest architecture that fits to the oldest,
/// each text once.
/// Code for a specific architecture such as `90a` fits this architecture only. If the driver rejects one candidate, it may
/// accept the next.
///
/// Machine code of an earlier minor version is complete, and compiling the PTX of all kernels instead takes 10 to 15
/// seconds of CPU time when a program runs for the first time. The CUDA programming guide, section "Binary
/// compatibility", guarantees that such machine code runs on GPUs for desktops and servers. On a Tegra (8.7) the driver
/// decides.
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
    let same_major = fitting.iter().filter(|image| image.number() / 10 == major);
    let cubins = same_major.map(|image| Code::Cubin(image.cubin));
    let mut codes: Vec<Code<'static>> = cubins.chain(fitting.iter().map(|image| Code::Ptx(image.ptx))).collect();
    // Images for several architectures share their PTX.
    codes.dedup();
    codes
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
    fn cubins_of_the_same_major_version_then_the_newest_ptx_that_fits() {
        let images = [
            image("a", "80", "a80", b"A80"),
            image("a", "86", "a86", b"A86"),
            image("a", "90", "a90", b"A90"),
            image("a", "90a", "a90a", b"A90a"),
            image("b_sm90", "90a", "b90a", b"B90a"),
            image("d", "100", "d100", b"D100"),
            image("d", "103a", "d103a", b"D103a"),
            image("d", "120", "d120", b"D120"),
            image("e", "80", "e80", b"E80"),
            image("e", "86", "e80", b"E86"),
            image("e", "89", "e80", b"E89"),
        ];
        let (cubin, ptx) = (|code: &'static str| Code::Cubin(code.as_bytes()), Code::Ptx);
        for (stem, capability, want) in [
            ("a", (8, 0), vec![cubin("A80"), ptx("a80")]),
            ("a", (8, 6), vec![cubin("A86"), cubin("A80"), ptx("a86"), ptx("a80")]),
            // Not 8.6's cubin on the earlier 8.0, nor on 8.5, of which no GPU exists.
            ("a", (8, 5), vec![cubin("A80"), ptx("a80")]),
            ("a", (8, 9), vec![cubin("A86"), cubin("A80"), ptx("a86"), ptx("a80")]),
            ("a", (9, 0), vec![cubin("A90a"), cubin("A90"), ptx("a90a"), ptx("a90"), ptx("a86"), ptx("a80")]),
            ("a", (12, 1), vec![ptx("a90"), ptx("a86"), ptx("a80")]),
            ("d", (10, 0), vec![cubin("D100"), ptx("d100")]),
            ("d", (10, 3), vec![cubin("D103a"), cubin("D100"), ptx("d103a"), ptx("d100")]),
            ("d", (11, 0), vec![ptx("d100")]),
            ("d", (12, 1), vec![cubin("D120"), ptx("d120"), ptx("d100")]),
            ("d", (9, 0), vec![]),
            ("a", (7, 5), vec![]),
            ("b_sm90", (9, 0), vec![cubin("B90a"), ptx("b90a")]),
            // wgmma exists on Hopper only.
            ("b_sm90", (10, 0), vec![]),
            ("c", (9, 0), vec![]),
            ("e", (8, 9), vec![cubin("E89"), cubin("E86"), cubin("E80"), ptx("e80")]),
        ] {
            assert_eq!(select(&images, stem, capability), want, "{stem} on {capability:?}");
        }
    }

    /// PTX contains source paths relative to the project's folder, wherever it was built.
    #[test]
    fn the_build_embedded_every_kernel() {
        assert!(IMAGES.iter().any(|image| image.stem == "gelu"));
        for Image { stem, arch, ptx, cubin, resources } in IMAGES {
            let target = ptx.lines().find_map(|line| line.strip_prefix(".target sm_")).expect("PTX names its target");
            let number = |arch: &str| arch.trim_end_matches('a').parse::<u32>().unwrap();
            let fits = if arch.ends_with('a') { target == *arch } else { number(target) <= number(arch) };
            assert!(fits, "{stem} for {arch}: PTX for {target}");
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
