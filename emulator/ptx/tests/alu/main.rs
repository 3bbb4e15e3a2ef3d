//! Data-processing instructions, through decoding and execution: tables of edge cases, and seeded random values against
//! arithmetic done in another way.

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
