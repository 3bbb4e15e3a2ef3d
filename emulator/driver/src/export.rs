//! What every exported function does before and after its own logic: injected faults, the refusal of calls from host
//! functions, panics, and the reasons of errors.

use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cudarc::driver::sys::CUresult::{CUDA_ERROR_NOT_PERMITTED, CUDA_ERROR_UNKNOWN, CUDA_SUCCESS};

use crate::error::{Because, Error, Result};
use crate::fault;
use crate::report;

/// An exported function with its address.
#[derive(Debug, Clone, Copy)]
pub struct Export {
    pub name: &'static str,
    pub address: Address,
}

/// The address of a function, which is returned to programs and never called from here.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Address(pub *const c_void);

#[allow(unsafe_code)]
// SAFETY: an address of code is the same in every thread.
unsafe impl Sync for Address {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Send for Address {}

impl Address {
    pub const NULL: Address = Address(std::ptr::null());
}

/// Exports functions of the driver API, and lists them in the module's `EXPORTS`.
///
/// - `fn cuName(argument: Type, …) { … }`: the body may use `?`; its end returns success.
/// - `fn cuName = cuOther(…)`: two names of one function.
/// - `fn cuName / cuName_ptsz(null; …)`: the second is the per-thread variant; `null` tells which of the two is called.
macro_rules! exports {
    ($(fn $name:ident $(= $also:ident)? $(/ $per_thread:ident)? ($($arguments:tt)*) $body:block)*) => {
        pub(crate) const EXPORTS: &[$crate::export::Export] = &[$(
            $crate::export::exports!(@entry $name),
            $($crate::export::exports!(@entry $also),)?
            $($crate::export::exports!(@entry $per_thread),)?
        )*];
        $($crate::export::exports!(@shell [$name $($also)?] [$($per_thread)?] ($($arguments)*) $body);)*
    };
    (@entry $name:ident) => {
        $crate::export::Export {
            name: stringify!($name),
            address: $crate::export::Address($name as *const std::ffi::c_void),
        }
    };
    (@shell [$($name:ident)+] [] $arguments:tt $body:block) => {
        $($crate::export::exports!(@function $name [] $arguments $body);)+
    };
    (@shell [$name:ident] [$per_thread:ident] ($null:ident; $($arguments:tt)*) $body:block) => {
        $crate::export::exports!(@function $name [
            let $null = $crate::boundary::NullStream::Legacy;
        ] ($($arguments)*) $body);
        $crate::export::exports!(@function $per_thread [
            let $null = $crate::boundary::NullStream::PerThread;
        ] ($($arguments)*) $body);
    };
    (@function $name:ident [$($before:tt)*] ($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        #[allow(unsafe_code, non_snake_case, clippy::too_many_arguments)]
        // SAFETY: the name is one of the driver API, which this library implements.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> u32 {
            $crate::export::call(stringify!($name), || {
                $($before)*
                $body
                Ok(())
            })
        }
    };
}
pub(crate) use exports;

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Runs a host function, during which the thread may not call the driver.
pub fn callback(call: impl FnOnce()) {
    let before = IN_CALLBACK.replace(true);
    call();
    IN_CALLBACK.set(before);
}

/// Executes one call and returns its result code.
pub fn call(name: &'static str, body: impl FnOnce() -> Result<()>) -> u32 {
    if let Some(code) = fault::before(name) {
        report::set_last_error(format!("{name}: injected fault"));
        return code;
    }
    let guarded = || match IN_CALLBACK.get() {
        true => Err(CUDA_ERROR_NOT_PERMITTED.because("a host function may not call the driver")),
        false => body(),
    };
    let answer = catch_unwind(AssertUnwindSafe(guarded)).unwrap_or_else(|panic| Err(panicked(name, &*panic)));
    match answer {
        Ok(()) => CUDA_SUCCESS as u32,
        Err(Error { code, text }) => {
            report::set_last_error(format!("{name}: {text}"));
            code
        }
    }
}

/// A panic is a bug of this library; it must not unwind into C.
fn panicked(name: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    report::print(&format!("{name} failed inside the emulator: {}", message.unwrap_or("no message")));
    CUDA_ERROR_UNKNOWN.because(message.unwrap_or("a panic without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cudarc::driver::sys::CUresult::CUDA_ERROR_INVALID_VALUE;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(call("cuInit", || panic!("planted")), CUDA_ERROR_UNKNOWN as u32);
        assert_eq!(report::last_error(), "cuInit: planted");
        assert_eq!(call("cuInit", || Err(CUDA_ERROR_INVALID_VALUE.because("why"))), CUDA_ERROR_INVALID_VALUE as u32);
        assert_eq!(report::last_error(), "cuInit: why");
        assert_eq!(call("cuInit", || Ok(())), 0);
    }

    #[test]
    fn callbacks_may_not_call_the_driver() {
        let mut inside = 0;
        callback(|| inside = call("cuInit", || Ok(())));
        assert_eq!(inside, CUDA_ERROR_NOT_PERMITTED as u32);
        assert_eq!(call("cuInit", || Ok(())), 0);
    }
}
