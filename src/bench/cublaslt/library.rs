//! cuBLASLt by cudarc's bindings, which load it when it is first used. cudarc's safe layer has neither the epilogues that
//! keep or take a pre-activation nor those that sum a bias gradient.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::size_of_val;
use std::ptr;
use std::rc::Rc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
use cudarc::cublaslt::sys::cublasLtEpilogue_t::*;
use cudarc::cublaslt::sys::cublasLtMatmulDescAttributes_t::{self as attribute, *};
use cudarc::cublaslt::sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
use cudarc::cublaslt::sys::cudaDataType_t::{CUDA_R_16BF, CUDA_R_32F};
use cudarc::cublaslt::sys::{self, cublasStatus_t, libraryPropertyType_t};

use super::product::{Added, Epilogue, Matrix, Product, Written};
use crate::cuda::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What the library may use beside the operands.
const WORKSPACE: usize = 32 << 20;
/// Algorithms to choose from, at most.
const MOST_ALGORITHMS: usize = 16;

/// As cublasOperation_t has it, which cudarc has for cuBLAS alone.
const OP_N: i32 = 0;
const OP_T: i32 = 1;

/// A way to compute a product.
pub type Algorithm = sys::cublasLtMatmulAlgo_t;

/// That the library is to be had; cudarc would panic.
///
/// # Errors
/// [`Error::Unavailable`] when it is not.
pub fn require() -> Result<()> {
    // SAFETY: loads the library, if there is one, which runs its initialisers: NVIDIA's.
    #[allow(unsafe_code)]
    let present = unsafe { sys::is_culib_present() };
    if present {
        return Ok(());
    }
    Err(Error::Unavailable(
        "no cuBLASLt: libcublasLt.so was not found; it comes with the CUDA toolkit, and LD_LIBRARY_PATH may name its folder"
            .into(),
    ))
}

fn answered<T>(what: &str, outcome: Result<T, CublasError>) -> Result<T> {
    outcome.map_err(|CublasError(status)| Error::Unavailable(format!("cuBLASLt cannot {what}: {status:?}")))
}

/// The library, in use on a device.
pub struct Library {
    cuda: Cuda,
    handle: sys::cublasLtHandle_t,
    workspace: Tensor<Cuda, f32>,
}

impl Library {
    /// For a device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the library is not to be had, or does not want this device.
    pub fn load(cuda: &Cuda) -> Result<Self> {
        require()?;
        let workspace = cuda.uninitialised([WORKSPACE / 4])?;
        bind(cuda)?;
        Ok(Library { cuda: cuda.clone(), handle: answered("start", result::create_handle())?, workspace })
    }

    /// Its version, such as 13.1.0.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not say.
    pub fn version(&self) -> Result<String> {
        use libraryPropertyType_t::{MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
        let part = |property| {
            let mut value = 0;
            // SAFETY: writes an int.
            #[allow(unsafe_code)]
            let status = unsafe { sys::cublasLtGetProperty(property, &raw mut value) };
            answered("tell its version", status.result()).map(|()| value)
        };
        Ok(format!("{}.{}.{}", part(MAJOR_VERSION)?, part(MINOR_VERSION)?, part(PATCH_LEVEL)?))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: made by `load` and destroyed here alone, as the last plan is gone. The workspace is freed in the stream's order,
        // after what uses it. An error leaves nothing to do.
        #[allow(unsafe_code)]
        let _ = bind(&self.cuda).map(|()| unsafe { result::destroy_handle(self.handle) });
    }
}

/// The library works in the context that is current.
fn bind(cuda: &Cuda) -> Result<()> {
    let bound = cuda.device().stream().context().bind_to_thread();
    bound.map_err(|error| Error::Unavailable(format!("cuBLASLt cannot use the device: {error}")))
}

/// What the library made and wants back.
struct Owned<T: Copy> {
    raw: T,
    destroy: unsafe fn(T) -> Result<(), CublasError>,
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `raw` is of the function that belongs to `destroy`, and destroyed here alone.
        #[allow(unsafe_code)]
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

type Layout = Owned<sys::cublasLtMatrixLayout_t>;

impl Layout {
    fn new(Matrix { rows, columns, ld }: Matrix, element: sys::cudaDataType) -> Result<Self> {
        let raw = result::create_matrix_layout(element, rows as u64, columns as u64, ld as i64);
        Ok(Owned { raw: answered("describe a matrix", raw)?, destroy: result::destroy_matrix_layout })
    }
}

type Descriptor = Owned<sys::cublasLtMatmulDesc_t>;

impl Descriptor {
    /// bf16 factors, summed in f32.
    fn new() -> Result<Self> {
        let raw = result::create_matmul_desc(CUBLAS_COMPUTE_32F, CUDA_R_32F);
        Ok(Owned { raw: answered("describe a product", raw)?, destroy: result::destroy_matmul_desc })
    }

    /// Each attribute has a type, which the caller keeps to: 32 bits for transposition and epilogue, 64 for the rest.
    fn set<T: Copy>(&self, which: attribute, value: T) -> Result<()> {
        let (from, bytes) = ((&raw const value).cast(), size_of_val(&value));
        // SAFETY: reads so many bytes of `value`; a wrong number is refused.
        #[allow(unsafe_code)]
        let outcome = unsafe { result::set_matmul_desc_attribute(self.raw, which, from, bytes) };
        answered(&format!("set {which:?}"), outcome)
    }
}

/// Where the operands of a call are.
struct Addresses {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    bias: Option<u64>,
    aux: Option<u64>,
}

impl From<Product<'_, Cuda>> for Addresses {
    fn from(product: Product<'_, Cuda>) -> Self {
        let d = match product.d {
            Written::Compute(d) => d.address(),
            Written::Accum(d) => d.address(),
        };
        let (bias, aux) = match product.epilogue {
            Epilogue::Default => (None, None),
            Epilogue::Bias(bias) => (Some(bias.address()), None),
            Epilogue::GeluAuxBias { bias, aux } => (Some(bias.address()), Some(aux.address())),
            Epilogue::DGelu(aux) => (None, Some(aux.address())),
            Epilogue::BGradB(dbias) => (Some(dbias.address()), None),
        };
        let c = if let Added::Other(c) = product.added { c.address() } else { d };
        Addresses { a: product.a.of.address(), b: product.b.of.address(), c, d, bias, aux }
    }
}

/// What is known of a product without its operands.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Form {
    a: Matrix,
    b: Matrix,
    transposed: [bool; 2],
    /// Of D, C and aux.
    d: Matrix,
    written: sys::cudaDataType,
    epilogue: sys::cublasLtEpilogue_t,
    beta: f32,
}

impl Form {
    fn of(product: &Product<'_, Cuda>) -> Self {
        Form {
            a: Matrix::of(product.a.of.shape()),
            b: Matrix::of(product.b.of.shape()),
            transposed: [product.a.transposed, product.b.transposed],
            d: product.d.matrix(),
            written: if let Written::Compute(_) = product.d { CUDA_R_16BF } else { CUDA_R_32F },
            epilogue: match product.epilogue {
                Epilogue::Default => CUBLASLT_EPILOGUE_DEFAULT,
                Epilogue::Bias(_) => CUBLASLT_EPILOGUE_BIAS,
                Epilogue::GeluAuxBias { .. } => CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
                Epilogue::DGelu(_) => CUBLASLT_EPILOGUE_DGELU,
                Epilogue::BGradB(_) => CUBLASLT_EPILOGUE_BGRADB,
            },
            beta: if let Added::Nothing = product.added { 0.0 } else { 1.0 },
        }
    }
}

/// A form as the library has it, and the algorithms for it.
pub struct Plan {
    library: Rc<Library>,
    descriptor: Descriptor,
    a: Layout,
    b: Layout,
    /// Of D, and of C.
    d: Layout,
    form: Form,
    /// Those that the library proposes, the one that it takes for the fastest first.
    pub algorithms: Vec<Algorithm>,
    /// The one that runs.
    pub chosen: Cell<Algorithm>,
}

impl Plan {
    /// For a product and all others of its form.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the library has no algorithm for it.
    pub fn new(library: &Rc<Library>, product: Product<'_, Cuda>) -> Result<Self> {
        bind(&library.cuda)?;
        let (descriptor, form) = (Descriptor::new()?, Form::of(&product));
        let [a, b] = form.transposed.map(|transposed| if transposed { OP_T } else { OP_N });
        descriptor.set(CUBLASLT_MATMUL_DESC_TRANSA, a)?;
        descriptor.set(CUBLASLT_MATMUL_DESC_TRANSB, b)?;
        descriptor.set(CUBLASLT_MATMUL_DESC_EPILOGUE, form.epilogue)?;
        if matches!(form.epilogue, CUBLASLT_EPILOGUE_GELU_AUX_BIAS | CUBLASLT_EPILOGUE_DGELU) {
            descriptor.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, form.d.ld as i64)?;
        }
        let mut plan = Plan {
            library: library.clone(),
            descriptor,
            a: Layout::new(form.a, CUDA_R_16BF)?,
            b: Layout::new(form.b, CUDA_R_16BF)?,
            d: Layout::new(form.d, form.written)?,
            form,
            algorithms: Vec::new(),
            chosen: Cell::new(Algorithm { data: [0; 8] }),
        };
        // What an algorithm asks of an address can only be seen where there is one.
        plan.point(&product.into())?;
        plan.algorithms = plan.heuristic()?;
        let none = || Error::Unavailable("cuBLASLt has no algorithm for this product with this epilogue".into());
        plan.chosen.set(*plan.algorithms.first().ok_or_else(none)?);
        Ok(plan)
    }

    fn point(&self, addresses: &Addresses) -> Result<()> {
        if let Some(bias) = addresses.bias {
            self.descriptor.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
        }
        if let Some(aux) = addresses.aux {
            self.descriptor.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux)?;
        }
        Ok(())
    }

    /// The library's proposals; none where it supports no such product.
    fn heuristic(&self) -> Result<Vec<Algorithm>> {
        let raw = answered("describe a preference", result::create_matmul_pref())?;
        let preference = Owned { raw, destroy: result::destroy_matmul_pref };
        let mut found: Vec<sys::cublasLtMatmulHeuristicResult_t> = Vec::with_capacity(MOST_ALGORITHMS);
        let mut count = 0;
        let workspace: usize = WORKSPACE;
        // SAFETY: the preference's value is a size_t; the descriptors live; there is room for so many results, and the first
        // `count` of them are written.
        #[allow(unsafe_code)]
        let status = unsafe {
            let (which, bytes) = (CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast());
            answered("limit its workspace", result::set_matmul_pref_attribute(raw, which, bytes, size_of::<usize>()))?;
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
                self.library.handle,
                self.descriptor.raw,
                self.a.raw,
                self.b.raw,
                self.d.raw,
                self.d.raw,
                preference.raw,
                MOST_ALGORITHMS as i32,
                found.as_mut_ptr(),
                &raw mut count,
            );
            if status == cublasStatus_t::CUBLAS_STATUS_SUCCESS {
                found.set_len(count.clamp(0, MOST_ALGORITHMS as i32) as usize);
            }
            status
        };
        if status == cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED {
            return Ok(Vec::new());
        }
        answered("propose algorithms", status.result())?;
        found.retain(|proposal| proposal.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        Ok(found.iter().map(|proposal| proposal.algo).collect())
    }

    /// Queues a product of the plan's form, by the chosen algorithm.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another form; [`Error::Unavailable`] when the library refuses it.
    pub fn run(&self, product: Product<'_, Cuda>) -> Result<()> {
        let (library, form) = (&*self.library, Form::of(&product));
        if form != self.form {
            return Err(Error::invalid(format!("a product of {form:?} by a plan for {:?}", self.form)));
        }
        bind(&library.cuda)?;
        let addresses @ Addresses { a, b, c, d, .. } = &Addresses::from(product);
        self.point(addresses)?;
        let (alpha, algorithm) = (1f32, self.chosen.get());
        let pointer = |address: u64| ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        // SAFETY: descriptors and handle live as long as the plan. The product has their form, and its operands passed the
        // operation's check, so all lie inside of tensors of the device, which are freed in the stream's order. All products are
        // on one stream, so one after the other uses the workspace.
        #[allow(unsafe_code)]
        let outcome = unsafe {
            result::matmul(
                library.handle,
                self.descriptor.raw,
                (&raw const alpha).cast(),
                (&raw const self.form.beta).cast(),
                pointer(*a),
                self.a.raw,
                pointer(*b),
                self.b.raw,
                pointer(*c),
                self.d.raw,
                pointer(*d),
                self.d.raw,
                &raw const algorithm,
                pointer(library.workspace.view().address()),
                WORKSPACE,
                library.cuda.device().stream().cu_stream().cast(),
            )
        };
        answered("queue the product", outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_one_line() {
        // SAFETY: as in `require`.
        #[allow(unsafe_code)]
        let present = unsafe { sys::is_culib_present() };
        match require() {
            Ok(()) => assert!(present, "nothing was found and nothing said"),
            Err(Error::Unavailable(why)) => {
                assert!(!present, "{why}");
                assert!(why.starts_with("no cuBLASLt: libcublasLt.so was not found;") && !why.contains('\n'), "{why}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}
