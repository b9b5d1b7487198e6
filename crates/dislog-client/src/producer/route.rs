//! Where the batches of one partition are sent: to its leader, by what is known of it. A state
//! machine around one question at a time to the servers, driven by the sender task.
//!
//! ```text
//!            ┌────────── lost ──────────┐
//!            ▼                          │
//!  nowhere ──begin──► asking ──found──► to a server ──begin──► asking beside ──found──► … moving
//!            ▲          │ failed                       (now and then)
//!            └──────────┘
//! ```
//! While all goes well it is asked again now and then, because a server that does not lead any more
//! sends on what it gets, and nobody would notice but for the detour.

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use dislog_types::PartitionId;
use tokio::time::Instant;

use crate::client::Client;
use crate::directory::{Address, Place};
use crate::retry::Failure;

/// When a leader is looked for again after the server was changed: elections may come in a row.
const RECHECK_FIRST: Duration = Duration::from_secs(2);

/// The longest time between two looks.
const RECHECK_MAX: Duration = Duration::from_secs(60);

type Asking = Pin<Box<dyn Future<Output = Result<Place, Failure>> + Send>>;

/// Where batches go.
pub(super) struct Route {
    client: Client,
    id: PartitionId,
    server: Option<Address>,
    /// What the server is to be changed to, once nothing is on its way to it.
    next: Option<Address>,
    /// The server that was lost, until another is found.
    lost: Option<Address>,
    asking: Option<Asking>,
    recheck_at: Instant,
    recheck_wait: Duration,
}

impl Route {
    pub(super) fn new(client: Client, id: PartitionId) -> Route {
        Route {
            client,
            id,
            server: None,
            next: None,
            lost: None,
            asking: None,
            recheck_at: Instant::now(),
            recheck_wait: RECHECK_FIRST,
        }
    }

    /// Where a batch goes now, with `under_way` others on their way. `None`: wait, for `found` or
    /// for those.
    pub(super) fn server(&mut self, now: Instant, under_way: usize) -> Option<Address> {
        if let Some(next) = self.next.take() {
            if under_way > 0 {
                self.next = Some(next);
                return None;
            }
            self.server = Some(next);
        }
        if self.asking.is_none() && (self.server.is_none() || now >= self.recheck_at) {
            self.begin();
        }
        self.server.clone()
    }

    fn begin(&mut self) {
        let (client, id, lost) = (self.client.clone(), self.id.clone(), self.lost.clone());
        self.asking = Some(Box::pin(async move { client.locate(&id, lost.as_deref()).await }));
    }

    /// The answer to the question under way; never, if there is none. Safe to cancel.
    pub(super) async fn answer(&mut self) -> Result<Place, Failure> {
        let Some(asking) = &mut self.asking else { return pending().await };
        let answer = asking.await;
        self.asking = None;
        answer
    }

    /// Takes an answer in.
    pub(super) fn found(&mut self, now: Instant, place: &Place) {
        let server = self.client.known_servers().lock().writes_to(now, place);
        let is_new = self.server.as_ref() != Some(&server);
        let leads = place.leader.as_ref() == Some(&server);
        let changes = self.server.is_none() || (is_new && leads);
        self.recheck_wait = match changes {
            true => RECHECK_FIRST,
            false => (self.recheck_wait * 2).min(RECHECK_MAX),
        };
        self.recheck_at = now + self.recheck_wait;
        if self.server.is_none() {
            tracing::debug!(partition = %self.id, %server, leads, "producing to");
            self.server = Some(server);
            self.lost = None;
        } else if is_new && leads {
            tracing::debug!(partition = %self.id, %server, "producing moves to the leader");
            self.next = Some(server);
        }
    }

    /// The question was in vain: it is asked again with the next batch. Says whether that has to
    /// wait.
    pub(super) fn found_nobody(&mut self, now: Instant) -> bool {
        self.recheck_wait = RECHECK_FIRST;
        self.recheck_at = now + self.recheck_wait;
        self.server.is_none()
    }

    /// The server did not do: another is to be found.
    pub(super) fn lost(&mut self, now: Instant, failure: &Failure) {
        (self.next, self.asking) = (None, None);
        let Some(server) = self.server.take() else { return };
        let mut directory = self.client.known_servers().lock();
        directory.forget_place(&self.id);
        if failure.is_of_server() {
            directory.failed(now, &server);
        }
        drop(directory);
        self.lost = Some(server);
    }

    /// The server did what it was asked.
    pub(super) fn did(&mut self) {
        if let Some(server) = &self.server {
            self.client.known_servers().lock().answered(server);
        }
    }

    /// Who is known, for messages.
    pub(super) fn names(&self) -> String {
        self.client.known_servers().names()
    }
}
