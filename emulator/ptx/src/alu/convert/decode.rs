//! Decodes `cvt`.

use super::packed;
use super::types::{Clamp, Convert, FloatRound, FloatType, IntType, Rounding};
use crate::alu::parts::Modifiers;
use crate::alu::rounding::Round;
use crate::alu::{Decoded, Kind, Op};
use crate::ast::Operand;

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

pub fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    if modifiers.take("pack") {
        return packed::decode_pack(modifiers, operands);
    }
    let round = modifiers.pick(rounding).unwrap_or(Rounding::None);
    let ftz = modifiers.take("ftz");
    let clamp =
        Clamp { sat: modifiers.take("sat"), relu: modifiers.take("relu"), satfinite: modifiers.take("satfinite") };
    if modifiers.rest().any(packed::is_packed) {
        if ftz || clamp.sat {
            return Err(modifiers.error(".ftz and .sat are not supported here"));
        }
        return packed::decode(modifiers, round, clamp, operands);
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
