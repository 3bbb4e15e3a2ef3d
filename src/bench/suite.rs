//! Rows of a benchmark: a problem's times beside its floor and its peers'.

use std::time::Duration;

use serde::Serialize;

use super::cases::Info;
use super::ceilings::{Bound, Ceilings};
use super::measure::{Effort, Subject, Timed, Times};
use super::peers::{Peer, PeerTimes};
use super::problem::Problem;
use super::verify::{Verified, verify};
use crate::error::{Error, Result};
use crate::ops::Floor;

/// Turns that ours and the peers take, one after the other, so that a clock that falls meanwhile falls for all.
const ROUNDS: u32 = 2;

/// A problem measured.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The operation.
    pub op: &'static str,
    /// Its sizes.
    pub shape: Problem,
    /// What was measured of ours, or why nothing was.
    #[serde(flatten)]
    pub ours: Ours,
    /// What was measured of others.
    pub peers: Vec<PeerRow>,
}

/// Ours.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Ours {
    /// Measured.
    Measured(Box<Measured>),
    /// Not measured.
    Absent {
        /// Why.
        absent: String,
    },
}

/// An operation of ours, measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// How long it took.
    #[serde(flatten)]
    pub times: Times,
    /// What limits it.
    pub bound: Bound,
    /// Fewest bytes.
    pub floor_bytes: u64,
    /// Fewest FLOPs.
    pub floor_flops: u64,
    /// The time below which it cannot come, from the ceilings of the run.
    pub floor_us: f64,
    /// The floor's time by the median: 1 is perfect.
    pub share_of_floor: f64,
    /// Floor's bytes by the median.
    pub gb_per_s: f64,
    /// Floor's FLOPs by the median.
    pub tflop_per_s: f64,
    /// What was compared with the reference before.
    pub verified: Verified,
}

/// Something else that does the same, measured or not.
#[derive(Debug, Serialize)]
pub struct PeerRow {
    /// What it is: `torch layer_norm`.
    pub peer: String,
    /// How long it took.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
    /// Its median by ours: above 1, ours is faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Why it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
}

/// A device with what it is measured with.
pub struct Bench<'a, B: Timed> {
    /// The backend.
    pub backend: &'a B,
    /// Times it.
    pub stopwatch: B::Stopwatch,
    /// Its limits.
    pub ceilings: Ceilings,
    /// Time to spend on a problem, and on each peer's.
    pub budget: Duration,
}

impl<'a, B: Timed> Bench<'a, B> {
    /// Measures the ceilings.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where times mean nothing; as a launch.
    pub fn new(backend: &'a B, budget: Duration) -> Result<Self> {
        let mut stopwatch = backend.stopwatch()?;
        let ceilings = backend.ceilings(&mut stopwatch)?;
        Ok(Bench { backend, stopwatch, ceilings, budget })
    }

    /// Verifies and measures a problem, in turns with the peers.
    ///
    /// What one problem lacks (memory, a right result) is its row's; the others can still be measured.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], after which nothing can.
    pub fn row(&mut self, info: &Info, problem: &Problem, peers: &mut [Box<dyn Peer>]) -> Result<Row> {
        let (mut rounds, mut others) = (Vec::new(), Vec::new());
        let mut subject = self.subject(info, problem);
        for _ in 0..ROUNDS {
            if let Ok((subject, _)) = &mut subject {
                rounds.push(subject.measure(&mut self.stopwatch, Effort::of(self.budget / ROUNDS))?);
            }
            let round = peers.iter_mut().flat_map(|peer| peer.measure(problem, self.budget / ROUNDS));
            others.push(round.collect::<Vec<_>>());
        }
        let ours = match subject {
            Ok((mut subject, verified)) => {
                Times::join(&rounds).map(|times| self.measured(times, subject.floor(), verified))
            }
            Err(Error::DeviceLost(why)) => return Err(Error::DeviceLost(why)),
            Err(error) => Some(Ours::Absent { absent: error.to_string() }),
        };
        let ours = ours.unwrap_or(Ours::Absent { absent: "nothing was measured".into() });
        let median = if let Ours::Measured(measured) = &ours { Some(measured.times.median_us) } else { None };
        Ok(Row { op: info.op, shape: problem.clone(), peers: join(others, median), ours })
    }

    fn subject(&self, info: &Info, problem: &Problem) -> Result<(Subject<'a, B>, Verified)> {
        let verified = verify(self.backend, info, problem)?;
        Ok((Subject::new(self.backend, &self.stopwatch, problem)?, verified))
    }

    fn measured(&self, times: Times, floor: Floor, verified: Verified) -> Ours {
        let (floor_us, bound) = self.ceilings.floor_us(floor);
        let us = times.median_us;
        Ours::Measured(Box::new(Measured {
            times,
            bound,
            floor_bytes: floor.bytes,
            floor_flops: floor.flops,
            floor_us,
            share_of_floor: floor_us / us,
            gb_per_s: floor.bytes as f64 / us / 1e3,
            tflop_per_s: floor.flops as f64 / us / 1e6,
            verified,
        }))
    }
}

/// The rounds of each peer as one row.
fn join(rounds: Vec<Vec<PeerTimes>>, ours: Option<f64>) -> Vec<PeerRow> {
    let mut names: Vec<String> = Vec::new();
    for PeerTimes { peer, .. } in rounds.iter().flatten() {
        if !names.contains(peer) {
            names.push(peer.clone());
        }
    }
    let row = |peer: String| {
        let of_peer = || rounds.iter().flatten().filter(|times| times.peer == peer);
        let measured: Vec<Times> = of_peer().filter_map(|times| times.outcome.clone().ok()).collect();
        let absent = of_peer().find_map(|times| times.outcome.clone().err());
        // Measured in one round and not in the other, it is not to be trusted.
        let times = if absent.is_none() { Times::join(&measured) } else { None };
        let ratio = times.zip(ours).map(|(times, ours)| times.median_us / ours);
        PeerRow { peer, times, ratio, absent }
    };
    names.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::select;
    use crate::cpu::Cpu;

    /// Twice as slow as it says in the first round, and lost in the second.
    struct Fixed(f64);

    impl Peer for Fixed {
        fn measure(&mut self, _: &Problem, _: Duration) -> Vec<PeerTimes> {
            self.0 *= 2.0;
            let times = Times { median_us: self.0, p10_us: self.0, p90_us: self.0, samples: 1 };
            let lost = if self.0 > 2.0 { Err("lost".into()) } else { Ok(times) };
            vec![
                PeerTimes { peer: "steady".into(), outcome: Ok(times) },
                PeerTimes { peer: "shy".into(), outcome: lost },
            ]
        }
    }

    #[test]
    fn a_row_has_ours_and_the_peers() {
        let cpu = Cpu::<f32>::new();
        let mut bench = Bench {
            backend: &cpu,
            stopwatch: (),
            ceilings: Ceilings { copy_gb_per_s: 1.0, compute_tflop_per_s: 1.0 },
            budget: Duration::ZERO,
        };
        let info = select(&["gelu".into()]).unwrap()[0];
        let row = bench.row(info, &info.small()[0], &mut [Box::new(Fixed(1.0))]).unwrap();
        let Ours::Measured(measured) = &row.ours else { panic!("{row:?}") };
        assert!(measured.verified.error < 1e-6, "{measured:?}");
        assert!(measured.times.samples >= 10 && measured.share_of_floor > 0.0, "{measured:?}");
        let [steady, shy] = &row.peers[..] else { panic!("{row:?}") };
        assert_eq!(steady.times.map(|times| times.median_us), Some(3.0));
        assert_eq!(steady.ratio, Some(3.0 / measured.times.median_us));
        assert_eq!((shy.times, shy.absent.as_deref()), (None, Some("lost")));
    }
}
