//! Exchange of values between the lanes of a warp: shuffles, votes, matches and reductions.

use super::fault::Fault;
use super::warp::Warp;
use crate::ir::{Op, ReduxOp, ShuffleMode, VoteMode};
use crate::observe::Check;
use crate::registers::{LANES, Lanes32, Src, each_lane, lanes_where};

/// Result of a shuffle where PTX leaves it undefined: a value that is conspicuous as a number and as an index.
const UNDEFINED: u32 = 0xCBCB_CBCB;

impl Warp {
    /// The lanes that the running lanes of `mask` name as members, all of which must execute the instruction.
    pub fn members(&self, members: Src, mask: u32) -> Result<u32, Fault> {
        let named = self.registers.get32(members);
        let mut all = 0;
        for lane in each_lane(mask) {
            let members = named[lane as usize];
            if members >> lane & 1 == 0 {
                return Err(Fault::operand(
                    lane,
                    format!("the member mask {members:#010x} leaves out the lane itself"),
                ));
            }
            let of_others = each_lane(members & mask).map(|other| named[other as usize]);
            if let Some(other) = of_others.into_iter().find(|&other| other != members) {
                let message = format!("the member masks of two lanes disagree: {members:#010x} and {other:#010x}");
                return Err(Fault::operand(lane, message));
            }
            all |= members;
        }
        Ok(all & self.alive())
    }

    /// Executes an exchange among the lanes of `mask`, each of them with the members that it names.
    pub fn exchange(&mut self, op: &Op, mask: u32) -> Result<(), Fault> {
        match *op {
            Op::Shuffle { mode, to, in_range, value, lane, clamp, members } => {
                let named = self.registers.get32(members);
                let (values, picks, clamps) =
                    (self.registers.get32(value), self.registers.get32(lane), self.registers.get32(clamp));
                let mut result: Lanes32 = [0; LANES];
                let mut inside = 0;
                for lane in each_lane(mask) {
                    let (source, fits) = shuffle_source(mode, lane, picks[lane as usize], clamps[lane as usize]);
                    let members = named[lane as usize];
                    // All members that have not exited execute the instruction, so a missing one has exited.
                    if members & !mask & 1 << source != 0 {
                        let message = format!("shfl from lane {source}, a member that has exited or does not exist");
                        return Err(Fault::new(Check::Initialised, lane, message));
                    }
                    // The value of a lane that is not a member is undefined, which is an error only where it is used.
                    result[lane as usize] =
                        if members >> source & 1 == 1 { values[source as usize] } else { UNDEFINED };
                    inside |= u32::from(fits) << lane;
                }
                self.registers.set32(to, mask, &result);
                if let Some(slot) = in_range {
                    self.registers.set_pred(slot, mask, inside);
                }
            }
            Op::Vote { mode, to, predicate, negated, members } => {
                let named = self.registers.get32(members);
                let votes = self.registers.get_pred(predicate) ^ if negated { u32::MAX } else { 0 };
                let mut ballots: Lanes32 = [0; LANES];
                let mut outcomes = 0;
                for lane in each_lane(mask) {
                    let members = named[lane as usize] & mask;
                    let votes = votes & members;
                    ballots[lane as usize] = votes;
                    let outcome = match mode {
                        VoteMode::All => votes == members,
                        VoteMode::Any | VoteMode::Ballot => votes != 0,
                        VoteMode::Uniform => votes == 0 || votes == members,
                    };
                    outcomes |= u32::from(outcome) << lane;
                }
                match mode {
                    VoteMode::Ballot => self.registers.set32(to, mask, &ballots),
                    _ => self.registers.set_pred(to, mask, outcomes),
                }
            }
            Op::Match { all, wide, to, matched, value, members } => {
                let named = self.registers.get32(members);
                let values =
                    if wide { self.registers.get64(value) } else { self.registers.get32(value).map(u64::from) };
                let mut result: Lanes32 = [0; LANES];
                let mut full = 0;
                for lane in each_lane(mask) {
                    let members = named[lane as usize] & mask;
                    let equal = lanes_where(members, |other| values[other as usize] == values[lane as usize]);
                    result[lane as usize] = if all && equal != members { 0 } else { equal };
                    full |= u32::from(equal == members) << lane;
                }
                self.registers.set32(to, mask, &result);
                if let Some(slot) = matched {
                    self.registers.set_pred(slot, mask, full);
                }
            }
            Op::Redux { op, to, value, members } => {
                let (named, values) = (self.registers.get32(members), self.registers.get32(value));
                let mut result: Lanes32 = [0; LANES];
                for lane in each_lane(mask) {
                    let members = each_lane(named[lane as usize] & mask).map(|lane| values[lane as usize]);
                    result[lane as usize] = members.reduce(|a, b| reduce(op, a, b)).unwrap_or(0);
                }
                self.registers.set32(to, mask, &result);
            }
            Op::Elect { to, elected, members } => {
                let named = self.registers.get32(members);
                let leaders: Lanes32 = named.map(|members| (members & mask).trailing_zeros());
                let elected_lanes = lanes_where(mask, |lane| leaders[lane as usize] == lane);
                if let Some(slot) = to {
                    self.registers.set32(slot, mask, &leaders);
                }
                self.registers.set_pred(elected, mask, elected_lanes);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The lane that a lane reads, and whether it lies within the reading lane's segment (PTX ISA, `shfl.sync`).
fn shuffle_source(mode: ShuffleMode, lane: u32, pick: u32, clamp: u32) -> (u32, bool) {
    let (pick, limit, segment) = (pick & 31, clamp & 31, clamp >> 8 & 31);
    let (low, high) = (lane & segment, lane & segment | limit & !segment);
    let (source, fits) = match mode {
        ShuffleMode::Up => (lane.wrapping_sub(pick), lane as i32 - pick as i32 >= high as i32),
        ShuffleMode::Down => (lane + pick, lane + pick <= high),
        ShuffleMode::Butterfly => (lane ^ pick, lane ^ pick <= high),
        ShuffleMode::Index => (low | pick & !segment, low | pick & !segment <= high),
    };
    (if fits { source & 31 } else { lane }, fits)
}

fn reduce(op: ReduxOp, a: u32, b: u32) -> u32 {
    match op {
        ReduxOp::Add => a.wrapping_add(b),
        ReduxOp::MinU => a.min(b),
        ReduxOp::MaxU => a.max(b),
        ReduxOp::MinS => (a as i32).min(b as i32) as u32,
        ReduxOp::MaxS => (a as i32).max(b as i32) as u32,
        ReduxOp::And => a & b,
        ReduxOp::Or => a | b,
        ReduxOp::Xor => a ^ b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_stay_in_their_segment() {
        use ShuffleMode::*;
        // The clamp operands that CUDA's intrinsics use: 0x1f, and 0 for up; segments of 8 lanes set 0x18 in bits 8–12.
        assert_eq!(shuffle_source(Butterfly, 5, 16, 0x1f), (21, true));
        assert_eq!(shuffle_source(Down, 30, 4, 0x1f), (30, false));
        assert_eq!(shuffle_source(Up, 3, 4, 0), (3, false));
        assert_eq!(shuffle_source(Up, 4, 4, 0), (0, true));
        assert_eq!(shuffle_source(Index, 9, 2, 0x181f), (10, true));
        assert_eq!(shuffle_source(Down, 13, 4, 0x181f), (13, false));
        assert_eq!(shuffle_source(Up, 9, 2, 0x1800), (9, false));
    }
}
