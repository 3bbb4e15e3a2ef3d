//! Host memory under a GPU's types and rules, for checks and floors: it runs nothing.

use half::bf16;
use ironwarp::Result;
use ironwarp::tensor::{Element, Storage, View, ViewMut};

/// bf16 and f32, in vectors of 8.
pub struct Narrow;

impl Storage for Narrow {
    type Compute = bf16;
    type Accum = f32;
    const VECTOR: usize = 8;
    type Buffer<E: Element> = Vec<E>;
    type SliceMut<'a, E: Element> = &'a mut [E];

    fn zeros<E: Element>(&self, len: usize) -> Result<Vec<E>> {
        Ok(vec![E::zeroed(); len])
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

    type Mark = ();

    fn mark(&self) -> Result<()> {
        Ok(())
    }

    fn upload_after<E: Element>(&self, (): &(), src: &[E], dst: ViewMut<'_, Self, E>) -> Result<()> {
        self.upload(src, dst)
    }

    fn wait_for(&self, (): &()) -> Result<()> {
        Ok(())
    }

    fn download<E: Element>(&self, src: View<'_, Self, E>, dst: &mut [E]) -> Result<()> {
        dst.copy_from_slice(&src.buffer()[src.offset()..][..src.shape().len()]);
        Ok(())
    }
}
