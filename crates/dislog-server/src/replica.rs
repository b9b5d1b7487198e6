//! The replica that a reader reads: that of this node, or, where it has none that votes, one of
//! another node.
//!
//! Of a partition elsewhere, all readers share what is known of it, a [`Remote`]. One of those that
//! wait for its next record asks for all of them; each reads its records by itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dislog_cluster::{Partition, Peer, Progress, ReadError, StoredBatch};
use dislog_proto::v1::consume_request::Start as WireStart;
use dislog_proto::{reason, v1};
use dislog_types::{BatchHeader, PartitionId};
use tokio::sync::{self, watch};

use crate::forward::{Hops, Purpose};
use crate::node::Node;
use crate::read::Start;
use crate::status::{Failure, kinds};

/// How long a replica waits for the leader to say how far it is.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// How long a partition may be without a leader before who follows it is sent elsewhere: longer
/// than an election takes.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);

/// How long another node may take to answer, beyond what it was told to wait.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long another node is told to wait for a record. Then the next is asked, since this one may
/// be cut off from the others.
const FOLLOW_MAX: Duration = Duration::from_secs(10);

/// Of so many partitions what is known is kept although nobody reads them.
const KEPT_MAX: usize = 1_024;

/// A replica to read.
pub(crate) enum Replica {
    /// Of this node.
    Here(Partition),
    /// Of other nodes, whichever answers.
    There(There),
}

/// A partition elsewhere, as somebody reads it.
pub(crate) struct There {
    node: Node,
    hops: Hops,
    id: PartitionId,
    remote: Arc<Remote>,
}

/// What is known of a partition elsewhere.
struct Remote {
    group: u64,
    progress: watch::Sender<Progress>,
    /// Which of the nodes answered last, for its records and for the next of them.
    read_at: AtomicUsize,
    followed_at: AtomicUsize,
    /// Whoever holds it asks for the next record.
    following: sync::Mutex<()>,
}

/// The partitions elsewhere that are read, or were lately, by group.
#[derive(Default)]
pub(crate) struct Remotes(Mutex<HashMap<u64, Arc<Remote>>>);

impl Remotes {
    fn get(&self, group: u64) -> Arc<Remote> {
        let mut remotes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remotes.len() >= KEPT_MAX && !remotes.contains_key(&group) {
            remotes.retain(|_, remote| Arc::strong_count(remote) > 1);
        }
        let remote = remotes.entry(group).or_insert_with(|| Arc::new(Remote::new(group)));
        Arc::clone(remote)
    }
}

impl Replica {
    /// Of a partition that is read elsewhere, on behalf of somebody.
    pub(crate) fn there(node: &Node, id: PartitionId, hops: &Hops) -> Result<Replica, Failure> {
        let (group, peers) = node.cluster.replicas_elsewhere(&id)?;
        if peers.is_empty() || !hops.may_go_on() || !hops.may_be_about(group) {
            return Err(ReadError::NoLeader(id).into());
        }
        let (hops, remote) = (hops.clone().about(group), node.remotes.get(group));
        Ok(Replica::There(There { node: node.clone(), hops, id, remote }))
    }

    /// The offset of a start. Linearizable: of what was acknowledged before the call, everything
    /// is seen.
    pub(crate) async fn offset_of(&self, start: Start, linearizable: bool) -> Result<u64, Failure> {
        match self {
            Replica::Here(partition) if linearizable => partition.linearize().await?,
            Replica::Here(partition) => {
                if let Start::Offset(offset) = start {
                    catch_up(partition, offset).await;
                }
            }
            Replica::There(there) => there.look(start, linearizable).await?,
        }
        let Progress { start_offset, committed_offset, .. } = self.progress();
        Ok(match (start, self) {
            (Start::Offset(offset), _) => offset,
            (Start::Timestamp(timestamp_ms), Replica::Here(partition)) => {
                partition.offset_at(timestamp_ms).await?
            }
            (Start::Timestamp(timestamp_ms), Replica::There(there)) => {
                there.offset_at(timestamp_ms).await?.max(start_offset)
            }
            (Start::Earliest, _) => start_offset,
            (Start::Latest, _) => committed_offset,
            (Start::Last(count), _) => committed_offset.saturating_sub(count).max(start_offset),
        })
    }

    /// How far the partition has come, as far as this node knows.
    pub(crate) fn progress(&self) -> Progress {
        match self {
            Replica::Here(partition) => partition.progress(),
            Replica::There(there) => there.progress(),
        }
    }

    /// As [`Partition::read`].
    pub(crate) async fn read(
        &self,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Vec<StoredBatch>, Failure> {
        match self {
            Replica::Here(partition) => Ok(partition.read(offset, bytes_max).await?),
            Replica::There(there) => there.read(offset, bytes_max).await,
        }
    }

    /// Waits until an offset is committed. Safe to cancel.
    pub(crate) async fn wait_for(&self, offset: u64) -> Result<(), Failure> {
        match self {
            Replica::Here(partition) => Ok(partition.wait_for(offset).await.map(drop)?),
            Replica::There(there) => there.wait_for(offset).await,
        }
    }

    /// Returns once the partition has been without a leader for so long that its other replicas
    /// may have come further without this one. Safe to cancel.
    pub(crate) async fn is_left_alone(&self) {
        // Other nodes are asked in turn.
        let Replica::Here(partition) = self else { return std::future::pending().await };
        let mut led = partition.watch_led();
        loop {
            // The partition holds the sender, and the replica the partition.
            let _leaderless = led.wait_for(|led| !led).await.map(|led| *led);
            let again = tokio::time::timeout(LEADERLESS_MAX, led.wait_for(|led| *led)).await;
            if again.is_err() {
                return;
            }
        }
    }

    /// There is no leader.
    pub(crate) fn no_leader(&self) -> Failure {
        let id = match self {
            Replica::Here(partition) => partition.id(),
            Replica::There(there) => &there.id,
        };
        ReadError::NoLeader(id.clone()).into()
    }
}

/// What was just acknowledged is there, also on a replica that has yet to hear so: one that has
/// nothing at an offset asks the leader before it says so.
async fn catch_up(partition: &Partition, offset: u64) {
    if offset < partition.progress().committed_offset || partition.serves() {
        return;
    }
    // Without a leader it says what it knows.
    let _ = tokio::time::timeout(CATCH_UP_MAX, partition.linearize()).await;
}

impl There {
    fn progress(&self) -> Progress {
        *self.remote.progress.borrow()
    }

    /// Finds out how far the partition has come, far enough for a start there.
    async fn look(&self, start: Start, linearizable: bool) -> Result<(), Failure> {
        self.ask(self.end(linearizable), Purpose::Reading).await?;
        let is_beyond =
            matches!(start, Start::Offset(offset) if offset >= self.progress().committed_offset);
        if is_beyond && !linearizable {
            // As in `catch_up`.
            let asking = self.ask(self.end(true), Purpose::Reading);
            let _ = tokio::time::timeout(CATCH_UP_MAX, asking).await;
        }
        Ok(())
    }

    /// The first offset at or after a time.
    async fn offset_at(&self, timestamp_ms: i64) -> Result<u64, Failure> {
        // The answer has a record, which may be large.
        let _turn = self.node.outlet.turn(false).await;
        let start = Some(WireStart::TimestampMs(timestamp_ms));
        let request = v1::ConsumeRequest { start, ..self.request(0, Duration::ZERO) };
        let response = self.ask(request, Purpose::Reading).await?;
        Ok(response.records.first().map_or(response.next_offset, |record| record.offset))
    }

    async fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, Failure> {
        if offset == self.progress().committed_offset {
            return Ok(Vec::new());
        }
        let request = v1::ConsumeRequest {
            raw: true,
            max_bytes: u32::try_from(bytes_max.max(1)).unwrap_or(u32::MAX),
            ..self.request(offset, Duration::ZERO)
        };
        let response = self.ask(request, Purpose::Reading).await?;
        let (mut chunk, mut next_offset) = (Vec::with_capacity(response.batches.len()), offset);
        for raw in response.batches {
            let stored = stored(raw)?;
            let end_offset = stored.base_offset.saturating_add(u64::from(stored.record_count));
            if !(stored.base_offset..end_offset).contains(&next_offset) {
                return Err(garbled(&format!("offset {next_offset} is missing")));
            }
            next_offset = end_offset;
            chunk.push(stored);
        }
        Ok(chunk)
    }

    async fn wait_for(&self, offset: u64) -> Result<(), Failure> {
        let mut progress = self.remote.progress.subscribe();
        let is_there = |progress: &Progress| progress.committed_offset > offset;
        while !is_there(&progress.borrow_and_update()) {
            let following = tokio::select! {
                following = self.remote.following.lock() => following,
                // The sender is held here.
                _changed = progress.changed() => continue,
            };
            // Somebody may have heard of it meanwhile.
            if !is_there(&progress.borrow_and_update()) {
                self.follow().await?;
            }
            drop(following);
        }
        Ok(())
    }

    /// Asks for the next record that nobody here has heard of.
    async fn follow(&self) -> Result<(), Failure> {
        let request = self.request(self.progress().committed_offset, FOLLOW_MAX);
        match self.ask(request, Purpose::following(self.remote.group)).await {
            Ok(_) => Ok(()),
            // It may be trimmed already.
            Err(failure) => match range(&failure) {
                Some(range) if self.remote.came_to(range) => Ok(()),
                _ => Err(failure),
            },
        }
    }

    /// Where the log ends.
    fn end(&self, linearizable: bool) -> v1::ConsumeRequest {
        let start = Some(WireStart::Latest(true));
        v1::ConsumeRequest { start, linearizable, ..self.request(0, Duration::ZERO) }
    }

    /// One record at an offset, or that there is none yet.
    fn request(&self, offset: u64, patience: Duration) -> v1::ConsumeRequest {
        // Who does not wait at all is told that the end is out of range.
        let wait_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX).max(1);
        v1::ConsumeRequest {
            offset,
            topic: self.id.topic.to_string(),
            partition: self.id.partition,
            wait_ms,
            ..v1::ConsumeRequest::default()
        }
    }

    /// What one of the nodes answers: the one that answered last, and if it cannot, the next.
    async fn ask(
        &self,
        request: v1::ConsumeRequest,
        purpose: Purpose,
    ) -> Result<v1::ConsumeResponse, Failure> {
        let (group, peers) = self.node.cluster.replicas_elsewhere(&self.id)?;
        if group != self.remote.group {
            return Err(ReadError::Deleted(self.id.clone()).into());
        }
        let asked_last = match purpose {
            Purpose::Following(_) => &self.remote.followed_at,
            _ => &self.remote.read_at,
        };
        let first = asked_last.load(Ordering::Relaxed);
        let mut nobody = ReadError::NoLeader(self.id.clone()).into();
        for number in (0..peers.len()).map(|number| first.wrapping_add(number)) {
            let peer = &peers[number % peers.len()];
            match self.ask_peer(peer, request.clone(), purpose).await {
                Ok(response) if self.is_behind(&request, &response) => {
                    nobody = self.behind(request.offset);
                }
                Ok(response) => {
                    // Who has nothing new may be cut off from the others.
                    let is_in_vain = response.records.is_empty();
                    let moves_on = matches!(purpose, Purpose::Following(_)) && is_in_vain;
                    let next = number.wrapping_add(usize::from(moves_on));
                    asked_last.store(next, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(failure) if self.would_all_say(&request, &failure) => return Err(failure),
                Err(failure) => nobody = self.of_one(failure, request.offset),
            }
        }
        Err(nobody)
    }

    async fn ask_peer(
        &self,
        peer: &Peer,
        request: v1::ConsumeRequest,
        purpose: Purpose,
    ) -> Result<v1::ConsumeResponse, Failure> {
        let patience = ANSWER_MAX + Duration::from_millis(request.wait_ms.into());
        let mut log = self.node.forwarder.log_for(peer, purpose)?;
        let answer = tokio::time::timeout(patience, log.consume(self.hops.next(request))).await;
        let answer = answer.map_err(|_| {
            Failure::new(&kinds::NO_LEADER, format!("node {} did not answer", peer.node_id))
        })?;
        let response = answer.map_err(|status| Failure::of_peer(&status))?.into_inner();
        let v1::ConsumeResponse { start_offset, committed_offset, .. } = response;
        self.remote.came_to(Progress { start_offset, committed_offset, ended: false });
        Ok(response)
    }

    /// Whether an answer has nothing where another replica has shown that there is something.
    fn is_behind(&self, request: &v1::ConsumeRequest, response: &v1::ConsumeResponse) -> bool {
        let is_empty = response.records.is_empty() && response.batches.is_empty();
        is_empty && request.start.is_none() && request.offset < self.progress().committed_offset
    }

    fn behind(&self, offset: u64) -> Failure {
        let message = format!("no replica of {} that answers has offset {offset} yet", self.id);
        Failure::new(&kinds::NO_LEADER, message)
    }

    /// Whether the other replicas would say the same.
    fn would_all_say(&self, request: &v1::ConsumeRequest, failure: &Failure) -> bool {
        match failure.kind.reason {
            reason::OFFSET_OUT_OF_RANGE => {
                request.start.is_some() || request.offset > self.progress().committed_offset
            }
            reason::OFFSET_TRIMMED
            | reason::TOPIC_NOT_FOUND
            | reason::INVALID_REQUEST
            | reason::PERMISSION_DENIED
            | reason::UNAUTHENTICATED => true,
            _ => false,
        }
    }

    /// What one who reads is told of the failure of one node, when all failed: reading again is
    /// safe.
    fn of_one(&self, mut failure: Failure, offset: u64) -> Failure {
        match failure.kind.reason {
            reason::OFFSET_OUT_OF_RANGE => return self.behind(offset),
            reason::UNKNOWN_OUTCOME | reason::SHUTTING_DOWN => failure.kind = &kinds::NO_LEADER,
            _ => {}
        }
        failure
    }
}

impl Remote {
    fn new(group: u64) -> Remote {
        Remote {
            group,
            progress: watch::Sender::default(),
            read_at: AtomicUsize::default(),
            followed_at: AtomicUsize::default(),
            following: sync::Mutex::default(),
        }
    }

    /// Never back: one replica may be behind another. Whether it was news.
    fn came_to(&self, seen: Progress) -> bool {
        self.progress.send_if_modified(|progress| {
            let start_offset = progress.start_offset.max(seen.start_offset);
            let committed_offset = progress.committed_offset.max(seen.committed_offset);
            let further = Progress { start_offset, committed_offset, ended: false };
            further != std::mem::replace(progress, further)
        })
    }
}

/// The offsets there are, of a failure that says so.
fn range(failure: &Failure) -> Option<Progress> {
    let fact = |key| failure.metadata.iter().find(|(name, _)| *name == key)?.1.parse().ok();
    Some(Progress {
        start_offset: fact(reason::EARLIEST)?,
        committed_offset: fact(reason::LATEST)?,
        ended: false,
    })
}

/// A batch as another node sent it.
fn stored(raw: v1::RawBatch) -> Result<StoredBatch, Failure> {
    let header = BatchHeader::verify(&raw.batch).map_err(|error| garbled(&error.to_string()))?;
    Ok(StoredBatch {
        base_offset: header.base_offset,
        record_count: header.record_count,
        term: header.term,
        timestamp_ms: raw.timestamp_ms,
        batch: raw.batch,
    })
}

fn garbled(what: &str) -> Failure {
    Failure::new(&kinds::READ_FAILED, format!("another node answered with bad records: {what}"))
}
