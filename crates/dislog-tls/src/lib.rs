//! TLS between clients and nodes, and between nodes: certificate files, who a certificate names,
//! and connections.
//!
//! ```text
//!   tls.crt tls.key ca.crt ──▶ files ──▶ material ─┬▶ node (both sides, and who this node is)
//!                                 ▲ watch          └▶ client (one side, read again when it dials)
//!   a certificate ──▶ names: a subject, and perhaps the role of a node of one cluster
//! ```
//!
//! Promises: TLS 1.3 and nothing older; whoever has a certificate has it from the authority in
//! `ca.crt`, and it is valid now; files that cannot be used never replace ones that can; errors
//! name the file and what to do. New files are used for new connections; those that there are can
//! be checked again by them ([`NodeTls::check`]).
//!
//! Left out: making certificates (the `dislog` program does), and what a subject may do.

mod changes;
mod client;
mod error;
mod files;
mod material;
mod names;
mod node;
mod shown;
mod stream;
mod watch;

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

pub use changes::{Changes, Watching};
pub use client::ClientTls;
pub use error::{HandshakeError, TlsError, refusal_in};
pub use files::Files;
pub use names::{Names, NodeRole};
pub use node::{Carried, NodeTls};
pub use shown::Shown;
pub use stream::Stream;
pub use watch::Watched;

/// What a connection for HTTP/2 offers.
pub const ALPN_HTTP2: &[u8] = b"h2";

/// What a connection for HTTP/1.1 offers.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// What a connection between nodes offers.
pub const ALPN_PEER: &[u8] = b"dislog-peer";

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}
