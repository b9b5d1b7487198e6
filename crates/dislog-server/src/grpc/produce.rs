//! `Produce` and `ProduceStream`.

use std::future::ready;
use std::pin::{Pin, pin};

use dislog_cluster::{AppendError, Appended, Peer};
use dislog_proto::v1;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use crate::append::{self, Pending};
use crate::forward::Hops;
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
    request: v1::ProduceRequest,
    hops: Hops,
) -> Result<v1::ProduceResponse, Failure> {
    let submitted = submit(node, request, hops, None).await?;
    // produce 10: whoever asked is told. If nobody is there any more, the append has happened all
    // the same.
    let outcome = append::outcome(node, submitted.pending, submitted.idempotent).await?;
    Ok(response(outcome))
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
pub(super) fn stream(node: Node, requests: Streaming<v1::ProduceRequest>, hops: Hops) -> Answers {
    let answers = async move {
        match started(&node, requests, hops).await {
            Ok(answers) => answers,
            Err(status) => Box::pin(stream::iter([Err(status)])) as Answers,
        }
    };
    Box::pin(stream::once(answers).flatten())
}

async fn started(
    node: &Node,
    mut requests: Streaming<v1::ProduceRequest>,
    hops: Hops,
) -> Result<Answers, Status> {
    let closing = node.closing.clone();
    let first = tokio::select! {
        first = requests.message() => first?,
        () = closing.wait() => return Err(Failure::shutting_down().into()),
    };
    let Some(first) = first else { return Ok(Box::pin(stream::empty())) };
    match node.place(&first.topic, first.partition, hops).await? {
        Place::Here(_) => Ok(submitted(node.clone(), first, requests, hops)),
        Place::There(_, peer) => sent_on(node, &peer, first, requests, hops).await,
    }
}

async fn sent_on(
    node: &Node,
    peer: &Peer,
    first: v1::ProduceRequest,
    requests: Streaming<v1::ProduceRequest>,
    hops: Hops,
) -> Result<Answers, Status> {
    let (ended, cut) = oneshot::channel::<()>();
    let rest = requests.take_while(|request| ready(request.is_ok())).filter_map(|r| ready(r.ok()));
    let requests = stream::iter([first]).chain(rest).take_until(cut);
    let answers = node.forwarder.log(peer)?.produce_stream(hops.next(requests)).await;
    let answers = answers.map_err(|status| Failure::of_peer(&status))?.into_inner();
    let closing = node.closing.clone();
    let closed = Box::pin(async move { closing.wait().await });
    let answers = answers.take_until(closed).map(move |answer| {
        // Held as long as the answers are wanted.
        let _held = &ended;
        answer.map_err(|status| Status::from(Failure::of_peer(&status)))
    });
    Ok(Box::pin(answers))
}

fn submitted(
    node: Node,
    first: v1::ProduceRequest,
    requests: Streaming<v1::ProduceRequest>,
    hops: Hops,
) -> Answers {
    let (queue, submitted) = mpsc::channel(STREAM_REQUESTS_MAX);
    tokio::spawn(submit_all(node.clone(), first, requests, hops, queue));
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

/// The partition of a stream's first request, which was here. When its leader is another from now
/// on, the stream ends: sent on one by one, the requests could overtake each other and leave gaps.
struct Stays {
    topic: String,
    partition: u32,
}

impl Stays {
    fn is(&self, topic: &str, partition: u32) -> bool {
        self.topic == topic && self.partition == partition
    }
}

async fn submit(
    node: &Node,
    request: v1::ProduceRequest,
    hops: Hops,
    stays: Option<&Stays>,
) -> Result<Submitted, Failure> {
    // produce 1: the request becomes one checked batch; what cannot be read back is refused here.
    let (topic, partition) = (request.topic.clone(), request.partition);
    let append = append::from_request(request).await?;
    let idempotent = append.header.producer.is_some();
    let place = node.place(&topic, partition, hops).await?;
    if let Place::There(id, _) = &place
        && stays.is_some_and(|stays| stays.is(&topic, partition))
    {
        return Err(AppendError::NoLeader(id.clone()).into());
    }
    let pending = append::submit_at(node, place, append, hops).await?;
    Ok(Submitted { pending, idempotent })
}

async fn submit_all(
    node: Node,
    first: v1::ProduceRequest,
    mut requests: Streaming<v1::ProduceRequest>,
    hops: Hops,
    queue: mpsc::Sender<Result<Submitted, Status>>,
) {
    let closing = node.closing.clone();
    let mut closed = pin!(closing.wait());
    let stays = Stays { topic: first.topic.clone(), partition: first.partition };
    let mut first = Some(first);
    // The place in the queue comes first, so that nothing is appended that could not be answered.
    while let Ok(place) = queue.reserve().await {
        let request = match first.take() {
            Some(first) => Ok(Some(first)),
            None => tokio::select! {
                request = requests.message() => request,
                () = &mut closed => Err(Failure::shutting_down().into()),
            },
        };
        let submitted = match request {
            Ok(Some(request)) => {
                submit(&node, request, hops, Some(&stays)).await.map_err(Status::from)
            }
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
