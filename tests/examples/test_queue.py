#!/usr/bin/env python3
"""The example of queues between threads.

usage: test_queue.py PATH_OF_QUEUE
"""

import re
import subprocess
import sys

QUEUE = sys.argv[1]
PATIENCE = 60


def run(*arguments):
    return subprocess.run([QUEUE, *map(str, arguments)], capture_output=True, text=True,
                          timeout=PATIENCE, check=False)


def result(number, name, good, details):
    print(f"{'ok' if good else 'not ok'} {number} - example queue: {name}")
    if not good:
        print(f"# {details!r}")
    return good


def drains(jobs):
    """Every job is worked on once: its number and the length of "job N" are in the sum."""
    done = run(jobs)
    expected = sum(number + len(f"job {number}") for number in range(jobs))
    return done, done.stdout == f"{jobs} results, sum {expected}, 0 jobs discarded\n"


def stops():
    """It stops early: what is left over of the 64 jobs that may wait is discarded."""
    done = run(1000000, 10)
    match = re.fullmatch(r"(\d+) results, sum \d+, (\d+) jobs discarded\n", done.stdout)
    return done, match is not None and 10 <= int(match[1]) < 1000000 and int(match[2]) <= 64


def main():
    print("TAP version 13\n1..3")
    good = True
    for number, (name, (done, fine)) in enumerate([("does every job once", drains(5000)),
                                                   ("ends without a job", drains(0)),
                                                   ("stops before the end", stops())], 1):
        fine = fine and done.returncode == 0 and done.stderr == ""
        good = result(number, name, fine, done) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
