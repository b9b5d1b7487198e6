//! `dislog cert renew`.

use std::path::PathBuf;

use super::authority::{first_certificate, read_key};
use super::{Authority, DAYS, DIR, Wanted};
use crate::output::{Outcome, Output};

/// Arguments of `dislog cert renew`.
#[derive(Debug, clap::Args)]
pub(super) struct RenewArgs {
    /// Where `tls.crt` and `tls.key` are
    #[arg(value_name = "DIR")]
    renewed: PathBuf,
    /// Where the authority is; if it is another than before, it is added to `ca.crt`
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
    /// For how long they are valid
    #[arg(long, value_name = "NUMBER", default_value_t = DAYS,
        value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Keep the private key
    #[arg(long)]
    keep_key: bool,
}

pub(super) fn run(args: &RenewArgs, output: &mut Output) -> Outcome {
    let (_, names) = first_certificate(&args.renewed.join("tls.crt"))?;
    let wanted = Wanted::like(&names)?;
    let key = args.keep_key.then(|| read_key(&args.renewed.join("tls.key"))).transpose()?;
    let authority = Authority::open(&args.dir)?;
    authority.issue(&wanted, args.days, key)?.replace(&args.renewed)?;
    let dir = args.renewed.display();
    output.line(&format!("{} is in {dir}; nodes that run take it by themselves", wanted.describe()))
}
