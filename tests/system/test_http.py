#!/usr/bin/env python3
"""The HTTP API of three real nodes: each serves everything, with curl, http.client and hostile bytes;
health that means it; a dashboard whose metrics are there."""

import base64
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from urllib.parse import quote

import cluster as clusters
import tap
import wire
from cluster import PATIENCE, Cluster
from tap import Skip, check, check_equal, note, test, wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BOP = sys.argv[2] if len(sys.argv) > 2 else ""
BUSY_STATUSES = (429, 503)


class HttpCluster(Cluster):
    """Nodes that serve HTTP, too: node.http is the port."""

    def add(self, join=False):
        node = super().add(join)
        node.http = clusters.free_port()
        node.extra = ["--http", f"127.0.0.1:{node.http}"]
        return node


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)


def once(node, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", node.http, timeout=PATIENCE)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def ask(node, method, path, body=None, headers=None):
    """What is answered once the cluster decides."""
    def decided():
        answer = once(node, method, path, body, headers)
        return None if answer.status in BUSY_STATUSES else answer
    return wait_until(decided, f"node {node.number} answers {method} {path}", PATIENCE)


def expect(node, status, method, path, body=None, headers=None):
    answer = ask(node, method, path, body, headers)
    check_equal(answer.status, status, f"{method} {path} at node {node.number}: {answer.body[:300]}")
    return answer


def field(entry, name):
    return entry[name].encode() if name in entry else base64.b64decode(entry[name + "64"])


def entry_path(name, key):
    return f"/v1/maps/{quote(name, safe='')}/entries/{quote(key, safe='')}"


@test
def every_node_serves_everything():
    with HttpCluster() as cluster:
        for node in cluster.nodes:
            other = cluster.others(node)[0]
            key = bytes(range(256)) + str(node.number).encode()
            value = os.urandom(1000)
            put = expect(node, 201, "PUT", entry_path("a/m", key), value, {"If-None-Match": "*"})
            got = expect(other, 200, "GET", entry_path("a/m", key))
            check(got.body == value, f"the value of node {node.number} at node {other.number}")
            check_equal(got.headers["ETag"], put.headers["ETag"], "its version")
            expect(other, 304, "GET", entry_path("a/m", key),
                   headers={"If-None-Match": got.headers["ETag"]})
            expect(other, 412, "PUT", entry_path("a/m", key), b"", {"If-Match": '"1"'})
            expect(node, 200, "POST", "/v1/counters/c/add", '{"delta": 2}')
            expect(node, 201, "PUT", f"/v1/sets/s/members/{node.number}")
            expect(node, 201, "POST", "/v1/multimaps/mm/keys/k", str(node.number))
        for node in cluster.nodes:
            check_equal(expect(node, 200, "GET", "/v1/counters/c").json(), {"value": 6}, "counter")
            check_equal(expect(node, 200, "GET", "/v1/sets/s").json(), {"size": 3}, "set")
            values = expect(node, 200, "GET", "/v1/multimaps/mm/keys/k").json()["values"]
            check_equal([v["value"] for v in values], ["1", "2", "3"], "multimap")
            page = expect(node, 200, "GET", "/v1/maps/a%2Fm/entries").json()
            check_equal(len(page["entries"]), 3, "entries")
            servers = expect(node, 200, "GET", "/v1/cluster").json()
            check_equal(servers["leader"], cluster.leader().number, "the leader")
            check_equal(sorted(s["id"] for s in servers["servers"]), [1, 2, 3], "the servers")
            check_equal(expect(node, 200, "GET", "/v1/status").json()["node"], node.number, "node")


@test
def curl_gets_along_with_it():
    if not shutil.which("curl"):
        raise Skip("there is no curl")
    with HttpCluster(count=1) as cluster:
        url = f"http://127.0.0.1:{cluster.nodes[0].http}"

        def curl(*arguments):
            done = subprocess.run(["curl", "-sS", "--max-time", str(PATIENCE), "-w", "\n%{http_code}",
                                   *arguments], capture_output=True, text=True, check=False)
            check_equal(done.returncode, 0, f"curl {arguments}: {done.stderr}")
            return done.stdout.rpartition("\n")[::2]

        check_equal(curl("-X", "PUT", "--data-binary", "world", f"{url}/v1/maps/m/entries/hello")[1],
                    "201", "put")
        check_equal(curl(f"{url}/v1/maps/m/entries/hello"), ("world", "200"), "get")
        check_equal(curl("-I", f"{url}/v1/maps/m/entries/hello")[1], "200", "head")
        check_equal(curl("-X", "PUT", "-H", "Transfer-Encoding: chunked", "--data-binary", "chunks",
                         f"{url}/v1/maps/m/entries/hello")[1], "200", "put in chunks")
        body, status = curl("-X", "PUT", "-d", "no number", f"{url}/v1/counters/c")
        check_equal(status, "400", "no number")
        check_equal(json.loads(body)["type"], "urn:bop:error:bad-request", "its type")


@test
def a_map_goes_in_and_out_as_lines():
    count = 30000
    entries = {f"key {n:06}".encode() + (b"\xff" if n % 7 == 0 else b""): b"v" * (n % 300)
               for n in range(count)}

    def lines():
        for key, value in entries.items():
            try:
                entry = {"key": key.decode()}
            except UnicodeDecodeError:
                entry = {"key64": base64.b64encode(key).decode()}
            yield json.dumps({**entry, "value": value.decode()}).encode() + b"\n"

    with HttpCluster() as cluster:
        follower = cluster.follower()
        answer = once(follower, "POST", "/v1/maps/m/import", lines(),
                      {"Content-Type": "application/x-ndjson"})
        check_equal(answer.status, 200, f"{answer.body[:300]}")
        check_equal(answer.json(), {"stored": count}, "stored")
        for node in cluster.nodes:
            out = expect(node, 200, "GET", "/v1/maps/m/export").body.splitlines()
            found = {field(e, "key"): field(e, "value") for e in map(json.loads, out)}
            check_equal(len(out), count, "lines")
            check(found == entries, f"the export of node {node.number} differs")
        part = expect(follower, 200, "GET", "/v1/maps/m/export?prefix=key%200001").body
        check_equal(len(part.splitlines()), 100, "lines with the prefix")
        if os.path.exists(BOP):
            path = os.path.join(cluster.directory, "out.ndjson")
            subprocess.run([BOP, "--server", f"127.0.0.1:{follower.port}", "map", "export", "m", path],
                           check=True, capture_output=True, timeout=PATIENCE)
            with open(path, encoding="utf-8") as file:
                same = [json.loads(line) for line in file] == [json.loads(line) for line in out]
            check(same, "bop map export gives other lines")


@test
def a_reader_that_does_not_read_costs_little():
    with HttpCluster(count=1) as cluster:
        node = cluster.nodes[0]
        line = b'{"key":"%06d","value":"' + b"x" * 1000 + b'"}\n'
        answer = once(node, "POST", "/v1/maps/m/import", (line % n for n in range(40000)))
        check_equal(answer.json(), {"stored": 40000}, "stored")
        expect(node, 200, "GET", "/v1/maps/m/export?prefix=0000")
        before = node.resident_bytes()
        with socket.create_connection(("127.0.0.1", node.http), timeout=PATIENCE) as slow:
            slow.sendall(b"GET /v1/maps/m/export HTTP/1.1\r\nHost: localhost\r\n\r\n")
            check(slow.recv(1000).startswith(b"HTTP/1.1 200"), "the export begins")
            for _ in range(20):
                expect(node, 200, "GET", "/v1/maps/m")
            grown = node.resident_bytes() - before
            note(f"grown by {grown} bytes for 40 MB that nobody reads")
            check(grown < 20 << 20, f"it grew by {grown} bytes")
        expect(node, 200, "GET", "/healthz")


@test
def readiness_is_what_clients_will_find():
    with HttpCluster() as cluster:
        for node in cluster.nodes:
            expect(node, 200, "GET", "/readyz")
            expect(node, 200, "GET", "/healthz")
        last, *others = cluster.nodes
        for node in others:
            node.kill()

        def not_ready():
            answer = once(last, "GET", "/readyz")
            return answer if answer.status == 503 else None
        answer = wait_until(not_ready, "it is not ready without a majority", PATIENCE)
        check_equal(answer.headers["Content-Type"], "application/problem+json", "its type")
        check(answer.json()["detail"], "it says why")
        check_equal(once(last, "GET", "/healthz").status, 200, "it is healthy all the same")
        check_equal(once(last, "PUT", entry_path("m", b"k"), b"v").status in (503, 504), True,
                    "a write without a majority")
        check_equal(once(last, "GET", "/v1/maps/m?consistency=stale").status, 200, "a stale read")
        for node in others:
            node.start()
        expect(last, 200, "GET", "/readyz")


@test
def hostile_bytes_get_an_answer_or_an_end():
    requests = [
        b"\x00" * 1000, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/maps/%00/entries/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/maps/" + b"%ff" * 1000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT /v1/maps/m/entries/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"PUT /v1/maps/m/entries/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /v1/counters/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60000,
        b"POST /v1/maps/m/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{\"key\":1}",
        b"POST /v1/maps/m/import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\n\xff\xff\xff\n\r\n0\r\n\r\n",
        b"GET /v1/maps/m/entries?cursor=" + b"A" * 90000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/maps/m/entries/" + b"%fe" * 65536 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/maps/m/entries/" + b"%fe" * 65537 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a" * 300000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    with HttpCluster(count=1) as cluster:
        node = cluster.nodes[0]
        for request in requests:
            with socket.create_connection(("127.0.0.1", node.http), timeout=PATIENCE) as raw:
                answer = b""
                try:
                    raw.sendall(request)
                    raw.shutdown(socket.SHUT_WR)
                    while piece := raw.recv(65536):
                        answer += piece
                except ConnectionError:
                    pass
                note(f"{request[:60]!r}: {answer[:40]!r}")
                check(answer.startswith(b"HTTP/1.1 4") or not answer, f"{answer[:100]!r}")
        expect(node, 200, "GET", "/healthz")


@test
def each_metric_of_the_dashboard_is_served():
    with open(os.path.join(ROOT, "contrib/grafana/bop.json"), encoding="utf-8") as file:
        dashboard = json.load(file)
    wanted = set()
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            wanted |= set(re.findall(r"\bbop_\w+", target["expr"]))
    check(len(wanted) > 20, f"only {wanted} are on the dashboard")
    with HttpCluster(count=1) as cluster:
        node = cluster.nodes[0]
        expect(node, 201, "PUT", entry_path("m", b"k"), b"v")
        answer = expect(node, 200, "GET", "/metrics")
        check(answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"), "its type")
        served = set(re.findall(r"^(bop_\w+)[ {]", answer.body.decode(), re.MULTILINE))
        check(wanted <= served, f"{sorted(wanted - served)} are not served")


@test
def logging_changes_at_run_time():
    with HttpCluster(count=1) as cluster:
        node = cluster.nodes[0]
        check_equal(expect(node, 200, "PUT", "/debug/log", '{"level": "error"}').json(),
                    {"level": "error"}, "the level")
        check_equal(expect(node, 200, "GET", "/debug/log").json(), {"level": "error"}, "the level")
        expect(node, 200, "POST", "/debug/heap/start?sample_bytes=4096")
        expect(node, 201, "PUT", entry_path("m", b"k"), b"v" * 100000)
        check(expect(node, 200, "GET", "/debug/heap/profile").body.startswith(b"heap profile:"),
              "the profile")
        expect(node, 200, "POST", "/debug/heap/stop")


class WebSocket:
    """As much of RFC 6455 as a client of watches needs."""

    def __init__(self, node, path="/v1/watch", headers=()):
        self.socket = socket.create_connection(("127.0.0.1", node.http), PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        head = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{node.http}", "Connection: Upgrade",
                "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", *headers]
        self.socket.sendall("\r\n".join([*head, "", ""]).encode())
        self.bytes = b""
        while b"\r\n\r\n" not in self.bytes:
            self._receive()
        answer, _, self.bytes = self.bytes.partition(b"\r\n\r\n")
        self.status = int(answer.split()[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _receive(self):
        got = self.socket.recv(1 << 16)
        if not got:
            raise ConnectionError("the node closed the connection")
        self.bytes += got

    def _take(self, size):
        while len(self.bytes) < size:
            self._receive()
        taken, self.bytes = self.bytes[:size], self.bytes[size:]
        return taken

    def send(self, message):
        payload = json.dumps(message).encode()
        assert len(payload) < 126
        mask = os.urandom(4)
        self.socket.sendall(bytes([0x81, 0x80 | len(payload)]) + mask +
                            bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)))

    def next(self):
        opcode, size = self._take(2)
        if size >= 126:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        payload = self._take(size)
        check_equal(opcode, 0x81, "a whole text message")
        return json.loads(payload)


def write_while(cluster, count, at, event):
    """Writes of a session to the map m, with an event in their midst: [(revision, value)]."""
    with cluster.client() as client:
        replies = client.run([wire.map_put("m", b"k", str(n).encode()) for n in range(count)],
                             window=16, events={at: event})
    return sorted((int.from_bytes(result[1:9], "little"), str(n))
                  for n, (_, result) in enumerate(replies))


@test
def a_follower_tells_every_event_once_while_the_leader_is_killed():
    count = 300
    with HttpCluster() as cluster:
        leader = cluster.leader()
        follower = cluster.follower()
        with cluster.client() as client:
            client.write(wire.map_put("m", b"k", b"first"))
        expect(follower, 200, "GET", "/v1/maps/m/entries/k")
        with WebSocket(follower) as watcher:
            check_equal(watcher.status, 101, "the WebSocket is open")
            watcher.send({"open": {"kind": "map", "name": "m"}, "id": 7})
            opened = watcher.next()
            check_equal((opened["id"], opened["opened"]), (7, True), "the watch is open")
            done = write_while(cluster, count, count // 3, leader.kill)
            told = []
            while len(told) < count:
                message = watcher.next()
                check("resync" not in message, "events are missing")
                told += [(message["revision"], event["value"]) for event in message["events"]]
            check_equal(told, done, "revisions and values that were told")
        revision, values = opened["revision"], []
        node = follower
        while len(values) < count:  # The same again, waited for, at one node after another.
            page = expect(node, 200, "GET",
                          f"/v1/watch?kind=map&name=m&revision={revision}&timeout_ms=5000").json()
            values += [event["value"] for event in page["events"]]
            revision = page["revision"]
            node = cluster.others(leader, node)[0]
        check_equal(values, [value for _, value in done], "values that were waited for")
        leader.start()
        cluster.converge()


@test
def a_wait_ends_with_the_event():
    with HttpCluster() as cluster:
        follower = cluster.follower()
        expect(follower, 201, "POST", "/v1/sets/s")
        got = []
        thread = threading.Thread(target=lambda: got.append(
            once(follower, "GET", "/v1/watch?kind=set&name=s&timeout_ms=60000").json()))
        thread.start()
        wait_until(lambda: b"\nbop_watches 1\n" in once(follower, "GET", "/metrics").body,
                   "the watch is open", PATIENCE)
        expect(cluster.leader(), 201, "PUT", "/v1/sets/s/members/x")
        thread.join(PATIENCE)
        check_equal([event["type"] for page in got for event in page["events"]], ["set.add"], "event")


@test
def a_websocket_of_others_gets_along_with_it():
    try:
        import asyncio
        import websockets
    except ImportError as absent:
        raise Skip("there is no websockets of Python") from absent

    async def watch(node):
        async with websockets.connect(f"ws://127.0.0.1:{node.http}/v1/watch") as peer:
            await peer.send(json.dumps({"open": {"kind": "counter", "name": "c", "snapshot": True},
                                        "id": 1}))
            got = []
            while not got or not got[-1].get("live"):
                got.append(json.loads(await asyncio.wait_for(peer.recv(), PATIENCE)))
            pong = await peer.ping()
            await asyncio.wait_for(pong, PATIENCE)
            return got

    with HttpCluster(count=1) as cluster:
        expect(cluster.nodes[0], 200, "POST", "/v1/counters/c/add", '{"delta": 7}')
        got = asyncio.run(watch(cluster.nodes[0]))
        check_equal([event["value"] for message in got for event in message.get("events", [])], [7],
                    "the snapshot")


@test
def on_loopback_without_tokens_it_goes_by_no_other_name():
    def asked(node, host, **more):
        return once(node, "GET", "/v1/status", headers={"Host": host, **more}).status

    with HttpCluster(count=1) as cluster:
        node = cluster.nodes[0]
        for host in ("127.0.0.1", f"127.0.0.1:{node.http}", "127.9.9.9", "localhost", "LocalHost:1",
                     "[::1]:1", "10.0.0.1"):
            check_equal(asked(node, host), 200, f"asked as {host}")
        for host in ("evil.example", f"evil.example:{node.http}", "localhost.evil.example", "1.2.3",
                     "127.0.0.1.evil.example", "x" * 300):
            check_equal(asked(node, host), 421, f"asked as {host}")
        check_equal(asked(node, "evil.example", Origin="http://evil.example"), 421, "its own page")
        with WebSocket(node, headers=["Origin: http://evil.example"]) as watcher:
            check_equal(watcher.status, 403, "a WebSocket of a page of others")
    with HttpCluster(count=1, start=False) as cluster:
        node = cluster.nodes[0]
        node.extra = ["--http", f"localhost:{node.http}"]
        cluster.start()
        check_equal(asked(node, "localhost"), 200, "asked by its name")
        check_equal(asked(node, "evil.example"), 421, "asked by another's")


@test
def people_are_told_where_it_is():
    status, _, lines = clusters.run_bopd(["--dev", "--listen", "127.0.0.1:0", "--http", "nowhere"])
    check_equal(status, 2, "an address without a port")
    check("--http" in lines[0], f"{lines}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, lines = clusters.run_bopd(["--dev", "--listen", "127.0.0.1:0", "--http",
                                              f"127.0.0.1:{port}"])
        check_equal(status, 4, "a port that is taken")
        check("--http" in lines[0], f"{lines}")


if __name__ == "__main__":
    tap.main()
