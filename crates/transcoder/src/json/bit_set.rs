//! A set of small numbers.

/// A set of small numbers. Numbers below 256 need no allocation.
#[derive(Default)]
pub(super) struct BitSet {
    low: [u64; 4],
    high: Vec<u64>,
}

impl BitSet {
    /// Adds a number; returns whether it is new.
    #[inline]
    pub fn insert(&mut self, bit: u16) -> bool {
        let word = match self.low.get_mut(usize::from(bit >> 6)) {
            Some(word) => word,
            None => self.high(bit),
        };
        let mask = 1 << (bit & 63);
        let new = *word & mask == 0;
        *word |= mask;
        new
    }

    #[cold]
    fn high(&mut self, bit: u16) -> &mut u64 {
        let word = usize::from(bit >> 6) - self.low.len();
        if word >= self.high.len() {
            self.high.resize(word + 1, 0);
        }
        &mut self.high[word]
    }

    #[inline]
    pub fn contains(&self, bit: u16) -> bool {
        let word = usize::from(bit >> 6);
        let word = match self.low.get(word) {
            Some(word) => *word,
            None => self.high.get(word - self.low.len()).copied().unwrap_or(0),
        };
        word & 1 << (bit & 63) != 0
    }
}
