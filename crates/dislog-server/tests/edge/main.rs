//! A node over real sockets, as its clients see it.

#![allow(clippy::unwrap_used)]

mod access;
mod admin;
mod book;
mod consume;
mod health;
mod hostile;
mod http_client;
mod http_consume;
mod http_produce;
mod http_topics;
mod lifecycle;
mod node;
mod peer;
#[path = "../../../dislog/tests/ports/mod.rs"]
mod ports;
mod produce;
mod produce_stream;
#[path = "../registered/mod.rs"]
mod registered;
mod tls;
