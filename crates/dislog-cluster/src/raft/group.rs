//! One Raft group: a partition of a log, driven.
//!
//! A group decides and never waits: what takes time is handed to the sync threads, and their
//! answers come back as inputs. After each input the driver *pumps* the group: every Ready is
//! taken, its entries are staged at once, what is committed is applied, and a sync is begun if none
//! is under way.
//!
//! Rules that hold throughout:
//! - An entry is acknowledged when it is applied, and it is applied only once it is committed and
//!   durable here.
//! - A group that was stopped by a failed write or sync never touches its Raft state or its log
//!   again.
//! - Only a leader that has applied an entry of its own term takes appends.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use dislog_log::{Frame, Kind, LogError, trim_payload};
use dislog_types::batch::stamp;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{RawNode, SoftState, StateRole};
use rand::RngExt;
use rand::rngs::StdRng;

use super::entry::{self, LogEnd};
use super::input::{AppendRequest, LinearizeRequest, TrimRequest};
use super::install::Installing;
use super::losses::Losses;
use super::membership::Course;
use super::open::MESSAGE_BYTES_MAX;
use super::persist::Persist;
use super::rest::Rest;
use super::rim::Rim;
use super::storage::LogStorage;
use super::sync_threads::{AheadJob, Job, Kept, SyncJob, Synced, UpkeepJob, UpkeepTask};
use super::telling::Telling;
use super::transport::PeerMessage;
use super::vote_file::Vote;
use super::waiters::{Reads, Waiter, Waiters};
use crate::error::{AppendError, ReadError};
use crate::partition::append::{Append, Appended};
use crate::partition::progress::Progress;
use crate::partition::retention::RetentionPolicy;
use crate::partition::sequencer::{Admission, Sequencer};
use crate::partition::shared::{Fault, Life, Shared};
use crate::partition::state_machine::{Effect, StateMachine};
use crate::partition::upkeep::{Next, Upkeep};

/// How long a group that is to end waits for appends under way to be committed.
const END_WAIT_MS: i64 = 1_000;

/// Sees every committed batch of a group, in order: once when the group is opened, and on as they
/// come.
pub(crate) trait Observer: Send {
    /// A batch was applied.
    ///
    /// # Errors
    /// If it cannot be understood; the group stops.
    fn applied(&mut self, frame: &Frame) -> Result<(), String>;
}

/// See the module.
pub(crate) struct Group {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) node: RawNode<LogStorage>,
    pub(super) machine: StateMachine,
    pub(super) observer: Option<Box<dyn Observer>>,
    pub(super) upkeep: Upkeep,
    /// The vote as it will be on disk once everything staged is.
    pub(super) vote: Vote,
    pub(super) sequencer: Option<Sequencer>,
    pub(super) waiters: Waiters,
    pub(super) reads: Reads,
    pub(super) persist: Persist,
    /// Messages that may leave only when the Ready of this number is durable.
    pub(super) outbox: VecDeque<(u64, Vec<Message>)>,
    pub(super) installing: Option<Installing>,
    pub(super) course: Course,
    pub(super) rest: Rest,
    pub(super) losses: Losses,
    pub(super) telling: Telling,
    /// The rest of the node knows who leads, and who belongs to the group.
    pub(super) told_others: bool,
    /// Told once the group serves, or cannot.
    pub(super) opened: Option<mpsc::Sender<()>>,
    pub(super) ending: Option<Ending>,
    pub(super) stopped: bool,
}

/// How a group ends.
pub(super) struct Ending {
    life: Life,
    done: Vec<mpsc::Sender<()>>,
    give_up_ms: i64,
    gave_up: bool,
}

impl Group {
    /// The number the group goes by.
    pub(super) fn number(&self) -> u64 {
        self.shared.group
    }

    /// Whether it has peers, and so needs to be told of the passing of time.
    pub(crate) fn has_peers(&self) -> bool {
        let (_, membership) = self.node.store().history().newest();
        membership.replicas().any(|replica| replica != self.node.raft.id)
    }

    /// Starts the group. One voter alone need not wait for an election, and of a group that was
    /// just made the first need not either.
    pub(super) fn start(&mut self, opened: mpsc::Sender<()>) {
        self.opened = Some(opened);
        let (_, membership) = self.node.store().history().newest();
        let alone = membership.voters == [self.node.raft.id];
        if alone && membership.voters_outgoing.is_empty() || self.is_first_of_new() {
            self.campaign();
        }
    }

    fn is_first_of_new(&self) -> bool {
        let (_, membership) = self.node.store().history().newest();
        self.node.raft.term == 0 && membership.voters.first() == Some(&self.node.raft.id)
    }

    fn campaign(&mut self) {
        if let Err(error) = self.node.campaign() {
            self.stop(Fault::Stopped(format!("no election: {error}")));
        }
    }

    /// Some time passed; whether the group would rest. How long an election is waited for is drawn
    /// from `random`.
    pub(super) fn tick(&mut self, random: &mut StdRng) -> bool {
        if self.stopped || self.installing.is_some() {
            return false;
        }
        self.reads.tick(&self.shared.id);
        if !self.is_awake() {
            return false;
        }
        if self.is_first_of_new() {
            self.campaign();
        }
        self.notice_campaign();
        if self.node.raft.election_elapsed == 0 {
            // Raft has drawn it when the wait began, but from a source that nobody can seed, and
            // for all replicas from the same few ticks.
            let wait = self.election_wait();
            self.node.raft.set_randomized_election_timeout(random.random_range(wait));
        }
        self.node.tick();
        self.losses_tick();
        self.membership_tick();
        self.rest_tick()
    }

    /// The replica that leads, as far as is known here; 0 if nobody does.
    pub(super) fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    /// A peer sent a message.
    pub(super) fn message(&mut self, message: PeerMessage) {
        let mine = message.to == self.node.raft.id;
        if self.stopped || self.installing.is_some() || !mine {
            return;
        }
        #[cfg(feature = "sim")]
        self.count_learner(&message);
        if let Some(lost) = self.losses.found_here(&self.node.raft, &message) {
            self.stop(Fault::Damaged(lost));
            return;
        }
        self.losses.notice(&self.node.raft, &message);
        self.notice(&message);
        let Some(message) = message.into_raft() else { return };
        // The core panics over messages that no sound peer sends; they must not end the node.
        match catch_unwind(AssertUnwindSafe(|| self.node.step(message))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let partition = &self.shared.id;
                tracing::debug!(%partition, %error, "a peer's message was not taken");
            }
            Err(_) => self.stop(Fault::Stopped("a peer sent what cannot be".to_owned())),
        }
    }

    /// Appends a batch, or answers why not.
    pub(super) fn append(&mut self, request: AppendRequest, rim: &mut Rim) {
        let AppendRequest { append, reply, .. } = request;
        match self.admit(&append, rim) {
            Err(error) => reply.send(Err(error)),
            Ok(Admission::Duplicate(place))
                if end_offset(&place) <= self.machine.committed_offset =>
            {
                reply.send(Ok(place));
            }
            Ok(Admission::Duplicate(place)) => self.waiters.push_duplicate(place, reply),
            Ok(Admission::Append(place)) => match self.propose_batch(append, &place) {
                Ok(raft_index) => {
                    self.telling.proposed(self.node.raft.raft_log.committed);
                    self.waiters.push(raft_index, Waiter::Append(place, reply));
                }
                Err(error) => reply.send(Err(error)),
            },
        }
    }

    // produce 4: the sequencer decides whether, where and when.
    fn admit(&mut self, append: &Append, rim: &mut Rim) -> Result<Admission, AppendError> {
        self.check_open()?;
        let sequencer =
            self.sequencer.as_ref().ok_or_else(|| AppendError::NoLeader(self.shared.id.clone()))?;
        let admission = sequencer.admit(&append.header, append.expected_offset, rim.now_ms)?;
        if let Admission::Append(_) = admission {
            let has_room = rim.disk.has_room(append.batch.len() as u64, rim.now_ms);
            if self.persist.is_disk_full() && has_room {
                self.persist.retry_now();
            }
            if self.persist.is_disk_full() || !has_room {
                return Err(AppendError::DiskFull);
            }
        }
        Ok(admission)
    }

    fn check_open(&self) -> Result<(), AppendError> {
        if let Some(ending) = &self.ending {
            return Err(ended(&self.shared, ending.life));
        }
        match &self.shared.health().fault {
            Some(Fault::Damaged(message)) => Err(AppendError::Damaged(message.clone())),
            Some(Fault::Stopped(message)) => Err(AppendError::Stopped(message.clone())),
            None => Ok(()),
        }
    }

    // produce 5: the batch is stamped and proposed; its bytes are not copied from here on.
    fn propose_batch(&mut self, append: Append, place: &Appended) -> Result<u64, AppendError> {
        let Append { mut batch, header, .. } = append;
        stamp(&mut batch, place.base_offset, self.node.raft.term);
        let raft_index = self.propose(Kind::Batch, place.timestamp_ms, batch.freeze())?;
        let sequencer = self.sequencer.as_mut().expect("it admitted the batch");
        sequencer.proposed(&header, place);
        Ok(raft_index)
    }

    fn propose(
        &mut self,
        kind: Kind,
        timestamp_ms: i64,
        payload: Bytes,
    ) -> Result<u64, AppendError> {
        // A follower would forward it. The sequencer goes when the role's change is pumped, which
        // may be later in this turn than what changed it.
        if self.node.raft.state != StateRole::Leader {
            return Err(AppendError::NoLeader(self.shared.id.clone()));
        }
        // `RawNode::propose` takes a `Vec` and so copies.
        let message = Message {
            msg_type: MessageType::MsgPropose,
            from: self.node.raft.id,
            entries: vec![entry::proposal(kind, timestamp_ms, payload)].into(),
            ..Message::default()
        };
        let proposed = self.node.step(message);
        proposed.map_err(|_| AppendError::NoLeader(self.shared.id.clone()))?;
        Ok(self.node.raft.raft_log.last_index())
    }

    /// Moves the start of the log, through the log.
    pub(super) fn trim(&mut self, request: TrimRequest, now_ms: i64) {
        let offset = request.offset.min(self.machine.committed_offset);
        let proposed = self.check_open().and_then(|()| match offset <= self.machine.start_offset {
            true => Ok(None),
            false => self.propose_trim(offset, now_ms).map(Some),
        });
        match proposed {
            Ok(Some(raft_index)) => self.waiters.push(raft_index, Waiter::Trim(request.reply)),
            Ok(None) => drop(request.reply.send(Ok(self.machine.start_offset))),
            Err(error) => drop(request.reply.send(Err(error))),
        }
    }

    fn propose_trim(&mut self, offset: u64, now_ms: i64) -> Result<u64, AppendError> {
        let no_leader = || AppendError::NoLeader(self.shared.id.clone());
        let timestamp_ms = self.sequencer.as_ref().ok_or_else(no_leader)?.timestamp_ms(now_ms);
        let raft_index = self.propose(Kind::Trim, timestamp_ms, trim_payload(offset))?;
        let sequencer = self.sequencer.as_mut().expect("it gave the timestamp");
        sequencer.proposed_without_records(timestamp_ms);
        Ok(raft_index)
    }

    /// Answers once everything committed so far is applied here.
    pub(super) fn linearize(&mut self, request: LinearizeRequest) {
        // A leader that has not begun to serve doesn't know yet what was committed before it.
        let raft = &self.node.raft;
        let leader_serves = match raft.state {
            StateRole::Leader => self.sequencer.is_some(),
            _ => raft.leader_id != raft::INVALID_ID,
        };
        let open = self.ending.is_none() && !self.stopped && self.installing.is_none();
        if !leader_serves || !open {
            let error = ReadError::NoLeader(self.shared.id.clone());
            let _ = request.reply.send(Err(error));
            return;
        }
        let context = self.reads.push(raft.id, request.reply);
        self.node.read_index(context);
    }

    /// Keeps records by another policy.
    pub(super) fn set_retention(&mut self, policy: RetentionPolicy) {
        self.upkeep.set_policy(policy);
    }

    /// Ends the group; `done` is told when nothing touches its files any more, but for what may yet
    /// be written ahead to those that are open.
    pub(super) fn end(&mut self, life: Life, done: Option<mpsc::Sender<()>>, now_ms: i64) {
        if life.is_over() {
            // What was proposed may still be committed by replicas that are left.
            let error = match life {
                Life::Moved => AppendError::UnknownOutcome,
                _ => ended(&self.shared, life),
            };
            self.waiters.fail(&error);
            self.reads.fail(&self.shared.id);
        }
        let give_up_ms = now_ms.saturating_add(END_WAIT_MS);
        let ending = self.ending.get_or_insert(Ending {
            life,
            done: Vec::new(),
            give_up_ms,
            gave_up: false,
        });
        ending.done.extend(done);
        self.persist.retry_now();
        if life == Life::Closing && !self.stopped && self.installing.is_none() {
            // Whoever follows takes over at once instead of finding out.
            let voters = self.node.store().history().newest().1.voters.clone();
            self.hand_over_to(voters);
        }
    }

    /// Whether the group has ended; it is then told to those who asked, and there is nothing left
    /// to drive.
    pub(super) fn has_ended(&mut self) -> bool {
        let installing = self.installing.is_some();
        let reading = self.upkeep.is_running() || self.node.store().is_fetching();
        let under_way = self.persist.is_syncing() || reading || installing;
        let Some(ending) = self.ending.as_mut().filter(|_| !under_way) else { return false };
        let handing_over = self.node.raft.lead_transferee.is_some() && !ending.gave_up;
        let writing = !self.persist.is_idle() || self.upkeep.is_due();
        let unfinished = !self.waiters.is_empty() || writing || handing_over;
        if ending.life == Life::Closing && unfinished && !self.stopped {
            return false;
        }
        self.shared.end(ending.life);
        self.opened = None;
        for done in ending.done.drain(..) {
            let _ = done.send(());
        }
        true
    }

    /// What was staged and not written by now never will be.
    pub(super) fn let_go(&mut self, rim: &mut Rim) {
        rim.disk.dropped(self.persist.failed());
    }

    /// A sync ended.
    pub(super) fn synced(&mut self, synced: Synced, rim: &mut Rim) {
        self.shared.tally.syncs.fetch_add(1, Ordering::Relaxed);
        match synced.result {
            _ if self.stopped => rim.disk.dropped(self.persist.failed()),
            Ok(()) => {
                if self.persist.is_disk_full() {
                    self.shared.health().disk_full = false;
                }
                let (ready, bytes) = self.persist.succeeded();
                rim.disk.written(bytes);
                self.persisted(ready, rim);
                if let Some(log) = &self.shared.log {
                    self.upkeep.writes_to(log.active_segment_raft_index());
                }
            }
            Err(error @ LogError::DiskFull { .. }) => {
                self.persist.found_no_room(rim.now_ms);
                self.shared.health().disk_full = true;
                if let Some(ending) = &mut self.ending {
                    ending.gave_up = true;
                }
                tracing::error!(partition = %self.shared.id, %error, "appends are refused");
                self.opened = None;
            }
            Err(error) => {
                rim.disk.dropped(self.persist.failed());
                self.stop(fault(&error));
            }
        }
    }

    // produce 8: Raft learns what is durable here, and so what is committed.
    fn persisted(&mut self, ready: u64, rim: &mut Rim) {
        self.node.on_persist_ready(ready);
        while self.outbox.front().is_some_and(|(number, _)| *number <= ready) {
            let (_, messages) = self.outbox.pop_front().expect("there is a first");
            self.send(messages, rim);
        }
    }

    /// A piece of upkeep ended.
    pub(super) fn kept(&mut self, kept: Kept, rim: &mut Rim) {
        match kept.result {
            Ok(due) => {
                let after = self.upkeep.succeeded(due);
                if after.head_moved {
                    self.node.mut_store().head_moved();
                    self.persist.retry_now();
                }
                if let Some(offset) = after.propose_start
                    && offset > self.machine.start_offset
                    && self.ending.is_none()
                    && !self.stopped
                    && let Err(error) = self.propose_trim(offset, rim.now_ms)
                {
                    let partition = &self.shared.id;
                    tracing::warn!(%partition, %error, "what expired is kept for now");
                }
            }
            Err(error) => {
                tracing::error!(partition = %self.shared.id, %error, "upkeep is put off");
                self.upkeep.failed(rim.now_ms);
            }
        }
    }

    /// Does everything that can be done now.
    pub(super) fn pump(&mut self, rim: &mut Rim) {
        self.look_at_rest();
        while !self.stopped && self.installing.is_none() {
            if self.node.has_ready() {
                self.take_ready(rim);
            } else if let Some(ready) = self.persist.skip() {
                self.persisted(ready, rim);
            } else if self.is_to_tell(rim.now_ms) {
                self.node.raft.bcast_append();
            } else {
                break;
            }
        }
        self.go_on_installing(rim);
        self.give_up(rim.now_ms);
        if self.stopped && !self.persist.is_syncing() {
            self.let_go(rim);
        }
        if !self.stopped && !self.is_over() && self.installing.is_none() {
            self.begin_sync(rim);
            self.begin_upkeep(rim);
            self.begin_fetch(rim);
        }
        if !self.told_others {
            self.told_others = true;
            rim.members_changed = true;
            (rim.changed)();
        }
        self.look_at_rest();
    }

    /// It is to end for good, and not to be opened again.
    pub(super) fn is_over(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.life.is_over())
    }

    /// Whether the followers are to be told now what is committed.
    fn is_to_tell(&mut self, now_ms: i64) -> bool {
        let raft = &self.node.raft;
        let (committed, last) = (raft.raft_log.committed, raft.raft_log.last_index());
        raft.state == StateRole::Leader && self.telling.is_due(committed, last, now_ms)
    }

    fn take_ready(&mut self, rim: &mut Rim) {
        let mut ready = self.node.ready();
        if let Some(role) = ready.ss() {
            self.role_changed(role);
        }
        if let Some(hard) = ready.hs() {
            let vote = Vote { term: hard.term, voted_for: hard.vote };
            if vote != self.vote {
                self.vote = vote;
                self.persist.stage_vote(vote);
                self.shared.health().term = vote.term;
            }
        }
        if !ready.snapshot().is_empty() {
            self.begin_install(ready);
            return;
        }
        self.persist.last_ready = ready.number();
        if let Err(error) = self.stage(ready.take_entries(), rim) {
            self.stop(error);
            return;
        }
        self.send(ready.take_messages(), rim);
        let later = ready.take_persisted_messages();
        #[cfg(feature = "sim")]
        let later = self.send_too_early(later, rim);
        if !later.is_empty() {
            self.outbox.push_back((ready.number(), later));
        }
        for read in ready.take_read_states() {
            self.reads.confirm(&read.request_ctx, read.index);
        }
        let committed = ready.take_committed_entries();
        #[cfg(feature = "sim")]
        let number = ready.number();
        self.node.advance_append_async(ready);
        #[cfg(feature = "sim")]
        self.persist_too_early(number);
        self.apply(&committed);
    }

    // produce 6: entries are staged: framed, readable by Raft, not yet on disk.
    fn stage(&mut self, entries: Vec<Entry>, rim: &mut Rim) -> Result<(), Fault> {
        if entries.is_empty() {
            return Ok(());
        }
        let bytes = entries.iter().map(|entry| entry.data.len() as u64).sum();
        let staged = self.node.mut_store().stage(entries);
        staged.map_err(|error| Fault::Stopped(error.to_string()))?;
        self.persist.stage_entries(bytes);
        rim.disk.stage(bytes);
        rim.catch_up.appended(bytes, rim.now_ms);
        Ok(())
    }

    pub(super) fn send(&self, messages: Vec<Message>, rim: &mut Rim) {
        for message in messages {
            if let Some(mut message) = PeerMessage::from_raft(self.number(), message) {
                self.losses.stamp(&self.node.raft, &mut message);
                let parts = message.split(MESSAGE_BYTES_MAX).into_iter();
                parts.for_each(|part| rim.transport.send(part));
            }
        }
    }

    fn role_changed(&mut self, role: &SoftState) {
        let leader = Some(role.leader_id).filter(|&leader| leader != raft::INVALID_ID);
        let mut health = self.shared.health();
        let changed = std::mem::replace(&mut health.leader, leader) != leader;
        if role.raft_state == StateRole::Leader {
            drop(health);
            #[cfg(feature = "sim")]
            self.serve_too_early();
            return;
        }
        health.serving = false;
        drop(health);
        self.telling = Telling::default();
        self.shared.set_led(leader.is_some());
        self.told_others &= !changed;
        if self.sequencer.take().is_some() {
            self.waiters.fail(&AppendError::UnknownOutcome);
        }
        if changed {
            self.reads.fail(&self.shared.id);
        }
        if leader.is_some() {
            // It follows: as much of serving as it will do for now.
            self.opened = None;
        }
    }

    fn apply(&mut self, committed: &[Entry]) {
        if let Some(fault) = self.node.store().fault() {
            self.stop(fault);
            return;
        }
        for entry in committed {
            if let Err(message) = self.apply_entry(entry) {
                self.stop(Fault::Stopped(message));
                return;
            }
        }
        // produce 9: the committed offset moves; readers wake, then the callers are answered.
        if !committed.is_empty() {
            self.node.advance_apply_to(self.machine.applied);
            self.node.mut_store().applied_to(self.machine.applied);
            self.publish();
            let StateMachine { applied, start_offset, committed_offset, .. } = self.machine;
            self.waiters.complete(applied, start_offset, committed_offset);
        }
        self.reads.complete(self.machine.applied);
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<(), String> {
        let end = LogEnd {
            offset: self.machine.committed_offset,
            timestamp_ms: self.machine.last_timestamp_ms,
        };
        let frame = entry::to_frame(entry, end).map_err(|error| error.to_string())?;
        match self.machine.apply(&frame).map_err(|error| error.to_string())? {
            Effect::Records => {
                let bytes = frame.payload.len() as u64;
                self.upkeep.applied(bytes, frame.timestamp_ms);
                let tally = &self.shared.tally;
                tally.batches.fetch_add(1, Ordering::Relaxed);
                tally.records.fetch_add(u64::from(frame.record_count), Ordering::Relaxed);
                tally.bytes.fetch_add(bytes, Ordering::Relaxed);
                if let Some(observer) = &mut self.observer {
                    observer.applied(&frame)?;
                }
            }
            Effect::LeaderStart => self.leader_started(frame.term),
            Effect::Membership => self.change_membership(frame.raft_index, &frame.payload)?,
            Effect::Trimmed => {
                self.upkeep.trimmed();
                if let Some(sequencer) = &mut self.sequencer {
                    sequencer.forget_below(self.machine.start_offset);
                }
            }
            Effect::None => {}
        }
        Ok(())
    }

    fn leader_started(&mut self, term: u64) {
        let leads = self.node.raft.state == StateRole::Leader && self.node.raft.term == term;
        if !leads || self.sequencer.is_some() {
            return;
        }
        // Nothing was proposed before this moment, so the log ends where the applied state does.
        self.sequencer = Some(Sequencer::new(
            self.machine.committed_offset,
            self.machine.last_timestamp_ms,
            self.machine.producers.clone(),
        ));
        self.shared.health().serving = true;
        self.shared.set_led(true);
        self.opened = None;
        self.told_others = false;
        self.step_towards_target();
    }

    pub(super) fn publish(&self) {
        let StateMachine { start_offset, committed_offset, .. } = self.machine;
        self.shared.publish(Progress { start_offset, committed_offset, ended: false });
    }

    fn begin_sync(&mut self, rim: &mut Rim) {
        let Some(log) = &self.shared.log else { return };
        if let Some((bytes, beside)) = self.persist.begin(rim.now_ms) {
            let (group, dir, term) = (self.number(), self.dir.clone(), self.vote.term);
            rim.syncs.push(SyncJob { group, log: log.clone(), dir, beside, term, bytes });
        } else if self.persist.take_ahead() {
            rim.ahead.push(AheadJob { log: log.clone(), term: self.vote.term });
        }
    }

    fn begin_upkeep(&mut self, rim: &Rim) {
        let Some(log) = &self.shared.log else { return };
        let quiet = self.waiters.is_empty() && self.persist.is_idle();
        // What an observer was shown it has to know at the next start before anybody is elected: of
        // metadata, which partitions there are, or theirs would wait for that election. One alone
        // knows all that it has.
        let is_observed = self.observer.is_some() && self.has_peers();
        let is_wanted = self.ending.is_some() || is_observed;
        if is_wanted && quiet && !self.upkeep.is_running() {
            self.upkeep.finish(&self.machine);
        }
        if self.persist.has_members() {
            return;
        }
        let leads = self.sequencer.is_some() && self.ending.is_none();
        let task = match self.upkeep.begin(&self.machine, leads, rim.now_ms) {
            None => return,
            Some(Next::Checkpoint) => UpkeepTask::Checkpoint(self.machine.checkpoint()),
            Some(Next::Trim) => UpkeepTask::Trim(self.machine.checkpoint()),
            Some(Next::Look(policy, moment)) => UpkeepTask::Retention(policy, moment),
        };
        let job = UpkeepJob { group: self.number(), log: log.clone(), task };
        rim.threads.take(Job::Upkeep(job));
    }

    fn give_up(&mut self, now_ms: i64) {
        let too_late = self.ending.as_mut().is_some_and(|ending| {
            // A clock that was set back makes nobody wait.
            let from_ms = ending.give_up_ms.saturating_sub(END_WAIT_MS);
            ending.gave_up |= !(from_ms..ending.give_up_ms).contains(&now_ms);
            ending.gave_up
        });
        if too_late || self.persist.waited_enough(now_ms) {
            self.waiters.fail(&AppendError::UnknownOutcome);
        }
        // What could not be written by now is not waited for: it was not acknowledged.
        if too_late && self.persist.is_disk_full() && !self.persist.is_syncing() {
            self.stopped = true;
        }
    }

    /// When the group wants to be pumped without any input.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        if let Some(ending) = &self.ending {
            return Some(ending.give_up_ms).filter(|_| !ending.gave_up);
        }
        if self.stopped || self.installing.is_some() {
            return None;
        }
        let deadlines = [
            self.persist.deadline_ms(),
            // It waits for members to be written.
            self.upkeep.deadline_ms().filter(|_| !self.persist.has_members()),
            self.telling.deadline_ms(),
            self.node.store().fetch_deadline_ms(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// A failed write or sync, or a log that is not what it should be: nothing is written any more.
    pub(super) fn stop(&mut self, fault: Fault) {
        let message = fault.message().to_owned();
        let partition = &self.shared.id;
        tracing::error!(%partition, fault = message, "the log takes no more appends");
        self.stopped = true;
        self.told_others = false;
        self.sequencer = None;
        let mut health = self.shared.health();
        health.serving = false;
        health.fault = Some(fault);
        drop(health);
        self.shared.set_led(false);
        self.waiters.fail(&AppendError::Stopped(message));
        self.reads.fail(&self.shared.id);
        self.opened = None;
        // Damage is to be reported.
        self.told_others = false;
    }
}

/// Why a partition that ended takes no appends.
pub(super) fn ended(shared: &Shared, life: Life) -> AppendError {
    match life {
        Life::Deleted => AppendError::Deleted(shared.id.clone()),
        Life::Moved => AppendError::NoLeader(shared.id.clone()),
        Life::Open | Life::Closing => AppendError::Closing,
    }
}

fn end_offset(place: &Appended) -> u64 {
    place.base_offset + u64::from(place.record_count)
}

pub(super) fn fault(error: &LogError) -> Fault {
    match error {
        LogError::Damaged(_) => Fault::Damaged(error.to_string()),
        _ => Fault::Stopped(error.to_string()),
    }
}
