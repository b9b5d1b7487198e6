//! A Dislog node: one listener for clients and other nodes, its configuration and its life.
//!
//! ```text
//!   listener ──▶ grpc/ (log.v1, health, reflection) ──▶ append ──▶ dislog_cluster::Partition
//!      │    └──▶ http/ (REST, the book's forms, probes) ▶ read ──▶ replica ──▶
//!      │    └──▶ peer/ (frames of other nodes) ────────▶ dislog_cluster::Cluster
//!      │◀────────── outflow (pages, piece by piece) ◀────────┘
//!    budget        every error leaves through `status`, the one table of codes and retry advice
//! ```
//!
//! Promises: whatever bytes arrive on the port, the answer is a clear error, memory stays bounded
//! and nothing panics; what was appended stays appended when its client goes away;
//! [`Server::shutdown`] ends within the configured grace even with streams open.
//!
//! ```no_run
//! # async fn run() -> Result<(), dislog_server::StartError> {
//! use dislog_server::{Config, Server};
//!
//! let tls_dir = Some("certs/anton".into());
//! let config = Config { data_dir: "data".into(), tls_dir, ..Config::default() };
//! let server = Server::start(config).await?;
//! assert_eq!(server.addr().port(), 8400);
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Left out: how records are ordered, stored and replicated (`dislog-cluster`), and what TLS needs
//! (`dislog-tls`).

mod access;
mod answering;
mod append;
mod budget;
mod complaint;
mod config;
mod expiry;
mod forward;
mod grpc;
mod guests;
mod http;
mod identity;
mod listener;
mod moment;
mod node;
mod outflow;
mod page;
mod pass;
mod peer;
mod places;
mod plaintext;
mod preface;
mod read;
mod replica;
mod security;
mod server;
mod shelf;
mod status;
mod streams;
mod tokens;
mod topics;
mod transit;

pub use access::AccessError;
pub use config::{Config, ConfigError, Insecure, Origin, Origins};
pub use peer::DialError;
pub use security::SecurityError;
pub use server::{Server, StartError};
