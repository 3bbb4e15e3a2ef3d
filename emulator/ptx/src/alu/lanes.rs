//! Loops over the 32 lanes, compiled once for the build's target and once for AVX2 and FMA, and chosen at run time.
//!
//! Both give the same bits: Rust never fuses a product and a sum by itself, and without FMA a fused multiply-add is
//! computed exactly in another way.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

use super::Alu;
use crate::registers::{LANES, Registers, Src};

/// One instruction being executed.
pub(super) struct Frame<'a> {
    pub registers: &'a mut Registers,
    pub alu: &'a Alu,
    pub mask: u32,
}

/// An entry of a register file.
pub(super) trait Word: Copy + Default {
    fn slot(registers: &Registers, slot: u32) -> &[Self; LANES];
    fn from_bits(bits: u64) -> Self;
    fn store(registers: &mut Registers, slot: u32, mask: u32, values: &[Self; LANES]);
}

impl Word for u32 {
    #[inline(always)]
    fn slot(registers: &Registers, slot: u32) -> &[Self; LANES] {
        &registers.b32[slot as usize]
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        bits as u32
    }

    #[inline(always)]
    fn store(registers: &mut Registers, slot: u32, mask: u32, values: &[Self; LANES]) {
        registers.set32(slot, mask, values);
    }
}

impl Word for u64 {
    #[inline(always)]
    fn slot(registers: &Registers, slot: u32) -> &[Self; LANES] {
        &registers.b64[slot as usize]
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        bits
    }

    #[inline(always)]
    fn store(registers: &mut Registers, slot: u32, mask: u32, values: &[Self; LANES]) {
        registers.set64(slot, mask, values);
    }
}

/// A lane's value, as read from and written to a register file's entry.
pub(super) trait Lane: Copy {
    type Word: Word;
    fn read(word: Self::Word) -> Self;
    fn write(self) -> Self::Word;
}

macro_rules! integer_lane {
    ($($type:ty, $unsigned:ty, $word:ty;)*) => {$(
        impl Lane for $type {
            type Word = $word;

            #[inline(always)]
            fn read(word: $word) -> Self {
                word as $type
            }

            #[inline(always)]
            fn write(self) -> $word {
                self as $unsigned as $word
            }
        }
    )*};
}

integer_lane! {
    u8, u8, u32; i8, u8, u32; u16, u16, u32; i16, u16, u32; u32, u32, u32; i32, u32, u32; u64, u64, u64; i64, u64, u64;
}

impl Lane for f32 {
    type Word = u32;

    #[inline(always)]
    fn read(word: u32) -> Self {
        f32::from_bits(word)
    }

    /// Every NaN is written with the same bits.
    #[inline(always)]
    fn write(self) -> u32 {
        if self.is_nan() { 0x7fff_ffff } else { self.to_bits() }
    }
}

impl Lane for f64 {
    type Word = u64;

    #[inline(always)]
    fn read(word: u64) -> Self {
        f64::from_bits(word)
    }

    /// Every NaN is written with the same bits.
    #[inline(always)]
    fn write(self) -> u64 {
        if self.is_nan() { 0xfff8_0000_0000_0000 } else { self.to_bits() }
    }
}

/// Binds the 32 values of a source, without copying them out of a register.
macro_rules! source {
    ($name:ident: $type:ty = $frame:expr, $index:expr) => {
        let held;
        let $name = match $frame.alu.sources[$index] {
            Src::Slot(slot) => <$type as Lane>::Word::slot($frame.registers, slot),
            Src::Bits(bits) => {
                held = [<$type as Lane>::Word::from_bits(bits); LANES];
                &held
            }
        };
    };
}

/// A loop over the lanes, in the form that `pulp` takes.
struct Loop<'f, 'r, F, T> {
    frame: &'f mut Frame<'r>,
    f: F,
    form: PhantomData<T>,
}

/// A closure over lanes as a loop of the form `T`, which says what the loop reads and writes.
trait Body<T> {
    type Output;
    fn run(self, frame: &mut Frame<'_>) -> Self::Output;
}

impl<F: Body<T>, T> WithSimd for Loop<'_, '_, F, T> {
    type Output = F::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> F::Output {
        self.f.run(self.frame)
    }
}

/// Sources to result 0.
struct Map<T>(PhantomData<T>);
/// Sources to a mask.
struct Test<T>(PhantomData<T>);
/// Sources and carry to result 0 and the carry; the carry is the last source and result 1.
struct Carry<T>(PhantomData<T>);
/// Two sources and a predicate, source 2, to result 0.
struct Select<T>(PhantomData<T>);
/// Source 0 to several results of 32 bits or less.
struct Split<T>(PhantomData<T>);
/// Source 0 to an array of intermediate values.
struct Gather<T>(PhantomData<T>);

macro_rules! bodies {
    ($(($($type:ident $name:ident $index:literal),*);)*) => {$(
        impl<F: Fn($($type),*) -> R, $($type: Lane,)* R: Lane> Body<Map<(R, $($type),*)>> for F {
            type Output = ();

            #[inline(always)]
            fn run(self, frame: &mut Frame<'_>) {
                $(source!($name: $type = frame, $index);)*
                let mut out = [R::Word::default(); LANES];
                for lane in 0..LANES {
                    out[lane] = self($($type::read($name[lane])),*).write();
                }
                R::Word::store(frame.registers, frame.alu.results[0], frame.mask, &out);
            }
        }

        impl<F: Fn($($type),*) -> bool, $($type: Lane,)*> Body<Test<($($type,)*)>> for F {
            type Output = u32;

            #[inline(always)]
            fn run(self, frame: &mut Frame<'_>) -> u32 {
                $(source!($name: $type = frame, $index);)*
                // One word per lane first, combined afterwards: a running mask would make each lane depend on the last.
                let mut bits = [0u32; LANES];
                for lane in 0..LANES {
                    bits[lane] = if self($($type::read($name[lane])),*) { 1 << lane } else { 0 };
                }
                join(&bits)
            }
        }
    )*};
}

bodies! {
    (A a 0);
    (A a 0, B b 1);
    (A a 0, B b 1, C c 2);
    (A a 0, B b 1, C c 2, D d 3);
}

/// The bitwise or of all words, in vectors as far as possible.
#[inline(always)]
fn join(bits: &[u32; LANES]) -> u32 {
    let mut eight = [0; 8];
    for i in 0..8 {
        eight[i] = bits[i] | bits[i + 8] | bits[i + 16] | bits[i + 24];
    }
    let mut four = [0; 4];
    for i in 0..4 {
        four[i] = eight[i] | eight[i + 4];
    }
    four[0] | four[1] | (four[2] | four[3])
}

macro_rules! carry_bodies {
    ($(($($name:ident $index:literal),*) $carry:literal;)*) => {$(
        impl<F, T: Lane> Body<Carry<($(carry_bodies!(@$name T),)*)>> for (F, CarryUse)
        where
            F: Fn($(carry_bodies!(@$name T),)* bool) -> (T, bool),
        {
            type Output = ();

            #[inline(always)]
            fn run(self, frame: &mut Frame<'_>) {
                $(source!($name: T = frame, $index);)*
                let carry = if self.1.reads { frame.registers.get_pred(frame.alu.sources[$carry]) } else { 0 };
                let mut out = [T::Word::default(); LANES];
                let mut carries = [0; LANES];
                for lane in 0..LANES {
                    let (value, carry) = (self.0)($(T::read($name[lane]),)* carry >> lane & 1 != 0);
                    out[lane] = value.write();
                    carries[lane] = if carry { 1 << lane } else { 0 };
                }
                T::Word::store(frame.registers, frame.alu.results[0], frame.mask, &out);
                if self.1.writes {
                    frame.registers.set_pred(frame.alu.results[1], frame.mask, join(&carries));
                }
            }
        }
    )*};
    (@$name:ident $type:ident) => { $type };
}

carry_bodies! {
    (a 0, b 1) 2;
    (a 0, b 1, c 2) 3;
}

impl<F: Fn(T, T, bool) -> T, T: Lane> Body<Select<T>> for F {
    type Output = ();

    #[inline(always)]
    fn run(self, frame: &mut Frame<'_>) {
        source!(a: T = frame, 0);
        source!(b: T = frame, 1);
        let predicate = frame.registers.get_pred(frame.alu.sources[2]);
        let mut out = [T::Word::default(); LANES];
        for lane in 0..LANES {
            out[lane] = self(T::read(a[lane]), T::read(b[lane]), predicate >> lane & 1 != 0).write();
        }
        T::Word::store(frame.registers, frame.alu.results[0], frame.mask, &out);
    }
}

/// Every result i is `f` of source 0 and i.
impl<F: Fn(A, u32) -> u32, A: Lane> Body<Split<A>> for (F, usize) {
    type Output = ();

    #[inline(always)]
    fn run(self, frame: &mut Frame<'_>) {
        // The source is copied before the first result is written: it may be the same register.
        source!(a: A = frame, 0);
        let a = *a;
        for (i, &slot) in frame.alu.results.iter().enumerate().take(self.1) {
            let mut out = [0; LANES];
            for lane in 0..LANES {
                out[lane] = (self.0)(A::read(a[lane]), i as u32);
            }
            frame.registers.set32(slot, frame.mask, &out);
        }
    }
}

impl<F: Fn(A) -> V, A: Lane, V: Copy + Default> Body<Gather<(A, V)>> for F {
    type Output = [V; LANES];

    #[inline(always)]
    fn run(self, frame: &mut Frame<'_>) -> [V; LANES] {
        source!(a: A = frame, 0);
        let mut out = [V::default(); LANES];
        for lane in 0..LANES {
            out[lane] = self(A::read(a[lane]));
        }
        out
    }
}

/// Intermediate values to result 0.
impl<F: Fn(V) -> R, V: Copy, R: Lane> Body<(V, R)> for (F, &[V; LANES]) {
    type Output = ();

    #[inline(always)]
    fn run(self, frame: &mut Frame<'_>) {
        let mut out = [R::Word::default(); LANES];
        for (out, &value) in out.iter_mut().zip(self.1) {
            *out = (self.0)(value).write();
        }
        R::Word::store(frame.registers, frame.alu.results[0], frame.mask, &out);
    }
}

/// A function of words as a type, which is always inlined into the loop. A closure with a large body may not be, and is
/// then neither vectorised nor compiled for the loop's target.
pub(super) trait Unary {
    fn apply(&self, a: u32) -> u32;
}

pub(super) trait Binary {
    fn apply(&self, a: u32, b: u32) -> u32;
}

pub(super) trait Ternary {
    fn apply(&self, a: u32, b: u32, c: u32) -> u32;
}

/// The word functions by their number of sources.
struct Words<F, const N: usize>(F);

macro_rules! word_bodies {
    ($($trait:ident $count:literal ($($name:ident $index:literal),*);)*) => {$(
        impl<F: $trait> Body<()> for Words<F, $count> {
            type Output = ();

            #[inline(always)]
            fn run(self, frame: &mut Frame<'_>) {
                $(source!($name: u32 = frame, $index);)*
                let mut out = [0; LANES];
                for lane in 0..LANES {
                    out[lane] = self.0.apply($($name[lane]),*);
                }
                frame.registers.set32(frame.alu.results[0], frame.mask, &out);
            }
        }
    )*};
}

word_bodies! {
    Unary 1 (a 0);
    Binary 2 (a 0, b 1);
    Ternary 3 (a 0, b 1, c 2);
}

/// Whether an instruction reads and writes the carry flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarryUse {
    pub reads: bool,
    pub writes: bool,
}

impl Frame<'_> {
    #[inline(always)]
    fn run<T, F: Body<T>>(&mut self, f: F) -> F::Output {
        Arch::new().dispatch(Loop { frame: self, f, form: PhantomData::<T> })
    }

    #[inline(always)]
    pub fn map1<A: Lane, R: Lane>(&mut self, f: impl Fn(A) -> R) {
        self.run::<Map<(R, A)>, _>(f);
    }

    #[inline(always)]
    pub fn map2<A: Lane, B: Lane, R: Lane>(&mut self, f: impl Fn(A, B) -> R) {
        self.run::<Map<(R, A, B)>, _>(f);
    }

    #[inline(always)]
    pub fn map3<A: Lane, B: Lane, C: Lane, R: Lane>(&mut self, f: impl Fn(A, B, C) -> R) {
        self.run::<Map<(R, A, B, C)>, _>(f);
    }

    #[inline(always)]
    pub fn map4<A: Lane, B: Lane, C: Lane, D: Lane, R: Lane>(&mut self, f: impl Fn(A, B, C, D) -> R) {
        self.run::<Map<(R, A, B, C, D)>, _>(f);
    }

    #[inline(always)]
    pub fn words1(&mut self, f: impl Unary) {
        self.run::<(), _>(Words::<_, 1>(f));
    }

    #[inline(always)]
    pub fn words2(&mut self, f: impl Binary) {
        self.run::<(), _>(Words::<_, 2>(f));
    }

    #[inline(always)]
    pub fn words3(&mut self, f: impl Ternary) {
        self.run::<(), _>(Words::<_, 3>(f));
    }

    #[inline(always)]
    pub fn test1<A: Lane>(&mut self, f: impl Fn(A) -> bool) -> u32 {
        self.run::<Test<(A,)>, _>(f)
    }

    #[inline(always)]
    pub fn test2<A: Lane, B: Lane>(&mut self, f: impl Fn(A, B) -> bool) -> u32 {
        self.run::<Test<(A, B)>, _>(f)
    }

    #[inline(always)]
    pub fn test3<A: Lane, B: Lane, C: Lane>(&mut self, f: impl Fn(A, B, C) -> bool) -> u32 {
        self.run::<Test<(A, B, C)>, _>(f)
    }

    #[inline(always)]
    pub fn carry2<T: Lane>(&mut self, uses: CarryUse, f: impl Fn(T, T, bool) -> (T, bool)) {
        self.run::<Carry<(T, T)>, _>((f, uses));
    }

    #[inline(always)]
    pub fn carry3<T: Lane>(&mut self, uses: CarryUse, f: impl Fn(T, T, T, bool) -> (T, bool)) {
        self.run::<Carry<(T, T, T)>, _>((f, uses));
    }

    /// Result 0 is `f` of sources 0 and 1 and the predicate that is source 2.
    #[inline(always)]
    pub fn select<T: Lane>(&mut self, f: impl Fn(T, T, bool) -> T) {
        self.run::<Select<T>, _>(f);
    }

    /// Each result i below `count` is `f` of source 0 and i.
    #[inline(always)]
    pub fn split<A: Lane>(&mut self, count: usize, f: impl Fn(A, u32) -> u32) {
        self.run::<Split<A>, _>((f, count));
    }

    /// Intermediate values from source 0.
    #[inline(always)]
    pub fn gather<A: Lane, V: Copy + Default>(&mut self, f: impl Fn(A) -> V) -> [V; LANES] {
        self.run::<Gather<(A, V)>, _>(f)
    }

    /// Result 0 from intermediate values.
    #[inline(always)]
    pub fn scatter<V: Copy, R: Lane>(&mut self, values: &[V; LANES], f: impl Fn(V) -> R) {
        self.run::<(V, R), _>((f, values));
    }

    pub fn predicate(&self, index: usize) -> u32 {
        self.registers.get_pred(self.alu.sources[index])
    }

    pub fn set_predicate(&mut self, index: usize, values: u32) {
        self.registers.set_pred(self.alu.results[index], self.mask, values);
    }
}

/// A predicate that has the same value in every lane: all bits set, or none.
pub(super) fn ones(set: bool) -> u32 {
    0u32.wrapping_sub(set as u32)
}

/// Whether `mul_add` is one machine instruction inside the loops.
#[inline(always)]
pub(super) fn fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !matches!(Arch::new(), Arch::Scalar);
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}
