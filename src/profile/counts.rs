//! A problem on the emulated GPU: what it moved, beside the least that it could.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::occupancy::{Limit, Limits, occupancy};
use super::sass::{self, Sass};
use crate::bench::cases::{Info, prepare};
use crate::bench::ceilings::Bound;
use crate::bench::problem::Problem;
use crate::cuda::launch::images::{IMAGES, Image, Resources};
use crate::cuda::runtime::emulation::{Counts, Emulation, LaunchRecord, LineCounts};
use crate::cuda::{Cuda, kernels};
use crate::error::{Error, Result};

/// A problem's counts, over all its launches.
#[derive(Debug, Clone, Serialize)]
pub struct Profile {
    /// The operation.
    pub op: &'static str,
    /// Its family: the file of `src/ops`.
    pub stem: &'static str,
    /// Its sizes.
    pub shape: Problem,
    /// What limits it at GPT-2's sizes.
    pub bound: Bound,
    /// Fewest bytes to and from device memory.
    pub floor_bytes: u64,
    /// Fewest FLOPs.
    pub floor_flops: u64,
    /// The counts.
    #[serde(flatten)]
    pub totals: Totals,
    /// Most registers of a thread among its kernels; none where a kernel was replaced.
    pub registers: Option<u32>,
    /// Bytes of spilled registers, stores and loads, over its kernels.
    pub spill_bytes: Option<u32>,
    /// Least theoretical occupancy among its kernels, 1 for a full multiprocessor.
    pub occupancy: Option<f64>,
    /// Its kernels, in the order of their first launch.
    pub kernels: Vec<KernelProfile>,
    /// By source line and the line it was inlined into.
    pub lines: Vec<LineCounts>,
}

/// Counts of one launch or several.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Bytes that lanes asked of device memory.
    pub global_bytes: u64,
    /// Warp instructions that did.
    pub requests: u64,
    /// Sectors of 32 bytes that they touched.
    pub sectors: u64,
    /// Sectors by requests; 16 for whole vectors side by side. 0 without a request.
    pub sectors_per_request: f64,
    /// Sectors by the fewest that hold the bytes: 1 is ideal.
    pub sectors_over_ideal: f64,
    /// Different bytes touched, launch by launch.
    pub unique_bytes: u64,
    /// Passes over the banks of shared memory.
    pub shared_wavefronts: u64,
    /// Those of them that conflicts cost.
    pub bank_conflicts: u64,
    /// FLOPs of `mma`.
    pub tensor_flops: u64,
    /// Warps' arrivals at barriers.
    pub barriers: u64,
    /// Branches at which a warp parted.
    pub divergent_branches: u64,
    /// Instructions that warps executed.
    pub warp_instructions: u64,
    /// Instructions that lanes executed.
    pub lane_instructions: u64,
    /// Warp instructions by class.
    pub mix: BTreeMap<String, u64>,
}

/// A kernel of a problem.
#[derive(Debug, Clone, Serialize)]
pub struct KernelProfile {
    /// The entry point.
    pub kernel: String,
    /// Times that it was launched.
    pub launches: u64,
    /// Blocks of its last launch.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// What the built kernel takes; none where it was replaced.
    #[serde(flatten)]
    pub built: Option<Built>,
    /// The counts.
    #[serde(flatten)]
    pub totals: Totals,
    /// Its machine code, where there is an nvdisasm.
    pub sass: Option<Sass>,
}

/// What a kernel takes of a multiprocessor.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Built {
    /// Registers a thread.
    pub registers: u32,
    /// Spilled registers a thread, stores and loads.
    pub spill_bytes: u32,
    /// Local memory a thread.
    pub stack_bytes: u32,
    /// Shared memory a block, static and dynamic.
    pub shared_bytes: u32,
    /// Blocks a multiprocessor.
    pub blocks: u32,
    /// The share of its warps that they are.
    pub occupancy: f64,
    /// Why it has no more.
    pub limited_by: Limit,
}

impl Totals {
    fn add(&mut self, counts: &Counts) {
        let traffic = counts.global();
        self.global_bytes += traffic.bytes;
        self.requests += traffic.requests;
        self.sectors += traffic.sectors;
        let by = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        self.sectors_per_request = by(self.sectors, self.requests);
        self.sectors_over_ideal = by(32 * self.sectors, self.global_bytes);
        self.unique_bytes += counts.unique_bytes;
        self.shared_wavefronts += counts.shared_wavefronts;
        self.bank_conflicts += counts.bank_conflicts;
        self.tensor_flops += counts.tensor_flops;
        self.barriers += counts.barriers;
        self.divergent_branches += counts.divergent_branches;
        self.warp_instructions += counts.warp_instructions;
        self.lane_instructions += counts.lane_instructions;
        counts.mix.iter().for_each(|(class, count)| *self.mix.entry(class.clone()).or_default() += count);
    }
}

/// Counts problems on an emulated device. Nothing else may run on it meanwhile.
pub struct Profiler<'a> {
    cuda: &'a Cuda,
    emulation: Emulation,
    /// Stems whose kernels were replaced: of those nothing is built.
    replaced: Vec<String>,
    /// What machine code is read with.
    nvdisasm: Option<PathBuf>,
    /// Machine code by stem, of those that were asked for.
    sass: BTreeMap<&'static str, BTreeMap<String, Sass>>,
}

impl<'a> Profiler<'a> {
    /// For a device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not emulated.
    pub fn new(cuda: &'a Cuda) -> Result<Self> {
        let (replaced, sass) = (Vec::new(), BTreeMap::new());
        Ok(Profiler { cuda, emulation: Emulation::of(cuda)?, replaced, nvdisasm: None, sass })
    }

    /// The kernels' machine code too, read with an nvdisasm.
    pub fn with_sass(self, nvdisasm: PathBuf) -> Self {
        Profiler { nvdisasm: Some(nvdisasm), ..self }
    }

    /// Counts a variant of the kernels of a stem, PTX with the same entry points, in their place.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are no kernels of that stem.
    pub fn replace(&mut self, stem: &str, ptx: &str) -> Result<()> {
        if !IMAGES.iter().any(|image| image.stem == stem) {
            return Err(Error::invalid(format!("there are no kernels kernels/{stem}.cu to replace")));
        }
        self.cuda.device().replace_kernels(stem, ptx);
        self.replaced.push(stem.to_owned());
        Ok(())
    }

    /// Whether an image is what a real device of this compute capability would run.
    fn is_own(&self, image: &Image) -> bool {
        let (major, minor) = self.cuda.device().properties().capability;
        image.arch.trim_end_matches('a').parse() == Ok(10 * major + minor)
    }

    /// Runs a problem once and counts.
    ///
    /// # Errors
    /// As the operation; what the emulator finds is one. As [`sass::disassemble`].
    pub fn profile(&mut self, info: &Info, problem: &Problem) -> Result<Profile> {
        let mut prepared = prepare(self.cuda, problem, 1)?;
        let floor = prepared.floor();
        let ((), launches) = self.emulation.count(self.cuda, || prepared.run(self.cuda))?;
        let (mut totals, mut kernels, mut lines) = (Totals::default(), Vec::<KernelProfile>::new(), BTreeMap::new());
        for launch in &launches {
            totals.add(&launch.counts);
            match kernels.iter_mut().find(|kernel| kernel.kernel == launch.kernel) {
                Some(kernel) => {
                    kernel.launches += 1;
                    kernel.grid = launch.grid;
                    kernel.totals.add(&launch.counts);
                }
                None => kernels.push(self.kernel(launch)?),
            }
            launch.counts.lines.iter().for_each(|line| add_line(&mut lines, line));
        }
        let built = || kernels.iter().map(|kernel| kernel.built);
        // None if one is not known.
        let all = |value: fn(Built) -> f64| built().map(|b| b.map(value)).collect::<Option<Vec<f64>>>();
        let most = |values: Vec<f64>| values.into_iter().fold(0.0, f64::max);
        let least = |values: Vec<f64>| values.into_iter().fold(1.0, f64::min);
        Ok(Profile {
            op: info.op,
            stem: info.stem,
            shape: problem.clone(),
            bound: info.bound,
            floor_bytes: floor.bytes,
            floor_flops: floor.flops,
            totals,
            registers: all(|b| b.registers.into()).map(|values| most(values) as u32),
            spill_bytes: all(|b| b.spill_bytes.into()).map(|values| values.iter().sum::<f64>() as u32),
            occupancy: all(|b| b.occupancy).map(least),
            kernels,
            lines: lines.into_values().collect(),
        })
    }

    fn kernel(&mut self, launch: &LaunchRecord) -> Result<KernelProfile> {
        let LaunchRecord { kernel, grid, block, dynamic_shared, counts, .. } = launch;
        let mut totals = Totals::default();
        totals.add(counts);
        // An operation may have files by architecture, which its own stem does not tell.
        let stem = kernels().find(|spec| spec.name == kernel).map_or("", |spec| spec.stem);
        let image = IMAGES.iter().find(|image| image.stem == stem && self.is_own(image));
        let image = image.filter(|_| !self.replaced.iter().any(|replaced| replaced == stem));
        let resources = image.and_then(|image| image.resources.iter().find(|entry| entry.kernel == kernel));
        let built = resources.and_then(|resources| self.built(resources, block.iter().product(), *dynamic_shared));
        let sass = match image {
            Some(image) => self.sass(image)?.and_then(|kernels| kernels.get(kernel)).cloned(),
            None => None,
        };
        Ok(KernelProfile { kernel: kernel.clone(), launches: 1, grid: *grid, block: *block, built, totals, sass })
    }

    /// The machine code of a file's kernels, where there is something to read it with.
    fn sass(&mut self, image: &Image) -> Result<Option<&BTreeMap<String, Sass>>> {
        let Some(nvdisasm) = &self.nvdisasm else { return Ok(None) };
        if !self.sass.contains_key(image.stem) {
            self.sass.insert(image.stem, sass::disassemble(nvdisasm, image.cubin)?);
        }
        Ok(self.sass.get(image.stem))
    }

    fn built(&self, resources: &Resources, threads: u32, dynamic_shared: u32) -> Option<Built> {
        let Resources { registers, stack_bytes, spill_store_bytes, spill_load_bytes, shared_bytes, .. } = *resources;
        let shared_bytes = shared_bytes + dynamic_shared;
        let limits = Limits::of(self.cuda.device().properties().capability)?;
        let occupancy = occupancy(limits, threads, registers, shared_bytes);
        Some(Built {
            registers,
            spill_bytes: spill_store_bytes + spill_load_bytes,
            stack_bytes,
            shared_bytes,
            blocks: occupancy.blocks,
            occupancy: occupancy.fraction,
            limited_by: occupancy.limited_by,
        })
    }
}

/// Adds a line's counts to those of the same place.
pub(super) fn add_line(lines: &mut BTreeMap<(String, String), LineCounts>, line: &LineCounts) {
    let key = (line.source.clone(), line.called_from.clone());
    let Some(sum) = lines.get_mut(&key) else {
        lines.insert(key, line.clone());
        return;
    };
    sum.warp_instructions += line.warp_instructions;
    sum.requests += line.requests;
    sum.bytes += line.bytes;
    sum.sectors += line.sectors;
    sum.shared_wavefronts += line.shared_wavefronts;
    sum.bank_conflicts += line.bank_conflicts;
}
