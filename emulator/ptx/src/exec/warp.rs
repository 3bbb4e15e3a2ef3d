//! A warp: its registers, the program counters of its lanes, and what the lanes know of other threads.

use rustc_hash::FxHashMap;

use super::copies::Copies;
use super::grid::{Grid, unflatten};
use crate::ir::{Relation, Scope, Special};
use crate::race::clock::{View, Views};
use crate::registers::{LANES, Lanes32, Registers, each_lane};

/// Lanes at one program counter.
#[derive(Debug, Clone)]
pub struct Group {
    pub pc: u32,
    pub mask: u32,
    /// Program counters of the calls that have not returned.
    pub stack: Vec<u32>,
    pub state: State,
}

/// Whether a group can run, or what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Waits until these lanes have reached the same instruction.
    Converge(u32),
    /// Waits at a `bar.warp.sync` with these members.
    WarpBarrier(u32),
    /// Waits at this barrier of the block.
    Barrier(u32),
}

/// A warp.
pub struct Warp {
    pub index: u32,
    pub registers: Registers,
    /// By tracked register: the lanes that have written it.
    pub defined: Vec<u32>,
    /// Lanes that exist: the last warp of a block may have fewer than 32.
    pub present: u32,
    pub exited: u32,
    pub groups: Vec<Group>,
    /// Time of the warp's accesses: that after its last release.
    pub now: u32,
    pub views: Views,
    /// What the lanes knew at their last fence.
    pub fenced: Vec<Fenced>,
    /// What the lanes have observed through strong loads, and learn at their next fence.
    pub unfenced: Vec<Unfenced>,
    /// By site: (time, epoch id) of its last access to device memory and to shared memory.
    pub epochs: Vec<[(u32, u32); 2]>,
    pub local: Vec<u8>,
    /// A bit for each byte of `local`: whether it was written.
    pub local_written: Vec<u64>,
    pub copies: Copies,
}

/// A fence of some lanes.
pub struct Fenced {
    pub mask: u32,
    pub scope: Scope,
    pub view: View,
}

/// Views that strong loads of a lane have observed.
pub struct Unfenced {
    pub lane: u32,
    /// The publisher is in the same block, so that a fence of block scope suffices.
    pub same_block: bool,
    /// The latest view of each address. They are joined only when a fence needs them, and for most none ever does.
    pub views: FxHashMap<u64, View>,
}

impl Warp {
    pub fn new(grid: &Grid, index: u32) -> Self {
        let program = grid.program;
        let [b32, b64, pred] = program.slots;
        let threads: u32 = grid.launch.block.iter().product();
        let lanes = (threads - index * LANES as u32).min(LANES as u32);
        let local = (program.local_bytes as usize).next_multiple_of(16) * LANES;
        Self {
            index,
            registers: Registers::new(b32, b64, pred),
            defined: vec![0; program.tracked.len()],
            present: u32::MAX >> (LANES as u32 - lanes),
            exited: 0,
            groups: Vec::new(),
            now: 1,
            views: Views::default(),
            fenced: Vec::new(),
            unfenced: Vec::new(),
            epochs: vec![[(0, 0); 2]; program.sites as usize],
            local: vec![0; local],
            local_written: vec![0; local.div_ceil(64)],
            copies: Copies::default(),
        }
    }

    /// Resets the warp to the first instruction of block `block`.
    pub fn start(&mut self, grid: &Grid, block: u32) {
        self.defined.fill(0);
        self.exited = 0;
        self.groups.clear();
        self.groups.push(Group { pc: 0, mask: self.present, stack: Vec::new(), state: State::Ready });
        self.now = 1;
        self.views = Views::default();
        self.fenced.clear();
        self.unfenced.clear();
        self.epochs.fill([(0, 0); 2]);
        self.local_written.fill(0);
        self.copies = Copies::default();
        for &(special, slot) in &grid.program.specials {
            self.registers.b32[slot as usize] = self.special(grid, block, special);
        }
    }

    fn special(&self, grid: &Grid, block: u32, special: Special) -> Lanes32 {
        let launch = grid.launch;
        let uniform = match special {
            Special::Tid(axis) => {
                let first = self.index * LANES as u32;
                return from_lanes(|lane| unflatten(first + lane, launch.block)[axis as usize]);
            }
            Special::LaneId => return from_lanes(|lane| lane),
            Special::LaneMask(relation) => {
                return from_lanes(|lane| {
                    let below = (1u32 << lane) - 1;
                    match relation {
                        Relation::Eq => 1 << lane,
                        Relation::Le => below | 1 << lane,
                        Relation::Lt => below,
                        Relation::Ge => !below,
                        Relation::Gt => !below & !(1 << lane),
                    }
                });
            }
            Special::Ntid(axis) => launch.block[axis as usize],
            Special::Ctaid(axis) => unflatten(block, launch.grid)[axis as usize],
            Special::Nctaid(axis) => launch.grid[axis as usize],
            Special::WarpId => self.index,
            Special::NWarpId => launch.block.iter().product::<u32>().div_ceil(LANES as u32),
            // PTX guarantees only that %smid is below %nsmid.
            Special::SmId => block % grid.limits.multiprocessors,
            Special::NSmId => grid.limits.multiprocessors,
            Special::GridId => grid.number as u32,
            Special::DynamicSharedBytes => launch.dynamic_shared,
            // Shared memory is allocated in units of 128 bytes.
            Special::TotalSharedBytes => launch.shared_bytes().next_multiple_of(128),
            Special::DynamicShared => launch.dynamic_shared_address(),
        };
        [uniform; LANES]
    }

    /// Lanes that have not exited.
    pub fn alive(&self) -> u32 {
        self.present & !self.exited
    }

    pub fn is_ready(&self) -> bool {
        self.groups.iter().any(|group| group.state == State::Ready)
    }

    /// The ready group with the lowest program counter.
    pub fn lowest(&self) -> Option<usize> {
        let ready = self.groups.iter().enumerate().filter(|(_, group)| group.state == State::Ready);
        ready.min_by_key(|(_, group)| group.pc).map(|(index, _)| index)
    }

    /// Merges groups that have the same program counter and wait only for each other.
    pub fn merge(&mut self) {
        let waits = |state| !matches!(state, State::Ready | State::Converge(_));
        let mut i = 0;
        while i < self.groups.len() {
            let mut j = i + 1;
            while j < self.groups.len() {
                let (a, b) = (&self.groups[i], &self.groups[j]);
                if a.pc == b.pc && !waits(a.state) && !waits(b.state) && a.stack == b.stack {
                    let other = self.groups.swap_remove(j);
                    self.groups[i].mask |= other.mask;
                    self.groups[i].state = State::Ready;
                } else {
                    j += 1;
                }
            }
            i += 1;
        }
    }

    /// Ends lanes. Groups that wait for convergence become ready, so that they check again without the exited lanes.
    pub fn exit(&mut self, lanes: u32) {
        self.exited |= lanes;
        for group in &mut self.groups {
            if matches!(group.state, State::Converge(_)) {
                group.state = State::Ready;
            }
        }
    }

    /// The lanes of `mask` release: returns everything that they did and know.
    pub fn release(&mut self, mask: u32, time: &mut u32) -> View {
        let mut view = self.views.merged(mask);
        // What exited lanes did is released by the remaining lanes of the warp.
        if mask | self.exited == self.present {
            view.own.add_warp(self.index, *time);
        } else {
            for lane in each_lane(mask) {
                view.own.add_lane(self.index, lane, *time);
            }
        }
        *time += 1;
        self.now = *time;
        view
    }

    /// Synchronises the lanes of `mask`: afterwards each knows what all of them did before.
    pub fn synchronise(&mut self, mask: u32, time: &mut u32) {
        let view = self.release(mask, time);
        if mask | self.exited == self.present {
            self.views.set(view);
        } else {
            self.views.update(mask, self.alive(), |own| own.merge(&view));
        }
    }

    /// A fence: the lanes learn what they observed through strong loads, and their next strong stores publish what they
    /// did.
    pub fn fence(&mut self, mask: u32, scope: Scope, block: u32, time: &mut u32) {
        let alive = self.alive();
        let learns =
            |unfenced: &mut Unfenced| mask >> unfenced.lane & 1 == 1 && (scope == Scope::Device || unfenced.same_block);
        for unfenced in self.unfenced.extract_if(.., learns) {
            self.views.update(1 << unfenced.lane, alive, |own| {
                unfenced.views.values().for_each(|view| own.acquire(view, block));
            });
        }
        for fenced in &mut self.fenced {
            // A fence replaces older ones of the same or a narrower scope; older ones of a wider scope stay in force.
            if fenced.scope <= scope {
                fenced.mask &= !mask;
            }
        }
        self.fenced.retain(|fenced| fenced.mask != 0);
        // A fence orders each lane's own accesses only, so each lane has an entry of its own.
        for lane in each_lane(mask) {
            let mut view = self.views.of(lane).clone();
            view.own.add_lane(self.index, lane, *time);
            self.fenced.push(Fenced { mask: 1 << lane, scope, view: view.published(block) });
        }
        *time += 1;
        self.now = *time;
    }

    /// A strong load of a lane has observed what was published through an address.
    pub fn observe(&mut self, lane: u32, same_block: bool, address: u64, view: View) {
        let mut of_lane = self.unfenced.iter_mut();
        match of_lane.find(|unfenced| (unfenced.lane, unfenced.same_block) == (lane, same_block)) {
            Some(unfenced) => {
                unfenced.views.insert(address, view);
            }
            None => {
                let views = FxHashMap::from_iter([(address, view)]);
                self.unfenced.push(Unfenced { lane, same_block, views });
            }
        }
    }

    /// What the fences of a lane made ready to publish, each with the scope at which a store of scope `scope` publishes it.
    pub fn fenced_views(&self, lane: u32, scope: Scope) -> impl Iterator<Item = (&View, Scope)> {
        let of_lane = self.fenced.iter().filter(move |fenced| fenced.mask >> lane & 1 == 1);
        of_lane.map(move |fenced| (&fenced.view, fenced.scope.min(scope)))
    }
}

fn from_lanes(value: impl Fn(u32) -> u32) -> Lanes32 {
    std::array::from_fn(|lane| value(lane as u32))
}
