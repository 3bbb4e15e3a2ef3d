//! The C interface of Ironwarp's kernels.
//!
//! Every function takes a pointer to a struct of device pointers and sizes, and a stream. It enqueues its kernels in that
//! stream and returns without waiting for them, so that errors of the kernels are reported by a later call. What is wrong
//! with the arguments is reported at once: the function then returns [`Status::InvalidArgument`], enqueues nothing, and
//! [`ironwarp_last_error`] names the argument, the rule and the numbers.
//!
//! - **Context.** A stream belongs to a context, which becomes current during the call. The NULL stream is that of the
//!   calling thread's current context; without one the call fails. The per-thread default stream is refused.
//! - **Pointers** are device pointers of the stream's context. Each must be followed by as much memory as its shape says
//!   within one allocation. Tensors are row-major and contiguous where nothing else is said; bf16 tensors begin at a multiple
//!   of 16 bytes.
//! - **Workspace.** Operations that need one have a function `*_workspace_size`, which reads the sizes of the struct only. The
//!   memory begins at a multiple of 256 bytes and may be reused as soon as the call returns, by work in the same stream.
//! - **Capture.** The functions allocate nothing in the stream, so that a stream can be captured into a CUDA graph. A
//!   function that is called once before the capture has loaded its kernels.
//! - **Threads.** Any thread may call any function. Calls on one stream are serialised.
//! - **Determinism.** The same arguments on the same kind of GPU give the same bits.

mod adamw;
mod arguments;
mod attention;
mod call;
mod cross_entropy;
mod device;
mod embedding;
mod layernorm;
mod matmul;

pub use adamw::*;
pub use attention::*;
pub use call::*;
pub use cross_entropy::*;
pub use embedding::*;
pub use layernorm::*;
pub use matmul::*;
