//! Which servers a command talks to, and the client that does it.
//!
//! In falling order: `--servers`, `DISLOG_SERVERS`, the profile that `dislog dev` writes, the
//! default address.

use std::fmt;
use std::io;
use std::time::Duration;

use dislog_client::{Client, ClientOptions};
use tokio::net::TcpStream;

use crate::failure::{Exit, Failure};
use crate::profile::Profile;

/// The environment variable that names servers.
pub(crate) const SERVERS_VARIABLE: &str = "DISLOG_SERVERS";

/// How long a server may take to accept a connection before the next one is tried.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The argument of every command that talks to servers.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ServersArg {
    /// Servers to talk to, as host:port [env: DISLOG_SERVERS] [default: what `dislog dev` runs on,
    /// or 127.0.0.1:8400]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    servers: Vec<String>,
}

/// Servers, and who named them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Servers {
    /// `host:port` each.
    pub(crate) addresses: Vec<String>,
    /// Who named them.
    pub(crate) origin: Origin,
}

/// Who named the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `--servers`.
    Argument,
    /// `DISLOG_SERVERS`.
    Variable,
    /// The profile, in this file.
    Profile(String),
    /// Nobody.
    Default,
}

impl ServersArg {
    /// The servers to talk to.
    pub(crate) fn resolve(&self) -> Result<Servers, Failure> {
        let variable = std::env::var(SERVERS_VARIABLE).ok();
        Ok(resolve(&self.servers, variable.as_deref(), Profile::load()?))
    }
}

fn resolve(argument: &[String], variable: Option<&str>, profile: Option<Profile>) -> Servers {
    let list = |text: &str| text.split(',').filter(|a| !a.is_empty()).map(trimmed).collect();
    if !argument.is_empty() {
        let addresses = argument.iter().flat_map(|text| list(text)).collect();
        return Servers { addresses, origin: Origin::Argument };
    }
    if let Some(variable) = variable.filter(|text| !text.trim().is_empty()) {
        return Servers { addresses: list(variable), origin: Origin::Variable };
    }
    if let Some(profile) = profile.filter(|profile| !profile.servers.is_empty()) {
        let origin = Origin::Profile(profile.path.display().to_string());
        return Servers { addresses: profile.servers, origin };
    }
    let address = format!("127.0.0.1:{}", dislog_proto::DEFAULT_PORT);
    Servers { addresses: vec![address], origin: Origin::Default }
}

fn trimmed(address: &str) -> String {
    address.trim().to_owned()
}

impl Servers {
    /// A client of these servers. At least one of them accepts connections: a program that waits in
    /// silence for a server which was never started helps nobody.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let client = Client::connect(&self.addresses, ClientOptions::default())?;
        let mut last = None;
        for address in &self.addresses {
            match probe(address).await {
                Ok(()) => return Ok(client),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    return Err(Failure::usage(format!("{address:?} is no server address"))
                        .hint("give host:port, such as 127.0.0.1:8400"));
                }
                Err(error) => last = Some(error),
            }
        }
        let why = last.map_or_else(String::new, |error| format!(": {}", plain(&error)));
        Err(Failure::new(Exit::Unavailable, format!("no server answers at {self}{why}"))
            .hint(self.advice()))
    }

    fn advice(&self) -> &'static str {
        match self.origin {
            Origin::Default => {
                "start one with `dislog dev`, or name yours with --servers or DISLOG_SERVERS"
            }
            Origin::Profile(_) => {
                "start it again with `dislog dev`, or name another with --servers"
            }
            Origin::Argument | Origin::Variable => {
                "check the address, or start a server with `dislog dev` or `dislog server`"
            }
        }
    }
}

async fn probe(address: &str) -> io::Result<()> {
    let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    match tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
        Ok(connected) => connected.map(drop),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

/// What the system said, without its error number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer in 5 seconds".to_owned(),
        _ => error.to_string(),
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addresses.join(", "))?;
        match &self.origin {
            Origin::Variable => write!(f, " (from {SERVERS_VARIABLE})"),
            Origin::Profile(path) => write!(f, " (from {path})"),
            Origin::Argument | Origin::Default => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(server: &str) -> Option<Profile> {
        Some(Profile { servers: vec![server.to_owned()], written_by: None, path: "/p".into() })
    }

    #[test]
    fn the_nearest_source_wins() {
        let argument = ["a:1".to_owned(), "b:2".to_owned()];
        let both = resolve(&argument, Some("c:3"), profile("d:4"));
        assert_eq!(both.addresses, ["a:1", "b:2"]);
        assert_eq!(both.origin, Origin::Argument);

        let variable = resolve(&[], Some(" c:3, d:4,"), profile("d:4"));
        assert_eq!(variable.addresses, ["c:3", "d:4"]);
        assert_eq!(variable.to_string(), "c:3, d:4 (from DISLOG_SERVERS)");

        let profiled = resolve(&[], Some(""), profile("d:4"));
        assert_eq!(profiled.to_string(), "d:4 (from /p)");

        assert_eq!(resolve(&[], None, None).to_string(), "127.0.0.1:8400");
    }
}
