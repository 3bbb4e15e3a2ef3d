//! Instructions that compute registers from registers, lane by lane, without access to memory or to other lanes.
//!
//! [`decode`] reads an opcode once; [`Alu::execute`] is a match on the result and one loop over the lanes, which the
//! compiler vectorises (`lanes`). Each instruction family has a file, which decodes it and executes it.
//!
//! # What differs from hardware
//! * Approximate functions are more accurate than hardware's, and their bits differ: `approx` has the bounds.
//! * NaN results of arithmetic and conversions have one pattern: 0x7fff (f16, bf16), 0x7fffffff (f32),
//!   0xfff8000000000000 (f64). Hardware may keep the payload of an f64 NaN.
//! * `.ftz` flushes a result that is subnormal after rounding. Hardware decides before rounding: a product just below
//!   2⁻¹²⁶ that rounds up to 2⁻¹²⁶ is 0 there.
//! * Results that PTX leaves undefined are fixed: an integer divided by zero gives quotient and remainder of all ones (as
//!   ptxas folds it), tf32's unused bits are 0, bits above the low 24 of 24-bit factors are ignored.

use crate::ast::Operand;
use crate::registers::{Class, Registers, Src};

mod approx;
mod bits;
mod carry;
mod compare;
mod convert;
mod float;
mod formats;
mod half;
mod integer;
mod lanes;
mod moves;
mod packed;
mod parts;
mod permute;
mod rounding;
mod soft;

use lanes::Frame;
use parts::Modifiers;

/// The type that an operand's bits are read as, which also decides what a literal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An integer or untyped value of 8, 16, 32 or 64 bits.
    Int(u32),
    F16,
    BF16,
    F32,
    F64,
    Pred,
    /// The carry flag CC.CF, a hidden predicate register.
    Carry,
}

impl Kind {
    pub fn class(self) -> Class {
        match self {
            Kind::Int(64) | Kind::F64 => Class::B64,
            Kind::Int(_) | Kind::F16 | Kind::BF16 | Kind::F32 => Class::B32,
            Kind::Pred | Kind::Carry => Class::Pred,
        }
    }
}

/// The operation of an instruction, without its operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    Move(moves::Move),
    Integer(integer::Integer),
    Extended(carry::Extended, integer::IntType, lanes::CarryUse),
    Packed(packed::Packed),
    Bits(bits::Bits),
    Float(float::Float),
    Half(half::Half),
    Approx(approx::Approx),
    Compare(compare::Compare),
    Convert(convert::Convert),
    ConvertPacked(convert::ConvertPacked),
}

impl Op {
    /// The operation for a result register of `bits` bits, which `cvt` permits to be wider than the instruction's type: a
    /// signed result is extended to the whole register instead of to 16 bits. Other operations stay the same.
    pub fn with_result_width(self, bits: u32) -> Self {
        match self {
            Op::Convert(convert) => Op::Convert(convert.with_result_width(bits)),
            other => other,
        }
    }
}

/// An instruction that `decode` has read: the operation and its operands, with vectors and pairs flattened.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub op: Op,
    pub results: Vec<(Kind, Operand)>,
    pub sources: Vec<(Kind, Operand)>,
}

/// An operation with its operands resolved to registers and constants. Unused entries are 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alu {
    pub op: Op,
    pub results: [u32; 4],
    pub sources: [Src; 4],
}

/// `None` if this module has no such opcode; an error names the modifier or operand that is not supported.
pub fn decode(opcode: &[String], operands: &[Operand]) -> Option<Result<Decoded, String>> {
    let modifiers = &mut Modifiers::new(opcode);
    let family = modifiers.rest().filter_map(Family::of).last();
    Some(match modifiers.name() {
        "mov" | "selp" | "slct" => moves::decode(modifiers, operands),
        "set" | "setp" => compare::decode(modifiers, operands),
        "cvt" => convert::decode(modifiers, operands),
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "shl" | "shr" | "shf" | "prmt" | "popc" | "clz" | "brev"
        | "bfind" | "bfe" | "bfi" | "fns" | "szext" | "bmsk" => bits::decode(modifiers, operands),
        "dp4a" | "dp2a" => packed::decode(modifiers, operands),
        "mul24" | "mad24" | "sad" | "rem" => integer::decode(modifiers, operands),
        "testp" | "copysign" => float::decode(modifiers, operands),
        "addc" | "subc" | "madc" => carry::decode(modifiers, operands),
        "add" | "sub" | "mad" if modifiers.has("cc") => carry::decode(modifiers, operands),
        "rcp" | "sqrt" | "div" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh"
            if approx::is_approximate(modifiers) =>
        {
            approx::decode(modifiers, operands)
        }
        "rcp" | "sqrt" => float::decode(modifiers, operands),
        "add" | "min" | "max" if family == Some(Family::Packed) => packed::decode(modifiers, operands),
        "add" | "sub" | "mul" | "fma" | "min" | "max" | "abs" | "neg" if family == Some(Family::Half) => {
            half::decode(modifiers, operands)
        }
        "fma" => float::decode(modifiers, operands),
        "add" | "sub" | "mul" | "mad" | "div" | "min" | "max" | "abs" | "neg" => match family {
            Some(Family::Float) => float::decode(modifiers, operands),
            _ => integer::decode(modifiers, operands),
        },
        "vadd" | "vsub" | "vabsdiff" | "vmin" | "vmax" | "vshl" | "vshr" | "vmad" | "vset" | "vadd2" | "vsub2"
        | "vavrg2" | "vabsdiff2" | "vmin2" | "vmax2" | "vset2" | "vadd4" | "vsub4" | "vavrg4" | "vabsdiff4"
        | "vmin4" | "vmax4" | "vset4" => Err(modifiers.error("video instructions are not supported")),
        _ => return None,
    })
}

/// The instruction family that a type selects for an opcode that several families share; other types are integers.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    Packed,
    Float,
    Half,
}

impl Family {
    fn of(ty: &str) -> Option<Self> {
        match ty {
            "f32" | "f64" | "f32x2" => Some(Family::Float),
            "f16" | "f16x2" | "bf16" | "bf16x2" => Some(Family::Half),
            "u16x2" | "s16x2" => Some(Family::Packed),
            _ => None,
        }
    }
}

impl Alu {
    /// Computes the lanes of `mask`.
    #[inline]
    pub fn execute(&self, registers: &mut Registers, mask: u32) {
        let frame = &mut Frame { registers, alu: self, mask };
        match self.op {
            Op::Move(op) => moves::execute(op, frame),
            Op::Integer(op) => integer::execute(op, frame),
            Op::Extended(op, ty, uses) => carry::execute(op, ty, uses, frame),
            Op::Packed(op) => packed::execute(op, frame),
            Op::Bits(op) => bits::execute(op, frame),
            Op::Float(op) => float::execute(op, frame),
            Op::Half(op) => half::execute(op, frame),
            Op::Approx(op) => approx::execute(op, frame),
            Op::Compare(op) => compare::execute(op, frame),
            Op::Convert(op) => convert::execute(op, frame),
            Op::ConvertPacked(op) => convert::execute_packed(op, frame),
        }
    }
}
