//! What goes wrong, and when. Each seed draws which kinds of faults it has, so that some runs have
//! many of few kinds: what is rare together with everything else is then common.

use std::task::{Context, Waker};

use dislog_log::fs::{SimFaults, SimFs};

use crate::actor::{Actor, Work};
use crate::network::Weather;
use crate::random::Random;
use crate::workload::partition;
use crate::world::{Event, Mend, World};

/// The most machines there are, those included that were lost or retired.
const MACHINES_MAX: usize = 6;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One machine hears and is heard by nobody.
    Isolate,
    /// The machines are in two halves.
    Split,
    /// One machine does not reach another, which reaches it.
    OneWay,
    /// Frames are lost, doubled, late.
    Weather,
    /// A machine loses its power.
    PowerCut,
    /// All machines lose their power.
    AllPowerCut,
    /// A node is killed; its machine goes on.
    Kill,
    /// A node is closed in order.
    Close,
    /// A machine stands still.
    Pause,
    /// A clock is set.
    ClockJump,
    /// A disk is slow.
    SlowDisk,
    /// A disk fails to sync.
    FailedSync,
    /// A disk is full.
    FullDisk,
    /// A bit of a sealed segment flips.
    Rot,
    /// A disk is replaced by an empty one.
    LostDisk,
    /// A node joins.
    Join,
    /// A node is drained and leaves.
    Leave,
}

const KINDS: [Kind; 17] = [
    Kind::Isolate,
    Kind::Split,
    Kind::OneWay,
    Kind::Weather,
    Kind::PowerCut,
    Kind::AllPowerCut,
    Kind::Kill,
    Kind::Close,
    Kind::Pause,
    Kind::ClockJump,
    Kind::SlowDisk,
    Kind::FailedSync,
    Kind::FullDisk,
    Kind::Rot,
    Kind::LostDisk,
    Kind::Join,
    Kind::Leave,
];

/// The faults of a run.
#[derive(Debug)]
pub(crate) struct Faults {
    kinds: Vec<Kind>,
    pause_ms_max: u64,
    pub(crate) answer_loss_permille: u64,
    /// A machine has lost its disk, or some of it, or none can be spared: no other may.
    disk_lost: bool,
    leaving: bool,
    over: bool,
}

impl Faults {
    pub(crate) fn draw(random: &mut Random) -> Faults {
        let share = [200, 400, 800][random.index(3)];
        let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| random.permille(share)).collect();
        if kinds.is_empty() {
            kinds.push(*random.pick(&KINDS));
        }
        Faults {
            kinds,
            pause_ms_max: [300, 1_000, 3_000][random.index(3)],
            answer_loss_permille: 0,
            disk_lost: false,
            leaving: false,
            over: true,
        }
    }

    pub(crate) fn end(&mut self) {
        self.over = true;
        self.answer_loss_permille = 0;
    }
}

impl World {
    /// From now on things go wrong.
    pub(crate) fn begin_faults(&mut self) {
        self.faults.over = false;
        self.faults.answer_loss_permille = [0, 20][self.random.index(2)];
        self.after(0, Event::Fault);
    }

    pub(crate) fn fault(&mut self) {
        if self.faults.over {
            return;
        }
        let kind = *self.random.pick(&self.faults.kinds);
        let machine = self.random.index(self.machines.len());
        self.trace.line(self.now_ms, &format!("{kind:?} m{machine}"));
        self.strike(kind, machine);
        let after_ms = 50 + self.random.below(self.faults.pause_ms_max);
        self.after(after_ms, Event::Fault);
    }

    fn strike(&mut self, kind: Kind, machine: usize) {
        let all = 0..self.machines.len();
        let lasts_ms = self.random.within(100, 6_000);
        match kind {
            Kind::Isolate | Kind::Split | Kind::OneWay => self.cut(kind, machine, lasts_ms),
            Kind::Weather => {
                self.wires.weather = Weather::draw(&mut self.random);
                self.after(lasts_ms, Event::Mend(Mend::Weather));
            }
            Kind::PowerCut => self.power_cut(machine, lasts_ms / 2),
            Kind::AllPowerCut => all.for_each(|machine| {
                let after_ms = self.random.below(1_000);
                self.power_cut(machine, after_ms);
            }),
            Kind::Kill => {
                self.machines[machine].kill();
                self.after(lasts_ms / 2, Event::Mend(Mend::Start(machine)));
            }
            Kind::Close => self.close(machine, lasts_ms / 2),
            Kind::Pause => self.machines[machine].paused_until_ms = self.now_ms + lasts_ms / 2,
            Kind::ClockJump => self.clock_jump(machine),
            Kind::SlowDisk => {
                self.machines[machine].sync_ms_max = self.random.within(10, 400);
                self.after(lasts_ms, Event::Mend(Mend::Disk(machine)));
            }
            Kind::FailedSync => {
                let fail_sync_after = Some(self.random.below(8));
                let faults = SimFaults { fail_sync_after, ..SimFaults::default() };
                self.machines[machine].fs.arm(faults);
                self.after(lasts_ms, Event::Mend(Mend::Disk(machine)));
            }
            Kind::FullDisk => {
                let space_bytes = Some(self.random.below(20_000));
                self.machines[machine].fs.arm(SimFaults { space_bytes, ..SimFaults::default() });
                self.after(lasts_ms, Event::Mend(Mend::Disk(machine)));
            }
            Kind::Rot => self.rot(machine),
            Kind::LostDisk => self.lose_disk(machine, lasts_ms),
            Kind::Join => {
                if self.machines.len() < MACHINES_MAX {
                    let machine = self.add_machine(0);
                    self.start(machine);
                }
            }
            Kind::Leave => self.leave(machine),
        }
    }

    fn cut(&mut self, kind: Kind, machine: usize, lasts_ms: u64) {
        let count = self.machines.len();
        let half: Vec<bool> = (0..count)
            .map(|it| if kind == Kind::Split { self.random.permille(500) } else { it == machine })
            .collect();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            let one_way = kind == Kind::OneWay && (half[to] || self.random.permille(500));
            if half[from] != half[to] && !one_way {
                self.wires.cut(from, to);
            }
        }
        self.after(lasts_ms, Event::Mend(Mend::Wires));
    }

    /// A machine loses its power, perhaps while it writes.
    fn power_cut(&mut self, machine: usize, off_ms: u64) {
        let it = &mut self.machines[machine];
        if let Some(node) = &mut it.node
            && let Some(job) = node.jobs().first()
            && self.random.permille(500)
        {
            let crash_after = Some(self.random.below(6));
            it.fs.arm(SimFaults { crash_after, ..SimFaults::default() });
            node.work(*job);
        }
        it.kill();
        it.fs.crash();
        it.sync_ms_max = 3;
        self.after(off_ms, Event::Mend(Mend::Start(machine)));
    }

    fn close(&mut self, machine: usize, off_ms: u64) {
        let it = &mut self.machines[machine];
        let Some(node) = &it.node else { return };
        it.closing = true;
        let cluster = node.cluster().clone();
        let mut closed = Box::pin(async move { cluster.close().await });
        // The first poll says that it is to close; whether it has shows in its turns.
        let _ = closed.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.wake(machine, 0);
        self.after(3_000 + off_ms, Event::Mend(Mend::Restart(machine)));
    }

    fn clock_jump(&mut self, machine: usize) {
        let most_ms = [1_000, 60_000, 3_600_000][self.random.index(3)];
        let ms = i64::try_from(self.random.below(2 * most_ms)).expect("it is small");
        self.machines[machine].clock.jump(ms - i64::try_from(most_ms).expect("it is small"));
        self.wake(machine, 0);
    }

    /// Flips a bit in a sealed segment of the topic. In the active one it could look like a write
    /// that was never finished, which Raft alone cannot survive.
    fn rot(&mut self, machine: usize) {
        if self.faults.disk_lost && !self.machines[machine].unlucky {
            return;
        }
        let replicas = self.machines[machine].node.as_ref().map(|node| node.replicas());
        let is_topics = |r: &&dislog_cluster::sim::Replica| r.partition == partition(0);
        let Some(log) = replicas.iter().flatten().find(is_topics).and_then(|r| r.log.clone())
        else {
            return;
        };
        let sealed = log.sealed_segments();
        if sealed.is_empty() {
            return;
        }
        let segment = sealed[self.random.index(sealed.len())];
        let position = self.random.below(segment.bytes);
        let name = format!("{:020}.store", segment.base_offset);
        let path = std::path::Path::new("/data/partitions").join("t-0").join(name);
        let bit = u8::try_from(self.random.below(8)).expect("it is small");
        let it = &mut self.machines[machine];
        if !dislog_log::fs::Fs::list(&it.fs, path.parent().expect("it has one"))
            .is_ok_and(|paths| paths.contains(&path))
        {
            return;
        }
        it.unlucky = true;
        self.faults.disk_lost = true;
        it.fs.flip_bit(&path, usize::try_from(position).expect("segments are small"), bit);
    }

    fn lose_disk(&mut self, machine: usize, off_ms: u64) {
        if self.faults.disk_lost || self.machines[machine].retired {
            return;
        }
        self.faults.disk_lost = true;
        let seed = self.random.next();
        let it = &mut self.machines[machine];
        it.unlucky = true;
        it.kill();
        it.fs = SimFs::new(seed);
        it.discovery.bootstrap_expect = 0;
        self.after(off_ms, Event::Mend(Mend::Start(machine)));
    }

    fn leave(&mut self, machine: usize) {
        let staying = self.machines.iter().filter(|it| !it.retired).count();
        let Some(node) = &self.machines[machine].node else { return };
        if self.faults.leaving || staying <= 3 {
            return;
        }
        // Of two replicas none can be lost, and machines may have yet to enter the cluster.
        let members = node.cluster().nodes().iter().filter(|it| !it.draining).count();
        if members <= 3 && std::mem::replace(&mut self.faults.disk_lost, true) {
            return;
        }
        self.faults.leaving = true;
        let node_id = node.cluster().node_id();
        let drains = Actor::new(Work::Drains { node_id }, partition(0), &mut self.random);
        self.add_actor(drains);
        self.after(5_000, Event::Mend(Mend::Retire(machine)));
    }

    /// The log of a group has stopped on a machine; its node is to be started anew.
    pub(crate) fn operator_sees(&mut self, machine: usize) {
        if !self.machines[machine].closing {
            self.machines[machine].closing = true;
            let after_ms = self.random.within(100, 3_000);
            self.after(after_ms, Event::Mend(Mend::Restart(machine)));
        }
    }

    pub(crate) fn mend(&mut self, mend: &Mend) {
        self.trace.line(self.now_ms, &format!("{mend:?}"));
        match *mend {
            Mend::Wires => self.wires.mend(),
            Mend::Weather => self.wires.weather = Weather::CALM,
            Mend::Start(machine) => self.start(machine),
            Mend::Disk(machine) => {
                let it = &mut self.machines[machine];
                it.fs.arm(SimFaults::default());
                it.sync_ms_max = 3;
                self.wake(machine, 0);
            }
            Mend::Restart(machine) => {
                let it = &mut self.machines[machine];
                if it.closing {
                    it.kill();
                    if self.random.permille(500) {
                        self.machines[machine].fs.crash();
                    }
                }
                self.start(machine);
            }
            Mend::Retire(machine) => self.retire(machine),
        }
    }

    /// Ends a drained node for good, once no other has it in its plans.
    fn retire(&mut self, machine: usize) {
        let Some(node_id) = self.machines[machine].node.as_ref().map(|n| n.cluster().node_id())
        else {
            return;
        };
        let nodes = self.machines.iter().filter_map(|it| it.node.as_ref());
        let has = nodes.clone().any(|node| node.cluster().has_replicas(node_id));
        let mut infos = nodes.flat_map(|node| node.cluster().nodes());
        let votes = infos.any(|info| info.node_id == node_id && (info.votes || !info.draining));
        if has || votes {
            if !self.faults.over {
                self.after(2_000, Event::Mend(Mend::Retire(machine)));
            }
            return;
        }
        self.trace.line(self.now_ms, &format!("m{machine} retires"));
        self.machines[machine].kill();
        self.machines[machine].retired = true;
    }
}
