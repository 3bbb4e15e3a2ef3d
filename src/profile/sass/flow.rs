//! The control flow graph of a kernel, and its loops.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Where control continues after an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flow {
    /// At the next instruction.
    Next,
    /// At one of the targets, or also at the next instruction if the jump is conditional.
    Jump { targets: Vec<usize>, conditional: bool },
    /// Nowhere: the thread exits or returns.
    End,
}

/// The instructions of the main loop, in order: the longest innermost loop. A loop that contains no instruction for
/// which `is_work` holds is ignored, so that its instructions count as part of the enclosing loop.
///
/// A loop consists of the instructions on a path from its first instruction back to it (a natural loop). A branch to a
/// lower address is not sufficient: compilers place rarely executed code after the code that it returns to.
pub(super) fn main_loop(flow: &[Flow], is_work: impl Fn(usize) -> bool) -> Option<BTreeSet<usize>> {
    let successors: Vec<Vec<usize>> = (0..flow.len()).map(|at| successors(flow, at)).collect();
    let mut predecessors = vec![Vec::new(); flow.len()];
    for (from, to) in successors.iter().enumerate().flat_map(|(from, to)| to.iter().map(move |&to| (from, to))) {
        predecessors[to].push(from);
    }
    let mut loops: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let walk = Walk::of(&successors);
    for (from, first) in walk.back {
        let body = loops.entry(first).or_insert_with(|| BTreeSet::from([first]));
        let mut waiting = vec![from];
        while let Some(at) = waiting.pop() {
            if walk.seen[at] && body.insert(at) {
                waiting.extend(&predecessors[at]);
            }
        }
    }
    loops.retain(|_, body| body.iter().any(|&at| is_work(at)));
    let innermost = loops.iter().filter(|(first, body)| body.iter().all(|at| at == *first || !loops.contains_key(at)));
    innermost.max_by_key(|(first, body)| (body.len(), Reverse(**first))).map(|(_, body)| body.clone())
}

fn successors(flow: &[Flow], at: usize) -> Vec<usize> {
    let (mut to, falls) = match &flow[at] {
        Flow::Next => (Vec::new(), true),
        Flow::Jump { targets, conditional } => (targets.clone(), *conditional),
        Flow::End => (Vec::new(), false),
    };
    if falls {
        to.push(at + 1);
    }
    // Only padding follows the last instruction.
    to.retain(|&to| to < flow.len());
    to
}

/// A depth-first search from the first instruction.
struct Walk {
    seen: Vec<bool>,
    /// Back edges: those to an instruction on the current path, which close loops.
    back: Vec<(usize, usize)>,
}

impl Walk {
    fn of(successors: &[Vec<usize>]) -> Walk {
        let mut walk = Walk { seen: vec![false; successors.len()], back: Vec::new() };
        if successors.is_empty() {
            return walk;
        }
        let mut on_path = vec![false; successors.len()];
        // An explicit stack, because kernels are too long for recursion: instructions with the number of successors
        // visited.
        let mut path = vec![(0, 0)];
        (walk.seen[0], on_path[0]) = (true, true);
        while let Some((at, taken)) = path.last_mut() {
            let at = *at;
            let Some(&to) = successors[at].get(*taken) else {
                on_path[at] = false;
                path.pop();
                continue;
            };
            *taken += 1;
            if on_path[to] {
                walk.back.push((at, to));
            } else if !walk.seen[to] {
                (walk.seen[to], on_path[to]) = (true, true);
                path.push((to, 0));
            }
        }
        walk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: Flow = Flow::Next;

    fn to(target: usize) -> Flow {
        Flow::Jump { targets: vec![target], conditional: false }
    }

    fn may(target: usize) -> Flow {
        Flow::Jump { targets: vec![target], conditional: true }
    }

    fn found(flow: &[Flow]) -> Option<Vec<usize>> {
        main_loop(flow, |_| true).map(|body| body.into_iter().collect())
    }

    #[test]
    fn a_backward_branch_alone_is_not_a_loop() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[NEXT, may(0), Flow::End]), Some(vec![0, 1]));
        // Rarely executed code after the exit, which branches back.
        assert_eq!(found(&[NEXT, may(4), NEXT, Flow::End, NEXT, to(2)]), None);
        // Two branches to a common target at a lower address than both.
        assert_eq!(found(&[to(3), NEXT, Flow::End, may(1), to(1)]), None);
        // A loop after the exit that is unreachable.
        assert_eq!(found(&[NEXT, Flow::End, NEXT, may(2), Flow::End]), None);
        // Unreachable code after the exit that branches into a loop is not part of the loop.
        assert_eq!(found(&[NEXT, may(0), Flow::End, to(1)]), Some(vec![0, 1]));
        // A branch to the padding, and falling through to it.
        assert_eq!(found(&[may(2), NEXT]), None);
    }

    #[test]
    fn the_longest_innermost_loop_is_found() {
        // The loop 1..=8 contains the loops 2..=3 and 4..=7.
        let nested = [NEXT, NEXT, NEXT, may(2), NEXT, NEXT, NEXT, may(4), may(1), Flow::End];
        assert_eq!(found(&nested), Some(vec![4, 5, 6, 7]));
        // The longest one does no work, as a loop that spins on a flag.
        let second = main_loop(&nested, |at| !(4..=7).contains(&at)).unwrap();
        assert_eq!(second.into_iter().collect::<Vec<_>>(), [2, 3]);
        let outer = main_loop(&nested, |at| at == 8).unwrap();
        assert_eq!(outer.into_iter().collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        // Of two loops of equal length, the first.
        assert_eq!(found(&[NEXT, may(0), NEXT, may(2), Flow::End]), Some(vec![0, 1]));
    }

    #[test]
    fn all_paths_through_a_loop_belong_to_it() {
        // Two paths back to the first instruction, one of them through code after the exit.
        let flow = [NEXT, may(5), may(1), NEXT, Flow::End, NEXT, may(1), Flow::End];
        assert_eq!(found(&flow), Some(vec![1, 2, 5, 6]));
        let switch = Flow::Jump { targets: vec![2, 4], conditional: false };
        assert_eq!(found(&[NEXT, switch, NEXT, to(5), NEXT, may(1), Flow::End]), Some(vec![1, 2, 3, 4, 5]));
    }
}
