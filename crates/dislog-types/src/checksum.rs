//! CRC-32C (Castagnoli, RFC 3720 §12.1), the checksum of batches, frames and files.

use crc_fast::{CrcAlgorithm, Digest, checksum};

/// The CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    truncate(checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// The CRC-32C of `parts` put end to end.
#[must_use]
pub fn crc32c_parts(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    truncate(digest.finalize())
}

fn truncate(crc: u64) -> u32 {
    u32::try_from(crc).expect("a 32-bit checksum fits 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn parts_equal_the_whole() {
        assert_eq!(crc32c_parts(&[b"1234", b"", b"56789"]), crc32c(b"123456789"));
    }
}
