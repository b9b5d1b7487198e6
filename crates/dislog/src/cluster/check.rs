//! `dislog cluster check`: whether a node may be stopped now.

use serde::Serialize;

use super::status::show_findings;
use super::view::{View, called};
use crate::failure::{Exit, Failure};
use crate::output::{Format, Outcome, Output};

#[derive(Debug, Serialize)]
struct Checked<'a> {
    id: &'a str,
    name: &'a str,
    address: &'a str,
    may_stop: bool,
    /// Why not, as `topic-partition: why`.
    blockers: Vec<String>,
}

/// Says whether the node may be stopped, and fails if not.
pub(super) fn show(view: &View, node: &str, format: Format, output: &mut Output) -> Outcome {
    let node = view.node(node)?;
    let blockers = view.blockers(&node.id);
    let (name, may_stop) = (called(node), blockers.is_empty());
    match format {
        Format::Json => output.json(&Checked {
            id: &node.id,
            name: &node.name,
            address: &node.address,
            may_stop,
            blockers: blockers.iter().map(ToString::to_string).collect(),
        })?,
        Format::Table if may_stop => output.line(&format!(
            "{name} may be stopped: without it, everything keeps a majority that is in step"
        ))?,
        Format::Table => show_findings(&blockers, output)?,
    }
    if may_stop {
        return Ok(());
    }
    let hint = match view.cluster.nodes.len() {
        _ if view.hidden.get(&node.id).is_some_and(|hidden| *hidden > 0) => {
            "ask with the rights of somebody who may see every topic"
        }
        1 => "it is the only node: records can be neither added nor read while it is stopped",
        _ if view.is_needed_for_good(&node.id) => {
            "of one or two replicas none can be spared: `dislog topic alter TOPIC --replicas 3`, \
             or move them: `dislog cluster drain`"
        }
        _ => {
            "try again once the others have caught up, or move its replicas: `dislog cluster drain`"
        }
    };
    let failure = Failure::new(Exit::Failed, format!("{name} may not be stopped now"));
    Err(failure.hint(hint).into())
}
