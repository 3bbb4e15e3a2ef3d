//! Integer arithmetic: add, sub, mul, mad, sad, div, rem, abs, neg, min, max, mul24, mad24.

use super::lanes::{Frame, Lane};
use super::parts::Modifiers;
use super::{Decoded, Kind, Op};
use crate::ast::Operand;

/// An integer type as an instruction names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntType {
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
}

impl IntType {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "u16" => IntType::U16,
            "s16" => IntType::S16,
            "u32" => IntType::U32,
            "s32" => IntType::S32,
            "u64" => IntType::U64,
            "s64" => IntType::S64,
            _ => return None,
        })
    }

    pub fn bits(self) -> u32 {
        match self {
            IntType::U16 | IntType::S16 => 16,
            IntType::U32 | IntType::S32 => 32,
            IntType::U64 | IntType::S64 => 64,
        }
    }

    pub fn signed(self) -> bool {
        matches!(self, IntType::S16 | IntType::S32 | IntType::S64)
    }

    pub fn kind(self) -> Kind {
        Kind::Int(self.bits())
    }
}

/// An integer operation and its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integer {
    Wrapping(Wrapping, IntType),
    Ordered(Ordered, IntType),
    /// `.wide`: a product of twice the width; whether an addend follows.
    Wide(IntType, bool),
    Word(Word),
}

/// Operations that are the same for signed and unsigned in two's complement; `Abs` and `Neg` are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    Add,
    Sub,
    MulLo,
    MadLo,
    Abs,
    Neg,
}

/// Operations that depend on the sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordered {
    MulHi,
    MadHi,
    Div,
    Rem,
    Min,
    Max,
    Sad,
}

/// Operations that exist for 32 bits only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    AddSat,
    SubSat,
    MadHiSat,
    MinRelu,
    MaxRelu,
    /// Whether the type is signed, here and in the next ones.
    Mul24Lo(bool),
    Mul24Hi(bool),
    Mad24Lo(bool),
    Mad24Hi(bool),
    Mad24HiSat,
}

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    match modifiers.name() {
        "add" => {
            limited(modifiers, "sat", Integer::Word(Word::AddSat), |ty| Integer::Wrapping(Wrapping::Add, ty), operands)
        }
        "sub" => {
            limited(modifiers, "sat", Integer::Word(Word::SubSat), |ty| Integer::Wrapping(Wrapping::Sub, ty), operands)
        }
        "min" => {
            limited(modifiers, "relu", Integer::Word(Word::MinRelu), |ty| Integer::Ordered(Ordered::Min, ty), operands)
        }
        "max" => {
            limited(modifiers, "relu", Integer::Word(Word::MaxRelu), |ty| Integer::Ordered(Ordered::Max, ty), operands)
        }
        "mul" | "mad" => product(modifiers, operands),
        "mul24" | "mad24" => product24(modifiers, operands),
        name => {
            let ty = modifiers.ty(IntType::parse)?;
            let (op, sources) = match name {
                "div" => (Integer::Ordered(Ordered::Div, ty), 2),
                "rem" => (Integer::Ordered(Ordered::Rem, ty), 2),
                "sad" => (Integer::Ordered(Ordered::Sad, ty), 3),
                "abs" => (Integer::Wrapping(Wrapping::Abs, ty), 1),
                _ => (Integer::Wrapping(Wrapping::Neg, ty), 1),
            };
            if sources == 1 && !ty.signed() {
                return Err(modifiers.error("needs a signed type"));
            }
            modifiers.plain(Op::Integer(op), ty.kind(), &[ty.kind(); 3][..sources], operands)
        }
    }
}

/// An instruction with two sources and a modifier that only s32 may have.
fn limited(
    modifiers: &mut Modifiers,
    modifier: &str,
    with: Integer,
    without: impl Fn(IntType) -> Integer,
    operands: &[Operand],
) -> Result<Decoded, String> {
    let limits = modifiers.take(modifier);
    let ty = modifiers.ty(IntType::parse)?;
    if limits && ty != IntType::S32 {
        return Err(modifiers.error(&format!(".{modifier} needs s32")));
    }
    let op = if limits { with } else { without(ty) };
    modifiers.plain(Op::Integer(op), ty.kind(), &[ty.kind(); 2], operands)
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Half {
    Lo,
    Hi,
    Wide,
}

impl Half {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "lo" => Some(Half::Lo),
            "hi" => Some(Half::Hi),
            "wide" => Some(Half::Wide),
            _ => None,
        }
    }
}

fn product(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let half = modifiers.need("half", Half::parse)?;
    let saturates = modifiers.take("sat");
    let ty = modifiers.ty(IntType::parse)?;
    let adds = modifiers.name() == "mad";
    if saturates && !(adds && half == Half::Hi && ty == IntType::S32) {
        return Err(modifiers.error(".sat needs mad.hi and s32"));
    }
    if half == Half::Wide && ty.bits() == 64 {
        return Err(modifiers.error(".wide needs a type of 16 or 32 bits"));
    }
    let op = match half {
        Half::Wide => Integer::Wide(ty, adds),
        Half::Hi if saturates => Integer::Word(Word::MadHiSat),
        Half::Hi => Integer::Ordered(if adds { Ordered::MadHi } else { Ordered::MulHi }, ty),
        Half::Lo => Integer::Wrapping(if adds { Wrapping::MadLo } else { Wrapping::MulLo }, ty),
    };
    let result = if half == Half::Wide { Kind::Int(2 * ty.bits()) } else { ty.kind() };
    modifiers.plain(Op::Integer(op), result, &[ty.kind(), ty.kind(), result][..2 + adds as usize], operands)
}

fn product24(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let half = modifiers.need("half", |text| Half::parse(text).filter(|&half| half != Half::Wide))?;
    let saturates = modifiers.take("sat");
    let ty = modifiers.ty(|text| IntType::parse(text).filter(|ty| ty.bits() == 32))?;
    let adds = modifiers.name() == "mad24";
    if saturates && !(adds && half == Half::Hi && ty == IntType::S32) {
        return Err(modifiers.error(".sat needs mad24.hi and s32"));
    }
    let op = match (half, adds) {
        (Half::Hi, true) if saturates => Word::Mad24HiSat,
        (Half::Hi, true) => Word::Mad24Hi(ty.signed()),
        (Half::Hi, false) => Word::Mul24Hi(ty.signed()),
        (_, true) => Word::Mad24Lo(ty.signed()),
        (_, false) => Word::Mul24Lo(ty.signed()),
    };
    modifiers.plain(Op::Integer(Integer::Word(op)), ty.kind(), &[ty.kind(); 3][..2 + adds as usize], operands)
}

/// The integer operations that the loops use.
trait Int: Lane + Ord + 'static {
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul_lo(self, other: Self) -> Self;
    fn mul_hi(self, other: Self) -> Self;
    /// Division by zero gives all ones, as the division routine of the hardware does.
    fn div(self, other: Self) -> Self;
    /// Division by zero gives all ones.
    fn rem(self, other: Self) -> Self;
    fn distance(self, other: Self) -> Self;
}

macro_rules! int {
    ($($type:ty, $wide:ty, $divide:ident;)*) => {$(
        impl Int for $type {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            #[inline(always)]
            fn mul_lo(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            #[inline(always)]
            fn mul_hi(self, other: Self) -> Self {
                ((self as $wide).wrapping_mul(other as $wide) >> <$type>::BITS) as Self
            }

            #[inline(always)]
            fn div(self, other: Self) -> Self {
                $divide(self as _, other as _).0 as Self
            }

            #[inline(always)]
            fn rem(self, other: Self) -> Self {
                $divide(self as _, other as _).1 as Self
            }

            #[inline(always)]
            fn distance(self, other: Self) -> Self {
                self.max(other).wrapping_sub(self.min(other))
            }
        }
    )*};
}

int! {
    u16, u32, divide_u32;
    i16, i32, divide_i32;
    u32, u64, divide_u32;
    i32, i64, divide_i32;
    u64, u128, divide_u64;
    i64, i128, divide_i64;
}

/// 1.5 · 2⁵²: added to an integer below 2⁵¹ in magnitude, it leaves that integer in the sum's low bits.
pub(super) const INTEGER_BITS: f64 = 6_755_399_441_055_744.0;

/// Quotient and remainder through f64, which the compiler vectorises. Exact: a quotient of 32-bit integers that is not an
/// integer differs from the next one by at least 2⁻³², far more than the rounding error of the division.
#[inline(always)]
fn divide_u32(a: u32, b: u32) -> (u32, u32) {
    let quotient = (f64::from(a) / f64::from(b)).floor();
    let quotient = (quotient + INTEGER_BITS).to_bits() as u32;
    let remainder = a.wrapping_sub(quotient.wrapping_mul(b));
    if b == 0 { (u32::MAX, u32::MAX) } else { (quotient, remainder) }
}

#[inline(always)]
fn divide_i32(a: i32, b: i32) -> (i32, i32) {
    let quotient = (f64::from(a) / f64::from(b)).trunc();
    let quotient = (quotient + INTEGER_BITS).to_bits() as i32;
    let remainder = a.wrapping_sub(quotient.wrapping_mul(b));
    if b == 0 { (-1, -1) } else { (quotient, remainder) }
}

#[inline(always)]
fn divide_u64(a: u64, b: u64) -> (u64, u64) {
    (a.checked_div(b).unwrap_or(u64::MAX), a.checked_rem(b).unwrap_or(u64::MAX))
}

#[inline(always)]
fn divide_i64(a: i64, b: i64) -> (i64, i64) {
    if b == 0 { (-1, -1) } else { (a.wrapping_div(b), a.wrapping_rem(b)) }
}

/// Signed operations on the bits of an unsigned type.
trait Signed {
    fn magnitude(self) -> Self;
    fn negative(self) -> Self;
}

macro_rules! signed {
    ($($type:ty as $signed:ty),*) => {$(
        impl Signed for $type {
            #[inline(always)]
            fn magnitude(self) -> Self {
                (self as $signed).wrapping_abs() as Self
            }

            #[inline(always)]
            fn negative(self) -> Self {
                self.wrapping_neg()
            }
        }
    )*};
}

signed!(u16 as i16, u32 as i32, u64 as i64);

pub(super) fn execute(op: Integer, frame: &mut Frame) {
    match op {
        Integer::Wrapping(op, ty) => match ty.bits() {
            16 => wrapping::<u16>(op, frame),
            32 => wrapping::<u32>(op, frame),
            _ => wrapping::<u64>(op, frame),
        },
        Integer::Ordered(op, ty) => match ty {
            IntType::U16 => ordered::<u16>(op, frame),
            IntType::S16 => ordered::<i16>(op, frame),
            IntType::U32 => ordered::<u32>(op, frame),
            IntType::S32 => ordered::<i32>(op, frame),
            IntType::U64 => ordered::<u64>(op, frame),
            IntType::S64 => ordered::<i64>(op, frame),
        },
        Integer::Wide(ty, false) => match ty {
            IntType::U16 => frame.map2(|a: u16, b: u16| u32::from(a).wrapping_mul(u32::from(b))),
            IntType::S16 => frame.map2(|a: i16, b: i16| i32::from(a).wrapping_mul(i32::from(b))),
            IntType::S32 => frame.map2(|a: i32, b: i32| i64::from(a).wrapping_mul(i64::from(b))),
            _ => frame.map2(|a: u32, b: u32| u64::from(a).wrapping_mul(u64::from(b))),
        },
        Integer::Wide(ty, true) => match ty {
            IntType::U16 => {
                frame.map3(|a: u16, b: u16, c: u32| u32::from(a).wrapping_mul(u32::from(b)).wrapping_add(c))
            }
            IntType::S16 => {
                frame.map3(|a: i16, b: i16, c: i32| i32::from(a).wrapping_mul(i32::from(b)).wrapping_add(c))
            }
            IntType::S32 => {
                frame.map3(|a: i32, b: i32, c: i64| i64::from(a).wrapping_mul(i64::from(b)).wrapping_add(c))
            }
            _ => frame.map3(|a: u32, b: u32, c: u64| u64::from(a).wrapping_mul(u64::from(b)).wrapping_add(c)),
        },
        Integer::Word(op) => word(op, frame),
    }
}

fn wrapping<T: Int + Signed>(op: Wrapping, frame: &mut Frame) {
    match op {
        Wrapping::Add => frame.map2(|a: T, b: T| a.add(b)),
        Wrapping::Sub => frame.map2(|a: T, b: T| a.sub(b)),
        Wrapping::MulLo => frame.map2(|a: T, b: T| a.mul_lo(b)),
        Wrapping::MadLo => frame.map3(|a: T, b: T, c: T| a.mul_lo(b).add(c)),
        Wrapping::Abs => frame.map1(|a: T| a.magnitude()),
        Wrapping::Neg => frame.map1(|a: T| a.negative()),
    }
}

fn ordered<T: Int>(op: Ordered, frame: &mut Frame) {
    match op {
        Ordered::MulHi => frame.map2(|a: T, b: T| a.mul_hi(b)),
        Ordered::MadHi => frame.map3(|a: T, b: T, c: T| a.mul_hi(b).add(c)),
        Ordered::Div => frame.map2(|a: T, b: T| a.div(b)),
        Ordered::Rem => frame.map2(|a: T, b: T| a.rem(b)),
        Ordered::Min => frame.map2(|a: T, b: T| a.min(b)),
        Ordered::Max => frame.map2(|a: T, b: T| a.max(b)),
        Ordered::Sad => frame.map3(|a: T, b: T, c: T| a.distance(b).add(c)),
    }
}

fn word(op: Word, frame: &mut Frame) {
    match op {
        Word::AddSat => frame.map2(|a: i32, b: i32| clamp(i64::from(a).wrapping_add(i64::from(b)))),
        Word::SubSat => frame.map2(|a: i32, b: i32| clamp(i64::from(a).wrapping_sub(i64::from(b)))),
        Word::MadHiSat => frame.map3(|a: i32, b: i32, c: i32| clamp(i64::from(a.mul_hi(b)).wrapping_add(i64::from(c)))),
        Word::MinRelu => frame.map2(|a: i32, b: i32| a.min(b).max(0)),
        Word::MaxRelu => frame.map2(|a: i32, b: i32| a.max(b).max(0)),
        Word::Mul24Lo(true) => frame.map2(|a: i32, b: i32| product_s24(a, b) as i32),
        Word::Mul24Lo(false) => frame.map2(|a: u32, b: u32| product_u24(a, b) as u32),
        Word::Mul24Hi(true) => frame.map2(|a: i32, b: i32| (product_s24(a, b) >> 16) as i32),
        Word::Mul24Hi(false) => frame.map2(|a: u32, b: u32| (product_u24(a, b) >> 16) as u32),
        Word::Mad24Lo(true) => frame.map3(|a: i32, b: i32, c: i32| (product_s24(a, b) as i32).wrapping_add(c)),
        Word::Mad24Lo(false) => frame.map3(|a: u32, b: u32, c: u32| (product_u24(a, b) as u32).wrapping_add(c)),
        Word::Mad24Hi(true) => frame.map3(|a: i32, b: i32, c: i32| ((product_s24(a, b) >> 16) as i32).wrapping_add(c)),
        Word::Mad24Hi(false) => {
            frame.map3(|a: u32, b: u32, c: u32| ((product_u24(a, b) >> 16) as u32).wrapping_add(c));
        }
        Word::Mad24HiSat => {
            frame.map3(|a: i32, b: i32, c: i32| clamp((product_s24(a, b) >> 16).wrapping_add(i64::from(c))))
        }
    }
}

#[inline(always)]
fn clamp(value: i64) -> i32 {
    value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// The 48-bit product of the low 24 bits.
#[inline(always)]
fn product_u24(a: u32, b: u32) -> u64 {
    u64::from(a & 0xff_ffff).wrapping_mul(u64::from(b & 0xff_ffff))
}

#[inline(always)]
fn product_s24(a: i32, b: i32) -> i64 {
    i64::from(a << 8 >> 8).wrapping_mul(i64::from(b << 8 >> 8))
}
