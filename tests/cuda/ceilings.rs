//! The kernels that measure the peak rates of a GPU.

use emulator_trials::mutate::Kind;
use half::bf16;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::ceilings::{ceiling_copy, ceiling_mma, ceiling_mma_len};
use ironwarp::ops::Floor;
use ironwarp::tensor::Tensor;

use crate::bounds::TrafficBound;
use crate::common::*;
use crate::emulator::{alone, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

/// Elements of i32 in a vector of 16 bytes.
const VECTOR: usize = 4;
/// Vectors that a block of the copy kernel copies.
const TILE: usize = 1024;
/// Threads of a block of the MMA kernel.
const BLOCK: usize = 256;

/// Vectors and why.
const SIZES: [(usize, &str); 8] = [
    (1, "one vector"),
    (255, "an idle thread"),
    (257, "a second vector for one thread"),
    (TILE - 1, "a thread without its fourth vector"),
    (TILE, "one tile"),
    (TILE + 1, "one vector in the second block"),
    (3 * TILE, "whole tiles"),
    (5 * TILE + 300, "tiles and a remainder"),
];

/// Arbitrary bits, including NaNs of bf16 and f32, that repeat after 2³² words.
fn words(len: usize) -> Vec<i32> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) ^ 0x7fc0_0000) as i32).collect()
}

/// The result of a copy. The source fills its buffer, so a read past its end is out of bounds.
fn copied(cuda: &Cuda, src: &[i32]) -> Vec<i32> {
    // A vector before the destination, and a tile after it.
    let canaries = (vec![-77; VECTOR], vec![-78; TILE * VECTOR]);
    let content = vec![-79; src.len()];
    let framed = [&canaries.0[..], &content, &canaries.1].concat();
    let src = Tensor::from_vec(cuda, [src.len()], src.to_vec()).unwrap();
    let mut dst = Tensor::from_vec(cuda, [framed.len()], framed).unwrap();
    ceiling_copy(cuda, src.view(), dst.view_mut().into_part(VECTOR, src.shape())).unwrap();
    let all = dst.to_vec(cuda).unwrap();
    let (before, rest) = all.split_at(VECTOR);
    let (content, after) = rest.split_at(src.shape().len());
    assert!(before == canaries.0 && after == canaries.1, "canaries around {}", src.shape());
    content.to_vec()
}

#[test]
fn every_bit_is_copied() {
    let cuda = shared();
    let wave = cuda.device().properties().sm_count * 8 * TILE;
    for (vectors, why) in SIZES.into_iter().chain([(wave + TILE + 7, "more blocks than run at the same time")]) {
        let src = words(vectors * VECTOR);
        assert!(copied(&cuda, &src) == src, "ceiling_copy of {vectors} vectors ({why})");
    }
}

#[test]
fn a_copy_moves_each_byte_twice() {
    for vectors in [64 * TILE, 5 * TILE + 300] {
        let Some(cuda) = alone() else { return };
        let src = Tensor::from_vec(&*cuda, [vectors * VECTOR], words(vectors * VECTOR)).unwrap();
        let mut dst = Tensor::zeros(&*cuda, src.shape()).unwrap();
        let counts = cuda.count(|| ceiling_copy(&cuda, src.view(), dst.view_mut()).unwrap());
        let floor = Floor { bytes: 32 * vectors as u64, flops: 0 };
        let what = format!("ceiling_copy, {vectors} vectors");
        TrafficBound { what: &what, floor, bytes: 1.0, sectors: 1.0 }.check(&counts);
        assert_eq!((counts.global().bytes, counts.global().sectors), (floor.bytes, floor.bytes / 32), "{what}");
    }
}

#[test]
fn violated_preconditions_of_the_copy_are_rejected() {
    let cuda = shared();
    let src: Input<Cuda, bf16> = Input::new(&*cuda, [24], &[1.0; 24]);
    let mut dst: Output<Cuda, bf16> = Output::new(&*cuda, [24]);
    let mut rejected = |from, len, to, dst_len, message: &str| {
        let (src, dst) = (src.view().part(from, [len]), dst.view().into_part(to, [dst_len]));
        assert_rejected(ceiling_copy(&cuda, src, dst), message);
    };
    rejected(0, 0, 0, 0, "ceiling_copy: src not empty failed (src is (0))");
    rejected(0, 16, 0, 8, "ceiling_copy: dst as long as src failed (src has 16 elements, dst 8)");
    rejected(0, 12, 0, 12, "ceiling_copy: bytes % 16 == 0 failed (24 bytes)");
    rejected(1, 16, 0, 16, "ceiling_copy: src 16-byte aligned failed (src begins 2 bytes past a multiple of 16)");
    rejected(0, 16, 7, 16, "ceiling_copy: dst 16-byte aligned failed (dst begins 14 bytes past a multiple of 16)");
    dst.assert_untouched(&*cuda);
}

/// The matrices of a warp by rows, with the values that its lanes draw.
struct Warp {
    a: [[f64; 16]; 32],
    b: [[f64; 32]; 16],
    d: [[f64; 32]; 32],
}

/// The rows and columns of a (16, 8) accumulator tile that a lane holds, in the order of its registers.
fn fragment(lane: usize) -> [(usize, usize); 4] {
    [(0, 0), (0, 1), (8, 0), (8, 1)].map(|(row, column)| (lane / 4 + row, lane % 4 * 2 + column))
}

impl Warp {
    /// `first` is the number of the first lane.
    fn new(first: usize) -> Self {
        let mut warp = Warp { a: [[0.0; 16]; 32], b: [[0.0; 32]; 16], d: [[0.0; 32]; 32] };
        for lane in 0..32 {
            let mut state = ((first + lane) as u32).wrapping_mul(0x9e37_79b9) | 1;
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let sum: u32 = state.to_le_bytes().into_iter().map(u32::from).sum();
                (2.0 * f64::from(sum) - 1021.0) / 256.0
            };
            let (row, k) = (lane / 4, lane % 4 * 2);
            for tile in 0..2 {
                for (rows, ks) in [(0, 0), (8, 0), (0, 8), (8, 8)] {
                    for i in 0..2 {
                        warp.a[tile * 16 + rows + row][ks + k + i] = bf16::from_f64(next()).into();
                    }
                }
            }
            for tile in 0..4 {
                for (ks, i) in [(0, 0), (0, 1), (8, 0), (8, 1)] {
                    warp.b[ks + k + i][tile * 8 + row] = bf16::from_f64(next()).into();
                }
            }
            for tile in 0..8 {
                for (row, column) in fragment(lane) {
                    warp.d[tile / 4 * 16 + row][tile % 4 * 8 + column] = next();
                }
            }
        }
        warp
    }

    /// The value that a lane writes with and without the product, and the sum of all magnitudes.
    fn sums(&self, lane: usize) -> [f64; 3] {
        let mut sums = [0.0; 3];
        for tile in 0..8 {
            for (row, column) in fragment(lane) {
                let (row, column) = (tile / 4 * 16 + row, tile % 4 * 8 + column);
                let start = self.d[row][column];
                let products = (0..16).map(|k| self.a[row][k] * self.b[k][column]);
                let (product, magnitude) =
                    products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
                for (sum, value) in sums.iter_mut().zip([start + product, start, start.abs() + magnitude]) {
                    *sum += value;
                }
            }
        }
        sums
    }
}

fn multiplied(cuda: &Cuda, n: usize, iterations: u32) -> Vec<f64> {
    let mut out: Output<Cuda, f32> = Output::new(cuda, [n]);
    ceiling_mma(cuda, iterations, out.view()).unwrap();
    out.read(cuda)
}

#[test]
fn products_are_those_of_the_matrices() {
    let n = 3 * BLOCK;
    let warps: Vec<Warp> = (0..n).step_by(32).map(Warp::new).collect();
    for iterations in [0, 1, 2, 3, 8, 101] {
        let got = multiplied(&shared(), n, iterations);
        for (i, got) in got.into_iter().enumerate() {
            let [with, without, magnitude] = warps[i / 32].sums(i % 32);
            let want = if iterations % 2 == 1 { with } else { without };
            // An addition in f32 has a relative error of at most 2⁻²⁴, and twice that if it truncates, as tensor cores may. There
            // are 16 additions per iteration, and 32 at the end.
            let allowed = magnitude * f64::from(16 * iterations + 32) / f64::from(1 << 23);
            let error = (got - want).abs();
            assert!(error <= allowed, "ceiling_mma [{i}], {iterations} iterations: {got}, not {want} ± {allowed:e}");
        }
    }
}

/// The inputs are neither zero nor constant. The products above show that the kernel draws the same values.
#[test]
fn inputs_are_close_to_normal() {
    let warps: Vec<Warp> = (0..64 * BLOCK).step_by(32).map(Warp::new).collect();
    for (what, values) in [
        ("A", warps.iter().flat_map(|warp| warp.a.iter().flatten()).copied().collect::<Vec<f64>>()),
        ("B", warps.iter().flat_map(|warp| warp.b.iter().flatten()).copied().collect()),
        ("D", warps.iter().flat_map(|warp| warp.d.iter().flatten()).copied().collect()),
    ] {
        let mean = |power| values.iter().map(|x| x.powi(power)).sum::<f64>() / values.len() as f64;
        let deviation = mean(2).sqrt();
        println!("{what}: mean {:.4}, deviation {deviation:.4}, kurtosis {:.4}", mean(1), mean(4) / mean(2).powi(2));
        assert!(values.iter().all(|x| *x != 0.0 && x.abs() < 4.0), "{what}");
        assert!(mean(1).abs() < 0.02 && (deviation - 1.155).abs() < 0.02, "{what}: {} ± {deviation}", mean(1));
        // The kurtosis of a sum of four uniform numbers is 2.7, of a normal distribution 3, of one uniform number 1.8.
        assert!((mean(4) / mean(2).powi(2) - 2.7).abs() < 0.1, "{what}");
    }
}

#[test]
fn flops_are_those_executed() {
    let Some(cuda) = alone() else { return };
    for (n, iterations) in [(BLOCK, 0), (BLOCK, 1), (BLOCK, 2), (3 * BLOCK, 17)] {
        let mut out: Output<Cuda, f32> = Output::new(&*cuda, [n]);
        let mut flops = 0;
        let counts = cuda.count(|| flops = ceiling_mma(&cuda, iterations, out.view()).unwrap());
        let what = format!("ceiling_mma, N = {n}, {iterations} iterations");
        let by_hand = (n / 32) as u64 * u64::from(iterations) * 8 * (2 * 16 * 8 * 16);
        assert_eq!((counts.launches[0].counts.tensor_flops, flops), (by_hand, by_hand), "{what}");
        assert_eq!(counts.launches[0].counts.global_loads.requests, 0, "{what}: loads");
        TrafficBound { what: &what, floor: Floor { bytes: 4 * n as u64, flops }, bytes: 1.0, sectors: 1.0 }
            .check(&counts);
    }
}

#[test]
fn a_wave_fills_the_registers() {
    let cuda = shared();
    let multiprocessors = cuda.device().properties().sm_count;
    assert_eq!(ceiling_mma_len(&cuda), multiprocessors * 65_536 / 64);
}

#[test]
fn violated_preconditions_of_the_mma_kernel_are_rejected() {
    let Some(cuda) = alone() else { return };
    let mut out: Output<Cuda, f32> = Output::new(&*cuda, [300]);
    let mut rejected = |len, message: &str| {
        assert_rejected(ceiling_mma(&cuda, 1, out.view().into_part(0, [len])), message);
    };
    rejected(0, "ceiling_mma: out not empty failed (out is (0))");
    rejected(300, "ceiling_mma: N % 256 == 0 failed (N = 300)");
    out.assert_untouched(&*cuda);
    // The emulated GPU allocates host memory only where something is written.
    let mut huge: Tensor<Cuda, f32> = cuda.uninitialised([1 << 23]).unwrap();
    // Without the rejection the launch would run for days.
    cuda.set_step_budget(1 << 20);
    let rejected = ceiling_mma(&cuda, 1 << 31, huge.view_mut());
    cuda.device().synchronize().unwrap();
    assert_rejected(rejected, "ceiling_mma: FLOPs < 2^64 failed (N = 8388608, iterations = 2147483648)");
}

fn trials() -> Vec<Trial> {
    let copy = |why, vectors: usize| {
        let run = move |cuda: &Cuda| {
            let src = words(vectors * VECTOR);
            vec![copied(cuda, &src).into_iter().map(f64::from).collect()]
        };
        Trial { why, kernels: &["ceiling_copy"], run: Box::new(run) }
    };
    let products = |why, blocks: usize, iterations| {
        let run = move |cuda: &Cuda| vec![multiplied(cuda, blocks * BLOCK, iterations)];
        Trial { why, kernels: &["ceiling_mma"], run: Box::new(run) }
    };
    vec![
        copy("a second vector for one thread", 257),
        copy("one vector in the second block", TILE + 1),
        products("the initial accumulators", 1, 0),
        products("one product", 1, 1),
        products("products of both signs", 1, 2),
        products("two blocks, an odd number of iterations", 2, 3),
    ]
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_schedules_agree("ceilings", &trials());
}

#[test]
fn mutants_are_killed() {
    const EQUIVALENT: &[Equivalent] = &[equivalent(
        1,
        "ceiling_copy",
        Kind::ShiftComparison,
        "tile + CEILING_COPY_VECTORS_PER_BLOCK <= params.len",
        "the remainder loop copies a whole tile as well",
    )];
    assert_mutants_killed("ceilings", &trials(), EQUIVALENT);
}
