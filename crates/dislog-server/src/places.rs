//! Places for connections that are served, and what each client has of them.
//!
//! A client is whom a certificate names, or where it comes from if it showed none. Tokens name
//! somebody for a request only, and a connection may carry many of them. No client can take
//! all places, and clients together not all: some are kept for the nodes of the cluster.
//!
//! Nothing waits here. Who gets no place is told so at once, because it can try another node or
//! close what it does not need, and a connection that hangs would say neither.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::budget::Budget;
use crate::identity::{Caller, Host, Subject};
use crate::status::{Failure, kinds};

/// One of so many places is for nodes only.
const OF_NODES_ONE_IN: usize = 8;

/// Whose connections count together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Whoever has a certificate with this subject.
    Named(Arc<str>),
    /// Whoever comes from there and shows none.
    At(Host),
    /// The nodes of the cluster, for which no share is set.
    Node,
}

impl Client {
    /// That of a connection.
    pub(crate) fn of(caller: &Caller) -> Client {
        match &caller.subject {
            Subject::Node(_) => Client::Node,
            Subject::Client(name) => Client::Named(Arc::clone(name)),
            Subject::Anonymous | Subject::Bearer(_) | Subject::Vouched(_) => {
                Client::At(Host::of(caller.from.ip()))
            }
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Named(name) => write!(f, "client {name:?}"),
            Client::At(host) => write!(f, "{host}"),
            Client::Node => f.write_str("the cluster"),
        }
    }
}

/// What there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections of all together.
    pub(crate) connections_max: usize,
    /// Connections of one client.
    pub(crate) connections_per_client_max: usize,
    /// Requests and streams of one client that are under way, over all its connections.
    pub(crate) requests_per_client_max: usize,
}

/// All places of a node.
pub(crate) struct Places {
    limits: Limits,
    budget: Budget,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// Of all together.
    connections: usize,
    clients: HashMap<Client, Holding>,
}

/// What one client has.
struct Holding {
    connections: usize,
    common: Arc<Common>,
}

/// What the connections of a client have in common.
struct Common {
    requests: AtomicUsize,
    /// Its share of the bytes.
    budget: Budget,
}

/// A connection's place; given back when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    client: Client,
    common: Arc<Common>,
}

/// A request or stream that is under way until this is dropped.
pub(crate) struct UnderWay(Arc<Common>);

impl Places {
    /// Places within `limits`, whose requests share `budget`.
    pub(crate) fn new(limits: Limits, budget: Budget) -> Places {
        Places { limits, budget, taken: Mutex::default() }
    }

    /// A place for a connection, or why there is none.
    pub(crate) fn take(self: &Arc<Places>, client: Client) -> Result<Place, Failure> {
        let Limits { connections_max, connections_per_client_max: share, .. } = self.limits;
        let mut taken = self.lock();
        let of_clients = taken.connections - taken.of(&Client::Node);
        let of_clients_max = connections_max - connections_max / OF_NODES_ONE_IN;
        let is_full = taken.connections >= connections_max;
        if is_full || (client != Client::Node && of_clients >= of_clients_max) {
            let message = format!(
                "all connections that this node serves at once are taken ({connections_max}, some \
                 of them kept for nodes): try again later, or another node"
            );
            return Err(Failure::new(&kinds::OVERLOADED, message));
        }
        if client != Client::Node && taken.of(&client) >= share {
            let message = format!(
                "{client} has {share} connections, the most that one client may have: close some, \
                 or send more requests over each"
            );
            return Err(Failure::new(&kinds::TOO_MANY, message));
        }
        taken.connections += 1;
        let holding = taken.clients.entry(client.clone()).or_insert_with(|| Holding {
            connections: 0,
            common: Arc::new(Common {
                requests: AtomicUsize::new(0),
                budget: match client {
                    // What they send on was bounded where it came from.
                    Client::Node => self.budget.clone(),
                    _ => self.budget.of_client(),
                },
            }),
        });
        holding.connections += 1;
        let common = Arc::clone(&holding.common);
        Ok(Place { places: Arc::clone(self), client, common })
    }

    /// How many connections a client has.
    pub(crate) fn count(&self, client: &Client) -> usize {
        self.lock().of(client)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn of(&self, client: &Client) -> usize {
        self.clients.get(client).map_or(0, |holding| holding.connections)
    }
}

impl Place {
    /// Begins a request, if the client may have one more.
    pub(crate) fn begin(&self) -> Result<UnderWay, Failure> {
        let requests_max = self.places.limits.requests_per_client_max;
        let begun = UnderWay(Arc::clone(&self.common));
        let before = self.common.requests.fetch_add(1, Ordering::Relaxed);
        if before < requests_max || self.client == Client::Node {
            return Ok(begun);
        }
        let client = &self.client;
        let message = format!(
            "{client} has {requests_max} requests and streams under way, the most that one client \
             may have: wait for some to end"
        );
        Err(Failure::new(&kinds::TOO_MANY, message))
    }

    /// What bounds the bytes of the client's requests.
    pub(crate) fn budget(&self) -> &Budget {
        &self.common.budget
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.connections -= 1;
        if let Some(holding) = taken.clients.get_mut(&self.client) {
            holding.connections -= 1;
            if holding.connections == 0 {
                taken.clients.remove(&self.client);
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn places() -> Arc<Places> {
        let limits = Limits {
            connections_max: 8,
            connections_per_client_max: 3,
            requests_per_client_max: 2,
        };
        Arc::new(Places::new(limits, Budget::new(1_000, Duration::from_secs(1))))
    }

    fn named(name: &str) -> Client {
        Client::Named(name.into())
    }

    #[test]
    fn nobody_has_more_than_a_share() {
        let places = places();
        let mut of_alice: Vec<_> = (0..3).map(|_| places.take(named("alice")).unwrap()).collect();
        let refused = places.take(named("alice")).err().unwrap();
        assert_eq!(refused.http_status(), 429);
        assert!(refused.message.contains("\"alice\" has 3 connections"), "{}", refused.message);
        let _of_bob = places.take(named("bob")).unwrap();
        of_alice.pop();
        of_alice.push(places.take(named("alice")).unwrap());
        assert_eq!(places.count(&named("alice")), 3);
        drop(of_alice);
        assert_eq!(places.count(&named("alice")), 0);
        assert_eq!(places.lock().clients.len(), 1);
    }

    #[test]
    fn some_places_are_kept_for_nodes() {
        let places = places();
        let take = |number: usize| places.take(named(&(number / 3).to_string()));
        let mut clients: Vec<_> = (0..7).map(|number| take(number).unwrap()).collect();
        let refused = take(7).err().unwrap();
        assert_eq!(refused.http_status(), 503, "{}", refused.message);
        let node = places.take(Client::Node).unwrap();
        assert!(places.take(Client::Node).is_err(), "all are taken");
        // A node that has a place takes none from clients.
        clients.pop();
        clients.push(take(7).unwrap());
        drop(clients);
        let _nodes: Vec<_> = (0..7).map(|_| places.take(Client::Node).unwrap()).collect();
        assert!(take(0).is_err(), "nodes have no share");
        drop(node);
    }

    #[test]
    fn requests_are_counted_over_all_connections_of_a_client() {
        let places = places();
        let [one, two] = [(); 2].map(|()| places.take(named("alice")).unwrap());
        let (first, _second) = (one.begin().unwrap(), two.begin().unwrap());
        let refused = one.begin().err().unwrap();
        assert_eq!(refused.http_status(), 429);
        assert!(refused.message.contains("2 requests"), "{}", refused.message);
        assert!(places.take(named("bob")).unwrap().begin().is_ok());
        drop(first);
        assert!(two.begin().is_ok());
        let node = places.take(Client::Node).unwrap();
        let _all: Vec<_> = (0..10).map(|_| node.begin().unwrap()).collect();
    }
}
