//! This node's part in the gossip: foca, and what foca leaves to its user.

use std::collections::{BTreeMap, HashSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::Bytes;
use foca::{
    Config, Foca, Header, Member as Update, Message, NoCustomBroadcast, PeriodicParams, State,
    Timer,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::identity::Identity;
use super::lost::Lost;
use super::outbox::Outbox;
use super::packet::{
    PACKET_BYTES_MAX, Packet, PacketError, STRING_BYTES_MAX, WireCodec, seal, unseal,
};
use super::{Action, Event, Member};
use crate::peers::Peer;

/// Someone is asked whether it is there.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// After so long without an answer, others are asked to ask.
const PROBE_RTT: Duration = Duration::from_millis(400);
/// So long may a suspect object before it has failed.
pub(super) const SUSPICION: Duration = Duration::from_secs(3);
/// News are passed on.
const GOSSIP_PERIOD: Duration = Duration::from_millis(200);
/// Someone is asked for all it knows, should news have got lost.
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(30);
/// The dead are remembered: an old rumour must not bring them back, and they may come themselves.
const REMEMBER_DEAD: Duration = Duration::from_secs(24 * 60 * 60);
/// How long until a node is told again that it is suspected. Two that suspect each other would
/// otherwise answer each such packet with another, as fast as the network is.
const WARN_PERIOD_MS: i64 = 200;
/// How many nodes hear of news at once, and are asked to ask.
const FANOUT: NonZeroUsize = NonZeroUsize::new(3).expect("it is 3");
/// How often a node passes on one piece of news.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(10).expect("it is 10");
/// A refused incarnation is raised by at most this power of two.
const RAISE_POWER_MAX: u32 = 40;
/// Nodes of other clusters are warned of once each; after so many, not any more.
const STRANGERS_MAX: usize = 1_000;

/// Gossip, as one node takes part in it.
///
/// - Time never goes back from one call to the next.
/// - Members of another cluster never get as far as foca: neither as senders nor in what is told.
/// - What foca does in a call is taken out of it before the call ends.
/// - Who has left does nothing any more.
pub(crate) struct Gossip {
    foca: Foca<Identity, WireCodec, StdRng, NoCustomBroadcast>,
    outbox: Outbox,
    /// The others, as they were last told to the cluster.
    alive: BTreeMap<u64, Member>,
    lost: Lost,
    /// How often in a row others thought this identity of ours out of date.
    refused: u32,
    left: bool,
    /// When nodes were told that they are suspected, as far as it matters.
    warned_ms: BTreeMap<u64, i64>,
    /// Addresses of nodes of other clusters that have been warned of.
    strangers: HashSet<String>,
    actions: Vec<Action>,
}

impl Gossip {
    /// Takes part as `me`, and knows nobody. `seed` determines whom it will talk to.
    pub(crate) fn new(me: Member, seed: u64) -> Gossip {
        let rng = StdRng::seed_from_u64(seed);
        Gossip {
            foca: Foca::new(Identity::new(cut(me)), config(), rng, WireCodec),
            outbox: Outbox::default(),
            alive: BTreeMap::new(),
            lost: Lost::default(),
            refused: 0,
            left: false,
            warned_ms: BTreeMap::new(),
            strangers: HashSet::new(),
            actions: Vec::new(),
        }
    }

    /// What this node says of itself; its incarnation may have grown since it was told.
    pub(crate) fn me(&self) -> &Member {
        &self.foca.identity().member
    }

    /// The others that are alive, in the order of their ids.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.alive.values()
    }

    /// Asks whoever is at `address` for all it knows, which also makes this node known there. The
    /// packet may get lost: this is repeated until members are seen.
    pub(crate) fn announce(&mut self, address: &str, now_ms: i64) {
        if self.left || address == self.me().address {
            return;
        }
        self.outbox.now_ms = now_ms;
        let result = self.foca.announce(Identity::seed(address), &mut self.outbox);
        self.settle(result);
    }

    /// Takes in what a node has sent. Bytes that mean nothing, and nodes of another cluster, are
    /// ignored.
    pub(crate) fn receive(&mut self, packet: Bytes, now_ms: i64) {
        if self.left {
            return;
        }
        self.outbox.now_ms = now_ms;
        match self.admit(packet) {
            Ok(Some((packet, body))) => self.take_in(&packet, &body),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "not a packet of gossip"),
        }
    }

    /// This node says something else of itself from now on. Its incarnation grows, to that of `me`
    /// if that is higher.
    pub(crate) fn update(&mut self, me: Member, now_ms: i64) {
        let old = self.me();
        assert_eq!(me.node_id, old.node_id, "another node is another gossip");
        let incarnation = me.incarnation.max(old.incarnation.saturating_add(1));
        let me = Member { incarnation, ..cut(me) };
        if self.left || me == (Member { incarnation, ..old.clone() }) {
            return;
        }
        self.outbox.now_ms = now_ms;
        let result = self.foca.change_identity(Identity::new(me), &mut self.outbox);
        self.part_from_strangers();
        self.settle(result);
    }

    /// Tells the others that this node goes, and is silent from then on.
    pub(crate) fn leave(&mut self, now_ms: i64) {
        if self.left {
            return;
        }
        self.outbox.now_ms = now_ms;
        let incarnation = self.me().incarnation.saturating_add(1);
        let me = Identity::new(Member { incarnation, ..self.me().clone() });
        // Whoever hears just one of these packets knows: in the first the node says that it is
        // leaving, in the others also that it is dead.
        let result = self
            .foca
            .change_identity(Identity { leaving: true, ..me }, &mut self.outbox)
            .and_then(|()| self.foca.leave_cluster(&mut self.outbox))
            .and_then(|()| self.foca.gossip(&mut self.outbox));
        self.settle(result);
        self.outbox.stop();
        self.lost = Lost::default();
        self.left = true;
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now_ms: i64) {
        self.outbox.now_ms = now_ms;
        while let Some(timer) = self.outbox.take_due(self.has_news()) {
            if self.is_moot(&timer) {
                continue;
            }
            if let Timer::RemoveDown(identity) = &timer {
                self.lost.remove_if(identity);
            }
            let result = self.foca.handle_timer(timer, &mut self.outbox);
            self.settle(result);
        }
        if let Some(identity) = self.lost.take_due(now_ms) {
            let result = self.foca.announce(identity, &mut self.outbox);
            self.settle(result);
        }
    }

    /// When [`tick`](Gossip::tick) wants to be called; `None` if nothing will be due before someone
    /// else is heard of.
    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        let timer = self.outbox.deadline_ms(self.has_news());
        timer.into_iter().chain(self.lost.deadline_ms()).min()
    }

    /// Takes what is to be done, in order.
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether a suspicion comes to its end that was cleared before.
    ///
    /// foca 2.0.0 does not act on it, but tells the node that it is dead all the same, which makes
    /// it come back as another for nothing.
    fn is_moot(&self, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        let suspect = Update::new(member_id.clone(), *incarnation, State::Suspect);
        self.entry(member_id.node_id()) != Some(&suspect)
    }

    /// What foca may see of a packet, with the header; `None` if nothing.
    fn admit(&mut self, packet: Bytes) -> Result<Option<(Packet, Bytes)>, PacketError> {
        let body = unseal(packet)?;
        let mut packet = Packet::decode(&body)?;
        let from = &packet.header.src;
        if from.node_id() == self.me().node_id {
            tracing::debug!(address = from.member.address, "a packet with this node's own id");
            return Ok(None);
        }
        if self.is_stranger(&from.member) {
            self.part_from(&packet.header.src.clone());
            return Ok(None);
        }
        let told = packet.updates.len();
        packet.updates.retain(|update| !self.is_stranger(&update.id().member));
        let redirected = self.redirect(&mut packet);
        let unchanged = packet.updates.len() == told && !redirected;
        let body = if unchanged { body } else { packet.encode()? };
        Ok(Some((packet, body)))
    }

    /// Whether `packet` was for who this node was before it changed, and is for who it is now.
    ///
    /// foca ignores such packets. But when several nodes change at once, as they do when they form
    /// a cluster, none of them knows who the others are now; and if all they say to each other
    /// were ignored, none would ever learn it. Only the news of a death are about who it was.
    fn redirect(&self, packet: &mut Packet) -> bool {
        let header = &mut packet.header;
        let me = self.foca.identity();
        let before = header.dst.node_id() == me.node_id() && header.dst != *me;
        let redirected = before && header.message != Message::TurnUndead;
        if redirected {
            header.dst = me.clone();
        }
        redirected
    }

    fn take_in(&mut self, packet: &Packet, body: &[u8]) {
        let header = &packet.header;
        let result = self.foca.handle_data(body, &mut self.outbox);
        if std::mem::take(&mut self.outbox.renewed) {
            self.come_back(&header.src);
        } else if header.message != Message::TurnUndead {
            self.refused = 0;
        }
        self.settle(result);
        self.warn_suspect(header.src.node_id());
    }

    /// Tells a node that was just heard of that it is suspected, if it is: an answer alone does not
    /// clear it, and what was passed on of the suspicion may have got lost, or come to its end
    /// while the node slept.
    fn warn_suspect(&mut self, node_id: u64) {
        let suspect = self.entry(node_id).filter(|update| update.state() == State::Suspect);
        let Some(suspect) = suspect.cloned() else { return };
        let now_ms = self.outbox.now_ms;
        self.warned_ms.retain(|_, warned_ms| now_ms < *warned_ms + WARN_PERIOD_MS);
        if self.warned_ms.contains_key(&node_id) {
            return;
        }
        let header = Header {
            src: self.foca.identity().clone(),
            // How often this node has cleared itself is only news if it is more than is known.
            src_incarnation: 0,
            dst: suspect.id().clone(),
            message: Message::Gossip,
        };
        let Some(peer) = self.peer(suspect.id()) else { return };
        let body = Packet { header, updates: vec![suspect] }.encode();
        let packet = seal(&body.expect("one member fits into a packet"));
        self.actions.push(Action::Send { peer, packet });
        self.warned_ms.insert(node_id, now_ms);
    }

    /// This node has just renewed its identity, since `from` believed it dead, and `from` is told.
    ///
    /// foca tells only those it believes alive, of which `from` may be none; and it adds one to the
    /// incarnation, which takes long if the clock was set back and there was a life with a much
    /// higher one. So the step is doubled as long as it does not suffice.
    fn come_back(&mut self, from: &Identity) {
        self.refused = self.refused.saturating_add(1);
        let mut result = Ok(());
        if self.refused > 1 {
            let step = 1 << self.refused.min(RAISE_POWER_MAX);
            let incarnation = self.me().incarnation.saturating_add(step);
            let me = Identity::new(Member { incarnation, ..self.me().clone() });
            result = self.foca.change_identity(me, &mut self.outbox);
        }
        let result = result.and_then(|()| self.foca.announce(from.clone(), &mut self.outbox));
        self.settle(result);
    }

    /// Whether a node is in another cluster.
    fn is_stranger(&self, member: &Member) -> bool {
        let ours = self.me().cluster_id;
        ours != 0 && member.cluster_id != 0 && ours != member.cluster_id
    }

    /// A node was heard of that is in another cluster. If it was known before it went there, it is
    /// not known any more.
    fn part_from(&mut self, stranger: &Identity) {
        let Member { address, cluster_id, .. } = &*stranger.member;
        if self.strangers.len() < STRANGERS_MAX && self.strangers.insert(address.clone()) {
            tracing::warn!(address, cluster_id, "a node of another cluster: it is ignored");
        }
        let entry = self.entry(stranger.node_id()).map(|update| update.id().clone());
        if let Some(known) = entry.filter(|known| known.incarnation() < stranger.incarnation()) {
            self.forget(known);
            self.settle(Ok(()));
        }
    }

    /// This node has joined a cluster, and part of those it knew has joined another.
    fn part_from_strangers(&mut self) {
        let known = self.foca.iter_membership_state().map(Update::id);
        let strangers: Vec<_> = known.filter(|id| self.is_stranger(&id.member)).cloned().collect();
        for stranger in strangers {
            self.forget(stranger);
        }
    }

    /// Makes foca forget a node, without telling anyone.
    fn forget(&mut self, identity: Identity) {
        self.lost.remove(identity.node_id());
        let down = std::iter::once(Update::down(identity.clone()));
        let result = self
            .foca
            .apply_many(down, false, &mut self.outbox)
            .and_then(|()| self.foca.handle_timer(Timer::RemoveDown(identity), &mut self.outbox));
        complain(result);
    }

    /// Whether there is something to gossip about.
    fn has_news(&self) -> bool {
        self.foca.updates_backlog() > 0
    }

    fn entry(&self, node_id: u64) -> Option<&Update<Identity>> {
        self.foca.iter_membership_state().find(|update| update.id().node_id() == node_id)
    }

    /// Takes out of foca what it did.
    fn settle(&mut self, result: Result<(), foca::Error>) {
        complain(result);
        // After a change of identity foca does nothing until it hears of someone, which is never if
        // the others have just died. An update of nothing lets it go on with those it knows.
        complain(self.foca.apply_many(std::iter::empty(), true, &mut self.outbox));
        for node_id in std::mem::take(&mut self.outbox.touched) {
            self.notice(node_id);
        }
        for (to, packet) in std::mem::take(&mut self.outbox.packets) {
            match self.peer(&to) {
                Some(peer) => self.actions.push(Action::Send { peer, packet }),
                None => tracing::debug!(node_id = to.node_id(), "no way to a node"),
            }
        }
    }

    /// Where an identity is. Those that others name come without an address.
    fn peer(&self, to: &Identity) -> Option<Peer> {
        let node_id = to.node_id();
        let member = if to.member.address.is_empty() { self.alive.get(&node_id) } else { None };
        let address = &member.unwrap_or(&to.member).address;
        (!address.is_empty()).then(|| Peer { node_id, address: address.as_str().into() })
    }

    /// Tells the cluster how a node is different from what it was told last.
    fn notice(&mut self, node_id: u64) {
        if node_id == self.me().node_id {
            return;
        }
        let entry = self.entry(node_id).map(|update| (update.id().clone(), update.state()));
        let told = self.alive.get(&node_id);
        let event = match entry {
            Some((now, state)) if state != State::Down && !now.leaving => {
                let member = Member::clone(&now.member);
                let event = match told {
                    Some(told) if *told == member => return,
                    Some(_) => Event::Changed(member.clone()),
                    None => Event::Joined(member.clone()),
                };
                self.lost.remove(node_id);
                self.alive.insert(node_id, member);
                event
            }
            gone => {
                let Some(told) = self.alive.remove(&node_id) else { return };
                match gone {
                    Some((now, _)) if now.leaving => Event::Left(Member::clone(&now.member)),
                    Some((now, _)) => {
                        self.lost.add(now.clone(), self.outbox.now_ms);
                        Event::Failed(Member::clone(&now.member))
                    }
                    None => Event::Failed(told),
                }
            }
        };
        self.actions.push(Action::Event(event));
    }
}

/// An error of foca says that a packet was ignored, or that a timer came at the wrong time; it goes
/// on in any case.
fn complain(result: Result<(), foca::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "gossip");
    }
}

/// Cuts strings that are too long to be sent.
fn cut(mut member: Member) -> Member {
    for string in [&mut member.address, &mut member.name, &mut member.rack] {
        if string.len() > STRING_BYTES_MAX {
            tracing::warn!(%string, "too long for gossip: it is cut");
            let end = (0..=STRING_BYTES_MAX).rev().find(|end| string.is_char_boundary(*end));
            string.truncate(end.unwrap_or(0));
        }
    }
    member
}

fn config() -> Config {
    let every = |frequency, num_members| Some(PeriodicParams { frequency, num_members });
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: FANOUT,
        max_transmissions: TRANSMISSIONS,
        suspect_to_down_after: SUSPICION,
        remove_down_after: Some(REMEMBER_DEAD),
        max_packet_size: NonZeroUsize::new(PACKET_BYTES_MAX).expect("it is not 0"),
        notify_down_members: true,
        periodic_announce: every(ANNOUNCE_PERIOD, NonZeroUsize::MIN),
        periodic_announce_to_down_members: None,
        periodic_gossip: every(GOSSIP_PERIOD, FANOUT),
    }
}
