//! `Produce` and `ProduceStream`.

use std::collections::HashMap;
use std::pin::{Pin, pin};

use dislog_cluster::{Append, AppendError, Appended, Peer};
use dislog_proto::v1;
use dislog_types::PartitionId;
use futures_util::future::ready;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::requests::Requests;
use crate::access::{Action, Asking, Guard};
use crate::append::{self, Pending};
use crate::forward::{self, Hops, Purpose};
use crate::node::{Node, Place};
use crate::status::Failure;

/// Requests of one stream that may be under way: as many as the batches that are remembered of a
/// producer, so that a retry of all of them is answered. Their bytes are bounded by the partitions.
const STREAM_REQUESTS_MAX: usize = dislog_types::limits::PRODUCER_BATCHES_REMEMBERED;

/// The answers of a stream.
pub(super) type Answers =
    Pin<Box<dyn Stream<Item = Result<v1::ProduceResponse, Status>> + Send + 'static>>;

/// Appends one batch.
pub(super) async fn produce(
    node: &Node,
    asking: &Asking,
    request: v1::ProduceRequest,
) -> Result<v1::ProduceResponse, Failure> {
    asking.may(Action::Produce, &request.topic)?;
    let (topic, partition) = (request.topic.clone(), request.partition);
    let (append, idempotent) = read(request).await?;
    let pending = append::submit(node, &topic, partition, append, asking.hops.clone()).await?;
    // produce 10: whoever asked is told. If nobody is there any more, the append has happened all
    // the same.
    Ok(response(append::outcome(node, pending, idempotent).await?))
}

/// Appends batches in the order of their requests, and answers in that order.
///
/// One task reads and submits, the stream of answers awaits the outcomes: so appends overlap, and a
/// client that does not read its answers is held back once [`STREAM_REQUESTS_MAX`] are under way.
/// The task ends with the requests, at the first failure, when the answers are dropped, or when the
/// node is closing.
///
/// If another node leads what the first request is for, that node gets the stream as it is: only
/// so do its requests stay in order.
pub(super) fn stream(node: Node, asking: Asking, requests: Requests) -> Answers {
    let answers = async move {
        match started(&node, asking, requests).await {
            Ok(answers) => answers,
            Err(status) => Box::pin(stream::iter([Err(status)])) as Answers,
        }
    };
    Box::pin(stream::once(answers).flatten())
}

async fn started(node: &Node, asking: Asking, mut requests: Requests) -> Result<Answers, Status> {
    let closing = node.closing.clone();
    let mut guard = asking.guard_of_identity();
    let first = tokio::select! {
        first = requests.next() => first.transpose()?,
        failure = guard.ended() => return Err(failure.into()),
        () = closing.wait() => return Err(Failure::shutting_down().into()),
    };
    let Some(first) = first else { return Ok(Box::pin(stream::empty())) };
    // It may have come after who asks was known for a while.
    guard.check()?;
    asking.may(Action::Produce, &first.topic)?;
    match node.place(&first.topic, first.partition, &asking.hops).await? {
        Place::Here(_) => Ok(submitted(node.clone(), asking, first, requests)),
        Place::There(id, peer) => sent_on(node, asking, (&id, &peer), first, requests).await,
    }
}

/// What the other node answers. It decides about every request, too, but takes this one's word for
/// who asks: that they may, and still are who they were, is watched and recorded here.
async fn sent_on(
    node: &Node,
    asking: Asking,
    (id, peer): (&PartitionId, &Peer),
    first: v1::ProduceRequest,
    requests: Requests,
) -> Result<Answers, Status> {
    let guard = asking.guard(Action::Produce, &first.topic);
    let (ended, cut) = oneshot::channel::<()>();
    // Watched beside the answers, which a client need not take.
    let right = Right::of(&asking, &first.topic);
    let (refuse, refused) = oneshot::channel::<Failure>();
    let state = (requests, asking.clone(), right, refuse);
    let rest = stream::unfold(state, |(mut requests, asking, mut right, refuse)| async move {
        let request = tokio::select! {
            request = requests.next() => Ok(request?.ok()?),
            failure = right.guard.ended() => Err(failure),
        };
        let covered = request.and_then(|request| {
            right.covers(&asking, &request.topic)?;
            Ok(request)
        });
        match covered {
            Ok(request) => Some((request, (requests, asking, right, refuse))),
            Err(failure) => {
                // Whoever took the answers may be gone.
                let _ = refuse.send(failure);
                None
            }
        }
    });
    let requests = asking.hops.next(stream::iter([first]).chain(rest).take_until(cut));
    let lane = Purpose::producing(id);
    let answers = node.forwarder.log_for(peer, lane)?.produce_stream(requests).await;
    let answers = answers.map_err(|status| Failure::of_peer(&status))?.into_inner();
    let answers = answers.map_err(|status| Status::from(Failure::of_peer(&status)));
    // Why there are no more requests comes behind the answers to those there were.
    let refused = stream::once(refused).filter_map(|refused| ready(refused.ok()));
    let answers = answers.chain(refused.map(|failure| Err(failure.into()))).boxed();
    let state = Some((answers, guard, node.closing.clone(), ended));
    Ok(Box::pin(stream::unfold(state, |state| async {
        // The requests go on for as long as `ended` is held.
        let (mut answers, mut guard, closing, ended) = state?;
        let answer = tokio::select! {
            answer = answers.next() => answer?,
            failure = guard.ended() => Err(failure.into()),
            () = closing.wait() => return None,
        };
        let rest = answer.is_ok().then_some((answers, guard, closing, ended));
        Some((answer, rest))
    })))
}

fn submitted(node: Node, asking: Asking, first: v1::ProduceRequest, requests: Requests) -> Answers {
    let (queue, submitted) = mpsc::channel(STREAM_REQUESTS_MAX);
    tokio::spawn(submit_all(node.clone(), asking, first, requests, queue));
    let state = Some((node, submitted));
    Box::pin(stream::unfold(state, |state| async move {
        let (node, mut submitted) = state?;
        match answer(&node, submitted.recv().await?).await {
            Ok(response) => Some((Ok(response), Some((node, submitted)))),
            Err(status) => Some((Err(status), None)),
        }
    }))
}

struct Submitted {
    pending: Pending,
    idempotent: bool,
}

/// Where the partitions of a stream are, each since its first request. When its leader is another
/// from now on, the stream ends: its requests could overtake each other and leave gaps.
#[derive(Default)]
struct Course(HashMap<PartitionId, Taken>);

/// Where requests for a partition are taken.
enum Taken {
    /// By this node, in order.
    Here,
    /// By another: each once the one before it was, which this says.
    There(oneshot::Receiver<()>),
}

impl Course {
    /// Queues an append, or sends it on when what was sent on before it is appended.
    async fn submit(
        &mut self,
        node: &Node,
        place: Place,
        append: Append,
        hops: Hops,
    ) -> Result<Pending, Failure> {
        match place {
            Place::Here(partition) => {
                let id = partition.id();
                match self.0.get(id) {
                    Some(Taken::Here) => {}
                    Some(Taken::There(_)) => return Err(moved(id)),
                    None => drop(self.0.insert(id.clone(), Taken::Here)),
                }
                Ok(Pending::Here(partition.submit(append).await?))
            }
            Place::There(id, peer) => {
                let (taken, is_taken) = oneshot::channel();
                let before = match self.0.insert(id.clone(), Taken::There(is_taken)) {
                    Some(Taken::Here) => return Err(moved(&id)),
                    Some(Taken::There(before)) => Some(before),
                    None => None,
                };
                let node = node.clone();
                let append = node.forwarder.admit(append, node.request_timeout()).await?;
                Ok(Pending::There(tokio::spawn(async move {
                    if let Some(before) = before {
                        before.await.map_err(|_| moved(&id))?;
                    }
                    let appended = forward::append(node, peer, hops, id, append).await?;
                    // Nobody waits for the last.
                    let _ = taken.send(());
                    Ok(appended)
                })))
            }
        }
    }
}

fn moved(id: &PartitionId) -> Failure {
    AppendError::NoLeader(id.clone()).into()
}

/// An append of a request, and whether it is safe to send twice.
async fn read(request: v1::ProduceRequest) -> Result<(Append, bool), Failure> {
    // produce 1: the request becomes one checked batch; what cannot be read back is refused here.
    let append = append::from_request(request).await?;
    let idempotent = append.header.producer.is_some();
    Ok((append, idempotent))
}

async fn submitted_to(
    node: &Node,
    request: v1::ProduceRequest,
    hops: Hops,
    course: &mut Course,
) -> Result<Submitted, Failure> {
    let (topic, partition) = (request.topic.clone(), request.partition);
    let (append, idempotent) = read(request).await?;
    let place = node.place(&topic, partition, &hops).await?;
    let pending = course.submit(node, place, append, hops).await?;
    Ok(Submitted { pending, idempotent })
}

async fn submit_all(
    node: Node,
    asking: Asking,
    first: v1::ProduceRequest,
    mut requests: Requests,
    queue: mpsc::Sender<Result<Submitted, Status>>,
) {
    let closing = node.closing.clone();
    let mut closed = pin!(closing.wait());
    let mut course = Course::default();
    let mut right = Right::of(&asking, &first.topic);
    let mut first = Some(first);
    // The place in the queue comes first, so that nothing is appended that could not be answered.
    while let Ok(place) = queue.reserve().await {
        let request = match first.take() {
            Some(first) => Ok(Some(first)),
            None => tokio::select! {
                request = requests.next() => request.transpose(),
                failure = right.guard.ended() => Err(failure.into()),
                () = &mut closed => Err(Failure::shutting_down().into()),
            },
        };
        let submitted = match request {
            Ok(Some(request)) => match right.covers(&asking, &request.topic) {
                Ok(()) => {
                    let hops = asking.hops.clone();
                    submitted_to(&node, request, hops, &mut course).await.map_err(Status::from)
                }
                Err(failure) => Err(failure.into()),
            },
            Ok(None) => return,
            Err(status) => Err(status),
        };
        let failed = submitted.is_err();
        place.send(submitted);
        if failed {
            return;
        }
    }
}

/// The right to the topic of the last request, which most often is that of the next.
struct Right {
    topic: String,
    guard: Guard,
}

impl Right {
    fn of(asking: &Asking, topic: &str) -> Right {
        Right { topic: topic.to_owned(), guard: asking.guard(Action::Produce, topic) }
    }

    fn covers(&mut self, asking: &Asking, topic: &str) -> Result<(), Failure> {
        self.guard.check()?;
        if self.topic == topic {
            return Ok(());
        }
        asking.may(Action::Produce, topic)?;
        *self = Right::of(asking, topic);
        Ok(())
    }
}

async fn answer(
    node: &Node,
    submitted: Result<Submitted, Status>,
) -> Result<v1::ProduceResponse, Status> {
    let Submitted { pending, idempotent } = submitted?;
    Ok(response(append::outcome(node, pending, idempotent).await?))
}

fn response(appended: Appended) -> v1::ProduceResponse {
    v1::ProduceResponse {
        offset: appended.base_offset,
        timestamp_ms: appended.timestamp_ms,
        count: appended.record_count,
        duplicate: appended.duplicate,
    }
}
