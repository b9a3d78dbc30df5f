#!/usr/bin/env python3
"""The end of a log is torn as a crash of the machine would leave it, or its middle is damaged."""

import hashlib
import os

import aof
import tap
import wire
from cluster import Cluster, read_counter
from tap import check, check_equal, note, test

EXIT_DATA = 3


def digest(path):
    """Of a file's size and bytes. The state's file has room for much more than it holds: holes
    are skipped."""
    size = os.path.getsize(path)
    total = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            total.update(os.pread(file.fileno(), end - at, at).rstrip(b"\0"))
            at = end
    return total.hexdigest()


def tree(path):
    """{file: digest} of a directory."""
    out = {}
    for directory, _, names in os.walk(path):
        for name in names:
            full = os.path.join(directory, name)
            out[os.path.relpath(full, path)] = digest(full)
    return out


def fill(cluster, count):
    with cluster.client() as client:
        operations = []
        for n in range(count):
            # Sizes that put record ends everywhere in sectors and words.
            operations.append(wire.map_put("m", f"key {n}", bytes(n % 251) * (n % 7)))
            operations.append(wire.counter_add("c", 1))
        client.run(operations)


def garbage_header(segment, part):
    """The first bytes of a record that could be the next one, cut off there."""
    header = bytearray(aof.RECORD_HEADER)
    header[0:8] = (segment.records[-1][2] + 1).to_bytes(8, "little")
    header[8:44] = os.urandom(36)
    header[44:48] = (aof.MARK << 27 | 100).to_bytes(4, "little")
    return bytes(header[:part])


def append_half_a_header(segment):
    segment.write(segment.end, garbage_header(segment, 24))


def append_a_header_without_its_mark(segment):
    segment.write(segment.end, garbage_header(segment, 47))


def zero_the_second_half_of_the_last_record(segment):
    offset, size, _ = segment.records[-1]
    half = size // 2
    segment.write(offset + half, bytes(size - half))


def zero_the_last_record(segment):
    offset, size, _ = segment.records[-1]
    segment.write(offset, bytes(size))


def cut_the_file_within_the_last_record(segment):
    offset, size, _ = segment.records[-1]
    segment.truncate(offset + size - 3)


def cut_the_file_behind_the_last_record(segment):
    segment.truncate(segment.end)


# What was never acknowledged is lost.
TEARS = (append_half_a_header, append_a_header_without_its_mark,
         cut_the_file_behind_the_last_record)
# The last record is lost, which the leader knows to be there: no crash does that to a disk that
# keeps its promises. The next leader, who asks where the log ends, mends it.
LOSSES = (zero_the_second_half_of_the_last_record, zero_the_last_record,
          cut_the_file_within_the_last_record)


@test
def a_node_starts_from_every_kind_of_torn_tail_and_catches_up():
    with Cluster() as cluster:
        fill(cluster, 100)
        expected = 100
        for tear in TEARS + LOSSES:
            leader = cluster.leader()
            follower = cluster.follower()
            cluster.converge()
            follower.kill()
            if tear in LOSSES:
                leader.kill()
                leader.start()
            segment = aof.Segment(aof.newest_segment(os.path.join(follower.data, "log")))
            check(segment.records, f"no record was found in {segment.path}")
            note(f"{tear.__name__}: {os.path.basename(segment.path)} of {segment.size} bytes, "
                 f"{len(segment.records)} records to {segment.end}")
            tear(segment)
            follower.start()
            fill(cluster, 10)
            expected += 10
            check_equal(read_counter(follower, "c"), expected, f"counter after {tear.__name__}")
            cluster.converge()


@test
def torn_tails_on_all_nodes_of_what_nobody_acknowledged_lose_nothing():
    with Cluster() as cluster:
        fill(cluster, 50)
        for node in cluster.nodes:
            node.kill()
        for node, tear in zip(cluster.nodes, (append_half_a_header,
                                              append_a_header_without_its_mark,
                                              cut_the_file_behind_the_last_record)):
            tear(aof.Segment(aof.newest_segment(os.path.join(node.data, "log"))))
        cluster.start()
        for node in cluster.nodes:
            check_equal(read_counter(node, "c"), 50, f"counter on node {node.number}")
        fill(cluster, 10)
        cluster.converge()


def refuses(cluster, node, file):
    """The node says in one line what is damaged, and leaves everything as it is."""
    before = tree(node.data)
    node.start(wait=False)
    check_equal(node.wait_end(), EXIT_DATA, "exit status")
    lines = node.log()
    note("\n".join(lines))
    complaints = [line for line in lines if line.startswith("bopd: ")]
    check_equal(len(complaints), 1, "lines of complaint")
    check_equal(complaints[0], lines[-1], "the last line")
    check(os.path.basename(file) in complaints[0], f"{file} is not named: {complaints[0]}")
    after = tree(node.data)
    # The vote is written again at each start, as it was.
    changed = sorted(n for n in before.keys() | after.keys()
                     if before.get(n) != after.get(n) and n != "vote")
    check(not changed, f"a refused start changed {changed}")
    check(len(cluster.up()) == 2, "the others do not run")


@test
def a_flipped_bit_in_the_middle_of_the_log_is_refused_with_its_file():
    with Cluster() as cluster:
        fill(cluster, 200)
        follower = cluster.follower()
        cluster.converge()
        follower.kill()
        path = aof.newest_segment(os.path.join(follower.data, "log"))
        segment = aof.Segment(path)
        middle, size, _ = segment.records[len(segment.records) // 2]
        for offset in (middle + 2, middle + 33, middle + 44, middle + 50, middle + size - 1,
                       middle + size // 2, 20, aof.SEGMENT_HEADER + 40):
            segment.flip_bit(offset)
            note(f"bit at {offset} of {path}")
            refuses(cluster, follower, path)
            segment.flip_bit(offset)  # As it was.
        follower.start()
        cluster.converge()


@test
def a_vote_file_without_a_vote_is_refused():
    with Cluster() as cluster:
        fill(cluster, 10)
        follower = cluster.follower()
        follower.kill()
        path = os.path.join(follower.data, "vote")
        with open(path, "rb") as file:
            whole = file.read()
        with open(path, "wb") as file:
            file.write(bytes(len(whole)))
        refuses(cluster, follower, path)
        with open(path, "wb") as file:
            file.write(whole)
        follower.start()
        cluster.converge()


@test
def state_that_is_gone_is_made_anew_from_the_log():
    with Cluster() as cluster:
        fill(cluster, 50)
        cluster.converge()
        follower = cluster.follower()
        follower.kill()
        for directory, _, names in os.walk(os.path.join(follower.data, "state"), topdown=False):
            for name in names:
                os.unlink(os.path.join(directory, name))
        follower.start()
        check_equal(read_counter(follower, "c"), 50, "counter")
        cluster.converge()
        # As after a crash of the operating system: another boot.
        follower.kill()
        with open(os.path.join(follower.data, "boot"), "w", encoding="ascii") as file:
            file.write("00000000-0000-0000-0000-000000000000")
        follower.start()
        check_equal(read_counter(follower, "c"), 50, "counter after another boot")
        cluster.converge()


if __name__ == "__main__":
    tap.main()
