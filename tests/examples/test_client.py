#!/usr/bin/env python3
"""The example client against a real bopd.

usage: test_client.py PATH_OF_CLIENT PATH_OF_BOPD
"""

import re
import signal
import subprocess
import sys

CLIENT, BOPD = sys.argv[1:3]
PATIENCE = 60


def run(server):
    return subprocess.run([CLIENT, server], capture_output=True, text=True, timeout=PATIENCE,
                          check=False)


def result(number, name, good, details=""):
    print(f"{'ok' if good else 'not ok'} {number} - example client: {name}")
    for line in details.splitlines() if not good else []:
        print(f"# {line}")
    return good


def main():
    print("TAP version 13\n1..2")
    node = subprocess.Popen([BOPD, "--dev", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True)
    try:
        server = re.search(r"ready on (\S+)", node.stdout.readline()).group(1)
        said = [run(server) for _ in range(2)]
        good = all(re.fullmatch(rf"hello world, version \d+, visit {visit}\n", done.stdout)
                   for visit, done in enumerate(said, 1))
        good = result(1, "puts, gets and counts", good, "\n".join(map(repr, said)))
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(PATIENCE)
    done = run(server)
    gone = done.returncode == 1 and re.fullmatch(r"client: [^\n]+\n", done.stderr) is not None
    good = result(2, "says in one line that nobody is there", gone, repr(done)) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
