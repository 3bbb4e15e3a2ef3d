//! cuBLASLt, NVIDIA's own products, as a peer.
//!
//! It is given what it needs to be at its best: each of the algorithms that it proposes is tried, and the fastest kept;
//! epilogues are its own, fused ones; the workspace is 32 MiB. It is measured as the operations are, on the same operands
//! and from a cold L2 cache. In one thing it does less: it overwrites a bias gradient, where the operation adds to it. Nor
//! are algorithms ruled out that round partial sums to the output's type.

mod library;
mod product;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

use self::library::{Algorithm, Library, Plan};
use self::product::{Source, source};
use super::cases::{self, Info, Output, Prepared};
use super::measure::{Effort, Subject, Times};
use super::peers::{Peer, PeerTimes};
use super::problem::Problem;
use super::verify::hold;
use crate::cpu::Cpu;
use crate::cuda::Cuda;
use crate::cuda::timing::Stopwatch;
use crate::error::{Error, Result};
use crate::ops::Floor;

/// Runs of an algorithm to choose by, of which the first may load its kernel.
const TRIES: usize = 4;

/// cuBLASLt on a device.
pub struct CublasLt {
    cuda: Cuda,
    library: Rc<Library>,
    stopwatch: Stopwatch,
    /// The fastest algorithm of a problem.
    fastest: HashMap<Problem, Algorithm>,
    /// Why a product is not the operation's, for those that were compared.
    verified: HashMap<Problem, Result<(), String>>,
    /// The library's version.
    pub version: String,
}

impl CublasLt {
    /// Loads the library.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none, and on the emulated device, which has none of its kernels.
    pub fn new(cuda: &Cuda) -> Result<Self> {
        let properties = cuda.device().properties();
        if properties.is_emulated() {
            let name = &properties.name;
            return Err(Error::Unavailable(format!("no cuBLASLt: {name} does not run its kernels")));
        }
        let library = Rc::new(Library::load(cuda)?);
        let (version, stopwatch) = (library.version()?, Stopwatch::new(cuda)?);
        let (fastest, verified) = (HashMap::new(), HashMap::new());
        Ok(CublasLt { cuda: cuda.clone(), library, stopwatch, fastest, verified, version })
    }

    fn times(&mut self, info: &Info, problem: &Problem, budget: Duration) -> Result<Times> {
        let CublasLt { cuda, library, stopwatch, fastest, verified, .. } = self;
        let shape = info.for_reference(problem);
        let right = match verified.get(&shape) {
            Some(known) => known.clone(),
            None => {
                let right = verify(cuda, library, &shape).map_err(|error| error.to_string());
                verified.entry(shape).or_insert(right).clone()
            }
        };
        right.map_err(Error::Invalid)?;
        let (plan, first) = set(cuda, library, problem)?;
        let mut first = Some(first);
        let mut subject = Subject::of(cuda, stopwatch, |seed| {
            let case = first.take().map_or_else(|| source(cuda, problem, seed), Ok)?;
            Ok(Box::new(Set { case, plan: plan.clone() }))
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
        let product = cases::ALL.iter().find(|info| info.op == problem.op && info.stem == "matmul");
        let outcome = product.map(|info| self.times(info, problem, budget).map_err(|error| error.to_string()));
        outcome.map(|outcome| PeerTimes { peer: "cublaslt".into(), outcome }).into_iter().collect()
    }
}

/// A case whose product the library computes.
struct Set {
    case: Box<dyn Source<Cuda>>,
    plan: Rc<Plan>,
}

impl Prepared<Cuda> for Set {
    fn floor(&mut self) -> Floor {
        self.case.floor()
    }

    fn run(&mut self, _: &Cuda) -> Result<()> {
        self.plan.run(self.case.product()?)
    }

    fn outputs(&self, backend: &Cuda) -> Result<Vec<Output>> {
        self.case.outputs(backend)
    }
}

/// The first operands of a problem, and the plan for all.
fn set(cuda: &Cuda, library: &Rc<Library>, problem: &Problem) -> Result<(Rc<Plan>, Box<dyn Source<Cuda>>)> {
    let mut case = source(cuda, problem, 1)?;
    Ok((Rc::new(Plan::new(library, case.product()?)?), case))
}

/// That the library computes the operation.
fn verify(cuda: &Cuda, library: &Rc<Library>, shape: &Problem) -> Result<()> {
    let (plan, case) = set(cuda, library, shape)?;
    let reference = &mut *source(&Cpu::<f64>::new(), shape, 1)?;
    hold(shape, cuda, &mut Set { case, plan }, reference).map(|_| ())
}

/// The fastest of the plan's algorithms, which runs from now on. One that the library proposes and refuses is passed over.
fn choose(plan: &Plan, subject: &mut Subject<'_, Cuda>, stopwatch: &mut Stopwatch) -> Result<Algorithm> {
    let mut best: Option<(Duration, Algorithm)> = None;
    let mut refused = None;
    for &algorithm in &plan.algorithms {
        plan.chosen.set(algorithm);
        let times: Result<Vec<Duration>> = (0..TRIES).map(|_| subject.sample(stopwatch)).collect();
        match times.map(|times| times.into_iter().min()) {
            Ok(Some(time)) if best.is_none_or(|(least, _)| time < least) => best = Some((time, algorithm)),
            Ok(_) => {}
            Err(lost @ Error::DeviceLost(_)) => return Err(lost),
            Err(error) => refused = Some(error),
        }
    }
    let nothing = || refused.unwrap_or_else(|| Error::Unavailable("cuBLASLt proposes no algorithm".into()));
    let (_, algorithm) = best.ok_or_else(nothing)?;
    plan.chosen.set(algorithm);
    Ok(algorithm)
}
