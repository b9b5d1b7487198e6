//! `dislog dev`: a local node to try things, that the other commands find by themselves.
//!
//! Its data stays from one run to the next, and does not depend on where it is started: a log that
//! starts empty because one stands in another directory looks like a log that lost its records.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use dislog_server::{Config, Server};

use crate::failure::Failure;
use crate::output::{Outcome, Output};
use crate::profile::{DevProfile, user_dir};
use crate::server::{start_failure, until_told};
use crate::signals::Signals;
use crate::telemetry::{self, LogFormat};

/// Arguments of `dislog dev`.
#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// Where records are kept [default: ~/.local/share/dislog/dev]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = dislog_proto::DEFAULT_PORT)]
    port: u16,
    /// What is logged to standard error: a level, or `tracing` directives
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log_filter: String,
}

/// Runs a local node.
pub(crate) async fn run(args: DevArgs, output: &mut Output) -> Outcome {
    let data_dir = match args.data_dir {
        Some(data_dir) => data_dir,
        None => default_data_dir()?,
    };
    telemetry::start(&args.log_filter, LogFormat::for_stderr())?;
    let signals = Signals::listen()?;
    let config = Config {
        data_dir: data_dir.clone(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)).to_string(),
        ..Config::default()
    };
    let server = Server::start(config).await.map_err(|error| start_failure(error, "--port"))?;
    let address = server.addr().to_string();
    let profile = DevProfile::write(&address)?;
    output
        .bytes(welcome(&address, &data_dir.display().to_string(), profile.is_some()).as_bytes())?;
    output.flush()?;
    until_told(server, signals).await?;
    output.line("stopped; the records stay, and are there again after the next `dislog dev`")
}

fn default_data_dir() -> Result<PathBuf, Failure> {
    let data = user_dir("XDG_DATA_HOME", ".local/share").ok_or_else(|| {
        Failure::usage("there is no place for data: neither XDG_DATA_HOME nor HOME is set")
            .hint("name one with --data-dir")
    })?;
    Ok(data.join("dislog").join("dev"))
}

/// What to type next. Without a profile, commands have to be told the address.
fn welcome(address: &str, data_dir: &str, has_profile: bool) -> String {
    let servers = if has_profile { String::new() } else { format!(" --servers {address}") };
    format!(
        "dislog {version} listens on {address} and keeps its records in {data_dir}

Try, in another terminal:
  echo hi | dislog add demo{servers}
  dislog get demo{servers}
  curl -d 'hi from curl' http://{address}/v1/topics/demo/records
  curl 'http://{address}/v1/topics/demo/records?offset=0&limit=10'

Ctrl-C ends it.
",
        version = env!("CARGO_PKG_VERSION"),
    )
}
