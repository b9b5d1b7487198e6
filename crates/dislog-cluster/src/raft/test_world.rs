//! Three nodes without threads, for tests: time is set by hand, each turn is taken here, and what
//! the nodes send and do to their disks can be held up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use dislog_log::Frame;
use dislog_log::fs::SimFs;
use dislog_types::batch::BatchHeader;
use dislog_types::time::Clock;
use dislog_types::{BatchBuilder, Compression, PartitionId, Record, TopicName};
use tokio::sync::{Semaphore, oneshot};

use super::driver::{Driver, DriverConfig, Input};
use super::group::Observer;
use super::input::{AppendReply, AppendRequest, LinearizeRequest};
use super::open::OpenGroup;
use super::pulse::Pulse;
use super::sync_threads::{Job, Tools, Workers};
use super::transport::{PeerMessage, PeerMessageKind, Transport};
use crate::error::{AppendError, ReadError};
use crate::partition::retention::RetentionPolicy;
use crate::partition::shared::Shared;
use crate::partition::{Append, Appended};

pub(super) const GROUPS: std::ops::Range<u64> = 7..27;
pub(super) const NODES: [u64; 3] = [1, 2, 3];
/// Far longer than it takes to come to rest.
pub(super) const LONG_MS: u64 = 5_000;
/// A lost leader is followed by another within this, whether its groups rest or not.
pub(super) const FAILOVER_MS: u64 = 2_000;

#[derive(Debug, Default)]
pub(super) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + i64::try_from(self.elapsed_ms()).unwrap()
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See [`World::panics_in`].
struct Panics;

impl Observer for Panics {
    fn applied(&mut self, _: &Frame) -> Result<(), String> {
        panic!("as the test wants");
    }
}

/// See [`World::observed`].
struct Looks;

impl Observer for Looks {
    fn applied(&mut self, _: &Frame) -> Result<(), String> {
        Ok(())
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
pub(super) struct Jobs(Arc<Mutex<VecDeque<Job>>>);

impl Workers for Jobs {
    fn take(&self, job: Job) {
        self.0.lock().unwrap().push_back(job);
    }

    fn end(&self) {}
}

pub(super) struct Node {
    pub(super) driver: Driver,
    pub(super) inputs: Sender<Input>,
    tools: Tools,
    jobs: Jobs,
    pub(super) shared: BTreeMap<u64, Arc<Shared>>,
    pub(super) fs: SimFs,
}

pub(super) struct World {
    clock: Arc<TestClock>,
    wire: Wire,
    pub(super) nodes: BTreeMap<u64, Node>,
    /// From, to.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// One pulse of so many is lost.
    pub(super) lose_every: u64,
    /// Its requests for votes are lost.
    pub(super) no_candidate: Option<u64>,
    /// Nodes that lead this group are not done with any sync.
    pub(super) slow_leader_of: Option<u64>,
    /// Nodes that are started panic when they apply a batch of this group.
    pub(super) panics_in: Option<u64>,
    /// Nodes that are started are shown what they apply of this group.
    pub(super) observed: Option<u64>,
    pub(super) pulses: u64,
    pub(super) messages: u64,
    pub(super) turns: u64,
}

impl World {
    /// Three nodes, whose groups have leaders.
    pub(super) fn new() -> World {
        let mut world = World {
            clock: Arc::default(),
            wire: Wire::default(),
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            lose_every: 0,
            no_candidate: None,
            slow_leader_of: None,
            panics_in: None,
            observed: None,
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
    pub(super) fn at_rest() -> World {
        let mut world = World::new();
        world.run_for(LONG_MS);
        for node in NODES {
            assert_eq!(world.ticking(node), 0, "node {node}");
        }
        world
    }

    pub(super) fn start(&mut self, node: u64, fs: SimFs) {
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
                observer: match Some(group) {
                    group if group == self.panics_in => Some(Box::new(Panics)),
                    group if group == self.observed => Some(Box::new(Looks)),
                    _ => None,
                },
            };
            let opened = open.open();
            let (sender, _) = mpsc::channel();
            inputs.send(Input::AddGroup(opened.group.unwrap(), sender)).unwrap();
            shared.insert(group, opened.shared);
        }
        let tools = tools();
        self.nodes.insert(node, Node { driver, inputs, tools, jobs, shared, fs });
    }

    pub(super) fn kill(&mut self, node: u64) -> SimFs {
        self.nodes.remove(&node).unwrap().fs
    }

    /// Lets so much time pass, a turn of each node at each moment at which one is due.
    pub(super) fn run_for(&mut self, ms: u64) {
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
    pub(super) fn settle(&mut self) {
        loop {
            let sent: Vec<_> = self.wire.lock().unwrap().drain(..).collect();
            let mut jobs = 0;
            for (id, node) in &mut self.nodes {
                node.driver.turn(None);
                let leads = |group| node.driver.groups[&group].leader() == *id;
                if self.slow_leader_of.is_some_and(leads) {
                    continue;
                }
                let some: Vec<Job> = node.jobs.0.lock().unwrap().drain(..).collect();
                jobs += some.len();
                for job in some {
                    node.tools.work(job);
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
                let asks = message.kind() == PeerMessageKind::RequestPreVote;
                if asks && self.no_candidate == Some(from) {
                    return;
                }
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

    pub(super) fn isolate(&mut self, node: u64) {
        let others = NODES.into_iter().filter(|other| *other != node);
        self.cut.extend(others.flat_map(|other| [(node, other), (other, node)]));
    }

    pub(super) fn ticking(&self, node: u64) -> usize {
        self.nodes[&node].driver.ticking.len()
    }

    /// Who says that it leads and serves.
    pub(super) fn leaders(&self, group: u64) -> Vec<u64> {
        let serves = |node: &Node| node.shared[&group].health().serving;
        self.nodes.iter().filter(|(_, node)| serves(node)).map(|(id, _)| *id).collect()
    }

    pub(super) fn leader(&self, group: u64) -> u64 {
        let leaders = self.leaders(group);
        assert_eq!(leaders.len(), 1, "leaders of {group}: {leaders:?}");
        leaders[0]
    }

    pub(super) fn is_led(&self, group: u64) {
        self.leader(group);
    }

    pub(super) fn append(
        &self,
        node: u64,
        group: u64,
    ) -> oneshot::Receiver<Result<Appended, AppendError>> {
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

    pub(super) fn linearize(
        &self,
        node: u64,
        group: u64,
    ) -> oneshot::Receiver<Result<(), ReadError>> {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (reply, answer) = oneshot::channel();
        let node = &self.nodes[&node];
        let shared = Arc::clone(&node.shared[&group]);
        let request = LinearizeRequest { shared, reply, _permit: permit };
        node.inputs.send(Input::Linearize(request)).unwrap();
        answer
    }

    pub(super) fn appended_everywhere(&mut self, group: u64) {
        let leader = self.leader(group);
        let mut answer = self.append(leader, group);
        self.run_for(LONG_MS);
        let end = answer.try_recv().unwrap().unwrap().base_offset + 1;
        for node in self.nodes.values() {
            assert_eq!(node.shared[&group].progress.borrow().committed_offset, end);
        }
    }
}
