//! Peers on the emulated GPU.

use ironwarp::Error;
use ironwarp::bench::cublaslt::CublasLt;

use crate::emulator::shared;

#[test]
fn cublaslt_is_refused_with_the_reason() {
    match CublasLt::new(&shared()) {
        Ok(_) => panic!("it was taken for a GPU"),
        Err(Error::Unavailable(why)) => {
            assert!(why.starts_with("no cuBLASLt: Emulated") && why.ends_with("does not run its kernels"), "{why}");
        }
        Err(error) => panic!("{error:?}"),
    }
}
