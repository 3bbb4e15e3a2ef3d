//! Byte-pair encoding of one piece, and GPT-2's vocabulary.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pretokenize::Pretokenizer;

/// GPT-2's tokens that stand for bytes; `<|endoftext|>` comes after them.
const ORDINARY: u32 = 50256;

/// GPT-2's byte-pair encoder.
///
/// A token's id is also the rank of the merge that makes it: the lower merges first.
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

    /// The bytes of a token, if it stands for bytes.
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

/// The tokens' bytes with a hash table over them.
struct Vocabulary {
    /// All tokens' bytes, one after another.
    bytes: Vec<u8>,
    /// Token `id` is `bytes[starts[id]..starts[id + 1]]`.
    starts: Vec<u32>,
    /// Open addressing with linear probing: ids, or [`Vocabulary::FREE`].
    slots: Vec<u32>,
    /// Tokens of the single bytes.
    singles: [u32; 256],
    /// Bytes of the longest token.
    longest: usize,
}

impl Vocabulary {
    const FREE: u32 = u32::MAX;

    fn new(tokens: &[Vec<u8>]) -> Result<Self, String> {
        // Less than half full, so that a probe for what is not there ends soon.
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
        // Without a token for every byte some text could not be encoded at all.
        match vocabulary.singles.iter().position(|&id| id == Self::FREE) {
            Some(byte) => Err(format!("the vocabulary has no token for byte {byte}")),
            None => Ok(vocabulary),
        }
    }

    fn token(&self, id: u32) -> &[u8] {
        &self.bytes[self.starts[id as usize] as usize..self.starts[id as usize + 1] as usize]
    }

    /// The token that is exactly these bytes.
    fn id(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest {
            return None;
        }
        Some(self.slots[self.slot(bytes)]).filter(|&id| id != Self::FREE)
    }

    /// The slot that holds these bytes, or the free one where they would go.
    fn slot(&self, bytes: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(bytes) as usize & mask;
        while self.slots[slot] != Self::FREE && self.token(self.slots[slot]) != bytes {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

/// A multiplicative hash, eight bytes a step; the vocabulary is fixed, so nobody can choose keys that collide in it.
fn hash(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let word = chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        state = (state ^ word).wrapping_mul(MULTIPLIER);
        // The high half of the product is the well mixed one.
        state ^= state >> 32;
    }
    state
}

/// Merges a piece's bytes into tokens: always the adjacent pair of lowest rank first, the leftmost among equals.
///
/// A heap of candidate pairs makes it O(n log n) for a piece of n bytes, so a hostile one of megabytes does no harm.
/// The buffers are kept from piece to piece.
#[derive(Default)]
struct Merger {
    /// By first byte of a part.
    parts: Vec<Part>,
    /// Rank and first byte of candidate pairs, lowest first; one whose rank is no longer its part's is stale.
    candidates: BinaryHeap<Reverse<(u32, usize)>>,
}

/// A token in the making.
struct Part {
    token: u32,
    /// First byte of the part before.
    previous: usize,
    /// One past the last byte: where the next part starts.
    end: usize,
    /// Rank of this part joined with the next.
    pair: Option<u32>,
}

impl Merger {
    /// Appends the tokens of `piece` to `out`.
    fn encode(&mut self, vocabulary: &Vocabulary, piece: &[u8], out: &mut Vec<u32>) {
        self.parts.clear();
        self.parts.extend(piece.iter().enumerate().map(|(at, &byte)| Part {
            token: vocabulary.singles[usize::from(byte)],
            previous: at.saturating_sub(1),
            end: at + 1,
            pair: None,
        }));
        for first in 0..piece.len() {
            self.consider(vocabulary, piece, first);
        }
        while let Some(Reverse((rank, first))) = self.candidates.pop() {
            if self.parts[first].pair == Some(rank) {
                self.join(vocabulary, piece, first, rank);
            }
        }
        let mut at = 0;
        while at < piece.len() {
            out.push(self.parts[at].token);
            at = self.parts[at].end;
        }
    }

    /// Joins the part at `first` with the next, into the token of that rank.
    fn join(&mut self, vocabulary: &Vocabulary, piece: &[u8], first: usize, rank: u32) {
        let second = self.parts[first].end;
        let end = self.parts[second].end;
        self.parts[second].pair = None;
        self.parts[first].token = rank;
        self.parts[first].end = end;
        if let Some(next) = self.parts.get_mut(end) {
            next.previous = first;
        }
        self.consider(vocabulary, piece, first);
        if first > 0 {
            self.consider(vocabulary, piece, self.parts[first].previous);
        }
    }

    /// Looks up the pair that the part at `first` makes with the next one.
    fn consider(&mut self, vocabulary: &Vocabulary, piece: &[u8], first: usize) {
        let next = self.parts[first].end;
        let pair = self.parts.get(next).and_then(|part| vocabulary.id(&piece[first..part.end]));
        self.parts[first].pair = pair;
        if let Some(rank) = pair {
            self.candidates.push(Reverse((rank, first)));
        }
    }
}
