//! Cutting a stream of bytes into records.
//!
//! Bytes are read in large chunks, and records are slices of them: a line costs no allocation and
//! is copied only if the chunk ended inside it. The result does not depend on where chunks end.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// How much is allocated at once.
const CHUNK_BYTES: usize = 256 << 10;

/// How much is asked of the input at once: what a pipe holds.
const READ_BYTES_MAX: usize = 64 << 10;

/// A chunk is filled by further reads until less than this is left of it, so that an input which
/// arrives in small pieces does not cost a chunk for each.
const READ_BYTES_MIN: usize = 8 << 10;

/// What ends a record.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// This sequence, at least one byte. The end of the input ends a record as well.
    Delimiter(Vec<u8>),
    /// Only the end of the input, which then is one record, even if it is empty.
    Input,
}

/// Why splitting stopped.
#[derive(Debug)]
pub(crate) enum SplitError {
    /// The input could not be read.
    Read(io::Error),
    /// The record of this number, from 1, has more bytes than a record may have.
    TooLong {
        /// Which record: the line number, when lines are records.
        number: u64,
    },
}

/// Splits an input.
///
/// - What `records` returned, and what it will return, are together the whole input, in order.
/// - At most `record_bytes_max` and one chunk are held.
#[derive(Debug)]
pub(crate) struct Splitter {
    ending: Ending,
    record_bytes_max: usize,
    /// Read, but not returned: the beginning of a record.
    rest: BytesMut,
    /// How much of `rest` is known to hold no delimiter's first byte.
    scanned: usize,
    /// How many records were returned.
    count: u64,
    at_end: bool,
}

impl Splitter {
    /// Splits an input where `ending` says, into records of at most `record_bytes_max` bytes.
    pub(crate) fn new(ending: Ending, record_bytes_max: usize) -> Splitter {
        if let Ending::Delimiter(delimiter) = &ending {
            assert!(!delimiter.is_empty(), "the arguments were checked");
        }
        Splitter {
            ending,
            record_bytes_max,
            rest: BytesMut::new(),
            scanned: 0,
            count: 0,
            at_end: false,
        }
    }

    /// How many records were returned.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Reads once and appends the records that are complete now to `out`. `Ok(false)`: the input
    /// has ended, and everything has been returned.
    ///
    /// # Errors
    /// If reading fails or a record is too long. The records before it are in `out`.
    pub(crate) fn records(
        &mut self,
        input: &mut dyn Read,
        out: &mut Vec<Bytes>,
    ) -> Result<bool, SplitError> {
        if self.at_end {
            return Ok(false);
        }
        let read = self.fill(input).map_err(SplitError::Read)?;
        self.take_complete(out)?;
        if read > 0 {
            return Ok(true);
        }
        self.at_end = true;
        let whole = matches!(self.ending, Ending::Input);
        if whole || !self.rest.is_empty() {
            let rest = self.rest.split().freeze();
            self.push(rest, out)?;
        }
        Ok(false)
    }

    fn fill(&mut self, input: &mut dyn Read) -> io::Result<usize> {
        let held = self.rest.len();
        if self.rest.capacity() - held < READ_BYTES_MIN {
            self.rest.reserve(CHUNK_BYTES);
        }
        let room = (self.rest.capacity() - held).min(READ_BYTES_MAX);
        self.rest.resize(held + room, 0);
        let read = loop {
            match input.read(&mut self.rest[held..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.rest.truncate(held + *read.as_ref().unwrap_or(&0));
        read
    }

    fn take_complete(&mut self, out: &mut Vec<Bytes>) -> Result<(), SplitError> {
        if let Ending::Delimiter(delimiter) = self.ending.clone() {
            self.take_delimited(&delimiter, out)?;
        }
        match self.rest.len() > self.record_bytes_max {
            true => Err(SplitError::TooLong { number: self.count + 1 }),
            false => Ok(()),
        }
    }

    fn take_delimited(&mut self, delimiter: &[u8], out: &mut Vec<Bytes>) -> Result<(), SplitError> {
        let ends: Vec<usize> = match delimiter {
            [byte] => memchr::memchr_iter(*byte, &self.rest[self.scanned..]).collect(),
            _ => memmem::find_iter(&self.rest[self.scanned..], delimiter).collect(),
        };
        let scanned = self.scanned;
        let Some(last) = ends.last().map(|end| scanned + end + delimiter.len()) else {
            // The delimiter's beginning may be the last thing read.
            self.scanned = (self.rest.len() + 1).saturating_sub(delimiter.len());
            return Ok(());
        };
        let complete = self.rest.split_to(last).freeze();
        self.scanned = (self.rest.len() + 1).saturating_sub(delimiter.len());
        let mut start = 0;
        for end in ends {
            self.push(complete.slice(start..scanned + end), out)?;
            start = scanned + end + delimiter.len();
        }
        Ok(())
    }

    fn push(&mut self, record: Bytes, out: &mut Vec<Bytes>) -> Result<(), SplitError> {
        if record.len() > self.record_bytes_max {
            return Err(SplitError::TooLong { number: self.count + 1 });
        }
        self.count += 1;
        out.push(record);
        Ok(())
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
