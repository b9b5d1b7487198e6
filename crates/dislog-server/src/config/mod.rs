//! The settings of a node: fifteen at most, each with one origin.
//!
//! Limits that nobody needs to set are fields of [`Config`] all the same, so that tests can.
//!
//! A setting comes from the first of these that has it: a flag, `DISLOG_<KEY>` in the environment,
//! the TOML file, the default. Everything that can be said about a setting stands once, in
//! [`settings::SETTINGS`]: the loader, the printed form and the table in `docs/configuration.md`
//! are made from it.

mod quantity;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use quantity::parse_ms;
use settings::{SETTINGS, Setting};

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What people call this node; empty means its address.
    pub name: String,
    /// Where to listen: `host:port`; port 0 takes a free one.
    pub listen: String,
    /// The `host:port` that clients and other nodes dial; empty means the address listened on.
    pub advertise: String,
    /// Where `tls.crt`, `tls.key` and `ca.crt` are.
    pub tls_dir: Option<PathBuf>,
    /// Whether to do without them.
    pub insecure: Insecure,
    /// Nodes of the cluster to join: `host:port` each. None: the node forms a cluster by itself,
    /// unless it belongs to one already.
    pub join: Vec<String>,
    /// So many nodes that see each other, and no cluster, form a new one; 0: one is joined, not
    /// formed.
    pub bootstrap_expect: u32,
    /// What fails together with this node; replicas are spread over racks.
    pub rack: String,
    /// How long a node may be away before its replicas are given to others, milliseconds.
    pub replace_after_ms: u64,
    /// Create a topic when a record is first produced to it.
    pub auto_create_topics: bool,
    /// Keep about this many bytes per partition unless the topic says otherwise; 0 keeps all.
    pub retention_bytes: u64,
    /// Keep records about this long, milliseconds, unless the topic says otherwise; 0 keeps them
    /// for ever.
    pub retention_ms: u64,
    /// Seal a segment when it would grow past this, unless the topic says otherwise.
    pub segment_bytes: u64,
    /// Bytes of appends that may be under way at once; more wait for their turn.
    pub append_bytes_in_flight_max: u64,
    /// Connections that are served at once.
    pub connections_max: u64,
    /// Of these, how many one client may have: a certificate's subject, or an address.
    pub connections_per_client_max: u64,
    /// Requests and streams that one client may have under way.
    pub requests_per_client_max: u64,
    /// Connections beside those that are served, which have not made a request yet. One more takes
    /// the place of another.
    pub guests_max: u64,
    /// How long a client may take to send the head of a request, and how long an idle HTTP/1.1
    /// connection stays open, milliseconds.
    pub header_timeout_ms: u64,
    /// How long a request may take to arrive and an append to be acknowledged, milliseconds.
    pub request_timeout_ms: u64,
    /// How long requests under way may take to end once the node is told to stop, milliseconds.
    pub shutdown_grace_ms: u64,
    /// The directory of the rules of who may do what; none: no rules.
    pub auth_dir: Option<PathBuf>,
    /// Which telemetry is logged, as `tracing` filters say it.
    pub log_filter: String,
}

/// Whether a node does without certificates: then nothing is encrypted, and whoever reaches it may
/// do everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insecure {
    /// It does not.
    No,
    /// It does, for this machine.
    Loopback,
    /// It does, wherever it listens: something else has to protect it.
    Anywhere,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("data"),
            name: String::new(),
            listen: format!("127.0.0.1:{}", dislog_proto::DEFAULT_PORT),
            advertise: String::new(),
            tls_dir: None,
            insecure: Insecure::No,
            join: Vec::new(),
            bootstrap_expect: 0,
            rack: String::new(),
            replace_after_ms: 600_000,
            auto_create_topics: true,
            retention_bytes: 0,
            retention_ms: 0,
            segment_bytes: 128 << 20,
            append_bytes_in_flight_max: 64 << 20,
            connections_max: 1_024,
            connections_per_client_max: 256,
            requests_per_client_max: 4_096,
            guests_max: 512,
            header_timeout_ms: 30_000,
            request_timeout_ms: 30_000,
            shutdown_grace_ms: 1_000,
            auth_dir: None,
            log_filter: "info".to_owned(),
        }
    }
}

/// Where the value of a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of this file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// The flag on the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// The origin of every setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<&'static str, Origin>);

/// Why settings were not taken. Every message names the setting and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong.
        message: String,
    },
    /// No setting has this name.
    #[error("unknown setting {key:?} in {origin}{}", suggestion(nearest))]
    Unknown {
        /// The name as given.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// The known name that is most like it.
        nearest: Option<&'static str>,
    },
    /// The setting cannot have this value.
    #[error("setting {key} in {origin} is {value:?}: {message}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What it was given.
        value: String,
        /// Where it was given.
        origin: Origin,
        /// What it takes.
        message: String,
    },
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest:?}?"),
        None => "; `dislog server --print-config` lists the settings".to_owned(),
    }
}

impl Config {
    /// The settings from a TOML file, `DISLOG_*` variables and flags, each overriding those before
    /// it. Flags are pairs of a setting's name and its value.
    ///
    /// Variables that merely begin with `DISLOG_` are left alone (others use them too), unless they
    /// are a setting's name mistyped.
    ///
    /// # Errors
    /// If the file cannot be read, a name is not known, or a value is not one its setting takes.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<(Config, Origins), ConfigError> {
        let mut loader = Loader { config: Config::default(), origins: Origins::default() };
        if let Some(path) = file {
            loader.file(path)?;
        }
        loader.environment(environment)?;
        for (key, value) in flags {
            loader.set(key, value, Origin::Flag)?;
        }
        Ok((loader.config, loader.origins))
    }

    /// Every setting as a line of TOML with its origin behind it: itself a valid configuration
    /// file.
    #[must_use]
    pub fn print(&self, origins: &Origins) -> String {
        let mut lines = String::new();
        for setting in SETTINGS {
            let value = (setting.show)(self);
            let assignment = format!("{} = {value}", setting.key);
            lines.push_str(&format!("{assignment:<48} # {}\n", origins.of(setting.key)));
        }
        lines
    }

    /// The table of all settings for `docs/configuration.md`.
    #[must_use]
    pub fn documentation() -> String {
        let default = Config::default();
        let mut table = String::from("| setting | default | meaning |\n|---|---|---|\n");
        for Setting { key, meaning, show, .. } in SETTINGS {
            table.push_str(&format!("| `{key}` | `{}` | {meaning} |\n", show(&default)));
        }
        table
    }
}

impl Origins {
    /// Where the value of `key` came from.
    #[must_use]
    pub fn of(&self, key: &str) -> &Origin {
        self.0.get(key).unwrap_or(&Origin::Default)
    }
}

struct Loader {
    config: Config,
    origins: Origins,
}

impl Loader {
    fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        for (key, value) in table {
            self.file_value(&key, value, Origin::File(path.to_owned()))?;
        }
        Ok(())
    }

    fn file_value(
        &mut self,
        key: &str,
        value: toml::Value,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        match value {
            toml::Value::String(text) => self.set(key, &text, origin),
            toml::Value::Integer(_) | toml::Value::Boolean(_) => {
                self.set(key, &value.to_string(), origin)
            }
            other => {
                let setting = find(key).ok_or_else(|| unknown(key, origin.clone()))?;
                let (key, value) = (setting.key, other.to_string());
                let message = "give one value: a text, a whole number, true or false".to_owned();
                Err(ConfigError::Value { key, value, origin, message })
            }
        }
    }

    fn environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (variable, value) in environment {
            let Some(key) = variable.strip_prefix("DISLOG_").map(str::to_lowercase) else {
                continue;
            };
            if find(&key).is_some() || nearest(&key).is_some() {
                self.set(&key, &value, Origin::Environment(variable))?;
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        let setting = find(key).ok_or_else(|| unknown(key, origin.clone()))?;
        if let Err(message) = (setting.set)(&mut self.config, value) {
            let value = value.to_owned();
            return Err(ConfigError::Value { key: setting.key, value, origin, message });
        }
        self.origins.0.insert(setting.key, origin);
        Ok(())
    }
}

fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

fn unknown(key: &str, origin: Origin) -> ConfigError {
    ConfigError::Unknown { key: key.to_owned(), origin, nearest: nearest(key) }
}

/// The known name that `key` is most likely a slip of: at most three edits away and not mostly
/// different.
fn nearest(key: &str) -> Option<&'static str> {
    let scored = SETTINGS.iter().map(|setting| (edits(key, setting.key), setting.key));
    let (distance, nearest) = scored.min()?;
    (distance <= 3 && distance * 3 <= key.len()).then_some(nearest)
}

/// The Levenshtein distance of two short names.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
