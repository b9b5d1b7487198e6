//! `dislog cert client`.

use super::{LeafArgs, Wanted};
use crate::output::{Outcome, Output};

/// Arguments of `dislog cert client`.
#[derive(Debug, clap::Args)]
pub(super) struct ClientCertArgs {
    /// Who it is: the subject by which servers know the client
    name: String,
    #[command(flatten)]
    leaf: LeafArgs,
}

pub(super) fn run(args: &ClientCertArgs, output: &mut Output) -> Outcome {
    args.leaf.issue(&Wanted::client(&args.name)?, output)
}
