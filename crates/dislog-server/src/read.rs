//! Reading records in order: the one reader behind gRPC and HTTP, pages and streams.
//!
//! A [`Reader`] holds at most one chunk of stored batches and the decoded records of one of them,
//! however slow its client is. It waits on the committed offset and never polls.

use dislog_cluster::{Progress, ReadError, StoredBatch};
use dislog_types::{BatchHeader, Compression, Record, batch};

use crate::replica::Replica;
use crate::status::{Failure, kinds};

/// The bytes of a page unless its client says otherwise.
pub(crate) const PAGE_BYTES_DEFAULT: usize = 1 << 20;

/// The most bytes of a page, unless one record or batch alone is larger: it is held in memory, and
/// more would not make it faster.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// What a following reader takes from the log at a time when its pages are single records.
const READ_AHEAD_BYTES: usize = 256 << 10;

/// What a record, and each of its headers, counts beside its content: its fields in the answer and
/// in memory.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// A batch larger than this is decompressed on a thread that may block: it takes milliseconds.
const INLINE_DECOMPRESS_BYTES_MAX: usize = 32 << 10;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At this offset.
    Offset(u64),
    /// At the first record at or after this time, Unix milliseconds.
    Timestamp(i64),
    /// At the first record there is.
    Earliest,
    /// At the next record to be appended.
    Latest,
    /// So many records before the end.
    Last(u64),
}

/// How much a page may hold: records and bytes, but at least one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Records, or for raw pages the records of whole batches.
    pub(crate) records: usize,
    /// Bytes, roughly.
    pub(crate) bytes: usize,
}

impl Limits {
    /// What a client asked for; 0 asks for nothing in particular, and 0 of both for exactly one
    /// record.
    pub(crate) fn asked(records: usize, bytes: usize) -> Limits {
        let bytes_max = if bytes == 0 { PAGE_BYTES_DEFAULT } else { bytes.min(PAGE_BYTES_MAX) };
        let records_max = match (records, bytes) {
            (0, 0) => 1,
            (0, _) => usize::MAX,
            (records, _) => records,
        };
        Limits { records: records_max, bytes: bytes_max }
    }
}

/// A record at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// Its offset.
    pub(crate) offset: u64,
    /// The term it was appended in.
    pub(crate) term: u64,
    /// When its leader appended it, Unix milliseconds.
    pub(crate) timestamp_ms: i64,
    /// The record.
    pub(crate) record: Record,
}

/// Reads one partition from a position on.
pub(crate) struct Reader {
    replica: Replica,
    next_offset: u64,
    /// Bytes to take from the log at a time when a page is a single record.
    read_ahead_bytes: usize,
    ahead: Ahead,
    last: LastPage,
}

/// What was read and not given out yet.
#[derive(Default)]
pub(crate) struct Ahead {
    chunk: std::vec::IntoIter<StoredBatch>,
    decoded: Decoded,
}

/// What the last page held, so that it can be read again.
#[derive(Clone, Copy, Default)]
struct LastPage {
    offset: u64,
    /// Records, or batches of a raw page.
    count: usize,
    bytes: usize,
}

/// The records of one batch that are still to be given out.
#[derive(Default)]
struct Decoded {
    /// What all records of the batch hold in memory.
    bytes: usize,
    records: std::vec::IntoIter<Record>,
    next_offset: u64,
    term: u64,
    timestamp_ms: i64,
}

impl Reader {
    /// A reader at `start`. An offset outside of the log is found out by its first page.
    /// Linearizable: of what was acknowledged before the call, everything is seen.
    pub(crate) async fn open(
        replica: Replica,
        start: Start,
        linearizable: bool,
    ) -> Result<Reader, Failure> {
        let next_offset = replica.offset_of(start, linearizable).await?;
        let (ahead, last) = (Ahead::default(), LastPage::default());
        Ok(Reader { replica, next_offset, read_ahead_bytes: 1, ahead, last })
    }

    /// As given, for a client that will take more pages.
    pub(crate) fn following(mut self) -> Reader {
        self.read_ahead_bytes = READ_AHEAD_BYTES;
        self
    }

    /// The offset of the next record it gives.
    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// How far the partition has come.
    pub(crate) fn progress(&self) -> Progress {
        self.replica.progress()
    }

    /// Refuses a position that is trimmed or beyond the end of the log.
    pub(crate) fn check_range(&self) -> Result<(), Failure> {
        let Progress { start_offset, committed_offset, .. } = self.progress();
        let offset = self.next_offset;
        if offset < start_offset {
            return Err(ReadError::Trimmed { offset, start_offset, committed_offset }.into());
        }
        if offset > committed_offset { Err(self.beyond_end()) } else { Ok(()) }
    }

    /// There is no next record yet.
    pub(crate) fn beyond_end(&self) -> Failure {
        let Progress { start_offset, committed_offset, .. } = self.progress();
        let offset = self.next_offset;
        ReadError::BeyondEnd { offset, start_offset, committed_offset }.into()
    }

    /// Whether what it reads is on this node.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.replica, Replica::Here(_))
    }

    /// Returns, with a failure, once the partition has been without a leader for so long that its
    /// other replicas may have come further without this one. Safe to cancel.
    pub(crate) async fn is_left_alone(&self) -> Failure {
        self.replica.is_left_alone().await;
        self.replica.no_leader()
    }

    /// Waits until the next record is committed. Safe to cancel.
    pub(crate) async fn wait(&self) -> Result<(), Failure> {
        self.replica.wait_for(self.next_offset).await
    }

    /// Records up to the limits, without waiting; none at the end of the log. Not safe to cancel.
    pub(crate) async fn page(&mut self, limits: Limits) -> Result<Vec<Located>, Failure> {
        let (offset, mut page, mut bytes) = (self.next_offset, Vec::new(), 0);
        while page.len() < limits.records {
            let Some(record_bytes) = self.ahead.decoded.peek_bytes() else {
                if self.decode_next(limits).await? {
                    continue;
                }
                break;
            };
            if !page.is_empty() && bytes + record_bytes > limits.bytes {
                break;
            }
            bytes += record_bytes;
            page.extend(self.ahead.decoded.next());
            self.next_offset = self.ahead.decoded.next_offset;
        }
        self.last = LastPage { offset, count: page.len(), bytes };
        Ok(page)
    }

    /// Whole batches up to the limits, as they are stored, without waiting; none at the end of the
    /// log. The first may begin before the reader's position. Not safe to cancel.
    pub(crate) async fn raw_page(&mut self, limits: Limits) -> Result<Vec<StoredBatch>, Failure> {
        let mut page: Vec<StoredBatch> = Vec::new();
        let (offset, mut records, mut bytes) = (self.next_offset, 0, 0);
        while records < limits.records {
            let Some(batch) = self.ahead.chunk.as_slice().first() else {
                if page.is_empty() && self.fill(limits).await? {
                    continue;
                }
                break;
            };
            if !page.is_empty() && bytes + batch.batch.len() > limits.bytes {
                break;
            }
            let end_offset = batch.base_offset + u64::from(batch.record_count);
            records += usize::try_from(end_offset - self.next_offset).unwrap_or(usize::MAX);
            bytes += batch.batch.len();
            self.next_offset = end_offset;
            page.extend(self.ahead.chunk.next());
        }
        self.last = LastPage { offset, count: page.len(), bytes };
        Ok(page)
    }

    /// The records of the last [`page`](Reader::page), read again. Not safe to cancel.
    pub(crate) async fn page_again(&mut self) -> Result<Vec<Located>, Failure> {
        let limits = self.rewind();
        let mut page = Vec::with_capacity(limits.records);
        while page.len() < limits.records {
            match self.ahead.decoded.next() {
                Some(record) => page.push(record),
                None if self.decode_next(limits).await? => continue,
                None => return Err(self.beyond_end()),
            }
            self.next_offset = self.ahead.decoded.next_offset;
        }
        Ok(page)
    }

    /// The batches of the last [`raw_page`](Reader::raw_page), read again. Not safe to cancel.
    pub(crate) async fn raw_page_again(&mut self) -> Result<Vec<StoredBatch>, Failure> {
        let limits = self.rewind();
        let mut page = Vec::with_capacity(limits.records);
        while page.len() < limits.records {
            match self.ahead.chunk.next() {
                Some(batch) => {
                    self.next_offset = batch.base_offset + u64::from(batch.record_count);
                    page.push(batch);
                }
                None if self.fill(limits).await? => {}
                None => return Err(self.beyond_end()),
            }
        }
        Ok(page)
    }

    /// Takes out what was read ahead; it can be put back before the next page.
    pub(crate) fn take_ahead(&mut self) -> Ahead {
        std::mem::take(&mut self.ahead)
    }

    /// Puts back what was taken out.
    pub(crate) fn put_ahead(&mut self, ahead: Ahead) {
        self.ahead = ahead;
    }

    /// Goes back to where the last page began: how much it held.
    fn rewind(&mut self) -> Limits {
        self.ahead = Ahead::default();
        self.next_offset = self.last.offset;
        Limits { records: self.last.count, bytes: self.last.bytes }
    }

    /// Decodes the next batch; `false` at the end of the log.
    async fn decode_next(&mut self, limits: Limits) -> Result<bool, Failure> {
        if self.ahead.chunk.as_slice().is_empty() && !self.fill(limits).await? {
            return Ok(false);
        }
        if let Some(batch) = self.ahead.chunk.next() {
            self.ahead.decoded = decode(batch).await?;
            self.ahead.decoded.skip_to(self.next_offset);
        }
        Ok(true)
    }

    /// Takes the next chunk from the log; `false` at its end.
    async fn fill(&mut self, limits: Limits) -> Result<bool, Failure> {
        let bytes_max = if limits.records == 1 { self.read_ahead_bytes } else { limits.bytes };
        let chunk = self.replica.read(self.next_offset, bytes_max).await?;
        self.ahead.chunk = chunk.into_iter();
        Ok(!self.ahead.chunk.as_slice().is_empty())
    }
}

impl Ahead {
    /// Bytes of memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let chunk: usize = self.chunk.as_slice().iter().map(|stored| stored.batch.len()).sum();
        let is_drained = self.decoded.records.as_slice().is_empty();
        chunk + if is_drained { 0 } else { self.decoded.bytes }
    }
}

impl Decoded {
    fn peek_bytes(&self) -> Option<usize> {
        self.records.as_slice().first().map(record_bytes)
    }

    fn next(&mut self) -> Option<Located> {
        let record = self.records.next()?;
        let offset = self.next_offset;
        self.next_offset += 1;
        Some(Located { offset, term: self.term, timestamp_ms: self.timestamp_ms, record })
    }

    fn skip_to(&mut self, offset: u64) {
        let count = usize::try_from(offset.saturating_sub(self.next_offset)).unwrap_or(usize::MAX);
        if count > 0 {
            self.records.nth(count - 1);
            self.next_offset = offset;
        }
    }
}

fn record_bytes(record: &Record) -> usize {
    record.content_bytes() + (1 + record.headers.len()) * RECORD_OVERHEAD_BYTES
}

/// The records of a stored batch. It was checked before it was stored, so a failure is damage.
async fn decode(stored: StoredBatch) -> Result<Decoded, Failure> {
    let StoredBatch { base_offset, record_count, term, timestamp_ms, batch } = stored;
    let damaged = |error: &dyn std::fmt::Display| {
        let to_offset = base_offset + u64::from(record_count);
        let message = format!("offsets {base_offset} to {to_offset} are damaged: {error}");
        Failure::new(&kinds::DAMAGED, message)
            .with(dislog_proto::reason::DAMAGED_FROM, base_offset)
            .with(dislog_proto::reason::DAMAGED_TO, to_offset)
    };
    let header = BatchHeader::parse(&batch).map_err(|error| damaged(&error))?;
    let compressed = header.compression != Compression::None;
    let records = if compressed && batch.len() > INLINE_DECOMPRESS_BYTES_MAX {
        let decoding = tokio::task::spawn_blocking(move || batch::records(&header, &batch));
        decoding.await.map_err(|_| Failure::shutting_down())?
    } else {
        batch::records(&header, &batch)
    };
    let records = records.map_err(|error| damaged(&error))?.into_iter();
    let bytes = records.as_slice().iter().map(record_bytes).sum();
    Ok(Decoded { bytes, records, next_offset: base_offset, term, timestamp_ms })
}
