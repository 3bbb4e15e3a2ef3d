//! Q, K and V as operands of attention: packed as a GPT-2 block computes them, or three tensors with strides.

use std::fmt;

use super::attention::{AttentionDims, packed_dims};
use super::check::Rules;
use super::operation::{Compute, ComputeMut};
use crate::error::Result;
use crate::tensor::{Shape, Storage};

/// Q, K and V, with the same B, T, NH and HS.
#[expect(clippy::large_enum_variant, reason = "operands live for one call and are not stored")]
pub enum Qkv<'a, S: Storage> {
    /// One tensor, as the QKV matmul of a GPT-2 block writes it.
    Packed {
        /// (B, T, 3C): q, k and v concatenated along the last axis, each (NH, HS).
        qkv: Compute<'a, S>,
        /// NH.
        num_heads: usize,
    },
    /// Three tensors, each with its own strides.
    Separate {
        /// Queries.
        q: Heads<'a, S>,
        /// Keys.
        k: Heads<'a, S>,
        /// Values.
        v: Heads<'a, S>,
    },
}

/// The gradients of Q, K and V. Their layout is independent of that of Q, K and V.
#[expect(clippy::large_enum_variant, reason = "operands live for one call and are not stored")]
pub enum QkvMut<'a, S: Storage> {
    /// (B, T, 3C): dq, dk and dv concatenated along the last axis, each (NH, HS).
    Packed(ComputeMut<'a, S>),
    /// Three tensors, each with its own strides. The elements between their rows are not written.
    Separate {
        /// Gradient of the queries.
        dq: HeadsMut<'a, S>,
        /// Gradient of the keys.
        dk: HeadsMut<'a, S>,
        /// Gradient of the values.
        dv: HeadsMut<'a, S>,
    },
}

/// Read access to a tensor of heads: Q, K or V.
pub struct Heads<'a, S: Storage> {
    /// The memory that contains the tensor.
    pub data: Compute<'a, S>,
    /// Where its rows are. They may overlap: a head stride of 0 uses one head's keys for all heads.
    pub layout: HeadsLayout,
}

impl<S: Storage> Clone for Heads<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Storage> Copy for Heads<'_, S> {}

/// Write access to a tensor of heads: a gradient of Q, K or V.
pub struct HeadsMut<'a, S: Storage> {
    /// The memory that contains the tensor.
    pub data: ComputeMut<'a, S>,
    /// Where its rows are. They must not overlap.
    pub layout: HeadsLayout,
}

/// Where the rows of a tensor of heads are. A row is the HS contiguous elements of a token and a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadsLayout {
    /// The memory is (B, T, NH, HS), without gaps.
    TokenMajor,
    /// The memory is (B, NH, T, HS), without gaps, as PyTorch's `scaled_dot_product_attention` takes it.
    HeadMajor,
    /// Row (b, t, h) begins at element `b·batch + t·token + h·head` of the memory, whose shape does not matter.
    Strided {
        /// B, T, NH and HS.
        dims: AttentionDims,
        /// The distances of rows.
        strides: HeadStrides,
    },
}

/// Distances of the rows of a tensor of heads, in elements: multiples of [`Storage::VECTOR`]. The stride of an axis
/// with one entry has no effect and may be any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadStrides {
    /// From a sequence to the next.
    pub batch: usize,
    /// From a token to the next one of its sequence.
    pub token: usize,
    /// From a head to the next one of its token.
    pub head: usize,
}

impl HeadStrides {
    /// The axes from the outermost of a (B, T, NH, HS) tensor on: name, number of entries and stride.
    fn axes(self, AttentionDims { b, t, nh, .. }: AttentionDims) -> [(&'static str, usize, usize); 3] {
        [("batch", b, self.batch), ("token", t, self.token), ("head", nh, self.head)]
    }

    /// The number of elements up to the end of the last row. `None` if it does not fit in a `usize`.
    fn end(self, dims: AttentionDims) -> Option<usize> {
        self.axes(dims)
            .into_iter()
            .try_fold(dims.hs, |end, (_, entries, stride)| (entries - 1).checked_mul(stride)?.checked_add(end))
    }

    /// Whether all rows are apart because the entries of each axis are at least as far apart as the axes with smaller
    /// strides extend. Only interleaved axes are apart without this.
    fn nested(self, dims: AttentionDims) -> bool {
        let mut axes = self.axes(dims).map(|(_, entries, stride)| (stride, entries));
        axes.sort_unstable();
        let mut extent = dims.hs;
        axes.into_iter().filter(|&(_, entries)| entries > 1).all(|(stride, entries)| {
            let apart = stride >= extent;
            extent += (entries - 1) * stride;
            apart
        })
    }

    /// The number of distinct elements, if rows overlap only by strides of 0.
    pub(super) fn len(self, dims: AttentionDims) -> usize {
        self.axes(dims).into_iter().filter(|&(_, _, stride)| stride > 0).fold(dims.hs, |len, (_, n, _)| len * n)
    }
}

impl HeadsLayout {
    /// The strides. Those without effect are 0.
    pub(crate) fn strides(self, dims: AttentionDims) -> HeadStrides {
        let AttentionDims { b, t, nh, hs } = dims;
        let HeadStrides { batch, token, head } = match self {
            HeadsLayout::TokenMajor => HeadStrides { batch: t * nh * hs, token: nh * hs, head: hs },
            HeadsLayout::HeadMajor => HeadStrides { batch: nh * t * hs, token: hs, head: t * hs },
            HeadsLayout::Strided { strides, .. } => strides,
        };
        let effective = |entries: usize, stride: usize| if entries > 1 { stride } else { 0 };
        HeadStrides { batch: effective(b, batch), token: effective(t, token), head: effective(nh, head) }
    }

    /// The sizes, from the shape of the memory or as stated.
    fn dims(self, rules: &Rules, name: &str, data: Shape) -> Result<AttentionDims> {
        let axes_are = |axes| rules.failed(format_args!("{name} has axes {axes}"), format_args!("{name} is {data}"));
        let dims = match (self, data.dims()) {
            (HeadsLayout::TokenMajor, &[b, t, nh, hs]) | (HeadsLayout::HeadMajor, &[b, nh, t, hs]) => {
                AttentionDims { b, t, nh, hs }
            }
            (HeadsLayout::TokenMajor, _) => return Err(axes_are("(B, T, NH, HS)")),
            (HeadsLayout::HeadMajor, _) => return Err(axes_are("(B, NH, T, HS)")),
            (HeadsLayout::Strided { dims, .. }, _) => dims,
        };
        rules.not_empty(name, dims.shape())?;
        Ok(dims)
    }

    /// Checks the tensor within memory of this shape. Returns its sizes.
    fn check<S: Storage>(self, rules: &Rules, name: &str, data: Shape) -> Result<AttentionDims> {
        let dims = self.dims(rules, name, data)?;
        rules.vectors::<S>("HS", dims.hs)?;
        let (strides, vector) = (self.strides(dims), S::VECTOR);
        for (axis, _, stride) in strides.axes(dims) {
            let rule = format_args!("{axis} stride of {name} % {vector} == 0");
            rules.require(stride.is_multiple_of(vector), rule, || format!("{axis} stride of {name} = {stride}"))?;
        }
        let (end, len) = (strides.end(dims), data.len());
        rules.require(end.is_some_and(|end| end <= len), format_args!("{name} inside its memory"), || {
            let end = end.map_or("more than usize::MAX".to_owned(), |end| end.to_string());
            format!("{name} is {} with strides {strides}, which end after {end} elements of {len}", dims.shape())
        })?;
        Ok(dims)
    }
}

/// (batch, token, head).
impl fmt::Display for HeadStrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Shape::from([self.batch, self.token, self.head]))
    }
}

/// Fails unless `name` has the sizes of another tensor.
fn same_dims(rules: &Rules, name: &str, found: AttentionDims, want: AttentionDims) -> Result<()> {
    rules.shape(name, "(B, T, NH, HS)", found.shape(), want.shape())
}

impl<'a, S: Storage> Heads<'a, S> {
    /// A (B, T, NH, HS) tensor.
    pub fn token_major(data: Compute<'a, S>) -> Self {
        Heads { data, layout: HeadsLayout::TokenMajor }
    }

    /// A (B, NH, T, HS) tensor.
    pub fn head_major(data: Compute<'a, S>) -> Self {
        Heads { data, layout: HeadsLayout::HeadMajor }
    }
}

impl<'a, S: Storage> HeadsMut<'a, S> {
    /// A (B, T, NH, HS) tensor.
    pub fn token_major(data: ComputeMut<'a, S>) -> Self {
        HeadsMut { data, layout: HeadsLayout::TokenMajor }
    }

    /// A (B, NH, T, HS) tensor.
    pub fn head_major(data: ComputeMut<'a, S>) -> Self {
        HeadsMut { data, layout: HeadsLayout::HeadMajor }
    }
}

impl<'a, S: Storage> Qkv<'a, S> {
    /// Checks the layout. Returns the sizes.
    pub(super) fn check(&self, rules: &Rules) -> Result<AttentionDims> {
        match self {
            Qkv::Packed { qkv, num_heads } => packed_dims::<S>(rules, qkv.shape(), *num_heads),
            Qkv::Separate { q, k, v } => {
                let dims = q.layout.check::<S>(rules, "q", q.data.shape())?;
                for (name, Heads { data, layout }) in [("k", k), ("v", v)] {
                    same_dims(rules, name, layout.check::<S>(rules, name, data.shape())?, dims)?;
                }
                Ok(dims)
            }
        }
    }

    /// For Q, K and V: the name of the operand, the memory from the first row on, and the strides. The layout must have
    /// been checked.
    pub(crate) fn tensors(&self, dims: AttentionDims) -> [(&'static str, Compute<'a, S>, HeadStrides); 3] {
        match self {
            Qkv::Packed { qkv, .. } => {
                let (c, strides) = (dims.c(), packed_strides(dims));
                [0, c, 2 * c].map(|start| ("qkv", qkv.part(start, [qkv.shape().len() - start]), strides))
            }
            Qkv::Separate { q, k, v } => {
                [("q", q), ("k", k), ("v", v)].map(|(name, heads)| (name, heads.data, heads.layout.strides(dims)))
            }
        }
    }

    /// The number of distinct elements.
    pub(super) fn len(&self, dims: AttentionDims) -> usize {
        self.tensors(dims).into_iter().map(|(_, _, strides)| strides.len(dims)).sum()
    }
}

impl<S: Storage> QkvMut<'_, S> {
    /// The strides of dq, dk and dv. The layout must have been checked.
    pub(crate) fn strides(&self, dims: AttentionDims) -> [HeadStrides; 3] {
        match self {
            QkvMut::Packed(_) => [packed_strides(dims); 3],
            QkvMut::Separate { dq, dk, dv } => [dq, dk, dv].map(|heads| heads.layout.strides(dims)),
        }
    }

    /// Checks that these can be the gradients of tensors of these sizes.
    pub(super) fn check(&self, rules: &Rules, dims: AttentionDims) -> Result<()> {
        let AttentionDims { b, t, .. } = dims;
        match self {
            QkvMut::Packed(dqkv) => rules.shape("dqkv", "(B, T, 3C)", dqkv.shape(), [b, t, dims.c().saturating_mul(3)]),
            QkvMut::Separate { dq, dk, dv } => {
                for (name, HeadsMut { data, layout }) in [("dq", dq), ("dk", dk), ("dv", dv)] {
                    same_dims(rules, name, layout.check::<S>(rules, name, data.shape())?, dims)?;
                    let strides = layout.strides(dims);
                    rules.require(strides.nested(dims), format_args!("rows of {name} do not overlap"), || {
                        format!("{name} is {} with strides {strides}", dims.shape())
                    })?;
                }
                Ok(())
            }
        }
    }
}

/// The strides of Q, K and V in a packed (B, T, 3C) tensor.
fn packed_strides(dims: AttentionDims) -> HeadStrides {
    let token = 3 * dims.c();
    let strides = HeadStrides { batch: dims.t * token, token, head: dims.hs };
    HeadsLayout::Strided { dims, strides }.strides(dims)
}
