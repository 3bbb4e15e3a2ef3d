//! What a worker counts while it executes.

use super::banks::{sectors, wavefronts};
use crate::ir::Program;
use crate::registers::LANES;

/// The access of one warp instruction to one memory.
#[derive(Clone, Copy)]
pub struct WarpAccess<'a> {
    /// Number of the instruction among those that access memory.
    pub site: u32,
    pub pc: u32,
    /// Lanes that access memory.
    pub mask: u32,
    pub addresses: &'a [u64; LANES],
    /// Bytes per lane.
    pub size: u32,
}

/// How device memory is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficKind {
    Load,
    Store,
    Atomic,
}

/// Counts of one memory instruction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Site {
    pub pc: u32,
    pub traffic: Option<TrafficKind>,
    pub requests: u64,
    pub bytes: u64,
    pub sectors: u64,
    pub atomics: u64,
    pub shared_loads: u64,
    pub shared_stores: u64,
    pub shared_bytes: u64,
    pub wavefronts: u64,
    pub ideal_wavefronts: u64,
}

/// Counts of one worker.
#[derive(Debug)]
pub struct Tally {
    /// By program counter: how many warps executed the instruction.
    pub executed: Vec<u64>,
    /// By program counter: how many lanes executed the instruction.
    pub lanes: Vec<u64>,
    pub sites: Vec<Site>,
    pub barriers: u64,
    pub divergent_branches: u64,
    pub tensor_flops: u64,
}

impl Tally {
    pub fn new(program: &Program) -> Self {
        Self {
            executed: vec![0; program.code.len()],
            lanes: vec![0; program.code.len()],
            sites: vec![Site::default(); program.sites as usize],
            barriers: 0,
            divergent_branches: 0,
            tensor_flops: 0,
        }
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Tally) {
        let sum = |to: &mut [u64], from: &[u64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        sum(&mut self.executed, &other.executed);
        sum(&mut self.lanes, &other.lanes);
        for (to, from) in self.sites.iter_mut().zip(&other.sites) {
            to.pc = to.pc.max(from.pc);
            to.traffic = to.traffic.or(from.traffic);
            to.requests += from.requests;
            to.bytes += from.bytes;
            to.sectors += from.sectors;
            to.atomics += from.atomics;
            to.shared_loads += from.shared_loads;
            to.shared_stores += from.shared_stores;
            to.shared_bytes += from.shared_bytes;
            to.wavefronts += from.wavefronts;
            to.ideal_wavefronts += from.ideal_wavefronts;
        }
        self.barriers += other.barriers;
        self.divergent_branches += other.divergent_branches;
        self.tensor_flops += other.tensor_flops;
    }

    /// Counts an access to device memory.
    pub fn global(&mut self, request: &WarpAccess, traffic: TrafficKind) {
        let site = &mut self.sites[request.site as usize];
        site.pc = request.pc;
        site.traffic = Some(traffic);
        site.requests += u64::from(request.mask != 0);
        site.bytes += u64::from(request.mask.count_ones() * request.size);
        site.sectors += u64::from(sectors(request.mask, request.addresses, request.size));
        if traffic == TrafficKind::Atomic {
            site.atomics += u64::from(request.mask.count_ones());
        }
    }

    /// Counts an access to shared memory.
    pub fn shared(&mut self, request: &WarpAccess, stores: bool) {
        let (fronts, ideal) = wavefronts(request.mask, request.addresses, request.size);
        let site = &mut self.sites[request.site as usize];
        site.pc = request.pc;
        if stores {
            site.shared_stores += 1;
        } else {
            site.shared_loads += 1;
        }
        site.shared_bytes += u64::from(request.mask.count_ones() * request.size);
        site.wavefronts += u64::from(fronts);
        site.ideal_wavefronts += u64::from(ideal);
    }
}
