#!/usr/bin/env python3
"""The prototype's kinds, byte for byte, as a client of the prototype would see them."""

import wire
import tap
from cluster import PATIENCE, Cluster, read_counter, read_map
from tap import check, check_equal, test


STATE_SYNC = 73


def exchange(connection, kind, payload, flags=wire.REQUEST, request=0x01020304):
    """The bytes of the answer; the state-sync stream of who has joined is passed by."""
    connection.send_raw(wire.frame(kind, payload, request, flags))
    while True:
        got = connection.receive(PATIENCE).raw
        if got[10:12] != wire.u16(STATE_SYNC):
            return got


def answers(connection, kind, payload, expected_kind, expected, request=0x01020304):
    got = exchange(connection, kind, payload, request=request)
    check_equal(got, wire.frame(expected_kind, expected, request, wire.RESPONSE),
                f"bytes of the answer to kind {kind}")


def on_each_node():
    """A connection to every node in turn: the kinds mean the same on each."""
    with Cluster() as cluster:
        for node in cluster.nodes:
            with node.connect(PATIENCE) as connection:
                yield cluster, node, connection
            cluster.converge()


@test
def maps_answer_with_the_prototypes_bytes():
    for _, node, connection in on_each_node():
        name = wire.blob(f"map-{node.number}")
        key, value = wire.blob(b"\x00key\xff"), wire.blob(b"value\x00")
        answers(connection, wire.CREATE_MAP, name, 8, b"\0" + name)
        answers(connection, wire.CREATE_MAP, name, 8, b"\0" + name)
        answers(connection, wire.MAP_SIZE, name, 16, b"\0" + wire.u64(0))
        answers(connection, wire.MAP_GET, name + key, 12, b"\0\0")
        answers(connection, wire.MAP_PUT, name + key + value, 10, b"\0")
        answers(connection, wire.MAP_GET, name + key, 12, b"\0\1" + value)
        answers(connection, wire.MAP_PUT, name + key + wire.blob(""), 10, b"\0")
        answers(connection, wire.MAP_GET, name + key, 12, b"\0\1" + wire.blob(""))
        answers(connection, wire.MAP_SIZE, name, 16, b"\0" + wire.u64(1))
        answers(connection, wire.MAP_REMOVE, name + key, 14, b"\0")
        answers(connection, wire.MAP_REMOVE, name + key, 14, b"\0")
        answers(connection, wire.MAP_SIZE, name, 16, b"\0" + wire.u64(0))
        # A map that nobody made.
        answers(connection, wire.MAP_SIZE, wire.blob("none"), 16, b"\0" + wire.u64(0))
        answers(connection, wire.MAP_GET, wire.blob("none") + key, 12, b"\0\0")


@test
def sets_answer_with_the_prototypes_bytes():
    for _, node, connection in on_each_node():
        name, value = wire.blob(f"set-{node.number}"), wire.blob(b"\x00value\xff")
        answers(connection, wire.CREATE_SET, name, 18, b"\0" + name)
        answers(connection, wire.CREATE_SET, name, 18, b"\0" + name)
        answers(connection, wire.SET_CONTAINS, name + value, 24, b"\0\0")
        for _ in range(2):
            answers(connection, wire.SET_ADD, name + value, 20, b"\0")
            answers(connection, wire.SET_CONTAINS, name + value, 24, b"\0\1")
            answers(connection, wire.SET_SIZE, name, 26, b"\0" + wire.u64(1))
        answers(connection, wire.SET_ADD, name + wire.blob(""), 20, b"\0")
        answers(connection, wire.SET_SIZE, name, 26, b"\0" + wire.u64(2))
        for _ in range(2):
            answers(connection, wire.SET_REMOVE, name + value, 22, b"\0")
            answers(connection, wire.SET_SIZE, name, 26, b"\0" + wire.u64(1))
        # A set that nobody made.
        answers(connection, wire.SET_SIZE, wire.blob("none"), 26, b"\0" + wire.u64(0))
        answers(connection, wire.SET_CONTAINS, wire.blob("none") + value, 24, b"\0\0")
        answers(connection, wire.SET_REMOVE, wire.blob("none") + value, 22, b"\0")


@test
def multimaps_answer_with_the_prototypes_bytes():
    for _, node, connection in on_each_node():
        name = wire.blob(f"multimap-{node.number}")
        key, value = wire.blob(b"\x00key\xff"), wire.blob(b"\x00value\xff")
        other = wire.blob(b"\x01")
        number, yes, no = (lambda n: b"\0" + wire.u64(n)), b"\0\1", b"\0\0"
        for _ in range(2):
            answers(connection, wire.CREATE_MULTIMAP, name, 42, b"\0" + name)
        answers(connection, wire.MULTIMAP_GET, name + key, 46, b"\0" + wire.u32(0))
        for _ in range(2):
            answers(connection, wire.MULTIMAP_PUT, name + key + value, 44, b"\0")
        answers(connection, wire.MULTIMAP_PUT, name + key + other, 44, b"\0")
        answers(connection, wire.MULTIMAP_PUT, name + other + value, 44, b"\0")
        answers(connection, wire.MULTIMAP_SIZE, name, 52, number(3))
        answers(connection, wire.MULTIMAP_KEY_SIZE, name + key, 54, number(2))
        answers(connection, wire.MULTIMAP_GET, name + key, 46,
                b"\0" + wire.u32(2) + value + other)
        answers(connection, wire.MULTIMAP_CONTAINS_KEY, name + key, 56, yes)
        answers(connection, wire.MULTIMAP_CONTAINS_KEY, name + value, 56, no)
        answers(connection, wire.MULTIMAP_CONTAINS_VALUE, name + value, 58, yes)
        answers(connection, wire.MULTIMAP_CONTAINS_VALUE, name + key, 58, no)
        answers(connection, wire.MULTIMAP_CONTAINS_ENTRY, name + other + value, 60, yes)
        answers(connection, wire.MULTIMAP_CONTAINS_ENTRY, name + other + other, 60, no)
        answers(connection, wire.MULTIMAP_KEYS, name, 62, b"\0" + wire.u32(2) + key + other)
        answers(connection, wire.MULTIMAP_VALUES, name, 64,
                b"\0" + wire.u32(3) + value + other + value)
        answers(connection, wire.MULTIMAP_ENTRIES, name, 66,
                b"\0" + wire.u32(2) + key + wire.u32(2) + value + other + other + wire.u32(1) +
                value)
        for _ in range(2):
            answers(connection, wire.MULTIMAP_REMOVE_VALUE, name + key + value, 50, b"\0")
            answers(connection, wire.MULTIMAP_KEY_SIZE, name + key, 54, number(1))
        for _ in range(2):
            answers(connection, wire.MULTIMAP_REMOVE, name + key, 48, b"\0")
            answers(connection, wire.MULTIMAP_SIZE, name, 52, number(1))
        for _ in range(2):
            answers(connection, wire.MULTIMAP_CLEAR, name, 68, b"\0")
            answers(connection, wire.MULTIMAP_SIZE, name, 52, number(0))


@test
def a_cleared_map_is_empty_on_each_node():
    with Cluster() as cluster:
        with cluster.client() as client:
            client.run([wire.map_put("m", f"k{n}", "v") for n in range(1000)])
            client.run([wire.multimap_put("m", f"k{n % 10}", f"v{n}") for n in range(100)])
        with cluster.leader().connect(PATIENCE) as connection:
            connection.hello()
            status, result = connection.write(wire.map_clear("m"))
            check_equal((status, wire.number_of(result)), (wire.OK, 1000), "a clear")
            status, result = connection.write(wire.multimap_remove("m", "k3"))
            check_equal((status, wire.number_of(result)), (wire.OK, 10), "a remove of a key")
        cluster.converge()
        for node in cluster.nodes:
            check_equal(read_map(node, "m"), {}, f"map on node {node.number}")
            with node.connect(PATIENCE) as connection:
                connection.hello()
                status, result = connection.read(wire.multimap_entries("m"))
                _, _, entries = wire.page_of(result)
                check_equal(len(entries), 90, f"pairs on node {node.number}")
                status, result = connection.read(wire.multimap_get("m", "k7"))
                _, _, entries = wire.page_of(result)
                check_equal([value for _, _, value in entries],
                            sorted(f"v{n}".encode() for n in range(7, 100, 10)),
                            f"values on node {node.number}")


@test
def counters_answer_with_the_prototypes_bytes():
    for _, node, connection in on_each_node():
        name = wire.blob(f"counter-{node.number}")
        answers(connection, wire.CREATE_COUNTER, name, 28, b"\0" + name)
        answers(connection, wire.COUNTER_GET, name, 30, b"\0" + wire.i64(0))
        answers(connection, wire.COUNTER_INCREMENT, name + wire.i64(5), 32, b"\0" + wire.i64(5))
        answers(connection, wire.COUNTER_INCREMENT, name + wire.i64(-7), 32, b"\0" + wire.i64(-2))
        answers(connection, wire.COUNTER_INCREMENT, name + wire.i64(0), 32, b"\0" + wire.i64(-2))
        answers(connection, wire.COUNTER_GET, name, 30, b"\0" + wire.i64(-2))
        most = 2**63 - 1
        answers(connection, wire.COUNTER_INCREMENT, name + wire.i64(most), 32,
                b"\0" + wire.i64(most - 2))
        got = exchange(connection, wire.COUNTER_INCREMENT, name + wire.i64(3))
        check_equal((got[9], got[10:12], got[16]), (wire.RESPONSE, wire.u16(69), 1),
                    "an overflow is an ERROR_RESPONSE with code ERR")
        answers(connection, wire.COUNTER_GET, name, 30, b"\0" + wire.i64(most - 2))


@test
def ping_is_answered_with_pong_and_its_flag_asks_for_one_besides():
    with Cluster(1) as cluster, cluster.nodes[0].connect(PATIENCE) as connection:
        pong = wire.frame(wire.PONG, b"", 77, wire.RESPONSE | wire.PONG_FLAG)
        for flags in (wire.REQUEST, wire.PING_FLAG, wire.REQUEST | wire.PING_FLAG):
            check_equal(exchange(connection, wire.PING, b"", flags, 77), pong,
                        f"the answer to PING with flags {flags}")
        connection.send_raw(wire.frame(wire.MAP_SIZE, wire.blob("m"), 77,
                                       wire.REQUEST | wire.PING_FLAG))
        both = {connection.receive(PATIENCE).raw for _ in range(2)}
        check_equal(both, {pong, wire.frame(wire.MAP_SIZE + 1, b"\0" + wire.u64(0), 77,
                                            wire.RESPONSE)}, "the answers to a request with PING")


def join(connection, name):
    """Join, and return the connection's id."""
    got = exchange(connection, 1, wire.blob(name))
    check_equal((got[9], got[10:12], got[16]), (wire.RESPONSE, wire.u16(2), 0), f"{name} joins")
    reader = wire.Reader(got[17:])
    number = reader.u64()
    reader.end()
    return number


def nodes(connection):
    got = exchange(connection, 5, b"")
    check_equal((got[10:12], got[16]), (wire.u16(6), 0), "the list of nodes")
    reader = wire.Reader(got[17:])
    names = [reader.text() for _ in range(reader.u32())]
    reader.end()
    return names


def refused(connection, kind, payload, words):
    got = exchange(connection, kind, payload)
    check_equal((got[9], got[10:12]), (wire.RESPONSE, wire.u16(69)), f"the answer to kind {kind}")
    reader = wire.Reader(got[16:])
    check_equal(reader.u8(), 1, "its code")
    text = reader.text()
    reader.end()
    check(words in text, f"{text!r} says {words!r}")


@test
def nodes_join_are_listed_in_order_and_leave():
    with Cluster(3) as cluster:
        connections = [node.connect(PATIENCE) for node in cluster.nodes]
        check_equal(nodes(connections[0]), [], "nodes at first")
        first = join(connections[0], "zeta")
        second = join(connections[1], "alpha")
        third = join(connections[2], "zeta")
        check(first < second < third, "connection ids rise")
        check_equal(join(connections[0], "zeta"), first, "who has joined keeps the id")
        refused(connections[0], 1, wire.blob("other"), "leave first")
        for connection in connections:
            check_equal(nodes(connection), ["zeta", "alpha"], "nodes, each once, as they joined")
        answers(connections[2], 3, wire.blob("alpha"), 4, b"\0")
        check_equal(nodes(connections[0]), ["zeta"], "nodes after one left")
        refused(connections[0], 3, wire.blob("alpha"), "not found")
        answers(connections[0], 3, wire.blob("zeta"), 4, b"\0")
        check_equal(nodes(connections[1]), [], "with a node all its connections leave")
        refused(connections[1], 35, wire.blob("l"), "join again")
        for connection in connections:
            connection.close()


@test
def locks_are_fair_and_of_nodes():
    with Cluster(3) as cluster:
        one, two, three = (node.connect(PATIENCE) for node in cluster.nodes)
        lock = wire.blob("l")
        refused(one, 35, lock, "not joined")
        for connection, name in ((one, "a"), (two, "b"), (three, "c")):
            join(connection, name)
        answers(one, 33, lock, 34, b"\0" + lock)
        answers(one, 33, lock, 34, b"\0" + lock)
        answers(one, 35, lock, 36, b"\0\1\0")
        answers(one, 35, lock, 36, b"\0\1\0")
        answers(two, 35, lock, 36, b"\0\0\1" + wire.u64(1))
        answers(three, 35, lock, 36, b"\0\0\1" + wire.u64(2))
        answers(three, 35, lock, 36, b"\0\0\1" + wire.u64(2))
        refused(two, 37, lock, "not held")
        answers(one, 37, lock, 38, b"\0")
        refused(one, 37, lock, "not held")
        answers(two, 35, lock, 36, b"\0\1\0")
        answers(three, 35, lock, 36, b"\0\0\1" + wire.u64(1))
        answers(one, 3, wire.blob("b"), 4, b"\0")
        answers(three, 35, lock, 36, b"\0\1\0")
        refused(three, 37, wire.blob("none"), "not held")
        for connection in (one, two, three):
            connection.close()


@test
def a_node_finds_its_locks_again_from_a_new_connection():
    with Cluster(3) as cluster:
        one, two = (node.connect(PATIENCE) for node in cluster.nodes[:2])
        join(one, "a")
        join(two, "b")
        for name in ("mine", "also"):
            answers(one, 35, wire.blob(name), 36, b"\0\1\0")
        answers(two, 35, wire.blob("other"), 36, b"\0\1\0")
        one.close()
        with cluster.nodes[2].connect(PATIENCE) as again:
            join(again, "a")
            held = wire.u32(2) + wire.blob("mine") + wire.blob("also")
            lost = wire.u32(2) + wire.blob("other") + wire.blob("none")
            answers(again, 39, wire.u32(4) + wire.blob("mine") + wire.blob("other") +
                    wire.blob("also") + wire.blob("none"), 40, b"\0" + held + lost)
            answers(again, 39, wire.u32(0), 40, b"\0" + wire.u32(0) + wire.u32(0))
            answers(again, 37, wire.blob("mine"), 38, b"\0")
        answers(two, 35, wire.blob("mine"), 36, b"\0\1\0")
        two.close()


@test
def requests_of_a_node_sent_at_once_are_answered_in_order():
    with Cluster(1) as cluster, cluster.nodes[0].connect(PATIENCE) as connection:
        lock = wire.blob("l")
        kinds = ((1, wire.blob("a")), (35, lock), (35, lock), (37, lock), (3, wire.blob("a")))
        for number, (kind, payload) in enumerate(kinds):
            connection.send_raw(wire.frame(kind, payload, number + 1, wire.REQUEST))
        got = []
        while len(got) < len(kinds):
            raw = connection.receive(PATIENCE).raw
            if raw[10:12] != wire.u16(STATE_SYNC):
                got.append(raw)
        check_equal([raw[10:12] for raw in got], [wire.u16(kind + 1) for kind, _ in kinds],
                    "the kinds of the answers")
        check_equal([raw[12:16] for raw in got], [wire.u32(n + 1) for n in range(len(kinds))],
                    "their ids")


class Mirror:
    """What a client of the state-sync stream believes."""

    def __init__(self):
        self.maps, self.sets, self.counters, self.multimaps = {}, {}, {}, {}
        self.locks, self.nodes, self.expected = {}, {}, 1

    def apply(self, raw):
        """Do the operations of a message. Returns its number."""
        reader = wire.Reader(raw[16:])
        number = reader.u64()
        check_equal(number, self.expected, "the number of the message")
        self.expected += 1
        for _ in range(reader.u32()):
            self.operation(reader, reader.u8(), reader.text())
        reader.end()
        return number

    def operation(self, reader, tag, name):
        if tag in (0, 3, 9):
            {0: self.maps, 3: self.sets, 9: self.multimaps}[tag].setdefault(
                name, {} if tag == 0 else set())
        elif tag in (2, 5, 12):
            {2: self.maps, 5: self.sets, 12: self.multimaps}[tag].pop(name, None)
        elif tag == 1:
            key = reader.blob()
            if reader.u8():
                self.maps[name][key] = reader.blob()
            else:
                self.maps[name].pop(key, None)
        elif tag in (4, 10):
            pair = (reader.blob(), reader.blob()) if tag == 10 else reader.blob()
            target = (self.sets if tag == 4 else self.multimaps)[name]
            (target.add if reader.u8() else target.discard)(pair)
        elif tag == 11:
            key = reader.blob()
            self.multimaps[name] = {pair for pair in self.multimaps[name] if pair[0] != key}
        elif tag == 6:
            self.counters.setdefault(name, 0)
        elif tag == 7:
            self.counters[name] = reader.i64()
        elif tag == 8:
            self.counters.pop(name, None)
        elif tag == 13:
            self.locks.setdefault(name, None)
        elif tag == 14:
            self.locks[name] = reader.text()
        elif tag == 15:
            reader.text()
            self.locks[name] = None
        elif tag == 16:
            self.locks.pop(name, None)
        elif tag == 17:
            self.nodes.setdefault(name, set())
        elif tag == 18:
            self.nodes.pop(name, None)
        elif tag == 19:
            self.nodes[name].add(reader.u64())
        else:
            check_equal(tag, 20, "the tag")
            self.nodes[name].discard(reader.u64())


def follow(connection, mirror, until, code=0):
    """Take messages and acknowledge them until the mirror shows it."""
    while not until(mirror):
        raw = connection.receive(PATIENCE).raw
        check_equal(raw[9:12], wire.u8(wire.REQUEST) + wire.u16(STATE_SYNC), "flags and kind")
        number = mirror.apply(raw)
        connection.send_raw(wire.frame(74, wire.u8(code) + wire.u64(number), number,
                                       wire.RESPONSE))


def fill(connection, count):
    m, s, mm, c, lock = (wire.blob(name) for name in ("m", "s", "mm", "c", "l"))
    for n in range(count):
        key = wire.blob(f"k{n}")
        answers(connection, wire.MAP_PUT, m + key + wire.blob(f"v{n}"), 10, b"\0")
        answers(connection, wire.SET_ADD, s + key, 20, b"\0")
        answers(connection, 43, mm + wire.blob(f"k{n % 7}") + key, 44, b"\0")
        exchange(connection, wire.COUNTER_INCREMENT, c + wire.i64(1))
    answers(connection, 33, lock, 34, b"\0" + lock)


@test
def who_joins_is_told_the_state_and_what_changes():
    with Cluster(3) as cluster:
        writer, other = (node.connect(PATIENCE) for node in cluster.nodes[:2])
        fill(writer, 600)
        mirror = Mirror()
        with cluster.nodes[2].connect(PATIENCE) as follower:
            join(follower, "f")
            follow(follower, mirror, lambda m: "f" in m.nodes)
            check_equal(len(mirror.maps["m"]), 600, "entries of the map")
            check_equal(mirror.maps["m"][b"k17"], b"v17", "one of them")
            check_equal((len(mirror.sets["s"]), len(mirror.multimaps["mm"])), (600, 600),
                        "members and pairs")
            check_equal((mirror.counters, mirror.locks), ({"c": 600}, {"l": None}), "the rest")
            join(other, "o")
            answers(other, 35, wire.blob("l"), 36, b"\0\1\0")
            follow(follower, mirror, lambda m: m.locks["l"] == "o" and len(m.nodes["o"]) == 1)
            answers(writer, wire.MAP_REMOVE, wire.blob("m") + wire.blob("k17"), 14, b"\0")
            answers(writer, 47, wire.blob("mm") + wire.blob("k3"), 48, b"\0")
            answers(writer, 67, wire.blob("mm2"), 68, b"\0")
            exchange(writer, wire.COUNTER_INCREMENT, wire.blob("c") + wire.i64(-600))
            follow(follower, mirror, lambda m: m.counters["c"] == 0)
            check(b"k17" not in mirror.maps["m"], "what was removed is gone")
            check(not any(key == b"k3" for key, _ in mirror.multimaps["mm"]), "a cleared key too")
            answers(other, 3, wire.blob("o"), 4, b"\0")
            follow(follower, mirror, lambda m: "o" not in m.nodes)
            check_equal(mirror.locks["l"], None, "its lock is free")
        writer.close()
        other.close()


@test
def who_acknowledges_nothing_is_left_behind_and_told_all_again():
    with Cluster(1) as cluster:
        with cluster.nodes[0].connect(PATIENCE) as writer, \
                cluster.nodes[0].connect(PATIENCE) as follower:
            fill(writer, 5)
            join(follower, "f")
            for n in range(3000):  # More than may wait, while nothing is acknowledged.
                answers(writer, wire.MAP_PUT, wire.blob("m") + wire.blob(f"k{n % 1500}") +
                        wire.blob(f"w{n}"), 10, b"\0")
            mirror = Mirror()
            follow(follower, mirror, lambda m: m.maps.get("m", {}).get(b"k1499") == b"w2999" and
                   len(m.maps["m"]) == 1500 and m.counters)
            check_equal(mirror.maps["m"][b"k3"], b"w1503", "one of them")
            # ERR asks for all of it again.
            before = mirror.expected
            mirror.maps.clear()
            mirror.sets.clear()
            mirror.multimaps.clear()
            mirror.counters.clear()
            answers(writer, wire.SET_ADD, wire.blob("s2") + wire.blob("x"), 20, b"\0")
            follow(follower, mirror, lambda m: m.expected > before, code=1)
            follow(follower, mirror, lambda m: len(m.maps.get("m", {})) == 1500 and m.counters)


@test
def an_acknowledgement_of_what_was_not_sent_ends_the_connection():
    with Cluster(1) as cluster:
        for joined in (False, True):
            with cluster.nodes[0].connect(PATIENCE) as connection:
                if joined:
                    join(connection, "a")
                connection.send_raw(wire.frame(74, b"\0" + wire.u64(99), 1, wire.RESPONSE))
                connection.until_closed(PATIENCE)


@test
def names_and_keys_out_of_bounds_are_errors():
    with Cluster(1) as cluster, cluster.nodes[0].connect(PATIENCE) as connection:
        for kind, payload in ((wire.CREATE_MAP, wire.blob("")),
                              (wire.CREATE_MAP, wire.blob("n" * 256)),
                              (wire.MAP_PUT, wire.blob("m") + wire.blob(bytes(65537)) +
                               wire.blob("v")),
                              (wire.MAP_PUT, wire.blob("m") + wire.blob("k") +
                               wire.blob(bytes(8388609))),
                              (wire.SET_ADD, wire.blob("s") + wire.blob(bytes(65537)))):
            got = exchange(connection, kind, payload)
            check_equal((got[10:12], got[16]), (wire.u16(69), 1), f"the answer to kind {kind}")
        answers(connection, wire.CREATE_MAP, wire.blob("n" * 255), 8, b"\0" + wire.blob("n" * 255))


@test
def old_and_new_kinds_see_the_same_things():
    with Cluster() as cluster:
        with cluster.nodes[0].connect(PATIENCE) as connection:
            for n in range(200):  # All at once, answered in any order.
                connection.send_raw(
                    wire.frame(wire.MAP_PUT, wire.blob("m") + wire.blob(f"k{n}") +
                               wire.blob(f"v{n}"), 2 * n) +
                    wire.frame(wire.COUNTER_INCREMENT, wire.blob("c") + wire.i64(1), 2 * n + 1))
            seen = {}
            while len(seen) < 400:
                got = connection.receive(PATIENCE)
                seen[got.request] = got
        sums = sorted(wire.number_of(seen[2 * n + 1].payload[1:]) for n in range(200))
        check_equal(sums, list(range(1, 201)), "results of the counter")
        for node in cluster.nodes:
            check_equal(read_map(node, "m"), {f"k{n}".encode(): f"v{n}".encode()
                                              for n in range(200)}, f"map on node {node.number}")
            check_equal(read_counter(node, "c"), 200, f"counter on node {node.number}")
            with node.connect(PATIENCE) as connection:
                answers(connection, wire.COUNTER_GET, wire.blob("c"), 30, b"\0" + wire.i64(200))


@test
def counters_and_ranges_have_more_than_the_prototype_had():
    with Cluster() as cluster:
        with cluster.client() as client:
            client.run([wire.map_put("m", f"k{n:03}", "v") for n in range(300)])
        for node in cluster.nodes:
            name = f"c{node.number}"
            with node.connect(PATIENCE) as connection:
                connection.hello()
                answers(connection, wire.COUNTER_INCREMENT, wire.blob(name) + wire.i64(5), 32,
                        b"\0" + wire.i64(5))
                status, result = connection.write(wire.counter_cas(name, 4, 6))
                check_equal((status, wire.number_of(result)), (wire.CONDITION, 5), "not met")
                status, result = connection.write(wire.counter_cas(name, 5, 6))
                check_equal((status, wire.number_of(result)), (wire.OK, 6), "met")
                status, result = connection.write(wire.counter_set(name, -1))
                check_equal((status, wire.flag_of(result)), (wire.OK, True), "a set")
                answers(connection, wire.COUNTER_GET, wire.blob(name), 30, b"\0" + wire.i64(-1))
                status, result = connection.write(wire.counter_delete(name))
                check_equal((status, wire.flag_of(result)), (wire.OK, True), "a delete")
                keys, cursor = [], b""
                while not keys or cursor:
                    status, result = connection.read(
                        wire.map_range("m", "k1", "k105", "k18", cursor, 7))
                    check_equal(status, wire.OK, "the status of a range")
                    _, cursor, entries = wire.page_of(result)
                    keys += [key for key, _, _ in entries]
                check_equal(keys, [f"k{n:03}".encode() for n in range(105, 180)], "a range")


@test
def old_and_new_kinds_see_the_same_sets():
    with Cluster() as cluster:
        with cluster.nodes[0].connect(PATIENCE) as connection:
            connection.hello()
            answers(connection, wire.SET_ADD, wire.blob("s") + wire.blob("old"), 20, b"\0")
            status, result = connection.write(wire.set_add("s", "new"))
            check_equal((status, wire.flag_of(result)), (wire.OK, True), "an add")
            status, result = connection.write(wire.set_add("s", "old"))
            check_equal((status, wire.flag_of(result)), (wire.OK, False), "an add of what is there")
            status, result = connection.write(wire.set_create("s"))
            check_equal((status, wire.flag_of(result)), (wire.OK, False), "a create")
        for node in cluster.nodes:
            with node.connect(PATIENCE) as connection:
                connection.hello()
                status, result = connection.read(wire.set_scan("s", limit=1))
                check_equal(status, wire.OK, "the status of a scan")
                _, cursor, first = wire.page_of(result)
                status, result = connection.read(wire.set_scan("s", cursor))
                _, cursor, second = wire.page_of(result)
                check_equal([(key, value) for key, _, value in first + second],
                            [(b"new", b""), (b"old", b"")], f"set on node {node.number}")
                check_equal(cursor, b"", "the cursor behind the last page")
                status, result = connection.read(wire.set_contains("s", "new"))
                check_equal((status, wire.flag_of(result)), (wire.OK, True), "contains")
                answers(connection, wire.SET_SIZE, wire.blob("s"), 26, b"\0" + wire.u64(2))
                status, result = connection.read(wire.set_size("s"))
                check_equal((status, wire.number_of(result)), (wire.OK, 2), "its size")
        with cluster.nodes[1].connect(PATIENCE) as connection:
            connection.hello()
            status, result = connection.write(wire.set_remove("s", "old"))
            check_equal((status, wire.flag_of(result)), (wire.OK, True), "a remove")
            answers(connection, wire.SET_SIZE, wire.blob("s"), 26, b"\0" + wire.u64(1))


if __name__ == "__main__":
    tap.main()
