//! Every operation on every backend: forwards against naive formulas, backwards against differences, rules by rejection.

mod adamw;
mod attention;
mod attention_decode;
mod cross_entropy;
mod embedding;
mod gelu;
mod grad_norm;
mod layernorm;
mod matmul;
mod matmul_rules;
mod narrow;
mod sampling;
mod support;
mod vectors;
