//! Runs one instruction, written as PTX, over rows of values, one row per lane.

use ptx_emulator::alu::{Alu, Decoded, Kind, decode};
use ptx_emulator::ast::Operand;
use ptx_emulator::registers::{Class, LANES, Registers, Src};

/// The value of every register before an instruction writes it.
const POISON: u64 = 0x5a5a_a5a5_5a5a_a5a5;

/// The opcode's parts and the operands of `add.s32 r, a, b`.
pub fn parse(text: &str) -> (Vec<String>, Vec<Operand>) {
    let (opcode, operands) = text.split_once(' ').expect("an opcode and operands");
    (opcode.split('.').map(str::to_string).collect(), list(operands))
}

/// Splits at commas that are not inside braces.
fn list(text: &str) -> Vec<Operand> {
    let mut depth = 0;
    let parts = text.split(|c| {
        depth += (c == '{') as i32 - (c == '}') as i32;
        c == ',' && depth == 0
    });
    parts.map(|part| operand(part.trim())).collect()
}

fn operand(text: &str) -> Operand {
    if let Some(inner) = text.strip_prefix('{') {
        return Operand::Vector(list(inner.trim_end_matches('}')));
    }
    if let Some((first, second)) = text.split_once('|') {
        return Operand::Pair(Box::new(operand(first)), Box::new(operand(second)));
    }
    if let Some(name) = text.strip_prefix('!') {
        return Operand::Not(name.into());
    }
    let hex = |digits: &str| u64::from_str_radix(digits, 16).expect("hexadecimal digits");
    match text.get(..2) {
        Some("0x") => Operand::Integer(hex(&text[2..])),
        Some("0f") => Operand::F32(hex(&text[2..]) as u32),
        Some("0d") => Operand::F64(hex(&text[2..])),
        _ if text == "_" => Operand::Sink,
        _ => match text.parse::<i64>() {
            Ok(number) => Operand::Integer(number as u64),
            Err(_) => Operand::Name(text.into()),
        },
    }
}

/// An instruction with numbered registers.
pub struct Instruction {
    text: String,
    pub decoded: Decoded,
    alu: Alu,
    /// Named sources, in alphabetical order, with their kinds and slots; `%cc` is the last.
    pub inputs: Vec<(String, Kind, u32)>,
    /// The results except `_`.
    outputs: Vec<(Kind, u32)>,
}

impl Instruction {
    pub fn new(text: &str) -> Self {
        let (opcode, operands) = parse(text);
        let decoded = decode(&opcode, &operands)
            .unwrap_or_else(|| panic!("{text}: unknown opcode"))
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut names: Vec<(String, Class)> = Vec::new();
        let mut slot = |name: &str, class: Class| {
            let known = names.iter().position(|(known, of)| known == name && *of == class);
            known.unwrap_or_else(|| {
                names.push((name.into(), class));
                names.len() - 1
            }) as u32
        };
        let mut alu = Alu { op: decoded.op, results: [0; 4], sources: [Src::Bits(0); 4] };
        let mut inputs = Vec::new();
        for (source, (kind, operand)) in alu.sources.iter_mut().zip(&decoded.sources) {
            *source = match operand {
                Operand::Name(name) => {
                    let slot = slot(name, kind.class());
                    inputs.push((name.clone(), *kind, slot));
                    Src::Slot(slot)
                }
                literal => Src::Bits(literal_bits(literal, *kind)),
            };
        }
        let mut outputs = Vec::new();
        for (result, (kind, operand)) in alu.results.iter_mut().zip(&decoded.results) {
            *result = match operand {
                Operand::Name(name) => {
                    let slot = slot(name, kind.class());
                    outputs.push((*kind, slot));
                    slot
                }
                _ => slot("_", kind.class()),
            };
        }
        inputs.sort_by_key(|(name, ..)| (name == "%cc", name.clone()));
        inputs.dedup_by_key(|(name, ..)| name.clone());
        Self { text: text.into(), decoded, alu, inputs, outputs }
    }

    /// The instruction with a result register that is wider than its type.
    pub fn with_result_width(mut self, bits: u32) -> Self {
        self.alu.op = self.alu.op.with_result_width(bits);
        self.outputs[0].0 = Kind::Int(bits);
        self
    }

    /// The results of each row of inputs.
    pub fn run(&self, rows: &[Vec<u64>]) -> Vec<Vec<u64>> {
        rows.chunks(LANES).flat_map(|rows| self.run_warp(rows, &self.alu)).collect()
    }

    /// Runs at most 32 rows. The lanes are computed in two parts, and lanes outside of the mask must not change.
    fn run_warp(&self, rows: &[Vec<u64>], alu: &Alu) -> Vec<Vec<u64>> {
        let mut registers = Registers::new(10, 10, 10);
        for slot in 0..10 {
            registers.b32[slot] = [POISON as u32; LANES];
            registers.b64[slot] = [POISON; LANES];
            registers.pred[slot] = POISON as u32;
        }
        for (lane, row) in rows.iter().enumerate() {
            assert_eq!(row.len(), self.inputs.len(), "{}: inputs of a row", self.text);
            for ((_, kind, slot), &bits) in self.inputs.iter().zip(row) {
                set(&mut registers, *kind, *slot, lane, bits);
            }
        }
        let all = (u64::MAX >> (64 - rows.len())) as u32;
        let some = all & 0x5d1b_3a6e;
        let before = registers_of(&registers, &self.outputs, rows.len());
        alu.execute(&mut registers, some);
        let between = registers_of(&registers, &self.outputs, rows.len());
        alu.execute(&mut registers, all & !some);
        let results = registers_of(&registers, &self.outputs, rows.len());
        for lane in 0..rows.len() {
            let written = if some >> lane & 1 != 0 { &results } else { &before };
            assert_eq!(between[lane], written[lane], "{}: lane {lane} of a masked execution", self.text);
            for ((kind, _), &bits) in self.outputs.iter().zip(&results[lane]) {
                assert!(bits <= limit(*kind), "{}: {bits:#x} is not zero-extended", self.text);
            }
        }
        // All lanes at once take another path. If a result is also a source, that source has been overwritten.
        if !self.inputs.iter().any(|(_, kind, slot)| {
            self.outputs.iter().any(|(result, written)| slot == written && kind.class() == result.class())
        }) {
            alu.execute(&mut registers, u32::MAX);
            assert_eq!(registers_of(&registers, &self.outputs, rows.len()), results, "{}: all lanes", self.text);
        }
        results
    }

    /// Runs one row several times, each time with another input as a constant instead of a register.
    fn check_constants(&self, row: &[u64], expected: &[u64]) {
        for (name, kind, _) in &self.inputs {
            let mut alu = self.alu;
            for (source, (source_kind, operand)) in alu.sources.iter_mut().zip(&self.decoded.sources) {
                if *operand == Operand::Name(name.clone()) {
                    let bits = row[self.inputs.iter().position(|(known, ..)| known == name).expect("an input")];
                    *source = Src::Bits(bits & limit(*source_kind));
                }
            }
            let got = self.run_warp(&[row.to_vec(), row.to_vec()], &alu);
            assert_eq!(hex(&got[0]), hex(expected), "{} of {} with {name} constant ({kind:?})", self.text, hex(row));
        }
    }
}

fn limit(kind: Kind) -> u64 {
    match kind {
        Kind::Int(bits) => u64::MAX >> (64 - bits.max(16)),
        Kind::F16 | Kind::BF16 => 0xffff,
        Kind::F32 => u64::from(u32::MAX),
        Kind::F64 => u64::MAX,
        Kind::Pred | Kind::Carry => 1,
    }
}

fn literal_bits(operand: &Operand, kind: Kind) -> u64 {
    match (operand, kind) {
        (Operand::F64(bits), Kind::F32) => u64::from((f64::from_bits(*bits) as f32).to_bits()),
        (Operand::Integer(bits) | Operand::F64(bits), _) => bits & limit(kind),
        (Operand::F32(bits), _) => u64::from(*bits),
        _ => panic!("{operand:?} is not a literal"),
    }
}

fn set(registers: &mut Registers, kind: Kind, slot: u32, lane: usize, bits: u64) {
    assert!(bits <= limit(kind), "the test's {bits:#x} does not fit {kind:?}");
    match kind.class() {
        Class::B32 => registers.b32[slot as usize][lane] = bits as u32,
        Class::B64 => registers.b64[slot as usize][lane] = bits,
        Class::Pred => registers.set_pred(slot, 1 << lane, (bits as u32) << lane),
    }
}

fn registers_of(registers: &Registers, outputs: &[(Kind, u32)], lanes: usize) -> Vec<Vec<u64>> {
    let get = |lane: usize, &(kind, slot): &(Kind, u32)| match kind.class() {
        Class::B32 => u64::from(registers.b32[slot as usize][lane]),
        Class::B64 => registers.b64[slot as usize][lane],
        Class::Pred => u64::from(registers.pred[slot as usize] >> lane & 1),
    };
    (0..lanes).map(|lane| outputs.iter().map(|output| get(lane, output)).collect()).collect()
}

pub fn hex(values: &[u64]) -> String {
    values.iter().map(|value| format!("{value:#x}")).collect::<Vec<_>>().join(" ")
}

/// Rows of inputs, in the alphabetical order of their names, followed by the expected results.
pub fn check(text: &str, rows: &[&[u64]]) {
    let instruction = Instruction::new(text);
    check_instruction(&instruction, rows);
}

pub fn check_instruction(instruction: &Instruction, rows: &[&[u64]]) {
    let count = instruction.inputs.len();
    let inputs: Vec<Vec<u64>> = rows.iter().map(|row| row[..count].to_vec()).collect();
    for (row, got) in rows.iter().zip(instruction.run(&inputs)) {
        let (inputs, expected) = row.split_at(count);
        assert_eq!(hex(&got), hex(expected), "{} of {}", instruction.text, hex(inputs));
        instruction.check_constants(inputs, expected);
    }
}

/// Compares random rows, many of them edge cases, with a reference for one result.
pub fn against(text: &str, reference: impl Fn(&[u64]) -> u64) {
    against_all(text, |row| vec![reference(row)]);
}

/// Compares random rows with a reference for all results.
pub fn against_all(text: &str, reference: impl Fn(&[u64]) -> Vec<u64>) {
    let instruction = Instruction::new(text);
    let mut random =
        Random(0x9e37_79b9 ^ text.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte)));
    let rows: Vec<Vec<u64>> =
        (0..4000).map(|_| instruction.inputs.iter().map(|(_, kind, _)| random.value(*kind)).collect()).collect();
    for (row, got) in rows.iter().zip(instruction.run(&rows)) {
        assert_eq!(hex(&got), hex(&reference(row)), "{text} of {}", hex(row));
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A value of a kind: one in four an edge case, the others of all sizes.
    pub fn value(&mut self, kind: Kind) -> u64 {
        match kind {
            Kind::Int(bits) => self.integer(bits.max(16)),
            // Exponent and fraction bits.
            Kind::F16 => self.float(5, 10),
            Kind::BF16 => self.float(8, 7),
            Kind::F32 => self.float(8, 23),
            Kind::F64 => self.float(11, 52),
            Kind::Pred | Kind::Carry => self.below(2),
        }
    }

    fn integer(&mut self, bits: u32) -> u64 {
        let mask = u64::MAX >> (64 - bits);
        let value = match self.below(8) {
            0 => self.below(3).wrapping_sub(1),
            1 => (1 << (bits - 1)) + self.below(3) - 1,
            2 => 1 << self.below(u64::from(bits)),
            3 => self.below(70),
            _ => self.next() >> self.below(u64::from(bits)),
        };
        if self.below(4) == 0 { value.wrapping_neg() & mask } else { value & mask }
    }

    fn float(&mut self, exponent_bits: u32, fraction_bits: u32) -> u64 {
        let width = exponent_bits + fraction_bits;
        let infinity = ((1 << exponent_bits) - 1) << fraction_bits;
        let bias = (1 << (exponent_bits - 1)) - 1;
        let fraction = self.next() & ((1 << fraction_bits) - 1);
        let magnitude = match self.below(16) {
            0 => 0,
            1 => infinity,
            2 => infinity | fraction,
            3 => fraction,
            4 => infinity - 1 - self.below(2),
            5 => (1 << fraction_bits) + self.below(3) - 1,
            6 => (bias + self.below(3)) << fraction_bits,
            7 => self.next() & ((1 << width) - 1),
            // Exponents near each other and fractions with few bits give sums that cancel and products that are exact.
            8..=11 => (bias - 4 + self.below(8)) << fraction_bits | fraction,
            _ => (bias - 3 + self.below(6)) << fraction_bits | fraction & self.next() & self.next() & self.next(),
        };
        magnitude | self.below(2) << width
    }
}
