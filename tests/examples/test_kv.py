#!/usr/bin/env python3
"""The example of the key-value store.

usage: test_kv.py PATH_OF_KV PATH_OF_BOP
"""

import subprocess
import sys
import tempfile

KV, BOP = sys.argv[1:3]
SAID = """Lem: Solaris. The Cyberiad.
Lem: Solaris. The Cyberiad. Fiasco.
L to N: 5 books
"""


def run(*arguments):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def main():
    with tempfile.TemporaryDirectory() as directory:
        done = run(KV, directory)
        good = done.returncode == 0 and done.stdout == SAID
        dumps = [run(BOP, "kv", "dump", f"{directory}/{name}", "-") for name in ("books", "backup")]
    same = dumps[0].returncode == 0 and dumps[0].stdout == dumps[1].stdout and \
        '{"sequence":"books","number":"6"}' in dumps[0].stdout
    print("1..2")
    print(f"{'ok' if good else 'not ok'} 1 - example kv: says what it should")
    if not good:
        print(f"# {done!r}")
    print(f"{'ok' if same else 'not ok'} 2 - example kv: the backup is what the store was")
    if not same:
        print(f"# {dumps!r}")
    return 0 if good and same else 1


if __name__ == "__main__":
    sys.exit(main())
