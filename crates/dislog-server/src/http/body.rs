//! Reading request bodies within limits of bytes and time.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::budget::{Class, Share, slow};
use crate::node::Node;
use crate::status::{Failure, kinds};

/// A body in memory. Its share of the budget lives as long as it does.
pub(super) struct Whole {
    /// The bytes.
    pub(super) bytes: Bytes,
    _share: Option<Share>,
}

/// All of a body, if it has at most so many bytes. One that says beforehand that it has more is
/// refused unread.
pub(super) async fn whole(node: &Node, body: Body, bytes_max: usize) -> Result<Whole, Failure> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let reading = tokio::time::timeout(node.request_timeout(), collect(node, body, bytes_max));
    reading.await.unwrap_or_else(|_| Err(slow()))
}

async fn collect(node: &Node, mut body: Body, bytes_max: usize) -> Result<Whole, Failure> {
    let class = Class::of(body.size_hint().upper());
    let mut bytes = BytesMut::new();
    let mut share: Option<Share> = None;
    while let Some(data) = next_data(&mut body).await? {
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        take_more(node, class, &mut share, data.len()).await?;
        bytes.extend_from_slice(&data);
    }
    Ok(Whole { bytes: bytes.freeze(), _share: share })
}

/// Adds so many bytes to a share of the budget.
pub(super) async fn take_more(
    node: &Node,
    class: Class,
    share: &mut Option<Share>,
    bytes: usize,
) -> Result<(), Failure> {
    let more = node.budget.take(class, bytes).await?;
    match share {
        Some(share) => share.merge(more),
        None => *share = Some(more),
    }
    Ok(())
}

/// The next bytes of a body; `None` at its end. Safe to cancel.
pub(super) async fn next_data(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Failure::invalid(format!("the request body broke off: {error}")))?;
        // Trailers say nothing that is asked for here.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn too_large(bytes_max: usize) -> Failure {
    let message = format!(
        "the request body has more than {bytes_max} bytes: send less at a time, or many records as \
         application/x-ndjson, which has no limit"
    );
    Failure::new(&kinds::TOO_LARGE, message)
}
