//! Other nodes on the port, and those that say they are one.

use std::net::SocketAddr;
use std::time::Instant;

use dislog_server::{Config, Insecure, Server, StartError};
use dislog_types::checksum::crc32c;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::hostile::{assert_serves, random_bytes, resident_bytes};
use crate::http_client::read_to_end;
use crate::lifecycle::SHUTDOWN_MAX;
use crate::node::{soon, start, start_with};

const PREFACE: &[u8] = b"\0DISLOG PEER\r\n\r\n";

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..], &crc32c(payload).to_le_bytes(), payload].concat()
}

/// The preface and the Hello of node 1, which does not know whom it dials.
fn greeting() -> Vec<u8> {
    let mut hello = vec![1, 0, 0, 0, 1, 0, 0, 0, 1];
    hello.resize(24, 0);
    [PREFACE, &frame(&hello)].concat()
}

async fn dial(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The node may close before it has taken everything.
    let _refused = stream.write_all(bytes).await;
    stream
}

async fn answer(addr: SocketAddr, bytes: &[u8]) -> String {
    String::from_utf8_lossy(&read_to_end(&mut dial(addr, bytes).await).await).into_owned()
}

#[tokio::test]
async fn hostile_bytes_end_their_connection_and_nothing_else() {
    let node = start_with(|config| {
        config.header_timeout_ms = 500;
        config.request_timeout_ms = 500;
    })
    .await;
    for seed in 0..30 {
        let random = random_bytes(seed, 4_096);
        for start in [&b"\0"[..], PREFACE, &greeting()] {
            answer(node.addr(), &[start, &random].concat()).await;
        }
        let framed = [greeting(), frame(&random)].concat();
        let answer = answer(node.addr(), &framed).await;
        assert!(answer.contains("frame"), "{answer:?}");
    }
    let mut changed = [greeting(), frame(b"changed on its way")].concat();
    *changed.last_mut().unwrap() ^= 1;
    assert!(answer(node.addr(), &changed).await.contains("checksum"));
    let too_long = [greeting(), vec![0xff; 8]].concat();
    assert!(answer(node.addr(), &too_long).await.contains("4294967295 bytes"));
    // A preface that is not finished, a Hello that does not come, and HTTP that looks like it.
    assert_eq!(answer(node.addr(), &PREFACE[..5]).await, "");
    assert!(answer(node.addr(), PREFACE).await.contains("no Hello came in time"));
    assert!(answer(node.addr(), b"\0DISLOG\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    assert_serves(&node).await;
}

#[tokio::test]
async fn claims_of_much_to_come_hold_little_and_not_for_ever() {
    let node = start_with(|config| config.request_timeout_ms = 5_000).await;
    let before = resident_bytes();
    let claim = [greeting(), (32_u32 << 20).to_le_bytes().to_vec(), vec![7; 1_000]].concat();
    let mut claims = Vec::new();
    for _ in 0..100 {
        claims.push(dial(node.addr(), &claim).await);
    }
    assert_serves(&node).await;
    let grown = resident_bytes().saturating_sub(before) >> 20;
    assert!(grown < 250, "{grown} MiB more for 100 claims of 32 MiB");
    for claim in &mut claims {
        let answer = read_to_end(claim).await;
        assert!(String::from_utf8_lossy(&answer).contains("took longer than 5000 ms"));
    }
}

#[tokio::test]
async fn connections_of_nodes_do_not_delay_a_stop() {
    let node = start_with(|config| config.shutdown_grace_ms = 30_000).await;
    let mut streams = Vec::new();
    for bytes in [PREFACE.to_vec(), greeting(), [greeting(), vec![9, 0, 0, 0]].concat()] {
        streams.push(dial(node.addr(), &bytes).await);
    }
    assert_serves(&node).await;
    let started = Instant::now();
    soon(node.server.shutdown()).await;
    assert!(started.elapsed() < SHUTDOWN_MAX, "{:?}", started.elapsed());
}

async fn start_advertised(advertise: &str) -> (tempfile::TempDir, Result<Server, StartError>) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: dir.path().join("data"),
        listen: "127.0.0.1:0".into(),
        insecure: Insecure::Loopback,
        advertise: advertise.to_owned(),
        ..Config::default()
    };
    (dir, soon(Server::start(config)).await)
}

#[tokio::test]
async fn a_node_does_not_start_where_it_does_not_find_itself() {
    // It stays bound, so that nobody else gets it, and never listens.
    let place = TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = place.local_addr().unwrap().to_string();
    let (dir, started) = start_advertised(&nobody).await;
    let Err(error) = started else { panic!("it started") };
    assert!(matches!(&error, StartError::Unreachable { address, .. } if *address == nobody));
    assert!(error.to_string().contains("--advertise"), "{error}");
    // It let go of its data.
    let data_dir = dir.path().join("data");
    let (listen, insecure) = ("127.0.0.1:0".into(), Insecure::Loopback);
    let config = Config { data_dir, listen, insecure, ..Config::default() };
    soon(soon(Server::start(config)).await.unwrap().shutdown()).await;

    let other = start().await;
    let (_dir, started) = start_advertised(&other.addr().to_string()).await;
    let Err(error) = started else { panic!("it started") };
    assert!(matches!(&error, StartError::OtherNode { .. }), "{error}");
    assert!(error.to_string().contains("--advertise"), "{error}");
    assert_serves(&other).await;
}
