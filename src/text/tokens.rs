//! Token streams: sequences of tokens in memory and in memory-mapped files.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::token_file::TokenFile;
use crate::error::{Error, Result};

/// Tokens in memory, with 16 bits each while all are below 65,536, otherwise with 32 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenIds {
    /// 16-bit tokens.
    U16(Vec<u16>),
    /// 32-bit tokens.
    U32(Vec<u32>),
}

impl Default for TokenIds {
    fn default() -> Self {
        TokenIds::U16(Vec::new())
    }
}

impl TokenIds {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        match self {
            TokenIds::U16(ids) => ids.len(),
            TokenIds::U32(ids) => ids.len(),
        }
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a token.
    pub fn push(&mut self, id: u32) {
        match (&mut *self, u16::try_from(id)) {
            (TokenIds::U16(ids), Ok(id)) => ids.push(id),
            _ => self.widen().push(id),
        }
    }

    /// Adds tokens.
    pub fn append(&mut self, more: &TokenIds) {
        match (&mut *self, more) {
            (TokenIds::U16(ids), TokenIds::U16(more)) => ids.extend_from_slice(more),
            (TokenIds::U32(ids), TokenIds::U16(more)) => ids.extend(more.iter().map(|&id| u32::from(id))),
            (_, TokenIds::U32(more)) => self.widen().extend_from_slice(more),
        }
    }

    /// The tokens with 32 bits.
    fn widen(&mut self) -> &mut Vec<u32> {
        if let TokenIds::U16(ids) = self {
            *self = TokenIds::U32(ids.iter().map(|&id| id.into()).collect());
        }
        match self {
            TokenIds::U32(ids) => ids,
            TokenIds::U16(_) => unreachable!("the tokens were just widened"),
        }
    }

    /// Copies the first tokens from `start` to `out`.
    fn copy(&self, start: usize, out: &mut [i32]) {
        match self {
            TokenIds::U16(ids) => out.iter_mut().zip(&ids[start..]).for_each(|(out, &id)| *out = id.into()),
            // A token is below V, which 31 bits hold.
            TokenIds::U32(ids) => out.iter_mut().zip(&ids[start..]).for_each(|(out, &id)| *out = id as i32),
        }
    }
}

/// A stream of tokens, which is a sequence of segments in memory and in memory-mapped files. Clones share the
/// tokens.
#[derive(Clone)]
pub struct Tokens {
    source: String,
    segments: Vec<Segment>,
}

/// Tokens `range` of one store.
#[derive(Clone)]
struct Segment {
    store: Store,
    range: Range<usize>,
    /// End of the segment in the whole stream (exclusive).
    end: usize,
}

/// Where tokens are stored.
#[derive(Clone)]
pub(super) enum Store {
    Memory(Arc<TokenIds>),
    File(Arc<TokenFile>),
}

impl Store {
    /// The number of tokens.
    pub(super) fn len(&self) -> usize {
        match self {
            Store::Memory(tokens) => tokens.len(),
            Store::File(file) => file.len(),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("source", &self.source).field("len", &self.len()).finish()
    }
}

impl Tokens {
    /// A stream of tokens in memory; `source` is its name in errors.
    pub fn from_vec(source: impl Into<String>, tokens: Vec<u16>) -> Self {
        Self::from_ids(source, TokenIds::U16(tokens))
    }

    /// As [`Tokens::from_vec`], for a vocabulary of any size.
    pub fn from_ids(source: impl Into<String>, tokens: TokenIds) -> Self {
        Self::concat(source.into(), [Store::Memory(Arc::new(tokens))])
    }

    /// The concatenation of stores; `source` is its name in errors.
    pub(super) fn concat(source: String, stores: impl IntoIterator<Item = Store>) -> Self {
        let mut tokens = Tokens { source, segments: Vec::new() };
        for store in stores {
            let range = 0..store.len();
            tokens.push(store, range);
        }
        tokens
    }

    fn push(&mut self, store: Store, range: Range<usize>) {
        if !range.is_empty() {
            let end = self.len() + range.len();
            self.segments.push(Segment { store, range, end });
        }
    }

    /// Name of the stream's source, for messages.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.segments.last().map_or(0, |segment| segment.end)
    }

    /// Whether the stream has no tokens.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Reads the tokens `start..start + out.len()`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if they are out of range.
    pub fn read(&self, start: usize, out: &mut [i32]) -> Result<()> {
        let len = self.len();
        if start.checked_add(out.len()).is_none_or(|end| end > len) {
            let message = format!("{}: cannot read {} tokens at {start} of {len}", self.source, out.len());
            return Err(Error::invalid(message));
        }
        let (mut at, mut rest) = (start, out);
        let first = self.segments.partition_point(|segment| segment.end <= start);
        for segment in &self.segments[first..] {
            let (head, tail) = rest.split_at_mut(rest.len().min(segment.end - at));
            let from = segment.range.end - (segment.end - at);
            match &segment.store {
                Store::Memory(tokens) => tokens.copy(from, head),
                Store::File(file) => file.read(from, head)?,
            }
            at += head.len();
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The tokens in `range`, which is clamped to the stream.
    pub fn slice(&self, range: Range<usize>) -> Tokens {
        let mut slice = Tokens { source: self.source.clone(), segments: Vec::new() };
        for segment in &self.segments {
            let offset = segment.end - segment.range.len();
            let start = range.start.clamp(offset, segment.end) - offset;
            let end = range.end.clamp(offset, segment.end) - offset;
            slice.push(segment.store.clone(), segment.range.start + start..segment.range.start + end.max(start));
        }
        slice
    }

    /// Splits off the last `fraction` of the tokens, rounded down to whole tokens.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless 0 <= fraction < 1.
    pub fn split(&self, fraction: f64) -> Result<(Tokens, Tokens)> {
        let len = self.len();
        let middle = len - validation_len(len, fraction)?;
        Ok((self.slice(0..middle), self.slice(middle..len)))
    }
}

/// The number of validation tokens: a `fraction` of `len`, rounded down.
pub(super) fn validation_len(len: usize, fraction: f64) -> Result<usize> {
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::invalid(format!("validation fraction: 0 <= fraction < 1 failed ({fraction})")));
    }
    Ok((len as f64 * fraction) as usize)
}

/// All tokens of a stream.
#[cfg(test)]
pub(super) fn all(tokens: &Tokens) -> Vec<i32> {
    let mut out = vec![-1; tokens.len()];
    tokens.read(0, &mut out).unwrap();
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_take_32_bits_only_where_16_do_not_suffice() {
        let mut ids = TokenIds::default();
        ids.push(65535);
        ids.append(&TokenIds::U16(vec![1, 2]));
        assert_eq!(ids, TokenIds::U16(vec![65535, 1, 2]));
        ids.push(65536);
        assert_eq!(ids, TokenIds::U32(vec![65535, 1, 2, 65536]));
        ids.append(&TokenIds::U16(vec![3]));
        ids.append(&TokenIds::U32(vec![1 << 20]));
        ids.push(4);
        assert_eq!(all(&Tokens::from_ids("x", ids)), [65535, 1, 2, 65536, 3, 1 << 20, 4]);
        let mut ids = TokenIds::U16(vec![5]);
        ids.append(&TokenIds::U32(vec![100_000]));
        assert_eq!((ids.len(), ids), (2, TokenIds::U32(vec![5, 100_000])));
    }

    proptest! {
        #[test]
        fn reading_and_slicing_equal_those_of_one_vector(
            lengths in prop::collection::vec(0_usize..9, 0..6), cuts in prop::array::uniform4(0_usize..40),
        ) {
            let mut next = 0..;
            let stores: Vec<Vec<u16>> = lengths.iter().map(|&n| next.by_ref().take(n).collect()).collect();
            let flat: Vec<i32> = stores.concat().into_iter().map(i32::from).collect();
            // Every second store has 32-bit tokens.
            let ids = stores.into_iter().enumerate().map(|(index, tokens)| match index % 2 {
                0 => TokenIds::U16(tokens),
                _ => TokenIds::U32(tokens.into_iter().map(u32::from).collect()),
            });
            let tokens = Tokens::concat("x".into(), ids.map(|ids| Store::Memory(Arc::new(ids))));
            prop_assert_eq!(tokens.len(), flat.len());
            let end = cuts[1].min(flat.len());
            let start = cuts[0].min(end);
            let slice = tokens.slice(cuts[0]..cuts[1]);
            prop_assert_eq!(all(&slice), &flat[start..end]);
            // A slice of a slice.
            let expected: Vec<i32> = all(&slice).into_iter().skip(cuts[2]).take(cuts[3]).collect();
            prop_assert_eq!(all(&slice.slice(cuts[2]..cuts[2] + cuts[3])), &*expected);
            let mut out = vec![-1; cuts[3]];
            match flat.get(cuts[2]..cuts[2] + cuts[3]) {
                Some(expected) => {
                    tokens.read(cuts[2], &mut out).unwrap();
                    prop_assert_eq!(&*out, expected);
                }
                None => prop_assert!(tokens.read(cuts[2], &mut out).is_err()),
            }
            prop_assert!(tokens.read(usize::MAX, &mut [0]).is_err());
        }
    }
}
