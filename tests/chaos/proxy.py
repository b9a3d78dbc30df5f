#!/usr/bin/env python3
"""A proxy in front of a node that delays, resets and goes silent, as the network here cannot.

    proxy.py LISTEN_HOST:PORT TARGET_HOST:PORT

It is told what to do by lines on its standard input, and ends with it:

    delay MIN_MS MAX_MS   each piece takes so long; pieces of a direction keep their order
    silent                take everything, pass nothing on, close nothing: half-open
    reset                 all connections end with a reset
    clear                 no delay, not silent: what a silent connection had taken is lost, so it ends

Connections that were silent are reset by clear: their bytes are gone, and a stream with a hole is
none that a network makes.
"""

import asyncio
import random
import socket
import struct
import subprocess
import sys

PIECE = 65536
QUEUE_MAX = 1000


class Proxy:
    def __init__(self, target):
        self.target = target
        self.delay_ms = (0.0, 0.0)
        self.silent = False
        self.pairs = set()

    async def serve(self, reader, writer):
        try:
            other_reader, other_writer = await asyncio.open_connection(*self.target)
        except OSError:
            self._reset(writer)
            return
        pair = {"writers": (writer, other_writer), "hole": False}
        self.pairs.add(id(pair))
        self._all[id(pair)] = pair
        try:
            await asyncio.gather(self._pass(pair, reader, other_writer),
                                 self._pass(pair, other_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.end(pair)
            self._all.pop(id(pair), None)

    _all = {}

    async def _pass(self, pair, reader, writer):
        """Read now, write when it is due."""
        queue = asyncio.Queue(QUEUE_MAX)
        loop = asyncio.get_running_loop()

        async def write():
            while True:
                due, piece = await queue.get()
                wait = due - loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                if piece is None:
                    writer.write_eof()
                    return
                if self.silent:
                    pair["hole"] = True
                elif not pair["hole"]:
                    writer.write(piece)
                    await writer.drain()

        task = asyncio.ensure_future(write())
        try:
            while True:
                piece = await reader.read(PIECE)
                due = loop.time() + random.uniform(*self.delay_ms) / 1000
                await queue.put((due, piece or None))
                if not piece:
                    break
            await task
        finally:
            task.cancel()

    @staticmethod
    def _reset(writer):
        sock = writer.get_extra_info("socket")
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
        writer.transport.abort()

    def end(self, pair):
        for writer in pair["writers"]:
            self._reset(writer)

    def obey(self, line):
        words = line.split()
        if words[0] == "delay":
            self.delay_ms = (float(words[1]), float(words[2]))
        elif words[0] == "silent":
            self.silent = True
        elif words[0] == "reset":
            for pair in list(self._all.values()):
                self.end(pair)
        elif words[0] == "clear":
            self.delay_ms, self.silent = (0.0, 0.0), False
            for pair in list(self._all.values()):
                if pair["hole"]:
                    self.end(pair)


async def _main(listen, target):
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, *listen)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while True:
        line = (await reader.readline()).decode()
        if not line:
            break
        proxy.obey(line)
    server.close()


class Running:
    """The tests' handle of a proxy."""

    def __init__(self, prefix, listen, target, **more):
        self.process = subprocess.Popen([*prefix, sys.executable, "-B", __file__, listen, target],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        **more)
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("the proxy does not start")

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def _split(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


if __name__ == "__main__":
    asyncio.run(_main(_split(sys.argv[1]), _split(sys.argv[2])))
