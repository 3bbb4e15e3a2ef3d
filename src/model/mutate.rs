//! Random mutation of files, for fuzz tests of parsers.

/// A small RNG. It is implemented here so that a failing seed does not depend on the version of a crate.
pub(crate) struct SplitMix(pub u64);

impl SplitMix {
    /// A random number below `n`, or 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

/// Returns a mutated member of `corpus`; `fragments` are pieces of the format's syntax to insert.
pub(crate) fn mutate(random: &mut SplitMix, corpus: &[Vec<u8>], fragments: &[&str]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..end, fragments[random.below(fragments.len())].bytes())),
            3 => bytes.truncate(at),
            4 => bytes.extend_from_within(at..end),
            5 => {
                let donor = &corpus[random.below(corpus.len())];
                let from = random.below(donor.len());
                let excerpt = donor[from..(from + random.below(80)).min(donor.len())].to_vec();
                bytes.splice(at..at, excerpt);
            }
            _ => {
                // Changes one digit, which gives sizes and offsets that are almost right.
                if let Some(digit) = (at..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) {
                    bytes[digit] = b'0' + random.below(10) as u8;
                }
            }
        }
    }
    bytes
}
