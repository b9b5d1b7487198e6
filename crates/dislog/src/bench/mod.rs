//! `dislog bench`: measures a server and this machine, and says what share of the machine the server reaches.

use crate::output::{Outcome, Output};

/// Arguments of `dislog bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

/// What is measured.
#[derive(Debug, clap::Subcommand)]
enum BenchCommand {
    /// Print this machine's limits: syncs, sequential writes, loopback round trips.
    Disk,
}

/// Runs a measurement and prints its result.
pub(crate) async fn run(args: BenchArgs, output: &mut Output) -> Outcome {
    let BenchCommand::Disk = args.command;
    output.flush()
}
