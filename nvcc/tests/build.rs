//! Builds of small kernels with a real nvcc whose runs are logged.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use ironwarp_nvcc::{Arch, Build, Nvcc, Search};
use support::shell_script;
use tempfile::TempDir;

const HEADER: &str = "#pragma once\n#include <cuda_bf16.h>\n\
    static __device__ float twice(__nv_bfloat16 x) { return 2.0f * __bfloat162float(x); }\n";
const WITH_HEADER: &str = "#include \"common/twice.cuh\"\n\
    namespace { __device__ __noinline__ float half_of(float x) { return x / 2.0f; } }\n\
    extern \"C\" __global__ void doubled(float *out, const __nv_bfloat16 *x) { *out = half_of(twice(*x)); }\n";
const ALONE: &str = "extern \"C\" __global__ void alone(float *x) { *x += 1.0f; }\n";
/// 64 live values in 32 registers; a spilled value is stored once and loaded twice.
const SPILLING: &str = "extern \"C\" __global__ void __launch_bounds__(1024, 2) greedy(float *x) {\n\
    float kept[64];\n\
    #pragma unroll\n    for (int i = 0; i < 64; i++) kept[i] = x[i * threadIdx.x];\n\
    __syncthreads();\n\
    #pragma unroll\n    for (int i = 0; i < 64; i++) x[i + 64 * threadIdx.x] = kept[i];\n\
    __syncthreads();\n\
    #pragma unroll\n    for (int i = 0; i < 64; i++) x[i * 3 + 64 * threadIdx.x] = kept[i * 13 % 64];\n}\n";

/// A project in its own folder, with an nvcc that logs its runs to a file next to the project.
struct Project {
    build: Build,
    log: PathBuf,
    _folder: TempDir,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Project {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap();
        let (root, log, counting) = (path.join("project"), path.join("log"), path.join("nvcc"));
        let real = Search::from_env(&workspace()).find().unwrap_or_else(|e| panic!("{e}"));
        let script = format!("echo \"$@\" >> '{}'\nexec '{}' \"$@\"", log.display(), real.path.display());
        shell_script(&counting, &script);
        let build = Build {
            out: path.join("out of it"),
            target: root.join("target"),
            root,
            folder: "kernels".into(),
            archs: Arch::list("80").unwrap(),
            nvcc: Nvcc { path: counting, version: real.version },
            allow_spills: false,
        };
        let project = Project { build, log, _folder: folder };
        files.iter().for_each(|(file, text)| project.write(file, text));
        project
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.build.root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn output(&self, name: &str) -> Vec<u8> {
        fs::read(self.build.out.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Builds. Returns the names of the outputs that nvcc was run for, sorted.
    fn run(&self) -> Vec<String> {
        let _ = fs::remove_file(&self.log);
        self.build.run().unwrap_or_else(|e| panic!("{e}"));
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let marker = format!("-o {}/", self.build.out.display());
        let outputs = log.lines().map(|line| line.split_once(&marker).unwrap().1.split(' ').next().unwrap().to_owned());
        let mut outputs: Vec<String> = outputs.collect();
        outputs.sort();
        outputs
    }

    fn error(&self) -> String {
        self.build.run().expect_err("the build fails").to_string()
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn two_kernels() -> Project {
    Project::new(&[
        ("kernels/common/twice.cuh", HEADER),
        ("kernels/doubled.cu", WITH_HEADER),
        ("kernels/alone.cu", ALONE),
    ])
}

#[test]
fn only_changed_files_are_recompiled() {
    let mut project = two_kernels();
    let (alone, doubled) = (["alone.sm_80.cubin", "alone.sm_80.ptx"], ["doubled.sm_80.cubin", "doubled.sm_80.ptx"]);
    let all = [alone, doubled].concat();
    assert_eq!(project.run(), all, "at first");
    assert_eq!(project.run(), [""; 0], "nothing has changed");

    project.write("kernels/common/twice.cuh", &HEADER.replace("2.0f", "(1.0f + 1.0f)"));
    assert_eq!(project.run(), doubled, "its header has changed");
    project.write("kernels/common/other.cuh", "#pragma once\n");
    assert_eq!(project.run(), [""; 0], "no file includes it");
    project.write("kernels/alone.cu", &ALONE.replace("1.0f", "3.0f"));
    assert_eq!(project.run(), alone, "the file has changed");
    // A checkout of another branch and back also changes only the time.
    project.write("kernels/alone.cu", &ALONE.replace("1.0f", "3.0f"));
    assert_eq!(project.run(), [""; 0], "only its time has changed");

    for output in ["alone.sm_80.cubin", "alone.sm_80.log"] {
        fs::remove_file(project.build.out.join(output)).unwrap();
        assert_eq!(project.run(), alone, "{output} is missing");
    }
    project.build.nvcc.version += "Build cuda_13.0.r13.0/compiler.1_0\n";
    assert_eq!(project.run(), all, "another nvcc");
    project.build.archs = Arch::list("80,90a").unwrap();
    assert_eq!(project.run(), all.iter().map(|name| name.replace("80", "90a")).collect::<Vec<_>>(), "one more");
}

#[test]
fn the_table_is_sorted_and_has_the_supported_architectures() {
    let mut project = Project::new(&[
        ("kernels/z_sm80.cu", ALONE),
        ("kernels/a_sm90.cu", ALONE),
        ("kernels/notes.txt", "not a kernel"),
        ("kernels/ladder/step1.cu", "not compiled"),
    ]);
    project.build.archs = Arch::list("90a,120,80").unwrap();
    project.run();
    // The last argument: of which architecture the PTX file is.
    let row = |stem: &str, arch: &str, ptx: &str| {
        let name = format!("{stem}.sm_{arch}");
        let ptx = format!("{stem}.sm_{ptx}");
        format!(
            "    Image {{\n        stem: \"{stem}\",\n        arch: \"{arch}\",\n        \
             ptx: include_str!(\"{ptx}.ptx\"),\n        cubin: include_bytes!(\"{name}.cubin\"),\n        \
             resources: &[\n            Resources {{ kernel: \"alone\", registers: 8, stack_bytes: 0, \
             spill_store_bytes: 0, spill_load_bytes: 0, shared_bytes: 0 }},\n        ],\n    }},\n"
        )
    };
    let rows = [
        row("a_sm90", "90a", "90a"),
        row("a_sm90", "120", "120"),
        row("z_sm80", "80", "80"),
        row("z_sm80", "90a", "90a"),
        row("z_sm80", "120", "80"),
    ];
    assert_eq!(String::from_utf8(project.output("kernels.rs")).unwrap(), format!("&[\n{}]\n", rows.concat()));
    for (name, target) in [
        ("a_sm90.sm_90a", "sm_90a"),
        ("a_sm90.sm_120", "sm_90"),
        ("z_sm80.sm_80", "sm_80"),
        ("z_sm80.sm_90a", "sm_90a"),
        ("z_sm80.sm_120", "sm_80"),
    ] {
        let ptx = String::from_utf8(project.output(&format!("{name}.ptx"))).unwrap();
        assert!(ptx.contains(&format!("\n.target {target}\n")), "{name}: {ptx}");
        assert_eq!(project.output(&format!("{name}.cubin"))[..4], *b"\x7fELF", "{name}");
    }
}

/// Line numbers, an inlined function and a function with internal linkage: all that nvcc writes paths or path hashes
/// for.
#[test]
fn outputs_do_not_depend_on_the_folder() {
    let projects = [two_kernels(), two_kernels()];
    let [first, second] = projects.each_ref().map(|project| {
        project.run();
        [project.output("doubled.sm_80.ptx"), project.output("doubled.sm_80.cubin")]
    });
    assert_eq!(String::from_utf8_lossy(&first[0]), String::from_utf8_lossy(&second[0]));
    assert!(first[1] == second[1], "cubins differ");
    let ptx = String::from_utf8(first[0].clone()).unwrap();
    let files: Vec<&str> = ptx.lines().filter(|line| line.contains(".file")).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for path in ["\"kernels/doubled.cu\"", "\"kernels/common/twice.cuh\"", "\"include/cuda_bf16.hpp\""] {
        assert!(files.iter().any(|line| line.ends_with(path)), "{path} in {files:?}");
    }
}

#[test]
fn a_spill_fails_the_build_unless_allowed() {
    let mut project = Project::new(&[("kernels/spilling.cu", SPILLING)]);
    let error = project.error();
    let start = "kernels/spilling.cu: kernel greedy for sm_80: registers are spilled: ";
    assert!(error.starts_with(start) && error.ends_with(" bytes of loads"), "{error}");
    assert_eq!(project.error(), error, "it fails again until the kernel is fixed");
    project.build.allow_spills = true;
    assert_eq!(project.run(), ["spilling.sm_80.cubin", "spilling.sm_80.ptx"]);
    let spills = error.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()).collect::<Vec<_>>();
    let [_, stores, loads] = spills[..] else { panic!("{error}") };
    assert_ne!(stores, loads, "{error}");
    let table = String::from_utf8(project.output("kernels.rs")).unwrap();
    let spilled = format!("spill_store_bytes: {stores}, spill_load_bytes: {loads}, shared_bytes: 0 }}");
    assert!(table.contains(&spilled), "{spilled} is not in {table}");
}

/// The resources are those that ptxas prints, also in a build that has nothing to compile.
#[test]
fn the_table_has_the_resources_of_each_kernel() {
    let two = "extern \"C\" __global__ void __launch_bounds__(256) wide(double *x) {\n\
        __shared__ double kept[512];\n\
        kept[threadIdx.x] = x[threadIdx.x];\n    __syncthreads();\n\
        x[threadIdx.x] = kept[(threadIdx.x + blockDim.x) % 512];\n}\n\
        extern \"C\" __global__ void indexed(int *x, int i) {\n\
        int kept[16] = {};\n    for (int j = 0; j < 16; j++) kept[x[j] & 15] = j;\n    x[0] = kept[i & 15];\n}\n";
    let project = Project::new(&[("kernels/two.cu", two)]);
    assert_eq!(project.run(), ["two.sm_80.cubin", "two.sm_80.ptx"]);
    let table = String::from_utf8(project.output("kernels.rs")).unwrap();
    let rows: Vec<&str> = table.lines().map(str::trim).filter(|line| line.starts_with("Resources {")).collect();
    let [indexed, wide] = rows[..] else { panic!("{table}") };
    let nothing_spilled = "spill_store_bytes: 0, spill_load_bytes: 0";
    assert!(indexed.starts_with("Resources { kernel: \"indexed\", registers: "), "{indexed}");
    assert!(indexed.ends_with(&format!("stack_bytes: 64, {nothing_spilled}, shared_bytes: 0 }},")), "{indexed}");
    assert!(wide.starts_with("Resources { kernel: \"wide\", registers: "), "{wide}");
    assert!(wide.ends_with(&format!("stack_bytes: 0, {nothing_spilled}, shared_bytes: 4096 }},")), "{wide}");

    fs::remove_file(project.build.out.join("kernels.rs")).unwrap();
    assert_eq!(project.run(), [""; 0], "nothing has changed");
    assert_eq!(String::from_utf8(project.output("kernels.rs")).unwrap(), table);
}

/// Another release of ptxas may print its output differently. The table would then lack the kernel.
#[test]
fn a_kernel_without_ptxas_output_fails_the_build() {
    let project = Project::new(&[("kernels/alone.cu", ALONE)]);
    let real = Search::from_env(&workspace()).find().unwrap_or_else(|e| panic!("{e}"));
    let silent = format!("'{}' \"$@\" 2>&1 | sed '/: Used /d'", real.path.display());
    shell_script(&project.build.nvcc.path, &silent);
    let want = "kernels/alone.cu: kernel alone for sm_80: ptxas does not report its resources";
    assert_eq!(project.error(), want);
}

#[test]
fn lost_hopper_instructions_fail_the_build() {
    // The accumulators are passed to a function before the wgmma have completed.
    let wgmma = "__device__ __noinline__ float f(float x) { return x * x + 1.0f; }\n\
        extern \"C\" __global__ void product(float *out, unsigned long long a, unsigned long long b) {\n\
        float d[4] = {};\n\
        for (int i = 0; i < out[0]; i++) {\n\
        asm volatile(\"wgmma.fence.sync.aligned;\");\n\
        asm volatile(\"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;\"\n\
            : \"+f\"(d[0]), \"+f\"(d[1]), \"+f\"(d[2]), \"+f\"(d[3]) : \"l\"(a), \"l\"(b));\n\
        asm volatile(\"wgmma.commit_group.sync.aligned;\");\n\
        d[0] = f(d[0]);\n\
        asm volatile(\"wgmma.wait_group.sync.aligned 0;\");\n}\n\
        out[threadIdx.x] = d[0] + d[1] + d[2] + d[3];\n}\n";
    // Without launch bounds, ptxas cannot determine the number of registers at entry.
    let setmaxnreg = "extern \"C\" __global__ void consumer(float *out) {\n\
        asm volatile(\"setmaxnreg.dec.sync.aligned.u32 24;\");\n    *out = 1.0f;\n}\n";
    let mut project = Project::new(&[("kernels/a_sm90.cu", wgmma), ("kernels/b_sm90.cu", setmaxnreg)]);
    project.build.archs = Arch::list("80,90a").unwrap();
    project.build.allow_spills = true;
    let error = project.error();
    let [a, b] = error.lines().collect::<Vec<_>>()[..] else { panic!("{error}") };
    let serialized = "kernels/a_sm90.cu: kernel product for sm_90a: wgmma.mma_async instructions are serialized due to";
    assert!(a.starts_with(serialized), "{a}");
    assert!(b.starts_with("kernels/b_sm90.cu: kernel consumer for sm_90a: 'setmaxnreg' ignored"), "{b}");
}

#[test]
fn the_output_of_nvcc_is_shown_for_every_file() {
    let unused = "extern \"C\" __global__ void unused(float *x) { int nothing; *x = 1.0f; }\n";
    let project = Project::new(&[
        ("kernels/broken.cu", "__global__ void broken() { first(); second(); }\n"),
        ("kernels/good.cu", ALONE),
        ("kernels/unused.cu", unused),
    ]);
    let error = project.error();
    for part in [
        "kernels/broken.cu for sm_80: nvcc failed (exit status: ",
        "kernels/broken.cu(1): error: identifier \"first\" is undefined",
        "kernels/broken.cu(1): error: identifier \"second\" is undefined",
        "2 errors detected in the compilation of \"kernels/broken.cu\"",
        "kernels/unused.cu for sm_80: nvcc failed",
        "variable \"nothing\" was declared but never referenced",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert!(!error.contains("good.cu"), "{error}");
}

/// As for the PTX of a program on a GPU that is newer than those of the build.
#[test]
fn ptx_is_assembled_by_the_rules_of_a_build() {
    let mut project = Project::new(&[("kernels/alone.cu", ALONE), ("kernels/spilling.cu", SPILLING)]);
    project.build.allow_spills = true;
    project.run();
    let [alone, spilling] =
        ["alone", "spilling"].map(|stem| String::from_utf8(project.output(&format!("{stem}.sm_80.ptx"))).unwrap());
    let assemble = |file: &str, ptx: &str, arch: &str| {
        let arch = Arch::list(arch).unwrap()[0];
        project.build.nvcc.assemble(file, ptx, arch).map_err(|error| error.to_string())
    };
    for arch in Arch::ALL.split(',') {
        let resources = assemble("alone", &alone, arch).unwrap();
        assert_eq!(resources.iter().map(|taken| &taken.kernel).collect::<Vec<_>>(), ["alone"], "{arch}");
        assert!((1..=255).contains(&resources[0].registers) && resources[0].local == [0; 3], "{resources:?}");
    }
    let error = assemble("embedded", &spilling, "80").unwrap_err();
    assert!(error.starts_with("embedded: kernel greedy for sm_80: registers are spilled: "), "{error}");
    // Two blocks of 1,024 threads are more than an SM of 8.6 holds.
    let error = assemble("embedded", &spilling, "86").unwrap_err();
    assert!(error.starts_with("embedded for sm_86: nvcc failed") && error.contains("minnctapersm"), "{error}");
}
