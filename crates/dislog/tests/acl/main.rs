//! Rules, tokens and audit on secured clusters of real processes.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "support of tests may fail them")]

mod audit;
mod cluster;
mod denied;
mod jwt;
#[path = "../node/mod.rs"]
mod node;
#[path = "../../../dislog-server/tests/registered/mod.rs"]
mod registered;
mod rules;
mod streams;
