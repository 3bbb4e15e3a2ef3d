//! How right and how lean a kernel is: the rules of `docs/kernels.md`.

use ironwarp::cuda::runtime::emulation::Traffic;
use ironwarp::ops::Floor;

use crate::emulator::Counts;
use crate::support::Number;

/// What a kernel's result is held against.
pub struct Verdict<'a> {
    /// Operation, output and shape: `layernorm_forward out, N = 3, C = 768`.
    pub what: &'a str,
    /// In f64, from the same inputs.
    pub reference: &'a [f64],
    /// The same formula in f32, from the same inputs; rounded to the output's type here.
    pub baseline: &'a [f64],
    /// The largest error allowed, in units in the last place of the output's type.
    pub ulps: f64,
}

impl Verdict<'_> {
    /// The largest error must be at most twice the baseline's, and no error above the cap.
    ///
    /// The baseline alone would excuse a bad one, the cap alone would allow what the formula does not need. A baseline
    /// that happens to be exact still has the half ulp that rounding may cost.
    pub fn pass<E: Number>(&self, got: &[f64]) {
        let Verdict { what, reference, baseline, ulps } = self;
        assert_eq!((got.len(), baseline.len()), (reference.len(), reference.len()), "{what}");
        let [mut worst, mut worst_baseline] = [0.0f64; 2];
        for (i, ((&got, &baseline), &want)) in got.iter().zip(*baseline).zip(*reference).enumerate() {
            if want.is_nan() || want.is_infinite() {
                assert!(
                    got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                    "{what}: [{i}] {got} for {want}"
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

/// The unit in the last place of `E` at a value, and never less than that at 2⁻²⁰, or at 2⁻³ in f32: below, what is left of
/// a sum that cancelled says nothing.
fn ulp<E: Number>(value: f64) -> f64 {
    let least = if E::BYTES == 4 { -3 } else { -20 };
    E::epsilon().wide() * value.abs().max(2f64.powi(least)).log2().floor().exp2()
}

/// How a kernel's traffic of device memory compares with the least that there could be.
pub struct Lean<'a> {
    /// Operation and shape.
    pub what: &'a str,
    /// [`ironwarp::ops::Operation::floor`], or a larger one with its reason.
    pub floor: Floor,
    /// Asked bytes by those of the floor, at most.
    pub bytes: f64,
    /// Sectors moved by those that hold the asked bytes, at most: 1 for whole vectors side by side.
    pub sectors: f64,
}

impl Lean<'_> {
    pub fn pass(&self, counts: &Counts) {
        let Lean { what, floor, bytes, sectors } = self;
        let Traffic { requests, bytes: asked, sectors: moved } = counts.global();
        let to_floor = asked as f64 / floor.bytes as f64;
        let to_ideal = moved as f64 * 32.0 / asked as f64;
        let conflicts = counts.bank_conflicts();
        println!(
            "{what}: {asked} bytes, {to_floor:.3} of the floor; {:.2} sectors a request, {to_ideal:.3} of the ideal; \
             {conflicts} bank conflicts; {}",
            moved as f64 / requests as f64,
            counts.kernels().join(" ")
        );
        assert!(to_floor <= *bytes, "{what}: {asked} bytes, the floor is {}", floor.bytes);
        assert!(to_ideal <= *sectors, "{what}: {moved} sectors for {asked} bytes");
        assert_eq!(conflicts, 0, "{what}: bank conflicts");
    }
}
