//! Layernorm: see [`crate::ops::LayerNormForward`].

use rayon::prelude::*;

use super::real::sum;
use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::{
    LAYERNORM_EPS, LayerNormBackward, LayerNormForward, Operation, ResidualLayerNormForward, RowDims, Write,
};

/// Normalises one row; returns its mean and reciprocal standard deviation.
fn normalise<R: Real>(x: &[R], weight: &[R], bias: &[R], out: &mut [R]) -> (R, R) {
    let c = R::of(x.len() as f64);
    let mean = sum(x.len(), |i| x[i]) / c;
    // Second pass over the row: E[x²] - E[x]² would suffer from cancellation.
    let variance = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / c;
    let rstd = R::one() / (variance + R::of(LAYERNORM_EPS)).sqrt();
    for i in 0..x.len() {
        out[i] = (x[i] - mean) * rstd * weight[i] + bias[i];
    }
    (mean, rstd)
}

pub(super) fn forward<R: Real>(op: LayerNormForward<'_, Cpu<R>>) -> Result<()> {
    let RowDims { c, .. } = op.check()?;
    let (x, weight, bias) = (op.x.as_slice(), op.weight.as_slice(), op.bias.as_slice());
    let outputs = op.out.into_slice().par_chunks_mut(c).zip(op.mean.into_slice()).zip(op.rstd.into_slice());
    outputs.zip(x.par_chunks(c)).for_each(|(((out, mean), rstd), x)| {
        (*mean, *rstd) = normalise(x, weight, bias, out);
    });
    Ok(())
}

pub(super) fn residual_forward<R: Real>(op: ResidualLayerNormForward<'_, Cpu<R>>) -> Result<()> {
    let RowDims { c, .. } = op.check()?;
    let (x, residual) = (op.x.as_slice(), op.residual.as_slice());
    let (weight, bias) = (op.weight.as_slice(), op.bias.as_slice());
    let outputs = op.out.into_slice().par_chunks_mut(c).zip(op.mean.into_slice()).zip(op.rstd.into_slice());
    let sums = op.sum.into_slice().par_chunks_mut(c);
    outputs.zip(sums).zip(x.par_chunks(c).zip(residual.par_chunks(c))).for_each(
        |((((out, mean), rstd), sum), (x, residual))| {
            for i in 0..c {
                sum[i] = x[i] + residual[i];
            }
            (*mean, *rstd) = normalise(sum, weight, bias, out);
        },
    );
    Ok(())
}

/// Columns per parallel task: one or two cache lines of each row.
const COLUMNS: usize = 32;

pub(super) fn backward<R: Real>(op: LayerNormBackward<'_, Cpu<R>>) -> Result<()> {
    let RowDims { n, c } = op.check()?;
    let (dout, x, weight) = (op.dout.as_slice(), op.x.as_slice(), op.weight.as_slice());
    let (mean, rstd) = (op.mean.as_slice(), op.rstd.as_slice());

    let columns = R::of(c as f64);
    op.dx.into_slice().par_chunks_mut(c).enumerate().for_each(|(row, dx)| {
        let (dout, x) = (&dout[row * c..][..c], &x[row * c..][..c]);
        let (mean, rstd) = (mean[row], rstd[row]);
        let xhat = |i: usize| (x[i] - mean) * rstd;
        let g = |i: usize| dout[i] * weight[i];
        let mean_g = sum(c, g) / columns;
        let mean_g_xhat = sum(c, |i| g(i) * xhat(i)) / columns;
        for (i, dx) in dx.iter_mut().enumerate() {
            let value = rstd * (g(i) - mean_g - xhat(i) * mean_g_xhat);
            *dx = match op.dx_write {
                Write::Overwrite => value,
                Write::Accumulate => *dx + value,
            };
        }
    });

    let (dweight, dbias) = (op.dweight.into_slice(), op.dbias.into_slice());
    let blocks = dweight.par_chunks_mut(COLUMNS).zip(dbias.par_chunks_mut(COLUMNS));
    blocks.enumerate().for_each(|(block, (dweight, dbias))| {
        if op.write == Write::Overwrite {
            dweight.fill(R::zero());
            dbias.fill(R::zero());
        }
        for row in 0..n {
            let start = row * c + block * COLUMNS;
            for i in 0..dweight.len() {
                let dout = dout[start + i];
                dweight[i] += dout * (x[start + i] - mean[row]) * rstd[row];
                dbias[i] += dout;
            }
        }
    });
    Ok(())
}
