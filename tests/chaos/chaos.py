#!/usr/bin/env python3
"""Real clusters under faults. See docs/design/chaos.md.

    chaos.py BOPD BOP LOAD CHECK SHIM short [ROW...]          the short rows, as TAP
    chaos.py BOPD BOP LOAD CHECK SHIM row ROW [--seconds N] [--seed N] [--snapshot-mib N]
    chaos.py BOPD BOP LOAD CHECK SHIM mix [--minutes N] [--seed N]
    chaos.py BOPD BOP LOAD CHECK SHIM list

--old BOPD: the row "rolling" begins with an older version and ends with this one.
--snapshot-mib N: how large the snapshots of the row "snapshot" are (64). A mix of 30 minutes or
more ends with it at 1,024, where the disk has room.
--out DIR says where histories, logs and plots go (build/chaos). A campaign that failed leaves
them, and the command that runs it again with the same seed; row and mix leave them in any case.
"""

import argparse
import os
import random
import shutil
import sys
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, "..", "system"))

# pylint: disable=wrong-import-position
import disk
import nodes as places
import rows
import tap
from campaign import Campaign, Programs
from nodes import ChaosCluster

SHORT_SECONDS = 20
CHAPTER_S = (150, 300)
ROW_S = (12, 40)
LIED_ENTRIES = 300
COMPANIONS = ("slow-sync", "garbage")  # Rows that start no process and cut no link.
COMPANY = ("kill", "pause", "isolate", "one-way", "flap", "loss")
MIX_NODES_MB = 1024
LONG_MINUTES = 30
LARGE_MIB = 1024
LARGE_SECONDS = 180

ARGV = list(sys.argv)


def why_not(row):
    """Why the row cannot run here; None if it can."""
    if "mount" in row.needs and places.enter():
        return places.enter()
    if "net" in row.needs and places.can_filter():
        return places.can_filter()
    return None


def cluster_of(row):
    shape = {"config": rows.config(), **row.shape}
    shape.pop("rate", None)
    if shape.pop("shim", False):
        shape["shim"] = Programs.shim
    return ChaosCluster(**shape)


def again(mode, name, seed, length):
    """The command that repeats a campaign."""
    return " ".join(["python3", *ARGV[:6], mode, *name, "--seed", str(seed), *length])


def guarded(campaign, command, work, quiet=False, passing=False):
    """Run work; whatever comes of it, the load ends and what is of use is kept. passing: nothing is
    of use but what failed."""
    why = "interrupted"
    try:
        work()
        why = None
    except BaseException as error:
        why = f"{error}\n{command}"
        if not quiet:
            tap.say(f"FAILED, seed {campaign.seed}: history and logs are in {campaign.directory}; "
                    f"again: {command}")
        raise
    finally:
        campaign.kill_loads()
        if why or not passing:
            campaign.keep(why)


def run_row(row, seconds, seed, out, **more):
    directory = os.path.join(out, f"{row.name}-{seed}")
    length = ["--seconds", f"{seconds:.0f}"]
    if row.name == "snapshot":
        length += ["--snapshot-mib", str(row.bulk_state >> 20)]
    command = again("row", [row.name], seed, length)
    with cluster_of(row) as cluster:
        if row.name == "rolling" and Programs.old:
            for node in cluster.nodes:
                node.program = Programs.old
        campaign = Campaign(cluster, row.name, seed, directory, bulk=row.bulk,
                            bulk_state=row.bulk_state, rate=row.shape.get("rate", 1500))
        guarded(campaign, command, lambda: (cluster.start(), campaign.run(row, seconds)), **more)
    return directory


# ---- The short rows, as tests ----

def short(arguments):
    for row in rows.ROWS:
        if row.name in rows.SHORT and (not arguments.rows or row.name in arguments.rows):
            tap.test(short_test(row, arguments))
    if not arguments.rows:
        prove(arguments)
    sys.argv[1:] = [Programs.bopd]
    tap.main()


def short_test(row, arguments):
    def test():
        why = why_not(row)
        if why:
            raise tap.Skip(why)
        seed = arguments.seed or random.SystemRandom().randrange(1, 10 ** 6)
        tap.say(f"seed {seed}")
        shutil.rmtree(run_row(row, arguments.seconds or SHORT_SECONDS, seed, arguments.out,
                              passing=True))
    test.__name__ = f"row_{row.number}_{row.title.replace(' ', '_')}"
    return test


# ---- Do the tests notice? ----

def lying_disks(campaign):
    """Syncs that do nothing, then all power is lost: acknowledged writes are gone."""
    for node in campaign.nodes:
        node.control.set(node.control.LIES, 1)
    index = campaign.cluster.leader().wait_status()["applied"] + LIED_ENTRIES
    campaign.cluster.wait_applied(index)
    for node in campaign.nodes:
        node.kill()
    for node in campaign.nodes:
        campaign.note(disk.lose_power(node, campaign.random, share=1.0))
        node.control.set(node.control.LIES, 0)


def prove(arguments):
    """A cluster on lying disks must be found out: by the checker, or by nodes that see it."""
    row = rows.Row(0, "lying-disks", "disks lie", lying_disks, shim=True, journaled=True)

    def lost_writes_are_noticed():
        try:
            directory = run_row(row, 5, 1, arguments.out, quiet=True)
        except AssertionError as error:
            tap.note(str(error))
            shutil.rmtree(os.path.join(arguments.out, f"{row.name}-1"), ignore_errors=True)
            return
        raise AssertionError(f"nobody noticed that acknowledged writes are gone: {directory}")
    tap.test(lost_writes_are_noticed)


# ---- All of them, mixed ----

def usable(row, cluster):
    if why_not(row):
        return False
    if row.name == "ring" and len(cluster.nodes) != 5:
        return False
    if row.name == "delay" and not cluster.proxied:
        return False
    if row.name == "membership" and len(cluster.nodes) > 5:
        return False
    if row.name == "certificates":
        return False  # Its cluster speaks TLS.
    if row.name == "overload" and cluster.mounts:
        return False  # It would fill these small disks.
    return row.name != "disk-full" or cluster.mounts


def run_rows(campaign, chosen, seconds):
    """The first one here, for a process dies with the thread that started it; companions beside."""
    errors = []

    def accompany(row):
        try:
            row.run(campaign)
        except BaseException as error:  # pylint: disable=broad-except
            errors.append(error)
            tap.say(traceback.format_exc())
    campaign.end = time.monotonic() + seconds
    threads = [threading.Thread(target=accompany, args=(row,)) for row in chosen[1:]]
    for thread in threads:
        thread.start()
    try:
        chosen[0].run(campaign)
    finally:
        campaign.end = min(campaign.end, time.monotonic())
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def chapter(campaign, end):
    cluster = campaign.cluster
    cluster.start()
    campaign.start()
    while time.monotonic() < end:
        choice = [r for r in rows.ROWS if usable(r, cluster)]
        chosen = [campaign.random.choice(choice)]
        if chosen[0].name in COMPANY and campaign.random.random() < 0.4:
            chosen.append(rows.by_name(campaign.random.choice(COMPANIONS)))
        campaign.note("begin " + " and ".join(r.title for r in chosen))
        run_rows(campaign, chosen, campaign.random.uniform(*ROW_S))
        campaign.note("heal")
        campaign.heal()
        cluster.leader()
        campaign.note("healed")
        time.sleep(campaign.random.uniform(1.0, 5.0))
    campaign.settle()


def large_snapshots(seed, arguments):
    if not rows.room_for(LARGE_MIB):
        tap.say(f"the disk has no room for snapshots of {LARGE_MIB} MiB")
        return
    tap.say(f"snapshots of {LARGE_MIB} MiB")
    run_row(rows.snapshot_of(LARGE_MIB), LARGE_SECONDS, seed, arguments.out)


def mix(arguments):
    seed = arguments.seed or random.SystemRandom().randrange(1, 10 ** 6)
    end = time.monotonic() + arguments.minutes * 60
    command = again("mix", [], seed, ["--minutes", str(arguments.minutes)])
    number = 0
    if arguments.minutes >= LONG_MINUTES:
        end -= LARGE_SECONDS
    while time.monotonic() < end:
        chance = random.Random(f"chapter {seed} {number}")
        spaced = places.enter() is None
        with ChaosCluster(count=chance.choice((3, 3, 5)), proxied=spaced and chance.random() < 0.3,
                          config=rows.config(snapshot=chance.choice((1000, 20000)), trailing=200),
                          shim=Programs.shim, journaled=True,
                          small=MIX_NODES_MB if spaced and chance.random() < 0.5 else
                          None) as cluster:
            directory = os.path.join(arguments.out, f"mix-{seed}", f"{number:03}")
            campaign = Campaign(cluster, f"chapter {number}", seed, directory, bulk=4096)
            tap.say(f"chapter {number} of seed {seed}: {len(cluster.nodes)} nodes"
                    f"{', proxied' if cluster.proxied else ''}, in {campaign.directory}")
            until = min(end, time.monotonic() + chance.uniform(*CHAPTER_S))
            guarded(campaign, command, lambda c=campaign, u=until: chapter(c, u))
        number += 1
    if arguments.minutes >= LONG_MINUTES:
        large_snapshots(seed, arguments)
    print(f"{number} chapters of seed {seed}: all well; see {arguments.out}/mix-{seed}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in ("bopd", "bop", "load", "check", "shim"):
        parser.add_argument(name)
    parser.add_argument("mode", choices=("short", "row", "mix", "list"))
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--snapshot-mib", type=int)
    parser.add_argument("--old", type=os.path.abspath)
    parser.add_argument("--out", default="build/chaos")
    arguments = parser.parse_args()
    for name in ("bopd", "bop", "load", "check", "shim"):
        setattr(Programs, name, os.path.abspath(getattr(arguments, name)))
    Programs.old = arguments.old
    arguments.out = os.path.abspath(arguments.out)
    if arguments.mode == "short":
        short(arguments)
    elif arguments.mode == "mix":
        mix(arguments)
    elif arguments.mode == "list":
        for row in rows.ROWS:
            print(f"{row.number:2} {row.name:12} {row.title}")
    else:
        for name in arguments.rows or [r.name for r in rows.ROWS]:
            row = rows.by_name(name)
            if row.name == "snapshot" and arguments.snapshot_mib:
                row = rows.snapshot_of(arguments.snapshot_mib)
            why = why_not(row)
            if why:
                print(f"{name}: skipped: {why}")
                continue
            seed = arguments.seed or random.SystemRandom().randrange(1, 10 ** 6)
            print(f"{name}: {run_row(row, arguments.seconds or 60, seed, arguments.out)}")


if __name__ == "__main__":
    main()
