//! temp
use std::time::Instant;
use dislog_cluster::*;
use dislog_types::{BatchBuilder, Compression, Record, BatchHeader, PartitionId};
fn batch(n: usize) -> Append {
    let mut b = BatchBuilder::new();
    assert!(b.push(&Record::new(vec![7u8; n])));
    let batch = b.finish(Compression::None, None);
    let header = BatchHeader::parse(&batch).unwrap();
    Append { batch, header, expected_offset: None }
}
fn main() {
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let dir = tempfile::tempdir_in("/work").unwrap();
        use std::os::unix::fs::FileExt;
        let disk = |label: &str| {
            let f = std::fs::File::create(dir.path().join("raw")).unwrap();
            let mut lat = Vec::new();
            let data = vec![1u8; 1200];
            let mut pos = 0;
            for _ in 0..2000 { let t = Instant::now(); f.write_all_at(&data, pos).unwrap(); f.sync_data().unwrap(); pos += 1200; lat.push(t.elapsed()); }
            lat.sort();
            println!("{label}: raw sync p50 {:?} p99 {:?}", lat[1000], lat[1980]);
        };
        let data_dir = dir.path().join("d");
        let c = Cluster::open_real(Config { data_dir, topic_defaults: TopicSettings { retention_bytes: 0, retention_ms: 0, segment_bytes: 128 << 20 }, appends_in_flight_bytes_max: 64 << 20, sync_threads: 2 }).unwrap();
        let name: dislog_types::TopicName = "a".parse().unwrap();
        c.create_topic(name.clone(), 1, TopicChange::default()).await.unwrap();
        let p = c.partition(&PartitionId { topic: name, partition: 0 }).unwrap();
        for round in 0..2 {
            disk(&format!("round {round}"));
            let mut lat = Vec::new();
            for _ in 0..2000 { let a = batch(1024); let t = Instant::now(); p.append(a).await.unwrap(); lat.push(t.elapsed()); }
            lat.sort();
            println!("one client: p50 {:?} p99 {:?}", lat[1000], lat[1980]);
            let before = p.status().counters;
            let t = Instant::now();
            let tasks: Vec<_> = (0..256).map(|_| { let p = p.clone(); tokio::spawn(async move { for _ in 0..400 { p.append(batch(1024)).await.unwrap(); } }) }).collect();
            for t in tasks { t.await.unwrap(); }
            let e = t.elapsed();
            let k = p.status().counters;
            println!("256 clients: {:.0}/s, {:.1} records per sync", 102400.0 / e.as_secs_f64(), (k.records - before.records) as f64 / (k.syncs - before.syncs) as f64);
            // pipelined 64 KiB batches
            let t = Instant::now();
            let mut q = std::collections::VecDeque::new();
            for _ in 0..4000 { if q.len() == 32 { let f: PendingAppend = q.pop_front().unwrap(); f.await.unwrap(); } q.push_back(p.submit(batch(65536)).await.unwrap()); }
            for f in q { f.await.unwrap(); }
            let e = t.elapsed();
            println!("64 KiB pipelined 32: {:.0} MB/s", 4000.0 * 65.536e3 / 1e6 / e.as_secs_f64());
            let t = Instant::now();
            let mut o = 0; let mut n = 0u64; let end = p.progress().committed_offset;
            while o < end { for b in p.read(o, 1 << 20).await.unwrap() { o = b.base_offset + b.record_count as u64; n += b.batch.len() as u64; } }
            println!("read {:.0} MB/s", n as f64 / 1e6 / t.elapsed().as_secs_f64());
        }
        c.close().await;
    });
}
