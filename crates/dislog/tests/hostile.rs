//! Hostile and broken clients against the real binary: each gets a clear error, the server's memory
//! stays bounded, and it goes on serving.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "what was measured is for the reader of the run")]

mod node;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::Bytes;
use dislog_proto::v1;
use dislog_proto::v1::log_client::LogClient;
use http_body_util::{BodyExt, Full};
use node::{HANG, Node};
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tower::ServiceExt;

/// What the server may have in memory at most, whatever is done to it here: the 64 MiB of appends
/// that may be under way, as much again for what is being read, and what the program itself takes.
const RSS_BYTES_MAX: u64 = 256 << 20;

/// What a body that is too large may send before it is refused: what fits the sockets' buffers and
/// one batch.
const REFUSED_AFTER_BYTES_MAX: u64 = 64 << 20;

/// A server with one record, and what its clients need.
struct Victim {
    node: Node,
    log: LogClient<Channel>,
    channel: Channel,
    _data_dir: tempfile::TempDir,
}

impl Victim {
    async fn start() -> Victim {
        let data_dir = tempfile::tempdir().unwrap();
        let node = Node::start(data_dir.path());
        let endpoint = Channel::from_shared(format!("http://{}", node.address)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let log = LogClient::new(channel.clone()).max_decoding_message_size(64 << 20);
        let victim = Victim { node, log, channel, _data_dir: data_dir };
        victim.log.clone().produce(produce(b"first")).await.unwrap();
        victim
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.node.address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream
    }

    /// It serves, it is sound, and its memory was bounded all the time.
    async fn must_be_unharmed(self) {
        self.must_be_unharmed_within(RSS_BYTES_MAX).await;
    }

    async fn must_be_unharmed_within(self, rss_bytes_max: u64) {
        let mut log = self.log.clone();
        let offset = log.produce(produce(b"after")).await.unwrap().into_inner().offset;
        let read = log.consume(v1::ConsumeRequest { offset, ..Default::default() }).await.unwrap();
        assert_eq!(read.into_inner().records[0].value, &b"after"[..]);
        let (now, peak) = self.node.rss_bytes();
        eprintln!("RSS {} MiB now, {} MiB at most", now >> 20, peak >> 20);
        assert!(peak < rss_bytes_max, "RSS was {peak} bytes, the limit is {rss_bytes_max}");
        let output = self.node.output();
        assert!(!output.contains("panicked"), "{output}");
        let (status, _) = tokio::task::spawn_blocking(|| self.node.terminate()).await.unwrap();
        assert!(status.success(), "{status}");
    }

    /// Calls a method with the bytes of a message as they are, in a gRPC frame that may lie.
    async fn call_raw(&self, method: &str, message: &[u8], claimed_bytes: u32) -> Status {
        let mut body = vec![0];
        body.extend_from_slice(&claimed_bytes.to_be_bytes());
        body.extend_from_slice(message);
        let request =
            http::Request::post(format!("http://{}/log.v1.Log/{method}", self.node.address))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(tonic::body::Body::new(Full::new(Bytes::from(body))))
                .unwrap();
        let response = self.channel.clone().oneshot(request).await.unwrap();
        if let Some(status) = Status::from_header_map(response.headers()) {
            return status;
        }
        let collected = response.into_body().collect().await;
        match collected {
            Ok(collected) => {
                let trailers = collected.trailers().cloned().unwrap_or_default();
                Status::from_header_map(&trailers).expect("a status ends every call")
            }
            Err(status) => status,
        }
    }

    async fn call(&self, method: &str, message: &[u8]) -> Status {
        self.call_raw(method, message, u32::try_from(message.len()).unwrap()).await
    }
}

fn produce(value: &'static [u8]) -> v1::ProduceRequest {
    let record = v1::Record { value: Bytes::from_static(value), ..v1::Record::default() };
    v1::ProduceRequest { records: vec![record], ..v1::ProduceRequest::default() }
}

/// Everything the server answers until it closes the connection.
fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection stays open: {error}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_messages_get_an_answer() {
    let victim = Victim::start().await;
    // No record at all is not an empty record.
    assert_eq!(victim.call("Produce", b"").await.code(), Code::InvalidArgument);
    assert_eq!(victim.call("ProduceStream", b"").await.code(), Code::InvalidArgument);
    // An empty consume asks for offset 0 of the default topic.
    assert_eq!(victim.call("Consume", b"").await.code(), Code::Ok);
    assert_eq!(victim.call("GetServers", b"").await.code(), Code::Ok);
    assert_eq!(victim.call("NoSuchMethod", b"").await.code(), Code::Unimplemented);
    victim.must_be_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_messages_are_refused() {
    let victim = Victim::start().await;
    for (what, message) in [
        ("a length beyond the message", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f][..]),
        ("a varint without an end", &[0x08]),
        ("a reserved wire type", &[0x0f, 0x00]),
        ("field number zero", &[0x00, 0x00]),
        ("a topic that is not UTF-8", &[0x52, 0x02, 0xff, 0xfe]),
    ] {
        let status = victim.call("Produce", message).await;
        assert!(is_refusal(&status), "{what}: {status:?}");
        let status = victim.call("Consume", message).await;
        assert!(is_refusal(&status), "{what}: {status:?}");
    }
    let header_key = [0x0a, 0x06, 0x5a, 0x04, 0x0a, 0x02, 0xff, 0xfe];
    assert!(is_refusal(&victim.call("Produce", &header_key).await), "a header key, not UTF-8");
    victim.must_be_unharmed().await;
}

/// tonic answers what prost cannot decode with `Internal`.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::Internal) && !status.message().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_ignored() {
    let victim = Victim::start().await;
    let mut message = produce(b"known").encode_to_vec();
    // Fields 1000 (a varint), 1001 (bytes) and 1002 (64 bits).
    message.extend([0xc0, 0x3e, 0x07, 0xca, 0x3e, 0x01, 0x00, 0xd1, 0x3e, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(victim.call("Produce", &message).await.code(), Code::Ok);
    victim.must_be_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_lies_about_its_length_is_refused() {
    let victim = Victim::start().await;
    let status = victim.call_raw("Produce", b"", u32::MAX).await;
    assert_ne!(status.code(), Code::Ok, "{status:?}");
    let status = victim.call_raw("Produce", b"short", 1 << 20).await;
    assert_ne!(status.code(), Code::Ok, "{status:?}");
    victim.must_be_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_is_refused_by_name() {
    let victim = Victim::start().await;
    let mut log = victim.log.clone();
    for bytes in [8 << 20, 16 << 20, 64 << 20] {
        let record = v1::Record { value: vec![7; bytes].into(), ..v1::Record::default() };
        let request = v1::ProduceRequest { records: vec![record], ..Default::default() };
        let status = log.produce(request).await.unwrap_err();
        let refused = [Code::ResourceExhausted, Code::OutOfRange, Code::InvalidArgument];
        assert!(refused.contains(&status.code()), "{bytes} bytes: {status:?}");
    }
    let name = "n".repeat(1 << 20);
    let request = v1::ProduceRequest { topic: name, ..produce(b"x") };
    assert_eq!(log.produce(request).await.unwrap_err().code(), Code::InvalidArgument);
    let request = v1::ProduceRequest { topic: "../../etc".to_owned(), ..produce(b"x") };
    assert_eq!(log.produce(request).await.unwrap_err().code(), Code::InvalidArgument);
    victim.must_be_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_others_are_verified() {
    let victim = Victim::start().await;
    let mut log = victim.log.clone();
    let mut builder = dislog_types::BatchBuilder::new();
    assert!(builder.push(&dislog_types::Record { value: "v".into(), ..Default::default() }));
    let good = builder.finish(dislog_types::Compression::None, None).freeze();
    let with = |batch: Bytes| v1::ProduceRequest { batch, ..v1::ProduceRequest::default() };
    log.produce(with(good.clone())).await.unwrap();
    for at in 8..good.len() {
        // The leader epoch is the server's to stamp, so it may be anything.
        if (12..16).contains(&at) {
            continue;
        }
        let mut bad = good.to_vec();
        bad[at] ^= 0x40;
        let status = log.produce(with(bad.into())).await.unwrap_err();
        let refused = [Code::InvalidArgument, Code::ResourceExhausted];
        assert!(refused.contains(&status.code()), "byte {at}: {status:?}");
    }
    let status = log.produce(with(good.slice(..20))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    victim.must_be_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_offsets_and_limits_are_answered() {
    let victim = Victim::start().await;
    let mut log = victim.log.clone();
    let at = |offset| v1::ConsumeRequest { offset, ..v1::ConsumeRequest::default() };
    for offset in [2, 1 << 31, 1 << 32, 1 << 63, u64::MAX - 1, u64::MAX] {
        let status = log.consume(at(offset)).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "offset {offset}: {status:?}");
    }
    let most = v1::ConsumeRequest { max_records: u32::MAX, max_bytes: u32::MAX, ..at(0) };
    assert_eq!(log.consume(most).await.unwrap().into_inner().records.len(), 1);
    for start in [
        v1::consume_request::Start::Last(u64::MAX),
        v1::consume_request::Start::TimestampMs(i64::MIN),
        v1::consume_request::Start::Earliest(true),
    ] {
        let request = v1::ConsumeRequest { start: Some(start), ..at(0) };
        let answer = log.consume(request).await.unwrap().into_inner();
        assert_eq!(answer.records[0].offset, 0, "{start:?}");
    }
    let status =
        log.consume(v1::ConsumeRequest { partition: u32::MAX, ..at(0) }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    let expected = v1::ProduceRequest { expected_offset: Some(u64::MAX), ..produce(b"x") };
    let status = log.produce(expected).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    for (producer_id, producer_epoch, sequence) in
        [(0, 0, 0), (-1, 0, 0), (i64::MIN, 0, 0), (1, -1, 0), (1, 1 << 20, 0), (1, 0, -1)]
    {
        let idempotence = v1::Idempotence { producer_id, producer_epoch, sequence };
        let request = v1::ProduceRequest { idempotence: Some(idempotence), ..produce(b"x") };
        let status = log.produce(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{idempotence:?}: {status:?}");
    }
    victim.must_be_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_http_is_refused() {
    let victim = Victim::start().await;
    let mut bomb = "[".repeat(100_000);
    bomb.push('\n');
    let cases: [(&str, &str, &str, &str); 9] = [
        ("POST", "/", "application/json", "{"),
        ("POST", "/", "application/json", "{\"record\":{\"value\":\"not base64!\"}}"),
        ("POST", "/v1/topics/a/records", "application/json", "{\"value\":"),
        ("POST", "/v1/topics/a/records", "application/json", &bomb),
        ("POST", "/v1/topics/a/records", "application/x-ndjson", "{\"value\":\"a\"}\n{"),
        ("POST", "/v1/topics/a%2Fb/records", "text/plain", "x"),
        ("GET", "/v1/topics/default/records/99999999999999999999", "text/plain", ""),
        ("GET", "/v1/topics/default/records?limit=-1", "text/plain", ""),
        ("GET", "/v1/topics/default/records?offset=x", "text/plain", ""),
    ];
    for (method, path, kind, body) in cases {
        let mut stream = victim.connect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let answer = read_all(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 4"), "{method} {path} {body:.40}: {answer}");
        assert!(answer.contains("application/problem+json"), "{method} {path}: {answer}");
    }
    victim.must_be_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_ten_gigabytes_is_refused_early() {
    const BODY_BYTES: u64 = 10 << 30;
    let victim = Victim::start().await;
    for path in ["/", "/v1/topics/zeros/records"] {
        for framing in
            [format!("Content-Length: {BODY_BYTES}"), "Transfer-Encoding: chunked".into()]
        {
            let mut stream = victim.connect();
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let sent = send_zeros(&mut stream, BODY_BYTES, framing.starts_with("Transfer"));
            assert!(sent < REFUSED_AFTER_BYTES_MAX, "{path} {framing}: {sent} bytes were taken");
            let answer = read_all(&mut stream);
            // A reset may overtake the answer; what was refused early is refused either way.
            let is_refusal = answer.is_empty() || answer.starts_with("HTTP/1.1 413");
            assert!(is_refusal, "{path} {framing}: {answer}");
        }
    }
    victim.must_be_unharmed().await;
}

/// Sends zeros until the server no longer takes them; how many it took.
fn send_zeros(stream: &mut TcpStream, total: u64, is_chunked: bool) -> u64 {
    const PIECE: usize = 1 << 16;
    let mut piece = Vec::new();
    if is_chunked {
        piece.extend_from_slice(b"10000\r\n");
    }
    piece.resize(piece.len() + PIECE, 0);
    if is_chunked {
        piece.extend_from_slice(b"\r\n");
    }
    let mut sent = 0;
    while sent < total {
        match stream.write_all(&piece) {
            Ok(()) => sent += PIECE as u64,
            Err(error) => {
                let ended = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                assert!(ended.contains(&error.kind()), "{error}");
                break;
            }
        }
        if refuses(stream) {
            break;
        }
    }
    sent
}

/// Whether an answer is there before the body has ended.
fn refuses(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let answered = stream.peek(&mut [0]).is_ok();
    stream.set_nonblocking(false).unwrap();
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_on_the_port_end_the_connection() {
    let victim = Victim::start().await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..100 {
        let mut stream = victim.connect();
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            // Xorshift, Marsaglia 2003.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(512)
        .flatten()
        .collect();
        // The server may close while this is still being written.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        read_all(&mut stream);
    }
    // The preface of HTTP/2, and then nonsense.
    let mut stream = victim.connect();
    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame at all");
    let _ = stream.shutdown(Shutdown::Write);
    read_all(&mut stream);
    victim.must_be_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_do_not_keep_others_out() {
    let victim = Victim::start().await;
    let idle: Vec<TcpStream> = (0..200).map(|_| victim.connect()).collect();
    for mut stream in &idle {
        stream.write_all(b"GET / HT").unwrap();
    }
    victim.must_be_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_closed_streams_end_well() {
    let victim = Victim::start().await;
    let mut log = victim.log.clone();
    // A produce stream that is closed at once, and one that is closed after two requests.
    for count in [0, 2] {
        let requests = futures_util::stream::iter((0..count).map(|_| produce(b"half")));
        let mut answers = log.produce_stream(requests).await.unwrap().into_inner();
        for _ in 0..count {
            assert!(answers.message().await.unwrap().is_some());
        }
        assert!(answers.message().await.unwrap().is_none(), "it ends with OK");
    }
    // Over HTTP: a body that is promised and never comes.
    let mut stream = victim.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = read_all(&mut stream);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    // A stream of requests whose client goes away in the middle.
    for _ in 0..50 {
        let requests = tokio_stream::iter([produce(b"gone")]).chain_pending();
        let mut answers = log.produce_stream(requests).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some());
    }
    victim.must_be_unharmed().await;
}

/// A stream that stays open after its last item.
trait ChainPending: futures_util::Stream + Sized {
    fn chain_pending(self) -> impl futures_util::Stream<Item = Self::Item> + Send + 'static
    where
        Self: Send + 'static,
        Self::Item: Send,
    {
        futures_util::StreamExt::chain(self, futures_util::stream::pending())
    }
}

impl<S: futures_util::Stream> ChainPending for S {}

/// What the record of topic `slow` at an offset consists of.
fn letter(offset: u64) -> u8 {
    b'a' + u8::try_from(offset % 26).unwrap()
}

fn slow(offset: u64) -> v1::ProduceRequest {
    let record = v1::Record { value: vec![letter(offset); 1 << 20].into(), ..Default::default() };
    v1::ProduceRequest { topic: "slow".to_owned(), records: vec![record], ..Default::default() }
}

/// A reader of the topic `slow` from its start.
struct Follower {
    stream: Streaming<v1::ConsumeResponse>,
    next_offset: u64,
}

impl Follower {
    /// One whose first message has arrived.
    async fn start(victim: &Victim) -> Follower {
        /// What it asks for at a time.
        const PAGE_BYTES: u32 = 4 << 20;
        let channel = Channel::from_shared(format!("http://{}", victim.node.address)).unwrap();
        let mut log = LogClient::new(channel.connect().await.unwrap());
        log = log.max_decoding_message_size(64 << 20);
        let topic = "slow".to_owned();
        let request = v1::ConsumeRequest { topic, max_bytes: PAGE_BYTES, ..Default::default() };
        let stream = log.consume_stream(request).await.unwrap().into_inner();
        let mut follower = Follower { stream, next_offset: 0 };
        follower.read_to(1).await;
        follower
    }

    /// Reads at least up to an offset; every record must be there, once and whole.
    async fn read_to(&mut self, offset: u64) {
        while self.next_offset < offset {
            let page = tokio::time::timeout(HANG, self.stream.message()).await.unwrap();
            for record in page.unwrap().unwrap().records {
                assert_eq!(record.offset, self.next_offset);
                let expected = letter(self.next_offset);
                assert!(record.value.iter().all(|byte| *byte == expected), "{}", record.offset);
                self.next_offset += 1;
            }
        }
    }
}

/// One over HTTP, whose first bytes have arrived.
fn follow_over_http(victim: &Victim) -> BufReader<TcpStream> {
    let mut http = BufReader::with_capacity(64, victim.connect());
    http.get_mut()
        .write_all(
            b"GET /v1/topics/slow/records?offset=0&limit=26 HTTP/1.1\r\nHost: x\r\n\
              Connection: close\r\nAccept: application/x-ndjson\r\n\r\n",
        )
        .unwrap();
    assert!(!http.fill_buf().unwrap().is_empty());
    http
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_cost_bounded_memory() {
    const READERS: usize = 32;
    const RECORDS: u64 = 128;
    let victim = Victim::start().await;
    let mut log = victim.log.clone();
    for offset in 0..RECORDS {
        log.produce(slow(offset)).await.unwrap();
    }
    // From here on none of these reads.
    let (mut over_grpc, mut over_http) = (Vec::new(), Vec::new());
    for _ in 0..READERS {
        over_grpc.push(Follower::start(&victim).await);
        over_http.push(follow_over_http(&victim));
    }
    // Those who read, and those who write, go on.
    let mut good = Follower::start(&victim).await;
    good.read_to(RECORDS / 2).await;
    for offset in RECORDS..RECORDS + 8 {
        log.produce(slow(offset)).await.unwrap();
    }
    good.read_to(RECORDS + 8).await;
    let (now, _) = victim.node.rss_bytes();
    eprintln!("RSS {} MiB with {READERS} + {READERS} slow readers", now >> 20);
    // A slow reader that goes on gets all that it had not taken, whatever became of it meanwhile.
    over_grpc[0].read_to(RECORDS / 4).await;
    let mut answer = String::new();
    over_http[0].read_to_string(&mut answer).unwrap();
    for offset in 0..26 {
        assert_eq!(answer.matches(char::from(letter(offset))).count() >> 20, 1, "{offset}");
    }
    victim.must_be_unharmed().await;
}
