//! Which servers there are, which of them answer, and where partitions live, as far as this client
//! was told. Pure: what is asked, and when, is decided elsewhere.
//!
//! - The servers that the user gave stay known for ever: if all that were learnt are gone, e.g.
//!   because a cluster was renumbered, they are what is left.
//! - A server that fails is *suspect* for a time that doubles from failure to failure, and is only
//!   chosen if there is no other.
//! - A cluster of one server is reached by the address at which it answered, whatever it
//!   advertises: there is nothing to find, and a tunnel or a forwarded port keeps working.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dislog_proto::v1;
use dislog_types::PartitionId;
use tokio::time::Instant;

/// Servers that are remembered; more than a cluster has. Those that left are forgotten first.
const KNOWN_MAX: usize = 256;

/// Partitions whose place is remembered.
const PLACES_MAX: usize = 4_096;

/// How long a server is suspect after a first failure.
const SUSPECT_FIRST: Duration = Duration::from_secs(1);

/// How long a server is suspect at most.
const SUSPECT_MAX: Duration = Duration::from_secs(60);

/// How long what was learnt is taken for true without asking again.
const FRESH: Duration = Duration::from_secs(60);

/// A server's `host:port`.
pub(crate) type Address = Arc<str>;

/// Where a partition lives, as one server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Who says so.
    pub(crate) told_by: Address,
    /// Who leads it, if that server knows.
    pub(crate) leader: Option<Address>,
    /// The servers that are alive and have a replica, the leader included; nobody if the partition
    /// does not exist yet.
    pub(crate) replicas: Vec<Address>,
}

impl Place {
    /// A server that says nothing of the partition.
    pub(crate) fn unknown(told_by: Address) -> Place {
        Place { told_by, leader: None, replicas: Vec::new() }
    }
}

/// Which replicas a consumer reads from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// Followers in turn, which leaves the leader to the producers; the leader if it is alone.
    #[default]
    Followers,
    /// All replicas in turn.
    Any,
    /// The leader, whose records are the newest.
    Leader,
}

/// The servers known.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Those given first, in their order; at least one.
    known: Vec<Known>,
    listed_at: Option<Instant>,
    places: HashMap<PartitionId, (Instant, Place)>,
    /// Whose turn it is among those that are as good as each other.
    turn: usize,
}

#[derive(Debug)]
struct Known {
    address: Address,
    given: bool,
    /// In the newest list of servers.
    listed: bool,
    failures: u32,
    suspect_until: Option<Instant>,
}

impl Known {
    fn new(address: Address, given: bool) -> Known {
        Known { address, given, listed: false, failures: 0, suspect_until: None }
    }

    fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_until.is_some_and(|until| now < until)
    }
}

impl Directory {
    /// What is known at first: what the user gave.
    ///
    /// # Panics
    /// If that is nothing.
    pub(crate) fn of(given: Vec<Address>) -> Directory {
        assert!(!given.is_empty(), "there is at least one server");
        let mut known: Vec<Known> = Vec::with_capacity(given.len());
        for address in given {
            if known.iter().all(|known| known.address != address) {
                known.push(Known::new(address, true));
            }
        }
        Directory { known, listed_at: None, places: HashMap::new(), turn: 0 }
    }

    /// The addresses, for messages: those in the newest list and those given.
    pub(crate) fn names(&self) -> String {
        let current = self.known.iter().filter(|known| known.given || known.listed);
        let names: Vec<&str> = current.map(|known| &*known.address).collect();
        names.join(", ")
    }

    /// Begins to choose among servers elsewhere, so that many clients do not all begin at the same.
    pub(crate) fn set_turn(&mut self, turn: usize) {
        self.turn = turn;
    }

    /// Whether it is time to ask for the list again.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        self.listed_at.is_none_or(|at| now >= at + FRESH)
    }

    /// The list is asked for; others need not.
    pub(crate) fn is_being_listed(&mut self, now: Instant) {
        self.listed_at = Some(now);
    }

    /// Takes in what a server says of the others and of a partition.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        told_by: &Address,
        id: &PartitionId,
        servers: &[(Address, v1::Server)],
    ) -> Place {
        let alone = servers.len() == 1;
        let address = |listed: &Address| if alone { told_by.clone() } else { listed.clone() };
        self.answered(told_by);
        self.listed_at = Some(now);
        self.known.iter_mut().for_each(|known| known.listed = false);
        for (listed, _) in servers {
            self.list(address(listed));
        }
        let leader = servers.iter().find(|(_, server)| server.is_leader);
        let replicas = servers.iter().filter(|(_, server)| server.is_replica);
        let place = Place {
            told_by: told_by.clone(),
            leader: leader.map(|(listed, _)| address(listed)),
            replicas: replicas.map(|(listed, _)| address(listed)).collect(),
        };
        if self.places.len() >= PLACES_MAX {
            self.places.clear();
        }
        self.places.insert(id.clone(), (now, place.clone()));
        place
    }

    fn list(&mut self, address: Address) {
        if let Some(known) = self.known.iter_mut().find(|known| known.address == address) {
            known.listed = true;
            return;
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.retain(|known| known.given || known.listed);
        }
        if self.known.len() < KNOWN_MAX {
            self.known.push(Known { listed: true, ..Known::new(address, false) });
        }
    }

    /// What is known of a partition's place, unless that is old.
    pub(crate) fn place(&self, now: Instant, id: &PartitionId) -> Option<Place> {
        let (at, place) = self.places.get(id)?;
        (now < *at + FRESH).then(|| place.clone())
    }

    /// What is known of a partition's place proved wrong. Those that had it are still the best to
    /// ask.
    pub(crate) fn forget_leader(&mut self, id: &PartitionId) {
        if let Some((_, place)) = self.places.get_mut(id) {
            place.leader = None;
        }
    }

    /// A server did not answer: it is suspect for a while, and the list of servers may be old.
    pub(crate) fn failed(&mut self, now: Instant, address: &str) {
        self.listed_at = None;
        if let Some(known) = self.known.iter_mut().find(|known| &*known.address == address) {
            let doubled = SUSPECT_FIRST.saturating_mul(1 << known.failures.min(16));
            known.failures = known.failures.saturating_add(1);
            known.suspect_until = Some(now + doubled.min(SUSPECT_MAX));
        }
    }

    /// A server answered.
    pub(crate) fn answered(&mut self, address: &str) {
        if let Some(known) = self.known.iter_mut().find(|known| &*known.address == address) {
            (known.failures, known.suspect_until) = (0, None);
        }
    }

    /// Any server, the best first and `avoid` last: those that are not suspect before those that
    /// are, those in the newest list before those given, and those before the ones that left.
    pub(crate) fn any(&self, now: Instant, avoid: Option<&str>) -> Vec<Address> {
        let mut all: Vec<&Known> = self.known.iter().collect();
        all.sort_by_key(|known| {
            let avoided = avoid == Some(&*known.address);
            let standing = if known.listed { 0 } else { 1 + u8::from(!known.given) };
            (avoided, known.suspect_until.filter(|until| now < *until), standing)
        });
        all.into_iter().map(|known| known.address.clone()).collect()
    }

    /// Whom to ask where a partition is: those that are said to have it, then any, `avoid` last.
    pub(crate) fn askable(
        &self,
        now: Instant,
        id: &PartitionId,
        avoid: Option<&str>,
    ) -> Vec<Address> {
        let told = self.places.get(id).map(|(_, place)| place.replicas.as_slice());
        let mut all = self.any(now, avoid);
        let is_told = |address: &Address| told.is_some_and(|told| told.contains(address));
        let avoided = |address: &Address| avoid == Some(&**address);
        all.sort_by_key(|address| {
            (avoided(address), self.is_suspect(now, address), !is_told(address))
        });
        all
    }

    /// Where appends to a partition go: its leader. While that is not known, or did not answer
    /// lately, a server that sends them on.
    pub(crate) fn writes_to(&self, now: Instant, place: &Place) -> Address {
        match &place.leader {
            Some(leader) if !self.is_suspect(now, leader) => leader.clone(),
            _ if !self.is_suspect(now, &place.told_by) => place.told_by.clone(),
            Some(leader) => leader.clone(),
            None => place.told_by.clone(),
        }
    }

    /// Where a consumer reads next; those to `avoid`, of which it read the last before, only if
    /// there is nobody else.
    pub(crate) fn reads_from(
        &mut self,
        now: Instant,
        place: &Place,
        wish: ReadFrom,
        avoid: &[Address],
    ) -> Address {
        let is_leader = |address: &&Address| place.leader.as_ref() == Some(*address);
        let good = |address: &&Address| !avoid.contains(address) && !self.is_suspect(now, address);
        let wished: Vec<&Address> = match wish {
            ReadFrom::Followers => {
                place.replicas.iter().filter(|address| !is_leader(address)).filter(good).collect()
            }
            ReadFrom::Any => place.replicas.iter().filter(good).collect(),
            ReadFrom::Leader => place.leader.iter().filter(good).collect(),
        };
        let of_any = || place.replicas.iter().chain(&place.leader).find(good);
        let turn = self.turn;
        let chosen = wished.get(turn.checked_rem(wished.len()).unwrap_or(0)).copied();
        let chosen = chosen.or_else(of_any).cloned();
        self.turn = turn.wrapping_add(1);
        let last = avoid.last().map(|address| &**address);
        chosen.unwrap_or_else(|| self.any(now, last).swap_remove(0))
    }

    fn is_suspect(&self, now: Instant, address: &str) -> bool {
        self.known.iter().any(|known| &*known.address == address && known.is_suspect(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(partition: u32) -> PartitionId {
        PartitionId { topic: "t".parse().unwrap(), partition }
    }

    fn given(addresses: &[&str]) -> Directory {
        Directory::of(addresses.iter().map(|address| Address::from(*address)).collect())
    }

    /// Servers with a replica each, of which one may lead.
    fn list(addresses: &[&str], leader: &str) -> Vec<(Address, v1::Server)> {
        let server = |address: &&str| {
            let is_leader = *address == leader;
            let server = v1::Server { is_leader, is_replica: true, ..v1::Server::default() };
            (Address::from(*address), server)
        };
        addresses.iter().map(server).collect()
    }

    fn learnt(directory: &mut Directory, now: Instant, leader: &str) -> Place {
        directory.learn(now, &"a:1".into(), &id(0), &list(&["a:1", "b:1", "c:1"], leader))
    }

    fn any(directory: &Directory, now: Instant) -> Vec<String> {
        directory.any(now, None).iter().map(|address| address.to_string()).collect()
    }

    #[test]
    fn those_listed_come_first_and_those_given_stay() {
        let now = Instant::now();
        let mut directory = given(&["old:1", "a:1"]);
        assert_eq!(any(&directory, now), ["old:1", "a:1"]);
        assert!(directory.is_stale(now));
        learnt(&mut directory, now, "b:1");
        assert!(!directory.is_stale(now));
        assert!(directory.is_stale(now + FRESH));
        assert_eq!(any(&directory, now), ["a:1", "b:1", "c:1", "old:1"]);
        let fewer = list(&["b:1", "c:1"], "b:1");
        directory.learn(now, &"b:1".into(), &id(0), &fewer);
        assert_eq!(any(&directory, now), ["b:1", "c:1", "old:1", "a:1"]);
        assert_eq!(directory.names(), "old:1, a:1, b:1, c:1");
    }

    #[test]
    fn when_all_that_were_learnt_fail_those_given_are_tried() {
        let now = Instant::now();
        let mut directory = given(&["name:1"]);
        learnt(&mut directory, now, "b:1");
        ["a:1", "b:1", "c:1"].iter().for_each(|address| directory.failed(now, address));
        assert_eq!(any(&directory, now)[0], "name:1");
        assert!(directory.is_stale(now));
    }

    #[test]
    fn a_server_that_fails_is_suspect_for_longer_each_time_until_it_answers() {
        let mut now = Instant::now();
        let mut directory = given(&["a:1", "b:1"]);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            directory.failed(now, "a:1");
            let until = now + Duration::from_secs(seconds);
            assert_eq!(any(&directory, until - Duration::from_millis(1)), ["b:1", "a:1"]);
            assert_eq!(any(&directory, until), ["a:1", "b:1"]);
            now = until;
        }
        directory.failed(now, "a:1");
        directory.answered("a:1");
        assert_eq!(any(&directory, now), ["a:1", "b:1"]);
    }

    #[test]
    fn a_server_that_is_alone_is_reached_as_it_was_given() {
        let now = Instant::now();
        let mut directory = given(&["tunnel:1"]);
        let alone = list(&["10.0.0.1:8400"], "10.0.0.1:8400");
        let place = directory.learn(now, &"tunnel:1".into(), &id(0), &alone);
        assert_eq!(place.leader.as_deref(), Some("tunnel:1"));
        assert_eq!(place.replicas, ["tunnel:1".into()]);
        assert_eq!(any(&directory, now), ["tunnel:1"]);
    }

    #[test]
    fn writes_go_to_the_leader_or_by_way_of_who_named_it() {
        let now = Instant::now();
        let mut directory = given(&["a:1"]);
        let place = learnt(&mut directory, now, "c:1");
        assert_eq!(&*directory.writes_to(now, &place), "c:1");
        directory.failed(now, "c:1");
        assert_eq!(&*directory.writes_to(now, &place), "a:1");
        assert_eq!(&*directory.writes_to(now + SUSPECT_FIRST, &place), "c:1");
        directory.failed(now, "a:1");
        assert_eq!(&*directory.writes_to(now, &place), "c:1", "one as bad as the other");
        let unknown = Place::unknown("b:1".into());
        assert_eq!(&*directory.writes_to(now, &unknown), "b:1");
    }

    #[test]
    fn reads_go_round_the_followers_and_to_the_leader_at_last() {
        let now = Instant::now();
        let mut directory = given(&["a:1"]);
        let place = learnt(&mut directory, now, "b:1");
        let mut read = |wish, avoid: &[&str]| {
            let avoid: Vec<Address> = avoid.iter().map(|address| Address::from(*address)).collect();
            directory.reads_from(now, &place, wish, &avoid).to_string()
        };
        let followers: Vec<String> = (0..4).map(|_| read(ReadFrom::Followers, &[])).collect();
        assert_eq!(followers, ["a:1", "c:1", "a:1", "c:1"]);
        let any: Vec<String> = (0..3).map(|_| read(ReadFrom::Any, &[])).collect();
        assert_eq!(any, ["b:1", "c:1", "a:1"]);
        assert_eq!(read(ReadFrom::Leader, &[]), "b:1");
        assert_eq!(read(ReadFrom::Followers, &["a:1"]), "c:1");
        assert_ne!(read(ReadFrom::Leader, &["b:1"]), "b:1");
        assert_eq!(read(ReadFrom::Followers, &["c:1", "a:1"]), "b:1");
        assert_eq!(read(ReadFrom::Leader, &["b:1", "c:1"]), "a:1");
        ["a:1", "c:1"].iter().for_each(|address| directory.failed(now, address));
        assert_eq!(&*directory.reads_from(now, &place, ReadFrom::Followers, &[]), "b:1");
    }

    #[test]
    fn a_partition_that_does_not_exist_yet_is_read_wherever_it_will_be() {
        let now = Instant::now();
        let mut directory = given(&["a:1", "b:1"]);
        let place = Place::unknown("a:1".into());
        assert_eq!(&*directory.reads_from(now, &place, ReadFrom::default(), &[]), "a:1");
        let avoid = ["a:1".into()];
        assert_eq!(&*directory.reads_from(now, &place, ReadFrom::default(), &avoid), "b:1");
    }

    #[test]
    fn replicas_are_asked_first_and_the_one_that_failed_last() {
        let now = Instant::now();
        let mut directory = given(&["x:1"]);
        learnt(&mut directory, now, "b:1");
        let mut servers = list(&["a:1", "b:1", "c:1"], "b:1");
        servers[0].1.is_replica = false;
        directory.learn(now, &"a:1".into(), &id(1), &servers);
        let asked = directory.askable(now, &id(1), Some("b:1"));
        let asked: Vec<&str> = asked.iter().map(|address| &**address).collect();
        assert_eq!(asked, ["c:1", "a:1", "x:1", "b:1"]);
    }

    #[test]
    fn a_place_is_believed_for_a_while() {
        let now = Instant::now();
        let mut directory = given(&["a:1"]);
        let place = learnt(&mut directory, now, "b:1");
        assert_eq!(directory.place(now, &id(0)), Some(place));
        assert_eq!(directory.place(now + FRESH, &id(0)), None);
        directory.forget_leader(&id(0));
        let place = directory.place(now, &id(0)).unwrap();
        assert_eq!((place.leader, place.replicas.len()), (None, 3));
    }
}
