"""Bounds of memory for nodes, by a cgroup each, where the machine lets us make some."""

import os

V1 = "/sys/fs/cgroup/memory"
V2 = "/sys/fs/cgroup"


def _write(path, text):
    with open(path, "w", encoding="ascii") as out:
        out.write(str(text))


def _read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


class Memory:
    """Each of the nodes may have so many megabytes. text says what came of it."""

    def __init__(self, nodes, megabytes):
        self.groups = {}
        self.text = f"each node has {megabytes} MB of memory"
        v1 = os.path.isdir(V1)
        base, limit = (V1, "memory.limit_in_bytes") if v1 else (V2, "memory.max")
        try:
            for node in nodes:
                path = os.path.join(base, f"bop-chaos-{os.getpid()}-{node.number}")
                os.mkdir(path)
                self.groups[path] = node
                _write(os.path.join(path, limit), megabytes << 20)
                _write(os.path.join(path, "cgroup.procs"), node.process.pid)
        except OSError as error:
            self.text = f"no memory cgroups, so memory is not bounded: {error}"
            self.end()

    def check(self):
        """No node was killed for want of memory: one that dies of it ended by itself, which the
        campaign finds out; here it is said why."""
        for path, node in self.groups.items():
            events = os.path.join(path, "memory.oom_control")
            if not os.path.exists(events):
                events = os.path.join(path, "memory.events")
            for line in _read(events).splitlines():
                if line.startswith("oom_kill ") and line.split()[1] != "0":
                    raise AssertionError(f"node {node.number} had no memory left")

    def end(self):
        base = V1 if os.path.isdir(V1) else V2
        for path in list(self.groups):
            try:
                for pid in _read(os.path.join(path, "cgroup.procs")).split():
                    _write(os.path.join(base, "cgroup.procs"), pid)
                os.rmdir(path)
            except OSError:
                pass
            self.groups.pop(path, None)
