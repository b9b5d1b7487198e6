//! `dislog cluster`: how the cluster is, and what its nodes are to do.
//!
//! [`view`] asks, the other files answer one question each from what it found: all of them go by
//! the same words for *in step*, *under-replicated* and *may be stopped*.

mod check;
mod digest;
mod drain;
mod status;
mod view;

use dislog_client::Client;

use crate::args::FormatArg;
use crate::failure::Failure;
use crate::output::{Format, Outcome, Output, note};
use crate::servers::ServersArg;

use self::view::{View, called};

const NODES: &str = "\
A node is given by its name, its address, its id, or as much of the start of its id as no other node
has; `dislog cluster status` shows them.";

/// Arguments of `dislog cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ClusterCommand {
    /// Show the nodes, whether each may be stopped now, and what is not as it should be
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Say whether a node may be stopped now: exit code 0 if so, 1 if not
    #[command(after_help = NODES)]
    Check {
        /// The node
        node: String,
        #[command(flatten)]
        common: Common,
    },
    /// Give the replicas of a node to others
    #[command(after_help = NODES)]
    Drain {
        /// The node
        node: String,
        /// End that: the node may have replicas again
        #[arg(long, conflicts_with = "wait")]
        undo: bool,
        /// Wait until it has none left
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        servers: ServersArg,
    },
    /// Take a node out of the cluster for good: drain it, wait until it was stopped
    #[command(after_help = NODES)]
    Remove {
        /// The node
        node: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        servers: ServersArg,
    },
    /// Hand the leadership of a partition to another of its replicas
    #[command(after_help = NODES)]
    TransferLeader {
        /// The topic
        topic: String,
        /// The partition's number, from 0
        partition: u32,
        /// The node that is to lead
        node: String,
        #[command(flatten)]
        servers: ServersArg,
    },
    /// Compare the records that replicas hold, byte by byte: exit code 0 if they are equal, 1 if
    /// not
    Digest {
        /// Only this topic
        topic: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    servers: ServersArg,
    #[command(flatten)]
    format: FormatArg,
}

impl Common {
    async fn client(&self) -> Result<Client, Failure> {
        self.servers.resolve()?.client().await
    }

    fn format(&self) -> Format {
        self.format.format
    }
}

/// Runs one of the cluster commands.
pub(crate) async fn run(args: ClusterArgs, output: &mut Output) -> Outcome {
    match args.command {
        ClusterCommand::Status { common } => {
            let view = View::gather(&common.client().await?).await?;
            status::show(&view, common.format(), output)
        }
        ClusterCommand::Check { node, common } => {
            let view = View::gather(&common.client().await?).await?;
            check::show(&view, &node, common.format(), output)
        }
        ClusterCommand::Drain { node, undo, wait, servers } => {
            drain::drain(&servers.resolve()?.client().await?, &node, !undo, wait).await
        }
        ClusterCommand::Remove { node, yes, servers } => {
            drain::remove(&servers.resolve()?.client().await?, &node, yes).await
        }
        ClusterCommand::TransferLeader { topic, partition, node, servers } => {
            transfer_leader(&servers.resolve()?.client().await?, &topic, partition, &node).await
        }
        ClusterCommand::Digest { topic, common } => {
            digest::run(&common.client().await?, topic.as_deref(), common.format(), output).await
        }
    }
}

async fn transfer_leader(client: &Client, topic: &str, partition: u32, node: &str) -> Outcome {
    let cluster = client.describe_cluster().await.map_err(Failure::from)?;
    let node = view::find(&cluster.nodes, node)?;
    client.transfer_leader(topic, partition, &node.id).await.map_err(Failure::from)?;
    note(&format!("{} leads {topic}-{partition}", called(node)));
    Ok(())
}
