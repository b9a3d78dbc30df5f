#!/usr/bin/env python3
"""The golden frames of the wire protocol, made without the library's code.

    tests/cluster/wire_vectors.py > tests/cluster/wire_vectors.def

One frame or more for each kind. Run it again only when a kind is added: a
change of an existing line is a change of the protocol.
"""
import struct
import zlib


def u8(v): return struct.pack("<B", v)
def u16(v): return struct.pack("<H", v)
def u32(v): return struct.pack("<I", v)
def u64(v): return struct.pack("<Q", v)
def i64(v): return struct.pack("<q", v)
def b(v): return u32(len(v)) + v
def s(v): return b(v.encode())
def lst(items): return u32(len(items)) + b"".join(items)
def none(): return u8(0)
def some(v): return u8(1) + v


OK, ERR = u8(0), u8(1)
REQUEST, RESPONSE, PING, PONG = 1, 2, 4, 8
TOKEN = bytes(range(16))


def frame(kind, flags, request, payload):
    rest = u32(16 + len(payload)) + u8(1) + u8(flags) + u16(kind) + u32(request) + payload
    return u32(zlib.crc32(rest)) + rest


def peer(node, address, role, connected, match, silent):
    return u64(node) + s(address) + u8(role) + u8(connected) + u64(match) + u64(silent)


def tag(name, live, peak, allocations, total, limit):
    return s(name) + u64(live) + u64(peak) + u64(allocations) + u64(total) + u64(limit)


def write(operation, result, status=0):
    return (("WRITE_REQUEST", 140, 1, u64(17) + u64(5) + u64(4) + operation),
            ("WRITE_RESPONSE", 141, 2, u8(status) + result))


def read(operation, result, status=0):
    return (("READ_REQUEST", 142, 1, u8(0) + operation),
            ("READ_RESPONSE", 143, 2, u8(status) + result))


def event(kind, flags, name, key=b"", value=b"", previous=b"", session=0, number=0, token=0):
    return (u8(kind) + u8(flags) + s(name) + b(key) + b(value) + b(previous) + u64(session) +
            i64(number) + u64(token))


PUT = u8(1) + s("m") + b(b"k") + b(b"v") + u8(0)
GET = u8(64) + s("m") + b(b"k")

VECTORS = [
    ("JOIN_REQUEST", 1, 1, s("node-1")),
    ("JOIN_RESPONSE", 2, 2, OK + u64(7)),
    ("LEAVE_REQUEST", 3, 1, s("node-1")),
    ("LEAVE_RESPONSE", 4, 2, OK),
    ("GET_NODES_REQUEST", 5, 1, b""),
    ("GET_NODES_RESPONSE", 6, 2, OK + lst([s("a"), s("b-2")])),
    ("CREATE_MAP_REQUEST", 7, 1, s("m")),
    ("CREATE_MAP_RESPONSE", 8, 2, OK + s("m")),
    ("MAP_PUT_REQUEST", 9, 1, s("m") + b(b"k\x00y") + b(b"\xff\x00")),
    ("MAP_PUT_RESPONSE", 10, 2, OK),
    ("MAP_GET_REQUEST", 11, 1, s("m") + b(b"k")),
    ("MAP_GET_RESPONSE", 12, 2, OK + some(b(b"value"))),
    ("MAP_GET_RESPONSE", 12, 2, OK + none()),
    ("MAP_REMOVE_REQUEST", 13, 1, s("m") + b(b"k")),
    ("MAP_REMOVE_RESPONSE", 14, 2, ERR),
    ("MAP_SIZE_REQUEST", 15, 1, s("m")),
    ("MAP_SIZE_RESPONSE", 16, 2, OK + u64(2**64 - 1)),
    ("CREATE_SET_REQUEST", 17, 1, s("set")),
    ("CREATE_SET_RESPONSE", 18, 2, OK + s("set")),
    ("SET_ADD_REQUEST", 19, 1, s("set") + b(b"v")),
    ("SET_ADD_RESPONSE", 20, 2, OK),
    ("SET_REMOVE_REQUEST", 21, 1, s("set") + b(b"v")),
    ("SET_REMOVE_RESPONSE", 22, 2, OK),
    ("SET_CONTAINS_REQUEST", 23, 1, s("set") + b(b"")),
    ("SET_CONTAINS_RESPONSE", 24, 2, OK + u8(1)),
    ("SET_SIZE_REQUEST", 25, 1, s("set")),
    ("SET_SIZE_RESPONSE", 26, 2, OK + u64(3)),
    ("CREATE_COUNTER_REQUEST", 27, 1, s("c")),
    ("CREATE_COUNTER_RESPONSE", 28, 2, OK + s("c")),
    ("COUNTER_GET_REQUEST", 29, 1, s("c")),
    ("COUNTER_GET_RESPONSE", 30, 2, OK + i64(-5)),
    ("COUNTER_INCREMENT_REQUEST", 31, 1, s("c") + i64(-2**63)),
    ("COUNTER_INCREMENT_RESPONSE", 32, 2, OK + i64(42)),
    ("CREATE_LOCK_REQUEST", 33, 1, s("l")),
    ("CREATE_LOCK_RESPONSE", 34, 2, OK + s("l")),
    ("LOCK_ACQUIRE_REQUEST", 35, 1, s("l")),
    ("LOCK_ACQUIRE_RESPONSE", 36, 2, OK + u8(1) + none()),
    ("LOCK_ACQUIRE_RESPONSE", 36, 2, OK + u8(0) + some(u64(1))),
    ("LOCK_RELEASE_REQUEST", 37, 1, s("l")),
    ("LOCK_RELEASE_RESPONSE", 38, 2, OK),
    ("LOCK_SYNC_REQUEST", 39, 1, lst([s("l1"), s("l2")])),
    ("LOCK_SYNC_RESPONSE", 40, 2, ERR + lst([s("l1")]) + lst([s("l2")])),
    ("CREATE_MULTIMAP_REQUEST", 41, 1, s("mm")),
    ("CREATE_MULTIMAP_RESPONSE", 42, 2, OK + s("mm")),
    ("MULTIMAP_PUT_REQUEST", 43, 1, s("mm") + b(b"k") + b(b"v")),
    ("MULTIMAP_PUT_RESPONSE", 44, 2, OK),
    ("MULTIMAP_GET_REQUEST", 45, 1, s("mm") + b(b"k")),
    ("MULTIMAP_GET_RESPONSE", 46, 2, OK + lst([b(b"v1"), b(b"v2")])),
    ("MULTIMAP_REMOVE_REQUEST", 47, 1, s("mm") + b(b"k")),
    ("MULTIMAP_REMOVE_RESPONSE", 48, 2, OK),
    ("MULTIMAP_REMOVE_VALUE_REQUEST", 49, 1, s("mm") + b(b"k") + b(b"v")),
    ("MULTIMAP_REMOVE_VALUE_RESPONSE", 50, 2, OK),
    ("MULTIMAP_SIZE_REQUEST", 51, 1, s("mm")),
    ("MULTIMAP_SIZE_RESPONSE", 52, 2, OK + u64(4)),
    ("MULTIMAP_KEY_SIZE_REQUEST", 53, 1, s("mm") + b(b"k")),
    ("MULTIMAP_KEY_SIZE_RESPONSE", 54, 2, OK + u64(2)),
    ("MULTIMAP_CONTAINS_KEY_REQUEST", 55, 1, s("mm") + b(b"k")),
    ("MULTIMAP_CONTAINS_KEY_RESPONSE", 56, 2, OK + u8(1)),
    ("MULTIMAP_CONTAINS_VALUE_REQUEST", 57, 1, s("mm") + b(b"v")),
    ("MULTIMAP_CONTAINS_VALUE_RESPONSE", 58, 2, OK + u8(0)),
    ("MULTIMAP_CONTAINS_ENTRY_REQUEST", 59, 1, s("mm") + b(b"k") + b(b"v")),
    ("MULTIMAP_CONTAINS_ENTRY_RESPONSE", 60, 2, OK + u8(1)),
    ("MULTIMAP_KEYS_REQUEST", 61, 1, s("mm")),
    ("MULTIMAP_KEYS_RESPONSE", 62, 2, OK + lst([b(b"k")])),
    ("MULTIMAP_VALUES_REQUEST", 63, 1, s("mm")),
    ("MULTIMAP_VALUES_RESPONSE", 64, 2, OK + lst([b(b"v"), b(b"v")])),
    ("MULTIMAP_ENTRIES_REQUEST", 65, 1, s("mm")),
    ("MULTIMAP_ENTRIES_RESPONSE", 66, 2,
     OK + lst([b(b"k1") + lst([b(b"v1"), b(b"v2")]), b(b"k2") + lst([])])),
    ("MULTIMAP_CLEAR_REQUEST", 67, 1, s("mm")),
    ("MULTIMAP_CLEAR_RESPONSE", 68, 2, OK),
    ("ERROR_RESPONSE", 69, 2, ERR + s("größer als erlaubt")),
    ("LEADER_REDIRECT_RESPONSE", 70, 2, OK + s("127.0.0.1:4000")),
    ("PING", 71, 1, b""),
    ("PING", 71, 4, b""),
    ("PING", 71, 5, b""),
    ("PONG", 72, 2, b""),
    ("PONG", 72, 8, b""),
    ("PONG", 72, 10, b""),
    ("STATE_SYNC", 73, 1, u64(9) + lst([
        u8(0) + s("m"), u8(1) + s("m") + b(b"k") + some(b(b"v")), u8(1) + s("m") + b(b"k") + none(),
        u8(2) + s("m"), u8(3) + s("s"), u8(4) + s("s") + b(b"v") + u8(1), u8(5) + s("s"),
        u8(6) + s("c"), u8(7) + s("c") + i64(-1), u8(8) + s("c"), u8(9) + s("mm"),
        u8(10) + s("mm") + b(b"k") + b(b"v") + u8(0), u8(11) + s("mm") + b(b"k"),
        u8(12) + s("mm"), u8(13) + s("l"), u8(14) + s("l") + s("n"), u8(15) + s("l") + s("n"),
        u8(16) + s("l"), u8(17) + s("n"), u8(18) + s("n"), u8(19) + s("n") + u64(3),
        u8(20) + s("n") + u64(3)])),
    ("STATE_SYNC_ACK", 74, 2, OK + u64(9)),

    ("HELLO_REQUEST", 128, 1, u16(1) + s("prod") + s("app-7")),
    ("HELLO_RESPONSE", 129, 2,
     u8(0) + u16(1) + u64(2) + s("prod") + u64(1) + s("10.0.0.1:4000") + s("0.1.0")),
    ("SESSION_OPEN_REQUEST", 130, 1, u32(10000) + TOKEN),
    ("SESSION_OPEN_RESPONSE", 131, 2, u8(0) + u64(17) + u32(10000)),
    ("SESSION_RESUME_REQUEST", 132, 1, u64(17) + TOKEN),
    ("SESSION_RESUME_RESPONSE", 133, 2, u8(4)),
    ("SESSION_CLOSE_REQUEST", 134, 1, u64(17) + TOKEN),
    ("SESSION_CLOSE_RESPONSE", 135, 2, u8(0)),
    ("SESSION_ALIVE_REQUEST", 136, 1, u64(17)),
    ("SESSION_ALIVE_RESPONSE", 137, 2, u8(0)),
    ("WRITE_REQUEST", 140, 1, u64(17) + u64(5) + u64(4) + PUT),
    ("WRITE_RESPONSE", 141, 2, u8(0) + u8(0) + u64(100)),
    ("READ_REQUEST", 142, 1, u8(0) + GET),
    ("READ_RESPONSE", 143, 2, u8(0) + u64(100) + b(b"v")),
    ("STATUS_REQUEST", 144, 1, b""),
    ("STATUS_RESPONSE", 145, 2,
     u64(1) + s("prod") + s("0.1.0") + u8(3)
     + u64(2) + u64(1) + u64(100) + u64(99) + u64(1) + u64(101) + u64(100) + u64(0)
     + u64(3) + u64(4) + u64(5000) + u64(0x1122334455667788)
     + s("ok") + u8(2)
     + peer(1, "10.0.0.1:4000", 1, 1, 100, 0)
     + peer(2, "10.0.0.2:4000", 1, 0, 90, 2**64 - 1)
     + u64(50000000) + u64(40000000) + u8(2)
     + tag("raft", 4096, 8192, 3, 77, 0) + tag("store.aof", 2**20, 2**21, 12, 900, 2**30)
     + s("io_uring") + u64(2) + u64(8)),

    # Each operation, and behind it what it came to.
    *write(u8(24) + s("s") + b(b"a\0"), u8(1)),
    *write(u8(25) + s("s") + b(b""), u8(0)),
    *write(u8(26) + s("s"), u8(1)),
    *read(u8(88) + s("s") + b(b"a"), u8(1)),
    *read(u8(89) + s("s"), u64(3)),
    *read(u8(90) + s("s") + b(b"\1a") + u32(2),
          u64(100) + b(b"\1c") + u32(2) + b(b"b") + u64(98) + b(b"") + b(b"c") + u64(99) + b(b"")),
    *write(u8(4) + s("m"), u64(3)),
    *write(u8(27) + s("s"), u64(0)),
    *write(u8(32) + s("mm") + b(b"k") + b(b"v\0"), u8(1)),
    *write(u8(33) + s("mm") + b(b"k"), u64(2)),
    *write(u8(34) + s("mm") + b(b"k") + b(b""), u8(0)),
    *write(u8(35) + s("mm"), u8(1)),
    *write(u8(36) + s("mm"), u64(7)),
    *read(u8(96) + s("mm") + b(b"k") + b(b"\1k") + u32(1),
          u64(100) + b(b"\1kv") + u32(1) + b(b"") + u64(98) + b(b"v")),
    *read(u8(97) + s("mm"), u64(7)),
    *read(u8(98) + s("mm") + b(b"k"), u64(2)),
    *read(u8(99) + s("mm") + b(b"k"), u8(1)),
    *read(u8(100) + s("mm") + b(b"v"), u8(0)),
    *read(u8(101) + s("mm") + b(b"k") + b(b"v"), u8(1)),
    *read(u8(102) + s("mm") + b(b"") + u32(0), u64(100) + b(b"") + u32(1) + b(b"k") + u64(0) + b(b"")),
    *read(u8(103) + s("mm") + b(b"") + u32(0), u64(100) + b(b"") + u32(1) + b(b"") + u64(9) + b(b"v")),
    *read(u8(104) + s("mm") + b(b"") + u32(0),
          u64(100) + b(b"") + u32(1) + b(b"k") + u64(9) + b(b"v")),
    *write(u8(18) + s("c") + i64(-1) + i64(2**62), i64(2**62)),
    *write(u8(18) + s("c") + i64(0) + i64(1), i64(-5), 2),
    *write(u8(19) + s("c") + i64(-2), u8(1)),
    *write(u8(20) + s("c"), u8(0)),
    *read(u8(67) + s("m") + b(b"p") + b(b"pa") + b(b"pz") + b(b"\1pb") + u32(3),
          u64(100) + b(b"") + u32(1) + b(b"pc") + u64(9) + b(b"v")),
    ("AUTH_REQUEST", 146, 1, b"correct horse"),
    ("AUTH_RESPONSE", 147, 2, u8(13)),
    ("CLUSTER_MEMBERS_REQUEST", 160, 1, b""),
    ("CLUSTER_MEMBERS_RESPONSE", 161, 2,
     u8(0) + s("ok") + u64(1) + u64(3) + u64(90) + u64(7) + u8(1) + u8(2) +
     u64(1) + s("10.0.0.1:4000") + u8(1) + u8(0) + u32(5) + u64(0xabcdef0123456789) + u8(1) +
     u64(90) + u64(0) + u32(2) +
     u64(4) + s("10.0.0.4:4000") + u8(2) + u8(1) + u32(0) + u64(0) + u8(0) + u64(3) +
     u64(2**64 - 1) + u32(0)),
    ("CLUSTER_CHANGE_REQUEST", 162, 1, u8(1) + u8(2) + u64(4) + u32(5) + s("10.0.0.4:4000")),
    ("CLUSTER_CHANGE_RESPONSE", 163, 2,
     u8(5) + s("no") + u8(3) + u8(2) + u8(2) + u8(4) + u8(3) + u8(2) + u64(91)),
    ("CLUSTER_TRANSFER_REQUEST", 164, 1, u64(2)),
    ("CLUSTER_TRANSFER_RESPONSE", 165, 2, u8(0) + s("done") + u64(2)),
    ("CLUSTER_PARAMS_REQUEST", 166, 1, u8(1) + s("heartbeat_ms") + s("40")),
    ("CLUSTER_PARAMS_RESPONSE", 167, 2,
     u8(0) + s("set") + u64(1) + u8(1) + s("heartbeat_ms") + s("40") + u8(1) + s("how often")),
    ("SESSION_START_REQUEST", 138, 1, u32(10000) + u32(2000) + TOKEN),
    ("SESSION_START_RESPONSE", 139, 2, u8(0) + u64(17) + u32(10000) + u32(2000)),
    ("WATCH_OPEN_REQUEST", 150, 1,
     u8(1) + s("m") + b(b"p") + b(b"pa") + b(b"pz") + u8(5) + u64(100)),
    ("WATCH_OPEN_RESPONSE", 151, 2, u8(0) + u64(100)),
    ("WATCH_CLOSE_REQUEST", 152, 1, u32(7)),
    ("WATCH_CLOSE_RESPONSE", 153, 2, u8(1)),
    ("WATCH_EVENTS", 155, 2,
     u64(101) + u8(0) + event(1, 1, "m", b"pb", b"new", b"old") + event(2, 9, "m", b"pc")),
    ("WATCH_EVENTS", 155, 2, u64(102) + u8(16)),
    ("WATCH_ACK", 156, 1, u64(101) + u8(1)),
    ("VIEW_OPEN_REQUEST", 174, 1, b""),
    ("VIEW_OPEN_RESPONSE", 175, 2, u8(0) + u64(0x1122334455667788) + u64(100)),
    ("VIEW_READ_REQUEST", 176, 1, u64(0x1122334455667788) + GET),
    ("VIEW_READ_RESPONSE", 177, 2, u8(0) + u64(100) + b(b"v")),
    ("VIEW_CLOSE_REQUEST", 178, 1, u64(0x1122334455667788)),
    ("VIEW_CLOSE_RESPONSE", 179, 2, u8(16)),
    ("BACKUP_REQUEST", 170, 1, u8(3) + u64(0x1122334455667788)),
    ("BACKUP_RESPONSE", 171, 2,
     u8(0) + s("ok") + u64(0x1122334455667788) + u64(2) + u64(1020) + u64(26) + u64(3)),
    ("BACKUP_READ_REQUEST", 172, 1, u64(0x1122334455667788) + u64(1000) + u32(20)),
    ("BACKUP_READ_RESPONSE", 173, 2, u8(6) + u32(7) + u64(1000) + b"piece"),
    ("WATCH_SETTLE_REQUEST", 180, 1, u8(7) + s("r") + b(b"a") + u32(2000)),
    ("WATCH_SETTLE_RESPONSE", 181, 2, u8(0) + u8(1)),
    ("WATCH_EVENTS", 155, 2, u64(103) + u8(32)),
]

print("/*")
print(" * VECTOR(kind, flags, request, frame): golden frames in hex, header and payload apart.")
print(" * Made by wire_vectors.py, which shares no code with the library.")
print(" */")
for number, (name, kind, flags, payload) in enumerate(VECTORS, 1):
    data = frame(kind, flags, number, payload)
    print(f'VECTOR({name}, {flags}, {number},\n       "{data[:16].hex()}"', end="")
    rest = data[16:].hex()
    for at in range(0, len(rest), 80):
        print(f'\n       "{rest[at:at + 80]}"', end="")
    print(")")
