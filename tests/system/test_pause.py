#!/usr/bin/env python3
"""A leader is stopped for a while (SIGSTOP, as a long pause of a machine would) and wakes up
believing that it still leads: it must not answer from the past."""

import time

import tap
import wire
from cluster import PATIENCE, Cluster, read, read_counter
from tap import check, check_equal, note, test

ROUNDS = 3
READS = 200


def add(client):
    status, result = client.write(wire.counter_add("c", 1))
    check_equal(status, wire.OK, "status of an addition")
    return wire.number_of(result)


def answers_of(connection, bounds):
    """Receive an answer for each request in bounds, {request: the least that it may show}."""
    served = 0
    while bounds:
        got = connection.receive(PATIENCE)
        least = bounds.pop(got.request)
        check_equal(got.kind, wire.READ + 1, "kind of the answer to a read")
        if got.payload[0] == wire.OK:
            value = wire.number_of(got.payload[1:])
            check(value >= least, f"a read shows {value}, but {least} was acknowledged before it")
            served += 1
        else:
            check(got.payload[0] in (wire.RETRY, wire.BUSY), f"status {got.payload[0]} of a read")
    return served


@test
def a_stopped_leader_does_not_stop_the_others_and_wakes_without_stale_reads():
    with Cluster() as cluster:
        for number in range(ROUNDS):
            leader = cluster.leader()
            rest = cluster.others(leader)
            with cluster.client() as client:
                known = add(client)
            with leader.connect(timeout=PATIENCE) as old:
                old.hello()
                leader.pause()
                bounds = {}
                new = cluster.leader()
                check(new is not leader, "a stopped node leads")
                with cluster.client([new, *rest]) as client:
                    for _ in range(READS):
                        known = add(client)
                        # It lies in the socket of the stopped leader from here on.
                        bounds[old.send(wire.READ, b"\0" + wire.counter_get("c"))] = known
                    note(client.describe())
                for node in rest:
                    check_equal(read_counter(node, "c"), known, "counter on a running node")
                # Connections that the kernel took for the stopped process, too.
                early = [leader.connect(timeout=PATIENCE) for _ in range(3)]
                early_bounds = []
                for connection in early:
                    request = connection.send(wire.READ, b"\0" + wire.counter_get("c"))
                    early_bounds.append({request: known})
                leader.resume()
                bounds[old.send(wire.READ, b"\0" + wire.counter_get("c"))] = known
                served = answers_of(old, bounds)
                for connection, bound in zip(early, early_bounds):
                    answers_of(connection, bound)
                    connection.close()
            note(f"round {number}: {served} reads were served by the old leader")
            check_equal(read_counter(leader, "c"), known, "counter on the resumed node")
            cluster.converge()


@test
def writes_that_lie_in_a_stopped_leader_are_done_once():
    with Cluster() as cluster:
        leader = cluster.leader()
        token = bytes(range(16))
        with leader.connect(timeout=PATIENCE) as old:
            status, session, _ = old.session_open(60000, token)
            check_equal(status, wire.OK, "status of opening a session")
            check_equal(old.write(wire.counter_add("c", 1), session, 1)[0], wire.OK, "first write")
            leader.pause()
            requests = [old.send(wire.WRITE, wire.write_payload(wire.counter_add("c", 1), session,
                                                                n, 1)) for n in range(2, 102)]
            # The client gives up on the stopped node and sends the same to another one.
            with cluster.client(cluster.others(leader)) as client:
                client.session, client.token, client.sequence = session, token, 1
                answers = client.run([wire.counter_add("c", 1)] * 100)
                note(client.describe())
            check_equal(sorted(wire.number_of(r) for _, r in answers), list(range(2, 102)),
                        "results of the writes")
            leader.resume()
            for request in requests:
                got = old.answer(request, PATIENCE)
                number = request - requests[0]
                if got.payload[0] == wire.OK:
                    check_equal(got.payload[1:], answers[number][1], "result of a repeated write")
                else:
                    check(got.payload[0] in (wire.RETRY, wire.BUSY, wire.STALE),
                          f"status {got.payload[0]} of a repeated write")
        for node in cluster.nodes:
            check_equal(read_counter(node, "c"), 101, f"counter on node {node.number}")
        cluster.converge()


@test
def a_stopped_follower_is_not_missed():
    with Cluster() as cluster, cluster.client() as client:
        follower = cluster.follower()
        follower.pause()
        client.ports = cluster.ports(cluster.others(follower))
        answers = client.run([wire.counter_add("c", 1)] * 500)
        check_equal(len({r for _, r in answers}), 500, "results of the counter")
        follower.resume()
        check_equal(read_counter(follower, "c"), 500, "counter on the resumed follower")
        cluster.converge()


@test
def a_node_without_a_majority_answers_that_it_cannot_and_shows_stale_reads_only():
    with Cluster() as cluster, cluster.client() as client:
        client.run([wire.counter_add("c", 1)] * 10)
        cluster.converge()
        alone = cluster.leader()
        rest = cluster.others(alone)
        for node in rest:
            node.pause()
        with alone.connect(timeout=PATIENCE) as connection:
            check_equal(connection.read(wire.counter_get("c"), wire.STALE_READ),
                        (wire.OK, wire.i64(10)), "a stale read")
            check_equal(connection.read(wire.counter_get("c"), once=True), (wire.RETRY, b""),
                        "a linearizable read without a majority")
            # Written without a session: whether it will have happened is not known.
            status, _ = connection.write(wire.counter_add("c", 1), once=True)
            check(status in (wire.RETRY, wire.UNCERTAIN), f"status {status} of a write")
        for node in rest:
            node.resume()
        check(read(alone, wire.counter_get("c"))[1] in (wire.i64(10), wire.i64(11)),
              "the write happened more than once")
        cluster.converge()


@test
def a_follower_answers_without_waiting_for_the_next_heartbeat():
    # 200 requests one after another, none of which may wait for what comes once a second.
    config = "election_timeout_ms: 2000\nheartbeat_ms: 1000\n"
    with Cluster(config=config) as cluster:
        leader = cluster.leader()
        follower = cluster.follower()
        end = time.monotonic() + PATIENCE
        with follower.connect() as near, leader.connect() as far:
            for n in range(100):
                check_equal(near.write(wire.counter_add("c", 1)), (wire.OK, wire.i64(2 * n + 1)),
                            "a write through the follower")
                check_equal(far.write(wire.counter_add("c", 1)), (wire.OK, wire.i64(2 * n + 2)),
                            "a write through the leader")
                check_equal(near.read(wire.counter_get("c")), (wire.OK, wire.i64(2 * n + 2)),
                            "a read from the follower")
                check(time.monotonic() < end, f"{n} rounds took {PATIENCE:.0f} s")


if __name__ == "__main__":
    tap.main()
