//! `dislog server`: runs a node until it is told to end.

use std::io;
use std::path::PathBuf;

use dislog_server::{Config, ConfigError, SecurityError, Server, StartError};

use crate::failure::{Exit, Failure};
use crate::output::{Outcome, Output};
use crate::signals::{Hangups, Signals};
use crate::telemetry::{self, LogFormat};

const NOTES: &str = "\
A setting comes from its flag, else from DISLOG_<SETTING> in the environment, else from the file,
else it has its default. SIGTERM and Ctrl-C end the node gracefully, with exit code 0; a second one
at once. SIGHUP makes it read certificates and rules again, where it cannot notice changes.";

/// Arguments of `dislog server`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct ServerArgs {
    /// A TOML file with settings [env: DISLOG_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective settings, each with its origin, and end
    #[arg(long)]
    print_config: bool,
    /// End when standard input does: when the program that started it is gone, however it went
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
    #[command(flatten)]
    settings: SettingFlags,
}

/// Defines one flag for each setting of a node, and their names and values as pairs.
macro_rules! setting_flags {
    ($($(#[doc = $doc:literal])+ $(#[arg($($more:tt)+)])? $name:ident: $value:literal,)+) => {
        /// A flag for each setting. What a setting takes is checked where it is defined, with those
        /// of file and environment.
        #[derive(Debug, Default, clap::Args)]
        struct SettingFlags {
            $($(#[doc = $doc])+ #[arg(long, value_name = $value $(, $($more)+)?)]
            $name: Option<String>,)+
        }

        impl SettingFlags {
            fn pairs(&self) -> Vec<(String, String)> {
                let all = [$((stringify!($name), &self.$name)),+];
                let given = |(name, value): (&str, &Option<String>)| {
                    Some((name.to_owned(), value.clone()?))
                };
                all.into_iter().filter_map(given).collect()
            }
        }
    };
}

setting_flags! {
    /// Where everything is kept [default: data]
    data_dir: "DIR",
    /// What people call this node [default: its address]
    name: "NAME",
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8400]
    listen: "HOST:PORT",
    /// The address that clients and other nodes dial [default: the address listened on]
    advertise: "HOST:PORT",
    /// Where tls.crt, tls.key and ca.crt are; see `dislog cert`
    tls_dir: "DIR",
    /// Do without certificates, on this machine: whoever reaches the node may do everything;
    /// --insecure=anywhere does so wherever it listens
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "loopback")]
    insecure: "WHERE",
    /// Nodes of the cluster to join [default: none, the node forms a cluster by itself]
    join: "HOST:PORT,…",
    /// So many nodes that see each other form a new cluster [default: 0, one is joined]
    bootstrap_expect: "COUNT",
    /// What fails together with this node; replicas are spread over racks
    rack: "RACK",
    /// How long a node may be away before its replicas are given to others [default: 10m]
    replace_after_ms: "TIME",
    /// Create a topic when a record is first produced to it [default: true]
    auto_create_topics: "BOOL",
    /// Keep about this much per partition, unless a topic says otherwise [default: 0, everything]
    retention_bytes: "SIZE",
    /// Keep records about this long, unless a topic says otherwise [default: 0, for ever]
    retention_ms: "TIME",
    /// The directory of the rules of who may do what [default: none, no rules]
    auth_dir: "DIR",
    /// What is logged: a level, or `tracing` directives [default: info]
    log_filter: "FILTER",
}

/// Runs a node, or prints its settings.
pub(crate) async fn run(args: ServerArgs, output: &mut Output) -> Outcome {
    let file = args.config.or_else(|| std::env::var_os("DISLOG_CONFIG").map(PathBuf::from));
    let (config, origins) = Config::load(file.as_deref(), environment(), &args.settings.pairs())?;
    if args.print_config {
        return output.bytes(config.print(&origins).as_bytes());
    }
    telemetry::start(&config.log_filter, LogFormat::for_stderr())?;
    let (mut signals, mut hangups) = (Signals::listen()?, Hangups::listen()?);
    let server = Server::start(config).await.map_err(|error| start_failure(error, "--listen"))?;
    let parent_gone = async {
        match args.until_stdin_ends {
            true => drop(tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await),
            false => std::future::pending().await,
        }
    };
    let reading_again = async {
        loop {
            hangups.next().await;
            server.read_again();
        }
    };
    tokio::select! {
        _ = signals.next() => {}
        () = parent_gone => {}
        () = reading_again => {}
    }
    Ok(end(server, signals).await?)
}

/// Variables that are not text cannot be settings.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Ends a server. A signal does not wait for what is under way: nothing acknowledged is lost by
/// that.
pub(crate) async fn end(server: Server, mut signals: Signals) -> Result<(), Failure> {
    tokio::select! {
        () = server.shutdown() => Ok(()),
        exit = signals.next() => Err(Failure::new(exit, "ended at once by a second signal")),
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::usage(error.to_string())
            .hint("`dislog server --help` and `dislog server --print-config` show the settings")
    }
}

impl From<ConfigError> for crate::output::Stop {
    fn from(error: ConfigError) -> crate::output::Stop {
        Failure::from(error).into()
    }
}

/// `port_flag` is how the command at hand is told another port.
pub(crate) fn start_failure(error: StartError, port_flag: &str) -> Failure {
    match error {
        StartError::Listen { address, source } => {
            let message = format!("cannot listen on {address}: {source}");
            match source.kind() {
                io::ErrorKind::AddrInUse => Failure::new(Exit::Failed, message).hint(format!(
                    "another node may be running there already; choose another port with \
                     {port_flag}, 0 takes a free one"
                )),
                _ => Failure::usage(message).hint("--listen takes an address of this machine"),
            }
        }
        StartError::Access(error) => Failure::usage(error.to_string()).hint(
            "--auth-dir names a directory with policy.csv, and model.conf and auth.toml if need be",
        ),
        StartError::Open(error) => {
            Failure::new(Exit::Failed, error.to_string()).hint("--data-dir names another directory")
        }
        StartError::Security(error) => security_failure(&error),
        error => Failure::new(Exit::Failed, error.to_string()),
    }
}

fn security_failure(error: &SecurityError) -> Failure {
    let failure = Failure::usage(error.to_string());
    match error {
        SecurityError::Neither => failure.hint(
            "make certificates (`dislog cert ca`, then `dislog cert server NAME --host HOST`) and \
             add --tls-dir certs/NAME; or, to try things on this machine, add --insecure",
        ),
        SecurityError::Exposed(_) => failure.hint(
            "give it certificates with --tls-dir; or, if something else protects it, say \
             --insecure=anywhere",
        ),
        SecurityError::Certificates { .. } => failure.hint(
            "`dislog cert server NAME --host HOST` makes all three files, `dislog cert show DIR` \
             shows them",
        ),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    #[test]
    fn every_setting_has_a_flag_and_no_flag_lacks_a_setting() {
        let documentation = Config::documentation();
        let settings: Vec<&str> = documentation
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let command = SettingFlags::augment_args(Command::new("settings"));
        let flags: Vec<&str> = command.get_arguments().map(|flag| flag.get_id().as_str()).collect();
        assert_eq!(flags, settings);
    }

    #[test]
    fn only_flags_that_were_given_are_passed_on() {
        let flags = SettingFlags { listen: Some("a:1".into()), ..SettingFlags::default() };
        assert_eq!(flags.pairs(), [("listen".to_owned(), "a:1".to_owned())]);
    }
}
