//! Every operation on the CPU backends: forwards are compared with naive formulas, backwards with central differences, and each
//! violated precondition must be rejected.

mod adamw;
mod attention;
mod attention_decode;
#[path = "../common/mod.rs"]
mod common;
mod cross_entropy;
mod embedding;
mod gelu;
mod grad_norm;
mod layernorm;
mod matmul;
mod matmul_rules;
mod narrow;
mod sampling;
mod vectors;
