//! Chores of this repository, run as `cargo xtask <chore>`.
//!
//! - `tidy` checks the house rules that no compiler knows: sizes, layers, names, leftovers.
//! - `deny` checks what may be depended on, by the rules in `deny.toml`.
//! - `proto` makes the code of `dislog-proto` anew, or compares it with `--check`; it needs
//!   `--features proto`, which the alias `cargo xtask-proto` sets.
//! - `book` runs the client of the book's protocol against the real binary.
//! - `sim` simulates clusters from as many seeds as every change must survive.
//! - `ci` runs every gate, in order.
//!
//! Left out: building and testing, which are cargo's own.

// A chore talks to the person who started it.
#![allow(clippy::print_stderr)]

mod ci;
mod deny;
mod finding;
#[cfg(feature = "proto")]
mod proto;
mod source;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str =
    "usage: cargo xtask <tidy | deny | book | sim | ci>, or cargo xtask-proto [--check]";

fn main() -> ExitCode {
    // The manifest directory is `xtask`, so its parent is the repository.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in a repository");
    let chore = std::env::args().nth(1).unwrap_or_default();
    let outcome = match chore.as_str() {
        "tidy" => tidy::check(root).and_then(|found| finding::report(&found)),
        "deny" => deny::check(root).and_then(|found| finding::report(&found)),
        "book" => ci::book(root),
        #[cfg(feature = "proto")]
        "proto" => proto::run(root, std::env::args().nth(2).as_deref() == Some("--check")),
        "sim" => ci::sim(root),
        "ci" => ci::all(root),
        _ => Err(format!("{USAGE}\nno chore is called {chore:?}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
