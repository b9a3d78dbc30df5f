#!/usr/bin/env python3
"""bop aof with tiers and a real S3 server: what docs/operations/aof.md tells an operator to do.

usage: test_aof_tiers.py PATH_OF_BOP SOURCE_ROOT
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback

sys.dont_write_bytecode = True
BOP, ROOT = (os.path.abspath(path) for path in sys.argv[1:3])
sys.path.insert(0, os.path.join(ROOT, "tests", "store", "s3"))
import server as s3  # pylint: disable=wrong-import-position

PATIENCE = 180
TESTS = []
RECORDS = 600


def test(function):
    TESTS.append(function)
    return function


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def holds(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError(f"{part!r} is not in {text!r}")


def environment(server, **more):
    return dict(os.environ, BOP_TIER2_ENDPOINT=server.endpoint,
                BOP_TIER2_ACCESS_KEY=s3.ACCESS_KEY, BOP_TIER2_SECRET_KEY=s3.SECRET_KEY, **more)


class Bop:
    def __init__(self, server):
        self.server = server
        self.env = environment(server)
        self.store = ["--bucket", s3.BUCKET, "--region", s3.REGION, "--ca", server.ca_file]

    def local(self, *words, status=0, stdin=b""):
        """Run `bop aof` without an object store."""
        env = {name: value for name, value in self.env.items() if "TIER2" not in name}
        done = subprocess.run([BOP, "aof", *words], capture_output=True, input=stdin, check=False,
                              timeout=PATIENCE, env=env)
        return self.result(words, done, status)

    def __call__(self, *words, status=0, **env):
        done = subprocess.run([BOP, "aof", *words, *self.store], capture_output=True, check=False,
                              timeout=PATIENCE, env=dict(self.env, **env))
        return self.result(words, done, status)

    @staticmethod
    def result(words, done, status):
        if done.returncode != status:
            raise AssertionError(f"bop aof {words}: exit status {done.returncode}, not {status}: "
                                 f"{done.stdout!r} {done.stderr!r}")
        return done.stdout.decode() + (done.stderr.decode() if status else "")

    def json(self, *words, **options):
        return [json.loads(line) for line in self(*words, "--json", **options).splitlines()]


def lines(first, last):
    return "".join(json.dumps({"seq": seq, "tag": seq, "time_us": 1_700_000_000_000_000 + seq,
                               "payload": f"record {seq} " + "y" * (seq % 90)}) + "\n"
                   for seq in range(first, last + 1)).encode()


def make(bop, directory):
    """A log of which all but the newest segment is in all tiers."""
    path = os.path.join(directory, "log")
    bop.local("import", path, "-", "--segment-bytes", "16K", stdin=lines(1, RECORDS))
    bop("seal", path)
    bop("flush", path)
    return path


def tiers(bop, path):
    out = json.loads(bop.local("segments", "list", path, "--json"))
    return [one["tiers"] for one in out["segments"] if not one["newest"]]


def numbers(text):
    return [json.loads(line)["seq"] for line in text.splitlines() if line.startswith("{\"")]


def log_id(bop, path):
    return json.loads(bop.local("inspect", path, "--json"))["id"]


@test
def seal_flush_and_look(bop, directory):
    path = make(bop, directory)
    got = tiers(bop, path)
    same(len(got) > 2, True)
    same(got, [[0, 1, 2]] * len(got))
    report = bop.json("verify", path, "--objects")[-1]
    same((report["problems"], report["objects"], report["packed"], report["records"]),
         (0, len(got), len(got), RECORDS))
    same(bop.json("scrub", path, "--objects", "--rate", "1G")[-1]["objects"], len(got))
    holds(bop.local("inspect", path), "manifest  good")
    out = bop.local("manifest", "check", path, "--events")
    holds(out, "upload-done", "compression-done", f"{len(got)} in the object store")
    holds(bop.local("dump", path), "tier 2    ", "tier 1    warm/segment-")


@test
def local_copies_go_and_come_back(bop, directory):
    path = make(bop, directory)
    all_records = bop.local("export", path, "-")
    same(numbers(all_records), list(range(1, RECORDS + 1)))
    bop("segments", "delete", path, "--tier", "0")
    same(tiers(bop, path), [[1, 2]] * len(tiers(bop, path)))
    same(bop.local("export", path, "-"), all_records)
    bop("segments", "delete", path, "--tier", "1")
    same(tiers(bop, path), [[2]] * len(tiers(bop, path)))
    same(bop("export", path, "-"), all_records)
    bop("hydrate", path)
    same(tiers(bop, path), [[1, 2]] * len(tiers(bop, path)))
    same(bop.local("export", path, "-"), all_records)
    bop.local("import", path, "-", stdin=lines(RECORDS + 1, RECORDS + 5))
    same(numbers(bop.local("export", path, "-")), list(range(1, RECORDS + 6)))


@test
def runbook_names_what_there_is(bop, _):
    """Every command and metric of the runbook exists; each command's flags are its own."""
    with open(os.path.join(ROOT, "docs", "operations", "aof.md"), encoding="utf-8") as file:
        text = file.read()
    named = set(re.findall(r"bop_(?:aof|s3)_[a-z0-9_]+", text))
    sources = "".join(open(name, encoding="utf-8").read()
                      for name in glob.glob(os.path.join(ROOT, "src", "store", "*", "*.c"))
                      + glob.glob(os.path.join(ROOT, "include", "bop", "*.h")))
    same([name for name in sorted(named) if not re.search(rf"\b{name}\b", sources)], [])
    commands = set(re.findall(r"bop aof ((?:segments |manifest )?[a-z]+)([^`\n]*)", text))
    same(len(commands) > 20, True)
    for command, rest in sorted(commands):
        helped = bop.local(*command.split(), "--help")
        for flag in re.findall(r"--[a-z-]+", rest):
            holds(helped, flag)


@test
def old_segments_are_deleted_on_purpose_only(bop, directory):
    path = make(bop, directory)
    found = json.loads(bop.local("segments", "list", path, "--json"))["segments"]
    words = ["segments", "delete", path, "--segment", str(found[1]["generation"])]
    holds(bop(*words, status=1), "--force", f"up to {found[1]['end'] - 1} would be lost")
    holds(bop("segments", "delete", path, "--segment", "999", "--force", status=2),
          "no segment 999")
    holds(bop("segments", "delete", path, status=1), "--segment GENERATION or --tier")
    bop(*words, "--force")
    same(json.loads(bop.local("inspect", path, "--json"))["first"], found[2]["first"])
    same(numbers(bop("export", path, "-"))[0], 1)  # The lower tiers keep them.
    plain = os.path.join(directory, "plain")
    bop.local("import", plain, "-", "--segment-bytes", "16K", stdin=lines(1, RECORDS))
    found = json.loads(bop.local("segments", "list", plain, "--json"))["segments"]
    bop.local("segments", "delete", plain, "--force", "--segment", str(found[1]["generation"]))
    same(numbers(bop.local("export", plain, "-"))[0], found[2]["first"])
    last = str(json.loads(bop.local("inspect", plain, "--json"))["generation"])
    holds(bop.local("segments", "delete", plain, "--force", "--segment", last, status=1),
          "takes appends")


@test
def drill_all_local_files_lost(bop, directory):
    path = make(bop, directory)
    name = log_id(bop, path)
    before = bop.local("export", path, "-")
    shutil.rmtree(path)
    out = bop.json("restore", path, "--name", name)[0]
    same((out["first"], out["last"]), (1, RECORDS))
    same(bop("export", path, "-"), before)
    bop("hydrate", path)
    same(bop.local("export", path, "-"), before)
    same(bop.json("verify", path, "--objects")[-1]["problems"], 0)
    holds(bop("restore", path, "--name", name, status=4), path)
    holds(bop("restore", path + "2", "--name", "nobody", status=2), "there is no log under")
    holds(bop("restore", path + "2", status=1), "--name")


@test
def drill_damage_with_tiers(bop, directory):
    path = make(bop, directory)
    before = bop.local("export", path, "-")
    for number, file in enumerate(sorted(glob.glob(os.path.join(path, "*.seg")))[:-1]):
        with open(file, "r+b") as damaged:
            damaged.seek(5000)
            damaged.write(b"\xff" * 100)
        said = bop.local("verify", path, status=4)
        holds(said, os.path.basename(file), "another tier has them")
        same(bop.local("export", path, "-"), before)
        done = json.loads(bop.local("repair", path, "--json").splitlines()[-1])
        same((done["lost"], done["last"]), (0, RECORDS))
        same(bop.local("export", path, "-"), before)
    # Without the packed file it is in the object store only, which has to be named.
    middle = sorted(glob.glob(os.path.join(path, "*.seg")))[2]
    generation = int(os.path.basename(middle)[17:33], 16)
    os.unlink(glob.glob(os.path.join(path, "warm", f"segment-{generation:020}-*"))[0])
    with open(middle, "r+b") as damaged:
        damaged.seek(6000)
        damaged.write(b"\xff" * 100)
    holds(bop.local("repair", path, status=4), "is in the object store: name that")
    holds(bop("repair", path), "got back from the object store", "no record is lost")
    same(bop.local("export", path, "-"), before)
    packed = sorted(glob.glob(os.path.join(path, "warm", "*.zst")))[0]
    with open(packed, "r+b") as damaged:
        damaged.seek(200)
        damaged.write(b"\xff" * 10)
    holds(bop.local("verify", path, status=4), os.path.basename(packed))
    bop.local("repair", path)
    bop.local("verify", path)


@test
def drill_manifest_damaged(bop, directory):
    path = make(bop, directory)
    before = bop.local("export", path, "-")
    chunk = sorted(glob.glob(os.path.join(path, "manifest", "*.mlog")))[-1]
    with open(chunk, "r+b") as damaged:
        damaged.seek(100)
        damaged.write(b"\xff" * 8)
    holds(bop.local("manifest", "check", path, status=4), os.path.basename(chunk))
    holds(bop.local("inspect", path, status=4), os.path.basename(chunk))
    bop.local("manifest", "check", path, "--repair")
    bop.local("verify", path)
    bop("flush", path)
    same(bop.local("export", path, "-"), before)


@test
def drill_object_lost(bop, directory):
    path = make(bop, directory)
    key = json.loads(bop.local("segments", "list", path, "--json"))["segments"][0]["key"]
    shutil.rmtree(os.path.join(bop.server.folder, "data", s3.BUCKET, key))
    said = bop("verify", path, "--objects", status=4)
    holds(said, key, "object")


@test
def refusals_are_one_clear_line(bop, directory):
    path = make(bop, directory)
    bop("segments", "delete", path, "--tier", "0")
    before = bop.local("export", path, "-")
    bop.local("export", path, "-", "--from", "5", "--to", "6")  # The endpoint alone asks nothing.

    def line(*words, status, store=None, **env):
        store = bop.store if store is None else store
        done = subprocess.run([BOP, "aof", *words, *store], capture_output=True, check=False,
                              timeout=PATIENCE, env=dict(bop.env, **env))
        text = bop.result(words, done, status)
        same(text.count("\n"), 1)
        holds(text, "bop: ")
        return text

    holds(line("verify", path, "--objects", status=3, BOP_TIER2_SECRET_KEY="wrong"), "signature")
    holds(line("verify", path, "--objects", status=3, BOP_TIER2_ACCESS_KEY="nobody"), "ccess key")
    wrong = ["--bucket", "no-such-bucket", *bop.store[2:]]
    holds(line("restore", path + "2", "--name", "x", status=3, store=wrong), "no-such-bucket")
    without_ca = bop.store[:4]
    holds(line("restore", path + "2", "--name", "x", status=3, store=without_ca), "ertificate")
    line("restore", path + "2", "--name", "x", status=4, BOP_TIER2_ENDPOINT="https://127.0.0.1:1")
    line("restore", path + "2", "--name", "x", status=3, BOP_TIER2_ENDPOINT="nonsense")
    same(bop.local("export", path, "-"), before)
    # What only the object store has is not called lost when that cannot be asked.
    bop("segments", "delete", path, "--tier", "1")
    line("verify", path, "--objects", status=3, BOP_TIER2_SECRET_KEY="wrong")
    line("export", path, "-", status=3, BOP_TIER2_SECRET_KEY="wrong")
    same(bop("export", path, "-"), before)


@test
def bench_leaves_nothing(bop, directory):
    path = os.path.join(directory, "bench")
    out = json.loads(bop.local("bench", path, "--entries", "2000", "--json"))
    same(out["records"], 2000)
    same(out["records_per_s"] > 0 and out["scan_records_per_s"] > 0, True)
    same(os.path.exists(path), False)
    bop.local("bench", path, "--entries", "500", "--size", "1K", "--batch", "10", "--keep")
    holds(bop.local("verify", path), "500 good records")
    holds(bop.local("bench", path, status=1), "not there yet")


def run(server):
    wanted = sys.argv[3:]
    failed = 0
    for number, function in enumerate(TESTS, 1):
        name = function.__name__.replace("_", " ")
        if wanted and not any(word in name for word in wanted):
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="bop-aof-") as directory:
                function(Bop(server), directory)
            print(f"ok {number} - {name}", flush=True)
        except Exception:
            failed += 1
            for line in traceback.format_exc().splitlines():
                print(f"# {line}")
            print(f"not ok {number} - {name}", flush=True)
    return 1 if failed else 0


def main():
    program, why = s3.program(ROOT)
    if not program:
        print(f"1..0 # SKIP {why}")
        return 0
    print(f"1..{len(TESTS)}", flush=True)
    server = s3.Server(program)
    try:
        return run(server)
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
