//! This crate and `scripts/cuda-toolkit.sh` must find the same nvcc.

mod support;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ironwarp_nvcc::{Error, Search};
use support::shell_script;
use tempfile::TempDir;

const PROJECT_NVCC: &str = "target/cuda-toolkit/nvidia/cu13/bin/nvcc";

/// A python3 that supports `-m pip --version`, and `-m pip install`, which logs that it ran.
const PIP: &str = r#"
[ "$3" = install ] || exit 0
echo run >> "$log"
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/nvidia/cu13/bin"
sleep 0.2
printf '#!/bin/sh\necho "Cuda compilation tools, release 13.0, V13.0.88"\n' > "$2/nvidia/cu13/bin/nvcc"
/bin/chmod +x "$2/nvidia/cu13/bin/nvcc"
"#;

/// A machine whose programs only print their version.
struct Machine(TempDir);

impl Machine {
    /// A machine with the tools that the script runs, without a compiler, and with a pip that installs an nvcc offline.
    fn new() -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        let path = std::env::var_os("PATH").unwrap();
        for tool in ["bash", "dirname", "mkdir", "sed", "flock", "cat", "rm", "mv", "sleep"] {
            let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(tool));
            let real = candidates.find(|path| path.is_file()).unwrap_or_else(|| panic!("no {tool}"));
            fs::create_dir_all(machine.path("tools")).unwrap();
            symlink(real, machine.path("tools").join(tool)).unwrap();
        }
        machine.pip(PIP);
        machine
    }

    fn pip(&self, body: &str) {
        shell_script(&self.path("tools/python3"), &format!("log={}\n{body}", self.path("pip-runs").display()));
    }

    fn pip_runs(&self) -> usize {
        fs::read_to_string(self.path("pip-runs")).unwrap_or_default().lines().count()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, prints: &str) {
        shell_script(&self.path(name), &format!("echo '{prints}'"));
    }

    fn nvcc(&self, name: &str, release: &str) {
        self.program(name, &format!("Cuda compilation tools, release {release}, V{release}.1"));
    }

    /// A search that can find only the programs that the tests create.
    fn search(&self) -> Search {
        let folders = ["first/bin", "second/bin", "tools"].map(|name| self.path(name));
        let path = std::env::join_paths(folders).unwrap();
        Search { path: Some(path), target: self.path("target"), ..Search::default() }
    }
}

/// The script, with the environment that corresponds to `search`.
fn command(search: &Search) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scripts/cuda-toolkit.sh");
    let mut command = Command::new(script);
    let variables: [(&str, Option<OsString>); 6] = [
        ("NVCC", search.nvcc.clone().map(Into::into)),
        ("CUDA_HOME", search.cuda_home.clone().map(Into::into)),
        ("CUDA_PATH", search.cuda_path.clone().map(Into::into)),
        ("PATH", search.path.clone()),
        ("NVCC_CCBIN", search.host_compiler.clone()),
        ("CARGO_TARGET_DIR", Some(search.target.clone().into())),
    ];
    command.env_clear().envs(variables.into_iter().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// The last line that the script prints, or its error message.
fn script(search: &Search) -> Result<PathBuf, String> {
    let output = command(search).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    Ok(String::from_utf8(output.stdout).unwrap().lines().last().unwrap().into())
}

fn both_find(search: &Search, want: &Path) {
    assert_eq!(script(search), Ok(want.to_owned()));
    assert_eq!(search.find().unwrap_or_else(|e| panic!("{e}")).path, want);
}

#[test]
fn locations_are_searched_in_order() {
    let machine = Machine::new();
    machine.program("second/bin/g++", "g++");
    let mut search = machine.search();
    both_find(&search, &machine.path(PROJECT_NVCC));
    machine.nvcc("second/bin/nvcc", "13.2");
    both_find(&search, &machine.path("second/bin/nvcc"));
    machine.nvcc("path/bin/nvcc", "14.0");
    search.cuda_path = Some(machine.path("path"));
    both_find(&search, &machine.path("path/bin/nvcc"));
    machine.nvcc("home/bin/nvcc", "13.0");
    search.cuda_home = Some(machine.path("home"));
    both_find(&search, &machine.path("home/bin/nvcc"));
    machine.nvcc("my nvcc", "13.1");
    search.nvcc = Some(machine.path("my nvcc"));
    both_find(&search, &machine.path("my nvcc"));
    machine.nvcc("first/bin/nvcc-13", "13.0");
    search.nvcc = Some("nvcc-13".into());
    both_find(&search, &machine.path("first/bin/nvcc-13"));
}

#[test]
fn unusable_compilers_are_skipped() {
    let machine = Machine::new();
    machine.program("second/bin/g++", "g++");
    machine.nvcc("first/bin/nvcc", "12.8");
    machine.program("home/bin/nvcc", "not a compiler");
    let (home, nowhere) = (machine.path("home"), machine.path("nowhere"));
    let search = Search { cuda_home: Some(home), cuda_path: Some(nowhere), ..machine.search() };
    both_find(&search, &machine.path(PROJECT_NVCC));
}

#[test]
fn a_missing_nvcc_is_one_clear_error() {
    let machine = Machine::new();
    machine.nvcc("first/bin/nvcc", "12.8");
    let search = Search { cuda_home: Some("/no/such/cuda".into()), ..machine.search() };
    let want = format!(
        "no nvcc of CUDA 13.0 or newer was found. Looked for:\n  \
           NVCC: not set\n  \
           CUDA_HOME: /no/such/cuda/bin/nvcc: not found\n  \
           CUDA_PATH: not set\n  \
           PATH: {}: too old: release 12.8\n  \
           project toolkit: {}: not found\n\
         nvcc compiles the kernels of feature `cuda`; no GPU is needed. In the repository, this command installs it in the last \
         of these locations:\n  \
           scripts/cuda-toolkit.sh\n\
         Elsewhere, install a CUDA toolkit and name its folder in CUDA_HOME",
        machine.path("first/bin/nvcc").display(),
        machine.path(PROJECT_NVCC).display()
    );
    assert_eq!(search.find().unwrap_err().to_string(), want);
}

/// An nvcc that NVCC names must not be replaced by another one.
#[test]
fn an_unusable_nvcc_in_nvcc_is_an_error() {
    let machine = Machine::new();
    machine.program("second/bin/g++", "g++");
    machine.nvcc(PROJECT_NVCC, "13.0");
    machine.nvcc("old", "12.8");
    for (name, reason) in [("old", "too old: release 12.8"), ("missing", "not found")] {
        let search = Search { nvcc: Some(machine.path(name)), ..machine.search() };
        let line = format!("NVCC: {}: {reason}", machine.path(name).display());
        let error = script(&search).unwrap_err();
        assert!(error.contains(&line), "{error}");
        let Err(Error::NoNvcc { rejected }) = search.find() else { panic!("{name}: found") };
        assert_eq!(rejected, [line]);
    }
}

#[test]
fn a_missing_host_compiler_is_an_error() {
    let machine = Machine::new();
    machine.nvcc("first/bin/nvcc", "13.0");
    let mut search = machine.search();
    let want = "needs a host compiler, and there is no g++ in PATH";
    for error in [search.find().unwrap_err().to_string(), script(&search).unwrap_err()] {
        assert!(error.contains(want), "{error}");
    }
    search.host_compiler = Some("clang++".into());
    both_find(&search, &machine.path("first/bin/nvcc"));
}

#[test]
fn only_one_of_several_scripts_installs() {
    let machine = Machine::new();
    machine.program("second/bin/g++", "g++");
    let search = machine.search();
    let scripts = [(); 4].map(|()| command(&search).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    for script in scripts {
        let output = script.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", machine.path(PROJECT_NVCC).display()));
    }
    both_find(&search, &machine.path(PROJECT_NVCC));
    assert_eq!(machine.pip_runs(), 1);
}

#[test]
fn an_interrupted_installation_is_restarted() {
    let machine = Machine::new();
    machine.program("second/bin/g++", "g++");
    let search = machine.search();
    // pip and the script are killed when the installation is incomplete.
    machine.pip(&format!("{PIP}\n/bin/rm \"$2/nvidia/cu13/bin/nvcc\"\nkill -9 $PPID"));
    assert!(script(&search).is_err());
    assert!(!machine.path(PROJECT_NVCC).exists());
    machine.pip("[ \"$3\" != install ]");
    let error = script(&search).unwrap_err();
    let want = "pip failed. It needs access to PyPI; without it, set CUDA_HOME to a CUDA toolkit 13.0";
    assert!(error.contains(want), "{error}");
    machine.pip(PIP);
    both_find(&search, &machine.path(PROJECT_NVCC));
    let left: Vec<_> = fs::read_dir(machine.path("target")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the toolkit and its lock, not {left:?}");
}
