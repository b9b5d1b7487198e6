//! Nodes of a cluster that are started, stopped and looked at.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dislog_client::{Client, ClientOptions, Error, TopicSettings};
use dislog_proto::v1;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::log_client::LogClient;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::namespaces::Namespaces;
use crate::node::{HANG, Node, binary};
use crate::ports::free_addresses;
use crate::{NODES, TOPIC};

/// How often a condition that only a server can tell of is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Nodes whose addresses stay.
pub(crate) struct Cluster {
    pub(crate) addresses: Vec<String>,
    /// The data directories, and the home of whoever runs commands.
    dir: TempDir,
    nodes: Vec<Option<Node>>,
    /// Where each node runs, if not beside the test.
    pub(crate) namespaces: Option<Namespaces>,
    is_founded: bool,
}

impl Cluster {
    /// Three nodes that see each other.
    pub(crate) async fn start() -> Cluster {
        Cluster::start_some(free_addresses(NODES), None, NODES).await
    }

    /// The first `count` of the nodes that there may be.
    pub(crate) async fn start_some(
        addresses: Vec<String>,
        namespaces: Option<Namespaces>,
        count: usize,
    ) -> Cluster {
        let nodes = addresses.iter().map(|_| None).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { addresses, dir, nodes, namespaces, is_founded: false };
        for number in 0..count {
            cluster.start_node(number);
        }
        until("all nodes see each other", async || cluster.is_whole(count).await).await;
        cluster
    }

    /// The first one founds the cluster; afterwards each joins whoever there is.
    pub(crate) fn start_node(&mut self, number: usize) {
        let join = self.is_founded.then(|| self.addresses.join(","));
        self.is_founded = true;
        let command = match &self.namespaces {
            Some(namespaces) => namespaces.command(number),
            None => Command::new(binary()),
        };
        let address = &self.addresses[number];
        let node = Node::start_at(command, &self.data_dir(number), address, join.as_deref());
        self.nodes[number] = Some(node);
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.nodes[number].take().unwrap().kill();
    }

    /// Stops it as a supervisor does.
    pub(crate) fn terminate(&mut self, number: usize) {
        let (status, _) = self.nodes[number].take().unwrap().terminate();
        assert!(status.success(), "{status}");
    }

    /// All at once: none has seen another go.
    pub(crate) fn kill_all(&mut self) {
        Node::kill_all(self.nodes.iter_mut().filter_map(Option::take).collect());
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().unwrap()
    }

    pub(crate) fn data_dir(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("data-{number}"))
    }

    /// A client that is given the address of one node.
    pub(crate) fn client(&self, number: usize) -> Client {
        Client::connect([&self.addresses[number]], ClientOptions::default()).unwrap()
    }

    pub(crate) async fn create_topic(&self, client: &Client) {
        self.create_topic_with(client, TopicSettings::default()).await;
    }

    pub(crate) async fn create_topic_with(&self, client: &Client, settings: TopicSettings) {
        match client.create_topic(TOPIC, 1, settings).await {
            // Made by an attempt of which nobody knew, as its leader had lost its office.
            Ok(_) | Err(Error::TopicExists(_)) => {}
            Err(error) => panic!("{error}"),
        }
        until("all nodes vote", async || {
            for (number, _) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_some()) {
                if self.voters(number).await != Some(self.running()) {
                    return false;
                }
            }
            self.leader().await.is_some()
        })
        .await;
    }

    fn running(&self) -> usize {
        self.nodes.iter().flatten().count()
    }

    /// What each of the nodes that run says of the servers.
    async fn servers(&self) -> Vec<Vec<v1::Server>> {
        let mut all = Vec::new();
        for (number, _) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_some()) {
            let asked = v1::GetServersRequest { topic: TOPIC.to_owned(), partition: 0 };
            let Some(mut log) = log(&self.addresses[number]).await else { continue };
            if let Ok(Ok(answer)) = timeout(HANG, log.get_servers(asked)).await {
                all.push(answer.into_inner().servers);
            }
        }
        all
    }

    pub(crate) async fn is_whole(&self, count: usize) -> bool {
        let servers = self.servers().await;
        servers.len() == count && servers.iter().all(|servers| servers.len() == count)
    }

    /// Who leads, once all nodes that run say the same.
    async fn leader(&self) -> Option<usize> {
        let servers = self.servers().await;
        let leader = |servers: &Vec<v1::Server>| {
            Some(servers.iter().find(|server| server.is_leader)?.rpc_addr.clone())
        };
        let first = leader(servers.first()?)?;
        let agreed = servers.iter().all(|servers| leader(servers).as_ref() == Some(&first));
        self.addresses.iter().position(|address| *address == first).filter(|_| agreed)
    }

    pub(crate) async fn agreed_leader(&self) -> usize {
        let mut found = None;
        until("the nodes agree on a leader", async || {
            found = self.leader().await;
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// A node that does not lead: each in its turn.
    pub(crate) async fn follower(&self, round: usize) -> usize {
        (self.agreed_leader().await + 1 + round % (NODES - 1)) % NODES
    }

    async fn voters(&self, number: usize) -> Option<usize> {
        let replicas = self.replicas(number).await?;
        Some(replicas.iter().find(|replica| replica.topic == TOPIC)?.voters.len())
    }

    async fn replicas(&self, number: usize) -> Option<Vec<v1::Replica>> {
        let endpoint = format!("http://{}", self.addresses[number]);
        let mut admin = AdminClient::connect(endpoint).await.ok()?;
        let answer = admin.describe_replicas(v1::DescribeReplicasRequest {}).await.ok()?;
        Some(answer.into_inner().replicas)
    }

    pub(crate) async fn committed_offset(&self, number: usize) -> u64 {
        let replicas = self.replicas(number).await.unwrap_or_default();
        replicas.iter().find(|replica| replica.topic == TOPIC).map_or(0, |r| r.committed_offset)
    }

    pub(crate) async fn hand_over(&self, topic: &str, to: usize) {
        until("the leadership is handed over", async || {
            let transfer = ["cluster", "transfer-leader", topic, "0", &self.addresses[to]];
            self.run(&transfer).await.status.success()
        })
        .await;
    }

    /// A command of a user who knows all addresses.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(binary());
        command.args(args).stdin(Stdio::null()).env_clear().env("HOME", self.dir.path());
        command.env("DISLOG_SERVERS", self.addresses.join(","));
        command.output().await.unwrap()
    }

    /// A command that must be done in the end.
    pub(crate) async fn runs(&self, args: &[&str]) {
        let mut last = None;
        until("the command is done", async || {
            let output = self.run(args).await;
            let is_done = output.status.success();
            last.replace(output);
            is_done || {
                eprintln!("{args:?}: {}", String::from_utf8_lossy(&last.as_ref().unwrap().stderr));
                false
            }
        })
        .await;
    }

    /// `cluster status`, if there is one.
    pub(crate) async fn status(&self) -> Option<Value> {
        let output = self.run(&["cluster", "status", "-o", "json"]).await;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// So many nodes are there, every partition and the metadata have so many voters, each is in
    /// step, and if there are more than two, any node may stop.
    pub(crate) async fn is_well(&self, nodes: usize, voters: usize) -> bool {
        let Some(status) = self.status().await else { return false };
        let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
        let votes = |r: &&Value| r["in_step"] == true && r["role"] != "learner";
        let is_up = |node: &Value| node["alive"] == true && node["answers"] == true;
        let is_spare = |node: &Value| node["may_stop"] == true || voters <= 2;
        let partitions = &status["partitions"];
        let (replicas, of_nodes) = (list("replicas"), list("nodes"));
        let wanted = partitions["total"].as_u64().unwrap_or(0) * voters as u64;
        partitions["leaderless"] == 0
            && partitions["under_replicated"] == 0
            && of_nodes.len() == nodes
            && of_nodes.iter().all(|node| is_up(node) && is_spare(node))
            && of_nodes.iter().filter(|node| node["role"] != "learner").count() == voters
            && replicas.len() as u64 == wanted
            && replicas.iter().filter(votes).count() as u64 == wanted
    }

    pub(crate) async fn until_well(&self, nodes: usize, voters: usize) {
        let is_well = async || self.is_well(nodes, voters).await;
        until("every replica is in step", is_well).await;
    }

    /// Every node has exactly these records, each at its place, and the same bytes.
    pub(crate) async fn check(&self, count: u64) {
        for (number, _) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_some()) {
            until("the node has everything", async || self.committed_offset(number).await >= count)
                .await;
            let mut log = log(&self.addresses[number]).await.unwrap();
            let mut offset = 0;
            while offset < count {
                let answer = log.consume(page_at(offset)).await.unwrap().into_inner();
                assert!(answer.committed_offset == count, "node {number} has more than was sent");
                for record in answer.records {
                    assert_eq!(record.offset, offset, "on node {number}");
                    assert_eq!(record.value, offset.to_string(), "on node {number} at {offset}");
                    offset += 1;
                }
            }
        }
        self.runs(&["cluster", "digest"]).await;
    }
}

/// Asks for a large page of records.
pub(crate) fn page_at(offset: u64) -> v1::ConsumeRequest {
    let topic = TOPIC.to_owned();
    v1::ConsumeRequest { topic, offset, max_bytes: 1 << 20, ..Default::default() }
}

pub(crate) async fn log(address: &str) -> Option<LogClient<tonic::transport::Channel>> {
    LogClient::connect(format!("http://{address}")).await.ok()
}

/// Waits until something holds that only servers can tell.
pub(crate) async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    until_within(HANG, what, holds).await;
}

/// As `until`, for what takes longer.
pub(crate) async fn until_within(
    limit: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) {
    let waiting = async {
        while !holds().await {
            sleep(LOOK).await;
        }
    };
    assert!(timeout(limit, waiting).await.is_ok(), "never: {what}");
}
