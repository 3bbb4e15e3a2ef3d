//! Graphs and executable graphs.

use std::collections::{BTreeMap, BTreeSet};

use crate::boundary::Handle;
use crate::handle::{Kind, new_handle};
use crate::work::Work;

/// A graph. The handle of a node is larger than those of the nodes that it depends on.
#[derive(Debug, Default, Clone)]
pub struct Graph {
    pub nodes: BTreeMap<Handle, Node>,
    /// The graph is still being captured, so the program may not use it.
    pub capturing: bool,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub work: Work,
    pub needs: Vec<Handle>,
}

/// An instantiated graph.
#[derive(Debug)]
pub struct Executable {
    /// The work of each node, and the indices of the nodes that it depends on.
    pub steps: Vec<(Work, Vec<usize>)>,
    pub flags: u64,
    /// The last operation of the last launch: launches of one executable graph do not overlap.
    pub last: Option<u64>,
}

impl Graph {
    pub fn capturing() -> Self {
        Self { nodes: BTreeMap::new(), capturing: true }
    }

    /// Marks the capture as ended.
    pub fn done(&mut self) {
        self.capturing = false;
    }

    pub fn add(&mut self, work: Work, needs: Vec<Handle>) -> Handle {
        let handle = new_handle(Kind::Node);
        self.nodes.insert(handle, Node { work, needs });
        handle
    }

    pub fn contains(&self, node: Handle) -> bool {
        self.nodes.contains_key(&node)
    }

    /// The nodes and all nodes that they depend on.
    pub fn closure(&self, nodes: &[Handle]) -> BTreeSet<Handle> {
        let mut found = BTreeSet::new();
        let mut open = nodes.to_vec();
        while let Some(handle) = open.pop() {
            if let Some(node) = self.nodes.get(&handle)
                && found.insert(handle)
            {
                open.extend(&node.needs);
            }
        }
        found
    }

    pub fn edges(&self) -> Vec<(Handle, Handle)> {
        self.nodes.iter().flat_map(|(&to, node)| node.needs.iter().map(move |&from| (from, to))).collect()
    }

    /// A copy of the graph with new nodes.
    pub fn copy(&self) -> Self {
        let names: BTreeMap<Handle, Handle> = self.nodes.keys().map(|&old| (old, new_handle(Kind::Node))).collect();
        let copy = |(old, node): (&Handle, &Node)| {
            let needs = node.needs.iter().map(|need| names[need]).collect();
            (names[old], Node { work: node.work.clone(), needs })
        };
        Self { nodes: self.nodes.iter().map(copy).collect(), capturing: false }
    }
}
