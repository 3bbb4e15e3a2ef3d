//! `make assemble`: ptxas assembles the embedded PTX of every kernel for every architecture of [`Arch::ALL`] without
//! spills, warnings or errors, as the driver's compiler does on a GPU for which the build has no machine code.

#[path = "common/environment.rs"]
mod environment;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use ironwarp::cuda::launch::images::{Code, IMAGES, candidates};
use ironwarp_nvcc::{Arch, Search};

/// Registers of a thread and bytes of its stack frame.
type Taken = (u64, u64);

/// The resources of the kernels of a file that the build itself has assembled for an architecture, and checked.
fn built(stem: &str, arch: Arch) -> Option<Vec<(String, Taken)>> {
    let image = IMAGES.iter().find(|image| image.stem == stem && image.arch == arch.to_string())?;
    let of_kernel = |taken: &ironwarp::cuda::launch::images::Resources| {
        assert_eq!((taken.spill_store_bytes, taken.spill_load_bytes), (0, 0), "{stem} for {arch}: {taken:?}");
        (taken.kernel.to_owned(), (taken.registers.into(), taken.stack_bytes.into()))
    };
    Some(image.resources.iter().map(of_kernel).collect())
}

/// The PTX that the driver would compile for an architecture; `None` if the file has none for it.
fn ptx(stem: &str, arch: Arch) -> Option<&'static str> {
    let codes = candidates(stem, (arch.number / 10, arch.number % 10));
    codes.into_iter().find_map(|code| match code {
        Code::Ptx(text) => Some(text),
        Code::Cubin(_) => None,
    })
}

/// One line per kernel: registers by architecture, with the stack frame if there is one.
fn table(archs: &[Arch], taken: &BTreeMap<(&str, String), BTreeMap<Arch, Taken>>) -> String {
    let row = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>12}")).collect();
        format!("{name:<44}{cells}\n")
    };
    let mut text = row("registers", archs.iter().map(|arch| format!("sm_{arch}")).collect());
    for ((_, kernel), by_arch) in taken {
        let cell = |arch| match by_arch.get(arch) {
            Some((registers, 0)) => registers.to_string(),
            Some((registers, stack)) => format!("{registers} +{stack} B"),
            None => "-".to_owned(),
        };
        text += &row(kernel, archs.iter().map(cell).collect());
    }
    text
}

#[test]
fn every_kernel_assembles_for_every_architecture() {
    let start = Instant::now();
    let nvcc = Search::from_env(&environment::project()).find().unwrap();
    let archs = Arch::list(Arch::ALL).unwrap();
    let mut stems: Vec<&str> = IMAGES.iter().map(|image| image.stem).collect();
    stems.dedup();
    let (mut taken, mut jobs) = (BTreeMap::<_, BTreeMap<Arch, Taken>>::new(), Vec::new());
    for (stem, &arch) in stems.iter().flat_map(|&stem| archs.iter().map(move |arch| (stem, arch))) {
        if let Some(kernels) = built(stem, arch) {
            for (kernel, of) in kernels {
                taken.entry((stem, kernel)).or_default().insert(arch, of);
            }
        } else if let Some(ptx) = ptx(stem, arch) {
            jobs.push((stem, arch, ptx));
        }
    }
    // Popped from the end: the longest texts first, so that none of them is the last to run.
    jobs.sort_by_key(|(_, _, ptx)| ptx.len());
    let (assembled, jobs) = (jobs.len(), Mutex::new(jobs));
    let results = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = jobs.lock().unwrap().pop();
            let Some((stem, arch, ptx)) = next else { return };
            let result = nvcc.assemble(&format!("kernels/{stem}.cu"), ptx, arch);
            results.lock().unwrap().push((stem, arch, result));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    let mut errors = Vec::new();
    for (stem, arch, result) in results.into_inner().unwrap() {
        match result {
            Ok(kernels) => {
                for of in kernels {
                    taken.entry((stem, of.kernel)).or_default().insert(arch, (of.registers, of.local[0]));
                }
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    println!("{}", table(&archs, &taken));
    println!("{assembled} files assembled, in addition to those of the build, in {:.0?}", start.elapsed());
    errors.sort();
    assert!(errors.is_empty(), "{} of {assembled} files:\n{}", errors.len(), errors.join("\n"));
    assert!(!taken.is_empty() && taken.values().all(|by_arch| by_arch.keys().eq(&archs)), "every kernel has code");
}
