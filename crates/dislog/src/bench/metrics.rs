//! How many syncs a server does: what it counts itself, on `/metrics`; or else what its disk was
//! asked for, which Linux counts.
//!
//! The disk also counts the syncs of other programs, so records per sync are at least what it says.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The counter of syncs of logs.
const FLUSHES: &str = "dislog_log_flushes_total";

/// How long the page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest page that is read.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// Where a line of `/proc/diskstats` has the flush requests that were completed (Linux 5.5 and
/// later; see the kernel's `Documentation/admin-guide/iostats.rst`).
const DISKSTATS_FLUSHES: usize = 18;

/// Who counted syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CountedBy {
    /// The server: its own, and no others.
    Server,
    /// The disk: everybody's.
    Disk,
}

/// A count of syncs at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syncs {
    count: u64,
    counted_by: CountedBy,
}

impl Syncs {
    /// What the server at `address` counts, or the disk with its data, if that is known.
    pub(crate) async fn count(address: &str, data: Option<&Path>) -> Option<Syncs> {
        if let Some(count) = server_flushes(address).await {
            return Some(Syncs { count, counted_by: CountedBy::Server });
        }
        let count = disk_flushes(data?)?;
        Some(Syncs { count, counted_by: CountedBy::Disk })
    }

    /// How many syncs there were since `earlier`, and who says so; `None` if that cannot be said.
    pub(crate) fn since(self, earlier: Syncs) -> Option<(u64, CountedBy)> {
        let count = self.count.checked_sub(earlier.count).filter(|&count| count > 0)?;
        (self.counted_by == earlier.counted_by).then_some((count, self.counted_by))
    }
}

async fn server_flushes(address: &str) -> Option<u64> {
    let page = timeout(PAGE_TIMEOUT, page(address)).await.ok()?.ok()?;
    counter(&page, FLUSHES)
}

async fn page(address: &str) -> std::io::Result<String> {
    let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut page).await?;
    Ok(page)
}

/// The sum of a counter over all its labels, in the Prometheus text format.
fn counter(page: &str, name: &str) -> Option<u64> {
    let values: Vec<f64> = page
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| rest.rsplit(' ').next()?.trim().parse().ok())
        .collect();
    if values.is_empty() { None } else { Some(values.iter().sum::<f64>() as u64) }
}

#[cfg(target_os = "linux")]
fn disk_flushes(data: &Path) -> Option<u64> {
    use std::os::linux::fs::MetadataExt;
    let device = std::fs::metadata(data).ok()?.st_dev();
    let number = format!("{}:{}", major(device), minor(device));
    // The flushes of a partition are counted for its whole disk.
    let whole = std::fs::read_to_string(format!("/sys/dev/block/{number}/../dev"));
    let number = whole.map_or(number, |whole| whole.trim().to_owned());
    let stats = std::fs::read_to_string("/proc/diskstats").ok()?;
    diskstats_flushes(&stats, &number)
}

#[cfg(not(target_os = "linux"))]
fn disk_flushes(_: &Path) -> Option<u64> {
    None
}

/// As the C library's `major`.
#[cfg(target_os = "linux")]
fn major(device: u64) -> u64 {
    ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff)
}

/// As the C library's `minor`.
#[cfg(target_os = "linux")]
fn minor(device: u64) -> u64 {
    (device & 0xff) | ((device >> 12) & !0xff)
}

/// The flushes of the device with this `major:minor`.
#[cfg(target_os = "linux")]
fn diskstats_flushes(stats: &str, number: &str) -> Option<u64> {
    stats
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.len() > 2 && format!("{}:{}", fields[0], fields[1]) == number)
        .and_then(|fields| fields.get(DISKSTATS_FLUSHES)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# TYPE a_total counter\na_total{p=\"0 1\"} 3\n\
                    a_total{p=\"1\"} 4\na_total_more 100\nb_total 7\n";
        assert_eq!(counter(page, "a_total"), Some(7));
        assert_eq!(counter(page, "b_total"), Some(7));
        assert_eq!(counter(page, "c_total"), None);
    }

    #[test]
    fn only_counts_of_one_kind_are_compared() {
        let syncs = |count, counted_by| Syncs { count, counted_by };
        let (server, disk) = (CountedBy::Server, CountedBy::Disk);
        assert_eq!(syncs(9, server).since(syncs(4, server)), Some((5, server)));
        assert_eq!(syncs(9, server).since(syncs(4, disk)), None);
        assert_eq!(syncs(4, disk).since(syncs(4, disk)), None);
        assert_eq!(syncs(3, disk).since(syncs(4, disk)), None, "it was reset");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn flushes_are_found_by_device() {
        let stats = "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n \
                     254       0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 4711 17\n";
        assert_eq!(diskstats_flushes(stats, "254:0"), Some(4711));
        assert_eq!(diskstats_flushes(stats, "254:1"), None);
        assert_eq!(diskstats_flushes("8 0 sda 1 2 3", "8:0"), None, "an old kernel");
        assert_eq!((major(0xfe01), minor(0xfe01)), (254, 1));
    }
}
