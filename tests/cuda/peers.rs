//! cuBLASLt computes the products on a real GPU, and is unavailable on the emulated one.

use std::time::Duration;

use ironwarp::Error;
use ironwarp::bench::cases::select;
use ironwarp::bench::cublaslt::CublasLt;
use ironwarp::bench::peers::Peer;

use crate::emulator::shared;
use crate::environment::{real_gpu, skip};

#[test]
fn the_emulated_gpu_has_no_cublaslt() {
    if real_gpu().is_some() {
        return skip("the emulated GPU");
    }
    match CublasLt::new(&shared()) {
        Ok(_) => panic!("cuBLASLt accepts the emulated GPU"),
        Err(Error::Unavailable(why)) => {
            assert!(why.starts_with("no cuBLASLt: Emulated") && why.ends_with("cannot run its kernels"), "{why}");
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn cublaslt_computes_only_the_products() {
    const BUDGET: Duration = Duration::from_millis(5);
    if real_gpu().is_none() {
        return skip("a real GPU");
    }
    let mut cublaslt = match CublasLt::new(&shared()) {
        Ok(cublaslt) => cublaslt,
        Err(why) => return skip(&format!("cuBLASLt ({why})")),
    };
    for problem in select(&["matmul".into()]).unwrap().iter().flat_map(|info| info.small()) {
        // The second call uses the algorithm and the verification of the first.
        for _ in 0..2 {
            let times = cublaslt.measure(&problem, BUDGET);
            let [times] = &times[..] else { panic!("{problem}: {times:?}") };
            match &times.outcome {
                Ok(times) => assert!(times.median_us > 0.0, "{problem}: {times:?}"),
                Err(why) => assert!(why.contains("has no algorithm for"), "{problem}: {why}"),
            }
        }
    }
    let gelu = &select(&["gelu".into()]).unwrap()[0].small()[0];
    assert_eq!(cublaslt.measure(gelu, BUDGET), []);
}
