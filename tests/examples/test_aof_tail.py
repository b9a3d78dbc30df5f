#!/usr/bin/env python3
"""The example of a log and its follower.

usage: test_aof_tail.py PATH_OF_AOF_TAIL
"""

import subprocess
import sys
import tempfile

AOF_TAIL = sys.argv[1]
PATIENCE = 60


def run(*arguments):
    return subprocess.run([AOF_TAIL, *map(str, arguments)], capture_output=True, text=True,
                          timeout=PATIENCE, check=False)


def result(number, name, done, good):
    print(f"{'ok' if good else 'not ok'} {number} - example aof_tail: {name}")
    if not good:
        print(f"# {done!r}"[:2000])
    return good


def expected(first, count):
    return "".join(f"{first + i} measurement {i}\n" for i in range(count))


def main():
    print("TAP version 13\n1..4")
    good = True
    with tempfile.TemporaryDirectory() as directory:
        log = f"{directory}/log"
        done = run(log, 3000)
        good = result(1, "prints every record in order", done,
                      (done.returncode, done.stdout, done.stderr) ==
                      (0, expected(1, 3000), "")) and good
        done = run(log, 5)
        good = result(2, "goes on where the log ended", done,
                      (done.returncode, done.stdout) == (0, expected(3001, 5))) and good
        done = run(log, 0)
        good = result(3, "ends without a record", done,
                      (done.returncode, done.stdout) == (0, "")) and good
        done = run(f"{directory}/log/lock")
        good = result(4, "says what is wrong with a path", done,
                      done.returncode == 1 and "lock" in done.stderr) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
