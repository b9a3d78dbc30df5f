#!/usr/bin/env python3
"""Programs of others with libbop-malloc preloaded: they work, and do what they did without it.

usage: test_malloc.py LIBRARY API STORM LEAKY [WORD...]

LONG=1 gives each of them several times the work.
"""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "system"))

import tap
from tap import Skip, check, check_equal, test, wait_until

LIBRARY, API, STORM, LEAKY = map(os.path.abspath, sys.argv[1:5])
ROOT = os.path.join(HERE, "..", "..")
LONG = os.environ.get("LONG", "0") == "1"
PATIENCE = 1800 if LONG else 300


def environment(preload=True, **more):
    """As a user has it, without what sanitizers and our own tests put there."""
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("BOP_MALLOC_", "ASAN_", "UBSAN_", "TSAN_", "LD_PRELOAD"))}
    if preload:
        env["LD_PRELOAD"] = LIBRARY
    env.update({key: str(value) for key, value in more.items()})
    return env


def run(command, preload=True, status=0, text=True, stdin=None, cwd=None, **env):
    """The output of a command that has to end with that status."""
    done = subprocess.run([str(word) for word in command], env=environment(preload, **env),
                          input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text,
                          cwd=cwd, timeout=PATIENCE, check=False)
    if done.returncode != status:
        raise AssertionError(f"{command} ended with {done.returncode}: "
                             f"{done.stdout[-2000:]!r} {done.stderr[-2000:]!r}")
    return done


def program(name):
    path = shutil.which(name)
    if not path:
        raise Skip(f"{name} is not installed")
    return path


def real_pythons():
    """Interpreters themselves: python3 may be a script that looks for one."""
    found = [os.path.realpath(path) for path in ["/usr/bin/python3", sys.executable]
             if path and os.path.exists(path)]
    if not found:
        raise Skip("there is no python3")
    return found


class Scratch:
    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="bop-malloc-")
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def file(self, name):
        return os.path.join(self.path, name)


# -- Our own programs -------------------------------------------------------------------------


@test
def every_function_of_the_family_is_as_c_and_posix_have_it():
    check_equal(run([API]).stdout, "whole\n", "the last words")


@test
def a_program_may_fork_while_its_threads_allocate():
    for _ in range(10 if LONG else 1):
        check_equal(run([STORM, 40]).stdout, "40 forks, 0 failed\n", "output")


@test
def objects_of_cpp_are_made_and_deleted():
    compiler = program("g++")
    with Scratch() as scratch:
        binary = scratch.file("objects")
        run([compiler, "-std=c++17", "-O2", "-pthread", os.path.join(HERE, "programs/objects.cc"),
             "-o", binary], preload=False)
        plain = run([binary], preload=False)
        check_equal(run([binary]).stdout, plain.stdout, "output")
        check("bad_alloc after 3 calls" in plain.stdout, plain.stdout)


# -- Redis ------------------------------------------------------------------------------------


class Redis:
    """A server on a socket in a directory of its own."""

    def __init__(self, scratch, preload, **env):
        self.socket = scratch.file("redis.sock")
        self.cli_path = program("redis-cli")
        self.log = open(scratch.file("redis.log"), "a+", encoding="utf-8")
        self.process = subprocess.Popen(
            [program("redis-server"), "--port", "0", "--unixsocket", self.socket, "--dir",
             scratch.path, "--save", "", "--enable-debug-command", "yes", "--io-threads", "2"],
            env=environment(preload, **env), stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.log)

    def __enter__(self):
        try:
            wait_until(self.answers, "redis-server answers")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def answers(self):
        check(self.process.poll() is None, "redis-server has ended")
        done = subprocess.run([self.cli_path, "-s", self.socket, "ping"], capture_output=True,
                              text=True, check=False)
        return done.stdout == "PONG\n"

    def cli(self, *words, stdin=None):
        return run([self.cli_path, "-s", self.socket, *words], preload=False,
                   stdin=stdin).stdout.strip()

    def stop(self):
        """Let it end by itself, with all that it has written."""
        subprocess.run([self.cli_path, "-s", self.socket, "shutdown", "nosave"],
                       capture_output=True, check=False)
        check_equal(self.process.wait(PATIENCE), 0, "exit status of redis-server")


def fill(redis):
    """The same data every time: strings, lists, hashes and sets, some deleted again."""
    lines = []
    for i in range(200000 if LONG else 10000):
        lines.append(f"SET key:{i} {'v' * (i % 700)}{i}")
        lines.append(f"RPUSH list:{i % 97} {i}")
        lines.append(f"HSET hash:{i % 89} field{i} {i * i}")
        lines.append(f"ZADD sorted:{i % 13} {i % 1009} member{i}")
        if i % 3 == 0:
            lines.append(f"DEL key:{i // 2}")
        if i % 50 == 0:
            lines.append(f"APPEND key:{i} {'w' * 5000}")
    said = redis.cli("--pipe", stdin="\n".join(lines) + "\n")
    check("errors: 0" in said, said)


def save_in_the_background(redis):
    redis.cli("bgsave")
    wait_until(lambda: "rdb_bgsave_in_progress:0" in redis.cli("info", "persistence"),
               "the background save is done", seconds=PATIENCE)
    check("rdb_last_bgsave_status:ok" in redis.cli("info", "persistence"), "the save failed")


@test
def redis_serves_its_own_benchmark_saves_by_a_fork_and_keeps_its_data():
    benchmark = program("redis-benchmark")
    with Scratch() as scratch:
        with Redis(scratch, preload=False) as redis:
            fill(redis)
            expected = redis.cli("debug", "digest")
            redis.stop()
        with Redis(scratch, preload=True, BOP_MALLOC_STATS="1") as redis:
            with open(f"/proc/{redis.process.pid}/maps", encoding="utf-8") as maps:
                check(os.path.basename(LIBRARY) in maps.read(), "the library is not in there")
            fill(redis)
            check_equal(redis.cli("debug", "digest"), expected, "digest")
            for pipeline in [1, 32]:
                run([benchmark, "-s", redis.socket, "-q", "-c", "40", "-P", pipeline, "-d", 256,
                     "-r", 10000, "-n", 400000 if LONG else 10000, "-t",
                     "set,get,incr,lpush,rpush,lpop,sadd,hset,spop,zadd,lrange_100,mset"],
                    preload=False)
                save_in_the_background(redis)
            redis.cli("flushall")
            fill(redis)
            save_in_the_background(redis)
            redis.cli("debug", "reload")
            check_equal(redis.cli("memory", "purge"), "OK", "memory purge")
            check_equal(redis.cli("debug", "digest"), expected, "digest after a reload")
            redis.stop()
        with open(scratch.file("redis.log"), encoding="utf-8") as log:
            check("libbop-malloc: untagged: live " in log.read(), "no summary at the end")


# -- Python -----------------------------------------------------------------------------------

PYTHON_WORK = r"""
import collections, concurrent.futures, hashlib, json, multiprocessing, re, sqlite3, sys, zlib

TIMES = int(sys.argv[1])

def documents(seed):
    tree = {str(i): {"id": i * seed, "text": "x" * (i % 300), "list": list(range(i % 50))}
            for i in range(400)}
    for _ in range(3 * TIMES):
        tree = json.loads(json.dumps(tree))
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

def table():
    base = sqlite3.connect(":memory:")
    base.execute("create table t (id integer primary key, name text, size integer)")
    base.executemany("insert into t values (?, ?, ?)",
                     ((i, "n" * (i % 100), i * 7 % 1009) for i in range(20000 * TIMES)))
    base.execute("create index by_size on t (size, name)")
    return base.execute("select sum(id), sum(length(name)), max(size) from t "
                        "where size between 100 and 900").fetchone()

def words(seed):
    counts = collections.Counter(re.findall(r"\w+", " ".join(
        f"w{i * seed % 3001} and{i % 7}" for i in range(20000))))
    packed = zlib.compress(repr(sorted(counts.items())).encode())
    return zlib.crc32(zlib.decompress(packed))

if __name__ == "__main__":
    print(documents(3), table(), words(5))
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        print(list(pool.map(documents, range(6))), list(pool.map(words, range(1, 7))))
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(pool.map(documents, range(3)), pool.map(words, range(1, 7)))
"""


@test
def python_runs_its_library_with_threads_and_forks():
    python = real_pythons()[0]
    with Scratch() as scratch:
        script = scratch.file("work.py")
        with open(script, "w", encoding="utf-8") as out:
            out.write(PYTHON_WORK)
        command = [python, "-B", script, 10 if LONG else 1]
        plain = run(command, preload=False)
        check_equal(run(command).stdout, plain.stdout, "output")
        check_equal(run(command, PYTHONMALLOC="malloc").stdout, plain.stdout, "all by malloc()")


@test
def python_passes_tests_of_its_own():
    def has(python, name):
        return run([python, "-c", f"import importlib.util as u; print(u.find_spec('{name}'))"],
                   preload=False).stdout != "None\n"

    pythons = [python for python in real_pythons()
               if has(python, "test") and has(python, "test.test_json")]
    if not pythons:
        raise Skip("python's tests are not installed")
    names = ["test_bytes", "test_json", "test_list", "test_mmap"]
    if LONG:
        names += ["test_concurrent_futures", "test_dict", "test_fork1", "test_gc", "test_queue",
                  "test_sqlite3", "test_subprocess", "test_thread", "test_threading",
                  "test_weakref", "test_zlib"]
    command = [pythons[0], "-B", "-m", "test", "-q"]
    good = [name for name in names if has(pythons[0], "test." + name) and subprocess.run(
        [*command, name], env=environment(False), capture_output=True, timeout=PATIENCE,
        check=False).returncode == 0]
    if not good:
        raise Skip("python's tests fail without the library as well")
    tap.note(f"{pythons[0]}: {good}")
    run([*command, *good], PYTHONMALLOC="malloc")


# -- Compiling, version control, sorting ------------------------------------------------------


@test
def gcc_compiles_to_the_same_objects():
    compiler = program("gcc")
    sources = sorted(glob.glob(os.path.join(ROOT, "src/core/*.c")),
                     key=lambda path: (-os.path.getsize(path), path))
    compared = 0
    with Scratch() as scratch:
        for source in sources[:40 if LONG else 10]:
            name = scratch.file("object.o")
            command = [compiler, "-O2", "-g", "-std=gnu17", "-D_GNU_SOURCE", "-DBOP_VERSION=\"0\"",
                       "-I" + os.path.join(ROOT, "include"), "-c", source, "-o", name]
            # Some want what the build finds, say a library's header.
            if subprocess.run(command, env=environment(preload=False), stderr=subprocess.DEVNULL,
                              timeout=PATIENCE, check=False).returncode != 0:
                continue
            with open(name, "rb") as file:
                expected = file.read()
            run(command)
            with open(name, "rb") as file:
                check(file.read() == expected, f"the objects of {source} differ")
            compared += 1
    check(compared >= 5, f"only {compared} sources compile by themselves")


@test
def git_packs_and_checks_a_repository():
    git = program("git")
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
           "GIT_COMMITTER_EMAIL": "a@b", "GIT_AUTHOR_DATE": "1700000000 +0000",
           "GIT_COMMITTER_DATE": "1700000000 +0000", "GIT_CONFIG_GLOBAL": "/dev/null",
           "GIT_CONFIG_SYSTEM": "/dev/null"}
    heads = []
    for preload in [False, True]:
        with Scratch() as scratch:
            def call(*words, scratch=scratch, preload=preload):
                return run([git, "-c", "pack.threads=4", *words], preload=preload,
                           cwd=scratch.path, **who).stdout

            call("init", "-q", ".")
            for commit in range(5):
                for i in range(400):
                    with open(scratch.file(f"f{i}"), "a", encoding="utf-8") as file:
                        file.write(f"{i * commit} line\n" * (i % 60 + 1))
                call("add", "-A")
                call("commit", "-q", "-m", f"number {commit}")
            call("repack", "-adfq", "--depth=20", "--window=20")
            call("fsck", "--strict")
            call("clone", "-q", "--no-local", ".", "copy")
            heads.append((call("rev-parse", "HEAD"), call("log", "--stat", "--oneline"),
                          call("-C", "copy", "diff", "--stat", "HEAD~4")))
    check_equal(heads[1], heads[0], "what git says")


@test
def sort_sorts_in_parallel():
    sort = program("sort")
    count = 3000000 if LONG else 300000
    lines = "".join(f"{i * 7919 % 1000003} {i % 77}\n" for i in range(count))
    command = [sort, "--parallel=4", "-S", "20M", "-k2n", "-k1n"]
    check(run(command, stdin=lines).stdout == run(command, preload=False, stdin=lines).stdout,
          "sorted differently")


# -- Settings ---------------------------------------------------------------------------------


@test
def bad_settings_are_told_and_ignored():
    for name, value, allowed in [
            ("BOP_MALLOC_STATS", "yes", "0 or 1"),
            ("BOP_MALLOC_LEAKS", "2", "0 or 1"),
            ("BOP_MALLOC_PURGE", "", "0 or 1"),
            ("BOP_MALLOC_PROFILE", "", "the beginning of a file's path"),
            ("BOP_MALLOC_PROFILE_BYTES", "0", "a number of bytes from 1 to 1099511627776"),
            ("BOP_MALLOC_PROFILE_BYTES", "1k", "a number of bytes from 1 to 1099511627776"),
            ("BOP_MALLOC_PROFILE_SIGNAL", "9",
             "the number of a signal that can be caught, 12 for SIGUSR2")]:
        done = run(["/bin/echo", "fine"], **{name: value})
        check_equal(done.stdout, "fine\n", name)
        check_equal(done.stderr, f"libbop-malloc: {name}={value} is ignored: it can be {allowed}\n",
                    name)
    check_equal(run(["/bin/echo", "fine"]).stderr, "", "without settings")


@test
def a_summary_comes_at_the_end_of_programs_that_close_standard_error_too():
    done = run(["/bin/echo", "fine"], BOP_MALLOC_STATS="1")
    check(re.fullmatch(r"libbop-malloc: echo\[\d+\]: resident \d+ bytes, committed \d+ bytes\n"
                       r"libbop-malloc: untagged: live \d+ bytes in \d+ blocks, .*\n", done.stderr),
          done.stderr)


class Ready:
    """LEAKY, once it holds all that it will."""

    def __init__(self, **env):
        self.process = subprocess.Popen([LEAKY, "wait"], env=environment(**env), text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def __enter__(self):
        check_equal(self.process.stdout.readline(), "ready\n", "what it says")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def threads(self):
        names = []
        for path in glob.glob(f"/proc/{self.process.pid}/task/*/comm"):
            with open(path, encoding="utf-8") as file:
                names.append(file.read().strip())
        return sorted(names)


@test
def memory_is_purged_in_processes_that_are_big_enough():
    with Ready() as big:
        check_equal(big.threads(), ["bop-purge", "leaky"], "threads")
    with Ready(BOP_MALLOC_PURGE="0") as big:
        check_equal(big.threads(), ["leaky"], "threads")
    check_equal(run(["/bin/sh", "-c", "ls /proc/$$/task | wc -l"]).stdout.strip(), "1",
                "threads of a shell")


# -- Profiles ---------------------------------------------------------------------------------

# Blocks of 2 KiB in 48 MiB make 2888 samples, of a deviation of 1.9 %.
PROFILE_BYTES = 16384
LEAKED_MIB, KEPT_MIB = 48.0, 16.0
FREED_MIB = 2 * LEAKED_MIB * (2048 + 49.5) / 2048


def check_about(got, expected, what):
    check(expected * 0.88 < got < expected * 1.12, f"{what}: {got} MiB, expected about {expected}")


def flat_mib(pprof, what, profile):
    """What google-pprof finds under each function alone, in MiB."""
    text = run([pprof, "--text", "--show_bytes", what, LEAKY, profile], preload=False).stdout
    tap.note(text)
    lines = [line.split() for line in text.splitlines()]
    return {line[5]: int(line[0]) / (1 << 20) for line in lines
            if len(line) == 6 and line[0].isdigit()}


@test
def pprof_finds_who_holds_what_at_the_end():
    pprof = program("google-pprof")
    with Scratch() as scratch:
        run([LEAKY], BOP_MALLOC_PROFILE=scratch.file("end"), BOP_MALLOC_PROFILE_BYTES=PROFILE_BYTES)
        (profile,) = glob.glob(scratch.file("end.*.0.heap"))
        flat = flat_mib(pprof, "--inuse_space", profile)
        check_about(flat["leak_here"], LEAKED_MIB, "leak_here")
        check_about(flat["keep_here"], KEPT_MIB, "keep_here")
        check(flat.get("free_all", 0) < 1, f"free_all: {flat.get('free_all')}")
        flat = flat_mib(pprof, "--alloc_space", profile)
        check_about(flat["free_all"], FREED_MIB, "free_all, of all time")


@test
def go_tool_pprof_reads_it_too():
    go = program("go")
    tools = run([go, "env", "GOTOOLDIR"], preload=False).stdout.strip()
    if not LONG and not os.path.exists(os.path.join(tools, "pprof")):
        raise Skip("go would build its pprof first; LONG=1 lets it")
    with Scratch() as scratch:
        run([LEAKY], BOP_MALLOC_PROFILE=scratch.file("end"), BOP_MALLOC_PROFILE_BYTES=PROFILE_BYTES)
        (profile,) = glob.glob(scratch.file("end.*.0.heap"))
        text = run([go, "tool", "pprof", "-sample_index=inuse_space", "-unit=MB", "-top", LEAKY,
                    profile], preload=False, PPROF_TMPDIR=scratch.path).stdout
        tap.note(text)
        flat = {name: float(size) for size, name in
                re.findall(r"^ *([\d.]+)MB .*? (\w+)(?: \(inline\))?$", text, re.MULTILINE)}
        check_about(flat["leak_here"], LEAKED_MIB, "leak_here")
        check_about(flat["keep_here"], KEPT_MIB, "keep_here")


@test
def a_signal_writes_profiles_of_a_process_that_goes_on():
    with Scratch() as scratch:
        with Ready(BOP_MALLOC_PROFILE=scratch.file("p"),
                   BOP_MALLOC_PROFILE_SIGNAL=int(signal.SIGUSR2)) as big:
            for number in range(2):
                os.kill(big.process.pid, signal.SIGUSR2)
                path = scratch.file(f"p.{big.process.pid}.{number}.heap")
                wait_until(lambda path=path: os.path.exists(path) and
                           "[stack]" in open(path, encoding="utf-8").read(), f"{path} is whole")
            big.process.stdin.close()
            check_equal(big.process.wait(PATIENCE), 0, "exit status")
            check(os.path.exists(scratch.file(f"p.{big.process.pid}.2.heap")), "none at the end")
            big.process.stdin = None


@test
def leaks_are_told_with_the_functions_that_allocated_them():
    lines = run([LEAKY], BOP_MALLOC_LEAKS="1", BOP_MALLOC_PROFILE_BYTES=PROFILE_BYTES).stderr
    tap.note(lines)
    found = {name: int(size) / (1 << 20) for size, name in
             re.findall(r"^about (\d+) bytes in .*\n +(\w+)\S*\+0x", lines, re.MULTILINE)}
    check_about(found["leak_here"], LEAKED_MIB, "leak_here")
    check_about(found["keep_here"], KEPT_MIB, "keep_here")
    exact = re.search(r"^ +(\d+) bytes in +(\d+) allocations  untagged$", lines, re.MULTILINE)
    check_about(int(exact.group(1)) / (1 << 20), LEAKED_MIB + KEPT_MIB, "exactly")


if __name__ == "__main__":
    del sys.argv[1:4]
    tap.main()
