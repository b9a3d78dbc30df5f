"""One campaign: a cluster under load, one row of the fault matrix or a mix of them, healing, and
the checks. What is left of it is a directory with the history, the faults, the seed and the logs."""

import glob
import os
import random
import shutil
import signal
import subprocess
import time

import plot
import tap
import watcher
import wire
from cluster import die_with_parent, read
from tap import check

CHECK_CAP_S = 120
LOAD_PATIENCE_S = 180
BULK_BYTES = 65536  # So large a value is written so often each second, a larger one less so.
BULK_RATE = 200
# What no log may say unless files were damaged on purpose.
WATCHERS = 2
MAPS = ("chaos-registers", "chaos-lists", "chaos-pairs", "chaos-watch")
DAMAGE = ("not whole",)


class Programs:
    """Where the programs are: bopd, bop, chaos_load, chaos_check, the shim."""
    bopd = bop = load = check = shim = old = None


def content(node, name):
    """A map as this node has it."""
    found, cursor = [], b""
    while True:
        status, result = read(node, wire.map_scan(name, cursor), wire.STALE_READ)
        tap.check_equal(status, wire.OK, f"status of a scan of {name}")
        _, cursor, entries = wire.page_of(result)
        found += entries
        if not cursor:
            return found


class Campaign:
    """What a row gets: the cluster, chance, and a diary."""

    def __init__(self, cluster, name, seed, directory, rate=1500, workloads=None, bulk=None,
                 bulk_state=None):
        self.cluster = cluster
        self.name = name
        self.seed = seed
        self.random = random.Random(f"{name} {seed}")
        self.directory = directory
        self.rate = rate
        self.workloads = workloads
        self.bulk = bulk  # Bytes of a value; bulk_state: of all of them.
        self.bulk_state = bulk_state
        self.loads = []
        self.faults = []
        self.end = None
        self.watchers = None
        self.damaged = False
        os.makedirs(directory, exist_ok=True)

    # ---- For rows ----

    @property
    def nodes(self):
        return self.cluster.nodes

    def note(self, what):
        self.faults.append((time.monotonic_ns(), what))
        tap.note(what)

    def over(self):
        return time.monotonic() >= self.end

    def wait(self, least, most=None):
        """Let some time pass, but not beyond the end."""
        seconds = self.random.uniform(least, most or least)
        time.sleep(max(0.0, min(seconds, self.end - time.monotonic())))

    def leader_or_any(self):
        return self.cluster.lead() or self.random.choice(self.cluster.up() or self.nodes)

    def victim(self):
        """The leader half of the time."""
        if self.random.random() < 0.5:
            return self.leader_or_any()
        return self.random.choice(self.nodes)

    def some(self, count):
        return self.random.sample(self.nodes, count)

    def majority(self):
        return self.some(len(self.nodes) // 2 + 1)

    # ---- The load ----

    def history(self, number):
        return os.path.join(self.directory, f"history-{number}.txt")

    def start_load(self, **more):
        number = len(self.loads)
        servers = more.get("servers", self.nodes)
        command = [Programs.load, "--servers", ",".join(n.address for n in servers), "--history",
                   self.history(number), "--rate", str(more.get("rate", self.rate)), "--seed",
                   str(self.seed * 100 + number)]
        if self.cluster.authority:
            command += ["--ca", self.cluster.authority.crt()]
        for name in ("workloads", "bulk", "bulk_state"):
            if more.get(name):
                command += ["--" + name.replace("_", "-"), str(more[name])]
        out = open(os.path.join(self.directory, f"load-{number}.log"), "w", encoding="utf-8")
        self.loads.append(subprocess.Popen(command, stdout=out, stderr=out,
                                           preexec_fn=die_with_parent))
        out.close()
        return self.loads[-1]

    @staticmethod
    def stop_load(process):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)

    def finish_loads(self):
        for process in self.loads:
            check(process.poll() in (None, 0), f"the load ended with {process.returncode}")
            self.stop_load(process)
        for number, process in enumerate(self.loads):
            try:
                process.wait(LOAD_PATIENCE_S)
            except subprocess.TimeoutExpired as error:
                raise AssertionError(f"load {number} does not end") from error
            check(process.returncode == 0, f"the load ended with {process.returncode}")
            with open(os.path.join(self.directory, f"load-{number}.log"), encoding="utf-8") as log:
                tap.note(f"load {number}: {log.read().strip()}")

    def kill_loads(self):
        if self.watchers:
            self.watchers.stop()
        for process in self.loads:
            if process.poll() is None:
                process.kill()
            process.wait()

    # ---- The whole ----

    def start(self):
        """The watchers, then the load."""
        self.watchers = watcher.Watchers(self, WATCHERS,
                                         os.path.join(self.directory, "watcher-{}.txt"))
        self.start_load()
        if self.bulk:
            self.start_load(workloads="bulk", bulk=self.bulk, bulk_state=self.bulk_state,
                            rate=max(1, BULK_RATE * BULK_BYTES // max(BULK_BYTES, self.bulk)))

    def run(self, row, seconds):
        self.start()
        time.sleep(1.0)
        self.note(f"begin {row.title}")
        self.end = time.monotonic() + seconds
        row.run(self)
        self.note(f"end {row.title}")
        self.settle()

    def heal(self):
        for node in self.nodes:
            node.mend()
            if node.control:
                node.control.set(node.control.DELAY, 0)
                node.control.set(node.control.FAILURES, 0)
                node.control.set(node.control.MEMORY_ONE_IN, 0)
                node.control.set(node.control.CLOCK, 0)
        self.cluster.revive()

    def settle(self):
        """Heal; then they must elect, serve, converge, and have told the truth."""
        self.note("heal")
        self.cluster.make_room()
        self.heal()
        self.cluster.leader()
        self.note("healed")
        self.finish_loads()
        self.note("the load has ended")
        self.watchers.finish(self.last_watched())
        self.note("the watchers have heard all")
        self.cluster.converge()
        self.check_contents()
        self.note("all nodes hold the same")
        self.check_logs()
        self.judge()
        self.note("the history is fine")

    def check_contents(self):
        """The digest is that of the entries; what each node made of them must be the same, too."""
        for name in MAPS:
            first, *others = self.nodes
            expected = content(first, name)
            for node in others:
                check(content(node, name) == expected,
                      f"nodes {first.number} and {node.number} hold different things in {name}")

    def check_logs(self):
        for node in self.nodes:
            found = [line for line in node.log(whole=True) if any(word in line for word in DAMAGE)]
            check(self.damaged or not found, f"node {node.number} found damage that nobody did: "
                                             f"{found[:1]}")

    def last_watched(self):
        """The highest version of what the watchers watch, once nobody writes."""
        with open(self.history(0), encoding="ascii") as lines:
            last = [line for line in lines if " watch.final " in line][-1:]
        words = last[0].split() if last and " ok " in last[0] else []
        return max((int(word) for word in words[8::3]), default=0)

    def judge(self):
        """One history of all that was heard."""
        whole = os.path.join(self.directory, "history.txt")
        with open(whole, "wb") as out:
            for path in sorted(glob.glob(os.path.join(self.directory, "history-*.txt")) +
                               glob.glob(os.path.join(self.directory, "watcher-*.txt"))):
                with open(path, "rb") as part:
                    shutil.copyfileobj(part, out)
        done = subprocess.run([Programs.check, "--cap", str(CHECK_CAP_S), whole],
                              capture_output=True, text=True, check=False)
        tap.note(done.stdout + done.stderr)
        check(done.returncode == 0, f"the history is not that of a correct cluster:\n"
                                    f"{done.stdout}{done.stderr}")

    # ---- What is left ----

    def keep(self, why=None):
        """Write all down; why: how it failed."""
        with open(os.path.join(self.directory, "faults.txt"), "w", encoding="utf-8") as out:
            for when, what in self.faults:
                out.write(f"{when} {what}\n")
        with open(os.path.join(self.directory, "seed.txt"), "w", encoding="utf-8") as out:
            out.write(f"{self.name} seed {self.seed}\n")
            if why:
                out.write(f"{why}\n")
        for log in glob.glob(os.path.join(self.cluster.directory, "node-*.log")):
            shutil.copy(log, self.directory)
        plot.draw(self.directory)


__all__ = ["Campaign", "Programs"]
