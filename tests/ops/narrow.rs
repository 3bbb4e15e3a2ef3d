//! Host memory with the element types and the alignment rule of a GPU, for checks and floors. It runs no operations.

use half::bf16;
use ironwarp::cpu::HostStorage;

/// bf16 and f32, in vectors of 8 elements.
pub struct Narrow;

impl HostStorage for Narrow {
    type Compute = bf16;
    type Accum = f32;
    const VECTOR: usize = 8;
}
