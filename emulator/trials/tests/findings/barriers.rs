use emulator_trials::{Arg, Expected, bytes_of};
use ptx_emulator::observe::Check::{Barrier, EndlessLoop, Initialised, Trap};

use super::{Bug, expect};

#[test]
fn barriers() {
    let out = || Arg::Out("out", Expected::Anything(512));
    let halves = || vec![out(), Arg::U32(16)];
    expect(
        "barriers",
        &[
            Bug::new("in_a_branch", Barrier, &["divergence", "warp 0", "barriers.cu:"], halves()).with(1, 64),
            Bug::new("too_few", Barrier, &["deadlock", "barrier 1", "32 of 64 threads"], vec![out()]).with(1, 64),
            Bug::new("too_many", Barrier, &["deadlock", "barrier 1, at which 32 of 64 threads arrived"], vec![out()])
                .with(1, 96),
            Bug::new("unmatched_arrival", Barrier, &["block ended", "32 of 64 threads", "barrier 1"], vec![out()]),
            Bug::new("two_counts", Barrier, &["barrier 1 for", "threads, while it waits for"], vec![out()]).with(1, 64),
            Bug::new("lanes_never_arrive", Barrier, &["bar.warp.sync for lanes 0xffffffff"], halves()),
            Bug::new(
                "shuffle_from_exited_lanes",
                Initialised,
                &["shfl from lane 16, a member that has exited"],
                halves(),
            ),
            Bug::new("mask_without_own_lane", Trap, &["0x0000ffff leaves out the lane itself"], vec![out()]),
            Bug::new("masks_disagree", Trap, &["disagree", "0xffffffff and 0xfffffffe"], vec![out()]),
            Bug::new(
                "sync_and_count_at_one_barrier",
                Barrier,
                &["barrier 0 with bar.red by some threads"],
                vec![out()],
            )
            .with(1, 64),
            Bug::new(
                "endless_loop",
                EndlessLoop,
                &["endless loop", "budget of 1000000 warp instructions"],
                vec![Arg::In("flag", bytes_of(&[0u32])), out()],
            ),
        ],
    );
}
