//! Parameter arenas: one flat buffer that holds one tensor per parameter tensor, e.g. weights, gradients or moments.

use std::any::TypeId;
use std::ops::Range;

use super::params::{Gpt, Layout};
use crate::error::{Error, Result};
use crate::tensor::{FloatElement, Storage, Tensor, View, ViewMut, host_zeros};

/// A flat buffer with the [`Layout`] of a model's parameters.
pub struct Arena<S: Storage, E: FloatElement> {
    layout: Layout,
    flat: Tensor<S, E>,
}

impl<S: Storage, E: FloatElement> Arena<S, E> {
    /// Allocates an arena of zeros.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn zeros(storage: &S, layout: &Layout) -> Result<Self> {
        Ok(Arena { flat: Tensor::zeros(storage, [layout.len])?, layout: layout.clone() })
    }

    /// Makes an arena with the content of `data`, which has the layout `layout`. Panics if the lengths differ.
    ///
    /// # Errors
    /// If allocation or the copy fails.
    pub fn from_f32(storage: &S, layout: &Layout, data: Vec<f32>) -> Result<Self> {
        let data: Vec<E> = if TypeId::of::<E>() == TypeId::of::<f32>() {
            bytemuck::allocation::cast_vec(data)
        } else {
            data.into_iter().map(E::from_f32).collect()
        };
        Ok(Arena { flat: Tensor::from_vec(storage, [layout.len], data)?, layout: layout.clone() })
    }

    /// The shape and offset of each tensor.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A 1-D view of all elements.
    pub fn flat(&self) -> View<'_, S, E> {
        self.flat.view()
    }

    /// A mutable 1-D view of all elements.
    pub fn flat_mut(&mut self) -> ViewMut<'_, S, E> {
        self.flat.view_mut()
    }

    /// A view of each tensor.
    pub fn views(&self) -> Gpt<View<'_, S, E>> {
        let flat = self.flat.view();
        self.layout.slots.as_ref().map(|slot| flat.part(slot.range.start, &slot.shape[..]))
    }

    /// A mutable view of each tensor.
    pub fn views_mut(&mut self) -> Gpt<ViewMut<'_, S, E>> {
        let mut rest = Some(self.flat.view_mut());
        self.layout.slots.as_ref().map(|slot| {
            // The layout has no gaps, so the tensors can be split off one by one.
            let (first, last) = rest.take().expect("put back below").split_first(&slot.shape[..]);
            rest = Some(last);
            first
        })
    }

    /// Replaces all elements.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the lengths differ; those of [`Storage::upload`].
    pub fn set_f32(&mut self, storage: &S, data: &[f32]) -> Result<()> {
        if data.len() != self.layout.len {
            let (got, want) = (data.len(), self.layout.len);
            return Err(Error::invalid(format!("{got} elements given, but the model has {want}")));
        }
        if TypeId::of::<E>() == TypeId::of::<f32>() {
            return storage.upload(bytemuck::cast_slice::<f32, E>(data), self.flat.view_mut());
        }
        let data: Vec<E> = data.iter().map(|&x| E::from_f32(x)).collect();
        storage.upload(&data, self.flat.view_mut())
    }

    /// Copies elements `range` to host memory, converted to f32. Panics if they are out of bounds.
    ///
    /// # Errors
    /// As [`Storage::download`].
    pub fn part_f32(&self, storage: &S, range: Range<usize>) -> Result<Vec<f32>> {
        let mut part = host_zeros::<E>(range.len())?;
        storage.download(self.flat.view().part(range.start, [range.len()]), &mut part)?;
        Ok(part.into_iter().map(E::to_f32).collect())
    }
}
