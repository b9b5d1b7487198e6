//! `node.toml`: who this node is. Born with the data directory; the cluster is added once, when the
//! node finds it or founds it.
//!
//! ```text
//! format_version = 2
//! node_id = "0123456789abcdef"
//! metadata_replica = "0123456789abcdef"
//! cluster_id = "0123456789abcdef"
//! founder = "0123456789abcdef"
//! ```
//!
//! The file is TOML so that people can read it; only this much of TOML is understood: `key = value`
//! lines, a value in quotes or a number, comments. Keys that are not known are an error: a newer
//! version wrote them.

use std::path::Path;

use dislog_log::fs::Fs;

use crate::atomic_file;
use crate::error::OpenError;

/// The version of the data directory that this program writes and reads.
const FORMAT_VERSION: u64 = 2;

/// The name of the file in the data directory.
const FILE_NAME: &str = "node.toml";

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeFile {
    /// The node, random, never 0.
    pub(crate) node_id: u64,
    /// Its replica of the metadata, random, never 0.
    pub(crate) metadata_replica: u64,
    /// The cluster it belongs to, once it does.
    pub(crate) cluster: Option<ClusterIds>,
}

/// What a node remembers of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClusterIds {
    /// Random, never 0.
    pub(crate) cluster_id: u64,
    /// The replica of the metadata that the cluster began with.
    pub(crate) founder: u64,
}

/// Reads the file in `data_dir`, or makes it with random ids if the directory has none.
pub(crate) fn open(fs: &dyn Fs, data_dir: &Path) -> Result<NodeFile, OpenError> {
    let path = data_dir.join(FILE_NAME);
    let unusable = |message: String| OpenError::Unusable { path: path.clone(), message };
    match atomic_file::read(fs, &path).map_err(|error| unusable(error.to_string()))? {
        Some(content) => parse(&content).map_err(unusable),
        None => {
            let (node_id, metadata_replica) = (random_id(fs), random_id(fs));
            let born = NodeFile { node_id, metadata_replica, cluster: None };
            write(fs, data_dir, born)?;
            Ok(born)
        }
    }
}

/// Replaces the file in `data_dir`, durably.
pub(crate) fn write(fs: &dyn Fs, data_dir: &Path, node: NodeFile) -> Result<(), OpenError> {
    let path = data_dir.join(FILE_NAME);
    let written = atomic_file::replace(fs, &path, render(node).as_bytes());
    written.map_err(|error| OpenError::Unusable {
        path,
        message: format!("it cannot be written: {error}"),
    })
}

/// An id that was never given before, as far as chance allows.
pub(crate) fn random_id(fs: &dyn Fs) -> u64 {
    loop {
        match fs.random() {
            0 => {}
            id => return id,
        }
    }
}

fn render(node: NodeFile) -> String {
    let NodeFile { node_id, metadata_replica, cluster } = node;
    let mut text = format!(
        "# Who this node is. Do not edit, and do not copy to another node.\n\
         format_version = {FORMAT_VERSION}\n\
         node_id = \"{node_id:016x}\"\n\
         metadata_replica = \"{metadata_replica:016x}\"\n"
    );
    if let Some(ClusterIds { cluster_id, founder }) = cluster {
        text += &format!("cluster_id = \"{cluster_id:016x}\"\nfounder = \"{founder:016x}\"\n");
    }
    text
}

fn parse(content: &[u8]) -> Result<NodeFile, String> {
    let text = std::str::from_utf8(content).map_err(|_| "it is not text".to_owned())?;
    let mut version = None;
    let (mut node, mut replica, mut cluster, mut founder) = (None, None, None, None);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} has no value"))?;
        let (key, value) = (key.trim(), value.trim());
        let id = || {
            let wrong = || format!("{key} is not 16 hexadecimal digits in quotes");
            parse_id(value).ok_or_else(wrong).map(Some)
        };
        match key {
            "format_version" => version = value.parse::<u64>().ok(),
            "node_id" => node = id()?,
            "metadata_replica" if version == Some(FORMAT_VERSION) => replica = id()?,
            "cluster_id" => cluster = id()?,
            "founder" => founder = id()?,
            other => return Err(format!("{other:?} is not known to this version of Dislog")),
        }
    }
    match version {
        Some(FORMAT_VERSION) => {}
        Some(other) => {
            return Err(format!(
                "the data directory has format {other}, this version reads {FORMAT_VERSION}"
            ));
        }
        None => return Err("format_version is missing or not a number".to_owned()),
    }
    let cluster = match (cluster, founder) {
        (Some(cluster_id), Some(founder)) => Some(ClusterIds { cluster_id, founder }),
        (None, None) => None,
        _ => return Err("cluster_id and founder belong together".to_owned()),
    };
    let node_id = node.ok_or("node_id is missing")?;
    let metadata_replica = replica.ok_or("metadata_replica is missing")?;
    Ok(NodeFile { node_id, metadata_replica, cluster })
}

fn parse_id(value: &str) -> Option<u64> {
    let digits = value.strip_prefix('"')?.strip_suffix('"')?;
    if digits.len() != 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().filter(|&id| id != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterIds = ClusterIds { cluster_id: u64::MAX, founder: 3 };

    fn node(cluster: Option<ClusterIds>) -> NodeFile {
        NodeFile { node_id: 1, metadata_replica: 2, cluster }
    }

    #[test]
    fn what_is_rendered_parses() {
        for node in [node(None), node(Some(CLUSTER))] {
            assert_eq!(parse(render(node).as_bytes()).unwrap(), node);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = render(node(Some(CLUSTER)));
        for (from, to) in [
            ("format_version = 2", "format_version = 3"),
            ("format_version = 2", "format_version = 1"),
            ("format_version = 2", ""),
            ("node_id = \"0000000000000001\"", "node_id = 7"),
            ("node_id = \"0000000000000001\"", "node_id = \"0000000000000000\""),
            ("cluster_id", "colour"),
            ("cluster_id = ", "cluster_id "),
            ("founder = \"0000000000000003\"", ""),
        ] {
            assert!(good.contains(from));
            assert!(parse(good.replace(from, to).as_bytes()).is_err(), "{from} -> {to}");
        }
        assert!(parse(b"\xff\xfe").is_err());
        assert!(parse(b"").is_err());
        let alone = render(node(None));
        for cut in 0..good.trim_end().len() {
            let cut_off = parse(&good.as_bytes()[..cut]);
            assert!(cut_off.is_err() || good[..cut].trim_end() == alone.trim_end(), "{cut}");
        }
    }
}
