//! Every operation on every backend: forwards against naive formulas, backwards against differences, rules by rejection.

mod cross_entropy;
mod embedding;
mod gelu;
mod layernorm;
mod matmul;
mod matmul_rules;
mod support;
mod vectors;
