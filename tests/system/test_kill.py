#!/usr/bin/env python3
"""Nodes die by kill -9 while a client writes: nothing that was acknowledged is lost, nothing is
done twice."""

import tap
import wire
from cluster import Cluster, read_counter, read_map
from tap import check, check_equal, note, test

ROUNDS = 3


def operations(count, tag):
    """Puts of keys of their own, and as many additions of 1 to a counter."""
    out = []
    for n in range(count):
        out.append(wire.map_put("m", f"{tag}-{n:06}", f"value {n} of {tag}"))
        out.append(wire.counter_add("c", 1))
    return out


def expected(count, *tags):
    return {f"{tag}-{n:06}".encode(): f"value {n} of {tag}".encode()
            for tag in tags for n in range(count)}


def check_answers(answers, counter_from=0):
    """Every write is acknowledged, and each addition has a result of its own."""
    check(all(status == wire.OK for status, _ in answers), "a write was not answered with OK")
    sums = sorted(wire.number_of(result) for _, result in answers[1::2])
    check_equal(sums, list(range(counter_from + 1, counter_from + len(sums) + 1)),
                "results of the counter")
    for status, result in answers[0::2]:
        check_equal((status, result[0]), (wire.OK, 0), "a put of a new key says that it existed")


def check_everywhere(cluster, content, counter):
    for node in cluster.up():
        check_equal(read_counter(node, "c"), counter, f"counter on node {node.number}")
        found = read_map(node, "m")
        missing = [k for k in content if k not in found]
        check(not missing, f"node {node.number} lacks {len(missing)} keys, {missing[:3]}")
        check_equal(found, content, f"map on node {node.number}")


@test
def a_leader_killed_in_mid_stream_loses_nothing():
    with Cluster() as cluster, cluster.client() as client:
        first = cluster.leader()
        answers = client.run(operations(1500, "a"), events={1000: first.kill})
        note(client.describe())
        check_answers(answers)
        second = cluster.leader()
        check(second is not first, "the dead node leads")
        check_everywhere(cluster, expected(1500, "a"), 1500)

        client.run(operations(200, "b"))
        first.start()
        check_equal(read_counter(first, "c"), 1700, "counter on the node that came back")
        cluster.converge()
        check_everywhere(cluster, expected(1500, "a") | expected(200, "b"), 1700)


@test
def a_follower_killed_in_mid_stream_catches_up():
    with Cluster() as cluster, cluster.client() as client:
        follower = cluster.follower()
        answers = client.run(operations(800, "a"),
                             events={300: follower.kill,
                                     900: lambda: follower.start(wait=False)})
        note(client.describe())
        check_answers(answers)
        follower.wait_serving()
        check_equal(read_counter(follower, "c"), 800, "counter on the node that came back")
        cluster.converge()
        check_everywhere(cluster, expected(800, "a"), 800)


@test
def all_nodes_killed_at_once_again_and_again_lose_nothing():
    with Cluster() as cluster, cluster.client() as client:
        def kill_all():
            for node in cluster.nodes:
                node.process.kill()  # All of them before waiting for one.
            for node in cluster.nodes:
                node.kill()
            for node in cluster.nodes:
                node.start(wait=False)

        tags = []
        for n in range(ROUNDS):
            tags.append(f"round{n}")
            answers = client.run(operations(400, tags[-1]), events={200: kill_all, 550: kill_all})
            note(client.describe())
            check_answers(answers, counter_from=n * 400)
        for node in cluster.nodes:
            node.wait_serving()
        cluster.converge()
        check_everywhere(cluster, expected(400, *tags), 400 * ROUNDS)


@test
def every_leader_is_killed_in_turn():
    with Cluster() as cluster, cluster.client() as client:
        down = []

        def next_one():
            while down:
                down.pop().start()
            leader = cluster.leader()
            leader.kill()
            down.append(leader)

        events = {200 + 300 * n: next_one for n in range(5)}
        answers = client.run(operations(900, "a"), window=32, events=events)
        note(client.describe())
        check_answers(answers)
        down.pop().start()
        cluster.converge()
        check_everywhere(cluster, expected(900, "a"), 900)


if __name__ == "__main__":
    tap.main()
