//! `dislog cert ca`.

use std::path::PathBuf;

use super::{Authority, DIR};
use crate::output::{Outcome, Output};

/// An authority outlives what it signs; replacing it takes a step on every node.
const DAYS: u32 = 3_650;

/// Arguments of `dislog cert ca`.
#[derive(Debug, clap::Args)]
pub(super) struct CaArgs {
    /// Where to put it
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
    /// What the cluster is called: nodes take frames only from nodes of theirs
    #[arg(long, value_name = "NAME", default_value = "dislog")]
    cluster: String,
    /// For how long it is valid
    #[arg(long, value_name = "NUMBER", default_value_t = DAYS,
        value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Replace what is there: certificates of the old authority are worth nothing then
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &CaArgs, output: &mut Output) -> Outcome {
    Authority::create(&args.dir, &args.cluster, args.days, args.force)?;
    let dir = args.dir.display();
    output.line(&format!("the authority of the cluster {:?} is in {dir}", args.cluster))?;
    output.line(&format!("keep {dir}/ca.key away from servers: whoever has it can be anybody"))
}
