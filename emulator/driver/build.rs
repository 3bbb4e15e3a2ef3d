//! Link settings of the driver library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A program that opens libcuda.so finds this library if it is already loaded.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    // cuGetProcAddress returns this library's functions even if another library exports the same names.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
}
