//! A GPU's current clock frequencies from NVML, which is installed with every driver.

// NVML's functions are loaded by name; each unsafe block says why it is sound.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use libloading::Library;
use serde_json::{Value, json};

/// `nvmlClockType_t`.
const SM: c_uint = 1;
const MEMORY: c_uint = 2;

/// `{"sm_mhz": 1980, "memory_mhz": 3201}` of the GPU at a PCI address, or a text that says why they are unknown.
pub fn now(pci_bus_id: Option<&str>) -> Value {
    let unknown = || "the driver does not report the GPU's PCI address".to_owned();
    let clocks = pci_bus_id.ok_or_else(unknown).and_then(query);
    clocks.map_or_else(Value::String, |[sm, memory]| json!({"sm_mhz": sm, "memory_mhz": memory}))
}

fn query(pci_bus_id: &str) -> Result<[c_uint; 2], String> {
    let unknown = |why: &dyn std::fmt::Display| format!("unknown: {why}");
    // SAFETY: loads NVML, whose initialisers have no effect on this program.
    let library = unsafe { Library::new("libnvidia-ml.so.1") }.map_err(|_| unknown(&"no libnvidia-ml.so.1"))?;
    let checked = |what: &str, code: c_int| match code {
        0 => Ok(()),
        code => Err(unknown(&format_args!("{what} returned {code}"))),
    };
    let missing = |error: libloading::Error| unknown(&error);
    let id = CString::new(pci_bus_id).map_err(|error| unknown(&error))?;
    // SAFETY: the signatures are those of nvml.h. The device handle is used between nvmlInit and nvmlShutdown; each
    // result is one unsigned int.
    unsafe {
        let init = library.get::<unsafe extern "C" fn() -> c_int>(b"nvmlInit_v2").map_err(missing)?;
        let find = library
            .get::<unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int>(b"nvmlDeviceGetHandleByPciBusId_v2")
            .map_err(missing)?;
        let clock = library
            .get::<unsafe extern "C" fn(*mut c_void, c_uint, *mut c_uint) -> c_int>(b"nvmlDeviceGetClockInfo")
            .map_err(missing)?;
        let shutdown = library.get::<unsafe extern "C" fn() -> c_int>(b"nvmlShutdown").map_err(missing)?;
        checked("nvmlInit_v2", init())?;
        let mut device = std::ptr::null_mut();
        let mut clocks = [0; 2];
        let queried = checked("nvmlDeviceGetHandleByPciBusId_v2", find(id.as_ptr(), &mut device)).and_then(|()| {
            let [sm, memory] = &mut clocks;
            checked("nvmlDeviceGetClockInfo", clock(device, SM, sm))?;
            checked("nvmlDeviceGetClockInfo", clock(device, MEMORY, memory))
        });
        shutdown();
        queried.map(|()| clocks)
    }
}
