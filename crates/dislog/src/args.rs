//! The command line as a whole: every command, with the arguments it defines itself.

use clap::{Parser, Subcommand};

use crate::acl::AclArgs;
use crate::bench::BenchArgs;
use crate::cert::CertArgs;
use crate::cluster::ClusterArgs;
use crate::completion::CompletionArgs;
use crate::consume::ConsumeArgs;
use crate::dev::DevArgs;
use crate::output::Format;
use crate::produce::ProduceArgs;
use crate::server::ServerArgs;
use crate::token::TokenArgs;
use crate::topic::TopicArgs;
use crate::verify::VerifyArgs;

const EXAMPLES: &str = "\
Examples:
  dislog dev                          start a node to try things; a cluster with --nodes 3
  echo hi | dislog add demo           add a record to the topic demo
  dislog get demo                     get all its records
  dislog get demo -f -o end           wait for new ones

Exit codes: 0 done; 1 failed, or damage found; 2 wrong usage; 3 no such topic, partition or offset;
4 no server at the moment, safe to try again; 130 and 143 ended by Ctrl-C and SIGTERM.";

/// A distributed, replicated, durable commit log.
#[derive(Debug, Parser)]
#[command(name = "dislog", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order a new user needs them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a local node or cluster to try things; the other commands find it by themselves
    Dev(DevArgs),
    /// Add records: a record a line, from standard input or files
    #[command(visible_alias = "add")]
    Produce(ProduceArgs),
    /// Get records by offset or time, or follow the end
    #[command(visible_alias = "get")]
    Consume(ConsumeArgs),
    /// Create, list, describe, alter, trim and delete topics
    Topic(TopicArgs),
    /// Run a node
    Server(ServerArgs),
    /// Create, list and revoke bearer tokens
    Token(TokenArgs),
    /// Ask what the rules of who may do what say
    Acl(AclArgs),
    /// See how the nodes of a cluster are, and move what they have
    Cluster(ClusterArgs),
    /// Make certificates for nodes and clients
    Cert(CertArgs),
    /// Check a stopped node's files for damage
    Verify(VerifyArgs),
    /// Measure a server, and the machine it runs on
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
}

/// The argument of every command whose results are a table.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct FormatArg {
    /// How results are shown
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
