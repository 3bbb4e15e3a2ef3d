//! Linear layers: see [`crate::ops::MatmulForward`].

use rayon::prelude::*;

use super::gelu::{dgelu, gelu};
use super::gemm::{Mat, parallel};
use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::{DgradEpilogue, Epilogue, MatmulDgrad, MatmulDims, MatmulForward, MatmulWgrad, Operation, Write};

pub(super) fn forward<R: Real>(op: MatmulForward<'_, Cpu<R>>) -> Result<()> {
    let MatmulDims { n, c, oc } = op.check()?;
    let x = Mat::new(op.x.as_slice(), n, c);
    let weight = Mat::new(op.weight.as_slice(), oc, c);
    let out = op.out.into_slice();
    parallel(R::one(), x, weight.t(), R::zero(), out);

    match op.epilogue {
        Epilogue::None => {}
        Epilogue::Bias { bias } => {
            let bias = bias.as_slice();
            out.par_chunks_mut(oc).for_each(|out| {
                for (out, &bias) in out.iter_mut().zip(bias) {
                    *out += bias;
                }
            });
        }
        Epilogue::BiasGelu { bias, pre } => {
            let bias = bias.as_slice();
            let rows = out.par_chunks_mut(oc).zip(pre.into_slice().par_chunks_mut(oc));
            rows.for_each(|(out, pre)| {
                for ((out, pre), &bias) in out.iter_mut().zip(pre).zip(bias) {
                    *pre = *out + bias;
                    *out = gelu(*pre);
                }
            });
        }
        Epilogue::BiasResidual { bias, residual } => {
            let bias = bias.as_slice();
            let rows = out.par_chunks_mut(oc).zip(residual.as_slice().par_chunks(oc));
            rows.for_each(|(out, residual)| {
                for ((out, &residual), &bias) in out.iter_mut().zip(residual).zip(bias) {
                    *out = residual + (*out + bias);
                }
            });
        }
    }
    Ok(())
}

pub(super) fn dgrad<R: Real>(op: MatmulDgrad<'_, Cpu<R>>) -> Result<()> {
    let MatmulDims { n, c, oc } = op.check()?;
    let dout = Mat::new(op.dout.as_slice(), n, oc);
    let weight = Mat::new(op.weight.as_slice(), oc, c);
    let dx = op.dx.into_slice();
    parallel(R::one(), dout, weight, R::zero(), dx);

    if let DgradEpilogue::DGelu { pre } = op.epilogue {
        let rows = dx.par_chunks_mut(c).zip(pre.as_slice().par_chunks(c));
        rows.for_each(|(dx, pre)| {
            for (dx, &pre) in dx.iter_mut().zip(pre) {
                *dx *= dgelu(pre);
            }
        });
    }
    Ok(())
}

/// Columns per parallel task: one or two cache lines of each row.
const COLUMNS: usize = 32;

pub(super) fn wgrad<R: Real>(op: MatmulWgrad<'_, Cpu<R>>) -> Result<()> {
    let MatmulDims { n, c, oc } = op.check()?;
    let dout_rows = op.dout.as_slice();
    let dout = Mat::new(dout_rows, n, oc);
    let x = Mat::new(op.x.as_slice(), n, c);
    let beta = match op.write {
        Write::Overwrite => R::zero(),
        Write::Accumulate => R::one(),
    };
    parallel(R::one(), dout.t(), x, beta, op.dweight.into_slice());

    if let Some(dbias) = op.dbias {
        dbias.into_slice().par_chunks_mut(COLUMNS).enumerate().for_each(|(block, dbias)| {
            if op.write == Write::Overwrite {
                dbias.fill(R::zero());
            }
            for row in dout_rows.chunks(oc) {
                for (sum, &dout) in dbias.iter_mut().zip(&row[block * COLUMNS..]) {
                    *sum += dout;
                }
            }
        });
    }
    Ok(())
}
