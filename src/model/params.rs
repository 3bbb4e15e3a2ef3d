//! The parameters of a GPT-2: names, shapes and offsets in one flat buffer.

use std::ops::Range;

use super::config::Config;
use crate::error::Result;
use crate::tensor::host_zeros;

/// Declares [`Gpt`]: one field per parameter tensor, in arena order.
macro_rules! gpt_tensors {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// One value for each parameter tensor of a GPT-2, e.g. its shape, its gradient or a view of it.
        ///
        /// Tensors of the blocks are stacked over the layers: their first axis is L. The 2-D weights, which have weight
        /// decay, come first, then the vectors, which have none, so that each group is one range of a flat buffer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Gpt<T> { $($(#[$doc])* pub $field: T,)* }

        impl<T> Gpt<T> {
            /// Field names, in arena order; also the names of the tensors in our checkpoints.
            pub const NAMES: [&'static str; 16] = [$(stringify!($field)),*];

            /// References to all values.
            pub fn as_ref(&self) -> Gpt<&T> {
                Gpt { $($field: &self.$field,)* }
            }

            /// Applies `f` to every value, in arena order.
            pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Gpt<U> {
                Gpt { $($field: f(self.$field),)* }
            }

            /// The values with their names, in arena order.
            pub fn into_array(self) -> [(&'static str, T); 16] {
                [$((stringify!($field), self.$field)),*]
            }
        }
    };
}

gpt_tensors! {
    /// Token embedding, and, transposed, the LM head: (Vp, C).
    wte,
    /// Position embedding: (T, C).
    wpe,
    /// Attention's QKV projection: (L, 3C, C).
    qkv_weight,
    /// Attention's output projection: (L, C, C).
    attn_proj_weight,
    /// MLP's first layer: (L, 4C, C).
    fc_weight,
    /// MLP's second layer: (L, C, 4C).
    fc_proj_weight,
    /// Scale of the layernorm before attention: (L, C).
    ln1_weight,
    /// Shift of the layernorm before attention: (L, C).
    ln1_bias,
    /// Bias of the QKV projection: (L, 3C).
    qkv_bias,
    /// Bias of the attention output projection: (L, C).
    attn_proj_bias,
    /// Scale of the layernorm before the MLP: (L, C).
    ln2_weight,
    /// Shift of the layernorm before the MLP: (L, C).
    ln2_bias,
    /// Bias of the MLP's first layer: (L, 4C).
    fc_bias,
    /// Bias of the MLP's second layer: (L, C).
    fc_proj_bias,
    /// Scale of the final layernorm: (C).
    lnf_weight,
    /// Shift of the final layernorm: (C).
    lnf_bias,
}

/// Number of tensors of [`Gpt`] with weight decay: the first ones in arena order.
pub const NUM_DECAYED: usize = 6;

/// Shape and element range of one parameter tensor in the flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Its element range in the buffer.
    pub range: Range<usize>,
    /// Whether the first axis is L.
    pub is_stacked: bool,
}

/// The layout of all parameter tensors in one flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The tensors, in arena order without gaps.
    pub slots: Gpt<Slot>,
    /// Number of elements in the buffer, including the padding rows of `wte`.
    pub len: usize,
    /// Elements `0..decayed` belong to tensors with weight decay.
    pub decayed: usize,
}

impl Layout {
    /// The layout of a model.
    pub fn new(config: &Config) -> Self {
        let Config { context: t, layers: l, channels: c, .. } = *config;
        let once = |shape: &[usize]| (shape.to_vec(), false);
        let in_blocks = |shape: &[usize]| ([&[l], shape].concat(), true);
        let shapes = Gpt {
            wte: once(&[config.padded_vocab(), c]),
            wpe: once(&[t, c]),
            qkv_weight: in_blocks(&[3 * c, c]),
            attn_proj_weight: in_blocks(&[c, c]),
            fc_weight: in_blocks(&[4 * c, c]),
            fc_proj_weight: in_blocks(&[c, 4 * c]),
            ln1_weight: in_blocks(&[c]),
            ln1_bias: in_blocks(&[c]),
            qkv_bias: in_blocks(&[3 * c]),
            attn_proj_bias: in_blocks(&[c]),
            ln2_weight: in_blocks(&[c]),
            ln2_bias: in_blocks(&[c]),
            fc_bias: in_blocks(&[4 * c]),
            fc_proj_bias: in_blocks(&[c]),
            lnf_weight: once(&[c]),
            lnf_bias: once(&[c]),
        };
        let mut len = 0;
        let slots = shapes.map(|(shape, is_stacked)| {
            let start = len;
            len += shape.iter().product::<usize>();
            Slot { shape, range: start..len, is_stacked }
        });
        let decayed = slots.as_ref().into_array()[NUM_DECAYED - 1].1.range.end;
        Layout { slots, len, decayed }
    }
}

/// The weights of a model in host memory, in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct HostWeights {
    /// Sizes of the model.
    pub config: Config,
    /// Layout of the tensors in `data`.
    pub layout: Layout,
    /// All parameters; padding rows of `wte` are zero.
    pub data: Vec<f32>,
}

impl HostWeights {
    /// Weights that are all zero.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) if there is not enough host memory.
    pub fn zeros(config: Config) -> Result<Self> {
        let layout = Layout::new(&config);
        let data = host_zeros(layout.len)?;
        Ok(HostWeights { config, layout, data })
    }

    /// Iterates over all tensors with their names and shapes, in arena order.
    pub fn tensors(&self) -> impl Iterator<Item = (&'static str, &[usize], &[f32])> {
        let slots = self.layout.slots.as_ref().into_array();
        slots.into_iter().map(|(name, slot)| (name, &slot.shape[..], &self.data[slot.range.clone()]))
    }

    /// Mutable slices of all tensors.
    pub fn tensors_mut(&mut self) -> Gpt<&mut [f32]> {
        let mut rest = &mut self.data[..];
        self.layout.slots.as_ref().map(|slot| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(slot.range.len());
            rest = tail;
            head
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_tile_the_buffer_and_add_up_to_the_parameter_count() {
        let config = Config::preset("gpt2-124M").unwrap();
        let layout = Layout::new(&config);
        let mut end = 0;
        for (index, (name, slot)) in layout.slots.as_ref().into_array().into_iter().enumerate() {
            assert_eq!(slot.range.start, end, "{name}");
            assert_eq!(slot.range.len(), slot.shape.iter().product::<usize>(), "{name}");
            assert_eq!(slot.is_stacked, !name.starts_with('w') && !name.starts_with("lnf"), "{name}");
            let is_matrix = slot.shape.len() == 3 || name.starts_with('w');
            assert_eq!(index < NUM_DECAYED, is_matrix, "{name}");
            end = slot.range.end;
        }
        assert_eq!(layout.len, end);
        let padding = (config.padded_vocab() - config.vocab) * config.channels;
        assert_eq!(layout.len - padding, config.parameters());
        assert_eq!(layout.decayed, layout.slots.ln1_weight.range.start);
    }
}
