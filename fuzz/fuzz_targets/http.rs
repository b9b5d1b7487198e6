//! Any bytes as the body of a request, or as the request itself, to a real server in this process:
//! it must answer with a status that is not its own fault, and go on.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use dislog_server::{Config, Insecure, Server};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

const REQUESTS: [(&str, &str, &str); 8] = [
    ("POST", "/", "application/json"),
    ("GET", "/", "application/json"),
    ("POST", "/v1/topics/fuzz/records", "application/json"),
    ("POST", "/v1/topics/fuzz/records", "application/x-ndjson"),
    ("POST", "/v1/topics/fuzz/records", "text/plain"),
    ("PUT", "/v1/topics/fuzz", "application/json"),
    ("PATCH", "/v1/topics/fuzz", "application/json"),
    ("POST", "/v1/topics", "application/json"),
];

static NODE: LazyLock<Node> = LazyLock::new(Node::start);

/// A server that lives as long as the process.
struct Node {
    address: SocketAddr,
    _server: Server,
    _runtime: Runtime,
}

impl Node {
    fn start() -> Node {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let data_dir = tempfile::tempdir().unwrap().keep();
        let (listen, insecure) = ("127.0.0.1:0".to_owned(), Insecure::Loopback);
        let config = Config { data_dir, listen, insecure, ..Config::default() };
        let server = runtime.block_on(Server::start(config)).unwrap();
        Node { address: server.addr(), _server: server, _runtime: runtime }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    match REQUESTS.get(usize::from(choice) % (REQUESTS.len() + 2)) {
        Some((method, path, kind)) => {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Content-Type: {kind}\r\n\
                 Content-Length: {}\r\n\r\n",
                rest.len()
            );
            let answer = exchange(&[head.as_bytes(), rest].concat(), End::Open);
            assert!(answer.starts_with(b"HTTP/1.1 "), "{method} {path}: no answer");
            assert_ne!(&answer[9..12], b"500", "{}", String::from_utf8_lossy(&answer));
        }
        // The query of a read, then the whole request.
        None if usize::from(choice) % 2 == 0 => {
            let graphic = rest.iter().copied().filter(u8::is_ascii_graphic);
            let query: String = graphic.map(char::from).collect();
            let path = format!("/v1/topics/fuzz/records?{query}");
            let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            exchange(head.as_bytes(), End::Open);
        }
        None => {
            exchange(rest, End::HalfClosed);
        }
    }
});

/// What the client does once it has sent everything.
#[derive(PartialEq)]
enum End {
    Open,
    /// The server may take this for a client that went away.
    HalfClosed,
}

fn exchange(request: &[u8], end: End) -> Vec<u8> {
    let mut stream = TcpStream::connect(NODE.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The server may refuse before everything was sent.
    let _ = stream.write_all(request);
    if end == End::HalfClosed {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.take(1 << 20).read_to_end(&mut answer);
    answer
}
