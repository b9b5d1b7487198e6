//! Gossip at work: a thread that owns it, brings it packets and time, and does what it wants.
//!
//! It also brings the node into its cluster. A node that belongs to none joins the first that it
//! hears of. If so many as expected see each other and none has a cluster, the one with the lowest
//! id founds it: the others hear of it like of any other. Those that only want to join do not
//! count: they are as many as they please, and would found nothing. A node that belongs to a
//! cluster never founds another, whatever it hears.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;

use super::{Action, Event, Gossip, Member};
use crate::metadata::command::RegisterNode;
use crate::node::Node;
use crate::node_file::ClusterIds;

/// Packets that wait for the thread; more are lost, which gossip does not mind.
pub(crate) const PACKETS_WAITING_MAX: usize = 1_024;

/// How often seeds are asked that are not seen: often at first, when nodes start together.
const ASK_SEEDS_FIRST_MS: i64 = 200;
const ASK_SEEDS_MAX_MS: i64 = 5_000;

/// What the thread is told.
pub(crate) enum Heard {
    /// A peer sent a packet.
    Packet(Bytes),
    /// The node goes for good: others should not wait for it.
    Leave,
    /// The node closes.
    End,
}

/// See the module.
pub(crate) struct Agent {
    node: Arc<Node>,
    gossip: Gossip,
    seeds: Vec<String>,
    expected: usize,
    ask_ms: i64,
    ask_again_ms: i64,
}

impl Agent {
    /// Begins to take part.
    pub(crate) fn new(node: Arc<Node>, seeds: Vec<String>, bootstrap_expect: u32) -> Agent {
        let incarnation = node.clock.now_ms().max(1).unsigned_abs();
        let me = Member { incarnation, ..member(&node, bootstrap_expect > 0) };
        let seed = node.fs.random();
        Agent {
            gossip: Gossip::new(me, seed),
            ask_ms: elapsed_ms(&node),
            node,
            seeds,
            expected: usize::try_from(bootstrap_expect).unwrap_or(usize::MAX),
            ask_again_ms: ASK_SEEDS_FIRST_MS,
        }
    }

    /// Works until told to end.
    pub(crate) fn run(mut self, heard: &Receiver<Heard>) {
        let mut told = None;
        while self.turn(told) {
            told = match self.sleep() {
                None => heard.recv().map(Some).unwrap_or(Some(Heard::End)),
                Some(left) => match heard.recv_timeout(left) {
                    Ok(heard) => Some(heard),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => Some(Heard::End),
                },
            };
        }
    }

    /// Takes in what was heard, and does what is due; whether it goes on. Does not wait.
    pub(crate) fn turn(&mut self, told: Option<Heard>) -> bool {
        let now_ms = elapsed_ms(&self.node);
        match told {
            Some(Heard::Packet(packet)) => self.gossip.receive(packet, now_ms),
            Some(Heard::Leave) => self.gossip.leave(now_ms),
            Some(Heard::End) => return false,
            None => {}
        }
        self.gossip.tick(now_ms);
        self.ask_seeds();
        self.act();
        true
    }

    /// How long until something is due, unless something is heard before; none if nothing is.
    pub(crate) fn sleep(&self) -> Option<Duration> {
        let ask_ms = (!self.missing().is_empty()).then_some(self.ask_ms);
        let next_ms = self.gossip.deadline_ms().into_iter().chain(ask_ms).min()?;
        let left_ms = next_ms.saturating_sub(elapsed_ms(&self.node)).max(0);
        Some(Duration::from_millis(left_ms.unsigned_abs()))
    }

    /// Where somebody may be who is not seen: the seeds, and while nobody is seen at all, where the
    /// metadata knows nodes.
    ///
    /// Seeds are missed also while others are seen: two nodes that found each other before the
    /// third came up would otherwise never look for it.
    fn missing(&self) -> Vec<String> {
        let is_seen = |address: &str| self.gossip.members().any(|other| other.address == address);
        let is_me = |address: &str| address == self.node.told.address;
        // As it is nearly always, and asked often.
        let sees_anyone = self.gossip.members().next().is_some();
        if sees_anyone && self.seeds.iter().all(|seed| is_me(seed) || is_seen(seed)) {
            return Vec::new();
        }
        let mut addresses = self.seeds.clone();
        if !sees_anyone {
            let state = self.node.metadata.state();
            // What is known of this node itself may be where it was before.
            let others = state.nodes().filter(|node| node.told.node_id != self.node.node_id);
            addresses.extend(others.map(|node| node.told.address.clone()));
        }
        addresses.retain(|address| !is_me(address) && !is_seen(address));
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn ask_seeds(&mut self) {
        let now_ms = elapsed_ms(&self.node);
        let missing = self.missing();
        if missing.is_empty() {
            self.ask_again_ms = ASK_SEEDS_FIRST_MS;
            return;
        }
        if now_ms < self.ask_ms {
            return;
        }
        for address in missing {
            self.gossip.announce(&address, now_ms);
        }
        self.ask_ms = now_ms.saturating_add(self.ask_again_ms);
        self.ask_again_ms = (self.ask_again_ms * 2).min(ASK_SEEDS_MAX_MS);
    }

    fn act(&mut self) {
        let actions = self.gossip.actions();
        let mut news = false;
        for action in actions {
            match action {
                Action::Send { peer, packet } => self.node.routes.send_gossip(&peer, packet),
                Action::Event(event) => {
                    news = true;
                    self.tell(event);
                }
            }
        }
        if news && self.node.cluster().is_none() {
            self.look_for_cluster();
        }
    }

    fn tell(&self, event: Event) {
        match event {
            Event::Joined(member) | Event::Changed(member) => {
                tracing::info!(node_id = member.node_id, address = member.address, "sees a node");
                self.node.routes.set_address(member.node_id, &member.address);
                // One that has not entered the cluster yet is no node of it.
                if member.cluster_id != 0 {
                    self.arrived(member);
                }
            }
            Event::Left(member) => {
                tracing::info!(node_id = member.node_id, "a node left");
                self.node.is_gone(member.node_id);
            }
            Event::Failed(member) => {
                tracing::warn!(node_id = member.node_id, "a node does not answer");
                self.node.is_gone(member.node_id);
            }
        }
    }

    /// A node is there. Of two at one address the one that came there later is: the other lost its
    /// disk, and nobody has missed it yet.
    fn arrived(&self, member: Member) {
        let others = self.gossip.members().filter(|other| other.node_id != member.node_id);
        for other in others.filter(|other| other.address == member.address) {
            if other.incarnation > member.incarnation {
                return;
            }
            self.node.is_gone(other.node_id);
        }
        self.node.is_alive(registration(member));
    }

    fn look_for_cluster(&mut self) {
        let found = self.gossip.members().find(|member| member.cluster_id != 0);
        let entered = match found {
            Some(member) => {
                let (cluster_id, founder) = (member.cluster_id, member.founder);
                tracing::info!(cluster_id = format!("{cluster_id:016x}"), "joining a cluster");
                self.node.join_cluster(ClusterIds { cluster_id, founder })
            }
            None if self.is_to_found() => self.node.found_cluster(),
            None => return,
        };
        match entered {
            Ok(()) => {
                let me = member(&self.node, self.expected > 0);
                self.gossip.update(me, elapsed_ms(&self.node));
            }
            Err(error) => tracing::error!(%error, "cannot enter the cluster"),
        }
    }

    fn is_to_found(&self) -> bool {
        let founders = || self.gossip.members().filter(|member| member.expects);
        let is_first = founders().all(|member| member.node_id > self.node.node_id);
        self.expected > 0 && founders().count() + 1 >= self.expected && is_first
    }
}

/// Gossip goes by elapsed time: the time of day may be set back, and an hour without gossip is an
/// hour without a word.
fn elapsed_ms(node: &Node) -> i64 {
    i64::try_from(node.clock.elapsed_ms()).unwrap_or(i64::MAX)
}

fn member(node: &Node, expects: bool) -> Member {
    let RegisterNode { node_id, address, name, rack, metadata_replica } = node.told.clone();
    let cluster = node.cluster();
    Member {
        node_id,
        address,
        name,
        rack,
        cluster_id: cluster.map_or(0, |cluster| cluster.cluster_id),
        founder: cluster.map_or(0, |cluster| cluster.founder),
        metadata_replica,
        expects,
        incarnation: 0,
    }
}

fn registration(member: Member) -> RegisterNode {
    let Member { node_id, address, name, rack, metadata_replica, .. } = member;
    RegisterNode { node_id, address, name, rack, metadata_replica }
}
