//! Connections that the streams of all producers of a client share.
//!
//! A stream of small records costs both sides most of its time in the kernel unless others write
//! and read together with it; one of large batches is best alone. So streams have a connection each
//! as long as that employs more processors, and then share. It ends with the last of them: one
//! that nobody uses is not probed, and may be lost without a word.
//!
//! Left out: what else a client asks, which is little, and consumers, which never share
//! ([`crate::connection`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::available_parallelism;

use crate::connection::{ANSWERS_WINDOW_BYTES, Connection, PROBE_AFTER, Servers};
use crate::directory::Address;

/// Streams that share a connection at most: below the 100 or more that every HTTP/2 server allows.
const STREAMS_MAX: usize = 64;

/// So many connections to a server employ as many processors as one client should.
const APART_MAX: usize = 4;

/// The connections.
#[derive(Debug)]
pub(crate) struct Pool {
    servers: Arc<Servers>,
    /// Streams to one server that do not share.
    apart: usize,
    /// Each is held by its streams.
    open: Mutex<HashMap<Address, Vec<Weak<Connection>>>>,
}

impl Pool {
    /// None yet.
    pub(crate) fn new(servers: Arc<Servers>) -> Pool {
        let processors = available_parallelism().map_or(1, usize::from);
        Pool { servers, apart: processors.min(APART_MAX), open: Mutex::default() }
    }

    /// A connection for one more stream to `server`, to be held until the stream ends. Must be
    /// called within a Tokio runtime.
    pub(crate) fn to(&self, server: &Address) -> Arc<Connection> {
        let mut open = self.lock();
        open.retain(|_, connections| {
            connections.retain(|connection| connection.strong_count() > 0);
            !connections.is_empty()
        });
        let connections = open.entry(server.clone()).or_default();
        let least = connections.iter().min_by_key(|connection| connection.strong_count());
        let shared = least
            .filter(|least| connections.len() >= self.apart && least.strong_count() < STREAMS_MAX);
        // It may have ended since it was counted.
        if let Some(connection) = shared.and_then(Weak::upgrade) {
            return connection;
        }
        let dialled = self.servers.connection(server, ANSWERS_WINDOW_BYTES, PROBE_AFTER);
        let dialled = Arc::new(dialled);
        connections.push(Arc::downgrade(&dialled));
        dialled
    }

    /// Gives a connection to nobody any more, because it was lost or may lead nowhere. Streams that
    /// have it may go on.
    pub(crate) fn discard(&self, lost: &Arc<Connection>) {
        for connections in self.lock().values_mut() {
            connections.retain(|connection| connection.as_ptr() != Arc::as_ptr(lost));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Vec<Weak<Connection>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pool(apart: usize) -> (Pool, Address) {
        let servers = Servers::parse(["a:1"], Duration::from_secs(1), None).unwrap();
        (Pool { apart, ..Pool::new(Arc::new(servers)) }, "a:1".into())
    }

    fn count(pool: &Pool) -> usize {
        pool.lock().values().map(Vec::len).sum()
    }

    #[tokio::test]
    async fn few_streams_are_apart_and_more_share() {
        let (pool, server) = pool(2);
        let mut held: Vec<_> = (0..2 * STREAMS_MAX).map(|_| pool.to(&server)).collect();
        assert!(!Arc::ptr_eq(&held[0], &held[1]));
        assert_eq!(count(&pool), 2);
        assert!(held.iter().all(|connection| Arc::strong_count(connection) == STREAMS_MAX));
        held.push(pool.to(&server));
        assert_eq!(count(&pool), 3);
        assert_eq!(Arc::strong_count(held.last().unwrap()), 1);
    }

    #[tokio::test]
    async fn what_no_stream_has_is_not_used_again() {
        let (pool, server) = pool(1);
        let idle = Arc::downgrade(&pool.to(&server));
        assert_eq!(idle.strong_count(), 0);
        let _other = pool.to(&server);
        assert_eq!(count(&pool), 1);
    }

    #[tokio::test]
    async fn a_lost_connection_is_given_to_nobody() {
        let (pool, server) = pool(1);
        let lost = pool.to(&server);
        pool.discard(&lost);
        assert!(!Arc::ptr_eq(&lost, &pool.to(&server)));
    }
}
