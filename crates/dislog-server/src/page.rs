//! A page as it will be sent: bytes that are given out piece by piece.
//!
//! What was given out belongs to the transport for as long as its client likes, so no piece is a
//! slice of something larger than itself.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// The most bytes of a piece. A stream whose client does not read costs the transport a few of
/// them.
pub(crate) const PIECE_BYTES_MAX: usize = 64 << 10;

/// What is smaller is copied together with what follows.
const READY_BYTES_MIN: usize = PIECE_BYTES_MAX / 4;

/// What is larger is cut.
const READY_BYTES_MAX: usize = 2 * PIECE_BYTES_MAX;

/// Content from this size on is not copied into the page, but only on its way out of it.
const SHARED_BYTES_MIN: usize = 4 << 10;

/// The rest of a page.
#[derive(Default)]
pub(crate) struct Page {
    parts: VecDeque<Part>,
    bytes: usize,
}

enum Part {
    /// Not much more than a piece: may be given out as it is.
    Ready(Bytes),
    /// In large memory of its own: is copied out piece by piece.
    Large(Bytes),
    /// The same in memory of a batch, which stays as long as this does.
    Shared(Bytes),
}

/// Makes a page.
#[derive(Default)]
pub(crate) struct PageBuilder {
    page: Page,
    own: Vec<u8>,
}

impl PageBuilder {
    /// Where what follows can be written.
    pub(crate) fn own(&mut self) -> &mut Vec<u8> {
        if self.own.len() >= PIECE_BYTES_MAX {
            self.close();
        }
        &mut self.own
    }

    /// Adds content that is in memory already.
    pub(crate) fn share(&mut self, content: Bytes) {
        if content.len() < SHARED_BYTES_MIN {
            self.own().extend_from_slice(&content);
            return;
        }
        self.close();
        self.page.bytes += content.len();
        self.page.parts.push_back(Part::Shared(content));
    }

    /// The page.
    pub(crate) fn finish(mut self) -> Page {
        self.close();
        self.page
    }

    fn close(&mut self) {
        if !self.own.is_empty() {
            let own = Bytes::from(std::mem::take(&mut self.own));
            self.page.bytes += own.len();
            let is_ready = own.len() <= READY_BYTES_MAX;
            self.page.parts.push_back(if is_ready { Part::Ready(own) } else { Part::Large(own) });
        }
    }
}

impl Page {
    /// How much is left.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets go of the batches that its content is of.
    pub(crate) fn detach(&mut self) {
        for part in &mut self.parts {
            if let Part::Shared(content) = part {
                *part = Part::Large(Bytes::copy_from_slice(content));
            }
        }
    }

    /// Leaves so many bytes out.
    pub(crate) fn skip(&mut self, bytes: usize) {
        let mut left = bytes.min(self.bytes);
        self.bytes -= left;
        while let Some(Part::Ready(part) | Part::Large(part) | Part::Shared(part)) =
            self.parts.front_mut()
        {
            let skipped = left.min(part.len());
            part.advance(skipped);
            left -= skipped;
            if !part.is_empty() {
                break;
            }
            self.parts.pop_front();
        }
    }

    /// The next bytes, about so many at most; `None` at the end.
    pub(crate) fn piece(&mut self, bytes_max: usize) -> Option<Bytes> {
        let ready_max = bytes_max.saturating_mul(READY_BYTES_MAX / PIECE_BYTES_MAX);
        match self.parts.front()? {
            Part::Ready(part)
                if part.len() <= ready_max
                    && (part.len() >= READY_BYTES_MIN || part.len() == self.bytes) =>
            {
                let part = part.clone();
                self.skip(part.len());
                Some(part)
            }
            _ => Some(self.copied(bytes_max)),
        }
    }

    fn copied(&mut self, bytes_max: usize) -> Bytes {
        let mut piece = Vec::with_capacity(self.bytes.min(bytes_max));
        while piece.len() < bytes_max
            && let Some(Part::Ready(part) | Part::Large(part) | Part::Shared(part)) =
                self.parts.front()
        {
            let taken = part.len().min(bytes_max - piece.len());
            piece.extend_from_slice(&part[..taken]);
            self.skip(taken);
        }
        piece.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(parts: &[usize]) -> (Page, Vec<u8>) {
        let mut builder = PageBuilder::default();
        let mut whole = Vec::new();
        for (number, bytes) in parts.iter().enumerate() {
            let part: Vec<u8> = (0..*bytes).map(|at| (at * 7 + number) as u8).collect();
            whole.extend_from_slice(&part);
            if number % 2 == 0 {
                builder.own().extend_from_slice(&part);
            } else {
                builder.share(part.into());
            }
        }
        (builder.finish(), whole)
    }

    #[test]
    fn what_is_put_aside_keeps_no_batch() {
        let batch = Bytes::from(vec![7; 100_000]);
        let mut builder = PageBuilder::default();
        builder.share(batch.slice(10..90_000));
        let mut page = builder.finish();
        assert_eq!(page.piece(1_000).unwrap(), batch[..1_000]);
        assert!(!batch.is_unique());
        page.detach();
        assert!(batch.is_unique());
        assert_eq!((page.bytes(), page.piece(1_000).unwrap()), (88_990, batch.slice(..1_000)));
    }

    #[test]
    fn pieces_are_the_page_from_wherever_it_is_taken_up() {
        let parts = [10, 3, 100, 5_000, 70_000, 300_000, 20, 65_536, 200_000, 1, 0, 4_096];
        for (skipped, bytes_max) in [
            (0, PIECE_BYTES_MAX),
            (0, 1_000),
            (1, PIECE_BYTES_MAX),
            (112, 4_096),
            (113, PIECE_BYTES_MAX),
            (65_536, 4_096),
            (400_000, PIECE_BYTES_MAX),
            (1_000_000, PIECE_BYTES_MAX),
        ] {
            let (mut page, whole) = page(&parts);
            assert_eq!(page.bytes(), whole.len());
            page.skip(skipped);
            let mut given = Vec::new();
            while let Some(piece) = page.piece(bytes_max) {
                assert!((1..=2 * bytes_max).contains(&piece.len()));
                given.extend_from_slice(&piece);
                assert_eq!(page.bytes(), whole.len() - skipped.min(whole.len()) - given.len());
            }
            assert!(given == whole[skipped.min(whole.len())..], "skipped {skipped}");
        }
    }
}
