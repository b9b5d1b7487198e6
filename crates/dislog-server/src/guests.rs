//! Connections that have not asked for anything yet.
//!
//! Whoever dials is let in at once, as a *guest*, and stays one through the handshake until the
//! first request is there. Nothing is known of guests but where they come from, so they must not
//! cost others anything: there is a room for so many, and when it is full a new one takes the place
//! of another. The one who has to go is the oldest of the host that has the most. So whoever opens
//! thousands displaces himself, and all others have the time in which he opens a room full.
//!
//! Who has asked for something leaves the room for a place of its own ([`places`](crate::places)).

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::identity::Host;

/// Who is in the room; `T` is what it takes to end one.
struct Guests<T> {
    guests_max: usize,
    /// Of all together.
    count: usize,
    next_number: u64,
    /// By number, so that the oldest is the first. No host without a guest is in here.
    by_host: HashMap<Host, BTreeMap<u64, T>>,
}

impl<T> Guests<T> {
    fn new(guests_max: usize) -> Guests<T> {
        Guests { guests_max, count: 0, next_number: 0, by_host: HashMap::new() }
    }

    /// Lets one in, and says its number and who has to go for it. Never itself: it is the newest.
    fn enter(&mut self, host: Host, guest: T) -> (u64, Option<(Host, T)>) {
        let number = self.next_number;
        self.next_number += 1;
        self.by_host.entry(host).or_default().insert(number, guest);
        self.count += 1;
        let displaced = if self.count > self.guests_max { self.displace() } else { None };
        (number, displaced)
    }

    /// Sends the oldest of the most numerous away.
    fn displace(&mut self) -> Option<(Host, T)> {
        let oldest =
            |guests: &BTreeMap<u64, T>| guests.first_key_value().map(|(number, _)| *number);
        let crowds = self.by_host.iter();
        let crowd =
            crowds.max_by_key(|(_, guests)| (guests.len(), std::cmp::Reverse(oldest(guests))));
        let (host, number) = crowd.and_then(|(host, guests)| Some((*host, oldest(guests)?)))?;
        Some((host, self.leave(host, number)?))
    }

    /// Takes one out, if it is still there.
    fn leave(&mut self, host: Host, number: u64) -> Option<T> {
        let guests = self.by_host.get_mut(&host)?;
        let guest = guests.remove(&number)?;
        if guests.is_empty() {
            self.by_host.remove(&host);
        }
        self.count -= 1;
        Some(guest)
    }

    fn count_of(&self, host: Host) -> usize {
        self.by_host.get(&host).map_or(0, BTreeMap::len)
    }
}

/// The room. A cheap handle.
#[derive(Clone)]
pub(crate) struct Room(Arc<Mutex<Guests<oneshot::Sender<()>>>>);

/// A guest; leaves the room when dropped.
pub(crate) struct Guest {
    room: Room,
    host: Host,
    number: u64,
}

/// Tells a guest to go.
pub(crate) struct Displaced(oneshot::Receiver<()>);

impl Room {
    /// A room for so many.
    pub(crate) fn new(guests_max: usize) -> Room {
        Room(Arc::new(Mutex::new(Guests::new(guests_max))))
    }

    /// Lets one in; the last is the host of one that had to go for it.
    pub(crate) fn enter(&self, host: Host) -> (Guest, Displaced, Option<Host>) {
        let (end, ended) = oneshot::channel();
        let (number, displaced) = self.lock().enter(host, end);
        let guest = Guest { room: self.clone(), host, number };
        (guest, Displaced(ended), displaced.map(send_away))
    }

    /// Sends one away, if there is any; says from where it was.
    pub(crate) fn displace(&self) -> Option<Host> {
        self.lock().displace().map(send_away)
    }

    /// How many there are of an host.
    pub(crate) fn count_of(&self, host: Host) -> usize {
        self.lock().count_of(host)
    }

    fn lock(&self) -> MutexGuard<'_, Guests<oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_away((host, end): (Host, oneshot::Sender<()>)) -> Host {
    // One who is just going need not be told.
    let _ = end.send(());
    host
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.room.lock().leave(self.host, self.number);
    }
}

impl Displaced {
    /// Returns when the guest has to go; never once it has left by itself.
    pub(crate) async fn wait(self) {
        if self.0.await.is_err() {
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn host(last: u8) -> Host {
        Host::of([192, 0, 2, last].into())
    }

    /// A room in which these came in this order; the guests are their own numbers.
    fn room(guests_max: usize, hosts: &[u8]) -> (Guests<usize>, Vec<usize>) {
        let mut guests = Guests::new(guests_max);
        let mut gone = Vec::new();
        for (at, last) in hosts.iter().enumerate() {
            let (number, displaced) = guests.enter(host(*last), at);
            assert_eq!(number, at as u64);
            gone.extend(displaced.map(|(_, guest)| guest));
        }
        (guests, gone)
    }

    #[test]
    fn nobody_goes_while_there_is_room() {
        assert!(room(4, &[1, 1, 1, 2]).1.is_empty());
    }

    #[test]
    fn the_oldest_of_the_most_numerous_goes() {
        // Of the second, who has three; then of the same two in turn, as they are even.
        assert_eq!(room(4, &[1, 2, 2, 2, 1]).1, [1]);
        assert_eq!(room(4, &[1, 2, 2, 2, 1, 3, 4]).1, [1, 0, 2]);
    }

    #[test]
    fn who_opens_thousands_displaces_himself() {
        let crowd = [&[7, 8, 9][..], &[1; 1_000]].concat();
        let (guests, gone) = room(16, &crowd);
        assert_eq!(gone, (3..1_003 - 13).collect::<Vec<_>>(), "the oldest of the crowd first");
        assert_eq!([7, 8, 9, 1].map(|last| guests.count_of(host(last))), [1, 1, 1, 13]);
    }

    #[test]
    fn among_strangers_the_oldest_goes() {
        assert_eq!(room(3, &[1, 2, 3, 4, 5]).1, [0, 1]);
    }

    #[test]
    fn whoever_leaves_makes_room() {
        let (mut guests, _) = room(2, &[1, 2]);
        assert_eq!(guests.leave(host(1), 0), Some(0));
        assert_eq!(guests.leave(host(1), 0), None);
        assert!(guests.enter(host(3), 2).1.is_none());
        assert!(guests.enter(host(3), 3).1.is_some());
        assert_eq!((guests.count, guests.by_host.len()), (2, 2));
        assert!(guests.displace().is_some() && guests.displace().is_some());
        assert!(guests.displace().is_none());
        assert!(guests.by_host.is_empty());
    }

    #[test]
    fn only_who_is_displaced_is_told_to_go() {
        let room = Room::new(1);
        let (guest, displaced, _) = room.enter(host(1));
        drop(guest);
        assert!(displaced.wait().now_or_never().is_none());
        let (guest, displaced, none) = room.enter(host(2));
        assert!(none.is_none());
        let (_next, _, gone) = room.enter(host(3));
        assert_eq!(gone, Some(host(2)));
        assert!(displaced.wait().now_or_never().is_some());
        drop(guest);
        assert_eq!(room.0.lock().unwrap().count, 1, "it had left already");
    }
}
