//! Copies in all directions.
//!
//! A copy from pageable memory reads the memory during the call, a copy from page-locked memory reads it when it is
//! executed. A copy to pageable memory has ended when the call returns. A copy within the device does not wait, not even a
//! synchronous one. The API permits all of this.

use std::sync::Arc;

use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED};

use super::stream::{self, enqueue};
use crate::boundary::{
    CopyArea2D, CopyArea3D, DevicePointer, Handle, HostPointer, In, NullStream, Side2D, Side3D, Unified,
};
use crate::copy::{Copy, Location, Side};
use crate::driver::{self, Driver, Guard};
use crate::error::{Because, Result, ensure};
use crate::executor;
use crate::export::exports;
use crate::work::Work;

const KIND_HOST: u32 = 1;
const KIND_DEVICE: u32 = 2;
const KIND_UNIFIED: u32 = 4;
impl Driver {
    fn check_side(&self, copy: &Copy, side: &Side) -> Result<()> {
        let Some(extent) = copy.extent(side) else {
            return Err(CUDA_ERROR_INVALID_VALUE.because("the copy is larger than the address space"));
        };
        match side.location {
            Location::Device(address) => self.check_range(address, extent),
            Location::Host(pointer) => {
                ensure!(!pointer.is_null(), CUDA_ERROR_INVALID_VALUE, "a null host pointer");
                let device = self.memory.find(pointer.address()).is_some();
                ensure!(!device, CUDA_ERROR_INVALID_VALUE, "{:#x} is device memory", pointer.address());
                Ok(())
            }
            Location::Staged(_) => Ok(()),
        }
    }

    /// Whether a side is pageable host memory, which must not be accessed after the call has returned.
    fn is_pageable(&self, copy: &Copy, side: &Side) -> bool {
        let extent = copy.extent(side).unwrap_or(u64::MAX);
        matches!(side.location, Location::Host(pointer) if !self.pinned.contains(pointer.address(), extent))
    }

    fn unified(&self, address: Unified) -> Location {
        match self.memory.find(address.address()) {
            Some(_) => Location::Device(address.address()),
            None => Location::Host(HostPointer::from_unified(address)),
        }
    }
}

/// Submits a copy to a stream; `wait` for the synchronous functions.
fn copy(mut driver: Guard, stream: Handle, wait: bool, mut copy: Copy) -> Result<()> {
    if wait {
        driver.refuse_unsafe()?;
    }
    if copy.is_empty() {
        return Ok(());
    }
    driver.check_side(&copy, &copy.from)?;
    driver.check_side(&copy, &copy.to)?;
    if driver.streams.get(&stream).is_some_and(|stream| stream.branch.is_some()) {
        return driver.submit(stream, Work::Copy(Arc::new(copy))).map(drop);
    }
    let staged = copy.to.is_device() && driver.is_pageable(&copy, &copy.from);
    let to_pageable = driver.is_pageable(&copy, &copy.to);
    let within_device = copy.to.is_device() && copy.from.is_device();
    let within_host = !copy.to.is_device() && !copy.from.is_device();
    if staged {
        if wait {
            driver = stream::synchronize(driver, stream)?;
        }
        copy.stage();
    }
    let (mut driver, id) = enqueue(driver, stream, Work::Copy(Arc::new(copy)))?;
    if to_pageable || within_host || wait && !staged && !within_device {
        let context = driver.streams.get(&stream).map_or(0, |stream| stream.context);
        driver = executor::finish(driver, id.as_slice());
        driver.healthy(context)?;
    }
    Ok(())
}

/// A one-dimensional copy on a stream argument.
fn flat(stream: (Handle, NullStream), wait: bool, to: Location, from: Location, bytes: usize) -> Result<()> {
    let mut driver = driver::lock()?;
    let stream = driver.stream(stream.0, stream.1)?;
    copy(driver, stream, wait, Copy::flat(to, from, bytes))
}

fn unified(stream: (Handle, NullStream), wait: bool, to: Unified, from: Unified, bytes: usize) -> Result<()> {
    let mut driver = driver::lock()?;
    let stream = driver.stream(stream.0, stream.1)?;
    let (to, from) = (driver.unified(to), driver.unified(from));
    copy(driver, stream, wait, Copy::flat(to, from, bytes))
}

fn location_of(driver: &Driver, kind: u32, host: HostPointer, device: Unified) -> Result<Location> {
    match kind {
        KIND_HOST => Ok(Location::Host(host)),
        KIND_DEVICE => Ok(Location::Device(device.address())),
        KIND_UNIFIED => Ok(driver.unified(device)),
        3 => Err(CUDA_ERROR_NOT_SUPPORTED.because("arrays are not emulated")),
        _ => Err(CUDA_ERROR_INVALID_VALUE.because(format!("memory type {kind} is unknown"))),
    }
}

/// The offset of a position in a box.
///
/// # Errors
/// The offset does not fit the address space.
fn offset(x: usize, rows: Option<usize>, pitch: usize) -> Result<u64> {
    let start = rows.and_then(|rows| rows.checked_mul(pitch)).and_then(|bytes| bytes.checked_add(x));
    start
        .map(|start| start as u64)
        .ok_or_else(|| CUDA_ERROR_INVALID_VALUE.because("an offset is larger than the address space"))
}

fn side_2d(driver: &Driver, side: &Side2D, width: usize) -> Result<Side> {
    let pitch = if side.pitch == 0 { width } else { side.pitch };
    ensure!(pitch >= width, CUDA_ERROR_INVALID_VALUE, "rows of {width} bytes do not fit a pitch of {pitch}");
    let start = offset(side.x, Some(side.y), pitch)?;
    Ok(Side { location: location_of(driver, side.kind, side.host, side.device)?, start, pitch: pitch as u64, slice: 0 })
}

fn side_3d(driver: &Driver, side: &Side3D, width: usize, height: usize) -> Result<Side> {
    ensure!(side.level == 0, CUDA_ERROR_INVALID_VALUE, "levels of detail are only valid for arrays");
    let pitch = if side.pitch == 0 { width } else { side.pitch };
    let rows = if side.height == 0 { height } else { side.height };
    let fits = pitch >= width && rows >= height;
    ensure!(fits, CUDA_ERROR_INVALID_VALUE, "{height} rows of {width} bytes do not fit {rows} of {pitch}");
    let all_rows = side.z.checked_mul(rows).and_then(|z| z.checked_add(side.y));
    let start = offset(side.x, all_rows, pitch)?;
    let slice = offset(0, Some(rows), pitch)?;
    Ok(Side { location: location_of(driver, side.kind, side.host, side.device)?, start, pitch: pitch as u64, slice })
}

fn area_2d(stream: (Handle, NullStream), wait: bool, area: In<CopyArea2D>) -> Result<()> {
    let mut driver = driver::lock()?;
    let stream = driver.stream(stream.0, stream.1)?;
    let CopyArea2D { from, to, width, height } = area.get()?;
    let (from, to) = (side_2d(&driver, &from, width)?, side_2d(&driver, &to, width)?);
    copy(driver, stream, wait, Copy { from, to, width: width as u64, height: height as u64, depth: 1 })
}

fn area_3d(stream: (Handle, NullStream), wait: bool, area: In<CopyArea3D>) -> Result<()> {
    let mut driver = driver::lock()?;
    let stream = driver.stream(stream.0, stream.1)?;
    let CopyArea3D { from, to, width, height, depth } = area.get()?;
    let (from, to) = (side_3d(&driver, &from, width, height)?, side_3d(&driver, &to, width, height)?);
    copy(driver, stream, wait, Copy { from, to, width: width as u64, height: height as u64, depth: depth as u64 })
}

exports! {
    fn cuMemcpy / cuMemcpy_ptds(null; to: Unified, from: Unified, bytes: usize) {
        unified((0, null), true, to, from, bytes)?;
    }

    fn cuMemcpyAsync / cuMemcpyAsync_ptsz(null; to: Unified, from: Unified, bytes: usize, stream: Handle) {
        unified((stream, null), false, to, from, bytes)?;
    }

    fn cuMemcpyHtoD_v2 / cuMemcpyHtoD_v2_ptds(null; to: DevicePointer, from: HostPointer, bytes: usize) {
        flat((0, null), true, Location::Device(to), Location::Host(from), bytes)?;
    }

    fn cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds(null; to: HostPointer, from: DevicePointer, bytes: usize) {
        flat((0, null), true, Location::Host(to), Location::Device(from), bytes)?;
    }

    fn cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds(null; to: DevicePointer, from: DevicePointer, bytes: usize) {
        flat((0, null), true, Location::Device(to), Location::Device(from), bytes)?;
    }

    fn cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz(
        null; to: DevicePointer, from: HostPointer, bytes: usize, stream: Handle
    ) {
        flat((stream, null), false, Location::Device(to), Location::Host(from), bytes)?;
    }

    fn cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz(
        null; to: HostPointer, from: DevicePointer, bytes: usize, stream: Handle
    ) {
        flat((stream, null), false, Location::Host(to), Location::Device(from), bytes)?;
    }

    fn cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz(
        null; to: DevicePointer, from: DevicePointer, bytes: usize, stream: Handle
    ) {
        flat((stream, null), false, Location::Device(to), Location::Device(from), bytes)?;
    }

    fn cuMemcpy2D_v2 / cuMemcpy2D_v2_ptds(null; area: In<CopyArea2D>) {
        area_2d((0, null), true, area)?;
    }

    fn cuMemcpy2DUnaligned_v2 / cuMemcpy2DUnaligned_v2_ptds(null; area: In<CopyArea2D>) {
        area_2d((0, null), true, area)?;
    }

    fn cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz(null; area: In<CopyArea2D>, stream: Handle) {
        area_2d((stream, null), false, area)?;
    }

    fn cuMemcpy3D_v2 / cuMemcpy3D_v2_ptds(null; area: In<CopyArea3D>) {
        area_3d((0, null), true, area)?;
    }

    fn cuMemcpy3DAsync_v2 / cuMemcpy3DAsync_v2_ptsz(null; area: In<CopyArea3D>, stream: Handle) {
        area_3d((stream, null), false, area)?;
    }
}
