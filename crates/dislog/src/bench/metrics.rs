//! What a server counts: read from `/metrics` before and after a measurement, to see how records
//! share syncs.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The counter of syncs of logs.
const FLUSHES: &str = "dislog_log_flushes_total";

/// How long the page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest page that is read.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// How many syncs the server at `address` did since it was started. `None` if it does not say so.
pub(crate) async fn flushes(address: &str) -> Option<u64> {
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
}
