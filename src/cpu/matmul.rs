//! Linear layers: see [`crate::ops::MatmulForward`].

use rayon::prelude::*;

use super::gelu::{bias_gelu_row, dgelu_row};
use super::gemm::{Mat, parallel};
use super::simd::{min_rows, vectorised};
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
            out.par_chunks_mut(oc).with_min_len(min_rows(oc)).for_each(|out| add(out, bias));
        }
        Epilogue::BiasGelu { bias, pre } => {
            let bias = bias.as_slice();
            let rows = out.par_chunks_mut(oc).zip(pre.into_slice().par_chunks_mut(oc));
            rows.with_min_len(min_rows(oc)).for_each(|(out, pre)| bias_gelu_row(out, pre, bias));
        }
        Epilogue::BiasResidual { bias, residual } => {
            let bias = bias.as_slice();
            let rows = out.par_chunks_mut(oc).zip(residual.as_slice().par_chunks(oc));
            rows.with_min_len(min_rows(oc)).for_each(|(out, residual)| bias_residual_row(out, residual, bias));
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
        rows.with_min_len(min_rows(c)).for_each(|(dx, pre)| dgelu_row(dx, pre));
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
            sum_columns(dbias, &dout_rows[block * COLUMNS..], oc);
        });
    }
    Ok(())
}

vectorised! {
    /// `sum += row`
    pub(super) fn add<R: Real>(sum: &mut [R], row: &[R]) {
        for (sum, &x) in sum.iter_mut().zip(row) {
            *sum += x;
        }
    }

    /// `out = residual + (product + bias)`, where `out` holds the product.
    fn bias_residual_row<R: Real>(out: &mut [R], residual: &[R], bias: &[R]) {
        for ((out, &residual), &bias) in out.iter_mut().zip(residual).zip(bias) {
            *out = residual + (*out + bias);
        }
    }

    /// Adds every row to `sums`: rows start `stride` elements apart and have the first columns in common with `sums`.
    fn sum_columns<R: Real>(sums: &mut [R], rows: &[R], stride: usize) {
        for row in rows.chunks(stride) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}
