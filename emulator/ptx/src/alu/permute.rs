//! prmt: four bytes selected from eight.

use super::lanes::{Frame, Ternary, ones};
use crate::registers::Src;

/// The modes of `prmt`: how the control's value becomes four selectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permute {
    General,
    Forward4,
    Backward4,
    Replicate8,
    ClampLeft,
    ClampRight,
    Replicate16,
}

impl Permute {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "f4e" => Permute::Forward4,
            "b4e" => Permute::Backward4,
            "rc8" => Permute::Replicate8,
            "ecl" => Permute::ClampLeft,
            "ecr" => Permute::ClampRight,
            "rc16" => Permute::Replicate16,
            _ => return None,
        })
    }

    /// The selectors for each value of the control's two low bits.
    fn selectors(self) -> [u16; 4] {
        match self {
            Permute::General => [0; 4],
            Permute::Forward4 => [0x3210, 0x4321, 0x5432, 0x6543],
            Permute::Backward4 => [0x5670, 0x6701, 0x7012, 0x0123],
            Permute::Replicate8 => [0x0000, 0x1111, 0x2222, 0x3333],
            Permute::ClampLeft => [0x3210, 0x3211, 0x3222, 0x3333],
            Permute::ClampRight => [0x0000, 0x1110, 0x2210, 0x3210],
            Permute::Replicate16 => [0x1010, 0x3232, 0x1010, 0x3232],
        }
    }
}

pub(super) fn execute(mode: Permute, frame: &mut Frame) {
    let selectors = mode.selectors();
    let control = |c: u32| if mode == Permute::General { c } else { u32::from(selectors[c as usize & 3]) };
    if let Src::Bits(bits) = frame.alu.sources[2] {
        // The usual case: the same bytes in every lane.
        let control = control(bits as u32);
        let pick = |i: u32| {
            let selector = control >> (4 * i);
            (ones(selector & 4 != 0), 8 * (selector & 3), ones(selector & 8 != 0), 8 * i)
        };
        let picks = [pick(0), pick(1), pick(2), pick(3)];
        return frame.map2(|a: u32, b: u32| {
            picks.iter().fold(0, |word, &(from_b, shift, sign, position)| {
                let byte = (a ^ from_b & (a ^ b)).wrapping_shr(shift) & 0xff;
                let signs = 0u32.wrapping_sub(byte >> 7) & 0xff;
                word | (byte ^ sign & (byte ^ signs)).wrapping_shl(position)
            })
        });
    }
    match mode {
        Permute::General => frame.words3(PermuteLanes),
        _ => frame.words3(PermuteModes { selectors: selectors.map(u32::from) }),
    }
}

/// `prmt` with a control that may differ from lane to lane.
struct PermuteLanes;

impl Ternary for PermuteLanes {
    #[inline(always)]
    fn apply(&self, a: u32, b: u32, control: u32) -> u32 {
        let byte = |i: u32| {
            let selector = control.wrapping_shr(4 * i);
            let source = if selector & 4 != 0 { b } else { a };
            let byte = source.wrapping_shr((selector & 3) << 3) & 0xff;
            let signs = 0u32.wrapping_sub(byte >> 7) & 0xff;
            if selector & 8 != 0 { signs } else { byte }.wrapping_shl(8 * i)
        };
        byte(0) | byte(1) | byte(2) | byte(3)
    }
}

struct PermuteModes {
    selectors: [u32; 4],
}

impl Ternary for PermuteModes {
    #[inline(always)]
    fn apply(&self, a: u32, b: u32, c: u32) -> u32 {
        let [s0, s1, s2, s3] = self.selectors;
        let (low, high) = if c & 1 == 0 { (s0, s2) } else { (s1, s3) };
        PermuteLanes.apply(a, b, if c & 2 == 0 { low } else { high })
    }
}
