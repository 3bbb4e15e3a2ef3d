//! `mma.sync` and the instructions that load, store and transpose its fragments. The layouts are those of the PTX ISA,
//! "Matrix fragments for mma".

use half::f16;

use super::access::LaneBytes;
use super::block_state::{BlockState, Scratch};
use super::fault::Fault;
use super::warp::Warp;
use crate::ir::{Elements, Mma, MmaInput, Target};
use crate::registers::{LANES, Lanes32, Src};

/// The largest shape of `mma` that is emulated: m16n8k16.
const M: usize = 16;
const N: usize = 8;
const K: usize = 16;

impl BlockState<'_> {
    /// `ldmatrix`: lane 8·i + r gives the address of row r of matrix i; lane l receives elements 2·(l % 4) and the next
    /// of row l / 4, of the matrix or of its transpose.
    pub fn load_matrix(
        &mut self,
        warp: &mut Warp,
        target: &Target,
        (count, transposed, to): (u32, bool, &[u32; 4]),
        pc: u32,
        scratch: &mut Scratch,
    ) -> Result<(), Fault> {
        let lanes = rows_mask(count);
        let row = Elements { bytes: 4, count: 4, signed: false, wide: false, narrow: false };
        let rows = self.load(warp, target, row, false, (lanes, pc), scratch)?;
        for (matrix, &slot) in to[..count as usize].iter().enumerate() {
            let at = |row: usize, column: usize| {
                let bytes = &rows[matrix * 8 + row];
                u32::from(u16::from_le_bytes([bytes[2 * column], bytes[2 * column + 1]]))
            };
            let pair = |lane: usize| {
                let (row, column) = (lane / 4, lane % 4 * 2);
                if transposed {
                    at(column, row) | at(column + 1, row) << 16
                } else {
                    at(row, column) | at(row, column + 1) << 16
                }
            };
            warp.registers.b32[slot as usize] = std::array::from_fn(pair);
        }
        Ok(())
    }

    /// `stmatrix`: the reverse of [`BlockState::load_matrix`].
    pub fn store_matrix(
        &mut self,
        warp: &mut Warp,
        target: &Target,
        (count, transposed, from): (u32, bool, &[Src; 4]),
        pc: u32,
        scratch: &mut Scratch,
    ) -> Result<(), Fault> {
        let mut rows: LaneBytes = [[0; 16]; LANES];
        for (matrix, &source) in from[..count as usize].iter().enumerate() {
            let fragment = warp.registers.get32(source);
            for (lane, pair) in fragment.into_iter().enumerate() {
                for (i, element) in [pair as u16, (pair >> 16) as u16].into_iter().enumerate() {
                    let (mut row, mut column) = (lane / 4, lane % 4 * 2 + i);
                    if transposed {
                        (row, column) = (column, row);
                    }
                    rows[matrix * 8 + row][2 * column..][..2].copy_from_slice(&element.to_le_bytes());
                }
            }
        }
        self.store(warp, target, 16, &rows, (rows_mask(count), pc), scratch)
    }
}

/// The lanes whose addresses `ldmatrix` and `stmatrix` use.
fn rows_mask(count: u32) -> u32 {
    u32::MAX >> (32 - 8 * count)
}

impl Warp {
    /// `movmatrix`: transposes an 8×8 matrix of 16-bit elements.
    pub fn move_matrix(&mut self, to: u32, value: Src) {
        let fragment = self.registers.get32(value);
        let at = |row: usize, column: usize| fragment[row * 4 + column / 2] >> (column % 2 * 16) & 0xFFFF;
        let pair = |lane: usize| {
            let (row, column) = (lane / 4, lane % 4 * 2);
            at(column, row) | at(column + 1, row) << 16
        };
        self.registers.b32[to as usize] = std::array::from_fn(pair);
    }

    /// D = A·B + C. Products are exact; they are added in f32 in the order of k, and C is added last.
    pub fn mma(&mut self, mma: &Mma) {
        let k = mma.k as usize;
        let mut a = [[0f32; K]; M];
        let mut b = [[0f32; N]; K];
        let narrow = mma.input != MmaInput::TF32;
        // A register holds two elements that are adjacent in k, or one TF32 element. The registers of A alternate between
        // the halves of the rows first and the halves of k second.
        for (register, &source) in mma.a.iter().enumerate() {
            let values = self.registers.get32(source);
            for (lane, &bits) in values.iter().enumerate() {
                let (row, step) = (lane / 4 + register % 2 * 8, lane % 4);
                if narrow {
                    let column = step * 2 + register / 2 * 8;
                    (a[row][column], a[row][column + 1]) = (element(mma.input, bits), element(mma.input, bits >> 16));
                } else {
                    a[row][step + register / 2 * 4] = element(mma.input, bits);
                }
            }
        }
        for (register, &source) in mma.b.iter().enumerate() {
            let values = self.registers.get32(source);
            for (lane, &bits) in values.iter().enumerate() {
                let (column, step) = (lane / 4, lane % 4);
                if narrow {
                    let row = step * 2 + register * 8;
                    (b[row][column], b[row + 1][column]) = (element(mma.input, bits), element(mma.input, bits >> 16));
                } else {
                    b[step + register * 4][column] = element(mma.input, bits);
                }
            }
        }
        let mut d = [[0f32; N]; M];
        for (row, d) in d.iter_mut().enumerate() {
            for (step, b) in b[..k].iter().enumerate() {
                for column in 0..N {
                    d[column] += a[row][step] * b[column];
                }
            }
        }
        self.accumulate(mma, &d);
    }

    fn accumulate(&mut self, mma: &Mma, d: &[[f32; N]; M]) {
        let c: Vec<Lanes32> = mma.c.iter().map(|&source| self.registers.get32(source)).collect();
        for (register, &slot) in mma.d.iter().enumerate() {
            let sums = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4, lane % 4 * 2);
                if mma.wide {
                    let sum = d[row + register / 2 * 8][column + register % 2] + f32::from_bits(c[register][lane]);
                    return canonical(sum);
                }
                let row = &d[row + register * 8];
                let add = |sum: f32, plus: u32| {
                    u32::from(f16::from_f32(sum + f16::from_bits(plus as u16).to_f32()).to_bits())
                };
                add(row[column], c[register][lane]) | add(row[column + 1], c[register][lane] >> 16) << 16
            });
            self.registers.b32[slot as usize] = sums;
        }
    }
}

/// The bits of an f32 result; `mma` writes every NaN as the canonical one.
fn canonical(value: f32) -> u32 {
    if value.is_nan() { 0x7FFF_FFFF } else { value.to_bits() }
}

#[inline(always)]
fn element(input: MmaInput, bits: u32) -> f32 {
    match input {
        MmaInput::BF16 => f32::from_bits(bits << 16),
        MmaInput::F16 => f16::from_bits(bits as u16).to_f32(),
        // The low 13 bits of a TF32 operand are ignored.
        MmaInput::TF32 => f32::from_bits(bits & 0xFFFF_E000),
    }
}
