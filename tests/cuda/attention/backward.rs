//! The backward of causal attention.

use super::*;

#[derive(Clone)]
struct Backward {
    forward: Inputs,
    dout: Vec<f64>,
    out: Vec<f64>,
    lse: Vec<f64>,
}

impl Backward {
    /// With what the reference's forward gives, rounded to the operands' types.
    fn new(forward: Inputs) -> Self {
        let [b, t, nh, hs] = forward.sizes;
        let [out, lse] = forward.forward(&Cpu::<f64>::new());
        let dout = Draws::new(2).numbers(b * t * nh * hs).into_iter().map(narrow).collect();
        let (out, lse) =
            (out.into_iter().map(narrow).collect(), lse.into_iter().map(|x| f64::from(x as f32)).collect());
        Backward { forward, dout, out, lse }
    }

    /// `dqkv`.
    fn run<B: Device>(&self, backend: &B) -> Vec<f64> {
        self.run_by(backend, B::attention_backward)
    }

    /// With so many heads' blocks together.
    fn grouped(&self, cuda: &Cuda, heads: usize) -> Vec<f64> {
        self.run_by(cuda, |cuda, op| attention::backward(cuda, op, Some(heads)))
    }

    fn run_by<B: Device>(&self, backend: &B, run: impl FnOnce(&B, AttentionBackward<'_, B>) -> Result<()>) -> Vec<f64> {
        let [b, t, nh, hs] = self.forward.sizes;
        let qkv: Tensor<B, B::Compute> = tight(backend, [b, t, 3 * nh * hs], &self.forward.qkv);
        let [dout, out]: [Tensor<B, B::Compute>; 2] =
            [&self.dout, &self.out].map(|x| tight(backend, [b, t, nh * hs], x));
        let lse: Tensor<B, B::Accum> = tight(backend, [b, nh, t], &self.lse);
        let mut dqkv = Output::<B, B::Compute>::new(backend, [b, t, 3 * nh * hs]);
        let op = AttentionBackward {
            dout: dout.view(),
            qkv: qkv.view(),
            num_heads: nh,
            out: out.view(),
            lse: lse.view(),
            dqkv: dqkv.view(),
        };
        run(backend, op).unwrap();
        dqkv.read(backend)
    }

    /// The formula in f32 with p and ds rounded to bf16, as the tensor cores take them; and how large the numbers are that
    /// its sums are made of: `Σ |ds·k|` and the like. Where `dp - delta` cancels, 2⁻²⁰ of the terms of both is what is left.
    fn baseline(&self) -> [Vec<f64>; 2] {
        let Inputs { sizes: [b, t, nh, hs], qkv } = &self.forward;
        let (t, nh, hs) = (*t, *nh, *hs);
        // A p that f32 cannot hold is 0: sizes begin with more than that times the largest values.
        let [mut results, mut sizes] = [0.0, 2f32.powi(-80)].map(|size| vec![size; qkv.len()]);
        let scale = 1.0 / (hs as f32).sqrt();
        for (b, head, i) in (0..b * nh * t).map(|n| (n / t / nh, n / t % nh, n % t)) {
            let place = |token, part| self.forward.place([b, token, part, head, 0]);
            let row = |token, part| &qkv[place(token, part)..][..hs];
            let of_query = ((b * t + i) * nh + head) * hs;
            let (dout, out) = (&self.dout[of_query..][..hs], &self.out[of_query..][..hs]);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| *a as f32 * *b as f32).sum::<f32>();
            let size = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a * b).abs() as f32).sum::<f32>();
            let (delta, lse) = (dot(dout, out), self.lse[(b * nh + head) * t + i] as f32);
            for j in 0..=i {
                let p = (dot(row(i, 0), row(j, 1)) * scale - lse).exp();
                let ds = p * (dot(dout, row(j, 2)) - delta);
                let [p, ds] = [p, ds].map(|x| bf16::from_f32(x).to_f32());
                let ds_size = ds.abs() + p * (size(dout, row(j, 2)) + size(dout, out)) * 2f32.powi(-12);
                for x in 0..hs {
                    for (to, weight, size, of) in [
                        (place(i, 0), ds * scale, ds_size * scale, row(j, 1)[x]),
                        (place(j, 1), ds * scale, ds_size * scale, row(i, 0)[x]),
                        (place(j, 2), p, p, dout[x]),
                    ] {
                        results[to + x] += weight * of as f32;
                        sizes[to + x] += size * of.abs() as f32;
                    }
                }
            }
        }
        [results, sizes].map(|values| values.into_iter().map(f64::from).collect())
    }

    /// Of packed values, those of one part.
    fn part(&self, values: &[f64], part: usize) -> Vec<f64> {
        let [_, _, nh, hs] = self.forward.sizes;
        values.chunks(nh * hs).skip(part).step_by(3).flatten().copied().collect()
    }
}

#[test]
fn backward_is_the_formula() {
    let every_size = [([1, 129, 1, 112], "as 80"), ([1, 65, 3, 128], "three heads")];
    for ((sizes, why), factor) in
        CASES.into_iter().chain(every_size).flat_map(|case| [1.0, 16.0, LARGE].map(|factor| (case, factor)))
    {
        let inputs = Backward::new(Inputs::scaled(sizes, factor));
        let got = inputs.run(&*shared());
        let reference = inputs.run(&Cpu::<f64>::new());
        let [baseline, sums] = inputs.baseline();
        for (part, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
            let [got, reference, baseline, sums] =
                [&got, &reference, &baseline, &sums].map(|values| inputs.part(values, part));
            let baseline: Vec<f64> = baseline.into_iter().map(narrow).collect();
            let what = format!("attention_backward, (B, T, NH, HS) = {sizes:?} ({why}), queries × {factor}: {name}");
            let unit = 2f64.powi(-8);
            if factor == LARGE {
                // Scores of 1e4 have errors that the exponential makes those of the weights, in any order of their terms.
                let error = worst(&got, &reference, &sums, unit);
                assert!(error <= 8.0, "{what}: {error:.3} units, 8 allowed");
            } else {
                judge(&what, [&got, &reference, &baseline, &sums], unit, 2.0);
            }
        }
    }
}
