//! The choice of decode attention's configuration: how many splits of the KV cache.

/// CTAs that occupy any GPU. With fewer heads, several CTAs share the positions of a head (split-KV).
const TARGET_CTAS: usize = 1024;
/// Minimum positions of a split: with fewer, a split's partial results are more than 1/30 of its traffic.
const MIN_POSITIONS_PER_SPLIT: usize = 128;
/// Maximum positions that a CTA processes per iteration; a split is a multiple of it.
const POSITIONS_PER_ITERATION: usize = 64;

/// How the cached positions are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KvSplits {
    /// Number of splits.
    pub count: usize,
    /// Positions of each split; the last may have fewer.
    pub positions: usize,
}

impl KvSplits {
    /// The splits for `heads` heads, counted over all sequences, of `positions` positions each. The shape alone decides,
    /// as the splits decide the order of sums.
    pub fn new(heads: usize, positions: usize) -> Self {
        let count = TARGET_CTAS.div_ceil(heads).min(positions.div_ceil(MIN_POSITIONS_PER_SPLIT));
        let per_split = positions.div_ceil(count).next_multiple_of(POSITIONS_PER_ITERATION);
        KvSplits { count: positions.div_ceil(per_split), positions: per_split }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_decides_the_splits() {
        for (heads, positions, count, per_split, why) in [
            (12, 1, 1, 64, "the first token"),
            (12, 128, 1, 128, "one split of the minimum"),
            (12, 129, 2, 128, "the second split has one position"),
            (12, 1024, 8, 128, "GPT-2's context: limited by the minimum"),
            (12, 100_000, 83, 1216, "86 splits would occupy the GPU; whole iterations make them fewer"),
            (1024, 1024, 1, 1024, "enough heads without a split"),
            (513, 1024, 2, 512, "2 · 513 CTAs"),
        ] {
            assert_eq!(KvSplits::new(heads, positions), KvSplits { count, positions: per_split }, "{why}");
        }
    }

    #[test]
    fn splits_cover_all_positions_and_none_is_empty() {
        for (heads, positions) in [1, 12, 100, 2000].into_iter().flat_map(|h| (1..3000).map(move |p| (h, p))) {
            let KvSplits { count, positions: per_split } = KvSplits::new(heads, positions);
            let last = (count - 1) * per_split;
            assert!(last < positions && positions <= last + per_split, "{heads} heads, {positions} positions");
        }
    }
}
