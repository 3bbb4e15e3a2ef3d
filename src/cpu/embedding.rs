//! Embedding: see [`crate::ops::EmbeddingForward`].

use rayon::prelude::*;

use super::matmul::add;
use super::simd::min_rows;
use super::{Cpu, Real};
use crate::error::{Error, Result};
use crate::ops::{EmbeddingBackward, EmbeddingDims, EmbeddingForward, Operation, Write};

/// Checks all token ids; called before anything is written.
fn check_ids(operation: &'static str, tokens: &[i32], vp: usize) -> Result<()> {
    match tokens.iter().position(|&id| id < 0 || id as usize >= vp) {
        None => Ok(()),
        Some(at) => Err(Error::Precondition {
            operation,
            rule: "0 <= token < Vp".into(),
            found: format!("token {at} = {}, Vp = {vp}", tokens[at]),
        }),
    }
}

pub(super) fn forward<R: Real>(op: EmbeddingForward<'_, Cpu<R>>) -> Result<()> {
    let EmbeddingDims { t, c, vp, .. } = op.check()?;
    let (tokens, wte, wpe) = (op.tokens.as_slice(), op.wte.as_slice(), op.wpe.as_slice());
    check_ids(EmbeddingForward::<Cpu<R>>::NAME, tokens, vp)?;
    let rows = op.out.into_slice().par_chunks_mut(c).zip(tokens).enumerate();
    rows.with_min_len(min_rows(c)).for_each(|(n, (out, &token))| {
        let token_row = &wte[token as usize * c..][..c];
        let position_row = &wpe[(op.position + n % t) * c..][..c];
        for ((out, &a), &b) in out.iter_mut().zip(token_row).zip(position_row) {
            *out = a + b;
        }
    });
    Ok(())
}

pub(super) fn backward<R: Real>(op: EmbeddingBackward<'_, Cpu<R>>) -> Result<()> {
    let EmbeddingDims { b, t, c, vp, .. } = op.check()?;
    let (tokens, dout) = (op.tokens.as_slice(), op.dout.as_slice());
    check_ids(EmbeddingBackward::<Cpu<R>>::NAME, tokens, vp)?;

    // Serial: several tokens may share a row, and the order of a row's sum must be fixed.
    let dwte = op.dwte.into_slice();
    for (&token, dout) in tokens.iter().zip(dout.chunks(c)) {
        add(&mut dwte[token as usize * c..][..c], dout);
    }

    let dwpe = op.dwpe.into_slice();
    dwpe.par_chunks_mut(c).enumerate().with_min_len(min_rows(c)).for_each(|(position, dwpe)| {
        if op.write == Write::Overwrite {
            dwpe.fill(R::zero());
        }
        if position < t {
            for sequence in 0..b {
                add(dwpe, &dout[(sequence * t + position) * c..][..c]);
            }
        }
    });
    Ok(())
}
