//! `dislog cluster`: asks about the servers.

use serde::Serialize;

use crate::args::FormatArg;
use crate::output::{Format, Outcome, Output};
use crate::servers::ServersArg;
use crate::topic::count;

/// Arguments of `dislog cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ClusterCommand {
    /// Show the servers, and how many partitions each leads
    Status {
        #[command(flatten)]
        servers: ServersArg,
        #[command(flatten)]
        format: FormatArg,
    },
}

#[derive(Debug, Serialize)]
struct Status {
    servers: Vec<ServerStatus>,
    topics: usize,
    partitions: usize,
    /// Partitions that nobody leads or that cannot be written, as `topic-partition: why`.
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ServerStatus {
    id: String,
    name: String,
    address: String,
    leads: usize,
}

/// Shows the state of the cluster.
pub(crate) async fn run(args: ClusterArgs, output: &mut Output) -> Outcome {
    let ClusterCommand::Status { servers, format } = args.command;
    let status = status(&servers).await?;
    match format.format {
        Format::Json => output.json(&status),
        Format::Table => show(&status, output),
    }
}

async fn status(servers: &ServersArg) -> Result<Status, crate::failure::Failure> {
    let client = servers.resolve()?.client().await?;
    let topics = client.list_topics().await?;
    let servers = client.servers(dislog_proto::DEFAULT_TOPIC, 0).await?;
    let mut faults = Vec::new();
    for topic in &topics {
        for partition in &topic.partitions {
            let no_leader = || partition.leader.is_none().then(|| "no leader".to_owned());
            if let Some(fault) = partition.fault.clone().or_else(no_leader) {
                faults.push(format!("{}-{}: {fault}", topic.name, partition.partition));
            }
        }
    }
    let leads = |id: &str| {
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        partitions.filter(|partition| partition.leader.as_deref() == Some(id)).count()
    };
    let servers = servers.into_iter().map(|server| ServerStatus {
        leads: leads(&server.id),
        id: server.id,
        name: server.name,
        address: server.address,
    });
    Ok(Status {
        servers: servers.collect(),
        topics: topics.len(),
        partitions: topics.iter().map(|topic| topic.partitions.len()).sum(),
        faults,
    })
}

fn show(status: &Status, output: &mut Output) -> Outcome {
    let row = |server: &ServerStatus| {
        let leads = server.leads.to_string();
        vec![server.id.clone(), server.name.clone(), server.address.clone(), leads]
    };
    let rows = status.servers.iter().map(row).collect();
    output.table(&["ID", "NAME", "ADDRESS", "LEADS"], &["LEADS"], rows)?;
    output.line("")?;
    let topics = count(status.topics as u64, "topic");
    let partitions = count(status.partitions as u64, "partition");
    output.line(&format!("{topics}, {partitions}"))?;
    status.faults.iter().try_for_each(|fault| output.line(fault))
}
