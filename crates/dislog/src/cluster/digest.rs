//! `dislog cluster digest`: whether replicas hold the same bytes.
//!
//! Compared is what every replica has: the batches between the highest start and the lowest
//! committed offset, each with its timestamp, read from each node itself as it is stored. The
//! checksum is CRC-64/NVME: it finds what went wrong by itself, not what somebody forged.

use std::collections::BTreeMap;
use std::time::Duration;

use crc_fast::{CrcAlgorithm, Digest};
use dislog_client::{Client, Error, NodeClient, PartitionId};
use dislog_types::BatchHeader;
use futures_util::future::join_all;
use serde::Serialize;

use super::view::{Partition, View, plain};
use crate::failure::{Exit, Failure};
use crate::output::{Format, Outcome, Output};
use crate::topic::count;

/// How long a node may take for a page.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(20);

/// What is read at a time.
const PAGE_BYTES: u32 = 1 << 20;

/// How often a range is taken anew because its start was trimmed meanwhile.
const TRIMS_MAX: usize = 5;

#[derive(Debug, Serialize)]
struct Report {
    /// Every replica could be read, and they are equal.
    equal: bool,
    partitions: Vec<Compared>,
}

#[derive(Debug, Serialize)]
struct Compared {
    topic: String,
    partition: u32,
    /// What was compared: from here,
    from_offset: u64,
    /// up to here, which is not included.
    to_offset: u64,
    /// The replicas that could be read are equal.
    equal: bool,
    replicas: Vec<Summed>,
}

#[derive(Debug, Serialize)]
struct Summed {
    node: String,
    #[serde(skip)]
    called: String,
    start_offset: Option<u64>,
    committed_offset: Option<u64>,
    /// 16 hexadecimal digits.
    checksum: Option<String>,
    /// Why there is no checksum.
    error: Option<String>,
}

/// A replica that can be asked.
struct Reachable {
    node: String,
    client: NodeClient,
    start_offset: u64,
    committed_offset: u64,
}

/// Compares the replicas of a topic, or of all.
pub(super) async fn run(
    client: &Client,
    topic: Option<&str>,
    format: Format,
    output: &mut Output,
) -> Outcome {
    if let Some(topic) = topic {
        // So that one that does not exist is said to be none.
        client.describe_topic(topic).await.map_err(Failure::from)?;
    }
    let view = View::gather(client).await?;
    let mut partitions = Vec::new();
    for partition in view.of_topics().filter(|p| topic.is_none_or(|topic| p.topic == topic)) {
        partitions.push(compare(client, &view, partition).await?);
    }
    let unread = |compared: &Compared| compared.replicas.iter().any(|r| r.error.is_some());
    let equal = partitions.iter().all(|compared| compared.equal && !unread(compared));
    let report = Report { equal, partitions };
    match format {
        Format::Json => output.json(&report)?,
        Format::Table => show(&report, output)?,
    }
    let named = |is: &dyn Fn(&Compared) -> bool| -> Vec<String> {
        let chosen = report.partitions.iter().filter(|compared| is(compared));
        chosen.map(|compared| format!("{}-{}", compared.topic, compared.partition)).collect()
    };
    let (different, incomplete) = (named(&|compared| !compared.equal), named(&unread));
    if !different.is_empty() {
        let message = format!("the replicas differ of {}", different.join(", "));
        return Err(Failure::new(Exit::Failed, message)
            .hint("keep the nodes' directories and report this: it must not happen")
            .into());
    }
    if !incomplete.is_empty() {
        let message = format!("not every replica could be read of {}", incomplete.join(", "));
        return Err(Failure::new(Exit::Unavailable, message)
            .hint("`dislog cluster status` shows which nodes answer")
            .into());
    }
    Ok(())
}

async fn compare(asking: &Client, view: &View, partition: &Partition) -> Result<Compared, Failure> {
    let topic = partition.topic.parse().map_err(Error::from)?;
    let id = PartitionId { topic, partition: partition.partition };
    let mut reachable = Vec::new();
    for state in &partition.replicas {
        let Some(node) = view.cluster.nodes.iter().find(|node| node.id == state.node) else {
            continue;
        };
        reachable.push(Reachable {
            node: state.node.clone(),
            client: asking.node(&node.address, PAGE_WAIT_MAX)?,
            start_offset: state.replica.start_offset,
            committed_offset: state.replica.committed_offset,
        });
    }
    let mut from = reachable.iter().map(|replica| replica.start_offset).max().unwrap_or(0);
    let to = reachable.iter().map(|replica| replica.committed_offset).min().unwrap_or(0);
    let mut sums = BTreeMap::new();
    for _ in 0..TRIMS_MAX {
        let summed = join_all(reachable.iter().map(|r| checksum(&r.client, &id, from, to))).await;
        let earliest = |sum: &Result<u64, Error>| match sum {
            Err(Error::Trimmed { earliest, .. }) => Some(*earliest),
            _ => None,
        };
        let trimmed = summed.iter().filter_map(earliest).max();
        sums = reachable.iter().map(|replica| replica.node.clone()).zip(summed).collect();
        match trimmed {
            Some(start) => from = start,
            None => break,
        }
    }
    let mut replicas: Vec<Summed> = reachable
        .iter()
        .map(|replica| {
            let sum = sums.remove(&replica.node).expect("there is one for each");
            Summed::new(view, &replica.node, Some(replica), sum.map_err(|e| plain(&e)))
        })
        .collect();
    for (node, why) in &view.silent {
        if partition.concerns(node) {
            replicas.push(Summed::new(view, node, None, Err(why.clone())));
        }
    }
    let mut found = replicas.iter().filter_map(|replica| replica.checksum.as_ref());
    let first = found.next();
    let equal = found.all(|other| Some(other) == first);
    Ok(Compared {
        topic: partition.topic.clone(),
        partition: partition.partition,
        from_offset: from,
        to_offset: to.max(from),
        equal,
        replicas,
    })
}

impl Summed {
    fn new(
        view: &View,
        node: &str,
        replica: Option<&Reachable>,
        sum: Result<u64, String>,
    ) -> Summed {
        Summed {
            node: node.to_owned(),
            called: view.called(node).to_owned(),
            start_offset: replica.map(|replica| replica.start_offset),
            committed_offset: replica.map(|replica| replica.committed_offset),
            checksum: sum.as_ref().ok().map(|sum| format!("{sum:016x}")),
            error: sum.err(),
        }
    }
}

/// The checksum of a node's batches from the one with `from` up to `to`.
async fn checksum(node: &NodeClient, id: &PartitionId, from: u64, to: u64) -> Result<u64, Error> {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut offset = from;
    while offset < to {
        let page = node.read_raw(id, offset, PAGE_BYTES).await?;
        for raw in &page.batches {
            let bad = |error: dislog_types::BatchError| Error::BadBatch {
                id: id.clone(),
                offset,
                problem: error.to_string(),
            };
            if BatchHeader::verify(&raw.batch).map_err(bad)?.base_offset < to {
                digest.update(&raw.timestamp_ms.to_le_bytes());
                digest.update(&raw.batch);
            }
        }
        if page.next_offset <= offset {
            let problem = "the node answers with nothing, though it has records".to_owned();
            return Err(Error::BadBatch { id: id.clone(), offset, problem });
        }
        offset = page.next_offset;
    }
    Ok(digest.finalize())
}

fn show(report: &Report, output: &mut Output) -> Outcome {
    let offset = |offset: Option<u64>| offset.map_or_else(|| "?".to_owned(), |o| o.to_string());
    let mut rows = Vec::new();
    for compared in &report.partitions {
        for replica in &compared.replicas {
            rows.push(vec![
                format!("{}-{}", compared.topic, compared.partition),
                replica.called.clone(),
                offset(replica.start_offset),
                offset(replica.committed_offset),
                format!("{}:{}", compared.from_offset, compared.to_offset),
                replica.checksum.clone().or(replica.error.clone()).unwrap_or_default(),
            ]);
        }
    }
    let header = ["PARTITION", "NODE", "START", "COMMITTED", "COMPARED", "CHECKSUM"];
    output.table(&header, &["START", "COMMITTED", "COMPARED"], rows)?;
    if report.equal {
        output.line("")?;
        let partitions = count(report.partitions.len() as u64, "partition");
        output.line(&format!("{partitions}: all replicas are equal"))?;
    }
    Ok(())
}
