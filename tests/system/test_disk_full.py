#!/usr/bin/env python3
"""Nodes whose disk is full refuse writes, or stop with a line that says why; once there is room
again they are back with everything that was acknowledged."""

import contextlib
import os
import shutil

import cluster as clusters
import tap
import wire
from cluster import Cluster, read_map, run_bopd
from tap import check, check_equal, note, test, wait_until

SMALL_MB = 72
BIG_MB = 400
VALUE_BYTES = 256 * 1024
FILL_MAX = SMALL_MB * 4 * 1024 * 1024 // VALUE_BYTES  # Four disks full.
CONFIG = "limits:\n  segment_bytes: 4MiB\n"

_private = []


@contextlib.contextmanager
def small_disks(which):
    """A cluster, not started, with the data of some of its nodes on file systems of SMALL_MB."""
    if not _private:
        clusters.private_mounts()
        _private.append(True)
    cluster = Cluster(config=CONFIG, start=False)
    mounts = [cluster.nodes[n].data for n in which]
    try:
        with cluster:
            for path in mounts:
                clusters.mount_small(path, SMALL_MB)
            cluster.start()
            yield cluster
    finally:
        for path in mounts:
            clusters.unmount(path)
        # While they were mounted they could not be removed.
        shutil.rmtree(cluster.directory, ignore_errors=True)


def value_of(number):
    return number.to_bytes(8, "little") * (VALUE_BYTES // 8)


class Filler:
    """Puts big values until told to stop; knows which were acknowledged."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.number = 0
        self.acknowledged = {}
        self.refused = 0

    def put(self, node):
        """One value, through this node. Returns the status; None: no answer."""
        self.number += 1
        key = f"key {self.number}"
        try:
            with node.connect(timeout=20.0) as connection:
                status, _ = connection.write(wire.map_put("m", key, value_of(self.number)),
                                             once=True)
        except (OSError, wire.Closed):
            return None
        if status == wire.OK:
            self.acknowledged[key.encode()] = value_of(self.number)
        elif status == wire.NO_ROOM:
            self.refused += 1
        return status

    def fill(self, until):
        """Mostly through the leader, as that is fastest."""
        while not until():
            check(self.number < FILL_MAX, "the disk does not fill")
            leader = self.cluster.leader()
            for _ in range(10):
                self.put(leader)
            for node in self.cluster.up():
                if node.process.poll() is None:
                    self.put(node)

    def check_all(self, node):
        found = read_map(node, "m")
        lost = [key for key in self.acknowledged if found.get(key) != self.acknowledged[key]]
        check(not lost, f"node {node.number} lost {len(lost)} of {len(self.acknowledged)}: "
                        f"{lost[:3]}")


def check_end(node, expected=1):
    """A node that ended by itself did so with one line that says that there is no room."""
    check_equal(node.wait_end(), expected, f"exit status of node {node.number}")
    complaints = [line for line in node.log() if line.startswith("bopd: ")]
    note("\n".join(complaints))
    check_equal(len(complaints), 1, f"lines of complaint of node {node.number}")
    text = complaints[0].lower()
    check("no space" in text or "no room" in text, f"the line does not tell: {complaints[0]}")


def start_on_full_disk(node):
    """Either is fine: to serve what it has, or to say that there is no room."""
    node.start(wait=False)

    def decided():
        return node.process.poll() is not None or node.status()
    wait_until(decided, "a node on a full disk starts or refuses to")
    if node.process.poll() is None:
        node.kill()
    else:
        check_end(node, expected=3)


def ended(cluster):
    return [n for n in cluster.up() if n.process.poll() is not None]


def revive(cluster):
    for node in cluster.nodes:
        if not node.stopped and node.process.poll() is not None:
            check_end(node)
        if node.stopped:
            node.start()


def takes_writes(filler, cluster):
    for node in cluster.nodes:
        wait_until(lambda node=node: filler.put(node) == wire.OK,
                   f"node {node.number} takes writes again")


@test
def a_follower_with_a_full_disk_does_not_stop_the_others():
    with small_disks([0]) as cluster:
        node = cluster.nodes[0]
        if cluster.leader() is node:  # Make it a follower.
            node.kill()
            cluster.leader()
            node.start()
        filler = Filler(cluster)
        filler.fill(lambda: filler.number * VALUE_BYTES > 3 * SMALL_MB << 19)
        status = None if node.process.poll() is not None else node.status()
        note(f"acknowledged {len(filler.acknowledged)} of {filler.number}, refused "
             f"{filler.refused}, the node's health: {status and status['health']}")
        check(len(filler.acknowledged) * VALUE_BYTES > SMALL_MB << 20,
              "the others did not go on")
        clusters.resize_small(node.data, 8 * BIG_MB)
        revive(cluster)
        takes_writes(filler, cluster)
        cluster.converge()
        for each in cluster.nodes:
            filler.check_all(each)


@test
def a_leader_with_a_full_disk_refuses_or_leaves_it_to_another():
    with small_disks([0]) as cluster:
        node = cluster.nodes[0]
        while cluster.leader() is not node:
            other = cluster.leader()
            other.kill()
            cluster.leader()
            other.start()
        filler = Filler(cluster)
        filler.fill(lambda: filler.refused > 3 or ended(cluster) or cluster.leader() is not node)
        note(f"acknowledged {len(filler.acknowledged)} of {filler.number}, refused "
             f"{filler.refused}, ended {len(ended(cluster))}")
        for each in cluster.up():
            if each not in ended(cluster):
                filler.check_all(each)
        clusters.resize_small(node.data, 8 * BIG_MB)
        revive(cluster)
        takes_writes(filler, cluster)
        cluster.converge()
        for each in cluster.nodes:
            filler.check_all(each)


@test
def three_nodes_with_full_disks_refuse_writes_and_serve_reads():
    with small_disks([0, 1, 2]) as cluster:
        filler = Filler(cluster)
        filler.fill(lambda: filler.refused > 10)
        note(f"acknowledged {len(filler.acknowledged)} of {filler.number}, refused "
             f"{filler.refused}, ended {len(ended(cluster))}")
        check(not ended(cluster), "a node ended where it could refuse")
        for node in cluster.nodes:
            filler.check_all(node)
        status = cluster.leader().status()
        check("room" in status["health"], f"health says {status['health']!r}")
        for node in cluster.nodes:
            clusters.resize_small(node.data, BIG_MB)
        takes_writes(filler, cluster)
        cluster.converge()
        for node in cluster.nodes:
            filler.check_all(node)


@test
def a_disk_that_fills_to_the_last_byte_loses_nothing():
    with small_disks([0, 1, 2]) as cluster:
        filler = Filler(cluster)
        for _ in range(20):
            filler.put(cluster.leader())
        ballast = []
        for node in cluster.nodes:  # Faster than a node can look.
            path = os.path.join(node.data, "ballast")
            ballast.append(path)
            with contextlib.suppress(OSError), open(path, "wb") as file:
                while True:
                    file.write(bytes(65536))
                    file.flush()
        for _ in range(10):
            for node in cluster.up():
                if node.process.poll() is None:
                    filler.put(node)
        note(f"acknowledged {len(filler.acknowledged)} of {filler.number}, refused "
             f"{filler.refused}, ended {len(ended(cluster))}")
        for node in cluster.nodes:
            if node in ended(cluster):
                check_end(node)
            else:
                node.kill()
        start_on_full_disk(cluster.nodes[0])
        for path in ballast:
            with contextlib.suppress(FileNotFoundError):  # There was no room for its name.
                os.unlink(path)
        cluster.start()
        takes_writes(filler, cluster)
        cluster.converge()
        for node in cluster.nodes:
            filler.check_all(node)


if __name__ == "__main__":
    tap.main()
