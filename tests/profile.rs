//! Compares the counts of every operation with benches/counts/sm_80.json, and checks that this finds a planted
//! regression.

#[path = "common/environment.rs"]
mod environment;
#[path = "common/kernel_variant.rs"]
mod kernel_variant;

use ironwarp::bench::cases;
use ironwarp::bench::verify::verify;
use ironwarp::cuda::Cuda;
use ironwarp::profile::check::Baseline;
use ironwarp::profile::counts::{Profile, Profiler};
use ironwarp::profile::report;

/// Profiles of the operations and families that `ops` names; of all if it is empty.
fn profiles(profiler: &mut Profiler<'_>, ops: &[&str]) -> Vec<Profile> {
    let words: Vec<String> = ops.iter().map(ToString::to_string).collect();
    let problems = cases::select(&words)
        .unwrap()
        .into_iter()
        .flat_map(|info| info.small().into_iter().map(move |problem| (info, problem)));
    problems.map(|(info, problem)| profiler.profile(info, &problem).unwrap()).collect()
}

/// This is one test, because the emulator counts the launches of the whole process.
#[test]
fn counts_are_those_of_the_file() {
    let cuda = Cuda::emulated().unwrap();
    // The results must be correct, too; a benchmark also verifies before it measures.
    for info in cases::ALL {
        verify(&cuda, info, &info.small()[0]).unwrap();
    }
    let device = cuda.device().properties().name.clone();
    let file = environment::project().join("benches/counts/sm_80.json");
    let baseline = Baseline::read(&file).unwrap();
    let mut profiler = Profiler::new(&cuda).unwrap();
    let all = profiles(&mut profiler, &[]);
    let differences = baseline.differences(&device, &all);
    let advice = "if the change is intended, `make counts` rewrites the file";
    assert!(differences.is_empty(), "{}\n{advice}", differences.join("\n"));

    for profile in &all {
        assert!(profile.totals.global_bytes >= profile.totals.unique_bytes, "{}", profile.shape);
        assert_eq!(profile.spill_bytes, Some(0), "{}", profile.shape);
        assert!(profile.occupancy.is_some_and(|share| share > 0.0), "{}", profile.shape);
        let lines: u64 = profile.lines.iter().map(|line| line.bytes).sum();
        assert_eq!(lines, profile.totals.global_bytes, "{}: lines", profile.shape);
    }
    let page = report::page(&device, &all).unwrap();
    for profile in &all {
        assert!(page.contains(&format!(r#""op":"{}""#, profile.op)) && page.contains(&profile.kernels[0].kernel));
    }

    // A planted regression in a copy of a kernel: a layout of shared memory with bank conflicts.
    const STORE: &str = "    warp_sums[warp_id()][lane_id()] = sum;";
    let planted = [
        ("__shared__ float4 warp_sums[WARPS][WARP];", "__shared__ float4 warp_sums[WARP][WARPS];"),
        (STORE, "    warp_sums[lane_id()][warp_id()] = sum;"),
        ("sum = sum + warp_sums[warp][lane_id()];", "sum = sum + warp_sums[lane_id()][warp];"),
    ];
    profiler.replace("layernorm", &kernel_variant::ptx("layernorm.cu", &planted)).unwrap();
    const OP: &str = "layernorm_backward";
    let found = baseline.only(&[OP]).differences(&device, &profiles(&mut profiler, &[OP]));
    let found = found.iter().find(|text| text.starts_with("layernorm_backward n=256 c=768 overwrite")).unwrap();
    println!("{found}");
    let source = std::fs::read_to_string(environment::project().join("kernels/layernorm.cu")).unwrap();
    let line = 1 + source.lines().position(|line| line == STORE).unwrap();
    for words in ["\n  bank conflicts: ", ", 0 in the file", &format!("\n  kernels/layernorm.cu:{line}"), STORE.trim()]
    {
        assert!(found.contains(words), "no {words:?} in {found}");
    }
}
