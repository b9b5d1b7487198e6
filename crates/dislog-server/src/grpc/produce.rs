//! `Produce` and `ProduceStream`.

use std::pin::{Pin, pin};

use dislog_cluster::{Appended, PendingAppend};
use dislog_proto::v1;
use futures_util::Stream;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::append;
use crate::node::Node;
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
) -> Result<v1::ProduceResponse, Failure> {
    let submitted = submit(node, request).await?;
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
pub(super) fn stream(node: Node, requests: Streaming<v1::ProduceRequest>) -> Answers {
    let (queue, submitted) = mpsc::channel(STREAM_REQUESTS_MAX);
    tokio::spawn(submit_all(node.clone(), requests, queue));
    let state = Some((node, submitted));
    Box::pin(futures_util::stream::unfold(state, |state| async move {
        let (node, mut submitted) = state?;
        match answer(&node, submitted.recv().await?).await {
            Ok(response) => Some((Ok(response), Some((node, submitted)))),
            Err(status) => Some((Err(status), None)),
        }
    }))
}

struct Submitted {
    pending: PendingAppend,
    idempotent: bool,
}

async fn submit(node: &Node, request: v1::ProduceRequest) -> Result<Submitted, Failure> {
    // produce 1: the request becomes one checked batch; what cannot be read back is refused here.
    let (topic, partition) = (request.topic.clone(), request.partition);
    let append = append::from_request(request).await?;
    let idempotent = append.header.producer.is_some();
    let pending = append::submit(node, &topic, partition, append).await?;
    Ok(Submitted { pending, idempotent })
}

async fn submit_all(
    node: Node,
    mut requests: Streaming<v1::ProduceRequest>,
    queue: mpsc::Sender<Result<Submitted, Status>>,
) {
    let closing = node.closing.clone();
    let mut closed = pin!(closing.wait());
    // The place in the queue comes first, so that nothing is appended that could not be answered.
    while let Ok(place) = queue.reserve().await {
        let request = tokio::select! {
            request = requests.message() => request,
            () = &mut closed => Err(Failure::shutting_down().into()),
        };
        let submitted = match request {
            Ok(Some(request)) => submit(&node, request).await.map_err(Status::from),
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
