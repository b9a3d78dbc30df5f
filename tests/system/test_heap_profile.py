#!/usr/bin/env python3
"""A running node's heap profile, by signals."""

import os
import re
import shutil
import signal
import subprocess

import tap
import wire
from cluster import BOPD, Cluster
from tap import check, check_equal, test, wait_until

HEADER = re.compile(r"heap profile: \d+: \d+ \[(\d+): \d+\] @ heap_v2/524288\n")


def logs(node, text):
    return sum(text in line for line in node.log())


def profile(node, number):
    """The path of the node's profile of that number, made now, and its text."""
    path = os.path.join(node.data, f"heap-{number}.pprof")
    os.kill(node.process.pid, signal.SIGUSR2)
    wait_until(lambda: logs(node, f"heap profile written path={path}"), f"{path} is written")
    with open(path, encoding="utf-8") as file:
        return path, file.read()


def fill(node, values):
    with node.connect() as connection:
        connection.hello()
        for i in range(values):
            check_equal(connection.write(wire.map_put("m", b"key%d" % i, b"v" * 50000))[0],
                        wire.OK, "a write")


@test
def signals_start_write_and_stop_a_profile_of_a_node_that_goes_on():
    with Cluster(1) as cluster:
        node = cluster.nodes[0]
        os.kill(node.process.pid, signal.SIGUSR1)
        wait_until(lambda: logs(node, "heap profile started"), "it starts")
        fill(node, 200)
        path, text = profile(node, 1)
        header = HEADER.match(text)
        check(header, f"the header is {text[:80]!r}")
        check(int(header.group(1)) > 0, "nothing was sampled in 10 MB of writes")
        check("\nMAPPED_LIBRARIES:\n" in text and "bopd\n" in text, "there are no mappings")
        check_equal(os.stat(path).st_mode & 0o777, 0o600, "mode of the file")
        pprof = shutil.which("google-pprof")
        if pprof:
            done = subprocess.run([pprof, "--text", "--alloc_space", BOPD, path],
                                  capture_output=True, text=True, check=True)
            tap.note(done.stdout)
            check("main" in done.stdout.split() or "start_thread" in done.stdout,
                  f"no function of bopd's in {done.stdout!r}")

        os.kill(node.process.pid, signal.SIGUSR1)
        wait_until(lambda: logs(node, "heap profile stopped"), "it stops")
        fill(node, 200)
        _, again = profile(node, 2)
        check_equal(HEADER.match(again).group(1), HEADER.match(profile(node, 3)[1]).group(1),
                    "samples after the stop")
        node.terminate()
        node.start()
        fill(node, 1)
        check_equal(profile(node, 4)[1][:13], "heap profile:", "a profile of nothing")


if __name__ == "__main__":
    tap.main()
