//! Checking a log offline.

use std::ops::Range;
use std::path::{Path, PathBuf};

use dislog_types::batch::{BatchHeader, records};

use crate::checkpoint::Found;
use crate::error::LogError;
use crate::frame::{FrameHeader, Kind};
use crate::fs::Fs;
use crate::recovery::{Examined, ExaminedSegment, examine};
use crate::store::{STORE_HEADER_BYTES, Scanner};

/// What verifying a log found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many segments.
    pub segments: u64,
    /// How many frames were verified.
    pub frames: u64,
    /// How many records they hold.
    pub records: u64,
    /// Bytes of the store files.
    pub bytes: u64,
    /// The first offset of the log.
    pub start_offset: u64,
    /// One past its last offset.
    pub end_offset: u64,
    /// What is not as it should be, in the order of the log.
    pub findings: Vec<Finding>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub kind: FindingKind,
    /// In which file.
    pub file: PathBuf,
    /// Where in the file.
    pub position: u64,
    /// Which offsets it touches; empty if none.
    pub offsets: Range<u64>,
    /// What is wrong, for people.
    pub what: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// Durable records cannot be verified: lost unless a replica has them.
    Damage,
    /// The end of an unfinished write, never acknowledged: cut off at the next start.
    TornTail,
    /// A hint (index, checkpoint) is bad or missing: made anew at the next start.
    Hint,
}

/// Reads every byte of the log in `dir`, down to the records of each batch, and changes nothing.
///
/// # Errors
/// If a file cannot be read.
pub fn verify(fs: &dyn Fs, dir: &Path) -> Result<Report, LogError> {
    let examined = examine(fs, dir, true)?;
    let mut report = Report::default();
    if matches!(examined.checkpoint, Found::Bad) {
        report.hint(&dir.join("checkpoint"), "the checkpoint does not verify");
    }
    for segment in &examined.segments {
        report.segment(fs, segment)?;
    }
    report.damages(&examined);
    let first = examined.segments.first().map(|segment| segment.view.segment.header.base_offset);
    let floor = examined.stored_checkpoint().map(|stored| stored.checkpoint.start_offset);
    report.start_offset = first.max(floor).unwrap_or(0);
    report.end_offset = examined
        .segments
        .last()
        .map_or(report.start_offset, |segment| segment.view.extent.end_offset);
    Ok(report)
}

impl Report {
    /// Whether records were lost.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind == FindingKind::Damage)
    }

    fn segment(&mut self, fs: &dyn Fs, examined: &ExaminedSegment) -> Result<(), LogError> {
        let (segment, extent) = (&examined.view.segment, &examined.view.extent);
        self.segments += 1;
        self.frames += extent.rows;
        self.bytes += extent.end_position;
        if !examined.index_agrees {
            self.hint(&segment.index_path, "the index is missing or differs from the store");
        }
        if examined.torn_bytes > 0 {
            self.findings.push(Finding {
                kind: FindingKind::TornTail,
                file: segment.store_path.clone(),
                position: extent.end_position,
                offsets: extent.end_offset..extent.end_offset,
                what: format!("{} bytes of an unfinished write", examined.torn_bytes),
            });
        }
        let failed = |e: std::io::Error| LogError::of("read", &segment.store_path, &e);
        let store = fs.open(&segment.store_path).map_err(failed)?;
        let mut scanner = Scanner::new(&*store, segment.header.segment_id, STORE_HEADER_BYTES);
        while scanner.position() < extent.end_position {
            let position = scanner.position();
            match scanner.next().map_err(failed)? {
                Some(header) if header.kind == Kind::Batch => {
                    self.records += u64::from(header.record_count);
                    if let Some(what) = bad_batch(scanner.payload(), &header) {
                        self.findings.push(Finding {
                            kind: FindingKind::Damage,
                            file: segment.store_path.clone(),
                            position,
                            offsets: header.base_offset..header.end_offset(),
                            what,
                        });
                    }
                }
                Some(_) => {}
                None if scanner.seek_valid(position + 1).map_err(failed)? => {}
                None => break,
            }
        }
        Ok(())
    }

    fn damages(&mut self, examined: &Examined) {
        for damage in &examined.damage {
            self.findings.push(Finding {
                kind: FindingKind::Damage,
                file: damage.file.clone(),
                position: damage.position,
                offsets: damage.from_offset..damage.to_offset,
                what: "frames that were durable do not verify".to_owned(),
            });
        }
    }

    fn hint(&mut self, file: &Path, what: &str) {
        self.findings.push(Finding {
            kind: FindingKind::Hint,
            file: file.to_owned(),
            position: 0,
            offsets: 0..0,
            what: what.to_owned(),
        });
    }
}

/// What is wrong with a batch whose frame verifies, if anything is.
fn bad_batch(payload: &[u8], frame: &FrameHeader) -> Option<String> {
    let header = match BatchHeader::verify(payload) {
        Ok(header) => header,
        Err(error) => return Some(error.to_string()),
    };
    if header.base_offset != frame.base_offset || header.record_count != frame.record_count {
        return Some("the batch and its frame disagree about its offsets".to_owned());
    }
    let batch = bytes::Bytes::copy_from_slice(payload);
    records(&header, &batch).err().map(|error| error.to_string())
}
