//! The network between nodes, on the one port.
//!
//! ```text
//!   Network::send ──▶ link: a queue per address, bounded in bytes ──▶ task: dial, Hello, write
//!                                                                         │ one TCP connection
//!   Cluster::receive ◀── acceptor: read, check ◀── listener (preface) ◀───┘ per direction
//! ```
//!
//! A node dials those it sends to, and reads from those that dialled it: a connection carries
//! frames one way, and in the other at most the reason for its end. All numbers are little-endian.
//!
//! ```text
//!   the dialer                                     the acceptor
//!   preface    "\0DISLOG PEER\r\n\r\n"  16 bytes
//!   frame      Hello                          ──▶
//!                                             ◀──  frame      Hello, or Refusal and the end
//!   frame      PeerFrame                      ──▶
//!   ...                                       ◀──  frame      Refusal and the end, if need be
//!
//!   a frame    0   length of the payload   u32     bounded before anything is allocated
//!              4   CRC-32C of the payload  u32
//!              8   payload
//!
//!   Hello      0   1                       u32
//!              4   version                 u32     1
//!              8   node_id                 u64     who speaks; 0 for one who only asks
//!             16   expected_node_id        u64     who should be there; 0 if that is not known
//!             24   what later versions add, ignored
//!
//!   Refusal    0   2                       u32
//!              4   why, UTF-8, for people
//! ```
//!
//! The preface begins with a zero byte: no HTTP request does, nor does TLS. It never changes, so
//! that nodes of different versions can tell each other so.
//!
//! Promises: sending never blocks and never fails; frames to one address stay in order while a
//! connection lasts; a frame that is sent while nothing waits leaves at once; what arrives is
//! intact and from the node it says; hostile bytes end their connection and nothing else.
//!
//! Left out: encryption and who the other side *really* is, which `security` knows: frames are
//! taken from nodes of this cluster only. All else here works on any stream that reads and writes.

mod acceptor;
mod dial;
mod hello;
mod link;
mod network;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use acceptor::Acceptor;
pub use dial::DialError;
pub(crate) use dial::{dial_check, set_options};
pub(crate) use hello::{PREFACE, refusal};
pub(crate) use network::PeerNetwork;
