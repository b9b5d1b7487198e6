//! Whole clusters in one thread, from one seed: the real driver, log, metadata, placement and
//! gossip, in a world whose time, network and disks are simulated, and whose faults a seed draws.
//!
//! ```text
//!            faults ──► world ──► machine: SimNode, SimFs, SimClock ──► network ──► machine …
//!                         ▲              │ after each turn
//!          actor, workload┘              ▼
//!              └── every answer ──► oracle ──► facts, properties/ ──► a violation, or none
//! ```
//!
//! Promises: the same seed does the same, to the last frame; a violation is never a matter of how
//! fast the machine is. The known bugs in [`Bug`] are noticed (`tests/bugs.rs`).
//!
//! Left out: the server and the client, which have tests on real connections; reads that fail; and
//! what Raft cannot survive: more than one disk lost at a time, rot in what was not yet sealed.

#![forbid(unsafe_code)]

mod actor;
mod facts;
mod faults;
mod machine;
mod network;
mod oracle;
mod properties;
mod random;
mod run;
mod trace;
mod workload;
mod world;

pub use dislog_cluster::sim::Bug;
pub use oracle::Violation;
pub use run::{Options, Outcome, run};
