#!/usr/bin/env python3
"""Check the models of the queues with Spin: every interleaving, within bounds.

    run_models.py            small bounds, some seconds: the test
    run_models.py --large    larger bounds, minutes and some GB of memory: make model
    run_models.py NAME...    only the models of that name

Each case says whether the model must hold or fail; one that must fail has a
mistake built in, and shows that the model would find it. Prints TAP, with the
states explored and the depth reached. Skips without spin or a C compiler.
"""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MEMORY_MB = 6000
SECONDS_MAX = 1800

HOLDS, FAILS = True, False

# Model, what is defined for it, and what is to come of it.
SMALL = [
    ("takeover", "", HOLDS),
    ("takeover", "BROKEN_NO_FENCE", FAILS),
    ("takeover", "BROKEN_NO_SECOND_LOOK", FAILS),
    ("takeover", "BROKEN_NO_LOCK", FAILS),
    ("takeover", "BROKEN_STORE_END", FAILS),
    ("eventcount", "", HOLDS),
    ("eventcount", "ARMED", HOLDS),
    ("eventcount", "CLOSING PRODUCERS=1", HOLDS),
    ("eventcount", "BROKEN_NO_FENCE", FAILS),
    ("eventcount", "BROKEN_NO_FENCE ARMED", FAILS),
    ("eventcount", "BROKEN_NO_LAST_LOOK", FAILS),
    ("eventcount", "BROKEN_KEY_AFTER", FAILS),
    ("eventcount", "BROKEN_SLEEP_ON PUSHES=2", FAILS),
    ("bounded", "CONSUMERS=1", HOLDS),
    ("bounded", "BROKEN_STAMP_FIRST", FAILS),
    ("bounded", "BROKEN_STORE_INDEX", FAILS),
    ("bounded", "BROKEN_NO_CLOSE_WAIT", FAILS),
    ("bounded", "BROKEN_ONE_STAMP", FAILS),
    ("fifo", "POPS=1", HOLDS),
    ("fifo", "PRODUCERS=1 PUSHES=2", HOLDS),
    ("fifo", "BROKEN_NO_VALIDATE", FAILS),
    ("fifo", "BROKEN_NO_TAIL_HELP", FAILS),
    ("fifo", "BROKEN_NO_RECOUNT", FAILS),
    ("fifo", "BROKEN_NO_GIVE_UP_CHECK", FAILS),
    ("fifo", "BROKEN_NO_DROP_SWEEP", FAILS),
    ("lanes_block", "", HOLDS),
    ("lanes_block", "BROKEN_NO_REREAD", FAILS),
    ("lanes_block", "BROKEN_NO_NEWER_MAP", FAILS),
    ("lanes_block", "BROKEN_PLAIN_CLEAR", FAILS),
    ("lanes_block", "BROKEN_DONE_FIRST", FAILS),
    ("lanes_block", "BROKEN_SPARE_FIRST", FAILS),
    ("lanes_close", "", HOLDS),
    ("lanes_close", "BROKEN_NO_FENCE", FAILS),
    ("lanes_close", "BROKEN_NO_WAIT", FAILS),
]

LARGE = [
    ("takeover", "ITEMS=6 CLAIM=3", HOLDS),
    ("takeover", "ITEMS=6 CLAIM=2 TRIES=3", HOLDS),
    ("takeover", "ITEMS=4 THIEVES=3 TRIES=1", HOLDS),
    ("eventcount", "PUSHES=2", HOLDS),
    ("eventcount", "PUSHES=2 ARMED", HOLDS),
    ("eventcount", "PUSHES=2 CLOSING", HOLDS),
    ("eventcount", "PRODUCERS=1 PUSHES=3 CONSUMERS=3", HOLDS),
    ("bounded", "", HOLDS),
    ("bounded", "PUSHES=2 CONSUMERS=1", HOLDS),
    ("bounded", "CELLS=4 BULK=3 CONSUMERS=1", HOLDS),
    ("fifo", "", HOLDS),
    ("fifo", "PRODUCERS=1 PUSHES=2 CONSUMERS=2 POPS=1", HOLDS),
    ("lanes_block", "UNITS=4", HOLDS),
    ("lanes_close", "PRODUCERS=3", HOLDS),
]


def run(command, directory):
    return subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=SECONDS_MAX, check=False)


def check(model, defines, compiler, directory):
    """Explore one case. Returns (errors or None if it was not explored, what to say)."""
    flags = ["-D" + define for define in defines.split()]
    made = run(["spin", "-a", *flags, os.path.join(HERE, model + ".pml")], directory)
    if made.returncode != 0 or not os.path.exists(os.path.join(directory, "pan.c")):
        return None, made.stdout
    built = run([compiler, "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}",
                 "-o", "pan", "pan.c"], directory)
    if built.returncode != 0:
        return None, built.stdout
    out = run(["./pan", "-m1000000"], directory).stdout
    errors = re.search(r"errors: (\d+)", out)
    states = re.search(r"(\d+) states, stored", out)
    depth = re.search(r"depth reached (\d+)", out)
    if not errors or not states:
        return None, out
    # An incomplete search proves nothing.
    if int(errors[1]) == 0 and re.search(r"Search not completed|search depth too small|reached -M",
                                         out):
        return None, out
    found = re.search(r"pan:\d+: (.*)", out)
    return int(errors[1]), "{:,} states, depth {}{}".format(
        int(states[1]), depth[1], ": " + found[1] if found else "")


def explore(case, compiler):
    with tempfile.TemporaryDirectory() as directory:
        return check(case[0], case[1], compiler, directory)


def main():
    large = "--large" in sys.argv[1:]
    names = [name for name in sys.argv[1:] if not name.startswith("--")]
    cases = [case for case in (LARGE if large else SMALL) if not names or case[0] in names]
    compiler = shutil.which("gcc") or shutil.which("cc")

    if not shutil.which("spin") or not compiler:
        print("1..0 # SKIP spin or a C compiler is missing")
        return 0
    print(f"1..{len(cases)}", flush=True)
    failed = 0
    # Large ones fill the memory one at a time.
    pool = concurrent.futures.ThreadPoolExecutor(1 if large else 2)
    results = pool.map(lambda case: explore(case, compiler), cases)
    for number, (case, (errors, text)) in enumerate(zip(cases, results), 1):
        model, defines, expected = case
        good = errors is not None and (errors == 0) == expected
        failed += not good
        what = "holds" if expected == HOLDS else "is found to fail"
        print(f"{'ok' if good else 'not ok'} {number} - {model}: {defines or 'as it is'}: {what}")
        for line in text.splitlines():
            print("#", line)
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
