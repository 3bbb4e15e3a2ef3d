//! Nanoseconds per warp instruction, for the most common forms: `cargo bench -p ptx-emulator`.
//!
//! Each row has the medians of several runs: over all lanes with sources in registers, over all lanes with a constant
//! last source, and over a part of the lanes.

use std::hint::black_box;
use std::time::Instant;

use ptx_emulator::alu::{Alu, decode};
use ptx_emulator::ast::Operand;
use ptx_emulator::registers::{Class, LANES, Registers, Src};

/// The opcode and its operands: registers, except where a constant is required.
const INSTRUCTIONS: &[(&str, &str)] = &[
    ("mov.b32", "r a"),
    ("mov.b64", "r a"),
    ("mov.b64", "r {a b}"),
    ("mov.b64", "{r s} a"),
    ("selp.b32", "r a b p"),
    ("add.s32", "r a b"),
    ("add.s64", "r a b"),
    ("mad.lo.s32", "r a b c"),
    ("mul.wide.u32", "r a b"),
    ("mad.wide.s32", "r a b c"),
    ("mul.lo.s64", "r a b"),
    ("mul.hi.u32", "r a b"),
    ("div.u32", "r a b"),
    ("rem.s32", "r a b"),
    ("div.u64", "r a b"),
    ("min.s32", "r a b"),
    ("add.cc.u32", "r a b"),
    ("and.b32", "r a b"),
    ("shl.b32", "r a b"),
    ("shr.s32", "r a b"),
    ("shl.b64", "r a b"),
    ("lop3.b32", "r a b c 0x96"),
    ("shf.l.wrap.b32", "r a b c"),
    ("prmt.b32", "r a b c"),
    ("bfe.u32", "r a b c"),
    ("bfi.b32", "r a b c d"),
    ("popc.b32", "r a"),
    ("setp.lt.s32", "p a b"),
    ("setp.ge.u64", "p a b"),
    ("setp.gt.f32", "p a b"),
    ("add.f32", "r a b"),
    ("mul.ftz.f32", "r a b"),
    ("fma.rn.f32", "r a b c"),
    ("fma.rn.ftz.f32", "r a b c"),
    ("fma.rn.sat.f32", "r a b c"),
    ("fma.rm.f32", "r a b c"),
    ("max.f32", "r a b"),
    ("div.rn.f32", "r a b"),
    ("sqrt.rn.f32", "r a"),
    ("add.f64", "r a b"),
    ("fma.rn.f64", "r a b c"),
    ("fma.rz.f64", "r a b c"),
    ("rcp.approx.ftz.f32", "r a"),
    ("rsqrt.approx.f32", "r a"),
    ("ex2.approx.ftz.f32", "r a"),
    ("lg2.approx.f32", "r a"),
    ("sin.approx.f32", "r a"),
    ("tanh.approx.f32", "r a"),
    ("add.f16x2", "r a b"),
    ("fma.rn.f16x2", "r a b c"),
    ("fma.rn.bf16x2", "r a b c"),
    ("max.bf16x2", "r a b"),
    ("cvt.f32.bf16", "r a"),
    ("cvt.f32.f16", "r a"),
    ("cvt.rn.bf16.f32", "r a"),
    ("cvt.rn.f16.f32", "r a"),
    ("cvt.rn.bf16x2.f32", "r a b"),
    ("cvt.rn.f16x2.f32", "r a b"),
    ("cvt.rna.tf32.f32", "r a"),
    ("cvt.u32.u16", "r a"),
    ("cvt.u64.u32", "r a"),
    ("cvt.s64.s32", "r a"),
    ("cvt.u32.u64", "r a"),
    ("cvt.rn.f32.s32", "r a"),
    ("cvt.rzi.s32.f32", "r a"),
    ("cvt.rz.f32.s64", "r a"),
    ("cvt.rn.satfinite.e4m3x2.f32", "r a b"),
];

fn operand(text: &str) -> Operand {
    match text.strip_prefix("0x") {
        Some(digits) => Operand::Integer(u64::from_str_radix(digits, 16).expect("hexadecimal")),
        None => Operand::Name(text.into()),
    }
}

fn operands(text: &str) -> Vec<Operand> {
    let mut list = Vec::new();
    let mut vector: Option<Vec<Operand>> = None;
    for word in text.split(' ') {
        let name = word.trim_matches(['{', '}']);
        if word.starts_with('{') {
            vector = Some(Vec::new());
        }
        match &mut vector {
            Some(parts) => parts.push(operand(name)),
            None => list.push(operand(name)),
        }
        if word.ends_with('}') {
            list.extend(vector.take().map(Operand::Vector));
        }
    }
    list
}

/// The instruction with result `i` in register `i` and source `i` in register `4 + i`; `constant` makes the last source
/// a constant.
fn instruction(opcode: &str, text: &str, constant: bool) -> Alu {
    let parts: Vec<String> = opcode.split('.').map(str::to_string).collect();
    let decoded = decode(&parts, &operands(text)).expect("known").expect("supported");
    let mut alu = Alu { op: decoded.op, results: [0, 1, 2, 3], sources: [Src::Slot(0); 4] };
    for (i, (kind, _)) in decoded.sources.iter().enumerate() {
        let last = i + 1 == decoded.sources.len();
        let number = if kind.class() == Class::B64 { 3.0f64.to_bits() } else { u64::from(3.0f32.to_bits()) };
        alu.sources[i] = if constant && last { Src::Bits(number) } else { Src::Slot(4 + i as u32) };
    }
    alu
}

fn median(alu: &Alu, registers: &mut Registers, mask: u32) -> f64 {
    const REPEATS: u32 = 2000;
    let mut runs: Vec<f64> = (0..31)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..REPEATS {
                black_box(alu).execute(registers, black_box(mask));
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(REPEATS)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn main() {
    let mut registers = Registers::new(8, 8, 8);
    for slot in 0..8 {
        for lane in 0..LANES {
            let number = 1.0 + (slot * LANES + lane) as f64 / 100.0;
            registers.b32[slot][lane] = (number as f32).to_bits();
            registers.b64[slot][lane] = number.to_bits();
        }
        registers.pred[slot] = 0x1234_5678u32.rotate_left(slot as u32);
    }
    println!("{:<28} {:>9} {:>9} {:>9}", "ns per warp instruction", "registers", "constant", "masked");
    for &(opcode, text) in INSTRUCTIONS {
        let all = median(&instruction(opcode, text, false), &mut registers, u32::MAX);
        let constant = median(&instruction(opcode, text, true), &mut registers, u32::MAX);
        let masked = median(&instruction(opcode, text, false), &mut registers, 0x0fff_fffe);
        println!("{opcode:<28} {all:>9.1} {constant:>9.1} {masked:>9.1}");
    }
}
