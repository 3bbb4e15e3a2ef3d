//! References for results that are too large to list. The layout of the fragments follows the formulas in the section
//! "Matrix fragments for mma" of the PTX ISA. Nothing here is shared with the emulator.

use super::value::Type;

/// Returns the type and elements of the input buffer of a name.
pub type Inputs<'a> = &'a dyn Fn(&str) -> Option<(Type, &'a [u64])>;

/// The result of a reference, in the type of the buffer that it is compared with.
///
/// # Errors
/// There is no reference of that name, or its arguments are wrong.
pub fn compute(name: &str, arguments: &[&str], ty: Type, inputs: Inputs) -> Result<Vec<u64>, String> {
    match (name, arguments) {
        ("mma" | "mma.twice", &[shape, a, b, c]) => {
            let find = |name: &str| {
                let (ty, bits) = inputs(name).ok_or(format!("`{name}` is not an input above"))?;
                Ok::<Vec<f64>, String>(bits.iter().map(|&bits| ty.number(bits)).collect())
            };
            let (shape, a, b) = (Shape::parse(shape)?, find(a)?, find(b)?);
            let mut d = mma(shape, &a, &b, &find(c)?)?;
            if name == "mma.twice" {
                d = mma(shape, &a, &b, &d)?;
            }
            Ok(d.into_iter().map(|value| ty.round(value)).collect())
        }
        _ => Err(format!("there is no reference `{name}` of {} arguments", arguments.len())),
    }
}

const M: usize = 16;
const N: usize = 8;
const LANES: usize = 32;

/// The shape of `mma.m16n8k…`. Elements of 16 bits are in pairs in a register; each tf32 element has its own register.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    K16,
    K8,
    K8Tf32,
    K4Tf32,
}

impl Shape {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "m16n8k16" => Ok(Shape::K16),
            "m16n8k8" => Ok(Shape::K8),
            "m16n8k8.tf32" => Ok(Shape::K8Tf32),
            "m16n8k4.tf32" => Ok(Shape::K4Tf32),
            _ => Err(format!("`{text}` is not a shape")),
        }
    }

    fn k(self) -> usize {
        match self {
            Shape::K16 => 16,
            Shape::K8 | Shape::K8Tf32 => 8,
            Shape::K4Tf32 => 4,
        }
    }

    /// Row and column of the element aᵢ of a lane.
    fn a(self, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane / 4, lane % 4);
        match self {
            Shape::K16 => {
                let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
                (row, thread * 2 + i % 2 + if i < 4 { 0 } else { 8 })
            }
            Shape::K8 => (if i < 2 { group } else { group + 8 }, thread * 2 + i % 2),
            Shape::K8Tf32 => (group + 8 * (i % 2), thread + 4 * (i / 2)),
            Shape::K4Tf32 => (group + 8 * i, thread),
        }
    }

    /// Row and column of the element bᵢ of a lane.
    fn b(self, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane / 4, lane % 4);
        let row = match self {
            Shape::K16 => thread * 2 + i % 2 + if i < 2 { 0 } else { 8 },
            Shape::K8 => thread * 2 + i,
            Shape::K8Tf32 => thread + 4 * i,
            Shape::K4Tf32 => thread,
        };
        (row, group)
    }
}

/// Row and column of the element cᵢ or dᵢ of a lane, for every shape.
fn accumulator(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { lane / 4 } else { lane / 4 + 8 }, lane % 4 * 2 + i % 2)
}

/// Computes D = A·B + C in f64, from fragments that are stored lane after lane.
fn mma(shape: Shape, a: &[f64], b: &[f64], c: &[f64]) -> Result<Vec<f64>, String> {
    let k = shape.k();
    for (name, have, want) in [("A", a.len(), M * k), ("B", b.len(), k * N), ("C", c.len(), M * N)] {
        if have != want {
            return Err(format!("{name} has {have} elements, and the shape {want}"));
        }
    }
    let (of_a, of_b, of_c) = (M * k / LANES, k * N / LANES, M * N / LANES);
    let mut matrix_a = vec![vec![f64::NAN; k]; M];
    let mut matrix_b = vec![vec![f64::NAN; N]; k];
    for lane in 0..LANES {
        for i in 0..of_a {
            let (row, column) = shape.a(lane, i);
            matrix_a[row][column] = a[lane * of_a + i];
        }
        for i in 0..of_b {
            let (row, column) = shape.b(lane, i);
            matrix_b[row][column] = b[lane * of_b + i];
        }
    }
    let mut d = Vec::with_capacity(M * N);
    for lane in 0..LANES {
        for i in 0..of_c {
            let (row, column) = accumulator(lane, i);
            let product: f64 = (0..k).map(|j| matrix_a[row][j] * matrix_b[j][column]).sum();
            d.push(product + c[lane * of_c + i]);
        }
    }
    Ok(d)
}
