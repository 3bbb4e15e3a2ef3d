//! Memory pools.

/// A memory pool. It keeps no freed memory, so that accesses to freed memory are detected.
#[derive(Debug)]
pub struct Pool {
    /// The three attributes for reusing memory, which have no effect.
    pub reuse: [u32; 3],
    pub threshold: u64,
    pub highest: u64,
}

impl Default for Pool {
    fn default() -> Self {
        Self { reuse: [1; 3], threshold: 0, highest: 0 }
    }
}
