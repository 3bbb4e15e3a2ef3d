//! The memory traffic of the MLP of a GPT-2 block, forward and backward, compared with its floor.

use ironwarp::bench::cases::{prepare, select};
use ironwarp::bench::problem::Problem;

use crate::emulator::{Alone, alone};

/// Rows and channels: several tiles, and split-K 1 for the weight gradients.
const N: usize = 256;
const C: usize = 128;

/// Distinct bytes that the launches of an operation read and write, and its floor.
fn moved(cuda: &Alone, op: &str, shape: &str) -> [u64; 2] {
    let info = select(&[op.to_owned()]).unwrap()[0];
    let problem = Problem::parse(info, shape, &info.small()[0]).unwrap();
    let mut prepared = prepare::<ironwarp::cuda::Cuda>(cuda, &problem, 1).unwrap();
    let floor = prepared.floor().bytes;
    let counts = cuda.count(|| prepared.run(cuda).unwrap());
    let unique =
        counts.launches.iter().map(|launch| launch.counts.unique_read_bytes + launch.counts.unique_written_bytes);
    [unique.sum(), floor]
}

/// No tensor of size (N, 4C) is read or written more often than the floors count: GELU, its derivative, the residual and the
/// bias gradients are fused into the products.
#[test]
fn the_fused_mlp_moves_the_floor() {
    let Some(cuda) = alone() else { return };
    let up = |variant: &str| format!("n={N},c={C},oc={},variant={variant}", 4 * C);
    let down = |variant: &str| format!("n={N},c={},oc={C},variant={variant}", 4 * C);
    let forward = [("matmul_forward", up("bias_gelu")), ("matmul_forward", down("bias_residual"))];
    let backward = [
        ("matmul_dgrad", down("dgelu")),
        ("matmul_wgrad", down("bias")),
        ("matmul_dgrad", up("none")),
        ("matmul_wgrad", up("bias")),
    ];
    let sum = |ops: &[(&str, String)]| -> [u64; 2] {
        let all: Vec<[u64; 2]> = ops.iter().map(|(op, shape)| moved(&cuda, op, shape)).collect();
        [0, 1].map(|i| all.iter().map(|pair| pair[i]).sum())
    };
    // The unfused MLP has a separate kernel for each. That of GELU is measured; the others read and write their tensors once:
    // residual, dGELU (dout, pre, dx), and dout again for each bias.
    let unfused = [("matmul_forward", up("bias")), ("matmul_forward", down("bias"))];
    let [gelu, _] = moved(&cuda, "gelu_forward", &format!("n={N},c={}", 4 * C));
    let bytes = |elements: usize| 2 * elements as u64;
    let unfused_forward = sum(&unfused)[0] + gelu + bytes(3 * N * C);
    let plain = [
        ("matmul_dgrad", down("none")),
        ("matmul_wgrad", down("none")),
        ("matmul_dgrad", up("none")),
        ("matmul_wgrad", up("none")),
    ];
    let unfused_backward = sum(&plain)[0] + bytes(3 * N * 4 * C) + bytes(N * C + N * 4 * C);
    for (name, ops, separate) in
        [("forward", &forward[..], unfused_forward), ("backward", &backward[..], unfused_backward)]
    {
        let [fused, floor] = sum(ops);
        println!(
            "MLP {name}, N = {N}, C = {C}: {fused} bytes fused, {:.3} of the floor {floor}; {separate} in separate kernels, \
             {:.2} times as many",
            fused as f64 / floor as f64,
            separate as f64 / fused as f64
        );
        assert!(fused as f64 <= 1.01 * floor as f64, "{name}: {fused} bytes, the floor is {floor}");
        assert!(separate > fused, "{name}: {separate} bytes in separate kernels, {fused} fused");
    }
}
