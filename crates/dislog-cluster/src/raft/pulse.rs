//! Pulses: what nodes say to each other so that groups at rest need not.
//!
//! A leader's heartbeat says that it is there, and a follower's answer that it hears it. Both are
//! true of a node rather than of a group, so for groups at rest the nodes say it, in one small
//! message for all of them: a pulse, five times a second from each node to each that shares a group
//! with it. A pulse has
//!
//! - a list of the groups that its sender leads and that rest, as of a version, until the receiver
//!   says that it has that version; from then on the version alone stands for it,
//! - what the sender last heard of the receiver: when that was said, the version of the list that
//!   it holds, and which groups of that list it does not let rest.
//!
//! ```text
//!   leader's node                               follower's node
//!     list 7: {g: term 3, entry 12}  ─────────►  g is in term 3, follows that node, and has
//!                                                entry 12: it is covered, and does not tick
//!     has list 7, and did not refuse g  ◄──────  heard at 1700 ms; list 7; refused {}
//!   g sleeps
//! ```
//!
//! Who shares a group may not know it: a replica on an empty disk learns from its leader who
//! belongs to its group. So a node answers whoever pulses it, or the leader would take it to be
//! gone, and rest without having told it anything. An answer says that it is one, and is not
//! answered: two nodes that share nothing fall silent.
//!
//! Every pulse is complete as to what its receiver needs, so any of them may be lost, doubled or
//! late: what was lost is said again, and what is late is told by its sender's clock.
//!
//! This is what is known and said, and decides nothing: that is the driver's (`hibernation`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

/// How often a node says that it is there, milliseconds: as often as leaders do.
pub(super) const PULSE_MS: u64 = 200;

/// A leader whose node was not heard for so long is taken to be gone: the shortest time-out of an
/// election.
pub(super) const SILENCE_MS: u64 = 800;

/// A node that has not said for so long that it hears this one is out of contact. What it said may
/// be two intervals old when it comes; a leader that ticks finds out in 0.8 to 1.6 seconds.
pub(super) const CONTACT_MS: u64 = 1_200;

/// Groups in one list. Those beyond do not rest.
const LISTED_MAX: usize = 64 << 10;

/// Nodes that are answered and share no group with this one as far as it knows. Those beyond do not
/// hear that they are heard.
const GUESTS_MAX: usize = 1_024;

/// Bytes of a group in a list: its number, its term, its last entry.
const LISTED_BYTES: usize = 24;

/// See the module.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Pulse {
    /// One run of the sender's process.
    #[prost(fixed64, tag = "1")]
    session: u64,
    /// When it was sent, by the sender's clock.
    #[prost(uint64, tag = "2")]
    sent_ms: u64,
    /// The version of the sender's list.
    #[prost(uint64, tag = "3")]
    version: u64,
    /// The list itself: for each group its number, term and last entry, little-endian.
    #[prost(bytes = "bytes", optional, tag = "4")]
    list: Option<Bytes>,
    /// The session of the receiver that the rest is about; 0 if it was not heard.
    #[prost(fixed64, tag = "5")]
    heard_session: u64,
    /// When what was heard last was sent, by the receiver's clock.
    #[prost(uint64, tag = "6")]
    heard_ms: u64,
    /// The version of the receiver's list that the sender holds.
    #[prost(uint64, tag = "7")]
    held_version: u64,
    /// The groups of that list that do not rest here: their numbers, little-endian.
    #[prost(bytes = "bytes", tag = "8")]
    refused: Bytes,
    /// The sender knows of no group that it shares with the receiver: it only says that it hears.
    #[prost(bool, tag = "9")]
    is_answer: bool,
}

/// Where a group was when it came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) term: u64,
    /// Its last entry, which is committed and which every replica has that rests with it.
    pub(super) raft_index: u64,
}

/// What a pulse changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Its node is another than before, or hears this one again.
    pub(super) came: bool,
    /// Groups that its node led in a run that is over.
    pub(super) orphaned: Vec<u64>,
    /// Groups for which its node no longer speaks.
    pub(super) unlisted: Vec<u64>,
    /// Groups for which it does, if the list is another.
    pub(super) listed: Vec<(u64, Position)>,
    /// Groups led here that do not rest there.
    pub(super) refused: Vec<u64>,
    /// It has a later version of the list than it had.
    pub(super) agreed: bool,
}

/// A node that went silent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) node: u64,
    /// Groups for which it spoke.
    pub(super) covered: Vec<u64>,
    /// Groups led here that rest with it.
    pub(super) listed: Vec<u64>,
}

/// What this node says to each other node, and heard from it.
pub(super) struct Pulses {
    session: u64,
    peers: BTreeMap<u64, Peer>,
    /// The newest version of any list: a node that comes again must not hold a later one.
    version: u64,
    next_ms: Option<u64>,
}

/// - `agreed <= version`.
/// - A group is in `refused` only if it is in `theirs`.
/// - A guest, which is not in `is_known`, is one for as long as it speaks of its own accord.
#[derive(Default)]
struct Peer {
    /// It shares a group with this node, as far as this node knows.
    is_known: bool,
    /// When it last sent what was no answer, by this node's clock.
    spoke_ms: Option<u64>,
    /// Groups led here that rest with it, each with the first version that had it so.
    listed: BTreeMap<u64, (Position, u64)>,
    version: u64,
    /// The version that it said it holds.
    agreed: u64,
    /// When the newest pulse was sent that it said it heard; none if that is too long ago.
    contact_ms: Option<u64>,
    /// What it said last.
    heard: Option<Heard>,
    theirs: BTreeMap<u64, Position>,
    refused: BTreeSet<u64>,
}

struct Heard {
    session: u64,
    /// By its clock.
    sent_ms: u64,
    /// By this node's; none if that is too long ago.
    at_ms: Option<u64>,
    /// The version of `theirs`.
    version: u64,
}

impl Pulses {
    /// Those of a run that `session` stands for.
    pub(super) fn new(session: u64) -> Pulses {
        // 0 stands for nobody.
        Pulses { session: session.max(1), peers: BTreeMap::new(), version: 0, next_ms: None }
    }

    /// Whether there is nobody to talk to.
    pub(super) fn is_alone(&self) -> bool {
        self.peers.is_empty()
    }

    /// These are the other nodes now; returns those that are none any more.
    pub(super) fn set_peers(&mut self, nodes: &BTreeSet<u64>, now_ms: u64) -> Vec<Lost> {
        let is_gone = |(node, peer): &(&u64, &Peer)| peer.is_known && !nodes.contains(*node);
        let gone: Vec<u64> = self.peers.iter().filter(is_gone).map(|(node, _)| *node).collect();
        let lost = gone.into_iter().filter_map(|node| self.drop_peer(node)).collect();
        for node in nodes {
            self.meet(*node, now_ms).is_known = true;
        }
        lost
    }

    fn meet(&mut self, node: u64, now_ms: u64) -> &mut Peer {
        self.peers.entry(node).or_insert_with(|| {
            self.version += 1;
            self.next_ms = Some(now_ms);
            Peer { version: self.version, ..Peer::default() }
        })
    }

    fn drop_peer(&mut self, node: u64) -> Option<Lost> {
        let peer = self.peers.remove(&node)?;
        if self.peers.is_empty() {
            self.next_ms = None;
        }
        Some(Lost { node, covered: peer.covered().collect(), listed: peer.listed() })
    }

    /// There may be other peers: they are looked for when pulses are due, or would be.
    pub(super) fn look_again(&mut self, now_ms: u64) {
        self.next_ms.get_or_insert(now_ms + PULSE_MS);
    }

    /// Whether pulses are due.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.next_ms.is_some_and(|next_ms| now_ms >= next_ms)
    }

    /// Whether a node hears this one.
    pub(super) fn is_in_contact(&self, node: u64) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.contact_ms.is_some())
    }

    /// A group led here is to rest with a node, if there is room in its list.
    pub(super) fn list(&mut self, node: u64, group: u64, position: Position) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        if peer.listed.len() >= LISTED_MAX {
            return false;
        }
        self.version += 1;
        peer.version = self.version;
        peer.listed.insert(group, (position, self.version));
        true
    }

    /// A group led here does not rest.
    pub(super) fn unlist(&mut self, group: u64) {
        for peer in self.peers.values_mut() {
            if peer.listed.remove(&group).is_some() {
                self.version += 1;
                peer.version = self.version;
            }
        }
    }

    /// A group for which a node speaks does not rest here.
    pub(super) fn refuse(&mut self, node: u64, group: u64) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.theirs.contains_key(&group)
        {
            peer.refused.insert(group);
        }
    }

    /// A group is another than it was: nobody who speaks for it knows that.
    pub(super) fn refuse_all(&mut self, group: u64) {
        let nodes: Vec<u64> = self.peers.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.refuse(node, group));
    }

    /// Whether every node that a group is listed for has agreed.
    pub(super) fn is_agreed(&self, group: u64) -> bool {
        self.peers
            .values()
            .all(|peer| peer.listed.get(&group).is_none_or(|(_, since)| peer.agreed >= *since))
    }

    /// When the next pulse is to be sent, or a node was silent for too long.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let silence = |peer: &Peer| Some(peer.heard.as_ref()?.at_ms? + SILENCE_MS);
        let contact = |peer: &Peer| Some(peer.contact_ms? + CONTACT_MS);
        let peers = self.peers.values();
        let deadlines = peers.flat_map(|peer| [silence(peer), contact(peer)]).flatten();
        deadlines.chain(self.next_ms).min()
    }

    /// Nodes of which too long nothing was heard.
    pub(super) fn lost(&mut self, now_ms: u64) -> Vec<Lost> {
        let is_over = |(_, peer): &(&u64, &Peer)| peer.is_over(now_ms);
        let over: Vec<u64> = self.peers.iter().filter(is_over).map(|(node, _)| *node).collect();
        let mut lost: Vec<Lost> =
            over.into_iter().filter_map(|node| self.drop_peer(node)).collect();
        for (&node, peer) in &mut self.peers {
            let (mut covered, mut listed) = (Vec::new(), Vec::new());
            let at_ms = peer.heard.as_ref().and_then(|heard| heard.at_ms);
            if at_ms.is_some_and(|at_ms| now_ms >= at_ms + SILENCE_MS) {
                covered = peer.covered().collect();
                peer.forget();
            }
            if peer.contact_ms.is_some_and(|contact_ms| now_ms >= contact_ms + CONTACT_MS) {
                peer.contact_ms = None;
                listed = peer.listed();
            }
            if !covered.is_empty() || !listed.is_empty() {
                lost.push(Lost { node, covered, listed });
            }
        }
        lost
    }

    /// The pulses that are due.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<(u64, Pulse)> {
        if !self.is_due(now_ms) {
            return Vec::new();
        }
        self.next_ms = (!self.peers.is_empty()).then_some(now_ms + PULSE_MS);
        let session = self.session;
        self.peers.iter().map(|(&node, peer)| (node, peer.pulse(session, now_ms))).collect()
    }

    /// Takes in what a node said; none if that is out of date, or nonsense.
    pub(super) fn receive(&mut self, node: u64, pulse: &Pulse, now_ms: u64) -> Option<News> {
        let list = match &pulse.list {
            None => None,
            Some(bytes) => Some(decode(bytes)?),
        };
        let is_new = !self.peers.contains_key(&node);
        if is_new && (pulse.is_answer || self.guests() >= GUESTS_MAX) {
            return None;
        }
        let own_session = self.session;
        let peer = self.meet(node, now_ms);
        let mut news = News::default();
        let again = peer.heard.as_ref().is_some_and(|heard| heard.session == pulse.session);
        match &peer.heard {
            Some(heard) if again && pulse.sent_ms < heard.sent_ms => return None,
            Some(_) if !again => {
                news.orphaned = peer.covered().collect();
                news.came = true;
                peer.forget();
                (peer.contact_ms, peer.agreed) = (None, 0);
            }
            _ => {}
        }
        if !pulse.is_answer {
            peer.spoke_ms = Some(now_ms);
        }
        let version = peer.heard.as_ref().map_or(0, |heard| heard.version);
        let (session, sent_ms) = (pulse.session, pulse.sent_ms);
        peer.heard = Some(Heard { session, sent_ms, at_ms: Some(now_ms), version });
        if let Some(list) = list.filter(|_| pulse.version > version) {
            peer.take_list(list, pulse.version, &mut news);
        }
        if pulse.heard_session == own_session {
            peer.take_answer(pulse, now_ms, &mut news);
        }
        Some(news)
    }

    fn guests(&self) -> usize {
        self.peers.values().filter(|peer| !peer.is_known).count()
    }
}

impl Peer {
    /// A guest that has nothing more to say.
    fn is_over(&self, now_ms: u64) -> bool {
        let is_silent = self.spoke_ms.is_none_or(|spoke_ms| now_ms >= spoke_ms + SILENCE_MS);
        !self.is_known && is_silent
    }

    /// Groups that may rest with it. Those that it was refused may have been told to do so since.
    fn covered(&self) -> impl Iterator<Item = u64> + '_ {
        self.theirs.keys().copied()
    }

    fn listed(&self) -> Vec<u64> {
        self.listed.keys().copied().collect()
    }

    /// What was heard holds no longer; that it was said then does, and late pulses are told by it.
    fn forget(&mut self) {
        if let Some(heard) = &mut self.heard {
            (heard.at_ms, heard.version) = (None, 0);
        }
        self.theirs.clear();
        self.refused.clear();
    }

    fn take_list(&mut self, list: BTreeMap<u64, Position>, version: u64, news: &mut News) {
        news.unlisted = self.covered().filter(|group| !list.contains_key(group)).collect();
        news.listed = list.iter().map(|(&group, &position)| (group, position)).collect();
        self.theirs = list;
        self.refused.clear();
        if let Some(heard) = &mut self.heard {
            heard.version = version;
        }
    }

    fn take_answer(&mut self, pulse: &Pulse, now_ms: u64, news: &mut News) {
        // What it says that it heard was sent before now.
        let heard_ms = pulse.heard_ms.min(now_ms);
        if heard_ms + CONTACT_MS > now_ms {
            news.came |= self.contact_ms.is_none();
            self.contact_ms = self.contact_ms.max(Some(heard_ms));
        }
        let held = pulse.held_version.min(self.version);
        news.agreed = held > self.agreed;
        self.agreed = held;
        let groups = pulse.refused.chunks_exact(8).map(|bytes| number(bytes, 0));
        let is_meant = |group: &u64| self.listed.get(group).is_some_and(|(_, v)| *v <= held);
        news.refused = groups.filter(is_meant).collect();
    }

    fn pulse(&self, session: u64, now_ms: u64) -> Pulse {
        let heard = self.heard.as_ref();
        let refused = self.refused.iter().flat_map(|group| group.to_le_bytes());
        Pulse {
            session,
            sent_ms: now_ms,
            version: self.version,
            list: (self.agreed < self.version).then(|| encode(&self.listed)),
            heard_session: heard.map_or(0, |heard| heard.session),
            heard_ms: heard.map_or(0, |heard| heard.sent_ms),
            held_version: heard.map_or(0, |heard| heard.version),
            refused: refused.collect(),
            is_answer: !self.is_known,
        }
    }
}

fn encode(listed: &BTreeMap<u64, (Position, u64)>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(listed.len() * LISTED_BYTES);
    for (group, (position, _)) in listed {
        bytes.put_u64_le(*group);
        bytes.put_u64_le(position.term);
        bytes.put_u64_le(position.raft_index);
    }
    bytes.freeze()
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<u64, Position>> {
    if !bytes.len().is_multiple_of(LISTED_BYTES) || bytes.len() / LISTED_BYTES > LISTED_MAX {
        return None;
    }
    let listed = bytes.chunks_exact(LISTED_BYTES).map(|entry| {
        (number(entry, 0), Position { term: number(entry, 8), raft_index: number(entry, 16) })
    });
    Some(listed.collect())
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
#[path = "pulse_tests.rs"]
mod tests;
