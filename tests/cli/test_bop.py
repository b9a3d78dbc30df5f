#!/usr/bin/env python3
"""bop against a real bopd: output, exit codes, and the words of failures.

usage: test_bop.py PATH_OF_BOP PATH_OF_BOPD
"""

import base64
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

BOP, BOPD = (os.path.abspath(path) for path in sys.argv[1:3])
PATIENCE = 60
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


class Bop:
    """Runs bop with one server."""

    def __init__(self, server):
        self.server = server

    def __call__(self, *words, stdin=b"", status=0):
        """Run it. Returns standard output and standard error, as bytes."""
        environment = dict(os.environ, BOP_SERVER=self.server)
        done = subprocess.run([BOP, *words], input=stdin, capture_output=True, check=False,
                              env=environment, timeout=PATIENCE)
        if done.returncode != status:
            raise AssertionError(f"bop {words}: exit status {done.returncode}, not {status}: "
                                 f"{done.stdout!r} {done.stderr!r}")
        return done.stdout, done.stderr

    def out(self, *words, **options):
        """What it prints, and nothing on standard error."""
        out, err = self(*words, **options)
        same(err, b"")
        return out

    def error(self, status, *words, **options):
        """The one line of a failure, without its beginning."""
        _, err = self(*words, status=status, **options)
        line = err.decode()
        if not re.fullmatch(r"bop: [^\n]*\n", line):
            raise AssertionError(f"no line of an error: {line!r}")
        return line[5:-1]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# ---- Maps ----

@test
def map_put_get_del(bop, _):
    same(re.fullmatch(rb"version \d+\n", bop.out("map", "put", "m", "k", "v")) is not None, True)
    same(bop.out("map", "get", "m", "k"), b"v")
    same(bop.out("map", "get", "m", "k", "--stale"), b"v")
    same(bop.out("map", "del", "m", "k"), b"deleted\n")
    same(bop.error(3, "map", "get", "m", "k"), "m has no key k")
    same(bop.error(3, "map", "del", "m", "k"), "m has no key k")
    same(bop.error(3, "map", "get", "no-such-map", "k"), "no-such-map has no key k")


@test
def map_keeps_any_bytes(bop, _):
    value = bytes(range(256)) * 40
    bop("map", "put", "m", "bytes", "-", stdin=value)
    same(bop.out("map", "get", "m", "bytes"), value)
    got = json.loads(bop.out("map", "get", "m", "bytes", "--json"))
    same(base64.b64decode(got["value64"]), value)
    bop("map", "put", "m", "empty", "-", stdin=b"")
    same(bop.out("map", "get", "m", "empty"), b"")
    bop("map", "put", "m", "--", "-k", "--json")
    same(bop.out("map", "get", "m", "--", "-k"), b"--json")


@test
def map_conditions(bop, _):
    bop("map", "put", "c", "k", "1", "--if-absent")
    version = json.loads(bop.out("map", "get", "c", "k", "--json"))["version"]
    same(bop.error(4, "map", "put", "c", "k", "2", "--if-absent"),
         f"not stored: k in c is there in version {version}")
    same(bop.error(4, "map", "put", "c", "k", "2", "--if-version", str(version + 1)),
         f"not stored: k in c is there in version {version}")
    same(bop.error(4, "map", "put", "c", "none", "2", "--if-present"),
         "not stored: c has no key none")
    same(bop.error(4, "map", "del", "c", "k", "--if-value", "2"),
         f"not deleted: k in c is there in version {version}")
    same(bop.out("map", "get", "c", "k"), b"1")
    answer = json.loads(bop.out("map", "put", "c", "k", "2", "--if-version", str(version),
                                "--json"))
    same(answer["existed"], True)
    same(answer["version"] > version, True)
    same(bop.out("map", "del", "c", "k", "--if-value", "2", "--json"), b'{"existed":true}\n')


@test
def map_scan_and_size(bop, _):
    for key in "cab":
        bop("map", "put", "s", key, key.upper() + "\n\\\t")
    bop("map", "put", "s", "d", "-", stdin=b"\xff")
    same(bop.out("map", "scan", "s"),
         b"a\tA\\n\\\\\\t\nb\tB\\n\\\\\\t\nc\tC\\n\\\\\\t\nd\t\\xff\n")
    same(bop.out("map", "scan", "s", "--limit", "2", "--keys"), b"a\nb\n")
    lines = [json.loads(line) for line in bop.out("map", "scan", "s", "--json").splitlines()]
    same([line["key"] for line in lines], list("abcd"))
    same(lines[3]["value64"], "/w==")
    same(bop.out("map", "size", "s"), b"4\n")
    same(bop.out("map", "size", "nowhere", "--json"), b'{"size":0}\n')


@test
def map_ranges_and_times_to_live(bop, _):
    for key in ("a", "ab", "b", "c"):
        bop("map", "put", "ranged", key, key.upper())
    same(bop.out("map", "scan", "ranged", "--prefix", "a"), b"a\tA\nab\tAB\n")
    same(bop.out("map", "scan", "ranged", "--from", "ab", "--to=c", "--keys"), b"ab\nb\n")
    same(bop.out("map", "clear", "ranged"), b"removed 4\n")
    same(bop.out("map", "size", "ranged"), b"0\n")
    bop("map", "put", "ranged", "k", "v", "--ttl", "3600")
    left, value = bop.out("map", "get", "ranged", "k", "--with-ttl").split(b"\n")
    same((3500 < float(left) <= 3600, value), (True, b"v"))
    bop("map", "put", "ranged", "k", "w")
    same(bop.out("map", "get", "ranged", "k", "--with-ttl"), b"-\nw")
    same(json.loads(bop.out("--json", "map", "get", "ranged", "k", "--with-ttl"))["ttl_ms"], None)


@test
def sets(bop, directory):
    same(bop.out("set", "add", "s", "b"), b"added\n")
    same(bop.out("set", "add", "s", "b"), b"was there\n")
    bop("set", "add", "s", "a\n")
    same(bop.out("set", "contains", "s", "b"), b"yes\n")
    same(bop("set", "contains", "s", "z", status=3), (b"no\n", b""))
    same(bop.out("set", "size", "s"), b"2\n")
    same(bop.out("set", "scan", "s"), b"a\\n\nb\n")
    same(bop.out("set", "scan", "s", "--json", "--limit", "1"), b'{"member":"a\\n"}\n')
    path = os.path.join(directory, "set")
    bop("set", "export", "s", path)
    with open(path, "ab") as out:
        out.write(b'{"member64":"/wA="}\n')
    bop("set", "import", "t", path)
    same(bop.out("set", "scan", "t"), b"a\\n\nb\n\\xff\\x00\n")
    same(bop.out("set", "remove", "s", "b"), b"removed\n")
    same(bop.error(3, "set", "remove", "s", "b"), "s has no b")
    same(bop.out("set", "clear", "s"), b"removed 1\n")
    with open(path, "wb") as out:
        out.write(b'{"key":"a","value":"b"}\n')
    same("neither \"member\" nor \"member64\"" in bop.error(1, "set", "import", "t", path), True)


@test
def counters_to_a_file_and_back(bop, directory):
    values = {"file/high": 2**63 - 1, "file/low": -(2**63), "zero": 0, "ä": 7}
    for name, value in values.items():
        bop("counter", "set", name, str(value))
    path = os.path.join(directory, "counters")
    bop("counter", "export", path)
    with open(path, encoding="utf-8") as lines:
        found = {line["counter"]: line["value"] for line in map(json.loads, lines)}
    same({name: found.get(name) for name in values}, values)
    same(bop.out("counter", "export", "-", "--prefix", "ä"), b'{"counter":"\xc3\xa4","value":7}\n')
    for name in values:
        bop("counter", "set", name, "1")
    bop("counter", "import", path)
    for name, value in values.items():
        same(bop.out("counter", "get", name), b"%d\n" % value)
    for line, complaint in ((b'{"counter":"c","value":1.5}', '"value" is not a whole number'),
                            (b'{"counter":"c"}', '"value" is not a whole number'),
                            (b'{"value":1}', 'neither "counter" nor "counter64"'),
                            (b'{"counter":"","value":1}', "line 1: a name has 1 to")):
        with open(path, "wb") as out:
            out.write(line + b"\n")
        same(complaint in bop.error(1, "counter", "import", path), True)
    for name in values:
        bop("counter", "delete", name)


@test
def multimaps(bop, directory):
    same(bop.out("multimap", "put", "m", "k", "2"), b"added\n")
    bop("multimap", "put", "m", "k", "1")
    same(bop.out("multimap", "put", "m", "k", "1"), b"was there\n")
    bop("multimap", "put", "m", "l", "1")
    same(bop.out("multimap", "get", "m", "k"), b"1\n2\n")
    same(bop.out("multimap", "scan", "m"), b"k\t1\nk\t2\nl\t1\n")
    same(bop.out("multimap", "scan", "m", "--keys"), b"k\nl\n")
    same(bop.out("multimap", "size", "m"), b"3\n")
    same(bop.out("multimap", "size", "m", "k"), b"2\n")
    same(bop.out("multimap", "contains", "m", "k"), b"yes\n")
    same(bop("multimap", "contains", "m", "k", "3", status=3), (b"no\n", b""))
    path = os.path.join(directory, "multimap")
    bop("multimap", "export", "m", path)
    bop("multimap", "import", "copy", path)
    same(bop.out("multimap", "scan", "copy"), bop.out("multimap", "scan", "m"))
    same(bop.out("multimap", "remove", "m", "k", "1"), b"removed\n")
    same(bop.error(3, "multimap", "remove", "m", "k", "1"), "m has no k")
    same(bop.out("multimap", "remove", "m", "k"), b"removed 1\n")
    same(bop.out("multimap", "clear", "m"), b"removed 1\n")


@test
def transactions(bop, _):
    lines = b'''# two at once
if map txn ada version = 0
if counter txn/stock > -1
then map put txn ada "Ada \\"L\\"\\n"
then counter add txn/stock -1
then map get txn ada
else counter get txn/stock
'''
    same(bop.out("txn", stdin=lines).splitlines()[0:4:2], [b"held", b"-1"])
    same(bop.out("map", "get", "txn", "ada"), b'Ada "L"\n')
    same(bop.out("txn", stdin=lines, status=4), b"not held\n-1\n")
    same(json.loads(bop.out("txn", "--json", stdin=lines, status=4)), {"held": False, "results": [-1]})
    failing = b"then counter add txn/stock 1\nthen counter add txn/big 9223372036854775807\n" \
              b"then counter add txn/big 1\n"
    same("nothing was changed" in bop.error(1, "txn", stdin=failing), True)
    same(bop.out("counter", "get", "txn/stock"), b"-1\n")
    same(bop.error(2, "txn", stdin=b"if map m\n").startswith("line 1: no comparison"), True)
    same(bop.error(2, "txn", stdin=b"\nwhen\n"), "line 2: a line begins with if, then or else")
    same(bop.error(2, "txn", stdin=b'then map put m k "v\n').startswith("line 1: a quote"), True)


@test
def members_and_names(bop, _):
    same(bop.out("member", "list", "team"), b"")
    number, name, info = bop.out("member", "join", "team", "--name", "me", "--info", "here", "--",
                                 BOP, "member", "list", "team").decode().strip().split("\t")
    same((int(number) > 0, name, info), (True, "me", "here"))
    same(bop.out("member", "list", "team"), b"")
    same(bop.out("member", "join", "team", stdin=b""), b"joined\n")
    bop("member", "join", "team", "--", "sh", "-c", "exit 7", status=7)
    same(bop.out("names", "group"), b"team\t0\n")
    bop("counter", "set", "app/a", "-4")
    bop("counter", "set", "app/b", "5")
    same(bop.out("names", "counter", "--prefix", "app/"), b"app/a\t-4\napp/b\t5\n")
    same(bop.out("names", "counter", "--prefix", "app/", "--limit", "1"), b"app/a\t-4\n")
    same(bop.out("registration", "list", "nobody"), b"")
    same(bop.out("registration", "get", "nobody", "here"), b"")
    bop.error(2, "names", "things")


@test
def counter_cas_set_delete(bop, _):
    same(bop.error(4, "counter", "cas", "n", "1", "5"), "not set: n is 0")
    same(bop.error(3, "counter", "get", "n"), "there is no counter n")
    same(bop.out("counter", "cas", "n", "0", "5"), b"5\n")
    same(bop.out("counter", "cas", "n", "5", "-6", "--json"), b'{"value":-6}\n')
    same(bop.error(4, "counter", "cas", "n", "5", "7"), "not set: n is -6")
    same(bop.out("counter", "set", "n", "9"), b"")
    same(bop.out("counter", "set", "n", "10", "--json"), b'{"existed":true}\n')
    same(bop.out("counter", "get", "n"), b"10\n")
    same(bop.out("counter", "delete", "n"), b"")
    same(bop.error(3, "counter", "delete", "n"), "there is no counter n")
    same(bop.error(2, "counter", "set", "n", "x"), "x: not a whole number of 64 bits")
    same(bop.error(2, "counter", "cas", "n", "1", "1.5"), "1.5: not a whole number of 64 bits")


# ---- Import and export ----

def entries(count):
    """Some entries, 3,000 of them being three pages, as (key, value) sorted."""
    made = {}
    for i in range(count):
        key = b"\xff%d" % i if i % 5 == 0 else b"key %d \xc3\xa9" % i
        made[key] = bytes((i * 7 + j) % 256 for j in range(i % 300)) if i % 3 else b"v%d" % i
    return sorted(made.items())


def to_line(key, value):
    line = {}
    for name, content in (("key", key), ("value", value)):
        try:
            line[name] = content.decode()
        except UnicodeDecodeError:
            line[name + "64"] = base64.b64encode(content).decode()
    return json.dumps(line).encode() + b"\n"


def from_line(line):
    line = json.loads(line)
    return tuple(line[name].encode() if name in line else base64.b64decode(line[name + "64"])
                 for name in ("key", "value"))


@test
def import_and_export_keep_all(bop, directory):
    wanted = entries(3000)
    path = os.path.join(directory, "in.ndjson")
    with open(path, "wb") as file:
        file.writelines(to_line(*entry) for entry in wanted)
    answer = json.loads(bop.out("map", "import", "big", path, "--json"))
    same(answer["entries"], 3000)
    same(bop.out("map", "size", "big"), b"3000\n")
    exported = bop.out("map", "export", "big", "-")
    same([from_line(line) for line in exported.splitlines()], wanted)

    target = os.path.join(directory, "out.ndjson")
    _, said = bop("map", "export", "big", target, "--server", bop.server)
    same(re.fullmatch(rb"exported 3,000 entries in [\d.]+ s\n", said) is not None, True)
    with open(target, "rb") as file:
        same(file.read(), exported)
    same([name for name in os.listdir(directory) if "partial" in name], [])

    _, said = bop("map", "import", "big2", "-", stdin=exported)
    same(said.startswith(b"imported 3,000 entries in "), True)
    same(bop.out("map", "export", "big2", "-"), exported)


@test
def import_stops_at_a_mistake(bop, directory):
    good = b'{"key":"a","value":"1"}\n'
    line = bop.error(1, "map", "import", "bad", "-", stdin=good + b"{}\n" + good)
    same(re.fullmatch(r'import -: line 2: neither "key" nor "key64"; stopped after [01] entries '
                      r"were stored", line) is not None, True)
    same(bop.error(1, "map", "import", "bad", "/nonexistent"),
         "open /nonexistent: No such file or directory")
    same(bop.error(1, "map", "import", "bad", directory).startswith(f"import {directory}: "), True)


@test
def import_reads_a_slow_pipe(bop, _):
    environment = dict(os.environ, BOP_SERVER=bop.server)
    with subprocess.Popen([BOP, "map", "import", "slow", "-"], stdin=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment) as running:
        for part in (b'{"key":"a","va', b'lue":"1"}\n{"key"', b':"b","value":"2"}\n'):
            running.stdin.write(part)
            running.stdin.flush()
            time.sleep(0.05)
        _, said = running.communicate(timeout=PATIENCE)
    same(said.startswith(b"imported 2 entries"), True)


@test
def import_of_packages(bop, _):
    status = (b"Package: bash\nArchitecture: amd64\nDescription: shell\n for people\n\n"
              b"Package: libc6\nArchitecture: amd64\nMulti-Arch: same\n")
    bop("map", "import", "packages", "-", "--dpkg", stdin=status)
    same(bop.out("map", "get", "packages", "bash"), status.split(b"\n\n", 1)[0] + b"\n")
    same(bop.out("map", "scan", "packages", "--keys"), b"bash\nlibc6:amd64\n")


@test
def export_leaves_nothing_half_done(bop, directory):
    target = os.path.join(directory, "precious")
    with open(target, "w", encoding="utf-8") as file:
        file.write("old")
    bop.error(1, "map", "export", "big", target, "--server", f"127.0.0.1:{free_port()}")
    with open(target, encoding="utf-8") as file:
        same(file.read(), "old")
    same([name for name in os.listdir(directory) if "partial" in name], [])
    same(bop.error(1, "map", "export", "big", "/nonexistent/x"),
         "write /nonexistent/x: No such file or directory")
    same("No space left" in bop.error(1, "map", "export", "big", "/dev/full"), True)


# ---- Counters ----

@test
def counters(bop, _):
    same(bop.error(3, "counter", "get", "n"), "there is no counter n")
    same(bop.out("counter", "add", "n"), b"1\n")
    same(bop.out("counter", "add", "n", "-5"), b"-4\n")
    same(bop.out("counter", "get", "n", "--json"), b'{"value":-4}\n')
    same(bop.error(2, "counter", "add", "n", "1x"), "1x: not a whole number of 64 bits")
    same(bop.error(2, "counter", "add", "n", "9223372036854775808"),
         "9223372036854775808: not a whole number of 64 bits")
    same(bop.error(1, "counter", "add", "n", "-9223372036854775808"),
         "add to n: the value would leave 64 bits; nothing was changed")
    same(bop.out("counter", "get", "n"), b"-4\n")


# ---- Status ----

@test
def status(bop, _):
    told = bop.out("status").decode().splitlines()
    same(re.fullmatch(r"cluster bop: node 1 leads in term \d+; 1 of 1 voters are well", told[0])
         is not None, True)
    same(told[2].split(), ["NODE", "ADDRESS", "STATE", "TERM", "COMMIT", "APPLIED", "LAG",
                           "HEALTH"])
    same(told[3].split()[:3], ["1", bop.server, "leader"])
    answer = json.loads(bop.out("status", "--json"))
    same((answer["healthy"], answer["leader"], answer["voters"]), (True, 1, 1))
    same(answer["nodes"][0]["lag"], 0)


@test
def status_asks_a_node_once(bop, _):
    both = f"{bop.server},localhost:{bop.server.split(':')[1]},{bop.server}"
    same(len(json.loads(bop.out("status", "--json", "--server", both))["nodes"]), 1)


@test
def status_shows_who_is_not_there(bop, _):
    dead = f"127.0.0.1:{free_port()}"
    out, _ = bop("status", "--server", f"{dead},{bop.server}")
    same(re.search(rf"\?\s+{dead}\s+unreachable\s+Connection refused", out.decode()) is not None,
         True)
    out, err = bop("status", "--server", dead, status=1)
    same(err.decode(), f"bop: no server at {dead} answers: start one with `bopd --dev`, or name "
                       "one with --server\n")


# ---- Failures ----

@test
def nobody_there(bop, _):
    dead = f"127.0.0.1:{free_port()}"
    same(bop.error(1, "--server", dead, "map", "get", "m", "k"),
         f"no server at {dead} answers (Connection refused): start one with `bopd --dev`, or name "
         "one with --server")
    same(bop.error(2, "--server", "a:b", "map", "get", "m", "k") != "", True)


@test
def a_server_that_says_nothing(bop, _):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        silent = f"127.0.0.1:{listener.getsockname()[1]}"
        line = bop.error(1, "--server", silent, "--timeout", "0.3", "map", "get", "m", "k")
        same(line.startswith(f"no server at {silent} answers ("), True)


@test
def wrong_cluster(bop, _):
    same(bop.error(1, "--cluster", "other", "map", "get", "m", "k"),
         f"{bop.server} is of another cluster than other: drop --cluster, or name other servers "
         "with --server")


# ---- Key-value stores ----

DUMP = b"""{"bop-kv-dump":1}
{"sequence":"ids","number":"18446744073709551615"}
{"canary":["1","2","18446744073709551615"]}
{"table":"dups","flags":["dup-sort"]}
{"key":"a","value":"1"}
{"key":"a","value":"2"}
{"key":"b","value64":"/w=="}
{"table":"ints","flags":["integer-key"]}
{"key":"\\u0000\\u0000\\u0000\\u0001","value":"x"}
{"table":"users","flags":[]}
{"key":"ann","value":""}
{"key64":"/w==","value":"v"}
"""


@test
def kv_loads_what_it_dumps(bop, directory):
    store, file = directory + "/store", directory + "/dump"
    _, err = bop("kv", "load", store, "-", stdin=DUMP)
    same(re.fullmatch(rb"loaded 6 entries in [0-9.]+ s\n", err) is not None, True)
    same(bop.out("kv", "dump", store, "-"), DUMP)
    bop("kv", "dump", store, file)
    with open(file, "rb") as dumped:
        same(dumped.read(), DUMP)
    same(bop.out("kv", "dump", store, "-", "--table", "ints"),
         b"".join(DUMP.splitlines(True)[i] for i in (0, 7, 8)))
    same(bop.error(3, "kv", "dump", store, file, "--table", "none"), f"{store} has no table none")
    same(bop.error(1, "kv", "load", store, file),
         f"{store} has tables already; load into an empty directory")
    bop("kv", "copy", store, directory + "/copy", "--compact")
    same(bop.out("kv", "dump", directory + "/copy", "-"), DUMP)
    stat = json.loads(bop.out("kv", "stat", store, "--json"))
    same([(table["name"], table["entries"]) for table in stat["tables"]],
         [("dups", 3), ("ints", 1), ("users", 2)])
    same(stat["tables"][0]["flags"], ["dup-sort"])
    same(stat["sequences"], {"ids": "18446744073709551615"})
    same(stat["canary"], ["1", "2", "18446744073709551615"])
    same(b"table users: 2 entries" in bop.out("kv", "stat", store), True)
    same(json.loads(bop.out("kv", "check", store, "--json"))["problems"], 0)


@test
def kv_loads_below_the_limit_of_files(bop, directory):
    store = directory + "/store"
    done = subprocess.run([BOP, "kv", "load", store, "-"], input=DUMP, capture_output=True,
                          check=False, timeout=PATIENCE,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE,
                                                                (1 << 30, 1 << 30)))
    same((done.returncode, b"loaded 6 entries" in done.stderr), (0, True))
    same(bop.out("kv", "dump", store, "-"), DUMP)


@test
def kv_finds_damage(bop, directory):
    lines = DUMP + b"".join(b'{"key":"z%06d","value":"%s"}\n' % (i, b"v" * 100)
                            for i in range(2000))
    bop("kv", "load", directory + "/store", "-", stdin=lines)
    with open(directory + "/store/data.mdb", "r+b") as file:
        file.seek(5 * 4096 + 12)
        file.write(b"\xff\xff\xff\xff")
    out, _ = bop("kv", "check", directory + "/store", status=1)
    same(b"page 5" in out and b" 0 problems" not in out, True)


@test
def kv_load_says_which_line_is_bad(bop, directory):
    store = directory + "/store"
    for text, said in (
            (b"", "-, line 0: the file is empty; nothing was loaded"),
            (b'{"key":"a","value":"b"}\n',
             "-, line 1: not written by `bop kv dump` in version 1; nothing was loaded"),
            (b'{"bop-kv-dump":1}\n{"key":"a","value":"b"}\n',
             "-, line 2: an entry before any table; nothing was loaded"),
            (b'{"bop-kv-dump":1}\n{"table":"t","flags":["odd"]}\n',
             '-, line 2: "flags" has a word that is no kind of table; nothing was loaded'),
            (b'{"bop-kv-dump":1}\n{"table":"t"}\n{"key":"a"}\n',
             '-, line 3: neither "value" nor "value64"; nothing was loaded'),
            (b'{"bop-kv-dump":1}\n{"canary":[1]}\n',
             '-, line 2: "canary" is no array of three numbers in strings; nothing was loaded')):
        same(bop.error(1, "kv", "load", store, "-", stdin=text), said)
        same(os.path.exists(store + "/data.mdb"), False)
    same("none/data.mdb: No such file" in bop.error(1, "kv", "stat", directory + "/none"), True)


@test
def what_is_too_big_or_no_name(bop, _):
    too_big = ": too big: a name has at most 255 bytes, a key 65536, a value 8388608"
    same(bop.error(1, "map", "put", "m", "k" * 65537, "v").endswith(too_big), True)
    same(bop.error(1, "map", "size", "m" * 256).endswith(too_big), True)
    same(bop.error(1, "map", "put", "m", "k", "-", stdin=b"x" * (9 << 20)),
         "read the value: more than a value's 8 MiB")
    same(bop.error(2, "map", "size", "").endswith("a name has 1 to 255 bytes and is UTF-8"), True)
    same(bop.error(2, "map", "size", b"\xff".decode(errors="surrogateescape"))
         .endswith("a name has 1 to 255 bytes and is UTF-8"), True)


@test
def wrong_usage(bop, _):
    same(bop.error(2, "sttaus"), "no command sttaus; did you mean `bop status`?")
    same(bop.error(2, "status", "--jso"), "no flag --jso; did you mean --json?")
    same(bop.error(2, "a\nb"), "no command a?b; `bop help` lists all")


@test
def output_that_cannot_be_written(bop, _):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([BOP, "help"], stdout=full, stderr=subprocess.PIPE, check=False,
                              timeout=PATIENCE)
    same((done.returncode, done.stderr),
         (1, b"bop: cannot write the output: No space left on device\n"))
    same(bop.out("--version").startswith(b"bop "), True)


@test
def help_for_all(bop, _):
    overview = bop.out("help").decode()
    same(bop.out("--help").decode(), overview)
    commands = re.findall(r"^  ([a-z]+(?: [a-z]+)*) ", overview.split("Flags")[0], re.M)
    same(len(commands), len(set(commands)))
    same(len(commands), 82)
    for command in commands:
        text = bop.out(*command.split(), "--help").decode()
        same(command == "help" or text.startswith(f"bop {command} - ") or
             f"Usage: bop [FLAGS] {command} COMMAND" in text, True)
        same(max(len(line) for line in text.splitlines()) <= 100, True)
        same(bop.out("help", *command.split()).decode(), text)
    same(bop.error(2, "help", "nothing"), "no command nothing; `bop help` lists all")


# ---- The demo ----

def demo(*words, **options):
    return subprocess.run([BOP, "demo", "--bopd", BOPD, "--entries", "1500", *words],
                          capture_output=True, text=True, check=False, timeout=4 * PATIENCE,
                          **options)


@test
def demo_loses_nothing(_, directory):
    place = os.path.join(directory, "demo")
    done = demo("--dir", place, "--json")
    if done.returncode != 0:
        raise AssertionError(f"{done.returncode}: {done.stdout} {done.stderr}")
    report = json.loads(done.stdout)
    same((report["good"], report["lost"], report["duplicates"], report["changed"]),
         (True, 0, 0, 0))
    same(report["acknowledged"], report["entries"])
    for words in ("killed with SIGKILL", "started again", "byte for byte", "ms after the kill"):
        same(words in done.stderr, True)
    same(os.path.exists(place), False)


def is_running(pid):
    """Not our child: the one who has to reap it may be slow."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@test
def demo_keeps_the_cluster(_, directory):
    place = os.path.join(directory, "kept")
    done = demo("--dir", place, "--keep")
    if done.returncode != 0:
        raise AssertionError(f"{done.returncode}: {done.stdout} {done.stderr}")
    pids = [int(pid) for pid in re.search(r"kill ([\d ]+);", done.stdout).group(1).split()]
    try:
        server = re.search(r"BOP_SERVER=(\S+)", done.stdout).group(1)
        same(len(json.loads(Bop(server).out("status", "--json"))["nodes"]), 3)
        same(Bop(server).out("map", "get", "demo", "word/babababa") != b"", True)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
    same(len(pids), 3)


@test
def demo_cleans_up_when_interrupted(_, directory):
    place = os.path.join(directory, "interrupted")
    with subprocess.Popen([BOP, "demo", "--bopd", BOPD, "--dir", place], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        for line in running.stdout:
            if "started nodes" in line:
                break
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=PATIENCE)
    same((running.returncode, err), (130, "bop: interrupted; stopping the nodes\n"))
    same(os.path.exists(place), False)


@test
def demo_says_why_it_fails(_, directory):
    done = demo("--bopd", "/nonexistent")
    same((done.returncode, done.stderr), (1, "bop: --bopd /nonexistent: No such file or directory\n"))
    with open(os.path.join(directory, "precious"), "w", encoding="utf-8") as file:
        file.write("mine")
    done = demo("--dir", directory)
    same((done.returncode, done.stderr.count("\n"), "not an empty directory" in done.stderr),
         (1, 1, True))
    place = os.path.join(directory, "false")
    done = demo("--dir", place, "--bopd", "/bin/false")
    same(done.returncode, 1)
    same("ended by itself (exit status 1)" in done.stderr and place in done.stderr, True)


def start_bopd():
    """A single node on any port. Returns the process and the address."""
    running = subprocess.Popen([BOPD, "--dev", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    line = running.stdout.readline()
    found = re.search(r"ready on (\S+)", line)
    if not found:
        running.kill()
        sys.exit(f"Bail out! bopd said {line!r}")
    return running, found.group(1)


def main():
    print(f"1..{len(TESTS)}")
    failed = 0
    bopd, server = start_bopd()
    try:
        for number, function in enumerate(TESTS, 1):
            name = function.__name__.replace("_", " ")
            try:
                with tempfile.TemporaryDirectory() as directory:
                    function(Bop(server), directory)
                print(f"ok {number} - bop: {name}", flush=True)
            except Exception:  # pylint: disable=broad-except
                failed += 1
                print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()) +
                      f"not ok {number} - bop: {name}", flush=True)
    finally:
        bopd.terminate()
        bopd.wait()
        bopd.stdout.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
