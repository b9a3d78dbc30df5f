#!/usr/bin/env python3
"""http-get, the example of the client, against Python's server and nginx-like habits, over TLS too.

    test_client_interop.py HTTP-CLIENT HTTP-ECHO
"""

import http.server
import os
import pathlib
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading

CLIENT, ECHO = sys.argv[1:3]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.path == "/big":
            self.answer(200, bytes(range(256)) * 40960)
        elif self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(1000):
                piece = str(i).encode() * 7
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/redirect":
            self.answer(302, b"", Location="/hello")
        else:
            self.answer(200, b"hello")

    do_HEAD = do_GET

    def do_POST(self):
        self.answer(200, self.rfile.read(int(self.headers["Content-Length"])))


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def start(context=None):
    server = Server(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def get(*arguments, env=None):
    done = subprocess.run([CLIENT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60, check=False, env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr.decode()


results = []


def check(name, good, detail=""):
    results.append(good)
    print(f"{'ok' if good else 'not ok'} {len(results)} - {name}", flush=True)
    if not good:
        print(f"# {detail}")


def plain(port):
    url = f"http://127.0.0.1:{port}"
    rc, out, err = get(url + "/hello")
    check("gets", rc == 0 and out == b"hello", err)
    rc, out, err = get(url + "/big")
    check("gets 10 MiB", rc == 0 and out == bytes(range(256)) * 40960, err)
    rc, out, err = get(url + "/chunked")
    check("gets chunks", rc == 0 and out == b"".join(str(i).encode() * 7 for i in range(1000)), err)
    rc, out, err = get("--data", "the body", url + "/")
    check("posts", rc == 0 and out == b"the body", err)
    rc, out, err = get("--method", "HEAD", "--head", url + "/hello")
    check("asks for the head", rc == 0 and out == b"" and "Content-Length: 5" in err, err)
    rc, out, err = get(url + "/redirect")
    check("stays where it is", rc == 0 and out == b"" and "302" in err, err)
    rc, out, err = get("--follow", url + "/redirect")
    check("follows", rc == 0 and out == b"hello", err)
    rc, out, err = get(*[url + "/hello"] * 50)
    check("gets many at once", rc == 0 and out == b"hello" * 50, err)
    rc, out, err = get(f"http://localhost:{port}/hello")
    check("resolves a name", rc == 0 and out == b"hello", err)


def failing():
    rc, _, err = get("http://127.0.0.1:1/")
    check("names a refused connection", rc == 1 and "127.0.0.1:1" in err and "refused" in err, err)
    rc, _, err = get("http://no-such-host.invalid/")
    check("names an unknown host", rc == 1 and "no-such-host.invalid" in err, err)
    rc, _, err = get("gopher://x/")
    check("refuses another scheme", rc == 2 and "gopher" in err, err)


def secret(directory):
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2", "-keyout", str(key),
                    "-out", str(cert)], check=True, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    port = start(context)
    trusted = {"SSL_CERT_FILE": str(cert)}
    rc, out, err = get(f"https://localhost:{port}/hello", env=trusted)
    check("gets over TLS", rc == 0 and out == b"hello", err)
    rc, out, err = get(f"https://127.0.0.1:{port}/big", env=trusted)
    check("gets 10 MiB over TLS, by address", rc == 0 and len(out) == 10485760, err)
    rc, out, err = get(f"https://localhost:{port}/hello")
    check("trusts nobody unknown", rc == 1 and out == b"" and "certificate" in err, err)
    rc, out, err = get("--insecure", f"https://localhost:{port}/hello")
    check("but if told so", rc == 0 and out == b"hello", err)


def echo():
    process = subprocess.Popen([ECHO, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1].strip().rstrip("/"))
        rc, out, err = get("--data", "x" * 100000, f"http://127.0.0.1:{port}/any")
        check("speaks with our own server", rc == 0 and out == b"x" * 100000, err)
    finally:
        process.kill()
        process.wait()


def main():
    print("TAP version 13")
    plain(start())
    failing()
    echo()
    with tempfile.TemporaryDirectory() as directory:
        secret(pathlib.Path(directory))
    print(f"1..{len(results)}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
