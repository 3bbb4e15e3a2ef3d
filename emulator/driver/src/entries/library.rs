//! Libraries: code that is loaded once, and as a module into each context that uses it.

use std::collections::BTreeMap;
use std::ffi::CString;

use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_FOUND, CUDA_ERROR_NOT_SUPPORTED};
use ptx_emulator::memory::Memory;

use super::function;
use super::module::{text_of, text_of_file, unload, with_logs};
use crate::boundary::{Device, DevicePointer, Handle, Image, In, JitValues, Out, OutList, Text};
use crate::driver::{self, Driver, check_device, find, find_mut};
use crate::error::{Because, Result, ensure};
use crate::export::exports;
use crate::handle::{Kind, new_handle};
use crate::object::function::Attributes;
use crate::object::library::{Kernel, Library};

impl Driver {
    /// Loads a library. The code is checked without a context, with its variables in a temporary memory.
    fn add_library(&mut self, text: String) -> Result<Handle> {
        let (code, _) = self.compile(&text, &Memory::new(self.settings.memory))?;
        let library = new_handle(Kind::Library);
        let mut kernels = Vec::new();
        for kernel in &code.kernels {
            let handle = new_handle(Kind::Kernel);
            let name = CString::new(kernel.name.as_str()).unwrap_or_default();
            let attributes = Attributes::new(kernel, &self.limits);
            self.kernels.insert(handle, Kernel { library, name, attributes });
            kernels.push(handle);
        }
        self.libraries.insert(library, Library { text, kernels, modules: BTreeMap::new() });
        Ok(library)
    }

    /// The library's module in the current context, where it is loaded if necessary.
    fn module_of_library(&mut self, handle: Handle) -> Result<Handle> {
        let context = self.current()?;
        let library = find(&self.libraries, "library", handle)?;
        if let Some(&module) = library.modules.get(&context) {
            return Ok(module);
        }
        let text = library.text.clone();
        let module = self.add_module(context, &text)?;
        find_mut(&mut self.libraries, "library", handle)?.modules.insert(context, module);
        Ok(module)
    }

    /// The function that a function or kernel handle stands for in the current context.
    pub fn function_or_kernel(&mut self, handle: Handle) -> Result<Handle> {
        if self.functions.contains_key(&handle) || !self.kernels.contains_key(&handle) {
            return Ok(handle);
        }
        let Kernel { library, name, .. } = find(&self.kernels, "kernel", handle)?;
        let (library, name) = (*library, name.to_string_lossy().into_owned());
        let module = self.module_of_library(library)?;
        let function = self.function_of(module, &name)?;
        let attributes = find(&self.kernels, "kernel", handle)?.attributes;
        find_mut(&mut self.functions, "function", function)?.adopt(attributes);
        Ok(function)
    }
}

fn load(out: Out<Handle>, text: Result<String>, option_count: u32) -> Result<()> {
    let mut driver = driver::lock()?;
    ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the library");
    ensure!(option_count == 0, CUDA_ERROR_NOT_SUPPORTED, "library options are not emulated");
    let library = driver.add_library(text?)?;
    out.set(library)
}

fn unload_library(handle: Handle) -> Result<()> {
    let driver = driver::lock()?;
    let library = find(&driver.libraries, "library", handle)?;
    let modules: Vec<Handle> = library.modules.values().copied().collect();
    drop(driver);
    for module in modules {
        unload(driver::lock()?, module)?;
    }
    let mut driver = driver::lock()?;
    driver.libraries.remove(&handle);
    driver.kernels.retain(|_, kernel| kernel.library != handle);
    Ok(())
}

exports! {
    fn cuLibraryLoadData(
        out: Out<Handle>, image: Image, names: In<u32>, values: JitValues, count: u32, _option_names: usize,
        _option_values: usize, option_count: u32
    ) {
        driver::ready()?;
        with_logs(count, names, values, || load(out, text_of(image), option_count))?;
    }

    fn cuLibraryLoadFromFile(
        out: Out<Handle>, path: Text, names: In<u32>, values: JitValues, count: u32, _option_names: usize,
        _option_values: usize, option_count: u32
    ) {
        driver::ready()?;
        with_logs(count, names, values, || load(out, text_of_file(path), option_count))?;
    }

    fn cuLibraryUnload(library: Handle) {
        unload_library(library)?;
    }

    fn cuLibraryGetKernel(out: Out<Handle>, library: Handle, name: Text) {
        let driver = driver::lock()?;
        let name = name.get()?;
        let kernels = &find(&driver.libraries, "library", library)?.kernels;
        let named = |handle: &&Handle| driver.kernels.get(*handle).is_some_and(|k| k.name.to_bytes() == name.as_bytes());
        let Some(&kernel) = kernels.iter().find(named) else {
            return Err(CUDA_ERROR_NOT_FOUND.because(format!("no kernel '{name}' in the library")));
        };
        out.set(kernel)?;
    }

    fn cuLibraryGetKernelCount(out: Out<u32>, library: Handle) {
        let driver = driver::lock()?;
        out.set(find(&driver.libraries, "library", library)?.kernels.len() as u32)?;
    }

    fn cuLibraryEnumerateKernels(out: OutList<Handle>, room: u32, library: Handle) {
        let driver = driver::lock()?;
        let kernels = &find(&driver.libraries, "library", library)?.kernels;
        out.set(&kernels[..kernels.len().min(room as usize)])?;
    }

    fn cuLibraryGetModule(out: Out<Handle>, library: Handle) {
        out.set(driver::lock()?.module_of_library(library)?)?;
    }

    fn cuLibraryGetGlobal(address: Out<DevicePointer>, size: Out<usize>, library: Handle, name: Text) {
        let mut driver = driver::lock()?;
        let module = driver.module_of_library(library)?;
        let name = name.get()?;
        let Some(global) = find(&driver.modules, "module", module)?.code.global(&name) else {
            return Err(CUDA_ERROR_NOT_FOUND.because(format!("no variable '{name}'")));
        };
        address.set_optional(global.address);
        size.set_optional(global.size as usize);
    }

    fn cuKernelGetFunction(out: Out<Handle>, kernel: Handle) {
        let mut driver = driver::lock()?;
        find(&driver.kernels, "kernel", kernel)?;
        out.set(driver.function_or_kernel(kernel)?)?;
    }

    fn cuKernelGetLibrary(out: Out<Handle>, kernel: Handle) {
        let driver = driver::lock()?;
        out.set(find(&driver.kernels, "kernel", kernel)?.library)?;
    }

    fn cuKernelGetName(out: Out<Text>, kernel: Handle) {
        let driver = driver::lock()?;
        let text = Text::from(find(&driver.kernels, "kernel", kernel)?.name.as_c_str());
        out.set(text)?;
    }

    fn cuKernelGetParamInfo(kernel: Handle, index: usize, offset: Out<usize>, size: Out<usize>) {
        let mut driver = driver::lock()?;
        find(&driver.kernels, "kernel", kernel)?;
        let function = driver.function_or_kernel(kernel)?;
        function::param_info(&driver, function, index, offset, size)?;
    }

    fn cuKernelGetAttribute(out: Out<i32>, name: u32, kernel: Handle, device: Device) {
        let mut driver = driver::lock()?;
        check_device(device)?;
        find(&driver.kernels, "kernel", kernel)?;
        let function = driver.function_or_kernel(kernel)?;
        out.set(driver.function_attribute(function, name)?)?;
    }

    fn cuKernelSetAttribute(name: u32, value: i32, kernel: Handle, device: Device) {
        let mut driver = driver::lock()?;
        check_device(device)?;
        let limits = driver.limits;
        find_mut(&mut driver.kernels, "kernel", kernel)?.attributes.set(&limits, name, value)?;
    }

    fn cuKernelSetCacheConfig(kernel: Handle, config: u32, device: Device) {
        let driver = driver::lock()?;
        check_device(device)?;
        find(&driver.kernels, "kernel", kernel)?;
        ensure!(config <= 3, CUDA_ERROR_INVALID_VALUE, "cache configuration {config} is unknown");
    }
}
