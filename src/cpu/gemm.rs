//! Matrix products over slices, serial and parallel.

use rayon::prelude::*;

use super::real::Real;

/// A read-only matrix: a slice with row and column strides.
#[derive(Clone, Copy)]
pub(super) struct Mat<'a, R> {
    data: &'a [R],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, R> Mat<'a, R> {
    /// A contiguous row-major matrix of shape (rows, cols).
    pub fn new(data: &'a [R], rows: usize, cols: usize) -> Self {
        Mat::strided(data, rows, cols, cols)
    }

    /// A row-major matrix of shape (rows, cols) with `row_stride` elements between consecutive rows, which may overlap.
    pub fn strided(data: &'a [R], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * row_stride + cols <= data.len());
        Mat { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, as a view.
    pub fn t(self) -> Self {
        Mat {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }
}

/// The output matrix, shared by threads that write disjoint blocks of it.
#[derive(Clone, Copy)]
struct Out<R> {
    data: *mut R,
    row_stride: usize,
}

// SAFETY: `parallel` gives each task its own rows or columns.
#[allow(unsafe_code)]
unsafe impl<R: Send> Send for Out<R> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<R: Send> Sync for Out<R> {}

/// `c = alpha·a·b + beta·c` on the calling thread; `c` is contiguous and row-major.
pub(super) fn gemm<R: Real>(alpha: R, a: Mat<'_, R>, b: Mat<'_, R>, beta: R, c: &mut [R]) {
    let (rows, cols) = (0..a.rows, 0..b.cols);
    block(alpha, a, b, beta, check(a, b, c), rows, cols);
}

/// Block sizes are multiples of this, the largest tile of `matrixmultiply`'s kernels, so that only the last block has
/// partial tiles.
const TILE: usize = 16;

/// [`gemm`] on all threads of the pool, split along the longer axis of `c` and never along the reduction axis.
pub(super) fn parallel<R: Real>(alpha: R, a: Mat<'_, R>, b: Mat<'_, R>, beta: R, c: &mut [R]) {
    let out = check(a, b, c);
    // One block per thread: every block packs its operands again, so more blocks cost more than better balance gains.
    let num_blocks = rayon::current_num_threads();
    let long = a.rows.max(b.cols);
    let step = long.div_ceil(num_blocks).next_multiple_of(TILE);
    (0..long.div_ceil(step)).into_par_iter().for_each(|index| {
        let range = index * step..((index + 1) * step).min(long);
        if a.rows >= b.cols {
            block(alpha, a, b, beta, out, range, 0..b.cols);
        } else {
            block(alpha, a, b, beta, out, 0..a.rows, range);
        }
    });
}

fn check<R: Real>(a: Mat<'_, R>, b: Mat<'_, R>, c: &mut [R]) -> Out<R> {
    assert_eq!(a.cols, b.rows, "inner axes of a product");
    assert_eq!(a.rows * b.cols, c.len(), "size of a product");
    Out { data: c.as_mut_ptr(), row_stride: b.cols }
}

/// Computes rows `rows` and columns `cols` of the product.
#[allow(unsafe_code)]
fn block<R: Real>(
    alpha: R,
    a: Mat<'_, R>,
    b: Mat<'_, R>,
    beta: R,
    c: Out<R>,
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
) {
    if rows.is_empty() || cols.is_empty() {
        return;
    }
    // The slicing checks that the first element of each block is in bounds.
    let a_data = &a.data[rows.start * a.row_stride..];
    let b_data = &b.data[cols.start * b.col_stride..];
    let stride = |s: usize| s as isize;
    // SAFETY: `Mat::strided` checked that all rows and columns are inside the slices, and `check` that the product fills
    // `c` exactly. `rows` and `cols` are inside the product, and no other task writes this block.
    unsafe {
        R::gemm(
            rows.len(),
            a.cols,
            cols.len(),
            alpha,
            a_data.as_ptr(),
            stride(a.row_stride),
            stride(a.col_stride),
            b_data.as_ptr(),
            stride(b.row_stride),
            stride(b.col_stride),
            beta,
            c.data.add(rows.start * c.row_stride + cols.start),
            stride(c.row_stride),
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::{Purpose, draw, uniform};

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        (0..n as u64).map(|i| uniform(draw(seed, Purpose::Sampling, 0, i)) - 0.5).collect()
    }

    /// Compares odd sizes and each transposition with a naive triple loop.
    #[test]
    fn products_equal_the_triple_loop() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (17, 33, 65), (70, 300, 19)] {
            let (a, b, c0) = (numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3));
            let at: Vec<f32> = (0..m * k).map(|i| a[i % m * k + i / m]).collect();
            let bt: Vec<f32> = (0..k * n).map(|i| b[i % k * n + i / k]).collect();
            let (b_mat, bt_mat) = (Mat::new(&b, k, n), Mat::new(&bt, n, k).t());
            for (left, right) in [(Mat::new(&a, m, k), b_mat), (Mat::new(&at, k, m).t(), bt_mat)] {
                let (mut one, mut many) = (c0.clone(), c0.clone());
                gemm(2.0, left, right, 0.5, &mut one);
                parallel(2.0, left, right, 0.5, &mut many);
                assert_eq!(one, many);
                for (index, &got) in one.iter().enumerate() {
                    let (row, col) = (index / n, index % n);
                    let dot: f64 = (0..k).map(|i| a[row * k + i] as f64 * b[i * n + col] as f64).sum();
                    let want = 2.0 * dot + 0.5 * c0[index] as f64;
                    assert!((got as f64 - want).abs() < 1e-4, "({m}, {k}, {n}) at ({row}, {col}): {got} != {want}");
                }
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let (m, k, n) = (83, 517, 301);
        let (a, b) = (numbers(m * k, 4), numbers(k * n, 5));
        let mut want = vec![0.0; m * n];
        gemm(1.0, Mat::new(&a, m, k), Mat::new(&b, k, n), 0.0, &mut want);
        for threads in [1, 2, 3, 5, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut got = vec![f32::NAN; m * n];
            pool.install(|| parallel(1.0, Mat::new(&a, m, k), Mat::new(&b, k, n), 0.0, &mut got));
            assert_eq!(got, want, "{threads} threads");
        }
    }
}
