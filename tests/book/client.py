"""A client generated from the book's protocol, against the real binary.

usage: client.py BINARY STUBS

Everything here is what a reader of the book has: its proto file, a generated client, and curl. The
tests run twice: on one node without TLS, and on the README's secured cluster of three, with
certificates and, for curl, a token. Servers listen on free ports, keep all in a directory of their
own, and are stopped at the end.
"""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import traceback

BINARY, STUBS = sys.argv[1], sys.argv[2]
sys.path.insert(0, STUBS)

import grpc  # noqa: E402
import log_pb2 as log  # noqa: E402
import log_pb2_grpc  # noqa: E402

# How long anything may take before it counts as hanging.
WAIT_SECONDS = 30

# The same for servers that start, three at a time.
START_SECONDS = 90


class Server:
    """Servers that run until they are stopped; how to reach them."""

    # What curl needs to know, and how many nodes there are.
    scheme, curl_arguments, nodes = "http", [], 1

    def __init__(self, home, *arguments):
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DISLOG_")
        }
        self.environment.update(HOME=home)
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            self.environment.pop(name, None)
        self.process = subprocess.Popen(
            [BINARY, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
        )
        self.lines = []
        self.ready = threading.Event()
        self.addresses = []
        threading.Thread(target=self.read_output, daemon=True).start()
        if not self.ready.wait(START_SECONDS) or not self.addresses:
            self.process.kill()
            raise SystemExit("the server did not say where it listens:\n" + "".join(self.lines))

    @property
    def address(self):
        return self.addresses[0]

    def read_output(self):
        """Keeps what is said, and takes from it the addresses: the first line with any has all."""
        for line in self.process.stdout:
            line = line.decode(errors="replace")
            self.lines.append(line)
            found = re.findall(r"127\.0\.0\.1:[1-9]\d*", line)
            if found and not self.addresses:
                self.addresses = found
                self.ready.set()
        self.ready.set()

    def channel(self, address):
        return grpc.insecure_channel(address)

    def dislog(self, *arguments, stdin=""):
        """What a command of whoever started this prints."""
        command = [BINARY, *arguments]
        ended = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self.environment, check=False
        )
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
        return ended.stdout

    def stop(self):
        """Stops it as a supervisor does; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class PlainServer(Server):
    """One node."""

    def __init__(self, home):
        arguments = ["--insecure", "--data-dir", home, "--listen", "127.0.0.1:0"]
        super().__init__(home, "server", *arguments)


class SecuredCluster(Server):
    """The README's cluster with certificates and rules; only the ports are others."""

    scheme, nodes = "https", 3

    def __init__(self, home):
        super().__init__(home, "dev", "--secure", "--nodes", "3", "--port", "0")
        self.files = os.path.join(home, ".local/share/dislog/dev/certs/dev")
        self.ca = ["--cacert", self.file("ca.crt")]
        own = ["--cert", self.file("tls.crt"), "--key", self.file("tls.key")]
        self.curl_arguments = self.ca + own

    def file(self, name):
        return os.path.join(self.files, name)

    def content(self, name):
        with open(self.file(name), "rb") as file:
            return file.read()

    def channel(self, address):
        authority, key, certificate = map(self.content, ("ca.crt", "tls.key", "tls.crt"))
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        return grpc.secure_channel(address, credentials)


def produce(stub, value, **fields):
    request = log.ProduceRequest(record=log.Record(value=value, **fields))
    return stub.Produce(request, timeout=WAIT_SECONDS).offset


def consume(stub, offset):
    return stub.Consume(log.ConsumeRequest(offset=offset), timeout=WAIT_SECONDS).record


def run_curl(address, *arguments):
    """(status, body)"""
    command = ["curl", "-sS", "-w", "\n%{http_code}", "--max-time", str(WAIT_SECONDS)]
    output = subprocess.run(
        command + [*arguments, address], check=True, capture_output=True, text=True
    ).stdout
    body, status = output.rsplit("\n", 1)
    return int(status), body


def curl(server, method, body):
    """What the book does with curl: (status, document)."""
    arguments = ["-X", method, "-d", json.dumps(body), *server.curl_arguments]
    status, document = run_curl(f"{server.scheme}://{server.address}/", *arguments)
    return status, json.loads(document)


def equal(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


# The tests run in this order on one log, which is empty at first.


def test_the_first_record_gets_offset_zero(server, stub):
    equal(produce(stub, b"hello world"), 0)
    record = consume(stub, 0)
    equal((record.value, record.offset), (b"hello world", 0))
    assert record.term > 0, "the leader's term is stamped"


def test_the_type_of_a_record_is_kept(server, stub):
    offset = produce(stub, b"\x00\xff binary", type=7)
    record = consume(stub, offset)
    equal((record.value, record.type), (b"\x00\xff binary", 7))


def test_an_empty_record_is_a_record(server, stub):
    offset = stub.Produce(log.ProduceRequest(record=log.Record()), timeout=WAIT_SECONDS).offset
    record = consume(stub, offset)
    equal((record.value, record.offset), (b"", offset))


def test_past_the_end_is_out_of_range(server, stub):
    end = produce(stub, b"last") + 1
    try:
        consume(stub, end)
    except grpc.RpcError as error:
        equal(error.code(), grpc.StatusCode.OUT_OF_RANGE)
        assert str(end) in error.details(), f"the error names the offset: {error.details()}"
    else:
        raise AssertionError("there is no such record")


def test_produce_stream_answers_every_request_in_order(server, stub):
    first = produce(stub, b"before the stream") + 1
    values = [b"first message", b"second message", b"", b"x" * 100_000]
    requests = (log.ProduceRequest(record=log.Record(value=value)) for value in values)
    offsets = [answer.offset for answer in stub.ProduceStream(requests, timeout=WAIT_SECONDS)]
    equal(offsets, list(range(first, first + len(values))))
    equal([consume(stub, offset).value for offset in offsets], values)


def test_produce_stream_is_a_conversation(server, stub):
    """As in the book: send, wait for the answer, send the next on the same stream."""
    answered = threading.Semaphore(1)
    offsets = []

    def requests():
        for number in range(3):
            assert answered.acquire(timeout=WAIT_SECONDS)
            yield log.ProduceRequest(record=log.Record(value=b"turn %d" % number))

    for answer in stub.ProduceStream(requests(), timeout=WAIT_SECONDS):
        offsets.append(answer.offset)
        answered.release()
    equal(len(offsets), 3)
    equal([consume(stub, offset).value for offset in offsets], [b"turn 0", b"turn 1", b"turn 2"])


def test_consume_stream_gives_one_record_a_message_and_follows(server, stub):
    offset = produce(stub, b"stream 0")
    equal(produce(stub, b"stream 1"), offset + 1)
    stream = stub.ConsumeStream(log.ConsumeRequest(offset=offset), timeout=WAIT_SECONDS)
    seen = [next(stream).record for _ in range(2)]
    equal([record.value for record in seen], [b"stream 0", b"stream 1"])
    equal([record.offset for record in seen], [offset, offset + 1])
    equal(produce(stub, b"stream 2"), offset + 2)
    equal(next(stream).record.value, b"stream 2")
    stream.cancel()


def test_get_servers_names_one_leader_that_can_be_dialled(server, stub):
    servers = stub.GetServers(log.GetServersRequest(), timeout=WAIT_SECONDS).servers
    equal(len(servers), server.nodes)
    equal([entry.is_leader for entry in servers].count(True), 1)
    for entry in servers:
        assert entry.id, servers
        with server.channel(entry.rpc_addr) as channel:
            equal(consume(log_pb2_grpc.LogStub(channel), 0).value, b"hello world")


def test_curl_posts_and_gets(server, stub):
    value = base64.b64encode(b"Let's Go #1\n").decode()
    status, answer = curl(server, "POST", {"record": {"value": value}})
    equal(status, 200)
    offset = answer["offset"]
    equal(consume(stub, offset).value, b"Let's Go #1\n")
    status, answer = curl(server, "GET", {"offset": offset})
    equal(status, 200)
    equal((answer["record"]["value"], answer["record"]["offset"]), (value, offset))


def test_curl_past_the_end_is_404(server, stub):
    status, _ = curl(server, "GET", {"offset": produce(stub, b"the end") + 1})
    equal(status, 404)


# These run behind the others, on the secured cluster only.


def secured_every_node_takes_and_gives_records(cluster):
    for address in cluster.addresses:
        with cluster.channel(address) as channel:
            stub = log_pb2_grpc.LogStub(channel)
            requests = (log.ProduceRequest(record=log.Record(value=b"by %d" % n)) for n in range(3))
            answers = stub.ProduceStream(requests, timeout=WAIT_SECONDS)
            offsets = [answer.offset for answer in answers]
            equal(offsets, list(range(offsets[0], offsets[0] + 3)))
            request = log.ConsumeRequest(offset=offsets[0])
            stream = stub.ConsumeStream(request, timeout=WAIT_SECONDS)
            equal([next(stream).record.value for _ in range(3)], [b"by 0", b"by 1", b"by 2"])
            stream.cancel()


def secured_a_new_topic_is_of_use_at_once(cluster):
    for number in range(4 * cluster.nodes):
        address = cluster.addresses[number % cluster.nodes]
        records = f"https://{address}/v1/topics/new-{number}/records"
        status, answer = run_curl(records, *cluster.curl_arguments, "-d", "first")
        assert status == 201, f"{number}: {status} {answer}"
        status, answer = run_curl(f"{records}/0", *cluster.curl_arguments)
        assert status == 200, f"{number}: {status} {answer}"


def secured_the_commands_of_the_readme_work(cluster):
    cluster.dislog("add", "demo", stdin="hi\n")
    equal(cluster.dislog("get", "demo"), "hi\n")


def secured_curl_uses_the_routes_with_a_certificate(cluster):
    use_routes(cluster, "by-certificate", cluster.curl_arguments)


def secured_curl_uses_the_routes_with_a_token(cluster):
    token = cluster.dislog("token", "create", "dev").strip()
    bearer = ["-H", f"authorization: Bearer {token}"]
    use_routes(cluster, "by-token", cluster.ca + bearer)
    cluster.dislog("token", "revoke", "--yes", "dev")
    for address in cluster.addresses:
        status, _ = run_curl(f"https://{address}/v1/topics", *cluster.ca, *bearer)
        equal(status, 401)


def use_routes(cluster, topic, who):
    for number, address in enumerate(cluster.addresses):
        records = f"https://{address}/v1/topics/{topic}/records"
        status, answer = run_curl(records, *who, "-d", f"record {number}")
        equal(status, 201)
        equal(json.loads(answer)["offset"], number)
    for address in cluster.addresses:
        records = f"https://{address}/v1/topics/{topic}/records"
        status, text = run_curl(
            f"{records}?offset=0&limit=9", *who, "-H", "accept: application/x-ndjson"
        )
        values = [json.loads(line)["value"] for line in text.splitlines()]
        equal((status, values), (200, ["record 0", "record 1", "record 2"]))
        status, text = run_curl(f"https://{address}/v1/topics", *who)
        names = [entry["name"] for entry in json.loads(text)["topics"]]
        assert status == 200 and topic in names, names


def secured_nobody_else_gets_in(cluster):
    for arguments in ([], ["-d", "x"]):
        records = f"https://{cluster.address}/v1/topics/t/records"
        status, _ = run_curl(records, *cluster.ca, *arguments)
        equal(status, 401)
    credentials = grpc.ssl_channel_credentials(cluster.content("ca.crt"))
    with grpc.secure_channel(cluster.address, credentials) as channel:
        try:
            consume(log_pb2_grpc.LogStub(channel), 0)
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.UNAUTHENTICATED)
        else:
            raise AssertionError("nobody has shown a certificate")


def run_tests(server):
    """(how many, how many failed)"""
    prefixes = ("test_", "secured_") if isinstance(server, SecuredCluster) else ("test_",)
    tests = [item for item in globals().items() if item[0].startswith(prefixes)]
    failed = 0
    with server.channel(server.address) as channel:
        stub = log_pb2_grpc.LogStub(channel)
        for name, test in tests:
            try:
                if name.startswith("test_"):
                    test(server, stub)
                else:
                    test(server)
                print(f"ok   {name}")
            except Exception:  # pylint: disable=broad-except
                failed += 1
                print(f"FAIL {name}\n{traceback.format_exc()}")
    return len(tests), failed


def run_on(kind):
    """Runs all tests on a new server: (how many, how many failed)."""
    print(f"{kind.__name__}:")
    with tempfile.TemporaryDirectory() as home:
        server = kind(home)
        try:
            count, failed = run_tests(server)
        finally:
            code = server.stop()
        if code == 0:
            print("ok   the_server_stops_with_exit_code_0")
        else:
            failed += 1
            print(f"FAIL the_server_stops_with_exit_code_0: it was {code}")
        if failed:
            print("server output:\n" + "".join(server.lines[-50:]))
        return count + 1, failed


def main():
    results = [run_on(kind) for kind in (PlainServer, SecuredCluster)]
    count, failed = (sum(numbers) for numbers in zip(*results))
    print(f"{count - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
