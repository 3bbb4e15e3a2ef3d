//! Byte-pair encoding of a piece of text, and GPT-2's vocabulary.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pretokenize::Pretokenizer;

/// Number of GPT-2's tokens that encode bytes; `<|endoftext|>` follows them.
const ORDINARY: u32 = 50256;

/// GPT-2's byte-pair encoder.
///
/// The id of a token is also the rank of the merge that produces it: lower ranks merge first.
pub(super) struct Bpe {
    pretokenizer: Pretokenizer,
    vocabulary: Vocabulary,
}

impl Bpe {
    /// Builds the encoder from the vocabulary that tiktoken-rs embeds.
    pub fn gpt2() -> Result<Self, String> {
        let source = tiktoken_rs::r50k_base().map_err(|e| e.to_string())?;
        let mut tokens = Vec::with_capacity(ORDINARY as usize);
        for id in 0..ORDINARY {
            tokens.push(source.decode_bytes(&[id]).map_err(|e| e.to_string())?);
        }
        Ok(Bpe { pretokenizer: Pretokenizer::new()?, vocabulary: Vocabulary::new(&tokens)? })
    }

    /// Number of tokens that encode bytes, which is the id of `<|endoftext|>`.
    pub fn ordinary(&self) -> u32 {
        ORDINARY
    }

    /// The bytes of a token; `None` for `<|endoftext|>` and ids outside the vocabulary.
    pub fn token(&self, id: u32) -> Option<&[u8]> {
        (id < ORDINARY).then(|| self.vocabulary.token(id))
    }

    /// Appends the tokens of `text` to `out`.
    pub fn encode_into(&self, text: &str, out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let mut start = 0;
        while start < text.len() {
            let end = self.pretokenizer.piece_end(text, start);
            let piece = &text.as_bytes()[start..end];
            match self.vocabulary.id(piece) {
                Some(id) => out.push(id),
                None => merger.encode(&self.vocabulary, piece, out),
            }
            start = end;
        }
    }
}

/// The bytes of all tokens, with a hash table over them.
struct Vocabulary {
    /// The concatenated bytes of all tokens.
    bytes: Vec<u8>,
    /// Token `id` is `bytes[starts[id]..starts[id + 1]]`.
    starts: Vec<u32>,
    /// Hash table with open addressing and linear probing: ids, or [`Vocabulary::FREE`].
    slots: Vec<u32>,
    /// The token of each single byte.
    singles: [u32; 256],
    /// Length of the longest token in bytes.
    longest: usize,
}

impl Vocabulary {
    const FREE: u32 = u32::MAX;

    fn new(tokens: &[Vec<u8>]) -> Result<Self, String> {
        // Less than half full, so that unsuccessful probes are short.
        let slots = vec![Self::FREE; (2 * tokens.len()).next_power_of_two()];
        let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
        let mut vocabulary =
            Vocabulary { bytes: Vec::new(), starts: vec![0], slots, singles: [Self::FREE; 256], longest };
        for (id, token) in (0..).zip(tokens) {
            vocabulary.bytes.extend_from_slice(token);
            vocabulary.starts.push(vocabulary.bytes.len() as u32);
            let slot = vocabulary.slot(token);
            vocabulary.slots[slot] = id;
            if let [byte] = token[..] {
                vocabulary.singles[usize::from(byte)] = id;
            }
        }
        // If a byte had no token, some texts could not be encoded.
        match vocabulary.singles.iter().position(|&id| id == Self::FREE) {
            Some(byte) => Err(format!("the vocabulary has no token for byte {byte}")),
            None => Ok(vocabulary),
        }
    }

    fn token(&self, id: u32) -> &[u8] {
        &self.bytes[self.starts[id as usize] as usize..self.starts[id as usize + 1] as usize]
    }

    /// The token with exactly these bytes.
    fn id(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest {
            return None;
        }
        Some(self.slots[self.slot(bytes)]).filter(|&id| id != Self::FREE)
    }

    /// The slot that holds these bytes, or the free slot where they would be inserted.
    fn slot(&self, bytes: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(bytes) as usize & mask;
        while self.slots[slot] != Self::FREE && self.token(self.slots[slot]) != bytes {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

/// A multiplicative hash of eight bytes per step. The keys in the table are fixed, so an attacker cannot make them collide.
fn hash(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let word = chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        state = (state ^ word).wrapping_mul(MULTIPLIER);
        // The high half of the product is mixed best.
        state ^= state >> 32;
    }
    state
}

/// Merges the bytes of a piece into tokens: repeatedly the adjacent pair of lowest rank, the leftmost one among equals.
///
/// A heap of candidate pairs makes this O(n log n) for a piece of n bytes, so long pieces cannot be used for an attack. The
/// buffers are reused for all pieces.
#[derive(Default)]
struct Merger {
    /// Indexed by the offset of the symbol's first byte.
    symbols: Vec<Symbol>,
    /// Rank and offset of the first symbol of candidate pairs, lowest first. A candidate is stale if its rank differs from
    /// the symbol's `pair`.
    candidates: BinaryHeap<Reverse<(u32, usize)>>,
}

/// A byte or the result of merges.
struct Symbol {
    token: u32,
    /// Offset of the previous symbol.
    previous: usize,
    /// End offset (exclusive), at which the next symbol starts.
    end: usize,
    /// Rank of the merge with the next symbol, if they can be merged.
    pair: Option<u32>,
}

impl Merger {
    /// Appends the tokens of `piece` to `out`.
    fn encode(&mut self, vocabulary: &Vocabulary, piece: &[u8], out: &mut Vec<u32>) {
        self.symbols.clear();
        self.symbols.extend(piece.iter().enumerate().map(|(at, &byte)| Symbol {
            token: vocabulary.singles[usize::from(byte)],
            previous: at.saturating_sub(1),
            end: at + 1,
            pair: None,
        }));
        for first in 0..piece.len() {
            self.update_pair(vocabulary, piece, first);
        }
        while let Some(Reverse((rank, first))) = self.candidates.pop() {
            if self.symbols[first].pair == Some(rank) {
                self.merge(vocabulary, piece, first, rank);
            }
        }
        let mut at = 0;
        while at < piece.len() {
            out.push(self.symbols[at].token);
            at = self.symbols[at].end;
        }
    }

    /// Merges the symbol at `first` with the next one into the token with this rank.
    fn merge(&mut self, vocabulary: &Vocabulary, piece: &[u8], first: usize, rank: u32) {
        let second = self.symbols[first].end;
        let end = self.symbols[second].end;
        self.symbols[second].pair = None;
        self.symbols[first].token = rank;
        self.symbols[first].end = end;
        if let Some(next) = self.symbols.get_mut(end) {
            next.previous = first;
        }
        self.update_pair(vocabulary, piece, first);
        if first > 0 {
            self.update_pair(vocabulary, piece, self.symbols[first].previous);
        }
    }

    /// Looks up the merge of the symbol at `first` with the next one, and adds it to the candidates.
    fn update_pair(&mut self, vocabulary: &Vocabulary, piece: &[u8], first: usize) {
        let next = self.symbols[first].end;
        let pair = self.symbols.get(next).and_then(|symbol| vocabulary.id(&piece[first..symbol.end]));
        self.symbols[first].pair = pair;
        if let Some(rank) = pair {
            self.candidates.push(Reverse((rank, first)));
        }
    }
}
