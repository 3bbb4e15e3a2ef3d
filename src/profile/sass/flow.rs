//! The loops of a kernel: where control can come back to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What an instruction does to control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flow {
    /// On to the next.
    Next,
    /// To one of these; to the next as well if it depends on a predicate.
    Jump { targets: Vec<usize>, conditional: bool },
    /// Nowhere.
    End,
}

/// The instructions of the main loop, in order: of the loops that hold no other, the longest. A loop in which nothing
/// `works` counts as a part of what is around it.
///
/// A loop is what lies on a way from its first instruction back to it. A branch to a lower address alone makes none:
/// compilers put rare cases behind the code that they return to.
pub(super) fn main_loop(flow: &[Flow], works: impl Fn(usize) -> bool) -> Option<BTreeSet<usize>> {
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
    loops.retain(|_, body| body.iter().any(|&at| works(at)));
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
    // What is behind the last instruction is padding.
    to.retain(|&to| to < flow.len());
    to
}

/// Depth first from the first instruction.
struct Walk {
    seen: Vec<bool>,
    /// Edges to an instruction that is on the way to their beginning: those that close loops.
    back: Vec<(usize, usize)>,
}

impl Walk {
    fn of(successors: &[Vec<usize>]) -> Walk {
        let mut walk = Walk { seen: vec![false; successors.len()], back: Vec::new() };
        if successors.is_empty() {
            return walk;
        }
        let mut on_the_way = vec![false; successors.len()];
        // Each with how many of its successors have been taken; kernels are too long for recursion.
        let mut way = vec![(0, 0)];
        (walk.seen[0], on_the_way[0]) = (true, true);
        while let Some((at, taken)) = way.last_mut() {
            let at = *at;
            let Some(&to) = successors[at].get(*taken) else {
                on_the_way[at] = false;
                way.pop();
                continue;
            };
            *taken += 1;
            if on_the_way[to] {
                walk.back.push((at, to));
            } else if !walk.seen[to] {
                (walk.seen[to], on_the_way[to]) = (true, true);
                way.push((to, 0));
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
    fn a_way_back_is_no_loop_unless_it_is_one() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[NEXT, may(0), Flow::End]), Some(vec![0, 1]));
        // A rare case behind the end, which returns.
        assert_eq!(found(&[NEXT, may(4), NEXT, Flow::End, NEXT, to(2)]), None);
        // Two branches that meet before both.
        assert_eq!(found(&[to(3), NEXT, Flow::End, may(1), to(1)]), None);
        // Nothing comes to a loop behind the end.
        assert_eq!(found(&[NEXT, Flow::End, NEXT, may(2), Flow::End]), None);
        // Nothing comes to what would go into a loop from behind the end, either.
        assert_eq!(found(&[NEXT, may(0), Flow::End, to(1)]), Some(vec![0, 1]));
        // To the padding, and off the end.
        assert_eq!(found(&[may(2), NEXT]), None);
    }

    #[test]
    fn the_longest_of_the_innermost() {
        // 1..=8 holds 2..=3 and 4..=7.
        let nested = [NEXT, NEXT, NEXT, may(2), NEXT, NEXT, NEXT, may(4), may(1), Flow::End];
        assert_eq!(found(&nested), Some(vec![4, 5, 6, 7]));
        // As waiting is, or filling with zeros.
        let second = main_loop(&nested, |at| !(4..=7).contains(&at)).unwrap();
        assert_eq!(second.into_iter().collect::<Vec<_>>(), [2, 3]);
        let outer = main_loop(&nested, |at| at == 8).unwrap();
        assert_eq!(outer.into_iter().collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        // The first of two alike.
        assert_eq!(found(&[NEXT, may(0), NEXT, may(2), Flow::End]), Some(vec![0, 1]));
    }

    #[test]
    fn ways_through_a_loop_belong_to_it() {
        // Two ways back, one of them by what lies behind the end.
        let flow = [NEXT, may(5), may(1), NEXT, Flow::End, NEXT, may(1), Flow::End];
        assert_eq!(found(&flow), Some(vec![1, 2, 5, 6]));
        let switch = Flow::Jump { targets: vec![2, 4], conditional: false };
        assert_eq!(found(&[NEXT, switch, NEXT, to(5), NEXT, may(1), Flow::End]), Some(vec![1, 2, 3, 4, 5]));
    }
}
