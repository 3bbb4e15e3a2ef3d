//! Bytes of workspace that operations need, for programs that lend it with
//! [`Device::lend_workspace`](super::runtime::device::Device::lend_workspace). Operations that are not listed need none.

use super::{attention, embedding, grad_norm, layernorm, matmul};
use crate::ops::{AttentionDims, EmbeddingDims, MatmulDims, RowDims, StepSizes};

/// For [`AttentionBackward`](crate::ops::AttentionBackward).
pub fn attention_backward(dims: AttentionDims) -> usize {
    attention::backward_workspace_bytes(dims)
}

/// For [`EmbeddingBackward`](crate::ops::EmbeddingBackward).
pub fn embedding_backward(EmbeddingDims { b, t, c, vp, .. }: EmbeddingDims) -> usize {
    embedding::backward_workspace_bytes(b * t, c, vp)
}

/// For [`GradNorm`](crate::ops::GradNorm) of P elements.
pub fn grad_norm(p: usize) -> usize {
    grad_norm::workspace_bytes(p)
}

/// For [`LayerNormBackward`](crate::ops::LayerNormBackward).
pub fn layernorm_backward(dims: RowDims) -> usize {
    layernorm::backward_workspace_bytes(dims)
}

/// For [`MatmulWgrad`](crate::ops::MatmulWgrad).
pub fn matmul_wgrad(dims: MatmulDims) -> usize {
    matmul::wgrad_workspace_bytes(dims)
}

/// The largest of all operations of a training step.
pub(super) fn training_step(StepSizes { b, t, nh, c, vp, parameters }: StepSizes) -> usize {
    let n = b * t;
    let matmuls = [(c, 3 * c), (c, c), (c, 4 * c), (4 * c, c), (c, vp)];
    let wgrads = matmuls.map(|(c, oc)| matmul_wgrad(MatmulDims { n, c, oc }));
    let others = [
        layernorm_backward(RowDims { n, c }),
        embedding_backward(EmbeddingDims { b, t, c, vp, max_t: t }),
        attention_backward(AttentionDims { b, t, nh, hs: c / nh }),
        grad_norm(parameters),
    ];
    wgrads.into_iter().chain(others).fold(0, usize::max)
}
