//! HTTP by hand: what goes over the wire is what a test says.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::time::timeout;

use crate::fortress::Wire;

// Kinds of frames (RFC 9113 §6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

// Their flags.
const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// What a refused client waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The preface and the settings of a client.
pub(crate) fn http2_start() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat()
}

/// The headers of a request, compressed as little as can be (RFC 7541, appendix A).
pub(crate) fn request_block(method: &str, path: &str) -> Vec<u8> {
    let text = |index: u8, text: &str| {
        [&[index, u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
    };
    let is_post = method == "POST";
    let mut block = vec![if is_post { 0x83 } else { 0x82 }, 0x86];
    block.extend(text(4, path));
    block.extend(text(1, "x"));
    if is_post {
        block.extend([0x0f, 31 - 15, 16]);
        block.extend(b"application/grpc");
    }
    block
}

/// How a connection ended, or what came instead.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was closed or reset.
    Reset,
    /// With this error.
    Goaway(u32),
    /// It did not: a request was answered, with status 200 or not.
    Answered { is_ok: bool },
}

/// Begins to speak HTTP/2, and returns what the server says first that it allows.
async fn settings(wire: &mut Wire) -> Vec<u8> {
    let reading = async {
        wire.write_all(&http2_start()).await.unwrap();
        wire.flush().await.unwrap();
        let mut head = [0; 9];
        wire.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, ..] = head;
        assert_eq!(kind, SETTINGS);
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        wire.read_exact(&mut payload).await.unwrap();
        payload
    };
    timeout(ANSWER_MAX, reading).await.expect("it says nothing")
}

/// A connection on which what the server allows was agreed to: only then does it hold.
pub(crate) async fn agreed(mut wire: Wire) -> Wire {
    settings(&mut wire).await;
    wire.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
    wire
}

/// What the server says first that it allows (RFC 9113 §6.5.2): a setting, if it is another than
/// that of the protocol.
pub(crate) async fn allowed(mut wire: Wire, setting: u16) -> Option<u32> {
    let payload = settings(&mut wire).await;
    let mut settings = payload.chunks_exact(6).map(|entry| entry.split_at(2));
    let found = settings.find(|(id, _)| *id == setting.to_be_bytes());
    found.map(|(_, value)| u32::from_be_bytes(value.try_into().unwrap()))
}

/// Sends all that is taken, and counts the streams that the server resets with this error, until so
/// many were.
pub(crate) async fn count_resets(wire: Wire, bytes: Vec<u8>, error: u32, count: usize) -> usize {
    let (mut read, mut write) = split(wire);
    let writing = async {
        write.write_all(&bytes).await.unwrap();
        write.flush().await.unwrap();
        std::future::pending::<()>().await;
    };
    let mut resets = 0;
    let reading = async {
        while resets < count {
            let mut head = [0; 9];
            read.read_exact(&mut head).await.unwrap();
            let [a, b, c, kind, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            read.read_exact(&mut payload).await.unwrap();
            resets += usize::from(kind == RST_STREAM && payload == error.to_be_bytes());
        }
    };
    // Fewer is what is to be found out.
    let _ = timeout(ANSWER_MAX, async {
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    })
    .await;
    resets
}

/// Sends all that is taken, and reads until it is clear what comes of that.
pub(crate) async fn read_to_goaway(wire: Wire, bytes: Vec<u8>) -> Ended {
    let (mut read, mut write) = split(wire);
    let writing = async move {
        // It may be refused midway.
        let _ = write.write_all(&bytes).await;
        let _ = write.flush().await;
        std::future::pending::<Ended>().await
    };
    let reading = async {
        loop {
            let mut head = [0; 9];
            if read.read_exact(&mut head).await.is_err() {
                return Ended::Reset;
            }
            let [a, b, c, kind, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            if read.read_exact(&mut payload).await.is_err() {
                return Ended::Reset;
            }
            match kind {
                GOAWAY => {
                    return Ended::Goaway(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
                // The first of the static table that is a status is 200.
                HEADERS => return Ended::Answered { is_ok: payload[0] == 0x88 },
                _ => {}
            }
        }
    };
    let ended = timeout(ANSWER_MAX, async {
        tokio::select! {
            ended = reading => ended,
            ended = writing => ended,
        }
    });
    ended.await.expect("nothing comes of it")
}

/// Sends all that is taken, and reads to the end; nothing if the connection was reset.
pub(crate) async fn read_http1(wire: Wire, bytes: Vec<u8>) -> String {
    let (mut read, mut write) = split(wire);
    let writing = async {
        let _ = write.write_all(&bytes).await;
        let _ = write.flush().await;
    };
    let mut answer = Vec::new();
    let reading = async {
        // A reset may take the answer along.
        let _ = read.read_to_end(&mut answer).await;
    };
    timeout(ANSWER_MAX, async { tokio::join!(writing, reading) }).await.expect("it stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// One HTTP/1.1 answer with a length.
pub(crate) async fn read_answer(wire: &mut Wire) -> String {
    let mut answer = Vec::new();
    let reading = async {
        while !is_whole(&answer) {
            let mut piece = [0; 4_096];
            let read = wire.read(&mut piece).await.unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
    };
    timeout(ANSWER_MAX, reading).await.expect("no answer comes");
    String::from_utf8(answer).unwrap()
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}
