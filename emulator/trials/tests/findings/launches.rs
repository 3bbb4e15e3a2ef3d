//! Launches that exceed a limit.

use emulator_trials::trials::settings;
use emulator_trials::{Arg, BUGGY, Case, Device, Expected, Failure, ptx};
use ptx_emulator::LaunchError;

/// Checks that a launch is refused with `message` after `change`, and accepted without it.
fn refused(kernel: &str, change: impl FnOnce(&mut Case), message: &str) {
    let device = Device::load(ptx(BUGGY, "launch")).unwrap();
    let mut case = Case {
        shape: "one block of 64".into(),
        purpose: "fits",
        grid: [1; 3],
        block: [64, 1, 1],
        dynamic_shared: 256,
        args: vec![Arg::Out("out", Expected::Anything(256))],
    };
    let fits = device.run(kernel, &case, &settings(0));
    assert!(fits.is_ok(), "{kernel}: {}", fits.unwrap_err());
    change(&mut case);
    match device.run(kernel, &case, &settings(0)) {
        Err(Failure::Launch(error @ LaunchError::Rejected { .. })) => {
            assert_eq!(error.to_string(), format!("{kernel}: launch rejected: {message}"));
            println!("{error}");
        }
        Err(other) => panic!("{kernel}: not refused, but {other}"),
        Ok(_) => panic!("{kernel}: not refused: {message}"),
    }
}

#[test]
fn launches_that_exceed_a_limit_are_refused() {
    refused("at_most_64", |case| case.block = [96, 1, 1], "96 threads per block, the kernel allows 64 (.maxntid)");
    refused("dynamic_shared", |case| case.block = [1025, 1, 1], "block.x = 1025 is not in the range from 1 to 1024");
    refused("dynamic_shared", |case| case.block = [64, 32, 1], "2048 threads per block, the device allows 1024");
    refused("dynamic_shared", |case| case.grid = [1, 65536, 1], "grid.y = 65536 is not in the range from 1 to 65535");
    refused("dynamic_shared", |case| case.grid = [0, 1, 1], "grid.x = 0 is not in the range from 1 to 2147483647");
    refused(
        "dynamic_shared",
        |case| case.dynamic_shared = 163 * 1024 + 4,
        "0 + 166916 bytes of shared memory (static + dynamic), at most 166912 are allowed",
    );
    refused("dynamic_shared", |case| case.args.clear(), "0 bytes of parameters, the kernel declares 8");
    refused("dynamic_shared", |case| case.args.push(Arg::U32(1)), "12 bytes of parameters, the kernel declares 8");
}
