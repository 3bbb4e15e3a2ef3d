//! Checks results before they are timed: a backend's outputs are compared with those of `Cpu<f64>` on the same inputs.

use super::cases::{Info, Output, Precision, Prepared, prepare};
use super::problem::Problem;
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::ops::Backend;

/// Bound of ‖out − reference‖ / ‖reference‖ for outputs in bf16: half an ulp is 2⁻⁹, and sums of rounded values may
/// multiply that error.
const BF16_TOLERANCE: f64 = 1e-2;
/// The same bound for outputs that are computed and stored in f32, from inputs that bf16 represents exactly.
const F32_TOLERANCE: f64 = 1e-4;
/// Fraction of token ids that may differ: a random draw may lie within rounding of the boundary between two tokens.
const ID_TOLERANCE: f64 = 0.02;

/// A comparison with the reference that succeeded.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Verified {
    /// The problem that was compared, with sizes limited so that the f64 reference is fast.
    pub shape: Problem,
    /// The largest error of an output, ‖out − reference‖ / ‖reference‖.
    pub error: f64,
}

/// Runs a problem on a backend and on the reference, and compares their outputs.
///
/// # Errors
/// [`Error::Invalid`] naming the output that is wrong; errors of the operation.
pub fn verify<B: Backend + Clone + 'static>(backend: &B, info: &Info, problem: &Problem) -> Result<Verified> {
    let shape = info.for_reference(problem);
    let reference = &mut *prepare(&Cpu::<f64>::new(), &shape, 1)?;
    let error = compare(&shape, backend, &mut *prepare(backend, &shape, 1)?, reference)?;
    Ok(Verified { shape, error })
}

/// Runs a prepared problem and the reference with the same operands, and compares their outputs. Returns the largest
/// error of an output.
///
/// # Errors
/// Those of [`verify`].
pub(super) fn compare<B: Backend>(
    shape: &Problem,
    backend: &B,
    tested: &mut dyn Prepared<B>,
    reference: &mut dyn Prepared<Cpu<f64>>,
) -> Result<f64> {
    let (got, want) = (outputs(backend, tested)?, outputs(&Cpu::new(), reference)?);
    let sizes =
        |outputs: &[Output]| outputs.iter().map(|output| (output.name, output.values.len())).collect::<Vec<_>>();
    if sizes(&got) != sizes(&want) {
        return Err(Error::invalid(format!(
            "{shape}: the outputs are {:?}, those of the reference {:?}",
            sizes(&got),
            sizes(&want)
        )));
    }
    let mut error: f64 = 0.0;
    for (got, want) in got.iter().zip(&want) {
        let (found, tolerance) = output_error(got, want);
        if found.is_nan() || found > tolerance {
            let name = got.name;
            return Err(Error::invalid(format!(
                "{shape}: {name} is wrong: error {found:.2e}, tolerance {tolerance:.0e}"
            )));
        }
        error = error.max(found);
    }
    Ok(error)
}

fn outputs<B>(backend: &B, prepared: &mut dyn Prepared<B>) -> Result<Vec<Output>> {
    prepared.run(backend)?;
    prepared.outputs(backend)
}

/// The error of an output, and its tolerance.
fn output_error(got: &Output, want: &Output) -> (f64, f64) {
    let pairs = || got.values.iter().zip(&want.values);
    if got.precision == Precision::Exact {
        let wrong = pairs().filter(|(got, want)| got != want).count();
        return (wrong as f64 / want.values.len() as f64, ID_TOLERANCE);
    }
    let square = |x: f64| x * x;
    let difference: f64 = pairs().map(|(&got, &want)| square(f64::from(got) - f64::from(want))).sum();
    let norm: f64 = want.values.iter().map(|&want| square(f64::from(want))).sum();
    ((difference / norm).sqrt(), if got.precision == Precision::Bf16 { BF16_TOLERANCE } else { F32_TOLERANCE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::ALL;
    use crate::bench::problem::Workload;
    use crate::model::config::Config;

    #[test]
    fn every_case_agrees_with_the_reference() {
        let workload = Workload::new(Config::preset("tiny").unwrap(), 128).unwrap();
        for info in ALL {
            let training = info.training(&workload);
            assert!(!training.is_empty(), "{}", info.op);
            for problem in training.into_iter().chain(info.small()) {
                let verified = verify(&Cpu::<f32>::new(), info, &problem).unwrap();
                assert!(verified.error < 2e-5, "{problem}: {}", verified.error);
                let floor = prepare(&Cpu::<f32>::new(), &verified.shape, 1).unwrap().floor();
                assert!(floor.bytes > 0, "{problem}");
                let compute = floor.flops > 0;
                assert!(compute || info.bound == crate::bench::ceilings::Bound::Memory, "{problem}");
            }
        }
    }

    #[test]
    fn errors_above_the_tolerance_are_found() {
        let output = |values: &[f32], precision| Output { name: "out", values: values.to_vec(), precision };
        let error = |got: &[f32], want: &[f32], precision| {
            let (error, tolerance) = output_error(&output(got, precision), &output(want, precision));
            (error, error <= tolerance)
        };
        assert_eq!(error(&[3.0, 4.0], &[3.0, 4.0], Precision::F32), (0.0, true));
        assert_eq!(error(&[3.0, 4.5], &[3.0, 4.0], Precision::Bf16), (0.1, false));
        assert!(!error(&[3.0, f32::NAN], &[3.0, 4.0], Precision::Bf16).1);
        assert!(!error(&[3.0, 4.001], &[3.0, 4.0], Precision::F32).1);
        assert!(error(&[3.0, 4.001], &[3.0, 4.0], Precision::Bf16).1);
        assert_eq!(error(&[1.0, 2.0], &[1.0, 3.0], Precision::Exact), (0.5, false));
    }
}
