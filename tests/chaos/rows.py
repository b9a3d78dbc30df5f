"""The rows of the fault matrix (docs/design/chaos.md): a function each, which makes faults until the
campaign is over. Healing, and what must hold then, is the campaign's.

A row may leave nodes down, paused or cut off; and nodes that it marks as doomed may end by themselves.
"""

import os
import resource
import shutil
import socket
import struct
import tempfile
import time

import admin
import cluster
import disk
import nodes as places
import overload
import wire
from certificates import Authority
from tap import check, wait_until

COMMON = """\
election_timeout_ms: 300
heartbeat_ms: 50
snapshot_entries: {snapshot}
trailing_entries: {trailing}
limits:
  segment_bytes: {segment}MiB
"""


def config(snapshot=5000, trailing=500, segment=4):
    return COMMON.format(snapshot=snapshot, trailing=trailing, segment=segment)


class Row:
    """One row. needs: "net", "mount" or "proxy", without which it is skipped. shape: of its cluster."""

    def __init__(self, number, name, title, function, needs=(), bulk=None, bulk_state=None, **shape):
        self.number = number
        self.name = name
        self.title = title
        self.run = function
        self.needs = needs
        self.bulk = bulk
        self.bulk_state = bulk_state
        self.shape = shape


ROWS = []


def row(number, name, title, **more):
    def add(function):
        ROWS.append(Row(number, name, title, function, **more))
        return function
    return add


# ---- Processes ----

@row(1, "kill", "kill -9 and start again")
def kill(c):
    while not c.over():
        count = c.random.choice((1, 1, 1, len(c.nodes) // 2 + 1, len(c.nodes)))
        victims = [c.victim()] if count == 1 else c.some(count)
        c.note(f"kill {[n.number for n in victims]}")
        for node in victims:
            node.kill()
        c.wait(0.0, 3.0)
        for node in victims:
            node.start_again()
        c.note("started again")
        c.wait(1.0, 4.0)


@row(2, "pause", "stand still and go on")
def pause(c):
    while not c.over():
        leader = c.leader_or_any()
        victims = [leader] if c.random.random() < 0.6 else c.some(len(c.nodes) - 1)
        c.note(f"pause {[n.number for n in victims]}")
        for node in victims:
            node.pause()
        c.wait(0.2, c.random.choice((0.5, 2.0, 8.0)))
        for node in victims:
            node.resume()
        c.note("resumed")
        c.wait(0.5, 3.0)


# ---- Links ----

@row(3, "isolate", "cut one node off", needs=("net",))
def isolate(c):
    while not c.over():
        node = c.victim()
        if c.random.random() < 0.5:
            c.note(f"cut {node.number} off its peers")
            for peer in c.nodes:
                if peer is not node:
                    node.cut("both", peer)
        else:
            c.note(f"cut {node.number} off everybody")
            node.cut("both")
        c.wait(0.5, 5.0)
        node.mend()
        c.note("mended")
        c.wait(0.5, 3.0)


@row(4, "one-way", "cut one direction", needs=("net",))
def one_way(c):
    while not c.over():
        node = c.leader_or_any() if c.random.random() < 0.7 else c.victim()
        way = c.random.choice(("in", "out"))
        c.note(f"cut {way} of {node.number}")
        for peer in c.nodes:
            if peer is not node:
                node.cut(way, peer)
        before = terms(c)
        c.wait(1.0, 5.0)
        check_terms(node, way, before, terms(c))
        node.mend()
        c.note("mended")
        c.wait(0.5, 3.0)


def terms(c):
    """The terms of all nodes; None for one that does not answer."""
    return {n: s["term"] if s else None for n in c.nodes for s in [n.status_quickly()]}


def check_terms(node, way, before, after):
    """With pre-votes a node that cannot win does not raise the term again and again. One pre-vote may
    have been won right before the cut."""
    if way == "in":
        # It hears of nobody else's terms.
        if before[node] is not None and after[node] is not None:
            check(after[node] <= before[node] + 1,
                  f"the term of node {node.number}, which hears nothing, runs away: "
                  f"{before[node]} to {after[node]}")
    elif None not in after.values():
        others = max(term for each, term in after.items() if each is not node)
        check(after[node] <= others + 1,
              f"the term of node {node.number}, which nobody hears, runs away: {after[node]}, but "
              f"{others} elsewhere")


@row(5, "ring", "everybody sees a majority, nobody the same", needs=("net",), count=5)
def ring(c):
    while not c.over():
        order = c.some(len(c.nodes))
        count = len(order)
        if c.random.random() < 0.6:
            c.note(f"ring {[n.number for n in order]}")
            pairs = [(order[i], order[(i + 2) % count]) for i in range(count)]
        else:
            bridge, half = order[0], (count + 1) // 2
            c.note(f"bridge {bridge.number} between {[n.number for n in order[1:half]]} and "
                   f"{[n.number for n in order[half:]]}")
            pairs = [(a, b) for a in order[1:half] for b in order[half:]]
        for a, b in pairs:
            a.cut("both", b)
            b.cut("both", a)
        c.wait(2.0, 6.0)
        for node in c.nodes:
            node.mend()
        c.note("mended")
        c.wait(0.5, 3.0)


@row(6, "flap", "a link that comes and goes", needs=("net",))
def flap(c):
    while not c.over():
        node = c.leader_or_any()
        c.note(f"flapping: {node.number}")
        for _ in range(c.random.randint(5, 20)):
            node.cut("both")
            c.wait(0.1, 0.5)
            node.mend()
            c.wait(0.1, 0.5)
        c.note("steady")
        c.wait(1.0, 3.0)


@row(7, "loss", "packets are lost on all links", needs=("net",))
def loss(c):
    while not c.over():
        part = c.random.choice((0.01, 0.1, 0.3))
        c.note(f"lose {part:.0%}")
        for node in c.nodes:
            node.lose(part)
        c.wait(3.0, 8.0)
        for node in c.nodes:
            node.mend()
        c.note("lossless")
        c.wait(1.0, 3.0)


@row(8, "delay", "delay, jitter, resets, half-open connections", needs=("net", "proxy"),
     proxied=True)
def delay(c):
    while not c.over():
        node = c.victim()
        how = c.random.choice(("delay", "delay", "jitter", "reset", "silent", "refuse"))
        c.note(f"{how}: {node.number}")
        if how == "delay":
            node.proxy.tell(f"delay {c.random.randint(5, 60)} 60")
        elif how == "jitter":
            for each in c.nodes:
                each.proxy.tell("delay 0 150")
        elif how == "silent":
            node.proxy.tell("silent")
        elif how == "refuse":
            node.reset_connections()
        for _ in range(c.random.randint(1, 10)):
            if how == "reset":
                node.proxy.tell("reset")
            c.wait(0.2, 0.8)
        for each in c.nodes:
            each.proxy.tell("clear")
            each.mend()
        c.note("clear")
        c.wait(0.5, 3.0)


@row(9, "slow-link", "one link of 1 Mbit/s", needs=("net",), bulk=4096,
     config=config(snapshot=1000, trailing=100))
def slow_link(c):
    while not c.over():
        leader = c.leader_or_any()
        node = c.random.choice([n for n in c.nodes if n is not leader])
        c.note(f"slow: {node.number}")
        node.slow("1mbit")
        if c.random.random() < 0.5:  # It will need a snapshot over that link.
            node.kill()
            c.wait(1.0, 3.0)
            node.start_again()
        c.wait(3.0, 10.0)
        node.mend()
        c.note("fast")
        c.wait(1.0, 3.0)


# ---- Disks ----

@row(10, "disk-full", "the disk is full", needs=("mount",), small=128, bulk=16384,
     bulk_state=8 << 20)
def disk_full(c):
    while not c.over():
        kind = c.random.choice(("leader", "follower", "majority"))
        leader = c.leader_or_any()
        victims = {"leader": [leader], "majority": c.majority(),
                   "follower": [c.random.choice([n for n in c.nodes if n is not leader])]}[kind]
        c.note(f"full: {[n.number for n in victims]}")
        for node in victims:
            disk.fill(os.path.dirname(node.data), leave=c.random.choice((0, 0, 100_000, 5_000_000)))
        c.wait(2.0, 5.0)
        for node in victims:
            disk.empty(os.path.dirname(node.data))
            check(not node.has_ended(), f"node {node.number} ended as its disk was full: "
                                        f"{node.last_line()}")
        c.note("room again")
        c.wait(1.0, 4.0)
    for node in c.nodes:
        disk.empty(os.path.dirname(node.data))


@row(11, "slow-sync", "syncs are slow or hang", shim=True)
def slow_sync(c):
    while not c.over():
        node = c.leader_or_any() if c.random.random() < 0.7 else c.victim()
        delay_ms = c.random.choice((100, 300, 1000, 5000))
        c.note(f"syncs of {node.number} take {delay_ms} ms")
        node.control.set(node.control.DELAY, delay_ms)
        c.wait(1.0, 6.0)
        node.control.set(node.control.DELAY, 0)
        c.note("syncs are quick")
        c.wait(1.0, 3.0)


@row(12, "sync-error", "one sync fails", shim=True)
def sync_error(c):
    while not c.over():
        node = c.leader_or_any() if c.random.random() < 0.6 else c.victim()
        control = node.control
        before = control.get(control.FAILED)
        c.note(f"the next sync of {node.number} fails")
        node.doomed = True
        control.set(control.FAILURES, 1)
        wait_until(lambda: control.get(control.FAILED) > before or node.has_ended() or c.over(),
                   "a sync fails")
        if control.get(control.FAILED) > before:
            # What a failed sync leaves on the disk is unknown: the node may not go on.
            wait_until(node.has_ended, f"node {node.number} ends after a failed sync")
            c.note(f"node {node.number} ended: {node.last_line()}")
        control.set(control.FAILURES, 0)
        c.wait(0.0, 2.0)
        node.start_again()
        c.wait(1.0, 3.0)


@row(13, "power", "power is lost: what was not synced is gone or torn", shim=True, journaled=True)
def power(c):
    while not c.over():
        count = c.random.choice((1, 1, 2, len(c.nodes)))
        victims = [c.victim()] if count == 1 else c.some(count)
        terms = {}
        for node in victims:
            # A slow disk has more that is not synced yet.
            node.control.set(node.control.DELAY, c.random.choice((0, 20, 100, 300)))
        c.wait(0.0, 1.0)
        for node in victims:
            said = node.status_quickly()
            terms[node] = said["term"] if said else 0
            node.kill()
            node.control.set(node.control.DELAY, 0)
        for node in victims:
            c.note(f"power of {node.number}: {disk.lose_power(node, c.random)}")
        c.wait(0.0, 2.0)
        for node in victims:
            node.start_again()
        for node, term in terms.items():
            node.wait_serving()
            said = node.status()
            check(said is None or said["term"] >= term,
                  f"the term of node {node.number} went back from {term}")
        c.wait(1.0, 4.0)


@row(14, "corruption", "a file of a stopped node is damaged")
def corruption(c):
    while not c.over():
        node = c.victim()
        node.start_again()
        node.wait_serving()
        node.kill()
        saved = disk.save(node)
        # What this node has acknowledged is at the others by then, so that a tail which looks
        # torn is nobody's last copy.
        c.cluster.wait_applied(acknowledged(node, c), without=node)
        what = disk.corrupt(node, c.random)
        c.damaged = True
        c.note(f"node {node.number}: {what or 'no such file'}")
        node.start(wait=False)
        node.doomed = True
        if not serves_or_ends(node):
            c.note(f"node {node.number} refuses: {node.last_line()}")
            node.stopped = True
            check(node.process.returncode in (1, 3),
                  f"node {node.number} ended with {node.process.returncode}: {node.last_line()}")
            if c.random.random() < 0.5:
                disk.restore(node, saved)
                node.start(wait=False)
                node.wait_serving()
            else:
                begin_anew(c, node)
        else:
            c.note(f"node {node.number} serves")
        node.doomed = False
        c.wait(1.0, 3.0)


def begin_anew(c, node):
    """Its disk is given up: it is removed from the cluster, and gets all from its peers."""
    remove_surely(c, node)
    disk.wipe(node)
    c.note(f"node {node.number} begins anew")
    node.join = True
    node.start(wait=False)
    wait_until(lambda: node.number in (admin.voters(c.random.choice(c.nodes)) or []),
               f"node {node.number} has a vote again")
    node.join = False  # It is known to those who start later.
    c.cluster.wait_applied(acknowledged(node, c))
    c.note(f"node {node.number} has all from its peers")


def acknowledged(node, campaign):
    """No entry that the node has acknowledged lies above what some other node has now."""
    said = [s["last"] for n in campaign.cluster.others(node) if n.is_up()
            for s in [n.status()] if s]
    return max(said) if said else 0


def serves_or_ends(node):
    def decided():
        if node.has_ended():
            return "ended"
        said = node.status_quickly()
        return "serves" if said and said["leader"] and said["applied"] else None
    return wait_until(decided, f"node {node.number} serves or refuses to") == "serves"


# ---- The cluster ----

@row(15, "membership", "members come, go and change under kills")
def membership(c):
    while not c.over():
        change_members(c)
        c.wait(0.0, 1.0)
        victim = c.victim()
        c.note(f"kill {victim.number}")
        victim.kill()
        c.wait(0.2, 2.0)
        victim.start_again()
        c.wait(1.0, 3.0)


def change_members(c):
    """One change, asked for at a random node, whatever comes of it. At least two of the first nodes
    stay, for the load knows no others."""
    asked = c.random.choice(c.nodes)
    how = c.random.choice(("join", "join", "demote", "promote", "remove"))
    voters = admin.voters(asked) or []
    standby = [n for n in c.nodes if n.number not in voters]
    if how == "join" and len(c.nodes) < 5:
        node = c.cluster.add(join=True)
        c.note(f"node {node.number} joins")
        node.start(wait=False)
    elif how == "promote" and standby and voters:
        node = c.random.choice(standby)
        c.note(f"promote {node.number}: {admin.change(asked, admin.PROMOTE, node)}")
    elif how == "demote" and len(voters) > 3:
        node = c.random.choice([n for n in c.nodes if n.number in voters])
        c.note(f"demote {node.number}: {admin.change(asked, admin.DEMOTE, node)}")
    elif how == "remove" and len(voters) > 3:
        first = [n for n in c.nodes if not n.join]
        node = c.random.choice([n for n in c.nodes if n.join or len(first) > 2])
        for _ in range(5):
            code, text = admin.change(asked, admin.REMOVE, node)
            if code not in admin.PASSING or c.over():
                break
            c.wait(0.3)
        c.note(f"remove {node.number}: {code} {text}")
        if code == admin.OK:
            c.cluster.retire(node)
        elif code in (None, admin.UNCERTAIN):
            settle_removal(c, node)


def settle_removal(c, node):
    """Whether it was removed is not known: ask until it is decided."""
    remove_surely(c, node)
    c.cluster.retire(node)


def remove_surely(c, node):
    def decided():
        others = [n for n in c.nodes if n is not node and n.is_up()]
        return admin.change(c.random.choice(others), admin.REMOVE, node)[0] in (
            admin.OK, admin.UNKNOWN_NODE)
    wait_until(decided, f"node {node.number} is removed", pause=0.5)


SNAPSHOT_BYTES = 64 << 20
SNAPSHOT_VALUES = 4096  # At most, of 64 KiB or more.
FILL_BYTES_PER_S = 2 << 20  # No disk is as slow as that.
SNAPSHOT_ROOM = 24        # All nodes' logs and snapshots, old and new, in snapshots.
MEMORY_BYTES = 256 << 20  # That a node may have besides files; it sends a snapshot in pieces.


@row(16, "snapshot", "snapshots are sent while sender and receiver die", bulk=65536,
     bulk_state=SNAPSHOT_BYTES, config=config(snapshot=3000, trailing=50))
def snapshot(c):
    size = c.bulk_state or 0  # None in a mix of rows, which does not fill it.
    slow = max(1, size // SNAPSHOT_BYTES // 4)  # What is larger is written and read for longer.
    if size:
        fill_state(c, size)
    while not c.over():
        leader = c.leader_or_any()
        node = c.random.choice([n for n in c.nodes if n is not leader])
        c.note(f"node {node.number} falls behind")
        node.kill()
        c.wait(2.0 * slow, 4.0 * slow)
        node.start_again()
        for _ in range(c.random.randint(1, 3)):
            c.wait(0.02, 0.8 * slow)
            victim = c.random.choice((node, node, c.leader_or_any()))
            c.note(f"kill {victim.number}")
            victim.kill()
            c.wait(0.0, 0.5)
            victim.start_again()
        c.wait(1.0 * slow, 4.0 * slow)
        check_memory(c)


def snapshot_of(mib):
    """Row 16 with snapshots of about so many MiB."""
    usual = by_name("snapshot")
    size = mib << 20
    entries = 3000 * max(1, size // SNAPSHOT_BYTES // 4)
    return Row(usual.number, usual.name, usual.title, usual.run,
               bulk=max(65536, size // SNAPSHOT_VALUES), bulk_state=size,
               config=config(snapshot=entries, trailing=50))


def room_for(mib):
    """Whether the disk has it."""
    return shutil.disk_usage(tempfile.gettempdir()).free >= SNAPSHOT_ROOM * (mib << 20)


def fill_state(c, size):
    """Until a snapshot is so large that it is under way for a while."""
    began = time.monotonic()
    extra = c.start_load(workloads="bulk", bulk=c.bulk, bulk_state=size, rate=3000)
    wait_until(lambda: disk.largest_snapshot(c.leader_or_any()) >= size * 3 / 4,
               "the snapshots are large", seconds=max(60, size / FILL_BYTES_PER_S))
    c.stop_load(extra)
    c.note(f"snapshots of {disk.largest_snapshot(c.leader_or_any()) >> 20} MiB")
    c.end += time.monotonic() - began  # Which is no part of the row's time.


def check_memory(c):
    if places.is_sanitized(cluster.BOPD):
        return  # Sanitizers hold back what is freed.
    for node in c.nodes:
        held = 0 if node.stopped else node.anonymous_bytes()
        check(held <= MEMORY_BYTES, f"node {node.number} holds {held >> 20} MiB of memory")
    c.note(f"memory in MiB: {[0 if n.stopped else n.anonymous_bytes() >> 20 for n in c.nodes]}")


@row(17, "transfer", "leadership changes hands every second")
def transfer(c):
    while not c.over():
        leader = c.cluster.lead()
        if leader is not None and c.random.random() < 0.2:
            c.note(f"{leader.number} is stopped")
            check(leader.terminate() == 0, f"node {leader.number} did not stop in order: "
                                           f"{leader.last_line()}")
            leader.start()
        elif leader is not None:
            asked = c.random.choice(c.nodes)
            target = c.random.choice([0] + [n.number for n in c.nodes if n is not leader])
            c.note(f"{leader.number} hands over to {target or 'any'}: "
                   f"{admin.transfer(asked, target)}")
        c.wait(0.7, 1.3)


@row(18, "clock", "the wall clock jumps", shim=True)
def clock(c):
    while not c.over():
        node = c.victim()
        offset = c.random.choice((-3600, 3600, -60, 60, 86400 * 365))
        c.note(f"clock of {node.number}: {offset:+} s")
        node.control.set(node.control.CLOCK, offset * 10 ** 9)
        c.wait(0.5, 3.0)
        if c.random.random() < 0.3:
            node.kill()
            node.start_again()
        if c.random.random() < 0.5:
            node.control.set(node.control.CLOCK, 0)
            c.note("clock right")
        c.wait(0.5, 2.0)


@row(19, "rolling", "one after the other is restarted in order")
def rolling(c):
    while not c.over():
        for node in list(c.nodes):
            c.note(f"restart {node.number}")
            node.program = cluster.BOPD  # It may have begun with an older one.
            if not node.stopped:
                check(node.terminate() == 0, f"node {node.number} did not stop in order: "
                                             f"{node.last_line()}")
            node.start(wait=False)
            node.wait_serving()
            c.cluster.leader()
            c.wait(0.5, 2.0)


# ---- Too much, and nonsense ----

@row(20, "overload", "ten times the load, values of 1 MiB, little memory", rate=3000)
def overload_row(c):
    limited = overload.Memory(c.nodes, 1024)
    c.note(limited.text)
    try:
        while not c.over():
            c.note("overload")
            extra = [c.start_load(workloads="bulk", bulk=1 << 20, rate=5000) for _ in range(4)]
            c.wait(4.0, 10.0)
            for each in extra:
                c.stop_load(each)
            c.note("usual load")
            c.wait(2.0, 4.0)
        limited.check()
    finally:
        limited.end()


@row(21, "garbage", "bytes that make no sense on every port")
def garbage(c):
    while not c.over():
        node = c.victim()
        c.note(f"garbage to {node.number}")
        for _ in range(30):
            if c.over():
                break
            send_garbage(node, c.random)
        c.wait(0.0, 0.3)
    for node in c.nodes:
        check(not node.has_ended(), f"node {node.number} died of garbage: {node.last_line()}")


def mutated_frame(random):
    payload = bytearray(random.randbytes(random.choice((0, 1, 8, 40, 300))))
    kind = random.choice((wire.HELLO, wire.WRITE, wire.READ, wire.STATUS, wire.SESSION_OPEN,
                          wire.PEER_HELLO, wire.PEER_WELCOME, wire.PEER_RAFT, wire.MAP_PUT,
                          random.randrange(1 << 16)))
    frame = bytearray(wire.frame(kind, bytes(payload), random.randrange(1 << 32),
                                 random.choice((1, 1, 2, random.randrange(256)))))
    if random.random() < 0.3:
        frame[random.randrange(len(frame))] ^= 1 << random.randrange(8)
    return bytes(frame)


def send_garbage(node, random):
    how = random.choice(("noise", "frames", "huge", "half", "peer"))
    if how == "noise":
        data = random.randbytes(random.choice((1, 15, 16, 17, 1000, 100000)))
    elif how == "frames":
        data = b"".join(mutated_frame(random) for _ in range(random.randint(1, 20)))
    elif how == "huge":
        data = struct.pack("<II", 0, random.choice((0xffffffff, 16 << 20, 1 << 31))) + bytes(100)
    elif how == "half":
        data = mutated_frame(random)[:random.randint(1, 20)]
    else:
        data = wire.frame(wire.PEER_HELLO, random.randbytes(random.randint(0, 60)), 1)
        data += wire.frame(wire.PEER_RAFT, random.randbytes(random.randint(0, 200)), 2)
    try:
        with socket.create_connection((node.host, node.port), timeout=2.0) as sock:
            sock.sendall(data)
            sock.settimeout(random.choice((0.0, 0.05)))
            sock.recv(4096)
    except OSError:
        pass


@row(21, "certificates", "peers whose certificates have expired, or are of others", shim=True,
     tls=True)
def certificates(c):
    strangers = make_strangers(c.cluster.authority)
    while not c.over():
        if c.random.random() < 0.5:
            node = c.victim()
            for name in c.random.sample(sorted(strangers), len(strangers)):
                speak_as_peer(c, node, strangers[name], name)
        else:
            let_expire(c)
        c.wait(0.2, 1.0)


def make_strangers(authority):
    """Contexts of those who would like to be node 1."""
    authority.issue("expired", "DNS:bop-node-1,DNS:localhost", days=-1)
    authority.issue("client", "DNS:client.example.org")
    other = Authority(authority.directory, "other-ca")
    other.issue("other", "DNS:bop-node-1,DNS:localhost")
    found = {name: authority.context(name) for name in ("expired", "client")}
    found["nobody"] = authority.context()
    found["other"] = authority.context()
    found["other"].load_cert_chain(other.crt("other"), other.key("other"))
    return found


def speak_as_peer(c, node, context, name):
    """It is not welcome, whatever it says afterwards."""
    number = 1 if node.number != 1 else 2
    hello = wire.frame(wire.PEER_HELLO, wire.u16(1) + wire.u64(number) + wire.u64(node.number) +
                       wire.blob(c.cluster.name) + wire.blob("127.0.0.1:1"))
    try:
        trust = {"context": context, "token": None}
        with wire.Connection(node.port, 5.0, node.host, trust) as connection:
            connection.send_raw(hello + mutated_frame(c.random))
            while True:
                frame = connection.receive()
                if frame.kind == wire.PEER_WELCOME:
                    reader = frame.reader()
                    reader.u16()
                    reader.u64()
                    refusal = reader.text()
                    check(refusal, f"node {node.number} welcomes {name} as node {number}")
                    c.note(f"node {node.number} to {name}: {refusal}")
    except (OSError, wire.Closed, wire.ProtocolError) as error:
        c.note(f"node {node.number} and {name}: {error}")


def let_expire(c):
    """To one node all certificates have expired, when another one comes back and wants to talk to it;
    the others are a majority without it."""
    late, other = c.some(2)
    late.start_again()
    c.note(f"to {late.number} it is next year; restart {other.number}")
    late.control.set(late.control.CLOCK, 365 * 86400 * 10 ** 9)
    other.kill()
    c.wait(0.0, 0.5)
    other.start_again()
    c.wait(1.0, 4.0)
    late.control.set(late.control.CLOCK, 0)
    c.note("this year again")
    c.wait(0.5, 2.0)


@row(22, "resources", "no descriptors, no memory")
def resources(c):
    while not c.over():
        node = c.victim()
        node.start_again()
        node.wait_serving()
        pid = node.process.pid
        node.doomed = True
        if c.random.random() < 0.5:
            exhaust_descriptors(c, node, pid)
        else:
            exhaust_memory(c, node, pid)
        note_reason(c, node)
        node.start_again()
        c.note("plenty")
        c.wait(1.0, 3.0)


def note_reason(c, node):
    """If it has ended, then in order and with a reason."""
    if node.has_ended():
        c.note(f"node {node.number} ended: {node.last_line()}")
        check(node.process.returncode == 1,
              f"node {node.number} ended with {node.process.returncode}: {node.last_line()}")


@row(22, "allocator", "one in so many requests for memory is refused", shim=True)
def allocator(c):
    while not c.over():
        node = c.victim()
        node.start_again()
        node.wait_serving()
        control = node.control
        if control.get(control.MEMORY_ASKED) == 0:
            c.note("memory is not mimalloc's: nothing to refuse")
            return
        before = control.get(control.MEMORY_REFUSED)
        one_in = c.random.choice((10, 100, 1000))
        c.note(f"one in {one_in} requests of {node.number} for memory is refused")
        node.doomed = True
        control.set(control.MEMORY_ONE_IN, one_in)
        extra = c.start_load(workloads="bulk", bulk=1 << 16, rate=300)
        c.wait(1.0, 4.0)
        c.stop_load(extra)
        control.set(control.MEMORY_ONE_IN, 0)
        c.note(f"memory again; {control.get(control.MEMORY_REFUSED) - before} were refused")
        note_reason(c, node)
        node.start_again()
        c.wait(1.0, 3.0)


def exhaust_descriptors(c, node, pid):
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pid}/fd"))
    c.note(f"node {node.number}: {used} descriptors and no more")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + c.random.choice((0, 1, 3)), usual[1]))
    crowd = []
    for _ in range(20):
        try:
            crowd.append(socket.create_connection((node.host, node.port), timeout=0.5))
        except OSError:
            pass
    c.wait(1.0, 4.0)
    for sock in crowd:
        sock.close()
    if not node.has_ended():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def exhaust_memory(c, node, pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        data = next(int(line.split()[1]) for line in status if line.startswith("VmData:"))
    usual = resource.prlimit(pid, resource.RLIMIT_DATA)
    more = c.random.choice((0, 256, 4096))
    c.note(f"node {node.number}: {data + more} KiB of memory and no more")
    resource.prlimit(pid, resource.RLIMIT_DATA, ((data + more) * 1024, usual[1]))
    extra = c.start_load(workloads="bulk", bulk=1 << 18, rate=300)
    c.wait(1.0, 4.0)
    c.stop_load(extra)
    if not node.has_ended():
        resource.prlimit(pid, resource.RLIMIT_DATA, usual)


SHORT = ("kill", "pause", "isolate", "one-way", "disk-full", "power", "membership", "snapshot",
         "certificates", "allocator")


def by_name(name):
    for each in ROWS:
        if name in (each.name, str(each.number)):
            return each
    raise SystemExit(f"no row is called {name}: {' '.join(r.name for r in ROWS)}")


__all__ = ["ROWS", "Row", "SHORT", "by_name", "config", "room_for", "snapshot_of"]
