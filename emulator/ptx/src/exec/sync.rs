//! Arrivals at barriers of a block, and the order that strong accesses establish.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::barrier::{Arrival, expected};
use super::block_state::BlockState;
use super::sync_variable::SyncVariable;
use super::warp::{State, Warp};
use crate::ir::{BarrierKind, Order, Scope};
use crate::race::clock::View;
use crate::registers::{LANES, Src, each_lane};

/// Operands of a barrier instruction.
pub struct BarrierOperands {
    pub kind: BarrierKind,
    pub aligned: bool,
    pub id: Src,
    pub threads: Option<Src>,
    pub votes: u32,
    pub mask: u32,
    pub pc: u32,
}

/// How a strong access orders other accesses.
#[derive(Debug, Clone, Copy)]
pub struct StrongAccess {
    pub order: Order,
    pub scope: Scope,
    pub loads: bool,
    pub stores: bool,
    /// The access is a part of an atomic.
    pub atomic: bool,
}

impl BlockState<'_> {
    /// Lanes arrive at a barrier. An error is a lane and the message about it.
    pub fn arrive(&mut self, warp: &mut Warp, group: usize, at: BarrierOperands) -> Result<(), (u32, String)> {
        let ids = warp.registers.get32(at.id);
        let lane = at.mask.trailing_zeros();
        let id = ids[lane as usize];
        if id as usize >= self.barriers.len() || each_lane(at.mask).any(|lane| ids[lane as usize] != id) {
            return Err((lane, format!("there is no barrier {id}, or the lanes name different barriers")));
        }
        let threads = at.threads.map(|threads| warp.registers.get32(threads)[lane as usize]);
        if let Some(threads) = threads
            && (threads == 0 || !threads.is_multiple_of(LANES as u32))
        {
            return Err((lane, format!("barrier {id} for {threads} threads, which is not a multiple of {LANES}")));
        }
        let view = warp.release(at.mask, &mut self.time);
        let barrier = &mut self.barriers[id as usize];
        if !barrier.arrivals.is_empty() && barrier.threads != threads {
            let (first, now) = (barrier.expected(), expected(threads));
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
        // An aligned barrier counts whole warps, even if some lanes have exited.
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

    /// Applies the order that a strong access of one lane to an address establishes.
    pub fn order(&mut self, warp: &mut Warp, lane: u32, address: u64, shared: bool, access: StrongAccess) {
        let StrongAccess { order, scope, loads, stores, atomic } = access;
        let block = self.block;
        let publishes = stores && (order.releases() || !warp.fenced.is_empty());
        if !publishes && (self.published.is_empty() || !shared) && (shared || !self.any_published()) {
            return;
        }
        let mut device_map;
        let map = if shared {
            &mut self.published
        } else {
            device_map = self.grid.published.lock().unwrap_or_else(PoisonError::into_inner);
            &mut *device_map
        };
        if loads && let Some(variable) = map.get(&address) {
            for (view, same_block) in variable.observed(block, scope) {
                if order.acquires() {
                    warp.views.update(1 << lane, warp.alive(), |own| own.acquire(&view, block));
                } else {
                    warp.observe(lane, same_block, address, view);
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
        if published.is_empty() && !map.contains_key(&address) {
            return;
        }
        let variable = map.entry(address).or_default();
        // A plain store replaces what was published before; an atomic adds to it.
        if !atomic {
            *variable = SyncVariable::default();
        }
        for (view, scope) in published {
            variable.publish(block, view, scope);
        }
        if !shared {
            self.grid.any_published.store(true, Ordering::Relaxed);
        }
    }

    fn any_published(&self) -> bool {
        self.grid.any_published.load(Ordering::Relaxed)
    }
}
