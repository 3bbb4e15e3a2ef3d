//! Products of `src/ops` as cuBLASLt has them: `D = epilogue(op(A)·op(B) + C)`, column-major.
//!
//! A row-major matrix (R, C) is a column-major one of C rows and R columns with leading dimension C. So the library sees
//! every operand transposed, and computes the transpose of what the operation writes:
//!
//! | operation            | D, m×n         | op(A), m×k         | op(B), k×n       |
//! |----------------------|----------------|--------------------|------------------|
//! | `out = x·weightᵀ`    | outᵀ, OC×N     | C×OC `weight`, T   | C×N `x`, N       |
//! | `dx = dout·weight`   | dxᵀ, C×N       | C×OC `weight`, N   | OC×N `dout`, N   |
//! | `dweight += doutᵀ·x` | dweightᵀ, C×OC | C×N `x`, N         | OC×N `dout`, T   |
//!
//! A bias lies along the rows of D, which are OC in the forward. The sum of `dout` over N is that of op(B) along k, one
//! number a column of D: the epilogue BGRADB. It overwrites, where the operation adds.

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
    /// As long as a column.
    pub rows: usize,
    /// As long as a row.
    pub columns: usize,
    /// From a column to the next.
    pub ld: usize,
}

impl Matrix {
    /// What a row-major tensor is.
    pub fn of(shape: Shape) -> Self {
        let [rows, columns] = shape.matrix();
        Matrix { rows: columns, columns: rows, ld: columns }
    }
}

/// A factor, transposed or not.
pub struct Factor<'a, S: Storage> {
    /// The operand.
    pub of: Compute<'a, S>,
    /// Whether op is T.
    pub transposed: bool,
}

/// C.
pub enum Added<'a, S: Storage> {
    /// None: β = 0.
    Nothing,
    /// β = 1, of D's layout.
    Other(Compute<'a, S>),
    /// β = 1: what D was before.
    Itself,
}

/// What becomes of the sum, and what is read or written meanwhile.
pub enum Epilogue<'a, S: Storage> {
    /// `D = sum`
    Default,
    /// `D = sum + bias`
    Bias(Compute<'a, S>),
    /// `aux = sum + bias`, `D = gelu(aux)`
    GeluAuxBias {
        /// Along the rows of D.
        bias: Compute<'a, S>,
        /// Of D's layout.
        aux: ComputeMut<'a, S>,
    },
    /// `D = sum · gelu'(aux)`, with `aux` of D's layout.
    DGelu(Compute<'a, S>),
    /// `D = sum`, and the sums of op(B) along k.
    BGradB(AccumMut<'a, S>),
}

/// D.
pub enum Written<'a, S: Storage> {
    /// An activation or its gradient.
    Compute(ComputeMut<'a, S>),
    /// A weight's gradient.
    Accum(AccumMut<'a, S>),
}

impl<S: Storage> Written<'_, S> {
    /// Its layout, and that of C and aux.
    pub fn matrix(&self) -> Matrix {
        Matrix::of(match self {
            Written::Compute(d) => d.shape(),
            Written::Accum(d) => d.shape(),
        })
    }
}

/// One call of the library.
pub struct Product<'a, S: Storage> {
    /// A.
    pub a: Factor<'a, S>,
    /// B.
    pub b: Factor<'a, S>,
    /// C.
    pub added: Added<'a, S>,
    /// What follows.
    pub epilogue: Epilogue<'a, S>,
    /// D.
    pub d: Written<'a, S>,
}

impl<'a, S: Storage> TryFrom<ops::MatmulForward<'a, S>> for Product<'a, S> {
    type Error = Error;

    fn try_from(op: ops::MatmulForward<'a, S>) -> Result<Self> {
        op.check()?;
        let (added, epilogue) = match op.epilogue {
            ops::Epilogue::None => (Added::Nothing, Epilogue::Default),
            ops::Epilogue::Bias { bias } => (Added::Nothing, Epilogue::Bias(bias)),
            ops::Epilogue::BiasGelu { bias, pre } => (Added::Nothing, Epilogue::GeluAuxBias { bias, aux: pre }),
            ops::Epilogue::BiasResidual { bias, residual } => (Added::Other(residual), Epilogue::Bias(bias)),
        };
        let a = Factor { of: op.weight, transposed: true };
        Ok(Product { a, b: Factor { of: op.x, transposed: false }, added, epilogue, d: Written::Compute(op.out) })
    }
}

impl<'a, S: Storage> TryFrom<ops::MatmulDgrad<'a, S>> for Product<'a, S> {
    type Error = Error;

    fn try_from(op: ops::MatmulDgrad<'a, S>) -> Result<Self> {
        op.check()?;
        let epilogue = match op.epilogue {
            ops::DgradEpilogue::None => Epilogue::Default,
            ops::DgradEpilogue::DGelu { pre } => Epilogue::DGelu(pre),
        };
        let (a, b) = (Factor { of: op.weight, transposed: false }, Factor { of: op.dout, transposed: false });
        Ok(Product { a, b, added: Added::Nothing, epilogue, d: Written::Compute(op.dx) })
    }
}

impl<'a, S: Storage> TryFrom<ops::MatmulWgrad<'a, S>> for Product<'a, S> {
    type Error = Error;

    fn try_from(op: ops::MatmulWgrad<'a, S>) -> Result<Self> {
        op.check()?;
        let added = match op.write {
            ops::Write::Overwrite => Added::Nothing,
            ops::Write::Accumulate => Added::Itself,
        };
        let (a, b) = (Factor { of: op.x, transposed: false }, Factor { of: op.dout, transposed: true });
        Ok(Product {
            a,
            b,
            added,
            epilogue: op.dbias.map_or(Epilogue::Default, Epilogue::BGradB),
            d: Written::Accum(op.dweight),
        })
    }
}

/// A case that is one product.
pub trait Source<B: Backend>: Prepared<B> {
    /// The product of its operands.
    ///
    /// # Errors
    /// As the operation's check.
    fn product(&mut self) -> Result<Product<'_, B>>;
}

impl<B: Backend> Source<B> for MatmulForward<B> {
    fn product(&mut self) -> Result<Product<'_, B>> {
        self.op().try_into()
    }
}

impl<B: Backend> Source<B> for MatmulDgrad<B> {
    fn product(&mut self) -> Result<Product<'_, B>> {
        self.op().try_into()
    }
}

impl<B: Backend> Source<B> for MatmulWgrad<B> {
    fn product(&mut self) -> Result<Product<'_, B>> {
        self.op().try_into()
    }
}

const FORWARD: &str = ops::MatmulForward::<Cpu<f32>>::NAME;
const DGRAD: &str = ops::MatmulDgrad::<Cpu<f32>>::NAME;
const WGRAD: &str = ops::MatmulWgrad::<Cpu<f32>>::NAME;

/// The operands of a problem, the same numbers that [`crate::bench::cases::prepare`] makes. But a bias gradient is zero,
/// as then the library, which overwrites it, has to come to what the operation adds up.
///
/// # Errors
/// When the memory cannot be had.
pub fn source<B: Backend + 'static>(backend: &B, problem: &Problem, seed: u64) -> Result<Box<dyn Source<B>>> {
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
        _ => return Err(Error::invalid(format!("{problem} is no product"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::{self, Output};
    use crate::bench::verify::hold;

    type Reference = Cpu<f64>;

    fn gelu(x: f64) -> f64 {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        x / 2.0 * (1.0 + u.tanh())
    }

    fn dgelu(x: f64) -> f64 {
        let h = 1e-5;
        (gelu(x + h) - gelu(x - h)) / (2.0 * h)
    }

    /// op of a column-major matrix, and its rows and columns.
    fn op<'a>(factor: &'a Factor<'_, Reference>) -> (impl Fn(usize, usize) -> f64 + 'a, usize, usize) {
        let Matrix { rows, columns, ld } = Matrix::of(factor.of.shape());
        let transposed = factor.transposed;
        let values = elements(factor.of);
        let element = move |i: usize, j: usize| if transposed { values[j + i * ld] } else { values[i + j * ld] };
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        (element, rows, columns)
    }

    fn elements<'a>(view: Compute<'a, Reference>) -> &'a [f64] {
        &view.buffer()[view.offset()..][..view.shape().len()]
    }

    /// What the library's manual says of a call.
    fn run(product: Product<'_, Reference>) {
        let layout @ Matrix { rows: m, columns: n, ld } = product.d.matrix();
        let ((a, a_rows, k), (b, b_rows, b_columns)) = (op(&product.a), op(&product.b));
        assert_eq!((a_rows, k, b_columns), (m, b_rows, n), "the sizes of D, op(A) and op(B)");
        let (Written::Compute(d) | Written::Accum(d)) = product.d;
        let d = d.into_slice();
        let mut epilogue = product.epilogue;
        for (i, j) in (0..n).flat_map(|j| (0..m).map(move |i| (i, j))) {
            let place = i + j * ld;
            let c = match &product.added {
                Added::Nothing => 0.0,
                Added::Itself => d[place],
                Added::Other(c) => {
                    assert_eq!(Matrix::of(c.shape()), layout, "C has D's layout");
                    elements(*c)[place]
                }
            };
            let sum = (0..k).map(|l| a(i, l) * b(l, j)).sum::<f64>() + c;
            d[place] = match &mut epilogue {
                Epilogue::Default | Epilogue::BGradB(_) => sum,
                Epilogue::Bias(bias) => sum + elements(*bias)[i],
                Epilogue::GeluAuxBias { bias, aux } => {
                    assert_eq!(Matrix::of(aux.shape()), layout, "aux has D's layout");
                    let pre = sum + elements(*bias)[i];
                    aux.reborrow().into_slice()[place] = pre;
                    gelu(pre)
                }
                Epilogue::DGelu(aux) => {
                    assert_eq!(Matrix::of(aux.shape()), layout, "aux has D's layout");
                    sum * dgelu(elements(*aux)[place])
                }
            };
        }
        if let Epilogue::BGradB(gradient) = epilogue {
            let gradient = gradient.into_slice();
            assert_eq!(gradient.len(), n, "a number a column of D");
            gradient.iter_mut().enumerate().for_each(|(j, sum)| *sum = (0..k).map(|l| b(l, j)).sum());
        }
    }

    /// A case whose product is computed as the library would.
    struct ByManual(Box<dyn Source<Reference>>);

    impl Prepared<Reference> for ByManual {
        fn floor(&mut self) -> ops::Floor {
            self.0.floor()
        }

        fn run(&mut self, _: &Reference) -> Result<()> {
            run(self.0.product()?);
            Ok(())
        }

        fn outputs(&self, backend: &Reference) -> Result<Vec<Output>> {
            self.0.outputs(backend)
        }
    }

    #[test]
    fn products_compute_the_operations() {
        let cpu = Reference::new();
        let matmuls = cases::ALL.iter().filter(|info| info.stem == "matmul");
        let mut seen = 0;
        for (info, variant) in matmuls.flat_map(|info| info.variants.iter().map(move |variant| (info, variant))) {
            // Sizes of which no two are the same, so that none can stand for another.
            let shape = Problem::new(info, vec![24, 16, 40], variant);
            let mut tried = ByManual(source(&cpu, &shape, 1).unwrap());
            let error = hold(&shape, &cpu, &mut tried, &mut *source(&cpu, &shape, 1).unwrap()).unwrap();
            // Outputs are compared in f32.
            assert!(error < 1e-6, "{shape}: {error:e}");
            seen += 1;
        }
        assert_eq!(seen, 8, "forms of a product");
    }

    #[test]
    fn what_is_no_product_has_no_source() {
        let gelu = &cases::select(&["gelu".into()]).unwrap()[0].small()[0];
        let why = source(&Reference::new(), gelu, 1).err().unwrap().to_string();
        assert_eq!(why, format!("{gelu} is no product"));
    }
}
