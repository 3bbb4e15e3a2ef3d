//! Tensors: a shape over memory that a backend owns.
//!
//! A [`Tensor`] owns a buffer, a [`View`] reads a part of one, a [`ViewMut`] writes a part of one. All are row-major and
//! contiguous. Memory itself is behind [`Storage`], so that the same code runs on host slices and on device memory.

use std::fmt;

use bytemuck::Pod;
use half::bf16;

use crate::error::Result;

/// A type that tensors hold.
pub trait Element: Pod + Send + Sync + PartialEq + fmt::Debug + fmt::Display + Default {
    /// Name in messages and files.
    const NAME: &'static str;
    /// Bytes an element.
    const BYTES: usize = size_of::<Self>();
}

impl Element for i32 {
    const NAME: &'static str = "i32";
}

/// A floating-point [`Element`].
pub trait FloatElement: Element {
    /// The nearest value.
    fn from_f32(value: f32) -> Self;
    /// The nearest value in f32.
    fn to_f32(self) -> f32;
}

macro_rules! float_elements {
    ($($type:ty, $name:literal, $from:expr, $to:expr;)*) => {$(
        impl Element for $type {
            const NAME: &'static str = $name;
        }

        impl FloatElement for $type {
            fn from_f32(value: f32) -> Self {
                $from(value)
            }

            fn to_f32(self) -> f32 {
                $to(self)
            }
        }
    )*};
}

float_elements! {
    f32, "f32", |x| x, |x| x;
    f64, "f64", f64::from, |x| x as f32;
    bf16, "bf16", bf16::from_f32, bf16::to_f32;
}

/// What memory is for, in accounts and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// Weights, a full-precision copy included.
    Weights,
    /// Gradients of the weights.
    Gradients,
    /// The optimizer's moments.
    Moments,
    /// What the forward keeps.
    Activations,
    /// Gradients of activations.
    ActivationGradients,
    /// What operations need while they run.
    Scratch,
    /// Everything else: token ids, losses, what a caller allocates himself.
    Other,
}

impl Category {
    /// Every category, in the order of messages.
    pub const ALL: [Category; 7] = [
        Category::Weights,
        Category::Gradients,
        Category::Moments,
        Category::Activations,
        Category::ActivationGradients,
        Category::Scratch,
        Category::Other,
    ];

    /// What a user can do when there is no room for it.
    pub fn advice(self) -> &'static str {
        match self {
            Category::Weights | Category::Gradients | Category::Moments => "choose a smaller model",
            Category::Activations | Category::ActivationGradients => "lower --batch or --context, or use --recompute",
            Category::Scratch | Category::Other => "lower --batch or --context",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Category::Weights => "weights",
            Category::Gradients => "gradients",
            Category::Moments => "moments",
            Category::Activations => "activations",
            Category::ActivationGradients => "activation gradients",
            Category::Scratch => "scratch",
            Category::Other => "other",
        })
    }
}

/// Where a backend's tensors live, and in which precision.
pub trait Storage: Sized {
    /// Activations, their gradients, and the weights that matmuls read: bf16 on CUDA.
    type Compute: FloatElement;
    /// Statistics, losses, weight gradients, master weights and moments: f32 on CUDA.
    type Accum: FloatElement;
    /// The last axis of a [`Storage::Compute`] tensor must be a multiple of this many elements: 16 bytes of bf16 on
    /// CUDA, 1 where rows need no alignment.
    const VECTOR: usize;

    /// Owned memory for `E`s.
    type Buffer<E: Element>: Send + Sync;
    /// Exclusive access to a part of a buffer.
    type SliceMut<'a, E: Element>: Send;

    /// From here on, what is allocated counts as `category`, where memory is accounted at all.
    fn account_to(&self, _category: Category) {}

    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// When the memory cannot be had.
    fn zeros<E: Element>(&self, len: usize) -> Result<Self::Buffer<E>>;
    /// A buffer with the content of `data`, which a host backend keeps without copying.
    ///
    /// # Errors
    /// When the memory cannot be had or the copy fails.
    fn adopt<E: Element>(&self, data: Vec<E>) -> Result<Self::Buffer<E>>;
    /// Exclusive access to a whole buffer.
    fn slice_mut<E: Element>(buffer: &mut Self::Buffer<E>) -> Self::SliceMut<'_, E>;
    /// Splits into elements `0..mid` and `mid..`. Panics when `mid` is past the end.
    fn split_at_mut<'a, E: Element>(
        slice: Self::SliceMut<'a, E>,
        mid: usize,
    ) -> (Self::SliceMut<'a, E>, Self::SliceMut<'a, E>);
    /// The same access for a shorter time.
    fn reborrow<'b, E: Element>(slice: &'b mut Self::SliceMut<'_, E>) -> Self::SliceMut<'b, E>;

    /// Copies host memory into `dst`; lengths must be equal. Comes after the operations before it without waiting for
    /// them, and `src` may be changed on return.
    ///
    /// # Errors
    /// When the copy fails.
    fn upload<E: Element>(&self, src: &[E], dst: ViewMut<'_, Self, E>) -> Result<()>;
    /// A point in the order of what the device does.
    type Mark: Send;

    /// The point behind everything that was queued up to now.
    ///
    /// # Errors
    /// When the device is lost.
    fn mark(&self) -> Result<Self::Mark>;
    /// As [`Storage::upload`], but beside the operations that are queued: after `mark` and nothing else. Operations may use
    /// `dst` once they [wait for](Storage::wait_for) the mark that this returns.
    ///
    /// # Errors
    /// When the copy fails.
    fn upload_after<E: Element>(&self, mark: &Self::Mark, src: &[E], dst: ViewMut<'_, Self, E>) -> Result<Self::Mark>;
    /// What is queued from now on comes after `mark`; the host does not wait.
    ///
    /// # Errors
    /// When the device is lost.
    fn wait_for(&self, mark: &Self::Mark) -> Result<()>;

    /// Copies `src` into host memory and waits for it; lengths must be equal.
    ///
    /// # Errors
    /// When the copy, or an operation before it, fails.
    fn download<E: Element>(&self, src: View<'_, Self, E>, dst: &mut [E]) -> Result<()>;
}

/// Up to four axes, row-major.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Shape {
    /// The axes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Elements; `usize::MAX` when they are more.
    pub fn len(&self) -> usize {
        self.dims().iter().fold(1, |len, &axis| len.saturating_mul(axis))
    }

    /// Whether an axis is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `[N, C]`: all axes but the last taken together, and the last.
    pub fn matrix(&self) -> [usize; 2] {
        match self.dims() {
            [] => [1, 1],
            [rows @ .., last] => [rows.iter().product(), *last],
        }
    }

    /// The shape of an entry of the first axis. Panics when there is none of that index.
    fn entry(&self, index: usize) -> Shape {
        assert!(index < self.dims()[0], "entry {index} of {self}");
        Shape::from(&self.dims()[1..])
    }

    /// Panics when `part.len()` elements from `start` on are not inside.
    fn assert_inside(&self, start: usize, part: Shape) {
        let inside = start.checked_add(part.len()).is_some_and(|end| end <= self.len());
        assert!(inside, "{part} from {start} is not inside {self}");
    }
}

/// Panics on more than four axes.
impl From<&[usize]> for Shape {
    fn from(axes: &[usize]) -> Self {
        let mut dims = [1; 4];
        dims[..axes.len()].copy_from_slice(axes);
        Shape { dims, rank: axes.len() }
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    fn from(axes: [usize; R]) -> Self {
        Shape::from(&axes[..])
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.dims().iter().map(usize::to_string).collect();
        write!(f, "({})", axes.join(", "))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A buffer with a shape.
pub struct Tensor<S: Storage, E: Element> {
    buffer: S::Buffer<E>,
    shape: Shape,
}

impl<S: Storage, E: Element> Tensor<S, E> {
    /// All zeros.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn zeros(storage: &S, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        Ok(Tensor { buffer: storage.zeros(shape.len())?, shape })
    }

    /// Over a buffer of the backend's own. Panics when its length, which `len` tells, is not the shape's.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code))]
    pub(crate) fn from_buffer(buffer: S::Buffer<E>, len: usize, shape: Shape) -> Self {
        assert_eq!(len, shape.len(), "a buffer for a tensor of shape {shape}");
        Tensor { buffer, shape }
    }

    /// With the content of `data`. Panics when its length is not the shape's.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn from_vec(storage: &S, shape: impl Into<Shape>, data: Vec<E>) -> Result<Self> {
        let shape = shape.into();
        assert_eq!(data.len(), shape.len(), "data for a tensor of shape {shape}");
        Ok(Tensor { buffer: storage.adopt(data)?, shape })
    }

    /// The axes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The whole, to read.
    pub fn view(&self) -> View<'_, S, E> {
        View { buffer: &self.buffer, offset: 0, shape: self.shape }
    }

    /// The whole, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, S, E> {
        ViewMut { slice: S::slice_mut(&mut self.buffer), shape: self.shape }
    }

    /// Entry `index` of the first axis, to read. Panics when there is none.
    pub fn at(&self, index: usize) -> View<'_, S, E> {
        self.view().at(index)
    }

    /// Entry `index` of the first axis, to write. Panics when there is none.
    pub fn at_mut(&mut self, index: usize) -> ViewMut<'_, S, E> {
        self.view_mut().into_at(index)
    }

    /// The content, in host memory.
    ///
    /// # Errors
    /// As [`Storage::download`].
    pub fn to_vec(&self, storage: &S) -> Result<Vec<E>> {
        let mut data = vec![E::zeroed(); self.shape.len()];
        storage.download(self.view(), &mut data)?;
        Ok(data)
    }
}

/// A part of a buffer, to read.
pub struct View<'a, S: Storage, E: Element> {
    buffer: &'a S::Buffer<E>,
    offset: usize,
    shape: Shape,
}

impl<S: Storage, E: Element> Clone for View<'_, S, E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Storage, E: Element> Copy for View<'_, S, E> {}

impl<'a, S: Storage, E: Element> View<'a, S, E> {
    /// The buffer this is a part of.
    pub fn buffer(&self) -> &'a S::Buffer<E> {
        self.buffer
    }

    /// First element's place in the buffer.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The axes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Elements `start..start + shape.len()` of this view as a tensor of that shape. Panics when they are not inside.
    pub fn part(self, start: usize, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        self.shape.assert_inside(start, shape);
        View { offset: self.offset + start, shape, ..self }
    }

    /// Entry `index` of the first axis. Panics when there is none.
    pub fn at(self, index: usize) -> Self {
        let inner = self.shape.entry(index);
        self.part(index * inner.len(), inner)
    }
}

/// A part of a buffer, to write.
pub struct ViewMut<'a, S: Storage, E: Element> {
    slice: S::SliceMut<'a, E>,
    shape: Shape,
}

impl<'a, S: Storage, E: Element> ViewMut<'a, S, E> {
    /// The memory, without its shape.
    pub fn into_slice(self) -> S::SliceMut<'a, E> {
        self.slice
    }

    /// The axes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, S, E> {
        ViewMut { slice: S::reborrow(&mut self.slice), shape: self.shape }
    }

    /// Elements `start..start + shape.len()` of this view as a tensor of that shape. Panics when they are not inside.
    pub fn into_part(self, start: usize, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        self.shape.assert_inside(start, shape);
        let (_, rest) = S::split_at_mut(self.slice, start);
        let (slice, _) = S::split_at_mut(rest, shape.len());
        ViewMut { slice, shape }
    }

    /// Entry `index` of the first axis. Panics when there is none.
    pub fn into_at(self, index: usize) -> Self {
        let inner = self.shape.entry(index);
        self.into_part(index * inner.len(), inner)
    }

    /// A tensor of `shape` from the first elements, and the rest as a vector. Panics when there are too few.
    pub fn split_first(self, shape: impl Into<Shape>) -> (Self, Self) {
        let shape = shape.into();
        self.shape.assert_inside(0, shape);
        let rest = self.shape.len() - shape.len();
        let (first, last) = S::split_at_mut(self.slice, shape.len());
        (ViewMut { slice: first, shape }, ViewMut { slice: last, shape: [rest].into() })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::cpu::Cpu;

    #[test]
    fn parts_outside_of_a_view_panic_whatever_the_numbers() {
        let storage = Cpu::<f32>::new();
        let tensor = Tensor::<_, f32>::from_vec(&storage, [2, 3], (0..6).map(|x| x as f32).collect()).unwrap();
        assert_eq!(tensor.at(1).as_slice(), [3.0, 4.0, 5.0]);
        assert_eq!(tensor.view().part(2, [2, 2]).as_slice(), [2.0, 3.0, 4.0, 5.0]);
        type Whole<'a> = View<'a, Cpu<f32>, f32>;
        let outside: [fn(Whole<'_>) -> Whole<'_>; 5] = [
            |view| view.part(3, [4]),
            |view| view.part(1, [usize::MAX, 2]),
            |view| view.part(usize::MAX, [2]),
            |view| view.at(2),
            |view| view.at(1 << 63),
        ];
        for part in outside {
            assert!(catch_unwind(|| part(tensor.view()).shape()).is_err());
        }
    }

    #[test]
    fn shapes_count_and_print() {
        let shape = Shape::from([2, 3, 4]);
        assert_eq!((shape.len(), shape.matrix(), shape.to_string()), (24, [6, 4], "(2, 3, 4)".to_string()));
        assert_eq!(Shape::from([usize::MAX, 2]).len(), usize::MAX);
        assert!(Shape::from([5, 0]).is_empty());
    }
}
