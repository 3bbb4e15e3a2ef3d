//! The copy operation, between any two of host and device memory.

use std::sync::Arc;

use ptx_emulator::memory::{Memory, MemoryError};

use crate::boundary::{DevicePointer, HostPointer};

/// Bytes that are copied through a buffer at a time.
pub const CHUNK: u64 = 1 << 16;

/// A copy of a box: `depth` slices of `height` rows of `width` bytes.
#[derive(Debug, Clone)]
pub struct Copy {
    pub from: Side,
    pub to: Side,
    pub width: u64,
    pub height: u64,
    pub depth: u64,
}

/// The source or the target of a copy.
#[derive(Debug, Clone)]
pub struct Side {
    pub location: Location,
    /// Offset of the first row, in bytes.
    pub start: u64,
    /// Bytes from row to row.
    pub pitch: u64,
    /// Bytes from slice to slice.
    pub slice: u64,
}

/// The memory of a side.
#[derive(Debug, Clone)]
pub enum Location {
    Host(HostPointer),
    Device(DevicePointer),
    /// The contents of host memory at the time of the call, with contiguous rows.
    Staged(Arc<[u8]>),
}

impl Side {
    pub fn flat(location: Location) -> Self {
        Self { location, start: 0, pitch: 0, slice: 0 }
    }

    pub fn at(&self, row: u64, slice: u64) -> u64 {
        self.start + slice * self.slice + row * self.pitch
    }

    pub fn is_device(&self) -> bool {
        matches!(self.location, Location::Device(_))
    }
}

impl Copy {
    pub fn flat(to: Location, from: Location, bytes: usize) -> Self {
        Self { from: Side::flat(from), to: Side::flat(to), width: bytes as u64, height: 1, depth: 1 }
    }

    pub fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }

    /// Bytes from the start of a side's memory to the end of its last row.
    pub fn extent(&self, side: &Side) -> Option<u64> {
        let slices = (self.depth - 1).checked_mul(side.slice)?;
        let rows = (self.height - 1).checked_mul(side.pitch)?;
        side.start.checked_add(slices)?.checked_add(rows)?.checked_add(self.width)
    }

    /// Executes the copy.
    ///
    /// # Errors
    /// Device memory was freed after the copy was submitted.
    pub fn execute(&self, memory: &Memory) -> Result<(), MemoryError> {
        for slice in 0..self.depth {
            for row in 0..self.height {
                self.execute_row(memory, self.from.at(row, slice), self.to.at(row, slice))?;
            }
        }
        Ok(())
    }

    pub fn execute_row(&self, memory: &Memory, from: u64, to: u64) -> Result<(), MemoryError> {
        if let (Location::Device(source), Location::Device(target)) = (&self.from.location, &self.to.location) {
            return memory.copy(target + to, source + from, self.width);
        }
        let mut buffer = vec![0; self.width.min(CHUNK) as usize];
        for at in (0..self.width).step_by(CHUNK as usize) {
            let part = &mut buffer[..(self.width - at).min(CHUNK) as usize];
            match &self.from.location {
                Location::Host(source) => source.read(from + at, part),
                Location::Device(source) => memory.read(source + from + at, part)?,
                Location::Staged(bytes) => part.copy_from_slice(&bytes[(from + at) as usize..][..part.len()]),
            }
            match &self.to.location {
                Location::Host(target) => target.write(to + at, part),
                Location::Device(target) => memory.write(target + to + at, part)?,
                Location::Staged(_) => unreachable!("staged memory is never the target of a copy"),
            }
        }
        Ok(())
    }

    /// Reads the host memory of the source now.
    pub fn stage(&mut self) {
        let Location::Host(source) = self.from.location else {
            return;
        };
        let mut bytes = vec![0; (self.width * self.height * self.depth) as usize];
        for (i, row) in bytes.chunks_exact_mut(self.width as usize).enumerate() {
            source.read(self.from.at(i as u64 % self.height, i as u64 / self.height), row);
        }
        let (pitch, slice) = (self.width, self.width * self.height);
        self.from = Side { location: Location::Staged(bytes.into()), start: 0, pitch, slice };
    }
}
