//! Libraries and their kernels.

use std::collections::BTreeMap;
use std::ffi::CString;

use crate::boundary::Handle;
use crate::object::function::Attributes;

/// A library.
#[derive(Debug)]
pub struct Library {
    pub text: String,
    /// The kernels in the order of the text.
    pub kernels: Vec<Handle>,
    /// By context: the library's module there.
    pub modules: BTreeMap<Handle, Handle>,
}

/// A kernel of a library, independent of any context.
#[derive(Debug)]
pub struct Kernel {
    pub library: Handle,
    pub name: CString,
    pub attributes: Attributes,
}

impl Library {
    /// Removes the module of a context that ends.
    pub fn leave(&mut self, context: Handle) {
        self.modules.remove(&context);
    }
}
