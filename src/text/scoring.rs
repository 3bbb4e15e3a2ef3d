//! Scores of a model on text: perplexity, HellaSwag, LAMBADA.

use crate::error::{Error, Result};
use crate::model::Gpt2;
use crate::model::activations::{Activations, Head, Keep};
use crate::ops::{Backend, Sample};
use crate::tensor::{FloatElement, Tensor};
use crate::text::corpus::Tokens;
use crate::text::evaluation::{Item, windows};

/// Tokens of a pass over several windows, about: enough to keep the matmuls busy.
const PASS_TOKENS: usize = 1024;

/// Rows of completions are made a multiple of this long.
const ROW_MULTIPLE: usize = 64;

/// A perplexity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Mean loss, nats a predicted token.
    pub loss: f64,
    /// Tokens predicted: all but the first.
    pub tokens: u64,
}

impl Perplexity {
    /// `exp(loss)`
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// A multiple-choice score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultipleChoice {
    /// Share of items whose right completion has the smallest loss in all.
    pub accuracy: f64,
    /// Share of items whose right completion has the smallest loss a token.
    pub accuracy_normalised: f64,
    /// Items scored.
    pub items: usize,
}

/// A last-word score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastWord {
    /// Share of items all of whose last word's tokens are the most likely ones, given the tokens before each.
    pub accuracy: f64,
    /// `exp` of the mean loss of a last word, summed over its tokens.
    pub perplexity: f64,
    /// Items scored.
    pub items: usize,
}

/// A completion's tokens under the model.
struct Completion {
    /// Nats, summed.
    loss: f64,
    tokens: usize,
    /// Whether each token is the most likely one.
    is_greedy: bool,
}

/// Runs a model over rows of tokens. Buffers are kept while the shape stays the same.
pub struct Scorer<'a, B: Backend> {
    model: Gpt2<'a, B>,
    buffers: Option<Buffers<B>>,
}

struct Buffers<B: Backend> {
    shape: [usize; 2],
    acts: Activations<B>,
    head: Head<B>,
    tokens: Tensor<B, i32>,
    targets: Tensor<B, i32>,
    greedy: Tensor<B, i32>,
}

impl<'a, B: Backend> Scorer<'a, B> {
    /// A scorer of a model.
    pub fn new(model: Gpt2<'a, B>) -> Self {
        Scorer { model, buffers: None }
    }

    /// One pass over (B, T) tokens; the buffers then hold losses and logits.
    fn pass(&mut self, shape: [usize; 2], tokens: &[i32], targets: &[i32]) -> Result<&mut Buffers<B>> {
        let Gpt2 { backend, config, .. } = self.model;
        if self.buffers.as_ref().is_none_or(|buffers| buffers.shape != shape) {
            let [b, t] = shape;
            // The old ones go first: both need not fit.
            self.buffers = None;
            self.buffers = Some(Buffers {
                shape,
                acts: Activations::new(backend, config, b, t, Keep::Forward)?,
                head: Head::new(backend, config, b, t)?,
                tokens: Tensor::zeros(backend, [b, t])?,
                targets: Tensor::zeros(backend, [b, t])?,
                greedy: Tensor::zeros(backend, [b, t])?,
            });
        }
        let buffers = self.buffers.as_mut().expect("made above");
        backend.upload(tokens, buffers.tokens.view_mut())?;
        backend.upload(targets, buffers.targets.view_mut())?;
        self.model.evaluate(&mut buffers.acts, &mut buffers.head, buffers.tokens.view(), buffers.targets.view())?;
        Ok(buffers)
    }

    /// Mean loss over consecutive windows of `context` tokens: every token but the first is predicted exactly once,
    /// those at a window's start from little. `progress` hears of the tokens predicted so far.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than two tokens or a context that the model does not have.
    pub fn perplexity(&mut self, tokens: &Tokens, context: usize, mut progress: impl FnMut(u64)) -> Result<Perplexity> {
        let max = self.model.config.context;
        if context > max {
            return Err(Error::invalid(format!("windows of {context} tokens pass the model's context of {max}")));
        }
        let backend = self.model.backend;
        let windows: Vec<_> = windows(tokens.len(), context)?.collect();
        let (mut total, mut count) = (0.0, 0);
        let mut rest = &windows[..];
        while let Some(first) = rest.first() {
            // Whole windows together, the short one at the end alone.
            let t = first.inputs.len();
            let most = (PASS_TOKENS / t).max(1);
            let (group, later) = rest.split_at(rest.iter().take(most).take_while(|w| w.inputs.len() == t).count());
            rest = later;
            let (mut inputs, mut targets) = (vec![0; group.len() * t], vec![0; group.len() * t]);
            tokens.read(first.inputs.start, &mut inputs)?;
            tokens.read(first.targets.start, &mut targets)?;
            let losses = self.pass([group.len(), t], &inputs, &targets)?.head.losses.to_vec(backend)?;
            total += losses.into_iter().map(|loss| f64::from(loss.to_f32())).sum::<f64>();
            count += targets.len() as u64;
            progress(count);
        }
        Ok(Perplexity { loss: total / count as f64, tokens: count })
    }

    /// Each completion of an item after its context. Contexts that are too long lose their beginning.
    fn completions(&mut self, item: &Item) -> Result<Vec<Completion>> {
        let Gpt2 { backend, config, .. } = self.model;
        if item.context.is_empty() || item.completions.iter().any(Vec::is_empty) {
            return Err(Error::invalid("an item's context and completions need at least one token each"));
        }
        let longest = item.completions.iter().map(Vec::len).max().unwrap_or(0);
        if longest > config.context {
            let context = config.context;
            return Err(Error::invalid(format!("a completion of {longest} tokens passes the context of {context}")));
        }
        // The last token is predicted only, so T + 1 tokens fit.
        let room = (config.context + 1 - longest).min(item.context.len());
        let before = &item.context[item.context.len() - room..];
        // Rounded up, so that items of about one length share their buffers.
        let t = (room + longest - 1).next_multiple_of(ROW_MULTIPLE).min(config.context);
        let b = item.completions.len();
        let (mut inputs, mut targets) = (vec![0; b * t], vec![-1; b * t]);
        for (row, completion) in item.completions.iter().enumerate() {
            let sequence: Vec<i32> = before.iter().chain(completion).map(|&token| token as i32).collect();
            let (start, len) = (row * t, sequence.len() - 1);
            inputs[start..start + len].copy_from_slice(&sequence[..len]);
            targets[start + room - 1..start + len].copy_from_slice(&sequence[room..]);
        }
        let buffers = self.pass([b, t], &inputs, &targets)?;
        let losses = buffers.head.losses.to_vec(backend)?;
        backend.sample(Sample {
            logits: buffers.head.logits.view(),
            vocab: config.vocab,
            temperature: 0.0,
            top_k: 1,
            top_p: 1.0,
            seed: 0,
            draw: 0,
            tokens: buffers.greedy.view_mut(),
        })?;
        let greedy = buffers.greedy.to_vec(backend)?;
        Ok((0..b)
            .map(|row| {
                let tokens = item.completions[row].len();
                let range = row * t + room - 1..row * t + room - 1 + tokens;
                Completion {
                    loss: losses[range.clone()].iter().map(|loss| f64::from(loss.to_f32())).sum(),
                    tokens,
                    is_greedy: greedy[range.clone()] == targets[range],
                }
            })
            .collect())
    }

    /// Completion-style accuracy, e.g. on HellaSwag: which completion is the likeliest after the context? By the sum of
    /// its tokens' losses, and by their mean. `progress` hears of the items scored so far.
    ///
    /// # Errors
    /// [`Error::Invalid`] without items or for a completion longer than the context.
    pub fn multiple_choice(&mut self, items: &[Item], mut progress: impl FnMut(u64)) -> Result<MultipleChoice> {
        let (mut right, mut right_normalised) = (0, 0);
        for (index, item) in items.iter().enumerate() {
            let completions = self.completions(item)?;
            let best = |score: fn(&Completion) -> f64| {
                (0..completions.len()).min_by(|&a, &b| score(&completions[a]).total_cmp(&score(&completions[b])))
            };
            right += usize::from(best(|c| c.loss) == Some(item.label));
            right_normalised += usize::from(best(|c| c.loss / c.tokens as f64) == Some(item.label));
            progress(index as u64 + 1);
        }
        let share = share_of(items)?;
        Ok(MultipleChoice {
            accuracy: share(right as f64),
            accuracy_normalised: share(right_normalised as f64),
            items: items.len(),
        })
    }

    /// Last-word accuracy and perplexity, e.g. on LAMBADA. `progress` hears of the items scored so far.
    ///
    /// # Errors
    /// As [`Scorer::multiple_choice`].
    pub fn last_word(&mut self, items: &[Item], mut progress: impl FnMut(u64)) -> Result<LastWord> {
        let (mut right, mut loss) = (0, 0.0);
        for (index, item) in items.iter().enumerate() {
            for word in self.completions(item)? {
                right += usize::from(word.is_greedy);
                loss += word.loss;
            }
            progress(index as u64 + 1);
        }
        let share = share_of(items)?;
        Ok(LastWord { accuracy: share(right as f64), perplexity: share(loss).exp(), items: items.len() })
    }
}

/// Divides by the number of items.
fn share_of(items: &[Item]) -> Result<impl Fn(f64) -> f64> {
    match items.len() {
        0 => Err(Error::invalid("the evaluation set has no items")),
        n => Ok(move |sum| sum / n as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::model::arena::Arena;
    use crate::model::config::Config;
    use crate::model::init;

    const CONFIG: Config = Config { context: 12, vocab: 50, layers: 2, heads: 2, channels: 16 };

    fn with_model(test: impl FnOnce(Gpt2<'_, Cpu<f64>>)) {
        let backend = Cpu::new();
        let mut weights = init::random(CONFIG, 5);
        // Larger than at the start of a training, so that tokens differ.
        weights.data.iter_mut().for_each(|x| *x *= 8.0);
        let params = Arena::from_f32(&backend, &weights.layout, weights.data).unwrap();
        test(Gpt2 { backend: &backend, config: &CONFIG, params: &params });
    }

    /// -log p of each token of a sequence but the first, from the logits of passes over its prefixes.
    fn losses(model: Gpt2<'_, Cpu<f64>>, sequence: &[u32]) -> Vec<(f64, bool)> {
        let loss = |n: usize| {
            let tokens: Vec<i32> = sequence[..n].iter().map(|&t| t as i32).collect();
            let logits = crate::model::generate::Generator::new(model, &tokens).unwrap().logits().unwrap();
            let lse = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            let target = logits[sequence[n] as usize];
            (lse - target, logits.iter().all(|&x| x <= target))
        };
        (1..sequence.len()).map(loss).collect()
    }

    fn sum(losses: &[(f64, bool)]) -> f64 {
        losses.iter().map(|x| x.0).sum()
    }

    #[test]
    fn perplexity_predicts_every_token_but_the_first_once() {
        with_model(|model| {
            let ids: Vec<u16> = (0..41).map(|i| i * i % 50).collect();
            for context in [12, 5] {
                let tokens = Tokens::from_vec("test", ids.clone());
                let mut heard = 0;
                let got = Scorer::new(model).perplexity(&tokens, context, |n| heard = n).unwrap();
                let sequence: Vec<u32> = ids.iter().map(|&x| x.into()).collect();
                let want: f64 = (0..40)
                    .step_by(context)
                    .map(|start| sum(&losses(model, &sequence[start..(start + context + 1).min(41)])))
                    .sum();
                assert!((got.loss - want / 40.0).abs() < 1e-6, "{} {}", got.loss, want / 40.0);
                assert_eq!((got.tokens, heard), (40, 40));
            }
            let error = Scorer::new(model).perplexity(&Tokens::from_vec("x", vec![1, 2]), 13, |_| ()).unwrap_err();
            assert!(error.to_string().contains("context of 12"), "{error}");
        });
    }

    #[test]
    fn choices_are_scored_by_sum_and_by_mean() {
        with_model(|model| {
            let contexts = [vec![3, 7, 9], (0..30).collect::<Vec<u32>>(), vec![1]];
            let completions = [vec![4], vec![8, 8], vec![1, 2, 3], vec![40, 41]];
            let items: Vec<Item> = contexts
                .iter()
                .enumerate()
                .map(|(i, c)| Item { context: c.clone(), completions: completions.to_vec(), label: i })
                .collect();
            let (mut right, mut right_normalised) = (0, 0);
            for item in &items {
                let scores: Vec<(f64, f64)> = completions
                    .iter()
                    .map(|completion| {
                        let room = (12 + 1 - 3).min(item.context.len());
                        let context = &item.context[item.context.len() - room..];
                        let all = losses(model, &[context, completion].concat());
                        let loss = sum(&all[room - 1..]);
                        (loss, loss / completion.len() as f64)
                    })
                    .collect();
                let best = |key: fn(&(f64, f64)) -> f64| {
                    (0..4).min_by(|&a, &b| key(&scores[a]).total_cmp(&key(&scores[b]))).unwrap()
                };
                right += usize::from(best(|s| s.0) == item.label);
                right_normalised += usize::from(best(|s| s.1) == item.label);
            }
            let got = Scorer::new(model).multiple_choice(&items, |_| ()).unwrap();
            assert_eq!(got.items, 3);
            assert_eq!(got.accuracy * 3.0, right as f64);
            assert_eq!(got.accuracy_normalised * 3.0, right_normalised as f64);
            assert!(Scorer::new(model).multiple_choice(&[], |_| ()).is_err());
            for (context, completion) in [(vec![], vec![1]), (vec![1], vec![]), (vec![1], vec![2; 13])] {
                let item = Item { context, completions: vec![completion], label: 0 };
                assert!(Scorer::new(model).multiple_choice(&[item], |_| ()).is_err());
            }
        });
    }

    #[test]
    fn a_last_word_is_right_when_each_of_its_tokens_is_the_likeliest() {
        with_model(|model| {
            let context = vec![5, 6, 7];
            let mut generator = crate::model::generate::Generator::new(model, &[5, 6, 7]).expect("a prompt that fits");
            let sampling = crate::model::generate::Sampling { temperature: 0.0, top_k: 1, top_p: 1.0, seed: 0 };
            let mut greedy = Vec::new();
            for _ in 0..2 {
                let token = generator.sample(sampling).unwrap();
                generator.push(token).unwrap();
                greedy.push(token as u32);
            }
            let item = |word: Vec<u32>| Item { context: context.clone(), completions: vec![word], label: 0 };
            let wrong = vec![greedy[0], (greedy[1] + 1) % 50];
            let items = [item(greedy.clone()), item(wrong.clone())];
            let got = Scorer::new(model).last_word(&items, |_| ()).unwrap();
            assert_eq!((got.accuracy, got.items), (0.5, 2));
            let nats: f64 =
                [greedy, wrong].iter().map(|word| sum(&losses(model, &[&context[..], word].concat())[2..])).sum();
            assert!((got.perplexity - (nats / 2.0).exp()).abs() < 1e-6 * got.perplexity);
        });
    }
}
