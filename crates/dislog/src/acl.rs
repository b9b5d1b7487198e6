//! `dislog acl`: what the rules say, on every node.

use std::time::Duration;

use dislog_client::{AccessInfo, Client, Error, NodeInfo};
use serde::Serialize;

use crate::args::FormatArg;
use crate::failure::{Exit, Failure};
use crate::output::{Format, Outcome, Output};
use crate::servers::ServersArg;

/// How long a node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Arguments of `dislog acl`.
#[derive(Debug, clap::Args)]
pub(crate) struct AclArgs {
    #[command(subcommand)]
    command: AclCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AclCommand {
    /// Ask every node whether somebody may do something, and by which rules: exit code 0 if all
    /// allow it, 1 if not
    #[command(after_help = "\
Each node has its own copy of the rules. POLICY is the beginning of a digest of them: nodes that
show different ones decide by different rules.")]
    Check {
        /// Whom; `-` for yourself
        subject: String,
        /// What
        #[arg(value_parser = ["produce", "consume", "admin"])]
        action: String,
        /// The topic; `@cluster` for the cluster as a whole
        topic: String,
        #[command(flatten)]
        servers: ServersArg,
        #[command(flatten)]
        format: FormatArg,
    },
}

/// What a node says.
#[derive(Serialize)]
struct Row {
    node: String,
    subject: Option<String>,
    allowed: Option<bool>,
    policy: Option<String>,
    rules: Vec<String>,
    why: String,
}

/// Runs one of the commands about rules.
pub(crate) async fn run(args: AclArgs, output: &mut Output) -> Outcome {
    let AclCommand::Check { subject, action, topic, servers, format } = args.command;
    let client = servers.resolve()?.client().await?;
    let cluster = client.describe_cluster().await.map_err(Failure::from)?;
    let subject = if subject == "-" { "" } else { subject.as_str() };
    let mut rows = Vec::with_capacity(cluster.nodes.len());
    for node in &cluster.nodes {
        let name = if node.name.is_empty() { &node.address } else { &node.name };
        match ask(&client, node, subject, &action, &topic).await {
            Ok(said) => rows.push(Row::of(name, said)),
            Err(error @ Error::Timeout { .. }) => rows.push(Row::silent(name, &error)),
            Err(error) => return Err(Failure::from(error).into()),
        }
    }
    show(&rows, format.format, output)?;
    output.flush()?;
    verdict(&rows)?;
    Ok(())
}

async fn ask(
    client: &Client,
    node: &NodeInfo,
    subject: &str,
    action: &str,
    topic: &str,
) -> Result<AccessInfo, Error> {
    client.node(&node.address, ANSWER_MAX)?.check_access(subject, action, topic).await
}

impl Row {
    fn of(node: &str, said: AccessInfo) -> Row {
        let AccessInfo { subject, allowed, rules, policy, why, .. } = said;
        let (node, subject, allowed) = (node.to_owned(), Some(subject), Some(allowed));
        Row { node, subject, allowed, policy, rules, why }
    }

    fn silent(node: &str, error: &Error) -> Row {
        let (node, why) = (node.to_owned(), error.to_string());
        Row { node, subject: None, allowed: None, policy: None, rules: Vec::new(), why }
    }
}

fn show(rows: &[Row], format: Format, output: &mut Output) -> Outcome {
    if format == Format::Json {
        return output.json(&rows);
    }
    let lines = rows.iter().map(|row| {
        let allowed = match row.allowed {
            None => "no answer",
            Some(true) => "yes",
            Some(false) => "no",
        };
        let policy = row.policy.clone().unwrap_or_else(|| "-".to_owned());
        let why = if row.rules.is_empty() { row.why.clone() } else { row.rules.join("; ") };
        vec![row.node.clone(), allowed.to_owned(), policy, why]
    });
    output.table(&["NODE", "ALLOWED", "POLICY", "WHY"], &[], lines.collect())
}

fn verdict(rows: &[Row]) -> Result<(), Failure> {
    let mut policies: Vec<_> = rows.iter().filter(|row| row.allowed.is_some()).collect();
    policies.dedup_by(|a, b| a.policy == b.policy);
    if policies.len() > 1 {
        return Err(Failure::new(Exit::Failed, "the nodes have different rules")
            .hint("give all nodes the same files in auth_dir"));
    }
    match rows.iter().all(|row| row.allowed == Some(true)) {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, "not allowed, or not by every node")),
    }
}
