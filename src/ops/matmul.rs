//! Matrix products with fused epilogues: `Y = X·Wᵀ` and the two products of its backward.

use super::check::{Rules, bytes};
use super::operation::{AccumMut, Compute, ComputeMut, Floor, Operation, Write};
use crate::error::Result;
use crate::tensor::Storage;

/// Sizes of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatmulDims {
    /// Number of rows.
    pub n: usize,
    /// Number of input channels.
    pub c: usize,
    /// Number of output channels.
    pub oc: usize,
}

impl MatmulDims {
    /// `2·N·C·OC`.
    fn flops(&self) -> u64 {
        2 * self.n as u64 * self.c as u64 * self.oc as u64
    }
}

/// Epilogue of a [`MatmulForward`]: how `out` is computed from the product `y = x·wᵀ`.
pub enum Epilogue<'a, S: Storage> {
    /// `out = y`
    None,
    /// `out = y + bias`
    Bias {
        /// (OC).
        bias: Compute<'a, S>,
    },
    /// `pre = y + bias`, `out = gelu(pre)`. `pre` is rounded to its type before GELU, so that recomputing from it gives the
    /// same bits. See [`super::GeluForward`] for the formula.
    BiasGelu {
        /// (OC).
        bias: Compute<'a, S>,
        /// (N, OC) `=`.
        pre: ComputeMut<'a, S>,
    },
    /// `out = residual + (y + bias)`
    BiasResidual {
        /// (OC).
        bias: Compute<'a, S>,
        /// (N, OC).
        residual: Compute<'a, S>,
    },
}

/// `out = epilogue(x · weightᵀ)`
pub struct MatmulForward<'a, S: Storage> {
    /// (N, C).
    pub x: Compute<'a, S>,
    /// (OC, C).
    pub weight: Compute<'a, S>,
    /// Epilogue of the product.
    pub epilogue: Epilogue<'a, S>,
    /// (N, OC) `=`.
    pub out: ComputeMut<'a, S>,
}

impl<S: Storage> MatmulForward<'_, S> {
    fn dims(&self) -> MatmulDims {
        let ([n, c], [oc, _]) = (self.x.shape().matrix(), self.weight.shape().matrix());
        MatmulDims { n, c, oc }
    }
}

impl<S: Storage> Operation for MatmulForward<'_, S> {
    const NAME: &'static str = "matmul_forward";
    type Dims = MatmulDims;

    fn check(&self) -> Result<MatmulDims> {
        let rules = Rules(Self::NAME);
        let dims @ MatmulDims { n, c, oc } = self.dims();
        rules.not_empty("x", self.x.shape())?;
        rules.not_empty("weight", self.weight.shape())?;
        rules.shape("weight", "(OC, C)", self.weight.shape(), [oc, c])?;
        rules.matrix("out", "(N, OC)", self.out.shape(), [n, oc])?;
        match &self.epilogue {
            Epilogue::None => {}
            Epilogue::Bias { bias } => rules.shape("bias", "(OC)", bias.shape(), [oc])?,
            Epilogue::BiasGelu { bias, pre } => {
                rules.shape("bias", "(OC)", bias.shape(), [oc])?;
                rules.matrix("pre", "(N, OC)", pre.shape(), [n, oc])?;
            }
            Epilogue::BiasResidual { bias, residual } => {
                rules.shape("bias", "(OC)", bias.shape(), [oc])?;
                rules.matrix("residual", "(N, OC)", residual.shape(), [n, oc])?;
            }
        }
        rules.vectors::<S>("C", c)?;
        rules.vectors::<S>("OC", oc)?;
        Ok(dims)
    }

    fn floor(&self) -> Floor {
        let dims @ MatmulDims { n, c, oc } = self.dims();
        let epilogue = match self.epilogue {
            Epilogue::None => 0,
            Epilogue::Bias { .. } => oc,
            Epilogue::BiasGelu { .. } | Epilogue::BiasResidual { .. } => oc + n * oc,
        };
        Floor { bytes: bytes::<S::Compute>(n * c + oc * c + n * oc + epilogue), flops: dims.flops() }
    }
}

/// Epilogue of a [`MatmulDgrad`]: how `dx` is computed from the product `dy = dout·w`.
pub enum DgradEpilogue<'a, S: Storage> {
    /// `dx = dy`
    None,
    /// `dx = dy · gelu'(pre)`: the gradient of the pre-activation.
    DGelu {
        /// (N, C), the output `pre` of [`Epilogue::BiasGelu`].
        pre: Compute<'a, S>,
    },
}

/// `dx = epilogue(dout · weight)`
pub struct MatmulDgrad<'a, S: Storage> {
    /// (N, OC).
    pub dout: Compute<'a, S>,
    /// (OC, C).
    pub weight: Compute<'a, S>,
    /// Epilogue of the product.
    pub epilogue: DgradEpilogue<'a, S>,
    /// (N, C) `=`.
    pub dx: ComputeMut<'a, S>,
}

impl<S: Storage> MatmulDgrad<'_, S> {
    fn dims(&self) -> MatmulDims {
        let ([n, _], [oc, c]) = (self.dout.shape().matrix(), self.weight.shape().matrix());
        MatmulDims { n, c, oc }
    }
}

impl<S: Storage> Operation for MatmulDgrad<'_, S> {
    const NAME: &'static str = "matmul_dgrad";
    type Dims = MatmulDims;

    fn check(&self) -> Result<MatmulDims> {
        let rules = Rules(Self::NAME);
        let dims @ MatmulDims { n, c, oc } = self.dims();
        rules.not_empty("dout", self.dout.shape())?;
        rules.not_empty("weight", self.weight.shape())?;
        rules.matrix("dout", "(N, OC)", self.dout.shape(), [n, oc])?;
        rules.matrix("dx", "(N, C)", self.dx.shape(), [n, c])?;
        if let DgradEpilogue::DGelu { pre } = &self.epilogue {
            rules.matrix("pre", "(N, C)", pre.shape(), [n, c])?;
        }
        rules.vectors::<S>("C", c)?;
        rules.vectors::<S>("OC", oc)?;
        Ok(dims)
    }

    fn floor(&self) -> Floor {
        let dims @ MatmulDims { n, c, oc } = self.dims();
        let epilogue = match self.epilogue {
            DgradEpilogue::None => 0,
            DgradEpilogue::DGelu { .. } => n * c,
        };
        Floor { bytes: bytes::<S::Compute>(n * oc + oc * c + n * c + epilogue), flops: dims.flops() }
    }
}

/// `dweight (+)= doutᵀ · x`, `dbias (+)= Σ_n dout`
pub struct MatmulWgrad<'a, S: Storage> {
    /// (N, OC).
    pub dout: Compute<'a, S>,
    /// (N, C), the input of the forward.
    pub x: Compute<'a, S>,
    /// (OC, C), written according to `write`.
    pub dweight: AccumMut<'a, S>,
    /// (OC), written according to `write`; `None` for a layer without bias.
    pub dbias: Option<AccumMut<'a, S>>,
    /// Write mode of the gradients.
    pub write: Write,
}

impl<S: Storage> MatmulWgrad<'_, S> {
    fn dims(&self) -> MatmulDims {
        let ([n, oc], [_, c]) = (self.dout.shape().matrix(), self.x.shape().matrix());
        MatmulDims { n, c, oc }
    }
}

impl<S: Storage> Operation for MatmulWgrad<'_, S> {
    const NAME: &'static str = "matmul_wgrad";
    type Dims = MatmulDims;

    fn check(&self) -> Result<MatmulDims> {
        let rules = Rules(Self::NAME);
        let dims @ MatmulDims { n, c, oc } = self.dims();
        rules.not_empty("dout", self.dout.shape())?;
        rules.not_empty("x", self.x.shape())?;
        rules.matrix("x", "(N, C)", self.x.shape(), [n, c])?;
        rules.shape("dweight", "(OC, C)", self.dweight.shape(), [oc, c])?;
        if let Some(dbias) = &self.dbias {
            rules.shape("dbias", "(OC)", dbias.shape(), [oc])?;
        }
        rules.vectors::<S>("C", c)?;
        rules.vectors::<S>("OC", oc)?;
        Ok(dims)
    }

    fn floor(&self) -> Floor {
        let dims @ MatmulDims { n, c, oc } = self.dims();
        let gradients = oc * c + self.dbias.as_ref().map_or(0, |_| oc);
        let gradients = bytes::<S::Accum>(gradients * self.write.accesses());
        Floor { bytes: bytes::<S::Compute>(n * oc + n * c) + gradients, flops: dims.flops() }
    }
}
