#!/usr/bin/env python3
"""WebSockets with other people's programs: python3-websockets and npm's ws on both sides, and a
browser in the chat room.

usage: test_interop_ws.py WS_ECHO CHAT WS_CLIENT SYSTEM_TESTS
"""

import asyncio
import contextlib
import http.client
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, sys.argv[4])
from tap import Skip, check, check_equal, main, test  # noqa: E402

WS_ECHO, CHAT, WS_CLIENT = sys.argv[1:4]
PATIENCE = 120
DEBIANS_PYTHON = "/usr/bin/python3"
BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome")


def websockets():
    try:
        import websockets as module
    except ImportError as error:
        raise Skip("no python3-websockets") from error
    return module


def run_where_packages_are():
    """Debian's packages are for Debian's own Python, which need not be the first in the path."""
    if importlib.util.find_spec("websockets") is None and sys.executable != DEBIANS_PYTHON and \
            os.path.exists(DEBIANS_PYTHON):
        os.execv(DEBIANS_PYTHON, [DEBIANS_PYTHON, "-B", *sys.argv])


def node(*arguments, **options):
    program = shutil.which("node")
    env = dict(os.environ, NODE_PATH="/usr/share/nodejs:/usr/lib/nodejs")
    if program is None:
        raise Skip("no node")
    if subprocess.run([program, "-e", "require('ws')"], env=env, capture_output=True,
                      check=False).returncode != 0:
        raise Skip("no ws for node")
    return subprocess.Popen([program, *arguments], env=env, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, **options)


class Server:
    """One of ours on a free port; leaving it must end it in order."""

    def __init__(self, program):
        self.process = subprocess.Popen([program, "--port", "0"], text=True,
                                        stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline().split()[-1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.process.send_signal(signal.SIGTERM)
            check_equal(self.process.wait(PATIENCE), 0, "exit status")
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def messages():
    dice = random.Random(1)
    sizes = (0, 1, 125, 126, 127, 511, 512, 4096, 65535, 65536, 100000, 1 << 20)
    for size in sizes:
        yield "".join(dice.choices("abc äß€😀", k=size))
        yield dice.randbytes(size)


# ---- Our server ----


async def echo_all(url, **options):
    async with websockets().connect(url, max_size=None, **options) as connection:
        for message in messages():
            await connection.send(message)
            check(await connection.recv() == message, f"{len(message)}: not what was sent")
        # In fragments, as an iterable is sent.
        await connection.send(["in ", "three ", "parts"])
        check_equal(await connection.recv(), "in three parts", "echo")
        pong = await connection.ping("are you there?")
        await asyncio.wait_for(pong, PATIENCE)
        await connection.close(4000, "enough")
    check_equal(connection.close_code, 4000, "close code")


@test
def python_client_compressed():
    websockets()
    with Server(WS_ECHO) as server:
        asyncio.run(echo_all(f"ws://127.0.0.1:{server.port}/"))


@test
def python_client_plain():
    websockets()
    with Server(WS_ECHO) as server:
        asyncio.run(echo_all(f"ws://127.0.0.1:{server.port}/", compression=None))


async def some_at_once(url):
    await asyncio.gather(*(echo_all(url) for _ in range(4)))


@test
def python_clients_at_once():
    websockets()
    with Server(WS_ECHO) as server:
        asyncio.run(some_at_once(f"ws://127.0.0.1:{server.port}/"))


async def wait_for_going_away(server):
    async with websockets().connect(f"ws://127.0.0.1:{server.port}/") as connection:
        server.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(connection.wait_closed(), PATIENCE)
    check_equal(connection.close_code, 1001, "close code")


@test
def stop_is_said_to_clients():
    websockets()
    with Server(WS_ECHO) as server:
        asyncio.run(wait_for_going_away(server))


NODE_CLIENT = """
const WebSocket = require('ws');
const crypto = require('crypto');
const sizes = [0, 1, 125, 126, 127, 511, 512, 65535, 65536, 1 << 20];
const ws = new WebSocket(process.argv[1], {perMessageDeflate: process.argv[2] === 'deflate'});
const sent = sizes.map(size => crypto.randomBytes(size)).concat(
    sizes.map(size => Buffer.alloc(size, 'compressible ')));
let at = 0, pongs = 0;
ws.on('open', () => { ws.ping('hello'); ws.send(sent[0]); });
ws.on('pong', () => pongs++);
ws.on('message', (data, binary) => {
    if (!binary || !data.equals(sent[at])) { console.log('wrong', at); process.exit(1); }
    if (++at < sent.length) ws.send(sent[at]); else ws.close(3000, 'done');
});
ws.on('close', code => console.log(`closed ${code} after ${at} and ${pongs}`));
"""


@test
def node_client():
    for kind in ("deflate", "plain"):
        with Server(WS_ECHO) as server:
            process = node("-e", NODE_CLIENT, f"ws://127.0.0.1:{server.port}/", kind)
            said = process.communicate(timeout=PATIENCE)[0]
            check_equal(said, "closed 3000 after 20 and 1\n", kind)


@test
def plain_requests_are_told_to_upgrade():
    with Server(WS_ECHO) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        connection.close()
    check_equal(answer.status, 426, "status")
    check_equal(answer.getheader("Upgrade"), "websocket", "Upgrade")
    check_equal(answer.getheader("Sec-WebSocket-Version"), "13", "Sec-WebSocket-Version")


# ---- Our client ----


def client_says(url, lines):
    done = subprocess.run([WS_CLIENT, "--count", str(len(lines)), url], text=True,
                          input="".join(f"{line}\n" for line in lines), capture_output=True,
                          timeout=PATIENCE, check=False)
    check_equal(done.stderr, "", "standard error")
    check_equal(done.returncode, 0, "exit status")
    return done.stdout.splitlines()


LINES = ["hello", "", "x" * 70000, "äß€"]


@test
def our_client_our_server():
    with Server(WS_ECHO) as server:
        check_equal(client_says(f"ws://localhost:{server.port}/", LINES), LINES, "echoes")


async def serve_python(compression):
    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async with websockets().serve(echo, "127.0.0.1", 0, compression=compression) as server:
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        said = await loop.run_in_executor(None, client_says, f"ws://127.0.0.1:{port}/", LINES)
    check_equal(said, LINES, "echoes")


@test
def our_client_python_server():
    websockets()
    asyncio.run(serve_python("deflate"))
    asyncio.run(serve_python(None))


NODE_SERVER = """
const {WebSocketServer} = require('ws');
const server = new WebSocketServer({port: 0, host: '127.0.0.1', perMessageDeflate: {threshold: 0}});
server.on('listening', () => console.log(server.address().port));
server.on('connection', ws => ws.on('message', (data, binary) => ws.send(data, {binary})));
"""


@test
def our_client_node_server():
    process = node("-e", NODE_SERVER)
    try:
        port = int(process.stdout.readline())
        check_equal(client_says(f"ws://127.0.0.1:{port}/", LINES), LINES, "echoes")
    finally:
        process.kill()
        process.communicate()


@test
def our_client_says_why_it_could_not_open():
    with Server(CHAT) as server:
        done = subprocess.run([WS_CLIENT, f"ws://127.0.0.1:{server.port}/nothing"], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE,
                              check=False)
    check_equal(done.returncode, 1, "exit status")
    check("404 Not Found" in done.stderr, done.stderr)


# ---- The chat room ----


async def talk(port):
    url = f"ws://127.0.0.1:{port}/chat"
    async with websockets().connect(url, subprotocols=["bop.chat"]) as anna, \
            websockets().connect(url, subprotocols=["bop.chat"]) as ben:
        check_equal(anna.subprotocol, "bop.chat", "protocol")
        await anna.send("hello")
        for guest in (anna, ben):
            check_equal(await asyncio.wait_for(guest.recv(), PATIENCE), "guest 1: hello", "heard")
        await ben.send("hi")
        for guest in (anna, ben):
            check_equal(await asyncio.wait_for(guest.recv(), PATIENCE), "guest 2: hi", "heard")
        await ben.send(b"bytes")
        with contextlib.suppress(websockets().ConnectionClosed):
            await asyncio.wait_for(ben.recv(), PATIENCE)
        check_equal(ben.close_code, 1003, "close code")


@test
def chat_reaches_all():
    websockets()
    with Server(CHAT) as server:
        asyncio.run(talk(server.port))


async def hear_browser(browser, port, directory):
    url = f"127.0.0.1:{port}"
    async with websockets().connect(f"ws://{url}/chat", subprotocols=["bop.chat"]) as guest:
        process = subprocess.Popen(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-port=0", f"--user-data-dir={directory}",
             f"http://{url}/?say=from%20the%20browser"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            said = await asyncio.wait_for(guest.recv(), PATIENCE)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    check_equal(said, "guest 2: from the browser", "heard")


@test
def chat_in_a_browser():
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    websockets()
    if browser is None:
        raise Skip("no Chromium")
    with Server(CHAT) as server, \
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        asyncio.run(hear_browser(browser, server.port, directory))


if __name__ == "__main__":
    run_where_packages_are()
    main()
