//! Every operation on every backend: forwards against naive formulas, backwards against differences, rules by rejection.

mod adamw;
mod attention;
mod attention_decode;
mod embedding;
mod grad_norm;
mod narrow;
mod sampling;
mod support;
