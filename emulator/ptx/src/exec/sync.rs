//! Barriers of a block, and what is published through an address.

use super::block::Core;
use super::warp::{State, Warp};
use crate::ir::{BarrierKind, Order, Scope};
use crate::race::clock::View;
use crate::registers::{LANES, Src, each_lane};

/// A barrier that threads have come to.
#[derive(Default)]
pub struct Barrier {
    pub arrivals: Vec<Arrival>,
    /// How many threads it waits for; `None` for all of the block.
    pub threads: Option<u32>,
    /// Whether a predicate is reduced; the two must not be mixed.
    pub reduces: bool,
    /// For reductions: how many threads brought a predicate, and how many of those were true.
    pub voters: u32,
    pub votes: u32,
}

/// Lanes of a warp that came together.
pub struct Arrival {
    pub warp: u32,
    pub mask: u32,
    pub pc: u32,
    /// Threads it counts for.
    pub counted: u32,
    pub view: View,
}

/// What is published through one address.
#[derive(Default)]
pub struct SyncVariable {
    device: View,
    /// (block, view) published no wider than to that block.
    block: Option<(u32, View)>,
}

/// Operands of a barrier instruction.
pub struct AtBarrier {
    pub kind: BarrierKind,
    pub aligned: bool,
    pub id: Src,
    pub threads: Option<Src>,
    pub votes: u32,
    pub mask: u32,
    pub pc: u32,
}

impl Core<'_> {
    /// Lanes come to a barrier. An error is a message and the lane it is about.
    pub fn arrive(&mut self, warp: &mut Warp, group: usize, at: AtBarrier) -> Result<(), (u32, String)> {
        let ids = warp.registers.get32(at.id);
        let lane = at.mask.trailing_zeros();
        let id = ids[lane as usize];
        if id as usize >= self.barriers.len() || each_lane(at.mask).any(|lane| ids[lane as usize] != id) {
            return Err((lane, format!("there is no barrier {id}, or lanes name different ones")));
        }
        let threads = at.threads.map(|threads| warp.registers.get32(threads)[lane as usize]);
        if let Some(threads) = threads
            && (threads == 0 || !threads.is_multiple_of(LANES as u32))
        {
            return Err((lane, format!("barrier {id} for {threads} threads, which is no multiple of {LANES}")));
        }
        let view = warp.release(at.mask, &mut self.time);
        let barrier = &mut self.barriers[id as usize];
        if !barrier.arrivals.is_empty() && barrier.threads != threads {
            let name = |threads: Option<u32>| threads.map_or("all".to_owned(), |threads| threads.to_string());
            let (first, now) = (name(barrier.threads), name(threads));
            return Err((lane, format!("barrier {id} for {now} threads, while it waits for {first}")));
        }
        let reduces = !matches!(at.kind, BarrierKind::Sync | BarrierKind::Arrive);
        if !barrier.arrivals.is_empty() && barrier.reduces != reduces {
            return Err((
                lane,
                format!("barrier {id} with bar.red by some threads and bar.sync or bar.arrive by others"),
            ));
        }
        (barrier.threads, barrier.reduces) = (threads, reduces);
        // An aligned barrier counts warps, whole or not.
        let counted = if at.aligned { LANES as u32 } else { at.mask.count_ones() };
        barrier.voters += at.mask.count_ones();
        barrier.votes += (at.votes & at.mask).count_ones();
        barrier.arrivals.push(Arrival { warp: warp.index, mask: at.mask, pc: at.pc, counted, view });
        self.changed |= 1 << id;
        if at.kind != BarrierKind::Arrive {
            warp.groups[group].state = State::Barrier(id);
        }
        Ok(())
    }

    /// What a strong access of one lane to an address means for the order of other accesses.
    pub fn order(&mut self, warp: &mut Warp, lane: u32, address: u64, shared: bool, how: Strong) {
        let Strong { order, scope, loads, stores, atomic } = how;
        let block = self.block;
        let publishes = stores && (order.releases() || !warp.fenced.is_empty());
        if !publishes && (self.published.is_empty() || !shared) && (shared || !self.any_published()) {
            return;
        }
        let mut device_map;
        let map = if shared {
            &mut self.published
        } else {
            device_map = self.grid.published.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            &mut *device_map
        };
        if loads && let Some(variable) = map.get(&address) {
            let mut seen: Vec<(View, bool)> = Vec::new();
            if let Some((publisher, view)) = &variable.block
                && *publisher == block
            {
                seen.push((view.clone(), true));
            }
            // A narrow load sees what its own block published, however widely.
            if scope == Scope::Device {
                seen.push((variable.device.clone(), false));
            }
            for (view, same_block) in seen {
                if order.acquires() {
                    warp.views.update(1 << lane, warp.alive(), |own| own.acquire(&view, block));
                } else {
                    warp.saw(lane, same_block, address, view);
                }
            }
        }
        if !stores {
            return;
        }
        let mut published: Vec<(View, Scope)> = Vec::new();
        published.extend(warp.fenced_views(lane, scope).map(|(view, scope)| (view.clone(), scope)));
        if order.releases() {
            let view = warp.release(1 << lane, &mut self.time).published(block);
            published.push((view, scope));
        }
        // A plain store begins anew; what an atomic finds there stays in force.
        let exists = map.contains_key(&address);
        if published.is_empty() && !exists {
            return;
        }
        let variable = map.entry(address).or_default();
        if !atomic {
            *variable = SyncVariable::default();
        }
        for (view, scope) in published {
            if scope == Scope::Device && variable.device.includes(&view) {
                continue;
            }
            if scope == Scope::Device {
                variable.device.join_others(&view);
            }
            match &mut variable.block {
                Some((publisher, have)) if *publisher == block => have.join_others(&view),
                other => *other = Some((block, view)),
            }
        }
        if !shared {
            self.grid.any_published.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn any_published(&self) -> bool {
        self.grid.any_published.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// A strong access: how it orders.
#[derive(Debug, Clone, Copy)]
pub struct Strong {
    pub order: Order,
    pub scope: Scope,
    pub loads: bool,
    pub stores: bool,
    /// It is a part of an atomic.
    pub atomic: bool,
}
