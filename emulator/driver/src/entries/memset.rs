//! Memory fills. As on hardware, the functions without `Async` also return before the fill is executed.

use cudarc::driver::sys::CUresult::CUDA_ERROR_INVALID_VALUE;

use super::stream::enqueue;
use crate::boundary::{DevicePointer, Handle, NullStream};
use crate::driver;
use crate::error::{Result, ensure};
use crate::export::exports;
use crate::work::{Fill, Work};

/// Rows to fill.
struct Area {
    address: DevicePointer,
    pitch: usize,
    width: usize,
    height: usize,
}

impl Area {
    fn flat(address: DevicePointer, width: usize) -> Self {
        Self { address, pitch: 0, width, height: 1 }
    }

    fn fill(self, pattern: &[u8], stream: Handle, null: NullStream, synchronous: bool) -> Result<()> {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        if synchronous {
            driver.refuse_unsafe()?;
        }
        let Area { address, pitch, width, height } = self;
        if width == 0 || height == 0 {
            return Ok(());
        }
        let unit = pattern.len();
        let aligned = address.is_multiple_of(unit as u64) && pitch.is_multiple_of(unit);
        ensure!(
            aligned,
            CUDA_ERROR_INVALID_VALUE,
            "the address {address:#x} or the pitch {pitch} is not a multiple of {unit}"
        );
        let row = width.checked_mul(unit);
        let wide = height > 1 && row.is_some_and(|row| row > pitch);
        ensure!(!wide, CUDA_ERROR_INVALID_VALUE, "rows of {width} values do not fit a pitch of {pitch} bytes");
        let extent = row.and_then(|row| (height - 1).checked_mul(pitch)?.checked_add(row)).unwrap_or(usize::MAX);
        driver.check_range(address, extent as u64)?;
        let fill = Fill {
            address,
            pitch: pitch as u64,
            pattern: pattern.to_vec(),
            width: width as u64,
            height: height as u64,
        };
        enqueue(driver, stream, Work::Fill(fill)).map(drop)
    }
}

exports! {
    fn cuMemsetD8_v2 / cuMemsetD8_v2_ptds(null; address: DevicePointer, value: u8, count: usize) {
        Area::flat(address, count).fill(&[value], 0, null, true)?;
    }

    fn cuMemsetD16_v2 / cuMemsetD16_v2_ptds(null; address: DevicePointer, value: u16, count: usize) {
        Area::flat(address, count).fill(&value.to_le_bytes(), 0, null, true)?;
    }

    fn cuMemsetD32_v2 / cuMemsetD32_v2_ptds(null; address: DevicePointer, value: u32, count: usize) {
        Area::flat(address, count).fill(&value.to_le_bytes(), 0, null, true)?;
    }

    fn cuMemsetD8Async / cuMemsetD8Async_ptsz(
        null; address: DevicePointer, value: u8, count: usize, stream: Handle
    ) {
        Area::flat(address, count).fill(&[value], stream, null, false)?;
    }

    fn cuMemsetD16Async / cuMemsetD16Async_ptsz(
        null; address: DevicePointer, value: u16, count: usize, stream: Handle
    ) {
        Area::flat(address, count).fill(&value.to_le_bytes(), stream, null, false)?;
    }

    fn cuMemsetD32Async / cuMemsetD32Async_ptsz(
        null; address: DevicePointer, value: u32, count: usize, stream: Handle
    ) {
        Area::flat(address, count).fill(&value.to_le_bytes(), stream, null, false)?;
    }

    fn cuMemsetD2D8_v2 / cuMemsetD2D8_v2_ptds(
        null; address: DevicePointer, pitch: usize, value: u8, width: usize, height: usize
    ) {
        Area { address, pitch, width, height }.fill(&[value], 0, null, true)?;
    }

    fn cuMemsetD2D16_v2 / cuMemsetD2D16_v2_ptds(
        null; address: DevicePointer, pitch: usize, value: u16, width: usize, height: usize
    ) {
        Area { address, pitch, width, height }.fill(&value.to_le_bytes(), 0, null, true)?;
    }

    fn cuMemsetD2D32_v2 / cuMemsetD2D32_v2_ptds(
        null; address: DevicePointer, pitch: usize, value: u32, width: usize, height: usize
    ) {
        Area { address, pitch, width, height }.fill(&value.to_le_bytes(), 0, null, true)?;
    }

    fn cuMemsetD2D8Async / cuMemsetD2D8Async_ptsz(
        null; address: DevicePointer, pitch: usize, value: u8, width: usize, height: usize, stream: Handle
    ) {
        Area { address, pitch, width, height }.fill(&[value], stream, null, false)?;
    }

    fn cuMemsetD2D16Async / cuMemsetD2D16Async_ptsz(
        null; address: DevicePointer, pitch: usize, value: u16, width: usize, height: usize, stream: Handle
    ) {
        Area { address, pitch, width, height }.fill(&value.to_le_bytes(), stream, null, false)?;
    }

    fn cuMemsetD2D32Async / cuMemsetD2D32Async_ptsz(
        null; address: DevicePointer, pitch: usize, value: u32, width: usize, height: usize, stream: Handle
    ) {
        Area { address, pitch, width, height }.fill(&value.to_le_bytes(), stream, null, false)?;
    }
}
