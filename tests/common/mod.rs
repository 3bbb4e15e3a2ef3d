//! What the tests of operations share: seeded inputs, outputs that detect stray writes, comparisons and gradient checks;
//! and a module per operation family with host values of its inputs, and its calls on any backend.

// Each test program uses some of it.
#![allow(dead_code)]

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod embedding;
pub mod gelu;
pub mod grad_norm;
pub mod layernorm;
pub mod matmul;
pub mod sampling;

use std::fmt::Debug;

use ironwarp::ops::philox::{Purpose, draw, uniform};
use ironwarp::ops::{Backend, Write};
use ironwarp::tensor::{FloatElement, Shape, Storage, Tensor, View, ViewMut};
use ironwarp::{Error, Result};
use num_traits::{Float, NumCast};
use rayon::ThreadPoolBuilder;

/// A float that references in f64 can be compared with.
pub trait Number: FloatElement + Float {
    /// The nearest value.
    fn of(value: f64) -> Self {
        NumCast::from(value).unwrap()
    }
    /// The same value.
    fn wide(self) -> f64 {
        self.to_f64().unwrap()
    }
}
impl<E: FloatElement + Float> Number for E {}

/// A backend whose results these tests can read.
pub trait Device: Backend + Storage<Compute: Number, Accum: Number> {}
impl<B: Backend + Storage<Compute: Number, Accum: Number>> Device for B {}

/// Elements before and after a tensor: NaN around inputs, canaries around outputs. 16 elements keep the tensor aligned for
/// vector accesses.
const MARGIN: usize = 16;
/// A value that is exact in every type.
const CANARY: f64 = -12352.0;
/// Both write modes of a gradient.
pub const WRITES: [Write; 2] = [Write::Overwrite, Write::Accumulate];

/// Seeded host data.
pub struct Draws {
    key: u64,
    next: u64,
}

impl Draws {
    /// A different sequence for every seed.
    pub fn new(seed: u64) -> Self {
        Draws { key: seed, next: 0 }
    }

    fn uniform(&mut self) -> f64 {
        self.next += 1;
        uniform(draw(self.key, Purpose::Sampling, 0, self.next - 1)).into()
    }

    /// Values in [-1, 1), exact in f32.
    pub fn numbers(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| 2.0 * self.uniform() - 1.0).collect()
    }

    /// Ids in `0..below`.
    pub fn ids(&mut self, len: usize, below: usize) -> Vec<i32> {
        (0..len).map(|_| (self.uniform() * below as f64) as i32).collect()
    }

    /// [`Draws::numbers`] on a backend.
    pub fn input<B: Device, E: Number>(&mut self, backend: &B, shape: impl Into<Shape>) -> Input<B, E> {
        let shape = shape.into();
        Input::new(backend, shape, &self.numbers(shape.len()))
    }
}

/// The values rounded to `E`.
pub fn rounded<E: Number>(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|x| E::of(x).wide()).collect()
}

/// A tensor to read, with NaN before it and, unless it ends its buffer, after it.
pub struct Input<B: Device, E: Number> {
    /// The content as the operation reads it: rounded to `E`.
    pub values: Vec<f64>,
    tensor: Tensor<B, E>,
    shape: Shape,
}

impl<B: Device, E: Number> Input<B, E> {
    /// These values, rounded to `E`, in a frame of NaN: a stray read that reaches a result makes it NaN.
    pub fn new(backend: &B, shape: impl Into<Shape>, values: &[f64]) -> Self {
        Self::framed(backend, shape.into(), values, MARGIN)
    }

    /// Like [`Input::new`], but the buffer ends with the tensor: the emulated GPU reports any read past the end as out of
    /// bounds, and the CPU backend panics, even where the value read would not reach a result.
    pub fn to_buffer_end(backend: &B, shape: impl Into<Shape>, values: &[f64]) -> Self {
        Self::framed(backend, shape.into(), values, 0)
    }

    fn framed(backend: &B, shape: Shape, values: &[f64], behind: usize) -> Self {
        let values = rounded::<E>(values.to_vec());
        Input { tensor: framed(backend, f64::NAN, shape, &values, behind), shape, values }
    }

    /// The tensor.
    pub fn view(&self) -> View<'_, B, E> {
        self.tensor.view().part(MARGIN, self.shape)
    }
}

/// Token ids on a backend.
pub fn ids<B: Device>(backend: &B, shape: impl Into<Shape>, values: &[i32]) -> Tensor<B, i32> {
    Tensor::from_vec(backend, shape, values.to_vec()).unwrap()
}

/// The values after [`MARGIN`] elements of `frame`, with `behind` more of them at the end.
fn framed<B: Device, E: Number>(backend: &B, frame: f64, shape: Shape, values: &[f64], behind: usize) -> Tensor<B, E> {
    assert_eq!(values.len(), shape.len(), "values for {shape}");
    let margin = |len| std::iter::repeat_n(E::of(frame), len);
    let content = values.iter().map(|&x| E::of(x));
    let data: Vec<E> = margin(MARGIN).chain(content).chain(margin(behind)).collect();
    Tensor::from_vec(backend, [data.len()], data).unwrap()
}

/// A tensor to write, between canaries.
pub struct Output<B: Device, E: Number> {
    tensor: Tensor<B, E>,
    shape: Shape,
    /// The content before the operation.
    pub before: Vec<f64>,
}

impl<B: Device, E: Number> Output<B, E> {
    /// Starts with this content, rounded to `E`.
    pub fn with(backend: &B, shape: impl Into<Shape>, before: &[f64]) -> Self {
        let (shape, before) = (shape.into(), rounded::<E>(before.to_vec()));
        Output { tensor: framed(backend, CANARY, shape, &before, MARGIN), shape, before }
    }

    /// For an operation that overwrites it: starts as NaN.
    pub fn new(backend: &B, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Output::with(backend, shape, &vec![f64::NAN; shape.len()])
    }

    /// For a write mode: starts as NaN when overwritten, with random values when accumulated.
    pub fn to(backend: &B, shape: impl Into<Shape>, write: Write) -> Self {
        let shape = shape.into();
        match write {
            Write::Overwrite => Output::new(backend, shape),
            Write::Accumulate => Output::with(backend, shape, &Draws::new(99).numbers(shape.len())),
        }
    }

    /// The tensor.
    pub fn view(&mut self) -> ViewMut<'_, B, E> {
        self.tensor.view_mut().into_part(MARGIN, self.shape)
    }

    /// The content; canaries must be intact.
    pub fn read(&self, backend: &B) -> Vec<f64> {
        let data: Vec<f64> = self.tensor.to_vec(backend).unwrap().into_iter().map(E::wide).collect();
        let (before, rest) = data.split_at(MARGIN);
        let (content, after) = rest.split_at(self.shape.len());
        assert_eq!((before, after), (&[CANARY; MARGIN][..], &[CANARY; MARGIN][..]), "canaries around {}", self.shape);
        content.to_vec()
    }

    /// The expected content after `values` were written in mode `write`.
    pub fn expected(&self, write: Write, values: &[f64]) -> Vec<f64> {
        match write {
            Write::Overwrite => values.to_vec(),
            Write::Accumulate => self.before.iter().zip(values).map(|(a, b)| a + b).collect(),
        }
    }

    /// Fails if anything was written.
    pub fn assert_untouched(&self, backend: &B) {
        assert_same_bits("a rejected operation's output", &self.read(backend), &self.before);
    }
}

/// Fails unless all values are equal to the last bit; any NaN equals any other.
pub fn assert_same_bits(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(same, "{what}: element {i} is {got:e}, not {want:e}");
    }
}

/// Fails unless `|got - want| <= units · ε · (1 + |want|)` for every element, with the ε of `E`.
///
/// `what` names operation, output and case: `layernorm_forward out`.
pub fn compare<E: Number>(what: &str, shape: impl Into<Shape>, got: &[f64], want: &[f64], units: f64) {
    let shape = shape.into();
    assert_eq!((got.len(), want.len()), (shape.len(), shape.len()), "{what} {shape}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (got - want).abs();
        let allowed = units * E::epsilon().wide() * (1.0 + want.abs());
        let at = Shape::from(&coordinate(shape, i)[..]);
        assert!(error <= allowed, "{what} {shape} {}: at {at} {got:e}, not {want:e} ± {allowed:e}", E::NAME);
    }
}

fn coordinate(shape: Shape, mut index: usize) -> Vec<usize> {
    let mut at = vec![0; shape.dims().len()];
    for (at, dim) in at.iter_mut().zip(shape.dims()).rev() {
        *at = index % dim;
        index /= dim;
    }
    at
}

/// Compares the analytic `gradient` of `loss` at `point` with central differences, at every coordinate.
pub fn check_gradient(what: &str, point: &[f64], gradient: &[f64], mut loss: impl FnMut(&[f64]) -> f64) {
    // A power of two is added without rounding. The truncation error, its square, and the rounding error, 2^-52 divided by
    // it, are both far below the tolerance.
    const STEP: f64 = 1.0 / 65536.0;
    assert_eq!(point.len(), gradient.len(), "{what}");
    let mut moved = point.to_vec();
    for i in 0..point.len() {
        let mut at = |x: f64| {
            moved[i] = x;
            loss(&moved)
        };
        let numeric = (at(point[i] + STEP) - at(point[i] - STEP)) / (2.0 * STEP);
        moved[i] = point[i];
        let allowed = 1e-6 * numeric.abs() + 1e-8;
        let analytic = gradient[i];
        assert!(
            (analytic - numeric).abs() <= allowed,
            "{what}: element {i} is {analytic:e}, central differences give {numeric:e}"
        );
    }
}

/// `Σ a·b`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Fails unless the error is a precondition with exactly this message.
pub fn assert_rejected(result: Result<impl Debug>, message: &str) {
    let error = result.expect_err(message);
    assert!(matches!(error, Error::Precondition { .. }), "{error:?}");
    assert_eq!(error.to_string(), message);
}

/// Fails unless `run` returns the same bits on 1, 2, 3, 5 and 8 threads.
pub fn assert_same_on_any_threads(operation: &str, run: impl Fn() -> Vec<Vec<f64>> + Sync) {
    let results = [1, 2, 3, 5, 8].map(|threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        (threads, pool.install(&run))
    });
    let (_, want) = &results[0];
    for (threads, got) in &results {
        assert_eq!(got.len(), want.len());
        for (output, (got, want)) in got.iter().zip(want).enumerate() {
            assert_same_bits(&format!("{operation}: output {output} on {threads} threads"), got, want);
        }
    }
}
