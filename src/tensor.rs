//! Tensors: a shape over memory that a backend owns.
//!
//! A [`Tensor`] owns a buffer; a [`View`] is read access and a [`ViewMut`] write access to a contiguous part of one. All
//! are row-major. [`Storage`] abstracts the memory, so that the same code runs on host slices and on device memory.
//!
//! ```
//! use ironwarp::cpu::Cpu;
//! use ironwarp::tensor::{Storage, Tensor};
//!
//! let cpu = Cpu::<f32>::new();
//! let mut x = Tensor::from_vec(&cpu, [2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! let second_row = x.view().part(3, [3]);
//! assert_eq!(second_row.shape().to_string(), "(3)");
//! // Exclusive views can be split, so that operations may write disjoint parts of one tensor.
//! let (first_row, _) = x.view_mut().split_first([3]);
//! cpu.upload(&[7.0, 8.0, 9.0], first_row)?;
//! assert_eq!(x.to_vec(&cpu)?, [7.0, 8.0, 9.0, 4.0, 5.0, 6.0]);
//! # Ok::<(), ironwarp::Error>(())
//! ```

use std::fmt;

use bytemuck::Pod;
use half::bf16;

use crate::error::{Error, Result};
use crate::memory::Category;

/// A vector of `len` zeros. `vec![0; len]` would abort the process if the allocation fails.
///
/// # Errors
/// [`Error::Unavailable`] with the number of bytes if there is not enough host memory.
pub(crate) fn host_zeros<E: Element>(len: usize) -> Result<Vec<E>> {
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| {
        let bytes = len.saturating_mul(E::BYTES);
        Error::Unavailable(format!("out of host memory: {len} × {} = {bytes} bytes requested", E::NAME))
    })
}

/// An element type of tensors.
pub trait Element: Pod + Send + Sync + PartialEq + fmt::Debug + fmt::Display + Default {
    /// Name of the type in messages and files.
    const NAME: &'static str;
    /// Bytes per element.
    const BYTES: usize = size_of::<Self>();
}

impl Element for i32 {
    const NAME: &'static str = "i32";
}

/// A floating-point [`Element`].
pub trait FloatElement: Element {
    /// Converts from f32, rounding to nearest.
    fn from_f32(value: f32) -> Self;
    /// Converts to f32, rounding to nearest.
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

/// The memory of a backend's tensors, and the precision of their elements.
pub trait Storage: Sized {
    /// Activations, their gradients, and the weights that matmuls read: bf16 on CUDA.
    type Compute: FloatElement;
    /// Statistics, losses, weight gradients, master weights and moments: f32 on CUDA.
    type Accum: FloatElement;
    /// The last axis of a [`Storage::Compute`] tensor must be a multiple of this many elements: 8 on CUDA, whose kernels
    /// access bf16 in vectors of 16 bytes, and 1 where rows need no alignment.
    const VECTOR: usize;

    /// Owned memory for `E`s.
    type Buffer<E: Element>: Send + Sync;
    /// Exclusive access to a contiguous part of a buffer.
    type SliceMut<'a, E: Element>: Send;
    /// A reference to memory that somebody else has allocated: a device pointer on CUDA. It is
    /// [`Infallible`](std::convert::Infallible) in a storage that has views of its own buffers only.
    type External: Copy + Send + Sync;

    /// Accounts all following allocations to `category`. A storage without accounting ignores the call.
    fn account_to(&self, _category: Category) {}

    /// Allocates a buffer of `len` zeros.
    ///
    /// # Errors
    /// If allocation fails.
    fn zeros<E: Element>(&self, len: usize) -> Result<Self::Buffer<E>>;
    /// Makes a buffer with the content of `data`. A host backend takes the vector over without a copy.
    ///
    /// # Errors
    /// If allocation or the copy fails.
    fn adopt<E: Element>(&self, data: Vec<E>) -> Result<Self::Buffer<E>>;
    /// Borrows a whole buffer mutably.
    fn slice_mut<E: Element>(buffer: &mut Self::Buffer<E>) -> Self::SliceMut<'_, E>;
    /// Splits into elements `0..mid` and `mid..`. Panics when `mid` is past the end.
    fn split_at_mut<'a, E: Element>(
        slice: Self::SliceMut<'a, E>,
        mid: usize,
    ) -> (Self::SliceMut<'a, E>, Self::SliceMut<'a, E>);
    /// Reborrows a slice for a shorter lifetime.
    fn reborrow<'b, E: Element>(slice: &'b mut Self::SliceMut<'_, E>) -> Self::SliceMut<'b, E>;

    /// Copies host memory into `dst`; lengths must be equal. The copy is ordered after all operations enqueued before it
    /// and does not wait for them. On return `src` may be changed.
    ///
    /// # Errors
    /// If the copy fails.
    fn upload<E: Element>(&self, src: &[E], dst: ViewMut<'_, Self, E>) -> Result<()>;
    /// A point in the order of the device's work: a CUDA event.
    type Event: Send;

    /// Records an event after all operations enqueued so far.
    ///
    /// # Errors
    /// If the device is lost.
    fn record_event(&self) -> Result<Self::Event>;
    /// Copies as [`Storage::upload`] does, but concurrently with the enqueued operations: the copy waits for `after` only.
    /// Operations may use `dst` after they [wait for](Storage::wait_event) the returned event.
    ///
    /// # Errors
    /// If the copy fails.
    fn upload_async<E: Element>(
        &self,
        after: &Self::Event,
        src: &[E],
        dst: ViewMut<'_, Self, E>,
    ) -> Result<Self::Event>;
    /// Orders all operations enqueued from now on after `event`. The host does not wait.
    ///
    /// # Errors
    /// If the device is lost.
    fn wait_event(&self, event: &Self::Event) -> Result<()>;

    /// Copies `src` into host memory and waits for the copy; lengths must be equal.
    ///
    /// # Errors
    /// If the copy, or an operation enqueued before it, fails.
    fn download<E: Element>(&self, src: View<'_, Self, E>, dst: &mut [E]) -> Result<()>;
}

/// A row-major shape of up to four axes.
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

    /// Number of elements, saturating at `usize::MAX`.
    pub fn len(&self) -> usize {
        self.dims().iter().fold(1, |len, &axis| len.saturating_mul(axis))
    }

    /// Whether an axis is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `[N, C]`: the product of all axes except the last, and the last axis.
    pub fn matrix(&self) -> [usize; 2] {
        match self.dims() {
            [] => [1, 1],
            [rows @ .., last] => [rows.iter().product(), *last],
        }
    }

    /// The shape of entry `index` of the first axis. Panics if the index is out of range.
    fn entry(&self, index: usize) -> Shape {
        assert!(index < self.dims()[0], "entry {index} of {self}");
        Shape::from(&self.dims()[1..])
    }

    /// Panics unless the elements `start..start + part.len()` are in bounds.
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

/// An owned buffer with a shape.
pub struct Tensor<S: Storage, E: Element> {
    buffer: S::Buffer<E>,
    shape: Shape,
}

impl<S: Storage, E: Element> Tensor<S, E> {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn zeros(storage: &S, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        Ok(Tensor { buffer: storage.zeros(shape.len())?, shape })
    }

    /// Wraps a buffer of `len` elements that the backend allocated. Panics if `len` does not match the shape.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code))]
    pub(crate) fn from_buffer(buffer: S::Buffer<E>, len: usize, shape: Shape) -> Self {
        assert_eq!(len, shape.len(), "a buffer for a tensor of shape {shape}");
        Tensor { buffer, shape }
    }

    /// A tensor with the content of `data`. Panics if its length does not match the shape.
    ///
    /// # Errors
    /// If allocation or the copy fails.
    pub fn from_vec(storage: &S, shape: impl Into<Shape>, data: Vec<E>) -> Result<Self> {
        let shape = shape.into();
        assert_eq!(data.len(), shape.len(), "data for a tensor of shape {shape}");
        Ok(Tensor { buffer: storage.adopt(data)?, shape })
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The memory.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code))]
    pub(crate) fn buffer(&self) -> &S::Buffer<E> {
        &self.buffer
    }

    /// A view of the whole tensor.
    pub fn view(&self) -> View<'_, S, E> {
        View { memory: Memory::Buffer(&self.buffer), offset: 0, shape: self.shape }
    }

    /// A mutable view of the whole tensor.
    pub fn view_mut(&mut self) -> ViewMut<'_, S, E> {
        ViewMut { slice: S::slice_mut(&mut self.buffer), shape: self.shape }
    }

    /// A view of entry `index` of the first axis. Panics if the index is out of range.
    pub fn at(&self, index: usize) -> View<'_, S, E> {
        self.view().at(index)
    }

    /// A mutable view of entry `index` of the first axis. Panics if the index is out of range.
    pub fn at_mut(&mut self, index: usize) -> ViewMut<'_, S, E> {
        self.view_mut().into_at(index)
    }

    /// Copies the content to host memory.
    ///
    /// # Errors
    /// As [`Storage::download`].
    pub fn to_vec(&self, storage: &S) -> Result<Vec<E>> {
        let mut data = vec![E::zeroed(); self.shape.len()];
        storage.download(self.view(), &mut data)?;
        Ok(data)
    }
}

/// The memory that a [`View`] reads.
pub enum Memory<'a, S: Storage, E: Element> {
    /// A buffer of the storage.
    Buffer(&'a S::Buffer<E>),
    /// Memory of another owner.
    External(S::External),
}

impl<S: Storage, E: Element> Clone for Memory<'_, S, E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Storage, E: Element> Copy for Memory<'_, S, E> {}

/// Read access to a contiguous part of a buffer, with a shape.
pub struct View<'a, S: Storage, E: Element> {
    memory: Memory<'a, S, E>,
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
    /// A view of memory of another owner.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code))]
    pub(crate) fn from_external(external: S::External, shape: Shape) -> Self {
        View { memory: Memory::External(external), offset: 0, shape }
    }

    /// The underlying memory.
    pub fn memory(&self) -> Memory<'a, S, E> {
        self.memory
    }

    /// Offset of the first element in the memory, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Elements `start..start + shape.len()` of this view, with that shape. Panics if they are out of bounds.
    pub fn part(self, start: usize, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        self.shape.assert_inside(start, shape);
        View { offset: self.offset + start, shape, ..self }
    }

    /// Entry `index` of the first axis. Panics if the index is out of range.
    pub fn at(self, index: usize) -> Self {
        let inner = self.shape.entry(index);
        self.part(index * inner.len(), inner)
    }
}

/// Write access to a contiguous part of a buffer, with a shape.
pub struct ViewMut<'a, S: Storage, E: Element> {
    slice: S::SliceMut<'a, E>,
    shape: Shape,
}

impl<'a, S: Storage, E: Element> ViewMut<'a, S, E> {
    /// A view of a slice of `shape.len()` elements.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code))]
    pub(crate) fn from_slice_mut(slice: S::SliceMut<'a, E>, shape: Shape) -> Self {
        ViewMut { slice, shape }
    }

    /// Drops the shape and returns the memory.
    pub fn into_slice(self) -> S::SliceMut<'a, E> {
        self.slice
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Reborrows the view for a shorter lifetime.
    pub fn reborrow(&mut self) -> ViewMut<'_, S, E> {
        ViewMut { slice: S::reborrow(&mut self.slice), shape: self.shape }
    }

    /// Elements `start..start + shape.len()` of this view, with that shape. Panics if they are out of bounds.
    pub fn into_part(self, start: usize, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        self.shape.assert_inside(start, shape);
        let (_, rest) = S::split_at_mut(self.slice, start);
        let (slice, _) = S::split_at_mut(rest, shape.len());
        ViewMut { slice, shape }
    }

    /// Entry `index` of the first axis. Panics if the index is out of range.
    pub fn into_at(self, index: usize) -> Self {
        let inner = self.shape.entry(index);
        self.into_part(index * inner.len(), inner)
    }

    /// Splits off the first `shape.len()` elements as a view of that shape; the rest becomes 1-D. Panics if there are too
    /// few elements.
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
    use super::*;

    #[test]
    fn shapes_count_and_print() {
        let shape = Shape::from([2, 3, 4]);
        assert_eq!((shape.len(), shape.matrix(), shape.to_string()), (24, [6, 4], "(2, 3, 4)".to_string()));
        assert_eq!(Shape::from([usize::MAX, 2]).len(), usize::MAX);
        assert!(Shape::from([5, 0]).is_empty());
    }
}
