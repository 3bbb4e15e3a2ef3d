//! `atom` and `red`.

use half::{bf16, f16};

use super::block_state::{BlockState, Scratch};
use super::fault::Fault;
use super::warp::Warp;
use crate::address_space::space_of_address;
use crate::ir::{AtomicOp, AtomicType, Space, Target};
use crate::registers::{LANES, Src};

/// An atomic instruction with its operands.
pub struct Atomic<'a> {
    pub target: &'a Target,
    pub op: AtomicOp,
    pub ty: AtomicType,
    pub to: Option<u32>,
    pub operands: &'a [Src; 2],
}

impl BlockState<'_> {
    /// Executes `atom` or `red`; lanes with the same address execute one after the other.
    pub fn atomic(
        &mut self,
        warp: &mut Warp,
        atomic: Atomic,
        (mask, pc): (u32, u32),
        scratch: &mut Scratch,
    ) -> Result<(), Fault> {
        let Atomic { target, op, ty, to, operands } = atomic;
        let wide = ty.bytes() == 8;
        let read = |warp: &Warp, src: Src| -> [u64; LANES] {
            if wide { warp.registers.get64(src) } else { warp.registers.get32(src).map(u64::from) }
        };
        let (first, second) = (read(warp, operands[0]), read(warp, operands[1]));
        let size = ty.bytes() as usize;
        let mut old = [0u64; LANES];
        let addresses = warp.addresses(&target.address);
        // f32 additions flush subnormals in device memory but not in shared memory.
        let flushes = |lane: usize| match target.space {
            Space::Generic => space_of_address(addresses[lane]) == Space::Global,
            space => space == Space::Global,
        };
        self.update(warp, target, ty.bytes(), (mask, pc), scratch, |lane, bytes| {
            let mut word = [0; 8];
            word[..size].copy_from_slice(bytes);
            old[lane] = u64::from_le_bytes(word);
            let new = match (op, ty) {
                (AtomicOp::Add, AtomicType::F32) if flushes(lane) => flushed_sum(old[lane] as u32, first[lane] as u32),
                _ => apply(op, ty, old[lane], first[lane], second[lane]),
            };
            bytes.copy_from_slice(&new.to_le_bytes()[..size]);
        })?;
        if let Some(to) = to {
            if wide {
                warp.registers.set64(to, mask, &old);
            } else {
                warp.registers.set32(to, mask, &old.map(|old| old as u32));
            }
        }
        Ok(())
    }
}

/// The new value. Values of fewer than 64 bits are in the low bits.
fn apply(op: AtomicOp, ty: AtomicType, old: u64, a: u64, b: u64) -> u64 {
    let bits = ty.bytes() * 8;
    let cut = u64::MAX >> (64 - bits);
    let signed = matches!(ty, AtomicType::S32 | AtomicType::S64);
    let extend = |value: u64| (value << (64 - bits)) as i64 >> (64 - bits);
    let less = |x: u64, y: u64| if signed { extend(x) < extend(y) } else { x & cut < y & cut };
    let new = match op {
        AtomicOp::Add => add(ty, old, a),
        AtomicOp::Min => {
            if less(a, old) {
                a
            } else {
                old
            }
        }
        AtomicOp::Max => {
            if less(old, a) {
                a
            } else {
                old
            }
        }
        AtomicOp::And => old & a,
        AtomicOp::Or => old | a,
        AtomicOp::Xor => old ^ a,
        AtomicOp::Exchange => a,
        AtomicOp::CompareAndSwap => {
            if old & cut == a & cut {
                b
            } else {
                old
            }
        }
        AtomicOp::Increment => {
            if old >= a {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Decrement => {
            if old == 0 || old > a {
                a
            } else {
                old - 1
            }
        }
    };
    new & cut
}

fn add(ty: AtomicType, old: u64, a: u64) -> u64 {
    let f16_sum = |x: u16, y: u16| f16::from_f32(f16::from_bits(x).to_f32() + f16::from_bits(y).to_f32()).to_bits();
    let bf16_sum = |x: u16, y: u16| bf16_add(bf16::from_bits(x), bf16::from_bits(y)).to_bits();
    let halves = |sum: &dyn Fn(u16, u16) -> u16| {
        u64::from(sum(old as u16, a as u16)) | u64::from(sum((old >> 16) as u16, (a >> 16) as u16)) << 16
    };
    match ty {
        AtomicType::F32 => u64::from((f32::from_bits(old as u32) + f32::from_bits(a as u32)).to_bits()),
        AtomicType::F64 => (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
        AtomicType::F16 => u64::from(f16_sum(old as u16, a as u16)),
        AtomicType::BF16 => u64::from(bf16_sum(old as u16, a as u16)),
        AtomicType::F16x2 => halves(&f16_sum),
        AtomicType::BF16x2 => halves(&bf16_sum),
        _ => old.wrapping_add(a),
    }
}

/// The sum of two f32, where subnormal operands and results are flushed to zero.
fn flushed_sum(old: u32, a: u32) -> u64 {
    let flush = |value: f32| if value.is_subnormal() { 0f32.copysign(value) } else { value };
    let sum = flush(f32::from_bits(old)) + flush(f32::from_bits(a));
    u64::from(flush(sum).to_bits())
}

/// Rounds once: the sum of two bf16 is exact in f64, but not in f32.
fn bf16_add(x: bf16, y: bf16) -> bf16 {
    bf16::from_f64(x.to_f64() + y.to_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_wrap_compare_and_count_by_type() {
        use AtomicOp::*;
        use AtomicType::*;
        assert_eq!(apply(Add, U32, 0xFFFF_FFFF, 2, 0), 1);
        assert_eq!(apply(Min, S32, 5, 0xFFFF_FFFF, 0), 0xFFFF_FFFF);
        assert_eq!(apply(Min, U32, 5, 0xFFFF_FFFF, 0), 5);
        assert_eq!(apply(Max, S64, (-3i64) as u64, (-2i64) as u64, 0), (-2i64) as u64);
        assert_eq!(apply(Increment, U32, 7, 7, 0), 0);
        assert_eq!(apply(Decrement, U32, 0, 7, 0), 7);
        assert_eq!(apply(CompareAndSwap, B16, 3, 0x1_0003, 9), 9);
        assert_eq!(apply(Add, F32, 1.5f32.to_bits().into(), 2.25f32.to_bits().into(), 0), 3.75f32.to_bits().into());
        let pair = |low: f32, high: f32| {
            u64::from(bf16::from_f32(low).to_bits()) | u64::from(bf16::from_f32(high).to_bits()) << 16
        };
        assert_eq!(apply(Add, BF16x2, pair(1.0, 2.0), pair(3.0, -5.0), 0), pair(4.0, -3.0));
    }
}
