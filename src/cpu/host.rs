//! Tensors in host memory.

use std::convert::Infallible;

use crate::error::Result;
use crate::tensor::{Element, FloatElement, Memory, Storage, View, ViewMut, host_zeros};

/// A backend whose tensors are vectors in host memory. Its element types are all that such a backend states;
/// [`Storage`] is implemented for every one of them.
pub trait HostStorage {
    /// See [`Storage::Compute`].
    type Compute: FloatElement;
    /// See [`Storage::Accum`].
    type Accum: FloatElement;
    /// See [`Storage::VECTOR`].
    const VECTOR: usize;
}

impl<H: HostStorage> Storage for H {
    type Compute = H::Compute;
    type Accum = H::Accum;
    const VECTOR: usize = H::VECTOR;
    type Buffer<E: Element> = Vec<E>;
    type SliceMut<'a, E: Element> = &'a mut [E];
    type External = Infallible;

    fn zeros<E: Element>(&self, len: usize) -> Result<Vec<E>> {
        host_zeros(len)
    }

    fn adopt<E: Element>(&self, data: Vec<E>) -> Result<Vec<E>> {
        Ok(data)
    }

    fn slice_mut<E: Element>(buffer: &mut Vec<E>) -> &mut [E] {
        buffer
    }

    fn split_at_mut<'a, E: Element>(
        slice: Self::SliceMut<'a, E>,
        mid: usize,
    ) -> (Self::SliceMut<'a, E>, Self::SliceMut<'a, E>) {
        slice.split_at_mut(mid)
    }

    fn reborrow<'b, E: Element>(slice: &'b mut &mut [E]) -> &'b mut [E] {
        slice
    }

    fn upload<E: Element>(&self, src: &[E], dst: ViewMut<'_, Self, E>) -> Result<()> {
        dst.into_slice().copy_from_slice(src);
        Ok(())
    }

    /// All work is complete when a call returns, so an event carries no state.
    type Event = ();

    fn record_event(&self) -> Result<()> {
        Ok(())
    }

    fn upload_async<E: Element>(&self, (): &(), src: &[E], dst: ViewMut<'_, Self, E>) -> Result<()> {
        self.upload(src, dst)
    }

    fn wait_event(&self, (): &()) -> Result<()> {
        Ok(())
    }

    fn download<E: Element>(&self, src: View<'_, Self, E>, dst: &mut [E]) -> Result<()> {
        dst.copy_from_slice(src.as_slice());
        Ok(())
    }
}

impl<'a, H: HostStorage, E: Element> View<'a, H, E> {
    /// The elements.
    pub fn as_slice(&self) -> &'a [E] {
        match self.memory() {
            Memory::Buffer(buffer) => &buffer[self.offset()..][..self.shape().len()],
            Memory::External(none) => match none {},
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::tensor::Tensor;

    struct Host;

    impl HostStorage for Host {
        type Compute = f32;
        type Accum = f32;
        const VECTOR: usize = 1;
    }

    #[test]
    fn views_out_of_bounds_panic_even_where_offsets_overflow() {
        let tensor = Tensor::<_, f32>::from_vec(&Host, [2, 3], (0..6).map(|x| x as f32).collect()).unwrap();
        assert_eq!(tensor.at(1).as_slice(), [3.0, 4.0, 5.0]);
        assert_eq!(tensor.view().part(2, [2, 2]).as_slice(), [2.0, 3.0, 4.0, 5.0]);
        type Whole<'a> = View<'a, Host, f32>;
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
}
