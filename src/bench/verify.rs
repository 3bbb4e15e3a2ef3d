//! That what is timed is right: results of a backend against those of `Cpu<f64>` on the same inputs.

use super::cases::{Info, Output, Precision, Prepared, prepare};
use super::problem::Problem;
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::ops::Backend;

/// The largest ‖out − reference‖ / ‖reference‖: half an ulp of bf16 is 2⁻⁹, which sums of rounded terms may double.
const HALF: f64 = 1e-2;
/// Of what is computed and kept in f32, from inputs that bf16 holds.
const SINGLE: f64 = 1e-4;
/// Of ids, those that may differ: a draw may fall beside the bound between two tokens.
const EXACT: f64 = 0.02;

/// What was compared, and how it came out.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Verified {
    /// The problem, cut down to what a reference in f64 computes in a moment.
    pub shape: Problem,
    /// The largest error of an output, ‖out − reference‖ / ‖reference‖.
    pub error: f64,
}

/// Runs a problem on a backend and as the reference.
///
/// # Errors
/// [`Error::Invalid`] naming the output that is wrong; errors of the operation.
pub fn verify<B: Backend + Clone + 'static>(backend: &B, info: &Info, problem: &Problem) -> Result<Verified> {
    let shape = info.for_reference(problem);
    let reference = &mut *prepare(&Cpu::<f64>::new(), &shape, 1)?;
    let error = hold(&shape, backend, &mut *prepare(backend, &shape, 1)?, reference)?;
    Ok(Verified { shape, error })
}

/// Runs what was prepared of a problem beside a reference of the same operands. Gives the largest error of an output.
///
/// # Errors
/// As [`verify`].
pub(super) fn hold<B: Backend>(
    shape: &Problem,
    backend: &B,
    tried: &mut dyn Prepared<B>,
    reference: &mut dyn Prepared<Cpu<f64>>,
) -> Result<f64> {
    let (got, want) = (outputs(backend, tried)?, outputs(&Cpu::new(), reference)?);
    let sizes =
        |outputs: &[Output]| outputs.iter().map(|output| (output.name, output.values.len())).collect::<Vec<_>>();
    if sizes(&got) != sizes(&want) {
        return Err(Error::invalid(format!(
            "{shape}: outputs {:?}, the reference has {:?}",
            sizes(&got),
            sizes(&want)
        )));
    }
    let mut error: f64 = 0.0;
    for (got, want) in got.iter().zip(&want) {
        let (found, allowed) = compare(got, want);
        if found.is_nan() || found > allowed {
            let name = got.name;
            return Err(Error::invalid(format!("{shape}: {name} is wrong: error {found:.2e}, {allowed:.0e} allowed")));
        }
        error = error.max(found);
    }
    Ok(error)
}

fn outputs<B>(backend: &B, prepared: &mut dyn Prepared<B>) -> Result<Vec<Output>> {
    prepared.run(backend)?;
    prepared.outputs(backend)
}

/// The error, and what is allowed of it.
fn compare(got: &Output, want: &Output) -> (f64, f64) {
    let pairs = || got.values.iter().zip(&want.values);
    if got.precision == Precision::Exact {
        let wrong = pairs().filter(|(got, want)| got != want).count();
        return (wrong as f64 / want.values.len() as f64, EXACT);
    }
    let square = |x: f64| x * x;
    let difference: f64 = pairs().map(|(&got, &want)| square(f64::from(got) - f64::from(want))).sum();
    let norm: f64 = want.values.iter().map(|&want| square(f64::from(want))).sum();
    ((difference / norm).sqrt(), if got.precision == Precision::Half { HALF } else { SINGLE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::ALL;
    use crate::bench::problem::Workload;
    use crate::model::config::Config;

    #[test]
    fn every_case_computes_what_the_reference_does() {
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
    fn what_is_wrong_is_told() {
        let output = |values: &[f32], precision| Output { name: "out", values: values.to_vec(), precision };
        let error = |got: &[f32], want: &[f32], precision| {
            let (error, allowed) = compare(&output(got, precision), &output(want, precision));
            (error, error <= allowed)
        };
        assert_eq!(error(&[3.0, 4.0], &[3.0, 4.0], Precision::Single), (0.0, true));
        assert_eq!(error(&[3.0, 4.5], &[3.0, 4.0], Precision::Half), (0.1, false));
        assert!(!error(&[3.0, f32::NAN], &[3.0, 4.0], Precision::Half).1);
        assert!(!error(&[3.0, 4.001], &[3.0, 4.0], Precision::Single).1);
        assert!(error(&[3.0, 4.001], &[3.0, 4.0], Precision::Half).1);
        assert_eq!(error(&[1.0, 2.0], &[1.0, 3.0], Precision::Exact), (0.5, false));
    }
}
