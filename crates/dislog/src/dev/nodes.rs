//! Nodes as processes of their own: started, watched, killed for practice, and stopped.
//!
//! Each has a task that owns its process. A node ends gracefully when its standard input does, so
//! that none is left behind, however this program ends; Ctrl-C goes to this program alone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dislog_client::{ClientTls, NodeClient};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::failure::{Exit, Failure};
use crate::output::note;

/// How long the nodes may take to find each other.
const START_MAX: Duration = Duration::from_secs(60);

/// How long a node may take to end before it is killed.
const STOP_MAX: Duration = Duration::from_secs(20);

/// How long a node stays down: long enough for the others to choose another leader.
const DOWN: Duration = Duration::from_secs(2);

/// How often is looked whether the nodes are all there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a node may take to say who is there.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What a node said last, kept for when it ends by itself.
const LAST_LINES: usize = 4;

/// A node that is to run.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
    pub(super) address: String,
    pub(super) join: Vec<String>,
    pub(super) log_filter: String,
    /// Its certificates, unless it does without.
    pub(super) tls_dir: Option<PathBuf>,
    /// Where its rules are, if it has any.
    pub(super) auth_dir: Option<PathBuf>,
}

/// See the module.
pub(super) struct Nodes {
    tls: Option<ClientTls>,
    nodes: Vec<Node>,
    deaths: mpsc::Receiver<Death>,
}

struct Node {
    spec: Spec,
    /// Each message kills the process; when there is no sender any more it is stopped.
    kills: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

/// A node ended by itself.
struct Death {
    name: String,
    how: String,
}

impl Nodes {
    /// Starts them; `tls` is how they are talked to.
    pub(super) fn start(
        specs: impl Iterator<Item = Spec>,
        tls: Option<ClientTls>,
    ) -> Result<Nodes, Failure> {
        let (died, deaths) = mpsc::channel(1);
        let mut nodes = Vec::new();
        for spec in specs {
            let first = Process::start(&spec)?;
            let (kills, orders) = mpsc::channel(1);
            let task = tokio::spawn(keep_running(spec.clone(), first, orders, died.clone()));
            nodes.push(Node { spec, kills, task });
        }
        Ok(Nodes { tls, nodes, deaths })
    }

    /// Waits until all belong to one cluster.
    pub(super) async fn until_complete(&mut self) -> Result<(), Failure> {
        let complete = async {
            while !is_complete(&self.nodes, self.tls.as_ref()).await {
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            complete = timeout(START_MAX, complete) => complete.map_err(|_| {
                let message = format!("the nodes did not find each other in {START_MAX:?}");
                Failure::new(Exit::Failed, message).hint("--log-filter info shows what they do")
            }),
            Some(Death { name, how }) = self.deaths.recv() => {
                Err(Failure::new(Exit::Failed, format!("{name} {how}")))
            }
        }
    }

    /// Says when a node ends by itself; with `chaos`, makes one end about so often.
    pub(super) async fn watch(&mut self, chaos: Option<Duration>) -> Infallible {
        let (nodes, tls, deaths) = (&self.nodes, self.tls.as_ref(), &mut self.deaths);
        let chaos = async {
            match chaos {
                Some(every) => kill_now_and_then(nodes, tls, every).await,
                None => std::future::pending().await,
            }
        };
        let say = async {
            while let Some(Death { name, how }) = deaths.recv().await {
                note(&format!("{name} {how}; it is started again"));
            }
            std::future::pending().await
        };
        tokio::select! {
            never = chaos => never,
            never = say => never,
        }
    }

    /// Stops all, gracefully.
    pub(super) async fn stop(self) {
        let Nodes { nodes, deaths, .. } = self;
        // Nobody waits any more to say how a node ended.
        drop(deaths);
        let tasks: Vec<JoinHandle<()>> = nodes.into_iter().map(|node| node.task).collect();
        for task in tasks {
            // One that panicked has killed its process.
            let _ = task.await;
        }
    }
}

/// Everybody is there, as somebody sees it who knows who leads.
async fn is_complete(nodes: &[Node], tls: Option<&ClientTls>) -> bool {
    for node in nodes {
        let client = NodeClient::new(&node.spec.address, ANSWER_MAX, tls.cloned(), None);
        let Ok(client) = client else { return false };
        let Ok(cluster) = client.describe_cluster().await else { return false };
        let is_there = |address: &String| {
            cluster.nodes.iter().any(|known| known.alive && known.address == *address)
        };
        let all = nodes.iter().all(|node| is_there(&node.spec.address));
        if !all || !cluster.nodes.iter().any(|node| node.leads) {
            return false;
        }
    }
    true
}

async fn kill_now_and_then(nodes: &[Node], tls: Option<&ClientTls>, every: Duration) -> Infallible {
    loop {
        sleep(every.mul_f64(rand::random_range(0.5..=1.5))).await;
        // One at a time: what is shown is that a majority goes on.
        while !is_complete(nodes, tls).await {
            sleep(LOOK_EVERY).await;
        }
        let node = &nodes[rand::random_range(0..nodes.len())];
        note(&format!("chaos: {} is killed, and started again in {DOWN:?}", node.spec.name));
        // A task that is gone has said why.
        let _ = node.kills.send(()).await;
    }
}

/// How a process ended.
enum End {
    Killed,
    Stopped,
    ByItself(String),
}

async fn keep_running(
    spec: Spec,
    first: Process,
    mut orders: mpsc::Receiver<()>,
    deaths: mpsc::Sender<Death>,
) {
    let mut process = first;
    loop {
        match process.run(&mut orders).await {
            End::Stopped => return,
            End::Killed => {}
            End::ByItself(how) => {
                let name = spec.name.clone();
                if deaths.send(Death { name, how }).await.is_err() {
                    return;
                }
            }
        }
        process = loop {
            if is_stopped_during(sleep(DOWN), &mut orders).await {
                return;
            }
            match Process::start(&spec) {
                Ok(process) => break process,
                Err(failure) => note(&failure),
            }
        };
        note(&format!("{} is started again", spec.name));
    }
}

async fn is_stopped_during(
    pause: impl Future<Output = ()>,
    orders: &mut mpsc::Receiver<()>,
) -> bool {
    let stopped = async { while orders.recv().await.is_some() {} };
    tokio::select! {
        () = pause => false,
        () = stopped => true,
    }
}

struct Process {
    child: Child,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    fn start(spec: &Spec) -> Result<Process, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Failed, format!("cannot start {}: {error}", spec.name))
        };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["server", "--until-stdin-ends", "--name", &spec.name]);
        command.args(["--listen", &spec.address, "--log-filter", &spec.log_filter]);
        command.arg("--data-dir").arg(&spec.data_dir);
        match &spec.tls_dir {
            Some(dir) => command.arg("--tls-dir").arg(dir),
            None => command.arg("--insecure"),
        };
        if let Some(dir) = &spec.auth_dir {
            command.arg("--auth-dir").arg(dir);
        }
        if !spec.join.is_empty() {
            command.args(["--join", &spec.join.join(",")]);
        }
        let settings = std::env::vars_os().map(|(name, _)| name);
        for name in settings.filter(|name| name.to_string_lossy().starts_with("DISLOG_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let stderr = child.stderr.take().expect("it is piped");
        tokio::spawn(pass_on(spec.name.clone(), stderr, Arc::clone(&said)));
        Ok(Process { child, said })
    }

    async fn run(&mut self, orders: &mut mpsc::Receiver<()>) -> End {
        let stdin = self.child.stdin.take();
        let order = tokio::select! {
            status = self.child.wait() => return End::ByItself(self.last_words(status).await),
            order = orders.recv() => order,
        };
        match order {
            Some(()) => {
                let _ = self.child.kill().await;
                End::Killed
            }
            None => {
                drop(stdin);
                if timeout(STOP_MAX, self.child.wait()).await.is_err() {
                    let _ = self.child.kill().await;
                }
                End::Stopped
            }
        }
    }

    async fn last_words(&self, status: std::io::Result<std::process::ExitStatus>) -> String {
        // What it said last may still be on its way.
        sleep(LOOK_EVERY).await;
        let how = match status {
            Ok(status) => format!("ended by itself ({status})"),
            Err(error) => format!("cannot be waited for ({error})"),
        };
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        if said.is_empty() { how } else { format!("{how}:\n{}", said.join("\n")) }
    }
}

/// Shows what a node logs. What it says when it fails is kept, and shown with that.
async fn pass_on(name: String, stderr: ChildStderr, said: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(text) = logged(&line) {
            note(&format!("{name}: {text}"));
            continue;
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == LAST_LINES {
            said.pop_front();
        }
        said.push_back(line);
    }
}

/// A line of telemetry, for people.
fn logged(line: &str) -> Option<String> {
    let Value::Object(fields) = serde_json::from_str(line).ok()? else { return None };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut shown = text(fields.get("level")?);
    if let Some(message) = fields.get("message") {
        shown = format!("{shown} {}", text(message));
    }
    let known = ["timestamp", "level", "message", "target"];
    for (name, value) in fields.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        shown = format!("{shown} {name}={}", text(value));
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telemetry_is_shown_as_text() {
        let line =
            r#"{"timestamp":"t","level":"WARN","message":"m","id":3,"why":"x","target":"d"}"#;
        assert_eq!(logged(line).unwrap(), "WARN m id=3 why=x");
        assert_eq!(logged("error: no"), None);
        assert_eq!(logged("7"), None);
    }
}
