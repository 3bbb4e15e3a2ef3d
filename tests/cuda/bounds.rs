//! Bounds on a kernel's errors and on its memory traffic, as `docs/kernels.md` states them.

use ironwarp::cuda::runtime::emulation::Traffic;
use ironwarp::ops::Floor;

use crate::common::Number;
use crate::emulator::Counts;

/// A bound on the errors of a kernel's result.
pub struct AccuracyBound<'a> {
    /// Operation, output and shape: `layernorm_forward out, N = 3, C = 768`.
    pub what: &'a str,
    /// The result in f64 from the same inputs.
    pub reference: &'a [f64],
    /// The result of the same formula in f32 from the same inputs; [`AccuracyBound::check`] rounds it to the output's type.
    pub baseline: &'a [f64],
    /// The largest error allowed, in units in the last place of the output's type.
    pub ulps: f64,
}

impl AccuracyBound<'_> {
    /// Fails if an error is above `ulps`, or the largest error above twice the baseline's.
    ///
    /// The baseline alone would excuse a bad formula; the cap alone would allow errors that the formula does not need. A
    /// baseline that is exact by chance counts as half an ulp, which the final rounding may cost.
    pub fn check<E: Number>(&self, got: &[f64]) {
        let AccuracyBound { what, reference, baseline, ulps } = self;
        assert_eq!((got.len(), baseline.len()), (reference.len(), reference.len()), "{what}");
        let [mut worst, mut worst_baseline] = [0.0f64; 2];
        for (i, ((&got, &baseline), &want)) in got.iter().zip(*baseline).zip(*reference).enumerate() {
            if want.is_nan() || want.is_infinite() {
                assert!(
                    got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                    "{what}: element {i} is {got}, not {want}"
                );
                continue;
            }
            let ulp = ulp::<E>(want);
            let error = (got - want).abs() / ulp;
            assert!(error <= *ulps, "{what}: element {i} is {got:e}, not {want:e}: {error:.2} ulps, {ulps} allowed");
            worst = worst.max(error);
            worst_baseline = worst_baseline.max((E::of(baseline).wide() - want).abs() / ulp);
        }
        let allowed = 2.0 * worst_baseline.max(0.5);
        println!("{what}: {worst:.3} ulps, baseline {worst_baseline:.3}, ratio {:.2}", worst / worst_baseline.max(0.5));
        assert!(worst <= allowed, "{what}: {worst:.3} ulps, the formula in f32 has {worst_baseline:.3}");
    }
}

/// The unit in the last place of `E` at a value, but never less than that at 2⁻²⁰, or at 2⁻³ in f32: relative to a smaller
/// remainder of a sum that cancelled, an error says nothing.
fn ulp<E: Number>(value: f64) -> f64 {
    let least = if E::BYTES == 4 { -3 } else { -20 };
    E::epsilon().wide() * value.abs().max(2f64.powi(least)).log2().floor().exp2()
}

/// A bound on a kernel's device memory traffic, relative to the least that the operation needs.
pub struct TrafficBound<'a> {
    /// Operation and shape.
    pub what: &'a str,
    /// [`ironwarp::ops::Operation::floor`], or a larger one with its reason.
    pub floor: Floor,
    /// Most requested bytes, divided by the floor's bytes.
    pub bytes: f64,
    /// Most sectors moved, divided by the sectors that hold the requested bytes: 1 for adjacent whole vectors.
    pub sectors: f64,
}

impl TrafficBound<'_> {
    /// Fails if the counts are above the bound, or if shared memory had bank conflicts.
    pub fn check(&self, counts: &Counts) {
        let TrafficBound { what, floor, bytes, sectors } = self;
        let Traffic { requests, bytes: requested, sectors: moved } = counts.global();
        let to_floor = requested as f64 / floor.bytes as f64;
        let to_ideal = moved as f64 * 32.0 / requested as f64;
        let conflicts = counts.bank_conflicts();
        println!(
            "{what}: {requested} bytes, {to_floor:.3} of the floor; {:.2} sectors per request, {to_ideal:.3} of the \
             ideal; {conflicts} bank conflicts; {}",
            moved as f64 / requests as f64,
            counts.kernels().join(" ")
        );
        assert!(to_floor <= *bytes, "{what}: {requested} bytes, the floor is {}", floor.bytes);
        assert!(to_ideal <= *sectors, "{what}: {moved} sectors for {requested} bytes");
        assert_eq!(conflicts, 0, "{what}: bank conflicts");
    }
}
