//! Which copy of which command a tag belongs to.
//!
//! Tags count up, so a table that is looked up by their low bits has no two live tags in one place
//! unless one is very old; then the new one steps over it. No tag comes again before all 2^31 have
//! been through, which takes half an hour at a million commands a second.

use super::TAG_USER;
use super::pending::Key;

/// Places at first. Grown so that at most a quarter is in use.
const PLACES_MIN: usize = 64;

#[derive(Debug)]
pub(super) struct Tags {
    places: Vec<Option<(u32, Key)>>,
    live: usize,
    last: u32,
}

impl Tags {
    pub(super) fn new(first: u32) -> Self {
        Self { places: vec![None; PLACES_MIN], live: 0, last: first }
    }

    /// The tag that was given out last, or the first there was to be.
    pub(super) const fn last(&self) -> u32 {
        self.last
    }

    const fn place(&self, tag: u32) -> usize {
        tag as usize & (self.places.len() - 1)
    }

    /// A new tag for a copy of `key`.
    pub(super) fn take(&mut self, key: Key) -> u32 {
        if self.live >= self.places.len() / 4 {
            self.grow();
        }
        loop {
            self.last = self.last.wrapping_add(1);
            let tag = self.last | TAG_USER;
            let place = self.place(tag);
            if self.places[place].is_none() {
                self.places[place] = Some((tag, key));
                self.live += 1;
                return tag;
            }
        }
    }

    /// Tags that differ in their low bits also differ in more of them.
    fn grow(&mut self) {
        let places = vec![None; self.places.len() * 2];
        for entry in std::mem::replace(&mut self.places, places).into_iter().flatten() {
            let place = self.place(entry.0);
            self.places[place] = Some(entry);
        }
    }

    pub(super) fn get(&self, tag: u32) -> Option<Key> {
        self.places[self.place(tag)].filter(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    pub(super) fn release(&mut self, tag: u32) {
        let place = self.place(tag);
        if self.places[place].is_some_and(|entry| entry.0 == tag) {
            self.places[place] = None;
            self.live -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_live_tag_finds_its_command_and_no_other() {
        let mut tags = Tags::new(0xffff_fff0);
        let mut live = Vec::new();
        for round in 0..2000u32 {
            let key = Key { slot: round, serial: 7 };
            let tag = tags.take(key);
            assert_eq!(tag & TAG_USER, TAG_USER);
            live.push((tag, key));
            // The oldest stay, so that new ones have to step over them.
            if live.len() > 300 {
                let (tag, _) = live.remove(200);
                tags.release(tag);
                assert_eq!(tags.get(tag), None);
            }
        }
        for (tag, key) in live {
            assert_eq!(tags.get(tag), Some(key));
            tags.release(tag);
        }
        assert_eq!(tags.live, 0);
    }
}
