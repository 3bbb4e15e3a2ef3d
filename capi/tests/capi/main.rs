//! The C functions on the emulated GPU: their results, what they refuse, and the streams and contexts they work in.

mod attention;
mod hostile;
mod operations;
mod program;
mod streams;
mod support;
