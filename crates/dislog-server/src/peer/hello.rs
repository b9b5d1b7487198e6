//! The first words on a connection; the byte map is at the module above.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::wire::{WireError, put_frame};

/// What a dialer sends first.
pub(crate) const PREFACE: &[u8; 16] = b"\0DISLOG PEER\r\n\r\n";

/// The version of the protocol that is spoken here.
pub(super) const VERSION: u32 = 1;

/// The largest Hello or Refusal that is read.
pub(super) const HELLO_BYTES_MAX: usize = 4 << 10;

/// The longest text of a refusal that is sent.
const REFUSAL_BYTES_MAX: usize = 1 << 10;

const KIND_HELLO: u32 = 1;
const KIND_REFUSAL: u32 = 2;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u32,
    /// 0 for one who only asks who is there, and sends no frames.
    pub(super) node_id: u64,
    /// Who should be there; 0 if that is not known.
    pub(super) expected_node_id: u64,
}

/// A Hello, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Hello(Hello),
    Refusal(String),
}

impl Hello {
    pub(super) fn new(node_id: u64, expected_node_id: u64) -> Hello {
        Hello { version: VERSION, node_id, expected_node_id }
    }

    pub(super) fn put(self, out: &mut BytesMut) {
        put_frame(out, |out| {
            out.put_u32_le(KIND_HELLO);
            out.put_u32_le(self.version);
            out.put_u64_le(self.node_id);
            out.put_u64_le(self.expected_node_id);
        });
    }
}

impl Answer {
    pub(super) fn decode(mut payload: Bytes) -> Result<Answer, WireError> {
        match payload.try_get_u32_le() {
            Ok(KIND_HELLO) => hello(&mut payload).ok_or(WireError::NoHello).map(Answer::Hello),
            Ok(KIND_REFUSAL) => Ok(Answer::Refusal(printable(&payload))),
            _ => Err(WireError::NoHello),
        }
    }
}

fn hello(payload: &mut Bytes) -> Option<Hello> {
    Some(Hello {
        version: payload.try_get_u32_le().ok()?,
        node_id: payload.try_get_u64_le().ok()?,
        expected_node_id: payload.try_get_u64_le().ok()?,
    })
}

/// Strangers do not write control characters to our terminals.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// A frame that tells the other side why this is the end.
pub(crate) fn refusal(why: &str) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| {
        out.put_u32_le(KIND_REFUSAL);
        out.put_slice(&why.as_bytes()[..why.len().min(REFUSAL_BYTES_MAX)]);
    });
    out
}
