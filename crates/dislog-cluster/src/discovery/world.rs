//! A network in memory with a clock of its own, for tests of gossip.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Action, Event, Gossip, Member};

/// A node without members asks its seeds this often.
const SEEDS_INTERVAL_MS: i64 = 1_000;

/// What the network does to packets.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss: f64,
    pub(super) duplication: f64,
    pub(super) delay_ms: (i64, i64),
}

pub(super) const CALM: Weather = Weather { loss: 0.0, duplication: 0.0, delay_ms: (1, 3) };

pub(super) struct Node {
    pub(super) gossip: Gossip,
    pub(super) seeds: Vec<String>,
    pub(super) paused: bool,
    /// With their times.
    pub(super) events: Vec<(i64, Event)>,
}

pub(super) struct World {
    pub(super) now_ms: i64,
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) weather: Weather,
    /// Packets between one of these and one that is not are lost.
    pub(super) island: BTreeSet<u64>,
    /// Bytes of all packets sent.
    pub(super) bytes: usize,
    /// Everything that was sent and told, as text, if it is wanted.
    pub(super) trace: Option<Vec<String>>,
    flying: BTreeMap<(i64, u64), (String, Bytes)>,
    sent: u64,
    rng: StdRng,
}

pub(super) fn address(node_id: u64) -> String {
    format!("node-{node_id}.example:8400")
}

pub(super) fn member(node_id: u64, incarnation: u64) -> Member {
    Member {
        node_id,
        address: address(node_id),
        name: format!("node-{node_id}"),
        rack: "rack-a".to_owned(),
        incarnation,
        ..Member::default()
    }
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World {
            now_ms: 1_000_000,
            nodes: BTreeMap::new(),
            weather: CALM,
            island: BTreeSet::new(),
            bytes: 0,
            trace: None,
            flying: BTreeMap::new(),
            sent: 0,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Nodes `1..=count`, all of which know the address of node 1, and see each other.
    pub(super) fn converged(count: u64, seed: u64) -> World {
        let mut world = World::new(seed);
        for node_id in 1..=count {
            world.start(member(node_id, 1), &[1]);
        }
        world.run_until(30_000, World::all_see_all);
        world.clear();
        world
    }

    pub(super) fn start(&mut self, me: Member, seeds: &[u64]) {
        self.start_as(me.node_id, me, seeds);
    }

    /// Starts a node that goes by another number here than among the nodes.
    pub(super) fn start_as(&mut self, number: u64, me: Member, seeds: &[u64]) {
        let seeds = seeds.iter().map(|seed| address(*seed)).collect();
        let gossip = Gossip::new(me, self.rng.random());
        self.nodes.insert(number, Node { gossip, seeds, paused: false, events: Vec::new() });
    }

    pub(super) fn kill(&mut self, node_id: u64) {
        self.nodes.remove(&node_id);
    }

    pub(super) fn gossip(&mut self, node_id: u64) -> &mut Gossip {
        &mut self.nodes.get_mut(&node_id).unwrap().gossip
    }

    /// Forgets what has happened so far.
    pub(super) fn clear(&mut self) {
        self.nodes.values_mut().for_each(|node| node.events.clear());
        self.bytes = 0;
    }

    /// What `node_id` was told of `other`, without the times.
    pub(super) fn events(&self, node_id: u64, other: u64) -> Vec<&Event> {
        let events = self.nodes[&node_id].events.iter().map(|(_, event)| event);
        events.filter(|event| subject(event).node_id == other).collect()
    }

    /// When `node_id` was first told something of the kind, since the clock stood at `from_ms`.
    pub(super) fn told_after(&self, node_id: u64, from_ms: i64, is: fn(&Event) -> bool) -> i64 {
        let first = self.nodes[&node_id].events.iter().find(|(_, event)| is(event));
        first.unwrap_or_else(|| panic!("{node_id} was not told")).0 - from_ms
    }

    pub(super) fn all_see_all(&self) -> bool {
        let count = self.nodes.len();
        self.nodes.values().all(|node| node.gossip.members().count() == count - 1)
    }

    /// Goes on until `done`, which takes at most `limit_ms`; answers how long it took.
    pub(super) fn run_until(&mut self, limit_ms: i64, done: impl Fn(&World) -> bool) -> i64 {
        let start_ms = self.now_ms;
        while !done(self) {
            assert!(self.now_ms - start_ms < limit_ms, "not after {limit_ms} ms");
            self.step(start_ms + limit_ms);
        }
        self.now_ms - start_ms
    }

    pub(super) fn run_for(&mut self, duration_ms: i64) {
        let end_ms = self.now_ms + duration_ms;
        while self.now_ms < end_ms {
            self.step(end_ms);
        }
    }

    /// Does everything that happens at the next moment of interest.
    fn step(&mut self, end_ms: i64) {
        let awake = self.nodes.values().filter(|node| !node.paused);
        let timer = awake.filter_map(|node| node.gossip.deadline_ms()).min();
        let packet = self.flying.first_key_value().map(|((at_ms, _), _)| *at_ms);
        let seeds = (self.now_ms / SEEDS_INTERVAL_MS + 1) * SEEDS_INTERVAL_MS;
        let next = [Some(seeds), timer, packet, Some(end_ms)].into_iter().flatten().min();
        self.now_ms = self.now_ms.max(next.unwrap());
        self.deliver();
        let now_ms = self.now_ms;
        for node in self.nodes.values_mut().filter(|node| !node.paused) {
            if node.gossip.deadline_ms().is_some_and(|at_ms| at_ms <= now_ms) {
                node.gossip.tick(now_ms);
                let again_ms = node.gossip.deadline_ms();
                assert!(again_ms.is_none_or(|at_ms| at_ms > now_ms), "due again at once");
            }
            if now_ms % SEEDS_INTERVAL_MS == 0 && node.gossip.members().next().is_none() {
                for seed in node.seeds.clone() {
                    node.gossip.announce(&seed, now_ms);
                }
            }
        }
        self.collect();
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now_ms {
                break;
            }
            let (to, packet) = entry.remove();
            let node = self.nodes.values_mut().find(|node| node.gossip.me().address == to);
            if let Some(node) = node.filter(|node| !node.paused) {
                node.gossip.receive(packet, self.now_ms);
                self.collect();
            }
        }
    }

    pub(super) fn collect(&mut self) {
        let now_ms = self.now_ms;
        let mut sent = Vec::new();
        for (node_id, node) in &mut self.nodes {
            for action in node.gossip.actions() {
                if let Some(trace) = &mut self.trace {
                    trace.push(format!("{now_ms} {node_id} {action:?}"));
                }
                match action {
                    Action::Event(event) => node.events.push((now_ms, event)),
                    Action::Send { peer, packet } => sent.push((*node_id, peer, packet)),
                }
            }
        }
        for (from, peer, packet) in sent {
            self.bytes += packet.len();
            self.fly(from, &peer.address, &packet);
        }
    }

    fn fly(&mut self, from: u64, to: &str, packet: &Bytes) {
        let other = self.nodes.iter().find(|(_, node)| node.gossip.me().address == to);
        let other = other.map_or(0, |(node_id, _)| *node_id);
        if self.island.contains(&from) != self.island.contains(&other) {
            return;
        }
        let Weather { loss, duplication, delay_ms: (least, most) } = self.weather;
        let copies = if self.rng.random_bool(duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.rng.random_bool(loss) {
                let at_ms = self.now_ms + self.rng.random_range(least..=most);
                self.sent += 1;
                self.flying.insert((at_ms, self.sent), (to.to_owned(), packet.clone()));
            }
        }
    }
}

pub(super) fn subject(event: &Event) -> &Member {
    match event {
        Event::Joined(member)
        | Event::Changed(member)
        | Event::Left(member)
        | Event::Failed(member) => member,
    }
}
