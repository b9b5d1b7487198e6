//! The Rust client of Dislog, a durable commit log.
//!
//! A [`Client`] knows the servers. From it come a [`Producer`], which adds records, a [`Consumer`],
//! which gets them back and follows the end of the log, and the calls that manage topics.
//!
//! ```no_run
//! use dislog_client::{Client, ClientOptions, ConsumerOptions, ProducerOptions, Record};
//!
//! # async fn example() -> Result<(), dislog_client::Error> {
//! let client = Client::connect(["127.0.0.1:8400"], ClientOptions::default())?;
//!
//! let producer = client.producer("orders", ProducerOptions::default())?;
//! let delivery = producer.send(Record::new("hello")).await?; // waits for room in the buffer
//! let delivered = delivery.await?; // waits for stable storage
//! println!("partition {}, offset {}", delivered.partition, delivered.offset);
//! producer.close().await?;
//!
//! let mut consumer = client.consumer("orders", 0, ConsumerOptions::default())?;
//! while let Some(record) = consumer.next().await? {
//!     println!("{}: {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//! - What a [`Delivery`] confirms is on stable storage.
//! - A [`Producer`] neither loses nor doubles a record when a connection breaks or a server
//!   restarts, however long that takes within [`ProducerOptions::delivery_timeout`]; on a
//!   partition, records stand in the order of `send`, and the records acknowledged are a prefix of
//!   those sent. An error says what is known of the outcome: [`Error::outcome`].
//! - A [`Consumer`] yields every record from its start on exactly once, in order, verified against
//!   its batch's checksum. A range that is gone (trimmed or damaged) is an error that names it,
//!   never skipped.
//! - Memory is bounded by options in bytes, and waiting is never a loop that polls.
//!
//! # Servers
//! One address is enough. The others are learnt from it, and asked for again when something fails,
//! and now and then while there is something to do. A producer sends to the leader of each
//! partition and follows it; a consumer reads from followers in turn ([`ReadFrom`]); other calls go
//! to any server, which sends them on. What is retried is retried at another server, and nothing is
//! retried beyond its deadline. The addresses that were given are tried again when all others fail.
//!
//! # Security
//! With [`ClientOptions::tls`], servers have to show a certificate of the authority given there,
//! for the host name that is dialled, and get to see the client's own. Its files are read again for
//! each connection, so that they can be renewed while a program runs.
//!
//! # Left out
//! The stored form of the log, and everything a server decides. Producers and consumers are bound
//! to a topic; a consumer reads one partition.

mod access;
mod admin;
mod client;
mod cluster;
mod connection;
mod consumer;
mod directory;
mod error;
mod locate;
mod node;
mod pool;
mod producer;
mod reach;
mod retry;
mod router;

pub use access::{AccessInfo, AccessToken, TokenInfo};
pub use admin::{PartitionInfo, ServerInfo, Topic, TopicSettings};
pub use client::{Client, ClientOptions, Produced};
pub use cluster::{ClusterInfo, NodeInfo};
pub use consumer::{ConsumedBatch, ConsumedRecord, Consumer, ConsumerOptions, End, Start};
pub use directory::ReadFrom;
pub use dislog_tls::{ClientTls, Files, TlsError};
pub use dislog_types::{Compression, Header, PartitionId, Record, TopicName};
pub use error::{Error, Outcome};
pub use node::{NodeClient, RawBatch, RawPage, Replica, Replicas};
pub use producer::{Delivered, Delivery, Producer, ProducerOptions};
pub use router::partition_of_key;
