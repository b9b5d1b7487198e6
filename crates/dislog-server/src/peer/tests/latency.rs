//! What a round trip costs beside one over bare sockets. Run it by hand, in release:
//! `cargo test --release -p dislog-server latency -- --ignored --nocapture`.

use std::io::{Read, Write};

use super::*;

const ROUND_TRIPS: usize = 20_000;
const TEXT_BYTES: usize = 100;

fn show(name: &str, mut taken: Vec<Duration>) {
    taken.sort_unstable();
    let at = |share: usize| taken[taken.len() * share / 1_000].as_nanos() / 100;
    let [p50, p99, p999] = [500, 990, 999].map(at).map(|tenths| tenths as f64 / 10.0);
    println!("{name:<28} p50 {p50:>7.1} us   p99 {p99:>7.1} us   p99.9 {p999:>7.1} us");
}

fn times(mut once: impl FnMut()) -> Vec<Duration> {
    let mut taken = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let started = std::time::Instant::now();
        once();
        taken.push(started.elapsed());
    }
    taken.split_off(ROUND_TRIPS / 10)
}

fn bare_threads() -> Vec<Duration> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; TEXT_BYTES];
        while far.read_exact(&mut bytes).is_ok() && far.write_all(&bytes).is_ok() {}
    });
    let mut bytes = [7; TEXT_BYTES];
    times(|| {
        near.write_all(&bytes).unwrap();
        near.read_exact(&mut bytes).unwrap();
    })
}

async fn bare_tasks() -> Vec<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; TEXT_BYTES];
        while far.read_exact(&mut bytes).await.is_ok() && far.write_all(&bytes).await.is_ok() {}
    });
    let mut bytes = [7; TEXT_BYTES];
    let mut taken = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let started = std::time::Instant::now();
        near.write_all(&bytes).await.unwrap();
        near.read_exact(&mut bytes).await.unwrap();
        taken.push(started.elapsed());
    }
    taken.split_off(ROUND_TRIPS / 10)
}

/// From a plain thread to the other network and back, as the driver of the Raft groups sends.
fn networks(runtime: &tokio::runtime::Runtime) -> Vec<Duration> {
    let (mut a, mut b) = runtime.block_on(async {
        (Node::start(1, "127.0.0.1:0").await, Node::start(2, "127.0.0.1:0").await)
    });
    let (to_a, to_b) = (a.peer(), b.peer());
    let echo = std::thread::spawn(move || {
        while let Some(frame) = b.received.blocking_recv() {
            b.send(&to_a, letter(&frame).text);
        }
    });
    let taken = times(|| {
        a.send(&to_b, vec![7; TEXT_BYTES]);
        a.received.blocking_recv().unwrap();
    });
    a.accepting.abort();
    drop(echo);
    taken
}

#[test]
#[ignore = "a measurement"]
fn latency() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for _ in 0..3 {
        show("bare sockets, two threads", bare_threads());
        show("bare sockets, two tasks", runtime.block_on(bare_tasks()));
        show("networks, from two threads", networks(&runtime));
    }
    runtime.shutdown_background();
}
