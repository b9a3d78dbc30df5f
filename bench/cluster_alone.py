"""What bench/cluster measures of bopd alone: sessions, planned moves, ten million keys."""

import contextlib
import os
import shutil
import statistics
import subprocess
import threading
import time

import report
from cluster_nodes import NODES

SESSIONS = 100000  # On so many connections...
SESSION_CONNECTIONS = 500
TRANSFERS = 5
PAUSE_S = 1.0  # Under load between two moves.
FILL_S = 900  # At most.
FOREVER_S = 3600  # Of a load that is told to end.
KEY_BYTES_ON_DISK = 1000  # Of each key at each node: log, state, two snapshots. Rounded up.
NEVER = 1 << 40  # As many entries between two snapshots.
BESIDE_S = 20.0  # Of load without a snapshot, before and after one: what it is held against.
LEVEL_S = 10
PROMPT_S = 900  # At most, until all nodes have written one.
OFTEN = 1000  # Entries between two snapshots, where a state is small.
MARGIN_S = 0.3  # About a snapshot that counts neither as with nor as without it.


def values_of(lines):
    """What a load printed, without its trace."""
    return {name: float(value) for name, value in
            (line.split() for line in lines if not line.startswith("#"))}


# ---- Sessions ----


def measure_sessions(make, count=SESSIONS):
    """CPU time of all nodes while sessions do nothing but live."""
    with make() as cluster:
        values = report.run_program(
            [report.Report.program("sessions"), "--servers", cluster.servers("sessions", None),
             "--pids", ",".join(str(node.pid) for node in cluster.nodes),
             "--sessions", str(count), "--connections", str(min(SESSION_CONNECTIONS, count))],
            timeout_s=300)
    return {"cpu": values["cpu_percent"], "opened/s": count / values["open_ms"] * 1000}


# ---- Planned moves ----


def transfer(cluster):
    """Hand leadership over under writes. Returns the longest gap between answers in ms."""
    with cluster.background("failover", 64, FOREVER_S) as lines:
        time.sleep(PAUSE_S)
        cluster.command(0, "transfer")
        time.sleep(PAUSE_S)
    values = values_of(lines)
    if values["failed"]:
        raise RuntimeError("requests failed while leadership was handed over")
    return values["gap_ms"]


def roll(cluster):
    """Restart one node after the other under writes, each when the one before is ready."""
    with cluster.background("failover", 64, FOREVER_S) as lines:
        time.sleep(PAUSE_S)
        for number in range(NODES):
            cluster.stop(number)
            cluster.start(number)
            cluster.await_ready([number])
            time.sleep(PAUSE_S)
    return values_of(lines)


def measure_moves(make):
    with make() as cluster:
        cluster.load("fill", 64)
        cluster.await_ready(range(NODES))
        gaps = [transfer(cluster) for _ in range(TRANSFERS)]
        values = roll(cluster)
    return {"transfer": statistics.median(gaps), "transfer worst": max(gaps),
            "roll failed": values["failed"], "roll gap": values["gap_ms"]}


# ---- Many keys ----


def check_room(directory, keys):
    wanted = keys * KEY_BYTES_ON_DISK * NODES
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise report.Missing(f"{keys} keys want {wanted >> 30} GiB free under {directory}, "
                             f"there are {free >> 30}")


def snapshots(cluster):
    """The newest snapshot's name of each node."""
    return [max((name for name in os.listdir(cluster.directory / str(number + 1) / "snapshots")
                 if name.endswith(".snap")), default="") for number in range(NODES)]


def being_written(cluster):
    """Whether a snapshot is, at any node."""
    return any(name.endswith(".tmp") for number in range(NODES)
               for name in os.listdir(cluster.directory / str(number + 1) / "snapshots"))


class Snapshots:
    """When any node was writing a snapshot: a thread that looks all the time."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.spans = []  # [from, to] on CLOCK_MONOTONIC.
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def look(self):
        was = False
        while not self.ended.wait(0.01):
            now = time.monotonic()
            with contextlib.suppress(FileNotFoundError):
                writing = being_written(self.cluster)
                if writing and was:
                    self.spans[-1][1] = now
                elif writing:
                    self.spans.append([now, now])
                was = writing


def let_be(cluster, entries):
    for number in range(NODES):
        cluster.command(number, "params", f"snapshot_entries={entries}")


def await_quiet(cluster, patience_s=300):
    """Until no node has written a snapshot for two seconds."""
    until = time.monotonic() + patience_s
    since = time.monotonic()
    while time.monotonic() - since < 2:
        if being_written(cluster):
            since = time.monotonic()
        if since > until:
            raise RuntimeError("snapshots come to no end")
        time.sleep(0.05)


def rates(lines, spans):
    """Answers a second (without, with) a snapshot, from the trace of a load. Without: just before
    and just after, as long each. The rate falls by a fifth in the first minute or two of random
    writes to very many keys, once the system writes back what they changed; that is not the
    snapshot's."""
    trace = [(float(line.split()[1]), float(line.split()[2])) for line in lines
             if line.startswith("# ")]
    begun, slot = trace[0][0] + 1.0, trace[1][0] - trace[0][0]
    within, without = [], []
    for at, answers in trace:
        if at < begun:
            continue
        if any(start <= at and at + slot <= end for start, end in spans):
            within.append(answers / slot)
        elif all(at + slot < start - MARGIN_S or at > end + MARGIN_S for start, end in spans):
            if spans[0][0] - BESIDE_S <= at <= spans[-1][1] + BESIDE_S:
                without.append(answers / slot)
    if len(within) < 4 or len(without) < 20:
        raise RuntimeError("the snapshot was too short, or never, to see what it costs: more keys")
    return statistics.mean(without), statistics.mean(within)


def await_snapshots(cluster, before):
    """Until every node has written one. A large state is not written for little: that takes
    half as many entries as it has."""
    until = time.monotonic() + PROMPT_S
    while any(name == old for name, old in zip(snapshots(cluster), before)):
        if time.monotonic() > until:
            raise RuntimeError("a node takes no snapshot")
        time.sleep(0.05)


def snapshot_cost(cluster, keys):
    """Percent of the throughput that is lost while nodes write a snapshot of the keys."""
    let_be(cluster, NEVER)
    await_quiet(cluster)
    before = snapshots(cluster)
    with Snapshots(cluster) as watched:
        with cluster.background("write", 64, FOREVER_S, keys=keys) as lines:
            time.sleep(1.0 + BESIDE_S)
            let_be(cluster, OFTEN)
            await_snapshots(cluster, before)
            let_be(cluster, NEVER)
            await_quiet(cluster)
            time.sleep(BESIDE_S)
    without, within = rates(lines, watched.spans)
    if values_of(lines)["failed"]:
        raise RuntimeError("requests failed while a snapshot was taken")
    return {"snapshot cost": (1 - within / without) * 100,
            "snapshot s": max(end - start for start, end in watched.spans)}


def restart(cluster, numbers, end):
    """End these nodes and start them all at once. Returns the seconds until the last is ready."""
    for number in numbers:
        end(cluster.nodes[number])
    for number in numbers:
        cluster.nodes[number].wait(timeout=120)
    begun = time.monotonic()
    for number in numbers:
        cluster.spawn(number)
    cluster.await_ready(numbers)
    return time.monotonic() - begun


def fill(cluster, keys):
    """Put them all; returns how many a second. Bulk puts are taken once all nodes have told each
    other what they know of."""
    cluster.await_ready(range(NODES))
    until = time.monotonic() + LEVEL_S
    while True:
        try:
            report.run_program(cluster.load_argv("bulk", 1, FILL_S, keys=1000), timeout_s=60)
            break
        except RuntimeError:
            if time.monotonic() > until:
                raise
    begun = time.monotonic()
    report.run_program(cluster.load_argv("bulk", 8, FILL_S, keys=keys), timeout_s=FILL_S + 60)
    return keys / (time.monotonic() - begun)


def measure_keys(make, keys):
    with make() as cluster:
        check_room(cluster.directory.parent, keys)
        got = {"filled/s": fill(cluster, keys)}
        cluster.await_ready(range(NODES))
        await_quiet(cluster)

        got["restart"] = restart(cluster, range(NODES), subprocess.Popen.terminate)
        got["restart killed"] = restart(cluster, [cluster.leader()], subprocess.Popen.kill)
        # All of them are there, as random ones are.
        report.run_program(cluster.load_argv("read", 64, 1.0, keys=keys), timeout_s=120)
        return got | snapshot_cost(cluster, keys)
