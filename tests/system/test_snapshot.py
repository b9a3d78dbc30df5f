#!/usr/bin/env python3
"""A node that was away for longer than the log goes back is sent a snapshot, whatever dies on the
way."""

import os

import tap
import wire
from cluster import Cluster, read_counter, read_map
from tap import check, check_equal, note, test, wait_until

CONFIG = """
snapshot_entries: 500
trailing_entries: 100
limits:
  segment_bytes: 1MiB
"""
ROUNDS = 3
VALUE_BYTES = 2000  # The log is cut by whole segments: 500 values each.


def puts(tag, count, value_bytes=VALUE_BYTES):
    return [wire.map_put("m", f"{tag}-{n}", bytes([n % 256]) * value_bytes) for n in range(count)]


def contents(tag, count, value_bytes=VALUE_BYTES):
    return {f"{tag}-{n}".encode(): bytes([n % 256]) * value_bytes for n in range(count)}


def snapshots(node):
    path = os.path.join(node.data, "snapshots")
    return sorted(n for n in os.listdir(path) if n.endswith(".snap"))


def wait_truncated(client, node, index):
    """Until the node's log begins behind that entry. A busy one may pass over a snapshot: with more
    entries it takes the next."""
    def done():
        if (node.status() or {"first": 0})["first"] > index:
            return True
        client.run([wire.counter_add("more", 1)] * 50)
        return False
    wait_until(done, f"the log of node {node.number} begins behind entry {index}")


def said(node, word):
    return [line for line in node.log() if word in line]


@test
def snapshots_are_taken_the_log_is_cut_and_old_ones_go():
    with Cluster(config=CONFIG) as cluster, cluster.client() as client:
        client.run(puts("a", 3000))
        for node in cluster.nodes:
            wait_truncated(client, node, 1500)
            wait_until(lambda node=node: len(snapshots(node)) == 1, "old snapshots are removed")
            status = node.status()
            check(status["snapshot"] >= 2000, f"the snapshot is at {status['snapshot']}")
        cluster.converge()
        for node in cluster.nodes:
            node.kill()
        cluster.start()
        cluster.converge()
        for node in cluster.nodes:
            check_equal(read_map(node, "m"), contents("a", 3000), f"map on node {node.number}")


@test
def a_follower_that_was_away_for_long_is_sent_a_snapshot():
    with Cluster(config=CONFIG) as cluster, cluster.client() as client:
        client.run(puts("a", 200))
        follower = cluster.follower()
        follower.kill()
        away = cluster.leader().wait_status()["applied"]
        client.run(puts("b", 2000) + [wire.counter_add("c", 1)] * 10)
        wait_truncated(client, cluster.leader(), away)
        follower.start()
        check_equal(read_counter(follower, "c"), 10, "counter on the node that came back")
        check(follower.wait_status()["snapshot"] > away, "it was not sent a snapshot")
        cluster.converge()
        check_equal(read_map(follower, "m"), contents("a", 200) | contents("b", 2000), "its map")
        # What it was sent is good enough to start from, even alone on an untrusted state.
        follower.kill()
        with open(os.path.join(follower.data, "boot"), "w", encoding="ascii") as file:
            file.write("00000000-0000-0000-0000-000000000000")
        follower.start()
        cluster.converge()
        check_equal(read_counter(follower, "c"), 10, "counter after another boot")


@test
def a_snapshot_is_received_while_writes_go_on():
    with Cluster(config=CONFIG) as cluster, cluster.client() as client:
        follower = cluster.follower()
        follower.kill()
        away = cluster.leader().wait_status()["applied"]
        client.run(puts("a", 1500, 4000))
        wait_truncated(client, cluster.leader(), away)
        client.run(puts("b", 3000), events={100: lambda: follower.start(wait=False)})
        note(client.describe())
        follower.wait_serving()
        cluster.converge()
        check_equal(read_map(follower, "m"), contents("a", 1500, 4000) | contents("b", 3000),
                    "its map")


def receiving(node):
    """Whether a snapshot is on its way to the node just now."""
    try:
        return os.path.getsize(os.path.join(node.data, "snapshots", "incoming.tmp")) > 0
    except OSError:
        return False


def installed(node):
    return any("install" in line for line in node.log())


@test
def a_receiver_that_dies_with_half_a_snapshot_gets_another():
    with Cluster(config=CONFIG) as cluster, cluster.client() as client:
        follower = cluster.follower()
        follower.kill()
        away = cluster.leader().wait_status()["applied"]
        client.run(puts("a", 2000, 8000))  # 16 MB: the transfer takes a while.
        wait_truncated(client, cluster.leader(), away)
        caught = 0
        for _ in range(ROUNDS * 3):
            follower.start(wait=False)
            wait_until(lambda: receiving(follower) or (follower.status() or
                                                       {"applied": 0})["applied"] > away,
                       "a snapshot is on its way", pause=0)
            caught += receiving(follower)
            follower.kill()
        note(f"killed {caught} times while a snapshot was on its way")
        follower.start()
        cluster.converge()
        check_equal(read_map(follower, "m"), contents("a", 2000, 8000), "its map")
        check(not receiving(follower), "half a snapshot lies about")


@test
def a_sender_that_dies_with_half_a_snapshot_sent_is_replaced():
    with Cluster(config=CONFIG) as cluster, cluster.client() as client:
        client.run(puts("a", 2000, 8000))
        caught = 0
        for number in range(ROUNDS):
            follower = cluster.follower()
            follower.kill()
            away = cluster.leader().wait_status()["applied"]
            client.run(puts(f"r{number}", 1500))
            sender = cluster.leader()
            for node in cluster.up():
                wait_truncated(client, node, away)
            follower.start(wait=False)
            wait_until(lambda: receiving(follower) or (follower.status() or
                                                       {"applied": 0})["applied"] > away,
                       "a snapshot is on its way", pause=0)
            caught += receiving(follower)
            sender.kill()
            # Two are left, and one of them lacks what only a snapshot can give it.
            follower.wait_serving()
            new = cluster.leader()
            check(new is not sender, "the dead node leads")
            cluster.converge()
            client.run([wire.counter_add("c", 1)])
            sender.start()
            cluster.converge()
        note(f"killed {caught} times while a snapshot was on its way")
        expected = contents("a", 2000, 8000)
        for number in range(ROUNDS):
            expected |= contents(f"r{number}", 1500)
        for node in cluster.nodes:
            check_equal(read_map(node, "m"), expected, f"map on node {node.number}")
            check_equal(read_counter(node, "c"), ROUNDS, f"counter on node {node.number}")


def damage(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


@test
def a_damaged_snapshot_is_not_trusted():
    with Cluster(config=CONFIG) as cluster, cluster.client() as client:
        client.run(puts("a", 3000))
        follower = cluster.follower()
        wait_truncated(client, follower, 1500)
        cluster.converge()
        follower.kill()
        first = snapshots(follower)[-1]
        damage(os.path.join(follower.data, "snapshots", first))
        follower.start()
        # Its state goes on without it, and makes another one.
        wait_until(lambda: said(follower, "snapshot taken"), "another one is taken")
        check([line for line in said(follower, "not whole") if str(int(first[:16], 16)) in line],
              f"{first} is not named")
        cluster.converge()
        check_equal(read_map(follower, "m"), contents("a", 3000), "its map")
        follower.kill()
        name = snapshots(follower)[-1]
        damage(os.path.join(follower.data, "snapshots", name))
        os.unlink(os.path.join(follower.data, "boot"))
        follower.start(wait=False)
        # Its state is not to be trusted any more, and without the snapshot nothing leads to the
        # log's first entry: the node must say so.
        check_equal(follower.wait_end(), 3, "exit status")
        line = follower.last_line()
        check(line.startswith("bopd: ") and "--join" in line, f"it says {line!r}")
        check(said(follower, name), f"{name} is not named")


if __name__ == "__main__":
    tap.main()
