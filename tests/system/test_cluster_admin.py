#!/usr/bin/env python3
"""Administration through bop, on real nodes: who belongs to a cluster, who leads it, and
what happens to nodes that do not belong to it any more."""

import json
import os
import shutil
import subprocess
import sys
import threading

import cluster as clusters
import wire
from cluster import PATIENCE, Cluster, read_counter, read_map
from tap import Skip, check, check_equal, test, wait_until

BOP = sys.argv[2] if len(sys.argv) > 2 else ""
REMOVED = 5  # bopd's exit status.
PHRASE = "what only the lost nodes had is lost\n"


def run(arguments, stdin=""):
    if not os.path.exists(BOP):
        raise Skip("there is no bop to run; name it behind bopd")
    return subprocess.run([BOP, *map(str, arguments)], input=stdin, capture_output=True, text=True,
                          timeout=2 * PATIENCE, env=clusters.environment(), check=False)


def bop(nodes, *arguments, status=0):
    """`bop cluster ...` on these nodes; returns what it printed."""
    servers = ",".join(f"127.0.0.1:{n.port}" for n in nodes)
    done = run(["--server", servers, "--timeout", PATIENCE, "cluster", *arguments])
    check_equal(done.returncode, status,
                f"exit status of bop cluster {' '.join(map(str, arguments))}; it says {done.stderr}")
    return done.stdout + done.stderr


def members(cluster, nodes=None):
    said = json.loads(bop(nodes or cluster.up(), "members", "--json"))
    return {m["node"]: m for m in said["members"]}


def role(cluster, number):
    return members(cluster).get(number, {}).get("role")


def fill(client, tag, count):
    client.run([wire.map_put("m", f"{tag}-{n}", f"v{n}") for n in range(count)])


def contents(*parts):
    return {f"{tag}-{n}".encode(): f"v{n}".encode() for tag, count in parts for n in range(count)}


def recorded(cluster):
    """Wait until the cluster knows all its servers by their data directories."""
    wait_until(lambda: all(m["incarnation"] for m in members(cluster).values()),
               "all incarnations are recorded")


def wait_removed(node):
    check_equal(node.wait_end(), REMOVED, f"exit status of node {node.number}")
    check("bopd: " in node.last_line(), f"its last line: {node.last_line()}")


def new_life(node):
    """The same id with an empty disk, asking to join."""
    shutil.rmtree(node.data)
    node.join = True
    node.start()


@test
def a_learner_is_added_promoted_demoted_and_removed():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, "a", 100)
        fourth = cluster.add(join=True)
        fourth.extra = ["--learner"]
        fourth.start()
        wait_until(lambda: role(cluster, 4) == "learner", "node 4 is a learner")
        cluster.converge()
        check_equal(role(cluster, 4), "learner", "its role once it has caught up")
        check_equal(read_map(fourth, "m"), contents(("a", 100)), "its map")
        plan = bop(cluster.nodes, "plan", "promote", 4)
        check("possible" in plan and "4 voters, " in plan, plan)
        bop([fourth], "promote", 4)  # Through a follower.
        check_equal(role(cluster, 4), "voter", "its role")
        bop(cluster.nodes, "demote", 4)
        check_equal(role(cluster, 4), "learner", "its role")
        bop(cluster.nodes, "remove", 4)
        wait_removed(fourth)
        check_equal(sorted(members(cluster)), [1, 2, 3], "the members")
        check_equal(clusters.run_bopd(fourth.arguments())[0], REMOVED, "status of another start")
        fill(client, "b", 100)
        cluster.converge()


@test
def a_node_that_is_to_come_is_added_beforehand():
    with Cluster() as cluster:
        fourth = cluster.add(join=True)
        bop(cluster.nodes[:3], "add", 4, f"127.0.0.1:{fourth.port}", "--voter")
        check_equal(role(cluster, 4), "joining", "its role before it is there")
        fourth.start()
        wait_until(lambda: role(cluster, 4) == "voter", "node 4 votes")
        bop(cluster.nodes, "add", 4, f"127.0.0.1:{fourth.port}")
        bop(cluster.nodes, "add", 5, f"127.0.0.1:{fourth.port}", status=1)
        bop(cluster.nodes, "add", 4, "127.0.0.1:1", status=1)
        bop(cluster.nodes, "add", 5, "nonsense", status=2)


@test
def what_would_lose_the_quorum_is_refused():
    with Cluster() as cluster:
        leader = cluster.leader()
        down, up = cluster.others(leader)
        bop(cluster.nodes, "remove", 9, status=3)
        bop(cluster.nodes, "promote", 9, status=3)
        bop(cluster.nodes, "promote", up.number)  # Is so already.
        down.kill()
        wait_until(lambda: not members(cluster)[down.number]["up"], "a node is seen as down")
        text = bop(cluster.up(), "remove", up.number, status=1)
        check("would lose the quorum" in text, text)
        text = bop(cluster.up(), "plan", "remove", up.number, status=1)
        check("not now" in text and "none" not in text, text)
        bop(cluster.up(), "remove", down.number)
        check_equal(sorted(members(cluster)), sorted([leader.number, up.number]), "the members")
        down.start(wait=False)
        wait_removed(down)


@test
def leadership_is_handed_over():
    with Cluster() as cluster, cluster.client() as client:
        old = cluster.leader()
        to = cluster.follower()
        bop([old], "transfer", to.number)
        wait_until(lambda: cluster.leader() is to, "the one that was named leads")
        bop(cluster.nodes, "transfer")
        wait_until(lambda: cluster.leader() is not to, "another one leads")
        bop(cluster.nodes, "transfer", 9, status=3)
        bop(cluster.nodes, "priority", to.number, 50)
        wait_until(lambda: cluster.leader() is to, "the preferred one leads")
        fill(client, "a", 20)
        cluster.converge()


@test
def a_leader_is_demoted_and_removed():
    with Cluster(count=4) as cluster:
        leader = cluster.leader()
        bop(cluster.nodes, "demote", leader.number)
        check_equal(role(cluster, leader.number), "learner", "its role")
        check(cluster.leader() is not leader, "one without a vote leads")
        leader = cluster.leader()
        bop(cluster.others(leader), "remove", leader.number)
        wait_removed(leader)
        cluster.converge()


@test
def a_wiped_node_is_refused_until_it_is_replaced():
    with Cluster() as cluster, cluster.client() as client:
        recorded(cluster)
        fill(client, "a", 200)
        lost = cluster.follower()
        lost.kill()
        new_life(lost)
        wait_until(lambda: any("another data directory" in line for line in lost.log()),
                   "the wiped node is refused")
        wait_until(lambda: not members(cluster, cluster.others(lost))[lost.number]["up"],
                   "the wiped node counts as down")
        text = bop(cluster.others(lost), "replace", lost.number)
        check("--join" in text, text)
        wait_until(lambda: role(cluster, lost.number) == "voter", "the new node votes")
        cluster.converge()
        check_equal(read_map(lost, "m"), contents(("a", 200)), "its map")


@test
def a_wiped_node_that_begins_a_cluster_of_its_own_ends():
    with Cluster() as cluster, cluster.client() as client:
        recorded(cluster)
        fill(client, "a", 20)
        lost = cluster.follower()
        lost.kill()
        shutil.rmtree(lost.data)
        lost.start(wait=False)  # With its old flags: nothing tells it from a first start.
        wait_removed(lost)
        check_equal(len(members(cluster)), 3, "members")
        cluster.leader()


@test
def a_dead_node_is_replaced_under_load():
    with Cluster() as cluster, cluster.client() as client:
        fill(client, "a", 100)
        done = threading.Event()
        count = [0]

        def load():
            with cluster.client(cluster.nodes[:3]) as other:
                while not done.is_set():
                    other.write(wire.counter_add("c", 1))
                    count[0] += 1
        thread = threading.Thread(target=load)
        thread.start()
        try:
            dead = cluster.follower()
            dead.kill()
            fourth = cluster.add(join=True)
            fourth.extra = ["--learner"]
            fourth.start()
            wait_until(lambda: role(cluster, 4) == "learner", "node 4 is a learner")
            bop(cluster.up(), "replace", dead.number, 4)
            now = count[0]
            wait_until(lambda: count[0] > now + 20, "writes go on")
        finally:
            done.set()
            thread.join()
        check_equal({n: m["role"] for n, m in members(cluster).items()},
                    {n.number: "voter" for n in cluster.others(dead)}, "the members")
        cluster.converge()
        check_equal(read_counter(fourth, "c"), count[0], "the counter")


@test
def parameters_are_set_on_one_node():
    with Cluster() as cluster:
        node = cluster.nodes[0]
        text = bop([node], "params", "election_timeout_ms=900", "heartbeat_ms=90")
        check("900" in text, text)
        said = json.loads(bop([node], "params", "--json"))
        check_equal(said["params"]["heartbeat_ms"], {"value": "90", "live": True}, "what was set")
        said = json.loads(bop([cluster.nodes[1]], "params", "--json"))
        check_equal(said["params"]["heartbeat_ms"]["value"], "50", "what another node has")
        bop([node], "params", "heartbeat_ms=800", status=2)
        bop([node], "params", "segment_bytes=800", status=1)
        bop([node], "params", "nonsense=1", status=2)
        bop([node], "params", "nonsense", status=2)
        cluster.leader()


@test
def parameters_that_are_to_last_stand_in_the_configuration():
    wanted = {"election_timeout_ms": "700", "heartbeat_ms": "70", "snapshot_entries": "5000",
              "trailing_entries": "500", "inflight_entries": "1000", "uncommitted_bytes": "1048576",
              "send_bytes_s": "5242880"}
    config = "".join(f"{name}: {value}\n" for name, value in wanted.items())
    with Cluster(1, config=config.replace("5242880", "5MiB")) as cluster:
        said = json.loads(bop(cluster.nodes, "params", "--json"))["params"]
        check_equal({name: said[name]["value"] for name in wanted}, wanted, "what the node has")
        check_equal(sorted(name for name in said if said[name]["live"]), sorted(wanted),
                    "what can be set while it runs can stand in the file")


@test
def one_survivor_goes_on_after_repair():
    with Cluster() as cluster:
        with cluster.client() as client:
            fill(client, "a", 300)
        cluster.converge()
        survivor = cluster.nodes[0]
        for node in cluster.nodes:
            node.kill()
        for node in cluster.nodes[1:]:
            shutil.rmtree(node.data)
        done = run(["cluster", "repair", survivor.data])
        check_equal(done.returncode, 1, "status without --force")
        check("LOST" in done.stderr and "--force" in done.stderr, done.stderr)
        done = run(["cluster", "repair", survivor.data, "--force"], "yes\n")
        check_equal(done.returncode, 1, "status with another sentence")
        done = run(["cluster", "repair", survivor.data, "--force"], PHRASE)
        check_equal(done.returncode, 0, f"status of the repair; it says {done.stderr}")
        survivor.start()
        wait_until(lambda: (survivor.status() or {}).get("state") == wire.LEADER, "it leads alone")
        check_equal(read_map(survivor, "m"), contents(("a", 300)), "its map")
        with cluster.client([survivor]) as client:
            fill(client, "b", 50)
            for node in cluster.nodes[1:]:
                node.join = True
                node.start()
                wait_until(lambda n=node: role(cluster, n.number) == "voter", "a new node votes")
            cluster.converge()
            for node in cluster.nodes:
                check_equal(read_map(node, "m"), contents(("a", 300), ("b", 50)), "the map")


@test
def repair_takes_no_directory_in_use_and_none_that_is_none():
    with Cluster(count=1) as cluster:
        done = run(["cluster", "repair", cluster.nodes[0].data, "--force"], PHRASE)
        check_equal(done.returncode, 1, "status while the node runs")
        check("in use" in done.stderr, done.stderr)
        done = run(["cluster", "repair", cluster.directory], PHRASE)
        check_equal(done.returncode, 1, "status without a data directory")


if __name__ == "__main__":
    from tap import main
    main()
