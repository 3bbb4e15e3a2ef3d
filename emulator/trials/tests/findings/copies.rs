use emulator_trials::{Arg, Expected, bytes_of};
use ptx_emulator::observe::Check::{AsyncProxy, Race};

use super::{Bug, expect, floats};

#[test]
fn copies() {
    let args = || vec![Arg::In("x", bytes_of(&floats(256))), Arg::Out("out", Expected::Anything(128))];
    let unfinished = &["the target of a cp.async by thread (", "ptx.cuh:", "not waited for"];
    expect(
        "copies",
        &[
            Bug::new("no_wait", AsyncProxy, unfinished, args()),
            Bug::new(
                "no_barrier_after_the_wait",
                Race,
                &["read of 4 bytes", "races with the write", "ptx.cuh:"],
                args(),
            ),
            Bug::new("wait_for_the_first_group_only", AsyncProxy, unfinished, args()),
            Bug::new("no_commit", AsyncProxy, unfinished, args()),
            Bug::new("target_overwritten", AsyncProxy, unfinished, args()),
            Bug::new(
                "source_overwritten",
                AsyncProxy,
                &["write of 4 bytes", "`scratch`", "the source of a cp.async by thread (", "not waited for"],
                vec![Arg::Out("scratch", Expected::Anything(512)), Arg::Out("out", Expected::Anything(128))],
            ),
        ],
    );
}
