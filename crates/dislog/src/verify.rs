//! `dislog verify`: reads every byte of a stopped node's logs and says what is damaged, and where.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dislog_log::fs::RealFs;
use dislog_log::{Finding, FindingKind, Report};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use crate::args::FormatArg;
use crate::failure::{Exit, Failure};
use crate::output::{Format, Outcome, Output};

const NOTES: &str = "\
Reads only, and changes nothing. Stop the node first: what it is writing looks like a torn end.

Exit codes: 0 every record verifies; 1 damage was found; 2 there is no log, or it cannot be read. A
torn end (of an unfinished write, never acknowledged) and a bad index (made anew from the store)
are reported and are no damage.";

/// Arguments of `dislog verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct VerifyArgs {
    /// A node's data directory, or the directory of one partition
    dir: PathBuf,
    #[command(flatten)]
    format: FormatArg,
}

/// One partition's result, as JSON shows it.
#[derive(Debug, Serialize)]
struct Verified {
    partition: String,
    dir: String,
    segments: u64,
    frames: u64,
    records: u64,
    bytes: u64,
    start_offset: u64,
    end_offset: u64,
    damaged: bool,
    findings: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    kind: &'static str,
    file: String,
    position: u64,
    from_offset: u64,
    to_offset: u64,
    what: String,
}

/// Verifies every partition.
pub(crate) fn run(args: &VerifyArgs, output: &mut Output) -> Outcome {
    let mut results = Vec::new();
    for dir in partitions(&args.dir)? {
        let report = dislog_log::verify(&RealFs, &dir)
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        results.push(verified(&dir, report));
    }
    match args.format.format {
        Format::Json => output.json(&results)?,
        Format::Table => show(&results, output)?,
    }
    output.flush()?;
    let damaged = results.iter().filter(|result| result.damaged).count();
    if damaged == 0 {
        return Ok(());
    }
    let message = format!("{damaged} of {} partitions are damaged", results.len());
    Err(Failure::new(Exit::Failed, message)
        .hint("restore the files named above from a backup; records outside the ranges can be read")
        .into())
}

/// The directories of partitions in `dir`: its own if it has store files, else those below it.
fn partitions(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error: io::Error| {
        Failure::new(Exit::Usage, format!("cannot read {}: {error}", dir.display()))
            .hint("give a node's data directory, or the directory of one partition")
    };
    if is_partition(dir).map_err(unreadable)? {
        return Ok(vec![dir.to_owned()]);
    }
    let below = dir.join("partitions");
    let parent = if below.is_dir() { &below } else { dir };
    let mut found = Vec::new();
    for entry in fs::read_dir(parent).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() && is_partition(&path).map_err(unreadable)? {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() && !below.is_dir() {
        return Err(Failure::usage(format!("there is no log in {}", dir.display()))
            .hint("give a node's data directory, or the directory of one partition"));
    }
    Ok(found)
}

/// Whether a directory is that of a partition: it holds a store, or what is left beside one.
fn is_partition(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_store = path.extension().is_some_and(|extension| extension == "store");
        if is_store || path.ends_with("vote") || path.ends_with("checkpoint") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn verified(dir: &Path, report: Report) -> Verified {
    let partition = dir.file_name().unwrap_or(dir.as_os_str());
    Verified {
        partition: partition.to_string_lossy().into_owned(),
        dir: dir.display().to_string(),
        segments: report.segments,
        frames: report.frames,
        records: report.records,
        bytes: report.bytes,
        start_offset: report.start_offset,
        end_offset: report.end_offset,
        damaged: report.findings.iter().any(|finding| finding.kind == FindingKind::Damage),
        findings: report.findings.into_iter().map(found).collect(),
    }
}

fn found(finding: Finding) -> Found {
    Found {
        kind: match finding.kind {
            FindingKind::Damage => "damage",
            FindingKind::TornTail => "torn_tail",
            FindingKind::Hint => "hint",
        },
        file: finding.file.display().to_string(),
        position: finding.position,
        from_offset: finding.offsets.start,
        to_offset: finding.offsets.end,
        what: finding.what,
    }
}

fn show(results: &[Verified], output: &mut Output) -> Outcome {
    let row = |result: &Verified| {
        vec![
            result.partition.clone(),
            HumanCount(result.segments).to_string(),
            HumanCount(result.records).to_string(),
            HumanBytes(result.bytes).to_string(),
            format!("{}:{}", result.start_offset, result.end_offset),
            if result.damaged { "DAMAGED" } else { "sound" }.to_owned(),
        ]
    };
    let header = ["PARTITION", "SEGMENTS", "RECORDS", "SIZE", "OFFSETS", "RESULT"];
    output.table(&header, &header[1..5], results.iter().map(row).collect())?;
    for finding in results.iter().flat_map(|result| &result.findings) {
        output.line(&finding_line(finding))?;
    }
    Ok(())
}

fn finding_line(finding: &Found) -> String {
    let kind = match finding.kind {
        "torn_tail" => "torn end, cut off at the next start",
        "hint" => "made anew at the next start",
        kind => kind,
    };
    let offsets = match finding.from_offset == finding.to_offset {
        true => String::new(),
        false => format!(", offsets {}:{}", finding.from_offset, finding.to_offset),
    };
    format!("{kind}: {} at byte {}{offsets}: {}", finding.file, finding.position, finding.what)
}
