"""Watchers of the load's map, which write what they hear into the history.

Each stays with a node while it answers and goes on elsewhere from the revision it has heard
of. It speaks the protocol itself (kinds 150 to 156), so that nothing between it and the node
repairs what a node tells wrongly.
"""

import random
import struct
import threading
import time

import tap
import wire

OPEN, EVENTS, ACK = 150, 155, 156
COMPACTED = 15
RESYNC, MORE = 4, 8
MARK = 1
MAP, EVENT_MAP_PUT = 1, 1
PATIENCE = 60.0


class Watcher(threading.Thread):
    def __init__(self, campaign, number, path):
        super().__init__(daemon=True)
        self.campaign = campaign
        self.number = number
        self.random = random.Random(f"watcher {number} {campaign.seed}")
        self.out = open(path, "w", encoding="ascii")  # pylint: disable=consider-using-with
        self.revision = 0   # All up to here was heard of.
        self.place = 0
        self.live = False   # It has been open once.
        self.unknown = False  # The nodes do not know of watches.
        self.stopping = False
        self.trouble = None

    def run(self):
        while not self.stopping and not self.unknown:
            node = self.random.choice(self.campaign.nodes)
            try:
                with node.connect(timeout=1.0) as connection:
                    self._follow(connection)
            except (wire.Closed, OSError) as error:
                self.unknown = not self.live and "unknown kind" in str(error)
                self.trouble = error
            except wire.ProtocolError as error:
                self.unknown = not self.live
                self.trouble = error
            time.sleep(0.1)
        self.out.close()

    def _line(self, operation, *numbers):
        now = time.monotonic_ns()
        self.out.write(f"{now} {now} {10000 + self.number} ok {operation} watch {self.number} "
                       f"{self.place} {' '.join(map(str, numbers))}\n")
        self.place += 1

    def _lost_up_to(self, revision):
        self._line("watch.reset", revision)
        self.revision = max(self.revision, revision)

    def _follow(self, connection):
        request = connection.send(OPEN, wire.u8(MAP) + wire.blob("chaos-watch") +
                                  wire.blob("") * 3 + wire.u8(0) + wire.u64(self.revision))
        got = connection.answer(request, 3.0)
        if got.kind != OPEN + 1:
            raise wire.ProtocolError(f"kind {got.kind} answers a watch")
        reader = got.reader()
        status, revision = reader.u8(), reader.u64()
        if status == COMPACTED:
            self._lost_up_to(revision)
            return
        if status != wire.OK:
            return
        if not self.live:
            self.revision = revision
            self.live = True
        asked = time.monotonic()
        while not self.stopping:
            try:
                got = connection.receive(0.3)
            except TimeoutError:
                # A node that is cut off says nothing: look elsewhere. A mark shows that it lives.
                if time.monotonic() - asked > 3.0:
                    return
                connection.send(ACK, wire.u64(self.revision) + wire.u8(MARK))
                continue
            asked = time.monotonic()
            if got.kind == EVENTS and not self._hear(got.reader()):
                return

    def _hear(self, reader):
        """Events of one revision. False: the watch is over."""
        revision, flags = reader.u64(), reader.u8()
        if flags & RESYNC:
            self._lost_up_to(revision)
            return False
        while reader.at < len(reader.data):
            kind, _ = reader.u8(), reader.u8()
            reader.blob()
            key, value = reader.blob(), reader.blob()
            reader.blob()
            for _ in range(3):
                reader.u64()
            if kind == EVENT_MAP_PUT:
                self._line("watch.event", *struct.unpack("<q", key), *struct.unpack("<q", value),
                           revision)
        if not flags & MORE:
            self.revision = max(self.revision, revision)
        return True


class Watchers:
    """Some of them, from before the load to its last write."""

    def __init__(self, campaign, count, path):
        self.all = [Watcher(campaign, n, path.format(n)) for n in range(count)]
        for each in self.all:
            each.start()
        tap.wait_until(lambda: all(w.live or w.unknown for w in self.all), "watches are open",
                       PATIENCE)
        if self.all and self.all[0].unknown:
            tap.say(f"these nodes have no watches: {self.all[0].trouble}")

    def finish(self, revision):
        """All have heard of everything up to the revision, which nothing is to come after."""
        try:
            for each in self.all:
                tap.wait_until(lambda w=each: w.unknown or w.revision >= revision,
                               f"watcher {each.number} hears of revision {revision}", PATIENCE)
        finally:
            self.stop()

    def stop(self):
        for each in self.all:
            each.stopping = True
        for each in self.all:
            each.join()
