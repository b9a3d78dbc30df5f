"""What happens to the disk of a node that is down: power was lost, bits flipped, files are gone.

The journal that lose_power() reads is written by shim/shim.c, whose records these are.
"""

import os
import shutil
import struct
import subprocess

RECORD = struct.Struct("<IIQQQQQQ")
WRITE, SYNC, SIZE, CREATE, RENAME, UNLINK = range(1, 7)
TORN = (512, 4096)


class Record:
    def __init__(self, fields, path, data):
        self.type, _, self.sequence, self.inode, self.offset, self.length, self.extra, _ = fields
        self.path = path
        self.data = data


def _read(path):
    """Records, oldest first; one that the death of the process cut short is not there."""
    with open(path, "rb") as file:
        content = memoryview(file.read())
    records, at = [], 0
    while at + RECORD.size <= len(content):
        fields = RECORD.unpack_from(content, at)
        end = at + RECORD.size + fields[1] + fields[7]
        if end > len(content):
            break
        middle = at + RECORD.size + fields[1]
        records.append(Record(fields, os.fsdecode(bytes(content[at + RECORD.size:middle])),
                              bytes(content[middle:end])))
        at = end
    return records


def _unsynced(records):
    """Those that no sync made last, newest first."""
    synced = {}
    left = []
    for record in reversed(records):
        if record.type == SYNC:
            synced[record.inode] = max(synced.get(record.inode, 0), record.extra)
        elif record.sequence >= synced.get(record.inode, 0):
            left.append(record)
    return left


def _inodes(*directories):
    found = {}
    for directory in directories:
        for base, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(base, name)
                found[os.stat(path).st_ino] = path
    return found


def _undo_bytes(records, paths, random, sector, share):
    """Sectors of unsynced writes get back what they held, each with the chance `share`. A sector
    that keeps a newer write keeps it, whatever is older."""
    kept, lost = set(), 0
    for record in records:
        path = paths.get(record.inode)
        if path is None:
            continue
        with open(path, "r+b") as file:
            at = record.offset
            while at < record.offset + record.length:
                end = min(record.offset + record.length, at - at % sector + sector)
                place = (record.inode, at // sector)
                if place not in kept:
                    if random.random() < share:
                        old = record.data[at - record.offset:end - record.offset]
                        file.seek(at)
                        file.write(old.ljust(end - at, b"\0"))
                        lost += 1
                    else:
                        kept.add(place)
                at = end
    return lost


def _undo_name(record, keeps):
    kept = os.path.join(keeps, f"keep.{record.extra}")
    if record.type == CREATE and os.path.exists(record.path):
        os.unlink(record.path)
    elif record.type == UNLINK and os.path.exists(kept):
        os.rename(kept, record.path)
    elif record.type == RENAME:
        old, new = record.path.split("\0")
        if os.path.exists(new):
            os.rename(new, old)
        if record.extra and os.path.exists(kept):
            os.rename(kept, new)


def _undo_names(records, keeps, random):
    """Of each directory the last so many changes, as file systems keep their order."""
    left = {}
    for record in records:
        left[record.inode] = left.get(record.inode, 0) + 1
    undo = {inode: random.choice((0, count, random.randint(0, count)))
            for inode, count in left.items()}
    done = 0
    for record in records:
        if undo[record.inode] > 0:
            undo[record.inode] -= 1
            _undo_name(record, keeps)
            done += 1
    return done


def _distrust_state(node, random):
    """The system was down: what is in state/ is whatever it is, and the boot id is another."""
    path = os.path.join(node.data, "boot")
    if not os.path.exists(path):
        return
    with open(path, encoding="ascii") as file:
        boot = file.read()
    if len(boot.strip()) != 36:  # "clean" or "untrusted"
        return
    with open(path, "w", encoding="ascii") as file:
        file.write(boot.replace(boot.strip(), "00000000-0000-4000-8000-%012x" %
                                random.getrandbits(48)))
    for base, _, names in os.walk(os.path.join(node.data, "state")):
        for name in names:
            state = os.path.join(base, name)
            size = os.stat(state).st_blocks * 512  # Behind it is a hole.
            if random.random() < 0.5 or size == 0:
                continue
            with open(state, "r+b") as file:
                file.seek(random.randrange(size))
                file.write(random.randbytes(min(8192, size)))


def lose_power(node, random, share=None):
    """The node was killed: take back of its disk what may be lost, each sector with the chance
    `share`. Says what was done."""
    records = _unsynced(_read(node.records))
    names = [r for r in records if r.type in (CREATE, RENAME, UNLINK)]
    sector = random.choice(TORN)
    share = random.choice((0.0, 0.5, 0.9, 1.0)) if share is None else share
    paths = _inodes(node.data, node.journal)
    lost = _undo_bytes([r for r in records if r.type == WRITE], paths, random, sector, share)
    if share == 1.0:
        for record in records:
            if record.type == SIZE and record.inode in paths:
                os.truncate(paths[record.inode], record.extra)
    undone = _undo_names(names, node.journal, random)
    _distrust_state(node, random)
    return f"{lost} sectors of {sector} and {undone} names lost, {len(records)} changes unsynced"


def largest_snapshot(node):
    """Bytes of the largest one that is whole; others may come and go meanwhile."""
    directory = os.path.join(node.data, "snapshots")
    sizes = [0]
    for name in os.listdir(directory) if os.path.isdir(directory) else []:
        try:
            if name.endswith(".snap"):
                sizes.append(os.path.getsize(os.path.join(directory, name)))
        except FileNotFoundError:
            pass
    return max(sizes)


# ---- Corruption ----

def _files(node, *parts):
    base = os.path.join(node.data, *parts)
    if os.path.isfile(base):
        return [base]
    return sorted(os.path.join(where, name) for where, _, names in os.walk(base) for name in names
                  if os.path.getsize(os.path.join(where, name)))


def _used(path):
    """Bytes up to the last that is not zero."""
    with open(path, "rb") as file:
        return len(file.read().rstrip(b"\0"))


def corrupt(node, random):
    """Damage one file of a node that is down. Says what was done, or is None if there was no such
    file."""
    part = random.choice(("log", "log", "snapshots", "vote", "identity"))
    files = _files(node, part)
    if not files:
        return None
    path = random.choice(files)
    used = _used(path)
    how = random.choice(("flip", "flip", "flip", "truncate", "remove"))
    name = os.path.relpath(path, node.data)
    if how == "remove":
        os.unlink(path)
    elif how == "truncate" or used == 0:
        os.truncate(path, random.randrange(os.path.getsize(path)))
    else:
        at = used - 1 - random.randrange(min(used, 64)) if random.random() < 0.3 else \
            random.randrange(used)
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << random.randrange(8)]))
        how = f"flip a bit of byte {at} of {used}"
    return f"{name}: {how}"


def _copy(source, target):
    shutil.rmtree(target, ignore_errors=True)
    # The store under state/ is a file of 64 GiB, nearly all of which is a hole.
    subprocess.run(["cp", "-a", "--sparse=auto", source, target], check=True)


def save(node):
    """Keep a copy of its data on the disk of the tests."""
    copy = os.path.join(node.cluster.directory, f"saved-{node.number}")
    _copy(node.data, copy)
    return copy


def restore(node, copy):
    _copy(copy, node.data)


def wipe(node):
    """Nothing is left."""
    shutil.rmtree(node.data)


# ---- Fullness ----

def fill(directory, leave=0):
    """Write until nothing goes in any more, then leave some bytes. Returns the file."""
    path = os.path.join(directory, "ballast")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        while os.write(fd, bytes(65536)):
            pass
    except OSError:
        pass
    finally:
        os.close(fd)
    if leave:
        os.truncate(path, max(0, os.path.getsize(path) - leave))
    return path


def empty(directory):
    path = os.path.join(directory, "ballast")
    if os.path.exists(path):
        os.unlink(path)
