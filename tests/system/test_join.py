#!/usr/bin/env python3
"""A node joins a running cluster, becomes a voter, and counts from then on."""

import os
import shutil
import subprocess
import sys

import tap
import wire
from cluster import Cluster, environment, read_counter, read_map
from tap import check, check_equal, test, wait_until

BOP = sys.argv[2] if len(sys.argv) > 2 else "build/release/bop"
CONFIG = """
snapshot_entries: 500
trailing_entries: 100
"""


def role_of(cluster, number):
    """What the leader says of a node; None: it does not know it."""
    status = cluster.leader().status()
    return next((p["role"] for p in status["peers"] if p["id"] == number), None) if status else None


def join(cluster):
    node = cluster.add(join=True)
    node.start()
    wait_until(lambda: role_of(cluster, node.number) == wire.VOTER,
               f"node {node.number} becomes a voter")
    return node


def fill(client, tag, count):
    client.run([wire.map_put("m", f"{tag}-{n}", f"v{n}") for n in range(count)] +
               [wire.counter_add("c", 1)])


def contents(*parts):
    return {f"{tag}-{n}".encode(): f"v{n}".encode() for tag, count in parts for n in range(count)}


@test
def a_fourth_node_joins_catches_up_and_votes():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, "a", 300)
        fourth = join(cluster)
        cluster.converge()
        check_equal(read_map(fourth, "m"), contents(("a", 300)), "its map")
        # Three of four are a majority, two are not.
        dead = cluster.nodes[0]
        dead.kill()
        client.ports = cluster.ports(cluster.up())
        fill(client, "b", 50)
        second = cluster.nodes[1]
        second.kill()
        rest = cluster.nodes[2]
        with rest.connect(60.0) as connection:
            check(connection.write(wire.counter_add("c", 1), once=True)[0] in
                  (wire.RETRY, wire.UNCERTAIN),
                  "two of four nodes take a write")
        second.start()
        client.ports = cluster.ports(cluster.up())
        fill(client, "c", 50)
        dead.start()
        cluster.converge()
        for node in cluster.nodes:
            check_equal(read_map(node, "m"), contents(("a", 300), ("b", 50), ("c", 50)),
                        f"map on node {node.number}")


@test
def a_node_joins_through_a_snapshot_while_writes_go_on():
    with Cluster(config=CONFIG) as cluster, cluster.client() as client:
        fill(client, "a", 3000)
        fourth = cluster.add(join=True)
        operations = [wire.map_put("m", f"b-{n}", f"v{n}") for n in range(2000)]
        client.run(operations, events={50: lambda: fourth.start(wait=False)})
        fourth.wait_serving()
        wait_until(lambda: role_of(cluster, 4) == wire.VOTER, "node 4 becomes a voter")
        cluster.converge()
        check(fourth.wait_status()["first"] > 1, "it was sent the whole log")
        check_equal(read_map(fourth, "m"), contents(("a", 3000), ("b", 2000)), "its map")


@test
def nodes_that_join_stay_members_when_all_start_again():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, "a", 100)
        join(cluster)
        join(cluster)
        cluster.converge()
        for node in cluster.nodes:
            node.kill()
        # --join may stay in a service's file: it means nothing to a node that is a member.
        cluster.start()
        status = cluster.leader().status()
        check_equal({p["id"]: p["role"] for p in status["peers"]},
                    {n: wire.VOTER for n in range(1, 6)}, "the members")
        # Of five, any two may die.
        for node in cluster.nodes[:2]:
            node.kill()
        client.ports = cluster.ports(cluster.up())
        fill(client, "b", 100)
        check_equal(read_counter(cluster.nodes[4], "c"), 2, "the counter")
        for node in cluster.nodes[:2]:
            node.start()
        cluster.converge()


@test
def a_node_joins_that_has_never_heard_of_the_leader():
    with Cluster() as cluster:
        leader = join(cluster)

        def leads():
            # It may be a candidate still, or the leadership may be under way to somebody else.
            subprocess.run([BOP, "--server", f"127.0.0.1:{leader.port}", "cluster", "transfer",
                            str(leader.number)], env=environment(), check=False,
                           capture_output=True)
            return cluster.leader() is leader
        wait_until(leads, "the fourth node leads")
        check(f"{leader.number}=" not in " ".join(cluster.add(join=True).arguments()),
              "the fifth node is told of the fourth")
        cluster.nodes[-1].start()
        wait_until(lambda: role_of(cluster, 5) == wire.VOTER, "node 5 becomes a voter")
        cluster.converge()


@test
def a_joining_node_that_dies_again_and_again_joins_at_last():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, "a", 500)
        fourth = cluster.add(join=True)
        for _ in range(5):
            fourth.start()
            fill(client, "b", 5)
            fourth.kill()
        fourth.start()
        wait_until(lambda: role_of(cluster, 4) == wire.VOTER, "node 4 becomes a voter")
        cluster.converge()
        check_equal(read_counter(fourth, "c"), 6, "the counter")


@test
def a_node_whose_data_is_lost_comes_back_under_another_number():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, "a", 200)
        lost = cluster.follower()
        lost.kill()
        shutil.rmtree(lost.data)
        fourth = join(cluster)
        cluster.converge()
        check_equal(read_map(fourth, "m"), contents(("a", 200)), "its map")


def send_at_most(cluster, bytes_s):
    """From now on snapshots go out at so many bytes a second."""
    for node in cluster.up():
        subprocess.run([BOP, "--server", f"127.0.0.1:{node.port}", "cluster", "params",
                        f"send_bytes_s={bytes_s}"], env=environment(), check=True,
                       stdout=subprocess.DEVNULL)


@test
def a_snapshot_goes_on_where_its_leader_died():
    # One snapshot is due in all that is written here, so that nobody is writing an older one when
    # its turn comes: all nodes take it, of the same entry.
    with Cluster(config="snapshot_entries: 1000\ntrailing_entries: 100\n") as cluster, \
            cluster.client() as client:
        value = "v" * 5000
        client.run([wire.map_put("m", f"k-{n}", f"{n}-{value}") for n in range(1200)])
        cluster.converge()
        wait_until(lambda: {n.wait_status()["snapshot"] for n in cluster.nodes} == {1000},
                   "the same snapshot on all nodes")
        send_at_most(cluster, 200_000)  # 25 s, in which the leader has to be found and killed.
        fourth = cluster.add(join=True)
        fourth.start(wait=False)
        incoming = os.path.join(fourth.data, "snapshots", "incoming.tmp")
        wait_until(lambda: os.path.exists(incoming) and os.path.getsize(incoming) > 400_000,
                   "some of it came")
        cluster.leader().kill()
        wait_until(lambda: any("go on sending to node=4" in line for node in cluster.up()
                               for line in node.log()), "another one goes on")
        send_at_most(cluster, 100_000_000)
        wait_until(lambda: fourth.status() and role_of(cluster, 4) == wire.VOTER,
                   "node 4 becomes a voter")
        cluster.converge()
        check_equal(read_map(fourth, "m"),
                    {f"k-{n}".encode(): f"{n}-{value}".encode() for n in range(1200)}, "its map")


if __name__ == "__main__":
    tap.main()
