//! Compares the occupancy of attention's kernels on each generation of GPUs with the table of `docs/kernels.md`, and
//! requires eight warps per SM for the head size of GPT-2.

#[path = "common/environment.rs"]
mod environment;

use ironwarp::cuda::kernels;
use ironwarp::cuda::launch::images::IMAGES;
use ironwarp::cuda::launch::spec::Spec;
use ironwarp::profile::occupancy::{Limits, Occupancy, occupancy};

/// Compute capabilities, one for each column of the table.
const CAPABILITIES: [(u32, u32); 6] = [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)];

/// Registers and shared memory of a kernel, and its occupancy for a compute capability. The registers are those of the
/// newest image that is not newer than the GPU: 8.0's on 8.6 and 8.9, which run this machine code. Elsewhere the driver's
/// compiler decides, within the limit that minBlocks sets.
fn on_card(spec: &Spec, capability: (u32, u32)) -> (u32, u32, Occupancy) {
    let number = |arch: &str| arch.trim_end_matches('a').parse::<u32>().unwrap();
    let images = IMAGES.iter().filter(|image| image.stem == spec.stem);
    let older = images.filter(|image| number(image.arch) <= 10 * capability.0 + capability.1);
    let image = older.max_by_key(|image| number(image.arch)).expect("every architecture has code");
    let taken = image.resources.iter().find(|taken| taken.kernel == spec.name).expect(spec.name);
    let shared = taken.shared_bytes + spec.dynamic_shared;
    let limits = Limits::of(capability).expect("a known compute capability");
    (taken.registers, shared, occupancy(limits, spec.threads, taken.registers, shared))
}

fn attention() -> impl Iterator<Item = &'static Spec> {
    kernels().filter(|spec| ["attention_forward_sm80", "attention_backward_sm80"].contains(&spec.stem))
}

/// Two CTAs per SM, of which one has MMAs to issue while the other waits for a barrier.
#[test]
fn attention_has_eight_warps_on_every_card() {
    let gpt2: Vec<&Spec> = attention().filter(|spec| spec.name.ends_with("_hs64")).collect();
    assert_eq!(gpt2.len(), 3, "forward, dQ and dKdV");
    for (spec, capability) in gpt2.iter().flat_map(|spec| CAPABILITIES.map(|capability| (spec, capability))) {
        let (registers, shared, found) = on_card(spec, capability);
        let what = format!("{} on {capability:?}: {registers} registers, {shared} bytes", spec.name);
        assert!(found.warps >= 8, "{what}: {found:?}");
    }
}

/// The rows of the table: kernel, shared memory in bytes, and warps per SM for each capability.
#[test]
fn warps_are_those_of_the_table() {
    let docs = std::fs::read_to_string(environment::project().join("docs/kernels.md")).unwrap();
    let (_, table) = docs.split_once("| Kernel | Bytes of shared memory | 8.0 |").expect("the table of warps");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    let row = |spec: &Spec| {
        let shared = on_card(spec, CAPABILITIES[0]).1;
        let warps = CAPABILITIES.map(|capability| on_card(spec, capability).2.warps.to_string());
        format!("| `{}` | {},{:03} | {} |", spec.name, shared / 1000, shared % 1000, warps.join(" | "))
    };
    let want: Vec<String> = attention().map(row).collect();
    assert_eq!(rows, want, "the rows should be\n{}\n", want.join("\n"));
}
