//! Tasks by their Initiator Task Tag, found without a search.
//!
//! A tag is a place in a table, and how often the place has been used: so a tag that was used
//! lately names nothing, rather than another task. The top bit is clear; tags with it are for
//! exchanges that are no SCSI commands.

/// Uses of a place are counted in this many bits.
const USES: u32 = 0x7fff;
/// Tasks at a time, at most.
const PLACES_MAX: usize = 1 << 16;

#[derive(Debug)]
struct Place<T> {
    uses: u32,
    task: Option<T>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Tags<T> {
    places: Vec<Place<T>>,
    free: Vec<u16>,
}

impl<T> Tags<T> {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(super) const fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// No tag is left.
    pub(super) const fn is_full(&self) -> bool {
        self.len() == PLACES_MAX
    }

    /// Takes a task in, and gives it a tag.
    ///
    /// # Panics
    /// If it [is full](Self::is_full).
    pub(super) fn insert(&mut self, task: T) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { uses: 0, task: None });
            u16::try_from(self.places.len() - 1).expect("not full: the caller has looked")
        });
        let place = &mut self.places[usize::from(index)];
        place.task = Some(task);
        place.uses << 16 | u32::from(index)
    }

    pub(super) fn remove(&mut self, tag: u32) -> Option<T> {
        let index = index(tag);
        let place =
            self.places.get_mut(usize::from(index)).filter(|place| place.uses == tag >> 16)?;
        let task = place.task.take()?;
        place.uses = (place.uses + 1) & USES;
        self.free.push(index);
        Some(task)
    }

    pub(super) fn get(&self, tag: u32) -> Option<&T> {
        let place = self.places.get(usize::from(index(tag)))?;
        place.task.as_ref().filter(|_| place.uses == tag >> 16)
    }

    pub(super) fn get_mut(&mut self, tag: u32) -> Option<&mut T> {
        let place = self.places.get_mut(usize::from(index(tag)))?;
        place.task.as_mut().filter(|_| place.uses == tag >> 16)
    }

    pub(super) fn contains(&self, tag: u32) -> bool {
        self.get(tag).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().zip(0_u32..).filter_map(|(place, index)| {
            place.task.as_ref().map(|task| (place.uses << 16 | index, task))
        })
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        self.places.into_iter().filter_map(|place| place.task)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is the place")]
const fn index(tag: u32) -> u16 {
    tag as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_was_used_names_nothing_when_its_place_is_used_again() {
        let mut tags = Tags::new();
        let first = tags.insert('a');
        assert_eq!(tags.remove(first), Some('a'));
        let second = tags.insert('b');
        assert_ne!(first, second);
        assert!(!tags.contains(first));
        assert_eq!(tags.remove(first), None);
        assert_eq!((tags.get(second), tags.len()), (Some(&'b'), 1));
        assert_eq!(tags.iter().collect::<Vec<_>>(), [(second, &'b')]);
    }

    #[test]
    fn uses_go_round_and_the_top_bit_stays_clear() {
        let mut tags = Tags::new();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..=USES {
            let tag = tags.insert(());
            assert!(tag >> 31 == 0 && seen.insert(tag));
            tags.remove(tag);
        }
        assert!(!seen.insert(tags.insert(())));
    }

    #[test]
    fn tags_out_of_the_table_name_nothing() {
        let mut tags = Tags::new();
        tags.insert(());
        for tag in [1, 0x1_0000, 0x8000_0000, u32::MAX] {
            assert!(!tags.contains(tag) && tags.get_mut(tag).is_none(), "{tag:#x}");
        }
    }

    #[test]
    fn as_many_as_there_are_places_go_in() {
        let mut tags = Tags::new();
        while !tags.is_full() {
            tags.insert(());
        }
        assert_eq!(tags.len(), PLACES_MAX);
    }
}
