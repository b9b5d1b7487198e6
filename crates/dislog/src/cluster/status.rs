//! `dislog cluster status`: one screen with what a person needs to know.

use std::fmt;

use dislog_client::NodeInfo;
use indicatif::HumanCount;
use serde::Serialize;

use super::view::{Finding, Partition, ReplicaState, View};
use crate::output::{Format, Outcome, Output};
use crate::topic::count;

/// Partitions named in a line; a program gets all.
const NAMES_MAX: usize = 5;

/// Digits of an id that people are shown: enough to tell nodes apart.
const SHORT_ID: usize = 8;

#[derive(Debug, Serialize)]
struct Status<'a> {
    cluster_id: Option<&'a str>,
    nodes: Vec<NodeStatus<'a>>,
    topics: usize,
    partitions: PartitionCounts,
    replicas: Vec<ReplicaShown<'a>>,
    /// What keeps partitions from taking records, as `topic-partition: why`.
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeStatus<'a> {
    id: &'a str,
    name: &'a str,
    address: &'a str,
    rack: &'a str,
    /// On the metadata: `leader`, `voter` or `learner`.
    role: &'static str,
    /// As the other nodes see it.
    alive: bool,
    /// It answered this command.
    answers: bool,
    draining: bool,
    leads: usize,
    replicas: usize,
    /// The most that any replica of it lacks; none if it does not answer, or has no records.
    lag_records: Option<u64>,
    lag_ms: Option<u64>,
    may_stop: bool,
    /// Why it may not be stopped.
    blockers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PartitionCounts {
    total: usize,
    under_replicated: usize,
    leaderless: usize,
}

#[derive(Debug, Serialize)]
struct ReplicaShown<'a> {
    topic: &'a str,
    partition: u32,
    node: &'a str,
    /// `leader`, `voter` or `learner`.
    role: &'static str,
    start_offset: u64,
    committed_offset: u64,
    end_offset: u64,
    lag_records: u64,
    lag_ms: Option<u64>,
    in_step: bool,
}

/// Shows the state of the cluster.
pub(super) fn show(view: &View, format: Format, output: &mut Output) -> Outcome {
    let status = Status::new(view);
    match format {
        Format::Json => output.json(&status),
        Format::Table => status.show(view, output),
    }
}

impl Status<'_> {
    fn new(view: &View) -> Status<'_> {
        let count = |is: fn(&Partition) -> bool| view.of_topics().filter(|p| is(p)).count();
        let shown = |partition| move |replica| ReplicaShown::new(partition, replica);
        Status {
            cluster_id: view.cluster.cluster_id.as_deref(),
            nodes: view.cluster.nodes.iter().map(|node| NodeStatus::new(view, node)).collect(),
            topics: view.topics.len(),
            partitions: PartitionCounts {
                total: count(|_| true),
                under_replicated: count(Partition::is_under_replicated),
                leaderless: count(|partition| partition.leader.is_none()),
            },
            replicas: view.of_topics().flat_map(|p| p.replicas.iter().map(shown(p))).collect(),
            faults: faults(view),
        }
    }

    fn show(&self, view: &View, output: &mut Output) -> Outcome {
        output.line(&format!("cluster {}", self.cluster_id.unwrap_or("none")))?;
        output.line("")?;
        self.show_nodes(output)?;
        output.line("")?;
        let PartitionCounts { total, under_replicated, leaderless } = self.partitions;
        let topics = count(self.topics as u64, "topic");
        let partitions = count(total as u64, "partition");
        let state = match (under_replicated, leaderless) {
            _ if total == 0 => String::new(),
            (0, 0) => ": every replica is in step".to_owned(),
            (under, 0) => format!(": {} under-replicated", HumanCount(under as u64)),
            (under, none) => format!(
                ": {} under-replicated, {} without a leader",
                HumanCount(under as u64),
                HumanCount(none as u64)
            ),
        };
        output.line(&format!("{topics}, {partitions}{state}"))?;
        let lacking: Vec<Finding> =
            view.partitions.iter().filter_map(|partition| lack(view, partition)).collect();
        show_findings(&lacking, output)?;
        self.faults.iter().try_for_each(|fault| output.line(&format!("  {fault}")))
    }

    fn show_nodes(&self, output: &mut Output) -> Outcome {
        let has_names = self.nodes.iter().any(|node| !node.name.is_empty());
        let has_racks = self.nodes.iter().any(|node| !node.rack.is_empty());
        let row = |node: &NodeStatus<'_>| {
            let mut row = vec![node.id.get(..SHORT_ID).unwrap_or(node.id).to_owned()];
            row.extend(has_names.then(|| node.name.to_owned()));
            row.push(node.address.to_owned());
            row.extend(has_racks.then(|| node.rack.to_owned()));
            row.extend([
                node.role.to_owned(),
                node.state().to_owned(),
                node.leads.to_string(),
                node.replicas.to_string(),
                node.behind(),
                node.advice().to_owned(),
            ]);
            row
        };
        let mut header = vec!["ID"];
        header.extend(has_names.then_some("NAME"));
        header.push("ADDRESS");
        header.extend(has_racks.then_some("RACK"));
        header.extend(["METADATA", "STATE", "LEADS", "REPLICAS", "BEHIND", "MAY STOP"]);
        output.table(&header, &["LEADS", "REPLICAS"], self.nodes.iter().map(row).collect())
    }
}

impl NodeStatus<'_> {
    fn new<'a>(view: &'a View, node: &'a NodeInfo) -> NodeStatus<'a> {
        let blockers: Vec<String> =
            view.blockers(&node.id).iter().map(ToString::to_string).collect();
        let answers = !view.silent.contains_key(&node.id);
        let own = || view.of_topics().flat_map(|p| &p.replicas).filter(|r| r.node == node.id);
        let leads = |partition: &&Partition| partition.leader.as_ref() == Some(&node.id);
        NodeStatus {
            id: &node.id,
            name: &node.name,
            address: &node.address,
            rack: &node.rack,
            role: match (node.leads, node.votes) {
                (true, _) => "leader",
                (false, true) => "voter",
                (false, false) => "learner",
            },
            alive: node.alive,
            answers,
            draining: node.draining,
            leads: view.of_topics().filter(leads).count(),
            replicas: view.of_topics().filter(|partition| partition.concerns(&node.id)).count(),
            lag_records: answers.then(|| own().map(|r| r.lag_records).max().unwrap_or(0)),
            lag_ms: own().filter_map(|r| r.lag_ms).max(),
            may_stop: blockers.is_empty(),
            blockers,
        }
    }

    fn state(&self) -> &'static str {
        match (self.alive, self.answers, self.draining) {
            (false, false, false) => "down",
            (false, false, true) => "down, draining",
            (true, false, _) => "no answer",
            (_, true, true) => "draining",
            (_, true, false) => "up",
        }
    }

    fn behind(&self) -> String {
        match (self.lag_records, self.lag_ms) {
            (Some(0), _) => "-".to_owned(),
            (Some(records), Some(ms @ 1..)) => {
                format!("{}, {:.1} s", count(records, "record"), ms as f64 / 1_000.0)
            }
            (Some(records), _) => count(records, "record"),
            (None, _) => "?".to_owned(),
        }
    }

    fn advice(&self) -> &'static str {
        match (self.answers || self.alive, self.may_stop) {
            (false, _) => "-",
            (true, true) => "yes",
            (true, false) => "no",
        }
    }
}

impl ReplicaShown<'_> {
    fn new<'a>(partition: &'a Partition, state: &'a ReplicaState) -> ReplicaShown<'a> {
        let role = match &state.node {
            node if partition.leader.as_ref() == Some(node) => "leader",
            node if partition.voters.contains(node) => "voter",
            _ => "learner",
        };
        ReplicaShown {
            topic: &partition.topic,
            partition: partition.partition,
            node: &state.node,
            role,
            start_offset: state.replica.start_offset,
            committed_offset: state.replica.committed_offset,
            end_offset: state.replica.end_offset,
            lag_records: state.lag_records,
            lag_ms: state.lag_ms,
            in_step: state.in_step,
        }
    }
}

/// What a partition lacks, for people.
fn lack(view: &View, partition: &Partition) -> Option<Finding> {
    if !partition.is_under_replicated() && partition.leader.is_some() {
        return None;
    }
    let is_in_step = |id: &&String| partition.in_step().any(|replica| replica.node == **id);
    let answers = |id: &&String| partition.replicas.iter().any(|replica| replica.node == **id);
    // Without a leader nobody says what it is to be in step with.
    let (is_there, said): (&dyn Fn(&&String) -> bool, _) = match partition.leader {
        Some(_) => (&is_in_step, "in step"),
        None => (&answers, "answer, and no leader"),
    };
    let mut all: Vec<&String> = partition.target.iter().chain(&partition.voters).collect();
    all.sort_unstable();
    all.dedup();
    let there = all.iter().filter(|id| is_there(id)).count();
    let missing: Vec<&str> =
        all.iter().filter(|id| !is_there(id)).map(|id| view.called(id)).collect();
    let missing = match missing.is_empty() {
        true => String::new(),
        false => format!(", not {}", missing.join(", ")),
    };
    let wanted = if partition.leader.is_some() { partition.wanted } else { all.len() };
    let what = format!("{there} of {wanted} replicas {said}{missing}");
    Some(Finding { partition: partition.name(), what })
}

fn faults(view: &View) -> Vec<String> {
    let mut faults = Vec::new();
    for partition in &view.partitions {
        for ReplicaState { node, replica, .. } in &partition.replicas {
            if let Some(fault) = &replica.fault {
                faults.push(format!("{} on {}: {fault}", partition.name(), view.called(node)));
            }
        }
    }
    for (node, why) in &view.silent {
        faults.push(format!("{} does not answer: {why}", view.called(node)));
    }
    faults
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.partition, self.what)
    }
}

/// A line for each thing there is to say, with the partitions of which it is to be said.
pub(super) fn show_findings(findings: &[Finding], output: &mut Output) -> Outcome {
    let mut lines: Vec<(&str, Vec<&str>)> = Vec::new();
    for Finding { partition, what } in findings {
        match lines.iter_mut().find(|(known, _)| known == what) {
            Some((_, partitions)) => partitions.push(partition),
            None => lines.push((what, vec![partition])),
        }
    }
    for (what, partitions) in lines {
        let names = partitions.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = match partitions.len().saturating_sub(NAMES_MAX) {
            0 => String::new(),
            more => format!(" and {} more", HumanCount(more as u64)),
        };
        output.line(&format!("  {what}: {names}{more}"))?;
    }
    Ok(())
}
