//! Clients that do what they can to keep others out: connections that are opened and not used,
//! heads and bodies that never end, bombs, floods. Memory stays bounded, and those who mean well
//! are served meanwhile, over the connections they have and over new ones.
//!
//! `DISLOG_HALF_OPEN` is how many connections are half open at once; 2,000 unless it says
//! otherwise.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "what was measured is for the reader of the run")]

mod fortress;
mod frames;
#[path = "../node/mod.rs"]
mod node;

use std::time::Duration;

use fortress::{ATTACKER, Fortress, GOOD, Wire};
use frames::{
    CONTINUATION, END_HEADERS, END_STREAM, Ended, HEADERS, PING, RST_STREAM, SETTINGS, frame,
    http2_start, read_http1, read_to_goaway, request_block,
};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// What is said by servers that were asked for too much (RFC 9113 §7).
const ENHANCE_YOUR_CALM: u32 = 11;

/// What is said of headers that cannot be unpacked (RFC 9113 §7), the first by the library.
const PROTOCOL_ERROR: u32 = 1;
const COMPRESSION_ERROR: u32 = 9;

/// A stream that was not looked at (RFC 9113 §7).
const REFUSED_STREAM: u32 = 7;

/// How much of a stream may be sent before it is read (RFC 9113 §6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Requests that must succeed while an attack is at its height, over each kind of connection.
const MEANWHILE: u64 = 10;

/// New connections that a good client may lose to an attacker at its own address.
const REDIALS_MAX: u64 = 100;

/// How often one who is slow sends a byte.
const DRIP: Duration = Duration::from_millis(100);

/// Sends a byte of `text` now and then, for as long as it is allowed to.
async fn drip(mut wire: Wire, text: &'static [u8]) {
    for byte in text.iter().cycle() {
        tokio::time::sleep(DRIP).await;
        if wire.write_all(&[*byte]).await.is_err() || wire.flush().await.is_err() {
            return;
        }
    }
}

/// As many connections as `starts`, repeated, that send this and then next to nothing.
async fn slow_ones(
    fortress: &Fortress,
    count: usize,
    protocol: &'static [u8],
    starts: &[Vec<u8>],
    rest: &'static [u8],
) -> JoinSet<()> {
    let mut slow = JoinSet::new();
    for start in starts.iter().cycle().take(count) {
        let mut wire = fortress.dial(ATTACKER, "mallory", protocol).await.unwrap();
        wire.write_all(start).await.unwrap();
        wire.flush().await.unwrap();
        slow.spawn(drip(wire, rest));
    }
    slow
}

async fn heads_that_never_end(secure: bool) {
    let fortress = Fortress::start(secure).await;
    let good = fortress.good();
    let count = if secure { 100 } else { 1_000 };
    let http1 = [b"GET /livez HTTP/1.1\r\nhost: x\r\nx: ".to_vec(), b"G".to_vec()];
    let slow = slow_ones(&fortress, count, b"http/1.1", &http1, b"x").await;
    // The head of a stream whose end never comes, and no stream at all.
    let mut begun = http2_start();
    begun.extend(frame(HEADERS, 0, 1, &request_block("GET", "/livez")));
    begun.extend([0, 0, 100, CONTINUATION, 0, 0, 0, 0, 1]);
    let http2 = [begun, http2_start()];
    let more = slow_ones(&fortress, count / 2, b"h2", &http2, b"\0").await;
    good.more(MEANWHILE).await;
    drop((slow, more));
    fortress.stands(good, &format!("{} heads that never end", count + count / 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_never_end_in_plaintext() {
    heads_that_never_end(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_never_end_encrypted() {
    heads_that_never_end(true).await;
}

/// More bytes are announced than there is room for, in small and in large requests.
async fn bodies_that_never_end(secure: bool) {
    const CONNECTIONS: usize = 40;
    const STREAMS: u32 = 64;
    let fortress = Fortress::start(secure).await;
    let good = fortress.good();
    let mut starts = Vec::new();
    for announced in [64_u32 << 10, 8 << 20] {
        let mut start = http2_start();
        for stream in (0..STREAMS).map(|number| 2 * number + 1) {
            let head = request_block("POST", "/log.v1.Log/Produce");
            start.extend(frame(HEADERS, END_HEADERS, stream, &head));
            let mut body = vec![0];
            body.extend(announced.to_be_bytes());
            // As much as the first window allows.
            body.resize(1_000, 0);
            start.extend(frame(frames::DATA, 0, stream, &body));
        }
        starts.push(start);
    }
    let slow = slow_ones(&fortress, CONNECTIONS, b"h2", &starts, b"").await;
    let mut starts = Vec::new();
    for kind in ["application/json", "application/x-ndjson"] {
        let head = format!(
            "POST /v1/topics/slow/records HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n\
             content-length: 16000000\r\n\r\n[\""
        );
        starts.push([head.as_bytes(), &[b'x'; 20_000][..]].concat());
    }
    let more = slow_ones(&fortress, CONNECTIONS, b"http/1.1", &starts, b"x").await;
    good.more(MEANWHILE).await;
    // Also those that have to wait for room.
    good.large().await;
    drop((slow, more));
    fortress.stands(good, &format!("{} bodies that never end", 40 * 64 + 40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_in_plaintext() {
    bodies_that_never_end(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_encrypted() {
    bodies_that_never_end(true).await;
}

/// Connections that say nothing, or not enough to know what they want.
async fn half_open(secure: bool, from: &str) {
    let count = std::env::var("DISLOG_HALF_OPEN").map_or(2_000, |count| count.parse().unwrap());
    fortress::allow_open_files(count + 1_000);
    let fortress = Fortress::start(secure).await;
    let good = fortress.good_with_redials(if from == GOOD { REDIALS_MAX } else { 0 });
    // Those who are known before are not among those who are new.
    good.more(1).await;
    let starts: [&[u8]; 3] = match secure {
        true => [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
        false => [b"", b"P", b"PRI * HTTP/2.0\r\n\r\nSM"],
    };
    let mut open = Vec::new();
    for start in starts.iter().cycle().take(count as usize) {
        let mut stream = fortress.dial_tcp(from).await.unwrap();
        // One that had to go already does not take it.
        let _ = stream.write_all(start).await;
        open.push(stream);
    }
    good.more(MEANWHILE).await;
    let files = fortress.node.open_files();
    assert!(files < 700, "the server has {files} files open");
    eprintln!("{files} descriptors of the server with {count} half open");
    fortress.stands(good, &format!("{count} half open from {from}")).await;
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_in_plaintext() {
    half_open(false, ATTACKER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_encrypted() {
    half_open(true, ATTACKER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_from_the_address_of_the_good() {
    half_open(false, GOOD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_from_the_address_of_the_good_encrypted() {
    half_open(true, GOOD).await;
}

/// What is sent, and which protocol that is; each is refused before much of it was taken.
fn bombs() -> Vec<(&'static str, &'static [u8], Vec<u8>)> {
    const MIB: usize = 1 << 20;
    let http1 = |rest: Vec<u8>| [&b"GET /livez HTTP/1.1\r\nhost: x\r\n"[..], &rest].concat();
    let http2 = |rest: Vec<u8>| [http2_start(), rest].concat();
    let block = request_block("GET", "/livez");
    // A header of 4 KiB that the table keeps, then thousands of references to it.
    let mut hpack = block.clone();
    hpack.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    hpack.extend(vec![b'y'; 4_000]);
    hpack.extend(vec![0xbe; 12_000]);
    let many: Vec<u8> = (0..1_000).flat_map(|_| [0, 1, b'x', 1, b'y']).collect();
    let endless = |piece: &[u8]| {
        let mut sent = frame(HEADERS, 0, 1, &block);
        while sent.len() < 4 * MIB {
            sent.extend(frame(CONTINUATION, 0, 1, piece));
        }
        sent
    };
    // A header whose value is 16 MiB long, as far as one frame goes.
    let mut literal = block.clone();
    literal.extend([0, 1, b'x', 0x7f, 0x80, 0x80, 0x80, 8]);
    literal.resize(16_000, b'y');
    vec![
        ("10,000 headers", b"http/1.1", http1(b"x: y\r\n".repeat(10_000))),
        (
            "200 short headers",
            b"http/1.1",
            http1([b"x: y\r\n".repeat(200), b"\r\n".to_vec()].concat()),
        ),
        ("an endless header", b"http/1.1", http1(vec![b'x'; 4 * MIB])),
        ("an endless request line", b"http/1.1", vec![b'G'; 4 * MIB]),
        ("compressed headers", b"h2", http2(frame(HEADERS, END_HEADERS | END_STREAM, 1, &hpack))),
        ("CONTINUATION without end", b"h2", http2(endless(&many))),
        ("empty CONTINUATION", b"h2", http2(endless(b""))),
        (
            "a literal of 16 MiB",
            b"h2",
            http2([frame(HEADERS, 0, 1, &literal), endless(&many)].concat()),
        ),
        ("a frame of 16 MiB", b"h2", {
            let mut sent = vec![0xff, 0xff, 0xff, frames::DATA, 0, 0, 0, 0, 1];
            sent.resize(4 * MIB, 0);
            http2(sent)
        }),
        ("a head of 1 MiB", b"h2", {
            let mut sent = vec![0x10, 0, 0, HEADERS, END_HEADERS, 0, 0, 0, 1];
            sent.resize(2 * MIB, 0x82);
            http2(sent)
        }),
    ]
}

async fn bombs_go_off(secure: bool) {
    const OF_EACH: usize = 10;
    let fortress = Fortress::start(secure).await;
    let good = fortress.good();
    let mut attacks = JoinSet::new();
    for (what, protocol, bytes) in bombs() {
        for _ in 0..OF_EACH {
            let wire = fortress.dial(ATTACKER, "mallory", protocol).await.unwrap();
            let bytes = bytes.clone();
            attacks.spawn(async move { (what, refusal(wire, protocol, bytes).await) });
        }
    }
    let count = attacks.len();
    while let Some(attack) = attacks.join_next().await {
        let (what, refusal) = attack.unwrap();
        assert!(refusal.is_ok(), "{what}: {refusal:?}");
    }
    good.more(MEANWHILE).await;
    fortress.stands(good, &format!("{count} bombs")).await;
}

/// How something is refused: by an answer, or by the end of the connection.
async fn refusal(wire: Wire, protocol: &[u8], bytes: Vec<u8>) -> Result<(), String> {
    if protocol == b"h2" {
        let ended = read_to_goaway(wire, bytes).await;
        return match ended {
            Ended::Reset | Ended::Goaway(1..) | Ended::Answered { is_ok: false } => Ok(()),
            _ => Err(format!("{ended:?}")),
        };
    }
    let answer = read_http1(wire, bytes).await;
    let is_refusal = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
    if is_refusal { Ok(()) } else { Err(answer) }
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_in_plaintext() {
    bombs_go_off(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_encrypted() {
    bombs_go_off(true).await;
}

/// More streams over one connection than are under way at once.
#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_a_connection_has() {
    const STREAMS: u32 = 600;
    const MAX: u32 = 512;
    let fortress = Fortress::start(false).await;
    let good = fortress.good();
    let mut bytes = http2_start();
    let head = request_block("POST", "/log.v1.Log/Produce");
    for stream in (0..STREAMS).map(|number| 2 * number + 1) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &head));
    }
    let wire = fortress.dial(ATTACKER, "mallory", b"h2").await.unwrap();
    let beyond = (STREAMS - MAX) as usize;
    assert_eq!(frames::count_resets(wire, bytes, REFUSED_STREAM, beyond).await, beyond);
    good.more(MEANWHILE).await;
    fortress.stands(good, &format!("{STREAMS} streams over one connection")).await;
}

/// Streams that are no requests, because they have two methods: the server has to reset them.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_no_requests() {
    const STREAMS: u32 = 1_500;
    let fortress = Fortress::start(false).await;
    let good = fortress.good();
    let block = [&request_block("GET", "/livez")[..], &[0x82]].concat();
    let stream = |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block);
    let bytes = (0..STREAMS).flat_map(stream).collect();
    let wire = frames::agreed(fortress.dial(ATTACKER, "mallory", b"h2").await.unwrap()).await;
    let ended = read_to_goaway(wire, bytes).await;
    assert!(matches!(ended, Ended::Goaway(ENHANCE_YOUR_CALM)), "{ended:?}");
    fortress.stands(good, &format!("{STREAMS} streams that are no requests")).await;
}

/// A table of headers (RFC 7541 §4.2) of 8 KiB, twice as much as it may have.
#[tokio::test(flavor = "multi_thread")]
async fn a_larger_table_of_headers() {
    let fortress = Fortress::start(false).await;
    let good = fortress.good();
    let block = [&[0x3f, 0xe1, 0x3f][..], &request_block("GET", "/livez")].concat();
    let wire = frames::agreed(fortress.dial(ATTACKER, "mallory", b"h2").await.unwrap()).await;
    let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    let ended = read_to_goaway(wire, bytes).await;
    assert!(matches!(ended, Ended::Goaway(PROTOCOL_ERROR | COMPRESSION_ERROR)), "{ended:?}");
    fortress.stands(good, "a larger table of headers").await;
}

/// Streams that are opened and reset at once, and streams that are reset once they were looked at.
async fn rapid_reset(secure: bool) {
    const RESETS: u32 = 20_000;
    const IN_TURN: usize = 500;
    const AT_ONCE: usize = 200;
    let fortress = Fortress::start(secure).await;
    let good = fortress.good();
    let block = request_block("GET", "/v1/topics/good/records?offset=0");
    let mut bytes = http2_start();
    for stream in (0..RESETS).map(|number| 2 * number + 1) {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    let wire = fortress.dial(ATTACKER, "mallory", b"h2").await.unwrap();
    let ended = read_to_goaway(wire, bytes).await;
    let is_calmed = matches!(ended, Ended::Reset | Ended::Goaway(ENHANCE_YOUR_CALM));
    assert!(is_calmed, "{ended:?}");
    // Slower, so that each gets to a handler.
    let mut reset = 0;
    while reset < IN_TURN {
        // Each time another, because the client, too, counts what comes for streams that it reset.
        let mut patient = fortress.http2(ATTACKER, "mallory").await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..AT_ONCE {
            let request = http::Request::get("http://x/v1/topics/good/records?offset=0");
            let request = request.body(()).unwrap();
            patient = patient.ready().await.unwrap();
            streams.push(patient.send_request(request, true).unwrap().0);
        }
        // The answer to the last shows that they were all looked at.
        streams.pop().unwrap().await.unwrap();
        reset += streams.len();
    }
    good.more(MEANWHILE).await;
    fortress.stands(good, &format!("{RESETS} resets at once, {reset} in turn")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_in_plaintext() {
    rapid_reset(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_encrypted() {
    rapid_reset(true).await;
}

/// Answers of 5 MiB that nobody takes.
async fn answers_that_nobody_reads(secure: bool) {
    const CONNECTIONS: usize = 3;
    const STREAMS: u32 = 100;
    let fortress = Fortress::start(secure).await;
    let good = fortress.good();
    good.large().await;
    let mut start = http2_start();
    for stream in (0..STREAMS).map(|number| 2 * number + 1) {
        let path = if stream % 4 == 1 { "/0" } else { "?limit=10000" };
        let block = request_block("GET", &format!("/v1/topics/large/records{path}"));
        start.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
    }
    let slow = slow_ones(&fortress, CONNECTIONS, b"h2", &[start], b"").await;
    good.more(2 * MEANWHILE).await;
    drop(slow);
    fortress.stands(good, "300 answers of 5 MiB that nobody reads").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_in_plaintext() {
    answers_that_nobody_reads(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_encrypted() {
    answers_that_nobody_reads(true).await;
}

/// Frames that want an answer, from those who do not read it.
async fn floods(secure: bool) {
    const CONNECTIONS: usize = 4;
    let fortress = Fortress::start(secure).await;
    let good = fortress.good();
    let pieces = [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        frame(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0]),
        frame(frames::PRIORITY, 0, 3, &[0, 0, 0, 1, 9]),
    ];
    let mut flooding = JoinSet::new();
    for piece in pieces.iter().cycle().take(CONNECTIONS) {
        let mut wire = fortress.dial(ATTACKER, "mallory", b"h2").await.unwrap();
        let flood = piece.repeat(1_000);
        flooding.spawn(async move {
            wire.write_all(&http2_start()).await.unwrap();
            // Until it is stopped, or the server takes no more.
            while wire.write_all(&flood).await.is_ok() {}
        });
    }
    good.more(MEANWHILE / 2).await;
    flooding.shutdown().await;
    fortress.stands(good, &format!("floods over {CONNECTIONS} connections")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_in_plaintext() {
    floods(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_encrypted() {
    floods(true).await;
}

/// Connections that are used, by a client that wants all of them.
async fn more_than_a_share(secure: bool) {
    const SHARE: usize = 256;
    let fortress = Fortress::start(secure).await;
    let good = fortress.good();
    let from = if secure { GOOD } else { ATTACKER };
    let window = async || {
        let wire = fortress.dial(GOOD, "good", b"h2").await.unwrap();
        frames::allowed(wire, INITIAL_WINDOW_SIZE).await.unwrap()
    };
    let wide = window().await;
    let mut kept = Vec::new();
    for number in 0..SHARE + 20 {
        let mut wire = fortress.dial(from, "mallory", b"http/1.1").await.unwrap();
        let request = b"GET /v1/cluster HTTP/1.1\r\nhost: x\r\n\r\n";
        wire.write_all(request).await.unwrap();
        let answer = frames::read_answer(&mut wire).await;
        if number < SHARE {
            assert!(answer.starts_with("HTTP/1.1 200"), "{number}: {answer}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 429"), "{number}: {answer}");
            assert!(answer.contains("has 256 connections"), "{answer}");
            assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        }
        kept.push(wire);
    }
    // Who comes when there are many may send less ahead.
    assert!(window().await <= wide / 16, "of {wide} bytes");
    // Whether it lives is said all the same, and over HTTP/2 the refusal is that of gRPC.
    let mut probe = fortress.dial(from, "mallory", b"http/1.1").await.unwrap();
    probe.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(frames::read_answer(&mut probe).await.starts_with("HTTP/1.1 200"));
    let mut http2 = fortress.http2(from, "mallory").await.unwrap();
    let refused = fortress::produce(&mut http2, "good", 1).await.unwrap_err();
    assert!(refused.starts_with("8: ") && refused.contains("has 256 connections"), "{refused}");
    good.more(MEANWHILE).await;
    let is_said = || {
        let said = fortress.node.output();
        said.contains("refused a client") && said.contains("has 256 connections")
    };
    let waited = tokio::time::timeout(node::HANG, async {
        while !is_said() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{}", fortress.node.output());
    drop(kept);
    // There is room again for who was refused.
    let mut http2 = fortress.http2(from, "mallory").await.unwrap();
    let again = async {
        while fortress::produce(&mut http2, "good", 1).await.is_err() {
            http2 = fortress.http2(from, "mallory").await.unwrap();
        }
    };
    tokio::time::timeout(node::HANG, again).await.expect("there is no room again");
    fortress.stands(good, "a client with all connections it may have").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_share_in_plaintext() {
    more_than_a_share(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_share_encrypted() {
    more_than_a_share(true).await;
}
