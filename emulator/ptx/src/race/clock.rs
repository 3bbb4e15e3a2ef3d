//! Compressed vector clocks: the accesses that a thread is ordered after.
//!
//! A block has one clock. Every release (a barrier, a fence, an atomic that releases) takes its current time and
//! advances it, so a warp's accesses after a release carry later times than the release itself. A vector clock of a
//! block is one time for all its threads, the floor, and later times for single warps and threads.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::registers::{LANES, each_lane};

/// The vector clock of one block: it covers everything that the block's threads did up to these times, inclusive.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockClock {
    floor: u32,
    /// (warp, time), by warp
    warps: Vec<(u32, u32)>,
    /// (warp · 32 + lane, time), by thread
    lanes: Vec<(u32, u32)>,
}

impl BlockClock {
    /// Covers every thread of the block up to `time`.
    pub fn floor(time: u32) -> Self {
        Self { floor: time, ..Self::default() }
    }

    /// Whether it covers what the lanes `lanes` (a mask) of `warp` did at `time`.
    #[inline]
    pub fn covers(&self, warp: u32, lanes: u32, time: u32) -> bool {
        time <= self.floor || self.covers_beyond_floor(warp, lanes, time)
    }

    fn covers_beyond_floor(&self, warp: u32, lanes: u32, time: u32) -> bool {
        let at_least = |list: &[(u32, u32)], key| match list.binary_search_by_key(&key, |&(key, _)| key) {
            Ok(found) => list[found].1 >= time,
            Err(_) => false,
        };
        at_least(&self.warps, warp) || each_lane(lanes).all(|lane| at_least(&self.lanes, thread(warp, lane)))
    }

    /// Whether it covers everything that `other`, of the same block, covers.
    pub fn includes(&self, other: &BlockClock) -> bool {
        let warp = |&(warp, time): &(u32, u32)| self.covers(warp, u32::MAX, time);
        let lane =
            |&(thread, time): &(u32, u32)| self.covers(thread / LANES as u32, 1 << (thread % LANES as u32), time);
        other.floor <= self.floor && other.warps.iter().all(warp) && other.lanes.iter().all(lane)
    }

    /// Adds what a whole warp did up to `time`.
    pub fn add_warp(&mut self, warp: u32, time: u32) {
        raise(&mut self.warps, warp, time);
        self.lanes.retain(|&(thread, lane_time)| thread / LANES as u32 != warp || lane_time > time);
    }

    /// Adds what one lane did up to `time`.
    pub fn add_lane(&mut self, warp: u32, lane: u32, time: u32) {
        if !self.covers(warp, 1 << lane, time) {
            raise(&mut self.lanes, thread(warp, lane), time);
        }
    }

    /// Adds everything that `other`, of the same block, covers.
    pub fn merge(&mut self, other: &BlockClock) {
        if other.floor > self.floor {
            self.floor = other.floor;
            self.warps.retain(|&(_, time)| time > other.floor);
            self.lanes.retain(|&(_, time)| time > other.floor);
        }
        let floor = self.floor;
        for &(warp, time) in other.warps.iter().filter(|&&(_, time)| time > floor) {
            self.add_warp(warp, time);
        }
        for &(thread, time) in &other.lanes {
            self.add_lane(thread / LANES as u32, thread % LANES as u32, time);
        }
    }
}

fn thread(warp: u32, lane: u32) -> u32 {
    warp * LANES as u32 + lane
}

fn raise(list: &mut Vec<(u32, u32)>, key: u32, time: u32) {
    match list.binary_search_by_key(&key, |&(key, _)| key) {
        Ok(found) => list[found].1 = list[found].1.max(time),
        Err(index) => list.insert(index, (key, time)),
    }
}

/// A thread's vector clock: that of its own block, and those of the blocks it acquired from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub own: BlockClock,
    others: Option<Arc<Others>>,
}

/// The clocks of other blocks, by block. A persistent map, whose versions share their common part: thousands of blocks
/// may each release to, and acquire from, the same counter.
type Others = RedBlackTreeMapSync<u32, BlockClock>;

impl View {
    /// The view of every thread of the block after a barrier at `time`: `self` for other blocks, everything up to `time`
    /// for its own.
    pub fn after_barrier(&self, time: u32) -> View {
        View { own: BlockClock::floor(time), others: self.others.clone() }
    }

    /// Whether it covers what the lanes `lanes` of `warp` of another block did at `time`.
    pub fn covers_other(&self, block: u32, warp: u32, lanes: u32, time: u32) -> bool {
        self.others.as_ref().and_then(|others| others.get(&block)).is_some_and(|clock| clock.covers(warp, lanes, time))
    }

    /// Adds the view of another thread of the same block.
    pub fn merge(&mut self, other: &View) {
        self.own.merge(&other.own);
        self.merge_others(other);
    }

    /// Adds what `other` covers of other blocks.
    pub fn merge_others(&mut self, other: &View) {
        let Some(theirs) = &other.others else { return };
        match &mut self.others {
            None => self.others = Some(theirs.clone()),
            Some(ours) if Arc::ptr_eq(ours, theirs) => {}
            Some(ours) if ours.size() >= theirs.size() => merge_all(Arc::make_mut(ours), theirs),
            Some(ours) => {
                let mut merged = Others::clone(theirs);
                merge_all(&mut merged, ours);
                *ours = Arc::new(merged);
            }
        }
    }

    /// The view as a release publishes it: in a form that a thread of any block can acquire, with no block as its own.
    pub fn published(&self, block: u32) -> View {
        let mut others = self.others.clone().unwrap_or_default();
        merge_block(Arc::make_mut(&mut others), block, &self.own);
        View { own: BlockClock::default(), others: Some(others) }
    }

    /// Whether a published view adds nothing to this one.
    pub fn includes(&self, published: &View) -> bool {
        match (&self.others, &published.others) {
            (_, None) => true,
            (None, Some(_)) => false,
            // Views of more than one block are not compared: a thread publishes each of them only once.
            (Some(ours), Some(theirs)) => {
                let included = |(block, clock)| ours.get(block).is_some_and(|have: &BlockClock| have.includes(clock));
                Arc::ptr_eq(ours, theirs) || theirs.size() == 1 && theirs.iter().all(included)
            }
        }
    }

    /// Adds a published view to that of a thread of `block`.
    pub fn acquire(&mut self, published: &View, block: u32) {
        if let Some(clock) = published.others.as_ref().and_then(|others| others.get(&block)) {
            self.own.merge(clock);
        }
        self.merge_others(published);
    }
}

fn merge_all(into: &mut Others, from: &Others) {
    for (&block, clock) in from.iter() {
        merge_block(into, block, clock);
    }
}

fn merge_block(others: &mut Others, block: u32, clock: &BlockClock) {
    match others.get(&block) {
        Some(have) if have.includes(clock) => {}
        Some(have) => {
            let mut merged = have.clone();
            merged.merge(clock);
            others.insert_mut(block, merged);
        }
        None => {
            others.insert_mut(block, clock.clone());
        }
    }
}

/// The views of a warp's lanes: one for all of them until lanes synchronise separately.
#[derive(Debug, Clone, Default)]
pub struct Views {
    uniform: View,
    lanes: Option<Box<[View; LANES]>>,
}

impl Views {
    #[inline]
    pub fn of(&self, lane: u32) -> &View {
        match &self.lanes {
            None => &self.uniform,
            Some(lanes) => &lanes[lane as usize % LANES],
        }
    }

    /// The views of the lanes of `mask`, merged.
    pub fn merged(&self, mask: u32) -> View {
        let Some(lanes) = &self.lanes else { return self.uniform.clone() };
        let mut merged = View::default();
        for lane in each_lane(mask) {
            merged.merge(&lanes[lane as usize]);
        }
        merged
    }

    /// Replaces the view of every lane.
    pub fn set(&mut self, view: View) {
        self.uniform = view;
        self.lanes = None;
    }

    /// Changes the views of the lanes of `mask`; `all` are the lanes that still run.
    pub fn update(&mut self, mask: u32, all: u32, mut change: impl FnMut(&mut View)) {
        if all & !mask == 0 && self.lanes.is_none() {
            return change(&mut self.uniform);
        }
        let uniform = &self.uniform;
        let lanes = self.lanes.get_or_insert_with(|| Box::new(std::array::from_fn(|_| uniform.clone())));
        for lane in each_lane(mask) {
            change(&mut lanes[lane as usize]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_covers_what_was_added_and_no_more() {
        let mut clock = BlockClock::floor(3);
        clock.add_lane(1, 4, 7);
        clock.add_warp(2, 5);
        assert!(clock.covers(0, 1, 3) && !clock.covers(0, 1, 4));
        assert!(clock.covers(1, 1 << 4, 7) && !clock.covers(1, 1 << 5, 4) && !clock.covers(1, 0b11 << 4, 4));
        assert!(clock.covers(2, u32::MAX, 5) && clock.covers(2, 1 << 31, 5) && !clock.covers(2, 1 << 31, 6));
        let mut other = BlockClock::floor(5);
        other.merge(&clock);
        assert!(other.covers(1, 1 << 4, 7) && !other.covers(1, 1 << 4, 8) && !other.covers(2, 1, 6));
    }

    #[test]
    fn a_view_covers_other_blocks_only_after_an_acquire() {
        let mut writer = View::default();
        writer.own.add_lane(0, 0, 2);
        let published = writer.published(7);
        let mut reader = View::default();
        assert!(!reader.covers_other(7, 0, 1, 2));
        reader.acquire(&published, 9);
        assert!(reader.covers_other(7, 0, 1, 2) && !reader.covers_other(7, 0, 2, 2) && !reader.own.covers(0, 1, 2));
        let mut sibling = View::default();
        sibling.acquire(&reader.published(9), 7);
        assert!(sibling.own.covers(0, 1, 2));
    }
}
