//! What a kernel and its launcher agree on.
//!
//! The two are written in two languages. `tests/contract.rs` holds every [`Spec`] against the kernel's PTX, and
//! [`crate::cuda::runtime::device::Device`] holds every launch against its [`Spec`].

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;

/// A kernel as its launcher sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The file: `kernels/<stem>.cu`.
    pub stem: &'static str,
    /// The entry point.
    pub name: &'static str,
    /// Threads of a block, along x.
    pub threads: u32,
    /// Blocks that a multiprocessor must have room for, as far as registers decide; 1 where the kernel says nothing.
    pub min_blocks: u32,
    /// Bytes of the one parameter.
    pub param_bytes: usize,
    /// The most dynamic shared memory that a launch may ask for, in bytes.
    pub dynamic_shared: u32,
}

/// A [`Spec`] with the type of its parameter.
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

    /// With the second number of its `__launch_bounds__`.
    pub const fn min_blocks(mut self, blocks: u32) -> Self {
        self.spec.min_blocks = blocks;
        self
    }

    /// With dynamic shared memory of at most so many bytes.
    pub const fn dynamic_shared(mut self, bytes: u32) -> Self {
        self.spec.dynamic_shared = bytes;
        self
    }
}

/// Blocks along x and y, and dynamic shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) struct Grid {
    pub x: usize,
    pub y: usize,
    pub dynamic_shared: u32,
}

impl Grid {
    /// Blocks in a row.
    pub fn of(x: usize) -> Self {
        Grid { x, y: 1, dynamic_shared: 0 }
    }

    /// Several rows of them.
    pub fn rows(self, y: usize) -> Self {
        Grid { y, ..self }
    }

    /// With dynamic shared memory.
    pub fn shared(self, bytes: usize) -> Self {
        // What does not fit is too much in any case, and refused by the launch.
        Grid { dynamic_shared: bytes.try_into().unwrap_or(u32::MAX), ..self }
    }
}

/// The sizes of a launch, for messages: `N = 6, C = 768`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) struct Sizes {
    // In place, as every launch makes one and only failures print it.
    list: [(&'static str, usize); Sizes::MOST],
    len: usize,
}

impl Sizes {
    const MOST: usize = 6;
}

impl<const R: usize> From<[(&'static str, usize); R]> for Sizes {
    fn from(sizes: [(&'static str, usize); R]) -> Self {
        const { assert!(R <= Sizes::MOST) };
        let mut list = [("", 0); Sizes::MOST];
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
