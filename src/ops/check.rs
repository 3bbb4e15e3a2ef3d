//! Helpers that check an operation's preconditions and format the errors.

use std::fmt::Display;

use crate::error::{Error, Result};
use crate::tensor::{Element, Shape, Storage};

/// Checks the rules of the operation with this name.
pub(super) struct Rules(pub &'static str);

impl Rules {
    /// Fails unless `rule` holds; `found` formats the numbers that violate it.
    pub fn require<D: Display>(&self, holds: bool, rule: impl Display, found: impl FnOnce() -> D) -> Result<()> {
        if holds { Ok(()) } else { Err(self.failed(rule, found())) }
    }

    /// The error for a violated `rule`.
    pub fn failed(&self, rule: impl Display, found: impl Display) -> Error {
        Error::Precondition { operation: self.0, rule: rule.to_string(), found: found.to_string() }
    }

    /// Fails unless the tensor has exactly this shape; `axes` names the axes as in the docs: `("weight", "(OC, C)", …)`.
    pub fn shape(&self, name: &str, axes: &str, found: Shape, want: impl Into<Shape>) -> Result<()> {
        let want = want.into();
        self.require(found == want, format_args!("{name} {axes} == {want}"), || format!("{name} is {found}"))
    }

    /// Fails unless the tensor, with its leading axes flattened, is a matrix of this shape.
    pub fn matrix(&self, name: &str, axes: &str, found: Shape, want: [usize; 2]) -> Result<()> {
        let want_shape = Shape::from(want);
        self.require(found.matrix() == want, format_args!("{name} {axes} == {want_shape}"), || {
            format!("{name} is {found}")
        })
    }

    /// Fails unless the tensor has this many elements, whatever its axes.
    pub fn len(&self, name: &str, axes: &str, found: Shape, want: usize) -> Result<()> {
        self.require(found.len() == want, format_args!("{name} {axes} == ({want})"), || format!("{name} is {found}"))
    }

    /// Fails if an axis is zero.
    pub fn not_empty(&self, name: &str, found: Shape) -> Result<()> {
        self.require(!found.is_empty(), format_args!("{name} not empty"), || format!("{name} is {found}"))
    }

    /// Fails unless the size is a multiple of the backend's vector width.
    pub fn vectors<S: Storage>(&self, name: &str, size: usize) -> Result<()> {
        let vector = S::VECTOR;
        self.require(size.is_multiple_of(vector), format_args!("{name} % {vector} == 0"), || format!("{name} = {size}"))
    }
}

/// Size of `elements` elements in bytes.
pub(super) fn bytes<E: Element>(elements: usize) -> u64 {
    elements as u64 * E::BYTES as u64
}
