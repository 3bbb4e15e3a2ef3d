//! Layernorm: see [`crate::ops::LayerNormForward`].

use rayon::prelude::*;

use super::real::sum;
use super::simd::{min_rows, vectorised};
use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::{
    LAYERNORM_EPS, LayerNormBackward, LayerNormForward, Operation, ResidualLayerNormForward, RowDims, Write,
};

vectorised! {
    /// Normalises one row; returns its mean and reciprocal standard deviation.
    fn normalise<R: Real>(x: &[R], weight: &[R], bias: &[R], out: &mut [R]) -> (R, R) {
        let n = x.len();
        // Reslicing to equal lengths lets the compiler drop the bounds checks and vectorise the loops.
        let (weight, bias, out) = (&weight[..n], &bias[..n], &mut out[..n]);
        let c = R::of(n as f64);
        let mean = sum(n, |i| x[i]) / c;
        // Second pass over the row: E[x²] - E[x]² would suffer from cancellation.
        let variance = sum(n, |i| (x[i] - mean) * (x[i] - mean)) / c;
        let rstd = R::one() / (variance + R::of(LAYERNORM_EPS)).sqrt();
        for i in 0..n {
            out[i] = (x[i] - mean) * rstd * weight[i] + bias[i];
        }
        (mean, rstd)
    }
}

pub(super) fn forward<R: Real>(op: LayerNormForward<'_, Cpu<R>>) -> Result<()> {
    let RowDims { c, .. } = op.check()?;
    let (x, weight, bias) = (op.x.as_slice(), op.weight.as_slice(), op.bias.as_slice());
    let outputs = op.out.into_slice().par_chunks_mut(c).zip(op.mean.into_slice()).zip(op.rstd.into_slice());
    outputs.zip(x.par_chunks(c)).with_min_len(min_rows(c)).for_each(|(((out, mean), rstd), x)| {
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
    outputs.zip(sums).zip(x.par_chunks(c).zip(residual.par_chunks(c))).with_min_len(min_rows(c)).for_each(
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

    let rows = op.dx.into_slice().par_chunks_mut(c).enumerate();
    rows.with_min_len(min_rows(c)).for_each(|(row, dx)| {
        let (dout, x) = (&dout[row * c..][..c], &x[row * c..][..c]);
        dx_row(dx, op.dx_write, dout, x, weight, (mean[row], rstd[row]));
    });

    let (dweight, dbias) = (op.dweight.into_slice(), op.dbias.into_slice());
    let blocks = dweight.par_chunks_mut(COLUMNS).zip(dbias.par_chunks_mut(COLUMNS));
    blocks.enumerate().for_each(|(block, (dweight, dbias))| {
        if op.write == Write::Overwrite {
            dweight.fill(R::zero());
            dbias.fill(R::zero());
        }
        for row in 0..n {
            let columns = row * c + block * COLUMNS..row * c + block * COLUMNS + dweight.len();
            add_row(dweight, dbias, &dout[columns.clone()], &x[columns], (mean[row], rstd[row]));
        }
    });
    Ok(())
}

vectorised! {
    /// Writes or accumulates the gradient of a row; `(mean, rstd)` are the row's statistics.
    fn dx_row<R: Real>(dx: &mut [R], write: Write, dout: &[R], x: &[R], weight: &[R], statistics: (R, R)) {
        let c = dx.len();
        let (dout, x, weight, (mean, rstd)) = (&dout[..c], &x[..c], &weight[..c], statistics);
        let xhat = |i: usize| (x[i] - mean) * rstd;
        let g = |i: usize| dout[i] * weight[i];
        let columns = R::of(c as f64);
        let mean_g = sum(c, g) / columns;
        let mean_g_xhat = sum(c, |i| g(i) * xhat(i)) / columns;
        let value = |i: usize| rstd * (g(i) - mean_g - xhat(i) * mean_g_xhat);
        // Loops and not `for_each`, which would not be inlined.
        match write {
            Write::Overwrite => {
                for (i, dx) in dx.iter_mut().enumerate() {
                    *dx = value(i);
                }
            }
            Write::Accumulate => {
                for (i, dx) in dx.iter_mut().enumerate() {
                    *dx += value(i);
                }
            }
        }
    }

    /// Adds a row's part of the parameters' gradients.
    fn add_row<R: Real>(dweight: &mut [R], dbias: &mut [R], dout: &[R], x: &[R], statistics: (R, R)) {
        let n = dweight.len();
        let (dbias, dout, x, (mean, rstd)) = (&mut dbias[..n], &dout[..n], &x[..n], statistics);
        for i in 0..n {
            dweight[i] += dout[i] * (x[i] - mean) * rstd;
            dbias[i] += dout[i];
        }
    }
}
