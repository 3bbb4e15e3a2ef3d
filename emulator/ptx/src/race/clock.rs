//! Vector clocks, folded: what a thread is ordered behind.
//!
//! A block has one clock. Every release (a barrier, a fence, an atomic that publishes) takes its current time and
//! advances it, so a warp's accesses after a release carry later times than the release itself. What is known of a
//! block is a floor for all its threads, and later times for single warps and threads.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::registers::{LANES, each_lane};

/// What is known of the threads of one block: everything they did up to these times, inclusive.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    floor: u32,
    /// (warp, time), by warp
    warps: Vec<(u32, u32)>,
    /// (warp · 32 + lane, time), by thread
    lanes: Vec<(u32, u32)>,
}

impl Known {
    /// Every thread of the block up to `time`.
    pub fn floor(time: u32) -> Self {
        Self { floor: time, ..Self::default() }
    }

    /// Whether what the lanes `lanes` (a mask) of `warp` did at `time` is known.
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

    /// Whether all that `other` knows of the same block is known.
    pub fn includes(&self, other: &Known) -> bool {
        let warp = |&(warp, time): &(u32, u32)| self.covers(warp, u32::MAX, time);
        let lane =
            |&(thread, time): &(u32, u32)| self.covers(thread / LANES as u32, 1 << (thread % LANES as u32), time);
        other.floor <= self.floor && other.warps.iter().all(warp) && other.lanes.iter().all(lane)
    }

    /// Learns what a whole warp did up to `time`.
    pub fn learn_warp(&mut self, warp: u32, time: u32) {
        raise(&mut self.warps, warp, time);
        self.lanes.retain(|&(thread, lane_time)| thread / LANES as u32 != warp || lane_time > time);
    }

    /// Learns what one lane did up to `time`.
    pub fn learn_lane(&mut self, warp: u32, lane: u32, time: u32) {
        if !self.covers(warp, 1 << lane, time) {
            raise(&mut self.lanes, thread(warp, lane), time);
        }
    }

    /// Learns all that `other` knows of the same block.
    pub fn join(&mut self, other: &Known) {
        if other.floor > self.floor {
            self.floor = other.floor;
            self.warps.retain(|&(_, time)| time > other.floor);
            self.lanes.retain(|&(_, time)| time > other.floor);
        }
        let floor = self.floor;
        for &(warp, time) in other.warps.iter().filter(|&&(_, time)| time > floor) {
            self.learn_warp(warp, time);
        }
        for &(thread, time) in &other.lanes {
            self.learn_lane(thread / LANES as u32, thread % LANES as u32, time);
        }
    }
}

fn thread(warp: u32, lane: u32) -> u32 {
    warp * LANES as u32 + lane
}

fn raise(list: &mut Vec<(u32, u32)>, key: u32, time: u32) {
    match list.binary_search_by_key(&key, |&(key, _)| key) {
        Ok(found) => list[found].1 = list[found].1.max(time),
        Err(place) => list.insert(place, (key, time)),
    }
}

/// What a thread knows: of its own block, and of others from which it acquired something.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub own: Known,
    others: Option<Arc<Others>>,
}

/// What is known of other blocks, by block. Each version shares what it has in common with the one before: a counter on
/// which thousands of blocks publish is read by each of them.
type Others = RedBlackTreeMapSync<u32, Known>;

impl View {
    /// A view that every thread of the block has just gained at `time`, with what `self` knows of other blocks.
    pub fn after_barrier(&self, time: u32) -> View {
        View { own: Known::floor(time), others: self.others.clone() }
    }

    /// Whether what a thread of another block did is known.
    pub fn covers_other(&self, block: u32, warp: u32, lanes: u32, time: u32) -> bool {
        self.others.as_ref().and_then(|others| others.get(&block)).is_some_and(|known| known.covers(warp, lanes, time))
    }

    /// Learns what another thread of the same block knows.
    pub fn join(&mut self, other: &View) {
        self.own.join(&other.own);
        self.join_others(other);
    }

    /// Learns what `other` knows of blocks that are neither's own.
    pub fn join_others(&mut self, other: &View) {
        let Some(theirs) = &other.others else { return };
        match &mut self.others {
            None => self.others = Some(theirs.clone()),
            Some(ours) if Arc::ptr_eq(ours, theirs) => {}
            Some(ours) if ours.size() >= theirs.size() => merge(Arc::make_mut(ours), theirs),
            Some(ours) => {
                let mut merged = Others::clone(theirs);
                merge(&mut merged, ours);
                *ours = Arc::new(merged);
            }
        }
    }

    /// The view as any block may see it: nothing is anybody's own.
    pub fn published(&self, block: u32) -> View {
        let mut others = self.others.clone().unwrap_or_default();
        learn(Arc::make_mut(&mut others), block, &self.own);
        View { own: Known::default(), others: Some(others) }
    }

    /// Whether a published view adds nothing to this one.
    pub fn includes(&self, published: &View) -> bool {
        match (&self.others, &published.others) {
            (_, None) => true,
            (None, Some(_)) => false,
            // Large views are not compared: whoever publishes one does so once.
            (Some(ours), Some(theirs)) => {
                let known = |(block, known)| ours.get(block).is_some_and(|have: &Known| have.includes(known));
                Arc::ptr_eq(ours, theirs) || theirs.size() == 1 && theirs.iter().all(known)
            }
        }
    }

    /// Learns a published view as a thread of `block`.
    pub fn acquire(&mut self, published: &View, block: u32) {
        if let Some(known) = published.others.as_ref().and_then(|others| others.get(&block)) {
            self.own.join(known);
        }
        self.join_others(published);
    }
}

fn merge(into: &mut Others, from: &Others) {
    for (&block, known) in from.iter() {
        learn(into, block, known);
    }
}

fn learn(others: &mut Others, block: u32, known: &Known) {
    match others.get(&block) {
        Some(have) if have.includes(known) => {}
        Some(have) => {
            let mut joined = have.clone();
            joined.join(known);
            others.insert_mut(block, joined);
        }
        None => {
            others.insert_mut(block, known.clone());
        }
    }
}

/// The views of a warp's lanes: one for all, until lanes synchronise on their own.
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

    /// Everything that lanes of `mask` know.
    pub fn joined(&self, mask: u32) -> View {
        let Some(lanes) = &self.lanes else { return self.uniform.clone() };
        let mut joined = View::default();
        for lane in each_lane(mask) {
            joined.join(&lanes[lane as usize]);
        }
        joined
    }

    /// All lanes know this and no more.
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
    fn knowledge_is_no_more_than_was_learnt() {
        let mut known = Known::floor(3);
        known.learn_lane(1, 4, 7);
        known.learn_warp(2, 5);
        assert!(known.covers(0, 1, 3) && !known.covers(0, 1, 4));
        assert!(known.covers(1, 1 << 4, 7) && !known.covers(1, 1 << 5, 4) && !known.covers(1, 0b11 << 4, 4));
        assert!(known.covers(2, u32::MAX, 5) && known.covers(2, 1 << 31, 5) && !known.covers(2, 1 << 31, 6));
        let mut other = Known::floor(5);
        other.join(&known);
        assert!(other.covers(1, 1 << 4, 7) && !other.covers(1, 1 << 4, 8) && !other.covers(2, 1, 6));
    }

    #[test]
    fn other_blocks_are_seen_through_publication_only() {
        let mut writer = View::default();
        writer.own.learn_lane(0, 0, 2);
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
