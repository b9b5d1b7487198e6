//! Where a node's telemetry goes: standard error, for people on a terminal, as JSON elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

use crate::failure::Failure;

/// How telemetry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Text on a terminal, JSON elsewhere.
    pub(crate) fn for_stderr() -> LogFormat {
        match io::stderr().is_terminal() {
            true => LogFormat::Text,
            false => LogFormat::Json,
        }
    }
}

/// Starts to write telemetry that passes `filter`: a level, or `tracing` directives.
///
/// # Errors
/// If the filter cannot be understood.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter: Targets = filter.parse().map_err(|error| {
        Failure::usage(format!("log filter {filter:?}: {error}")).hint(
            "give a level (error, warn, info, debug, trace) or directives such as info,raft=debug",
        )
    })?;
    // A closed standard error is not an error: the layer would answer it with a panic.
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false);
    let layer = match format {
        LogFormat::Text => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    Registry::default().with(layer.with_filter(filter)).init();
    Ok(())
}
