#!/usr/bin/env python3
"""ws-echo and a client of ours under Autobahn|Testsuite: every case passes, its close included.

usage: test_autobahn.py WS_ECHO AUTOBAHN_CLIENT SYSTEM_TESTS

The suite is written for Python 2, which Debian has no more: where its program `wstest` is not in the
path, nor named by WSTEST, this is skipped. AUTOBAHN_CASES names other cases than all, as "6.* 9.1.*".
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, sys.argv[3])
from tap import Skip, check, main, test, wait_until  # noqa: E402

WS_ECHO, CLIENT = sys.argv[1:3]
CASES = os.environ.get("AUTOBAHN_CASES", "*").split()
PATIENCE = 3000
FINE = ("OK", "INFORMATIONAL")  # The latter where the RFC leaves it open.


def wstest():
    program = os.environ.get("WSTEST") or shutil.which("wstest")
    if program is None:
        raise Skip("no wstest")
    return program


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_up(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def program(*argv, **options):
    process = subprocess.Popen(argv, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)
        if process.stdout:
            process.stdout.close()


def start(directory, mode, **spec):
    """wstest's arguments."""
    path = pathlib.Path(directory) / "spec.json"
    path.write_text(json.dumps({"outdir": str(pathlib.Path(directory) / "out"), "cases": CASES,
                                "exclude-cases": [], "exclude-agent-cases": {}, **spec}))
    return [wstest(), "--mode", mode, "--spec", str(path)]


def judge(directory):
    index = json.loads((pathlib.Path(directory) / "out" / "index.json").read_text())
    results = next(iter(index.values()))
    print(f"# {len(results)} cases")
    bad = [f"{case}: {got['behavior']}, close {got['behaviorClose']}"
           for case, got in results.items()
           if got["behavior"] not in FINE or got["behaviorClose"] not in FINE]
    check(results and not bad, "\n".join(bad) or "there were cases")


@test
def our_server_passes_every_case():
    with tempfile.TemporaryDirectory() as directory, \
            program(WS_ECHO, "--port", "0", stdout=subprocess.PIPE) as server:
        url = f"ws://127.0.0.1:{server.stdout.readline().split()[-1]}"
        subprocess.run(start(directory, "fuzzingclient", servers=[{"agent": "bop", "url": url}]),
                       stdout=subprocess.DEVNULL, check=True, timeout=PATIENCE)
        judge(directory)


@test
def our_client_passes_every_case():
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as directory, \
            program(*start(directory, "fuzzingserver", url=url), stdout=subprocess.DEVNULL):
        wait_until(lambda: is_up(port), "the suite's server listens")
        subprocess.run([CLIENT, url], check=True, timeout=PATIENCE)
        judge(directory)


if __name__ == "__main__":
    main()
