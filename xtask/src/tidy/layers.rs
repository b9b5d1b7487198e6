//! Layers: a crate exists only to forbid a dependency, and this is where it is forbidden.
//!
//! Dependencies of tests are free: a client may be tested against the server.

use toml::Table;

use crate::finding::Finding;
use crate::source::Source;

/// What one crate may depend on. A name stands also for all that begin with it and a `-`.
enum Allowed {
    /// These and nothing else.
    Only(&'static [&'static str]),
    /// Anything but these.
    AllBut(&'static [&'static str]),
}
use Allowed::{AllBut, Only};

/// The layers of ARCHITECTURE.md.
const LAYERS: [(&str, Allowed); 9] = [
    ("dislog-types", Only(&["bytes", "crc-fast", "lz4_flex", "thiserror", "zstd"])),
    (
        "dislog-log",
        AllBut(&[
            "axum",
            "prost",
            "protobuf",
            "raft",
            "serde",
            "serde_json",
            "tokio",
            "tonic",
            "dislog-client",
            "dislog-cluster",
            "dislog-proto",
            "dislog-server",
            "dislog",
        ]),
    ),
    (
        "dislog-tls",
        AllBut(&[
            "axum",
            "hyper",
            "tonic",
            "dislog-client",
            "dislog-cluster",
            "dislog-log",
            "dislog-proto",
            "dislog-server",
            "dislog-types",
        ]),
    ),
    ("dislog-proto", AllBut(&["dislog-client", "dislog-cluster", "dislog-log", "dislog-server"])),
    (
        "dislog-cluster",
        AllBut(&[
            "axum",
            "casbin",
            "hyper",
            "rustls",
            "tokio-rustls",
            "tonic",
            "dislog-client",
            "dislog-server",
        ]),
    ),
    ("dislog-server", AllBut(&["dislog-client", "dislog-log", "foca", "raft"])),
    ("dislog-client", AllBut(&["dislog-cluster", "dislog-log", "dislog-server", "foca", "raft"])),
    ("dislog", AllBut(&["foca", "raft"])),
    (
        "dislog-sim",
        AllBut(&["foca", "raft", "tokio", "dislog-client", "dislog-proto", "dislog-server"]),
    ),
];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let manifests = sources.iter().filter(|source| source.path.ends_with("Cargo.toml"));
    manifests.flat_map(check_manifest).collect()
}

fn check_manifest(source: &Source) -> Vec<Finding> {
    let table: Table = match source.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new(&source.path, 1, format!("not TOML: {error}"))],
    };
    let name = table.get("package").and_then(|package| package.get("name"));
    let name = name.and_then(|name| name.as_str()).unwrap_or_default();
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
        return Vec::new();
    };
    dependencies(&table)
        .into_iter()
        .filter_map(|dependency| forbidden(name, allowed, &dependency).map(|m| (dependency, m)))
        .map(|(dependency, message)| {
            Finding::new(&source.path, line_of(&source.text, &dependency), message)
        })
        .collect()
}

/// The names in `[dependencies]`, `[build-dependencies]` and their forms for one target.
fn dependencies(table: &Table) -> Vec<String> {
    let targets = table.get("target").and_then(|targets| targets.as_table());
    let targets = targets.into_iter().flatten().filter_map(|(_, target)| target.as_table());
    std::iter::once(table)
        .chain(targets)
        .flat_map(|table| ["dependencies", "build-dependencies"].map(|key| table.get(key)))
        .filter_map(|section| section?.as_table())
        .flatten()
        .map(|(key, value)| {
            let renamed = value.get("package").and_then(|package| package.as_str());
            renamed.unwrap_or(key).to_owned()
        })
        .collect()
}

fn forbidden(name: &str, allowed: &Allowed, dependency: &str) -> Option<String> {
    let is = |family: &str| {
        let rest = dependency.strip_prefix(family);
        // `dislog` is the binary, not the family of all crates here.
        rest.is_some_and(|rest| rest.is_empty() || (family != "dislog" && rest.starts_with('-')))
    };
    match allowed {
        Only(names) if !names.contains(&dependency) => Some(format!(
            "{name} may depend only on {}: move what needs {dependency} up",
            names.join(", ")
        )),
        AllBut(names) if names.iter().any(|family| is(family)) => Some(format!(
            "{name} must not depend on {dependency}: see the layers in ARCHITECTURE.md"
        )),
        _ => None,
    }
}

fn line_of(text: &str, dependency: &str) -> usize {
    let found = text.lines().position(|line| line.trim_start().starts_with(dependency));
    found.map_or(1, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependencies}\n");
        check(&[Source::new("Cargo.toml", text)]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_layer_catches_a_violation() {
        for (name, dependency) in [
            ("dislog-types", "tokio"),
            ("dislog-log", "serde_json"),
            ("dislog-log", "tokio-stream"),
            ("dislog-proto", "dislog-log"),
            ("dislog-cluster", "tonic-types"),
            ("dislog-cluster", "tokio-rustls"),
            ("dislog-server", "dislog-log"),
            ("dislog-server", "raft"),
            ("dislog-client", "dislog-cluster"),
            ("dislog", "raft"),
            ("dislog-sim", "tokio"),
            ("dislog-sim", "dislog-server"),
        ] {
            let found = found(name, &format!("{dependency}.workspace = true"));
            assert_eq!(found.len(), 1, "{name} on {dependency}");
            assert!(found[0].starts_with("Cargo.toml:4: "), "{}", found[0]);
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        assert!(found("dislog-types", "bytes = \"1\"\nzstd.workspace = true").is_empty());
        assert!(found("dislog-server", "dislog-cluster = { path = \"x\" }").is_empty());
        assert!(found("dislog-log", "dislog-types.workspace = true").is_empty());
        assert!(found("dislog-client", "[dev-dependencies]\ndislog-server = \"1\"").is_empty());
    }

    #[test]
    fn renaming_and_targets_hide_nothing() {
        assert_eq!(found("dislog-log", "t = { package = \"tokio\", version = \"1\" }").len(), 1);
        assert_eq!(
            found("dislog-log", "[target.'cfg(unix)'.dependencies]\ntokio = \"1\"").len(),
            1
        );
        assert_eq!(found("dislog-types", "[build-dependencies]\ntokio = \"1\"").len(), 1);
    }
}
