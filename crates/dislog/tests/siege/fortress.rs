//! A server under attack, and the clients that mean well.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use dislog_proto::v1;
use h2::client::SendRequest;
use prost::Message;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::node::{HANG, Node, tls};

/// From where those who mean well come.
pub(crate) const GOOD: &str = "127.0.0.1";

/// From where the others do, most often.
pub(crate) const ATTACKER: &str = "127.0.0.2";

/// What the server may have in memory at most, whatever is done to it here: 64 MiB of what slow
/// readers have not taken, what is just being made for them, what the allocator keeps of both, and
/// the program itself, which is 50 MiB in a debug build.
const RSS_BYTES_MAX: u64 = 192 << 20;

/// How long any request of those who mean well may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long those pause between two requests.
const PAUSE: Duration = Duration::from_millis(20);

/// A connection, encrypted or not.
pub(crate) type Wire = Box<dyn AnyStream>;

pub(crate) trait AnyStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> AnyStream for S {}

/// A server, and what it takes to reach it. Cheap to clone but for the server.
pub(crate) struct Fortress {
    pub(crate) node: Node,
    way: Way,
    _data_dir: TempDir,
}

/// How the server is reached.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    /// Where the certificates of its clients are, if connections are encrypted.
    certs: Option<Arc<PathBuf>>,
}

impl Fortress {
    pub(crate) async fn start(secure: bool) -> Fortress {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs");
        let data = dir.path().join("data");
        let node = if secure {
            for what in
                [&["ca"][..], &["server", "anton"], &["client", "good"], &["client", "mallory"]]
            {
                make_certificate(&certs, what);
            }
            let mut command = Command::new(crate::node::binary());
            command.args(["server", "--listen", "127.0.0.1:0", "--tls-dir"]);
            command.arg(certs.join("anton")).arg("--data-dir").arg(data);
            Node::spawn(command)
        } else {
            Node::start(&data)
        };
        let address = node.address.parse().unwrap();
        let way = Way { address, certs: secure.then(|| Arc::new(certs)) };
        let fortress = Fortress { node, way, _data_dir: dir };
        let mut first = fortress.http2(GOOD, "good").await.unwrap();
        produce(&mut first, "good", 1).await.unwrap();
        fortress
    }

    /// A connection that is no more than that.
    pub(crate) async fn dial_tcp(&self, from: &str) -> io::Result<TcpStream> {
        self.way.dial_tcp(from).await
    }

    /// A connection from an address, with the certificate of `who` if it is encrypted.
    pub(crate) async fn dial(&self, from: &str, who: &str, protocol: &[u8]) -> io::Result<Wire> {
        self.way.dial(from, who, protocol).await
    }

    /// An HTTP/2 connection.
    pub(crate) async fn http2(&self, from: &str, who: &str) -> io::Result<SendRequest<Bytes>> {
        self.way.http2(from, who).await
    }

    /// Clients that go on producing from now on, every request of which must succeed.
    pub(crate) fn good(&self) -> Good {
        self.good_with_redials(0)
    }

    /// The same for those who share the address of an attacker: new connections may be lost among
    /// his, so often.
    pub(crate) fn good_with_redials(&self, redials_max: u64) -> Good {
        let (way, tally) = (self.way.clone(), Arc::new(Tally::default()));
        let old = tokio::spawn(over_one_connection(way.clone(), Arc::clone(&tally)));
        let new = over_new_connections(way.clone(), Arc::clone(&tally), redials_max);
        Good { way, tally, clients: [old, tokio::spawn(new)] }
    }

    /// All requests of those who meant well succeeded, memory was bounded, and the server ends as
    /// it should.
    pub(crate) async fn stands(self, good: Good, what: &str) {
        good.more(3).await;
        let tally = good.end().await;
        let (now, peak) = self.node.rss_bytes();
        eprintln!(
            "{what}: RSS {} MiB now, {} MiB at most; processor {:.1} s; {tally}",
            now >> 20,
            peak >> 20,
            self.node.cpu().as_secs_f64()
        );
        assert!(peak < RSS_BYTES_MAX, "RSS was {peak} bytes, the limit is {RSS_BYTES_MAX}");
        let output = self.node.output();
        assert!(!output.contains("panicked"), "{output}");
        let ending = tokio::task::spawn_blocking(|| self.node.terminate());
        let (status, _) = ending.await.unwrap();
        assert!(status.success(), "{status}");
    }
}

fn make_certificate(certs: &Path, what: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dislog"));
    command.arg("cert").args(what).arg("--dir").arg(certs).stdin(Stdio::null());
    let output = command.env_clear().env("HOME", "/nonexistent").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Lets this process have so many files open.
pub(crate) fn allow_open_files(count: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        limit.current = Some(count);
        setrlimit(Resource::Nofile, limit).expect("`ulimit -Hn` allows as many open files");
    }
}

impl Way {
    async fn dial_tcp(&self, from: &str) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0))?;
        socket.set_nodelay(true)?;
        socket.connect(self.address).await
    }

    async fn dial(&self, from: &str, who: &str, protocol: &[u8]) -> io::Result<Wire> {
        let stream = self.dial_tcp(from).await?;
        let Some(certs) = &self.certs else { return Ok(Box::new(stream)) };
        let connector = TlsConnector::from(Arc::new(tls::config(&certs.join(who), protocol)));
        let name = ServerName::try_from("localhost").unwrap();
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    async fn http2(&self, from: &str, who: &str) -> io::Result<SendRequest<Bytes>> {
        let wire = self.dial(from, who, b"h2").await?;
        let (requests, connection) = h2::client::handshake(wire).await.map_err(io::Error::other)?;
        // How it ends is told to each of its requests.
        tokio::spawn(async { drop(connection.await) });
        Ok(requests)
    }
}

/// Adds a record to a topic; the error begins with the gRPC status if there was one.
pub(crate) async fn produce(
    requests: &mut SendRequest<Bytes>,
    topic: &str,
    value_bytes: usize,
) -> Result<(), String> {
    let value = Bytes::from(vec![b'v'; value_bytes]);
    let record = v1::Record { value, ..v1::Record::default() };
    let topic = topic.to_owned();
    let message = v1::ProduceRequest { records: vec![record], topic, ..Default::default() };
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut body).unwrap();
    let request = http::Request::post("http://localhost/log.v1.Log/Produce")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let text = |error: h2::Error| error.to_string();
    let mut ready = requests.clone().ready().await.map_err(text)?;
    let (answer, mut sending) =
        ready.send_request(request.body(()).unwrap(), false).map_err(text)?;
    // Who is refused may be told so before it has sent everything: then the answer counts.
    let sent = sending.send_data(body.freeze(), true);
    let answer = answer.await.map_err(|error| text(sent.err().unwrap_or(error)))?;
    let head = answer.headers().clone();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let taken = data.map_err(text)?.len();
        body.flow_control().release_capacity(taken).map_err(text)?;
    }
    let trailers = body.trailers().await.map_err(text)?.unwrap_or(head);
    let said = |name: &str| trailers.get(name).map_or("", |value| value.to_str().unwrap());
    match said("grpc-status") {
        "0" => Ok(()),
        status => Err(format!("{status}: {}", said("grpc-message").replace("%20", " "))),
    }
}

/// Clients that mean well: one has a connection, one makes a new one for each request.
pub(crate) struct Good {
    way: Way,
    tally: Arc<Tally>,
    clients: [JoinHandle<()>; 2],
}

/// What they have done.
#[derive(Default)]
struct Tally {
    old: Requests,
    new: Requests,
    /// Connections that were ended before they were of use, and made again.
    redialled: AtomicU64,
}

#[derive(Default)]
struct Requests {
    count: AtomicU64,
    slowest_ms: AtomicU64,
}

impl Requests {
    fn note(&self, started: Instant) {
        let took = u64::try_from(started.elapsed().as_millis()).unwrap();
        self.slowest_ms.fetch_max(took, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |requests: &Requests| {
            let slowest_ms = requests.slowest_ms.load(Ordering::Relaxed);
            format!("{} ({slowest_ms} ms at most)", requests.count.load(Ordering::Relaxed))
        };
        let (old, new) = (of(&self.old), of(&self.new));
        let redialled = self.redialled.load(Ordering::Relaxed);
        write!(f, "good requests {old}, over new connections {new}, {redialled} redialled")
    }
}

async fn over_one_connection(way: Way, tally: Arc<Tally>) {
    let mut requests = way.http2(GOOD, "good").await.unwrap();
    loop {
        let started = Instant::now();
        let produced = timeout(PATIENCE, produce(&mut requests, "good", 100)).await;
        produced.expect("a good client is kept waiting").expect("a good client is refused");
        tally.old.note(started);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn over_new_connections(way: Way, tally: Arc<Tally>, redials_max: u64) {
    loop {
        let started = Instant::now();
        let producing = async {
            while let Err(broke) = over_a_new_connection(&way).await {
                let redialled = 1 + tally.redialled.fetch_add(1, Ordering::Relaxed);
                assert!(redialled <= redials_max, "a good client does not get in: {broke}");
            }
        };
        timeout(PATIENCE, producing).await.expect("a good client is kept waiting");
        tally.new.note(started);
        tokio::time::sleep(PAUSE).await;
    }
}

/// An error is one of the connection.
async fn over_a_new_connection(way: &Way) -> Result<(), String> {
    let mut requests = way.http2(GOOD, "good").await.map_err(|error| error.to_string())?;
    let produced = produce(&mut requests, "good", 100).await;
    let is_answer = |error: &String| error.starts_with(|first: char| first.is_ascii_digit());
    match produced {
        Err(error) if is_answer(&error) => panic!("a good client is refused: {error}"),
        produced => produced,
    }
}

impl Good {
    /// Waits until each has had so many more requests answered.
    pub(crate) async fn more(&self, count: u64) {
        let started = Instant::now();
        for requests in [&self.tally.old, &self.tally.new] {
            let before = requests.count.load(Ordering::Relaxed);
            while requests.count.load(Ordering::Relaxed) < before + count {
                assert!(!self.clients.iter().any(JoinHandle::is_finished), "a good client failed");
                assert!(started.elapsed() < HANG, "good clients do not go on: {}", self.tally);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Adds a large record to the topic `large`.
    pub(crate) async fn large(&self) {
        let mut requests = self.way.http2(GOOD, "good").await.unwrap();
        let produced = timeout(PATIENCE, produce(&mut requests, "large", 4 << 20)).await;
        produced.expect("a good client is kept waiting").expect("a good client is refused");
    }

    async fn end(self) -> Arc<Tally> {
        for client in self.clients {
            client.abort();
            let failed = client.await.err().is_some_and(|error| error.is_panic());
            assert!(!failed, "a good client failed");
        }
        self.tally
    }
}
