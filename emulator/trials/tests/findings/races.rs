use emulator_trials::{Arg, Expected, bytes_of};
use ptx_emulator::observe::Check::Race;

use super::{Bug, expect, floats};

#[test]
fn races() {
    let out = || Arg::Out("out", Expected::Anything(256));
    let flag = || Arg::InOut("flag", bytes_of(&[0u32]), Expected::Anything(4));
    let value = || Arg::Out("value", Expected::Anything(4));
    let handed_over = || vec![value(), flag(), out()];
    expect(
        "races",
        &[
            Bug::new("no_syncthreads", Race, &["races with the", "by thread (", "bytes of shared memory"], vec![out()])
                .with(1, 64),
            Bug::new(
                "no_second_syncthreads",
                Race,
                &["races with the", "by thread (", "bytes of shared memory"],
                vec![out(), Arg::U32(3)],
            )
            .with(1, 64),
            Bug::new("no_syncwarp", Race, &["read of 4 bytes", "races with the write by thread ("], vec![out()]),
            Bug::new(
                "two_blocks",
                Race,
                &["races with the write by thread (0, 0, 0) of block (", "of `out`"],
                vec![out()],
            )
            .with(2, 32),
            Bug::new(
                "no_threadfence",
                Race,
                &["races with the write", "of block (0, 0, 0)", "of `value`"],
                handed_over(),
            )
            .with(2, 32),
            Bug::new("no_reader_fence", Race, &["races with the write", "of `value`"], handed_over()).with(2, 32),
            Bug::new(
                "store_and_atomic",
                Race,
                &["races with the", "atomic", "of `count`"],
                vec![Arg::InOut("count", bytes_of(&[0u32]), Expected::Anything(4))],
            )
            .with(3, 32),
            Bug::new(
                "block_scope_atomic",
                Race,
                &["races with the atomic by", "of block (", "block scope (.cta)"],
                vec![Arg::InOut("count", bytes_of(&[0u32]), Expected::Anything(4))],
            )
            .with(2, 32),
            Bug::new(
                "read_only_after_an_atomic",
                Race,
                &["ld.global.nc", "that this launch writes", "`counts`"],
                vec![Arg::InOut("counts", bytes_of(&[0u32; 32]), Expected::Anything(128)), out()],
            ),
            Bug::new(
                "read_only_before_a_store",
                Race,
                &["write of 4 bytes", "`counts`", "reads with ld.global.nc", "must not change during the launch"],
                vec![Arg::InOut("counts", bytes_of(&[0u32; 32]), Expected::Anything(128)), out()],
            ),
            Bug::new(
                "read_only_load",
                Race,
                &["ld.global.nc", "that this launch writes", "`value`"],
                vec![Arg::InOut("value", bytes_of(&floats(32)), Expected::Anything(128)), out()],
            ),
        ],
    );
}
