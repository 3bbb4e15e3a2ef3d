//! ptxas accepts every form that loads on the emulator: a sample of the forms by default, all of them with
//! `IRONWARP_THOROUGH=1`.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

#[expect(dead_code, reason = "this test only samples")]
#[path = "../../../trials/src/tier.rs"]
mod tier;

use crate::case::{Case, Outcome};
use crate::{FOLDERS, environment, forms};

#[test]
fn ptxas_accepts_the_forms() {
    let workspace = environment::project().join("../..");
    let Ok(nvcc) = ironwarp_nvcc::Search::from_env(&workspace).find() else { return environment::skip("nvcc") };
    let ptxas = nvcc.path.with_file_name("ptxas");
    let all = FOLDERS.iter().flat_map(|folder| forms(folder));
    let cases = all.map(|form| Case::parse(&form.name, &form.text).unwrap_or_else(|error| panic!("{error}")));
    let cases: Vec<Case> = cases.filter(|case| !matches!(case.outcome, Outcome::Refused { .. })).collect();
    let count = cases.len();
    let folder_of = |case: &Case| case.name.split_once('/').map(|(folder, _)| folder.to_owned());
    let cases = tier::sample(cases, folder_of, 8, 0);

    let scratch = environment::scratch();
    let (next, workers) = (AtomicUsize::new(0), std::thread::available_parallelism().map_or(1, usize::from));
    let work = |worker: usize| {
        let file = scratch.join(format!("form-{}-{worker}.ptx", std::process::id()));
        let mut errors = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            std::fs::write(&file, &case.text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let target = case.text.lines().find_map(|line| line.strip_prefix(".target ")).expect("a target");
            let command = Command::new(&ptxas)
                .args(["-arch", target, "-o", "/dev/null"])
                .arg(&file)
                .stdin(Stdio::null())
                .output();
            let output = command.unwrap_or_else(|error| panic!("{}: {error}", ptxas.display()));
            if !output.status.success() {
                let message = [output.stdout, output.stderr].concat();
                errors.push(format!("{}:\n{}", case.name, String::from_utf8_lossy(&message)));
            }
        }
        let _ = std::fs::remove_file(&file);
        errors
    };
    let errors: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the worker ends")).collect()
    });
    println!("ptxas assembled {} of {count} forms, {} failed", cases.len(), errors.len());
    assert!(errors.is_empty(), "ptxas refuses {} forms\n\n{}", errors.len(), errors.join("\n"));
}
