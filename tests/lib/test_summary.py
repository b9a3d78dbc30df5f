#!/usr/bin/env python3
"""scripts/test-summary: what it makes of each way a test program can end.

usage: test_summary.py PATH_OF_TEST_SUMMARY

The logs are made up here in the form that meson 1.0 gives them.
"""

import json
import os
import subprocess
import sys
import tempfile

CASE = '<testcase name="{name}" classname="bop.{program}">{inner}</testcase>'
INNER = {"passed": "", "failed": "<failure />", "skipped": "<skipped />"}


def summary(programs):
    """Run the script on programs of (result, returncode, stdout, outcomes)."""
    lines, suites = [], []
    for number, (result, returncode, stdout, outcomes) in enumerate(programs, 1):
        program = f"bop:core / test_{number}"
        lines.append(json.dumps({"name": program, "result": result, "returncode": returncode,
                                 "stdout": stdout}))
        cases = "".join(CASE.format(name=f"{i} - a: case {i}", program=program, inner=INNER[outcome])
                        for i, outcome in enumerate(outcomes, 1))
        suites.append(f'<testsuite name="bop.{program}">{cases}</testsuite>' if outcomes else
                      f'<testsuite name="bop"><testcase name="{program}" /></testsuite>')
    with tempfile.TemporaryDirectory() as build:
        logs = os.path.join(build, "meson-logs")
        os.mkdir(logs)
        with open(os.path.join(logs, "testlog.json"), "w", encoding="utf-8") as log:
            log.write("\n".join(lines))
        with open(os.path.join(logs, "testlog.junit.xml"), "w", encoding="utf-8") as log:
            log.write(f"<testsuites>{''.join(suites)}</testsuites>")
        return run(build)


def run(build):
    done = subprocess.run([sys.executable, sys.argv[1], build], capture_output=True, text=True,
                          check=False)
    return done.returncode, done.stdout


GOOD = ("OK", 0, "1..2\nok 1 - a: case 1\nok 2 - a: case 2\n", ["passed", "passed"])
BAD = ("ERROR", 1, "1..2\n# a.c:1: CHECK(x)\nnot ok 1 - a: case 1\nok 2 - a: case 2\n",
       ["failed", "passed"])

# name, programs, exit status, last line, what else is said
CHECKS = [
    ("counts what passed", [GOOD, GOOD], 0, "4 passed, 0 failed", ""),
    ("counts what was skipped",
     [GOOD, ("OK", 0, "1..2\nok 1\nok 2 # SKIP x\n", ["passed", "skipped"])],
     0, "3 passed, 0 failed, 1 skipped", ""),
    ("prints a failed case with what it said", [GOOD, BAD], 1, "3 passed, 1 failed",
     "FAILED bop:core / test_2: 1 - a: case 1\n    # a.c:1: CHECK(x)\n"),
    ("counts a crash after good cases",
     [("ERROR", -6, "1..3\nok 1 - a: case 1\nok 2 - a: case 2\n", ["passed", "passed"])],
     1, "2 passed, 1 failed", "killed by signal 6"),
    ("counts a crash beside a failed case",
     [("ERROR", 1, "1..3\nnot ok 1 - a: case 1\n", ["failed"])],
     1, "0 passed, 2 failed", "after 1 of 3 cases"),
    ("counts a program that ends early with status 0",
     [("ERROR", 0, "1..3\nok 1 - a: case 1\n", ["passed"])],
     1, "1 passed, 1 failed", "after 1 of 3 cases"),
    ("counts a leak found at the end", [("ERROR", 23, GOOD[2], GOOD[3])],
     1, "2 passed, 1 failed", "exit status 23"),
    ("counts a time limit", [("TIMEOUT", -15, "1..2\nok 1 - a: case 1\n", ["passed"])],
     1, "1 passed, 1 failed", "time limit"),
    ("counts a time limit before the first case", [GOOD, ("TIMEOUT", -15, "", [])],
     1, "2 passed, 1 failed", "time limit"),
    ("counts a program that says nothing", [GOOD, ("SKIP", 0, "", [])],
     1, "2 passed, 1 failed", "without running a test"),
    ("takes a skipped plan for a skipped test", [GOOD, ("SKIP", 0, "1..0 # SKIP no\n", [])],
     0, "2 passed, 0 failed, 1 skipped", ""),
    ("takes the result of a program that is one case",
     [("OK", 0, "", []), ("FAIL", 3, "", []), ("SKIP", 77, "", [])],
     1, "1 passed, 1 failed, 1 skipped", "exit status 3"),
    ("fails when no test ran", [], 1, "0 passed, 0 failed", "no test ran"),
]


def main():
    failed = False
    print(f"TAP version 13\n1..{len(CHECKS) + 1}")
    for number, (name, programs, status, last, said) in enumerate(CHECKS, 1):
        got, output = summary(programs)
        good = got == status and output.splitlines()[-1] == last and said in output
        failed |= not good
        if not good:
            print(f"# exit status {got}, said {output!r}")
        print(f"{'ok' if good else 'not ok'} {number} - summary: {name}")
    got, output = run("/nonexistent")
    good = got == 1 and output.splitlines()[-1] == "0 passed, 0 failed"
    print(f"{'ok' if good else 'not ok'} {len(CHECKS) + 1} - summary: fails without logs")
    return 1 if failed or not good else 0


if __name__ == "__main__":
    sys.exit(main())
