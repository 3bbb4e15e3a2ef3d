use emulator_trials::{Arg, Expected, bytes_of};
use ptx_emulator::observe::Check::Bounds;

use super::{Bug, expect, floats};

#[test]
fn bounds() {
    let x = || Arg::In("x", bytes_of(&floats(32)));
    let out = |len: u64| Arg::Out("out", Expected::Anything(4 * len));
    expect(
        "bounds",
        &[
            Bug::new(
                "past_the_end",
                Bounds,
                &["write of 4 bytes", "past the end of `out` (80 bytes"],
                vec![Arg::In("x", bytes_of(&floats(20))), out(20), Arg::U32(20)],
            ),
            Bug::new(
                "before_the_start",
                Bounds,
                &["read of 4 bytes", "4 bytes before `x` (128 bytes"],
                vec![x(), out(32)],
            ),
            Bug::new("past_a_vector", Bounds, &["at byte 496 of `out` (504 bytes", "8 bytes too many"], vec![out(126)]),
            Bug::new(
                "after_the_free",
                Bounds,
                &["read of 4 bytes", "inside `x` (128 bytes", "freed"],
                vec![Arg::Freed("x", 128), out(32)],
            ),
            Bug::new("through_null", Bounds, &["read of 4 bytes at 0x0", "null"], vec![Arg::U64(0), out(32)]),
            Bug::new("truncated_address", Bounds, &["read of 4 bytes", "no allocation is near"], vec![x(), out(32)]),
            Bug::new(
                "shared_overrun",
                Bounds,
                &["write of 4 bytes", "byte 128 of the block's 128 bytes of shared"],
                vec![out(64)],
            )
            .with(1, 64),
            Bug::new("local_overrun", Bounds, &["write of 4 bytes", "32 bytes", "local"], vec![out(32), Arg::U32(9)]),
            Bug::new(
                "write_to_constant",
                Bounds,
                &["write", "read-only", "`table`"],
                vec![Arg::Variable("table"), out(32)],
            ),
        ],
    );
}
