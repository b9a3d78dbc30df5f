#!/usr/bin/env python3
"""Watches on real nodes: every event once, in order and none missing, whatever becomes of the nodes."""

import json
import os
import subprocess
import sys
import threading
import time

import tap
import wire
from cluster import BOPD, PATIENCE, Cluster, die_with_parent, environment
from tap import check, check_equal, test, wait_until

BOP = sys.argv[2] if len(sys.argv) > 2 else os.path.join(os.path.dirname(BOPD), "bop")
VIEW_OPEN, VIEW_READ, VIEW_CLOSE = 174, 176, 178
NO_VIEW = 16
VIEWS_MAX = 16
WRITES = 400


class Watcher:
    """`bop watch` as a process; the lines it prints as a list of objects."""

    def __init__(self, ports, *arguments):
        servers = ",".join(f"127.0.0.1:{port}" for port in ports)
        self.events = []
        self.process = subprocess.Popen(
            [BOP, "watch", *arguments, "--json", "--server", servers], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment(), preexec_fn=die_with_parent)
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
        self.process.stderr.close()
        self.process.stdout.close()

    def ended(self):
        code = self.process.wait(PATIENCE)
        self.thread.join()
        return code, self.process.stderr.read()


def put(n, key="k"):
    return wire.map_put("m", key.encode(), str(n).encode())


def check_all_told(events, replies):
    """Each write of `replies` was told once, in the order in which they were done."""
    done = sorted((int.from_bytes(result[1:9], "little"), str(n))
                  for n, (_, result) in enumerate(replies))
    check_equal([(event["revision"], event["value"]) for event in events], done,
                "revisions and values that were told")


def starts(cluster, watcher, ports):
    """Write marks until the watcher hears them: then it is open. They are taken off."""
    number = 0

    def heard():
        nonlocal number
        number += 1
        with cluster.client(ports) as client:
            client.write(wire.map_put("m", b"begin", str(number).encode()))
        return len(watcher.events) > 0
    wait_until(heard, "the watcher hears of a write")
    time.sleep(0.2)
    wait_until(lambda: int(watcher.events[-1]["value"]) == number, "it hears of the last mark")
    watcher.events.clear()


@test
def a_leader_is_killed_under_writes_and_a_watcher_on_a_follower_hears_of_all():
    with Cluster() as cluster:
        leader = cluster.leader()
        follower = cluster.follower()
        with Watcher([follower.port], "map", "m", "--stale") as watcher:
            starts(cluster, watcher, None)
            with cluster.client() as client:
                replies = client.run([put(n) for n in range(WRITES)], window=16,
                                     events={WRITES // 3: leader.kill})
            wait_until(lambda: len(watcher.events) >= WRITES, "all events are told")
            check_all_told(watcher.events, replies)
        leader.start()
        cluster.converge()


@test
def the_watchers_own_node_is_killed_and_another_goes_on_where_it_was():
    with Cluster() as cluster:
        leader = cluster.leader()
        ports = [node.port for node in cluster.nodes]
        with Watcher(ports, "map", "m") as watcher:  # It goes to the leader.
            starts(cluster, watcher, None)
            with cluster.client() as client:
                replies = client.run([put(n) for n in range(WRITES)], window=16,
                                     events={WRITES // 3: leader.kill})
            wait_until(lambda: len(watcher.events) >= WRITES, "all events are told")
            check_all_told(watcher.events, replies)
        leader.start()
        cluster.converge()


@test
def a_watcher_that_was_given_one_server_goes_on_at_the_others_when_that_is_killed():
    with Cluster() as cluster:
        leader = cluster.leader()
        with Watcher([leader.port], "map", "m") as watcher:
            starts(cluster, watcher, None)
            with cluster.client() as client:
                replies = client.run([put(n) for n in range(WRITES)], window=16,
                                     events={WRITES // 3: leader.kill})
            wait_until(lambda: len(watcher.events) >= WRITES, "all events are told")
            check_all_told(watcher.events, replies)


@test
def a_snapshot_and_what_follows_it_are_one_story():
    with Cluster() as cluster:
        with cluster.client() as client:
            client.run([put(n, f"k{n:04}") for n in range(WRITES)])
            done = threading.Event()

            def write_on():
                with cluster.client() as other:
                    other.run([put(n, f"k{n % WRITES:04}") for n in range(WRITES, 4 * WRITES)],
                              window=16)
                done.set()
            thread = threading.Thread(target=write_on)
            thread.start()
            with Watcher(cluster.ports(), "map", "m", "--snapshot") as watcher:
                thread.join()
                check(done.is_set(), "the writes ended")
                state = {}

                def caught_up():
                    for event in list(watcher.events):
                        state[event["key"]] = int(event["value"])
                    return len(state) == WRITES and all(
                        value == 3 * WRITES + int(key[1:]) for key, value in state.items())
                wait_until(caught_up, "the watcher knows the last value of each key")
                events = watcher.events
                told = [event for event in events if not event.get("snapshot")]
                shown = [event for event in events if event.get("snapshot")]
                check_equal(len(shown), WRITES, "entries of the snapshot")
                check_equal(events[:WRITES], shown, "the snapshot comes first")
                values = [int(event["value"]) for event in told]
                check_equal(values, list(range(4 * WRITES - len(values), 4 * WRITES)),
                            "what follows the snapshot, without a gap")


@test
def a_watch_begins_at_a_past_revision():
    with Cluster(1) as cluster, cluster.client() as client:
        replies = client.run([put(n) for n in range(20)])
        revision = int.from_bytes(replies[9][1][1:9], "little")
        with Watcher(cluster.ports(), "map", "m", "k", "--revision", str(revision), "--limit",
                     "10", "--previous") as watcher:
            check_equal(watcher.ended(), (0, ""), "exit status and complaints")
            check_equal([event["value"] for event in watcher.events],
                        [str(n) for n in range(10, 20)], "the values")
            check_equal([event["previous"] for event in watcher.events],
                        [str(n) for n in range(9, 19)], "the values before")


@test
def a_node_that_began_anew_says_that_it_has_not_kept_the_past():
    with Cluster(1) as cluster:
        with cluster.client() as client:
            replies = client.run([put(n) for n in range(20)])
        revision = int.from_bytes(replies[9][1][1:9], "little")
        cluster.nodes[0].terminate()
        cluster.nodes[0].start()
        with Watcher(cluster.ports(), "map", "m", "--revision", str(revision)) as watcher:
            wait_until(lambda: watcher.events, "a resync")
            check_equal(watcher.events[0]["event"], "resync", "the first line")
            starts(cluster, watcher, None)


def opened(connection):
    got = connection.ask(VIEW_OPEN)
    return got.u8(), got.u64(), got.u64()


@test
def a_view_shows_one_revision_while_writes_go_on():
    with Cluster(1) as cluster, cluster.client() as client, cluster.nodes[0].connect() as reader:
        client.run([put(n) for n in range(10)])
        status, view, _ = opened(reader)
        check_equal(status, wire.OK, "opening a view")
        client.run([put(n) for n in range(10, 20)])
        read = wire.u64(view) + wire.map_get("m", b"k")
        got = reader.ask(VIEW_READ, read)
        check_equal((got.u8(), got.u64() > 0, got.blob()), (wire.OK, True, b"9"),
                    "what the view shows")
        check_equal(reader.ask(VIEW_CLOSE, wire.u64(view)).u8(), wire.OK, "closing it")
        check_equal(reader.ask(VIEW_READ, read).u8(), NO_VIEW, "reading from a closed view")
        for n in range(VIEWS_MAX):
            check_equal(opened(reader)[0], wire.OK, f"view {n}")
        check_equal(opened(reader)[0], wire.BUSY, "one view too many")


@test
def what_is_no_watch_is_refused():
    with Cluster(1) as cluster:
        runs = [(["nonsense", "m"], 2), (["map"], 2), (["session", "x"], 2),
                (["counter", "c", "--prefix", "a"], 2)]
        for arguments, expected in runs:
            with Watcher(cluster.ports(), *arguments) as watcher:
                code, complaint = watcher.ended()
                check_equal(code, expected, f"the exit status of bop watch {' '.join(arguments)}")
                check(complaint.startswith("bop: "), f"a complaint: {complaint}")


if __name__ == "__main__":
    tap.main()
