#!/usr/bin/env python3
"""Settling on real nodes: an answer comes when all who watch have acknowledged, or are gone."""

import time

import tap
import wire
from cluster import PATIENCE, Cluster
from tap import check, check_equal, test, wait_until

WATCH_OPEN, WATCH_EVENTS, WATCH_ACK, SETTLE = 150, 155, 156, 180
REGISTRY = 7
ACKNOWLEDGE = 8
PROGRESS = 1


def watch(connection, name="r", key=b"a", flags=ACKNOWLEDGE):
    request = (wire.u8(REGISTRY) + wire.blob(name) + wire.blob(b"") + wire.blob(key) +
               wire.blob(key + b"\0") + wire.u8(flags) + wire.u64(0))
    check_equal(connection.ask(WATCH_OPEN, request).u8(), wire.OK, "opening a watch")


def settle(connection, timeout_ms=30000, key=b"a"):
    """Ask; returns the request to give to outcome()."""
    return connection.send(SETTLE, wire.u8(REGISTRY) + wire.blob("r") + wire.blob(key) +
                           wire.u32(timeout_ms))


def outcome(connection, request):
    got = connection.answer(request, timeout=40).reader()
    check_equal(got.u8(), wire.OK, "the status")
    return got.flag()


def mark_of(connection):
    """The revision of the next mark; events come before."""
    while True:
        frame = connection.receive(PATIENCE)
        check_equal(frame.kind, WATCH_EVENTS, "what comes")
        got = frame.reader()
        revision, flags = got.u64(), got.u8()
        if flags & PROGRESS:
            check_equal(frame.request, 0, "whom a mark is for")
            return revision


def acknowledge(connection, revision):
    connection.send(WATCH_ACK, wire.u64(revision) + wire.u8(0))


def take(connection, timeout=0.02):
    """The next frame; None if there is none now."""
    try:
        return connection.receive(timeout)
    except TimeoutError:
        return None


def outcome_while(connection, request, watchers):
    """As outcome(), while the watchers acknowledge what they are asked to."""
    for _ in range(2000):
        for watcher in watchers:
            frame = take(watcher)
            if frame and frame.kind == WATCH_EVENTS:
                got = frame.reader()
                revision, flags = got.u64(), got.u8()
                if flags & PROGRESS:
                    acknowledge(watcher, revision)
        frame = take(connection)
        if frame and frame.request == request:
            got = frame.reader()
            check_equal(got.u8(), wire.OK, "the status")
            return got.flag()
    raise AssertionError("no answer")


def is_silent(connection):
    """Nothing comes for a while."""
    return take(connection, 0.3) is None


def add(cluster, sequence=1):
    client = cluster.client()
    client.write(wire.registration_add("r", b"a", sequence))
    return client


@test
def an_answer_waits_for_watches_on_all_nodes():
    with Cluster() as cluster:
        connections = [node.connect() for node in cluster.nodes]
        watchers = [node.connect() for node in cluster.nodes]
        for watcher in watchers:
            watch(watcher)
        with add(cluster):
            request = settle(connections[0])
            marks = [mark_of(watcher) for watcher in watchers]
            for watcher, revision in list(zip(watchers, marks))[:2]:
                acknowledge(watcher, revision)
            check(is_silent(connections[0]), "an answer though one has not acknowledged")
            acknowledge(watchers[2], marks[2])
            check(outcome(connections[0], request), "all have acknowledged")
            request = settle(connections[1])
            check(outcome_while(connections[1], request, watchers), "again, by another node")
        for connection in connections + watchers:
            connection.close()


@test
def who_is_gone_or_watches_something_else_is_not_waited_for():
    with Cluster() as cluster:
        asking = cluster.nodes[0].connect()
        here, there = cluster.nodes[0].connect(), cluster.nodes[1].connect()
        others = [cluster.nodes[2].connect() for _ in range(3)]
        for watcher in (here, there):
            watch(watcher)
        watch(others[0], key=b"b")
        watch(others[1], name="q")
        watch(others[2], flags=0)
        with add(cluster):
            request = settle(asking)
            for watcher in (here, there):
                mark_of(watcher)
                watcher.close()
            check(outcome(asking, request), "they are gone")
        for connection in [asking, *others]:
            connection.close()


@test
def the_time_is_bounded():
    with Cluster() as cluster:
        asking, watcher = cluster.nodes[0].connect(), cluster.nodes[1].connect()
        watch(watcher)
        with add(cluster):
            begun = time.monotonic()
            check(not outcome(asking, settle(asking, 500)), "it has not acknowledged")
            waited = time.monotonic() - begun
            check(waited > 0.4, f"the time that was asked for, not {waited:.3f} s")
        asking.close()
        watcher.close()


@test
def a_node_that_is_down_is_not_waited_for_but_told_of():
    with Cluster() as cluster:
        victim = cluster.follower()
        asking, watcher = cluster.leader().connect(), victim.connect()
        watch(watcher)
        with add(cluster):
            request = settle(asking)
            mark_of(watcher)
            victim.kill()
            check(not outcome(asking, request), "nobody knows what its clients heard")
            begun = time.monotonic()
            check(not outcome(asking, settle(asking)), "it is down")
            check(time.monotonic() - begun < 20, "an answer long before the time is over")
            victim.start()

            def complete():
                return outcome(asking, settle(asking))
            wait_until(complete, "all are there again")
        asking.close()
        watcher.close()


@test
def who_asked_may_go():
    with Cluster() as cluster:
        watcher = cluster.nodes[1].connect()
        watch(watcher)
        with add(cluster), cluster.nodes[0].connect() as asking:
            settle(asking)
            revision = mark_of(watcher)
        acknowledge(watcher, revision)
        with cluster.nodes[0].connect() as again:
            check(outcome_while(again, settle(again), [watcher]), "the node goes on")
        watcher.close()


if __name__ == "__main__":
    tap.main()
