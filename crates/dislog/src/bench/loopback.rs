//! The limits of the network within this machine: raw TCP, without HTTP or gRPC.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::latency::Latency;

/// What an answer of a server has at least: HTTP/2 frames and a few fields.
const ANSWER_BYTES: usize = 64;

/// What is written at a time when throughput is measured.
const CHUNK_BYTES: usize = 256 << 10;

/// Measures round trips of `request_bytes` there and a short answer back. Blocks.
pub(crate) fn round_trips(request_bytes: usize, duration: Duration) -> io::Result<Latency> {
    let (mut near, mut far) = connection()?;
    let server = std::thread::spawn(move || -> io::Result<()> {
        let mut request = vec![0; request_bytes];
        while far.read_exact(&mut request).is_ok() {
            far.write_all(&[1; ANSWER_BYTES])?;
        }
        Ok(())
    });
    let mut latency = Latency::new();
    let request = vec![1; request_bytes];
    let mut answer = [0; ANSWER_BYTES];
    let end = Instant::now() + duration;
    loop {
        let started = Instant::now();
        if started >= end {
            break;
        }
        near.write_all(&request)?;
        near.read_exact(&mut answer)?;
        latency.record(started.elapsed());
    }
    drop(near);
    joined(server)?;
    Ok(latency)
}

/// Measures bytes per second in one direction. Blocks.
pub(crate) fn throughput(duration: Duration) -> io::Result<f64> {
    let (mut near, mut far) = connection()?;
    let server = std::thread::spawn(move || -> io::Result<()> {
        let chunk = vec![1; CHUNK_BYTES];
        // The reader ends the measurement by going away.
        while far.write_all(&chunk).is_ok() {}
        Ok(())
    });
    let mut chunk = vec![0; CHUNK_BYTES];
    let (started, mut bytes) = (Instant::now(), 0u64);
    while started.elapsed() < duration {
        bytes += near.read(&mut chunk)? as u64;
    }
    let rate = bytes as f64 / started.elapsed().as_secs_f64();
    drop(near);
    joined(server)?;
    Ok(rate)
}

fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

fn joined(thread: std::thread::JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the other end failed")))
}
