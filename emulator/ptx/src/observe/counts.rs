//! Counts of a launch.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::tally::{Moved, Tally};
use crate::ir::Mix;
use crate::launch::Launch;

/// What a launch executed and moved. Bytes are bytes, sectors are 32 of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of shared memory a block, static and dynamic.
    pub shared_bytes_per_block: u32,
    /// Instructions that warps executed.
    pub warp_instructions: u64,
    /// Instructions that lanes executed.
    pub lane_instructions: u64,
    /// Warp instructions by class.
    pub mix: BTreeMap<&'static str, u64>,
    /// Floating-point operations of `mma`, a multiplication and an addition each counted.
    pub tensor_flops: u64,
    pub global_loads: Traffic,
    pub global_stores: Traffic,
    pub global_atomics: Traffic,
    /// Atomic operations of lanes on device memory.
    pub l2_atomics: u64,
    /// Different bytes read, written, and either: what a cache of any size could not avoid. 0 with checks off.
    pub unique_read_bytes: u64,
    pub unique_written_bytes: u64,
    pub unique_bytes: u64,
    pub shared_loads: u64,
    pub shared_stores: u64,
    pub shared_bytes: u64,
    /// Passes over the banks of shared memory, and how many of them conflicts cost.
    pub shared_wavefronts: u64,
    pub bank_conflicts: u64,
    /// Warps' arrivals at barriers of the block.
    pub barriers: u64,
    pub divergent_branches: u64,
    /// By source line and the line it was inlined into, those that were executed.
    pub lines: Vec<LineCounts>,
}

/// Accesses to device memory of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// Warp instructions.
    pub requests: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
    /// Sectors that requests touched.
    pub sectors: u64,
}

/// Counts of one source line.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LineCounts {
    /// `kernels/x.cu:12`
    pub source: String,
    /// The kernel's line that it was inlined into; empty where it is the kernel's own.
    pub called_from: String,
    pub warp_instructions: u64,
    pub requests: u64,
    /// Bytes that lanes asked of device memory.
    pub bytes: u64,
    pub sectors: u64,
    pub shared_wavefronts: u64,
    pub bank_conflicts: u64,
}

impl Counts {
    pub(crate) fn new(launch: &Launch, tally: &Tally) -> Self {
        let program = &launch.kernel.program;
        let mut counts = Counts {
            kernel: launch.kernel.name.clone(),
            grid: launch.grid,
            block: launch.block,
            shared_bytes_per_block: launch.shared_bytes(),
            tensor_flops: tally.tensor_flops,
            barriers: tally.barriers,
            divergent_branches: tally.divergent_branches,
            ..Counts::default()
        };
        let names: BTreeMap<Mix, &str> = Mix::ALL.into_iter().collect();
        // By numbers, and named when there are few left: every instruction is looked up.
        let mut lines: BTreeMap<_, (u32, LineCounts)> = BTreeMap::new();
        let key = |pc: u32| {
            let source = &program.sources[pc as usize];
            let line = if source.file == u32::MAX { source.ptx_line } else { source.line };
            (source.file, line, source.outermost)
        };
        for (pc, (&executed, &lanes)) in tally.executed.iter().zip(&tally.lanes).enumerate() {
            if executed == 0 || program.sources[pc].is_step {
                continue;
            }
            counts.warp_instructions += executed;
            counts.lane_instructions += lanes;
            *counts.mix.entry(names[&program.sources[pc].mix]).or_default() += executed;
            let pc = pc as u32;
            lines.entry(key(pc)).or_insert((pc, LineCounts::default())).1.warp_instructions += executed;
        }
        for site in &tally.sites {
            let traffic = match site.moved {
                Some(Moved::Stored) => &mut counts.global_stores,
                Some(Moved::Atomic) => &mut counts.global_atomics,
                _ => &mut counts.global_loads,
            };
            traffic.requests += site.requests;
            traffic.bytes += site.bytes;
            traffic.sectors += site.sectors;
            counts.l2_atomics += site.atomics;
            counts.shared_loads += site.shared_loads;
            counts.shared_stores += site.shared_stores;
            counts.shared_bytes += site.shared_bytes;
            counts.shared_wavefronts += site.wavefronts;
            counts.bank_conflicts += site.wavefronts - site.ideal_wavefronts;
            if let Some((_, line)) = lines.get_mut(&key(site.pc)) {
                line.requests += site.requests;
                line.bytes += site.bytes;
                line.sectors += site.sectors;
                line.shared_wavefronts += site.wavefronts;
                line.bank_conflicts += site.wavefronts - site.ideal_wavefronts;
            }
        }
        let named = |(pc, line)| {
            let called_from = program.caller(pc).unwrap_or_default();
            LineCounts { source: program.place(pc), called_from, ..line }
        };
        counts.lines = lines.into_values().map(named).collect();
        counts.lines.sort_by(|a, b| (&a.source, &a.called_from).cmp(&(&b.source, &b.called_from)));
        counts
    }

    /// One JSON object on one line.
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_json(&mut json);
        json
    }

    fn write_json(&self, out: &mut String) -> std::fmt::Result {
        let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
        write!(out, "{{\"kernel\":{},\"grid\":[{gx},{gy},{gz}],\"block\":[{bx},{by},{bz}]", quoted(&self.kernel))?;
        let numbers = [
            ("shared_bytes_per_block", u64::from(self.shared_bytes_per_block)),
            ("warp_instructions", self.warp_instructions),
            ("lane_instructions", self.lane_instructions),
            ("tensor_flops", self.tensor_flops),
            ("l2_atomics", self.l2_atomics),
            ("unique_read_bytes", self.unique_read_bytes),
            ("unique_written_bytes", self.unique_written_bytes),
            ("unique_bytes", self.unique_bytes),
            ("shared_loads", self.shared_loads),
            ("shared_stores", self.shared_stores),
            ("shared_bytes", self.shared_bytes),
            ("shared_wavefronts", self.shared_wavefronts),
            ("bank_conflicts", self.bank_conflicts),
            ("barriers", self.barriers),
            ("divergent_branches", self.divergent_branches),
        ];
        for (name, number) in numbers {
            write!(out, ",\"{name}\":{number}")?;
        }
        let traffic = [("loads", self.global_loads), ("stores", self.global_stores), ("atomics", self.global_atomics)];
        for (name, Traffic { requests, bytes, sectors }) in traffic {
            write!(out, ",\"global_{name}\":{{\"requests\":{requests},\"bytes\":{bytes},\"sectors\":{sectors}}}")?;
        }
        out.push_str(",\"mix\":{");
        for (i, (class, count)) in self.mix.iter().enumerate() {
            write!(out, "{}\"{class}\":{count}", if i == 0 { "" } else { "," })?;
        }
        out.push_str("},\"lines\":[");
        for (i, line) in self.lines.iter().enumerate() {
            let LineCounts { source, called_from, .. } = line;
            let comma = if i == 0 { "" } else { "," };
            write!(out, "{comma}{{\"source\":{},\"called_from\":{}", quoted(source), quoted(called_from))?;
            let numbers = [
                ("warp_instructions", line.warp_instructions),
                ("requests", line.requests),
                ("bytes", line.bytes),
                ("sectors", line.sectors),
                ("shared_wavefronts", line.shared_wavefronts),
                ("bank_conflicts", line.bank_conflicts),
            ];
            numbers.iter().try_for_each(|(name, number)| write!(out, ",\"{name}\":{number}"))?;
            out.push('}');
        }
        out.push_str("]}");
        Ok(())
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
