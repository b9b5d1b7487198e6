//! The one list of settings.

use std::path::{Path, PathBuf};

use super::quantity::{parse_bytes, parse_ms, show_bytes, show_ms};
use super::{Config, Insecure};

/// One setting: how it is named, read, shown and explained.
pub(super) struct Setting {
    /// Its name in the file; upper case after `DISLOG_` in the environment; with dashes as a flag.
    pub(super) key: &'static str,
    /// A sentence for people.
    pub(super) meaning: &'static str,
    /// Takes a value, or says what the setting takes.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// The value as TOML.
    pub(super) show: fn(&Config) -> String,
}

/// Every setting, in the order people read them.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "data_dir",
        meaning: "Where everything is kept.",
        set: |config, text| {
            config.data_dir = PathBuf::from(non_empty(text)?);
            Ok(())
        },
        show: |config| quoted(&config.data_dir.to_string_lossy()),
    },
    Setting {
        key: "name",
        meaning: "What people call this node. Empty: its address.",
        set: |config, text| {
            text.clone_into(&mut config.name);
            Ok(())
        },
        show: |config| quoted(&config.name),
    },
    Setting {
        key: "listen",
        meaning: "The `host:port` to listen on, for gRPC and HTTP alike. Port 0 takes a free one.",
        set: |config, text| {
            config.listen = host_port(text)?;
            Ok(())
        },
        show: |config| quoted(&config.listen),
    },
    Setting {
        key: "advertise",
        meaning: "The `host:port` that clients and other nodes dial to reach this node, which \
            dials itself by it when it starts. Empty: the address listened on; if that is all \
            addresses, one of this machine's.",
        set: |config, text| {
            config.advertise = if text.is_empty() { String::new() } else { host_port(text)? };
            Ok(())
        },
        show: |config| quoted(&config.advertise),
    },
    Setting {
        key: "tls_dir",
        meaning: "Where `tls.crt`, `tls.key` and `ca.crt` are: this node's certificate and key, \
            and the authority whose certificates it takes. They are read again when they change.",
        set: |config, text| {
            config.tls_dir = if text.is_empty() { None } else { Some(PathBuf::from(text)) };
            Ok(())
        },
        show: |config| {
            let dir = config.tls_dir.as_ref();
            quoted(&dir.map_or_else(String::new, |dir| dir.to_string_lossy().into_owned()))
        },
    },
    Setting {
        key: "insecure",
        meaning: "Do without certificates: nothing is encrypted, and whoever reaches the node may \
            do everything. `loopback` allows that on this machine, `anywhere` wherever the node \
            listens.",
        set: |config, text| {
            config.insecure = match text {
                "no" => Insecure::No,
                "loopback" => Insecure::Loopback,
                "anywhere" => Insecure::Anywhere,
                _ => return Err("give no, loopback or anywhere".to_owned()),
            };
            Ok(())
        },
        show: |config| {
            quoted(match config.insecure {
                Insecure::No => "no",
                Insecure::Loopback => "loopback",
                Insecure::Anywhere => "anywhere",
            })
        },
    },
    Setting {
        key: "join",
        meaning: "Nodes of the cluster to join, `host:port` each, separated by commas. Empty: the \
            node forms a cluster by itself, unless it belongs to one already.",
        set: |config, text| {
            let given = text.split(',').map(str::trim).filter(|text| !text.is_empty());
            config.join = given.map(host_port).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| quoted(&config.join.join(",")),
    },
    Setting {
        key: "bootstrap_expect",
        meaning: "So many nodes that see each other, and no cluster, form a new one: the same \
            number on each of the first nodes. 0: without `join`, the node forms one by itself.",
        set: |config, text| {
            let count = text.parse().map_err(|_| "give a whole number".to_owned())?;
            config.bootstrap_expect = u32::try_from(within(count, 0, 100, |n| n.to_string())?)
                .expect("it is at most 100");
            Ok(())
        },
        show: |config| config.bootstrap_expect.to_string(),
    },
    Setting {
        key: "rack",
        meaning: "What fails together with this node, such as a rack or a zone: replicas are \
            spread over them.",
        set: |config, text| {
            text.clone_into(&mut config.rack);
            Ok(())
        },
        show: |config| quoted(&config.rack),
    },
    Setting {
        key: "replace_after_ms",
        meaning: "How long a node may be away before its replicas are given to others.",
        set: |config, text| {
            config.replace_after_ms = within(parse_ms(text)?, 1_000, 31_536_000_000, show_ms)?;
            Ok(())
        },
        show: |config| quantity(show_ms(config.replace_after_ms)),
    },
    Setting {
        key: "auto_create_topics",
        meaning: "Create a topic when a record is first produced to it.",
        set: |config, text| {
            config.auto_create_topics = boolean(text)?;
            Ok(())
        },
        show: |config| config.auto_create_topics.to_string(),
    },
    Setting {
        key: "retention_bytes",
        meaning: "Sealed segments are deleted while a partition holds more than this. 0 keeps \
            everything. A topic may say otherwise.",
        set: |config, text| {
            config.retention_bytes = parse_bytes(text)?;
            Ok(())
        },
        show: |config| quantity(show_bytes(config.retention_bytes)),
    },
    Setting {
        key: "retention_ms",
        meaning: "Sealed segments are deleted once their newest record is older than this. 0 keeps \
            everything. A topic may say otherwise.",
        set: |config, text| {
            config.retention_ms = parse_ms(text)?;
            Ok(())
        },
        show: |config| quantity(show_ms(config.retention_ms)),
    },
    Setting {
        key: "auth_dir",
        meaning: "The directory of the rules of who may do what, watched while the node runs: \
            `policy.csv`, and if need be `model.conf`, `auth.toml`, `jwks.json`. Empty: no rules.",
        set: |config, text| {
            config.auth_dir = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        },
        show: |config| {
            let dir = config.auth_dir.as_deref().unwrap_or(Path::new(""));
            quoted(&dir.to_string_lossy())
        },
    },
    Setting {
        key: "log_filter",
        meaning: "Which telemetry is logged: a level (`error`, `warn`, `info`, `debug`, `trace`) \
            or `tracing` directives.",
        set: |config, text| {
            non_empty(text)?.clone_into(&mut config.log_filter);
            Ok(())
        },
        show: |config| quoted(&config.log_filter),
    },
];

const SETTINGS_MAX: usize = 15;
const _: () = assert!(SETTINGS.len() <= SETTINGS_MAX, "more settings than anyone would read");

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A plain number stays one; with a unit it is a text.
fn quantity(shown: String) -> String {
    if shown.parse::<u64>().is_ok() { shown } else { quoted(&shown) }
}

fn non_empty(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("it must not be empty".to_owned()) } else { Ok(text) }
}

fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "give true or false".to_owned())
}

fn host_port(text: &str) -> Result<String, String> {
    let expected = || "give host:port, such as 127.0.0.1:8400 or [::1]:8400".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(expected());
    }
    Ok(text.to_owned())
}

fn within(value: u64, least: u64, most: u64, show: fn(u64) -> String) -> Result<u64, String> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(format!("give something from {} to {}", show(least), show(most)))
}
