//! Reading request bodies within limits of bytes and time.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use http::Extensions;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::budget::{Budget, Class, Share, slow};
use crate::status::{Failure, kinds};

/// A body that has not been read, and what bounds its bytes in memory.
pub(super) struct Received {
    body: Body,
    budget: Budget,
    class: Class,
}

/// The listener gives every request the budget of its client.
impl<S: Sync> FromRequest<S> for Received {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Received, Infallible> {
        let budget = of_client(request.extensions());
        let body = request.into_body();
        let class = Class::of(body.size_hint().upper());
        Ok(Received { body, budget, class })
    }
}

/// The same for answers.
impl<S: Sync> FromRequestParts<S> for Budget {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Budget, Infallible> {
        Ok(of_client(&parts.extensions))
    }
}

fn of_client(extensions: &Extensions) -> Budget {
    extensions.get().cloned().expect("the listener puts it into every request")
}

/// A body in memory. Its share of the budget lives as long as it does.
pub(super) struct Whole {
    /// The bytes.
    pub(super) bytes: Bytes,
    _share: Option<Share>,
}

impl Received {
    /// All of it, if it has at most so many bytes. One that says beforehand that it has more is
    /// refused unread.
    pub(super) async fn whole(self, bytes_max: usize) -> Result<Whole, Failure> {
        if self.body.size_hint().lower() > bytes_max as u64 {
            return Err(too_large(bytes_max));
        }
        let reading = tokio::time::timeout(self.budget.timeout(), self.collect(bytes_max));
        reading.await.unwrap_or_else(|_| Err(slow()))
    }

    async fn collect(mut self, bytes_max: usize) -> Result<Whole, Failure> {
        let mut bytes = BytesMut::new();
        let mut share: Option<Share> = None;
        // What is announced is taken at once, so that bodies that arrive together do not wait for
        // each other's rest.
        let announced = self.body.size_hint().exact().unwrap_or(0);
        let announced = usize::try_from(announced).unwrap_or(usize::MAX).min(bytes_max);
        self.take(&mut share, announced).await?;
        while let Some(data) = self.next().await? {
            let more = bytes.len() + data.len();
            if more > bytes_max {
                return Err(too_large(bytes_max));
            }
            self.take(&mut share, more.saturating_sub(announced.max(bytes.len()))).await?;
            bytes.extend_from_slice(&data);
        }
        Ok(Whole { bytes: bytes.freeze(), _share: share })
    }

    /// Adds so many bytes to a share of the budget.
    pub(super) async fn take(
        &mut self,
        share: &mut Option<Share>,
        bytes: usize,
    ) -> Result<(), Failure> {
        if bytes == 0 {
            return Ok(());
        }
        let more = self.budget.take(self.class, bytes).await?;
        match share {
            Some(share) => share.merge(more),
            None => *share = Some(more),
        }
        Ok(())
    }

    /// The next bytes; `None` at the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                Failure::invalid(format!("the request body broke off: {error}"))
            })?;
            // Trailers say nothing that is asked for here.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// When what is under way must have arrived, if it begins now.
    pub(super) fn deadline(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + self.budget.timeout()
    }
}

fn too_large(bytes_max: usize) -> Failure {
    let message = format!(
        "the request body has more than {bytes_max} bytes: send less at a time, or many records as \
         application/x-ndjson, which has no limit"
    );
    Failure::new(&kinds::TOO_LARGE, message)
}
