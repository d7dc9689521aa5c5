//! Doubly linked lists through the entries of a slab: any entry leaves any list at once, and no
//! list needs memory of its own.

use slab::Slab;

/// An entry's neighbours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Links {
    prev: Option<usize>,
    next: Option<usize>,
}

impl Links {
    pub(super) const fn next(self) -> Option<usize> {
        self.next
    }
}

/// What can stand in lists: it has links for each kind of list.
pub(super) trait Linked {
    fn links(&mut self, which: usize) -> &mut Links;
}

/// A list that uses the links number `WHICH`. An entry stands in at most one list of a kind.
#[derive(Debug, Default)]
pub(super) struct List<const WHICH: usize> {
    head: Option<usize>,
    tail: Option<usize>,
}

impl<const WHICH: usize> List<WHICH> {
    pub(super) const fn head(&self) -> Option<usize> {
        self.head
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    pub(super) fn push_back<T: Linked>(&mut self, entries: &mut Slab<T>, key: usize) {
        *entries[key].links(WHICH) = Links { prev: self.tail, next: None };
        match self.tail {
            Some(tail) => entries[tail].links(WHICH).next = Some(key),
            None => self.head = Some(key),
        }
        self.tail = Some(key);
    }

    /// `key` stands in this list.
    pub(super) fn remove<T: Linked>(&mut self, entries: &mut Slab<T>, key: usize) {
        let Links { prev, next } = std::mem::take(entries[key].links(WHICH));
        match prev {
            Some(prev) => entries[prev].links(WHICH).next = next,
            None => self.head = next,
        }
        match next {
            Some(next) => entries[next].links(WHICH).prev = prev,
            None => self.tail = prev,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Node(Links);

    impl Linked for Node {
        fn links(&mut self, _: usize) -> &mut Links {
            &mut self.0
        }
    }

    fn walk(list: &List<0>, entries: &Slab<Node>) -> Vec<usize> {
        std::iter::successors(list.head(), |&at| entries[at].0.next()).collect()
    }

    #[test]
    fn entries_leave_from_the_front_the_middle_and_the_end() {
        let (mut entries, mut list) = (Slab::new(), List::<0>::default());
        for _ in 0..5 {
            let key = entries.insert(Node::default());
            list.push_back(&mut entries, key);
        }
        list.remove(&mut entries, 0);
        list.remove(&mut entries, 2);
        list.remove(&mut entries, 4);
        assert_eq!(walk(&list, &entries), [1, 3]);
        list.push_back(&mut entries, 0);
        assert_eq!(walk(&list, &entries), [1, 3, 0]);
        [1, 3, 0].iter().for_each(|&key| list.remove(&mut entries, key));
        assert!(list.is_empty() && list.head().is_none());
    }
}
