//! Any bytes as a record batch: as they are, and with length, magic and checksum put right, so that
//! what is behind the checksum is reached too. What decodes must survive being encoded again.
#![no_main]

use bytes::Bytes;
use dislog_types::batch::{BatchHeader, HEADER_BYTES, records};
use dislog_types::{BatchBuilder, Compression};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    decode(data);
    if data.len() >= HEADER_BYTES {
        let mut batch = data.to_vec();
        let length = i32::try_from(batch.len() - 12).expect("inputs are small");
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[16] = 2;
        let crc = dislog_fuzz::crc32c(&[&batch[21..]]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        decode(&batch);
    }
});

fn decode(bytes: &[u8]) {
    let _ = BatchHeader::parse(bytes);
    let Ok(header) = BatchHeader::verify(bytes) else { return };
    let Ok(found) = records(&header, &Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(found.len(), header.record_count as usize);
    let mut builder = BatchBuilder::new();
    for record in &found {
        if !builder.push(record) {
            return;
        }
    }
    let again = builder.finish(Compression::Lz4, header.producer).freeze();
    let again_header = BatchHeader::verify(&again).expect("what we encode, we accept");
    assert_eq!(records(&again_header, &again).expect("what we encode, we decode"), found);
}
