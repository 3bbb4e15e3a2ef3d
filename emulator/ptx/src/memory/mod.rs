//! Device memory: allocations at synthetic 64-bit addresses with wide gaps between them. Pages are allocated when they are
//! first written.

pub(crate) mod page;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use page::{PAGE_BYTES, Page};

/// Address of the first allocation: past 4 GiB, so that an address truncated to 32 bits is never valid.
const FIRST_ADDRESS: u64 = 0x20_0000_0000;
/// Alignment of every allocation, in bytes.
const ALIGNMENT: u64 = 512;
/// Unmapped bytes after every allocation, so that an index out of range hits unmapped memory. No address is reused.
const GAP: u64 = 16 << 20;
/// Freed allocations that are remembered, to distinguish a use after free from an invalid pointer.
const MAX_FREED: usize = 4096;

/// The memory of one device.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    heap: RwLock<Heap>,
}

#[derive(Debug)]
struct Heap {
    next_address: u64,
    next_number: u64,
    used: u64,
    live: BTreeMap<u64, Arc<Allocation>>,
    freed: BTreeMap<u64, Extent>,
}

#[derive(Debug, Clone)]
struct Extent {
    size: u64,
    label: String,
}

/// One allocation.
#[derive(Debug)]
pub struct Allocation {
    /// First address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// The name in findings: `allocation 12`, or that of a module's variable.
    pub label: String,
    /// Whether stores from kernels are refused (`.const` variables).
    pub read_only: bool,
    /// Whether unwritten bytes are zero (variables) instead of uninitialised.
    zeroed: bool,
    /// Whether a launch has accessed the allocation since the last [`Allocation::take_touched`].
    touched: AtomicBool,
    pages: Box<[Mutex<Option<Box<Page>>>]>,
}

/// Why memory cannot be allocated, freed, read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The device does not have enough free memory.
    #[error("out of memory: {requested} bytes requested, {free} of {limit} bytes free")]
    OutOfMemory { requested: u64, free: u64, limit: u64 },
    /// No live allocation holds the whole range.
    #[error("{size} bytes at {address:#x}: {location}")]
    OutOfBounds { address: u64, size: u64, location: String },
    /// The address is not the start of a live allocation.
    #[error("{address:#x} is not the start of an allocation: {location}")]
    NotAllocated { address: u64, location: String },
}

impl Memory {
    /// Memory of `limit` bytes. Only written pages occupy memory of the host.
    pub fn new(limit: u64) -> Self {
        let heap = Heap {
            next_address: FIRST_ADDRESS,
            next_number: 1,
            used: 0,
            live: BTreeMap::new(),
            freed: BTreeMap::new(),
        };
        Self { limit, heap: RwLock::new(heap) }
    }

    /// Total size in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes allocated.
    pub fn used(&self) -> u64 {
        self.heap().used
    }

    /// Number of live allocations.
    pub fn allocations(&self) -> usize {
        self.heap().live.len()
    }

    /// Allocates `size` bytes, uninitialised, aligned to 512.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn allocate(&self, size: u64) -> Result<u64, MemoryError> {
        self.allocate_as(size, None, false).map(|allocation| allocation.base)
    }

    /// [`Memory::allocate`] with a label for findings; without a label the allocation is numbered.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn allocate_as(
        &self,
        size: u64,
        label: Option<String>,
        read_only: bool,
    ) -> Result<Arc<Allocation>, MemoryError> {
        self.add(size, label, read_only, false)
    }

    /// Memory for a variable, which is zero-initialised.
    pub(crate) fn allocate_variable(
        &self,
        size: u64,
        label: String,
        read_only: bool,
    ) -> Result<Arc<Allocation>, MemoryError> {
        self.add(size, Some(label), read_only, true)
    }

    fn add(
        &self,
        size: u64,
        label: Option<String>,
        read_only: bool,
        zeroed: bool,
    ) -> Result<Arc<Allocation>, MemoryError> {
        let mut heap = self.heap.write().unwrap_or_else(PoisonError::into_inner);
        let free = self.limit - heap.used;
        if size > free {
            return Err(MemoryError::OutOfMemory { requested: size, free, limit: self.limit });
        }
        let label = label.unwrap_or_else(|| format!("allocation {}", heap.next_number));
        let pages = (0..size.div_ceil(PAGE_BYTES as u64)).map(|_| Mutex::new(None)).collect();
        let base = heap.next_address;
        let touched = AtomicBool::new(false);
        let allocation = Arc::new(Allocation { base, size, label, read_only, zeroed, touched, pages });
        heap.next_number += 1;
        heap.used += size;
        heap.next_address = (base + size + GAP).next_multiple_of(ALIGNMENT);
        heap.live.insert(base, allocation.clone());
        Ok(allocation)
    }

    /// Frees the allocation that starts at `address`.
    ///
    /// # Errors
    /// [`MemoryError::NotAllocated`], also for a second free.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut heap = self.heap.write().unwrap_or_else(PoisonError::into_inner);
        let Some(allocation) = heap.live.remove(&address) else {
            return Err(MemoryError::NotAllocated { address, location: heap.describe(address) });
        };
        heap.used -= allocation.size;
        heap.freed.insert(address, Extent { size: allocation.size, label: allocation.label.clone() });
        if heap.freed.len() > MAX_FREED {
            heap.freed.pop_first();
        }
        Ok(())
    }

    /// The live allocation that holds `address`.
    pub fn find(&self, address: u64) -> Option<Arc<Allocation>> {
        self.heap().find(address).cloned()
    }

    /// All live allocations in the order of their addresses: the memory that a launch may access.
    pub fn snapshot(&self) -> Vec<Arc<Allocation>> {
        self.heap().live.values().cloned().collect()
    }

    /// Describes an address in words: `4 bytes past the end of allocation 3 (1024 bytes at 0x…)`.
    pub fn describe(&self, address: u64) -> String {
        self.heap().describe(address)
    }

    /// [`Memory::describe`] for a range: also says by how many bytes it exceeds the allocation.
    pub fn describe_range(&self, address: u64, size: u64) -> String {
        self.heap().describe_range(address, size)
    }

    /// Copies bytes out; uninitialised bytes read as 0xCB.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; nothing is copied then.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let allocation = self.range(address, out.len() as u64)?;
        allocation.for_pages(address, out.len() as u64, |page, offset, at, size| match page {
            Some(page) => out[at..at + size].copy_from_slice(page.bytes(offset, size)),
            None => out[at..at + size].fill(if allocation.zeroed { 0 } else { page::POISON }),
        });
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; nothing is copied then.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let allocation = self.range(address, bytes.len() as u64)?;
        allocation.for_pages(address, bytes.len() as u64, |page, offset, at, size| {
            page.get_or_insert_with(|| allocation.blank_page()).write(offset, &bytes[at..at + size]);
        });
        Ok(())
    }

    /// Writes a pattern of 1, 2 or 4 bytes `count` times.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; nothing is written then.
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), MemoryError> {
        let size = count.saturating_mul(pattern.len() as u64);
        let allocation = self.range(address, size)?;
        let block: Vec<u8> = pattern.iter().copied().cycle().take(PAGE_BYTES + pattern.len()).collect();
        allocation.for_pages(address, size, |page, offset, at, size| {
            let phase = at % pattern.len();
            page.get_or_insert_with(|| allocation.blank_page()).write(offset, &block[phase..phase + size]);
        });
        Ok(())
    }

    /// Copies within the device, as if through a buffer. Copies of uninitialised bytes are uninitialised.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; nothing is copied then.
    pub fn copy(&self, to: u64, from: u64, size: u64) -> Result<(), MemoryError> {
        let (source, target) = (self.range(from, size)?, self.range(to, size)?);
        let mut bytes = vec![0; size as usize];
        let mut initialised = vec![source.zeroed; size as usize];
        source.for_pages(from, size, |page, offset, at, size| {
            if let Some(page) = page {
                bytes[at..at + size].copy_from_slice(page.bytes(offset, size));
                for i in 0..size {
                    initialised[at + i] = page.initialised(offset + i, 1);
                }
            }
        });
        target.for_pages(to, size, |page, offset, at, size| {
            let any = initialised[at..at + size].iter().any(|&i| i);
            if page.is_some() || any {
                let page = page.get_or_insert_with(|| target.blank_page());
                page.write(offset, &bytes[at..at + size]);
                for i in 0..size {
                    if !initialised[at + i] {
                        page.forget(offset + i, 1);
                    }
                }
            }
        });
        Ok(())
    }

    fn range(&self, address: u64, size: u64) -> Result<Arc<Allocation>, MemoryError> {
        let heap = self.heap();
        match heap.find(address).or_else(|| if size == 0 { heap.live.values().next() } else { None }) {
            Some(allocation) if size == 0 || allocation.base + allocation.size - address >= size => {
                Ok(allocation.clone())
            }
            _ => Err(MemoryError::OutOfBounds { address, size, location: heap.describe_range(address, size) }),
        }
    }

    fn heap(&self) -> std::sync::RwLockReadGuard<'_, Heap> {
        self.heap.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heap {
    fn find(&self, address: u64) -> Option<&Arc<Allocation>> {
        let (_, allocation) = self.live.range(..=address).next_back()?;
        (address - allocation.base < allocation.size).then_some(allocation)
    }

    fn describe(&self, address: u64) -> String {
        self.describe_range(address, 1)
    }

    fn describe_range(&self, address: u64, size: u64) -> String {
        let named = |base: u64, extent: u64, label: &str| format!("{label} ({extent} bytes at {base:#x})");
        let live = self.live.range(..=address).next_back().map(|(&base, a)| (base, a.size, a.label.as_str(), false));
        let freed = self.freed.range(..=address).next_back().map(|(&base, e)| (base, e.size, e.label.as_str(), true));
        let below = live.into_iter().chain(freed).max_by_key(|&(base, ..)| base);
        let above = self.live.range(address..).next().filter(|(base, _)| **base - address <= GAP);
        match (below, above) {
            (Some((base, extent, label, true)), _) if address - base < extent => {
                format!("inside {}, which was freed", named(base, extent, label))
            }
            (Some((base, extent, label, false)), _) if address - base < extent => {
                let past = size.saturating_sub(extent - (address - base));
                let inside = format!("at byte {} of {}", address - base, named(base, extent, label));
                if past == 0 { inside } else { format!("{inside}, {past} bytes too many") }
            }
            (Some((base, extent, label, _)), _) if address - base - extent <= GAP => match address - base - extent {
                0 => format!("just past the end of {}", named(base, extent, label)),
                past => format!("{past} bytes past the end of {}", named(base, extent, label)),
            },
            (_, Some((&base, a))) => format!("{} bytes before {}", base - address, named(base, a.size, &a.label)),
            _ if address < 4096 => "a null pointer".to_owned(),
            _ => "no allocation is near".to_owned(),
        }
    }
}

impl Allocation {
    /// Whether the allocation holds a whole range.
    #[inline]
    pub fn holds(&self, address: u64, size: usize) -> bool {
        let offset = address.wrapping_sub(self.base);
        offset < self.size && self.size - offset >= size as u64
    }

    /// A new page: zero for a variable, otherwise uninitialised.
    pub(crate) fn blank_page(&self) -> Box<Page> {
        if self.zeroed { Page::zeroed() } else { Page::boxed() }
    }

    /// The page of an index, locked; `None` inside if it was never written.
    #[inline]
    pub(crate) fn page(&self, index: usize) -> MutexGuard<'_, Option<Box<Page>>> {
        self.pages[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the current launch has accessed the allocation.
    #[inline]
    pub fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a launch has accessed the allocation since the last call.
    pub fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }

    /// Visits every page that exists, one at a time under its lock.
    pub(crate) fn each_page(&self, mut visit: impl FnMut(&mut Page)) {
        for page in &self.pages {
            if let Some(page) = page.lock().unwrap_or_else(PoisonError::into_inner).as_deref_mut() {
                visit(page);
            }
        }
    }

    /// Calls `visit(page, offset in page, offset in range, bytes)` for each page of a range that was checked.
    fn for_pages(&self, address: u64, size: u64, mut visit: impl FnMut(&mut Option<Box<Page>>, usize, usize, usize)) {
        let start = address.wrapping_sub(self.base);
        let mut done = 0;
        while done < size {
            let at = start + done;
            let offset = (at % PAGE_BYTES as u64) as usize;
            let take = (PAGE_BYTES - offset).min((size - done) as usize);
            visit(&mut self.page((at / PAGE_BYTES as u64) as usize), offset, done as usize, take);
            done += take as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_over_page_edges() {
        let memory = Memory::new(1 << 20);
        let address = memory.allocate(3 * PAGE_BYTES as u64).unwrap();
        let bytes: Vec<u8> = (0..PAGE_BYTES + 100).map(|i| (i * 7) as u8).collect();
        memory.write(address + 4000, &bytes).unwrap();
        memory.copy(address, address + 4000, 4200).unwrap();
        let mut out = vec![0; 4096];
        memory.read(address, &mut out).unwrap();
        assert_eq!(out, bytes[..4096]);
        memory.fill(address + 1, &[1, 2, 3, 4], 1025).unwrap();
        memory.read(address + 4093, &mut out[..8]).unwrap();
        assert_eq!(out[..8], [1, 2, 3, 4, 1, 2, 3, 4]);
    }

    #[test]
    fn copies_keep_what_is_uninitialised() {
        let memory = Memory::new(1 << 20);
        let (a, b) = (memory.allocate(64).unwrap(), memory.allocate(64).unwrap());
        memory.write(a + 8, &[5; 8]).unwrap();
        memory.fill(b, &[0], 64).unwrap();
        memory.copy(b, a, 32).unwrap();
        let target = memory.find(b).unwrap();
        let page = target.page(0);
        let page = page.as_ref().unwrap();
        assert!(!page.initialised(0, 8) && page.initialised(8, 8) && !page.initialised(16, 16));
        assert!(page.initialised(32, 32));
    }

    #[test]
    fn errors_name_the_location() {
        let memory = Memory::new(4096);
        let a = memory.allocate(1000).unwrap();
        let error = memory.allocate(5000).unwrap_err();
        assert_eq!(error.to_string(), "out of memory: 5000 bytes requested, 3096 of 4096 bytes free");
        let past = memory.write(a + 996, &[0; 8]).unwrap_err();
        assert!(
            past.to_string().ends_with("at byte 996 of allocation 1 (1000 bytes at 0x2000000000), 4 bytes too many")
        );
        assert!(memory.describe(a + 1004).starts_with("4 bytes past the end of allocation 1"));
        assert!(memory.describe(a - 4).starts_with("4 bytes before allocation 1"));
        assert_eq!(memory.describe(16), "a null pointer");
        memory.free(a).unwrap();
        assert!(memory.describe(a + 4).ends_with("which was freed"));
        assert!(matches!(memory.free(a), Err(MemoryError::NotAllocated { .. })));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_sparse_buffer_takes_only_what_is_written() {
        let memory = Memory::new(1 << 40);
        let address = memory.allocate(6 << 30).unwrap();
        memory.write(address + (5 << 30), &[9; 4]).unwrap();
        let mut out = [0; 4];
        memory.read(address + (5 << 30), &mut out).unwrap();
        assert_eq!(out, [9; 4]);
    }
}
