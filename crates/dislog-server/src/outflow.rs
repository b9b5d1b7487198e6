//! Pages on their way to a client that takes them as slowly as it likes.
//!
//! ```text
//!   log ──▶ page ──piece──▶ transport ──▶ client
//!            ▲ │ the rest, between two pieces
//!            │ ▼
//!           shelf   one for the node, of a limited size
//! ```
//!
//! Between two pieces nothing but a position belongs to the stream: the rest of the page and what
//! was read ahead are on the shelf, which drops what waits longest. A page that was dropped is read
//! and made again, byte by byte as it was, and left where it was left. So all slow readers together
//! cost the shelf, what the transport may hold of all of them ([`Transit`]) and a small piece each,
//! and they neither wait for memory nor keep it from others.

use std::future::Future;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::page::{PIECE_BYTES_MAX, Page};
use crate::read::{Ahead, Reader};
use crate::shelf::{Place, Shelf};
use crate::status::{Failure, kinds};
use crate::transit::{Lane, Transit};

/// What all readers of a node together may have waiting for them. What does not fit is read again,
/// so more only spares work, and only with many readers at once.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// What the transport may hold of all readers together, but for a small piece of each.
const TRANSIT_BYTES_MAX: usize = 32 << 20;

/// Pages that are being made at once. No client can delay one, so that everybody's turn comes;
/// bounds the memory of pages that are not on the shelf yet.
const PAGES_IN_MAKING_MAX: usize = 8;

/// What the outflows of a node share.
pub(crate) struct Outlet {
    shelf: Shelf<Waiting>,
    transit: Transit,
    making: Semaphore,
    /// The same for pages of records that other nodes send: those can delay one.
    fetching: Semaphore,
}

impl Outlet {
    /// The turn to make a page of what is read here, or elsewhere. Safe to cancel.
    pub(crate) async fn turn(&self, is_here: bool) -> Option<SemaphorePermit<'_>> {
        let turns = if is_here { &self.making } else { &self.fetching };
        // The semaphore is never closed.
        turns.acquire().await.ok()
    }
}

/// What a stream has on the shelf.
struct Waiting {
    page: Page,
    ahead: Ahead,
}

/// Where pages come from.
pub(crate) trait Source: Send {
    /// The next page of about so many bytes at most; `None` if there is nothing to send now.
    fn page(
        &mut self,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Option<Page>, Failure>> + Send;

    /// The page before that once more, the same byte by byte.
    fn page_again(&mut self) -> impl Future<Output = Result<Page, Failure>> + Send;

    /// What to do when there is no page.
    fn wait(&mut self) -> impl Future<Output = Result<Waited, Failure>> + Send;

    /// What reads the log.
    fn reader(&mut self) -> &mut Reader;
}

/// What came of waiting for a page.
pub(crate) enum Waited {
    /// There may be one now.
    Records,
    /// There will not be one.
    End,
    /// Not yet; these bytes show the client that the stream is alive.
    Heartbeat(Bytes),
}

/// The pages of a source, piece by piece.
pub(crate) struct Outflow<S> {
    source: S,
    lane: Lane,
    /// What is on the shelf, or was.
    place: Option<Place<Waiting>>,
    /// Bytes of the last page that were given out, and that were not.
    given_bytes: usize,
    left_bytes: usize,
}

impl Default for Outlet {
    fn default() -> Outlet {
        Outlet {
            shelf: Shelf::new(WAITING_BYTES_MAX),
            transit: Transit::new(TRANSIT_BYTES_MAX),
            making: Semaphore::new(PAGES_IN_MAKING_MAX),
            fetching: Semaphore::new(PAGES_IN_MAKING_MAX),
        }
    }
}

impl<S: Source> Outflow<S> {
    /// The pages of `source`.
    pub(crate) fn new(source: S) -> Outflow<S> {
        Outflow { source, lane: Lane::default(), place: None, given_bytes: 0, left_bytes: 0 }
    }

    /// Where the pages come from.
    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    /// Whether a page was begun and not given out whole: nothing else may follow then.
    pub(crate) fn is_within_page(&self) -> bool {
        self.given_bytes > 0 && self.left_bytes > 0
    }

    /// Makes the first page, so that its failure is known before the answer begins.
    pub(crate) async fn prepare(&mut self, outlet: &Outlet) -> Result<(), Failure> {
        let _turn = outlet.turn(self.source.reader().is_here()).await;
        if let Some(page) = self.source.page(usize::MAX).await? {
            self.put(page, outlet);
        }
        Ok(())
    }

    /// The next bytes to send; `None` at the end.
    pub(crate) async fn next(&mut self, outlet: &Outlet) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(piece) = self.piece(outlet).await? {
                return Ok(Some(piece));
            }
            match self.source.wait().await? {
                Waited::Records => {}
                Waited::End => return Ok(None),
                Waited::Heartbeat(bytes) => return Ok(Some(bytes)),
            }
        }
    }

    async fn piece(&mut self, outlet: &Outlet) -> Result<Option<Bytes>, Failure> {
        let room = outlet.transit.room(&self.lane).await;
        let kept = self.place.take().and_then(Place::take);
        if let Some(Waiting { page, ahead }) = kept {
            self.source.reader().put_ahead(ahead);
            if page.bytes() > 0 {
                return Ok(self.give(page, room, outlet));
            }
        }
        let _turn = outlet.turn(self.source.reader().is_here()).await;
        if self.left_bytes > 0 {
            let mut page = self.source.page_again().await?;
            page.skip(self.given_bytes);
            if page.bytes() != self.left_bytes {
                let message = "records that were read once are not what they were";
                return Err(Failure::new(&kinds::READ_FAILED, message));
            }
            return Ok(self.give(page, room, outlet));
        }
        // Pages of a piece leave nothing for the shelf.
        let is_crowded = outlet.shelf.is_crowded();
        let bytes_max = if is_crowded { PIECE_BYTES_MAX } else { usize::MAX };
        let Some(page) = self.source.page(bytes_max).await? else { return Ok(None) };
        self.given_bytes = 0;
        Ok(self.give(page, room, outlet))
    }

    fn give(&mut self, mut page: Page, bytes_max: usize, outlet: &Outlet) -> Option<Bytes> {
        let piece = page.piece(bytes_max)?;
        self.given_bytes += piece.len();
        self.put(page, outlet);
        Some(outlet.transit.piece(&self.lane, piece))
    }

    fn put(&mut self, mut page: Page, outlet: &Outlet) {
        self.left_bytes = page.bytes();
        // What is on the shelf counts for what it holds.
        page.detach();
        let ahead = self.source.reader().take_ahead();
        let bytes = page.bytes() + ahead.bytes();
        if bytes > 0 {
            self.place = Some(outlet.shelf.put(Waiting { page, ahead }, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn few_pages_are_made_at_once() {
        let outlet = Outlet::default();
        let turn = || outlet.turn(true).now_or_never().flatten();
        let mut turns: Vec<_> = std::iter::from_fn(turn).take(2 * PAGES_IN_MAKING_MAX).collect();
        assert_eq!(turns.len(), PAGES_IN_MAKING_MAX);
        assert!(outlet.turn(false).now_or_never().flatten().is_some(), "other nodes delay no page");
        turns.pop();
        assert!(turn().is_some());
    }
}
