//! Which of many byte ranges have a byte in common with a given one.
//!
//! Short ranges (every write is one) stand sorted by their first byte in one vector, so that a
//! look-up reads a few neighbours and an insertion moves a few kilobytes at most; long ones (a
//! discard of gigabytes) are few and looked through. Nothing is allocated once the vectors have
//! grown.

use corbel_proto::memory::SEGMENT_BYTES_MAX;

use crate::request::Extent;

/// The longest range that is sorted in.
const SHORT_MAX: u64 = SEGMENT_BYTES_MAX as u64;

#[derive(Debug, Clone, Copy)]
struct Item<T> {
    extent: Extent,
    value: T,
}

/// A set of ranges, each with a value. Equal ranges may be in it more than once.
#[derive(Debug)]
pub(super) struct Ranges<T> {
    short: Vec<Item<T>>,
    long: Vec<Item<T>>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { short: Vec::new(), long: Vec::new() }
    }
}

impl<T: Copy + PartialEq> Ranges<T> {
    /// Adds `extent`, which is not empty.
    pub(super) fn insert(&mut self, extent: Extent, value: T) {
        let item = Item { extent, value };
        if extent.len > SHORT_MAX {
            return self.long.push(item);
        }
        let at = self.short.partition_point(|other| other.extent.offset <= extent.offset);
        self.short.insert(at, item);
    }

    /// Takes out what was inserted with the same range and value.
    pub(super) fn remove(&mut self, extent: Extent, value: T) {
        if extent.len > SHORT_MAX {
            if let Some(at) = self.long.iter().position(|item| item.value == value) {
                self.long.swap_remove(at);
            }
            return;
        }
        let from = self.short.partition_point(|item| item.extent.offset < extent.offset);
        let same = self.short[from..].iter().take_while(|i| i.extent.offset == extent.offset);
        if let Some(at) = same.clone().position(|item| item.value == value) {
            self.short.remove(from + at);
        }
    }

    /// Values of the ranges that overlap `extent`, in no order.
    pub(super) fn overlapping(&self, extent: Extent) -> impl Iterator<Item = T> {
        let first = extent.offset.saturating_sub(SHORT_MAX);
        let from = self.short.partition_point(|item| item.extent.offset < first);
        let near = self.short[from..].iter().take_while(move |i| i.extent.offset < extent.end());
        let found = near.chain(&self.long).filter(move |item| item.extent.overlaps(extent));
        found.map(|item| item.value)
    }

    /// Ranges in it.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent() -> impl Strategy<Value = Extent> {
        let short = (0..2_000_000u64, 1..=SHORT_MAX);
        let long = (0..2_000_000u64, SHORT_MAX + 1..3_000_000);
        prop_oneof![4 => short, 1 => long].prop_map(|(offset, len)| Extent { offset, len })
    }

    proptest! {
        #[test]
        fn finds_what_a_look_at_every_range_finds(
            all in proptest::collection::vec(extent(), 1..60),
            gone in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
            asked in extent(),
        ) {
            let mut ranges = Ranges::default();
            let mut model: Vec<(usize, Extent)> = all.into_iter().enumerate().collect();
            model.iter().for_each(|&(value, extent)| ranges.insert(extent, value));
            for index in gone {
                if model.is_empty() {
                    break;
                }
                let (value, extent) = model.remove(index.index(model.len()));
                ranges.remove(extent, value);
            }
            prop_assert_eq!(ranges.len(), model.len());
            let mut found: Vec<usize> = ranges.overlapping(asked).collect();
            found.sort_unstable();
            let hit = model.iter().filter(|(_, extent)| extent.overlaps(asked));
            prop_assert_eq!(found, hit.map(|&(value, _)| value).collect::<Vec<_>>());
        }
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let mut ranges = Ranges::default();
        ranges.insert(Extent { offset: 4096, len: 4096 }, 1);
        assert_eq!(ranges.overlapping(Extent { offset: 0, len: 4096 }).count(), 0);
        assert_eq!(ranges.overlapping(Extent { offset: 8192, len: 1 }).count(), 0);
        assert_eq!(ranges.overlapping(Extent { offset: 8191, len: 1 }).count(), 1);
    }
}
