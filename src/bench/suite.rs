//! Rows of a benchmark: a problem's times, compared with its floor and with its peers' times.

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

/// Rounds, each of which measures our operation and then every peer, so that a change of the clock frequency during the
/// benchmark affects all of them.
const ROUNDS: u32 = 2;

/// The measurements of one problem.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The operation.
    pub op: &'static str,
    /// The sizes.
    pub shape: Problem,
    /// The measurement of our operation, or why there is none.
    #[serde(flatten)]
    pub ours: Ours,
    /// The measurements of the peers.
    pub peers: Vec<PeerRow>,
}

/// The measurement of our operation, or why there is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Ours {
    /// Measured.
    Measured(Box<Measured>),
    /// Not measured.
    Absent {
        /// The reason.
        absent: String,
    },
}

/// The measurement of our operation.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// The times.
    #[serde(flatten)]
    pub times: Times,
    /// Whether the floor is set by memory or by arithmetic.
    pub bound: Bound,
    /// Minimum bytes to and from memory.
    pub floor_bytes: u64,
    /// Minimum FLOPs.
    pub floor_flops: u64,
    /// Minimum time in microseconds, from the minimum bytes and FLOPs and the ceilings of the run.
    pub floor_us: f64,
    /// `floor_us` divided by the median time: 1 is optimal.
    pub share_of_floor: f64,
    /// Minimum bytes divided by the median time, in GB/s.
    pub gb_per_s: f64,
    /// Minimum FLOPs divided by the median time, in TFLOP/s.
    pub tflop_per_s: f64,
    /// The comparison with the reference that came before the measurement.
    pub verified: Verified,
}

/// The measurement of a peer, or why there is none.
#[derive(Debug, Serialize)]
pub struct PeerRow {
    /// The peer's name: `torch layer_norm`.
    pub peer: String,
    /// The times.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
    /// The peer's median time divided by ours: above 1, ours is faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Why the peer was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
}

/// A backend and what its benchmark needs.
pub struct Bench<'a, B: Timed> {
    /// The backend.
    pub backend: &'a B,
    /// What times the backend.
    pub stopwatch: B::Stopwatch,
    /// The measured peak rates of its device.
    pub ceilings: Ceilings,
    /// Time to spend on a problem, and on each peer of it.
    pub budget: Duration,
}

impl<'a, B: Timed> Bench<'a, B> {
    /// Creates the stopwatch and measures the ceilings.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on a device whose times are meaningless; errors of a launch.
    pub fn new(backend: &'a B, budget: Duration) -> Result<Self> {
        let mut stopwatch = backend.stopwatch()?;
        let ceilings = backend.ceilings(&mut stopwatch)?;
        Ok(Bench { backend, stopwatch, ceilings, budget })
    }

    /// Verifies a problem and measures it, interleaved with the peers.
    ///
    /// If one problem fails (out of memory, a wrong result), its row says why, and other problems can still be
    /// measured.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], after which nothing can be measured.
    pub fn row(&mut self, info: &Info, problem: &Problem, peers: &mut [Box<dyn Peer>]) -> Result<Row> {
        let (mut rounds, mut peer_rounds) = (Vec::new(), Vec::new());
        let mut subject = self.subject(info, problem);
        for _ in 0..ROUNDS {
            if let Ok((subject, _)) = &mut subject {
                rounds.push(subject.measure(&mut self.stopwatch, Effort::of(self.budget / ROUNDS))?);
            }
            let round = peers.iter_mut().flat_map(|peer| peer.measure(problem, self.budget / ROUNDS));
            peer_rounds.push(round.collect::<Vec<_>>());
        }
        let ours = match subject {
            Ok((mut subject, verified)) => {
                Times::combine(&rounds).map(|times| self.measured(times, subject.floor(), verified))
            }
            Err(Error::DeviceLost(why)) => return Err(Error::DeviceLost(why)),
            Err(error) => Some(Ours::Absent { absent: error.to_string() }),
        };
        let ours = ours.unwrap_or(Ours::Absent { absent: "nothing was measured".into() });
        let median = if let Ours::Measured(measured) = &ours { Some(measured.times.median_us) } else { None };
        Ok(Row { op: info.op, shape: problem.clone(), peers: combine_peers(peer_rounds, median), ours })
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

/// Combines the rounds of each peer into one row.
fn combine_peers(rounds: Vec<Vec<PeerTimes>>, ours: Option<f64>) -> Vec<PeerRow> {
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
        // A peer that was measured in only one of the rounds is not reliable.
        let times = if absent.is_none() { Times::combine(&measured) } else { None };
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

    /// A peer whose time doubles each round. Its second kernel is measured in the first round and fails in the second.
    struct Fixed(f64);

    impl Peer for Fixed {
        fn measure(&mut self, _: &Problem, _: Duration) -> Vec<PeerTimes> {
            self.0 *= 2.0;
            let times = Times { median_us: self.0, p10_us: self.0, p90_us: self.0, samples: 1 };
            let lost = if self.0 > 2.0 { Err("lost".into()) } else { Ok(times) };
            vec![
                PeerTimes { peer: "steady".into(), outcome: Ok(times) },
                PeerTimes { peer: "failing".into(), outcome: lost },
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
        let [steady, failing] = &row.peers[..] else { panic!("{row:?}") };
        assert_eq!(steady.times.map(|times| times.median_us), Some(3.0));
        assert_eq!(steady.ratio, Some(3.0 / measured.times.median_us));
        assert_eq!((failing.times, failing.absent.as_deref()), (None, Some("lost")));
    }
}
