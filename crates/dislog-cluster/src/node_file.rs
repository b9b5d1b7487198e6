//! `node.toml`: who this node is. Born with the data directory, never changed.
//!
//! ```text
//! format_version = 1
//! node_id = "0123456789abcdef"
//! cluster_id = "0123456789abcdef"
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
const FORMAT_VERSION: u64 = 1;

/// The name of the file in the data directory.
const FILE_NAME: &str = "node.toml";

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeFile {
    /// The node, random, never 0.
    pub(crate) node_id: u64,
    /// The cluster it belongs to, random, never 0.
    pub(crate) cluster_id: u64,
}

/// Reads the file in `data_dir`, or makes it with random ids if the directory has none.
pub(crate) fn open(fs: &dyn Fs, data_dir: &Path) -> Result<NodeFile, OpenError> {
    let path = data_dir.join(FILE_NAME);
    let unusable = |message: String| OpenError::Unusable { path: path.clone(), message };
    match atomic_file::read(fs, &path).map_err(|error| unusable(error.to_string()))? {
        Some(content) => parse(&content).map_err(unusable),
        None => {
            let born = NodeFile { node_id: random_id(fs), cluster_id: random_id(fs) };
            let content = render(born);
            atomic_file::replace(fs, &path, content.as_bytes())
                .map_err(|error| unusable(format!("it cannot be written: {error}")))?;
            Ok(born)
        }
    }
}

fn random_id(fs: &dyn Fs) -> u64 {
    loop {
        match fs.random() {
            0 => {}
            id => return id,
        }
    }
}

fn render(node: NodeFile) -> String {
    format!(
        "# Who this node is. Do not edit, and do not copy to another node.\n\
         format_version = {FORMAT_VERSION}\n\
         node_id = \"{:016x}\"\n\
         cluster_id = \"{:016x}\"\n",
        node.node_id, node.cluster_id
    )
}

fn parse(content: &[u8]) -> Result<NodeFile, String> {
    let text = std::str::from_utf8(content).map_err(|_| "it is not text".to_owned())?;
    let (mut version, mut node_id, mut cluster_id) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} has no value"))?;
        let value = value.trim();
        match key.trim() {
            "format_version" => version = value.parse::<u64>().ok(),
            "node_id" => node_id = parse_id(value),
            "cluster_id" => cluster_id = parse_id(value),
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
    let node_id = node_id.ok_or("node_id is missing or not 16 hexadecimal digits in quotes")?;
    let cluster_id =
        cluster_id.ok_or("cluster_id is missing or not 16 hexadecimal digits in quotes")?;
    Ok(NodeFile { node_id, cluster_id })
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

    #[test]
    fn what_is_rendered_parses() {
        let node = NodeFile { node_id: 1, cluster_id: u64::MAX };
        assert_eq!(parse(render(node).as_bytes()).unwrap(), node);
    }

    #[test]
    fn anything_else_is_refused() {
        let good = render(NodeFile { node_id: 7, cluster_id: 8 });
        for (from, to) in [
            ("format_version = 1", "format_version = 2"),
            ("format_version = 1", ""),
            ("node_id = \"0000000000000007\"", "node_id = 7"),
            ("node_id = \"0000000000000007\"", "node_id = \"0000000000000000\""),
            ("cluster_id", "colour"),
            ("cluster_id = ", "cluster_id "),
        ] {
            assert!(good.contains(from));
            assert!(parse(good.replace(from, to).as_bytes()).is_err(), "{from} -> {to}");
        }
        assert!(parse(b"\xff\xfe").is_err());
        assert!(parse(b"").is_err());
        for cut in 0..good.trim_end().len() {
            assert!(parse(&good.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }
}
