//! Networks over real sockets, and acceptors over streams in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use dislog_cluster::{Network, PEER_FRAME_BYTES_MAX, Peer, PeerFrame};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::hello::{Answer, HELLO_BYTES_MAX, Hello, VERSION, refusal};
use super::link::QUEUE_BYTES_MAX;
use super::wire::{FrameReader, put_frame};
use super::{Acceptor, DialError, PREFACE, PeerNetwork, dial_check};
use crate::identity::{Caller, Subject};
use crate::pass::Pass;
use crate::security::Security;

mod latency;
#[path = "../../../dislog/tests/ports/mod.rs"]
mod ports;

/// What should happen soon has happened by then, or never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A frame as far as these tests look into it.
#[derive(Clone, PartialEq, Message)]
struct Letter {
    #[prost(fixed64, tag = "2")]
    node_id: u64,
    #[prost(bytes = "bytes", tag = "4")]
    text: Bytes,
}

async fn check(address: &str, patience: Duration) -> Result<u64, DialError> {
    dial_check(address, &Security::plaintext(), patience).await
}

fn caller(from: SocketAddr) -> Caller {
    Caller { subject: Subject::Anonymous, from, pass: Pass::default() }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

fn frame(node_id: u64, text: Bytes) -> PeerFrame {
    PeerFrame::decode_from(Letter { node_id, text }.encode_to_vec().into()).unwrap()
}

fn letter(frame: &PeerFrame) -> Letter {
    let mut bytes = BytesMut::new();
    frame.encode_into(&mut bytes);
    Letter::decode(bytes.freeze()).unwrap()
}

/// A network, and an accept loop as the listener has it.
struct Node {
    node_id: u64,
    network: PeerNetwork,
    addr: SocketAddr,
    received: mpsc::UnboundedReceiver<PeerFrame>,
    accepting: JoinHandle<()>,
}

impl Node {
    async fn start(node_id: u64, listen: &str) -> Node {
        let listener = TcpListener::bind(listen).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (letters, received) = mpsc::unbounded_channel();
        let deliver = Arc::new(move |frame| drop(letters.send(frame)));
        let acceptor = Arc::new(Acceptor::new(node_id, PATIENCE, false, deliver));
        let accepting = tokio::spawn(accept(listener, acceptor));
        let network = PeerNetwork::new(Handle::current(), Security::plaintext());
        network.set_node_id(node_id);
        Node { node_id, network, addr, received, accepting }
    }

    fn send(&self, to: &Peer, text: impl Into<Bytes>) {
        self.network.send(to, frame(self.node_id, text.into()));
    }

    fn peer(&self) -> Peer {
        Peer { node_id: self.node_id, address: self.addr.to_string().into() }
    }

    async fn receive(&mut self) -> Letter {
        letter(&soon(self.received.recv()).await.unwrap())
    }

    async fn stop(self) -> SocketAddr {
        self.accepting.abort();
        assert!(self.accepting.await.is_err());
        self.addr
    }
}

async fn accept(listener: TcpListener, acceptor: Arc<Acceptor>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, from) = listener.accept().await.unwrap();
        super::set_options(&stream).unwrap();
        let acceptor = Arc::clone(&acceptor);
        connections.spawn(async move {
            let mut preface = [0; PREFACE.len()];
            stream.read_exact(&mut preface).await.unwrap();
            assert_eq!(preface, *PREFACE);
            acceptor.serve(stream, &caller(from), Instant::now() + PATIENCE).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_in_order_and_intact_both_ways() {
    let [mut a, mut b] = [Node::start(1, "127.0.0.1:0").await, Node::start(2, "127.0.0.1:0").await];
    let sizes = [0, 1, 4_084, 4_096, 4_097, 65_536, 200_000, 1 << 20, 5 << 20, 300, 9 << 20, 7];
    let text = |seed: usize, bytes: usize| -> Bytes {
        (0..bytes).map(|at| ((at * 31 + seed) ^ (at >> 9)).to_le_bytes()[0]).collect()
    };
    let small = 2_000;
    for (seed, bytes) in sizes.into_iter().enumerate() {
        a.send(&b.peer(), text(seed, bytes));
        b.send(&a.peer(), text(seed + 1, bytes));
    }
    for seed in 0..small {
        // It is the same connection, whether or not it is known who is there.
        a.send(&Peer { node_id: 0, ..b.peer() }, text(seed, seed % 50));
    }
    for (seed, bytes) in sizes.into_iter().enumerate() {
        assert!(b.receive().await == Letter { node_id: 1, text: text(seed, bytes) });
        assert!(a.receive().await == Letter { node_id: 2, text: text(seed + 1, bytes) });
    }
    for seed in 0..small {
        assert!(b.receive().await == Letter { node_id: 1, text: text(seed, seed % 50) });
    }
    a.network.close().await;
    a.send(&b.peer(), "after the end");
    b.network.close().await;
}

#[tokio::test]
async fn what_waits_is_sent_before_a_network_closes() {
    let [a, mut b] = [Node::start(1, "127.0.0.1:0").await, Node::start(2, "127.0.0.1:0").await];
    a.send(&b.peer(), "first");
    b.receive().await;
    a.send(&b.peer(), "last");
    a.network.close().await;
    assert_eq!(b.receive().await.text, "last");
}

/// Sends until it arrives, as those do who rely on no arrival.
async fn send_until_received(from: &Node, to: &mut Node, peer: &Peer) {
    let pause = Duration::from_millis(10);
    soon(async {
        loop {
            from.send(peer, "hello");
            if tokio::time::timeout(pause, to.received.recv()).await.is_ok() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_restarts_is_dialled_again() {
    let [address] = ports::free_addresses(1).try_into().unwrap();
    let [a, mut b] = [Node::start(1, "127.0.0.1:0").await, Node::start(2, &address).await];
    let peer = b.peer();
    for _ in 0..3 {
        send_until_received(&a, &mut b, &peer).await;
        let addr = b.stop().await;
        a.send(&peer, "nobody is there");
        b = Node::start(2, &addr.to_string()).await;
    }
    // Another node takes its place: nothing is for that.
    let addr = b.stop().await;
    let mut c = Node::start(3, &addr.to_string()).await;
    let by_address = Peer { node_id: 0, ..peer.clone() };
    send_until_received(&a, &mut c, &by_address).await;
    a.send(&peer, "for the node before");
    a.send(&by_address, "for anyone");
    loop {
        match c.receive().await.text {
            text if text == "hello" => {}
            text => break assert_eq!(text, "for anyone"),
        }
    }
}

/// An address that refuses connections.
fn nobody() -> SocketAddr {
    let place = TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = place.local_addr().unwrap();
    // Nobody else gets it: it stays bound, and never listens.
    std::mem::forget(place);
    addr
}

#[tokio::test]
async fn frames_to_a_node_that_is_not_there_are_dropped_at_once() {
    let a = Node::start(1, "127.0.0.1:0").await;
    let peer = Peer { node_id: 2, address: nobody().to_string().into() };
    a.send(&peer, "x");
    let link = a.network.link_to(&peer.address).unwrap();
    soon(async {
        loop {
            a.send(&peer, "x");
            if link.load() == (0, 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_a_node_that_does_not_read_is_bounded() {
    let a = Node::start(1, "127.0.0.1:0").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Arc<str> = listener.local_addr().unwrap().to_string().into();
    let peer = Peer { node_id: 2, address };
    let text = Bytes::from(vec![7; 1 << 20]);
    a.send(&peer, "hello");
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    let mut out = BytesMut::new();
    Hello::new(2, 1).put(&mut out);
    stream.write_all(&out).await.unwrap();
    let link = a.network.link_to(&peer.address).unwrap();
    for _ in 0..3 * QUEUE_BYTES_MAX / text.len() {
        a.send(&peer, text.clone());
        assert!(link.load().0 <= QUEUE_BYTES_MAX);
        tokio::task::yield_now().await;
    }
    let (waiting_bytes, dropped) = link.load();
    assert!(waiting_bytes > QUEUE_BYTES_MAX / 2 && dropped > 0, "{waiting_bytes} {dropped}");
    // A frame that no acceptor would take is not sent.
    drop(stream);
    a.send(&peer, vec![7; PEER_FRAME_BYTES_MAX]);
    assert!(link.load().1 > dropped);
}

/// A connection to the acceptor of node 2, whose preface was sent, over a stream that is no socket.
fn acceptor() -> (DuplexStream, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn(async move {
        let timeout = Duration::from_millis(50);
        let deliver = Arc::new(|frame: PeerFrame| assert_eq!(letter(&frame).text, "good"));
        let acceptor = Acceptor::new(2, timeout, false, deliver);
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        acceptor.serve(far, &caller(from), Instant::now() + timeout).await;
    });
    (near, serving)
}

fn wire(payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| out.put_slice(payload));
    out
}

fn wire_frame(node_id: u64) -> BytesMut {
    wire(&Letter { node_id, text: "good".into() }.encode_to_vec())
}

fn hello_of(hello: Hello) -> BytesMut {
    let mut out = BytesMut::new();
    hello.put(&mut out);
    out
}

async fn refused(bytes: &[u8]) -> String {
    let (mut stream, serving) = acceptor();
    stream.write_all(bytes).await.unwrap();
    let mut answers = FrameReader::new(stream, PATIENCE);
    loop {
        let answer = soon(answers.next(HELLO_BYTES_MAX)).await.unwrap().unwrap();
        match Answer::decode(answer).unwrap() {
            Answer::Hello(hello) => assert_eq!(hello, Hello::new(2, 1)),
            Answer::Refusal(why) => {
                drop(answers);
                soon(serving).await.unwrap();
                return why;
            }
        }
    }
}

#[tokio::test]
async fn hostile_dialers_are_told_why_they_are_sent_away() {
    let hello = Hello::new(1, 2);
    let good = wire_frame(1);
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    let too_long = u32::try_from(PEER_FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    let claim = [u32::try_from(PEER_FRAME_BYTES_MAX).unwrap().to_le_bytes(), [7; 4], [7; 4]];
    let after_hello: [(&[u8], &str); 6] = [
        (&changed, "checksum"),
        (&[too_long, [0; 4]].concat(), "33554433 bytes"),
        (&claim.concat(), "took longer than 50 ms"),
        (&wire(&[0xff; 100]), "not a frame of a peer"),
        (&wire_frame(3), "node 1 sent a frame in the name of node 3"),
        (&wire(&[]), "in the name of node 0"),
    ];
    for (bytes, why) in after_hello {
        let text = refused(&[&hello_of(hello), &good, bytes].concat()).await;
        assert!(text.contains(why), "{text}");
    }
    let too_long = u32::try_from(HELLO_BYTES_MAX + 1).unwrap().to_le_bytes();
    let instead: [(&[u8], &str); 7] = [
        (b"", "no Hello came in time"),
        (&hello_of(hello)[..12], "no Hello came in time"),
        (&[too_long, [0; 4]].concat(), "4097 bytes"),
        (&good, "the first frame is no Hello"),
        (&refusal("\x1b[31mred"), "in place of a Hello:  [31mred"),
        (&hello_of(Hello { version: VERSION + 1, ..hello }), "version 2 of the protocol"),
        (&hello_of(Hello::new(1, 5)), "this is node 2, not node 5"),
    ];
    for (bytes, why) in instead {
        let text = refused(bytes).await;
        assert!(text.contains(why) || text.contains("took longer"), "{text}");
    }
}

#[tokio::test]
async fn whoever_answers_is_known_by_dialling() {
    let b = Node::start(2, "127.0.0.1:0").await;
    let by_name = format!("localhost:{}", b.addr.port());
    assert_eq!(soon(check(&by_name, PATIENCE)).await.unwrap(), 2);
    let nobody = nobody().to_string();
    let error = soon(check(&nobody, PATIENCE)).await.unwrap_err();
    assert!(matches!(error, DialError::Connect(_)), "{error}");
    let error = soon(check("no.such.host.invalid:1", PATIENCE)).await.unwrap_err();
    assert!(matches!(error, DialError::Connect(_)), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let silent = Duration::from_millis(50);
    let error = soon(check(&address, silent)).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout(_) | DialError::Answer(_)), "{error}");
    // The one that was too impatient still waits to be accepted.
    drop(soon(listener.accept()).await.unwrap());
    let mut older = Hello::new(2, 0);
    older.version = 0;
    for (answer, expected) in [
        (Bytes::from("HTTP/1.1 400 Bad Request\r\n\r\n"), "no node answered"),
        (Bytes::new(), "no node answered"),
        (hello_of(older).freeze(), "version 0"),
        (refusal("not today").freeze(), "it refused: not today"),
    ] {
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = [0; PREFACE.len() + 32];
            stream.read_exact(&mut greeting).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        };
        let dialling = check(&address, PATIENCE);
        let (error, ()) = soon(async { tokio::join!(dialling, answering) }).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_node_that_is_not_the_expected_one_gets_no_frames() {
    let [a, mut b] = [Node::start(1, "127.0.0.1:0").await, Node::start(2, "127.0.0.1:0").await];
    let other = Peer { node_id: 7, ..b.peer() };
    a.send(&other, "for node 7");
    let link = a.network.link_to(&other.address).unwrap();
    soon(async {
        while link.load().0 > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(b.received.try_recv().is_err());
    send_until_received(&a, &mut b, &Peer { node_id: 2, ..other }).await;
}
