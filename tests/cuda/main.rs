//! The CUDA backend, every operation that it has, on the emulated GPU against the CPU reference.
//!
//! A file an operation's stem, each with the same parts: the formula's accuracy, edge shapes, what must stay untouched,
//! bad numbers, the traffic of device memory, and [`gauntlet::Trial`]s, which are run with a thousand schedules and with
//! every mutant of the kernels.
//!
//! With `IRONWARP_TEST_DEVICE=cuda` everything that needs no emulator runs on a real GPU.

mod adamw;
mod attention;
mod attention_decode;
mod ceilings;
mod cross_entropy;
mod embedding;
mod emulator;
#[path = "../common/environment.rs"]
mod environment;
mod gauntlet;
mod gelu;
mod grad_norm;
mod huge;
mod judge;
mod layernorm;
mod matmul;
mod mlp;
mod model;
mod peers;
mod recording;
mod sampling;
#[expect(dead_code, reason = "the operations' own tests use the rest")]
#[path = "../ops/support.rs"]
mod support;
