#!/usr/bin/env python3
"""Sessions on real nodes: they expire, move between nodes, and answer a repeated write once."""

import os
import time

import tap
import wire
from cluster import PATIENCE, Cluster, read_counter
from tap import check, check_equal, test, wait_until


def open_session(connection, timeout_ms=60000):
    token = os.urandom(16)
    status, session, granted = connection.session_open(timeout_ms, token)
    check_equal(status, wire.OK, "status of opening a session")
    check(session > 0, "a session without a number")
    return session, token, granted


@test
def the_timeout_is_granted_within_bounds():
    with Cluster(1) as cluster, cluster.nodes[0].connect() as connection:
        check_equal(open_session(connection, 0)[2], 1000, "the least timeout")
        check_equal(open_session(connection, 5000)[2], 5000, "a usual timeout")
        check_equal(open_session(connection, 2**32 - 1)[2], 24 * 3600 * 1000, "the longest timeout")


@test
def a_session_that_is_silent_expires_and_one_that_speaks_does_not():
    with Cluster() as cluster, cluster.follower().connect() as connection:
        # Long enough that no busy machine keeps the one that speaks from being heard.
        silent, silent_token, _ = open_session(connection, 5000)
        speaking, speaking_token, _ = open_session(connection, 5000)

        def expired():
            check_equal(connection.session_alive(speaking), wire.OK, "the speaking session")
            # A question about it would be a sign of life: count instead.
            return connection.status()["sessions"] == 1
        wait_until(expired, "the silent session expires", pause=0.2)
        check_equal(connection.session_resume(silent, silent_token), wire.NO_SESSION,
                    "resuming an expired session")
        check_equal(connection.write(wire.counter_add("c", 1), silent, 1), (wire.NO_SESSION, b""),
                    "a write in an expired session")
        check_equal(connection.session_resume(speaking, speaking_token), wire.OK,
                    "resuming the other one")
        check_equal(read_counter_or_none(connection), None, "the counter was touched")
        check_equal(connection.session_close(speaking, speaking_token), wire.OK, "closing")
        check_equal(connection.session_alive(speaking), wire.NO_SESSION, "after closing")
        wait_until(lambda: connection.status()["sessions"] == 0, "no session is left")
        cluster.converge()


def read_counter_or_none(connection):
    status, result = connection.read(wire.counter_get("c"))
    return wire.number_of(result) if status == wire.OK else None


@test
def a_session_is_resumed_on_another_node_with_its_token_only():
    with Cluster() as cluster:
        with cluster.nodes[0].connect() as connection:
            session, token, _ = open_session(connection)
            check_equal(connection.write(wire.counter_add("c", 5), session, 1),
                        (wire.OK, wire.i64(5)), "the write")
        for node in cluster.nodes:
            with node.connect() as connection:
                check_equal(connection.session_resume(session, bytes(16)), wire.REFUSED,
                            "a wrong token")
                check_equal(connection.session_resume(session + 1000, token), wire.NO_SESSION,
                            "a session that never was")
                check_equal(connection.session_close(session, bytes(16)), wire.REFUSED,
                            "closing with a wrong token")
                check_equal(connection.session_resume(session, token), wire.OK, "the right token")
                check_equal(connection.write(wire.counter_add("c", 5), session, 1),
                            (wire.OK, wire.i64(5)), f"the write again, on node {node.number}")
        check_equal(read_counter(cluster.nodes[0], "c"), 5, "the counter")


@test
def a_write_repeated_on_every_node_at_once_is_done_once():
    with Cluster() as cluster:
        with cluster.nodes[0].connect() as connection:
            session, token, _ = open_session(connection)
        connections = [n.connect() for n in cluster.nodes for _ in range(3)]
        for connection in connections:
            check_equal(connection.session_resume(session, token), wire.OK, "resuming")
        for sequence in range(1, 51):
            end = time.monotonic() + PATIENCE
            payload = wire.write_payload(wire.counter_add("c", 1), session, sequence, sequence - 1)
            asked = [(c, c.send(wire.WRITE, payload)) for c in connections]
            for connection, request in asked:
                answer = connection.answer(request).payload
                while answer in (bytes([wire.RETRY]), bytes([wire.BUSY])):
                    check(time.monotonic() < end, f"write {sequence} is never decided")
                    answer = connection.answer(connection.send(wire.WRITE, payload)).payload
                check_equal(answer, b"\0" + wire.i64(sequence),
                            f"answer to write {sequence}")
        for connection in connections:
            connection.close()
        check_equal(read_counter(cluster.nodes[0], "c"), 50, "the counter")
        cluster.converge()


@test
def an_acknowledged_reply_is_gone_and_a_condition_is_remembered():
    with Cluster() as cluster, cluster.follower().connect() as connection:
        session, _, _ = open_session(connection)
        put = wire.map_put("m", "k", "v", wire.IF_ABSENT)
        status, result = connection.write(put, session, 1)
        check_equal((status, result[0]), (wire.OK, 0), "a put if absent")
        check_equal(connection.write(put, session, 1), (status, result), "the same again")
        check_equal(connection.write(put, session, 2, 1), (wire.CONDITION, result[1:]),
                    "a put if absent of what is there")
        delete = wire.map_delete("m", "k")
        check_equal(connection.write(delete, session, 3, 2), (wire.OK, b"\1"), "a delete")
        check_equal(connection.write(delete, session, 3, 2), (wire.OK, b"\1"), "the same again")
        check_equal(connection.write(put, session, 2, 0)[0], wire.STALE, "what was acknowledged")
        check_equal(connection.read(wire.map_get("m", "k"))[0], wire.NOT_FOUND, "the key")


@test
def a_session_outlives_the_death_of_all_nodes():
    with Cluster() as cluster:
        with cluster.leader().connect() as connection:
            session, token, _ = open_session(connection)
            first = connection.write(wire.counter_add("c", 7), session, 1)
            check_equal(first, (wire.OK, wire.i64(7)), "the write")
        for node in cluster.nodes:
            node.kill()
        time.sleep(1.5)  # The timeout of a session does not run while nobody leads.
        cluster.start()
        with cluster.follower().connect() as connection:
            check_equal(connection.session_resume(session, token), wire.OK, "resuming")
            check_equal(connection.write(wire.counter_add("c", 7), session, 1), first,
                        "the write again")
        cluster.converge()


if __name__ == "__main__":
    tap.main()
