//! `dislog cert server`.

use super::{LeafArgs, Wanted};
use crate::output::{Outcome, Output};

/// Arguments of `dislog cert server`.
#[derive(Debug, clap::Args)]
pub(super) struct ServerCertArgs {
    /// What the node is called
    name: String,
    /// Names and addresses by which clients and other nodes dial it; localhost is always among them
    #[arg(long, value_name = "HOST,…", value_delimiter = ',')]
    host: Vec<String>,
    #[command(flatten)]
    leaf: LeafArgs,
}

pub(super) fn run(args: &ServerCertArgs, output: &mut Output) -> Outcome {
    args.leaf.issue(&Wanted::node(&args.name, &args.host)?, output)
}
