//! Shadows, accessed by threads that know more or less of each other.

use super::clock::Views;
use super::shadow::{Access, Accessor, Conflict, KnownReaders, Shadow};
use super::stamp::{Kind, Stamp, Stamps, mark};

/// Threads that share a page.
struct Bench {
    stamps: Stamps,
    known: KnownReaders,
    shadow: Shadow,
}

/// A thread's place in time.
#[derive(Clone, Copy)]
struct Thread<'a> {
    block: u32,
    warp: u32,
    lane: u32,
    time: u32,
    views: &'a Views,
    narrow: bool,
}

impl Bench {
    fn new() -> Self {
        Self { stamps: Stamps::new(), known: KnownReaders::default(), shadow: Shadow::default() }
    }

    fn access(&mut self, by: &Thread, offset: usize, size: usize, access: Access) -> Result<(), Conflict> {
        let kind = match access {
            Access::Atomic => Kind::Atomic,
            Access::StrongRead => Kind::StrongRead,
            _ => Kind::Plain,
        };
        let stamp = Stamp {
            block: by.block,
            warp: by.warp,
            time: by.time,
            pc: by.warp * 10 + by.time,
            kind,
            narrow: by.narrow,
            lanes: 1 << by.lane,
        };
        let stamp = self.stamps.stamp(stamp).unwrap();
        let mut accessor = Accessor {
            block: by.block,
            warp: by.warp,
            lane: by.lane,
            stamp,
            views: by.views,
            stamps: &self.stamps,
            known: &mut self.known,
            shared: true,
        };
        self.shadow.access(1, offset, size, &mut accessor, access)
    }
}

/// What lanes know after a barrier of the block at `time`.
fn behind(time: u32) -> Views {
    let mut views = Views::default();
    views.set(Default::default());
    views.update(u32::MAX, u32::MAX, |view| *view = view.after_barrier(time));
    views
}

#[test]
fn a_barrier_orders_and_nothing_else_does() {
    let (none, after) = (Views::default(), behind(1));
    let mut bench = Bench::new();
    let writer = Thread { block: 0, narrow: false, warp: 0, lane: 3, time: 1, views: &none };
    bench.access(&writer, 64, 16, Access::Write).unwrap();
    let unordered = Thread { block: 0, narrow: false, warp: 1, lane: 0, time: 1, views: &none };
    let conflict = bench.access(&unordered, 68, 4, Access::Read).unwrap_err();
    assert_eq!((conflict.other.warp, conflict.lane, conflict.was_read), (0, Some(3), false));
    bench.access(&unordered, 80, 4, Access::Write).unwrap();
    let ordered = Thread { block: 0, narrow: false, warp: 1, lane: 0, time: 2, views: &after };
    bench.access(&ordered, 64, 4, Access::Read).unwrap();
    // Lanes of one warp are not ordered by being one.
    let neighbour = Thread { block: 0, narrow: false, warp: 0, lane: 4, time: 1, views: &none };
    assert!(bench.access(&neighbour, 76, 4, Access::Read).is_err());
}

#[test]
fn a_write_looks_for_every_reader() {
    let none = Views::default();
    let mut bench = Bench::new();
    let reader = |warp, lane| Thread { block: 0, narrow: false, warp, lane, time: 1, views: &none };
    for (warp, lane) in [(0, 0), (0, 1), (1, 7), (2, 7), (1, 7)] {
        bench.access(&reader(warp, lane), 0, 4, Access::Read).unwrap();
    }
    // Behind warps 0 and 2, but not behind warp 1.
    let mut views = Views::default();
    views.update(u32::MAX, u32::MAX, |view| {
        view.own.learn_warp(0, 1);
        view.own.learn_lane(2, 7, 1);
    });
    let writer = Thread { block: 0, narrow: false, warp: 3, lane: 0, time: 1, views: &views };
    let conflict = bench.access(&writer, 0, 4, Access::Write).unwrap_err();
    assert_eq!((conflict.other.warp, conflict.lane, conflict.was_read), (1, Some(7), true));
    views.update(u32::MAX, u32::MAX, |view| view.own.learn_lane(1, 7, 1));
    let writer = Thread { block: 0, narrow: false, warp: 3, lane: 0, time: 1, views: &views };
    bench.access(&writer, 0, 4, Access::Write).unwrap();
}

#[test]
fn atomics_race_with_plain_accesses_only() {
    let none = Views::default();
    let thread = |warp| Thread { block: 0, narrow: false, warp, lane: 0, time: 1, views: &none };
    let mut bench = Bench::new();
    bench.access(&thread(0), 0, 4, Access::Atomic).unwrap();
    bench.access(&thread(1), 0, 4, Access::Atomic).unwrap();
    bench.access(&thread(2), 0, 4, Access::StrongRead).unwrap();
    assert!(bench.access(&thread(3), 0, 4, Access::Read).is_err());
    assert!(bench.access(&thread(3), 0, 4, Access::Write).is_err());
    bench.access(&thread(4), 8, 4, Access::StrongRead).unwrap();
    bench.access(&thread(5), 8, 4, Access::Read).unwrap();
    assert!(bench.access(&thread(6), 8, 4, Access::Atomic).unwrap_err().was_read);
}

#[test]
fn a_narrow_atomic_is_none_for_other_blocks() {
    let none = Views::default();
    let thread = |block, narrow| Thread { block, narrow, warp: 0, lane: 0, time: 1, views: &none };
    for (first, second) in [(Access::Atomic, Access::Atomic), (Access::Atomic, Access::StrongRead)] {
        for (narrow, other_narrow, block, fails) in [
            (false, false, 1, false),
            (true, true, 0, false),
            (true, false, 1, true),
            (false, true, 1, true),
            (true, true, 1, true),
        ] {
            for (first, second) in [(first, second), (second, first)] {
                let mut bench = Bench::new();
                // Others between them change nothing.
                bench.access(&thread(0, narrow), 0, 4, first).unwrap();
                let warp = Thread { warp: 1, ..thread(0, narrow) };
                bench.access(&warp, 0, 4, Access::StrongRead).unwrap();
                let warp = Thread { warp: 1, ..thread(block, other_narrow) };
                let result = bench.access(&warp, 0, 4, second);
                assert_eq!(result.is_err(), fails, "{first:?} {narrow}, {second:?} {other_narrow}, block {block}");
            }
        }
    }
}

#[test]
fn unfinished_copies_belong_to_nobody() {
    let none = Views::default();
    let mut bench = Bench::new();
    let stamp = Stamp { block: 0, warp: 0, time: 1, pc: 5, kind: Kind::Pending, narrow: false, lanes: 1 << 2 };
    let pending = bench.stamps.stamp(stamp).unwrap();
    bench.shadow.settle(1, 32, 16, mark(pending, 2));
    let same = Thread { block: 0, narrow: false, warp: 0, lane: 2, time: 1, views: &none };
    assert_eq!(bench.access(&same, 32, 4, Access::Read).unwrap_err().other, stamp);
    bench.access(&same, 48, 4, Access::Read).unwrap();
}

#[test]
fn touched_bytes_are_counted_in_the_grain_of_the_accesses() {
    let none = Views::default();
    let mut bench = Bench::new();
    let thread = Thread { block: 0, narrow: false, warp: 0, lane: 0, time: 1, views: &none };
    bench.access(&thread, 0, 16, Access::Read).unwrap();
    bench.access(&thread, 0, 4, Access::Write).unwrap();
    bench.access(&thread, 32, 2, Access::Write).unwrap();
    assert_eq!(bench.shadow.touched(1), (16, 6, 18));
    assert_eq!(bench.shadow.touched(2), (0, 0, 0));
}
