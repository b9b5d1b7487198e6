//! A wire between client and server that can be cut, also after the server took requests and before
//! its answers arrive.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to what the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Pass,
    /// They are lost.
    Lose,
}

pub(crate) struct Wire {
    addr: SocketAddr,
    answers: watch::Sender<Answers>,
    cuts: watch::Sender<u32>,
    /// Bytes of answers that were lost.
    lost: watch::Receiver<usize>,
    accepted: watch::Receiver<usize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (answers, answers_seen) = watch::channel(Answers::Pass);
        let (cuts, cuts_seen) = watch::channel(0);
        let (lost_seen, lost) = watch::channel(0);
        let (accepted_seen, accepted) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                accepted_seen.send_modify(|accepted| *accepted += 1);
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let carry = carry(client, server, answers_seen.clone(), lost_seen.clone());
                let mut cut = cuts_seen.clone();
                cut.mark_unchanged();
                connections.spawn(async move {
                    tokio::select! { () = carry => {}, _ = cut.changed() => {} }
                });
            }
        });
        Wire { addr, answers, cuts, lost, accepted, accepting }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn set_answers(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }

    /// Connections that there were so far.
    pub(crate) fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Waits until more answers were lost than when `seen` was.
    pub(crate) async fn loses(&mut self) {
        self.lost.mark_unchanged();
        self.lost.changed().await.unwrap();
    }

    /// Breaks all connections there are.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    answers: watch::Receiver<Answers>,
    lost: watch::Sender<usize>,
) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = carry_answers(from_server, to_client, answers, lost) => {}
    }
}

async fn carry_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    answers: watch::Receiver<Answers>,
    lost: watch::Sender<usize>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        let answers = *answers.borrow();
        match answers {
            Answers::Lose => lost.send_modify(|lost| *lost += bytes),
            Answers::Pass if to.write_all(&buffer[..bytes]).await.is_err() => return,
            Answers::Pass => {}
        }
    }
}
