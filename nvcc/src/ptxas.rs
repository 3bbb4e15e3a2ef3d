//! Parses the output of ptxas: the resources that kernels need, and findings that violate the rules for kernels.

/// A fault in a kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The function, as ptxas names it.
    pub kernel: String,
    /// The violation, with the numbers or the text of ptxas.
    pub fault: String,
    /// Whether it is a register spill, which a build may allow; other findings always fail the build.
    pub spill: bool,
}

/// The resources that a kernel needs, as ptxas reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Name of the entry point.
    pub kernel: String,
    /// Registers per thread.
    pub registers: u64,
    /// Bytes of local memory per thread: stack frame, spill stores, spill loads.
    pub local: [u64; 3],
    /// Bytes of static shared memory per block.
    pub shared: u64,
}

/// The resources of the kernels in the output of `ptxas -v`, sorted by name.
pub(crate) fn resources(log: &str) -> Vec<Resources> {
    let mut kernels: Vec<Resources> = Vec::new();
    // ptxas also prints properties of functions that are not inlined. Those are not properties of the kernel.
    let (mut entry, mut function, mut local) = ("", "", [0; 3]);
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            entry = rest.split('\'').next().unwrap_or(rest);
        } else if let Some((_, name)) = line.split_once("Function properties for ") {
            function = name.trim();
        } else if let Some(bytes) = local_memory(line)
            && function == entry
        {
            local = bytes;
        } else if let Some((_, used)) = line.split_once(": Used ") {
            let number = |what| used.split(", ").find_map(|part| part.trim().strip_suffix(what)?.parse().ok());
            let Some(registers) = number(" registers") else { continue };
            let shared = number(" bytes smem").unwrap_or(0);
            kernels.push(Resources { kernel: entry.to_owned(), registers, local, shared });
        }
    }
    kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    kernels
}

/// Reads the output of `ptxas -v` on `ptx`.
pub(crate) fn findings(log: &str, ptx: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut function = "";
    for line in log.lines() {
        if let Some((_, name)) = line.split_once("Function properties for ") {
            function = name.trim();
        } else if let Some([_, stores, loads]) = local_memory(line) {
            if stores + loads > 0 {
                let fault = format!("registers are spilled: {stores} bytes of stores, {loads} bytes of loads");
                findings.push(Finding { kernel: function.to_owned(), fault, spill: true });
            }
        } else if line.contains("wgmma.mma_async instructions are serialized") {
            let kernel = line.split_once("function '").and_then(|(_, rest)| rest.split('\'').next());
            findings.push(Finding {
                kernel: kernel.unwrap_or("unknown").to_owned(),
                fault: message(line),
                spill: false,
            });
        } else if line.contains("'setmaxnreg' ignored") {
            // ptxas does not name the kernel.
            let kernel = entries_with("setmaxnreg", ptx).join(" or ");
            findings.push(Finding { kernel, fault: message(line), spill: false });
        }
    }
    findings
}

/// Parses `[80, 64, 48]` from `    80 bytes stack frame, 64 bytes spill stores, 48 bytes spill loads`.
fn local_memory(line: &str) -> Option<[u64; 3]> {
    let mut parts = line.split(',').map(str::trim);
    let mut number = |what| parts.next()?.strip_suffix(what)?.parse().ok();
    Some([number(" bytes stack frame")?, number(" bytes spill stores")?, number(" bytes spill loads")?])
}

/// The message of a line, without `ptxas info    : (C7508) Potential Performance Loss: `.
fn message(line: &str) -> String {
    line.rsplit_once("Loss: ").map_or(line, |(_, message)| message).trim().to_owned()
}

/// The kernels of a PTX text.
pub(crate) fn entries(ptx: &str) -> Vec<&str> {
    entries_with("", ptx)
}

/// The kernels of a PTX text that use an instruction.
fn entries_with<'a>(instruction: &str, ptx: &'a str) -> Vec<&'a str> {
    let bodies = ptx.split(".entry ").skip(1).filter(|body| body.contains(instruction));
    bodies.map(|body| body.split('(').next().unwrap_or(body).trim()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kernel: &str, fault: &str, spill: bool) -> Finding {
        Finding { kernel: kernel.into(), fault: fault.into(), spill }
    }

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'greedy' for 'sm_80'
ptxas info    : Function properties for greedy
    64 bytes stack frame, 64 bytes spill stores, 48 bytes spill loads
ptxas info    : Function properties for _Z6helperf
    8 bytes stack frame, 0 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 72 bytes cumulative stack size, 4096 bytes smem, 360 bytes cmem[0]
ptxas info    : Compile time = 8.517 ms
ptxas info    : Compiling entry function 'clean' for 'sm_80'
ptxas info    : Function properties for clean
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 360 bytes cmem[0]
";

    #[test]
    fn spills_are_read_with_their_function() {
        let faults = ["64 bytes of stores, 48 bytes of loads", "0 bytes of stores, 8 bytes of loads"];
        let [greedy, helper] = faults.map(|fault| format!("registers are spilled: {fault}"));
        assert_eq!(findings(LOG, ""), [finding("greedy", &greedy, true), finding("_Z6helperf", &helper, true)]);
    }

    #[test]
    fn resources_are_read_by_kernel() {
        let kernel =
            |kernel: &str, registers, local, shared| Resources { kernel: kernel.into(), registers, local, shared };
        let clean = kernel("clean", 8, [16, 0, 0], 0);
        let greedy = kernel("greedy", 32, [64, 64, 48], 4096);
        assert_eq!(resources(LOG), [clean, greedy], "in the order of names, not of the log, and without the helper");
    }

    #[test]
    fn lost_hopper_instructions_are_read() {
        let log = "\
ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ill formed \
pipeline stage in the function 'matmul'
ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; unable to determine register count at entry.
ptxas info    : (C7517) warpgroup.wait is injected in around line 44 by compiler to allow use of registers
";
        let ptx = ".entry other(.param .b64 a) { ret; }\n.visible .entry attention(\n) { setmaxnreg.dec.sync.aligned.u32 24; }";
        let serialized =
            "wgmma.mma_async instructions are serialized due to ill formed pipeline stage in the function 'matmul'";
        let ignored = "'setmaxnreg' ignored; unable to determine register count at entry.";
        assert_eq!(findings(log, ptx), [finding("matmul", serialized, false), finding("attention", ignored, false)]);
    }
}
