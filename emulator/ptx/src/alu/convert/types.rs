//! The types and modes of `cvt`.

use crate::alu::Kind;
use crate::alu::rounding::Round;

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
    /// `.rni`, `.rzi`, `.rmi`, `.rpi`: to an integral number first.
    Integer(Round),
}

/// How results out of range are clamped.
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
    pub fn parse(text: &str) -> Option<Self> {
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

    pub fn kind(self) -> Kind {
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

    /// The result for a NaN: 0, but only the top bit set if the source is f64 or the result has 64 bits.
    pub fn of_nan(self, from: FloatType) -> u64 {
        match self.signed {
            _ if from != FloatType::F64 && self.bits != 64 => 0,
            true => self.least() as u64,
            false => 1 << (self.bits - 1),
        }
    }
}

impl FloatType {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "f16" => FloatType::F16,
            "bf16" => FloatType::BF16,
            "f32" => FloatType::F32,
            "f64" => FloatType::F64,
            _ => return None,
        })
    }

    pub fn kind(self) -> Kind {
        match self {
            FloatType::F16 => Kind::F16,
            FloatType::BF16 => Kind::BF16,
            FloatType::F32 => Kind::F32,
            FloatType::F64 => Kind::F64,
        }
    }

    /// Whether it holds every value of another type.
    pub fn holds(self, other: Self) -> bool {
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
pub enum Rounding {
    None,
    To(Round),
    Integer(Round),
    /// `.rna`: to the nearest, ties away from zero.
    Away,
}

impl Convert {
    /// The same conversion with a result register of `bits` bits.
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
