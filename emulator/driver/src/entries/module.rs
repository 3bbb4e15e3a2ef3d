//! Modules: PTX text that is loaded into a context.

use std::collections::BTreeMap;
use std::sync::Arc;

use cudarc::driver::sys::CUjit_option as Jit;
use cudarc::driver::sys::CUmoduleLoadingMode::CU_MODULE_EAGER_LOADING;
use cudarc::driver::sys::CUresult::{
    self, CUDA_ERROR_FILE_NOT_FOUND, CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_INVALID_PTX, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_NOT_FOUND, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
};
use ptx_emulator::memory::Memory;
use ptx_emulator::{LoadError, Module as Code};

use crate::boundary::{DevicePointer, Handle, Image, In, JitOptions, JitValues, Out, OutList, Text};
use crate::driver::{self, Driver, Guard, find, find_mut};
use crate::error::{Because, Error, Result, ensure};
use crate::executor;
use crate::export::exports;
use crate::handle::{Kind, new_handle};
use crate::object::function::Function;
use crate::object::module::Module;

const ELF: [u8; 4] = *b"\x7FELF";
const FATBIN: [u8; 4] = 0xBA55_ED50_u32.to_le_bytes();
const FATBIN_WRAPPER: [u8; 4] = 0x4662_43B1_u32.to_le_bytes();

/// Driver versions, each with the PTX version that it introduced.
const PTX_OF_DRIVER: &[(i32, i32)] = &[
    (13010, 91),
    (13000, 90),
    (12090, 88),
    (12080, 87),
    (12070, 86),
    (12050, 85),
    (12040, 84),
    (12030, 83),
    (12020, 82),
    (12010, 81),
    (12000, 80),
    (11080, 78),
    (11040, 74),
];

/// An image's text.
///
/// # Errors
/// The image is binary, empty, or not UTF-8.
pub fn text_of(image: Image) -> Result<String> {
    let Some(magic) = image.magic() else {
        return Err(CUDA_ERROR_INVALID_VALUE.because("a null pointer for the image"));
    };
    refuse_binary(&magic)?;
    utf8(image.text())
}

/// A file's text.
///
/// # Errors
/// As [`text_of`], or the file cannot be read.
pub fn text_of_file(path: Text) -> Result<String> {
    let path = path.get()?;
    let failed = |e| CUDA_ERROR_FILE_NOT_FOUND.because(format!("{path}: {e}"));
    // A named pipe would block until something writes to it.
    let is_file = std::fs::metadata(&path).map_err(failed)?.is_file();
    ensure!(is_file, CUDA_ERROR_FILE_NOT_FOUND, "{path}: not a regular file");
    let bytes = std::fs::read(&path).map_err(failed)?;
    refuse_binary(&bytes)?;
    utf8(bytes)
}

fn refuse_binary(bytes: &[u8]) -> Result<()> {
    let binary = [ELF, FATBIN, FATBIN_WRAPPER].iter().any(|magic| bytes.starts_with(magic));
    ensure!(!binary, CUDA_ERROR_NO_BINARY_FOR_GPU, "machine code cannot be emulated: the image must be PTX");
    Ok(())
}

fn utf8(bytes: Vec<u8>) -> Result<String> {
    ensure!(!bytes.is_empty(), CUDA_ERROR_INVALID_IMAGE, "the image is empty");
    String::from_utf8(bytes)
        .map_err(|_| CUDA_ERROR_INVALID_IMAGE.because("the image is neither text nor a known binary format"))
}

/// 10 × major + minor of the first `.version`; 0 if there is none, which the parser will report.
fn ptx_version(text: &str) -> i32 {
    let version = text.split(".version").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    let (major, minor) = version.split_once('.').unwrap_or_default();
    major.parse::<i32>().ok().zip(minor.parse::<i32>().ok()).map_or(0, |(major, minor)| 10 * major + minor)
}

impl Driver {
    /// Loads PTX into `memory`; returns the code and its PTX version.
    pub fn compile(&self, text: &str, memory: &Memory) -> Result<(Code, i32)> {
        let (version, driver) = (ptx_version(text), self.settings.driver_version);
        let newest = PTX_OF_DRIVER.iter().find(|&&(since, _)| since <= driver).map_or(70, |&(_, ptx)| ptx);
        ensure!(
            version <= newest,
            CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
            ".version {}.{} is newer than {}.{}, the newest that a driver of version {driver} supports",
            version / 10,
            version % 10,
            newest / 10,
            newest % 10
        );
        match Code::load(text, self.settings.arch, memory) {
            Ok(code) => Ok((code, version)),
            Err(error) => Err(code_of(&error).because(error.to_string())),
        }
    }

    pub fn add_module(&mut self, context: Handle, text: &str) -> Result<Handle> {
        let memory = self.memory.clone();
        let (code, ptx_version) = self.compile(text, &memory)?;
        let handle = new_handle(Kind::Module);
        let functions = BTreeMap::new();
        self.modules.insert(handle, Module { context, code: Arc::new(code), ptx_version, functions });
        Ok(handle)
    }

    /// The function of a kernel's name. Its handle is the same at every call.
    pub fn function_of(&mut self, module: Handle, name: &str) -> Result<Handle> {
        let found = find_mut(&mut self.modules, "module", module)?;
        if let Some(&known) = found.functions.get(name) {
            return Ok(known);
        }
        let Some(kernel) = found.code.kernel(name).cloned() else {
            let names: Vec<&str> = found.code.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            let kernels = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(CUDA_ERROR_NOT_FOUND.because(format!("no kernel '{name}'; the module's kernels: {kernels}")));
        };
        let handle = new_handle(Kind::Function);
        found.functions.insert(name.to_owned(), handle);
        let function = Function::new(module, kernel, &self.limits);
        self.functions.insert(handle, function);
        Ok(handle)
    }

    fn healthy_module(&self, handle: Handle) -> Result<&Module> {
        let module = find(&self.modules, "module", handle)?;
        self.healthy(module.context)?;
        Ok(module)
    }

    /// Removes a module and its functions.
    pub fn remove_module(&mut self, handle: Handle) {
        if let Some(module) = self.modules.remove(&handle) {
            module.code.unload(&self.memory);
        }
        self.functions.retain(|_, function| function.module != handle);
    }
}

fn code_of(error: &LoadError) -> CUresult {
    match error {
        LoadError::Syntax { .. } | LoadError::Invalid { .. } | LoadError::Target { .. } => CUDA_ERROR_INVALID_PTX,
        LoadError::Unsupported { .. } => CUDA_ERROR_NOT_SUPPORTED,
        LoadError::Memory(_) => CUDA_ERROR_OUT_OF_MEMORY,
    }
}

/// Waits for all operations that may execute code of a module, then unloads the module.
pub fn unload(driver: Guard, module: Handle) -> Result<()> {
    let context = driver.healthy_module(module)?.context;
    let pending = driver.queue.of_context(context);
    executor::finish(driver, &pending).remove_module(module);
    Ok(())
}

fn load(out: Out<Handle>, text: Result<String>) -> Result<()> {
    let mut driver = driver::lock()?;
    let context = driver.current()?;
    driver.refuse_unsafe()?;
    ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the module");
    let module = driver.add_module(context, &text?)?;
    out.set(module)
}

/// Options without effect: optimisation, debug information, the target, and floating-point options for intermediate code
/// other than PTX.
const IGNORED: &[Jit] = &[
    Jit::CU_JIT_MAX_REGISTERS,
    Jit::CU_JIT_THREADS_PER_BLOCK,
    Jit::CU_JIT_OPTIMIZATION_LEVEL,
    Jit::CU_JIT_TARGET_FROM_CUCONTEXT,
    Jit::CU_JIT_TARGET,
    Jit::CU_JIT_FALLBACK_STRATEGY,
    Jit::CU_JIT_GENERATE_DEBUG_INFO,
    Jit::CU_JIT_LOG_VERBOSE,
    Jit::CU_JIT_GENERATE_LINE_INFO,
    Jit::CU_JIT_CACHE_MODE,
    Jit::CU_JIT_POSITION_INDEPENDENT_CODE,
    Jit::CU_JIT_MIN_CTA_PER_SM,
    Jit::CU_JIT_MAX_THREADS_PER_BLOCK,
    Jit::CU_JIT_OVERRIDE_DIRECTIVE_VALUES,
    Jit::CU_JIT_SPLIT_COMPILE,
    Jit::CU_JIT_FTZ,
    Jit::CU_JIT_PREC_DIV,
    Jit::CU_JIT_PREC_SQRT,
    Jit::CU_JIT_FMA,
];

/// The outputs among the options: the logs of the compiler.
#[derive(Default)]
struct Logs {
    /// The index of the buffer; the index of its size, and the size.
    info: (Option<usize>, Option<(usize, usize)>),
    error: (Option<usize>, Option<(usize, usize)>),
    wall_time: Option<usize>,
}

impl Logs {
    fn new(options: JitOptions) -> Result<Self> {
        let mut logs = Self::default();
        for (i, (name, value)) in options.list()?.into_iter().enumerate() {
            let is = |option: Jit| option as u32 == name;
            match name {
                _ if is(Jit::CU_JIT_INFO_LOG_BUFFER) => logs.info.0 = Some(i),
                _ if is(Jit::CU_JIT_ERROR_LOG_BUFFER) => logs.error.0 = Some(i),
                _ if is(Jit::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES) => logs.info.1 = Some((i, value as u32 as usize)),
                _ if is(Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) => logs.error.1 = Some((i, value as u32 as usize)),
                _ if is(Jit::CU_JIT_WALL_TIME) => logs.wall_time = Some(i),
                _ if IGNORED.iter().any(|&option| is(option)) => {}
                _ if name < Jit::CU_JIT_NUM_OPTIONS as u32 => {
                    return Err(CUDA_ERROR_NOT_SUPPORTED.because(format!("JIT option {name} is not emulated")));
                }
                _ => return Err(CUDA_ERROR_INVALID_VALUE.because(format!("JIT option {name} is unknown"))),
            }
        }
        Ok(logs)
    }

    fn write(&self, options: JitOptions, failure: Option<&Error>) {
        let error = failure.map(|failure| format!("ptxas emulation: {}\n", failure.text)).unwrap_or_default();
        let info = if failure.is_none() { "the emulator executes PTX without compiling it\n" } else { "" };
        for ((buffer, size), text) in [(self.info, info), (self.error, error.as_str())] {
            if let (Some(buffer), Some((index, size))) = (buffer, size) {
                let written = options.buffer(buffer).set(text, size);
                options.set(index, written as u64);
            }
        }
        if let Some(index) = self.wall_time {
            options.set(index, u64::from(0_f32.to_bits()));
        }
    }
}

/// Loads code, and writes the text of an error to the log that the options name.
pub fn with_logs(count: u32, names: In<u32>, values: JitValues, load: impl FnOnce() -> Result<()>) -> Result<()> {
    let options = JitOptions::new(count, names, values)?;
    let logs = Logs::new(options)?;
    let outcome = load();
    logs.write(options, outcome.as_ref().err());
    outcome
}

exports! {
    fn cuModuleLoadData(out: Out<Handle>, image: Image) {
        load(out, text_of(image))?;
    }

    fn cuModuleLoadFatBinary(out: Out<Handle>, image: Image) {
        load(out, text_of(image))?;
    }

    fn cuModuleLoadDataEx(out: Out<Handle>, image: Image, count: u32, names: In<u32>, values: JitValues) {
        driver::ready()?;
        with_logs(count, names, values, || load(out, text_of(image)))?;
    }

    fn cuModuleLoad(out: Out<Handle>, path: Text) {
        driver::ready()?;
        load(out, text_of_file(path))?;
    }

    fn cuModuleUnload(module: Handle) {
        unload(driver::lock()?, module)?;
    }

    fn cuModuleGetLoadingMode(out: Out<u32>) {
        driver::ready()?;
        out.set(CU_MODULE_EAGER_LOADING as u32)?;
    }

    fn cuModuleGetFunction(out: Out<Handle>, module: Handle, name: Text) {
        let mut driver = driver::lock()?;
        driver.healthy_module(module)?;
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the function");
        out.set(driver.function_of(module, &name.get()?)?)?;
    }

    fn cuModuleGetFunctionCount(out: Out<u32>, module: Handle) {
        let driver = driver::lock()?;
        out.set(driver.healthy_module(module)?.code.kernels.len() as u32)?;
    }

    fn cuModuleEnumerateFunctions(out: OutList<Handle>, room: u32, module: Handle) {
        let mut driver = driver::lock()?;
        let code = driver.healthy_module(module)?.code.clone();
        let names = code.kernels.iter().take(room as usize).map(|kernel| kernel.name.as_str());
        let handles: Result<Vec<Handle>> = names.map(|name| driver.function_of(module, name)).collect();
        out.set(&handles?)?;
    }

    fn cuModuleGetGlobal_v2(address: Out<DevicePointer>, size: Out<usize>, module: Handle, name: Text) {
        let driver = driver::lock()?;
        let code = &driver.healthy_module(module)?.code;
        let name = name.get()?;
        let Some(global) = code.global(&name) else {
            return Err(CUDA_ERROR_NOT_FOUND.because(format!("no variable '{name}'")));
        };
        address.set_optional(global.address);
        size.set_optional(global.size as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed() {
        assert_eq!(ptx_version("// text\n.version 8.7\n.target sm_80"), 87);
        assert_eq!(ptx_version(".version\t9.0 .target"), 90);
        assert_eq!(ptx_version(".version x"), 0);
        assert_eq!(ptx_version(""), 0);
    }

    #[test]
    fn binaries_are_distinguished_from_text() {
        for image in [&b"\x7FELF\x02\x01"[..], &0xBA55_ED50_u32.to_le_bytes(), &0x4662_43B1_u32.to_le_bytes()] {
            assert_eq!(refuse_binary(image).unwrap_err().code, CUDA_ERROR_NO_BINARY_FOR_GPU as u32);
        }
        assert!(refuse_binary(b".version 9.0").is_ok());
        assert_eq!(utf8(vec![0xFF]).unwrap_err().code, CUDA_ERROR_INVALID_IMAGE as u32);
    }
}
