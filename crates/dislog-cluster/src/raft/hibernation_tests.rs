//! Three replicas that come to rest, and what ends it. Time is set by hand: the drivers have no
//! threads, and each turn is taken here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use dislog_log::fs::SimFs;
use dislog_types::batch::BatchHeader;
use dislog_types::time::Clock;
use dislog_types::{BatchBuilder, Compression, PartitionId, Record, TopicName};
use tokio::sync::{Semaphore, oneshot};

use super::driver::{Driver, DriverConfig, Input};
use super::input::{AppendReply, AppendRequest, LinearizeRequest};
use super::membership::Target;
use super::open::OpenGroup;
use super::pulse::Pulse;
use super::sync_threads::{Job, Tools, Workers};
use super::transport::{PeerMessage, Transport};
use crate::error::{AppendError, ReadError};
use crate::partition::retention::RetentionPolicy;
use crate::partition::shared::Shared;
use crate::partition::{Append, Appended};

const GROUPS: std::ops::Range<u64> = 7..27;
const NODES: [u64; 3] = [1, 2, 3];
/// Far longer than it takes to come to rest.
const LONG_MS: u64 = 5_000;
/// A lost leader is followed by another within this, whether its groups rest or not.
const FAILOVER_MS: u64 = 2_000;

#[derive(Debug, Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + i64::try_from(self.elapsed_ms()).unwrap()
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

enum Sent {
    Message(PeerMessage),
    Pulse(Pulse),
}

/// What was sent, from and to whom.
type Wire = Arc<Mutex<VecDeque<(u64, u64, Sent)>>>;

/// A replica's id is its node's.
struct Plug {
    node: u64,
    wire: Wire,
}

impl Transport for Plug {
    fn send(&mut self, message: PeerMessage) {
        let to = message.to;
        self.wire.lock().unwrap().push_back((self.node, to, Sent::Message(message)));
    }

    fn pulse(&mut self, node: u64, pulse: Pulse) {
        self.wire.lock().unwrap().push_back((self.node, node, Sent::Pulse(pulse)));
    }

    fn node_of(&self, replica: u64) -> Option<u64> {
        Some(replica)
    }

    fn flush(&mut self) {}
}

#[derive(Clone, Default)]
struct Jobs(Arc<Mutex<VecDeque<Job>>>);

impl Workers for Jobs {
    fn take(&self, job: Job) {
        self.0.lock().unwrap().push_back(job);
    }

    fn end(&self) {}
}

struct Node {
    driver: Driver,
    inputs: Sender<Input>,
    tools: Tools,
    jobs: Jobs,
    shared: BTreeMap<u64, Arc<Shared>>,
    fs: SimFs,
}

struct World {
    clock: Arc<TestClock>,
    wire: Wire,
    nodes: BTreeMap<u64, Node>,
    /// From, to.
    cut: BTreeSet<(u64, u64)>,
    /// One pulse of so many is lost.
    lose_every: u64,
    pulses: u64,
    messages: u64,
    turns: u64,
}

impl World {
    /// Three nodes, whose groups have leaders.
    fn new() -> World {
        let mut world = World {
            clock: Arc::default(),
            wire: Wire::default(),
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            lose_every: 0,
            pulses: 0,
            messages: 0,
            turns: 0,
        };
        for node in NODES {
            world.start(node, SimFs::new(node));
        }
        world.run_for(1_000);
        for group in GROUPS {
            world.leader(group);
        }
        world
    }

    /// Three nodes whose groups rest.
    fn at_rest() -> World {
        let mut world = World::new();
        world.run_for(LONG_MS);
        for node in NODES {
            assert_eq!(world.ticking(node), 0, "node {node}");
        }
        world
    }

    fn start(&mut self, node: u64, fs: SimFs) {
        let (inputs, received) = mpsc::channel();
        let tools = || Tools { fs: Arc::new(fs.clone()), results: inputs.clone() };
        let config = DriverConfig {
            fs: Arc::new(fs.clone()),
            clock: Arc::<TestClock>::clone(&self.clock),
            transport: Box::new(Plug { node, wire: Arc::clone(&self.wire) }),
            changed: Box::new(|| {}),
            data_dir: PathBuf::from("/"),
            sync_threads: 1,
            lock: None,
        };
        let jobs = Jobs::default();
        let driver = Driver::new(config, received, tools(), Box::new(jobs.clone()));
        let mut shared = BTreeMap::new();
        for group in GROUPS {
            let first = usize::try_from(group % 3).unwrap();
            let mut initial = NODES.to_vec();
            initial.rotate_left(first);
            if !NODES.contains(&node) {
                // It came later, and only knows one of those that there were at first.
                initial = vec![NODES[1]];
            }
            let partition = u32::try_from(group).unwrap();
            let open = OpenGroup {
                fs: Arc::new(fs.clone()),
                dir: Path::new("/").join(format!("a-{group}")),
                log: dislog_log::Config::default(),
                id: PartitionId { topic: TopicName::default_topic(), partition },
                group,
                replica: node,
                initial,
                target: None,
                policy: RetentionPolicy::KEEP_ALL,
                observer: None,
            };
            let opened = open.open();
            let (sender, _) = mpsc::channel();
            inputs.send(Input::AddGroup(opened.group.unwrap(), sender)).unwrap();
            shared.insert(group, opened.shared);
        }
        let tools = tools();
        self.nodes.insert(node, Node { driver, inputs, tools, jobs, shared, fs });
    }

    fn kill(&mut self, node: u64) -> SimFs {
        self.nodes.remove(&node).unwrap().fs
    }

    /// Lets so much time pass, a turn of each node at each moment at which one is due.
    fn run_for(&mut self, ms: u64) {
        let end_ms = self.clock.elapsed_ms() + ms;
        loop {
            self.settle();
            let sleeps = self.nodes.values().filter_map(|node| node.driver.sleep());
            let next =
                sleeps.min().map_or(u64::MAX, |left| u64::try_from(left.as_millis()).unwrap());
            let next_ms = self.clock.elapsed_ms() + next.max(1);
            if next_ms > end_ms {
                self.clock.0.store(end_ms, Ordering::Relaxed);
                return;
            }
            self.clock.0.store(next_ms, Ordering::Relaxed);
            for node in self.nodes.values_mut() {
                let is_due = node.driver.sleep().is_some_and(|left| left.is_zero());
                if is_due {
                    self.turns += 1;
                    node.driver.turn(None);
                }
            }
        }
    }

    /// Lets everything happen that takes no time.
    fn settle(&mut self) {
        loop {
            let sent: Vec<_> = self.wire.lock().unwrap().drain(..).collect();
            let mut jobs = 0;
            for node in self.nodes.values_mut() {
                node.driver.turn(None);
                let some: Vec<Job> = node.jobs.0.lock().unwrap().drain(..).collect();
                jobs += some.len();
                for job in some {
                    let _ = node.tools.results.send(node.tools.work(job));
                }
            }
            if sent.is_empty() && jobs == 0 && self.wire.lock().unwrap().is_empty() {
                return;
            }
            for (from, to, sent) in sent {
                self.deliver(from, to, sent);
            }
        }
    }

    fn deliver(&mut self, from: u64, to: u64, sent: Sent) {
        let input = match sent {
            Sent::Message(message) => {
                self.messages += 1;
                Input::Message(message)
            }
            Sent::Pulse(pulse) => {
                self.pulses += 1;
                if self.lose_every > 0 && self.pulses.is_multiple_of(self.lose_every) {
                    return;
                }
                Input::Pulse(from, pulse)
            }
        };
        if !self.cut.contains(&(from, to))
            && let Some(node) = self.nodes.get(&to)
        {
            node.inputs.send(input).unwrap();
        }
    }

    fn isolate(&mut self, node: u64) {
        let others = NODES.into_iter().filter(|other| *other != node);
        self.cut.extend(others.flat_map(|other| [(node, other), (other, node)]));
    }

    fn ticking(&self, node: u64) -> usize {
        self.nodes[&node].driver.ticking.len()
    }

    /// Who says that it leads and serves.
    fn leaders(&self, group: u64) -> Vec<u64> {
        let serves = |node: &Node| node.shared[&group].health().serving;
        self.nodes.iter().filter(|(_, node)| serves(node)).map(|(id, _)| *id).collect()
    }

    fn leader(&self, group: u64) -> u64 {
        let leaders = self.leaders(group);
        assert_eq!(leaders.len(), 1, "leaders of {group}: {leaders:?}");
        leaders[0]
    }

    fn is_led(&self, group: u64) {
        self.leader(group);
    }

    fn append(&self, node: u64, group: u64) -> oneshot::Receiver<Result<Appended, AppendError>> {
        let mut builder = BatchBuilder::new();
        assert!(builder.push(&Record::new("a record")));
        let batch = builder.finish(Compression::None, None);
        let header = BatchHeader::verify(&batch).unwrap();
        let append = Append { batch, header, expected_offset: None };
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (outcome, answer) = oneshot::channel();
        let node = &self.nodes[&node];
        let shared = Arc::clone(&node.shared[&group]);
        let reply = AppendReply { outcome, _permit: permit };
        node.inputs.send(Input::Append(AppendRequest { shared, append, reply })).unwrap();
        answer
    }

    fn linearize(&self, node: u64, group: u64) -> oneshot::Receiver<Result<(), ReadError>> {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (reply, answer) = oneshot::channel();
        let node = &self.nodes[&node];
        let shared = Arc::clone(&node.shared[&group]);
        let request = LinearizeRequest { shared, reply, _permit: permit };
        node.inputs.send(Input::Linearize(request)).unwrap();
        answer
    }

    fn appended_everywhere(&mut self, group: u64) {
        let leader = self.leader(group);
        let mut answer = self.append(leader, group);
        self.run_for(LONG_MS);
        let end = answer.try_recv().unwrap().unwrap().base_offset + 1;
        for node in self.nodes.values() {
            assert_eq!(node.shared[&group].progress.borrow().committed_offset, end);
        }
    }
}

#[test]
fn groups_at_rest_send_nothing_and_nodes_little() {
    let mut world = World::at_rest();
    (world.messages, world.pulses, world.turns) = (0, 0, 0);
    world.run_for(60_000);
    assert_eq!(world.messages, 0);
    assert_eq!(world.pulses, 60 * 5 * 6, "five a second, each to each");
    assert!(world.turns <= 60 * 5 * 3, "{} turns", world.turns);
    let leaders: BTreeSet<u64> = GROUPS.map(|group| world.leader(group)).collect();
    assert_eq!(leaders, NODES.into());
}

#[test]
fn an_append_wakes_its_group_alone_and_it_comes_to_rest_again() {
    let mut world = World::at_rest();
    let leader = world.leader(9);
    let mut answer = world.append(leader, 9);
    world.settle();
    assert_eq!(answer.try_recv().unwrap().unwrap().base_offset, 0);
    assert_eq!(world.ticking(leader), 1);
    world.run_for(LONG_MS);
    for node in NODES {
        assert_eq!(world.ticking(node), 0, "node {node}");
    }
    world.appended_everywhere(9);
}

#[test]
fn linearizable_reads_ask_a_majority_also_at_rest() {
    let mut world = World::at_rest();
    for node in NODES {
        let mut answer = world.linearize(node, 9);
        world.settle();
        assert_eq!(answer.try_recv().unwrap(), Ok(()), "by node {node}");
        world.run_for(LONG_MS);
    }
    let leader = world.leader(9);
    world.isolate(leader);
    // At once, before anybody can know of it.
    let mut answer = world.linearize(leader, 9);
    world.settle();
    assert!(answer.try_recv().is_err(), "nobody confirmed it");
    world.run_for(LONG_MS);
    assert!(answer.try_recv().unwrap().is_err());
}

#[test]
fn a_node_that_dies_is_followed_in_all_its_groups() {
    let mut world = World::at_rest();
    let lost: Vec<u64> = GROUPS.filter(|group| world.leader(*group) == 1).collect();
    assert!(lost.len() >= 6);
    world.kill(1);
    world.run_for(FAILOVER_MS);
    for group in GROUPS {
        assert_ne!(world.leader(group), 1);
    }
    // The others rest again, without it.
    world.run_for(LONG_MS);
    assert_eq!((world.ticking(2), world.ticking(3)), (0, 0));
    (world.messages, world.pulses) = (0, 0);
    world.run_for(LONG_MS);
    assert_eq!(world.messages, 0);
    lost.into_iter().for_each(|group| world.appended_everywhere(group));
}

#[test]
fn a_node_that_comes_back_gets_what_was_appended_without_it() {
    let mut world = World::at_rest();
    let fs = world.kill(1);
    world.run_for(LONG_MS);
    GROUPS.for_each(|group| {
        let mut answer = world.append(world.leader(group), group);
        world.run_for(200);
        assert!(answer.try_recv().unwrap().is_ok());
    });
    world.run_for(LONG_MS);
    assert_eq!(world.ticking(2) + world.ticking(3), 0);
    world.start(1, fs);
    world.run_for(LONG_MS);
    for group in GROUPS {
        assert_eq!(world.nodes[&1].shared[&group].progress.borrow().committed_offset, 1);
    }
    for node in NODES {
        assert_eq!(world.ticking(node), 0, "node {node}");
    }
}

#[test]
fn a_new_replica_that_was_away_when_its_group_came_to_rest_gets_everything() {
    const NEW: u64 = 4;
    let mut world = World::at_rest();
    let leader = world.leader(9);
    assert_ne!(leader, NODES[1], "the one that the new replica knows");
    world.append(leader, 9);
    let target = Target { voters: NODES.to_vec(), learners: vec![NEW], newest: NEW };
    for node in world.nodes.values() {
        node.inputs.send(Input::SetTarget(9, target.clone())).unwrap();
    }
    world.run_for(2 * LONG_MS);
    assert_eq!(NODES.map(|node| world.ticking(node)), [0; 3]);
    let learners = world.nodes[&leader].shared[&9].health().membership.learners.clone();
    assert_eq!(learners, [NEW]);
    // It does not know that its leader belongs to its group, and so does not speak to it.
    world.start(NEW, SimFs::new(NEW));
    world.run_for(LONG_MS);
    assert_eq!(world.nodes[&NEW].shared[&9].progress.borrow().committed_offset, 1);
    assert_eq!(NODES.map(|node| world.ticking(node)), [0; 3]);
    world.appended_everywhere(9);
}

#[test]
fn a_group_moves_to_other_nodes_altogether() {
    let mut world = World::at_rest();
    let target = Target { voters: vec![4, 5, 6], learners: Vec::new(), newest: 6 };
    for node in &target.voters {
        world.start(*node, SimFs::new(*node));
    }
    for node in world.nodes.values() {
        node.inputs.send(Input::SetTarget(9, target.clone())).unwrap();
    }
    world.run_for(2 * LONG_MS);
    let leader = world.leader(9);
    assert!(target.voters.contains(&leader), "{leader}");
    let membership = world.nodes[&leader].shared[&9].health().membership.clone();
    assert_eq!(membership.replicas().collect::<BTreeSet<_>>(), [4, 5, 6].into());
}

#[test]
fn a_node_that_restarts_at_once_is_not_taken_for_the_one_before() {
    let mut world = World::at_rest();
    let fs = world.kill(2);
    world.start(2, fs);
    world.run_for(FAILOVER_MS);
    GROUPS.for_each(|group| world.is_led(group));
    world.run_for(LONG_MS);
    GROUPS.for_each(|group| world.appended_everywhere(group));
}

#[test]
fn a_leader_cut_off_at_rest_steps_down_and_is_followed() {
    for one_way in [false, true] {
        let mut world = World::at_rest();
        if one_way {
            // It hears, and is not heard.
            world.cut.extend([(1, 2), (1, 3)]);
        } else {
            world.isolate(1);
        }
        world.run_for(FAILOVER_MS);
        for group in GROUPS {
            assert_ne!(world.leader(group), 1, "one way: {one_way}");
        }
        world.cut.clear();
        world.run_for(LONG_MS);
        GROUPS.for_each(|group| world.appended_everywhere(group));
        assert_eq!(NODES.map(|node| world.ticking(node)), [0; 3]);
    }
}

#[test]
fn lost_pulses_leave_no_group_behind() {
    for lose_every in [2, 3, 5] {
        let mut world = World::new();
        world.lose_every = lose_every;
        for round in 0..3 {
            for group in GROUPS {
                world.append(world.leader(group), group);
                world.run_for(37);
            }
            world.run_for(LONG_MS);
            for group in GROUPS {
                let ends: BTreeSet<u64> = NODES
                    .map(|node| {
                        world.nodes[&node].shared[&group].progress.borrow().committed_offset
                    })
                    .into();
                assert_eq!(ends, [round + 1].into(), "group {group}, 1 of {lose_every} lost");
            }
        }
        world.kill(3);
        world.run_for(2 * FAILOVER_MS);
        GROUPS.for_each(|group| world.is_led(group));
    }
}

#[test]
fn a_replica_that_stops_keeps_its_group_awake_and_the_others_led() {
    let mut world = World::at_rest();
    let leader = world.leader(9);
    let fs = world.nodes[&leader].fs.clone();
    let faults = dislog_log::fs::SimFaults { fail_sync_after: Some(0), ..Default::default() };
    fs.arm(faults);
    let mut answer = world.append(leader, 9);
    world.run_for(FAILOVER_MS);
    assert!(answer.try_recv().unwrap().is_err());
    assert_ne!(world.leader(9), leader);
    for group in GROUPS.filter(|group| *group != 9) {
        world.leader(group);
    }
}
