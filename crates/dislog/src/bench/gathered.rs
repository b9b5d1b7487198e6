//! A connection whose writes are gathered: what h2 writes frame by frame goes to the kernel in one
//! piece, once per turn of whoever owns the connection.
//!
//! h2 hands every larger DATA frame to its socket at once. On loopback a write costs more than all
//! else that a client does for a small record, and wakes the server for that record alone.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use dislog_tls::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};

/// So much may be gathered; beyond it h2 is held back until the kernel took some.
const GATHERED_BYTES_MAX: usize = 256 << 10;

/// What h2 reads from and writes to.
pub(super) struct Gathered {
    incoming: ReadHalf<Stream>,
    gathered: Arc<Mutex<BytesMut>>,
}

/// Sends what was gathered.
pub(super) struct Outgoing {
    socket: WriteHalf<Stream>,
    gathered: Arc<Mutex<BytesMut>>,
}

/// Both ends of a connection. They belong into one task, which polls `Outgoing` last.
pub(super) fn split(stream: Stream) -> (Gathered, Outgoing) {
    let (incoming, socket) = tokio::io::split(stream);
    let gathered = Arc::new(Mutex::new(BytesMut::with_capacity(GATHERED_BYTES_MAX)));
    (Gathered { incoming, gathered: Arc::clone(&gathered) }, Outgoing { socket, gathered })
}

fn lock(gathered: &Mutex<BytesMut>) -> MutexGuard<'_, BytesMut> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outgoing {
    /// Gives the kernel what was gathered. Says whether h2 had been held back: then it has to be
    /// polled again.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut gathered = lock(&self.gathered);
        let held_back = gathered.len() >= GATHERED_BYTES_MAX;
        while !gathered.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &gathered))?;
            gathered.advance(sent);
        }
        gathered.clear();
        // TLS may hold back what the socket did not take.
        if let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx) {
            flushed?;
        }
        Poll::Ready(Ok(held_back))
    }
}

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().incoming).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = lock(&self.gathered);
        if gathered.len() >= GATHERED_BYTES_MAX {
            // `poll_send` comes next in this turn, and says so.
            return Poll::Pending;
        }
        gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
