#!/usr/bin/env python3
"""Locks on real nodes, through bop: mutual exclusion, order and tokens, while holders and leaders die."""

import os
import signal
import subprocess
import sys

import tap
from cluster import PATIENCE, Cluster, die_with_parent, environment
from tap import check, check_equal, test, wait_until

BOP = sys.argv[2] if len(sys.argv) > 2 else "build/release/bop"
ELECTION = os.path.join(os.path.dirname(BOP), "examples", "election")

# Says that it is in, with its number and token, waits to be seen, and goes; a second one that is in at the
# same time finds the directory.
CRITICAL = """
mkdir "$1/inside" || { echo "two $2" >> "$1/log"; exit 9; }
echo "in $2 $BOP_LOCK_TOKEN" >> "$1/log"
sleep 0.05
rmdir "$1/inside"
"""


def servers(cluster):
    return ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)


def start(cluster, *arguments, **more):
    """bop with these arguments in the background. Its end is the test's to wait for."""
    more = {"stdin": subprocess.PIPE, **more}
    return subprocess.Popen([BOP, "--server", servers(cluster), *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment(), preexec_fn=die_with_parent, **more)


def end(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def run(cluster, *arguments):
    return end(start(cluster, *arguments))


def requests(cluster, lock):
    """(ticket, token or 0) of each, in the order of the queue."""
    status, out, err = run(cluster, "lock", "list", lock)
    if status == 3:
        return []
    check_equal((status, err), (0, ""), "bop lock list")
    rows = [line.split("\t") for line in out.splitlines()]
    return [(int(row[0]), 0 if row[1] == "waits" else int(row[1])) for row in rows]


def wait_for_requests(cluster, lock, count):
    wait_until(lambda: len(requests(cluster, lock)) == count, f"{count} requests for {lock}")


def hold(cluster, lock, *flags):
    """Hold a lock until standard input ends. Returns the process and the token."""
    process = start(cluster, "lock", lock, *flags)
    return process, int(process.stdout.readline())


@test
def a_command_runs_while_the_lock_is_held_and_its_end_is_bops():
    with Cluster() as cluster:
        status, out, err = run(cluster, "lock", "l", "--", "sh", "-c",
                               "echo token $BOP_LOCK_TOKEN; exit 7")
        check_equal((status, err), (7, ""), "the command's end")
        check(int(out.split()[1]) > 0, "no token")
        check_equal(requests(cluster, "l"), [], "what is left of the lock")
        check_equal(run(cluster, "lock", "l", "--", "/no/such/thing")[0], 127, "no such command")
        check_equal(run(cluster, "lock", "l", "--")[0], 2, "no command behind --")
        check_equal(run(cluster, "lock", "list", "l")[0], 3, "listing a lock that nobody has")


@test
def a_second_one_waits_or_gives_up_in_time():
    with Cluster() as cluster:
        first, token = hold(cluster, "l")
        check_equal(requests(cluster, "l"), [(token, token)], "the holder")
        status, _, err = run(cluster, "lock", "l", "--timeout", "0.3", "--", "true")
        check_equal(status, 4, f"giving up: {err}")
        second = start(cluster, "lock", "l")
        wait_for_requests(cluster, "l", 2)
        check_equal(end(first)[0], 0, "the first one's end")
        later = int(second.stdout.readline())
        check(later > token, f"token {later} after {token}")
        second.terminate()
        second.wait(PATIENCE)  # Its standard input is still open: this is not why it ends.
        check_equal(end(second)[0], 128 + signal.SIGTERM, "the second one's end")
        check_equal(requests(cluster, "l"), [], "what is left of the lock")


@test
def readers_share_and_a_writer_is_alone():
    with Cluster() as cluster:
        first, _ = hold(cluster, "rw", "--shared")
        second, _ = hold(cluster, "rw", "--shared")
        writer = start(cluster, "lock", "rw")
        wait_for_requests(cluster, "rw", 3)
        check_equal(run(cluster, "lock", "rw", "--shared", "--timeout", "0.3", "--", "true")[0], 4,
                    "a reader behind the writer")
        end(first)
        check_equal([token > 0 for _, token in requests(cluster, "rw")], [True, False],
                    "a reader and the writer")
        end(second)
        check(int(writer.stdout.readline()) > 0, "the writer's token")
        end(writer)


@test
def a_lock_can_be_taken_away_and_its_command_is_told():
    with Cluster() as cluster:
        holder = start(cluster, "lock", "l", "--", "sleep", "1000")
        wait_for_requests(cluster, "l", 1)
        ticket = requests(cluster, "l")[0][0]
        check_equal(run(cluster, "lock", "release", "l", ticket + 1)[0], 3, "another ticket")
        check_equal(run(cluster, "lock", "release", "l", ticket), (0, "", ""), "taking it away")
        status, _, err = end(holder)
        check_equal(status, 1, "the holder's end")
        check("was lost" in err, f"what it says: {err}")


@test
def the_next_one_gets_it_when_the_holder_is_killed():
    with Cluster() as cluster:
        holder = start(cluster, "lock", "l", "--", "sleep", "1000")
        wait_for_requests(cluster, "l", 1)
        ticket, token = requests(cluster, "l")[0]
        check_equal(ticket, token, "granted at once")
        waiting = start(cluster, "lock", "l")
        wait_for_requests(cluster, "l", 2)
        holder.kill()
        holder.communicate(timeout=PATIENCE)
        check(int(waiting.stdout.readline()) > token, "the next one's token")
        check_equal(len(requests(cluster, "l")), 1, "requests that are left")
        check_equal(end(waiting)[0], 0, "the next one's end")


@test
def twenty_take_turns_while_the_leader_is_killed():
    with Cluster() as cluster:
        first, token = hold(cluster, "l")
        log = os.path.join(cluster.directory, "log")
        others = []
        for i in range(20):
            others.append(start(cluster, "lock", "l", "--", "sh", "-c", CRITICAL, "sh",
                                cluster.directory, i))
            wait_for_requests(cluster, "l", i + 2)
        queue = [ticket for ticket, _ in requests(cluster, "l")]
        check_equal(queue, sorted(queue), "the order of the queue")
        leader = cluster.leader()
        leader.kill()
        end(first)
        for other in others:
            status, _, err = end(other)
            check_equal((status, err), (0, ""), "the end of one")
        with open(log, encoding="ascii") as text:
            rows = [line.split() for line in text]
        check_equal([row[:2] for row in rows], [["in", str(i)] for i in range(20)],
                    "who was in, in order")
        tokens = [token] + [int(row[2]) for row in rows]
        check_equal(tokens, sorted(set(tokens)), "rising tokens")
        leader.start()
        cluster.converge()


@test
def a_leader_that_is_killed_is_followed_by_the_next_candidate():
    with Cluster() as cluster:
        def stand(candidate):
            return subprocess.Popen([ELECTION, f"127.0.0.1:{cluster.nodes[0].port}", "reports", candidate],
                                    stdout=subprocess.PIPE, text=True, env=environment(),
                                    preexec_fn=die_with_parent)

        def leads(process, candidate):
            """Reads on until it leads. Returns the token."""
            for line in process.stdout:
                if line.startswith(f"{candidate} leads, with token "):
                    return int(line.split()[-1])
            raise AssertionError(f"{candidate} ended and never led")

        alice = stand("alice")
        token = leads(alice, "alice")
        bob = stand("bob")
        wait_for_requests(cluster, "reports", 2)
        alice.kill()
        alice.communicate(timeout=PATIENCE)
        check(leads(bob, "bob") > token, "the token of the next leader")
        bob.terminate()
        bob.communicate(timeout=PATIENCE)
        check_equal(bob.returncode, 0, "the end of one that resigns")
        check_equal(requests(cluster, "reports"), [], "what is left of the election")


@test
def a_new_cluster_does_not_wait_for_a_node_that_never_came():
    with Cluster(start=False) as cluster:
        for node in cluster.nodes[:2]:
            node.start(wait=False)
        cluster.leader()
        # What came with later levels is refused until the third one is given up waiting for.
        wait_until(lambda: run(cluster, "lock", "l", "--", "true")[0] == 0, "a lock on two nodes")
        cluster.nodes[2].start()
        cluster.converge()
        check_equal(run(cluster, "lock", "l", "--", "true")[0], 0, "a lock on three nodes")


@test
def who_waits_says_that_no_server_answers():
    with Cluster(1) as cluster:
        holder, _ = hold(cluster, "l")
        waiter = start(cluster, "lock", "l")
        wait_for_requests(cluster, "l", 2)
        cluster.nodes[0].kill()
        check("no server answers any more (Connection refused)" in waiter.stderr.readline(), "complaint")
        cluster.nodes[0].start()
        check("node 1 answers again" in waiter.stderr.readline(), "its end")
        for process in (holder, waiter):
            process.kill()
            end(process)


if __name__ == "__main__":
    tap.main()
