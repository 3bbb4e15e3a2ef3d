//! Why an instruction must not be executed.

use crate::observe::Check;

/// A fault of one lane, before it is known in which block and at which source line it occurred.
#[derive(Debug)]
pub struct Fault {
    pub lane: u32,
    pub check: Check,
    pub message: String,
}

impl Fault {
    pub fn new(check: Check, lane: u32, message: String) -> Self {
        Self { lane, check, message }
    }

    /// An invalid operand.
    pub fn operand(lane: u32, message: String) -> Self {
        Self::new(Check::Trap, lane, message)
    }

    /// A read of bytes that were never written; `location` says where they are.
    pub fn uninitialised(lane: u32, address: u64, size: usize, location: &str) -> Self {
        let message = format!("read of {size} bytes at {address:#x} that nothing wrote: {location}");
        Self::new(Check::Initialised, lane, message)
    }

    /// The tables of the race check are full.
    pub fn launch_too_long(mask: u32) -> Self {
        let message =
            "the launch is too long for the race check: too many accesses between barriers; make the launch smaller";
        Self::new(Check::Launch, mask.trailing_zeros(), message.into())
    }
}
