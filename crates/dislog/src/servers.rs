//! Which servers a command talks to, and the client that does it.
//!
//! In falling order: `--servers`, `DISLOG_SERVERS`, the profile that `dislog dev` writes, the
//! default address. Certificates likewise: `--tls-dir`, `DISLOG_TLS_DIR` or `DISLOG_TLS_CA`,
//! `DISLOG_TLS_CERT` and `DISLOG_TLS_KEY`, and the profile's for the profile's servers. A bearer
//! token: `DISLOG_TOKEN`, or the profile's.

use std::fmt;
use std::path::PathBuf;

use dislog_client::{AccessToken, Client, ClientOptions, ClientTls, Error, Files};

use crate::failure::{Exit, Failure};
use crate::profile::{Profile, Secret};

/// The environment variable that names servers.
pub(crate) const SERVERS_VARIABLE: &str = "DISLOG_SERVERS";

/// The environment variable that holds a bearer token.
const TOKEN_VARIABLE: &str = "DISLOG_TOKEN";

/// The argument of every command that talks to servers.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ServersArg {
    /// Servers to talk to, as host:port [env: DISLOG_SERVERS] [default: what `dislog dev` runs on,
    /// or 127.0.0.1:8400]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    servers: Vec<String>,
    #[command(flatten)]
    tls: TlsArg,
}

/// The argument of every command that makes connections.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TlsArg {
    /// Where ca.crt, tls.crt and tls.key are: connections are encrypted, and both sides show who
    /// they are [env: DISLOG_TLS_DIR]
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
}

/// Servers, and who named them.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// `host:port` each.
    pub(crate) addresses: Vec<String>,
    /// Who named them.
    pub(crate) origin: Origin,
    /// How they are known, if connections are encrypted.
    pub(crate) tls: Option<ClientTls>,
    /// Who they are told to be talking to, if not by a certificate.
    pub(crate) token: Option<AccessToken>,
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
        let profile = Profile::load()?;
        let mut servers = resolve(&self.servers, variable.as_deref(), profile.clone());
        servers.tls = self.tls.resolve(&servers.addresses, profile.as_ref())?;
        servers.token = token(&servers.addresses, profile.as_ref())?;
        Ok(servers)
    }
}

impl TlsArg {
    /// How connections to `addresses` are encrypted, if they are.
    pub(crate) fn resolve(
        &self,
        addresses: &[String],
        profile: Option<&Profile>,
    ) -> Result<Option<ClientTls>, Failure> {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let of_profile = profile
            .filter(|profile| addresses.iter().all(|address| profile.servers.contains(address)));
        let dir = self.tls_dir.clone().or_else(|| path("DISLOG_TLS_DIR"));
        let one_by_one = ["DISLOG_TLS_CA", "DISLOG_TLS_CERT", "DISLOG_TLS_KEY"].map(path);
        let files = match (dir, one_by_one) {
            (Some(dir), _) => Files::in_dir(&dir).of_client(),
            (None, [None, Some(_), _] | [None, _, Some(_)]) => {
                return Err(Failure::usage(
                    "DISLOG_TLS_CA is not set, but a certificate or key is",
                )
                .hint("it names the authorities that servers are known by"));
            }
            (None, [_, Some(_), None] | [_, None, Some(_)]) => {
                return Err(Failure::usage(
                    "only one of DISLOG_TLS_CERT and DISLOG_TLS_KEY is set: set both or neither",
                ));
            }
            (None, [Some(authorities), certificate, key]) => {
                Files::new(authorities, certificate, key)
            }
            (None, [None, None, None]) => {
                match of_profile.and_then(|profile| profile.tls_dir.as_ref()) {
                    Some(dir) => Files::in_dir(dir).of_client(),
                    None => return Ok(None),
                }
            }
        };
        let unusable = |error: dislog_client::TlsError| {
            Failure::usage(error.to_string())
                .hint("--tls-dir names a directory with ca.crt, tls.crt and tls.key")
        };
        ClientTls::new(files).map(Some).map_err(unusable)
    }
}

fn resolve(argument: &[String], variable: Option<&str>, profile: Option<Profile>) -> Servers {
    let list = |text: &str| text.split(',').filter(|a| !a.is_empty()).map(trimmed).collect();
    if !argument.is_empty() {
        let addresses = argument.iter().flat_map(|text| list(text)).collect();
        return Servers { addresses, origin: Origin::Argument, tls: None, token: None };
    }
    if let Some(variable) = variable.filter(|text| !text.trim().is_empty()) {
        return Servers {
            addresses: list(variable),
            origin: Origin::Variable,
            tls: None,
            token: None,
        };
    }
    if let Some(profile) = profile.filter(|profile| !profile.servers.is_empty()) {
        let origin = Origin::Profile(profile.path.display().to_string());
        return Servers { addresses: profile.servers, origin, tls: None, token: None };
    }
    let address = format!("127.0.0.1:{}", dislog_proto::DEFAULT_PORT);
    Servers { addresses: vec![address], origin: Origin::Default, tls: None, token: None }
}

/// The token to show: not an argument, which others on the machine could see.
fn token(addresses: &[String], profile: Option<&Profile>) -> Result<Option<AccessToken>, Failure> {
    let variable = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty());
    let of_profile = profile
        .filter(|profile| addresses.iter().all(|address| profile.servers.contains(address)))
        .and_then(|profile| profile.token.clone());
    let token = variable.or(of_profile.map(|Secret(token)| token));
    let token = token.map(|token| AccessToken::new(&token)).transpose();
    token.map_err(|error| {
        Failure::usage(format!("the token in {TOKEN_VARIABLE} or the profile: {error}"))
            .hint("`dislog token create` makes one")
    })
}

fn trimmed(address: &str) -> String {
    address.trim().to_owned()
}

impl Servers {
    /// A client of these servers. At least one of them answers: a program that waits in silence for
    /// a server which was never started, or does not trust it, helps nobody.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let (tls, token) = (self.tls.clone(), self.token.clone());
        let options = ClientOptions { tls, token, ..ClientOptions::default() };
        let client = Client::connect(&self.addresses, options)?;
        let mut last = None;
        for address in &self.addresses {
            match client.check(address).await {
                Ok(()) => return Ok(client),
                Err(error) => last = Some(error),
            }
        }
        let why = match last {
            Some(Error::Unreachable { why, .. }) => format!(": {why}"),
            Some(error) => return Err(error.into()),
            None => String::new(),
        };
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
        let servers = vec![server.to_owned()];
        Some(Profile { servers, path: "/p".into(), ..Profile::default() })
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
