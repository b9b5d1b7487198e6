//! The replica that a reader reads: that of this node, or, where it has none, one of another node.
//!
//! Of a partition elsewhere, all readers share what is known of it, a [`Remote`]. One of those that
//! wait for its next record asks for all of them; each reads its records by itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
    topic_id: u64,
    progress: watch::Sender<Progress>,
    /// Which of the nodes is asked.
    turn: AtomicUsize,
    /// Whoever holds it asks for the next record.
    following: sync::Mutex<()>,
}

/// The partitions elsewhere that are being read.
#[derive(Default)]
pub(crate) struct Remotes(Mutex<HashMap<(u64, u32), Weak<Remote>>>);

impl Remotes {
    fn get(&self, topic_id: u64, partition: u32) -> Arc<Remote> {
        let mut remotes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remote) = remotes.get(&(topic_id, partition)).and_then(Weak::upgrade) {
            return remote;
        }
        remotes.retain(|_, remote| remote.strong_count() > 0);
        let remote = Arc::new(Remote {
            topic_id,
            progress: watch::Sender::default(),
            turn: AtomicUsize::default(),
            following: sync::Mutex::default(),
        });
        remotes.insert((topic_id, partition), Arc::downgrade(&remote));
        remote
    }
}

impl Replica {
    /// Of a partition whose replicas are elsewhere, to be read on behalf of somebody.
    pub(crate) fn there(node: &Node, id: PartitionId, hops: Hops) -> Result<Replica, Failure> {
        let (topic_id, peers) = node.cluster.replicas_elsewhere(&id)?;
        if peers.is_empty() || !hops.may_go_on() {
            return Err(ReadError::NoLeader(id).into());
        }
        let remote = node.remotes.get(topic_id, id.partition);
        Ok(Replica::There(There { node: node.clone(), hops, id, remote }))
    }

    /// The offset of a start. Linearizable: of what was acknowledged before the call, everything
    /// is seen.
    pub(crate) async fn offset_of(&self, start: Start, linearizable: bool) -> Result<u64, Failure> {
        let partition = match self {
            Replica::Here(partition) => partition,
            Replica::There(there) => return there.offset_of(start, linearizable).await,
        };
        if linearizable {
            partition.linearize().await?;
        } else if let Start::Offset(offset) = start {
            catch_up(partition, offset).await;
        }
        let Progress { start_offset, committed_offset, .. } = partition.progress();
        Ok(match start {
            Start::Offset(offset) => offset,
            Start::Timestamp(timestamp_ms) => partition.offset_at(timestamp_ms).await?,
            Start::Earliest => start_offset,
            Start::Latest => committed_offset,
            Start::Last(count) => committed_offset.saturating_sub(count).max(start_offset),
        })
    }

    /// How far the partition has come, as far as this node knows.
    pub(crate) fn progress(&self) -> Progress {
        match self {
            Replica::Here(partition) => partition.progress(),
            Replica::There(there) => *there.remote.progress.borrow(),
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
    async fn offset_of(&self, start: Start, linearizable: bool) -> Result<u64, Failure> {
        let (offset, wire_start) = match start {
            Start::Offset(offset) => (offset, None),
            Start::Timestamp(timestamp_ms) => (0, Some(WireStart::TimestampMs(timestamp_ms))),
            Start::Earliest => (0, Some(WireStart::Earliest(true))),
            Start::Latest => (0, Some(WireStart::Latest(true))),
            Start::Last(count) => (0, Some(WireStart::Last(count))),
        };
        let request = v1::ConsumeRequest {
            start: wire_start,
            linearizable,
            ..self.request(offset, Duration::ZERO)
        };
        match (self.ask(request, Purpose::Requests).await, start) {
            (Ok(response), _) => {
                let first = response.records.first();
                Ok(first.map_or(response.next_offset, |record| record.offset))
            }
            (Err(failure), Start::Offset(offset)) => match range(&failure) {
                Some(progress) => {
                    self.remote.came_to(progress);
                    Ok(offset)
                }
                None => Err(failure),
            },
            (Err(failure), _) => Err(failure),
        }
    }

    async fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, Failure> {
        let request = v1::ConsumeRequest {
            raw: true,
            max_bytes: u32::try_from(bytes_max.max(1)).unwrap_or(u32::MAX),
            ..self.request(offset, Duration::ZERO)
        };
        let response = self.ask(request, Purpose::Requests).await?;
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
            let end_offset = progress.borrow_and_update().committed_offset;
            if end_offset <= offset {
                self.ask(self.request(end_offset, FOLLOW_MAX), Purpose::Following).await?;
            }
            drop(following);
        }
        Ok(())
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

    /// What one of the nodes answers: the one that answered last, and if it fails, the next.
    async fn ask(
        &self,
        request: v1::ConsumeRequest,
        purpose: Purpose,
    ) -> Result<v1::ConsumeResponse, Failure> {
        let (topic_id, peers) = self.node.cluster.replicas_elsewhere(&self.id)?;
        if topic_id != self.remote.topic_id {
            return Err(ReadError::Deleted(self.id.clone()).into());
        }
        let mut failure = ReadError::NoLeader(self.id.clone()).into();
        for _ in 0..peers.len() {
            let turn = self.remote.turn.load(Ordering::Relaxed);
            let asked = self.ask_peer(&peers[turn % peers.len()], request.clone(), purpose).await;
            let goes_on = match &asked {
                Ok(response) => {
                    self.remote.came_to(Progress {
                        start_offset: response.start_offset,
                        committed_offset: response.committed_offset,
                        ended: false,
                    });
                    purpose == Purpose::Requests || !response.records.is_empty()
                }
                Err(failure) => self.is_about_the_records(&request, failure),
            };
            if !goes_on {
                let _ = self.remote.turn.compare_exchange(
                    turn,
                    turn.wrapping_add(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            match asked {
                Err(of_peer) if !goes_on => failure = of_peer,
                outcome => return outcome,
            }
        }
        if failure.kind.reason == reason::UNKNOWN_OUTCOME {
            failure.kind = &kinds::NO_LEADER;
        }
        Err(failure)
    }

    async fn ask_peer(
        &self,
        peer: &Peer,
        request: v1::ConsumeRequest,
        purpose: Purpose,
    ) -> Result<v1::ConsumeResponse, Failure> {
        let patience = ANSWER_MAX + Duration::from_millis(request.wait_ms.into());
        let mut log = self.node.forwarder.log_for(peer, purpose)?;
        match tokio::time::timeout(patience, log.consume(self.hops.next(request))).await {
            Ok(answer) => Ok(answer.map_err(|status| Failure::of_peer(&status))?.into_inner()),
            Err(_) => {
                let message = format!("node {} did not answer", peer.node_id);
                Err(Failure::new(&kinds::NO_LEADER, message))
            }
        }
    }

    /// Whether every other replica would say the same.
    fn is_about_the_records(&self, request: &v1::ConsumeRequest, failure: &Failure) -> bool {
        match failure.kind.reason {
            // What another has shown, this one may have yet to hear of.
            reason::OFFSET_OUT_OF_RANGE => {
                let Progress { committed_offset, .. } = *self.remote.progress.borrow();
                request.start.is_some() || request.offset > committed_offset
            }
            reason::OFFSET_TRIMMED
            | reason::TOPIC_NOT_FOUND
            | reason::INVALID_REQUEST
            | reason::PERMISSION_DENIED
            | reason::UNAUTHENTICATED => true,
            _ => false,
        }
    }
}

impl Remote {
    /// Never back: one replica may be behind another.
    fn came_to(&self, seen: Progress) {
        self.progress.send_if_modified(|progress| {
            let start_offset = progress.start_offset.max(seen.start_offset);
            let committed_offset = progress.committed_offset.max(seen.committed_offset);
            let further = Progress { start_offset, committed_offset, ended: false };
            further != std::mem::replace(progress, further)
        });
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
