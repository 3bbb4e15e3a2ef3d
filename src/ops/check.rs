//! The words in which an operation states its rules.

use std::fmt::Display;

use crate::error::{Error, Result};
use crate::tensor::{Element, Shape, Storage};

/// The rules of one operation; failures carry its name.
pub(super) struct Rules(pub &'static str);

impl Rules {
    /// `rule` must hold; `found` gives the numbers when it does not.
    pub fn require<D: Display>(&self, holds: bool, rule: impl Display, found: impl FnOnce() -> D) -> Result<()> {
        if holds { Ok(()) } else { Err(self.failed(rule, found())) }
    }

    /// The error that `rule` does not hold.
    pub fn failed(&self, rule: impl Display, found: impl Display) -> Error {
        Error::Precondition { operation: self.0, rule: rule.to_string(), found: found.to_string() }
    }

    /// The tensor must have exactly these axes, called `axes` in the docs: `("weight", "(OC, C)", …)`.
    pub fn shape(&self, name: &str, axes: &str, found: Shape, want: impl Into<Shape>) -> Result<()> {
        let want = want.into();
        self.require(found == want, format_args!("{name} {axes} == {want}"), || format!("{name} is {found}"))
    }

    /// The tensor, its leading axes taken together, must be this matrix.
    pub fn matrix(&self, name: &str, axes: &str, found: Shape, want: [usize; 2]) -> Result<()> {
        let want_shape = Shape::from(want);
        self.require(found.matrix() == want, format_args!("{name} {axes} == {want_shape}"), || {
            format!("{name} is {found}")
        })
    }

    /// The tensor, however its axes are cut, must have this many elements.
    pub fn len(&self, name: &str, axes: &str, found: Shape, want: usize) -> Result<()> {
        self.require(found.len() == want, format_args!("{name} {axes} == ({want})"), || format!("{name} is {found}"))
    }

    /// No axis may be zero.
    pub fn not_empty(&self, name: &str, found: Shape) -> Result<()> {
        self.require(!found.is_empty(), format_args!("{name} not empty"), || format!("{name} is {found}"))
    }

    /// The size must be a multiple of what the backend's vector accesses need.
    pub fn vectors<S: Storage>(&self, name: &str, size: usize) -> Result<()> {
        let vector = S::VECTOR;
        self.require(size.is_multiple_of(vector), format_args!("{name} % {vector} == 0"), || format!("{name} = {size}"))
    }
}

/// Bytes of that many elements.
pub(super) fn bytes<E: Element>(elements: usize) -> u64 {
    elements as u64 * E::BYTES as u64
}
