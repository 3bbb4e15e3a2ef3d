//! Every operation on every backend: forwards against naive formulas, backwards against differences, rules by rejection.

mod embedding;
mod support;
