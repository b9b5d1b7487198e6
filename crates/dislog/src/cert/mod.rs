//! `dislog cert`: certificates for servers and clients, without another tool.
//!
//! ```text
//!   certs/ca.crt ca.key              the authority; its key belongs on no server
//!   certs/anton/tls.crt tls.key ca.crt    what one node or client is given: --tls-dir certs/anton
//! ```
//!
//! They are plain X.509: certificates that OpenSSL, cfssl or cert-manager make do as well.
//! [`authority`] makes them, [`store`] keeps files that exist.

mod authority;
mod ca;
mod client;
mod renew;
mod server;
mod show;
mod store;

use std::path::PathBuf;

use crate::failure::Failure;
use crate::output::{Outcome, Output};

pub(crate) use self::authority::{Authority, Wanted, absolute};

/// Where an authority is kept unless told otherwise.
const DIR: &str = "certs";

/// How long a certificate is valid unless told otherwise.
pub(crate) const DAYS: u32 = 365;

const EXAMPLES: &str = "\
Examples:
  dislog cert ca                                        make an authority, in certs/
  dislog cert server anton --host 10.0.0.1,anton.lan    certificate and key of a node
  dislog cert client alice                              certificate and key of a client
  dislog server --tls-dir certs/anton                   run the node
  dislog topic list --tls-dir certs/alice               use it

See docs/security.md for certificates of other tools, and for replacing them while nodes run.";

/// Arguments of `dislog cert`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CertCommand {
    /// Make an authority: all nodes and clients of a cluster have their certificates from it
    Ca(ca::CaArgs),
    /// Make the certificate and key of a node
    Server(server::ServerCertArgs),
    /// Make the certificate and key of a client
    Client(client::ClientCertArgs),
    /// Make a new certificate with the names of an old one, in its place
    Renew(renew::RenewArgs),
    /// Show what certificates say
    Show(show::ShowArgs),
}

/// Arguments of every command that makes a certificate.
#[derive(Debug, clap::Args)]
struct LeafArgs {
    /// Where the authority is
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
    /// Where to put them [default: a directory of that name beside the authority]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// For how long they are valid
    #[arg(long, value_name = "NUMBER", default_value_t = DAYS,
        value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// The kind of key
    #[arg(long, value_enum, default_value_t)]
    key_type: KeyType,
    /// Use this private key (PEM, PKCS#8), of any kind, in place of a new one
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

/// A kind of private key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum KeyType {
    /// ECDSA on the curve P-256
    #[default]
    Ecdsa,
    /// RSA; needs --key
    Rsa,
}

impl LeafArgs {
    /// Makes what is wanted and says where it is.
    fn issue(&self, wanted: &Wanted, output: &mut Output) -> Outcome {
        if self.key_type == KeyType::Rsa && self.key.is_none() {
            return Err(Failure::usage("RSA keys are not made here, but used if there is one")
                .hint(
                    "make it with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 \
                     -out rsa.key`, and add --key rsa.key",
                )
                .into());
        }
        let authority = Authority::open(&self.dir)?;
        let out = self.out.clone().unwrap_or_else(|| self.dir.join(wanted.name()));
        let key = self.key.as_deref().map(authority::read_key).transpose()?;
        authority.issue(wanted, self.days, key)?.write(&out, self.force)?;
        output.line(&format!("{} is in {}", wanted.describe(), out.display()))
    }
}

/// Runs one of the certificate commands.
pub(crate) fn run(args: &CertArgs, output: &mut Output) -> Outcome {
    match &args.command {
        CertCommand::Ca(args) => ca::run(args, output),
        CertCommand::Server(args) => server::run(args, output),
        CertCommand::Client(args) => client::run(args, output),
        CertCommand::Renew(args) => renew::run(args, output),
        CertCommand::Show(args) => show::run(args, output),
    }
}
