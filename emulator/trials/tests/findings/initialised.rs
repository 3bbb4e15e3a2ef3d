use emulator_trials::{Arg, Expected, bytes_of};
use ptx_emulator::observe::Check::Initialised;

use super::{Bug, expect, floats};

#[test]
fn initialised() {
    let out = || Arg::Out("out", Expected::Anything(256));
    expect(
        "initialised",
        &[
            Bug::new(
                "global_memory",
                Initialised,
                &["read of 4 bytes", "nothing wrote", "byte 64 of `x` (128 bytes"],
                vec![Arg::Partial("x", 128, bytes_of(&floats(16))), out()],
            ),
            Bug::new(
                "shared_memory",
                Initialised,
                &["nothing wrote", "byte 252 of the block's 256 bytes of shared"],
                vec![out(), Arg::U32(63)],
            )
            .with(1, 64),
            Bug::new("local_memory", Initialised, &["nothing wrote", "local memory"], vec![out(), Arg::U32(7)]),
            Bug::new("a_register", Initialised, &["read of sum, which nothing wrote"], vec![out(), Arg::U32(16)]),
        ],
    );
}
