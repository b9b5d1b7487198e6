//! The log as a library: appends the lines of standard input, then prints the whole log.
//!
//! `echo hello | cargo run -p dislog-log --example embedded -- /tmp/embedded-log`

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;

use dislog_log::fs::RealFs;
use dislog_log::{Config, Log};
use dislog_types::batch::{BatchHeader, records};
use dislog_types::time::{Clock, SystemClock};
use dislog_types::{BatchBuilder, Compression, Record};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("say which directory")?;
    let (log, recovery) = Log::open(Arc::new(RealFs), &dir, Config::default())?;
    if let Some(damage) = recovery.damage {
        return Err(format!("the log is damaged: {damage:?}").into());
    }

    let mut builder = BatchBuilder::new();
    for line in std::io::stdin().lock().lines() {
        let record = Record { created_ms: SystemClock.now_ms(), ..Record::new(line?) };
        if !builder.push(&record) {
            return Err("that is more than one batch may hold".into());
        }
    }
    if builder.record_count() > 0 {
        let batch = builder.finish(Compression::None, None);
        // Returns once the records are on stable storage.
        log.append(batch, SystemClock.now_ms())?;
    }

    let mut out = std::io::stdout().lock();
    let bounds = log.bounds();
    let mut offset = bounds.start_offset;
    while offset < bounds.end_offset {
        for frame in log.read(offset, bounds.end_offset, 1 << 20)? {
            let header = BatchHeader::verify(&frame.payload)?;
            for (record, offset) in
                records(&header, &frame.payload)?.iter().zip(frame.base_offset..)
            {
                writeln!(out, "{offset}: {}", String::from_utf8_lossy(&record.value))?;
            }
            offset = frame.end_offset();
        }
    }
    Ok(())
}
