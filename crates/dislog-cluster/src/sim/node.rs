//! A node without threads.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dislog_log::fs::Fs;
use dislog_types::TopicName;
use dislog_types::time::Clock;

use super::replica::Replica;
use crate::cluster::{self, Cluster, Parts, Seams};
use crate::discovery::agent::{Agent, Heard};
use crate::error::{OpenError, TopicError};
use crate::metadata::reconciler::{Reconciler, Wake};
use crate::partition::Partition;
use crate::peers::Network;
use crate::raft::driver::Driver;
use crate::raft::sync_threads::{Job, Tools, Workers};
use crate::settings::{Config, Topic, TopicSettings};

/// Turns that the driver is given while somebody waits for it: far more than anything takes.
const WAIT_TURNS_MAX: usize = 10_000;

/// See the module.
pub struct SimNode {
    cluster: Cluster,
    core: Shared,
    reconciler: Reconciler,
    wakes: Receiver<Wake>,
    /// There is a reason to reconcile.
    woken: bool,
    /// When to reconcile again without one, on the scale of `Clock::elapsed_ms`.
    again_ms: Option<u64>,
    agent: Agent,
    heard: Receiver<Heard>,
    clock: Arc<dyn Clock>,
}

/// The driver and its jobs. Nothing while the node is being opened, and after it is finished.
type Shared = Arc<Mutex<Option<Core>>>;

struct Core {
    driver: Driver,
    tools: Tools,
    jobs: Jobs,
}

/// Jobs that wait to be done, by number.
#[derive(Clone, Default)]
struct Jobs(Arc<Mutex<(u64, BTreeMap<u64, Job>)>>);

impl Workers for Jobs {
    fn take(&self, job: Job) {
        let mut jobs = self.lock();
        jobs.0 += 1;
        let number = jobs.0;
        jobs.1.insert(number, job);
    }

    fn end(&self) {}
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Job>)> {
        self.0.lock().expect("nothing panics while the jobs are locked")
    }

    fn remove(&self, number: u64) -> Option<Job> {
        self.lock().1.remove(&number)
    }

    fn numbers(&self) -> Vec<u64> {
        self.lock().1.keys().copied().collect()
    }
}

impl Core {
    fn work(&self, number: u64) {
        if let Some(job) = self.jobs.remove(number) {
            self.tools.work(job);
        }
    }
}

impl SimNode {
    /// Opens a node, as `Cluster::open` does.
    ///
    /// # Errors
    /// If the directory or its metadata cannot be used.
    pub fn open(
        config: Config,
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        network: Arc<dyn Network>,
    ) -> Result<SimNode, OpenError> {
        let core = Shared::default();
        let (started, waiting) = (Arc::clone(&core), Arc::clone(&core));
        let seams = Seams {
            fs,
            clock: Arc::clone(&clock),
            network,
            lock: None,
            start_driver: Box::new(move |config| {
                let (sender, inputs) = mpsc::channel();
                let tools = || Tools { fs: Arc::clone(&config.fs), results: sender.clone() };
                let (ours, its, jobs) = (tools(), tools(), Jobs::default());
                let driver = Driver::new(config, inputs, its, Box::new(jobs.clone()));
                let driver = driver.let_panic();
                *lock(&started) = Some(Core { driver, tools: ours, jobs });
                Ok(sender)
            }),
            wait: Box::new(move |answer| wait(&waiting, answer)),
        };
        let Parts { cluster, reconciler, wakes, agent, heard } = cluster::assemble(config, seams)?;
        let (woken, again_ms) = (true, None);
        Ok(SimNode { cluster, core, reconciler, wakes, woken, again_ms, agent, heard, clock })
    }

    /// The node, as the rest of the program sees it.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Gives the gossip, the reconciler and the driver a turn each; whether the node goes on.
    pub fn turn(&mut self) -> bool {
        let mut told = self.heard.try_recv().ok();
        let mut goes_on = self.agent.turn(told.take());
        while let Ok(heard) = self.heard.try_recv() {
            goes_on = goes_on && self.agent.turn(Some(heard));
        }
        self.look_for_wakes();
        let now_ms = self.clock.elapsed_ms();
        if self.woken || self.again_ms.is_some_and(|again_ms| again_ms <= now_ms) {
            self.woken = false;
            let again = self.reconciler.reconcile();
            let after_ms = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            self.again_ms = again.map(|after| now_ms.saturating_add(after_ms(after)));
        }
        let is_open = match lock(&self.core).as_mut() {
            None => false,
            Some(core) => {
                core.driver.turn(None);
                !core.driver.is_done()
            }
        };
        self.look_for_wakes();
        goes_on && is_open
    }

    fn look_for_wakes(&mut self) {
        while let Ok(wake) = self.wakes.try_recv() {
            self.woken |= matches!(wake, Wake::Changed);
        }
    }

    /// How long until the next turn is due, unless something comes before.
    #[must_use]
    pub fn sleep(&self) -> Option<Duration> {
        if self.woken {
            return Some(Duration::ZERO);
        }
        let now_ms = self.clock.elapsed_ms();
        let again = self.again_ms.map(|ms| Duration::from_millis(ms.saturating_sub(now_ms)));
        let driver = lock(&self.core).as_ref().and_then(|core| core.driver.sleep());
        [again, driver, self.agent.sleep()].into_iter().flatten().min()
    }

    /// The numbers of the jobs that wait to be done; they grow.
    #[must_use]
    pub fn jobs(&self) -> Vec<u64> {
        lock(&self.core).as_ref().map_or(Vec::new(), |core| core.jobs.numbers())
    }

    /// Does a job, if it was not done before. What it came to is taken in with the next turn.
    pub fn work(&mut self, number: u64) {
        if let Some(core) = &*lock(&self.core) {
            core.work(number);
        }
    }

    /// The node was closed and has ended: tells those who wait for that.
    pub fn finish(&mut self) {
        if let Some(core) = lock(&self.core).take() {
            core.driver.finish();
        }
    }

    /// Its replicas, by group.
    #[must_use]
    pub fn replicas(&self) -> Vec<Replica> {
        let core = lock(&self.core);
        core.as_ref().map_or(Vec::new(), |core| core.driver.replicas())
    }

    /// Whether the log of a partition has stopped: an operator would start the node anew.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.cluster.has_stopped()
    }

    /// The metadata, as a partition.
    #[must_use]
    pub fn metadata(&self) -> Option<Partition> {
        self.cluster.metadata_partition()
    }

    /// Creates a topic and does not wait for its partitions to have leaders, which would take a
    /// clock.
    ///
    /// # Errors
    /// As of `Cluster::create_topic`.
    pub async fn create_topic(
        cluster: Cluster,
        name: TopicName,
        partitions: u32,
        settings: TopicSettings,
    ) -> Result<Topic, TopicError> {
        cluster.create(&name, partitions, settings).await
    }
}

fn lock(core: &Shared) -> MutexGuard<'_, Option<Core>> {
    core.lock().expect("a simulation ends with the first panic")
}

/// Lets the driver go on, and does its jobs at once, until it answers.
fn wait(core: &Shared, answer: &Receiver<()>) {
    for _ in 0..WAIT_TURNS_MAX {
        if !matches!(answer.try_recv(), Err(TryRecvError::Empty)) {
            return;
        }
        let mut core = lock(core);
        let Some(core) = core.as_mut() else { return };
        core.driver.turn(None);
        for number in core.jobs.numbers() {
            core.work(number);
        }
    }
    panic!("somebody waits for the driver, and it never answers");
}
