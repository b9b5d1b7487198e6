//! The client against a real server in the same process, over a wire that the tests can cut.

#![allow(clippy::unwrap_used)]

mod admin;
mod consume;
mod damage;
mod node;
#[path = "../../../dislog/tests/ports/mod.rs"]
mod ports;
mod produce;
mod servers;
mod silence;
mod unreachable;
mod wire;
