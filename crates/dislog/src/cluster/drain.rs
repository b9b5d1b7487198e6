//! `dislog cluster drain` and `remove`: taking a node out, with nothing lost on the way.
//!
//! What is asked for is written to the metadata at once and goes on by itself; the commands only
//! watch. Ended early, they undo nothing.

use std::time::Duration;

use dislog_client::{Client, ClusterInfo, Error, NodeInfo};

use super::view::{View, called, find};
use crate::failure::{Exit, Failure};
use crate::output::{Outcome, note};
use crate::topic::{confirm, count};

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Drains a node, or ends that.
pub(super) async fn drain(client: &Client, node: &str, drain: bool, wait: bool) -> Outcome {
    let cluster = client.describe_cluster().await.map_err(Failure::from)?;
    let node = find(&cluster.nodes, node)?;
    let name = called(node);
    if !drain {
        client.drain_node(&node.id, false).await.map_err(Failure::from)?;
        note(&format!("{name} may have replicas again"));
        return Ok(());
    }
    begin(client, &cluster, node).await?;
    match wait {
        true => until_empty(client, node).await?,
        false => note(&format!(
            "the replicas of {name} go to other nodes; `dislog cluster status` shows how far it is"
        )),
    }
    Ok(())
}

/// Takes a node out of the cluster.
pub(super) async fn remove(client: &Client, node: &str, yes: bool) -> Outcome {
    let cluster = client.describe_cluster().await.map_err(Failure::from)?;
    let node = find(&cluster.nodes, node)?;
    let name = called(node);
    confirm(yes, &format!("take {name} out of the cluster"))?;
    begin(client, &cluster, node).await?;
    until_empty(client, node).await?;
    let mut asked = false;
    loop {
        let cluster = client.describe_cluster().await.map_err(Failure::from)?;
        match cluster.nodes.iter().find(|known| known.id == node.id) {
            None => break,
            // One that runs would be taken in again.
            Some(known) if known.alive => {
                if !std::mem::replace(&mut asked, true) {
                    note(&format!(
                        "stop {name} now: it is removed once it is gone (Ctrl-C ends only the \
                         waiting)"
                    ));
                }
            }
            Some(_) => match client.remove_node(&node.id).await {
                // The cluster may be quicker, or not have noticed yet that the replicas are gone.
                Ok(()) | Err(Error::Refused { .. }) => {}
                Err(error) => return Err(Failure::from(error).into()),
            },
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    note(&format!("{name} is removed; its data directory may be deleted"));
    Ok(())
}

async fn begin(client: &Client, cluster: &ClusterInfo, node: &NodeInfo) -> Result<(), Failure> {
    let takes = |other: &&NodeInfo| other.id != node.id && other.alive && !other.draining;
    if !cluster.nodes.iter().any(|other| takes(&other)) {
        let message = format!("no other node can take the replicas of {}", called(node));
        return Err(Failure::new(Exit::Failed, message)
            .hint("start another node with --join first, or end the draining of one: --undo"));
    }
    if !node.draining {
        client.drain_node(&node.id, true).await?;
    }
    Ok(())
}

/// Waits until a node has no replicas left, and says how many there still are.
async fn until_empty(client: &Client, node: &NodeInfo) -> Result<(), Failure> {
    let name = called(node);
    let mut before = None;
    loop {
        let view = View::gather(client).await?;
        if !view.cluster.nodes.iter().any(|known| known.id == node.id) {
            break;
        }
        let left = view.of_topics().filter(|partition| partition.concerns(&node.id)).count();
        if left == 0 {
            break;
        }
        if before.replace(left) != Some(left) {
            note(&format!("{name} has {} left", count(left as u64, "replica")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    note(&format!("{name} has no replicas"));
    Ok(())
}
