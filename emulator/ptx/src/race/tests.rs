//! Accesses to a shadow by threads with different knowledge of each other.

use super::clock::Views;
use super::epoch::{Epoch, EpochKind, lane_ref};
use super::epoch_table::EpochTable;
use super::shadow::{Access, Accessor, Conflict, ReaderCache, Shadow};

/// The shadow of a page that threads share.
struct Bench {
    epochs: EpochTable,
    cache: ReaderCache,
    shadow: Shadow,
}

/// A thread at one time.
#[derive(Clone, Copy)]
struct Thread<'a> {
    block: u32,
    warp: u32,
    lane: u32,
    time: u32,
    views: &'a Views,
    block_scope: bool,
}

impl Bench {
    fn new() -> Self {
        Self { epochs: EpochTable::new(), cache: ReaderCache::default(), shadow: Shadow::default() }
    }

    fn access(&mut self, by: &Thread, offset: usize, size: usize, access: Access) -> Result<(), Conflict> {
        let kind = match access {
            Access::Atomic => EpochKind::Atomic,
            Access::StrongRead => EpochKind::StrongRead,
            _ => EpochKind::Plain,
        };
        let epoch = Epoch {
            block: by.block,
            warp: by.warp,
            time: by.time,
            pc: by.warp * 10 + by.time,
            kind,
            block_scope: by.block_scope,
            lanes: 1 << by.lane,
        };
        let epoch = self.epochs.push(epoch).unwrap();
        let mut accessor = Accessor {
            block: by.block,
            warp: by.warp,
            lane: by.lane,
            epoch,
            views: by.views,
            epochs: &self.epochs,
            cache: &mut self.cache,
            shared: true,
        };
        self.shadow.access(1, offset, size, &mut accessor, access)
    }
}

/// What lanes know after a barrier of the block at `time`.
fn after_barrier(time: u32) -> Views {
    let mut views = Views::default();
    views.set(Default::default());
    views.update(u32::MAX, u32::MAX, |view| *view = view.after_barrier(time));
    views
}

#[test]
fn only_a_barrier_orders_accesses() {
    let (none, after) = (Views::default(), after_barrier(1));
    let mut bench = Bench::new();
    let writer = Thread { block: 0, block_scope: false, warp: 0, lane: 3, time: 1, views: &none };
    bench.access(&writer, 64, 16, Access::Write).unwrap();
    let unordered = Thread { block: 0, block_scope: false, warp: 1, lane: 0, time: 1, views: &none };
    let conflict = bench.access(&unordered, 68, 4, Access::Read).unwrap_err();
    assert_eq!((conflict.other.warp, conflict.lane, conflict.was_read), (0, Some(3), false));
    bench.access(&unordered, 80, 4, Access::Write).unwrap();
    let ordered = Thread { block: 0, block_scope: false, warp: 1, lane: 0, time: 2, views: &after };
    bench.access(&ordered, 64, 4, Access::Read).unwrap();
    // Lanes of the same warp are not ordered either.
    let neighbour = Thread { block: 0, block_scope: false, warp: 0, lane: 4, time: 1, views: &none };
    assert!(bench.access(&neighbour, 76, 4, Access::Read).is_err());
}

#[test]
fn a_write_is_compared_with_every_reader() {
    let none = Views::default();
    let mut bench = Bench::new();
    let reader = |warp, lane| Thread { block: 0, block_scope: false, warp, lane, time: 1, views: &none };
    for (warp, lane) in [(0, 0), (0, 1), (1, 7), (2, 7), (1, 7)] {
        bench.access(&reader(warp, lane), 0, 4, Access::Read).unwrap();
    }
    // Ordered after warps 0 and 2, but not after warp 1.
    let mut views = Views::default();
    views.update(u32::MAX, u32::MAX, |view| {
        view.own.add_warp(0, 1);
        view.own.add_lane(2, 7, 1);
    });
    let writer = Thread { block: 0, block_scope: false, warp: 3, lane: 0, time: 1, views: &views };
    let conflict = bench.access(&writer, 0, 4, Access::Write).unwrap_err();
    assert_eq!((conflict.other.warp, conflict.lane, conflict.was_read), (1, Some(7), true));
    views.update(u32::MAX, u32::MAX, |view| view.own.add_lane(1, 7, 1));
    let writer = Thread { block: 0, block_scope: false, warp: 3, lane: 0, time: 1, views: &views };
    bench.access(&writer, 0, 4, Access::Write).unwrap();
}

#[test]
fn atomics_race_with_plain_accesses_only() {
    let none = Views::default();
    let thread = |warp| Thread { block: 0, block_scope: false, warp, lane: 0, time: 1, views: &none };
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
fn an_atomic_of_block_scope_races_with_atomics_of_other_blocks() {
    let none = Views::default();
    let thread = |block, block_scope| Thread { block, block_scope, warp: 0, lane: 0, time: 1, views: &none };
    for (first, second) in [(Access::Atomic, Access::Atomic), (Access::Atomic, Access::StrongRead)] {
        for (block_scope, other_block_scope, block, fails) in [
            (false, false, 1, false),
            (true, true, 0, false),
            (true, false, 1, true),
            (false, true, 1, true),
            (true, true, 1, true),
        ] {
            for (first, second) in [(first, second), (second, first)] {
                let mut bench = Bench::new();
                // A strong read between the two accesses changes nothing.
                bench.access(&thread(0, block_scope), 0, 4, first).unwrap();
                let warp = Thread { warp: 1, ..thread(0, block_scope) };
                bench.access(&warp, 0, 4, Access::StrongRead).unwrap();
                let warp = Thread { warp: 1, ..thread(block, other_block_scope) };
                let result = bench.access(&warp, 0, 4, second);
                let case = format!("{first:?} {block_scope}, {second:?} {other_block_scope}, block {block}");
                assert_eq!(result.is_err(), fails, "{case}");
            }
        }
    }
}

#[test]
fn targets_of_pending_copies_must_not_be_accessed() {
    let none = Views::default();
    let mut bench = Bench::new();
    let epoch =
        Epoch { block: 0, warp: 0, time: 1, pc: 5, kind: EpochKind::Pending, block_scope: false, lanes: 1 << 2 };
    let pending = bench.epochs.push(epoch).unwrap();
    bench.shadow.set_writer(1, 32, 16, lane_ref(pending, 2));
    let same = Thread { block: 0, block_scope: false, warp: 0, lane: 2, time: 1, views: &none };
    assert_eq!(bench.access(&same, 32, 4, Access::Read).unwrap_err().other, epoch);
    bench.access(&same, 48, 4, Access::Read).unwrap();
}

#[test]
fn accessed_bytes_are_counted_at_the_granularity_of_the_accesses() {
    let none = Views::default();
    let mut bench = Bench::new();
    let thread = Thread { block: 0, block_scope: false, warp: 0, lane: 0, time: 1, views: &none };
    bench.access(&thread, 0, 16, Access::Read).unwrap();
    bench.access(&thread, 0, 4, Access::Write).unwrap();
    bench.access(&thread, 32, 2, Access::Write).unwrap();
    assert_eq!(bench.shadow.touched(1), (16, 6, 18));
    assert_eq!(bench.shadow.touched(2), (0, 0, 0));
}
