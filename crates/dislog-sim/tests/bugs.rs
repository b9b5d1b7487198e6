//! The test of the test: each known bug, put back, is noticed by some seed within a bounded number.
//! `cargo xtask sim` runs these, optimised.

use dislog_sim::{Bug, Options, run};

const SEEDS_MAX: u64 = 300;

/// The first seed that notices the rarest of them is 224: those before take their time.
const VOTE_FROM: u64 = 200;

#[expect(clippy::print_stderr, reason = "how long it takes to notice is worth knowing")]
fn is_noticed(bug: Bug, first: u64) {
    for seed in first..first + SEEDS_MAX {
        let outcome = run(seed, Options { bug: Some(bug), ..Options::default() });
        let clean = || run(seed, Options::default()).violation.is_none();
        // A bug that makes a cluster stand still shows late, and is not what it is known for.
        if let Some(violation) = outcome.violation.filter(|v| v.property != "progress")
            && clean()
        {
            eprintln!("{bug:?}: seed {seed}: {}: {}", violation.property, violation.message);
            return;
        }
    }
    panic!("{bug:?} went unnoticed for {SEEDS_MAX} seeds");
}

#[test]
#[ignore = "takes minutes in a debug build"]
fn no_sync_before_the_vote() {
    is_noticed(Bug::NoSyncBeforeVote, VOTE_FROM);
}

#[test]
#[ignore = "takes minutes in a debug build"]
fn no_sync_before_the_acknowledgement() {
    is_noticed(Bug::NoSyncBeforeAcknowledgement, 0);
}

#[test]
#[ignore = "takes minutes in a debug build"]
fn a_learner_counts() {
    is_noticed(Bug::LearnerCounts, 0);
}

#[test]
#[ignore = "takes minutes in a debug build"]
fn serving_too_early() {
    is_noticed(Bug::ServesTooEarly, 0);
}

#[test]
#[ignore = "takes minutes in a debug build"]
fn truncating_below_commit() {
    is_noticed(Bug::TruncatesBelowCommit, 0);
}
