//! The machine code (SASS) of a cubin, disassembled by `nvdisasm`: the instruction mix, and the main loop.

mod class;
mod flow;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use self::class::class;
use self::flow::{Flow, main_loop};
use crate::message::escaped_path;
use crate::{Error, Result};

/// The nvdisasm that `scripts/cuda-toolkit.sh` installs, from the target folder.
const PROJECT_NVDISASM: &str = "cuda-toolkit/nvidia/cu13/bin/nvdisasm";

/// Number of instructions by class: `LDG.128`, `FFMA`, `integer`.
pub type Mix = BTreeMap<&'static str, u64>;

/// The machine code of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sass {
    /// Number of instructions, including those of rarely taken branches and of called functions.
    pub instructions: u64,
    /// Number of instructions by class.
    pub mix: Mix,
    /// The longest innermost loop. Loops without loads and matrix multiplications are ignored: they spin on a flag, or
    /// fill memory with zeros.
    pub main_loop: Option<Loop>,
}

/// A loop of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loop {
    /// Number of instructions on all paths through the loop, without those of called functions.
    pub instructions: u64,
    /// Source line in a `.cu` file of the first instruction that has one: `kernels/gelu.cu:31`.
    pub source: Option<String>,
    /// Number of instructions by class.
    pub mix: Mix,
}

/// Finds nvdisasm: the file that NVDISASM names, else in CUDA_HOME or CUDA_PATH, in PATH, next to the nvcc in PATH, or
/// in the toolkit that `make toolkit` installs in the target folder, which is searched for in the folders above the
/// running program.
///
/// # Errors
/// [`Error::Unavailable`] with the list of files that were looked for.
pub fn find() -> Result<PathBuf> {
    let program = env::current_exe().map_err(|cause| Error::io("find", "the running program", cause))?;
    find_among(|name| env::var_os(name).filter(|value| !value.is_empty()), &program)
}

fn find_among(variable: impl Fn(&str) -> Option<OsString>, program: &Path) -> Result<PathBuf> {
    if let Some(path) = variable("NVDISASM") {
        return Ok(path.into());
    }
    let mut candidates = Vec::new();
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        candidates.extend(variable(name).map(|folder| (name, Path::new(&folder).join("bin/nvdisasm"))));
    }
    for folder in variable("PATH").iter().flat_map(env::split_paths) {
        candidates.push(("PATH", folder.join("nvdisasm")));
        // The nvcc in PATH may be a symbolic link into the toolkit's folder, which also has nvdisasm.
        if let Ok(nvcc) = folder.join("nvcc").canonicalize() {
            candidates.push(("PATH", nvcc.with_file_name("nvdisasm")));
        }
    }
    let project = program.ancestors().skip(1).take(3).map(|folder| ("project toolkit", folder.join(PROJECT_NVDISASM)));
    candidates.extend(project);
    if let Some((_, path)) = candidates.iter().find(|(_, path)| path.is_file()) {
        return Ok(path.clone());
    }
    let lines: Vec<String> =
        candidates.iter().map(|(origin, path)| format!("{origin}: {}", escaped_path(path))).collect();
    Err(Error::Unavailable(format!(
        "no nvdisasm was found, which disassembles machine code; NVDISASM can name one, `make toolkit` installs one. \
         Looked for:\n  {}",
        lines.join("\n  ")
    )))
}

/// Disassembles a cubin. Returns its kernels by name.
///
/// # Errors
/// When nvdisasm cannot be run, fails, or prints something that cannot be parsed.
pub fn disassemble(nvdisasm: &Path, cubin: &[u8]) -> Result<BTreeMap<String, Sass>> {
    let mut file = tempfile::Builder::new()
        .suffix(".cubin")
        .tempfile()
        .map_err(|cause| Error::io("create a file in", env::temp_dir(), cause))?;
    file.write_all(cubin).map_err(|cause| Error::io("write", file.path(), cause))?;
    let mut command = Command::new(nvdisasm);
    // Code only, with the source line of each instruction and the lines that it was inlined at.
    command.args(["--print-code", "--print-line-info-inline"]).arg(file.path());
    let output = command.output().map_err(|cause| Error::io("run", nvdisasm, cause))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::format(nvdisasm, format!("failed ({}): {}", output.status, said.trim())));
    }
    parse(&String::from_utf8_lossy(&output.stdout)).map_err(|message| Error::format(nvdisasm, message))
}

/// Parses the output of nvdisasm. Returns the kernels by name.
fn parse(text: &str) -> Result<BTreeMap<String, Sass>, String> {
    let mut kernels = BTreeMap::new();
    for section in text.split("\t.section\t.text.").skip(1) {
        let name = section.split(',').next().unwrap_or(section);
        // Device functions with external linkage have sections, too.
        if section.contains("@\"STO_CUDA_ENTRY") {
            let code = Code::read(section).map_err(|message| format!("kernel {name}: {message}"))?;
            kernels.insert(name.to_owned(), code.sass().map_err(|message| format!("kernel {name}: {message}"))?);
        }
    }
    if kernels.is_empty() {
        return Err("its output has no kernel".into());
    }
    Ok(kernels)
}

/// An instruction, without its predicate guard (`@!P0`).
struct Instruction<'a> {
    /// Whether it has a predicate guard.
    guarded: bool,
    opcode: &'a str,
    operands: &'a str,
    source: Option<(&'a str, &'a str)>,
}

impl Instruction<'_> {
    /// Whether it loads data or multiplies matrices. Strong loads, which poll a flag, do not count.
    fn is_work(&self) -> bool {
        let class = class(self.opcode, self.operands);
        let loads = class.starts_with("LD") && class != "LDC" && !self.opcode.contains(".STRONG");
        loads || class == "TMA" || class.ends_with("MMA")
    }
}

/// The code of a kernel's section.
#[derive(Default)]
struct Code<'a> {
    instructions: Vec<Instruction<'a>>,
    /// Index of the instruction that follows each label.
    labels: BTreeMap<&'a str, usize>,
}

impl<'a> Code<'a> {
    fn read(section: &'a str) -> Result<Code<'a>, String> {
        let mut code = Code::default();
        // Comment lines give the source line of the instructions that follow, one for each level of inlining, the
        // innermost first. They apply until the next group of comment lines.
        let (mut source, mut first_frame) = (None, true);
        for line in section.lines().map(str::trim) {
            if let Some(frame) = line.strip_prefix("//## File \"") {
                let kernel_file = frame.split_once("\", line ").filter(|(file, _)| file.ends_with(".cu"));
                let here = kernel_file.map(|(file, rest)| (file, rest.split(' ').next().unwrap_or(rest)));
                source = if first_frame { here } else { source.or(here) };
                first_frame = false;
            } else if let Some(rest) = line.strip_prefix("/*") {
                let (_, text) = rest.split_once("*/").ok_or_else(|| format!("{line:?} is not an instruction"))?;
                code.instructions.push(instruction(text, source));
                first_frame = true;
            } else if let Some(label) = line.strip_suffix(':') {
                code.labels.insert(label, code.instructions.len());
            }
        }
        code.drop_padding();
        if code.instructions.is_empty() { Err("it has no instructions".into()) } else { Ok(code) }
    }

    /// Removes the end of the section: a branch to itself, and NOPs that pad the section to its alignment.
    fn drop_padding(&mut self) {
        while self.instructions.last().is_some_and(|last| last.opcode == "NOP") {
            self.instructions.pop();
        }
        if let Some(last) = self.instructions.last()
            && last.opcode == "BRA"
            && labels(last.operands).next().and_then(|label| self.labels.get(label))
                == Some(&(self.instructions.len() - 1))
        {
            self.instructions.pop();
        }
    }

    fn flow(&self, instruction: &Instruction<'_>) -> Result<Flow, String> {
        let Instruction { guarded, opcode, operands, .. } = *instruction;
        let base = opcode.split('.').next().unwrap_or(opcode);
        match base {
            // The target handles diverged warps, which are rare, by doing the same work lane by lane.
            "BRA" if opcode == "BRA.DIV" => Ok(Flow::Next),
            "BRA" | "BRX" | "JMP" | "JMX" => {
                let target =
                    |label| self.labels.get(label).copied().ok_or_else(|| format!("there is no label {label}"));
                let targets = labels(operands).map(target).collect::<Result<Vec<_>, _>>()?;
                // The predicate may be an operand instead of a guard: `BRA.U !UP0, `(.L_x_9)`.
                let conditional = guarded || (base == "BRA" && !operands.starts_with('`'));
                Ok(Flow::Jump { targets, conditional })
            }
            "EXIT" | "RET" if !guarded => Ok(Flow::End),
            _ => Ok(Flow::Next),
        }
    }

    fn sass(&self) -> Result<Sass, String> {
        let flow = self.instructions.iter().map(|instruction| self.flow(instruction)).collect::<Result<Vec<_>, _>>()?;
        let main_loop = main_loop(&flow, |at| self.instructions[at].is_work()).map(|body| {
            let body: Vec<&Instruction<'_>> = body.iter().map(|&at| &self.instructions[at]).collect();
            let source = body.iter().find_map(|instruction| instruction.source);
            Loop {
                instructions: body.len() as u64,
                source: source.map(|(file, line)| format!("{file}:{line}")),
                mix: mix(body.into_iter()),
            }
        });
        Ok(Sass { instructions: self.instructions.len() as u64, mix: mix(self.instructions.iter()), main_loop })
    }
}

/// Parses an instruction such as `               @P0 LDG.E.128 R4, [R2.64] ;`.
fn instruction<'a>(text: &'a str, source: Option<(&'a str, &'a str)>) -> Instruction<'a> {
    let text = text.trim().trim_end_matches(';').trim_end();
    let (guarded, text) = match text.strip_prefix('@').and_then(|text| text.split_once(' ')) {
        Some((_, text)) => (true, text.trim_start()),
        None => (false, text),
    };
    let (opcode, operands) = text.split_once(' ').unwrap_or((text, ""));
    Instruction { guarded, opcode, operands: operands.trim_start(), source }
}

/// The labels in operands: one in `` `(.L_x_3) ``, several in `(*"BRANCH_TARGETS .L_x_3,.L_x_4"*)`.
fn labels(operands: &str) -> impl Iterator<Item = &str> {
    operands.split(|c: char| !(c.is_ascii_alphanumeric() || "._$".contains(c))).filter(|word| word.starts_with(".L"))
}

fn mix<'a>(instructions: impl Iterator<Item = &'a Instruction<'a>>) -> Mix {
    let mut mix = Mix::new();
    instructions.for_each(|it| *mix.entry(class(it.opcode, it.operands)).or_default() += 1);
    mix
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cuda::launch::images::IMAGES;

    /// Output of nvdisasm, shortened: parts of the loop, of the code around it and of the padding are left out.
    const PARTIALS: &str = r#"	.target	sm_90a

//--------------------- .text.grad_norm_partials  --------------------------
	.section	.text.grad_norm_partials,"ax",@progbits
	.align	128
        .global         grad_norm_partials
        .type           grad_norm_partials,@function
        .size           grad_norm_partials,(.L_x_16 - grad_norm_partials)
        .other          grad_norm_partials,@"STO_CUDA_ENTRY STV_DEFAULT"
grad_norm_partials:
.text.grad_norm_partials:
	//## File "kernels/grad_norm.cu", line 35
        /*0000*/                   LDC R1, c[0x0][0x28] ;
	//## File "kernels/grad_norm.cu", line 44
        /*00a0*/               @P0 BRA `(.L_x_5) ;
.L_x_7:
	//## File "include/sm_30_intrinsics.hpp", line 409
        /*0310*/                   LEA.HI.X R25, R4, UR13, R5, 0x2, P0 ;
	//## File "kernels/common/types.cuh", line 51 inlined at "kernels/grad_norm.cu", line 48
	//## File "kernels/grad_norm.cu", line 48 inlined at "kernels/grad_norm.cu", line 90
	//## File "kernels/grad_norm.cu", line 90
        /*0320*/                   LDG.E.128 R4, desc[UR6][R24.64] ;
        /*0330*/              @!P1 LDG.E.128 R8, desc[UR6][R24.64+0x1000] ;
	//## File "kernels/grad_norm.cu", line 44
        /*0360*/                   UIMAD.WIDE.U32 UR4, UR9, 0x1000, UR4 ;
        /*03a0*/                   MOV R26, UR11 ;
        /*03b0*/                   ISETP.GT.U32.AND.EX P0, PT, R26, R3, PT, P0 ;
	//## File "kernels/grad_norm.cu", line 25 inlined at "kernels/grad_norm.cu", line 50
	//## File "kernels/grad_norm.cu", line 50
        /*03c0*/                   FFMA R23, R4, R4, R23 ;
        /*04c0*/              @!P0 BRA `(.L_x_7) ;
.L_x_5:
        /*0500*/               @P2 EXIT ;
        /*0510*/                   BRA.DIV UR4, `(.L_x_14) ;
        /*0520*/                   STG.E desc[UR6][R2.64], R23 ;
        /*0d70*/                   EXIT ;
.L_x_14:
        /*0d80*/                   NOP ;
        /*0d90*/                   BRA `(.L_x_5) ;
.L_x_13:
        /*0da0*/                   BRA `(.L_x_13);
        /*0db0*/                   NOP;
        /*0dc0*/                   NOP;
.L_x_16:

//--------------------- .text._Z1ffi              --------------------------
	.section	.text._Z1ffi,"ax",@progbits
        .type           _Z1ffi,@function
_Z1ffi:
.text._Z1ffi:
        /*0000*/                   FFMA R4, R4, R4, 1 ;
        /*0010*/                   RET.ABS.NODEC R20 0x0 ;
"#;

    #[test]
    fn a_kernel_and_its_loop_are_read() {
        let kernels = parse(PARTIALS).unwrap();
        assert_eq!(kernels.keys().collect::<Vec<_>>(), ["grad_norm_partials"]);
        let sass = &kernels["grad_norm_partials"];
        let body =
            [("FFMA", 1), ("LDG.128", 2), ("compare", 1), ("control", 1), ("integer", 1), ("move", 1), ("uniform", 1)];
        let around = [("LDC", 1), ("STG.32", 1), ("control", 6)];
        let mut mix = Mix::from(body);
        around.iter().for_each(|(class, count)| *mix.entry(class).or_default() += count);
        // Padding is not counted, and the function is not listed as a kernel.
        assert_eq!((sass.instructions, &sass.mix), (16, &mix));
        let found = sass.main_loop.as_ref().unwrap();
        assert_eq!((found.instructions, &found.mix), (8, &Mix::from(body)));
        // The innermost frame in a .cu file, of the first instruction that has one.
        assert_eq!(found.source.as_deref(), Some("kernels/grad_norm.cu:48"));
        let json = serde_json::to_value(sass).unwrap();
        assert_eq!(json["main_loop"]["mix"]["LDG.128"], 2);
    }

    /// A kernel's section with the given code.
    fn kernel(body: &str) -> String {
        format!("\t.section\t.text.k,\"ax\",@progbits\n  .other  k,@\"STO_CUDA_ENTRY STV_DEFAULT\"\nk:\n{body}")
    }

    fn loop_length(body: &str) -> Option<u64> {
        parse(&kernel(body)).unwrap()["k"].main_loop.as_ref().map(|found| found.instructions)
    }

    #[test]
    fn branches_are_followed() {
        // A jump table, an early exit, predicates as operands, and code for diverged warps after the exit.
        let switch = "\
.L_x_10:
        /*0000*/                   LDG.E R2, desc[UR4][R4.64] ;
        /*0010*/                   BRX R12 -0x220                                    (*\"BRANCH_TARGETS .L_x_35,.L_x_36\"*);
.L_x_35:
        /*0020*/                   BRA `(.L_x_37) ;
.L_x_36:
        /*0030*/                   FADD R2, R2, R2 ;
.L_x_37:
        /*0040*/               @P3 EXIT ;
        /*0050*/                   BRA.U UP1, `(.L_x_38) ;
        /*0060*/                   FADD R2, R2, R2 ;
.L_x_38:
        /*0070*/                   BRA.DIV UR4, `(.L_x_40) ;
        /*0080*/                   SHFL.BFLY PT, R4, R2, 0x10, 0x1f ;
.L_x_39:
        /*0090*/                   BRA.U !UP0, `(.L_x_10) ;
        /*00a0*/                   EXIT ;
.L_x_40:
        /*00b0*/                   WARPSYNC.COLLECTIVE R6, `(.L_x_41) ;
.L_x_41:
        /*00c0*/                   BRA `(.L_x_39) ;
";
        assert_eq!(loop_length(switch), Some(10));
        assert_eq!(
            loop_length(&switch.replace("LDG.E R2", "LDG.E.STRONG.SYS R2")),
            None,
            "a polling loop is not the main loop"
        );
        assert_eq!(
            loop_length(&switch.replace("LDG.E R2, desc[UR4][R4.64]", "MOV R2, RZ")),
            None,
            "a loop without loads is not the main loop"
        );
        assert_eq!(loop_length(&switch.replace("BRA.U !UP0, `(.L_x_10)", "EXIT")), None);
    }

    #[test]
    fn malformed_output_is_an_error() {
        for (text, want) in [
            (String::new(), "its output has no kernel"),
            (kernel(""), "kernel k: it has no instructions"),
            (
                kernel("        /*0000*/  @P0 BRA `(.L_x_9) ;\n        /*0010*/ EXIT ;\n"),
                "kernel k: there is no label .L_x_9",
            ),
            (kernel("        /*0000  EXIT ;\n"), "kernel k: \"/*0000  EXIT ;\" is not an instruction"),
        ] {
            assert_eq!(parse(&text).unwrap_err(), want);
        }
    }

    #[test]
    fn candidates_are_searched_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let variable = |name: &str| match name {
            "CUDA_PATH" => Some(at("cuda").into_os_string()),
            "PATH" => Some(env::join_paths([at("none"), at("bin")]).unwrap()),
            _ => None,
        };
        let program = at("target/debug/deps/test");
        let find = || find_among(variable, &program);
        let error = find().unwrap_err().to_string();
        for path in ["cuda/bin/nvdisasm", "none/nvdisasm", "bin/nvdisasm", &format!("target/{PROJECT_NVDISASM}")] {
            assert!(error.contains(&format!(": {}", at(path).display())), "{path} is not in {error}");
        }
        // From the last candidate to the first.
        let project = format!("target/{PROJECT_NVDISASM}");
        for path in [&project, "toolkit/nvdisasm", "bin/nvdisasm", "cuda/bin/nvdisasm"] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "").unwrap();
            if path == "toolkit/nvdisasm" {
                // Debian's alternatives install such a symbolic link.
                fs::write(at("toolkit/nvcc"), "").unwrap();
                fs::create_dir_all(at("bin")).unwrap();
                std::os::unix::fs::symlink(at("toolkit/nvcc"), at("bin/nvcc")).unwrap();
            }
            assert_eq!(find().unwrap().canonicalize().unwrap(), at(path).canonicalize().unwrap());
        }
        let named = find_among(|name| (name == "NVDISASM").then(|| "named".into()), &program).unwrap();
        assert_eq!(named, Path::new("named"));
    }

    /// Reads every kernel of the build. nvdisasm must find the kernels that ptxas reported, with matching properties.
    #[test]
    fn all_compiled_kernels_are_read() {
        let nvdisasm = match find() {
            Ok(nvdisasm) => nvdisasm,
            Err(error) => return println!("skipped: {error}"),
        };
        for image in IMAGES {
            let of = format!("{} for {}", image.stem, image.arch);
            let kernels = disassemble(&nvdisasm, image.cubin).unwrap_or_else(|error| panic!("{of}: {error}"));
            let names: Vec<&str> = image.resources.iter().map(|taken| taken.kernel).collect();
            assert_eq!(kernels.keys().collect::<Vec<_>>(), names, "{of}");
            for (taken, (name, sass)) in image.resources.iter().zip(&kernels) {
                let count = |class| sass.mix.get(class).copied().unwrap_or(0);
                assert_eq!(sass.mix.values().sum::<u64>(), sass.instructions, "{of}: {name}");
                assert_eq!(count("other"), 0, "{of}: {name} has instructions of unknown class");
                let local = sass.mix.keys().any(|class| class.starts_with("LDL") || class.starts_with("STL"));
                assert_eq!(local, taken.stack_bytes > 0, "{of}: {name}: local memory, {taken:?}");
                let source = sass.main_loop.as_ref().map(|found| found.source.as_deref().unwrap_or("an unknown line"));
                let file = format!("kernels/{}.cu:", image.stem);
                assert!(
                    source.is_none_or(|source| source.starts_with(&file)),
                    "{of}: the loop of {name} is at {source:?}"
                );
            }
            if image.stem == "grad_norm" {
                let found = kernels["grad_norm_partials"].main_loop.as_ref().expect("it strides over the gradients");
                assert_eq!(found.mix.get("LDG.128"), Some(&4), "{of}: {found:?}");
            }
        }
        let error = disassemble(&nvdisasm, b"not a cubin").unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: failed (", nvdisasm.display())), "{error}");
        let error = disassemble(Path::new("/nowhere/nvdisasm"), b"").unwrap_err().to_string();
        assert!(error.starts_with("cannot run /nowhere/nvdisasm: "), "{error}");
    }
}
