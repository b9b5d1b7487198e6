//! The world: time, machines, wires, clients, and the order in which things happen. One thread; all
//! chance comes from one seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use dislog_cluster::sim::Replica;
use dislog_cluster::{Discovery, PeerFrame};
use dislog_log::Log;
use std::time::Duration;

use crate::actor::Actor;
use crate::faults::Faults;
use crate::machine::{Machine, Pending};
use crate::network::{Weather, Wires};
use crate::oracle::{Oracle, Violation, named};
use crate::properties::must;
use crate::random::Random;
use crate::trace::{Trace, digest};
use crate::workload::{Answer, Request, begin};

/// After so long away, a node's replicas are given to others.
const REPLACE_AFTER: Duration = Duration::from_secs(10);

/// How long clients work between two lulls.
const WORK_MS: u64 = 1_000;

/// How often the logs of all replicas are compared.
const COMPARE_MS: u64 = 2_000;

/// The most that may happen in a run, which is far more than does: nodes that keep each other busy
/// for ever would otherwise never let it end.
const STEPS_MAX: u64 = 3_000_000;

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A machine's node has something to do.
    Turn { machine: usize, life: u64 },
    /// A frame arrives.
    Deliver { to: usize, frame: Bytes },
    /// A job of a node is done.
    Work { machine: usize, life: u64, job: u64 },
    /// A client's next request.
    Ask { actor: usize },
    /// A request arrives.
    Request { actor: usize, call: u64, machine: usize, request: Request },
    /// An answer arrives.
    Answer { actor: usize, call: u64, answer: Answer },
    /// A client has waited long enough.
    Timeout { actor: usize, call: u64 },
    /// The next fault.
    Fault,
    /// A fault ends.
    Mend(Mend),
}

/// How a fault ends.
#[derive(Clone, Debug)]
pub(crate) enum Mend {
    /// All wires are whole.
    Wires,
    /// The network is calm.
    Weather,
    /// A node starts.
    Start(usize),
    /// A disk has room, and is as fast as it was.
    Disk(usize),
    /// A node is ended and started: its operator has seen that its disk failed.
    Restart(usize),
    /// A drained node ends, if it has nothing left.
    Retire(usize),
}

/// See the module.
pub(crate) struct World {
    pub(crate) now_ms: u64,
    shared_ms: Arc<AtomicU64>,
    pub(crate) random: Random,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(crate) steps: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) wires: Wires,
    pub(crate) actors: Vec<Actor>,
    attempts: u64,
    pub(crate) oracle: Oracle,
    pub(crate) faults: Faults,
    pub(crate) trace: Trace,
    compare_ms: u64,
    /// Now and then clients do nothing for so long, so that groups rest; 0: never.
    lull_ms: u64,
    /// Turns after which a replica rested, and others not.
    pub(crate) rests: u64,
}

impl World {
    pub(crate) fn new(seed: u64, prints: bool) -> World {
        let mut random = Random::new(seed);
        let faults = Faults::draw(&mut random);
        let lull_ms = [0, 2_500, 4_000][random.index(3)];
        World {
            now_ms: 0,
            shared_ms: Arc::new(AtomicU64::new(0)),
            random,
            events: BTreeMap::new(),
            scheduled: 0,
            steps: 0,
            machines: Vec::new(),
            wires: Wires::new(),
            actors: Vec::new(),
            attempts: 0,
            oracle: Oracle::default(),
            faults,
            trace: Trace::new(prints),
            compare_ms: 0,
            lull_ms,
            rests: 0,
        }
    }

    /// Adds a machine, without a node. `expect` nodes form a cluster; 0: it joins one.
    pub(crate) fn add_machine(&mut self, expect: u32) -> usize {
        let number = self.machines.len();
        let seeds = (0..3).map(address).collect();
        let discovery = Discovery {
            address: address(number),
            name: String::new(),
            rack: String::new(),
            seeds,
            bootstrap_expect: expect,
            replace_after: REPLACE_AFTER,
        };
        let seed = self.random.next();
        self.machines.push(Machine::new(seed, &self.shared_ms, discovery));
        number
    }

    pub(crate) fn add_actor(&mut self, actor: Actor) -> usize {
        let number = self.actors.len();
        self.actors.push(actor);
        let after_ms = self.random.below(100);
        self.after(after_ms, Event::Ask { actor: number });
        number
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now_ms + ms, self.scheduled), event);
    }

    /// Lets everything happen up to a time.
    pub(crate) fn run_until(&mut self, until_ms: u64) -> Result<(), Violation> {
        while let Some(entry) = self.events.first_entry() {
            let at_ms = entry.key().0;
            if at_ms > until_ms {
                break;
            }
            let event = entry.remove();
            self.set_time(at_ms);
            self.steps += 1;
            named("progress", must(self.steps <= STEPS_MAX, || self.busy()))?;
            self.happen(event)?;
            if self.now_ms >= self.compare_ms {
                self.compare_ms = self.now_ms + COMPARE_MS;
                self.compare()?;
            }
        }
        self.set_time(until_ms);
        Ok(())
    }

    /// What keeps the world from ending.
    fn busy(&self) -> String {
        let waiting = self.events.values().filter(|it| matches!(it, Event::Deliver { .. })).count();
        let now_ms = self.now_ms;
        format!("{STEPS_MAX} steps lead to {now_ms} ms only; {waiting} frames are on their way")
    }

    fn set_time(&mut self, at_ms: u64) {
        self.now_ms = at_ms;
        self.shared_ms.store(at_ms, Ordering::Relaxed);
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Turn { machine, life } => {
                let due = self.machines[machine].turn_ms.is_some_and(|ms| ms <= self.now_ms);
                if due && self.machines[machine].life == life {
                    self.turn(machine)?;
                }
            }
            Event::Deliver { to, frame } => self.deliver(to, frame),
            Event::Work { machine, life, job } => self.work(machine, life, job),
            Event::Ask { actor } => self.ask(actor),
            Event::Request { actor, call, machine, request } => {
                self.request(actor, call, machine, request);
            }
            Event::Answer { actor, call, answer } => self.answer(actor, call, answer)?,
            Event::Timeout { actor, call } => self.timeout(actor, call),
            Event::Fault => self.fault(),
            Event::Mend(mend) => self.mend(&mend),
        }
        Ok(())
    }

    /// A node has something to do at once, or as soon as its machine goes on.
    pub(crate) fn wake(&mut self, machine: usize, after_ms: u64) {
        let it = &self.machines[machine];
        if it.node.is_none() {
            return;
        }
        let at_ms = (self.now_ms + after_ms).max(it.paused_until_ms);
        if it.turn_ms.is_none_or(|turn_ms| turn_ms > at_ms || turn_ms < self.now_ms) {
            let life = it.life;
            self.machines[machine].turn_ms = Some(at_ms);
            self.after(at_ms - self.now_ms, Event::Turn { machine, life });
        }
    }

    fn turn(&mut self, machine: usize) -> Result<(), Violation> {
        let it = &mut self.machines[machine];
        it.turn_ms = None;
        let life = it.life;
        let Some(node) = &mut it.node else { return Ok(()) };
        let goes_on = node.turn();
        let (replicas, stopped) = (node.replicas(), node.has_stopped());
        self.rests += replicas.iter().filter(|replica| replica.rests).count() as u64;
        self.trace_turn(machine, &replicas);
        self.oracle.look(machine, life, &replicas)?;
        self.poll(machine);
        self.send(machine);
        self.schedule_work(machine);
        if !goes_on && self.machines[machine].closing {
            self.finish(machine);
            return Ok(());
        }
        if stopped && !self.machines[machine].closing {
            self.operator_sees(machine);
        }
        let node = self.machines[machine].node.as_ref();
        if let Some(left) = node.and_then(dislog_cluster::sim::SimNode::sleep) {
            let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            self.wake(machine, left_ms.clamp(1, 60_000));
        }
        Ok(())
    }

    fn trace_turn(&mut self, machine: usize, replicas: &[Replica]) {
        for replica in replicas {
            let Replica { group, replica: id, term, leads, committed, applied, .. } = replica;
            let durable = replica.log.as_ref().map_or(0, |log| log.bounds().durable_raft_index);
            let who = [machine as u64, *group, *id, u64::from(*leads)];
            let has = [*term, *committed, *applied, durable];
            self.trace.words(self.now_ms, [who, has].as_flattened(), || {
                let leads = if *leads { "leads" } else { "" };
                let has = format!("t{term} c{committed} a{applied} d{durable}");
                format!("m{machine} g{group:x} r{id:x} {has} {leads}")
            });
        }
    }

    /// Goes on with the requests that a node works on.
    fn poll(&mut self, machine: usize) {
        let mut context = Context::from_waker(Waker::noop());
        let pending = std::mem::take(&mut self.machines[machine].pending);
        let mut left = Vec::with_capacity(pending.len());
        for mut request in pending {
            match request.future.as_mut().poll(&mut context) {
                Poll::Pending => left.push(request),
                Poll::Ready(answer) => {
                    let Pending { actor, call, .. } = request;
                    let after_ms = self.random.below(4);
                    // An answer may be lost; then its client waits in vain.
                    if !self.random.permille(self.faults.answer_loss_permille) {
                        self.after(after_ms, Event::Answer { actor, call, answer });
                    }
                }
            }
        }
        self.machines[machine].pending = left;
    }

    fn send(&mut self, machine: usize) {
        for (address, frame) in self.machines[machine].outbox.take() {
            let to = self.machines.iter().position(|it| it.address == *address);
            let Some(to) = to else { continue };
            for delay_ms in self.wires.delays_ms(machine, to, &mut self.random) {
                self.after(delay_ms, Event::Deliver { to, frame: frame.clone() });
            }
        }
    }

    fn schedule_work(&mut self, machine: usize) {
        let it = &mut self.machines[machine];
        let Some(node) = &it.node else { return };
        let (life, seen, max_ms) = (it.life, it.jobs_seen, it.sync_ms_max);
        let new: Vec<u64> = node.jobs().into_iter().filter(|job| *job > seen).collect();
        for job in new {
            self.machines[machine].jobs_seen = job;
            let after_ms = self.random.below(max_ms);
            self.after(after_ms, Event::Work { machine, life, job });
        }
    }

    fn deliver(&mut self, to: usize, frame: Bytes) {
        let it = &self.machines[to];
        if it.paused_until_ms > self.now_ms {
            let after_ms = it.paused_until_ms - self.now_ms;
            self.after(after_ms, Event::Deliver { to, frame });
            return;
        }
        let words = [to as u64, digest(&frame)];
        self.trace.words(self.now_ms, &words, || format!("m{to} gets {} bytes", frame.len()));
        if let (Some(node), Ok(frame)) = (&it.node, PeerFrame::decode_from(frame)) {
            node.cluster().receive(frame);
            self.wake(to, 0);
        }
    }

    fn work(&mut self, machine: usize, life: u64, job: u64) {
        let it = &mut self.machines[machine];
        if it.life != life {
            return;
        }
        if it.paused_until_ms > self.now_ms {
            let after_ms = it.paused_until_ms - self.now_ms;
            self.after(after_ms, Event::Work { machine, life, job });
            return;
        }
        if let Some(node) = &mut it.node {
            node.work(job);
            self.wake(machine, 0);
        }
    }

    fn ask(&mut self, actor: usize) {
        let machines = self.machines.len();
        let it = &mut self.actors[actor];
        if it.waits || it.done {
            return;
        }
        let until_work_ms = lull_left_ms(self.now_ms, self.lull_ms);
        if until_work_ms > 0 {
            self.after(until_work_ms, Event::Ask { actor });
            return;
        }
        if it.target >= machines {
            it.target = self.random.index(machines);
        }
        let machine = it.target;
        let (request, wait_ms) = it.ask(&self.oracle, &mut self.attempts, &mut self.random);
        let call = it.call;
        let after_ms = self.random.below(4);
        self.after(after_ms, Event::Request { actor, call, machine, request });
        self.after(wait_ms, Event::Timeout { actor, call });
    }

    fn request(&mut self, actor: usize, call: u64, machine: usize, request: Request) {
        let it = &mut self.machines[machine];
        if it.paused_until_ms > self.now_ms {
            let after_ms = it.paused_until_ms - self.now_ms;
            self.after(after_ms, Event::Request { actor, call, machine, request });
            return;
        }
        let Some(node) = &it.node else { return };
        let future = begin(node, request);
        it.pending.push(Pending { actor, call, future });
        self.poll(machine);
        self.wake(machine, 0);
    }

    fn answer(&mut self, actor: usize, call: u64, answer: Answer) -> Result<(), Violation> {
        let it = &mut self.actors[actor];
        if !it.waits || it.call != call {
            return Ok(());
        }
        let words = [actor as u64, answer.body.digest()];
        self.trace.words(self.now_ms, &words, || format!("c{actor} {:?}", answer.body));
        let hint = answer.hint.clone();
        let after_ms = it.answer(answer, &mut self.oracle, &mut self.random)?;
        if it.target == usize::MAX
            && let Some(hint) = hint
            && let Some(machine) = self.machines.iter().position(|it| it.address == hint)
        {
            it.target = machine;
        }
        self.after(after_ms, Event::Ask { actor });
        Ok(())
    }

    fn timeout(&mut self, actor: usize, call: u64) {
        let it = &mut self.actors[actor];
        if !it.waits || it.call != call {
            return;
        }
        let machine = it.target;
        let after_ms = it.timed_out();
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.pending.retain(|pending| (pending.actor, pending.call) != (actor, call));
        }
        self.after(after_ms, Event::Ask { actor });
    }

    /// Starts the node of a machine, unless one is there.
    pub(crate) fn start(&mut self, machine: usize) {
        let it = &mut self.machines[machine];
        if it.node.is_some() || it.retired {
            return;
        }
        let started = it.start();
        self.trace.line(self.now_ms, &format!("m{machine} starts: {:?}", started.is_ok()));
        match started {
            Ok(()) => self.wake(machine, 0),
            Err(error) => {
                // Its disk fails, or its metadata is damaged; it is tried again.
                self.trace.line(self.now_ms, &format!("m{machine}: {error}"));
                self.machines[machine].kill();
                self.after(1_000, Event::Mend(Mend::Start(machine)));
            }
        }
    }

    /// The node has closed in order.
    fn finish(&mut self, machine: usize) {
        if let Some(node) = &mut self.machines[machine].node {
            node.finish();
        }
        self.machines[machine].kill();
        self.trace.line(self.now_ms, &format!("m{machine} has closed"));
    }

    /// All replicas of all nodes that are there.
    pub(crate) fn replicas(&self) -> Vec<Replica> {
        let nodes = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        nodes.flat_map(dislog_cluster::sim::SimNode::replicas).collect()
    }

    fn compare(&self) -> Result<(), Violation> {
        let mut logs: BTreeMap<u64, Vec<(Log, u64)>> = BTreeMap::new();
        for replica in self.replicas().into_iter().filter(|replica| !replica.installing) {
            let log = replica.log.map(|log| (log, replica.applied));
            logs.entry(replica.group).or_default().extend(log);
        }
        logs.values().try_for_each(|logs| self.oracle.compare(logs))
    }

    /// Takes away all faults.
    pub(crate) fn heal(&mut self) {
        self.trace.line(self.now_ms, "heals");
        self.faults.end();
        self.wires.mend();
        self.wires.weather = Weather::CALM;
        for machine in 0..self.machines.len() {
            self.mend(&Mend::Disk(machine));
            self.machines[machine].paused_until_ms = 0;
            self.wake(machine, 0);
            self.start(machine);
        }
    }
}

/// Where a machine is.
pub(crate) fn address(number: usize) -> String {
    format!("m{number}:1")
}

/// How long a lull goes on, if there is one.
fn lull_left_ms(now_ms: u64, lull_ms: u64) -> u64 {
    let into_ms = now_ms % (WORK_MS + lull_ms);
    if into_ms < WORK_MS { 0 } else { WORK_MS + lull_ms - into_ms }
}
