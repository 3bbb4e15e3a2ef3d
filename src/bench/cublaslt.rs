//! cuBLASLt, NVIDIA's matmul library, as a peer.
//!
//! It is measured at its best: each algorithm that it proposes is timed and the fastest is kept, its own fused
//! epilogues are used, and the workspace is 32 MiB. It is measured as the operations are, on the same operands and from
//! a cold L2 cache. It does less work in two respects: it overwrites a bias gradient, where the operation adds to it,
//! and its algorithms may round partial sums to the output's type.

mod gemm;
mod library;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

use self::gemm::{GemmCase, gemm_case};
use self::library::{Algorithm, Library, Plan};
use super::cases::{self, Info, Output, Prepared};
use super::measure::{Effort, Subject, Times};
use super::peers::{Peer, PeerTimes};
use super::problem::Problem;
use super::verify::compare;
use crate::cpu::Cpu;
use crate::cuda::Cuda;
use crate::cuda::runtime::timing::Stopwatch;
use crate::error::{Error, Result};
use crate::ops::Floor;

/// Runs of an algorithm before the choice. The fastest counts, because the first may load the kernel.
const RUNS_PER_ALGORITHM: usize = 4;

/// cuBLASLt on a device.
pub struct CublasLt {
    cuda: Cuda,
    library: Rc<Library>,
    stopwatch: Stopwatch,
    /// The fastest algorithm of each problem that was measured.
    fastest: HashMap<Problem, Algorithm>,
    /// For each problem that was compared with the reference: why the result is wrong, if it is.
    verified: HashMap<Problem, Result<(), String>>,
    /// The library's version.
    pub version: String,
}

impl CublasLt {
    /// Loads the library.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not installed, and on the emulated device, which cannot run its kernels.
    pub fn new(cuda: &Cuda) -> Result<Self> {
        let properties = cuda.device().properties();
        if properties.is_emulated() {
            let name = &properties.name;
            return Err(Error::Unavailable(format!("no cuBLASLt: {name} cannot run its kernels")));
        }
        let library = Rc::new(Library::load(cuda)?);
        let (version, stopwatch) = (library.version()?, Stopwatch::new(cuda)?);
        let (fastest, verified) = (HashMap::new(), HashMap::new());
        Ok(CublasLt { cuda: cuda.clone(), library, stopwatch, fastest, verified, version })
    }

    fn times(&mut self, info: &Info, problem: &Problem, budget: Duration) -> Result<Times> {
        let CublasLt { cuda, library, stopwatch, fastest, verified, .. } = self;
        let shape = info.for_reference(problem);
        let outcome = match verified.get(&shape) {
            Some(known) => known.clone(),
            None => {
                let outcome = verify(cuda, library, &shape).map_err(|error| error.to_string());
                verified.entry(shape).or_insert(outcome).clone()
            }
        };
        outcome.map_err(Error::Invalid)?;
        let (plan, first) = plan_and_case(cuda, library, problem)?;
        let mut first = Some(first);
        let mut subject = Subject::of(cuda, stopwatch, |seed| {
            let case = first.take().map_or_else(|| gemm_case(cuda, problem, seed), Ok)?;
            Ok(Box::new(CublasLtCase { case, plan: plan.clone() }))
        })?;
        match fastest.entry(problem.clone()) {
            Entry::Occupied(known) => plan.chosen.set(*known.get()),
            Entry::Vacant(unknown) => {
                unknown.insert(choose(&plan, &mut subject, stopwatch)?);
            }
        }
        subject.measure(stopwatch, Effort::of(budget))
    }
}

impl Peer for CublasLt {
    fn measure(&mut self, problem: &Problem, budget: Duration) -> Vec<PeerTimes> {
        let matmul = cases::ALL.iter().find(|info| info.op == problem.op && info.stem == "matmul");
        let outcome = matmul.map(|info| self.times(info, problem, budget).map_err(|error| error.to_string()));
        outcome.map(|outcome| PeerTimes { peer: "cublaslt".into(), outcome }).into_iter().collect()
    }
}

/// A matmul case that the library computes.
struct CublasLtCase {
    case: Box<dyn GemmCase<Cuda>>,
    plan: Rc<Plan>,
}

impl Prepared<Cuda> for CublasLtCase {
    fn floor(&mut self) -> Floor {
        self.case.floor()
    }

    fn run(&mut self, _: &Cuda) -> Result<()> {
        self.plan.run(self.case.gemm()?)
    }

    fn outputs(&self, backend: &Cuda) -> Result<Vec<Output>> {
        self.case.outputs(backend)
    }
}

/// A problem's first set of operands, and the plan for all sets.
fn plan_and_case(cuda: &Cuda, library: &Rc<Library>, problem: &Problem) -> Result<(Rc<Plan>, Box<dyn GemmCase<Cuda>>)> {
    let mut case = gemm_case(cuda, problem, 1)?;
    Ok((Rc::new(Plan::new(library, case.gemm()?)?), case))
}

/// Compares the library's result with the reference of the operation.
fn verify(cuda: &Cuda, library: &Rc<Library>, shape: &Problem) -> Result<()> {
    let (plan, case) = plan_and_case(cuda, library, shape)?;
    let reference = &mut *gemm_case(&Cpu::<f64>::new(), shape, 1)?;
    compare(shape, cuda, &mut CublasLtCase { case, plan }, reference).map(|_| ())
}

/// Sets the plan to the fastest of its algorithms, and returns that. Algorithms that the library proposes but then
/// refuses are skipped.
fn choose(plan: &Plan, subject: &mut Subject<'_, Cuda>, stopwatch: &mut Stopwatch) -> Result<Algorithm> {
    let mut best: Option<(Duration, Algorithm)> = None;
    let mut refused = None;
    for &algorithm in &plan.algorithms {
        plan.chosen.set(algorithm);
        let times: Result<Vec<Duration>> = (0..RUNS_PER_ALGORITHM).map(|_| subject.sample(stopwatch)).collect();
        match times.map(|times| times.into_iter().min()) {
            Ok(Some(time)) if best.is_none_or(|(least, _)| time < least) => best = Some((time, algorithm)),
            Ok(_) => {}
            Err(lost @ Error::DeviceLost(_)) => return Err(lost),
            Err(error) => refused = Some(error),
        }
    }
    let none = || refused.unwrap_or_else(|| Error::Unavailable("cuBLASLt proposes no algorithm".into()));
    let (_, algorithm) = best.ok_or_else(none)?;
    plan.chosen.set(algorithm);
    Ok(algorithm)
}
