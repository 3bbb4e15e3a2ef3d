//! Decoding and execution of arithmetic and data instructions: tables of edge cases, and seeded random values against a
//! second implementation of the arithmetic.

mod approx;
mod bits;
mod compare;
mod convert;
mod decode;
mod float;
mod half;
mod harness;
mod integer;
mod moves;
mod reference;
