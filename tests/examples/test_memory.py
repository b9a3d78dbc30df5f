#!/usr/bin/env python3
"""The example of memory by tag.

usage: test_memory.py PATH_OF_MEMORY
"""

import os
import re
import subprocess
import sys

MEMORY = sys.argv[1]
PATIENCE = 60
LIMIT = 1024 * 1024


def run(*arguments):
    return subprocess.run([MEMORY, *map(str, arguments)], capture_output=True, text=True,
                          timeout=PATIENCE, check=False,
                          env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})  # One is meant.


def counts(done):
    """put, refused, dropped and kept of its first line."""
    match = re.match(r"(\d+) put, (\d+) refused, (\d+) dropped, (\d+) kept\n", done.stdout)
    return [int(number) for number in match.groups()] if match else None


def keeps_to_its_limit():
    done = run(100000)
    put, refused, dropped, kept = counts(done) or (0, 0, 0, 0)
    peak = re.search(r"^cache\.values: .*?peak (\d+) bytes", done.stdout, re.MULTILINE)
    return done, (put == 100000 and refused == 0 and dropped + kept == put and 0 < kept and
                  peak is not None and int(peak[1]) <= LIMIT and done.stderr == "")


def needs_nothing_for_nothing():
    done = run(0)
    return done, counts(done) == [0, 0, 0, 0] and done.stderr == ""


def names_the_leak():
    done = run(1000, "leak")
    return done, "cache.values" in done.stderr and "cache.index" not in done.stderr


def main():
    print("TAP version 13\n1..3")
    good = True
    for number, check in enumerate((keeps_to_its_limit, needs_nothing_for_nothing,
                                    names_the_leak), 1):
        done, fine = check()
        fine = fine and done.returncode == 0
        print(f"{'ok' if fine else 'not ok'} {number} - example memory: {check.__name__}")
        if not fine:
            print(f"# {done!r}")
        good = good and fine
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
