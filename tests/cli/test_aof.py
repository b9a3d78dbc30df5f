#!/usr/bin/env python3
"""bop aof: the operator's tools, on real logs that are damaged in every way.

usage: test_aof.py PATH_OF_BOP
"""

import fcntl
import glob
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback

BOP = os.path.abspath(sys.argv[1])
PATIENCE = 120
TESTS = []

HEADER = 4096


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


def bop(*words, stdin=b"", status=0, env=None):
    """Run `bop aof`. Returns standard output and standard error as text."""
    done = subprocess.run([BOP, "aof", *words], input=stdin, capture_output=True, check=False,
                          timeout=PATIENCE, env=dict(os.environ, **(env or {})))
    if done.returncode != status:
        raise AssertionError(f"bop aof {words}: exit status {done.returncode}, not {status}: "
                             f"{done.stdout!r} {done.stderr!r}")
    return done.stdout.decode(), done.stderr.decode()


def error(status, *words, **options):
    """The one line of a failure, without its beginning."""
    _, err = bop(*words, status=status, **options)
    if not re.fullmatch(r"bop: [^\n]*\n", err):
        raise AssertionError(f"no line of an error: {err!r}")
    return err[5:-1]


def objects(*words, **options):
    """What it prints with --json, line by line."""
    out, _ = bop(*words, "--json", **options)
    return [json.loads(line) for line in out.splitlines()]


# ---- Logs ----

def record(seq):
    return {"seq": seq, "tag": seq * 2, "time_us": 1_700_000_000_000_000 + seq,
            "payload": f"record {seq} " + "x" * (seq % 97)}


def lines(first, last):
    return "".join(json.dumps(record(seq)) + "\n" for seq in range(first, last + 1)).encode()


def make(directory, count=1000, segment="16K"):
    """A log of several segments."""
    path = os.path.join(directory, "log")
    bop("import", path, "-", "--segment-bytes", segment, stdin=lines(1, count))
    return path


def segments(path):
    return sorted(glob.glob(os.path.join(path, "*.seg")))


def exported(path, *flags, status=0):
    """Numbers and content of what the log gives."""
    out, _ = bop("export", path, "-", *flags, status=status)
    got = [json.loads(line) for line in out.splitlines()]
    for one in got:
        same(one, record(one["seq"]))
    return [one["seq"] for one in got]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def flip(path, bit):
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def snapshot(path):
    """Everything in a directory but the lock, and the file that was to be the next."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            if name not in ("lock", "next.tmp"):
                whole = os.path.join(folder, name)
                found[os.path.relpath(whole, path)] = read(whole)
    return found


def base_of(path):
    return int(os.path.basename(path)[:16], 16)


def offset_of(path, seq):
    """File, offset and size of a record."""
    out = objects("dump", path, "--records", "--from", str(seq), "--to", str(seq))
    found = [one for one in out if one.get("seq") == seq]
    return os.path.join(path, found[0]["file"]), found[0]["offset"], found[0]["bytes"]


# ---- Good logs ----

@test
def import_export_any_bytes(directory):
    path = os.path.join(directory, "log")
    text = b"".join([
        b'{"seq":7,"tag":"18446744073709551615","time_us":1,"payload":"caf\xc3\xa9 \\u0000 \\n"}\n',
        b'{"seq":8,"payload64":"/wD+"}\n',
        b'{"payload":""}'])
    out = json.loads(bop("import", path, "-", "--json", stdin=text)[0])
    same(out, {"records": 3, "skipped": 0, "first": 7, "last": 9})
    got = [json.loads(line) for line in bop("export", path, "-")[0].splitlines()]
    same(got, [{"seq": 7, "tag": "18446744073709551615", "time_us": 1,
                "payload": "caf\u00e9 \0 \n"},
               {"seq": 8, "tag": 0, "time_us": 0, "payload64": "/wD+"},
               {"seq": 9, "tag": 0, "time_us": 0, "payload": ""}])
    raw = os.path.join(directory, "raw")
    bop("export", path, raw, "--raw")
    bop("import", path + "2", raw)
    same(bop("export", path, "-"), bop("export", path + "2", "-"))


@test
def import_follows(directory):
    path = make(directory, 10)
    holds(error(4, "import", path, "-", stdin=lines(10, 12)), "record 10 is there already",
          "--resume", "0 records were appended")
    holds(error(4, "import", path, "-", stdin=lines(12, 13)), "record 12 follows 10", "--renumber")
    out = objects("import", path, "-", "--resume", stdin=lines(5, 12))[0]
    same((out["records"], out["skipped"], out["last"]), (2, 6, 12))
    bop("import", path, "-", "--renumber", stdin=lines(3, 4))
    same(objects("inspect", path)[0]["last"], 14)
    holds(error(4, "import", path, "-", stdin=lines(15, 16) + b"{nonsense\n"), "line 3",
          "2 records were appended and are on disk")
    same(objects("inspect", path)[0]["last"], 16)
    holds(error(4, "import", path, os.path.join(directory, "none")), "No such file")


@test
def import_of_damaged_raw(directory):
    path = make(directory, 20)
    raw = os.path.join(directory, "raw")
    bop("export", path, raw, "--raw")
    whole = read(raw)
    for end in range(8, len(whole), 37):
        write(raw, whole[:end])
        shutil.rmtree(path + "2", ignore_errors=True)
        done = subprocess.run([BOP, "aof", "import", path + "2", raw], capture_output=True,
                              check=False, timeout=PATIENCE)
        same(done.returncode in (0, 4), True)
        if done.returncode == 4:
            holds(done.stderr.decode(), "is damaged")
    write(raw, whole[:-1] + bytes([whole[-1] ^ 1]))
    holds(error(4, "import", path + "3", raw), "record 20 of the file is damaged",
          "19 records were appended")


@test
def export_of_ranges(directory):
    path = make(directory)
    same(exported(path), list(range(1, 1001)))
    same(exported(path, "--from", "300", "--to", "420"), list(range(300, 421)))
    same(exported(path, "--from", "990"), list(range(990, 1001)))
    holds(error(2, "export", path, "-", "--from", "1001"), "no record from 1001 on")


@test
def looking_changes_nothing(directory):
    path = make(directory)
    before = snapshot(path)
    info = objects("inspect", path)[0]
    same((info["first"], info["last"], info["problems"]), (1, 1000, 0))
    same(info["segments"], len(segments(path)))
    found = objects("segments", "list", path)[0]["segments"]
    same([one["file"] for one in found], [os.path.basename(one) for one in segments(path)])
    same(found[0]["first"], 1)
    for one, after in zip(found, found[1:]):
        same(one["end"], after["first"])
    same(found[-1]["newest"], True)
    same(objects("segments", "list", path, "--tier", "2")[0]["segments"], [])
    report = objects("verify", path)[-1]
    same((report["records"], report["problems"], report["lost"]), (1000, 0, 0))
    one = objects("verify", path, "--segment", str(found[1]["generation"]))[-1]
    same(one["records"], found[1]["end"] - found[1]["first"])
    same(one["segments"], 1)
    holds(error(2, "verify", path, "--segment", "99"), "has no segment 99")
    holds(error(2, "dump", path, "--segment", "99"), "has no segment 99")
    dumped = objects("dump", path, "--records")
    same([one["seq"] for one in dumped if "seq" in one], list(range(1, 1001)))
    text, _ = bop("dump", path)
    holds(text, "segment 1:", found[0]["file"], "records   1 to 1000")
    text, _ = bop("segments", "list", path)
    holds(text, "GENERATION", found[0]["file"])
    same(objects("repair", path), [{"problems": 0, "repairs": 0, "last": 1000, "lost": 0,
                                    "lost_good": 0, "torn_bytes": 0, "dry_run": False}])
    same(snapshot(path), before)


@test
def scrub_keeps_the_rate(directory):
    import time
    path = make(directory)
    size = sum(os.path.getsize(one) for one in segments(path))
    begun = time.monotonic()
    bop("scrub", path, "--rate", str(size))
    same(time.monotonic() - begun > 0.5, True)
    bop("scrub", path)


@test
def while_it_is_in_use(directory):
    path = make(directory)
    with open(os.path.join(path, "lock"), "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same(objects("verify", path)[-1]["records"], 1000)
        same(exported(path), list(range(1, 1001)))
        newest = segments(path)[-1]
        end = objects("segments", "list", path)[0]["segments"][-1]["end_bytes"]
        with open(newest, "r+b") as file:  # The beginning of a record on its way.
            file.seek(end)
            file.write(b"\x01" * 20)
        report = objects("verify", path)[-1]
        same((report["problems"], report["in_use"], report["torn_bytes"]), (0, True, 0))
        before = snapshot(path)
        holds(error(4, "repair", path), "in use by another process", "nothing was changed")
        holds(error(4, "import", path, "-", stdin=lines(1001, 1001)), "in use")
        same(snapshot(path), before)


@test
def words_of_wrong_use(directory):
    path = make(directory, 10)
    holds(error(1, "verify"), "too few arguments", "aof verify DIR")
    holds(error(1, "verify", path, "x"), "too many arguments")
    holds(error(1, "verify", path, "--compact"), "--compact is no flag of aof verify")
    holds(error(1, "verify", path, "--rate", "x"), "--rate x")
    holds(error(1, "verify", path, "--objects"), "--endpoint")
    holds(error(1, "verify", path, "--objects", "--endpoint", "http://127.0.0.1:1"), "--bucket")
    holds(error(1, "verfy", path), "did you mean `bop aof verify`")
    holds(error(1, "segments", "lst", path), "aof has no command segments")
    holds(error(2, "verify", directory), "is no log", "name the directory")
    holds(error(2, "verify", os.path.join(directory, "none")), "there is no such directory")
    holds(error(2, "verify", segments(path)[0]), "there is no such directory")
    holds(error(2, "repair", directory), "is no log")
    holds(error(2, "manifest", "check", path), "has no manifest")
    same(os.listdir(directory), ["log"])
    for words in ("verify", "segments list", "manifest check"):
        done = subprocess.run([BOP, "help", "aof", *words.split()], capture_output=True,
                              check=True, timeout=PATIENCE)
        holds(done.stdout.decode(), f"Usage: bop [FLAGS] aof {words} DIR")
    holds(subprocess.run([BOP, "aof", "--help"], capture_output=True, check=True,
                         timeout=PATIENCE).stdout.decode(), "damage was found")


# ---- Damage ----

def damage_is_told(path, name):
    """verify finds it and names the file; what is good is all there. Returns what it said."""
    before = snapshot(path)
    said = objects("verify", path, status=4)
    problems, report = said[:-1], said[-1]
    same(report["problems"], len(problems))
    same(any(name in one["file"] or name in one["text"] for one in problems), True)
    text, _ = bop("verify", path, status=4)
    holds(text, name)
    lost = [seq for one in problems if "first" in one and not one["elsewhere"]
            for seq in range(one["first"], one["last"] + 1)]
    same(len(lost), report["lost"])
    if lost:
        holds(error(4, "export", path, os.path.join(os.path.dirname(path), "out"), "--json"),
              "--skip-damage")
    got = exported(path, "--skip-damage", status=4 if lost else 0)
    same(sorted(set(got) | set(lost)), list(range(1, report["last"] + 1)))
    same(set(got) & set(lost), set())
    same(snapshot(path), before)
    return problems, report


def repair_is_exact(path, kept):
    """Repair it; the log then has the records 1 to `kept`, and every changed file as before."""
    before = snapshot(path)
    would = objects("repair", path, "--dry-run")[-1]
    same(snapshot(path), before)
    done = objects("repair", path)[-1]
    after = snapshot(path)
    for name, content in before.items():
        if after.get(name) != content:
            kept_as = [one for one in after if one.startswith(name + ".broken")
                       and after[one] == content]
            same((name, len(kept_as)), (name, 1))
    same(done["last"], kept)
    same(would["last"], kept)
    if done["lost"]:
        same(done["lost_first"], kept + 1)
        same((would["lost_first"], would["lost_last"]), (done["lost_first"], done["lost_last"]))
    same(objects("verify", path)[-1]["problems"], 0)
    same(exported(path), list(range(1, kept + 1)))
    # It opens, and goes on.
    bop("import", path, "-", stdin=lines(kept + 1, kept + 3))
    same(exported(path), list(range(1, kept + 4)))
    same(objects("verify", path)[-1]["problems"], 0)
    return done


def copy(path, number):
    other = os.path.join(os.path.dirname(path), f"copy-{number}", "log")
    shutil.copytree(path, other)
    return other


@test
def every_segment_missing(directory):
    path = make(directory)
    files = segments(path)
    for i, file in enumerate(files[:-1]):  # The newest can be taken away without a trace.
        other = copy(path, i)
        os.unlink(os.path.join(other, os.path.basename(file)))
        first, end = base_of(file), base_of(files[i + 1])
        problems, report = damage_is_told(other, f"records {first} to {end - 1} are missing")
        same([(one["first"], one["last"]) for one in problems], [(first, end - 1)])
        done = repair_is_exact(other, first - 1)
        same((done["lost"], done["lost_good"]), (1000 - first + 1, 1000 - end + 1))


@test
def every_segment_truncated(directory):
    path = make(directory)
    files = segments(path)
    number = 0
    for i, file in enumerate(files[:-1]):
        for cut in (0, 100, HEADER, HEADER + 20, 9000, 16000):
            other = copy(path, number)
            number += 1
            name = os.path.basename(file)
            whole = read(file)
            write(os.path.join(other, name), whole[:cut])
            problems, report = damage_is_told(other, name)
            end = base_of(files[i + 1])
            lost = [one for one in problems if "first" in one]
            same(len(lost), 1)
            same(lost[0]["last"], end - 1)
            repair_is_exact(other, lost[0]["first"] - 1)


@test
def newest_segment_torn(directory):
    path = make(directory)
    newest = segments(path)[-1]
    end = objects("segments", "list", path)[0]["segments"][-1]["end_bytes"]
    file, offset, size = offset_of(path, 1000)
    same(file, newest)
    for number, cut in enumerate((offset + 1, offset + 47, offset + 48, end - 1)):
        other = copy(path, number)
        name = os.path.basename(newest)
        write(os.path.join(other, name), read(newest)[:cut])
        report = objects("verify", other)[-1]
        same((report["problems"], report["last"], report["torn_from_seq"] if "torn_from_seq" in
              report else 1000), (0, 999, 1000))
        same(report["torn_bytes"] > 0, True)
        holds(bop("verify", other)[0], "torn tail", "from record 1000")
        done = repair_is_exact(other, 999)
        same((done["lost"], done["repairs"]), (0, 1))


@test
def every_part_of_a_segment_flipped(directory):
    path = make(directory)
    files = segments(path)
    number = 0
    for file in (files[0], files[len(files) // 2], files[-1]):
        name = os.path.basename(file)
        end = base_of(files[files.index(file) + 1]) if file != files[-1] else 1001
        seq = (base_of(file) + end) // 2
        _, offset, size = offset_of(path, seq)
        for bit in [offset * 8 + 8 * at + 3 for at in (0, 8, 16, 24, 32, 36, 40, 44, 47)] + [
                (offset + 48) * 8, (offset + 48 + size) * 8 + 7]:
            other = copy(path, number)
            number += 1
            flip(os.path.join(other, name), bit)
            problems, report = damage_is_told(other, name)
            same([(one["problem"], one["first"], one["last"]) for one in problems],
                 [("records", seq, seq)])
            holds(problems[0]["text"], f"record {seq} at offset {offset}")
            done = repair_is_exact(other, seq - 1)
            same((done["lost_last"], done["lost_good"]), (1000, 1000 - seq))


@test
def every_header_flipped(directory):
    path = make(directory)
    number = 0
    for file in segments(path):
        name = os.path.basename(file)
        for bit in (3, 8 * 8, 12 * 8 + 5, 16 * 8, 24 * 8, 40 * 8, 48 * 8, 56 * 8, 72 * 8, 4000 * 8):
            other = copy(path, number)
            number += 1
            flip(os.path.join(other, name), bit)
            problems, report = damage_is_told(other, name)
            same((problems[0]["problem"], report["lost"]), ("header", 0))
            done = repair_is_exact(other, 1000)
            same((done["lost"], done["repairs"]), (0, 1))


@test
def header_overwritten(directory):
    path = make(directory)
    files = segments(path)
    for number, file in enumerate(files):
        other = copy(path, number)
        name = os.path.basename(file)
        with open(os.path.join(other, name), "r+b") as damaged:
            damaged.write(b"\xee" * 200)
        problems, report = damage_is_told(other, name)
        if number > 0:  # The record before it says all that is needed.
            same(report["lost"], 0)
            repair_is_exact(other, 1000)
        else:
            same(problems[0]["first"], 1)


@test
def another_version(directory):
    path = make(directory)
    for number, file in enumerate(segments(path)):
        other = copy(path, number)
        name = os.path.join(other, os.path.basename(file))
        block = bytearray(read(name))
        block[8:12] = struct.pack("<I", 9)
        block[12:16] = bytes(4)
        block[12:16] = struct.pack("<I", crc32c(bytes(block[:HEADER])))
        write(name, bytes(block))
        said = objects("verify", other, status=4)
        same(said[0]["code"], "BOP_EVERSION")
        holds(said[0]["text"], os.path.basename(file))
        before = snapshot(other)
        holds(error(4, "repair", other), "of a version that this program does not know",
              "nothing was changed")
        same(snapshot(other), before)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@test
def swapped_with_another(directory):
    path = make(directory)
    files = [os.path.basename(file) for file in segments(path)]
    a, b = os.path.join(path, files[1]), os.path.join(path, files[3])
    content = read(a), read(b)
    write(a, content[1])
    write(b, content[0])
    problems, report = damage_is_told(path, files[1])
    same((len(problems), report["lost"]), (2, 0))
    done = objects("repair", path)[-1]
    same((done["lost"], done["last"]), (0, 1000))
    same((read(a), read(b)), content)
    same(exported(path), list(range(1, 1001)))


@test
def of_another_log(directory):
    path = make(directory)
    os.mkdir(os.path.join(directory, "other"))
    strange = make(os.path.join(directory, "other"))
    files = [os.path.basename(file) for file in segments(path)]
    for number, name in enumerate(files[:-1]):
        other = copy(path, number)
        shutil.copy(os.path.join(strange, name), os.path.join(other, name))
        problems, report = damage_is_told(other, name)
        same(any("another log" in one["text"] for one in problems), True)
        same(report["lost"], base_of(files[number + 1]) - base_of(name))
        repair_is_exact(other, base_of(name) - 1)


@test
def repairs_do_not_overwrite_copies(directory):
    path = make(directory)
    file, offset, _ = offset_of(path, 500)
    flip(file, offset * 8)
    write(file + ".broken", b"of an earlier time")
    damaged = read(file)
    said = objects("repair", path)
    same(os.path.basename(file) + ".broken-2" in [one.get("broken") for one in said], True)
    same((read(file + ".broken"), read(file + ".broken-2")), (b"of an earlier time", damaged))


@test
def a_log_made_anew_without_the_lost(directory):
    path = make(directory)
    file, offset, _ = offset_of(path, 500)
    flip(file, offset * 8)
    good = os.path.join(directory, "good")
    bop("export", path, good, "--skip-damage", status=4)
    other = os.path.join(directory, "anew")
    bop("import", other, good, "--renumber")
    same(objects("inspect", other)[0]["last"], 999)
    same(objects("verify", other)[-1]["problems"], 0)


@test
def every_file_at_random(directory):
    import random
    chance = random.Random(7)
    path = make(directory)
    files = [os.path.basename(file) for file in segments(path)]
    for number in range(40):
        other = copy(path, number)
        for name in chance.sample(files, chance.randint(1, 2)):
            whole = os.path.join(other, name)
            size = os.path.getsize(whole)
            at = chance.randrange(size)
            with open(whole, "r+b") as damaged:
                damaged.seek(at)
                damaged.write(chance.randbytes(chance.choice((1, 30, 600))))
        done = objects("repair", other)[-1]
        same(objects("verify", other)[-1]["problems"], 0)
        same(exported(other), list(range(1, done["last"] + 1)))


def main():
    print(f"1..{len(TESTS)}")
    wanted = sys.argv[2:]
    failed = 0
    for number, function in enumerate(TESTS, 1):
        name = function.__name__.replace("_", " ")
        if wanted and not any(word in name for word in wanted):
            print(f"ok {number} - {name} # SKIP not asked for")
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="bop-aof-") as directory:
                function(directory)
            print(f"ok {number} - {name}", flush=True)
        except Exception:
            failed += 1
            for line in traceback.format_exc().splitlines():
                print(f"# {line}")
            print(f"not ok {number} - {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
