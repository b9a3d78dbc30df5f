"""Clusters for the chaos tests: real bopd processes, each in a network namespace of its own where
that is allowed, with a shim under it where a row wants one.

The whole program moves into a network and mount namespace of its own first, in which there is
a bridge, 10.99.0.1/16; node i is 10.99.i.2. Nothing of it is left when the program
ends, however that happens. Where namespaces are not allowed, nodes share the loopback, and rows that
need more say so and are skipped.
"""

import ctypes
import mmap
import os
import shutil
import struct
import subprocess

import cluster
import proxy
import tap
import wire
from certificates import Authority
from cluster import CLONE_NEWNS, CLONE_NEWUSER, PATIENCE, Cluster, Node

CLONE_NEWNET = 0x40000000
PORT = 4700          # What others are told.
HIDDEN_PORT = 4701   # Where a node behind a proxy listens.
BRIDGE = "10.99.0.1"
ROOM_MB = 512        # What small disks get when they are to be small no longer.

_libc = ctypes.CDLL(None, use_errno=True)
_place = {}


def run(*command, check=True):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done


def _unshare():
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        if _libc.unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUSER) != 0:
            raise RuntimeError("neither root nor user namespaces")
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"),
                           ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    # First of all: where the rest fails, rows that need no networks of their own run in here.
    run("ip", "link", "set", "lo", "up")
    run("mount", "--make-rprivate", "/")


def enter():
    """Make the place where clusters live, once. Says why there is none, or is None."""
    if "why" in _place:
        return _place["why"]
    try:
        _unshare()
        run("mount", "-t", "tmpfs", "bop-chaos", "/run")
        os.makedirs("/run/netns", exist_ok=True)
        run("ip", "link", "add", "bop0", "type", "bridge")
        run("ip", "address", "add", f"{BRIDGE}/16", "dev", "bop0")
        run("ip", "link", "set", "bop0", "up")
        _place["why"] = None
    except (RuntimeError, OSError) as error:
        _place["why"] = f"no network namespaces: {error}"
        tap.say(_place["why"])
    return _place["why"]


def can_filter():
    """Why packets cannot be dropped; None if they can."""
    if "filter" not in _place:
        why = enter()
        if why is None:
            try:
                done = run("iptables", "-w", "-A", "INPUT", "-s", "10.99.255.1", "-j", "DROP",
                           check=False)
                why = f"iptables: {done.stderr.strip()}" if done.returncode else None
            except OSError as error:
                why = f"iptables: {error}"
        _place["filter"] = why
    return _place["filter"]


def knows(program, flag):
    """Whether this bopd has the flag: in a rolling upgrade an older one runs."""
    if (program, flag) not in _place:
        _place[program, flag] = flag in run(program, "--help").stdout
    return _place[program, flag]


def is_sanitized(program):
    """Whether a sanitizer is in it."""
    if (program, "sanitized") not in _place:
        with open(program, "rb") as file:
            content = file.read()
        _place[program, "sanitized"] = any(word in content for word in
                                           (b"__asan_init", b"__tsan_init"))
    return _place[program, "sanitized"]


class Control:
    """What the shim under a node is told: struct control of shim/shim.c."""

    DELAY, FAILURES, CLOCK = (0, "<I"), (4, "<I"), (8, "<q")
    FAILED, SYNCS, LIES = (16, "<I"), (20, "<I"), (24, "<I")
    MEMORY_ONE_IN, MEMORY_REFUSED, MEMORY_ASKED = (28, "<I"), (32, "<I"), (36, "<I")

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as out:
            out.write(bytes(4096))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 4096)

    def set(self, field, value):
        struct.pack_into(field[1], self.memory, field[0], value)

    def get(self, field):
        return struct.unpack_from(field[1], self.memory, field[0])[0]


class ChaosNode(Node):
    """A node with an address of its own, faults on its links, and a shim if the cluster has one."""

    def __init__(self, owner, number, data):
        self.spaced = owner.spaced
        super().__init__(owner, number, PORT if owner.spaced else cluster.free_port(), data)
        self.host = f"10.99.{number}.2" if owner.spaced else "127.0.0.1"
        self.space = f"bop{number}"
        self.program = cluster.BOPD
        self.proxy = None
        self.doomed = False  # It may end by itself.
        self.control = None
        self.journal = os.path.join(os.path.dirname(data), "journal")  # Of the same file system.
        self.records = os.path.join(owner.directory, f"records-{number}")
        if owner.shim:
            self.control = Control(os.path.join(owner.directory, f"control-{number}"))
        if owner.spaced:
            self._make_space()

    def _make_space(self):
        outer = f"veth{self.number}"
        run("ip", "netns", "add", self.space)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        run("ip", "link", "set", outer, "master", "bop0", "up")
        self.inside("ip", "address", "add", f"{self.host}/16", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")
        self.inside("ip", "link", "set", "lo", "up")

    def drop_space(self):
        if self.spaced:
            run("ip", "netns", "del", self.space, check=False)
            run("ip", "link", "del", f"veth{self.number}", check=False)

    def inside(self, *command, check=True):
        return run("ip", "netns", "exec", self.space, *command, check=check)

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def arguments(self):
        listen = f"{self.host}:{HIDDEN_PORT if self.cluster.proxied else self.port}"
        out = ["--id", str(self.number), "--data", self.data, "--cluster", self.cluster.name,
               "--listen", listen]
        for node in self.cluster.nodes:
            if not node.join or node is self:
                out += ["--peer", f"{node.number}={node.address}"]
        if self.spaced and knows(self.program, "--insecure"):
            out += ["--insecure"]  # Of this machine only, but bopd cannot know.
        if self.cluster.config_path:
            out += ["--config", self.cluster.config_path]
        return out + (["--join"] if self.join else []) + self.extra

    def _environment(self):
        env = cluster.environment()
        if self.control:
            shutil.rmtree(self.journal, ignore_errors=True)
            os.makedirs(self.journal)
            env.update(LD_PRELOAD=self.cluster.shim, BOP_CHAOS_CONTROL=self.control.path)
            if self.cluster.journaled:
                env.update(BOP_CHAOS_DATA=self.data, BOP_CHAOS_JOURNAL=self.journal,
                           BOP_CHAOS_RECORDS=self.records)
        return env

    def start(self, wait=True, **more):
        assert self.stopped
        self.doomed = False
        if self.cluster.proxied and self.proxy is None:
            self.proxy = proxy.Running(["ip", "netns", "exec", self.space], self.address,
                                       f"{self.host}:{HIDDEN_PORT}",
                                       preexec_fn=cluster.die_with_parent)
        command = ["ip", "netns", "exec", self.space] if self.spaced else []
        self.log_start = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        env = self._environment()
        if env.get("LD_PRELOAD"):  # Under bopd only, not under ip.
            command += ["env"] + [f"{k}={env.pop(k)}" for k in list(env)
                                  if k == "LD_PRELOAD" or k.startswith("BOP_CHAOS")]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*command, self.program, *self.arguments()],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=env, preexec_fn=cluster.die_with_parent, **more)
        self.stopped = False
        if wait:
            self.wait_serving()
        return self

    def connect(self, timeout=10.0):
        return wire.Connection(self.port, timeout, self.host)

    def status_quickly(self):
        """As status(), for a node that may be cut off."""
        try:
            with self.connect(timeout=0.5) as connection:
                return connection.status()
        except (OSError, wire.Closed):
            return None

    def wait_serving(self):
        """One that may end by itself may do so late: then it is started again."""
        def serving():
            self.start_again()
            try:
                with self.connect(timeout=2.0) as connection:
                    return connection.hello()["status"] == wire.OK
            except (OSError, wire.Closed):
                return False
        tap.wait_until(serving, f"node {self.number} serves", PATIENCE)

    def anonymous_bytes(self):
        """Memory that is of no file; 0 when it has ended."""
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
                return next((int(line.split()[1]) * 1024 for line in status
                             if line.startswith("RssAnon:")), 0)
        except OSError:
            return 0

    # ---- Its end ----

    def has_ended(self):
        return not self.stopped and self.process.poll() is not None

    def note_end(self):
        """If it has ended by itself, it is known to be down from here on; fails the test if that is
        none of its faults."""
        if self.has_ended():
            tap.check(self.doomed, f"node {self.number} ended with {self.process.returncode}: "
                                   f"{self.last_line()}")
            self.stopped = True

    def kill(self):
        self.note_end()
        if not self.stopped:
            super().kill()

    def pause(self):
        self.note_end()
        if not self.stopped and not self.paused:
            super().pause()

    def resume(self):
        if self.paused:
            super().resume()

    def start_again(self):
        self.note_end()
        if self.stopped:
            self.start(wait=False)

    # ---- Its links ----

    def table(self, *rule, check=True):
        return self.inside("iptables", "-w", *rule, check=check)

    def cut(self, way="both", peer=None):
        """Lose all packets that come in, go out, or both; those of one peer or of everybody."""
        if way in ("in", "both"):
            self.table("-A", "INPUT", *(["-s", peer.host] if peer else ["-i", "eth0"]),
                       "-j", "DROP")
        if way in ("out", "both"):
            self.table("-A", "OUTPUT", *(["-d", peer.host] if peer else ["-o", "eth0"]),
                       "-j", "DROP")

    def lose(self, probability):
        self.table("-A", "INPUT", "-i", "eth0", "-m", "statistic", "--mode", "random",
                   "--probability", f"{probability:.3f}", "-j", "DROP")

    def reset_connections(self):
        """Answer whatever comes in with a reset."""
        self.table("-A", "INPUT", "-i", "eth0", "-p", "tcp", "-j", "REJECT", "--reject-with",
                   "tcp-reset")

    def slow(self, rate):
        self.inside("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate,
                    "burst", "32kbit", "latency", "400ms")
        run("tc", "qdisc", "replace", "dev", f"veth{self.number}", "root", "tbf", "rate", rate,
            "burst", "32kbit", "latency", "400ms")

    def mend(self):
        """All links as new."""
        if self.spaced:
            self.table("-F", check=False)
            self.inside("tc", "qdisc", "del", "dev", "eth0", "root", check=False)
            run("tc", "qdisc", "del", "dev", f"veth{self.number}", "root", check=False)


class ChaosCluster(Cluster):
    """Use as `with ChaosCluster(...) as cluster:`. proxied: with a slow, unreliable proxy in front of
    each node. shim: the path of the shim. journaled: the shim writes down what a loss of power takes
    back. small: megabytes of the disks of all nodes. tls: all listeners speak TLS."""

    def __init__(self, count=3, config="", proxied=False, shim=None, journaled=False, small=None,
                 tls=False):
        self.tls = tls
        self.authority = None
        self.spaced = enter() is None
        self.proxied = proxied
        self.shim = shim
        self.journaled = journaled
        self.small = small
        self.mounts = []
        self.retired = []
        super().__init__(count, config, start=False)

    def add(self, join=False):
        number = len(self.nodes) + len(self.retired) + 1
        data = os.path.join(self.directory, f"disk{number}", "data")
        disk = os.path.dirname(data)
        os.makedirs(disk)
        if self.small:
            cluster.mount_small(disk, self.small)
            self.mounts.append(disk)
        node = ChaosNode(self, number, data)
        node.join = join
        if self.tls:
            self._certify(node)
        self.nodes.append(node)
        return node

    def _certify(self, node):
        if self.authority is None:
            self.authority = Authority(self.directory)
            wire.TRUST["context"] = self.authority.context()
        name = f"n{node.number}"
        self.authority.issue(name, f"DNS:bop-node-{node.number},DNS:localhost,IP:{node.host}")
        node.extra += ["--tls-certificate", self.authority.crt(name), "--tls-key",
                       self.authority.key(name), "--tls-ca", self.authority.crt()]

    def retire(self, node):
        """It was removed from the cluster for good: it may end by itself, and nobody waits for it."""
        node.doomed = True
        self.nodes.remove(node)
        self.retired.append(node)

    def _end(self, failed):
        self.nodes += self.retired
        for node in self.nodes:
            if node.has_ended() and node.doomed:
                node.stopped = True
            if node.proxy:
                node.proxy.stop()
        super()._end(failed)
        if self.tls:
            wire.TRUST["context"] = None
        for node in self.nodes:
            node.drop_space()
        for disk in self.mounts:
            cluster.unmount(disk)
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- Around faults ----

    def lead(self):
        """The node that thinks that it leads, in the newest term, without any waiting; or None."""
        said = [(s["term"], n) for n in self.up()
                for s in [n.status_quickly()] if s and s["state"] == wire.LEADER]
        return max(said, key=lambda each: each[0])[1] if said else None

    def wait_applied(self, index, without=None):
        """All nodes but one have applied what lies up to the index."""
        def done():
            said = [n.status() for n in self.up() if n is not without]
            return all(s and s["applied"] >= index for s in said)
        tap.wait_until(done, f"entry {index} is applied", PATIENCE)

    def revive(self):
        """Start what is down; what may not have ended by itself fails the test. What may have is
        started anew in any case, for it may be about to end, and nobody sees that from outside."""
        for node in self.nodes:
            node.resume()
            if node.doomed:
                node.kill()
            node.start_again()
        for node in self.nodes:
            node.wait_serving()

    def make_room(self):
        """On all small disks, for whatever the load writes."""
        for disk in self.mounts:
            cluster.resize_small(disk, self.small + ROOM_MB)


__all__ = ["ChaosCluster", "ChaosNode", "Control", "can_filter", "enter", "is_sanitized", "run"]
