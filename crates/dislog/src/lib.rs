//! The `dislog` program: a node, and everything to work with one, in one binary.
//!
//! One file or folder per command; `args` lists them. `output` is the only way to standard
//! output and standard error, `failure` the only way to fail: both are contracts with scripts,
//! described in `docs/cli.md`.
//!
//! The program is a library with a `main.rs` of a few lines because Cargo begins with a library
//! before those it needs are compiled to the end, and with a program only then.
//!
//! Left out: everything a server or client does by itself (`dislog-server`, `dislog-client`).

#![forbid(unsafe_code)]

mod acl;
mod args;
mod bench;
mod cert;
mod cluster;
mod completion;
mod consume;
mod dev;
mod escape;
mod failure;
mod output;
mod produce;
mod profile;
mod quantity;
mod server;
mod servers;
mod signals;
mod telemetry;
mod token;
mod topic;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::failure::{Exit, Failure};
use crate::output::{Outcome, Output, Stop, note};

/// Does what the command line says; the exit codes are those of `docs/cli.md`.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let mut output = Output::stdout();
    match run(args.command, &mut output).and_then(|()| output.flush()) {
        Ok(()) | Err(Stop::Closed) => ExitCode::SUCCESS,
        Err(Stop::Failed(failure)) => {
            // What was found before the failure is worth having; a second failure adds nothing.
            let _ = output.flush();
            note(&failure);
            failure.exit.into()
        }
    }
}

fn run(command: Command, output: &mut Output) -> Outcome {
    match command {
        Command::Completion(args) => completion::run(&args, output),
        Command::Verify(args) => verify::run(&args, output),
        Command::Cert(args) => cert::run(&args, output),
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(Exit::Failed, format!("cannot start: {error}")))?;
            let outcome = runtime.block_on(run_async(command, output));
            // A thread that waits for standard input would otherwise be waited for.
            runtime.shutdown_background();
            outcome
        }
    }
}

async fn run_async(command: Command, output: &mut Output) -> Outcome {
    match command {
        Command::Dev(args) => dev::run(args, output).await,
        Command::Server(args) => server::run(args, output).await,
        Command::Topic(args) => topic::run(args, output).await,
        Command::Produce(args) => produce::run(args, output).await,
        Command::Consume(args) => consume::run(args, output).await,
        Command::Cluster(args) => cluster::run(args, output).await,
        Command::Acl(args) => acl::run(args, output).await,
        Command::Token(args) => token::run(args, output).await,
        Command::Bench(args) => bench::run(args, output).await,
        Command::Completion(_) | Command::Verify(_) | Command::Cert(_) => {
            unreachable!("handled without a runtime")
        }
    }
}
