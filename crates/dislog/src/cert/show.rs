//! `dislog cert show`.

use std::path::{Path, PathBuf};

use dislog_tls::Names;
use serde::Serialize;

use super::authority::first_certificate;
use crate::args::FormatArg;
use crate::failure::Failure;
use crate::output::{Format, Outcome, Output};

/// Arguments of `dislog cert show`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// Certificates, or directories with a `tls.crt` or `ca.crt` in them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    format: FormatArg,
}

/// What a certificate says.
#[derive(Serialize)]
struct Shown {
    file: String,
    subject: String,
    role: &'static str,
    /// The cluster, of the certificate of a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    names: Vec<String>,
    not_before: String,
    not_after: String,
    days_left: i64,
}

impl Shown {
    fn of(path: &Path) -> Result<Shown, Failure> {
        let path = file(path);
        let (_, names) = first_certificate(&path)?;
        let node = names.node_role();
        let addresses = names.addresses.iter().map(ToString::to_string);
        let all = names.uris.iter().chain(&names.hosts).cloned().chain(addresses);
        let now = jiff::Timestamp::now().as_second();
        Ok(Shown {
            file: path.display().to_string(),
            subject: names.subject().unwrap_or_default().to_owned(),
            role: role(&names),
            cluster: node.map(|node| node.cluster),
            names: all.collect(),
            not_before: moment(names.not_before_s),
            not_after: moment(names.not_after_s),
            days_left: (names.not_after_s - now).div_euclid(86_400),
        })
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.file.clone(),
            self.subject.clone(),
            self.role.to_owned(),
            self.names.join(" "),
            self.not_after.clone(),
            self.days_left.to_string(),
        ]
    }
}

fn role(names: &Names) -> &'static str {
    match names.node_role() {
        Some(_) => "node",
        None if names.is_authority => "authority",
        None if names.dials => "client",
        None => "none",
    }
}

fn moment(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
}

fn file(path: &Path) -> PathBuf {
    let inside = ["tls.crt", "ca.crt"].map(|name| path.join(name));
    inside.into_iter().find(|path| path.exists()).unwrap_or_else(|| path.to_owned())
}

pub(super) fn run(args: &ShowArgs, output: &mut Output) -> Outcome {
    let shown: Result<Vec<Shown>, _> = args.paths.iter().map(|path| Shown::of(path)).collect();
    let shown = shown?;
    match args.format.format {
        Format::Json => output.json(&shown),
        Format::Table => {
            let header = ["FILE", "SUBJECT", "ROLE", "NAMES", "VALID UNTIL", "DAYS LEFT"];
            output.table(&header, &["DAYS LEFT"], shown.iter().map(Shown::row).collect())
        }
    }
}
