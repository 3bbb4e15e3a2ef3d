//! Evaluation of a model on text: perplexity, HellaSwag, LAMBADA.

use crate::error::{Error, Result};
use crate::model::Gpt2;
use crate::model::activations::{Activations, Head, Keep};
use crate::ops::{Backend, Sample};
use crate::tensor::{FloatElement, Tensor};
use crate::text::corpus::Tokens;
use crate::text::evaluation::{Item, windows};

/// Approximate number of tokens in a forward pass over several windows, large enough for efficient matmuls.
const PASS_TOKENS: usize = 1024;

/// The length of completion rows is rounded up to a multiple of this.
const ROW_MULTIPLE: usize = 64;

/// Result of a perplexity evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Mean loss, in nats per predicted token.
    pub loss: f64,
    /// Number of predicted tokens: all except the first.
    pub tokens: u64,
}

impl Perplexity {
    /// `exp(loss)`
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// Result of a multiple-choice evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultipleChoice {
    /// Fraction of items whose correct completion has the smallest total loss.
    pub accuracy: f64,
    /// Fraction of items whose correct completion has the smallest mean loss per token.
    pub accuracy_normalised: f64,
    /// Number of items.
    pub items: usize,
}

/// Result of a last-word evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastWord {
    /// Fraction of items for which every token of the last word is the most likely one, given the tokens before it.
    pub accuracy: f64,
    /// `exp` of the mean loss per last word, which is the sum over the word's tokens.
    pub perplexity: f64,
    /// Number of items.
    pub items: usize,
}

/// The score of one completion.
struct Completion {
    /// Total loss, in nats.
    loss: f64,
    tokens: usize,
    /// Whether every token is the most likely one.
    is_greedy: bool,
}

/// Evaluates a model on rows of tokens. Buffers are reused while the shape stays the same.
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
    /// A scorer for a model.
    pub fn new(model: Gpt2<'a, B>) -> Self {
        Scorer { model, buffers: None }
    }

    /// One forward pass over (B, T) tokens, after which the buffers hold losses and logits.
    fn pass(&mut self, shape: [usize; 2], tokens: &[i32], targets: &[i32]) -> Result<&mut Buffers<B>> {
        let Gpt2 { backend, config, .. } = self.model;
        if self.buffers.as_ref().is_none_or(|buffers| buffers.shape != shape) {
            let [b, t] = shape;
            // The old buffers are freed first, because both might not fit the memory.
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
        let buffers = self.buffers.as_mut().expect("allocated above");
        backend.upload(tokens, buffers.tokens.view_mut())?;
        backend.upload(targets, buffers.targets.view_mut())?;
        self.model.evaluate(&mut buffers.acts, &mut buffers.head, buffers.tokens.view(), buffers.targets.view())?;
        Ok(buffers)
    }

    /// Mean loss over consecutive windows of `context` tokens (see [`windows`]). `progress` is called with the number of
    /// tokens predicted so far.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than two tokens, or for windows longer than the model's context.
    pub fn perplexity(&mut self, tokens: &Tokens, context: usize, mut progress: impl FnMut(u64)) -> Result<Perplexity> {
        let max = self.model.config.context;
        if context > max {
            return Err(Error::invalid(format!("windows of {context} tokens exceed the model's context of {max}")));
        }
        let backend = self.model.backend;
        let windows: Vec<_> = windows(tokens.len(), context)?.collect();
        let (mut total, mut count) = (0.0, 0);
        let mut rest = &windows[..];
        while let Some(first) = rest.first() {
            // Windows of full length are grouped; the shorter one at the end has a pass of its own.
            let t = first.inputs.len();
            let max_group = (PASS_TOKENS / t).max(1);
            let (group, tail) = rest.split_at(rest.iter().take(max_group).take_while(|w| w.inputs.len() == t).count());
            rest = tail;
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

    /// Scores each completion of an item, given its context. Contexts that are too long are truncated at the start.
    fn completions(&mut self, item: &Item) -> Result<Vec<Completion>> {
        let Gpt2 { backend, config, .. } = self.model;
        if item.context.is_empty() || item.completions.iter().any(Vec::is_empty) {
            return Err(Error::invalid("an item's context and completions need at least one token each"));
        }
        let longest = item.completions.iter().map(Vec::len).max().unwrap_or(0);
        if longest > config.context {
            let context = config.context;
            return Err(Error::invalid(format!(
                "a completion of {longest} tokens exceeds the model's context of {context}"
            )));
        }
        // The last token is only predicted and not an input, so T + 1 tokens fit.
        let room = (config.context + 1 - longest).min(item.context.len());
        let before = &item.context[item.context.len() - room..];
        // Rounded up, so that items of similar length share their buffers.
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

    /// Completion-style accuracy, e.g. on HellaSwag: the model chooses the completion with the smallest loss, by the sum
    /// and by the mean over its tokens. `progress` is called with the number of items scored so far.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are no items, or for a completion longer than the model's context.
    pub fn multiple_choice(&mut self, items: &[Item], mut progress: impl FnMut(u64)) -> Result<MultipleChoice> {
        let (mut correct, mut correct_normalised) = (0, 0);
        for (index, item) in items.iter().enumerate() {
            let completions = self.completions(item)?;
            let best = |score: fn(&Completion) -> f64| {
                (0..completions.len()).min_by(|&a, &b| score(&completions[a]).total_cmp(&score(&completions[b])))
            };
            correct += usize::from(best(|c| c.loss) == Some(item.label));
            correct_normalised += usize::from(best(|c| c.loss / c.tokens as f64) == Some(item.label));
            progress(index as u64 + 1);
        }
        let mean = mean_over(items)?;
        Ok(MultipleChoice {
            accuracy: mean(correct as f64),
            accuracy_normalised: mean(correct_normalised as f64),
            items: items.len(),
        })
    }

    /// Last-word accuracy and perplexity, e.g. on LAMBADA. `progress` is called with the number of items scored so far.
    ///
    /// # Errors
    /// As [`Scorer::multiple_choice`].
    pub fn last_word(&mut self, items: &[Item], mut progress: impl FnMut(u64)) -> Result<LastWord> {
        let (mut correct, mut loss) = (0, 0.0);
        for (index, item) in items.iter().enumerate() {
            for word in self.completions(item)? {
                correct += usize::from(word.is_greedy);
                loss += word.loss;
            }
            progress(index as u64 + 1);
        }
        let mean = mean_over(items)?;
        Ok(LastWord { accuracy: mean(correct as f64), perplexity: mean(loss).exp(), items: items.len() })
    }
}

/// Returns a function that divides a sum by the number of items.
fn mean_over(items: &[Item]) -> Result<impl Fn(f64) -> f64> {
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
        let mut weights = init::random(CONFIG, 5).unwrap();
        // Scaled up, so that the predictions for different tokens differ clearly.
        weights.data.iter_mut().for_each(|x| *x *= 8.0);
        let params = Arena::from_f32(&backend, &weights.layout, weights.data).unwrap();
        test(Gpt2 { backend: &backend, config: &CONFIG, params: &params });
    }

    /// -log p of each token of a sequence except the first, computed from the logits of its prefixes.
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
    fn perplexity_predicts_every_token_except_the_first_once() {
        with_model(|model| {
            let ids: Vec<u16> = (0..41).map(|i| i * i % 50).collect();
            for context in [12, 5] {
                let tokens = Tokens::from_vec("test", ids.clone());
                let mut progress = 0;
                let got = Scorer::new(model).perplexity(&tokens, context, |n| progress = n).unwrap();
                let sequence: Vec<u32> = ids.iter().map(|&x| x.into()).collect();
                let want: f64 = (0..40)
                    .step_by(context)
                    .map(|start| sum(&losses(model, &sequence[start..(start + context + 1).min(41)])))
                    .sum();
                assert!((got.loss - want / 40.0).abs() < 1e-6, "{} {}", got.loss, want / 40.0);
                assert_eq!((got.tokens, progress), (40, 40));
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
            let (mut correct, mut correct_normalised) = (0, 0);
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
                correct += usize::from(best(|s| s.0) == item.label);
                correct_normalised += usize::from(best(|s| s.1) == item.label);
            }
            let got = Scorer::new(model).multiple_choice(&items, |_| ()).unwrap();
            assert_eq!(got.items, 3);
            assert_eq!(got.accuracy * 3.0, correct as f64);
            assert_eq!(got.accuracy_normalised * 3.0, correct_normalised as f64);
            assert!(Scorer::new(model).multiple_choice(&[], |_| ()).is_err());
            for (context, completion) in [(vec![], vec![1]), (vec![1], vec![]), (vec![1], vec![2; 13])] {
                let item = Item { context, completions: vec![completion], label: 0 };
                assert!(Scorer::new(model).multiple_choice(&[item], |_| ()).is_err());
            }
        });
    }

    #[test]
    fn a_last_word_is_correct_if_each_of_its_tokens_is_the_most_likely() {
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
