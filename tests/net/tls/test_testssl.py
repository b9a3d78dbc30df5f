#!/usr/bin/env python3
"""tls-echo under testssl.sh: nothing that it finds is worse than low.

    test_testssl.py TLS-ECHO

Protocols, ciphers, forward secrecy, the server's preferences and the known weaknesses; what it thinks
of a certificate that is a day old is not what the library answers for. Speaks TAP.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 540
WORSE_THAN_LOW = ("MEDIUM", "HIGH", "CRITICAL", "FATAL")


def make_certificate(directory):
    cert, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                   check=True, capture_output=True)
    return cert, key


def findings(testssl, port, directory):
    out = os.path.join(directory, "findings.json")
    subprocess.run([testssl, "--quiet", "--warnings", "off", "--color", "0", "--nodns", "min",
                    "--jsonfile", out, "-p", "-s", "-f", "-P", "-U", f"127.0.0.1:{port}"],
                   check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=PATIENCE_S)
    with open(out, encoding="utf-8") as file:
        return json.load(file)


def examine(program, testssl):
    with tempfile.TemporaryDirectory() as directory:
        cert, key = make_certificate(directory)
        server = subprocess.Popen([program, "--port", "0", "--cert", cert, "--key", key],
                                  stdout=subprocess.PIPE, text=True)
        try:
            port = int(server.stdout.readline().split()[-1])
            return findings(testssl, port, directory)
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def main():
    testssl = shutil.which("testssl") or shutil.which("testssl.sh")
    print("TAP version 13\n1..1", flush=True)
    if testssl is None or shutil.which("openssl") is None:
        print("ok 1 - testssl finds nothing worse than low # SKIP no testssl.sh or no openssl")
        return 0
    start = time.monotonic()
    found = examine(sys.argv[1], testssl)
    worse = [entry for entry in found if entry["severity"] in WORSE_THAN_LOW]
    for entry in worse:
        print(f"# {entry['severity']} {entry['id']}: {entry['finding']}")
    # It looked: the newest protocol is offered, and was found to be.
    offered = any(entry["id"] == "TLS1_3" and "offered" in entry["finding"] for entry in found)
    good = offered and not worse
    print(f"# {len(found)} findings in {time.monotonic() - start:.0f} s")
    print(f"{'ok' if good else 'not ok'} 1 - testssl finds nothing worse than low", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
