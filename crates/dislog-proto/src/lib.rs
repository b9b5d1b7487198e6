//! The protocol of Dislog: the code generated from `proto/`, and what client and server must agree
//! on beside it.
//!
//! Left out: what the fields mean to a server or a client. This crate only translates.

/// Messages, clients and servers of `log.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!("generated/log.v1.rs");
}

impl std::fmt::Debug for v1::CreateTokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("CreateTokenResponse");
        shown.field("token", &self.token).finish_non_exhaustive()
    }
}

pub mod reason;
mod record;
mod unserved;

pub use record::{from_record, to_record};
pub use unserved::is_unserved;

/// The encoded `FileDescriptorSet` of `log.v1`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/log.v1.bin");

/// The topic of a request that names none.
pub const DEFAULT_TOPIC: &str = "default";

/// What rights about the cluster as a whole are rights to. No topic can be called so.
pub const CLUSTER_OBJECT: &str = "@cluster";

/// How every token of ours begins, so that those that got where they should not be are found.
pub const TOKEN_PREFIX: &str = "dislog_";

/// The default port of a server.
pub const DEFAULT_PORT: u16 = 8400;
