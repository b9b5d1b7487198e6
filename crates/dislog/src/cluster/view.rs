//! What the commands about the cluster go by: what one node says of the cluster, and what every
//! node says of its own replicas.
//!
//! Nodes are asked at the same time and answer at slightly different ones, so under load every
//! follower looks a little behind. A voter is *in step* if it has what was committed when first
//! asked; where one has not, all are asked once more.

use std::collections::BTreeMap;
use std::time::Duration;

use dislog_client::{Client, ClusterInfo, Error, NodeInfo, Replica, Replicas, Topic};
use futures_util::future::join_all;

use crate::failure::{Exit, Failure};
use crate::topic::count;

/// How long a node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long a replica may take to get what others have: many times what it takes one that runs.
const CATCH_UP: Duration = Duration::from_millis(500);

/// A partition by name.
pub(super) type Name = (String, u32);

/// The cluster at a moment.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) cluster: ClusterInfo,
    pub(super) topics: Vec<Topic>,
    /// Why nodes did not answer, by id.
    pub(super) silent: BTreeMap<String, String>,
    /// How many replicas nodes have that whoever asks may not see, by id.
    pub(super) hidden: BTreeMap<String, u32>,
    /// The metadata's first.
    pub(super) partitions: Vec<Partition>,
}

/// A partition, put together from what its replicas say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) partition: u32,
    /// The node that leads.
    pub(super) leader: Option<String>,
    /// How many voters there should be.
    pub(super) wanted: usize,
    /// The nodes that should have a replica.
    pub(super) target: Vec<String>,
    /// The nodes whose replicas vote, as the leader says, or else who knows best.
    pub(super) voters: Vec<String>,
    /// The nodes whose replicas only follow.
    pub(super) learners: Vec<String>,
    /// A majority of the voters before is needed, too.
    pub(super) is_changing: bool,
    /// The replicas whose nodes answered.
    pub(super) replicas: Vec<ReplicaState>,
}

/// A replica beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplicaState {
    pub(super) node: String,
    pub(super) replica: Replica,
    /// Committed records that it does not have.
    pub(super) lag_records: u64,
    /// How much older its last record is than that of the replica that has most: 0 if it lacks
    /// none, none if it has no records.
    pub(super) lag_ms: Option<u64>,
    /// It has what was committed when first asked, and can take more.
    pub(super) in_step: bool,
}

/// Something that a person should know of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// By name.
    pub(super) partition: String,
    /// The same words for all partitions of which the same is to be said.
    pub(super) what: String,
}

/// What nodes say of their replicas, by id.
type Answers = BTreeMap<String, Result<Replicas, String>>;

impl View {
    /// Asks everybody.
    pub(super) async fn gather(client: &Client) -> Result<View, Failure> {
        let cluster = client.describe_cluster().await?;
        if cluster.cluster_id.is_none() {
            let message = format!("node {} has not found its cluster yet", cluster.node_id);
            return Err(Failure::new(Exit::Unavailable, message)
                .hint("check its --join and whether those nodes run, or try again in a moment"));
        }
        let topics = client.list_topics().await?;
        let first = ask(client, &cluster.nodes).await;
        let committed = committed(&first);
        let is_silent = |id: &str| first.get(id).is_some_and(Result::is_err);
        let talking = cluster.nodes.iter().filter(|node| !is_silent(&node.id));
        let talking: Vec<NodeInfo> = talking.cloned().collect();
        let silent = first.iter().filter(|(_, answer)| answer.is_err());
        let silent: Answers = silent.map(|(id, why)| (id.clone(), why.clone())).collect();
        let view = View::new(cluster, topics, first, &committed);
        let in_step = |partition: &Partition| partition.replicas.iter().all(|r| r.in_step);
        if view.partitions.iter().all(in_step) {
            return Ok(view);
        }
        tokio::time::sleep(CATCH_UP).await;
        let mut again = ask(client, &talking).await;
        again.extend(silent);
        Ok(View::new(view.cluster, view.topics, again, &committed))
    }

    fn new(
        cluster: ClusterInfo,
        topics: Vec<Topic>,
        answers: Answers,
        committed: &BTreeMap<Name, u64>,
    ) -> View {
        let mut partitions: BTreeMap<Name, Partition> = BTreeMap::new();
        let staying = cluster.nodes.iter().filter(|node| !node.draining).count();
        for topic in &topics {
            let replicas = topic.settings.replicas.unwrap_or(1);
            let wanted = usize::try_from(replicas).unwrap_or(usize::MAX).min(staying).max(1);
            for info in &topic.partitions {
                let name = (topic.name.clone(), info.partition);
                let target = info.replicas.clone();
                partitions.insert(name, Partition { wanted, target, ..Partition::default() });
            }
        }
        let (mut silent, mut hidden) = (BTreeMap::new(), BTreeMap::new());
        for (node, answer) in answers {
            match answer {
                Err(why) => drop(silent.insert(node, why)),
                Ok(replicas) => {
                    hidden.insert(node.clone(), replicas.hidden);
                    for replica in replicas.seen {
                        let name = (replica.topic.clone(), replica.partition);
                        let partition = partitions.entry(name).or_default();
                        partition.replicas.push(ReplicaState::new(node.clone(), replica));
                    }
                }
            }
        }
        let alive = |id: &str| cluster.nodes.iter().any(|node| node.id == id && node.alive);
        let mut complete = |(name, mut partition): (Name, Partition)| {
            partition.compare(committed.get(&name).copied().unwrap_or(0), &alive);
            (partition.topic, partition.partition) = name;
            partition
        };
        let partitions = partitions.into_iter().map(&mut complete).collect();
        View { cluster, topics, silent, hidden, partitions }
    }

    /// The node that a person means by an id, a name, an address, or the start of an id.
    pub(super) fn node(&self, text: &str) -> Result<&NodeInfo, Failure> {
        find(&self.cluster.nodes, text)
    }

    /// Everything but the metadata.
    pub(super) fn of_topics(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter(|partition| !partition.is_metadata())
    }

    /// Why a node may not be stopped now: the partitions that would have no majority of voters in
    /// step without it, and what each would have; and what cannot be seen. Empty: it may.
    pub(super) fn blockers(&self, node: &str) -> Vec<Finding> {
        let found = self.partitions.iter().filter_map(|p| Some((p.name(), p.blocker(node)?)));
        let hidden = self.hidden.get(node).filter(|hidden| **hidden > 0).map(|hidden| {
            let what = "you have no right to see whether others can do without it".to_owned();
            (count(u64::from(*hidden), "replica"), what)
        });
        found.chain(hidden).map(|(partition, what)| Finding { partition, what }).collect()
    }

    /// Whether a node is needed by partitions that nothing can make do without it, other than more
    /// replicas: of two voters, or one, none may stop.
    pub(super) fn is_needed_for_good(&self, node: &str) -> bool {
        let mut needed = self.partitions.iter().filter(|p| p.blocker(node).is_some());
        needed.any(|partition| partition.voters.len() <= 2 && partition.wanted <= 2)
    }

    /// What people call the node of an id.
    pub(super) fn called<'a>(&'a self, id: &'a str) -> &'a str {
        self.cluster.nodes.iter().find(|node| node.id == id).map_or(id, called)
    }
}

impl Partition {
    /// The metadata is the one partition of a topic that no topic is listed for.
    pub(super) fn is_metadata(&self) -> bool {
        self.topic.starts_with("__")
    }

    /// As people know it.
    pub(super) fn name(&self) -> String {
        match self.is_metadata() {
            true => "the metadata".to_owned(),
            false => format!("{}-{}", self.topic, self.partition),
        }
    }

    /// Voters that are in step.
    pub(super) fn in_step(&self) -> impl Iterator<Item = &ReplicaState> {
        self.replicas.iter().filter(|r| r.in_step && self.voters.contains(&r.node))
    }

    /// It has fewer voters in step than it should.
    pub(super) fn is_under_replicated(&self) -> bool {
        self.in_step().count() < self.wanted
    }

    /// A node has a replica of it, is to have one, or may still have one.
    pub(super) fn concerns(&self, node: &str) -> bool {
        [&self.voters, &self.learners, &self.target].into_iter().flatten().any(|id| id == node)
    }

    fn compare(&mut self, committed_first: u64, alive: &dyn Fn(&str) -> bool) {
        let newest = self.replicas.iter().max_by_key(|r| (r.leads(), r.replica.term));
        let leading = self.replicas.iter().filter(|r| r.leads()).max_by_key(|r| r.replica.term);
        let told = newest.and_then(|r| r.replica.leader.clone()).filter(|leader| alive(leader));
        // What a leader of an older term says of itself is not news to the others.
        let term = self.replicas.iter().map(|r| r.replica.term).max().unwrap_or(0);
        self.leader = leading.filter(|r| r.replica.term == term).map(|r| r.node.clone()).or(told);
        if let Some(newest) = newest {
            self.voters.clone_from(&newest.replica.voters);
            self.learners.clone_from(&newest.replica.learners);
            self.is_changing = newest.replica.changing;
        }
        let committed = self.replicas.iter().map(|r| r.replica.committed_offset).max().unwrap_or(0);
        let newest_ms =
            self.replicas.iter().map(|r| r.replica.last_timestamp_ms).max().unwrap_or(0);
        for state in &mut self.replicas {
            let replica = &state.replica;
            state.lag_records = committed.saturating_sub(replica.end_offset);
            let lag_ms = newest_ms.saturating_sub(replica.last_timestamp_ms);
            state.lag_ms = match state.lag_records {
                0 => Some(0),
                _ if replica.last_timestamp_ms <= 0 => None,
                _ => u64::try_from(lag_ms).ok(),
            };
            state.in_step = replica.fault.is_none()
                && replica.end_offset >= committed_first
                && replica.term == term
                && replica.leader.is_some();
        }
        if self.wanted == 0 {
            self.wanted = self.voters.len();
        }
    }

    fn blocker(&self, node: &str) -> Option<String> {
        if self.voters.is_empty() {
            let concerned = self.target.iter().any(|id| id == node);
            return concerned.then(|| "none of its replicas answers".to_owned());
        }
        if !self.voters.iter().any(|id| id == node) {
            return None;
        }
        if self.is_changing {
            return Some("its voters are just changing".to_owned());
        }
        if self.voters.len() == 1 {
            return Some("no other replica votes".to_owned());
        }
        let (of, needed) = (self.voters.len(), self.voters.len() / 2 + 1);
        let left = self.in_step().filter(|replica| replica.node != node).count();
        (left < needed)
            .then(|| format!("{left} of {of} voters would be left in step, {needed} are needed"))
    }
}

impl ReplicaState {
    fn new(node: String, replica: Replica) -> ReplicaState {
        ReplicaState { node, replica, lag_records: 0, lag_ms: None, in_step: false }
    }

    /// It says of itself that it leads.
    fn leads(&self) -> bool {
        self.replica.leader.as_ref() == Some(&self.node)
    }
}

/// The node that a person means: its id, name or address, or the start of its id.
pub(super) fn find<'a>(nodes: &'a [NodeInfo], text: &str) -> Result<&'a NodeInfo, Failure> {
    let exact = |node: &&NodeInfo| [&node.id, &node.name, &node.address].iter().any(|t| *t == text);
    let starts = |node: &&NodeInfo| !text.is_empty() && node.id.starts_with(text);
    // Nodes without a name are not called "".
    let mut found: Vec<&NodeInfo> =
        nodes.iter().filter(|_| !text.is_empty()).filter(exact).collect();
    if found.is_empty() {
        found = nodes.iter().filter(starts).collect();
    }
    match found[..] {
        [node] => Ok(node),
        [] => Err(Failure::new(Exit::NotFound, format!("the cluster has no node {text:?}"))
            .hint("`dislog cluster status` shows the nodes with their ids, names and addresses")),
        [_, _, ..] => {
            let ids: Vec<&str> = found.iter().map(|node| node.id.as_str()).collect();
            let message = format!("{text:?} may be any of these nodes: {}", ids.join(", "));
            Err(Failure::usage(message).hint("give the whole id"))
        }
    }
}

/// What people call a node.
pub(super) fn called(node: &NodeInfo) -> &str {
    if node.name.is_empty() { &node.address } else { &node.name }
}

async fn ask(client: &Client, nodes: &[NodeInfo]) -> Answers {
    let asked = nodes.iter().map(|node| async {
        let answer = match client.node(&node.address, ANSWER_MAX) {
            Ok(node) => node.describe_replicas().await,
            Err(error) => Err(error),
        };
        (node.id.clone(), answer.map_err(|error| plain(&error)))
    });
    join_all(asked).await.into_iter().collect()
}

/// Why a node did not answer, without what led to it.
pub(super) fn plain(error: &Error) -> String {
    match error {
        Error::Timeout { last, .. } => last.rsplit(": ").next().unwrap_or(last).to_owned(),
        error => error.to_string(),
    }
}

fn committed(answers: &Answers) -> BTreeMap<Name, u64> {
    let mut committed = BTreeMap::new();
    for replica in answers.values().flatten().flat_map(|replicas| &replicas.seen) {
        let name = (replica.topic.clone(), replica.partition);
        let offset: &mut u64 = committed.entry(name).or_default();
        *offset = replica.committed_offset.max(*offset);
    }
    committed
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
