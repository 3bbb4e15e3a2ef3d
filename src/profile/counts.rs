//! Counts of a problem on the emulated GPU, compared with its floor (minimum bytes and FLOPs).

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

/// The counts of a problem, summed over all its launches.
#[derive(Debug, Clone, Serialize)]
pub struct Profile {
    /// The operation.
    pub op: &'static str,
    /// Its family: the file of `src/ops`, without `.rs`.
    pub stem: &'static str,
    /// Its sizes.
    pub shape: Problem,
    /// Whether memory or arithmetic limits it at GPT-2's sizes.
    pub bound: Bound,
    /// Minimum bytes to and from device memory.
    pub floor_bytes: u64,
    /// Minimum FLOPs.
    pub floor_flops: u64,
    /// The counts.
    #[serde(flatten)]
    pub totals: Totals,
    /// Registers per thread, the maximum of its kernels; `None` if a kernel was replaced.
    pub registers: Option<u32>,
    /// Bytes of spill stores and spill loads per thread, summed over its kernels; `None` if a kernel was replaced.
    pub spill_bytes: Option<u32>,
    /// Theoretical occupancy from 0 to 1, the minimum of its kernels; `None` if a kernel was replaced.
    pub occupancy: Option<f64>,
    /// Its kernels, in the order of their first launch.
    pub kernels: Vec<KernelProfile>,
    /// Counts by source line and the line it was inlined into.
    pub lines: Vec<LineCounts>,
}

/// Counts of one launch or several.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Bytes of device memory that lanes requested.
    pub global_bytes: u64,
    /// Warp instructions that accessed device memory.
    pub requests: u64,
    /// Sectors of 32 bytes that the requests touched.
    pub sectors: u64,
    /// Sectors per request: 16 if each lane of a warp accesses 16 bytes and the addresses are contiguous. 0 without
    /// requests.
    pub sectors_per_request: f64,
    /// Sectors divided by the minimum number of sectors that hold the requested bytes: 1 is ideal.
    pub sectors_over_ideal: f64,
    /// Distinct bytes of device memory that a launch accessed, summed over the launches.
    pub unique_bytes: u64,
    /// Passes over the banks of shared memory.
    pub shared_wavefronts: u64,
    /// Those of the passes that bank conflicts added.
    pub bank_conflicts: u64,
    /// FLOPs of `mma`; a multiply-add counts as 2.
    pub tensor_flops: u64,
    /// Arrivals of warps at barriers.
    pub barriers: u64,
    /// Branches at which the lanes of a warp diverged.
    pub divergent_branches: u64,
    /// Instructions that warps executed.
    pub warp_instructions: u64,
    /// Instructions that lanes executed: each warp instruction counts once per active lane.
    pub lane_instructions: u64,
    /// Warp instructions by class.
    pub mix: BTreeMap<String, u64>,
}

/// The counts and resources of one kernel of a problem.
#[derive(Debug, Clone, Serialize)]
pub struct KernelProfile {
    /// The entry point.
    pub kernel: String,
    /// Number of launches.
    pub launches: u64,
    /// Thread blocks of its last launch in x, y and z.
    pub grid: [u32; 3],
    /// Threads per block in x, y and z.
    pub block: [u32; 3],
    /// Resources of the compiled kernel; `None` if it was replaced.
    #[serde(flatten)]
    pub resources: Option<KernelResources>,
    /// The counts, summed over its launches.
    #[serde(flatten)]
    pub totals: Totals,
    /// Its machine code; `None` without nvdisasm.
    pub sass: Option<Sass>,
}

/// The resources that a compiled kernel needs, and its theoretical occupancy.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct KernelResources {
    /// Registers per thread.
    pub registers: u32,
    /// Bytes of spill stores and spill loads per thread.
    pub spill_bytes: u32,
    /// Bytes of local memory per thread.
    pub stack_bytes: u32,
    /// Bytes of shared memory per block, static and dynamic.
    pub shared_bytes: u32,
    /// Thread blocks per SM.
    pub blocks: u32,
    /// Resident warps divided by the maximum number of resident warps of an SM.
    pub occupancy: f64,
    /// The resource that limits the number of blocks.
    pub limited_by: Limit,
}

impl Totals {
    fn add(&mut self, counts: &Counts) {
        let traffic = counts.global();
        self.global_bytes += traffic.bytes;
        self.requests += traffic.requests;
        self.sectors += traffic.sectors;
        let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        self.sectors_per_request = ratio(self.sectors, self.requests);
        self.sectors_over_ideal = ratio(32 * self.sectors, self.global_bytes);
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

/// Profiles problems on an emulated device. Nothing else may run on the device meanwhile, because it would be counted
/// too.
pub struct Profiler<'a> {
    cuda: &'a Cuda,
    emulation: Emulation,
    /// Stems (`kernels/STEM.cu`) whose kernels were replaced. The resources of the compiled kernels do not apply to
    /// them.
    replaced: Vec<String>,
    /// The nvdisasm to read machine code with.
    nvdisasm: Option<PathBuf>,
    /// Machine code by stem and kernel, for the stems that were read so far.
    sass: BTreeMap<&'static str, BTreeMap<String, Sass>>,
}

impl<'a> Profiler<'a> {
    /// A profiler for an emulated device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the device is not emulated.
    pub fn new(cuda: &'a Cuda) -> Result<Self> {
        let (replaced, sass) = (Vec::new(), BTreeMap::new());
        Ok(Profiler { cuda, emulation: Emulation::of(cuda)?, replaced, nvdisasm: None, sass })
    }

    /// Makes the profiler read the kernels' machine code, too, with the given nvdisasm.
    pub fn with_sass(self, nvdisasm: PathBuf) -> Self {
        Profiler { nvdisasm: Some(nvdisasm), ..self }
    }

    /// Replaces the kernels of `kernels/STEM.cu` by a variant: PTX with the same entry points.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such file of kernels.
    pub fn replace(&mut self, stem: &str, ptx: &str) -> Result<()> {
        if !IMAGES.iter().any(|image| image.stem == stem) {
            return Err(Error::invalid(format!("there are no kernels kernels/{stem}.cu to replace")));
        }
        self.cuda.device().replace_kernels(stem, ptx);
        self.replaced.push(stem.to_owned());
        Ok(())
    }

    /// Whether an image is the one that a real device of this compute capability would run.
    fn is_native(&self, image: &Image) -> bool {
        let (major, minor) = self.cuda.device().properties().capability;
        image.arch.trim_end_matches('a').parse() == Ok(10 * major + minor)
    }

    /// Runs a problem once and returns its counts.
    ///
    /// # Errors
    /// Those of the operation, including findings of the emulator's checks, and those of [`sass::disassemble`].
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
        // `None` if a kernel was replaced, so that its resources are not known.
        let resources: Option<Vec<KernelResources>> = kernels.iter().map(|kernel| kernel.resources).collect();
        let resources = resources.as_deref();
        Ok(Profile {
            op: info.op,
            stem: info.stem,
            shape: problem.clone(),
            bound: info.bound,
            floor_bytes: floor.bytes,
            floor_flops: floor.flops,
            totals,
            registers: resources.map(|all| all.iter().map(|kernel| kernel.registers).max().unwrap_or(0)),
            spill_bytes: resources.map(|all| all.iter().map(|kernel| kernel.spill_bytes).sum()),
            occupancy: resources.map(|all| all.iter().map(|kernel| kernel.occupancy).fold(1.0, f64::min)),
            kernels,
            lines: lines.into_values().collect(),
        })
    }

    fn kernel(&mut self, launch: &LaunchRecord) -> Result<KernelProfile> {
        let LaunchRecord { kernel, grid, block, dynamic_shared, counts, .. } = launch;
        let mut totals = Totals::default();
        totals.add(counts);
        // The operation's stem does not determine the file: an operation may have one for each architecture.
        let stem = kernels().find(|spec| spec.name == kernel).map_or("", |spec| spec.stem);
        let image = IMAGES.iter().find(|image| image.stem == stem && self.is_native(image));
        let image = image.filter(|_| !self.replaced.iter().any(|replaced| replaced == stem));
        let resources = image.and_then(|image| image.resources.iter().find(|entry| entry.kernel == kernel));
        let resources = resources.and_then(|taken| self.resources(taken, block.iter().product(), *dynamic_shared));
        let sass = match image {
            Some(image) => self.sass(image)?.and_then(|kernels| kernels.get(kernel)).cloned(),
            None => None,
        };
        Ok(KernelProfile { kernel: kernel.clone(), launches: 1, grid: *grid, block: *block, resources, totals, sass })
    }

    /// The machine code of an image's kernels; `None` without nvdisasm.
    fn sass(&mut self, image: &Image) -> Result<Option<&BTreeMap<String, Sass>>> {
        let Some(nvdisasm) = &self.nvdisasm else { return Ok(None) };
        if !self.sass.contains_key(image.stem) {
            self.sass.insert(image.stem, sass::disassemble(nvdisasm, image.cubin)?);
        }
        Ok(self.sass.get(image.stem))
    }

    /// Resources and occupancy of a compiled kernel; `None` for an architecture whose limits are not known.
    fn resources(&self, taken: &Resources, threads: u32, dynamic_shared: u32) -> Option<KernelResources> {
        let Resources { registers, stack_bytes, spill_store_bytes, spill_load_bytes, shared_bytes, .. } = *taken;
        let shared_bytes = shared_bytes + dynamic_shared;
        let limits = Limits::of(self.cuda.device().properties().capability)?;
        let occupancy = occupancy(limits, threads, registers, shared_bytes);
        Some(KernelResources {
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

/// Adds a line's counts to those of the same source line and call site.
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
