//! Asking the servers who they are and who leads a partition.
//!
//! Several are asked at once, because any of them may be gone or paused, and after the loss of a
//! leader some still name the old one. The first that names a leader other than the one that failed
//! is believed; that it may be wrong, too, costs one more attempt and no more.

use std::time::Duration;

use dislog_proto::v1;
use dislog_types::PartitionId;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

use crate::client::Client;
use crate::connection::address;
use crate::directory::{Address, Place};
use crate::retry::{Failure, Repeat, Verdict};

/// Servers that are asked at once: with three of a group, a majority of its replicas is among them.
const ASKED_MAX: usize = 3;

/// How long an answer may take. It costs a server next to nothing.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long better answers are waited for once one is there.
const GRACE: Duration = Duration::from_millis(50);

impl Client {
    /// Where a partition is: as known, or else as the servers say. Safe to cancel.
    ///
    /// # Errors
    /// If none of those asked answers.
    pub(crate) async fn place(&self, id: &PartitionId) -> Result<Place, Failure> {
        let known = self.known_servers().lock().place(Instant::now(), id);
        match known {
            Some(place) if place.leader.is_some() => Ok(place),
            _ => self.locate(id, None).await,
        }
    }

    /// Where a partition is, as the servers say. `failed` was taken for its leader and did not do:
    /// that it still is counts only if no other is named. Safe to cancel.
    ///
    /// # Errors
    /// If none of those asked answers.
    pub(crate) async fn locate(
        &self,
        id: &PartitionId,
        failed: Option<&str>,
    ) -> Result<Place, Failure> {
        let mut asked = self.known_servers().lock().askable(Instant::now(), id, failed);
        asked.truncate(ASKED_MAX);
        let mut answers: FuturesUnordered<_> =
            asked.iter().map(|server| self.ask(id, server)).collect();
        let mut best: Option<Place> = None;
        let mut last = Failure::broken("no server is known");
        // Each question ends by itself in half of that.
        let mut until = Instant::now() + 2 * ASK_TIMEOUT;
        while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
            match answer {
                Err(failure) => last = failure,
                Ok(place) if place.leader.is_some() && place.leader.as_deref() != failed => {
                    return Ok(place);
                }
                Ok(place) => {
                    until = until.min(Instant::now() + GRACE);
                    let is_better = place.leader.is_some() && best_leads_not(best.as_ref());
                    if best.is_none() || is_better {
                        best = Some(place);
                    }
                }
            }
        }
        best.ok_or(last)
    }

    /// Asks for the list of servers in the background, if it is old and nobody does so already: a
    /// client that is idle asks nothing.
    pub(crate) fn keep_list_fresh(&self, id: &PartitionId) {
        let now = Instant::now();
        {
            let servers = self.known_servers();
            let mut directory = servers.lock();
            if !directory.is_stale(now) {
                return;
            }
            directory.is_being_listed(now);
        }
        let (client, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            if let Err(failure) = client.locate(&id, None).await {
                tracing::debug!(failure = failure.message(), "the servers could not be listed");
            }
        });
    }

    async fn ask(&self, id: &PartitionId, server: &Address) -> Result<Place, Failure> {
        let mut log = self.connections().to(server).log();
        let request =
            v1::GetServersRequest { topic: id.topic.as_str().to_owned(), partition: id.partition };
        let answer = timeout(ASK_TIMEOUT, log.get_servers(request)).await;
        let now = Instant::now();
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) => {
                self.connections().discard(server);
                Err(Status::unavailable(format!("no answer from {server} in {ASK_TIMEOUT:?}")))
            }
        };
        match answer {
            Ok(response) => {
                let listed = response.into_inner().servers.into_iter();
                // What cannot be dialled is as good as not there.
                let named = |s: v1::Server| Some((address(&s.rpc_addr).ok()?, s));
                let listed: Vec<(Address, v1::Server)> = listed.filter_map(named).collect();
                Ok(self.known_servers().lock().learn(now, server, id, &listed))
            }
            Err(status) => {
                let failure = Failure::new(&status);
                if failure.verdict(Repeat::Harmless) == Verdict::Fail {
                    // It does not tell. The request itself will find out why.
                    self.known_servers().lock().answered(server);
                    return Ok(Place::unknown(server.clone()));
                }
                if failure.is_of_server() {
                    self.known_servers().lock().failed(now, server);
                }
                Err(failure)
            }
        }
    }
}

fn best_leads_not(best: Option<&Place>) -> bool {
    best.is_none_or(|place| place.leader.is_none())
}
