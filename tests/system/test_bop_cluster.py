#!/usr/bin/env python3
"""The C client library, through bop, on real nodes that die under it."""

import base64
import json
import os
import subprocess
import sys
import threading

import cluster as clusters
import tap
from cluster import PATIENCE, Cluster, read_counter, read_map
from tap import Skip, check, check_equal, note, test, wait_until

ENTRIES = 20000
BOP = sys.argv[2] if len(sys.argv) > 2 else ""


def server_list(nodes):
    return ",".join(f"127.0.0.1:{n.port}" for n in nodes)


def start_bop(nodes, *arguments):
    if not os.path.exists(BOP):
        raise Skip("there is no bop to run; name it behind bopd")
    return subprocess.Popen([BOP, "--server", server_list(nodes), "--timeout", str(PATIENCE),
                             *map(str, arguments)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=clusters.environment(), preexec_fn=clusters.die_with_parent)


def bop(nodes, *arguments, status=0):
    """Run it to its end; returns what it printed."""
    process = start_bop(nodes, *arguments)
    stdout, stderr = process.communicate(timeout=2 * PATIENCE)
    check_equal(process.returncode, status,
                f"exit status of bop {' '.join(map(str, arguments))}; it says {stderr}")
    return stdout


def write_entries(path, count):
    """A file to import; returns the map that it describes."""
    entries = {}
    with open(path, "w", encoding="utf-8") as out:
        for n in range(count):
            key, value = f"key {n * 7919 % count:08}", f"value {n} ä\n" * (n % 5)
            entries[key.encode()] = value.encode()
            out.write(json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n")
    return entries


def read_entries(path):
    entries = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            key, value = field(entry, "key"), field(entry, "value")
            check(key not in entries, f"{path} has key {key!r} twice")
            entries[key] = value
    return entries


def field(entry, name):
    """What is no text is there in base64, under another name."""
    if name in entry:
        return entry[name].encode()
    other = next(n for n in entry if n.startswith(name) and n != name)
    return base64.b64decode(entry[other])


def growing(node, least):
    """Until the map has so many entries, as this node knows."""
    def enough():
        status = node.status()
        return status and status["applied"] >= least
    wait_until(enough, f"{least} entries are applied", pause=0.005)


@test
def an_import_goes_on_through_the_death_of_two_leaders():
    with Cluster() as cluster:
        path = os.path.join(cluster.directory, "in.ndjson")
        entries = write_entries(path, ENTRIES)
        process = start_bop(cluster.nodes, "map", "import", "m", path)
        for part in (4, 2):
            leader = cluster.leader()
            growing(leader, ENTRIES // part)
            note(f"kill {leader.number} at {leader.wait_status()['applied']}")
            leader.kill()
            cluster.leader()
            leader.start()
        stdout, stderr = process.communicate(timeout=2 * PATIENCE)
        check_equal(process.returncode, 0, f"exit status; it says {stdout}{stderr}")
        cluster.converge()
        for node in cluster.nodes:
            out = os.path.join(cluster.directory, f"out-{node.number}.ndjson")
            bop([node], "map", "export", "m", out)
            check(read_entries(out) == entries, f"the export of node {node.number} differs")


@test
def counters_add_up_while_nodes_die():
    with Cluster() as cluster:
        bop(cluster.nodes, "counter", "add", "c", 0)
        adders = 3
        rounds = 15
        failures = []

        def add(number):
            # Each begins at another server, so that all of them forward.
            nodes = cluster.nodes[number:] + cluster.nodes[:number]
            try:
                for _ in range(rounds):
                    bop(nodes, "counter", "add", "c", 1)
            except Exception as error:  # pylint: disable=broad-except
                failures.append(error)

        threads = [threading.Thread(target=add, args=(n,)) for n in range(adders)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            leader = cluster.leader()
            leader.kill()
            cluster.leader()
            leader.start()
        for thread in threads:
            thread.join()
        check(not failures, f"an addition failed: {failures}")
        for node in cluster.nodes:
            check_equal(read_counter(node, "c"), adders * rounds,
                        f"counter on node {node.number}")


@test
def single_commands_work_on_every_node():
    with Cluster() as cluster:
        for node in cluster.nodes:
            key = f"key-{node.number}"
            bop([node], "map", "put", "m", key, "one")
            check_equal(bop([node], "map", "get", "m", key), "one", "the value")
            bop([node], "map", "put", "m", key, "two", "--if-absent", status=4)
            bop([node], "map", "put", "m", key, "two", "--if-value", "one")
            bop([node], "map", "get", "m", "no such key", status=3)
        check_equal(read_map(cluster.nodes[0], "m"),
                    {f"key-{n}".encode(): b"two" for n in (1, 2, 3)}, "the map")
        check_equal(bop(cluster.nodes, "map", "size", "m").strip(), "3", "its size")
        bop(cluster.nodes, "map", "del", "m", "key-1")
        check_equal(bop(cluster.nodes, "map", "size", "m").strip(), "2", "its size")


@test
def the_status_tells_a_healthy_cluster_from_one_without_a_majority():
    with Cluster() as cluster:
        cluster.converge()
        bop(cluster.nodes[:1], "status")
        told = json.loads(bop(cluster.nodes[:1], "status", "--json"))
        for node in told["nodes"]:
            memory = node["memory"]
            check(memory["resident_bytes"] > 1000000, f"resident bytes of {memory}")
            for tag in ("cluster.machine", "cluster.node", "cluster.replica", "cluster.service",
                        "net", "raft", "store.aof", "store.kv"):
                check(tag in memory["tags"], f"no tag {tag} in {sorted(memory['tags'])}")
                held = memory["tags"][tag]
                check(0 < held["live_bytes"] <= held["peak_bytes"], f"{tag} holds {held}")
                check(0 < held["live_allocations"] <= held["allocations"], f"{tag} holds {held}")
            check(node["log"]["method"] in ("io_uring", "threads"), f"the log {node['log']}")
            check(0 <= node["log"]["writes"] <= node["log"]["writes_max"] == 8, f"{node['log']}")
        leader = cluster.leader()
        cluster.follower().kill()
        bop([leader], "status")
        cluster.follower().kill()
        bop([leader], "status", status=1)


if __name__ == "__main__":
    tap.main()
