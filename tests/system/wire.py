"""The wire protocol, written a second time from docs/design/wire-protocol.md.

Nothing here is taken from the C library, so that the tests that use it check the
document against the daemon, byte for byte. Everything blocks; every wait has a
deadline.

Frames are built by frame() and taken apart by Connection.receive(). Operations
and their results are plain functions that make or read bytes.
"""

import os
import socket
import struct
import time
import zlib

FRAME_MAX = 16 * 1024 * 1024
HEADER = struct.Struct("<IIBBHI")
PROTOCOL = 1

REQUEST, RESPONSE, PING_FLAG, PONG_FLAG = 1, 2, 4, 8

# Kinds.
CREATE_MAP, MAP_PUT, MAP_GET, MAP_REMOVE, MAP_SIZE = 7, 9, 11, 13, 15
CREATE_SET, SET_ADD, SET_REMOVE, SET_CONTAINS, SET_SIZE = 17, 19, 21, 23, 25
CREATE_MULTIMAP, MULTIMAP_PUT, MULTIMAP_GET, MULTIMAP_REMOVE = 41, 43, 45, 47
MULTIMAP_REMOVE_VALUE, MULTIMAP_SIZE, MULTIMAP_KEY_SIZE = 49, 51, 53
MULTIMAP_CONTAINS_KEY, MULTIMAP_CONTAINS_VALUE, MULTIMAP_CONTAINS_ENTRY = 55, 57, 59
MULTIMAP_KEYS, MULTIMAP_VALUES, MULTIMAP_ENTRIES, MULTIMAP_CLEAR = 61, 63, 65, 67
CREATE_COUNTER, COUNTER_GET, COUNTER_INCREMENT = 27, 29, 31
ERROR_RESPONSE, LEADER_REDIRECT, PING, PONG = 69, 70, 71, 72
SESSION_START = 138
HELLO, SESSION_OPEN, SESSION_RESUME, SESSION_CLOSE, SESSION_ALIVE = 128, 130, 132, 134, 136
WRITE, READ, STATUS, AUTH = 140, 142, 144, 146
PEER_HELLO, PEER_WELCOME, PEER_RAFT = 1024, 1025, 1026

# Statuses.
OK, NOT_FOUND, CONDITION, RETRY, NO_SESSION, BAD_REQUEST, TOO_BIG = range(7)
BUSY, NO_ROOM, STALE, OVERFLOW, UNCERTAIN, REFUSED, DENIED = range(7, 14)
STATUS_NAMES = ("OK", "NOT_FOUND", "CONDITION", "RETRY", "NO_SESSION", "BAD_REQUEST", "TOO_BIG",
                "BUSY", "NO_ROOM", "STALE", "OVERFLOW", "UNCERTAIN", "REFUSED", "DENIED")

LINEARIZABLE, STALE_READ = 0, 1

# What every new connection begins with: an ssl.SSLContext, and bytes to be shown as a token.
TRUST = {"context": None, "token": None}
UNAVAILABLE, FOLLOWER, CANDIDATE, LEADER = range(4)
VOTER, STANDBY, SPARE = 1, 2, 3
NEVER = 2**64 - 1
UNDECIDED_S = 60.0  # How long undecided requests are asked again.


class ProtocolError(Exception):
    """The other side broke the protocol."""


class Closed(Exception):
    """The connection ended. reason: the text of an ERROR_RESPONSE before it, if there was one."""

    def __init__(self, what, reason=None):
        super().__init__(what if reason is None else f"{what}: {reason}")
        self.reason = reason


# ---- Fields ----


def u8(value):
    return struct.pack("<B", value)


def u16(value):
    return struct.pack("<H", value)


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def i64(value):
    return struct.pack("<q", value)


def blob(value):
    value = value.encode() if isinstance(value, str) else bytes(value)
    return u32(len(value)) + value


class Reader:
    """Takes the fields of a payload, one after another."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def raw(self, size):
        if size > len(self.data) - self.at:
            raise ProtocolError(f"{size} bytes wanted at {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.raw(struct.calcsize("<" + form)))[0]

    def u8(self):
        return self.number("B")

    def u16(self):
        return self.number("H")

    def u32(self):
        return self.number("I")

    def u64(self):
        return self.number("Q")

    def i64(self):
        return self.number("q")

    def flag(self):
        value = self.u8()
        if value > 1:
            raise ProtocolError(f"a bool of {value}")
        return value == 1

    def blob(self):
        return self.raw(self.u32())

    def text(self):
        return self.blob().decode()

    def rest(self):
        return self.raw(len(self.data) - self.at)

    def end(self):
        if self.at != len(self.data):
            raise ProtocolError(f"{len(self.data) - self.at} bytes left over")


# ---- Frames ----


def frame(kind, payload=b"", request=0, flags=REQUEST, version=1):
    rest = struct.pack("<IBBHI", 16 + len(payload), version, flags, kind, request) + payload
    return u32(zlib.crc32(rest)) + rest


class Frame:
    def __init__(self, kind, flags, request, payload, raw):
        self.kind = kind
        self.flags = flags
        self.request = request
        self.payload = payload
        self.raw = raw

    def reader(self):
        return Reader(self.payload)


class Connection:
    """One TCP connection. Requests are numbered from 1."""

    def __init__(self, port, timeout=30.0, host="127.0.0.1", trust=None):
        trust = TRUST if trust is None else trust
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if trust["context"]:
            self.socket = trust["context"].wrap_socket(self.socket, server_hostname="localhost")
        self.timeout = timeout
        self.buffer = bytearray()
        self.request = 0
        self.error = None
        if trust["token"] and self.auth(trust["token"]) != OK:
            raise Closed("the token is not known")

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send_raw(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionError) as error:
            raise Closed(str(error)) from error

    def send(self, kind, payload=b"", flags=REQUEST):
        """Send a request; returns its id."""
        self.request += 1
        self.send_raw(frame(kind, payload, self.request, flags))
        return self.request

    def _take(self):
        if len(self.buffer) < HEADER.size:
            return None
        crc, size, version, flags, kind, request = HEADER.unpack_from(self.buffer)
        if version != 1 or not HEADER.size <= size <= FRAME_MAX:
            raise ProtocolError(f"a frame of version {version} and {size} bytes")
        if len(self.buffer) < size:
            return None
        raw = bytes(self.buffer[:size])
        del self.buffer[:size]
        if zlib.crc32(raw[4:]) != crc:
            raise ProtocolError("a frame with a wrong checksum")
        return Frame(kind, flags, request, raw[HEADER.size:], raw)

    def receive(self, timeout=None):
        """The next frame. Raises Closed at the end, TimeoutError if none comes."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            got = self._take()
            if got:
                if got.kind == ERROR_RESPONSE and got.request == 0:
                    reader = got.reader()
                    reader.u8()
                    self.error = reader.text()
                return got
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no frame in time")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 18)
            except (ConnectionResetError, BrokenPipeError) as error:
                raise Closed(str(error), self.error) from error
            finally:
                self.socket.settimeout(self.timeout)
            if not data:
                raise Closed("closed by the node", self.error)
            self.buffer += data

    def answer(self, request, timeout=None):
        """The answer to a request; those to others are dropped."""
        while True:
            got = self.receive(timeout)
            if got.request == request:
                return got

    def ask(self, kind, payload=b"", flags=REQUEST, timeout=None):
        """Send a request of ours and return the payload of its answer as a Reader."""
        got = self.answer(self.send(kind, payload, flags), timeout)
        if got.kind != kind + 1 or got.flags != RESPONSE:
            raise ProtocolError(f"{kind} answered with kind {got.kind}, flags {got.flags}")
        return got.reader()

    def until_closed(self, timeout=60.0):
        """Read until the node closes. Returns (reason or None, frames that came)."""
        frames = []
        try:
            while True:
                frames.append(self.receive(timeout))
        except Closed as end:
            return end.reason, frames

    # ---- Requests of ours ----

    def auth(self, token):
        return self._status_only(AUTH, token)

    def hello(self, cluster="", client="test"):
        reader = self.ask(HELLO, u16(PROTOCOL) + blob(cluster) + blob(client))
        hello = {"status": reader.u8(), "protocol": reader.u16(), "node": reader.u64(),
                 "cluster": reader.text(), "leader": reader.u64(), "address": reader.text(),
                 "version": reader.text()}
        reader.end()
        return hello

    def status(self, timeout=None):
        reader = self.ask(STATUS, timeout=timeout)
        out = {"node": reader.u64(), "cluster": reader.text(), "version": reader.text(),
               "state": reader.u8()}
        for name in ("term", "leader", "commit", "applied", "first", "last", "durable", "snapshot",
                     "sessions", "clients", "uptime_ms", "digest"):
            out[name] = reader.u64()
        out["health"] = reader.text()
        out["peers"] = []
        for _ in range(reader.u8()):
            out["peers"].append({"id": reader.u64(), "address": reader.text(), "role": reader.u8(),
                                 "connected": reader.flag(), "match": reader.u64(),
                                 "silent_ms": reader.u64()})
        out["resident_bytes"] = reader.u64()
        out["committed_bytes"] = reader.u64()
        out["tags"] = {}
        for _ in range(reader.u8()):
            name = reader.text()
            out["tags"][name] = {key: reader.u64() for key in (
                "live_bytes", "peak_bytes", "live_allocations", "allocations", "limit_bytes")}
        out["log"] = {"method": reader.text(), "writes": reader.u64(), "writes_max": reader.u64()}
        reader.end()
        return out

    # The leader may change at any time where a machine is busy: what is not decided by that is asked
    # for again, unless the test wants to know.

    def _decide(self, kind, payload, once, timeout=None):
        """The reader of the first answer that is one, whose first byte is the status."""
        end = time.monotonic() + UNDECIDED_S
        while True:
            reader = self.ask(kind, payload, timeout=timeout)
            if once or reader.data[:1] not in (bytes([RETRY]), bytes([BUSY])) or \
                    time.monotonic() > end:
                return reader
            time.sleep(0.03)

    def session_open(self, timeout_ms, token, once=False):
        reader = self._decide(SESSION_OPEN, u32(timeout_ms) + token, once)
        out = reader.u8(), reader.u64(), reader.u32()
        reader.end()
        return out

    def session_start(self, timeout_ms, grace_ms, token, once=False):
        reader = self._decide(SESSION_START, u32(timeout_ms) + u32(grace_ms) + token, once)
        out = reader.u8(), reader.u64(), reader.u32(), reader.u32()
        reader.end()
        return out

    def session_resume(self, session, token, once=False):
        return self._status_only(SESSION_RESUME, u64(session) + token, once)

    def session_close(self, session, token, once=False):
        return self._status_only(SESSION_CLOSE, u64(session) + token, once)

    def session_alive(self, session):
        return self._status_only(SESSION_ALIVE, u64(session), False)

    def _status_only(self, kind, payload, once=True):
        reader = self._decide(kind, payload, once)
        status = reader.u8()
        reader.end()
        return status

    def write(self, operation, session=0, sequence=0, acked=0, timeout=None, once=False):
        """Returns (status, result)."""
        reader = self._decide(WRITE, write_payload(operation, session, sequence, acked), once,
                              timeout)
        return reader.u8(), reader.rest()

    def read(self, operation, consistency=LINEARIZABLE, timeout=None, once=False):
        """Returns (status, result)."""
        reader = self._decide(READ, u8(consistency) + operation, once, timeout)
        return reader.u8(), reader.rest()


def write_payload(operation, session, sequence, acked):
    return u64(session) + u64(sequence) + u64(acked) + operation


# ---- Operations and what they give ----

ALWAYS = u8(0)
IF_ABSENT = u8(1)
IF_PRESENT = u8(2)


def if_version(version):
    return u8(3) + u64(version)


def if_value(value):
    return u8(4) + blob(value)


def map_put(name, key, value, condition=ALWAYS):
    return u8(1) + blob(name) + blob(key) + blob(value) + condition


def map_delete(name, key, condition=ALWAYS):
    return u8(2) + blob(name) + blob(key) + condition


def map_create(name):
    return u8(3) + blob(name)


def counter_add(name, delta):
    return u8(16) + blob(name) + i64(delta)


def counter_create(name):
    return u8(17) + blob(name)


def map_get(name, key):
    return u8(64) + blob(name) + blob(key)


def map_size(name):
    return u8(65) + blob(name)


def map_scan(name, cursor=b"", limit=0):
    return u8(66) + blob(name) + blob(cursor) + u32(limit)


def counter_cas(name, expected, value):
    return u8(18) + blob(name) + i64(expected) + i64(value)


def counter_set(name, value):
    return u8(19) + blob(name) + i64(value)


def counter_delete(name):
    return u8(20) + blob(name)


def map_range(name, prefix=b"", first=b"", below=b"", cursor=b"", limit=0):
    return (u8(67) + blob(name) + blob(prefix) + blob(first) + blob(below) + blob(cursor) +
            u32(limit))


def counter_get(name):
    return u8(80) + blob(name)


def set_add(name, member):
    return u8(24) + blob(name) + blob(member)


def set_remove(name, member):
    return u8(25) + blob(name) + blob(member)


def set_create(name):
    return u8(26) + blob(name)


def set_contains(name, member):
    return u8(88) + blob(name) + blob(member)


def set_size(name):
    return u8(89) + blob(name)


def set_scan(name, cursor=b"", limit=0):
    return u8(90) + blob(name) + blob(cursor) + u32(limit)


def map_clear(name):
    return u8(4) + blob(name)


def multimap_put(name, key, value):
    return u8(32) + blob(name) + blob(key) + blob(value)


def multimap_remove(name, key):
    return u8(33) + blob(name) + blob(key)


def multimap_get(name, key, cursor=b"", limit=0):
    return u8(96) + blob(name) + blob(key) + blob(cursor) + u32(limit)


def multimap_entries(name, cursor=b"", limit=0):
    return u8(104) + blob(name) + blob(cursor) + u32(limit)


def member_join(name, member, info=b""):
    return u8(48) + blob(name) + blob(member) + blob(info)


def member_leave(name, member):
    return u8(50) + blob(name) + blob(member)


def member_list(name, cursor=b"", limit=0):
    return u8(116) + blob(name) + blob(cursor) + u32(limit)


def registration_add(name, address, sequence):
    return u8(52) + blob(name) + blob(address) + u64(sequence)


def registration_remove(name, address, sequence):
    return u8(53) + blob(name) + blob(address) + u64(sequence)


def registration_get(name, address, cursor=b"", limit=0):
    return u8(120) + blob(name) + blob(address) + blob(cursor) + u32(limit)


def names(kind, prefix=b"", cursor=b"", limit=0):
    return u8(124) + blob("") + u8(kind) + blob(prefix) + blob(cursor) + u32(limit)


def transaction(operations):
    """All of them, at one moment."""
    return (u8(60) + blob(b"") + u32(0) + u32(len(operations)) +
            b"".join(blob(operation) for operation in operations) + u32(0))


def flag_of(result):
    """Of MAP_DELETE, creates, adds, removes, MULTIMAP_PUT and contains."""
    reader = Reader(result)
    out = reader.flag()
    reader.end()
    return out


def value_of(result):
    """Of MAP_GET: (version, value)."""
    reader = Reader(result)
    out = reader.u64(), reader.blob()
    reader.end()
    return out


def number_of(result):
    """Of sizes, clears, MULTIMAP_REMOVE, COUNTER_ADD, COUNTER_CAS and COUNTER_GET."""
    reader = Reader(result)
    out = reader.i64()
    reader.end()
    return out


def page_of(result):
    """Of MAP_SCAN and SET_SCAN: (revision, cursor, [(key, version, value), ...])."""
    reader = Reader(result)
    revision, cursor, count = reader.u64(), reader.blob(), reader.u32()
    entries = []
    for _ in range(count):
        entries.append((reader.blob(), reader.u64(), reader.blob()))
    reader.end()
    return revision, cursor, entries


# ---- A client that retries ----


class SessionClient:
    """A session that survives nodes: what the C library does, in its simplest form.

    run() keeps a window of writes under way and sends again, with the same
    numbers, what was not answered. acked[n] is what the n-th operation got.
    """

    PAUSE = 0.03

    def __init__(self, ports, timeout_ms=60000, deadline=60.0):
        self.ports = list(ports)
        self.deadline = deadline
        self.timeout_ms = timeout_ms
        self.token = os.urandom(16)
        self.session = 0
        self.sequence = 0
        self.connection = None
        self.next_port = 0
        self.reconnects = 0
        self.statuses = {}  # How often each status came.

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _drop(self):
        self.close()
        self.next_port += 1
        self.reconnects += 1
        time.sleep(self.PAUSE)

    def _connect(self):
        """To any node that answers; opens or resumes the session."""
        end = time.monotonic() + self.deadline
        while not self.connection:
            if time.monotonic() > end:
                raise TimeoutError(f"no node takes the session within {self.deadline} s")
            try:
                port = self.ports[self.next_port % len(self.ports)]
                self.connection = Connection(port, timeout=3.0)
                if self.connection.hello()["status"] != OK:
                    raise ProtocolError("hello was refused")
                if self.session == 0:
                    status, session, _ = self.connection.session_open(
                        self.timeout_ms, self.token, once=True)
                    self.session = session if status == OK else 0
                else:
                    status = self.connection.session_resume(self.session, self.token, once=True)
                if status != OK:
                    self._note(status)
                    if status not in (RETRY, BUSY, NO_ROOM):
                        raise ProtocolError(f"session: {STATUS_NAMES[status]}")
                    self._drop()
            except (OSError, Closed):
                self._drop()

    def _note(self, status):
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def run(self, operations, window=64, events=None):
        """Write all operations. events: {count of answers: function to call then}.

        Returns [(status, result), ...] in the order of the operations. Each is
        tried until it is decided; NO_ROOM counts as not decided.
        """
        first = self.sequence + 1
        self.sequence += len(operations)
        events = dict(events or {})
        answers = {}
        sent = 0  # Operations sent on this connection, or answered.
        requests = {}  # Of this connection: request -> operation.
        again = []  # To be sent again, lowest first.
        end = time.monotonic() + self.deadline

        def acked():
            done = first - 1
            while done + 1 - first in answers:
                done += 1
            return done

        low = first - 1
        while len(answers) < len(operations):
            if time.monotonic() > end:
                raise TimeoutError(f"{len(answers)} of {len(operations)} writes were answered, "
                                   f"then none for {self.deadline} s; {self.describe()}")
            try:
                if not self.connection:
                    requests = {}
                    again = [n for n in range(sent) if n not in answers]
                    self._connect()
                batch = b""
                while len(requests) < window and (again or sent < len(operations)):
                    number = again.pop(0) if again else sent
                    sent = max(sent, number + 1)
                    while low + 1 - first in answers:
                        low += 1
                    self.connection.request += 1
                    requests[self.connection.request] = number
                    batch += frame(WRITE, write_payload(operations[number], self.session,
                                                        first + number, low),
                                   self.connection.request)
                if batch:
                    self.connection.send_raw(batch)
                got = self.connection.receive(3.0)
                if got.request not in requests or got.kind != WRITE + 1:
                    raise ProtocolError(f"an answer of kind {got.kind} to request {got.request}")
                number = requests.pop(got.request)
                status, result = got.payload[0], got.payload[1:]
                self._note(status)
                if status in (RETRY, BUSY, NO_ROOM):
                    again = sorted(again + [number])
                    if not requests:
                        time.sleep(self.PAUSE)
                        if status == RETRY and self.statuses[RETRY] % 50 == 0:
                            self._drop()
                    continue
                answers[number] = (status, result)
                end = time.monotonic() + self.deadline
                event = events.pop(len(answers), None)
                if event:
                    event()
            except (OSError, Closed):
                self._drop()
        assert acked() == self.sequence
        return [answers[n] for n in range(len(operations))]

    def write(self, operation):
        return self.run([operation])[0]

    def describe(self):
        counts = ", ".join(f"{STATUS_NAMES[s]} {n}" for s, n in sorted(self.statuses.items()))
        return f"session {self.session}, {self.reconnects} reconnects, statuses: {counts}"
