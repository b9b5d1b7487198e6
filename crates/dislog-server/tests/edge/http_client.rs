//! HTTP/1.1 by hand: what goes over the socket is what the test says.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{Node, soon};

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Checks that this is a problem document and gives its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, reason: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["reason"], reason, "{problem}");
        assert!(problem["retry"].is_boolean() && problem["title"].is_string());
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// Sends a request and reads the answer to its end.
pub(crate) async fn send(node: &Node, line: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut head: Vec<&str> = headers.to_vec();
    let length = format!("content-length: {}", body.len());
    if !body.is_empty() {
        head.push(&length);
    }
    let mut stream = open(node.addr(), line, &head).await;
    // The server may answer and close before it has read everything.
    let _refused = stream.write_all(body).await;
    soon(read_answer(&mut stream)).await
}

pub(crate) async fn get(node: &Node, path: &str) -> Answer {
    send(node, &format!("GET {path}"), &[], b"").await
}

pub(crate) async fn post(node: &Node, path: &str, content_type: &str, body: &str) -> Answer {
    let content_type = format!("content-type: {content_type}");
    send(node, &format!("POST {path}"), &[&content_type], body.as_bytes()).await
}

/// Opens a connection and sends the head of a request.
pub(crate) async fn open(addr: SocketAddr, line: &str, headers: &[&str]) -> TcpStream {
    let mut stream = soon(TcpStream::connect(addr)).await.unwrap();
    let mut head = format!("{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads until `expected` is among what was read; gives all of that.
pub(crate) async fn read_until(stream: &mut TcpStream, expected: &str) -> String {
    let mut read = Vec::new();
    soon(async {
        while !String::from_utf8_lossy(&read).contains(expected) {
            let count = stream.read_buf(&mut read).await.unwrap();
            assert_ne!(count, 0, "ended before {expected:?}: {}", String::from_utf8_lossy(&read));
        }
    })
    .await;
    String::from_utf8(read).unwrap()
}

/// Reads to the end of the connection, also if that is a reset.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    soon(async { while matches!(stream.read_buf(&mut read).await, Ok(count) if count > 0) {} })
        .await;
    read
}

pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    parse(&read_to_end(stream).await)
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: HashMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut body = bytes[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = unchunked(&body);
    }
    Answer { status, headers, body }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        body.extend_from_slice(&bytes[end + 2..][..size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
    body
}
