//! The protocol of Dislog: the code generated from `proto/`, and what client and server must agree
//! on beside it.
//!
//! Left out: what the fields mean to a server or a client. This crate only translates.

/// Messages, clients and servers of `log.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!("generated/log.v1.rs");
}

pub mod reason;
mod record;

pub use record::{from_record, to_record};

/// The encoded `FileDescriptorSet` of `log.v1`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/log.v1.bin");

/// The topic of a request that names none.
pub const DEFAULT_TOPIC: &str = "default";

/// The default port of a server.
pub const DEFAULT_PORT: u16 = 8400;
