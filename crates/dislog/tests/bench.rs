//! `dislog bench` from end to end: every measurement runs, verifies what it added, and leaves
//! nothing behind.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;

/// The report of a short run in `dir`.
fn bench(dir: &Path, args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_dislog"))
        .current_dir(dir)
        .arg("bench")
        .args(args)
        .args(["--format", "json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "{args:?} left something behind");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn short(dir: &Path, args: &[&str], times: u32) -> Value {
    // Who sends ahead has thousands of records under way before the first are acknowledged.
    let ms = if args.contains(&"--batched") { 1_000 } else { 300 };
    let duration = format!("{}ms", ms * times);
    let short = ["--duration", &duration, "--warm-up", "50ms", "--probe", "20ms"];
    bench(dir, &[args, &short].concat())
}

#[test]
fn every_measurement_verifies_and_reports_its_shares() {
    let measurements = [
        &["produce"][..],
        &["produce", "--clients", "8"],
        &["produce", "--clients", "8", "--shared"],
        &["produce", "--rate", "200"],
        &["produce", "--unary", "--clients", "70"],
        &["produce", "--unary", "--rate", "200"],
        &["produce", "--unary", "--clients", "4", "--record-bytes", "300KiB"],
        &["produce", "--batched", "--batch-bytes", "64KiB", "--compression", "lz4"],
        &["produce", "--batched", "--rate", "2000"],
        &["consume", "--bytes", "1MiB"],
        &["e2e", "--rate", "200"],
        &["e2e", "--flood", "--record-bytes", "100"],
    ];
    let measure = |args: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        // The disk of a busy machine may stand still for as long as a short run takes.
        let mut reports = [1, 4, 16].iter().map(|times| short(dir.path(), args, *times));
        let report = reports.find(|report| report["records_per_second"].as_f64().unwrap() > 0.0);
        let report = report.unwrap_or_else(|| panic!("{args:?}: nothing was added"));
        assert!(report["verified_records"].as_u64().unwrap() > 0, "{args:?}: {report}");
        assert!(report["shares"][0]["share"].as_f64().unwrap() > 0.0, "{args:?}: {report}");
    };
    for some in measurements.chunks(4) {
        thread::scope(|scope| some.iter().for_each(|args| drop(scope.spawn(|| measure(args)))));
    }
}

#[test]
fn an_open_loop_counts_every_record_that_was_due() {
    let dir = tempfile::tempdir().unwrap();
    let report = short(dir.path(), &["produce", "--rate", "100"], 1);
    assert_eq!(report["latency"]["count"], 30, "{report}");
    assert_eq!(report["verified_records"], 35, "{report}");
}

#[test]
fn the_disk_is_measured_alone() {
    let dir = tempfile::tempdir().unwrap();
    let report = bench(dir.path(), &["disk", "--duration", "20ms", "--group-bytes", "10KiB"]);
    let sizes: Vec<u64> = report["synced_writes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|writes| writes["write_bytes"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [4 << 10, 64 << 10, 1 << 20, 10 << 10]);
}
