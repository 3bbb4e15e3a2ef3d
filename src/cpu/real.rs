//! The number types that the reference computes in.

use num_traits::{Float, NumAssign};

use crate::tensor::FloatElement;

/// `f32` or `f64`.
pub trait Real: FloatElement + Float + NumAssign {
    /// The nearest value.
    fn of(value: f64) -> Self;

    /// The value in double precision.
    fn wide(self) -> f64;

    /// `c = alpha·a·b + beta·c` for strided matrices: `matrixmultiply`'s own signature.
    ///
    /// # Safety
    /// All elements that (m, k, n) and the strides (rs: row, cs: column) reach must be inside the allocations, and those
    /// of `c` distinct, writable and aliased by nothing.
    #[allow(unsafe_code, clippy::too_many_arguments)]
    unsafe fn gemm(
        m: usize,
        k: usize,
        n: usize,
        alpha: Self,
        a: *const Self,
        rsa: isize,
        csa: isize,
        b: *const Self,
        rsb: isize,
        csb: isize,
        beta: Self,
        c: *mut Self,
        rsc: isize,
        csc: isize,
    );
}

macro_rules! real {
    ($type:ty, $gemm:path) => {
        impl Real for $type {
            fn of(value: f64) -> Self {
                value as $type
            }

            fn wide(self) -> f64 {
                f64::from(self)
            }

            #[allow(unsafe_code)]
            unsafe fn gemm(
                m: usize,
                k: usize,
                n: usize,
                alpha: Self,
                a: *const Self,
                rsa: isize,
                csa: isize,
                b: *const Self,
                rsb: isize,
                csb: isize,
                beta: Self,
                c: *mut Self,
                rsc: isize,
                csc: isize,
            ) {
                // SAFETY: the caller's promise is the one that matrixmultiply asks for.
                unsafe { $gemm(m, k, n, alpha, a, rsa, csa, b, rsb, csb, beta, c, rsc, csc) }
            }
        }
    };
}

real!(f32, matrixmultiply::sgemm);
real!(f64, matrixmultiply::dgemm);

/// `Σ f(i)` for `i` in `0..n`, in a fixed order: eight sums side by side, which a compiler may keep in vector registers,
/// then those together.
pub(super) fn sum<R: Real>(n: usize, f: impl Fn(usize) -> R) -> R {
    const LANES: usize = 8;
    let mut lanes = [R::zero(); LANES];
    let whole = n - n % LANES;
    for i in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(i + lane);
        }
    }
    let tail = (whole..n).map(f).fold(R::zero(), |sum, x| sum + x);
    lanes.iter().fold(tail, |sum, &x| sum + x)
}
