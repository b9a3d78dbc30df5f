"""tls-echo with other people's TLS: the openssl command and Python's ssl.

    test_tls_echo.py TLS-ECHO

Speaks TAP. Certificates are made here and live for a day.
"""
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import traceback

WAIT_S = 30


def openssl(*args, **kwargs):
    return subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=WAIT_S, **kwargs)


class Certificates:
    """An authority, a server's certificate and a client's, in a directory."""

    def __init__(self, directory):
        self.directory = directory
        self.make("ca", "Test CA", None)
        self.make("server", "localhost", "DNS:localhost,IP:127.0.0.1")
        self.make("client", "somebody", "DNS:somebody")

    def path(self, name):
        return os.path.join(self.directory, name)

    def make(self, name, common_name, alternatives, issuer="ca"):
        key, cert = self.path(name + ".key"), self.path(name + ".pem")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=" + common_name)
        if alternatives is None:
            return
        extensions = self.path(name + ".ext")
        with open(extensions, "w") as file:
            file.write("subjectAltName=" + alternatives + "\n")
        request = openssl("req", "-new", "-key", key, "-subj", "/CN=" + common_name).stdout
        openssl("x509", "-req", "-CA", self.path(issuer + ".pem"), "-CAkey", self.path(issuer + ".key"),
                "-CAcreateserial", "-days", "1", "-extfile", extensions, "-out", cert, input=request)


class Server:
    def __init__(self, program, certificates, *more):
        self.process = subprocess.Popen(
            [program, "--port", "0", "--cert", certificates.path("server.pem"),
             "--key", certificates.path("server.key"), *more], stdout=subprocess.PIPE, text=True)
        self.port = int(self.expect(r"listening on port (\d+)").group(1))

    def expect(self, pattern):
        """The next line that has the pattern."""
        for line in self.process.stdout:
            match = re.search(pattern, line)
            if match:
                return match
        raise AssertionError("the server ended without: " + pattern)

    def stop(self):
        self.process.terminate()
        self.process.stdout.read()
        assert self.process.wait(WAIT_S) == 0, self.process.returncode


def context_for(certificates, client=False):
    context = ssl.create_default_context(cafile=certificates.path("ca.pem"))
    if client:
        context.load_cert_chain(certificates.path("client.pem"), certificates.path("client.key"))
    return context


def connect(server, context, name="localhost", session=None):
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    return context.wrap_socket(plain, server_hostname=name, session=session)


def echo(tls, data):
    tls.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = tls.recv(65536)
        assert piece, "the server ended"
        got += piece
    assert got == data


def s_client(server, certificates, text, *more):
    """What s_client prints when these lines are its input, one after the answer to the last."""
    process = subprocess.Popen(
        ["openssl", "s_client", "-connect", "127.0.0.1:%d" % server.port, "-servername", "localhost",
         "-CAfile", certificates.path("ca.pem"), *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        return process.communicate(text.encode(), timeout=WAIT_S)[0].decode(errors="replace")
    finally:
        process.kill()
        process.wait()


def test_echoes_to_python(program, certificates):
    server = Server(program, certificates)
    with connect(server, context_for(certificates)) as tls:
        assert tls.version() == "TLSv1.3"
        echo(tls, b"hello")
        echo(tls, os.urandom(1 << 20)[:1 << 16])
        tls.unwrap().close()  # Needs the server's close_notify.
    server.stop()


def test_speaks_both_versions_to_openssl(program, certificates):
    server = Server(program, certificates)
    for version in "1.2", "1.3":
        context = context_for(certificates)
        context.maximum_version = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
        with connect(server, context) as tls:
            assert tls.version() == "TLSv" + version
            echo(tls, b"x" * 100000)
        out = s_client(server, certificates, "Q\n", "-tls" + version.replace(".", "_"))
        assert "Verify return code: 0 (ok)" in out, out
        assert "Compression: NONE" in out, out
    server.stop()


def test_resumes_in_both_versions(program, certificates):
    server = Server(program, certificates)
    for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
        context = context_for(certificates)
        context.maximum_version = version
        with connect(server, context) as tls:
            echo(tls, b"hello")
            session = tls.session
            tls.unwrap().close()
        with connect(server, context, session=session) as tls:
            echo(tls, b"hello again")
            assert tls.session_reused
            tls.unwrap().close()
        server.expect(", resumed")
    server.stop()


def test_refuses_old_versions(program, certificates):
    server = Server(program, certificates)
    for version in "-tls1", "-tls1_1":
        out = s_client(server, certificates, "Q\n", version, "-cipher", "ALL:@SECLEVEL=0")
        assert "New, (NONE), Cipher is (NONE)" in out, out
    server.expect("unsupported protocol")
    out = s_client(server, certificates, "Q\n", "-tls1_2", "-cipher", "AES128-SHA:ECDHE-ECDSA-AES128-SHA")
    assert "New, (NONE), Cipher is (NONE)" in out, out
    server.expect("no shared cipher")
    server.stop()


def test_does_not_renegotiate(program, certificates):
    server = Server(program, certificates)
    out = s_client(server, certificates, "R\n", "-tls1_2")
    assert "RENEGOTIATING" in out, out
    assert "no renegotiation" in out, out
    with connect(server, context_for(certificates)) as tls:
        echo(tls, b"still there")
    server.stop()


def test_answers_key_updates(program, certificates):
    server = Server(program, certificates)
    out = s_client(server, certificates, "K\n" * 20 + "Q\n", "-tls1_3")
    assert "KEYUPDATE" in out, out
    assert "error" not in out.lower().replace("verify error", ""), out
    with connect(server, context_for(certificates)) as tls:
        echo(tls, b"still there")
    server.stop()


def test_lets_in_whom_the_authority_knows(program, certificates):
    server = Server(program, certificates, "--client-ca", certificates.path("ca.pem"))
    with connect(server, context_for(certificates, client=True)) as tls:
        echo(tls, b"hello")
    server.expect("client somebody")
    try:
        with connect(server, context_for(certificates)) as tls:
            echo(tls, b"hello")
        raise AssertionError("let in without a certificate")
    except (ssl.SSLError, ConnectionError):
        pass
    server.expect("peer did not return a certificate")
    server.stop()


def test_reloads_on_sighup(program, certificates):
    server = Server(program, certificates)
    context = context_for(certificates)
    old = connect(server, context)
    before = old.getpeercert(binary_form=True)
    certificates.make("server", "localhost", "DNS:localhost,IP:127.0.0.1")
    server.process.send_signal(signal.SIGHUP)
    server.expect("^reloaded")
    echo(old, b"the old one goes on")
    with connect(server, context) as tls:
        assert tls.getpeercert(binary_form=True) != before
        echo(tls, b"the new one too")
    with open(certificates.path("server.pem"), "w") as file:
        file.write("not a certificate\n")
    server.process.send_signal(signal.SIGHUP)
    assert "server.pem: not PEM" in server.expect("not reloaded: (.*)").group(1)
    with connect(server, context) as tls:
        echo(tls, b"hello")
    old.close()
    server.stop()
    certificates.make("server", "localhost", "DNS:localhost,IP:127.0.0.1")


def test_says_what_is_wrong(program, certificates):
    result = subprocess.run([program, "--port", "0", "--cert", certificates.path("server.pem"),
                             "--key", certificates.path("ca.key")], capture_output=True, text=True,
                            timeout=WAIT_S)
    assert result.returncode == 1
    assert re.search(r"ca\.key: the key does not belong to the certificate of .*server\.pem", result.stderr)
    result = subprocess.run([program, "--cert"], capture_output=True, text=True, timeout=WAIT_S)
    assert result.returncode == 2 and "usage" in result.stderr


def main():
    program = sys.argv[1]
    tests = [(name, fn) for name, fn in globals().items() if name.startswith("test_")]
    print("TAP version 13\n1..%d" % len(tests), flush=True)
    if shutil.which("openssl") is None:
        for number, (name, _) in enumerate(tests, 1):
            print("ok %d - %s # SKIP no openssl command" % (number, name[5:]))
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        certificates = Certificates(directory)
        for number, (name, fn) in enumerate(tests, 1):
            try:
                fn(program, certificates)
                print("ok %d - %s" % (number, name[5:].replace("_", " ")), flush=True)
            except Exception:
                failed += 1
                for line in traceback.format_exc().splitlines():
                    print("# " + line)
                print("not ok %d - %s" % (number, name[5:].replace("_", " ")), flush=True)
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
