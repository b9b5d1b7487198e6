"""A client generated from the book's protocol, against the real binary.

usage: client.py BINARY STUBS

Everything here is what a reader of the book has: its proto file, a generated client, and curl. One
server is started for all tests, on a free port and in a directory of its own, and is stopped at the
end.
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


class Server:
    """A running `dislog server`."""

    def __init__(self, data_dir):
        self.process = subprocess.Popen(
            [BINARY, "server", "--insecure", "--data-dir", data_dir, "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={name: os.environ[name] for name in os.environ if not name.startswith("DISLOG_")},
        )
        self.lines = []
        self.ready = threading.Event()
        self.address = None
        threading.Thread(target=self.read_output, daemon=True).start()
        if not self.ready.wait(WAIT_SECONDS) or self.address is None:
            self.process.kill()
            raise SystemExit("the server did not say where it listens:\n" + "".join(self.lines))

    def read_output(self):
        """Keeps what the server says, and takes from it where it listens."""
        for line in self.process.stdout:
            line = line.decode(errors="replace")
            self.lines.append(line)
            found = re.search(r"127\.0\.0\.1:([1-9]\d*)", line)
            if found and self.address is None:
                self.address = found.group(0)
                self.ready.set()
        self.ready.set()

    def stop(self):
        """Stops it as a supervisor does; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def produce(stub, value, **fields):
    request = log.ProduceRequest(record=log.Record(value=value, **fields))
    return stub.Produce(request, timeout=WAIT_SECONDS).offset


def consume(stub, offset):
    return stub.Consume(log.ConsumeRequest(offset=offset), timeout=WAIT_SECONDS).record


def curl(server, method, body):
    """What the book does with curl: (status, document)."""
    command = ["curl", "-sS", "-X", method, "-d", json.dumps(body), "-w", "\n%{http_code}"]
    command += ["--max-time", str(WAIT_SECONDS), f"http://{server.address}/"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    document, status = output.rsplit("\n", 1)
    return int(status), json.loads(document)


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
    equal(len(servers), 1)
    assert servers[0].is_leader and servers[0].id, servers
    with grpc.insecure_channel(servers[0].rpc_addr) as channel:
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


def run_tests(server):
    tests = [item for item in globals().items() if item[0].startswith("test_")]
    failed = 0
    with grpc.insecure_channel(server.address) as channel:
        stub = log_pb2_grpc.LogStub(channel)
        for name, test in tests:
            try:
                test(server, stub)
                print(f"ok   {name}")
            except Exception:  # pylint: disable=broad-except
                failed += 1
                print(f"FAIL {name}\n{traceback.format_exc()}")
    return len(tests), failed


def main():
    with tempfile.TemporaryDirectory() as data_dir:
        server = Server(data_dir)
        try:
            count, failed = run_tests(server)
        finally:
            code = server.stop()
        count += 1
        if code == 0:
            print("ok   the_server_stops_with_exit_code_0")
        else:
            failed += 1
            print(f"FAIL the_server_stops_with_exit_code_0: it was {code}")
        if failed:
            print("server output:\n" + "".join(server.lines[-50:]))
        print(f"{count - failed} passed, {failed} failed")
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
