//! The contract between a kernel and its launcher.
//!
//! The two are written in two languages. `tests/contract.rs` compares every [`Spec`] with the kernel's PTX, and
//! [`Device`](crate::cuda::runtime::device::Device) checks every launch against its [`Spec`].

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;

/// A kernel as its launcher sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The source file, `kernels/<stem>.cu`.
    pub stem: &'static str,
    /// Name of the entry point.
    pub name: &'static str,
    /// Threads per block; all of them lie along x.
    pub threads: u32,
    /// `minBlocksPerMultiprocessor` of the kernel's `__launch_bounds__`; 1 if the kernel states none.
    pub min_blocks: u32,
    /// Size of the kernel's only parameter in bytes.
    pub param_bytes: usize,
    /// The largest dynamic shared memory that a launch may request, in bytes per block.
    pub dynamic_shared: u32,
}

/// A [`Spec`] together with the type of the kernel's parameter.
#[derive(Debug)]
pub(in crate::cuda) struct Kernel<P> {
    pub spec: Spec,
    params: PhantomData<fn(P)>,
}

impl<P: Pod> Kernel<P> {
    pub const fn new(stem: &'static str, name: &'static str, threads: u32) -> Self {
        let spec = Spec { stem, name, threads, min_blocks: 1, param_bytes: size_of::<P>(), dynamic_shared: 0 };
        Kernel { spec, params: PhantomData }
    }

    /// Sets the second argument of the kernel's `__launch_bounds__`.
    pub const fn min_blocks(mut self, blocks: u32) -> Self {
        self.spec.min_blocks = blocks;
        self
    }

    /// Sets the largest dynamic shared memory in bytes.
    pub const fn dynamic_shared(mut self, bytes: u32) -> Self {
        self.spec.dynamic_shared = bytes;
        self
    }
}

/// The grid of a launch: thread blocks along x and y, and dynamic shared memory per block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) struct Grid {
    pub x: usize,
    pub y: usize,
    pub dynamic_shared: u32,
}

impl Grid {
    /// A one-dimensional grid of `x` blocks without dynamic shared memory.
    pub fn of(x: usize) -> Self {
        Grid { x, y: 1, dynamic_shared: 0 }
    }

    /// Sets the number of blocks along y.
    pub fn rows(self, y: usize) -> Self {
        Grid { y, ..self }
    }

    /// Sets the dynamic shared memory in bytes.
    pub fn shared(self, bytes: usize) -> Self {
        // A size beyond u32 exceeds every kernel's limit, so the launch rejects u32::MAX just as well.
        Grid { dynamic_shared: bytes.try_into().unwrap_or(u32::MAX), ..self }
    }
}

/// The sizes of a launch, for messages: `N = 6, C = 768`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) struct Sizes {
    // An inline array: every launch builds one, and only failures print it.
    list: [(&'static str, usize); Sizes::CAPACITY],
    len: usize,
}

impl Sizes {
    const CAPACITY: usize = 6;
}

impl<const R: usize> From<[(&'static str, usize); R]> for Sizes {
    fn from(sizes: [(&'static str, usize); R]) -> Self {
        const { assert!(R <= Sizes::CAPACITY) };
        let mut list = [("", 0); Sizes::CAPACITY];
        list[..R].copy_from_slice(&sizes);
        Sizes { list, len: R }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, size)) in self.list[..self.len].iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{name} = {size}")?;
        }
        Ok(())
    }
}
