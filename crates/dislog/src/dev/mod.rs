//! `dislog dev`: a local node or cluster to try things, that the other commands find by themselves.
//!
//! Its data stays from one run to the next, and does not depend on where it is started: a log that
//! starts empty because one stands in another directory looks like a log that lost its records.
//!
//! One node runs in this process. Several run in one each ([`nodes`]), so that they can fail one by
//! one: that is what there is to try. The first keeps its data where a single one does, so that a
//! node becomes a cluster by starting more.

mod nodes;
mod secure;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dislog_server::{Config, Insecure, Server};

use crate::failure::{Exit, Failure};
use crate::output::{Outcome, Output};
use crate::profile::{DevProfile, user_dir};
use crate::quantity::parse_duration;
use crate::server::{end, start_failure};
use crate::signals::Signals;
use crate::telemetry::{self, LogFormat};

use self::nodes::{Nodes, Spec};
use self::secure::Certificates;

/// The most nodes on one machine: more show nothing that these do not.
const NODES_MAX: u32 = 9;

/// What several nodes log unless told otherwise: that one cannot reach another is no news while
/// they start and end together.
const NODES_LOG_FILTER: &str = "warn,dislog_server::peer=error";

/// Arguments of `dislog dev`.
#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// How many nodes, on ports that follow each other
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: u32,
    /// Encrypt everything: makes an authority, certificates for the nodes and one for the commands
    #[arg(long)]
    secure: bool,
    /// Kill a random node about this often, as a power cut would, and start it again
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
        default_missing_value = "10s", value_parser = parse_duration)]
    chaos: Option<Duration>,
    /// Where records are kept [default: ~/.local/share/dislog/dev]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = dislog_proto::DEFAULT_PORT)]
    port: u16,
    /// What is logged to standard error: a level, or `tracing` directives [default: warn]
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
}

/// Runs a local node, or several.
pub(crate) async fn run(args: DevArgs, output: &mut Output) -> Outcome {
    let data_dir = match &args.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => default_data_dir()?,
    };
    check_size(&data_dir, args.nodes)?;
    let log_filter = args.log_filter.as_deref().unwrap_or("warn");
    telemetry::start(log_filter, LogFormat::for_stderr())?;
    let signals = Signals::listen_on_terminal()?;
    let certificates = match args.secure {
        true => Some(Certificates::make(&data_dir, args.nodes)?),
        false => None,
    };
    let certificates = certificates.as_ref();
    match (args.nodes, args.chaos) {
        (1, None) => run_one(&args, &data_dir, certificates, signals, output).await?,
        _ => run_several(&args, &data_dir, certificates, signals, output).await?,
    }
    output.line("stopped; the records stay, and are there again after the next `dislog dev`")
}

async fn run_one(
    args: &DevArgs,
    data_dir: &Path,
    certificates: Option<&Certificates>,
    mut signals: Signals,
    output: &mut Output,
) -> Outcome {
    let config = Config {
        data_dir: data_dir.to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)).to_string(),
        tls_dir: certificates.map(|certificates| certificates.of_node(1)),
        auth_dir: certificates.map(Certificates::auth_dir),
        insecure: if args.secure { Insecure::No } else { Insecure::Loopback },
        ..Config::default()
    };
    let server = Server::start(config).await.map_err(|error| start_failure(error, "--port"))?;
    let _profile = greet(&[server.addr().to_string()], data_dir, certificates, output)?;
    signals.next().await;
    Ok(end(server, signals).await?)
}

async fn run_several(
    args: &DevArgs,
    data_dir: &Path,
    certificates: Option<&Certificates>,
    mut signals: Signals,
    output: &mut Output,
) -> Outcome {
    let addresses = addresses(args.port, args.nodes)?;
    let spec = |(number, address): (u32, &String)| {
        // The first founds the cluster. Later it finds the others by what it knows of them.
        let others = addresses.iter().filter(|other| *other != address).cloned();
        Spec {
            name: format!("node-{number}"),
            data_dir: node_dir(data_dir, number),
            address: address.clone(),
            join: if number == 1 { Vec::new() } else { others.collect() },
            tls_dir: certificates.map(|certificates| certificates.of_node(number)),
            auth_dir: certificates.map(Certificates::auth_dir),
            log_filter: args.log_filter.as_deref().unwrap_or(NODES_LOG_FILTER).to_owned(),
        }
    };
    let tls = certificates.map(Certificates::client_tls).transpose()?;
    let mut nodes = Nodes::start((1..).zip(&addresses).map(spec), tls)?;
    let started = tokio::select! {
        started = nodes.until_complete() => started,
        exit = signals.next() => Err(Failure::new(exit, "ended by a signal while starting")),
    };
    let result = match started {
        Err(failure) => Err(failure.into()),
        Ok(()) => match greet(&addresses, data_dir, certificates, output) {
            Err(stop) => Err(stop),
            Ok(_profile) => {
                tokio::select! {
                    never = nodes.watch(args.chaos) => match never {},
                    _ = signals.next() => Ok(()),
                }
            }
        },
    };
    tokio::select! {
        () = nodes.stop() => result,
        exit = signals.next() => Err(Failure::new(exit, "ended at once by a second signal").into()),
    }
}

/// Refuses to start a part of a cluster: it might have no majority, and would wait for the others
/// in silence.
fn check_size(data_dir: &Path, nodes: u32) -> Result<(), Failure> {
    let Some(there) = (2..=NODES_MAX).rfind(|number| node_dir(data_dir, *number).exists()) else {
        return Ok(());
    };
    if there <= nodes {
        return Ok(());
    }
    let (dir, last) = (data_dir.display(), node_dir(data_dir, there));
    Err(Failure::usage(format!("{dir} holds a cluster of {there} nodes, not {nodes}")).hint(format!(
        "start it with --nodes {there}, or name another place with --data-dir. To make it smaller: \
         start it, `dislog cluster drain node-{there} --wait`, end it, delete {}, and start it \
         with one node less",
        last.display()
    )))
}

fn node_dir(data_dir: &Path, number: u32) -> PathBuf {
    match number {
        1 => data_dir.to_owned(),
        _ => data_dir.join(format!("node-{number}")),
    }
}

/// Free addresses; with port 0 any.
fn addresses(port: u16, nodes: u32) -> Result<Vec<String>, Failure> {
    // All at once, so that none is given twice; the nodes take them over.
    let mut reserved = Vec::new();
    for number in 0..nodes {
        let port = match port {
            0 => 0,
            port => u16::try_from(u32::from(port) + number).map_err(|_| {
                Failure::usage(format!("there are no {nodes} ports from {port} on"))
            })?,
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).and_then(|l| Ok((l.local_addr()?, l)));
        reserved.push(listener.map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot listen on {address}: {error}")).hint(
                "another node may be running there already; choose another port with --port, 0 \
                 takes free ones",
            )
        })?);
    }
    Ok(reserved.iter().map(|(address, _)| address.to_string()).collect())
}

/// Makes the nodes those of every later command, for as long as the result lives, and says so.
fn greet(
    addresses: &[String],
    data_dir: &Path,
    certificates: Option<&Certificates>,
    output: &mut Output,
) -> Result<Option<DevProfile>, crate::output::Stop> {
    let tls_dir = certificates.map(Certificates::of_client);
    let profile = DevProfile::write(addresses, tls_dir.as_deref())?;
    let data_dir = data_dir.display().to_string();
    let welcome = welcome(addresses, &data_dir, tls_dir.as_deref(), profile.is_some());
    output.bytes(welcome.as_bytes())?;
    output.flush()?;
    Ok(profile)
}

fn default_data_dir() -> Result<PathBuf, Failure> {
    let data = user_dir("XDG_DATA_HOME", ".local/share").ok_or_else(|| {
        Failure::usage("there is no place for data: neither XDG_DATA_HOME nor HOME is set")
            .hint("name one with --data-dir")
    })?;
    Ok(data.join("dislog").join("dev"))
}

/// What to type next. Without a profile, commands have to be told the addresses.
fn welcome(
    addresses: &[String],
    data_dir: &str,
    tls_dir: Option<&Path>,
    has_profile: bool,
) -> String {
    let tls_dir = tls_dir.map(|dir| dir.display().to_string());
    let servers = match (has_profile, &tls_dir) {
        (true, _) => String::new(),
        (false, None) => format!(" --servers {}", addresses.join(",")),
        (false, Some(dir)) => format!(" --servers {} --tls-dir {dir}", addresses.join(",")),
    };
    let (scheme, certificate) = match &tls_dir {
        None => ("http", String::new()),
        Some(dir) => {
            let files = format!("--cacert {dir}/ca.crt --cert {dir}/tls.crt --key {dir}/tls.key");
            ("https", format!(" {files}"))
        }
    };
    let (first, all) = (&addresses[0], addresses.join(", "));
    format!(
        "dislog {version} listens on {all} and keeps its records in {data_dir}

Try, in another terminal:
  echo hi | dislog add demo{servers}
  dislog get demo{servers}
  curl{certificate} -d 'hi from curl' {scheme}://{first}/v1/topics/demo/records
  curl{certificate} '{scheme}://{first}/v1/topics/demo/records?offset=0&limit=10'

Ctrl-C ends it.
",
        version = env!("CARGO_PKG_VERSION"),
    )
}
