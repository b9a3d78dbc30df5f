#!/usr/bin/env python3
"""Crowds that mean no good: the server's memory stays bounded, others are served, metrics tell.

    test_server_crowd.py SERVE
"""

import http.client
import pathlib
import resource
import select
import socket
import subprocess
import sys
import time

SERVE = sys.argv[1]
CROWD = 10000
PATIENCE = 120


def sanitized():
    """Sanitizers multiply memory and time: fewer clients, and no bound on memory."""
    return b"__asan_init" in pathlib.Path(SERVE).read_bytes() or \
        b"__tsan_init" in pathlib.Path(SERVE).read_bytes()


class Server:
    def __init__(self):
        ours, theirs = socket.socketpair()
        self.input = ours
        self.process = subprocess.Popen([SERVE], stdin=theirs, stdout=subprocess.PIPE, text=True)
        theirs.close()
        self.port = int(self.process.stdout.readline())

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def get(self, path="/peer"):
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        client.request("GET", path)
        answer = client.getresponse()
        body = answer.read().decode()
        client.close()
        assert answer.status == 200, answer.status
        return body

    def metric(self, name):
        values = [float(line.rsplit(" ", 1)[1]) for line in self.get("/metrics").splitlines()
                  if line.split("{")[0].split(" ")[0] == name]
        assert values, f"no metric {name}"
        return sum(values)

    def resident(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def end(self):
        self.input.close()
        self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, self.process.returncode


def within(server, before, limit, what):
    grown = server.resident() - before
    assert sanitized() or grown <= limit, f"{what}: {grown} bytes more, {limit} are allowed"


def close_all(sockets):
    for each in sockets:
        each.close()


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.1)


def answer_of(client):
    try:
        return client.recv(12)
    except OSError:
        return b""  # It sent on after it was told.


# ---- Crowds ----


def one_byte_a_second(server):
    """Thousands of clients whose requests never end: each costs less than 1 KiB, all time out."""
    count = min(CROWD // 10 if sanitized() else CROWD,
                resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)
    before = server.resident()
    timeouts = server.metric("bop_http_timeouts_total")
    crowd = []
    for _ in range(count):
        client = server.connect()
        client.sendall(b"GET /peer HTTP/1.1\r\nX-Slow: ")
        crowd.append(client)
    for _ in range(4):
        time.sleep(1)
        for client in crowd:
            try:
                client.send(b"x")
            except OSError:
                pass  # Where all this takes long its time was over.
        server.get()
    within(server, before, count * 1024, f"{count} slow clients")
    print(f"# {count} clients: {(server.resident() - before) // count} bytes each")
    wait_until(lambda: server.metric("bop_http_timeouts_total") >= timeouts + count,
               "all slow clients time out")
    assert any(answer_of(client) == b"HTTP/1.1 408" for client in crowd)
    close_all(crowd)


def heads_without_end(server):
    """431 after the bound, however much is sent."""
    before = server.resident()
    crowd = [server.connect() for _ in range(200)]
    line = b"X-Padding: " + b"y" * 1000 + b"\r\n"
    for client in crowd:
        client.sendall(b"GET /peer HTTP/1.1\r\n")
    for _ in range(40):
        for client in crowd:
            try:
                client.sendall(line)
            except OSError:
                pass  # It was told, and closed.
    within(server, before, 200 * 64 * 1024, "heads without end")
    for client in crowd:
        try:
            answer = client.recv(100)
        except ConnectionResetError:
            continue
        assert answer.startswith(b"HTTP/1.1 431"), answer
    server.get()
    close_all(crowd)


def clients_that_never_read(server):
    """What they are sent stays within each connection's bound, and is not made before."""
    before = server.resident()
    crowd = []
    for _ in range(100):
        client = server.connect()
        client.setblocking(False)
        client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        crowd.append(client)
    end = time.monotonic() + 3

    def are_slow():
        for client in select.select([], crowd, [], 0.2)[1]:
            try:
                client.send(bytes(65536))
            except (BlockingIOError, ConnectionError):
                pass
        return time.monotonic() > end and server.metric("bop_http_slow") > 0

    wait_until(are_slow, "the metric shows them")
    within(server, before, 100 * 1024 * 1024 // 2, "clients that never read")
    print(f"# {server.metric('bop_http_slow'):.0f} of them are known to be slow")
    server.get()
    close_all(crowd)
    wait_until(lambda: server.metric("bop_http_slow") == 0, "the metric forgets them")


def no_descriptors(server):
    """Who comes while there is none waits, those inside are served, and it goes on."""
    inside = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    inside.request("GET", "/peer")
    inside.getresponse().read()
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    fds = len(list(pathlib.Path(f"/proc/{server.process.pid}/fd").iterdir()))
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (fds + 3, limits[1]))
    crowd = [server.connect() for _ in range(50)]
    for client in crowd:
        client.sendall(b"GET /peer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    inside.request("GET", "/peer")
    assert inside.getresponse().read()
    inside.request("GET", "/metrics")
    metrics = inside.getresponse().read().decode()
    waits = [line for line in metrics.splitlines() if line.startswith("bop_http_out_of_files")]
    assert waits and float(waits[0].rsplit(" ", 1)[1]) > 0, waits
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
    for client in crowd:
        client.settimeout(PATIENCE)
        assert client.recv(12) == b"HTTP/1.1 200"
    close_all(crowd)
    inside.close()


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # The server's too.
    assert soft <= hard
    crowds = (one_byte_a_second, heads_without_end, clients_that_never_read, no_descriptors)
    failed = 0
    print(f"TAP version 13\n1..{len(crowds)}", flush=True)
    for number, crowd in enumerate(crowds, 1):
        server = Server()
        try:
            crowd(server)
            server.end()
            print(f"ok {number} - {crowd.__name__}", flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print(f"not ok {number} - {crowd.__name__}\n# {type(error).__name__}: {error}",
                  flush=True)
            server.process.kill()
            server.process.wait()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
