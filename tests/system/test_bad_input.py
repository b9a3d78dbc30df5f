#!/usr/bin/env python3
"""Bytes that no client should send: the connection is closed with a reason, nothing changes, and
the node goes on serving others."""

import os
import random
import struct
import zlib

import tap
import wire
from cluster import PATIENCE, Cluster, free_port, read_counter, read_map
from tap import check, check_equal, note, test, wait_until

SEED = int(os.environ.get("SEED", "20240611"))
MUTATIONS = 1500
MEMORY_SLACK = 64 * 1024 * 1024


def raw_frame(payload=b"", size=None, version=1, flags=wire.REQUEST, kind=wire.HELLO, request=7,
              crc=None):
    size = 16 + len(payload) if size is None else size
    rest = struct.pack("<IBBHI", size, version, flags, kind, request) + payload
    return struct.pack("<I", zlib.crc32(rest) if crc is None else crc) + rest


HELLO = wire.frame(wire.HELLO, wire.u16(1) + wire.blob("") + wire.blob("x"), 1)

# What is wrong, the bytes, a word of the reason.
BAD = [
    ("version 0", raw_frame(version=0), "version 0"),
    ("version 2", raw_frame(version=2), "version 2"),
    ("version 255", raw_frame(version=255), "version 255"),
    ("a size of 0", raw_frame(size=0), "0 bytes"),
    ("a size of 15", raw_frame(size=15), "15 bytes"),
    ("a size above the maximum", raw_frame(size=wire.FRAME_MAX + 1), "at most"),
    ("the largest size", raw_frame(size=2**32 - 1), "at most"),
    ("kind 0", raw_frame(kind=0), "unknown kind 0"),
    ("kind 75", raw_frame(kind=75), "unknown kind 75"),
    ("kind 189", raw_frame(kind=189), "unknown kind 189"),
    ("kind 65535", raw_frame(kind=65535), "unknown kind 65535"),
    ("no flags", raw_frame(flags=0), "flags"),
    ("flags of a response", raw_frame(flags=wire.RESPONSE), "flags"),
    ("an unknown flag", raw_frame(flags=0x11), "flags"),
    ("a wrong checksum", raw_frame(crc=1), "checksum"),
    ("a hello without fields", raw_frame(), "HELLO_REQUEST"),
    ("a hello with a byte too many", wire.frame(wire.HELLO, wire.u16(1) + wire.blob("") +
                                                wire.blob("") + b"x"), "HELLO_REQUEST"),
    ("a text that is not UTF-8", wire.frame(wire.HELLO, wire.u16(1) + wire.blob(b"\xff") +
                                            wire.blob("")), "HELLO_REQUEST"),
    ("a length beyond the frame", wire.frame(wire.HELLO, wire.u16(1) + wire.u32(2**32 - 1)),
     "HELLO_REQUEST"),
    ("a status request with a payload", wire.frame(wire.STATUS, b"x"), "STATUS_REQUEST"),
    ("a session's number cut off", wire.frame(wire.SESSION_ALIVE, b"1234567"),
     "SESSION_ALIVE_REQUEST"),
    ("a token cut off", wire.frame(wire.SESSION_OPEN, wire.u32(1000) + bytes(15)),
     "SESSION_OPEN_REQUEST"),
    ("a write cut off", wire.frame(wire.WRITE, bytes(23)), "WRITE_REQUEST"),
    ("a read of consistency 2", wire.frame(wire.READ, b"\2" + wire.counter_get("c")),
     "READ_REQUEST"),
    ("a legacy put cut off", wire.frame(wire.MAP_PUT, wire.blob("m") + wire.blob("k")),
     "MAP_PUT_REQUEST"),
    ("a response that nobody asked for", wire.frame(wire.MAP_PUT + 1, b"\0", 1, wire.RESPONSE),
     "MAP_PUT_RESPONSE"),
    ("a session's response", wire.frame(wire.HELLO + 1, b"\0", 1, wire.RESPONSE), ""),
    ("a peer's frame without a hello", wire.frame(wire.PEER_RAFT, bytes(40)), "PEER_RAFT"),
    ("a peer's hello cut off", wire.frame(wire.PEER_HELLO, b"\1"), "PEER_HELLO"),
    ("text", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "version"),
    ("zeros", bytes(64), "version 0"),
]


def fill(cluster):
    with cluster.client() as client:
        client.run([wire.counter_add("c", 1)] * 20 +
                   [wire.map_put("m", f"k{n}", f"v{n}") for n in range(20)])


def held(cluster):
    """What fill() made, on each node. A change of leaders or the end of a session, which are entries
    of the log as well, is none of what is tested here."""
    cluster.converge()
    return [(read_map(node, "m"), read_counter(node, "c")) for node in cluster.nodes]


@test
def bad_frames_close_the_connection_with_a_reason_and_change_nothing():
    with Cluster() as cluster:
        fill(cluster)
        before = held(cluster)
        node = cluster.nodes[0]
        for first in (b"", HELLO):
            for what, data, word in BAD:
                with node.connect(PATIENCE) as connection:
                    connection.send_raw(first + data)
                    reason, frames = connection.until_closed()
                check(reason is not None, f"{what}: closed without a reason")
                check(word in reason, f"{what}: the reason is {reason!r}, without {word!r}")
                answers = [f for f in frames if f.kind != wire.ERROR_RESPONSE]
                check_equal(len(answers), 1 if first else 0, f"{what}: answers")
        check_equal(held(cluster), before, "what is held")
        # At most ten a second, so that a flood does not fill the log.
        lines = len([line for line in node.log() if " WARN net 127.0.0.1:" in line])
        check(10 <= lines <= 2 * len(BAD), f"{lines} lines of the log")


@test
def what_comes_before_a_bad_frame_is_answered_and_what_comes_after_is_not_done():
    with Cluster() as cluster, cluster.nodes[0].connect(PATIENCE) as connection:
        fill(cluster)
        write = wire.write_payload(wire.counter_add("c", 1), 0, 0, 0)
        connection.send_raw(wire.frame(wire.STATUS, b"", 1) + raw_frame(version=9) +
                            wire.frame(wire.WRITE, write, 2) * 50)
        reason, frames = connection.until_closed()
        check("version 9" in (reason or ""), f"the reason is {reason!r}")
        check_equal([f.kind for f in frames], [wire.STATUS + 1, wire.ERROR_RESPONSE], "answers")
        check_equal(read_counter(cluster.nodes[0], "c"), 20, "the counter")


@test
def operations_that_make_no_sense_are_refused_and_the_connection_stays():
    with Cluster(1) as cluster, cluster.nodes[0].connect(PATIENCE) as connection:
        fill(cluster)
        before = held(cluster)
        writes = [
            (b"", wire.BAD_REQUEST),
            (b"\x00", wire.BAD_REQUEST),
            (b"\xff" + wire.blob("m"), wire.BAD_REQUEST),
            (wire.map_get("m", "k"), wire.BAD_REQUEST),
            (wire.counter_add("c", 1)[:-1], wire.BAD_REQUEST),
            (wire.counter_add("c", 1) + b"x", wire.BAD_REQUEST),
            (wire.map_put("m", "k", "v", b"\5"), wire.BAD_REQUEST),
            (wire.map_put("m", "k", "v", b"\3"), wire.BAD_REQUEST),
            (wire.map_put("", "k", "v"), wire.BAD_REQUEST),
            (wire.map_put("n" * 256, "k", "v"), wire.TOO_BIG),
            (wire.map_put("m", bytes(65537), "v"), wire.TOO_BIG),
            (wire.map_put("m", "k", bytes(8388609)), wire.TOO_BIG),
            (b"\1" + wire.u32(2**32 - 1) + b"m", wire.BAD_REQUEST),
        ]
        for operation, expected in writes:
            check_equal(connection.write(operation), (expected, b""), f"write {operation[:40]!r}")
        reads = [
            (b"", wire.BAD_REQUEST),
            (wire.counter_add("c", 1), wire.BAD_REQUEST),
            (wire.map_get("m", "k") + b"x", wire.BAD_REQUEST),
            (wire.map_scan("m", b"not a cursor")[:-1], wire.BAD_REQUEST),
            (wire.map_get("m", bytes(65537)), wire.TOO_BIG),
        ]
        for operation, expected in reads:
            for consistency in (wire.LINEARIZABLE, wire.STALE_READ):
                check_equal(connection.read(operation, consistency), (expected, b""),
                            f"read {operation[:40]!r}")
        check_equal(held(cluster), before, "what is held")
        check_equal(connection.write(wire.map_put("m", bytes(65536), bytes(8388608)))[0], wire.OK,
                    "the largest key and value")


@test
def a_hello_for_another_cluster_is_refused_and_closed():
    with Cluster(1) as cluster, cluster.nodes[0].connect(PATIENCE) as connection:
        hello = connection.hello("another one")
        check_equal((hello["status"], hello["cluster"]), (wire.REFUSED, "test"), "the answer")
        connection.until_closed()
    with Cluster(1) as cluster, cluster.nodes[0].connect(PATIENCE) as connection:
        check_equal(connection.hello("test")["status"], wire.OK, "the right cluster")


@test
def claimed_sizes_take_no_memory():
    with Cluster(1) as cluster:
        node = cluster.nodes[0]
        fill(cluster)
        before = held(cluster)
        resident = node.resident_bytes()
        connections = []
        for number in range(40):
            connection = node.connect(PATIENCE)
            # The largest frame that is allowed, of which a little comes and then nothing.
            connection.send_raw(raw_frame(size=wire.FRAME_MAX, kind=wire.WRITE, crc=number) +
                                bytes(1000 * number))
            connections.append(connection)
        # Counts inside a payload that claim much more than there is.
        for payload in (wire.u32(2**31), wire.u32(2**32 - 1) + bytes(100)):
            with node.connect(PATIENCE) as connection:
                connection.send_raw(wire.frame(39, payload))  # LOCK_SYNC_REQUEST: a list.
                connection.until_closed()
        wait_until(lambda: node.wait_status()["clients"] <= 1, "half a frame makes no client")
        grown = node.resident_bytes() - resident
        note(f"resident memory grew by {grown} bytes")
        check(grown < MEMORY_SLACK, f"memory grew by {grown} bytes for 40 claims of 16 MiB")
        for connection in connections:
            connection.close()
        check_equal(held(cluster), before, "what is held")


@test
def half_frames_and_silence_do_not_disturb_others():
    with Cluster() as cluster:
        node = cluster.nodes[0]
        silent = []
        put = wire.frame(wire.WRITE, wire.write_payload(wire.map_put("m", "k", "v"), 0, 0, 0), 9)
        for size in range(len(put)):
            connection = node.connect(PATIENCE)
            connection.send_raw(put[:size])
            silent.append(connection)
        fill(cluster)
        check_equal(read_counter(node, "c"), 20, "the counter")
        # The rest, a byte at a time: it was a good frame after all.
        slow = silent[10]
        for at in range(10, len(put)):
            slow.send_raw(put[at:at + 1])
        check_equal(slow.receive(PATIENCE).payload[:1], b"\0", "a frame that came in bytes")
        for connection in silent:
            connection.close()
        cluster.converge()


def good_frames():
    """One of each request, none of which changes anything."""
    session, token = wire.u64(12345), bytes(16)
    return [
        HELLO,
        wire.frame(wire.STATUS, b"", 2),
        wire.frame(wire.SESSION_RESUME, session + token, 3),
        wire.frame(wire.SESSION_CLOSE, session + token, 4),
        wire.frame(wire.SESSION_ALIVE, session, 5),
        wire.frame(wire.READ, b"\0" + wire.map_get("m", "k1"), 6),
        wire.frame(wire.READ, b"\0" + wire.map_scan("m", b"", 5), 7),
        wire.frame(wire.READ, b"\1" + wire.counter_get("c"), 8),
        wire.frame(wire.MAP_GET, wire.blob("m") + wire.blob("k1"), 9),
        wire.frame(wire.MAP_SIZE, wire.blob("m"), 10, wire.REQUEST | wire.PING_FLAG),
        wire.frame(wire.COUNTER_GET, wire.blob("c"), 11),
        wire.frame(wire.PING, b"", 12),
        wire.frame(39, wire.u32(2) + wire.blob("a") + wire.blob("b"), 13),
        wire.frame(wire.PEER_HELLO, wire.u16(1) + wire.u64(9) + wire.u64(1) + wire.blob("x") +
                   wire.blob("y"), 14),
        # In a session that does not exist it is refused, whatever else it says.
        wire.frame(wire.WRITE, wire.write_payload(wire.map_put("m", "k", "v"), 12345, 1, 0), 15),
    ]


def mutate(draw, data):
    """Half of the time the checksum is made right again, to get past it."""
    data = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        choice = draw.randrange(5)
        at = draw.randrange(len(data)) if data else 0
        if choice == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif choice == 1 and data:
            data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif choice == 2:
            del data[at:at + draw.randint(1, 8)]
        elif choice == 3:
            data[at:at] = draw.randbytes(draw.randint(1, 8))
        elif len(data) >= 20:
            place = draw.randrange(len(data) - 3)
            data[place:place + 4] = wire.u32(draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1)))
    if len(data) >= 16 and draw.random() < 0.7:
        if data[4:8] != b"\xff\xff\xff\xff":
            data[4:8] = wire.u32(len(data))
        data[8] = 1
        # A write may not come to life: the session stays one that does not exist.
        if data[10:12] == wire.u16(wire.WRITE) and len(data) >= 24:
            data[16:24] = wire.u64(12345)
        data[0:4] = wire.u32(zlib.crc32(bytes(data[4:])))
    return bytes(data)


def changes_nothing(data):
    """Whether no frame in it can be taken for a request that writes."""
    for kind in (7, 9, 13, 27, 31, wire.SESSION_OPEN):
        if wire.u16(kind) == data[10:12]:
            return False
    return data[10:12] != wire.u16(wire.WRITE) or data[16:24] == wire.u64(12345)


@test
def mutated_frames_change_nothing():
    draw = random.Random(SEED)
    note(f"SEED={SEED}")
    with Cluster() as cluster:
        fill(cluster)
        node = cluster.nodes[0]
        closed = 0
        before = held(cluster)
        frames = good_frames()
        for number in range(MUTATIONS):
            data = mutate(draw, draw.choice(frames))
            if not changes_nothing(data):
                continue
            first = draw.choice((b"", HELLO))
            with node.connect(PATIENCE) as connection:
                # The status behind it is answered, or the connection is closed for what is before.
                connection.send_raw(first + data)
                connection.socket.shutdown(1)
                _, frames_back = connection.until_closed()
                closed += any(f.kind == wire.ERROR_RESPONSE and f.request == 0
                              for f in frames_back)
            if number % 500 == 0:
                node.wait_status()
        note(f"{closed} connections were closed for what came")
        check(closed > MUTATIONS // 4, f"only {closed} connections were closed for what came")
        check_equal(held(cluster), before, "what is held")


def peer_frames(draw, term, last):
    """One of each kind between nodes, as a node that is confused might send it."""
    head = wire.u64(term)
    entry = wire.u64(term) + b"\1" + wire.blob(draw.randbytes(30))
    raft = [
        b"\1" + head + wire.u64(last + 5) + wire.u64(term) + wire.u64(last) + wire.u32(1) + entry,
        b"\2" + head + wire.u64(0) + wire.u64(last) + wire.u16(0) + wire.u16(0),
        b"\3" + head + wire.u64(9) + wire.u64(0) + wire.u64(0) + b"\0\1",
        b"\4" + head + b"\1\1" + wire.u16(0) + wire.u16(0),
        b"\6" + wire.u64(0) + wire.u64(0) + wire.u64(0),
        b"\7" + head + wire.u64(1) + wire.u64(1),
        b"\x0a" + head + wire.u64(1) + wire.u64(1),
    ]
    return [wire.frame(wire.PEER_RAFT, payload) for payload in raft] + [
        wire.frame(1027, draw.randbytes(draw.randrange(80))),
        wire.frame(1028, wire.u64(draw.randrange(2**64)) + b"\3"),
        wire.frame(1029, wire.u32(2) + wire.u64(1) + wire.u64(2**64 - 1)),
        wire.frame(1030, wire.u64(term) + wire.u64(last + 1000) + wire.u64(term) +
                   wire.u64(1 << 20) + wire.u64(0) + draw.randbytes(1000)),
        wire.frame(1031, wire.u64(last) + wire.u64(2**64 - 1)),
    ]


def mutate_peer_frame(draw, data, term):
    """As mutate(), but the kind stays and so do terms, in which a node must believe its peers."""
    payload = data[16:]
    kept = 9 if data[10:12] == wire.u16(wire.PEER_RAFT) else 0
    if draw.random() < 0.8:
        payload = payload[:kept] + mutate(draw, payload[kept:])
    # No word in it may look like a term or an index far ahead.
    words = bytearray(payload)
    for at in range(kept, len(words) - 7):
        if int.from_bytes(words[at:at + 8], "little") > term << 16 and draw.random() < 0.9:
            words[at + 2:at + 8] = bytes(6)
    return wire.frame(struct.unpack("<H", data[10:12])[0], bytes(words))


def as_peer(node, number, port):
    """A connection on which the node takes us for the peer of that number."""
    connection = node.connect(PATIENCE)
    hello = (wire.u16(1) + wire.u64(number) + wire.u64(node.number) + wire.blob("test") +
             wire.blob(f"127.0.0.1:{port}"))
    connection.send_raw(wire.frame(wire.PEER_HELLO, hello))
    reader = connection.receive().reader()
    check_equal((reader.u16(), reader.u64(), reader.text()), (1, node.number, ""), "the welcome")
    return connection


@test
def a_peer_out_of_its_mind_harms_nothing():
    draw = random.Random(SEED + 2)
    note(f"SEED={SEED}")
    with Cluster() as cluster:
        fill(cluster)
        # A stranger, and one that gives itself out for a member; to the leader and a follower.
        for number in (9, None):
            for node in (cluster.leader(), cluster.follower()):
                status = node.wait_status()
                me = number or cluster.others(node)[0].number
                port = free_port()
                for _ in range(150):
                    frames = peer_frames(draw, status["term"], status["applied"])
                    try:
                        with as_peer(node, me, port) as connection:
                            for data in draw.sample(frames, 3):
                                connection.send_raw(mutate_peer_frame(draw, data, status["term"]))
                            connection.socket.shutdown(1)
                            connection.until_closed()
                    except (OSError, wire.Closed):
                        pass
                check(node.process.poll() is None, f"node {node.number} ended")
        cluster.leader()
        with cluster.client() as client:
            client.run([wire.counter_add("c", 1)] * 20)
        cluster.converge()
        for node in cluster.nodes:
            check_equal(read_counter(node, "c"), 40, f"counter on node {node.number}")


@test
def random_bytes_are_refused():
    draw = random.Random(SEED + 1)
    note(f"SEED={SEED}")
    with Cluster(1) as cluster:
        node = cluster.nodes[0]
        fill(cluster)
        before = held(cluster)
        for _ in range(300):
            with node.connect(PATIENCE) as connection:
                try:
                    connection.send_raw(draw.randbytes(draw.randint(1, 5000)))
                    connection.socket.shutdown(1)
                except (OSError, wire.Closed):
                    pass  # It was refused while we still sent.
                connection.until_closed()
        check_equal(held(cluster), before, "what is held")


if __name__ == "__main__":
    tap.main()
