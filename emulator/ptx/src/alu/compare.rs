//! set and setp.

use super::float::flush_if;
use super::formats::{BF16, F16, Format, decode as widen};
use super::half::HalfType;
use super::integer::IntType;
use super::lanes::{Frame, Lane, ones};
use super::parts::Modifiers;
use super::{Decoded, Kind, Op};
use crate::ast::Operand;
use crate::registers::LANES;

/// A comparison of the first two sources, combined with the predicate that is the third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compare {
    test: Test,
    /// Whether the outcome of the test is negated.
    negated: bool,
    ty: CompareType,
    combine: Combine,
    result: CompareResult,
}

/// The tests that are computed; every other comparison is one of them with swapped sources or a negated outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equal,
    Less,
    /// This and the next ones are for floating point only.
    LessEqual,
    /// Less or greater: neither equal nor unordered.
    Apart,
    /// Neither is NaN.
    Ordered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CompareType {
    Int(IntType),
    F32(bool),
    F64,
    /// Whether subnormals are flushed.
    Half(HalfType, bool),
}

impl CompareType {
    fn is_packed(self) -> bool {
        matches!(self, CompareType::Half(ty, _) if ty.is_packed())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Combine {
    None,
    With { operator: Operator, negated: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CompareResult {
    Predicate,
    /// Two predicates; the second has the opposite outcome, or for packed types that of the upper half.
    Predicates,
    /// A word, which has these bits if the comparison is true and is 0 otherwise.
    Word(u32),
}

/// A comparison operator as it is written.
#[derive(Clone, Copy)]
struct Operation {
    test: Test,
    swapped: bool,
    negated: bool,
    /// The types that have it.
    types: Types,
}

#[derive(Clone, Copy, PartialEq)]
enum Types {
    All,
    /// All types but untyped bits.
    Ordered,
    Unsigned,
    Float,
}

fn operation(text: &str) -> Option<Operation> {
    use Test::*;
    let (test, swapped, negated, types) = match text {
        "eq" => (Equal, false, false, Types::All),
        "ne" => (Apart, false, false, Types::All),
        "lt" => (Less, false, false, Types::Ordered),
        "le" => (LessEqual, false, false, Types::Ordered),
        "gt" => (Less, true, false, Types::Ordered),
        "ge" => (LessEqual, true, false, Types::Ordered),
        "lo" => (Less, false, false, Types::Unsigned),
        "ls" => (LessEqual, false, false, Types::Unsigned),
        "hi" => (Less, true, false, Types::Unsigned),
        "hs" => (LessEqual, true, false, Types::Unsigned),
        "equ" => (Apart, false, true, Types::Float),
        "neu" => (Equal, false, true, Types::Float),
        "ltu" => (LessEqual, true, true, Types::Float),
        "leu" => (Less, true, true, Types::Float),
        "gtu" => (LessEqual, false, true, Types::Float),
        "geu" => (Less, false, true, Types::Float),
        "num" => (Ordered, false, false, Types::Float),
        "nan" => (Ordered, false, true, Types::Float),
        _ => return None,
    };
    Some(Operation { test, swapped, negated, types })
}

impl Operation {
    /// Integers need only `Equal` and `Less`, because they are always ordered.
    fn for_integers(self) -> Self {
        match self.test {
            Test::Apart => Self { test: Test::Equal, negated: !self.negated, ..self },
            Test::LessEqual => Self { test: Test::Less, swapped: !self.swapped, negated: !self.negated, ..self },
            _ => self,
        }
    }
}

/// A source type, whether it is untyped, and the kind of its operands.
fn source_type(text: &str, ftz: bool) -> Option<(CompareType, bool, Kind)> {
    let bits = match text {
        "b16" => Some(IntType::U16),
        "b32" => Some(IntType::U32),
        "b64" => Some(IntType::U64),
        _ => None,
    };
    if let Some(ty) = bits {
        return Some((CompareType::Int(ty), true, ty.kind()));
    }
    if let Some(ty) = IntType::parse(text) {
        return Some((CompareType::Int(ty), false, ty.kind()));
    }
    if let Some(ty) = HalfType::parse(text) {
        return Some((CompareType::Half(ty, ftz), false, ty.kind()));
    }
    match text {
        "f32" => Some((CompareType::F32(ftz), false, Kind::F32)),
        "f64" => Some((CompareType::F64, false, Kind::F64)),
        _ => None,
    }
}

pub(super) fn decode(modifiers: &mut Modifiers, operands: &[Operand]) -> Result<Decoded, String> {
    let operation = modifiers.need("comparison", operation)?;
    let operator = modifiers.pick(|text| match text {
        "and" => Some(Operator::And),
        "or" => Some(Operator::Or),
        "xor" => Some(Operator::Xor),
        _ => None,
    });
    let ftz = modifiers.take("ftz");
    let is_set = modifiers.name() == "set";
    let destination = if is_set { Some(modifiers.ty(result_type)?) } else { None };
    let (ty, bits, kind) = modifiers.ty(|text| source_type(text, ftz))?;
    modifiers.finish()?;
    modifiers.count(operands, if operator.is_some() { 4 } else { 3 })?;
    check_types(modifiers, operation.types, ty, bits, ftz)?;
    let operation = if matches!(ty, CompareType::Int(_)) { operation.for_integers() } else { operation };
    let (result, results) = match destination {
        Some(destination) => set_result(modifiers, destination, ty, &operands[0])?,
        None => setp_results(modifiers, ty, &operands[0])?,
    };
    let mut sources = vec![modifiers.source(kind, &operands[1])?, modifiers.source(kind, &operands[2])?];
    if operation.swapped {
        sources.swap(0, 1);
    }
    let mut combine = Combine::None;
    if let Some(operator) = operator {
        let (predicate, negated) = modifiers.predicate(&operands[3])?;
        sources.push(predicate);
        combine = Combine::With { operator, negated };
    }
    let op = Compare { test: operation.test, negated: operation.negated, ty, combine, result };
    Ok(Decoded { op: Op::Compare(op), results, sources })
}

fn check_types(modifiers: &Modifiers, types: Types, ty: CompareType, bits: bool, ftz: bool) -> Result<(), String> {
    let fits = match (types, ty) {
        (Types::All, _) => true,
        (Types::Ordered, _) => !bits,
        (Types::Unsigned, CompareType::Int(ty)) => !bits && !ty.signed(),
        (Types::Unsigned, _) => false,
        (Types::Float, ty) => !matches!(ty, CompareType::Int(_)),
    };
    if !fits {
        return Err(modifiers.error("the type has no such comparison"));
    }
    let flushes = match ty {
        CompareType::F32(_) => true,
        CompareType::Half(ty, _) => !ty.is_bf16(),
        CompareType::Int(_) | CompareType::F64 => false,
    };
    if ftz && !flushes { Err(modifiers.error(".ftz needs f32, f16 or f16x2")) } else { Ok(()) }
}

type Results = (CompareResult, Vec<(Kind, Operand)>);

fn setp_results(modifiers: &Modifiers, ty: CompareType, operand: &Operand) -> Result<Results, String> {
    let packed = ty.is_packed();
    match operand {
        Operand::Pair(..) if matches!(ty, CompareType::Half(..)) && !packed => Err(modifiers.error("needs one result")),
        Operand::Pair(p, q) => {
            let results = vec![modifiers.result_or_sink(Kind::Pred, p)?, modifiers.result_or_sink(Kind::Pred, q)?];
            Ok((CompareResult::Predicates, results))
        }
        _ => Ok((CompareResult::Predicate, vec![modifiers.result(Kind::Pred, operand)?])),
    }
}

/// A type that `set` may write.
fn result_type(text: &str) -> Option<(&'static str, u32, Kind)> {
    Some(match text {
        "u32" => ("u32", u32::MAX, Kind::Int(32)),
        "s32" => ("s32", u32::MAX, Kind::Int(32)),
        "u16" => ("u16", 0xffff, Kind::Int(16)),
        "s16" => ("s16", 0xffff, Kind::Int(16)),
        "f32" => ("f32", 0x3f80_0000, Kind::F32),
        "f16" => ("f16", 0x3c00, Kind::F16),
        "bf16" => ("bf16", 0x3f80, Kind::BF16),
        "f16x2" => ("f16x2", 0x3c00_3c00, Kind::Int(32)),
        "bf16x2" => ("bf16x2", 0x3f80_3f80, Kind::Int(32)),
        _ => return None,
    })
}

fn set_result(
    modifiers: &Modifiers,
    (name, ones, kind): (&str, u32, Kind),
    ty: CompareType,
    operand: &Operand,
) -> Result<Results, String> {
    let half = match ty {
        CompareType::Half(half, _) => Some(half),
        _ => None,
    };
    let packed = half.is_some_and(HalfType::is_packed);
    let fits = match name {
        "u32" | "s32" => true,
        "u16" | "s16" => half.is_some() && !packed,
        "f32" => half.is_none(),
        "f16" => !packed && half != Some(HalfType::BF16),
        "bf16" => !packed,
        "f16x2" => half == Some(HalfType::F16x2),
        _ => half == Some(HalfType::BF16x2),
    };
    if !fits {
        return Err(modifiers.error(&format!(".{name} cannot be the result of this comparison")));
    }
    Ok((CompareResult::Word(ones), vec![modifiers.result(kind, operand)?]))
}

pub(super) fn execute(op: Compare, frame: &mut Frame) {
    let [low, high] = test(op, frame);
    let with = |outcome: u32, frame: &Frame| match op.combine {
        Combine::None => outcome,
        Combine::With { operator, negated } => {
            let other = frame.predicate(2) ^ ones(negated);
            match operator {
                Operator::And => outcome & other,
                Operator::Or => outcome | other,
                Operator::Xor => outcome ^ other,
            }
        }
    };
    let (low, high) = (low ^ ones(op.negated), high ^ ones(op.negated));
    let packed = op.ty.is_packed();
    match op.result {
        CompareResult::Predicate => frame.set_predicate(0, with(low, frame)),
        CompareResult::Predicates => {
            // Both are computed before the first is written, which may be the predicate they are combined with.
            let second = with(if packed { high } else { !low }, frame);
            frame.set_predicate(0, with(low, frame));
            frame.set_predicate(1, second);
        }
        CompareResult::Word(bits) => {
            let (low, high) = (with(low, frame), with(high, frame));
            let bits = if packed { [bits & 0xffff, bits & 0xffff_0000] } else { [bits, 0] };
            let lanes: [u32; LANES] = std::array::from_fn(|lane| lane as u32);
            frame.scatter(&lanes, |lane: u32| {
                let (low, high) = (low.wrapping_shr(lane) & 1, high.wrapping_shr(lane) & 1);
                bits[0] & 0u32.wrapping_sub(low) | bits[1] & 0u32.wrapping_sub(high)
            });
        }
    }
}

/// The outcome of the test before it is negated; for packed types in the lower and the upper half.
fn test(op: Compare, frame: &mut Frame) -> [u32; 2] {
    let once = |mask| [mask, 0];
    match (op.ty, op.test) {
        // 16-bit values are zero-extended.
        (CompareType::Int(IntType::U64 | IntType::S64), Test::Equal) => once(frame.test2(|a: u64, b: u64| a == b)),
        (CompareType::Int(_), Test::Equal) => once(frame.test2(|a: u32, b: u32| a == b)),
        (CompareType::Int(ty), _) => once(match ty {
            IntType::S16 => frame.test2(|a: i16, b: i16| a < b),
            IntType::U16 | IntType::U32 => frame.test2(|a: u32, b: u32| a < b),
            IntType::S32 => frame.test2(|a: i32, b: i32| a < b),
            IntType::U64 => frame.test2(|a: u64, b: u64| a < b),
            IntType::S64 => frame.test2(|a: i64, b: i64| a < b),
        }),
        (CompareType::F32(false), test) => once(float(test, frame, |a: u32| f32::from_bits(a))),
        (CompareType::F32(true), test) => once(float(test, frame, |a: u32| flush_if(true, f32::from_bits(a)))),
        (CompareType::F64, test) => once(float(test, frame, |a: u64| f64::from_bits(a))),
        (CompareType::Half(HalfType::F16, ftz), test) => once(float(test, frame, |a: u32| half::<F16>(a, ftz))),
        (CompareType::Half(HalfType::BF16, _), test) => once(float(test, frame, |a: u32| half::<BF16>(a, false))),
        (CompareType::Half(HalfType::F16x2, ftz), test) => {
            let high = float(test, frame, |a: u32| half::<F16>(a >> 16, ftz));
            [float(test, frame, |a: u32| half::<F16>(a, ftz)), high]
        }
        (CompareType::Half(HalfType::BF16x2, _), test) => {
            let high = float(test, frame, |a: u32| half::<BF16>(a >> 16, false));
            [float(test, frame, |a: u32| half::<BF16>(a, false)), high]
        }
    }
}

/// The f16 or bf16 in the low bits; with `ftz` a subnormal counts as zero.
#[inline(always)]
fn half<F: Format>(bits: u32, ftz: bool) -> f32 {
    let subnormal = bits & F::MAGNITUDE < 1 << F::FRACTION;
    if ftz && subnormal { 0.0 } else { widen::<F>(bits) }
}

fn float<A: Lane, V: PartialOrd>(test: Test, frame: &mut Frame, load: impl Fn(A) -> V) -> u32 {
    match test {
        Test::Equal => frame.test2(|a: A, b: A| load(a) == load(b)),
        Test::Less => frame.test2(|a: A, b: A| load(a) < load(b)),
        Test::LessEqual => frame.test2(|a: A, b: A| load(a) <= load(b)),
        Test::Apart => frame.test2(|a: A, b: A| {
            let (a, b) = (load(a), load(b));
            (a < b) | (a > b)
        }),
        Test::Ordered => frame.test2(|a: A, b: A| {
            let (a, b) = (load(a), load(b));
            (a <= b) | (a > b)
        }),
    }
}
