//! The executable form of a kernel: registers are allocated, branch targets and the addresses of variables resolved.

mod instr;
mod operands;
mod program;
mod types;

pub use instr::{Call, Guard, Instr, Mma, Op, Track};
pub use operands::Role;
pub use program::{Mix, Program, Source};
pub use types::{Address, AtomicOp, AtomicType, BarrierKind, ClockPart, Elements, MmaInput, Order, ReduxOp, Relation};
pub use types::{Scope, ShuffleMode, Space, Special, Target, VoteMode, Window};
