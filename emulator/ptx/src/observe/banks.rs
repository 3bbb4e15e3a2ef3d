//! How a warp's addresses map to sectors of device memory and to banks of shared memory.

use crate::registers::LANES;

/// Bytes of a sector, the unit of transfers from and to device memory.
pub const SECTOR: u64 = 32;
/// Shared memory has 32 banks, four bytes wide.
const BANKS: usize = 32;

/// Number of distinct sectors that the lanes of `mask` access.
pub fn sectors(mask: u32, addresses: &[u64; LANES], size: u32) -> u32 {
    let size = u64::from(size);
    // The bytes of one aligned access never wrap around; only a range of several accesses can.
    let consecutive = mask == u32::MAX
        && addresses[0] <= addresses[LANES - 1]
        && (1..LANES).all(|lane| addresses[lane] == addresses[lane - 1].wrapping_add(size));
    if consecutive {
        return ((addresses[LANES - 1] + (size - 1)) / SECTOR - addresses[0] / SECTOR + 1) as u32;
    }
    let mut touched = [0u64; LANES];
    let mut count = 0;
    // Accesses are aligned and at most 16 bytes: each lies in one sector.
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 == 1) {
        let sector = addresses[lane] / SECTOR;
        if !touched[..count].contains(&sector) {
            touched[count] = sector;
            count += 1;
        }
    }
    count as u32
}

/// (wavefronts, wavefronts without conflicts) of an access to shared memory.
///
/// Accesses of 8 and 16 bytes are served in two and four parts of consecutive lanes. In each part, every bank delivers
/// one word per wavefront; lanes that request the same word share it.
pub fn wavefronts(mask: u32, addresses: &[u64; LANES], size: u32) -> (u32, u32) {
    let words = size.div_ceil(4) as usize;
    let lanes = LANES / words;
    let (mut fronts, mut ideal) = (0, 0);
    for part in 0..words {
        let mask = mask >> (part * lanes) & (u32::MAX >> (LANES - lanes));
        let addresses = &addresses[part * lanes..][..lanes];
        let (deepest, distinct) = match one_word_per_bank(mask, addresses, words as u32) {
            Some(distinct) => (u32::from(distinct > 0), distinct),
            None => words_by_bank(mask, addresses, words as u32),
        };
        fronts += deepest;
        ideal += distinct.div_ceil(BANKS as u32);
    }
    (fronts, ideal)
}

/// Number of banks accessed, if no bank is accessed for more than one word: the usual case.
fn one_word_per_bank(mask: u32, addresses: &[u64], words: u32) -> Option<u32> {
    let mut of_bank = [0u64; BANKS];
    let mut accessed = 0u32;
    for (lane, address) in addresses.iter().enumerate() {
        if mask >> lane & 1 == 0 {
            continue;
        }
        for word in address / 4..address / 4 + u64::from(words) {
            let bank = word as usize % BANKS;
            if accessed >> bank & 1 == 1 && of_bank[bank] != word {
                return None;
            }
            accessed |= 1 << bank;
            of_bank[bank] = word;
        }
    }
    Some(accessed.count_ones())
}

/// (largest number of words of one bank, number of words), each word counted once.
fn words_by_bank(mask: u32, addresses: &[u64], words: u32) -> (u32, u32) {
    let mut of_bank: [Vec<u64>; BANKS] = Default::default();
    for (_, address) in addresses.iter().enumerate().filter(|(lane, _)| mask >> lane & 1 == 1) {
        for word in address / 4..address / 4 + u64::from(words) {
            let have = &mut of_bank[word as usize % BANKS];
            if !have.contains(&word) {
                have.push(word);
            }
        }
    }
    let most = of_bank.iter().map(Vec::len).max().unwrap_or(0);
    (most as u32, of_bank.iter().map(Vec::len).sum::<usize>() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(stride: u64) -> [u64; LANES] {
        std::array::from_fn(|lane| 1024 + lane as u64 * stride)
    }

    #[test]
    fn sectors_are_counted_once() {
        assert_eq!(sectors(u32::MAX, &strided(4), 4), 4);
        assert_eq!(sectors(u32::MAX, &strided(16), 16), 16);
        assert_eq!(sectors(u32::MAX, &strided(32), 4), 32);
        assert_eq!(sectors(u32::MAX, &[64; LANES], 4), 1);
        assert_eq!(sectors(0b1011, &strided(4), 4), 1);
        // Invalid addresses are counted before they are reported.
        let wrapped: [u64; LANES] = std::array::from_fn(|lane| (lane as u64 * 16).wrapping_sub(256));
        assert_eq!(sectors(u32::MAX, &wrapped, 16), 16);
        assert_eq!(wavefronts(u32::MAX, &[u64::MAX - 15; LANES], 16), (4, 4));
        let mut shifted = strided(4);
        shifted.iter_mut().for_each(|address| *address += 4);
        assert_eq!(sectors(u32::MAX, &shifted, 4), 5);
    }

    #[test]
    fn conflicts_are_words_of_one_bank() {
        assert_eq!(wavefronts(u32::MAX, &strided(4), 4), (1, 1));
        assert_eq!(wavefronts(u32::MAX, &strided(8), 4), (2, 1));
        assert_eq!(wavefronts(u32::MAX, &strided(128), 4), (32, 1));
        assert_eq!(wavefronts(u32::MAX, &strided(132), 4), (1, 1));
        assert_eq!(wavefronts(u32::MAX, &[1024; LANES], 4), (1, 1));
        assert_eq!(wavefronts(u32::MAX, &strided(16), 16), (4, 4));
        assert_eq!(wavefronts(u32::MAX, &strided(128), 16), (32, 4));
        assert_eq!(wavefronts(u32::MAX, &strided(2), 2), (1, 1));
        // Eight rows of 16 bytes, as ldmatrix reads them.
        assert_eq!(wavefronts(0xFF, &strided(16), 16), (1, 1));
        assert_eq!(wavefronts(0xFF, &strided(64), 16), (4, 1));
    }
}
