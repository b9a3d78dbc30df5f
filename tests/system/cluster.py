"""Real bopd processes on loopback for the tests.

A Cluster starts nodes on ports that no other test uses, with data in a temporary
directory, and ends them whatever happens. When the test failed, the last lines of
each node's log go into its comments. A node that died without being told to, or a
report of a sanitizer in a log, fails the test too.
"""

import ctypes
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import tap
import wire

PATIENCE = 60.0  # Seconds that anything may take; only a hang is as slow as that.
LOG_TAIL = 40
PR_SET_PDEATHSIG = 1

BOPD = sys.argv[1] if len(sys.argv) > 1 else "build/release/bopd"

_libc = ctypes.CDLL(None, use_errno=True)
_reserved = {}  # Port: the socket whose name says that it is taken.


def free_port():
    """A port that is this process's until it ends.

    It lies below the range from which the kernel takes ports for outgoing
    connections, so that nobody gets it by chance while a node is down; a Unix
    socket named after it keeps other test programs away.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as text:
        low = min(int(text.read().split()[0]), 32768)
    if low < 12000:
        low = 32768
    for _ in range(10000):
        port = random.SystemRandom().randrange(10000, low)
        mark = socket.socket(socket.AF_UNIX)
        probe = socket.socket()
        try:
            mark.bind(f"\0bop-test-port-{port}")
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        finally:
            probe.close()
        _reserved[port] = mark
        return port
    raise RuntimeError("no free port")


def temporary_directory():
    return tempfile.mkdtemp(prefix="bop-test-")


def die_with_parent():
    """In the child: a test program that is killed takes its nodes with it."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def environment():
    env = dict(os.environ)
    env.setdefault("UBSAN_OPTIONS", "halt_on_error=1:abort_on_error=1:print_stacktrace=1")
    env.setdefault("ASAN_OPTIONS", "halt_on_error=1:abort_on_error=1:detect_leaks=1")
    return env


def run_bopd(arguments, timeout=PATIENCE, **more):
    """Run bopd to its end. Returns (exit status, stdout, lines of stderr)."""
    done = subprocess.run([BOPD, *map(str, arguments)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          env=environment(), text=True, errors="replace", check=False, **more)
    tap.note(f"bopd {' '.join(map(str, arguments))}: exit {done.returncode}\n"
             f"{done.stdout}{done.stderr}")
    return done.returncode, done.stdout, done.stderr.splitlines()


class Node:
    """One bopd, running or not."""

    def __init__(self, cluster, number, port, data):
        self.cluster = cluster
        self.number = number
        self.port = port
        self.data = data
        self.log_path = os.path.join(cluster.directory, f"node-{number}.log")
        self.process = None
        self.paused = False
        self.stopped = True  # As far as the test knows.
        self.log_start = 0  # Where the log of the current run begins.
        self.join = False
        self.extra = []

    def arguments(self):
        out = ["--id", str(self.number), "--data", self.data, "--cluster", self.cluster.name,
               "--listen", f"127.0.0.1:{self.port}"]
        for node in self.cluster.nodes:
            if not node.join or node is self:
                out += ["--peer", f"{node.number}=127.0.0.1:{node.port}"]
        if self.cluster.config_path:
            out += ["--config", self.cluster.config_path]
        return out + (["--join"] if self.join else []) + self.extra

    def start(self, wait=True, **more):
        assert self.stopped
        self.log_start = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([BOPD, *self.arguments()], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=environment(),
                                            preexec_fn=die_with_parent, **more)
        self.stopped = False
        if wait:
            self.wait_serving()
        return self

    def wait_serving(self):
        def serving():
            if self.process.poll() is not None:
                raise AssertionError(f"node {self.number} ended with {self.process.returncode}: "
                                     f"{self.last_line()}")
            try:
                with self.connect(timeout=2.0) as connection:
                    return connection.hello()["status"] == wire.OK
            except (OSError, wire.Closed):
                return False
        tap.wait_until(serving, f"node {self.number} serves", PATIENCE)

    def connect(self, timeout=30.0):
        return wire.Connection(self.port, timeout)

    def status(self):
        """None if it does not answer."""
        try:
            with self.connect(timeout=3.0) as connection:
                return connection.status()
        except (OSError, wire.Closed):
            return None

    def wait_status(self):
        """For a node that has to answer, however busy the machine is."""
        return tap.wait_until(self.status, f"node {self.number} tells its status", PATIENCE)

    def is_up(self):
        return not self.stopped and not self.paused

    # ---- Ending and stopping ----

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self.stopped = True
        self.paused = False

    def terminate(self):
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.wait_end()

    def wait_end(self):
        code = self.process.wait(PATIENCE)
        self.stopped = True
        return code

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)
        # The signal takes effect when the kernel says that the state is T, not before.
        tap.wait_until(lambda: self._state() == "T", f"node {self.number} is stopped", PATIENCE, 0)
        self.paused = True

    def resume(self):
        self.paused = False
        self.process.send_signal(signal.SIGCONT)

    def _state(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0]

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    # ---- Its log ----

    def log(self, whole=False):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            log.seek(0 if whole else self.log_start)
            return log.read().splitlines()

    def last_line(self):
        lines = self.log()
        return lines[-1] if lines else ""

    def forget(self):
        """An end that the test expects came by itself."""
        self.stopped = True


class Cluster:
    """Use as `with Cluster() as cluster:`. config: further lines of YAML."""

    def __init__(self, count=3, config="", start=True):
        self.directory = temporary_directory()
        self.name = "test"
        self.nodes = []
        self.config_path = None
        if config:
            self.config_path = os.path.join(self.directory, "bopd.yaml")
            with open(self.config_path, "w", encoding="utf-8") as out:
                out.write(config)
        for _ in range(count):
            self.add()
        if start:
            try:
                self.start()
            except BaseException:
                self._end(failed=True)
                raise

    def add(self, join=False):
        number = len(self.nodes) + 1
        node = Node(self, number, free_port(), os.path.join(self.directory, f"n{number}"))
        node.join = join
        self.nodes.append(node)
        return node

    def start(self):
        for node in self.nodes:
            if node.stopped:
                node.start(wait=False)
        for node in self.nodes:
            node.wait_serving()
        self.leader()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._end(failed=kind is not None)

    def _end(self, failed):
        died = [n for n in self.nodes if not n.stopped and n.process.poll() is not None]
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.process.kill()
        for node in self.nodes:
            if node.process:
                node.process.wait()
        reports = [n for n in self.nodes if n.process and any(
            "runtime error:" in line or "Sanitizer" in line for line in n.log(whole=True))]
        if failed or died or reports:
            for node in self.nodes:
                if node.process:
                    self._note_log(node, whole=node in reports)
        shutil.rmtree(self.directory, ignore_errors=True)
        if not failed:
            tap.check(not reports, "a sanitizer reports: see the log")
            tap.check(not died, f"nodes ended by themselves: {[n.number for n in died]}")

    @staticmethod
    def _note_log(node, whole):
        lines = node.log(whole=True)
        if not whole:
            lines = lines[-LOG_TAIL:]
        tap.note(f"--- node {node.number} on port {node.port}, "
                 f"status {node.process.returncode} ---\n" + "\n".join(lines))

    # ---- Together ----

    def ports(self, nodes=None):
        return [n.port for n in (self.nodes if nodes is None else nodes)]

    def up(self):
        return [n for n in self.nodes if n.is_up()]

    def others(self, *without):
        return [n for n in self.nodes if n not in without]

    def leader(self):
        """The node that leads and has committed in its term, as it and a majority say."""
        def find():
            said = {n: n.status() for n in self.up()}
            for node, status in said.items():
                if status and status["state"] == wire.LEADER:
                    agree = [s for s in said.values() if s and s["leader"] == node.number and
                             s["term"] == status["term"]]
                    if len(agree) * 2 > len(status["peers"]):
                        return node
            return None
        return tap.wait_until(find, "a leader that a majority follows", PATIENCE)

    def follower(self):
        leader = self.leader()
        return next(n for n in self.up() if n is not leader)

    def client(self, nodes=None, **more):
        return wire.SessionClient(self.ports(nodes), **more)

    def converge(self, nodes=None):
        """Wait until all have applied the same, which is all there is in their logs; their digests
        must be the same then."""
        nodes = self.up() if nodes is None else nodes

        def same():
            said = [n.status() for n in nodes]
            if any(s is None for s in said):
                return None
            applied = {s["applied"] for s in said}
            if len(applied | {s["commit"] for s in said} | {s["last"] for s in said}) > 1:
                return None
            digests = {s["digest"] for s in said}
            tap.check(len(digests) == 1,
                      f"the states differ at entry {applied}: digests {[s['digest'] for s in said]}")
            return said
        return tap.wait_until(same, "all nodes have applied the same entries", PATIENCE)


def read(node, operation, consistency=wire.LINEARIZABLE):
    """Read from this very node until it decides."""
    def once():
        try:
            with node.connect() as connection:
                got = connection.read(operation, consistency, once=True)
        except (OSError, wire.Closed):
            return None
        return None if got[0] in (wire.RETRY, wire.BUSY) else got
    return tap.wait_until(once, f"node {node.number} answers a read", PATIENCE)


def read_map(node, name):
    """The whole map, as {key: value}, by linearizable scans of this node."""
    found, cursor = {}, b""
    while True:
        status, result = read(node, wire.map_scan(name, cursor))
        tap.check_equal(status, wire.OK, f"status of a scan of {name}")
        _, cursor, entries = wire.page_of(result)
        for key, _, value in entries:
            tap.check(key not in found, f"the scan gives key {key!r} twice")
            found[key] = value
        if not cursor:
            return found


def read_counter(node, name):
    status, result = read(node, wire.counter_get(name))
    tap.check_equal(status, wire.OK, f"status of counter {name}")
    return wire.number_of(result)


CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def private_mounts():
    """Let this process mount what nobody else sees, and what goes with it; Skip if that is not
    allowed. Being root is not needed where user namespaces are."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWNS) != 0:
        if _libc.unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0:
            raise tap.Skip("neither root nor user namespaces: cannot mount a small file system")
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"),
                           ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    _mount("--make-rprivate", "/")


def _mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise tap.Skip(f"cannot mount a small file system: {done.stderr.strip()}")


def mount_small(path, megabytes):
    os.makedirs(path, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "bop-test", path)


def resize_small(path, megabytes):
    _mount("-o", f"remount,size={megabytes}m", path)


def unmount(path):
    subprocess.run(["umount", "-l", path], capture_output=True, check=False)


def lock_file(path):
    """Hold the lock that a bopd holds on its data directory."""
    handle = open(path, "a", encoding="ascii")  # pylint: disable=consider-using-with
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle
