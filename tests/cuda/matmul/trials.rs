//! Small trials of every matmul kernel, for schedules and mutants.

use emulator_trials::mutate::Kind;
use ironwarp::cuda::matmul::{TileConfig, TileSize};
use ironwarp::ops::Write;

use super::{Case, dgrad, forward, inputs, wgrad};
use crate::common::WRITES;
use crate::common::matmul::EpilogueKind;
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

/// Tile size and shape of a trial.
type Work = (TileSize, Case);

fn forward_trial((tile, case): Work, kinds: &'static [EpilogueKind]) -> Trial {
    let inputs = inputs(case);
    Trial {
        why: case.3,
        kernels: if tile == TileSize::Small { &["matmul_forward_64x64x32"] } else { &["matmul_forward_128x256x32"] },
        run: Box::new(move |cuda| kinds.iter().flat_map(|&kind| forward(&inputs, cuda, kind, tile)).collect()),
    }
}

fn dgrad_trial((tile, case): Work, gelu: bool) -> Trial {
    let inputs = inputs(case);
    Trial {
        why: case.3,
        kernels: if tile == TileSize::Small { &["matmul_dgrad_64x64x32"] } else { &["matmul_dgrad_128x256x32"] },
        run: Box::new(move |cuda| vec![dgrad(&inputs, cuda, gelu, tile)]),
    }
}

fn wgrad_trial((tile, case): Work, parts: usize, write: Write, with_bias: bool) -> Trial {
    let inputs = inputs(case);
    let kernels: &[&[&str]; 2] = match tile {
        TileSize::Small => &[&["matmul_wgrad_64x64x32"], &["matmul_wgrad_64x64x32", "matmul_wgrad_splitk_reduce"]],
        TileSize::Large => &[&["matmul_wgrad_128x256x32"], &["matmul_wgrad_128x256x32", "matmul_wgrad_splitk_reduce"]],
    };
    Trial {
        why: case.3,
        kernels: kernels[usize::from(parts > 1)],
        run: Box::new(move |cuda| wgrad(&inputs, cuda, with_bias, write, TileConfig { tile, split_k: parts }).to_vec()),
    }
}

/// One trial of each kernel that uses every pipeline stage twice, for the schedules.
fn deep_trials() -> Vec<Trial> {
    const WHY: &str = "each pipeline stage used twice";
    let of_tile = |tile| {
        [
            forward_trial((tile, (8, 168, 8, WHY)), &[EpilogueKind::None]),
            dgrad_trial((tile, (8, 8, 168, WHY)), true),
            wgrad_trial((tile, (301, 8, 8, WHY)), 2, Write::Accumulate, true),
        ]
    };
    [TileSize::Small, TileSize::Large].into_iter().flat_map(of_tile).collect()
}

/// Products whose last row, column and K element is in each of those that a thread copies or writes: `edges` of them.
fn edge_trials(tile: TileSize, edges: usize) -> Vec<Trial> {
    const WHY: &str = "the product ends in each of the rows and columns of a thread";
    let (rows, columns) = if tile == TileSize::Small { (8, 32) } else { (4, 64) };
    let k = |i: usize| 8 * (i % 4) + if i % 8 < 4 { 160 } else { 32 };
    let of_edge = |i: usize| {
        let n = rows * i + rows / 2;
        let mut trials = vec![
            forward_trial((tile, (n, k(i), 8 + columns * (i / 4 % 4), WHY)), &[EpilogueKind::None]),
            dgrad_trial((tile, (n, 40, k(i), WHY)), false),
        ];
        // Output channels, rows of this product, are multiples of 8.
        if i < 8 {
            trials.push(wgrad_trial((tile, (k(i) + 1, 40, 8 * (i + 1), WHY)), 1, Write::Accumulate, i % 4 < 2));
        }
        trials
    };
    (0..edges).flat_map(of_edge).collect()
}

fn trials() -> Vec<Trial> {
    const ENDS: &[EpilogueKind] = &[EpilogueKind::BiasGelu, EpilogueKind::BiasResidual];
    const WHY: &str = "one past a tile in every dimension";
    let mut trials = deep_trials();
    for (tile, rows, columns, edges) in [(TileSize::Small, 64, 64, 8), (TileSize::Large, 128, 256, 16)] {
        trials.push(forward_trial((tile, (rows + 1, 168, columns + 8, WHY)), ENDS));
        trials.push(dgrad_trial((tile, (rows + 1, columns + 8, 168, WHY)), true));
        trials.push(wgrad_trial((tile, (161, columns + 8, rows + 8, WHY)), 1, Write::Overwrite, true));
        trials.push(wgrad_trial((tile, (1, 8, 8, "K = 1")), 1, Write::Overwrite, false));
        trials.extend(edge_trials(tile, edges));
    }
    // Edges in the copies that the trials above do not reach, in all stages.
    for (tile, n, oc) in [(TileSize::Small, 40, 40), (TileSize::Large, 72, 200), (TileSize::Large, 8, 72)] {
        trials.push(forward_trial((tile, (n, 168, oc, "the other copies of a tile")), &[EpilogueKind::None]));
    }
    trials.push(dgrad_trial((TileSize::Large, (72, 8, 168, "the other copies of a tile")), false));
    for tile in [TileSize::Small, TileSize::Large] {
        trials.push(wgrad_trial((tile, (33, 8, 16, "dbias of a single warp")), 1, Write::Overwrite, true));
    }
    // Numbers of splits whose last partial sum is in each of the loads that the reduction keeps in flight.
    for (parts, write) in (2..=10).zip(WRITES.into_iter().cycle()) {
        let case = (32 * parts - 5, 8, 8, "a number of splits");
        trials.push(wgrad_trial((TileSize::Small, case), parts, write, parts % 4 < 2));
    }
    trials
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_schedules_agree("matmul", &deep_trials());
}

#[test]
fn mutants_are_killed() {
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(
            6,
            "matmul",
            Kind::SelectSecond,
            "write_stage = write_stage + Tile::STAGE_BYTES == PIPELINE_BYTES",
            "in the prologue, which does not reach the last stage",
        ),
        equivalent(6, "matmul", Kind::ShiftComparison, "while (k_left > 0)", "one more iteration, over zeros"),
        equivalent(
            28,
            "matmul_wgrad",
            Kind::ShiftComparison,
            "const auto in_bounds",
            "rows that no product ends at, as OC is a multiple of 8",
        ),
        equivalent(4, "matmul_wgrad", Kind::NeverLeave, "if (SUM_ROWS && sum_rows)", "row sums that are never stored"),
    ];
    assert_mutants_killed("matmul_sm80", &trials(), EQUIVALENT);
}
