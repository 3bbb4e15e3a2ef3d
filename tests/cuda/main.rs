//! The CUDA backend on the emulated GPU, compared with the CPU reference: every operation that the backend has.
//!
//! One file per operation family, each with the same sections: accuracy against the formula, edge shapes, outputs that must
//! stay untouched, non-finite numbers, device memory traffic, and [`kernel_checks::Trial`]s, which run in many schedules and
//! with mutants of the kernels: [`emulator_trials::tier`] says how many.
//!
//! With `IRONWARP_TEST_DEVICE=cuda` everything that needs no emulator runs on a real GPU.

mod adamw;
mod attention;
mod attention_decode;
mod bounds;
mod ceilings;
#[path = "../common/mod.rs"]
mod common;
mod cross_entropy;
mod embedding;
mod emulator;
#[path = "../common/environment.rs"]
mod environment;
mod external;
mod gelu;
mod grad_norm;
mod graph;
mod huge;
mod kernel_checks;
mod layernorm;
mod matmul;
mod mlp;
mod model;
mod peers;
mod sampling;
