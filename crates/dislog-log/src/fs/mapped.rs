//! The one file that maps memory.
//!
//! A mapping is only ever copied from, never borrowed from, so no reference to bytes that another
//! thread may write through the file exists. What is copied is verified by the index row's
//! checksum.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

use super::Mapping;

/// A mapping of the first bytes of a file.
#[derive(Debug)]
pub(super) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the first `len` bytes of `file`, which may still grow to that length.
    pub(super) fn new(file: &File, len: u64) -> io::Result<MappedFile> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        // SAFETY: the bytes are only copied out through a raw pointer, below the length that the
        // owner of the file has written, and the log never cuts an index file that it still reads
        // from.
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        Ok(MappedFile(map))
    }
}

impl Mapping for MappedFile {
    fn copy_to(&self, buffer: &mut [u8], position: u64) {
        let position = usize::try_from(position).expect("positions in a mapping fit memory");
        let end = position.checked_add(buffer.len()).expect("no overflow");
        assert!(end <= self.0.len(), "read of {end} bytes in a mapping of {}", self.0.len());
        // SAFETY: the range lies within the mapping (asserted), and `buffer` is memory of our own.
        unsafe {
            let source = self.0.as_ptr().add(position);
            std::ptr::copy_nonoverlapping(source, buffer.as_mut_ptr(), buffer.len());
        }
    }
}
