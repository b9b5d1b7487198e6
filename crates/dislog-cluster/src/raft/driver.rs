//! The driver: one thread that drives every group of a node.
//!
//! ```text
//!   appends, trims, reads ──┐                       ┌─ sync threads: vote, sync, checkpoint, trim
//!   messages of peers ──────┼─► one channel ─► driver
//!   results of the threads ─┘        ▲              └─ messages to peers
//!                                    └── results
//! ```
//!
//! A turn of the loop: wait for an input, take all there are, pump each group that was touched.
//! Nothing in it blocks but the wait itself and, as long as there are no peers, a small sync that
//! is the only one ([`Driver::begin_syncs`]). An idle node's driver does not run at all: the wait
//! has a time-out only if something is due at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io, process};

use dislog_log::fs::Fs;
use dislog_types::time::Clock;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::oneshot;

use super::group::{self, Group};
pub(crate) use super::input::Input;
use super::pulse::Pulses;
use super::rim::{CatchUp, DiskSpace, Rim};
use super::sync_threads::{Job, SyncJob, SyncThreads, Tools, Workers};
use super::transport::Transport;
use crate::error::ReadError;
use crate::partition::shared::{Fault, Life, Shared};

/// Inputs taken before the groups are pumped: enough to share the work of a turn, few enough that
/// the first is not kept waiting.
const INPUTS_PER_TURN_MAX: usize = 1_024;

/// The longest the driver sleeps towards a time of day: clocks are set, and then the time comes
/// sooner.
const SLEEP_MAX: Duration = Duration::from_secs(600);

/// Syncs of fewer bytes may be done by the driver.
const SYNC_HERE_BYTES_MAX: u64 = 64 << 10;

/// How often groups with peers are told of the passing of time, milliseconds.
const TICK_MS: u64 = 100;

/// What a driver works with.
pub(crate) struct DriverConfig {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) transport: Box<dyn Transport>,
    /// Told when a group has another leader or other members.
    pub(crate) changed: Box<dyn Fn() + Send>,
    pub(crate) data_dir: PathBuf,
    pub(crate) sync_threads: usize,
    /// Held until the driver has ended, so that nobody else opens the directory before.
    pub(crate) lock: Option<fs::File>,
}

/// See the module. A turn needs neither the thread nor the time of the machine, so that the
/// simulator can take it.
pub(crate) struct Driver {
    inputs: Receiver<Input>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rim: Rim,
    /// In order, so that a turn does the same whenever it has the same to do.
    pub(super) groups: BTreeMap<u64, Group>,
    /// Groups touched in this turn.
    pub(super) touched: Vec<u64>,
    /// The last group that something was done to.
    in_hand: Option<u64>,
    /// A panic stops its group, and not the node.
    contains: bool,
    /// Groups that are told of the passing of time.
    pub(super) ticking: BTreeSet<u64>,
    /// Groups that would rest if other nodes agreed.
    pub(super) offered: BTreeSet<u64>,
    pub(super) pulses: Pulses,
    deadlines: Deadlines,
    /// On the scale of `Clock::elapsed_ms`.
    next_tick_ms: Option<u64>,
    closing: Option<Vec<oneshot::Sender<()>>>,
    /// For the syncs that the driver does itself.
    tools: Tools,
    syncs_under_way: usize,
    lock: Option<fs::File>,
}

/// Starts a driver without groups; it ends after [`Input::Close`].
pub(crate) fn start(config: DriverConfig) -> io::Result<Sender<Input>> {
    let (sender, inputs) = mpsc::channel();
    let (fs, results) = (Arc::clone(&config.fs), sender.clone());
    let tools = || Tools { fs: Arc::clone(&fs), results: results.clone() };
    let (threads, sync_threads) = SyncThreads::start(config.sync_threads, tools)?;
    let driver = Driver::new(config, inputs, tools(), Box::new(threads));
    let run = move || {
        let _guard = AbortOnPanic;
        driver.run(sync_threads);
    };
    thread::Builder::new().name("dislog-driver".to_owned()).spawn(run)?;
    Ok(sender)
}

/// A node whose driver is gone would look alive and serve nobody: better it ends, and starts anew.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("the driver panicked; ending the process");
            process::abort();
        }
    }
}

impl Driver {
    /// A driver without groups, whose jobs are done by `threads`.
    pub(crate) fn new(
        config: DriverConfig,
        inputs: Receiver<Input>,
        tools: Tools,
        threads: Box<dyn Workers>,
    ) -> Driver {
        Driver {
            tools,
            syncs_under_way: 0,
            inputs,
            pulses: Pulses::new(config.fs.random()),
            ticking: BTreeSet::new(),
            offered: BTreeSet::new(),
            rim: Rim {
                threads,
                syncs: Vec::new(),
                ahead: Vec::new(),
                transport: config.transport,
                changed: config.changed,
                members_changed: false,
                random: StdRng::seed_from_u64(config.fs.random()),
                catch_up: CatchUp::default(),
                disk: DiskSpace::new(config.fs, config.data_dir),
                now_ms: config.clock.now_ms(),
            },
            clock: config.clock,
            groups: BTreeMap::new(),
            touched: Vec::new(),
            in_hand: None,
            contains: true,
            deadlines: Deadlines::default(),
            next_tick_ms: None,
            closing: None,
            lock: config.lock,
        }
    }

    /// The simulator is to notice every panic.
    #[cfg(feature = "sim")]
    pub(crate) fn let_panic(mut self) -> Driver {
        self.contains = false;
        self
    }

    /// Its replicas, for the simulator to judge.
    #[cfg(feature = "sim")]
    pub(crate) fn replicas(&self) -> Vec<crate::sim::Replica> {
        self.groups.values().map(Group::replica).collect()
    }

    fn run(mut self, sync_threads: Vec<JoinHandle<()>>) {
        while !self.is_done() {
            let first = self.wait();
            self.turn(first);
        }
        self.rim.threads.end();
        for thread in sync_threads {
            if thread.join().is_err() {
                tracing::error!("a sync thread had panicked");
            }
        }
        self.finish();
    }

    /// It was told to close, and every group has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.closing.is_some() && self.groups.is_empty()
    }

    /// Takes what there is and does what follows from it. Does not wait.
    pub(crate) fn turn(&mut self, first: Option<Input>) {
        self.rim.now_ms = self.clock.now_ms();
        if let Some(input) = first {
            self.contain(|driver| driver.take(input));
        }
        for _ in 1..INPUTS_PER_TURN_MAX {
            let Ok(input) = self.inputs.try_recv() else { break };
            self.contain(|driver| driver.take(input));
        }
        self.look_for_silence();
        self.tick();
        self.touched.extend(self.deadlines.due(self.rim.now_ms));
        self.pump();
        self.send_pulses();
        self.rim.transport.flush();
        self.begin_syncs();
    }

    /// Does something to a group. What the group or Raft's core panics about, because it should
    /// never be, stops that group alone.
    fn contain(&mut self, work: impl FnOnce(&mut Driver)) {
        self.in_hand = None;
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) else { return };
        match self.in_hand.and_then(|number| self.groups.get_mut(&number)) {
            Some(group) if self.contains => {
                let message = "it panicked; see the messages on standard error".to_owned();
                group.stop(Fault::Stopped(message));
            }
            _ => resume_unwind(panic),
        }
    }

    /// How long until something is due, unless there is an input before; none if nothing is.
    pub(crate) fn sleep(&self) -> Option<Duration> {
        let elapsed_ms = self.clock.elapsed_ms();
        let next_ms = self.next_tick_ms.into_iter().chain(self.pulses.deadline_ms()).min();
        let until_tick =
            next_ms.map(|next_ms| Duration::from_millis(next_ms.saturating_sub(elapsed_ms)));
        let until_deadline = self.deadlines.next_ms().map(|deadline_ms| {
            let left_ms = deadline_ms.saturating_sub(self.clock.now_ms()).max(0);
            Duration::from_millis(left_ms.unsigned_abs()).min(SLEEP_MAX)
        });
        until_tick.into_iter().chain(until_deadline).min()
    }

    /// The next input; none if something is due first.
    fn wait(&mut self) -> Option<Input> {
        let input = match self.sleep() {
            None => self.inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(left) => self.inputs.recv_timeout(left),
        };
        match input {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the sync threads hold senders"),
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            // produce 3: the driver takes the append from its channel, in the order of submission.
            Input::Append(request) => match self.touch(request.shared.group) {
                Some((group, rim)) => group.append(request, rim),
                None => request.reply.send(Err(gone(&request.shared))),
            },
            Input::Trim(request) => match self.touch(request.shared.group) {
                Some((group, rim)) => group.trim(request, rim.now_ms),
                None => drop(request.reply.send(Err(gone(&request.shared)))),
            },
            Input::Linearize(request) => match self.touch(request.shared.group) {
                Some((group, _)) => group.linearize(request),
                None => {
                    let error = ReadError::NoLeader(request.shared.id.clone());
                    drop(request.reply.send(Err(error)));
                }
            },
            Input::Synced(synced) => {
                self.syncs_under_way -= 1;
                if let Some((group, rim)) = self.touch(synced.group) {
                    group.synced(synced, rim);
                }
            }
            Input::Kept(kept) => {
                if let Some((group, rim)) = self.touch(kept.group) {
                    group.kept(kept, rim);
                }
            }
            Input::Fetched(fetched) => {
                if let Some((group, rim)) = self.touch(fetched.group) {
                    group.fetched(fetched, rim);
                }
            }
            Input::Message(message) => {
                if let Some((group, _)) = self.touch(message.group) {
                    group.message(message);
                }
            }
            Input::Pulse(node, pulse) => self.hear(node, &pulse),
            Input::Installed(installed) => {
                if let Some((group, rim)) = self.touch(installed.group) {
                    group.installed(installed, rim);
                }
            }
            Input::SetTarget(number, target) => {
                if let Some((group, _)) = self.touch(number) {
                    group.set_target(target);
                }
            }
            Input::TransferLeader(number, replica) => {
                if let Some((group, _)) = self.touch(number) {
                    group.hand_over_to(vec![replica]);
                }
            }
            Input::AddGroup(group, opened) => self.add(*group, opened),
            Input::SetRetention(number, policy) => {
                if let Some((group, _)) = self.touch(number) {
                    group.set_retention(policy);
                }
            }
            Input::EndGroup(number, life, done) => {
                if let Some((group, rim)) = self.touch(number) {
                    group.end(life, Some(done), rim.now_ms);
                }
            }
            Input::Close(done) => self.close(done),
        }
    }

    /// The group, to be pumped at the end of the turn.
    pub(super) fn touch(&mut self, number: u64) -> Option<(&mut Group, &mut Rim)> {
        let group = self.groups.get_mut(&number)?;
        self.in_hand = Some(number);
        self.touched.push(number);
        Some((group, &mut self.rim))
    }

    fn add(&mut self, mut group: Group, opened: Sender<()>) {
        let number = group.number();
        if self.closing.is_some() {
            group.end(Life::Closing, None, self.rim.now_ms);
        } else {
            group.start(opened);
        }
        let before = self.groups.insert(number, group);
        assert!(before.is_none(), "a group is added once");
        self.pulses.refuse_all(number);
        self.rim.members_changed = true;
        self.touched.push(number);
    }

    fn tick(&mut self) {
        let now_ms = self.clock.elapsed_ms();
        if self.next_tick_ms.is_none_or(|tick_ms| now_ms < tick_ms) {
            return;
        }
        let ticking: Vec<u64> = self.ticking.iter().copied().collect();
        self.next_tick_ms = (!ticking.is_empty()).then_some(now_ms + TICK_MS);
        for number in ticking {
            self.contain(|driver| {
                let Some((group, rim)) = driver.touch(number) else { return };
                if group.tick(&mut rim.random) {
                    driver.offer(number);
                }
            });
        }
    }

    fn pump(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for number in touched.drain(..) {
            self.contain(|driver| {
                driver.in_hand = Some(number);
                if let Some(group) = driver.groups.get_mut(&number) {
                    group.pump(&mut driver.rim);
                }
            });
            let Some(group) = self.groups.get_mut(&number) else { continue };
            if group.has_ended() {
                group.let_go(&mut self.rim);
                self.deadlines.set(number, None);
                self.groups.remove(&number);
                self.forget_rest(number);
                self.rim.members_changed = true;
            } else {
                self.deadlines.set(number, group.deadline_ms());
                self.keep_time(number);
            }
        }
        if self.next_tick_ms.is_none() && !self.ticking.is_empty() {
            self.next_tick_ms = Some(self.clock.elapsed_ms() + TICK_MS);
        }
        self.touched = touched;
    }

    /// Hands the syncs of this turn to the threads. A single small one, with no other under way, is
    /// done here and now: nothing else could be decided before it ends that would not wait for the
    /// next, and two changes of threads are saved. Not a large one, during which the next can be
    /// written; and not with peers, who must hear from this node however slow its disk is.
    fn begin_syncs(&mut self) {
        let here = |syncs: &[SyncJob]| matches!(syncs, [job] if job.bytes < SYNC_HERE_BYTES_MAX);
        let alone = self.ticking.is_empty() && self.pulses.is_alone();
        while here(&self.rim.syncs) && self.syncs_under_way == 0 && alone {
            let job = self.rim.syncs.pop().expect("there is one");
            self.syncs_under_way += 1;
            let synced = self.tools.sync(&job);
            self.take(Input::Synced(synced));
            self.pump();
        }
        for job in self.rim.syncs.drain(..) {
            self.syncs_under_way += 1;
            self.rim.threads.take(Job::Sync(job));
        }
        for job in self.rim.ahead.drain(..) {
            self.rim.threads.take(Job::Ahead(job));
        }
    }

    fn close(&mut self, done: Option<oneshot::Sender<()>>) {
        self.closing.get_or_insert_default().extend(done);
        for (&number, group) in &mut self.groups {
            group.end(Life::Closing, None, self.rim.now_ms);
            self.touched.push(number);
        }
    }

    /// Every group and every thread has ended: the directory is let go, then those who wait are
    /// told.
    pub(crate) fn finish(mut self) {
        drop(self.lock.take());
        while let Ok(input) = self.inputs.try_recv() {
            self.take(input);
        }
        for done in self.closing.take().unwrap_or_default() {
            let _ = done.send(());
        }
    }
}

fn gone(shared: &Shared) -> crate::error::AppendError {
    let life = shared.health().life;
    group::ended(shared, life)
}

/// When groups want to be pumped without any input.
#[derive(Default)]
struct Deadlines {
    by_time: BTreeSet<(i64, u64)>,
    by_group: HashMap<u64, i64>,
}

impl Deadlines {
    fn set(&mut self, group: u64, deadline_ms: Option<i64>) {
        let before = match deadline_ms {
            Some(deadline_ms) => self.by_group.insert(group, deadline_ms),
            None => self.by_group.remove(&group),
        };
        if before == deadline_ms {
            return;
        }
        if let Some(before_ms) = before {
            self.by_time.remove(&(before_ms, group));
        }
        if let Some(deadline_ms) = deadline_ms {
            self.by_time.insert((deadline_ms, group));
        }
    }

    fn next_ms(&self) -> Option<i64> {
        self.by_time.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    fn due(&self, now_ms: i64) -> impl Iterator<Item = u64> + '_ {
        self.by_time.range(..=(now_ms, u64::MAX)).map(|(_, group)| *group)
    }
}
