//! The registers of a warp, each with the values of all 32 lanes.

/// Lanes of a warp.
pub const LANES: usize = 32;
/// One 32-bit register of every lane. Narrower values are always zero-extended.
pub type Lanes32 = [u32; LANES];
/// One 64-bit register of every lane.
pub type Lanes64 = [u64; LANES];

/// The register file that holds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// 8, 16 and 32 bits.
    B32,
    B64,
    Pred,
}

/// A source operand: a slot of the register file that the instruction implies, or the same bits in every lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Src {
    Slot(u32),
    Bits(u64),
}

/// The register files of a warp. A predicate is a mask: bit `i` is its value in lane `i`.
#[derive(Debug, Default)]
pub struct Registers {
    pub b32: Vec<Lanes32>,
    pub b64: Vec<Lanes64>,
    pub pred: Vec<u32>,
}

impl Registers {
    /// Register files of the given sizes, with all registers zero.
    pub fn new(b32: usize, b64: usize, pred: usize) -> Self {
        Self { b32: vec![[0; LANES]; b32], b64: vec![[0; LANES]; b64], pred: vec![0; pred] }
    }

    #[inline(always)]
    pub fn get32(&self, src: Src) -> Lanes32 {
        match src {
            Src::Slot(slot) => self.b32[slot as usize],
            Src::Bits(bits) => [bits as u32; LANES],
        }
    }

    #[inline(always)]
    pub fn get64(&self, src: Src) -> Lanes64 {
        match src {
            Src::Slot(slot) => self.b64[slot as usize],
            Src::Bits(bits) => [bits; LANES],
        }
    }

    #[inline(always)]
    pub fn get_pred(&self, src: Src) -> u32 {
        match src {
            Src::Slot(slot) => self.pred[slot as usize],
            Src::Bits(bits) => 0u32.wrapping_sub((bits != 0) as u32),
        }
    }

    /// Writes the lanes of `mask` only.
    #[inline(always)]
    pub fn set32(&mut self, slot: u32, mask: u32, values: &Lanes32) {
        let out = &mut self.b32[slot as usize];
        if mask == u32::MAX {
            *out = *values;
        } else {
            for lane in 0..LANES {
                let keep = 0u32.wrapping_sub(mask >> lane & 1);
                out[lane] = values[lane] & keep | out[lane] & !keep;
            }
        }
    }

    /// Writes the lanes of `mask` only.
    #[inline(always)]
    pub fn set64(&mut self, slot: u32, mask: u32, values: &Lanes64) {
        let out = &mut self.b64[slot as usize];
        if mask == u32::MAX {
            *out = *values;
        } else {
            for lane in 0..LANES {
                let keep = 0u64.wrapping_sub(u64::from(mask >> lane & 1));
                out[lane] = values[lane] & keep | out[lane] & !keep;
            }
        }
    }

    /// Writes the lanes of `mask` only.
    #[inline(always)]
    pub fn set_pred(&mut self, slot: u32, mask: u32, values: u32) {
        let out = &mut self.pred[slot as usize];
        *out = values & mask | *out & !mask;
    }
}

/// The lanes of a mask, in ascending order.
#[inline]
pub fn each_lane(mask: u32) -> impl Iterator<Item = u32> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        (rest != 0).then(|| {
            rest &= rest - 1;
            lane
        })
    })
}

/// The lanes of a mask for which `holds` is true, as a mask.
#[inline]
pub fn lanes_where(mask: u32, holds: impl Fn(u32) -> bool) -> u32 {
    each_lane(mask).filter(|&lane| holds(lane)).fold(0, |lanes, lane| lanes | 1 << lane)
}
