//! Graphs: captured work that is instantiated and launched as a whole.

use std::collections::BTreeMap;

use cudarc::driver::sys::CUgraphInstantiateResult::CUDA_GRAPH_INSTANTIATE_SUCCESS;
use cudarc::driver::sys::CUgraphNodeType;
use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED,
};

use crate::boundary::{Buffer, EdgeData, Handle, In, InOut, InstantiateParams, NullStream, Out, OutList};
use crate::driver::{self, Driver, find, find_mut};
use crate::error::{Because, Result, ensure};
use crate::executor;
use crate::export::exports;
use crate::handle::{Kind, new_handle};
use crate::object::event::Recorded;
use crate::object::graph::{Executable, Graph, Node};
use crate::work::Work;

/// Instantiation flags. Automatic freeing, uploading (2) and node priorities (8) have no effect.
const FREES_ON_LAUNCH: u64 = 1;
const FROM_DEVICE: u64 = 4;

impl Driver {
    pub fn add_graph(&mut self, graph: Graph) -> Handle {
        let handle = new_handle(Kind::Graph);
        self.graphs.insert(handle, graph);
        handle
    }

    /// A graph that is not being captured.
    fn own_graph(&self, handle: Handle) -> Result<&Graph> {
        let graph = find(&self.graphs, "graph", handle)?;
        ensure!(!graph.capturing, CUDA_ERROR_ILLEGAL_STATE, "the graph is still being captured");
        Ok(graph)
    }

    fn node(&self, handle: Handle) -> Result<(&Graph, &Node)> {
        let found = self.graphs.values().find_map(|graph| graph.nodes.get(&handle).map(|node| (graph, node)));
        found.ok_or_else(|| CUDA_ERROR_INVALID_HANDLE.because(format!("{handle:#x} is not a node of a live graph")))
    }

    fn instantiate(&mut self, graph: Handle, flags: u64) -> Result<Handle> {
        ensure!(flags & !0xF == 0, CUDA_ERROR_INVALID_VALUE, "instantiation flags {flags:#x} are unknown");
        let both = flags & (FREES_ON_LAUNCH | FROM_DEVICE) == FREES_ON_LAUNCH | FROM_DEVICE;
        ensure!(!both, CUDA_ERROR_INVALID_VALUE, "graphs launched from the device cannot free on launch");
        let known = flags & FROM_DEVICE == 0;
        ensure!(known, CUDA_ERROR_NOT_SUPPORTED, "graphs launched from the device are not emulated");
        let nodes = &self.own_graph(graph)?.nodes;
        let indices: BTreeMap<Handle, usize> = nodes.keys().enumerate().map(|(i, &handle)| (handle, i)).collect();
        let step = |node: &Node| (node.work.clone(), node.needs.iter().map(|need| indices[need]).collect());
        let steps = nodes.values().map(step).collect();
        let handle = new_handle(Kind::Executable);
        self.executables.insert(handle, Executable { steps, flags, last: None });
        Ok(handle)
    }

    /// Queues the work of all nodes at the end of a stream.
    fn launch_graph(&mut self, executable: Handle, stream: Handle) -> Result<()> {
        let Executable { steps, last, .. } = find(&self.executables, "executable graph", executable)?;
        let (steps, last) = (steps.clone(), *last);
        let owner = find(&self.streams, "stream", stream)?;
        let captured = owner.branch.is_some();
        ensure!(!captured, CUDA_ERROR_NOT_SUPPORTED, "launching a graph in a captured stream is not emulated");
        let context = self.healthy(owner.context)?;
        let mut before = self.needs_of_work(stream)?;
        before.extend(last);
        let mut ids = Vec::with_capacity(steps.len());
        for (work, needs) in steps {
            let mut after: Vec<u64> = needs.iter().map(|&need| ids[need]).collect();
            if let Work::Await(event) = work
                && let Recorded::At(operation) = find(&self.events, "event", event)?.recorded
            {
                after.push(operation);
            }
            if needs.is_empty() {
                after.extend(&before);
            }
            let event = if let Work::Event(event) = work { Some(event) } else { None };
            let id = self.queue.add(context, after, work);
            ids.push(id);
            if let Some(event) = event {
                self.event_recorded(event, id)?;
            }
        }
        ids.extend(before);
        let end = self.queue.add(context, ids, Work::Nothing);
        self.set_tail(stream, end)?;
        find_mut(&mut self.executables, "executable graph", executable)?.last = Some(end);
        Ok(())
    }
}

fn launch(executable: Handle, stream: Handle, null: NullStream) -> Result<()> {
    let mut driver = driver::lock()?;
    let stream = driver.stream(stream, null)?;
    driver.launch_graph(executable, stream)?;
    drop(executor::relieve(driver));
    Ok(())
}

/// `cuGraphInstantiateWithParams`
fn instantiate_with(out: Out<Handle>, graph: Handle, params: InOut<InstantiateParams>) -> Result<()> {
    let mut fields = params.get()?;
    let executable = driver::lock()?.instantiate(graph, fields.flags)?;
    (fields.error_node, fields.result) = (0, CUDA_GRAPH_INSTANTIATE_SUCCESS as u32);
    params.set(fields)?;
    out.set(executable)
}

/// `cuGraphInstantiate` with an error log, which is left empty.
fn instantiate_with_log(out: Out<Handle>, graph: Handle, node: Out<Handle>, log: Buffer, size: usize) -> Result<()> {
    let executable = driver::lock()?.instantiate(graph, 0)?;
    node.set_optional(0);
    log.set("", size);
    out.set(executable)
}

/// Returns a list as the functions for graphs do: with a null pointer only its length, otherwise as many elements as the
/// caller provides space for, padded with zeros.
fn fill_list(list: &[Handle], out: OutList<Handle>, count: InOut<usize>) -> Result<()> {
    if !out.is_null() {
        let room = count.get()?;
        let padded: Vec<Handle> = list.iter().copied().chain(std::iter::repeat(0)).take(room).collect();
        out.set(&padded)?;
    }
    count.set(list.len())
}

fn edges(graph: Handle, from: OutList<Handle>, to: OutList<Handle>, count: InOut<usize>) -> Result<()> {
    let driver = driver::lock()?;
    let edges = find(&driver.graphs, "graph", graph)?.edges();
    ensure!(
        from.is_null() == to.is_null(),
        CUDA_ERROR_INVALID_VALUE,
        "only one of the two lists of nodes is a null pointer"
    );
    let (starts, ends): (Vec<Handle>, Vec<Handle>) = edges.into_iter().unzip();
    let room = if from.is_null() { 0 } else { count.get()? };
    fill_list(&starts, from, count)?;
    if !to.is_null() {
        count.set(room)?;
    }
    fill_list(&ends, to, count)
}

fn node_needs(node: Handle, out: OutList<Handle>, count: InOut<usize>) -> Result<()> {
    fill_list(&driver::lock()?.node(node)?.1.needs, out, count)
}

fn node_dependents(node: Handle, out: OutList<Handle>, count: InOut<usize>) -> Result<()> {
    let driver = driver::lock()?;
    let edges = driver.node(node)?.0.edges();
    let dependents: Vec<Handle> = edges.into_iter().filter(|&(from, _)| from == node).map(|(_, to)| to).collect();
    fill_list(&dependents, out, count)
}

/// Writes the data of edges, which is always zero: edges with data are not emulated.
fn no_edge_data(edges: OutList<EdgeData>, count: InOut<usize>) -> Result<()> {
    if !edges.is_null() {
        edges.set(&vec![EdgeData::default(); count.get()?])?;
    }
    Ok(())
}

exports! {
    fn cuGraphCreate(out: Out<Handle>, flags: u32) {
        let mut driver = driver::lock()?;
        ensure!(flags == 0 && !out.is_null(), CUDA_ERROR_INVALID_VALUE, "the flags {flags:#x} are not 0, or the graph is a null pointer");
        out.set(driver.add_graph(Graph::default()))?;
    }

    fn cuGraphDestroy(graph: Handle) {
        let mut driver = driver::lock()?;
        driver.own_graph(graph)?;
        driver.graphs.remove(&graph);
    }

    fn cuGraphClone(out: Out<Handle>, graph: Handle) {
        let mut driver = driver::lock()?;
        let copy = driver.own_graph(graph)?.copy();
        out.set(driver.add_graph(copy))?;
    }

    fn cuGraphAddEmptyNode(out: Out<Handle>, graph: Handle, needs: In<Handle>, count: usize) {
        let mut driver = driver::lock()?;
        let needs = needs.list(count)?;
        let graph = find_mut(&mut driver.graphs, "graph", graph)?;
        ensure!(needs.iter().all(|n| graph.contains(*n)), CUDA_ERROR_INVALID_VALUE, "a node of another graph");
        out.set(graph.add(Work::Nothing, needs))?;
    }

    fn cuGraphInstantiate = cuGraphInstantiate_v2(
        out: Out<Handle>, graph: Handle, node: Out<Handle>, log: Buffer, size: usize
    ) {
        instantiate_with_log(out, graph, node, log, size)?;
    }

    fn cuGraphInstantiateWithFlags(out: Out<Handle>, graph: Handle, flags: u64) {
        let executable = driver::lock()?.instantiate(graph, flags)?;
        out.set(executable)?;
    }

    fn cuGraphInstantiateWithParams / cuGraphInstantiateWithParams_ptsz(
        null; out: Out<Handle>, graph: Handle, params: InOut<InstantiateParams>
    ) {
        // The stream is only used for uploading, which has no effect.
        let _ = null;
        instantiate_with(out, graph, params)?;
    }

    fn cuGraphExecDestroy(executable: Handle) {
        let mut driver = driver::lock()?;
        find(&driver.executables, "executable graph", executable)?;
        driver.executables.remove(&executable);
    }

    fn cuGraphExecGetFlags(executable: Handle, out: Out<u64>) {
        let driver = driver::lock()?;
        out.set(find(&driver.executables, "executable graph", executable)?.flags)?;
    }

    fn cuGraphUpload / cuGraphUpload_ptsz(null; executable: Handle, stream: Handle) {
        let mut driver = driver::lock()?;
        driver.stream(stream, null)?;
        find(&driver.executables, "executable graph", executable)?;
    }

    fn cuGraphLaunch / cuGraphLaunch_ptsz(null; executable: Handle, stream: Handle) {
        launch(executable, stream, null)?;
    }

    fn cuGraphGetNodes(graph: Handle, out: OutList<Handle>, count: InOut<usize>) {
        let driver = driver::lock()?;
        let nodes: Vec<Handle> = find(&driver.graphs, "graph", graph)?.nodes.keys().copied().collect();
        fill_list(&nodes, out, count)?;
    }

    fn cuGraphGetRootNodes(graph: Handle, out: OutList<Handle>, count: InOut<usize>) {
        let driver = driver::lock()?;
        let nodes = &find(&driver.graphs, "graph", graph)?.nodes;
        let roots: Vec<Handle> = nodes.iter().filter(|(_, n)| n.needs.is_empty()).map(|(&h, _)| h).collect();
        fill_list(&roots, out, count)?;
    }

    fn cuGraphGetEdges(graph: Handle, from: OutList<Handle>, to: OutList<Handle>, count: InOut<usize>) {
        edges(graph, from, to, count)?;
    }

    fn cuGraphGetEdges_v2(
        graph: Handle, from: OutList<Handle>, to: OutList<Handle>, data: OutList<EdgeData>, count: InOut<usize>
    ) {
        no_edge_data(data, count)?;
        edges(graph, from, to, count)?;
    }

    fn cuGraphNodeGetType(node: Handle, out: Out<u32>) {
        let driver = driver::lock()?;
        out.set(match driver.node(node)?.1.work {
            Work::Nothing => CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY,
            Work::Event(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_EVENT_RECORD,
            Work::Await(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_WAIT_EVENT,
            Work::Launch(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL,
            Work::Copy(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMCPY,
            Work::Fill(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMSET,
            Work::Free(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_FREE,
            Work::Host(..) | Work::Callback(..) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_HOST,
        } as u32)?;
    }

    fn cuGraphNodeGetDependencies(node: Handle, out: OutList<Handle>, count: InOut<usize>) {
        node_needs(node, out, count)?;
    }

    fn cuGraphNodeGetDependencies_v2(
        node: Handle, out: OutList<Handle>, data: OutList<EdgeData>, count: InOut<usize>
    ) {
        no_edge_data(data, count)?;
        node_needs(node, out, count)?;
    }

    fn cuGraphNodeGetDependentNodes(node: Handle, out: OutList<Handle>, count: InOut<usize>) {
        node_dependents(node, out, count)?;
    }

    fn cuGraphNodeGetDependentNodes_v2(
        node: Handle, out: OutList<Handle>, data: OutList<EdgeData>, count: InOut<usize>
    ) {
        no_edge_data(data, count)?;
        node_dependents(node, out, count)?;
    }
}
