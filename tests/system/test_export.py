#!/usr/bin/env python3
"""Exports of one revision: what was written together is in the file together, or not at all."""

import json
import os
import subprocess
import sys
import threading

import tap
import wire
from cluster import BOPD, PATIENCE, Cluster, die_with_parent, environment
from tap import check, check_equal, note, test, wait_until

BOP = sys.argv[2] if len(sys.argv) > 2 else os.path.join(os.path.dirname(BOPD), "bop")
FILLING = 30000  # Entries between the first key of a pair and the second: many pages.
FIRST, LAST = b"0 first", b"z last"


def start_bop(nodes, *arguments, **more):
    servers = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return subprocess.Popen([BOP, "--server", servers, "--timeout", str(PATIENCE), *arguments],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=environment(),
                            preexec_fn=die_with_parent, **more)


def bop(nodes, *arguments, status=0):
    process = start_bop(nodes, *arguments)
    stdout, stderr = process.communicate(timeout=2 * PATIENCE)
    check_equal(process.returncode, status, f"exit status of bop {arguments}; it says {stderr}")
    return stdout


def both(kind, number):
    """Two entries of a map, set or multimap change in one transaction."""
    value = str(number).encode()
    if kind == "map":
        operations = [wire.map_put("x", FIRST, value), wire.map_put("x", LAST, value)]
    elif kind == "set":
        change = wire.set_add if number % 2 else wire.set_remove
        operations = [change("x", FIRST), change("x", LAST)]
    elif number % 2:
        operations = [wire.multimap_put("x", FIRST, b"v"), wire.multimap_put("x", LAST, b"v")]
    else:
        operations = [wire.multimap_remove("x", FIRST), wire.multimap_remove("x", LAST)]
    return wire.transaction(operations)


def fill(client, kind):
    keys = [b"key %08d" % n for n in range(FILLING)]
    if kind == "map":
        client.run([wire.map_put("x", key, b"v" * 100) for key in keys])
    elif kind == "set":
        client.run([wire.set_add("x", key) for key in keys])
    else:
        client.run([wire.multimap_put("x", key, b"v") for key in keys])


def pair_of(text):
    """What an export has of the two keys."""
    entries = {}
    for line in text.splitlines():
        entry = json.loads(line)
        key = entry.get("key", entry.get("member")).encode()
        entries[key] = entry.get("value", "")
    check(len(entries) - len(entries.keys() & {FIRST, LAST}) == FILLING, "the rest is all there")
    return entries.get(FIRST), entries.get(LAST)


class Writer:
    """Changes both keys together, again and again, on a thread of its own."""

    def __init__(self, cluster, kind):
        self.count = 0
        self.ending = False
        self.client = cluster.client()
        self.kind = kind
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.ending:
            self.client.write(both(self.kind, self.count))
            self.count += 1

    def __enter__(self):
        self.thread.start()
        wait_until(lambda: self.count > 10, "pairs are written")
        return self

    def __exit__(self, *_):
        self.ending = True
        self.thread.join()
        self.client.close()


def check_exports(cluster, kind, exports):
    with cluster.client() as client:
        fill(client, kind)
    out = os.path.join(cluster.directory, "out")
    with Writer(cluster, kind) as writer:
        for n in range(exports):
            before = writer.count
            bop([cluster.nodes[n % len(cluster.nodes)]], kind, "export", "x", out)
            with open(out, encoding="utf-8") as file:
                first, last = pair_of(file.read())
            check_equal(first, last, f"the two keys of {kind}, written together")
            check(writer.count > before, "writes went on")


@test
def an_export_of_a_map_is_of_one_revision():
    with Cluster() as cluster:
        check_exports(cluster, "map", 6)


@test
def an_export_of_a_set_is_of_one_revision():
    with Cluster(1) as cluster:
        check_exports(cluster, "set", 4)


@test
def an_export_of_a_multimap_is_of_one_revision():
    with Cluster(1) as cluster:
        check_exports(cluster, "multimap", 4)


@test
def an_export_begins_again_when_its_server_dies():
    with Cluster() as cluster:
        with cluster.client() as client:
            fill(client, "map")
        victim = cluster.follower()
        nodes = [victim] + cluster.others(victim)
        out = os.path.join(cluster.directory, "out")
        with Writer(cluster, "map"):
            process = start_bop(nodes, "map", "export", "x", out)
            partial = f"{out}.partial-{process.pid}"
            wait_until(lambda: process.poll() is not None or
                       (os.path.exists(partial) and os.path.getsize(partial) > 0),
                       "a part is written", pause=0.001)
            note(f"killed after {os.path.getsize(partial) if os.path.exists(partial) else 'all'}")
            victim.kill()
            _, stderr = process.communicate(timeout=2 * PATIENCE)
            check_equal(process.returncode, 0, f"exit status; it says {stderr}")
        with open(out, encoding="utf-8") as file:
            first, last = pair_of(file.read())
        check_equal(first, last, "the two keys, written together")
        check(not os.path.exists(partial), "nothing is left beside the file")


@test
def a_list_for_people_is_of_one_revision():
    with Cluster(1) as cluster:
        with cluster.client() as client:
            fill(client, "map")
        with Writer(cluster, "map"):
            for _ in range(3):
                lines = bop(cluster.nodes, "map", "scan", "x").splitlines()
                check_equal(len(lines), FILLING + 2, "lines")
                check_equal(lines[0].split("\t")[1], lines[-1].split("\t")[1], "both values")


@test
def what_a_pipe_has_is_not_written_again():
    with Cluster(1) as cluster:
        with cluster.client() as client:
            fill(client, "map")
        node = cluster.nodes[0]
        process = start_bop([node], "map", "export", "x", "-")
        # A page is more than a pipe takes: the export stands still in the midst of one.
        process.stdout.read(1)
        node.kill()
        node.start()
        _, stderr = process.communicate(timeout=2 * PATIENCE)
        check_equal(process.returncode, 1, "exit status")
        check("export to a file" in stderr, f"it says what to do: {stderr}")


if __name__ == "__main__":
    tap.main()
