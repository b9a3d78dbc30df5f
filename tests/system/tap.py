"""A test program that speaks TAP: functions marked @test, run in order.

A function that raises fails its test; what it raised and whatever note() was
given during it come out as comments before the result. Skip says why a test
cannot run here.
"""

import os
import sys
import time
import traceback

_tests = []
_notes = []


class Skip(Exception):
    pass


def test(function):
    _tests.append(function)
    return function


def say(text):
    for line in str(text).splitlines():
        print(f"# {line}")


def note(text):
    """Something worth reading if the test fails; VERBOSE=1 shows it in any case."""
    if os.environ.get("VERBOSE"):
        say(text)
    else:
        _notes.append(str(text))


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def check_equal(got, expected, what):
    if got != expected:
        raise AssertionError(f"{what}: got {got!r}, expected {expected!r}")


def wait_until(condition, what, seconds=60.0, pause=0.05):
    """What condition() gives once that is true. Fails, with what it gave last, if it never is."""
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)


def _title(function):
    return function.__name__.replace("_", " ")


def main():
    """Run all tests, or those whose title has one of the words behind the paths; exits."""
    wanted = [word for word in sys.argv[2:] if "/" not in word]
    tests = [t for t in _tests if not wanted or any(word in _title(t) for word in wanted)]
    failed = 0
    if not tests:
        sys.exit(f"no test has one of the words {wanted}")
    print(f"1..{len(tests)}", flush=True)
    for number, function in enumerate(tests, 1):
        _notes.clear()
        began = time.monotonic()
        result, directive = "ok", ""
        try:
            function()
        except Skip as skip:
            directive = f" # SKIP {str(skip).splitlines()[0]}"
        except BaseException as error:  # pylint: disable=broad-except
            result = "not ok"
            failed += 1
            for text in _notes:
                say(text)
            say(traceback.format_exc())
            if isinstance(error, KeyboardInterrupt):
                raise
        say(f"{time.monotonic() - began:.1f} s")
        print(f"{result} {number} - {_title(function)}{directive}", flush=True)
    sys.exit(1 if failed else 0)
