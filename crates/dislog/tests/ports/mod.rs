//! Addresses for servers that are stopped and started again at the same place.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that the system gives out by itself: nobody gets one before its server has it,
/// or while its server is down.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// So many addresses of this machine that nobody listens on. None is given twice, and two test
/// binaries that run at once look in different places.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 200).unwrap() * 100;
    let next = || FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
    let is_free = |address: &String| TcpListener::bind(address).is_ok();
    let addresses = std::iter::repeat_with(|| format!("127.0.0.1:{}", next()));
    addresses.filter(is_free).take(count).collect()
}
