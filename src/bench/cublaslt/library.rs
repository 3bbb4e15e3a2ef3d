//! cuBLASLt through cudarc's bindings, which load the library on first use. cudarc's safe layer is not used: it lacks
//! the epilogues that write or read a pre-activation (GELU_AUX_BIAS, DGELU) and the bias gradient (BGRADB).

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

use super::gemm::{Epilogue, Gemm, Matrix, MatrixC, MatrixD};
use crate::cuda::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Bytes of device memory that the library may use in addition to the operands.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Maximum number of algorithms to choose from.
const MAX_ALGORITHMS: usize = 16;

/// Values of cublasOperation_t, which cudarc declares only for cuBLAS.
const OP_N: i32 = 0;
const OP_T: i32 = 1;

/// An algorithm of the library for one matmul.
pub type Algorithm = sys::cublasLtMatmulAlgo_t;

/// Fails when the library cannot be loaded. cudarc's bindings would panic instead.
///
/// # Errors
/// [`Error::Unavailable`] when the library is not installed.
pub fn require() -> Result<()> {
    // SAFETY: loads the library, which runs NVIDIA's initialisers.
    #[allow(unsafe_code)]
    let present = unsafe { sys::is_culib_present() };
    if present {
        return Ok(());
    }
    Err(Error::Unavailable(
        "no cuBLASLt: libcublasLt.so was not found; it comes with the CUDA toolkit, and LD_LIBRARY_PATH may name its \
         folder"
            .into(),
    ))
}

/// Turns a failure of the library into an error that says which action failed.
fn check<T>(action: &str, outcome: Result<T, CublasError>) -> Result<T> {
    outcome.map_err(|CublasError(status)| Error::Unavailable(format!("cuBLASLt cannot {action}: {status:?}")))
}

/// A handle of the library for a device.
pub struct Library {
    cuda: Cuda,
    handle: sys::cublasLtHandle_t,
    workspace: Tensor<Cuda, f32>,
}

impl Library {
    /// Creates a handle for a device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the library is not installed or does not support the device; an allocation failure.
    pub fn load(cuda: &Cuda) -> Result<Self> {
        require()?;
        let workspace = cuda.uninitialised([WORKSPACE_BYTES / 4])?;
        bind(cuda)?;
        Ok(Library { cuda: cuda.clone(), handle: check("start", result::create_handle())?, workspace })
    }

    /// The version of the library, such as 13.1.0.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the library does not report it.
    pub fn version(&self) -> Result<String> {
        use libraryPropertyType_t::{MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
        let number = |property| {
            let mut value = 0;
            // SAFETY: writes one int.
            #[allow(unsafe_code)]
            let status = unsafe { sys::cublasLtGetProperty(property, &raw mut value) };
            check("report its version", status.result()).map(|()| value)
        };
        Ok(format!("{}.{}.{}", number(MAJOR_VERSION)?, number(MINOR_VERSION)?, number(PATCH_LEVEL)?))
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle was created by `load` and is destroyed only here, after the last plan. The workspace is
        // freed in stream order, after its last use. An error cannot be handled in `drop`.
        #[allow(unsafe_code)]
        let _ = bind(&self.cuda).map(|()| unsafe { result::destroy_handle(self.handle) });
    }
}

/// Makes the device's context current, which is the one that the library uses.
fn bind(cuda: &Cuda) -> Result<()> {
    let bound = cuda.device().stream().context().bind_to_thread();
    bound.map_err(|error| Error::Unavailable(format!("cuBLASLt cannot use the device: {error}")))
}

/// An object of the library that must be destroyed.
struct Owned<T: Copy> {
    raw: T,
    destroy: unsafe fn(T) -> Result<(), CublasError>,
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `raw` was created by the function that belongs to `destroy`, and is destroyed only here.
        #[allow(unsafe_code)]
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

type Layout = Owned<sys::cublasLtMatrixLayout_t>;

impl Layout {
    fn new(Matrix { rows, columns, ld }: Matrix, element: sys::cudaDataType) -> Result<Self> {
        let raw = result::create_matrix_layout(element, rows as u64, columns as u64, ld as i64);
        Ok(Owned { raw: check("describe a matrix", raw)?, destroy: result::destroy_matrix_layout })
    }
}

type Descriptor = Owned<sys::cublasLtMatmulDesc_t>;

impl Descriptor {
    /// A matmul of bf16 inputs with f32 accumulation.
    fn new() -> Result<Self> {
        let raw = result::create_matmul_desc(CUBLAS_COMPUTE_32F, CUDA_R_32F);
        Ok(Owned { raw: check("describe a matmul", raw)?, destroy: result::destroy_matmul_desc })
    }

    /// Sets an attribute. The caller passes the attribute's type: 32 bits for transposition and epilogue, 64 for the
    /// others.
    fn set<T: Copy>(&self, which: attribute, value: T) -> Result<()> {
        let (from, bytes) = ((&raw const value).cast(), size_of_val(&value));
        // SAFETY: reads `bytes` bytes of `value`; the library refuses a wrong size.
        #[allow(unsafe_code)]
        let outcome = unsafe { result::set_matmul_desc_attribute(self.raw, which, from, bytes) };
        check(&format!("set {which:?}"), outcome)
    }
}

/// Device addresses of the operands of a call.
struct Addresses {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    bias: Option<u64>,
    aux: Option<u64>,
}

impl From<Gemm<'_, Cuda>> for Addresses {
    fn from(gemm: Gemm<'_, Cuda>) -> Self {
        let d = match gemm.d {
            MatrixD::Compute(d) => d.ptr().address(),
            MatrixD::Accum(d) => d.ptr().address(),
        };
        let (bias, aux) = match gemm.epilogue {
            Epilogue::Default => (None, None),
            Epilogue::Bias(bias) => (Some(bias.ptr().address()), None),
            Epilogue::GeluAuxBias { bias, aux } => (Some(bias.ptr().address()), Some(aux.ptr().address())),
            Epilogue::DGelu(aux) => (None, Some(aux.ptr().address())),
            Epilogue::BGradB(dbias) => (Some(dbias.ptr().address()), None),
        };
        let c = if let MatrixC::Separate(c) = gemm.c { c.ptr().address() } else { d };
        Addresses { a: gemm.a.matrix.ptr().address(), b: gemm.b.matrix.ptr().address(), c, d, bias, aux }
    }
}

/// The layouts, types and epilogue of a call: everything but the addresses.
#[derive(Debug, Clone, Copy, PartialEq)]
struct GemmSpec {
    a: Matrix,
    b: Matrix,
    transposed: [bool; 2],
    /// Layout of D, C and aux.
    d: Matrix,
    d_type: sys::cudaDataType,
    epilogue: sys::cublasLtEpilogue_t,
    beta: f32,
}

impl GemmSpec {
    fn of(gemm: &Gemm<'_, Cuda>) -> Self {
        GemmSpec {
            a: Matrix::of(gemm.a.matrix.shape()),
            b: Matrix::of(gemm.b.matrix.shape()),
            transposed: [gemm.a.transposed, gemm.b.transposed],
            d: gemm.d.layout(),
            d_type: if let MatrixD::Compute(_) = gemm.d { CUDA_R_16BF } else { CUDA_R_32F },
            epilogue: match gemm.epilogue {
                Epilogue::Default => CUBLASLT_EPILOGUE_DEFAULT,
                Epilogue::Bias(_) => CUBLASLT_EPILOGUE_BIAS,
                Epilogue::GeluAuxBias { .. } => CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
                Epilogue::DGelu(_) => CUBLASLT_EPILOGUE_DGELU,
                Epilogue::BGradB(_) => CUBLASLT_EPILOGUE_BGRADB,
            },
            beta: if let MatrixC::None = gemm.c { 0.0 } else { 1.0 },
        }
    }
}

/// The library's descriptors for one [`GemmSpec`], and the algorithms for it.
pub struct Plan {
    library: Rc<Library>,
    descriptor: Descriptor,
    a: Layout,
    b: Layout,
    /// Layout of D and C.
    d: Layout,
    spec: GemmSpec,
    /// The algorithms that the library proposes, in the order of its estimate, the fastest first.
    pub algorithms: Vec<Algorithm>,
    /// The algorithm that `run` uses.
    pub chosen: Cell<Algorithm>,
}

impl Plan {
    /// A plan for a call and all other calls that differ from it only in addresses.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the library has no algorithm for it.
    pub fn new(library: &Rc<Library>, gemm: Gemm<'_, Cuda>) -> Result<Self> {
        bind(&library.cuda)?;
        let (descriptor, spec) = (Descriptor::new()?, GemmSpec::of(&gemm));
        let [a, b] = spec.transposed.map(|transposed| if transposed { OP_T } else { OP_N });
        descriptor.set(CUBLASLT_MATMUL_DESC_TRANSA, a)?;
        descriptor.set(CUBLASLT_MATMUL_DESC_TRANSB, b)?;
        descriptor.set(CUBLASLT_MATMUL_DESC_EPILOGUE, spec.epilogue)?;
        if matches!(spec.epilogue, CUBLASLT_EPILOGUE_GELU_AUX_BIAS | CUBLASLT_EPILOGUE_DGELU) {
            descriptor.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, spec.d.ld as i64)?;
        }
        let mut plan = Plan {
            library: library.clone(),
            descriptor,
            a: Layout::new(spec.a, CUDA_R_16BF)?,
            b: Layout::new(spec.b, CUDA_R_16BF)?,
            d: Layout::new(spec.d, spec.d_type)?,
            spec,
            algorithms: Vec::new(),
            chosen: Cell::new(Algorithm { data: [0; 8] }),
        };
        // The heuristic needs the addresses, because algorithms may require an alignment.
        plan.set_epilogue_pointers(&gemm.into())?;
        plan.algorithms = plan.heuristic()?;
        let none = || Error::Unavailable("cuBLASLt has no algorithm for this matmul with this epilogue".into());
        plan.chosen.set(*plan.algorithms.first().ok_or_else(none)?);
        Ok(plan)
    }

    fn set_epilogue_pointers(&self, addresses: &Addresses) -> Result<()> {
        if let Some(bias) = addresses.bias {
            self.descriptor.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
        }
        if let Some(aux) = addresses.aux {
            self.descriptor.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux)?;
        }
        Ok(())
    }

    /// The algorithms that the library proposes; empty if it does not support the call.
    fn heuristic(&self) -> Result<Vec<Algorithm>> {
        let raw = check("describe a preference", result::create_matmul_pref())?;
        let preference = Owned { raw, destroy: result::destroy_matmul_pref };
        let mut found: Vec<sys::cublasLtMatmulHeuristicResult_t> = Vec::with_capacity(MAX_ALGORITHMS);
        let mut count = 0;
        let workspace: usize = WORKSPACE_BYTES;
        // SAFETY: the preference's value is a size_t; the descriptors are alive; `found` has capacity for
        // MAX_ALGORITHMS results, and the library writes the first `count`.
        #[allow(unsafe_code)]
        let status = unsafe {
            let (which, bytes) = (CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast());
            check("limit its workspace", result::set_matmul_pref_attribute(raw, which, bytes, size_of::<usize>()))?;
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
                self.library.handle,
                self.descriptor.raw,
                self.a.raw,
                self.b.raw,
                self.d.raw,
                self.d.raw,
                preference.raw,
                MAX_ALGORITHMS as i32,
                found.as_mut_ptr(),
                &raw mut count,
            );
            if status == cublasStatus_t::CUBLAS_STATUS_SUCCESS {
                found.set_len(count.clamp(0, MAX_ALGORITHMS as i32) as usize);
            }
            status
        };
        if status == cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED {
            return Ok(Vec::new());
        }
        check("propose algorithms", status.result())?;
        found.retain(|proposal| proposal.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        Ok(found.iter().map(|proposal| proposal.algo).collect())
    }

    /// Enqueues a call with the plan's [`GemmSpec`], using the chosen algorithm.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a call with another spec; [`Error::Unavailable`] when the library refuses it.
    pub fn run(&self, gemm: Gemm<'_, Cuda>) -> Result<()> {
        let (library, spec) = (&*self.library, GemmSpec::of(&gemm));
        if spec != self.spec {
            return Err(Error::invalid(format!("a matmul of {spec:?} with a plan for {:?}", self.spec)));
        }
        bind(&library.cuda)?;
        let addresses @ Addresses { a, b, c, d, .. } = &Addresses::from(gemm);
        self.set_epilogue_pointers(addresses)?;
        let (alpha, algorithm) = (1f32, self.chosen.get());
        let pointer = |address: u64| ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        // SAFETY: descriptors and handle live as long as the plan. The call has the plan's spec, and its operands
        // passed the operation's check, so all accesses are within tensors of the device, which are freed in stream
        // order. All calls are on one stream, so their uses of the workspace do not overlap.
        #[allow(unsafe_code)]
        let outcome = unsafe {
            result::matmul(
                library.handle,
                self.descriptor.raw,
                (&raw const alpha).cast(),
                (&raw const self.spec.beta).cast(),
                pointer(*a),
                self.a.raw,
                pointer(*b),
                self.b.raw,
                pointer(*c),
                self.d.raw,
                pointer(*d),
                self.d.raw,
                &raw const algorithm,
                pointer(library.workspace.view().ptr().address()),
                WORKSPACE_BYTES,
                library.cuda.device().stream().cu_stream().cast(),
            )
        };
        check("enqueue the matmul", outcome)
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
            Ok(()) => assert!(present, "no library was found, and no error returned"),
            Err(Error::Unavailable(why)) => {
                assert!(!present, "{why}");
                assert!(why.starts_with("no cuBLASLt: libcublasLt.so was not found;") && !why.contains('\n'), "{why}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}
