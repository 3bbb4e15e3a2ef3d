use emulator_trials::{Arg, Expected, bytes_of};
use ptx_emulator::observe::Check::Alignment;

use super::{Bug, expect, floats};

#[test]
fn alignment() {
    expect(
        "alignment",
        &[
            Bug::new(
                "shifted_vector",
                Alignment,
                &["read of 16 bytes", "multiple of 16", "of `x` ("],
                vec![Arg::In("x", bytes_of(&floats(132))), Arg::Out("out", Expected::Anything(512))],
            ),
            Bug::new(
                "odd_row",
                Alignment,
                &["read of 8 bytes", "multiple of 8", "bytes of shared memory"],
                vec![Arg::Out("out", Expected::Anything(128)), Arg::U32(33)],
            ),
        ],
    );
}
