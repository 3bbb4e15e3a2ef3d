//! Link settings of the driver library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A program that asks for libcuda.so finds this library when it is loaded already.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    // Addresses handed out by cuGetProcAddress are this library's, whatever else is loaded.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
}
