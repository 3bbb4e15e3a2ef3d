//! cvt between integers and floating-point numbers of any width.

use super::parts::Modifiers;
use super::rounding::Round;
use super::{Decoded, Kind, Op, convert_packed};
use crate::ast::Operand;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convert {
    /// `register`: the width that a signed result narrower than its register is extended to.
    IntToInt {
        from: IntType,
        to: IntType,
        sat: bool,
        register: u8,
    },
    FloatToInt {
        from: FloatType,
        to: IntType,
        round: Round,
        ftz: bool,
        register: u8,
    },
    IntToFloat {
        from: IntType,
        to: FloatType,
        round: Round,
        sat: bool,
    },
    FloatToFloat {
        from: FloatType,
        to: FloatType,
        round: FloatRound,
        ftz: bool,
        clamp: Clamp,
    },
}

/// Integer types of `cvt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntType {
    pub bits: u8,
    pub signed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    F16,
    BF16,
    F32,
    F64,
}

/// How a floating-point result is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatRound {
    To(Round),
    /// `.rni` and its kin: to an integer first.
    Integer(Round),
}

/// What becomes of results out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clamp {
    /// To [0, 1], NaN to 0.
    pub sat: bool,
    /// Negative to 0.
    pub relu: bool,
    /// Infinity to the largest finite number.
    pub satfinite: bool,
}

impl IntType {
    fn parse(text: &str) -> Option<Self> {
        let signed = text.starts_with('s');
        let bits = match text.strip_prefix(['u', 's'])? {
            "8" => 8,
            "16" => 16,
            "32" => 32,
            "64" => 64,
            _ => return None,
        };
        Some(Self { bits, signed })
    }

    fn kind(self) -> Kind {
        Kind::Int(u32::from(self.bits))
    }

    /// The least value, as i64.
    pub fn least(self) -> i64 {
        if self.signed { i64::MIN >> (64 - self.bits) } else { 0 }
    }

    /// The greatest value, as u64.
    pub fn greatest(self) -> u64 {
        u64::MAX >> (64 - self.bits + self.signed as u8)
    }

    /// What a NaN becomes: 0, or where f64 or 64 bits are involved, the top bit alone.
    pub fn of_nan(self, from: FloatType) -> u64 {
        match self.signed {
            _ if from != FloatType::F64 && self.bits != 64 => 0,
            true => self.least() as u64,
            false => 1 << (self.bits - 1),
        }
    }
}

impl FloatType {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "f16" => FloatType::F16,
            "bf16" => FloatType::BF16,
            "f32" => FloatType::F32,
            "f64" => FloatType::F64,
            _ => return None,
        })
    }

    fn kind(self) -> Kind {
        match self {
            FloatType::F16 => Kind::F16,
            FloatType::BF16 => Kind::BF16,
            FloatType::F32 => Kind::F32,
            FloatType::F64 => Kind::F64,
        }
    }

    /// Whether it holds every value of another type.
    fn holds(self, other: Self) -> bool {
        match self {
            FloatType::F64 => true,
            FloatType::F32 => other != FloatType::F64,
            narrow => narrow == other,
        }
    }
}

impl Clamp {
    pub const NONE: Self = Self { sat: false, relu: false, satfinite: false };
}

/// The rounding modifier of `cvt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    None,
    To(Round),
    Integer(Round),
    /// `.rna`: to the nearest, ties away from zero.
    Away,
}

fn rounding(text: &str) -> Option<Rounding> {
    Some(match text {
        "rni" => Rounding::Integer(Round::Nearest),
        "rzi" => Rounding::Integer(Round::Zero),
        "rmi" => Rounding::Integer(Round::Down),
        "rpi" => Rounding::Integer(Round::Up),
        "rna" => Rounding::Away,
        _ => Rounding::To(Round::parse(text)?),
    })
}

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    if modifiers.take("pack") {
        return convert_packed::decode_pack(modifiers, operands);
    }
    let round = modifiers.pick(rounding).unwrap_or(Rounding::None);
    let ftz = modifiers.take("ftz");
    let clamp =
        Clamp { sat: modifiers.take("sat"), relu: modifiers.take("relu"), satfinite: modifiers.take("satfinite") };
    if modifiers.rest().any(convert_packed::is_packed) {
        if ftz || clamp.sat {
            return Err(modifiers.error(".ftz and .sat are not supported here"));
        }
        return convert_packed::decode(modifiers, round, clamp, operands);
    }
    let to = modifiers.ty(|text| IntType::parse(text).map(Ok).or(FloatType::parse(text).map(Err)))?;
    let (op, kinds) = match to {
        Ok(to) => to_int(modifiers, to, round, ftz, clamp)?,
        Err(to) => to_float(modifiers, to, round, ftz, clamp)?,
    };
    modifiers.plain(Op::Convert(op), kinds.0, &[kinds.1], operands)
}

type Found = Result<(Convert, (Kind, Kind)), String>;

fn to_int(modifiers: &mut Modifiers, to: IntType, round: Rounding, ftz: bool, clamp: Clamp) -> Found {
    let register = to.bits.max(16);
    if clamp.relu || clamp.satfinite {
        return Err(modifiers.error(".relu and .satfinite need a floating-point result"));
    }
    if let Some(from) = modifiers.pick(IntType::parse) {
        if round != Rounding::None || ftz {
            return Err(modifiers.error("integers are not rounded or flushed"));
        }
        return Ok((Convert::IntToInt { from, to, sat: clamp.sat, register }, (to.kind(), from.kind())));
    }
    let from = modifiers.ty(FloatType::parse)?;
    let Rounding::Integer(round) = round else {
        return Err(modifiers.error("needs a rounding to integer: .rni, .rzi, .rmi or .rpi"));
    };
    if ftz && from != FloatType::F32 {
        return Err(modifiers.error(".ftz needs f32"));
    }
    if from == FloatType::BF16 && (to.bits == 8 || clamp.sat) {
        return Err(modifiers.error("bf16 has no .sat and no conversion to 8 bits"));
    }
    // `.sat` adds nothing: these conversions always clamp.
    Ok((Convert::FloatToInt { from, to, round, ftz, register }, (to.kind(), from.kind())))
}

fn to_float(modifiers: &mut Modifiers, to: FloatType, round: Rounding, ftz: bool, clamp: Clamp) -> Found {
    if clamp.sat && to == FloatType::BF16 {
        return Err(modifiers.error(".sat is not supported for bf16"));
    }
    if let Some(from) = modifiers.pick(IntType::parse) {
        let Rounding::To(round) = round else {
            return Err(modifiers.error("needs .rn, .rz, .rm or .rp"));
        };
        if ftz && to != FloatType::F32 || clamp.relu || clamp.satfinite {
            return Err(modifiers.error(".ftz needs f32; .relu and .satfinite need a floating-point source"));
        }
        if to == FloatType::BF16 && from.bits == 8 {
            return Err(modifiers.error("8 bits have no conversion to bf16"));
        }
        return Ok((Convert::IntToFloat { from, to, round, sat: clamp.sat }, (to.kind(), from.kind())));
    }
    let from = modifiers.ty(FloatType::parse)?;
    if ftz && from != FloatType::F32 && to != FloatType::F32 {
        return Err(modifiers.error(".ftz needs f32"));
    }
    if clamp.sat && from == FloatType::BF16 {
        return Err(modifiers.error(".sat is not supported for bf16"));
    }
    let narrow = matches!(to, FloatType::F16 | FloatType::BF16);
    let plain = matches!(round, Rounding::To(Round::Nearest | Round::Zero));
    if (clamp.relu || clamp.satfinite) && !(from == FloatType::F32 && narrow && plain && !ftz && !clamp.sat) {
        return Err(modifiers.error(".relu and .satfinite need .rn or .rz, from f32 to f16 or bf16"));
    }
    let between_halves = narrow && matches!(from, FloatType::F16 | FloatType::BF16);
    let round = match round {
        Rounding::Integer(round) if from == to => FloatRound::Integer(round),
        Rounding::To(round) if from != to && (!to.holds(from) || from == FloatType::BF16) => FloatRound::To(round),
        Rounding::None if to.holds(from) || between_halves => FloatRound::To(Round::Nearest),
        Rounding::None => return Err(modifiers.error("needs .rn, .rz, .rm or .rp")),
        _ => return Err(modifiers.error("this rounding is not supported here")),
    };
    Ok((Convert::FloatToFloat { from, to, round, ftz, clamp }, (to.kind(), from.kind())))
}

impl Convert {
    /// The same with a result register of so many bits.
    pub fn with_result_width(self, bits: u32) -> Self {
        match self {
            Convert::IntToInt { from, to, sat, .. } => Convert::IntToInt { from, to, sat, register: bits as u8 },
            Convert::FloatToInt { from, to, round, ftz, .. } => {
                Convert::FloatToInt { from, to, round, ftz, register: bits as u8 }
            }
            other => other,
        }
    }
}
