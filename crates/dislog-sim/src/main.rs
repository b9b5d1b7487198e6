//! Runs seeds, and says which of them violate what.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::io::stdout;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use clap::Parser;
use dislog_sim::{Options, run};
use tracing_subscriber::filter::LevelFilter;

/// Simulations make and free many small things; with the system's allocator they take longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates clusters.
#[derive(Debug, Parser)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, from the first on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How many of them at a time; as many as there are processors unless set.
    #[arg(long)]
    threads: Option<usize>,
    /// Print what happens, and what the nodes say of it.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.trace {
        let said = tracing_subscriber::fmt().without_time().with_target(false);
        said.with_max_level(LevelFilter::DEBUG).with_writer(stdout).init();
    }
    let (next, failed) = (AtomicU64::new(args.seed), AtomicU64::new(0));
    let (acknowledged, reads, rests) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= args.seed + args.seeds {
            return;
        }
        let outcome = run(seed, Options { trace: args.trace, bug: None });
        acknowledged.fetch_add(outcome.acknowledged, Ordering::Relaxed);
        reads.fetch_add(outcome.reads, Ordering::Relaxed);
        rests.fetch_add(u64::from(outcome.rests > 0), Ordering::Relaxed);
        if let Some(violation) = outcome.violation {
            failed.fetch_add(1, Ordering::Relaxed);
            println!("seed {seed}: {}: {}", violation.property, violation.message);
        } else if args.seeds == 1 {
            println!("seed {seed}: {outcome:?}");
        }
    };
    let threads = args.threads.or_else(|| thread::available_parallelism().ok().map(Into::into));
    let threads = if args.trace { 1 } else { threads.unwrap_or(1) };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner();
    println!(
        "{} seeds in {:.1} s, {} failed; {} appends acknowledged, {} reads answered; groups rested \
         in {} seeds",
        args.seeds,
        began.elapsed().as_secs_f64(),
        failed,
        acknowledged.into_inner(),
        reads.into_inner(),
        rests.into_inner()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
