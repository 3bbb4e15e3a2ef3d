//! Modules.

use std::collections::BTreeMap;
use std::sync::Arc;

use ptx_emulator::Module as Code;

use crate::boundary::Handle;

/// A module of a context.
#[derive(Debug)]
pub struct Module {
    pub context: Handle,
    pub code: Arc<Code>,
    /// 10 × major + minor of `.version`.
    pub ptx_version: i32,
    /// By kernel: the function handle, if one was returned to the program.
    pub functions: BTreeMap<String, Handle>,
}
