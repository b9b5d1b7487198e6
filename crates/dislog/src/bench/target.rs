//! The server that is measured: one that runs, or one of its own.

use std::path::{Path, PathBuf};

use dislog_client::{Client, ClientOptions, ClientTls};
use dislog_server::{Config, Insecure, Server};
use tokio::runtime::{Builder, Runtime};

use super::CommonArgs;
use super::metrics::Syncs;
use crate::failure::{Exit, Failure};
use crate::output::note;
use crate::profile::Profile;

/// A server to measure.
#[derive(Debug)]
pub(crate) struct Target {
    /// `host:port` each.
    addresses: Vec<String>,
    /// How connections are encrypted, if they are.
    tls: Option<ClientTls>,
    /// Where this machine's limits are measured.
    disk: Option<PathBuf>,
    /// The topic of this run: a new one.
    topic: String,
    own: Option<OwnServer>,
}

/// A server in this process, on threads of its own, with a directory of its own that goes with it.
struct OwnServer {
    server: Option<Server>,
    runtime: Option<Runtime>,
    dir: PathBuf,
}

impl std::fmt::Debug for OwnServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnServer").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Target {
    /// The servers that the arguments name, or one of its own; with a new topic.
    pub(crate) async fn start(args: &CommonArgs) -> Result<Target, Failure> {
        let (addresses, own) = if args.servers.is_empty() {
            let own = OwnServer::start().await?;
            (own.server.iter().map(|server| server.addr().to_string()).collect(), Some(own))
        } else {
            (args.servers.clone(), None)
        };
        let tls = match own {
            Some(_) => None,
            None => args.tls.resolve(&addresses, Profile::load()?.as_ref())?,
        };
        let beside = own.as_ref().map(|own| own.dir.clone());
        let disk = args.disk.clone().or(beside).filter(|_| !args.probe.is_zero());
        warn_if_busy();
        let topic = format!("bench-{:016x}", rand::random::<u64>());
        let target = Target { addresses, tls, disk, topic, own };
        target.client()?.create_topic(&target.topic, 1, Default::default()).await?;
        Ok(target)
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let options = ClientOptions { tls: self.tls.clone(), ..ClientOptions::default() };
        Ok(Client::connect(&self.addresses, options)?)
    }

    /// The first server, as it is named on the command line.
    fn address(&self) -> &str {
        self.addresses.first().map_or("", String::as_str)
    }

    /// The server that leads the topic of this run, as of now; the first one, as it is named on the
    /// command line, if there is no other.
    pub(crate) async fn leader(&self) -> Result<String, Failure> {
        let servers = self.client()?.servers(&self.topic, 0).await?;
        let leader = servers.iter().find(|server| server.is_leader).filter(|_| servers.len() > 1);
        let address = leader.map_or(self.address(), |leader| &leader.address);
        Ok(address.to_owned())
    }

    /// How connections are encrypted, if they are.
    pub(crate) fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref()
    }

    /// The topic of this run.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Where this machine's limits are measured, if they are.
    pub(crate) fn disk(&self) -> Option<&Path> {
        self.disk.as_deref()
    }

    /// What the server is called in the report.
    pub(crate) fn name(&self) -> String {
        match &self.own {
            Some(own) => format!("a server of its own in {}", own.dir.display()),
            None => self.addresses.join(", "),
        }
    }

    /// How many syncs the server did so far, if that can be known.
    pub(crate) async fn syncs(&self) -> Option<Syncs> {
        let data = self.own.as_ref().map(|own| own.dir.as_path());
        Syncs::count(self.addresses.first()?, data.or(self.disk())).await
    }

    /// Deletes the topic, and ends the server if it is one of its own.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        self.client()?.delete_topic(&self.topic).await?;
        if let Some(own) = &mut self.own {
            own.end().await;
        }
        Ok(())
    }
}

/// Says so if other programs have this machine busy: what is measured then says little.
fn warn_if_busy() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if load > processors as f64 / 2.0 {
        note(&format!(
            "this machine is busy (load {load:.1} on {processors} processors): \
             compare only shares, and measure again when it is idle"
        ));
    }
}

impl OwnServer {
    async fn start() -> Result<OwnServer, Failure> {
        let dir = PathBuf::from(format!("dislog-bench-{:08x}", rand::random::<u32>()));
        let unusable = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("cannot start a server in {}: {error}", dir.display()))
                .hint("run this in a directory that can be written, or name a server: --servers")
        };
        std::fs::create_dir(&dir).map_err(|error| unusable(&error))?;
        let mut own = OwnServer { server: None, runtime: None, dir: dir.clone() };
        let runtime = Builder::new_multi_thread().enable_all().build();
        let runtime = own.runtime.insert(runtime.map_err(|error| unusable(&error))?);
        let config = Config {
            data_dir: dir.join("data"),
            listen: "127.0.0.1:0".to_owned(),
            insecure: Insecure::Loopback,
            ..Config::default()
        };
        let started = runtime.spawn(Server::start(config)).await;
        let started = started.map_err(|_| Failure::new(Exit::Failed, "the server failed"))?;
        own.server = Some(started.map_err(|error| unusable(&error))?);
        Ok(own)
    }

    async fn end(&mut self) {
        if let (Some(server), Some(runtime)) = (self.server.take(), &self.runtime) {
            // Its directory goes next: that it did not stop well changes nothing.
            let _ = runtime.spawn(server.shutdown()).await;
        }
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // Nothing depends on it, and the name tells what it is if it stays.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
