//! The C boundary: the types of the exported functions' arguments.
//!
//! Every pointer that crosses the boundary has a type of this module, so that pointers are dereferenced only here. Safe
//! code of this crate cannot create them: they come from a C caller. What the driver API requires of the caller (a pointer
//! is null, or valid for the access that the documentation names) is the safety argument of every unsafe block below.
//! Enumerations are passed as integers, structures as [`Plain`](pointer::Plain) ones, and handles as numbers.

#![allow(unsafe_code)]

mod calls;
mod host;
mod params;
mod pointer;
mod structs;

pub use calls::{HostFunction, SharedSize, StreamCallback, UserData};
pub use host::{HostPointer, Image, Line, Unified};
pub use params::{Extra, JitOptions, JitValues, KernelParams};
pub use pointer::{Buffer, Device, DevicePointer, Handle, HandleList, In, InOut, NullStream, Out, OutList, Text};
pub use structs::{CopyArea2D, CopyArea3D, CtxCreateParams, DeviceProperties, EdgeData, InstantiateParams};
pub use structs::{LaunchAttribute, LaunchConfig, MemAccess, MemLocation, PoolProps, Side2D, Side3D, Uuid};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("handles and device addresses are 64 bits wide");
