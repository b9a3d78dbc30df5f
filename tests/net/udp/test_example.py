#!/usr/bin/env python3
"""The example that sends datagrams back.

usage: test_example.py PATH_OF_UDP_ECHO
"""

import re
import signal
import socket
import subprocess
import sys

ECHO = sys.argv[1]
PATIENCE = 60


def result(number, name, good, details=""):
    print(f"{'ok' if good else 'not ok'} {number} - example udp-echo: {name}")
    if not good:
        print(f"# {details!r}")
    return good


def start(*arguments):
    process = subprocess.Popen([ECHO, *arguments], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    return process, int(re.fullmatch(r"listening on port (\d+)\n", line)[1])


def echoes(port, count):
    """All that are sent come back, each as it was; ten at a time, so that none is lost."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.settimeout(PATIENCE)
    peer.connect(("127.0.0.1", port))
    for first in range(0, count, 10):
        sent = {b"%d " % i * (i % 300) for i in range(first, first + 10)}
        for data in sent:
            peer.send(data)
        if {peer.recv(65536) for _ in sent} != sent:
            return False
    peer.close()
    return True


def main():
    print("1..3")
    process, port = start("--host", "127.0.0.1", "--port", "0")
    try:
        good = result(1, "sends back what it got", echoes(port, 500))
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE)
    good &= result(2, "says what it did and ends",
                   process.returncode == 0 and " datagrams in " in output, output)
    done = subprocess.run([ECHO, "--port", "70000"], capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    good &= result(3, "explains itself", done.returncode == 2 and "usage" in done.stderr, done)
    return 0 if good else 1


sys.exit(main())
