//! Copies, in all directions.
//!
//! What the API allows a copy is what happens: one from pageable memory is read at the call, one from page-locked
//! memory when its turn comes; one to pageable memory has ended when the call returns; a copy within the device never
//! waits, not even a synchronous one.

use std::sync::Arc;

use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED};
use ptx_emulator::memory::{Memory, MemoryError};

use crate::boundary::{
    CopyArea2D, CopyArea3D, DevicePointer, Handle, HostPointer, In, NullStream, Side2D, Side3D, Unified,
};
use crate::driver::{self, Driver, Guard};
use crate::error::{Because, Result, ensure};
use crate::export::exports;
use crate::queue;
use crate::stream::{self, enqueue};
use crate::work::Work;

const KIND_HOST: u32 = 1;
const KIND_DEVICE: u32 = 2;
const KIND_UNIFIED: u32 = 4;
/// Bytes that pass through a buffer at a time.
const CHUNK: u64 = 1 << 16;

/// A copy of a box: `depth` slices of `height` rows of `width` bytes.
#[derive(Debug, Clone)]
pub struct Copy {
    from: Side,
    to: Side,
    width: u64,
    height: u64,
    depth: u64,
}

/// Where a box lies.
#[derive(Debug, Clone)]
struct Side {
    place: Place,
    /// Bytes from the place to the first row.
    start: u64,
    /// Bytes from row to row and from slice to slice.
    pitch: u64,
    slice: u64,
}

#[derive(Debug, Clone)]
enum Place {
    Host(HostPointer),
    Device(DevicePointer),
    /// Host memory as it was at the call, its rows one after another.
    Staged(Arc<[u8]>),
}

impl Side {
    fn flat(place: Place) -> Self {
        Self { place, start: 0, pitch: 0, slice: 0 }
    }

    fn at(&self, row: u64, slice: u64) -> u64 {
        self.start + slice * self.slice + row * self.pitch
    }

    fn is_device(&self) -> bool {
        matches!(self.place, Place::Device(_))
    }
}

impl Copy {
    fn flat(to: Place, from: Place, bytes: usize) -> Self {
        Self { from: Side::flat(from), to: Side::flat(to), width: bytes as u64, height: 1, depth: 1 }
    }

    fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }

    /// Bytes from a side's place to the end of its last row.
    fn extent(&self, side: &Side) -> Option<u64> {
        let slices = (self.depth - 1).checked_mul(side.slice)?;
        let rows = (self.height - 1).checked_mul(side.pitch)?;
        side.start.checked_add(slices)?.checked_add(rows)?.checked_add(self.width)
    }

    /// Does it.
    pub fn execute(&self, memory: &Memory) -> Result<(), MemoryError> {
        for slice in 0..self.depth {
            for row in 0..self.height {
                self.execute_row(memory, self.from.at(row, slice), self.to.at(row, slice))?;
            }
        }
        Ok(())
    }

    fn execute_row(&self, memory: &Memory, from: u64, to: u64) -> Result<(), MemoryError> {
        if let (Place::Device(source), Place::Device(target)) = (&self.from.place, &self.to.place) {
            return memory.copy(target + to, source + from, self.width);
        }
        let mut buffer = vec![0; self.width.min(CHUNK) as usize];
        for at in (0..self.width).step_by(CHUNK as usize) {
            let part = &mut buffer[..(self.width - at).min(CHUNK) as usize];
            match &self.from.place {
                Place::Host(source) => source.read(from + at, part),
                Place::Device(source) => memory.read(source + from + at, part)?,
                Place::Staged(bytes) => part.copy_from_slice(&bytes[(from + at) as usize..][..part.len()]),
            }
            match &self.to.place {
                Place::Host(target) => target.write(to + at, part),
                Place::Device(target) => memory.write(target + to + at, part)?,
                Place::Staged(_) => unreachable!("nothing is copied into what was read at the call"),
            }
        }
        Ok(())
    }

    /// Reads the host's side now.
    fn stage(&mut self) {
        let Place::Host(source) = self.from.place else {
            return;
        };
        let mut bytes = vec![0; (self.width * self.height * self.depth) as usize];
        for (i, row) in bytes.chunks_exact_mut(self.width as usize).enumerate() {
            source.read(self.from.at(i as u64 % self.height, i as u64 / self.height), row);
        }
        let (pitch, slice) = (self.width, self.width * self.height);
        self.from = Side { place: Place::Staged(bytes.into()), start: 0, pitch, slice };
    }
}

impl Driver {
    fn check_side(&self, copy: &Copy, side: &Side) -> Result<()> {
        let Some(extent) = copy.extent(side) else {
            return Err(CUDA_ERROR_INVALID_VALUE.because("the copy is larger than any memory"));
        };
        match side.place {
            Place::Device(address) => self.check_range(address, extent),
            Place::Host(pointer) => {
                ensure!(!pointer.is_null(), CUDA_ERROR_INVALID_VALUE, "a null host pointer");
                let device = self.memory.find(pointer.address()).is_some();
                ensure!(!device, CUDA_ERROR_INVALID_VALUE, "{:#x} is device memory", pointer.address());
                Ok(())
            }
            Place::Staged(_) => Ok(()),
        }
    }

    /// Host memory that must not be touched once the call has returned.
    fn is_pageable(&self, copy: &Copy, side: &Side) -> bool {
        let extent = copy.extent(side).unwrap_or(u64::MAX);
        matches!(side.place, Place::Host(pointer) if !self.pinned.contains(pointer.address(), extent))
    }

    fn unified(&self, address: Unified) -> Place {
        match self.memory.find(address.address()) {
            Some(_) => Place::Device(address.address()),
            None => Place::Host(HostPointer::from_unified(address)),
        }
    }
}

/// Copies at the end of a stream; `wait` is what a synchronous entry does.
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
        driver = queue::finish(driver, id.as_slice());
        driver.healthy(context)?;
    }
    Ok(())
}

/// A flat copy on a stream argument.
fn flat(stream: (Handle, NullStream), wait: bool, to: Place, from: Place, bytes: usize) -> Result<()> {
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

fn place(driver: &Driver, kind: u32, host: HostPointer, device: Unified) -> Result<Place> {
    match kind {
        KIND_HOST => Ok(Place::Host(host)),
        KIND_DEVICE => Ok(Place::Device(device.address())),
        KIND_UNIFIED => Ok(driver.unified(device)),
        3 => Err(CUDA_ERROR_NOT_SUPPORTED.because("arrays are not emulated")),
        _ => Err(CUDA_ERROR_INVALID_VALUE.because(format!("memory type {kind} is unknown"))),
    }
}

/// An offset into a box, unless it is larger than any memory.
fn offset(x: usize, rows: Option<usize>, pitch: usize) -> Result<u64> {
    let start = rows.and_then(|rows| rows.checked_mul(pitch)).and_then(|bytes| bytes.checked_add(x));
    start.map(|start| start as u64).ok_or_else(|| CUDA_ERROR_INVALID_VALUE.because("an offset beyond any memory"))
}

fn side_2d(driver: &Driver, side: &Side2D, width: usize) -> Result<Side> {
    let pitch = if side.pitch == 0 { width } else { side.pitch };
    ensure!(pitch >= width, CUDA_ERROR_INVALID_VALUE, "rows of {width} bytes do not fit a pitch of {pitch}");
    let start = offset(side.x, Some(side.y), pitch)?;
    Ok(Side { place: place(driver, side.kind, side.host, side.device)?, start, pitch: pitch as u64, slice: 0 })
}

fn side_3d(driver: &Driver, side: &Side3D, width: usize, height: usize) -> Result<Side> {
    ensure!(side.level == 0, CUDA_ERROR_INVALID_VALUE, "levels of detail belong to arrays");
    let pitch = if side.pitch == 0 { width } else { side.pitch };
    let rows = if side.height == 0 { height } else { side.height };
    let fits = pitch >= width && rows >= height;
    ensure!(fits, CUDA_ERROR_INVALID_VALUE, "{height} rows of {width} bytes do not fit {rows} of {pitch}");
    let all_rows = side.z.checked_mul(rows).and_then(|z| z.checked_add(side.y));
    let start = offset(side.x, all_rows, pitch)?;
    let slice = offset(0, Some(rows), pitch)?;
    Ok(Side { place: place(driver, side.kind, side.host, side.device)?, start, pitch: pitch as u64, slice })
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
        flat((0, null), true, Place::Device(to), Place::Host(from), bytes)?;
    }

    fn cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds(null; to: HostPointer, from: DevicePointer, bytes: usize) {
        flat((0, null), true, Place::Host(to), Place::Device(from), bytes)?;
    }

    fn cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds(null; to: DevicePointer, from: DevicePointer, bytes: usize) {
        flat((0, null), true, Place::Device(to), Place::Device(from), bytes)?;
    }

    fn cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz(
        null; to: DevicePointer, from: HostPointer, bytes: usize, stream: Handle
    ) {
        flat((stream, null), false, Place::Device(to), Place::Host(from), bytes)?;
    }

    fn cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz(
        null; to: HostPointer, from: DevicePointer, bytes: usize, stream: Handle
    ) {
        flat((stream, null), false, Place::Host(to), Place::Device(from), bytes)?;
    }

    fn cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz(
        null; to: DevicePointer, from: DevicePointer, bytes: usize, stream: Handle
    ) {
        flat((stream, null), false, Place::Device(to), Place::Device(from), bytes)?;
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
