//! Consensus: the adapter between Raft and the stored log.
//!
//! A partition's log *is* its Raft log. A batch is proposed once, framed once, written and synced
//! once on each replica; that it is *applied* moves no data, it only says that the batch is
//! committed. The consensus itself is the `raft` crate, a pure core that decides; everything it
//! decides is carried out here:
//!
//! ```text
//!  input ─► driver ─► group: sequencer ─► Raft ─► Ready ─┬─► entries, staged in the log ┐
//!              ▲                                            ├─► a vote ───────────────────┤
//!              │                                            ├─► messages to peers         ▼
//!              │                                            └─► committed:          sync threads
//!              │                                                state machine             │
//!              └──────────────────────────── what is durable ─────────────────────────────┘
//! ```
//!
//! Promises: nothing is acknowledged before it is committed and durable here; a vote is durable
//! before anything depends on it; a failed write or sync stops its group for good; the driver never
//! blocks on a disk.
//!
//! Left out: which replicas a group should have (`crate::metadata`), and what carries messages from
//! node to node (`crate::peers`).

pub(crate) mod driver;
mod entry;
mod fetch;
pub(crate) mod group;
mod hibernation;
pub(crate) mod input;
mod install;
mod losses;
mod members_file;
pub(crate) mod membership;
mod new_start_file;
pub(crate) mod open;
mod persist;
pub(crate) mod pulse;
mod rest;
mod rim;
mod storage;
pub(crate) mod sync_threads;
mod telling;
pub(crate) mod transport;
mod vote_file;
mod waiters;

#[cfg(test)]
mod hibernation_tests;
#[cfg(test)]
mod leader_tests;
#[cfg(feature = "sim")]
mod sim;
#[cfg(test)]
mod test_world;
#[cfg(test)]
mod three_replicas_tests;
