#!/usr/bin/env python3
"""The tiers on a real S3 server, and through a network that misbehaves.

usage: test_s3_tiers.py S3_LIFE SOURCE_ROOT [WORD...]
"""

import atexit
import contextlib
import os
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "..", "system"), os.path.join(HERE, "..", "s3")]

import proxy as faults  # pylint: disable=wrong-import-position
import server  # pylint: disable=wrong-import-position
import tap  # pylint: disable=wrong-import-position
from tap import Skip, check, check_equal, test  # pylint: disable=wrong-import-position

LIFE, ROOT = sys.argv[1:3]

# No proxy of the machine's, which the client would use, nor its CA files.
ENVIRONMENT = {key: value for key, value in os.environ.items()
               if not key.lower().endswith("_proxy") and not key.startswith(("SSL_", "CURL_"))}


def start():
    path, why = server.program(ROOT)
    if not path:
        raise Skip(why)
    running = server.Server(path)
    atexit.register(running.close)
    proxy = faults.Proxy(running.port, running.ca_file)
    atexit.register(proxy.close)
    return proxy


def live(proxy):
    words = {"ENDPOINT": proxy.endpoint, "BUCKET": server.BUCKET, "REGION": server.REGION,
             "ACCESS_KEY": server.ACCESS_KEY, "SECRET_KEY": server.SECRET_KEY}
    environment = {f"BOP_TEST_S3_{key}": value for key, value in words.items()}
    done = subprocess.run([LIFE], capture_output=True, text=True, timeout=600,
                          env={**ENVIRONMENT, **environment}, stdin=subprocess.DEVNULL)
    tap.note(done.stdout[-3000:] + done.stderr[-3000:])
    check_equal(done.returncode, 0, "exit status of s3_life")
    check("ok 1 - s3" in done.stdout and "skip" not in done.stdout.lower(), "it ran")


@test
def a_log_lives_in_a_bucket():
    live(start())


@test
def a_log_lives_behind_a_bad_network():
    proxy = start()
    # Each fault comes twice, at requests some way apart.
    order = [(faults.status(503, "SlowDown"), None), (faults.cut_answer(10), "GET"),
             (faults.lose_answer, "PUT"), (faults.duplicate, "PUT"),
             (faults.status(500, "InternalError"), "HEAD"), (faults.flip_answer(7), "GET"),
             (faults.cut_request(1000), "PUT"), (faults.lose_answer, "DELETE")]
    with contextlib.ExitStack() as stack:
        rules = [stack.enter_context(proxy.fault(fault, method, "segment-|manifest/", skip=skip))
                 for i, (fault, method) in enumerate(order) for skip in (i, 5 + 3 * i)]
        live(proxy)
        met = sum(rule.met for rule in rules)
        check(met >= 10, f"{met} faults of {len(rules)} were met")


tap.main()
