//! A machine: a disk, a clock, an address, and the node that runs on it, if one does.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use dislog_cluster::sim::SimNode;
use dislog_cluster::{Config, Discovery, OpenError, TopicSettings};
use dislog_log::fs::SimFs;
use dislog_types::time::Clock;

use crate::network::Outbox;
use crate::workload::Answer;

/// When the simulation begins, Unix milliseconds.
const BEGINNING_MS: i64 = 1_700_000_000_000;

/// The time of the world, and how wrong a machine is about the time of day.
#[derive(Debug, Default)]
pub(crate) struct SimClock {
    world_ms: Arc<AtomicU64>,
    wrong_ms: AtomicI64,
}

impl SimClock {
    pub(crate) fn jump(&self, ms: i64) {
        self.wrong_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        let elapsed_ms = i64::try_from(self.elapsed_ms()).expect("simulations are short");
        BEGINNING_MS + elapsed_ms + self.wrong_ms.load(Ordering::Relaxed)
    }

    fn elapsed_ms(&self) -> u64 {
        self.world_ms.load(Ordering::Relaxed)
    }
}

/// A request that a node works on.
pub(crate) struct Pending {
    pub(crate) actor: usize,
    pub(crate) call: u64,
    pub(crate) future: Pin<Box<dyn Future<Output = Answer>>>,
}

/// See the module.
pub(crate) struct Machine {
    pub(crate) address: String,
    pub(crate) fs: SimFs,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) discovery: Discovery,
    /// How often a node was started on it: what belongs to an earlier one is void.
    pub(crate) life: u64,
    pub(crate) node: Option<SimNode>,
    pub(crate) outbox: Outbox,
    pub(crate) pending: Vec<Pending>,
    /// Jobs up to this one have their time.
    pub(crate) jobs_seen: u64,
    /// When the next turn is.
    pub(crate) turn_ms: Option<u64>,
    pub(crate) paused_until_ms: u64,
    /// Its jobs take up to so long.
    pub(crate) sync_ms_max: u64,
    /// It is to be closed in order.
    pub(crate) closing: bool,
    /// It does not come back.
    pub(crate) retired: bool,
    /// Its disk was lost or rotten once: no other's may be.
    pub(crate) unlucky: bool,
}

impl Machine {
    pub(crate) fn new(seed: u64, world_ms: &Arc<AtomicU64>, discovery: Discovery) -> Machine {
        let clock = SimClock { world_ms: Arc::clone(world_ms), wrong_ms: AtomicI64::new(0) };
        Machine {
            address: discovery.address.clone(),
            fs: SimFs::new(seed),
            clock: Arc::new(clock),
            discovery,
            life: 0,
            node: None,
            outbox: Outbox::default(),
            pending: Vec::new(),
            jobs_seen: 0,
            turn_ms: None,
            paused_until_ms: 0,
            sync_ms_max: 3,
            closing: false,
            retired: false,
            unlucky: false,
        }
    }

    /// Starts the node.
    pub(crate) fn start(&mut self) -> Result<(), OpenError> {
        assert!(self.node.is_none(), "one node at a time");
        self.life += 1;
        self.jobs_seen = 0;
        self.closing = false;
        self.outbox = Outbox::default();
        let (fs, clock) = (Arc::new(self.fs.clone()), Arc::<SimClock>::clone(&self.clock));
        let config = config(self.discovery.clone());
        self.node = Some(SimNode::open(config, fs, clock, Arc::new(self.outbox.clone()))?);
        Ok(())
    }

    /// Ends the node between two instructions; the disk keeps what it was given.
    pub(crate) fn kill(&mut self) {
        self.pending.clear();
        self.node = None;
        self.turn_ms = None;
        self.closing = false;
    }
}

fn config(discovery: Discovery) -> Config {
    Config {
        data_dir: PathBuf::from("/data"),
        topic_defaults: TopicSettings {
            retention_bytes: 0,
            retention_ms: 0,
            segment_bytes: 4 << 10,
            replicas: 3,
        },
        appends_in_flight_bytes_max: 64 << 10,
        sync_threads: 1,
        discovery,
    }
}
