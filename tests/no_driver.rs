//! Error messages without a CUDA driver. They are tested in their own process, because a loaded driver stays loaded.

use std::path::Path;

use cudarc::driver::sys;
use ironwarp::cuda::runtime::driver;

#[test]
fn no_driver_is_one_line() {
    let missing = driver::emulate(Path::new("no/such/libcuda_emulator.so")).unwrap_err().to_string();
    assert!(missing.starts_with("no emulated CUDA driver at no/such/libcuda_emulator.so ("), "{missing}");
    assert!(missing.ends_with("; `make emulator` builds it") && !missing.contains('\n'), "{missing}");

    // SAFETY: loads the driver's library if it is installed, as `require` does.
    #[allow(unsafe_code)]
    let present = unsafe { sys::is_culib_present() };
    match driver::require() {
        Ok(_) => assert!(present, "no driver was found, and no error returned"),
        Err(error) => {
            let text = error.to_string();
            assert!(present || text.starts_with("no CUDA driver: libcuda.so was not found;"), "{text}");
            assert!(text.ends_with("the CPU backend works without a GPU") && !text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn another_library_is_no_emulator() {
    // libc serves as the other library, because every Linux program has loaded it.
    let error = driver::emulate(Path::new("libc.so.6")).unwrap_err().to_string();
    assert!(error.contains("this library is not the emulator"), "{error}");
}
