#!/usr/bin/env python3
"""Backups of running clusters and restores from them, on real nodes: one revision under load,
nodes and clients that die in the middle, damaged files, and the loss of everything."""

import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
import urllib.request

import cluster as clusters
import tap
import wire
from cluster import PATIENCE, Cluster, read_counter, read_map
from tap import Skip, check, check_equal, test, wait_until

BOP = sys.argv[2] if len(sys.argv) > 2 else ""
ACCOUNTS = 10
START = 100  # In each account.


def arguments_for(nodes, arguments):
    servers = ",".join(f"127.0.0.1:{n.port}" for n in nodes)
    return [BOP, *(["--server", servers] if servers else []), *map(str, arguments)]


def run(nodes, *arguments, status=0):
    """A command of bop; returns it when it has ended."""
    if not os.path.exists(BOP):
        raise Skip("there is no bop to run; name it behind bopd")
    done = subprocess.run(arguments_for(nodes, arguments), capture_output=True, text=True,
                          timeout=2 * PATIENCE, env=clusters.environment(), check=False)
    check_equal(done.returncode, status,
                f"exit status of bop {' '.join(map(str, arguments))}; it says {done.stderr}")
    return done


def backup(nodes, path, *more):
    return json.loads(run(nodes, "backup", path, "--json", *more).stdout)


def restore(path, node, *more, status=0, peers=None):
    """Into the directory of a node that is stopped."""
    listed = []
    for peer in peers or [node]:
        listed += ["--peer", f"{peer.number}=127.0.0.1:{peer.port}"]
    return run([node], "restore", path, "--data", node.data, "--id", node.number, "--cluster",
               node.cluster.name, *listed, *more, status=status)


def restored(path):
    """A cluster of one node that was made from a backup."""
    made = Cluster(count=1, start=False)
    try:
        restore(path, made.nodes[0])
        made.start()
    except BaseException:
        made._end(failed=True)
        raise
    return made


def path_in(cluster, name="b.snap"):
    return os.path.join(cluster.directory, name)


def fill(client, count, size=10, name="m"):
    """Values that are not alike."""
    source = random.Random(1)
    client.run([wire.map_put(name, f"k-{n}", source.randbytes(size)) for n in range(count)])


# ---- One revision ----


def transfer(number, source):
    """From one account to another, with a line in the books, at one moment."""
    a, b = source.sample(range(ACCOUNTS), 2)
    amount = source.randrange(1, 5)
    return wire.transaction([wire.counter_add(f"account-{a}", -amount),
                             wire.counter_add(f"account-{b}", amount),
                             wire.counter_add("moves", 1),
                             wire.map_put("books", f"{number:06}", f"{a} {b} {amount}")])


def check_books(node, least, most):
    """What the node has is of one moment."""
    balances = {n: START for n in range(ACCOUNTS)}
    books = read_map(node, "books")
    for line in books.values():
        a, b, amount = map(int, line.split())
        balances[a] -= amount
        balances[b] += amount
    check_equal(len(books), read_counter(node, "moves"), "moves in the books")
    check(least <= len(books) <= most, f"{len(books)} moves, not from {least} to {most}")
    check_equal({n: read_counter(node, f"account-{n}") for n in range(ACCOUNTS)}, balances,
                "the accounts are as the books say")


@test
def a_backup_under_load_is_one_revision_with_all_that_was_acknowledged():
    source = random.Random(2)
    stop = threading.Event()
    moved = [0]

    def load(client):
        while not stop.is_set():
            client.run([transfer(moved[0] + n, source) for n in range(50)])
            moved[0] += 50

    with Cluster() as cluster, cluster.client() as client:
        client.run([wire.counter_add(f"account-{n}", START) for n in range(ACCOUNTS)])
        thread = threading.Thread(target=load, args=(client,))
        thread.start()
        taken = []
        try:
            for n in range(3):
                before = wait_until(lambda n=n: moved[0] if moved[0] > 300 * n else 0, "load")
                path = path_in(cluster, f"b{n}.snap")
                said = backup(cluster.nodes, path)
                taken.append((path, before, moved[0] + 50))
                check(not os.path.exists(path + ".partial"), "the partial file stayed")
                check(not os.path.exists(path + ".partial.from"), "the note stayed")
                check_equal(os.path.getsize(path), said["bytes"], "size of the file")
                check(said["node"] != cluster.leader().number, "the leader was asked")
        finally:
            stop.set()
            thread.join()
        for node in cluster.nodes:
            left = os.path.join(node.data, "backups")
            check(not os.path.exists(left) or not os.listdir(left), "a node kept its file")
        for path, least, most in taken:
            with restored(path) as made:
                check_books(made.nodes[0], least, most)


@test
def a_restored_node_has_everything_and_others_join_it():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, 500)
        client.run([wire.counter_add("c", 42), wire.set_add("s", "x"),
                    wire.multimap_put("mm", "k", "v")])
        path = path_in(cluster)
        said = backup(cluster.nodes, path)
        expected = read_map(cluster.nodes[0], "m")
        with restored(path) as made:
            first = made.nodes[0]
            check_equal(read_map(first, "m"), expected, "the map")
            check_equal(read_counter(first, "c"), 42, "the counter")
            check(first.wait_status()["first"] > said["index"], "its log begins below the backup")
            others = [made.add(join=True), made.add(join=True)]
            for node in others:
                node.start()
            wait_until(lambda: [p["role"] for p in made.leader().wait_status()["peers"]] ==
                       [wire.VOTER] * 3, "three voters")
            made.converge()
            for node in others:
                check_equal(read_map(node, "m"), expected, f"the map on node {node.number}")
            first.kill()
            with made.client(others) as writer:
                writer.run([wire.counter_add("c", 1)])
            check_equal(read_counter(others[0], "c"), 43, "the counter, written without the first")
            first.start()
            made.converge()


@test
def three_nodes_restored_alike_are_a_cluster():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, 200)
        path = path_in(cluster)
        backup(cluster.nodes, path)
        expected = read_map(cluster.nodes[0], "m")
        with Cluster(count=3, start=False) as made:
            for node in made.nodes:
                restore(path, node, peers=list(reversed(made.nodes)))
            made.start()
            with made.client() as writer:
                writer.run([wire.counter_add("c", 7)])
            made.converge()
            for node in made.nodes:
                check_equal(read_map(node, "m"), expected, f"the map on node {node.number}")


@test
def a_restored_session_expires_with_what_it_owns():
    with Cluster() as cluster, cluster.client(timeout_ms=3000) as client:
        client.run([wire.member_join("group", "me"), wire.counter_add("c", 1)])
        path = path_in(cluster)
        backup(cluster.nodes, path)
        with restored(path) as made:
            node = made.nodes[0]
            check(node.wait_status()["sessions"] > 0, "the session is not in the backup")
            wait_until(lambda: node.wait_status()["sessions"] == 0, "the session expires")
            status, result = clusters.read(node, wire.member_list("group"))
            check(status == wire.NOT_FOUND or b"me" not in result, f"its member stays: {result}")
            check_equal(read_counter(node, "c"), 1, "the counter")


# ---- In the middle ----


def begin(nodes, path, *more):
    """A slow backup, once some of it has come. Returns the process and the port it comes from."""
    if not os.path.exists(BOP):
        raise Skip("there is no bop to run; name it behind bopd")
    process = subprocess.Popen(arguments_for(nodes, ["backup", path, "--rate", "1M", *more]),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=clusters.environment(),
                               preexec_fn=clusters.die_with_parent)
    partial = path + ".partial"
    wait_until(lambda: process.poll() is not None or (
        os.path.exists(partial) and os.path.getsize(partial) > 300_000), "some of it came")
    check_equal(process.poll(), None, "the backup ended too early")
    with open(partial + ".from", encoding="ascii") as text:
        server = text.read().splitlines()[1]
    return process, int(server.rpartition(":")[2])


@test
def a_backup_goes_on_where_its_bop_was_killed():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, 400, 10_000)
        path = path_in(cluster)
        process, port = begin(cluster.nodes, path)
        process.kill()
        process.communicate()
        check(not os.path.exists(path), "the half of it has the name of the whole")
        had = os.path.getsize(path + ".partial")
        client.run([wire.counter_add("after", 1)])
        done = run(cluster.nodes, "backup", path, "--resume", "--rate", "2M")
        check_equal(done.stderr, "", "what it says")
        check(os.path.getsize(path) > had, "nothing came")
        node = next(n for n in cluster.nodes if n.port == port)
        check_equal(len([line for line in node.log() if "backup cut" in line]), 1, "backups cut")
        expected = read_map(cluster.nodes[0], "m")
        with restored(path) as made:
            check_equal(read_map(made.nodes[0], "m"), expected, "the map")
            check_equal(clusters.read(made.nodes[0], wire.counter_get("after"))[0],
                        wire.NOT_FOUND, "what came after the backup was begun")


@test
def a_node_that_dies_in_the_middle_is_told_and_the_next_attempt_succeeds():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, 400, 10_000)
        path = path_in(cluster)
        leader = cluster.leader()
        # Of the leader, for --stale takes the server that is named.
        process, port = begin([leader], path, "--stale")
        check_equal(port, leader.port, "where it comes from")
        leader.kill()
        _, stderr = process.communicate(timeout=PATIENCE)
        check_equal(process.returncode, 1, "exit status")
        check("--resume" in stderr and str(port) in stderr, f"it says {stderr}")
        check(not os.path.exists(path), "the half of it has the name of the whole")
        cluster.leader()
        done = run(cluster.up(), "backup", path, "--resume")
        check("a new one is taken" in done.stderr, f"it says {done.stderr}")
        with restored(path) as made:
            check_equal(len(read_map(made.nodes[0], "m")), 400, "keys")
        leader.start()
        # It forgot the backup with its ids, and removed the file.
        check_equal(os.listdir(os.path.join(leader.data, "backups")), [], "files left behind")


@test
def a_node_sends_no_faster_than_it_may():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, 200, 10_000)
        for node in cluster.nodes:
            run([node], "cluster", "params", "send_bytes_s=1000000")
        began = time.monotonic()
        said = backup(cluster.nodes, path_in(cluster))
        took = time.monotonic() - began
        check(took >= said["bytes"] / 1e6 - 0.6, f"{said['bytes']} bytes in {took:.2f} s")


@test
def a_node_alone_gives_what_it_has_with_stale():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, 100)
        cluster.converge()
        last = cluster.follower()
        expected = read_map(last, "m")
        for node in cluster.others(last):
            node.kill()
        path = path_in(cluster)
        done = run([last], "backup", path, "--timeout", 2, status=1)
        check("--stale" in done.stderr, f"it says {done.stderr}")
        backup([last], path, "--stale")
        with restored(path) as made:
            check_equal(read_map(made.nodes[0], "m"), expected, "the map")


# ---- Refusals ----


def blocks_of(data):
    """Offsets of the blocks: kind u32, size u32, checksum u32, and size bytes."""
    at = 16
    while at < len(data):
        yield at, struct.unpack_from("<I", data, at + 4)[0]
        at += 12 + struct.unpack_from("<I", data, at + 4)[0]


def refused(cluster, data, place):
    path = path_in(cluster, "damaged.snap")
    with open(path, "wb") as out:
        out.write(data)
    said = run([], "backup", "check", path, status=1).stderr
    check(f"block at byte {place}" in said, f"damage at {place}: it says {said}")
    node = cluster.nodes[0]
    said = restore(path, node, status=1).stderr
    check(f"block at byte {place}" in said, f"damage at {place}: restore says {said}")
    check(not os.path.exists(node.data), "restore made a directory")


@test
def damage_is_found_in_every_block_and_named():
    with Cluster(count=1) as cluster, cluster.client() as client, \
            Cluster(count=1, start=False) as empty:
        fill(client, 300, 3000)
        path = path_in(cluster)
        backup(cluster.nodes, path)
        said = run([], "backup", "check", path).stdout
        check("good" in said and "format 3" in said, f"it says {said}")
        with open(path, "rb") as file:
            whole = file.read()
        blocks = list(blocks_of(whole))
        check(len(blocks) >= 5, f"only {len(blocks)} blocks")
        for at, size in blocks:
            for place in (at, at + 8, at + 12, at + 11 + size):  # Kind, checksum, payload.
                damaged = bytearray(whole)
                damaged[place] ^= 0x10
                refused(empty, damaged, at)
            refused(empty, whole[:at], at)
            refused(empty, whole[:at + 12 + size // 2], at)
        refused(empty, b"x" + whole[1:], 0)
        refused(empty, b"", 0)
        refused(empty, whole + b"\0", blocks[-1][0])
        twice = blocks[1]
        refused(empty, whole[:twice[0]] + whole[twice[0]:twice[0] + 12 + twice[1]] * 2 +
                whole[twice[0] + 12 + twice[1]:], twice[0] + 12 + twice[1])


@test
def a_restore_refuses_what_it_must():
    with Cluster(count=1) as cluster, cluster.client() as client:
        fill(client, 10)
        path = path_in(cluster)
        backup(cluster.nodes, path)
        node = cluster.nodes[0]
        said = restore(path, node, status=1).stderr
        check("not empty" in said, f"into a directory in use: {said}")
        run([], "restore", path, "--data", path_in(cluster, "new"), status=2)
        run([], "restore", path, "--id", 1, status=2)
        run([], "restore", path, "--id", 1, "--data", path_in(cluster, "new"), "--peer",
            "2=127.0.0.1:1", status=2)
        run([], "restore", path, "--id", 1, "--data", path_in(cluster, "new"), "--peer", "1=here",
            status=2)
        run([], "restore", path + ".none", "--id", 1, "--data", path_in(cluster, "new"), status=1)
        check(not os.path.exists(path_in(cluster, "new")), "a directory was made")
        said = run(cluster.nodes, "backup", cluster.directory, status=2).stderr
        check("is no file" in said, f"into a directory: {said}")


@test
def a_directory_that_was_not_finished_is_refused_by_bopd():
    with Cluster(count=1) as cluster, cluster.client() as client, \
            Cluster(count=1, start=False) as made:
        fill(client, 10)
        path = path_in(cluster)
        backup(cluster.nodes, path)
        node = made.nodes[0]
        restore(path, node)
        os.rename(os.path.join(node.data, "vote"), os.path.join(node.data, "vote.tmp"))
        status, _, lines = clusters.run_bopd(node.arguments())
        check(status != 0 and "vote" in " ".join(lines), f"bopd starts: {lines}")


@test
def a_backup_wants_an_administrator():
    if not os.path.exists(BOP):
        raise Skip("there is no bop to run; name it behind bopd")
    tokens = clusters.temporary_directory()
    listed = os.path.join(tokens, "tokens.yaml")
    for name, right in (("reader", "*:write"), ("boss", "*:admin")):
        made = subprocess.run([BOP, "token", "new", name, right, "--token-file",
                               os.path.join(tokens, name)], capture_output=True, text=True,
                              env=clusters.environment(), check=True)
        with open(listed, "a", encoding="ascii") as out:
            out.write(made.stdout)
    os.chmod(listed, 0o600)
    with Cluster(count=1, start=False) as cluster:
        cluster.nodes[0].extra = ["--tokens", listed]
        cluster.nodes[0].start()
        path = path_in(cluster)
        said = run(cluster.nodes, "backup", path, "--token-file", os.path.join(tokens, "reader"),
                   status=1).stderr
        check("access denied" in said, f"it says {said}")
        check(not os.path.exists(path), "it wrote a backup")
        run(cluster.nodes, "backup", path, "--token-file", os.path.join(tokens, "boss"))


@test
def a_backup_comes_by_http_too():
    with Cluster(count=3, start=False) as cluster:
        for node in cluster.nodes:
            node.http = clusters.free_port()
            node.extra = ["--http", f"127.0.0.1:{node.http}"]
        cluster.start()
        with cluster.client() as client:
            fill(client, 3000, size=500)
            # What is acknowledged elsewhere is in it, whichever node is asked.
            for n, node in enumerate(cluster.nodes):
                client.run([wire.counter_add("c", 1)])
                url = f"http://127.0.0.1:{node.http}/v1/backup"
                with urllib.request.urlopen(url, timeout=PATIENCE) as answer, \
                        open(path_in(cluster, f"{n}.snap"), "wb") as out:
                    out.write(answer.read())
        for n in range(3):
            path = path_in(cluster, f"{n}.snap")
            run([], "backup", "check", path)
            with restored(path) as made:
                check_equal(read_counter(made.nodes[0], "c"), n + 1, "the counter")
                check_equal(len(read_map(made.nodes[0], "m")), 3000, "entries")


if __name__ == "__main__":
    tap.main()
