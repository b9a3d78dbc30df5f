"""Looks into a log's files (docs/design/aof.md), to damage them in places that matter."""

import os
import re
import struct

SEGMENT_HEADER = 4096
RECORD_HEADER = 48
NAME = re.compile(r"^([0-9a-f]{16})-([0-9a-f]{16})\.seg$")
MARK = 0b10101


def newest_segment(directory):
    """The path of the segment with the highest generation."""
    found = [(int(m.group(2), 16), name) for name in os.listdir(directory)
             for m in [NAME.match(name)] if m]
    return os.path.join(directory, max(found)[1])


class Segment:
    """records: [(offset, size, sequence), ...] as far as they look like records; end: behind the
    last one."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            data = file.read()
        if data[:8] != b"BOPAOFSG"[::1] and data[:8] != b"BOPAOFSG"[::-1]:
            raise AssertionError(f"{path} begins with {data[:8]!r}")
        self.size = len(data)
        self.base = struct.unpack_from("<Q", data, 16)[0]
        self.records = []
        self.end = SEGMENT_HEADER
        sequence = self.base
        while self.end + RECORD_HEADER < len(data):
            seq, = struct.unpack_from("<Q", data, self.end)
            length, = struct.unpack_from("<I", data, self.end + 44)
            if seq != sequence or length >> 27 != MARK:
                break
            size = (RECORD_HEADER + (length & 0x7FFFFFF) + 1 + 7) // 8 * 8
            if data[self.end + size - 1] != 0xA5:
                break
            self.records.append((self.end, size, seq))
            self.end += size
            sequence += 1

    def read(self, offset, size):
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def write(self, offset, data):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def truncate(self, size):
        os.truncate(self.path, size)

    def flip_bit(self, offset):
        self.write(offset, bytes([self.read(offset, 1)[0] ^ 0x10]))
