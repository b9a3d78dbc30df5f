"""Three nodes of each sort for bench/cluster: starting and ending them, and the load they get."""

import contextlib
import ctypes
import json
import math
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

import report

NODES = 3
KEYS = 10000
SIZE = 128
FAST_MS = (300, 50)  # Election timeout and heartbeat, where a leader is killed.
START_S = 30  # To have a leader.
IDLE_S = 5
FAILOVERS = 3  # In a round.
WRITES = (1, 64, 1024)
READS = (64, 1024)
OTHERS = ("counter", "lock", "register")  # Of ours alone, with 64 outstanding.
SESSION_OWNS = 131072  # Registrations, at most: so more of them a run take more sessions.
REGISTRATIONS_S = 100000  # More than there will be.
WATCHES = 100000  # On so many connections...
WATCH_CONNECTIONS = 100
PR_SET_PDEATHSIG = 1


def free_ports(count):
    """Ports that were free just now. All are held until the last one is found."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
        return ports


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def resident_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} is gone")


# ---- Clusters ----


class Cluster:
    """Three nodes of one sort in a directory of their own. A context: leaving it ends them."""

    connections = dict.fromkeys(WRITES, 1)  # Of the load, by requests outstanding.
    steady_ms = FAST_MS  # The timers where no leader is killed.
    others = ()
    ports_each = 2

    def __init__(self, directory, timers_ms):
        self.directory = pathlib.Path(directory)
        self.timers_ms = timers_ms
        self.nodes = [None] * NODES
        self.ports = free_ports(self.ports_each * NODES)

    def __enter__(self):
        try:
            for number in range(NODES):
                self.start(number)
            self.leader()
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        for node in self.nodes:
            if node:
                node.kill()
                node.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, number):
        self.spawn(number)
        self.check_started(number)

    def spawn(self, number):
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / f"{number + 1}.log", "ab") as log:
            self.nodes[number] = subprocess.Popen(self.node_argv(number), stdout=log, stderr=log,
                                                  preexec_fn=die_with_parent, env=self.env())

    def check_started(self, number):
        time.sleep(0.1)
        if self.nodes[number].poll() is not None:
            log = (self.directory / f"{number + 1}.log").read_text(errors="replace")
            raise RuntimeError(f"node {number + 1} did not start:\n{log[-2000:]}")

    def env(self):
        return dict(os.environ)

    def address(self, number):
        return f"127.0.0.1:{self.ports[number]}"

    def servers(self, mode, leader):
        """Whom the load is told of."""
        raise NotImplementedError

    def clients(self, mode, outstanding, seconds):
        """Connections of the load, each of which has a session."""
        connections = self.connections.get(outstanding, 1)
        if mode == "register":
            connections = max(connections, math.ceil(seconds * REGISTRATIONS_S / SESSION_OWNS))
        return connections

    def load_argv(self, mode, outstanding, seconds, warmup=1.0, keys=KEYS):
        return [self.program, "--servers", self.servers(mode, self.leader()), "--mode", mode,
                "--outstanding", str(outstanding), "--seconds", str(seconds), "--warmup",
                str(warmup), "--clients", str(self.clients(mode, outstanding, seconds + warmup)),
                "--keys", str(keys), "--size", str(SIZE)]

    @contextlib.contextmanager
    def background(self, *load, **options):
        """A load that goes on meanwhile; what it prints is in the list given, in the end."""
        lines = []
        with subprocess.Popen(self.load_argv(*load, **options) + ["--count-failed", "--trace"],
                              stdout=subprocess.PIPE, text=True,
                              preexec_fn=die_with_parent) as process:
            try:
                yield lines
                process.terminate()
                out, _ = process.communicate(timeout=60)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise RuntimeError("the load in the background failed")
        lines += out.splitlines()

    def load(self, mode, outstanding, seconds=1.0):
        return report.run_program(self.load_argv(mode, outstanding, seconds), timeout_s=120)

    def fail_over(self):
        """Kill the leader under writes. Returns ms from the kill to the next write's answer."""
        leader = self.leader()
        argv = self.load_argv("failover", 1, seconds=3.0, warmup=0.5)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True,
                              preexec_fn=die_with_parent) as load:
            time.sleep(1.5)
            self.nodes[leader].kill()
            killed = time.clock_gettime(time.CLOCK_MONOTONIC)
            self.nodes[leader].wait()
            out, _ = load.communicate(timeout=60)
        if load.returncode != 0:
            raise RuntimeError("the load failed while its leader was killed")
        values = {name: float(value) for name, value in map(str.split, out.splitlines())}
        self.start(leader)
        lost_ms = (values["gap_end_s"] - killed) * 1000
        if not 0 < lost_ms < 60000:
            raise RuntimeError(f"the longest gap was not the killed leader's: {values}")
        return lost_ms

    def measure_load(self, seconds):
        """{case: figure}."""
        time.sleep(IDLE_S)
        got = {"idle MB": max(resident_bytes(node.pid) for node in self.nodes) / 1e6}
        self.load("fill", 64)
        for mode, counts in (("write", WRITES), ("read", READS)):
            for outstanding in counts:
                values = self.load(mode, outstanding, seconds)
                got[f"{mode} {outstanding}"] = values["ops"]
                got[f"{mode} {outstanding} p50"] = values["p50_us"] / 1000
                got[f"{mode} {outstanding} p99"] = values["p99_us"] / 1000
        for mode in self.others:
            values = self.load(mode, 64, seconds)
            got[f"{mode} 64"] = values["ops"]
            got[f"{mode} 64 p99"] = values["p99_us"] / 1000
        got["used MB"] = max(resident_bytes(node.pid) for node in self.nodes) / 1e6
        return got

    def measure_failover(self):
        self.load("fill", 64)
        outages = []
        for _ in range(FAILOVERS):
            outages.append(self.fail_over())
            time.sleep(2)  # For the restarted one to catch up.
        return {"failover": statistics.median(outages), "failover worst": max(outages)}


def measure(make, timers_ms, seconds):
    """All cases of one round, on a cluster for the load and another to kill leaders of."""
    with make(timers_ms) as cluster:
        got = cluster.measure_load(seconds)
    with make(FAST_MS) as cluster:
        return got | cluster.measure_failover()


class Ours(Cluster):
    """FAST_MS are bopd's defaults."""

    others = OTHERS
    program = report.Report.program("load")

    def __init__(self, directory, timers_ms, bopd, http=False):
        super().__init__(directory, timers_ms)
        self.bopd = bopd
        self.http = http

    def node_argv(self, number):
        argv = [self.bopd, "--id", str(number + 1), "--data", str(self.directory / str(number + 1)),
                "--listen", self.address(number)]
        for peer in range(NODES):
            argv += ["--peer", f"{peer + 1}={self.address(peer)}"]
        if self.http:
            argv += ["--http", self.http_address(number)]
        return argv

    def http_address(self, number):
        return f"127.0.0.1:{self.ports[NODES + number]}"

    def await_ready(self, numbers, patience_s=300):
        """Until /readyz says so at each of these nodes."""
        until = time.monotonic() + patience_s
        for number in numbers:
            while not self.is_ready(number):
                if time.monotonic() > until or self.nodes[number].poll() is not None:
                    raise RuntimeError(f"node {number + 1} does not become ready")
                time.sleep(0.01)

    def is_ready(self, number):
        try:
            with urllib.request.urlopen(f"http://{self.http_address(number)}/readyz", timeout=5):
                return True
        except OSError:  # URLError is one, and so is the HTTPError of a 503.
            return False

    def stop(self, number):
        """End a node in order."""
        self.nodes[number].terminate()
        if self.nodes[number].wait(timeout=120) != 0:
            raise RuntimeError(f"node {number + 1} did not end in order")

    def command(self, number, *words):
        """Run `bop cluster ...`, asking this node."""
        bop = pathlib.Path(self.bopd).with_name("bop")
        subprocess.run([bop, "cluster", *words, "--server", self.address(number)], check=True,
                       stdout=subprocess.DEVNULL, timeout=60)

    def servers(self, mode, leader):
        return ",".join(self.address(number) for number in range(NODES))

    def measure_load(self, seconds):
        got = super().measure_load(seconds)
        values = report.run_program([report.Report.program("watch"), "--servers",
                                     self.servers("watch", None), "--watches", str(WATCHES),
                                     "--connections", str(WATCH_CONNECTIONS)], timeout_s=120)
        return got | {"watch": values["event_ms_median"], "watch worst": values["event_ms_max"]}

    def leader(self):
        values = report.run_program([self.program, "--servers", self.servers("leader", None),
                                     "--mode", "leader"], timeout_s=60)
        return int(values["leader"]) - 1


class Etcd(Cluster):
    # One connection of etcd's client is a bottleneck of its own with many requests outstanding;
    # these numbers gave etcd the highest rates here.
    connections = {1: 1, 64: 8, 1024: 16}
    # Its defaults: with the timers of the failover it changes leaders under load.
    steady_ms = (1000, 100)

    def __init__(self, directory, timers_ms, program):
        super().__init__(directory, timers_ms)
        self.program = program

    def node_argv(self, number):
        def peer(index):
            return f"http://127.0.0.1:{self.ports[NODES + index]}"

        client = f"http://{self.address(number)}"
        return ["etcd", "--name", f"n{number}", "--data-dir", str(self.directory / str(number)),
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer(number), "--initial-advertise-peer-urls", peer(number),
                "--initial-cluster", ",".join(f"n{i}={peer(i)}" for i in range(NODES)),
                "--initial-cluster-state", "new", "--logger", "zap", "--log-level", "error",
                "--election-timeout", str(self.timers_ms[0]),
                "--heartbeat-interval", str(self.timers_ms[1])]

    def servers(self, mode, leader):
        # The leader alone, so that no request is forwarded; all where the leader will change.
        everyone = (self.address(number) for number in range(NODES))
        return ",".join(everyone) if mode == "failover" else self.address(leader)

    def status(self, number):
        request = urllib.request.Request(f"http://{self.address(number)}/v3/maintenance/status",
                                         data=b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=2) as answer:
            return json.load(answer)

    def leader(self):
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            for number in range(NODES):
                with contextlib.suppress(OSError, ValueError, KeyError, urllib.error.URLError):
                    status = self.status(number)
                    if status["leader"] == status["header"]["member_id"] != "0":
                        return number
            time.sleep(0.1)
        raise RuntimeError("etcd has no leader")


# ---- What is needed ----


def build_peer_load(out):
    """Build bench/etcdload.go with what Debian has. Raises report.Missing if it cannot be."""
    source = report.ROOT / "bench" / "etcdload.go"
    go = "/usr/lib/go/bin/go" if os.path.exists("/usr/lib/go/bin/go") else shutil.which("go")
    if not shutil.which("etcd") or not go or not os.path.isdir("/usr/share/gocode/src/go.etcd.io"):
        raise report.Missing("etcd, go or etcd's client: scripts/deps bench installs them")
    if out.exists() and out.stat().st_mtime > source.stat().st_mtime:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    print("# building the load of etcd", file=sys.stderr)
    env = dict(os.environ, GO111MODULE="off", GOPATH="/usr/share/gocode", GOFLAGS="",
               GOCACHE=str(out.parent / "gocache"))
    if subprocess.run([go, "build", "-o", str(out), str(source)], env=env, check=False).returncode:
        raise report.Missing("the load of etcd could not be built")
