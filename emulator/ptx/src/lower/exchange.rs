//! Lowers the instructions that exchange values between the lanes of a warp.

use super::state::{Lowering, Result};
use crate::ast::Operand;
use crate::ir::{Op, ReduxOp, ShuffleMode, VoteMode};
use crate::registers::Class;

impl Lowering<'_> {
    pub(super) fn exchange(&mut self, opcode: &[&str], operands: &[Operand]) -> Result<bool> {
        match (opcode, operands) {
            (["shfl", "sync", mode, "b32"], [to, value, lane, clamp, members]) => {
                let mode = match *mode {
                    "up" => ShuffleMode::Up,
                    "down" => ShuffleMode::Down,
                    "bfly" => ShuffleMode::Butterfly,
                    "idx" => ShuffleMode::Index,
                    _ => return Ok(false),
                };
                let (to, in_range) = self.pair(Class::B32, to)?;
                let value = self.source(Class::B32, value)?;
                let lane = self.source(Class::B32, lane)?;
                let clamp = self.source(Class::B32, clamp)?;
                let members = self.source(Class::B32, members)?;
                self.emit(Op::Shuffle { mode, to, in_range, value, lane, clamp, members });
            }
            (["vote", "sync", mode, ty], [to, predicate, members]) => {
                let (mode, class) = match (*mode, *ty) {
                    ("all", "pred") => (VoteMode::All, Class::Pred),
                    ("any", "pred") => (VoteMode::Any, Class::Pred),
                    ("uni", "pred") => (VoteMode::Uniform, Class::Pred),
                    ("ballot", "b32") => (VoteMode::Ballot, Class::B32),
                    _ => return Ok(false),
                };
                let to = self.result(class, to)?;
                let (predicate, negated) = self.predicate(predicate)?;
                let members = self.source(Class::B32, members)?;
                self.emit(Op::Vote { mode, to, predicate, negated, members });
            }
            (["match", mode @ ("any" | "all"), "sync", ty @ ("b32" | "b64")], [to, value, members]) => {
                let (all, wide) = (*mode == "all", *ty == "b64");
                let (to, matched) = self.pair(Class::B32, to)?;
                let value = self.source(if wide { Class::B64 } else { Class::B32 }, value)?;
                let members = self.source(Class::B32, members)?;
                self.emit(Op::Match { all, wide, to, matched, value, members });
            }
            (["redux", "sync", op, ty], [to, value, members]) => {
                let op = match (*op, *ty) {
                    ("add", "u32" | "s32") => ReduxOp::Add,
                    ("min", "u32") => ReduxOp::MinU,
                    ("max", "u32") => ReduxOp::MaxU,
                    ("min", "s32") => ReduxOp::MinS,
                    ("max", "s32") => ReduxOp::MaxS,
                    ("and", "b32") => ReduxOp::And,
                    ("or", "b32") => ReduxOp::Or,
                    ("xor", "b32") => ReduxOp::Xor,
                    _ => return Ok(false),
                };
                let to = self.result(Class::B32, to)?;
                let value = self.source(Class::B32, value)?;
                let members = self.source(Class::B32, members)?;
                self.emit(Op::Redux { op, to, value, members });
            }
            (["activemask", "b32"], [to]) => {
                let to = self.result(Class::B32, to)?;
                self.emit(Op::ActiveMask { to });
            }
            (["elect", "sync"], [Operand::Pair(to, elected), members]) => {
                let to = match **to {
                    Operand::Sink => None,
                    ref to => Some(self.result(Class::B32, to)?),
                };
                let elected = self.result(Class::Pred, elected)?;
                let members = self.source(Class::B32, members)?;
                self.emit(Op::Elect { to, elected, members });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `d|p`, or `d` alone.
    fn pair(&mut self, class: Class, operand: &Operand) -> Result<(u32, Option<u32>)> {
        match operand {
            Operand::Pair(first, second) => {
                let second = match **second {
                    Operand::Sink => None,
                    ref second => Some(self.result(Class::Pred, second)?),
                };
                Ok((self.result(class, first)?, second))
            }
            other => Ok((self.result(class, other)?, None)),
        }
    }
}
