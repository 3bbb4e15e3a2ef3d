//! C structures with integers in place of enumerations. The tests compare their layout with cudarc's.

use super::host::{HostPointer, Unified};
use super::pointer::{Handle, In, plain};

plain!(LaunchConfig, LaunchAttribute, CopyArea2D, CopyArea3D, CtxCreateParams, PoolProps);
plain!(InstantiateParams, MemLocation, MemAccess, EdgeData);

/// `CUlaunchConfig`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub stream: Handle,
    pub attributes: In<LaunchAttribute>,
    pub attribute_count: u32,
}

/// `CUlaunchAttribute`; the name determines the meaning of the value.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LaunchAttribute {
    pub name: u32,
    pad: u32,
    value: [u64; 8],
}

impl LaunchAttribute {
    /// A 32-bit part of the value.
    pub fn word(&self, index: usize) -> u32 {
        (self.value[index / 2] >> (index % 2 * 32)) as u32
    }
}

/// `CUDA_MEMCPY2D`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CopyArea2D {
    pub from: Side2D,
    pub to: Side2D,
    pub width: usize,
    pub height: usize,
}

/// One side of a [`CopyArea2D`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Side2D {
    pub x: usize,
    pub y: usize,
    pub kind: u32,
    pub host: HostPointer,
    pub device: Unified,
    pub array: Handle,
    pub pitch: usize,
}

/// `CUDA_MEMCPY3D`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CopyArea3D {
    pub from: Side3D,
    pub to: Side3D,
    pub width: usize,
    pub height: usize,
    pub depth: usize,
}

/// One side of a [`CopyArea3D`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Side3D {
    pub x: usize,
    pub y: usize,
    pub z: usize,
    pub level: usize,
    pub kind: u32,
    pub host: HostPointer,
    pub device: Unified,
    pub array: Handle,
    reserved: usize,
    pub pitch: usize,
    pub height: usize,
}

/// `CUctxCreateParams`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CtxCreateParams {
    pub affinity: usize,
    pub affinity_count: i32,
    pub graphics: usize,
}

/// `CUmemLocation`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MemLocation {
    pub kind: u32,
    pub id: i32,
}

/// `CUmemAccessDesc`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MemAccess {
    pub location: MemLocation,
    pub flags: u32,
}

/// `CUmemPoolProps`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PoolProps {
    pub allocation: u32,
    pub handles: u32,
    pub location: MemLocation,
    security: usize,
    reserved: [u64; 8],
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct InstantiateParams {
    pub flags: u64,
    pub upload: Handle,
    pub error_node: Handle,
    pub result: u32,
}

/// `CUgraphEdgeData`
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct EdgeData([u8; 8]);

/// `CUuuid`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Uuid(pub [u8; 16]);

/// `CUdevprop`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DeviceProperties {
    pub threads_per_block: i32,
    pub block: [i32; 3],
    pub grid: [i32; 3],
    pub shared_per_block: i32,
    pub constant: i32,
    pub warp: i32,
    pub pitch: i32,
    pub registers_per_block: i32,
    pub clock: i32,
    pub texture_alignment: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use cudarc::driver::sys;
    use std::mem::{align_of, offset_of, size_of};

    macro_rules! same_layout {
        ($ours:ty, $theirs:ty $(, $field:ident = $other:ident)*) => {
            assert_eq!(size_of::<$ours>(), size_of::<$theirs>(), stringify!($ours));
            assert_eq!(align_of::<$ours>(), align_of::<$theirs>(), stringify!($ours));
            $(assert_eq!(offset_of!($ours, $field), offset_of!($theirs, $other), stringify!($field));)*
        };
    }

    #[test]
    fn layouts_are_those_of_the_header() {
        same_layout!(LaunchConfig, sys::CUlaunchConfig, block = blockDimX, dynamic_shared = sharedMemBytes);
        same_layout!(
            LaunchConfig,
            sys::CUlaunchConfig,
            stream = hStream,
            attributes = attrs,
            attribute_count = numAttrs
        );
        same_layout!(LaunchAttribute, sys::CUlaunchAttribute, name = id, value = value);
        same_layout!(CopyArea2D, sys::CUDA_MEMCPY2D, from = srcXInBytes, to = dstXInBytes, width = WidthInBytes);
        assert_eq!(offset_of!(CopyArea2D, from.kind), offset_of!(sys::CUDA_MEMCPY2D, srcMemoryType));
        assert_eq!(offset_of!(CopyArea2D, to.pitch), offset_of!(sys::CUDA_MEMCPY2D, dstPitch));
        same_layout!(CopyArea3D, sys::CUDA_MEMCPY3D, from = srcXInBytes, to = dstXInBytes, width = WidthInBytes);
        assert_eq!(offset_of!(CopyArea3D, from.kind), offset_of!(sys::CUDA_MEMCPY3D, srcMemoryType));
        assert_eq!(offset_of!(CopyArea3D, from.pitch), offset_of!(sys::CUDA_MEMCPY3D, srcPitch));
        assert_eq!(offset_of!(CopyArea3D, to.height), offset_of!(sys::CUDA_MEMCPY3D, dstHeight));
        same_layout!(CtxCreateParams, sys::CUctxCreateParams, affinity_count = numExecAffinityParams);
        same_layout!(MemLocation, sys::CUmemLocation, id = id);
        same_layout!(MemAccess, sys::CUmemAccessDesc, flags = flags);
        same_layout!(PoolProps, sys::CUmemPoolProps, handles = handleTypes, location = location);
        same_layout!(
            InstantiateParams,
            sys::CUDA_GRAPH_INSTANTIATE_PARAMS,
            upload = hUploadStream,
            result = result_out
        );
        same_layout!(EdgeData, sys::CUgraphEdgeData);
        same_layout!(Uuid, sys::CUuuid);
        same_layout!(DeviceProperties, sys::CUdevprop, warp = SIMDWidth, texture_alignment = textureAlign);
        same_layout!(crate::boundary::DevicePointer, sys::CUdeviceptr);
    }
}
