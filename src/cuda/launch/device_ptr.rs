//! Device pointers that know their element type, for the fields of launch parameters.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

/// Four f32 in one 16-byte access, as in CUDA.
#[expect(non_camel_case_types, reason = "the name that CUDA gives the type")]
pub type float4 = [f32; 4];
/// Two f32 in one 8-byte access, as in CUDA.
#[expect(non_camel_case_types, reason = "the name that CUDA gives the type")]
pub type float2 = [f32; 2];
/// Four u32 in one 16-byte access, as in CUDA.
#[expect(non_camel_case_types, reason = "the name that CUDA gives the type")]
pub type uint4 = [u32; 4];
/// Two u32 in one 8-byte access, as in CUDA.
#[expect(non_camel_case_types, reason = "the name that CUDA gives the type")]
pub type uint2 = [u32; 2];

/// The address of a `T` in device memory. The host cannot dereference it.
///
/// It has the layout of the kernel's `T *`. Offsets are computed modulo 2^64, so that only a kernel can go out of bounds
/// with it.
#[repr(transparent)]
pub struct DevPtr<T> {
    address: u64,
    element: PhantomData<T>,
}

impl<T> DevPtr<T> {
    /// The null pointer. Kernels take it for an operand that is absent.
    pub const NULL: Self = DevPtr::from_address(0);

    /// The pointer with an address that the driver returned.
    pub const fn from_address(address: u64) -> Self {
        DevPtr { address, element: PhantomData }
    }

    /// The address as the driver takes it.
    pub const fn address(self) -> u64 {
        self.address
    }

    /// Whether this is [`DevPtr::NULL`].
    pub const fn is_null(self) -> bool {
        self.address == 0
    }

    /// The pointer `count` elements further on.
    #[must_use]
    pub const fn offset(self, count: usize) -> Self {
        self.byte_offset(count * size_of::<T>())
    }

    /// The pointer `bytes` bytes further on.
    #[must_use]
    pub const fn byte_offset(self, bytes: usize) -> Self {
        DevPtr::from_address(self.address.wrapping_add(bytes as u64))
    }

    /// The same address, of elements of another type.
    pub const fn cast<U>(self) -> DevPtr<U> {
        DevPtr::from_address(self.address)
    }
}

impl<T> Clone for DevPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DevPtr<T> {}

impl<T> PartialEq for DevPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<T> Eq for DevPtr<T> {}

/// The address in hexadecimal.
impl<T> fmt::Debug for DevPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

// SAFETY: the all-zero bit pattern is the null pointer.
#[allow(unsafe_code)]
unsafe impl<T> Zeroable for DevPtr<T> {}

// SAFETY: a transparent wrapper of u64, which is plain data; the host never follows the address.
#[allow(unsafe_code)]
unsafe impl<T: 'static> Pod for DevPtr<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_elements_or_bytes() {
        let ptr = DevPtr::<float4>::from_address(0x7f00_0000_1000);
        assert_eq!(format!("{ptr:?}"), "0x7f0000001000");
        assert_eq!(ptr.offset(3).address(), 0x7f00_0000_1030);
        assert_eq!(ptr.byte_offset(3).address(), 0x7f00_0000_1003);
        assert_eq!(ptr.cast::<f32>().offset(3).address(), 0x7f00_0000_100c);
        assert!(!ptr.is_null() && DevPtr::<f32>::NULL.is_null());
        assert_eq!(bytemuck::bytes_of(&ptr), 0x7f00_0000_1000_u64.to_ne_bytes());
    }
}
