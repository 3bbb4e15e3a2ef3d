//! Sums the tallies of a launch into its counts.

use std::collections::BTreeMap;

use emulator_counts::{Counts, LineCounts};

use super::tally::{Tally, TrafficKind};
use crate::ir::{Mix, Program};

/// Sums the tallies of a program's execution by kind of access, class of instruction and source line. The fields that
/// describe the launch are left empty.
pub(crate) fn count(program: &Program, tally: &Tally) -> Counts {
    let mut counts = Counts {
        tensor_flops: tally.tensor_flops,
        barriers: tally.barriers,
        divergent_branches: tally.divergent_branches,
        ..Counts::default()
    };
    let mut mix: BTreeMap<Mix, u64> = BTreeMap::new();
    // Keyed by numbers, because every instruction is looked up; the names are made for the few lines that are left.
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
        *mix.entry(program.sources[pc].mix).or_default() += executed;
        let pc = pc as u32;
        lines.entry(key(pc)).or_insert((pc, LineCounts::default())).1.warp_instructions += executed;
    }
    for site in &tally.sites {
        let traffic = match site.traffic {
            Some(TrafficKind::Store) => &mut counts.global_stores,
            Some(TrafficKind::Atomic) => &mut counts.global_atomics,
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
    counts.mix = Mix::ALL.into_iter().filter_map(|(class, name)| Some((name.to_owned(), *mix.get(&class)?))).collect();
    let named = |(pc, line)| {
        let called_from = program.caller(pc).unwrap_or_default();
        LineCounts { source: program.source(pc), called_from, ..line }
    };
    counts.lines = lines.into_values().map(named).collect();
    counts.lines.sort_by(|a, b| (&a.source, &a.called_from).cmp(&(&b.source, &b.called_from)));
    counts
}
