#!/usr/bin/env python3
"""What bopd says when it cannot start, and how it stops."""

import os
import re
import shutil
import signal
import socket
import subprocess

import cluster as clusters
import tap
import wire
from cluster import BOPD, PATIENCE, Cluster, free_port, read_counter, run_bopd
from tap import Skip, check, check_equal, test, wait_until

EXIT_RUN_TIME, EXIT_USAGE, EXIT_DATA, EXIT_LISTEN = 1, 2, 3, 4
NOBODY = 65534


def complains(arguments, status, *words, **more):
    """bopd ends with that status after one line `bopd: ...` that has all the words."""
    code, stdout, lines = run_bopd(arguments, **more)
    check_equal(code, status, f"exit status; it says {lines}")
    check_equal(stdout, "", "standard output")
    check(lines and lines[-1].startswith("bopd: "), f"the last line is no complaint: {lines[-1:]}")
    check_equal([line for line in lines[:-1] if " INFO " not in line and " WARN " not in line], [],
                "further lines")
    for word in words:
        check(word in lines[-1], f"{word!r} is not in {lines[-1]!r}")


class Scratch:
    """A temporary directory; self.data is a path in it that does not exist yet."""

    def __enter__(self):
        self.path = clusters.temporary_directory()
        self.data = os.path.join(self.path, "data")
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def file(self, name, text):
        path = os.path.join(self.path, name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
        return path

    def flags(self, *more):
        return ["--id", 1, "--data", self.data, "--listen", f"127.0.0.1:{free_port()}", *more]

    def make_data(self, *more):
        """Let a node make the data directory, and stop it as early as it can be stopped."""
        process = subprocess.Popen([BOPD, *map(str, self.flags(*more))], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   env=clusters.environment(), text=True,
                                   preexec_fn=clusters.die_with_parent)
        wait_until(lambda: catches_signal(process.pid, signal.SIGTERM), "it catches signals",
                   pause=0)
        process.terminate()
        _, stderr = process.communicate(timeout=PATIENCE)
        check_equal(process.returncode, 0, f"exit status; it says {stderr}")
        check(os.path.exists(os.path.join(self.data, "identity")), "no data directory was made")


def catches_signal(pid, number):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("SigCgt:"):
                return int(line.split()[1], 16) >> number - 1 & 1 == 1
    return False


@test
def a_busy_port_is_told():
    with Scratch() as scratch, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        complains(["--id", 1, "--data", scratch.data, "--listen", address], EXIT_LISTEN, address,
                  "--listen")
        check(not os.path.exists(scratch.data), "it has made a data directory")


@test
def an_address_that_is_not_ours_is_told():
    with Scratch() as scratch:
        complains(["--id", 1, "--data", scratch.data, "--listen", "192.0.2.1:4700",
                   "--insecure"], EXIT_LISTEN, "192.0.2.1:4700", "--listen")


@test
def a_data_directory_of_another_node_or_cluster_is_refused():
    with Scratch() as scratch:
        scratch.make_data("--cluster", "prod")
        flags = scratch.flags("--cluster", "prod")
        complains([*flags[:1], 2, *flags[2:]], EXIT_DATA, scratch.data, "node 1", "--id 1",
                  "--data")
        complains(scratch.flags("--cluster", "test"), EXIT_DATA, scratch.data, '"prod"',
                  "--cluster prod")
        scratch.make_data("--cluster", "prod")  # It is still good.


@test
def a_data_directory_of_a_newer_format_is_refused():
    with Scratch() as scratch:
        scratch.make_data()
        identity = os.path.join(scratch.data, "identity")
        with open(identity, encoding="utf-8") as file:
            text = file.read()
        with open(identity, "w", encoding="utf-8") as file:
            file.write(text.replace("bop-data 1", "bop-data 2"))
        complains(scratch.flags(), EXIT_DATA, scratch.data, "format 2", "format 1")
        for damaged in ("", "something else\n", "bop-data 1\nnode x\n"):
            with open(identity, "w", encoding="utf-8") as file:
                file.write(damaged)
            complains(scratch.flags(), EXIT_DATA, "identity")


@test
def a_log_of_a_newer_format_is_refused():
    with Scratch() as scratch:
        scratch.make_data()
        log = os.path.join(scratch.data, "log")
        name = next(n for n in os.listdir(log) if n.endswith(".seg"))
        path = os.path.join(log, name)
        with open(path, "r+b") as file:
            header = bytearray(file.read(4096))
            header[8:12] = (99).to_bytes(4, "little")
            header[12:16] = bytes(4)
            header[12:16] = crc32c(header).to_bytes(4, "little")
            file.seek(0)
            file.write(header)
        complains(scratch.flags(), EXIT_DATA, name, "version 99")


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@test
def a_second_process_on_a_data_directory_is_refused():
    with Cluster(1) as cluster:
        node = cluster.nodes[0]
        complains(["--id", 1, "--data", node.data, "--cluster", "test", "--listen",
                   f"127.0.0.1:{free_port()}"], EXIT_DATA, node.data, "in use", "--data")
        check(node.status() is not None, "the first one was disturbed")


@test
def a_data_path_that_cannot_be_a_directory_is_told():
    with Scratch() as scratch:
        file = scratch.file("file", "")
        complains(["--id", 1, "--data", file, "--listen", "127.0.0.1:0"], EXIT_DATA, file)
        complains(["--id", 1, "--data", file + "/below", "--listen", "127.0.0.1:0"], EXIT_DATA,
                  file)


@test
def a_directory_that_cannot_be_written_is_told():
    with Scratch() as scratch:
        os.chmod(scratch.path, 0o555)
        more = {}
        if os.geteuid() == 0:
            if not readable_by_nobody(BOPD):
                raise Skip("another user cannot run bopd from its build directory")

            def become_nobody():
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            more["preexec_fn"] = become_nobody
        complains(["--id", 1, "--data", scratch.data, "--listen", "127.0.0.1:0"], EXIT_DATA,
                  scratch.data, "ermission denied", **more)
        os.chmod(scratch.path, 0o755)


def readable_by_nobody(path):
    at = os.path.realpath(path)
    while at != "/":
        at = os.path.dirname(at)
        if not os.stat(at).st_mode & 0o001:
            return False
    return True


@test
def wrong_usage_is_told_with_the_way_out():
    with Scratch() as scratch:
        complains(["--frobnicate"], EXIT_USAGE, "--frobnicate", "--help")
        complains(["--lisen", "127.0.0.1:1"], EXIT_USAGE, "--lisen", "did you mean --listen?")
        complains([], EXIT_USAGE, "--id")
        complains(["--id", 1], EXIT_USAGE, "--data")
        complains(["--id", 0, "--data", scratch.data], EXIT_USAGE, "--id 0")
        complains(["--id", 1, "--data", scratch.data, "--peer", "2=nowhere"], EXIT_USAGE,
                  "--peer 2=nowhere", "ID=HOST:PORT")
        complains(["--id", 1, "--data", scratch.data, "--join"], EXIT_USAGE, "--join", "--peer")
        check(not os.path.exists(scratch.data), "it has made a data directory")


@test
def a_configuration_file_is_checked_and_its_mistakes_are_told():
    with Scratch() as scratch:
        missing = os.path.join(scratch.path, "missing.yaml")
        complains(["--config", missing], EXIT_USAGE, missing)
        complains(["--config", scratch.path], EXIT_USAGE, scratch.path)
        bad = scratch.file("bad.yaml", f"id: 1\ndata: {scratch.data}\nlisten: 10.0.0.2\n")
        complains(["--config", bad, "--check-config"], EXIT_USAGE, "bad.yaml:3", "listen")
        complains(["--config", bad], EXIT_USAGE, "bad.yaml:3", "listen")
        good = scratch.file("good.yaml", f"id: 1\ndata: {scratch.data}\nlisten: 127.0.0.1:4711\n")
        code, stdout, lines = run_bopd(["--config", good, "--check-config"])
        check_equal((code, lines), (0, []), "a good configuration")
        check("in order" in stdout, f"it says {stdout!r}")
        check(not os.path.exists(scratch.data), "the check has made a data directory")
        if os.geteuid() != 0:
            os.chmod(good, 0)
            complains(["--config", good], EXIT_USAGE, good, "ermission denied")


@test
def help_and_version_are_printed():
    code, stdout, lines = run_bopd(["--help"])
    check_equal((code, lines), (0, []), "--help")
    for flag in ("--id", "--data", "--listen", "--peer", "--join", "--dev", "--check-config"):
        check(flag in stdout, f"--help does not tell of {flag}")
    code, stdout, lines = run_bopd(["--version"])
    check_equal((code, lines), (0, []), "--version")
    check(re.fullmatch(r"bopd \d+\.\d+\.\d+\n", stdout), f"--version says {stdout!r}")


@test
def dev_says_how_to_talk_to_it_works_and_leaves_nothing():
    with Scratch() as scratch:
        process = subprocess.Popen(
            [BOPD, "--dev", "--listen", "127.0.0.1:0"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=clusters.environment() | {"TMPDIR": scratch.path},
            preexec_fn=clusters.die_with_parent)
        first = process.stdout.readline()
        ready = re.fullmatch(r"bopd: ready on 127\.0\.0\.1:(\d+)\n", first)
        check(ready, f"it says {first!r}")
        port = int(ready.group(1))
        lines = [process.stdout.readline() for _ in range(4)]
        check(any(f"bop --server 127.0.0.1:{port} map put" in line for line in lines),
              f"it does not say how to talk to it: {lines}")
        check_equal(len(os.listdir(scratch.path)), 1, "temporary directories")
        with wire.Connection(port) as connection:
            check_equal(connection.write(wire.counter_add("c", 3)), (wire.OK, wire.i64(3)),
                        "a write")
            check_equal(connection.read(wire.counter_get("c")), (wire.OK, wire.i64(3)), "a read")
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=PATIENCE)
        check_equal(process.returncode, 0, f"exit status; it says {stderr}")
        check_equal(os.listdir(scratch.path), [], "left behind")


@test
def a_node_stopped_in_order_goes_on_with_its_state_as_it_is():
    for number in (signal.SIGTERM, signal.SIGINT):
        with Cluster(1) as cluster:
            node = cluster.nodes[0]
            with cluster.client() as client:
                client.run([wire.counter_add("c", 1)] * 100)
            node.process.send_signal(number)
            check_equal(node.wait_end(), 0, "exit status")
            with open(os.path.join(node.data, "boot"), encoding="ascii") as file:
                check_equal(file.read().strip(), "clean", "the mark of an orderly stop")
            node.start()
            check(not any("anew" in line for line in node.log()), "the state was made anew")
            check_equal(read_counter(node, "c"), 100, "the counter")


@test
def a_node_stopped_at_any_moment_of_its_work_stops_in_order():
    with Cluster(1, config="snapshot_entries: 100\ntrailing_entries: 10\n") as cluster, \
            cluster.client() as client:
        node = cluster.nodes[0]
        codes = []

        def stop_and_start():
            codes.append(node.terminate())
            node.start(wait=False)

        answers = client.run([wire.counter_add("c", 1)] * 1500,
                             events={100 * n: stop_and_start for n in range(1, 15)})
        check_equal(codes, [0] * 14, "exit statuses")
        check_equal(sorted(wire.number_of(r) for _, r in answers), list(range(1, 1501)),
                    "results of the counter")


@test
def a_leader_stopped_in_order_hands_over_while_clients_write():
    with Cluster() as cluster, cluster.client() as client:
        codes = []

        def stop_leader():
            leader = cluster.leader()
            codes.append((leader, leader.terminate()))

        answers = client.run([wire.counter_add("c", 1)] * 1000, events={300: stop_leader})
        leader, code = codes[0]
        check_equal(code, 0, "exit status")
        check_equal(sorted(wire.number_of(r) for _, r in answers), list(range(1, 1001)),
                    "results of the counter")
        leader.start()
        cluster.converge()
        check_equal([n.terminate() for n in cluster.nodes], [0, 0, 0], "exit statuses")
        cluster.start()
        check_equal(read_counter(cluster.nodes[0], "c"), 1000, "the counter")


if __name__ == "__main__":
    tap.main()
