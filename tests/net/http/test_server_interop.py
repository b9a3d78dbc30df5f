#!/usr/bin/env python3
"""The server with other people's programs: curl, nginx and haproxy in front.

usage: test_server_interop.py SERVE HELLO HTTP_ECHO SYSTEM_TESTS
"""

import contextlib
import gzip
import hashlib
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile

sys.path.insert(0, sys.argv[4])
from tap import Skip, check, check_equal, main, test, wait_until  # noqa: E402

SERVE, HELLO, HTTP_ECHO = sys.argv[1:4]
PATIENCE = 120
UPLOAD_BYTES = 100 << 20


def need(program):
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        raise Skip(f"no {program}")
    return path


class Server:
    """serve with arguments; ends by the end of its input and says what it counted."""

    def __init__(self, *arguments):
        ours, theirs = socket.socketpair()
        self.input = ours
        self.process = subprocess.Popen([SERVE, *arguments], stdin=theirs, text=True,
                                        stdout=subprocess.PIPE)
        theirs.close()
        self.port = int(self.process.stdout.readline())

    def url(self, path, scheme="http"):
        return f"{scheme}://localhost:{self.port}{path}"

    def __enter__(self):
        return self

    def stop(self):
        self.input.close()
        out = self.process.communicate(timeout=PATIENCE)[0]
        return dict(word.split("=") for word in out.split())

    def __exit__(self, *_):
        self.input.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.stdout.close()
        check_equal(self.process.returncode, 0, "serve's exit status")


@contextlib.contextmanager
def running(*command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: process.poll() is not None or listens(port), f"{command[0]} listens")
        if process.poll() is not None:
            raise AssertionError(process.stderr.read().decode())
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stderr.close()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_bytes(got, expected, what):
    """As check_equal, without showing megabytes."""
    check_equal((len(got), hashlib.sha256(got).hexdigest()),
                (len(expected), hashlib.sha256(expected).hexdigest()), what)


def curl(*arguments, status=0, data=None):
    done = subprocess.run([need("curl"), "-sS", "--noproxy", "*", "-m", str(PATIENCE), *arguments],
                          input=data, capture_output=True, timeout=PATIENCE + 10, check=False)
    check_equal(done.returncode, status, f"curl {arguments}: {done.stderr.decode()}")
    return done.stdout


@contextlib.contextmanager
def tree():
    with tempfile.TemporaryDirectory() as directory:
        with open(f"{directory}/alphabet.txt", "w", encoding="ascii") as file:
            file.write("abcdefghijklmnopqrstuvwxyz")
        with open(f"{directory}/large.txt", "w", encoding="ascii") as file:
            file.write("a line of text\n" * 20000)
        with open(f"{directory}/random.bin", "wb") as file:
            file.write(os.urandom(20 << 20))
        yield directory


# ---- curl


@contextlib.contextmanager
def example(program):
    """An example on a free port; gives the URL it says."""
    process = subprocess.Popen([program, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        process.stdout.close()


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW")
PATHS = ("", "any/path?and=query", "%2e%2e/%20", "/two//slashes/")


@test
def curl_gets_hello_whatever_it_asks():
    with example(HELLO) as url:
        check_equal(curl("--http1.0", url), b"Hello world!", "by HTTP/1.0")
        check_equal(curl("-I", "-o", os.devnull, "-w", "%{http_code}", url), b"200", "HEAD")
        for method in METHODS:
            for path in PATHS:
                out = curl("-X", method, "-d", "a body", "-w", " %{http_code}", url + path)
                check_equal(out, b"Hello world! 200", f"{method} {path}")


@test
def curl_gets_its_bodies_back():
    with example(HTTP_ECHO) as url:
        check_equal(curl("-X", "PATCH", url), b"", "of nothing")
        for method in METHODS:
            for path in PATHS:
                out = curl("-X", method, "-d", "a body", "-w", " %{http_code}", url + path)
                check_equal(out, b"a body 200", f"{method} {path}")
                out = curl("-X", method, "-H", "Transfer-Encoding: chunked", "-d", "in chunks",
                           url + path)
                check_equal(out, b"in chunks", f"{method} {path}, chunked")


@test
def a_body_in_chunks_comes_back_with_its_length():
    with example(HTTP_ECHO) as url, tempfile.TemporaryDirectory() as directory:
        for size in (1, 65536, 65537, 300000):
            body = random.Random(size).randbytes(size)
            path = pathlib.Path(directory) / "body"
            path.write_bytes(body)
            out = curl("-i", "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary",
                       f"@{path}", url)
            head, got = out.split(b"\r\n\r\n", 1)
            check_bytes(got, body, f"{size} bytes")
            length = f"content-length: {size}".encode() in head.lower()
            check_equal(length, size <= 65536, f"the length of {size} bytes is said")
        port = int(url.rsplit(":", 1)[1].strip("/"))
        for end in (b"", b"no chunk\r\n"):  # It goes, or is refused, before its body is whole.
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                               b"5\r\nhello\r\n" + end)
                client.shutdown(socket.SHUT_WR)
                got = client.recv(65536)
                check(not got or got.startswith(b"HTTP/1.1 400 "), "no answer, or a refusal")
        check_equal(curl("-d", "others", url), b"others", "others are served")


@test
def curl_reuses_its_connection():
    with Server() as server:
        out = curl("-w", "%{num_connects}\n", "-o", os.devnull, "-o", os.devnull,
                   server.url("/peer"), server.url("/peer"))
        check_equal(out, b"1\n0\n", "connections made")
        counted = server.stop()
        check_equal((counted["connections"], counted["requests"], counted["now"]),
                    ("1", "2", "0"), "counted")


@test
def curl_asks_for_parts_of_a_file():
    with tree() as directory, Server("--dir", directory) as server:
        url = server.url("/files/alphabet.txt")
        check_equal(curl("-r", "2-4", url), b"cde", "a range")
        check_equal(curl("-r", "-3", url), b"xyz", "the last")
        check(b"\r\n\r\nab\r\n--" in curl("-r", "0-1,5-6", url), "several ranges")
        check_equal(curl("-C", "20", url), b"uvwxyz", "a download that goes on")
        check_equal(curl("-z", "Fri, 01 Jan 2100 00:00:00 GMT", url), b"", "not modified")
        head = curl("-I", url).decode()
        etag = [line.split(": ")[1] for line in head.splitlines() if line.startswith("ETag")][0]
        status = ["-o", os.devnull, "-w", "%{http_code}"]
        check_equal(curl(*status, "-H", f"If-None-Match: {etag}", url), b"304", "by its tag")
        check_equal(curl(*status, "-r", "99-", url), b"416", "beyond the end")
        with open(f"{directory}/random.bin", "rb") as file:
            check_bytes(curl(server.url("/files/random.bin")), file.read(), "a file of 20 MiB")


@test
def curl_takes_compressed_answers():
    with tree() as directory, Server("--dir", directory) as server:
        plain = curl(server.url("/gzip"))
        packed = curl("-H", "Accept-Encoding: gzip", server.url("/gzip"))
        check_bytes(gzip.decompress(packed), plain, "written in pieces")
        check(len(packed) < len(plain), "smaller")
        check_bytes(curl("--compressed", server.url("/gzip")), plain, "unpacked by curl")
        check_bytes(curl("--compressed", server.url("/files/large.txt")),
                    curl(server.url("/files/large.txt")), "a file")


@test
def curl_uploads_with_little_memory():
    with Server() as server:
        block = os.urandom(1 << 20)
        out = subprocess.Popen([need("curl"), "-sS", "-m", str(PATIENCE), "-T", "-",
                                server.url("/count")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
        for _ in range(UPLOAD_BYTES >> 20):
            out.stdin.write(block)
        check_equal(out.communicate(timeout=PATIENCE)[0], str(UPLOAD_BYTES).encode(), "counted")
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
            status = dict(line.split(":", 1) for line in file)
        note_kib = int(status["VmHWM"].split()[0])
        check(sanitized() or note_kib < 32 << 10, f"{note_kib} KiB at most")


def sanitized():
    with open(SERVE, "rb") as file:
        content = file.read()
    return b"__asan_" in content or b"__tsan_" in content


@test
def curl_gets_back_what_it_sends():
    with tree() as directory, Server() as server:
        with open(f"{directory}/random.bin", "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        for arguments in ([], ["-H", "Transfer-Encoding: chunked"],
                          ["-H", "Expect: 100-continue"], ["-H", "Expect:"]):
            out = curl(*arguments, "--data-binary", f"@{directory}/random.bin",
                       server.url("/echo"))
            check_equal(hashlib.sha256(out).hexdigest(), digest, f"echo with {arguments}")
        out = curl("--http1.0", "--data-binary", f"@{directory}/random.bin", server.url("/echo"))
        check_equal(hashlib.sha256(out).hexdigest(), digest, "echo by HTTP/1.0")


# ---- TLS


def make_certificates(directory):
    def openssl(*arguments):
        subprocess.run([need("openssl"), *arguments], check=True, capture_output=True,
                       timeout=PATIENCE)

    for name, subject in (("ca", "/CN=test authority"), ("server", "/CN=localhost"),
                          ("client", "/CN=some client")):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-out", f"{directory}/{name}.key")
        openssl("req", "-new", "-key", f"{directory}/{name}.key", "-subj", subject,
                "-out", f"{directory}/{name}.csr")
    openssl("x509", "-req", "-in", f"{directory}/ca.csr", "-signkey", f"{directory}/ca.key",
            "-days", "30", "-out", f"{directory}/ca.pem")
    with open(f"{directory}/names", "w", encoding="ascii") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("x509", "-req", "-in", f"{directory}/{name}.csr", "-CA", f"{directory}/ca.pem",
                "-CAkey", f"{directory}/ca.key", "-CAcreateserial", "-days", "30",
                "-extfile", f"{directory}/names", "-out", f"{directory}/{name}.pem")


@test
def curl_speaks_tls():
    with tree() as directory:
        make_certificates(directory)
        with Server("--dir", directory, "--tls", f"{directory}/server.pem",
                    f"{directory}/server.key", f"{directory}/ca.pem") as server:
            trust = ["--cacert", f"{directory}/ca.pem"]
            mine = ["--cert", f"{directory}/client.pem", "--key", f"{directory}/client.key"]
            url = server.url("/certificate", "https")
            check_equal(curl(*trust, *mine, url), b"some client", "the client's name")
            check_equal(curl(*trust, "-o", os.devnull, "-w", "%{http_code}", url), b"404",
                        "without a certificate")
            with open(f"{directory}/random.bin", "rb") as file:
                content = file.read()
            check_bytes(curl(*trust, server.url("/files/random.bin", "https")), content, "a file")
            check_bytes(curl(*trust, "--data-binary", f"@{directory}/random.bin",
                             server.url("/echo", "https")), content, "an echo")


# ---- Behind others


NGINX = """
daemon off; worker_processes 1; master_process off; error_log stderr; pid {directory}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    client_max_body_size 0;
    upstream back {{ server 127.0.0.1:{back}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_buffering off;
        }}
        location /old/ {{ proxy_pass http://back/; }}
    }}
}}
"""


@test
def nginx_stands_in_front():
    nginx = need("nginx")
    with tree() as directory, Server("--dir", directory) as server:
        port = free_port()
        with open(f"{directory}/nginx.conf", "w", encoding="ascii") as file:
            file.write(NGINX.format(directory=directory, back=server.port, port=port))
        with running(nginx, "-p", directory, "-c", f"{directory}/nginx.conf", port=port):
            front = f"http://127.0.0.1:{port}"
            with open(f"{directory}/random.bin", "rb") as file:
                content = file.read()
            for prefix in ("", "/old"):
                check_bytes(curl(f"{front}{prefix}/files/random.bin"), content, "a file")
                check_equal(curl("-r", "1-2", f"{front}{prefix}/files/alphabet.txt"), b"bc",
                            "a range")
                # A large one is not for nginx, which waits for a body's end before it reads on.
                check_bytes(curl("--data-binary", f"@{directory}/alphabet.txt",
                                 f"{front}{prefix}/echo"), b"abcdefghijklmnopqrstuvwxyz", "echo")
                check_equal(curl("-H", "Transfer-Encoding: chunked", "--data-binary",
                                 f"@{directory}/random.bin", f"{front}{prefix}/count"),
                            str(len(content)).encode(), "chunks")
            before = int(curl("-w", "%{http_code}", "-o", os.devnull, f"{front}/nope"))
            check_equal(before, 404, "no such path")
        counted = server.stop()
        check_equal((counted["malformed"], counted["now"]), ("0", "0"), "counted")


HAPROXY = """
defaults
    mode {mode}
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server back 127.0.0.1:{back} {send}
"""


@test
def haproxy_tells_who_the_client_is():
    haproxy = need("haproxy")
    for mode in ("tcp", "http"):
        for send in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"):
            with tree() as directory, Server("--dir", directory, "--proxy") as server:
                port = free_port()
                with open(f"{directory}/haproxy.cfg", "w", encoding="ascii") as file:
                    file.write(HAPROXY.format(mode=mode, port=port, back=server.port, send=send))
                with running(haproxy, "-q", "-db", "-f", f"{directory}/haproxy.cfg", port=port):
                    front = f"http://127.0.0.1:{port}"
                    name = curl("-w", "\n%{local_port}", f"{front}/peer").decode().split("\n")
                    check_equal(name[0], f"127.0.0.1:{name[1]}", f"the client by {send}")
                    with open(f"{directory}/random.bin", "rb") as file:
                        content = file.read()
                    check_bytes(curl("--data-binary", f"@{directory}/random.bin",
                                     f"{front}/echo"), content, f"an echo by {send}")


def tls_arguments(directory):
    make_certificates(directory)
    return ("--dir", directory, "--proxy", "--tls", f"{directory}/server.pem",
            f"{directory}/server.key")


@test
def haproxy_tells_who_the_client_is_before_tls():
    haproxy = need("haproxy")
    for send in ("send-proxy", "send-proxy-v2"):
        with tree() as directory, Server(*tls_arguments(directory)) as server:
            port = free_port()
            with open(f"{directory}/haproxy.cfg", "w", encoding="ascii") as file:
                file.write(HAPROXY.format(mode="tcp", port=port, back=server.port, send=send))
            with running(haproxy, "-q", "-db", "-f", f"{directory}/haproxy.cfg", port=port):
                front, trust = f"https://localhost:{port}", ["--cacert", f"{directory}/ca.pem"]
                name = curl(*trust, "-w", "\n%{local_port}", f"{front}/peer").decode().split("\n")
                check_equal(name[0], f"127.0.0.1:{name[1]}", f"the client by {send}")
                with open(f"{directory}/random.bin", "rb") as file:
                    content = file.read()
                check_bytes(curl(*trust, "--data-binary", f"@{directory}/random.bin",
                                 f"{front}/echo"), content, f"an echo by {send}")


class TlsClient:
    """TLS in memory, so that its bytes can be cut and put together at will."""

    def __init__(self, port, directory):
        context = ssl.create_default_context(cafile=f"{directory}/ca.pem")
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inside, self.outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inside, self.outside, server_hostname="localhost")

    def until_done(self, step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.socket.sendall(self.outside.read())
                piece = self.socket.recv(65536)
                check(piece, "the server goes on")
                self.inside.write(piece)

    def hello(self):
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outside.read()

    def ask(self, path):
        self.until_done(self.tls.do_handshake)
        self.tls.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += self.until_done(lambda: self.tls.read(65536))
        return got.split(b"\r\n\r\n", 1)[1]


PROXIED = b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"


@test
def tls_begins_behind_the_proxy_header():
    with tree() as directory, Server(*tls_arguments(directory)) as server:
        for size in (1, 2, len(PROXIED) - 1, len(PROXIED), len(PROXIED) + 1, 100, 65536):
            client = TlsClient(server.port, directory)
            with client.socket:
                first = PROXIED + client.hello()
                for at in range(0, len(first), size):
                    client.socket.sendall(first[at:at + size])
                check_equal(client.ask("/peer"), b"192.0.2.7:4000", f"cut at {size}")
                check_equal(client.ask("/peer"), b"192.0.2.7:4000", "once more")
        counted = server.stop()
        check_equal((counted["connections"], counted["malformed"], counted["now"]),
                    ("7", "0", "0"), "counted")


@test
def tls_behind_the_proxy_header_is_held_to_its_rules():
    with tree() as directory, Server(*tls_arguments(directory)) as server:
        for bad in (b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n",  # No header.
                    TlsClient(server.port, directory).hello(),  # Nor here.
                    PROXIED + b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n",  # No TLS.
                    PROXIED, PROXIED[:9], b""):
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
                client.sendall(bad)
                client.shutdown(socket.SHUT_WR)
                got = b""
                with contextlib.suppress(ConnectionResetError):
                    while piece := client.recv(65536):
                        got += piece
                check(b"HTTP/1.1" not in got, "no answer in the clear")
        client = TlsClient(server.port, directory)
        with client.socket:
            client.socket.sendall(PROXIED + client.hello())
            check_equal(client.ask("/peer"), b"192.0.2.7:4000", "others are served")


# ---- The end


@test
def stop_waits_for_a_download():
    with tree() as directory, Server("--dir", directory) as server:
        # What the kernel holds for it is less than the file.
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /files/random.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            got = client.recv(1000)
            server.input.close()
            wait_until(lambda: not listens(server.port), "it listens no more")
            while piece := client.recv(1 << 20):
                got += piece
        head, body = got.split(b"\r\n\r\n", 1)
        with open(f"{directory}/random.bin", "rb") as file:
            check_bytes(body, file.read(), "the whole file")
        check(head.startswith(b"HTTP/1.1 200"), "its head")
        check_equal(server.process.wait(PATIENCE), 0, "exit status")


if __name__ == "__main__":
    main()
