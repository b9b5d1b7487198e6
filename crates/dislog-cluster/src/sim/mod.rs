//! A node for the simulator: the same driver, reconciler and gossip as everywhere, without their
//! threads. Only with the feature `sim`, which nothing but `dislog-sim` turns on.
//!
//! Whoever owns a [`SimNode`] gives it turns, does its jobs (what sync threads do to disks) when it
//! pleases or never, and looks inside after each.
//!
//! Left out: everything about time, disks and networks, which come in through the seams that all
//! nodes have.

mod bugs;
mod node;
mod replica;

pub(crate) use self::bugs::is_back;
pub use self::bugs::{Bug, put_back};
pub use self::node::SimNode;
pub use self::replica::Replica;
