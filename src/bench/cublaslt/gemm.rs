//! The matmuls of `src/ops` as cuBLASLt's GEMM: `D = epilogue(op(A)·op(B) + C)`, column-major.
//!
//! A row-major matrix (R, C) is a column-major matrix of C rows and R columns with leading dimension C. So the library
//! sees every operand transposed, and computes the transpose of the operation's output:
//!
//! | operation            | D, m×n         | op(A), m×k         | op(B), k×n       |
//! |----------------------|----------------|--------------------|------------------|
//! | `out = x·weightᵀ`    | outᵀ, OC×N     | C×OC `weight`, T   | C×N `x`, N       |
//! | `dx = dout·weight`   | dxᵀ, C×N       | C×OC `weight`, N   | OC×N `dout`, N   |
//! | `dweight += doutᵀ·x` | dweightᵀ, C×OC | C×N `x`, N         | OC×N `dout`, T   |
//!
//! A bias has one element for each row of D, which has OC rows in the forward. The bias gradient, the sum of `dout`
//! over N, is the sum of op(B) along k, one element for each column of D: the epilogue BGRADB. BGRADB overwrites the
//! gradient, where the operation adds to it.

use crate::bench::cases::matmul::{MatmulDgrad, MatmulForward, MatmulWgrad};
use crate::bench::cases::{Case, Prepared};
use crate::bench::data::Data;
use crate::bench::problem::Problem;
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::ops::{self, AccumMut, Backend, Compute, ComputeMut, Operation};
use crate::tensor::{Shape, Storage};

/// A column-major matrix: element (i, j) is at i + j·ld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Leading dimension: elements from a column to the next.
    pub ld: usize,
}

impl Matrix {
    /// The column-major view of a row-major tensor.
    pub fn of(shape: Shape) -> Self {
        let [rows, columns] = shape.matrix();
        Matrix { rows: columns, columns: rows, ld: columns }
    }
}

/// op(A) or op(B): an input matrix, transposed or not.
pub struct Input<'a, S: Storage> {
    /// The matrix.
    pub matrix: Compute<'a, S>,
    /// Whether op transposes it.
    pub transposed: bool,
}

/// The matrix C, which is added to the product.
pub enum MatrixC<'a, S: Storage> {
    /// No C: β = 0.
    None,
    /// Another matrix with D's layout: β = 1.
    Separate(Compute<'a, S>),
    /// D before the call: β = 1.
    InPlace,
}

/// The epilogue: how D is computed from `sum = op(A)·op(B) + C`, and its operands.
pub enum Epilogue<'a, S: Storage> {
    /// `D = sum`
    Default,
    /// `D = sum + bias`
    Bias(Compute<'a, S>),
    /// `aux = sum + bias`, `D = gelu(aux)`
    GeluAuxBias {
        /// One element for each row of D.
        bias: Compute<'a, S>,
        /// The pre-activation, with D's layout.
        aux: ComputeMut<'a, S>,
    },
    /// `D = sum · gelu'(aux)`, with `aux` of D's layout.
    DGelu(Compute<'a, S>),
    /// `D = sum`, and the bias gradient: the sums of op(B) along k.
    BGradB(AccumMut<'a, S>),
}

/// The output matrix D.
pub enum MatrixD<'a, S: Storage> {
    /// An activation or its gradient.
    Compute(ComputeMut<'a, S>),
    /// A weight's gradient.
    Accum(AccumMut<'a, S>),
}

impl<S: Storage> MatrixD<'_, S> {
    /// The layout of D, which is also that of C and aux.
    pub fn layout(&self) -> Matrix {
        Matrix::of(match self {
            MatrixD::Compute(d) => d.shape(),
            MatrixD::Accum(d) => d.shape(),
        })
    }
}

/// The arguments of one call of the library.
pub struct Gemm<'a, S: Storage> {
    /// op(A).
    pub a: Input<'a, S>,
    /// op(B).
    pub b: Input<'a, S>,
    /// C.
    pub c: MatrixC<'a, S>,
    /// The epilogue.
    pub epilogue: Epilogue<'a, S>,
    /// D.
    pub d: MatrixD<'a, S>,
}

impl<'a, S: Storage> TryFrom<ops::MatmulForward<'a, S>> for Gemm<'a, S> {
    type Error = Error;

    fn try_from(op: ops::MatmulForward<'a, S>) -> Result<Self> {
        op.check()?;
        let (c, epilogue) = match op.epilogue {
            ops::Epilogue::None => (MatrixC::None, Epilogue::Default),
            ops::Epilogue::Bias { bias } => (MatrixC::None, Epilogue::Bias(bias)),
            ops::Epilogue::BiasGelu { bias, pre } => (MatrixC::None, Epilogue::GeluAuxBias { bias, aux: pre }),
            ops::Epilogue::BiasResidual { bias, residual } => (MatrixC::Separate(residual), Epilogue::Bias(bias)),
        };
        let a = Input { matrix: op.weight, transposed: true };
        Ok(Gemm { a, b: Input { matrix: op.x, transposed: false }, c, epilogue, d: MatrixD::Compute(op.out) })
    }
}

impl<'a, S: Storage> TryFrom<ops::MatmulDgrad<'a, S>> for Gemm<'a, S> {
    type Error = Error;

    fn try_from(op: ops::MatmulDgrad<'a, S>) -> Result<Self> {
        op.check()?;
        let epilogue = match op.epilogue {
            ops::DgradEpilogue::None => Epilogue::Default,
            ops::DgradEpilogue::DGelu { pre } => Epilogue::DGelu(pre),
        };
        let (a, b) = (Input { matrix: op.weight, transposed: false }, Input { matrix: op.dout, transposed: false });
        Ok(Gemm { a, b, c: MatrixC::None, epilogue, d: MatrixD::Compute(op.dx) })
    }
}

impl<'a, S: Storage> TryFrom<ops::MatmulWgrad<'a, S>> for Gemm<'a, S> {
    type Error = Error;

    fn try_from(op: ops::MatmulWgrad<'a, S>) -> Result<Self> {
        op.check()?;
        let c = match op.write {
            ops::Write::Overwrite => MatrixC::None,
            ops::Write::Accumulate => MatrixC::InPlace,
        };
        let (a, b) = (Input { matrix: op.x, transposed: false }, Input { matrix: op.dout, transposed: true });
        Ok(Gemm {
            a,
            b,
            c,
            epilogue: op.dbias.map_or(Epilogue::Default, Epilogue::BGradB),
            d: MatrixD::Accum(op.dweight),
        })
    }
}

/// A case that is one matmul.
pub trait GemmCase<B: Backend>: Prepared<B> {
    /// The call with the case's operands.
    ///
    /// # Errors
    /// Those of the operation's check.
    fn gemm(&mut self) -> Result<Gemm<'_, B>>;
}

impl<B: Backend> GemmCase<B> for MatmulForward<B> {
    fn gemm(&mut self) -> Result<Gemm<'_, B>> {
        self.op().try_into()
    }
}

impl<B: Backend> GemmCase<B> for MatmulDgrad<B> {
    fn gemm(&mut self) -> Result<Gemm<'_, B>> {
        self.op().try_into()
    }
}

impl<B: Backend> GemmCase<B> for MatmulWgrad<B> {
    fn gemm(&mut self) -> Result<Gemm<'_, B>> {
        self.op().try_into()
    }
}

const FORWARD: &str = ops::MatmulForward::<Cpu<f32>>::NAME;
const DGRAD: &str = ops::MatmulDgrad::<Cpu<f32>>::NAME;
const WGRAD: &str = ops::MatmulWgrad::<Cpu<f32>>::NAME;

/// Creates the operands of a problem: the same numbers as [`crate::bench::cases::prepare`], except that a bias gradient
/// is zero, so that overwriting it, as the library does, has the same result as adding to it.
///
/// # Errors
/// When an allocation fails; [`Error::Invalid`] for a problem that is not a matmul.
pub fn gemm_case<B: Backend + 'static>(backend: &B, problem: &Problem, seed: u64) -> Result<Box<dyn GemmCase<B>>> {
    let data = &mut Data::new(backend, seed);
    Ok(match problem.op {
        FORWARD => Box::new(MatmulForward::new(data, problem)?),
        DGRAD => Box::new(MatmulDgrad::new(data, problem)?),
        WGRAD => {
            let mut case = MatmulWgrad::new(data, problem)?;
            if let Some(dbias) = &mut case.dbias {
                *dbias = data.zeros(dbias.shape())?;
            }
            Box::new(case)
        }
        _ => return Err(Error::invalid(format!("{problem} is not a matmul"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::{self, Output};
    use crate::bench::verify::compare;

    type Reference = Cpu<f64>;

    fn gelu(x: f64) -> f64 {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        x / 2.0 * (1.0 + u.tanh())
    }

    fn dgelu(x: f64) -> f64 {
        let h = 1e-5;
        (gelu(x + h) - gelu(x - h)) / (2.0 * h)
    }

    /// The elements of op(A) or op(B), and its numbers of rows and columns.
    fn op<'a>(input: &'a Input<'_, Reference>) -> (impl Fn(usize, usize) -> f64 + 'a, usize, usize) {
        let Matrix { rows, columns, ld } = Matrix::of(input.matrix.shape());
        let transposed = input.transposed;
        let values = input.matrix.as_slice();
        let element = move |i: usize, j: usize| if transposed { values[j + i * ld] } else { values[i + j * ld] };
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        (element, rows, columns)
    }

    /// Computes a call as the cuBLASLt manual defines it.
    fn run(gemm: Gemm<'_, Reference>) {
        let layout @ Matrix { rows: m, columns: n, ld } = gemm.d.layout();
        let ((a, a_rows, k), (b, b_rows, b_columns)) = (op(&gemm.a), op(&gemm.b));
        assert_eq!((a_rows, k, b_columns), (m, b_rows, n), "the sizes of D, op(A) and op(B)");
        let (MatrixD::Compute(d) | MatrixD::Accum(d)) = gemm.d;
        let d = d.into_slice();
        let mut epilogue = gemm.epilogue;
        for (i, j) in (0..n).flat_map(|j| (0..m).map(move |i| (i, j))) {
            let at = i + j * ld;
            let c = match &gemm.c {
                MatrixC::None => 0.0,
                MatrixC::InPlace => d[at],
                MatrixC::Separate(c) => {
                    assert_eq!(Matrix::of(c.shape()), layout, "C has D's layout");
                    c.as_slice()[at]
                }
            };
            let sum = (0..k).map(|l| a(i, l) * b(l, j)).sum::<f64>() + c;
            d[at] = match &mut epilogue {
                Epilogue::Default | Epilogue::BGradB(_) => sum,
                Epilogue::Bias(bias) => sum + bias.as_slice()[i],
                Epilogue::GeluAuxBias { bias, aux } => {
                    assert_eq!(Matrix::of(aux.shape()), layout, "aux has D's layout");
                    let pre = sum + bias.as_slice()[i];
                    aux.reborrow().into_slice()[at] = pre;
                    gelu(pre)
                }
                Epilogue::DGelu(aux) => {
                    assert_eq!(Matrix::of(aux.shape()), layout, "aux has D's layout");
                    sum * dgelu(aux.as_slice()[at])
                }
            };
        }
        if let Epilogue::BGradB(gradient) = epilogue {
            let gradient = gradient.into_slice();
            assert_eq!(gradient.len(), n, "one element for each column of D");
            gradient.iter_mut().enumerate().for_each(|(j, sum)| *sum = (0..k).map(|l| b(l, j)).sum());
        }
    }

    /// A case that is computed as the manual defines it.
    struct ByManual(Box<dyn GemmCase<Reference>>);

    impl Prepared<Reference> for ByManual {
        fn floor(&mut self) -> ops::Floor {
            self.0.floor()
        }

        fn run(&mut self, _: &Reference) -> Result<()> {
            run(self.0.gemm()?);
            Ok(())
        }

        fn outputs(&self, backend: &Reference) -> Result<Vec<Output>> {
            self.0.outputs(backend)
        }
    }

    #[test]
    fn gemms_compute_the_operations() {
        let cpu = Reference::new();
        let matmuls = cases::ALL.iter().filter(|info| info.stem == "matmul");
        let mut seen = 0;
        for (info, variant) in matmuls.flat_map(|info| info.variants.iter().map(move |variant| (info, variant))) {
            // No two sizes are equal, so that a confusion of two dimensions is found.
            let shape = Problem::new(info, vec![24, 16, 40], variant);
            let mut tested = ByManual(gemm_case(&cpu, &shape, 1).unwrap());
            let error = compare(&shape, &cpu, &mut tested, &mut *gemm_case(&cpu, &shape, 1).unwrap()).unwrap();
            // Outputs are compared in f32.
            assert!(error < 1e-6, "{shape}: {error:e}");
            seen += 1;
        }
        assert_eq!(seen, 8, "variants of the matmuls");
    }

    #[test]
    fn other_operations_are_refused() {
        let gelu = &cases::select(&["gelu".into()]).unwrap()[0].small()[0];
        let why = gemm_case(&Reference::new(), gelu, 1).err().unwrap().to_string();
        assert_eq!(why, format!("{gelu} is not a matmul"));
    }
}
