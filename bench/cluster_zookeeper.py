"""Three nodes of ZooKeeper for bench/cluster, and its load: bench/zkload.c."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import report
from cluster_nodes import NODES, START_S, Cluster

JAR = "/usr/share/java/zookeeper.jar"  # Its manifest names all others.
HEADER = "/usr/include/zookeeper/zookeeper.h"
WARMUP_S = 5.0  # For the compiler of its virtual machine.


class ZooKeeper(Cluster):
    """Writes alone, with 64 outstanding: that is what we are held against."""

    ports_each = 3
    connections = {64: 4}  # With one its client is the bottleneck; eight give no more.

    def __init__(self, directory, program):
        super().__init__(directory, None)
        self.program = program

    def start(self, number):
        data = self.directory / str(number + 1)
        if not data.exists():
            data.mkdir(parents=True)
            (data / "myid").write_text(f"{number + 1}\n", encoding="ascii")
            (data / "zoo.cfg").write_text(self.settings(number), encoding="ascii")
        super().start(number)

    def settings(self, number):
        servers = "".join(
            f"server.{n + 1}=127.0.0.1:{self.ports[NODES + n]}:{self.ports[2 * NODES + n]}\n"
            for n in range(NODES))
        return (f"tickTime=2000\ninitLimit=10\nsyncLimit=5\nforceSync=yes\nmaxClientCnxns=0\n"
                f"dataDir={self.directory / str(number + 1)}\n"
                f"clientPortAddress=127.0.0.1\nclientPort={self.ports[number]}\n"
                f"admin.enableServer=false\n4lw.commands.whitelist=srvr\n{servers}")

    def node_argv(self, number):
        # forceSync is on by default, and as a property it counts for certain. No log4j.properties.
        return ["java", "-Xms512m", "-Xmx512m", "-Dzookeeper.forceSync=yes",
                "-Djava.net.preferIPv4Stack=true", "-cp", JAR,
                "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                str(self.directory / str(number + 1) / "zoo.cfg")]

    def servers(self, mode, leader):
        return self.address(leader)  # So that no request is forwarded.

    def leads(self, number):
        with socket.create_connection(("127.0.0.1", self.ports[number]), timeout=2) as sock:
            sock.sendall(b"srvr")
            answer = b""
            while part := sock.recv(4096):
                answer += part
        return b"Mode: leader" in answer

    def leader(self):
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            for number in range(NODES):
                with contextlib.suppress(OSError):
                    if self.leads(number):
                        return number
            time.sleep(0.1)
        raise RuntimeError("ZooKeeper has no leader")

    def measure_load(self, seconds):
        self.load("fill", 64)
        values = report.run_program(self.load_argv("write", 64, seconds, WARMUP_S), timeout_s=120)
        return {"write 64": values["ops"], "write 64 p50": values["p50_us"] / 1000,
                "write 64 p99": values["p99_us"] / 1000}


def version():
    """As "ZooKeeper 3.8"."""
    names = sorted(pathlib.Path(JAR).parent.glob("zookeeper-[0-9]*.jar"))
    return f"ZooKeeper {'.'.join(names[-1].stem.split('-')[1].split('.')[:2])}" if names \
        else "ZooKeeper"


def build_load(out):
    """Build bench/zkload.c. Raises report.Missing if it cannot be."""
    source = report.ROOT / "bench" / "zkload.c"
    if not shutil.which("java") or not os.path.exists(JAR) or not os.path.exists(HEADER):
        raise report.Missing("ZooKeeper or its C client: scripts/deps bench installs them")
    if out.exists() and out.stat().st_mtime > source.stat().st_mtime:
        return
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    print("# building the load of ZooKeeper", file=sys.stderr)
    if subprocess.run(["cc", "-std=gnu17", "-O2", "-o", str(out), str(source), "-lzookeeper_mt",
                       "-lpthread"], check=False).returncode:
        raise report.Missing("the load of ZooKeeper could not be built")
