//! The gates, in order: the quick ones first, and those that share built artifacts next to each
//! other.
//!
//! All of them use the one target directory with the same flags: lints come from the manifest and
//! `-D warnings` goes to the tool that reads it last, so that no gate makes another one build
//! again.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::{deny, finding, tidy};

type Gate = (&'static str, fn(&Path) -> Result<(), String>);

/// Seeds that every change must survive.
const SIMULATED_SEEDS: &str = "500";

const GATES: [Gate; 8] = [
    ("tidy", |root| tidy::check(root).and_then(|found| finding::report(&found))),
    ("deny", |root| deny::check(root).and_then(|found| finding::report(&found))),
    ("fmt", |root| cargo(root, &["fmt", "--all", "--check"], &[])),
    ("proto", |root| cargo(root, &["xtask-proto", "--check"], &[])),
    ("clippy", |root| {
        cargo(
            root,
            &["clippy", "--workspace", "--all-targets", "--locked", "--", "-Dwarnings"],
            &[],
        )
    }),
    ("doc", |root| {
        let flags = [("RUSTDOCFLAGS", "-Dwarnings")];
        cargo(root, &["doc", "--workspace", "--no-deps", "--locked"], &flags)
    }),
    ("book", book),
    ("sim", sim),
];

/// Runs every gate, also after one that failed, and sums up.
pub(crate) fn all(root: &Path) -> Result<(), String> {
    let mut failed = Vec::new();
    for (name, gate) in GATES {
        eprintln!("── {name}");
        let start = Instant::now();
        let outcome = gate(root);
        let seconds = start.elapsed().as_secs();
        match outcome {
            Ok(()) => eprintln!("── {name}: passed, {seconds} s"),
            Err(message) => {
                eprintln!("── {name}: FAILED, {seconds} s: {message}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// Runs the client of the book's protocol, in Python, against the binary of the debug build.
pub(crate) fn book(root: &Path) -> Result<(), String> {
    // The tests have built it; asking in any other way would build its dependencies once more.
    cargo(root, &["test", "--workspace", "--locked", "--no-run"], &[])?;
    run(root, Command::new("tests/book/run").arg("target/debug/dislog"))
}

/// Simulates clusters, with the profile for that, and looks for known bugs in them.
pub(crate) fn sim(root: &Path) -> Result<(), String> {
    let test = ["test", "--profile", "sim", "--locked", "-p", "dislog-sim", "--"];
    let arguments = [&test[..], &["--include-ignored"]].concat();
    cargo(root, &arguments, &[("DISLOG_SEEDS", SIMULATED_SEEDS)])
}

fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(root, Command::new(cargo).args(arguments).envs(environment.iter().copied()))
}

fn run(root: &Path, command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    // What cargo says of xtask must not reach build scripts: that of ring would run again.
    for (name, _) in std::env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if of_package.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let status = command
        .current_dir(root)
        .stdin(std::process::Stdio::null())
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}
