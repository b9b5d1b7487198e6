//! A network namespace for each node, and a router between them that can be told to lose packets.
//!
//! ```text
//! test 10.213.0.1 ── 10.213.0.254 ┐
//! node 10.213.1.1 ── 10.213.1.254 ┤ the router's namespace: `ip rule add from A to B blackhole`
//! node 10.213.2.1 ── 10.213.2.254 ┤ loses what goes from A to B, and nobody is told
//! node 10.213.3.1 ── 10.213.3.254 ┘
//! ```

use std::process::{Command, Output};

use crate::node::binary;

/// The port of every node: each has an address of its own.
const PORT: u16 = 8_400;

/// Namespaces that go when this is dropped.
pub(crate) struct Namespaces {
    prefix: String,
    nodes: usize,
}

impl Namespaces {
    /// Namespaces for so many nodes. Needs root.
    pub(crate) fn make(nodes: usize) -> Namespaces {
        let prefix = format!("dislog-{}", std::process::id());
        let made = Namespaces { prefix, nodes };
        let router = made.router();
        made.ip(&format!("netns add {router}"));
        made.in_router("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0");
        made.in_router("sysctl -qw net.ipv4.conf.default.rp_filter=0");
        let link = made.link(0);
        made.ip(&format!("link add {link} type veth peer name port0 netns {router}"));
        made.ip(&format!("addr add 10.213.0.1/24 dev {link}"));
        made.ip(&format!("link set {link} up"));
        made.ip("route add 10.213.0.0/16 via 10.213.0.254");
        made.port_up(0);
        for node in 1..=nodes {
            let name = made.of(node);
            made.ip(&format!("netns add {name}"));
            made.ip(&format!(
                "-n {name} link add up0 type veth peer name port{node} netns {router}"
            ));
            made.ip(&format!("-n {name} addr add {}/24 dev up0", address(node)));
            made.ip(&format!("-n {name} link set lo up"));
            made.ip(&format!("-n {name} link set up0 up"));
            made.port_up(node);
            made.ip(&format!("-n {name} route add default via 10.213.{node}.254"));
        }
        made
    }

    fn port_up(&self, number: usize) {
        let router = self.router();
        self.ip(&format!("-n {router} addr add 10.213.{number}.254/24 dev port{number}"));
        self.ip(&format!("-n {router} link set port{number} up"));
    }

    /// Where the nodes listen, from the first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        (1..=self.nodes).map(|node| format!("{}:{PORT}", address(node))).collect()
    }

    /// Runs the binary where a node is, counted from 0.
    pub(crate) fn command(&self, number: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.of(number + 1)]).arg(binary());
        command
    }

    /// Loses everything that one node sends another, both counted from 0.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let (from, to) = (address(from + 1), address(to + 1));
        self.ip(&format!("-n {} rule add from {from} to {to} blackhole", self.router()));
    }

    /// Takes all cuts back.
    pub(crate) fn heal(&self) {
        // One at a time, until none is left.
        while self.try_ip(&format!("-n {} rule del blackhole", self.router())).status.success() {}
    }

    fn router(&self) -> String {
        self.of(0)
    }

    fn of(&self, number: usize) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// The name of a link has 15 bytes at most.
    fn link(&self, number: usize) -> String {
        format!("dl{}-{number}", std::process::id())
    }

    fn in_router(&self, command: &str) {
        self.ip(&format!("netns exec {} {command}", self.router()));
    }

    fn ip(&self, args: &str) {
        let output = self.try_ip(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {args}: {said}(this needs root, and iproute2)");
    }

    fn try_ip(&self, args: &str) -> Output {
        Command::new("ip").args(args.split_whitespace()).output().expect("iproute2 is installed")
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for number in 0..=self.nodes {
            // What was not made is not there to be removed.
            self.try_ip(&format!("netns del {}", self.of(number)));
        }
    }
}

fn address(node: usize) -> String {
    format!("10.213.{node}.1")
}
