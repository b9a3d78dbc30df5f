#!/usr/bin/env python3
"""Members and registrations on real nodes: they go with the process that they are of, all at once
and on all nodes alike."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import tap
import wire
from cluster import BOPD, PATIENCE, Cluster, die_with_parent, environment, read
from tap import check, check_equal, test, wait_until

BOP = sys.argv[2] if len(sys.argv) > 2 else os.path.join(os.path.dirname(BOPD), "bop")
TIMEOUT_MS = 60000  # Of sessions: whoever goes in a test goes by its grace.
GRACE_MS = 500


class Client:
    """A process of its own that is a member and is registered, until it is killed."""

    def __init__(self, port, name, addresses):
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                die_with_parent()
                self._live(port, name, addresses, told)
            finally:
                os._exit(1)
        os.close(told)
        with os.fdopen(ready) as pipe:
            check_equal(pipe.readline(), "ready\n", f"what client {name} says")

    @staticmethod
    def _live(port, name, addresses, told):
        token = os.urandom(16)
        with wire.Connection(port, PATIENCE) as connection:
            end = time.monotonic() + PATIENCE
            while True:
                status, session, _, grace = connection.session_start(TIMEOUT_MS, GRACE_MS, token)
                if status == wire.OK:
                    break
                check(time.monotonic() < end, f"no session: status {status}")
                time.sleep(0.05)
            check_equal(grace, GRACE_MS, "the grace")
            writes = [wire.member_join("g", name, b"here")]
            writes += [wire.registration_add("r", address, n) for n, address in
                       enumerate(addresses)]
            for n, operation in enumerate(writes):
                status, _ = connection.write(operation, session, n + 1, n)
                check_equal(status, wire.OK, "status of a write")
            os.write(told, b"ready\n")
            while True:
                time.sleep(5)
                connection.session_alive(session)

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Watcher:
    """`bop watch` at one node; the lines it prints as a list of objects."""

    def __init__(self, node, *arguments):
        self.events = []
        self.process = subprocess.Popen(
            [BOP, "watch", *arguments, "--json", "--stale", "--server", f"127.0.0.1:{node.port}"],
            stdout=subprocess.PIPE, text=True, env=environment(), preexec_fn=die_with_parent)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()


def members(node, consistency=wire.LINEARIZABLE):
    """[(name, number)], in the order of the list."""
    status, result = read(node, wire.member_list("g"), consistency)
    check_equal(status, wire.OK, "status of the list")
    return [(name, number) for name, number, _ in wire.page_of(result)[2]]


def listeners(node, address):
    status, result = read(node, wire.registration_get("r", address))
    check_equal(status, wire.OK, "status of the read")
    return len(wire.page_of(result)[2])


@test
def bop_is_registered_as_long_as_it_runs():
    with Cluster() as cluster:
        command = [BOP, "--server", f"127.0.0.1:{cluster.nodes[0].port}", "registration", "add", "r", "x",
                   "--settle"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              env=environment(), preexec_fn=die_with_parent) as holder:
            check_equal(holder.stdout.readline(), "registered\n", "what it says")
            check_equal([listeners(node, b"x") for node in cluster.nodes], [1, 1, 1], "who listens")
            holder.stdin.close()
            check_equal(holder.wait(PATIENCE), 0, "exit status")
        check_equal([listeners(node, b"x") for node in cluster.nodes], [0, 0, 0], "who listens then")
        done = subprocess.run([*command, "--", "sh", "-c", "exit 7"], stdin=subprocess.DEVNULL,
                              env=environment(), timeout=PATIENCE, check=False)
        check_equal(done.returncode, 7, "the command's exit status")


@test
def a_killed_process_is_gone_everywhere_at_once():
    with Cluster() as cluster:
        nodes = cluster.nodes
        with Client(nodes[0].port, b"a", [b"x", b"y"]), \
                Client(nodes[1].port, b"b", [b"x"]) as b, \
                Client(nodes[2].port, b"c", [b"x", b"z"]):
            for node in nodes:
                check_equal([name for name, _ in members(node)], [b"a", b"b", b"c"],
                            f"the members on node {node.number}")
                check_equal(listeners(node, b"x"), 3, "who listens at x")
            began = time.monotonic()
            b.kill()
            wait_until(lambda: len(members(nodes[0])) == 2, "the killed one is gone")
            check(time.monotonic() - began < TIMEOUT_MS / 1000 / 2,
                  "it went by its timeout and not by its grace")
            for node in nodes:
                check_equal([name for name, _ in members(node)], [b"a", b"c"],
                            f"the members on node {node.number}")
                check_equal(listeners(node, b"x"), 2, "who listens at x")
            cluster.converge()


@test
def all_that_a_process_was_goes_in_one_entry():
    with Cluster() as cluster, Client(cluster.nodes[0].port, b"a", [b"x", b"y"]) as client:
        with Watcher(cluster.nodes[1], "group", "g", "--snapshot") as group, \
                Watcher(cluster.nodes[1], "registry", "r", "--snapshot") as registry:
            wait_until(lambda: len(group.events) >= 1 and len(registry.events) >= 2,
                       "the watches begin")
            client.kill()
            wait_until(lambda: any("leave" in json.dumps(e) for e in group.events),
                       "it is told that the member left")
            wait_until(lambda: sum("remove" in json.dumps(e) for e in registry.events) == 2,
                       "it is told that the registrations are gone")
            left = [e["revision"] for e in group.events if "leave" in json.dumps(e)]
            gone = [e["revision"] for e in registry.events if "remove" in json.dumps(e)]
            check_equal(gone, left * 2, "the revisions")


@test
def a_list_has_the_same_order_on_every_node():
    with Cluster() as cluster:
        leader = cluster.leader()
        clients = []
        try:
            for n in range(9):
                clients.append(Client(cluster.nodes[n % 3].port, f"m{n}".encode(), []))
            clients[3].kill()
            wait_until(lambda: len(members(leader)) == 8, "one is gone")
            clients.append(Client(cluster.nodes[1].port, b"m3", []))  # Of the same name: last.
            wanted = [f"m{n}".encode() for n in (0, 1, 2, 4, 5, 6, 7, 8, 3)]
            for node in cluster.nodes:
                said = members(node)
                check_equal([name for name, _ in said], wanted, f"node {node.number}")
                check_equal(said, sorted(said, key=lambda one: one[1]), "the order of numbers")
            cluster.converge()
            check_equal({tuple(members(n, wire.STALE_READ)) for n in cluster.nodes},
                        {tuple(members(leader))}, "what each node has by itself")
        finally:
            for client in clients:
                client.kill()


@test
def bop_joins_again_after_its_session_was_lost():
    """A node of one is stopped for longer than the session lasts, on both sides."""
    with Cluster(1) as cluster:
        node = cluster.nodes[0]
        joined = subprocess.Popen(
            [BOP, "member", "join", "g", "--name", "me", "--server", f"127.0.0.1:{node.port}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
            preexec_fn=die_with_parent)
        try:
            check_equal(joined.stdout.readline(), b"joined\n", "what bop says")
            first = members(node)
            check_equal([name for name, _ in first], [b"me"], "the members")
            joined.send_signal(signal.SIGSTOP)
            # Its connection stays, so this takes the session's whole timeout.
            wait_until(lambda: members(node) == [], "the one that is silent is gone")
            joined.send_signal(signal.SIGCONT)
            again = wait_until(lambda: members(node), "it joins again")
            check(again[0][1] > first[0][1], "its old number")
            joined.stdin.close()
            check_equal(joined.wait(PATIENCE), 0, "exit status of bop")
            check_equal(members(node), [], "the members at the end")
        finally:
            joined.kill()
            joined.wait()
            joined.stdout.close()


if __name__ == "__main__":
    tap.main()
