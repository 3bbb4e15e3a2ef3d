//! The choice of cross-entropy's kernels, by the number of columns.

use crate::cuda::launch::params::{
    CROSS_ENTROPY_20K_MAX_VECTORS, CROSS_ENTROPY_51K_MAX_VECTORS, CROSS_ENTROPY_WARP_MAX_VECTORS,
    CROSS_ENTROPY_WARP_ROWS_PER_BLOCK,
};
use crate::cuda::runtime::Cuda;
use crate::tensor::Storage;

/// Kernels of the forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forward {
    /// One row per warp.
    Warp,
    /// One row per CTA.
    Block,
}

/// Kernels of the backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backward {
    /// One row per warp.
    Warp,
    /// One row per CTA, whose registers hold up to 20,480 columns.
    Columns20k,
    /// One row per CTA, whose registers hold up to 51,200 columns.
    Columns51k,
    /// One row per CTA, read twice.
    Stream,
}

/// Vectors of 8 columns that lie completely within V.
fn full_vectors(v: u32) -> u32 {
    v / <Cuda as Storage>::VECTOR as u32
}

impl Forward {
    /// The kernel for V columns.
    pub fn new(v: u32) -> Self {
        if full_vectors(v) <= CROSS_ENTROPY_WARP_MAX_VECTORS { Forward::Warp } else { Forward::Block }
    }

    /// CTAs for N rows.
    pub fn ctas(self, n: usize) -> usize {
        match self {
            Forward::Warp => n.div_ceil(CROSS_ENTROPY_WARP_ROWS_PER_BLOCK as usize),
            Forward::Block => n,
        }
    }
}

impl Backward {
    /// The kernel for V columns.
    pub fn new(v: u32) -> Self {
        let largest = [
            (CROSS_ENTROPY_WARP_MAX_VECTORS, Backward::Warp),
            (CROSS_ENTROPY_20K_MAX_VECTORS, Backward::Columns20k),
            (CROSS_ENTROPY_51K_MAX_VECTORS, Backward::Columns51k),
        ];
        let fitting = largest.into_iter().find(|(vectors, _)| full_vectors(v) <= *vectors);
        fitting.map_or(Backward::Stream, |(_, kernel)| kernel)
    }

    /// CTAs for N rows.
    pub fn ctas(self, n: usize) -> usize {
        match self {
            Backward::Warp => n.div_ceil(CROSS_ENTROPY_WARP_ROWS_PER_BLOCK as usize),
            _ => n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_columns_decides_the_kernels() {
        for (v, forward, backward) in [
            (1, Forward::Warp, Backward::Warp),
            (2567, Forward::Warp, Backward::Warp),
            (2568, Forward::Block, Backward::Columns20k),
            (20_487, Forward::Block, Backward::Columns20k),
            (20_488, Forward::Block, Backward::Columns51k),
            (50_257, Forward::Block, Backward::Columns51k),
            (51_207, Forward::Block, Backward::Columns51k),
            (51_208, Forward::Block, Backward::Stream),
        ] {
            assert_eq!((Forward::new(v), Backward::new(v)), (forward, backward), "V = {v}");
        }
        assert_eq!((Forward::Warp.ctas(9), Forward::Block.ctas(9)), (2, 9));
        assert_eq!((Backward::Warp.ctas(9), Backward::Stream.ctas(9)), (2, 9));
    }
}
