//! What waits for slow readers, bounded over the node.
//!
//! What is on the shelf can be made again from the log, so nobody waits for room: when more is put
//! on it than it may hold, what has been there longest is dropped. A reader that comes back in time
//! finds what is its own, one that does not has it made again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Items of a known size, up to so many bytes together. A cheap handle.
pub(crate) struct Shelf<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    bytes_max: usize,
    items: Mutex<Items<T>>,
}

/// Invariant: `bytes` is the sum of the items' sizes.
struct Items<T> {
    /// By their numbers, which rise: the first has been there longest.
    by_number: BTreeMap<u64, (usize, T)>,
    bytes: usize,
    next_number: u64,
}

/// Where an item was put. Dropping it drops the item.
pub(crate) struct Place<T> {
    shelf: Shelf<T>,
    number: u64,
}

impl<T> Shelf<T> {
    /// An empty shelf for so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Shelf<T> {
        let items = Items { by_number: BTreeMap::new(), bytes: 0, next_number: 0 };
        Shelf { shared: Arc::new(Shared { bytes_max, items: Mutex::new(items) }) }
    }

    /// Puts an item of so many bytes there, and drops the oldest for which there is no room.
    pub(crate) fn put(&self, item: T, bytes: usize) -> Place<T> {
        let mut dropped = Vec::new();
        let mut items = self.items();
        let number = items.next_number;
        items.next_number += 1;
        items.bytes += bytes;
        items.by_number.insert(number, (bytes, item));
        while items.bytes > self.shared.bytes_max {
            let (_, (bytes, item)) = items.by_number.pop_first().expect("bytes are of items");
            items.bytes -= bytes;
            dropped.push(item);
        }
        drop(items);
        // Freeing takes time, and others want the shelf.
        drop(dropped);
        Place { shelf: Shelf { shared: Arc::clone(&self.shared) }, number }
    }

    /// Whether it is more than half full.
    pub(crate) fn is_crowded(&self) -> bool {
        self.items().bytes > self.shared.bytes_max / 2
    }

    fn items(&self) -> MutexGuard<'_, Items<T>> {
        self.shared.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, number: u64) -> Option<T> {
        let mut items = self.items();
        let (bytes, item) = items.by_number.remove(&number)?;
        items.bytes -= bytes;
        Some(item)
    }
}

impl<T> Place<T> {
    /// The item, if it was not dropped.
    pub(crate) fn take(self) -> Option<T> {
        self.shelf.remove(self.number)
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        self.shelf.remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_longest_makes_room() {
        let shelf = Shelf::new(10);
        let [first, second] = ["first", "second"].map(|item| shelf.put(item, 4));
        assert!(shelf.is_crowded());
        let third = shelf.put("third", 4);
        assert_eq!(first.take(), None);
        // Whoever comes back is the last to go.
        let second = shelf.put(second.take().unwrap(), 4);
        let fourth = shelf.put("fourth", 4);
        assert_eq!(third.take(), None);
        assert_eq!((second.take(), fourth.take()), (Some("second"), Some("fourth")));
        assert!(!shelf.is_crowded());
    }

    #[test]
    fn a_place_that_is_given_up_is_free() {
        let shelf = Shelf::new(10);
        drop(shelf.put((), 9));
        assert!(!shelf.is_crowded());
        assert!(shelf.put((), 11).take().is_none(), "more than all there is");
        assert!(shelf.put((), 10).take().is_some());
    }
}
