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
//!
//! A leader that fell silent is the leader for all others until they elect one, and what they are
//! sent meanwhile they may send on to it, so that it is not answered either. Until there is an
//! answer it is therefore asked again soon, and once another leads all is sent to that one.

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use dislog_types::PartitionId;
use tokio::time::Instant;

use crate::client::Client;
use crate::directory::{Address, Place};
use crate::retry::{Backoff, Failure};

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
    /// The server that was lost, until another leads, or there is an answer.
    lost: Option<Address>,
    /// Between questions while one is lost.
    backoff: Backoff,
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
            backoff: Backoff::default(),
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

    /// Whether what is sent goes to a server that stands in for one that was lost.
    fn stands_in(&self) -> bool {
        self.server.is_some() && self.lost.is_some()
    }

    /// When `look_again` has something to do, with something under way.
    pub(super) fn look_again_at(&self) -> Option<Instant> {
        (self.stands_in() && self.asking.is_none()).then_some(self.recheck_at)
    }

    /// Asks whether another leads by now.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.look_again_at().is_some_and(|at| now >= at) {
            self.begin();
        }
    }

    /// Takes an answer in. Says whether another leads than was thought when what is under way was
    /// sent: that may never be answered.
    pub(super) fn found(&mut self, now: Instant, place: &Place) -> bool {
        let server = self.client.known_servers().lock().writes_to(now, place);
        let leads = place.leader.as_ref() == Some(&server);
        if self.stands_in() {
            let has_leader = place.leader.is_some() && place.leader != self.lost;
            self.recheck_at = now + self.backoff.next();
            if has_leader {
                tracing::debug!(partition = %self.id, %server, "another leads");
                (self.lost, self.next) = (None, Some(server));
            }
            return has_leader;
        }
        let is_new = self.server.as_ref() != Some(&server);
        let changes = self.server.is_none() || (is_new && leads);
        self.recheck_wait = match changes {
            true => RECHECK_FIRST,
            false => (self.recheck_wait * 2).min(RECHECK_MAX),
        };
        self.recheck_at = now + self.recheck_wait;
        if self.server.is_none() {
            tracing::debug!(partition = %self.id, %server, leads, "producing to");
            self.server = Some(server);
            self.lost.take_if(|lost| place.leader.as_ref().is_some_and(|leader| leader != lost));
            if self.lost.is_some() {
                self.recheck_at = now + self.backoff.next();
            }
        } else if is_new && leads {
            tracing::debug!(partition = %self.id, %server, "producing moves to the leader");
            self.next = Some(server);
        }
        false
    }

    /// The question was in vain: it is asked again with the next batch. Says whether that has to
    /// wait.
    pub(super) fn found_nobody(&mut self, now: Instant) -> bool {
        self.recheck_wait = RECHECK_FIRST;
        let wait = if self.stands_in() { self.backoff.next() } else { self.recheck_wait };
        self.recheck_at = now + wait;
        self.server.is_none()
    }

    /// The server did not do: another is to be found.
    pub(super) fn lost(&mut self, now: Instant, failure: &Failure) {
        (self.next, self.asking) = (None, None);
        let stood_in = self.stands_in();
        let Some(server) = self.server.take() else { return };
        let mut directory = self.client.known_servers().lock();
        directory.forget_leader(&self.id);
        // What stood in may have waited for the one that was lost.
        if failure.is_of_server() && !stood_in {
            directory.failed(now, &server);
        }
        drop(directory);
        self.lost.get_or_insert(server);
    }

    /// The server did what it was asked.
    pub(super) fn did(&mut self) {
        self.lost = None;
        self.backoff.reset();
        if let Some(server) = &self.server {
            self.client.known_servers().lock().answered(server);
        }
    }

    /// Who is known, for messages.
    pub(super) fn names(&self) -> String {
        self.client.known_servers().names()
    }
}
