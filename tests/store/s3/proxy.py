"""A proxy in front of an S3 server that does to chosen requests what networks and servers do.

    proxy = Proxy(upstream)
    with proxy.fault(status(503, "SlowDown"), method="PUT", times=2):
        ...

A fault is a function of (proxy, request, forward): it answers, or gives None to cut the
connection. It meets the requests that match, from the one after `skip` on, `times` times.
What a client signs is left alone, so that the server behind checks the true signature.
"""

import contextlib
import http.client
import re
import socket
import socketserver
import ssl
import threading
import urllib.parse


class Request:
    def __init__(self, method, target, headers, body):
        self.method = method
        self.target = target
        self.headers = headers  # Pairs, in order.
        self.body = body
        self.path, _, self.query = target.partition("?")

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def parameter(self, name):
        found = urllib.parse.parse_qs(self.query, keep_blank_values=True).get(name)
        return found[0] if found else None


class Answer:
    def __init__(self, status, headers=(), body=b"", cut_at=None):
        self.status = status
        self.headers = list(headers)
        self.body = body
        self.cut_at = cut_at  # So many bytes of the body go out, then the connection breaks.

    def with_body(self, body):
        return Answer(self.status, [(k, v) for k, v in self.headers
                                    if k.lower() != "content-length"], body)


TLS_HANDSHAKE = b"\x16"


class _Rule:
    def __init__(self, fault, method, path, query, skip, times):
        self.fault = fault
        self.method = method
        self.path = path
        self.query = query
        self.skip = skip
        self.left = times
        self.met = 0

    def matches(self, request):
        return ((self.method is None or request.method == self.method)
                and (self.path is None or re.search(self.path, request.path))
                and (self.query is None or re.search(self.query, request.query)))


class Proxy:
    def __init__(self, upstream_port, ca_file):
        self.requests = []  # All that came, in order.
        self.released = threading.Event()  # What hold() waits for.
        self.holding = threading.Event()
        self._rules = []
        self._lock = threading.Lock()
        self._upstream_port = upstream_port
        self._context = ssl.create_default_context(cafile=ca_file)
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    while proxy.serve(self.rfile, self.wfile, self.connection):
                        pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    @contextlib.contextmanager
    def fault(self, fault, method=None, path=None, query=None, skip=0, times=1):
        rule = _Rule(fault, method, path, query, skip, times)
        with self._lock:
            self._rules.append(rule)
        try:
            yield rule
        finally:
            with self._lock:
                self._rules.remove(rule)

    def count(self, method, query=None):
        return sum(r.method == method and (query is None or re.search(query, r.query) is not None)
                   for r in self.requests)

    def clear(self):
        self.requests.clear()
        self.released.clear()
        self.holding.clear()

    def _fault_for(self, request):
        with self._lock:
            self.requests.append(request)
            for rule in self._rules:
                if not rule.matches(request):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                elif rule.left > 0:
                    rule.left -= 1
                    rule.met += 1
                    return rule.fault
        return None

    def serve(self, reader, writer, connection):
        """One request. False ends the connection."""
        if reader.peek(1)[:1] == TLS_HANDSHAKE:
            return False  # It has no line to wait for, but by chance.
        line = reader.readline(65536).decode("latin-1").split()
        if len(line) != 3:
            return False
        headers = []
        while True:
            text = reader.readline(65536).decode("latin-1").rstrip("\r\n")
            if not text:
                break
            key, _, value = text.partition(":")
            headers.append((key, value.strip()))
        request = Request(line[0], line[1], headers, b"")
        if (request.header("Expect") or "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        fault = self._fault_for(request)
        length = int(request.header("Content-Length") or 0)
        if getattr(fault, "cut_request_at", None) is not None:
            reader.read(min(length, fault.cut_request_at))
            self._reset(connection)
            return False
        request.body = reader.read(length)
        answer = fault(self, request, self.forward) if fault else self.forward(request)
        if answer is None:
            self._reset(connection)
            return False
        return self._send(writer, connection, request, answer)

    @staticmethod
    def _reset(connection):
        """Close with a reset, as a machine that dies does."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    def _send(self, writer, connection, request, answer):
        head = f"HTTP/1.1 {answer.status} X\r\n"
        for key, value in answer.headers:
            head += f"{key}: {value}\r\n"
        if not any(key.lower() == "content-length" for key, _ in answer.headers):
            head += f"Content-Length: {len(answer.body)}\r\n"
        body = b"" if request.method == "HEAD" else answer.body
        writer.write(head.encode("latin-1") + b"\r\n" + body[:answer.cut_at])
        writer.flush()
        if answer.cut_at is not None:
            connection.shutdown(socket.SHUT_WR)
            return False
        return True

    def forward(self, request):
        upstream = http.client.HTTPSConnection("127.0.0.1", self._upstream_port, timeout=60,
                                               context=self._context)
        try:
            upstream.putrequest(request.method, request.target, skip_host=True,
                                skip_accept_encoding=True)
            for key, value in request.headers:
                if key.lower() not in ("expect", "connection"):
                    upstream.putheader(key, value)
            upstream.endheaders(request.body)
            response = upstream.getresponse()
            body = response.read()
            headers = [(key, value) for key, value in response.getheaders()
                       if key.lower() not in ("transfer-encoding", "connection")]
            return Answer(response.status, headers, body)
        finally:
            upstream.close()


# ---- Faults ----

def status(number, code=None, message="as ordered", headers=(), more=""):
    """An error of the server's own; its body has a code, unless that is None."""
    body = b""
    if code:
        body = (f"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>"
                f"<Message>{message}</Message>{more}</Error>").encode()
    return lambda proxy, request, forward: Answer(number, headers, body)


def body(text, number=200):
    return lambda proxy, request, forward: Answer(number, [("Content-Type", "application/xml")],
                                                  text.encode())


def cut_request(at):
    """The connection breaks when so many bytes of the body have come."""
    def fault(proxy, request, forward):
        raise AssertionError("not called")
    fault.cut_request_at = at
    return fault


def cut_answer(at):
    """The request is done; so many bytes of the answer's body arrive."""
    def fault(proxy, request, forward):
        answer = forward(request)
        answer.cut_at = at
        return answer
    return fault


def lose_answer(proxy, request, forward):
    """The request is done, and nobody hears of it."""
    forward(request)


def duplicate(proxy, request, forward):
    """The request arrives twice."""
    forward(request)
    return forward(request)


def flip_answer(at):
    """One bit of the answer's body is another."""
    def fault(proxy, request, forward):
        answer = forward(request)
        changed = bytearray(answer.body)
        changed[at] ^= 1
        answer.body = bytes(changed)
        return answer
    return fault


def flip_request(at):
    """One bit of the request's body is another."""
    def fault(proxy, request, forward):
        changed = bytearray(request.body)
        changed[at] ^= 1
        request.body = bytes(changed)
        return forward(request)
    return fault


def change_answer(change):
    """The answer as change(answer) makes it."""
    return lambda proxy, request, forward: change(forward(request))


def hold(proxy, request, forward):
    """Nothing comes back until the test releases it."""
    proxy.holding.set()
    proxy.released.wait(60)


def pass_on(proxy, request, forward):
    """No fault: to count what matches."""
    return forward(request)
