//! The codecs a batch's records may be compressed with.

use std::io::Read;
use std::str::FromStr;

use super::header::BatchError;
use crate::limits::BATCH_DECOMPRESSED_BYTES_MAX;

const ZSTD_LEVEL: i32 = 1;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// The name users know it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    pub(super) fn from_bits(bits: i16) -> Option<Compression> {
        match bits {
            0 => Some(Compression::None),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }

    pub(super) fn to_bits(self) -> i16 {
        match self {
            Compression::None => 0,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(name: &str) -> Result<Compression, String> {
        match name {
            "none" => Ok(Compression::None),
            "lz4" => Ok(Compression::Lz4),
            "zstd" => Ok(Compression::Zstd),
            _ => Err(format!("unknown compression {name:?}: use none, lz4 or zstd")),
        }
    }
}

/// Appends `records`, compressed, to `out`. `compression` is not `None`.
pub(super) fn compress(compression: Compression, records: &[u8], out: &mut Vec<u8>) {
    match compression {
        Compression::None => out.extend_from_slice(records),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            std::io::Write::write_all(&mut encoder, records).expect("a Vec takes every write");
            encoder.finish().expect("a Vec takes every write");
        }
        Compression::Zstd => {
            let packed =
                zstd::bulk::compress(records, ZSTD_LEVEL).expect("memory is the only limit");
            out.extend_from_slice(&packed);
        }
    }
}

/// Decompresses `packed`, up to [`BATCH_DECOMPRESSED_BYTES_MAX`].
pub(super) fn decompress(compression: Compression, packed: &[u8]) -> Result<Vec<u8>, BatchError> {
    let failed = |_| BatchError::Compressed(compression.name());
    let limit = BATCH_DECOMPRESSED_BYTES_MAX as u64;
    let mut records = Vec::with_capacity(packed.len().min(BATCH_DECOMPRESSED_BYTES_MAX / 4) * 2);
    let mut decoder: Box<dyn Read + '_> = match compression {
        Compression::None => Box::new(packed),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
        Compression::Zstd => Box::new(zstd_decoder(packed).map_err(failed)?),
    };
    decoder.by_ref().take(limit + 1).read_to_end(&mut records).map_err(failed)?;
    if records.len() as u64 > limit {
        return Err(BatchError::Compressed(compression.name()));
    }
    Ok(records)
}

/// A decoder that refuses a window larger than the limit, so that a small frame cannot ask for
/// gigabytes.
fn zstd_decoder(packed: &[u8]) -> std::io::Result<zstd::Decoder<'static, &[u8]>> {
    const WINDOW_LOG_MAX: u32 = BATCH_DECOMPRESSED_BYTES_MAX.ilog2();
    let mut decoder = zstd::Decoder::with_buffer(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}
