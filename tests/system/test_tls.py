#!/usr/bin/env python3
"""Nodes under TLS and tokens: killed, with certificates changed under load, with strangers at the
door; and what people are told when a certificate, a name or a setting is wrong."""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading

import cluster as clusters
import tap
import wire
from certificates import Authority
from cluster import Cluster, free_port, read_counter, run_bopd
from tap import Skip, check, check_equal, note, test, wait_until

BOP = sys.argv[2] if len(sys.argv) > 2 else ""
TOKEN = "a token of the tests"
ADMIN = ('- {name: admin, sha256: %s, rights: [{namespace: "*", right: admin}]}\n'
         % hashlib.sha256(TOKEN.encode()).hexdigest())


@contextlib.contextmanager
def directory():
    path = clusters.temporary_directory()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def trusting(context, token=TOKEN):
    """Connections of wire.py begin like this."""
    wire.TRUST.update(context=context, token=token.encode() if token else None)
    try:
        yield
    finally:
        wire.TRUST.update(context=None, token=None)


@contextlib.contextmanager
def secured(count=3, start=True, extra=(), tokens=ADMIN):
    """A cluster whose nodes have certificates, and its CA."""
    with directory() as path:
        authority = Authority(path)
        with Cluster(count, start=False) as cluster:
            for node in cluster.nodes:
                authority.issue_node(node.number)
                node.extra = ["--tls-certificate", authority.crt(f"n{node.number}"), "--tls-key",
                              authority.key(f"n{node.number}"), "--tls-ca", authority.crt(), *extra]
                if tokens:
                    node.extra += ["--tokens", os.path.join(path, "tokens.yaml")]
            with open(os.path.join(path, "tokens.yaml"), "w", encoding="ascii") as out:
                out.write(tokens or "")
            with trusting(authority.context(), TOKEN if tokens else None):
                if start:
                    cluster.start()
                yield cluster, authority


def bop(port, *arguments, status=1, token=TOKEN):
    """Run bop to its end; returns what it printed, and what it complained of."""
    if not os.path.exists(BOP):
        raise Skip("there is no bop to run; name it behind bopd")
    env = clusters.environment() | ({"BOP_TOKEN": token} if token else {})
    done = subprocess.run([BOP, "--server", f"localhost:{port}", "--timeout", "30",
                           *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, env=env, timeout=clusters.PATIENCE, check=False)
    note(f"bop {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    check_equal(done.returncode, status, f"exit status of bop {arguments}: {done.stderr}")
    return done.stdout, done.stderr


def check_line(text, *parts):
    """One line that has all of it."""
    lines = text.splitlines()
    check(len(lines) == 1, f"not one line: {text!r}")
    for part in parts:
        check(part in lines[0], f"no {part!r} in {lines[0]!r}")


def additions(count):
    return [wire.counter_add("c", 1) for _ in range(count)]


# ---- Serving ----


@test
def who_was_given_one_server_goes_on_at_the_others_under_tls_and_tokens():
    if not os.path.exists(BOP):
        raise Skip("there is no bop to run; name it behind bopd")
    with secured() as (cluster, authority):
        leader = cluster.leader()
        with subprocess.Popen(
                [BOP, "watch", "map", "m", "--json", "--ca", authority.crt(), "--server",
                 f"localhost:{leader.port}"], stdout=subprocess.PIPE, text=True,
                env=clusters.environment() | {"BOP_TOKEN": TOKEN},
                preexec_fn=clusters.die_with_parent) as watcher:
            try:
                heard = []

                def listen():
                    for line in watcher.stdout:
                        heard.append(json.loads(line).get("value"))

                thread = threading.Thread(target=listen, daemon=True)
                thread.start()

                def hears(value):
                    with cluster.client() as client:
                        client.write(wire.map_put("m", b"k", value))
                    return value.decode() in heard
                wait_until(lambda: hears(b"before"), "it hears of a write")
                leader.kill()
                wait_until(lambda: hears(b"after"), "it hears of a write when its server is dead")
            finally:
                watcher.kill()
                thread.join()


@test
def three_nodes_under_tls_and_tokens_lose_nothing_when_the_leader_is_killed():
    with secured() as (cluster, _), cluster.client() as client:
        first = cluster.leader()
        answers = client.run(additions(1000), events={500: first.kill})
        sums = sorted(wire.number_of(result) for status, result in answers if status == wire.OK)
        check(sums == list(range(1, 1001)), "an addition was lost, or done twice")
        check(cluster.leader() is not first, "the dead node leads")
        first.start()
        check_equal(read_counter(first, "c"), 1000, "counter on the node that came back")
        cluster.converge()


@test
def the_c_client_finds_the_leader_under_tls():
    with secured() as (cluster, authority):
        for node in cluster.nodes:
            # Its own address and the leader's, which is numeric, are both in the certificates.
            bop(node.port, "--ca", authority.crt(), "map", "put", "m", f"k{node.number}", "v",
                status=0)
            out, _ = bop(node.port, "--ca", authority.crt(), "map", "get", "m", f"k{node.number}",
                         status=0)
            check_equal(out, "v", "value")


@test
def certificates_change_under_load_without_a_failed_request():
    with secured() as (cluster, authority):
        stop, failures, done = threading.Event(), [], [0]

        def load(node):
            try:
                with node.connect() as connection:
                    while not stop.is_set():
                        status, _ = connection.read(wire.counter_get("none"), wire.STALE_READ)
                        if status not in (wire.OK, wire.NOT_FOUND):
                            failures.append(status)
                        done[0] += 1
            except (OSError, wire.Closed, wire.ProtocolError) as error:
                failures.append(error)

        threads = [threading.Thread(target=load, args=(n,)) for n in cluster.nodes]
        for thread in threads:
            thread.start()
        with cluster.client() as client:
            for _ in range(3):
                for node in cluster.nodes:
                    old = serial(node)
                    authority.issue_node(node.number)
                    node.process.send_signal(signal.SIGHUP)
                    wait_until(lambda node=node, old=old: serial(node) != old,
                               f"node {node.number} shows its new certificate")
                    answers = client.run(additions(50))
                    check(all(status == wire.OK for status, _ in answers), "a write failed")
            check_equal(client.reconnects, 0, "connections that were lost")
        before = done[0]
        wait_until(lambda: done[0] > before + 10 or failures, "the load goes on")
        stop.set()
        for thread in threads:
            thread.join()
        check(not failures, f"requests failed: {failures[:3]}")
        check_equal(cluster.leader().wait_status()["term"], min(
            n.wait_status()["term"] for n in cluster.nodes), "the term")


def serial(node):
    with node.connect() as connection:
        return connection.socket.getpeercert()["serialNumber"]


def get(port, context, path, token=None):
    """Status and body of a GET; in the clear without a context."""
    more = {"timeout": clusters.PATIENCE}
    connection = (http.client.HTTPSConnection("localhost", port, context=context, **more)
                  if context else http.client.HTTPConnection("localhost", port, **more))
    try:
        connection.request("GET", path,
                           headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def http_serial(port, context):
    with socket.create_connection(("127.0.0.1", port)) as tcp:
        with context.wrap_socket(tcp, server_hostname="localhost") as connection:
            return connection.getpeercert()["serialNumber"]


@test
def http_is_under_the_same_certificate_and_tokens():
    with secured(1, start=False) as (cluster, authority):
        node, port, context = cluster.nodes[0], free_port(), authority.context()
        node.extra += ["--http", f"127.0.0.1:{port}"]
        cluster.start()
        path = "/v1/counters/c"
        status, body = get(port, None, path)
        check_equal((status, b"https" in body), (400, True), "an answer in the clear")
        check(get(port, context, path)[0] in (401, 403), "a request without a token is served")
        check_equal(get(port, context, path, TOKEN)[0], 404, "a request with one")
        old = http_serial(port, context)
        authority.issue_node(1)
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: http_serial(port, context) != old, "the new certificate")


@test
def a_reload_that_cannot_be_read_changes_nothing():
    with secured(1) as (cluster, authority):
        node = cluster.nodes[0]
        old = serial(node)
        with open(authority.crt("n1"), "w", encoding="ascii") as out:
            out.write("no certificate\n")
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("reload: " in line and "n1.crt" in line and "stays" in line
                               for line in node.log()), "the mistake is told")
        check_equal(serial(node), old, "the certificate")
        authority.issue_node(1)
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: serial(node) != old, "the new certificate")


# ---- Peers ----


def hello_as(connection, number, target):
    """Say that we are a node; what the answer says against it."""
    connection.send_raw(wire.frame(wire.PEER_HELLO, wire.u16(1) + wire.u64(number) +
                                   wire.u64(target) + wire.blob("test") +
                                   wire.blob("127.0.0.1:1")))
    reader = connection.receive().reader()
    check_equal((reader.u16(), reader.u64()), (1, target), "who answers")
    return reader.text()


@test
def only_who_has_a_nodes_certificate_may_speak_as_that_node():
    with secured() as (cluster, authority):
        node, other = cluster.nodes[0], cluster.nodes[1].number
        authority.issue("client", "DNS:client.example.org")
        for name, expected in ((None, "shows no certificate"),
                               ("client", "is for client.example.org, not for bop-node-2"),
                               ("n3", "not for bop-node-2")):
            trust = {"context": authority.context(name), "token": None}
            with wire.Connection(node.port, trust=trust) as connection:
                refusal = hello_as(connection, other, node.number)
                check(expected in refusal, f"no {expected!r} in {refusal!r}")
                connection.until_closed()
        # A token makes a client, and a client is no node.
        with node.connect() as connection:
            connection.send_raw(wire.frame(wire.PEER_HELLO, b""))
            reason, _ = connection.until_closed()
            check(reason is not None, "it was closed without a word")
        check_equal(cluster.leader().wait_status()["state"], wire.LEADER, "all goes on")


@test
def a_node_of_another_name_is_left_out():
    with secured(start=False) as (cluster, authority):
        third = cluster.nodes[2]
        authority.issue("n3", "DNS:localhost,IP:127.0.0.1")
        for node in cluster.nodes:
            node.start(wait=False)
        leader = wait_until(lambda: next((n for n in cluster.nodes[:2] if (n.status() or {}).get(
            "state") == wire.LEADER), None), "two of three have a leader")
        wait_until(lambda: any("bop-node-3" in line or "hostname mismatch" in line
                               for line in leader.log()), "the log names the certificate")
        check(not any(p["connected"] for p in leader.wait_status()["peers"] if p["id"] == 3),
              "node 3 takes part")
        authority.issue_node(3)
        third.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any(p["connected"] for p in (leader.status() or {"peers": []})["peers"]
                               if p["id"] == 3), "node 3 takes part with the right certificate")


@test
def a_node_without_tls_is_left_out():
    with secured(start=False) as (cluster, _):
        cluster.nodes[2].extra = []
        for node in cluster.nodes:
            node.start(wait=False)
        leader = wait_until(lambda: next((n for n in cluster.nodes[:2] if (n.status() or {}).get(
            "state") == wire.LEADER), None), "two of three have a leader")
        wait_until(lambda: any("does not speak TLS" in line for line in leader.log()),
                   "the log says who speaks in the clear")
        check(not any(p["connected"] for p in leader.wait_status()["peers"] if p["id"] == 3),
              "node 3 takes part")


# ---- What people are told ----


@test
def clients_are_told_what_is_wrong_with_tls():
    with secured(1) as (cluster, authority), directory() as elsewhere:
        port, ca = cluster.nodes[0].port, authority.crt()
        stranger = Authority(elsewhere, "stranger")
        authority.issue("old", "DNS:old", days=-1)
        get = ("counter", "get", "c")
        check_line(bop(port, *get)[1], f"localhost:{port}", "this port speaks TLS", "--ca FILE")
        check_line(bop(port, "--ca", stranger.crt(), *get)[1], f"localhost:{port}",
                   "certificate is refused", "give the CA that made it with --ca")
        check_line(bop(port, "--ca", ca, "--tls-name", "db.example", *get)[1], f"localhost:{port}",
                   "hostname mismatch", "--tls-name")
        check_line(bop(port, "--ca", ca + "x", *get)[1], ca + "x", "No such file")
        check_line(bop(port, "--ca", ca, "--cert", authority.crt("n1"), "--key",
                       stranger.key("stranger"), *get)[1], "key does not belong to")
        check_line(bop(port, "--ca", ca, "--cert", authority.crt("n1"), *get, status=2)[1],
                   "add --key")
        check_line(bop(port, "--ca", ca, "--cert", authority.crt("old"), "--key",
                       authority.key("old"), *get)[1], authority.crt("old"), "expired")
        check_line(bop(port, "--ca", ca, "status", token="guess")[1], "does not know the token",
                   "--token-file")


@test
def a_server_that_wants_certificates_of_clients_says_so():
    with directory() as elsewhere:
        stranger = Authority(elsewhere, "stranger")
        stranger.issue("mine", "DNS:mine")
        with secured(1, start=False, extra=["--tls-client-certificates", "required"],
                     tokens=None) as (cluster, authority):
            authority.issue("mine", "DNS:mine")
            with trusting(authority.context("mine"), None):
                cluster.start()
                port, ca = cluster.nodes[0].port, authority.crt()
                bop(port, "--ca", ca, "--cert", authority.crt("mine"), "--key",
                    authority.key("mine"), "map", "put", "m", "k", "v", status=0)
                check_line(bop(port, "--ca", ca, "map", "get", "m", "k")[1], f"localhost:{port}",
                           "--cert and --key")
                check_line(bop(port, "--ca", ca, "--cert", stranger.crt("mine"), "--key",
                               stranger.key("mine"), "map", "get", "m", "k")[1],
                           "another CA made your certificate")


@test
def a_server_without_tls_is_told_apart():
    with Cluster(1) as cluster, directory() as path:
        port = cluster.nodes[0].port
        authority = Authority(path)
        check_line(bop(port, "--ca", authority.crt(), "counter", "get", "c")[1],
                   f"localhost:{port}", "does not speak TLS", "drop --ca")
        check(any("it speaks TLS, for which this node has no certificate" in line
                  for line in cluster.nodes[0].log()), "the node's log does not say it")


@test
def an_expired_certificate_is_named():
    """No node would load it: it expired while one was running, so to speak."""
    with directory() as path, socket.create_server(("127.0.0.1", 0)) as listener:
        authority = Authority(path)
        authority.issue("old", "DNS:localhost", days=-1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.crt("old"), authority.key("old"))
        ended = threading.Event()

        def serve():
            listener.settimeout(0.2)
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection, context.wrap_socket(connection, server_side=True):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            port = listener.getsockname()[1]
            check_line(bop(port, "--ca", authority.crt(), "counter", "get", "c")[1],
                       f"localhost:{port}", "certificate has expired", "must be renewed")
        finally:
            ended.set()
            thread.join()


@test
def a_node_says_which_file_is_wrong():
    with directory() as path:
        authority = Authority(path)
        authority.issue_node(1)
        authority.issue_node(2)
        authority.issue("old", "DNS:bop-node-1", days=-1)
        tokens = os.path.join(path, "tokens.yaml")
        with open(tokens, "w", encoding="ascii") as out:
            out.write("- name: x\n  sha256: 00\n")
        for arguments, part in (
                (("--tls-certificate", authority.crt("old"), "--tls-key", authority.key("old")),
                 (authority.crt("old"), "expired")),
                (("--tls-certificate", authority.crt("n1"), "--tls-key", authority.key("n2")),
                 (authority.key("n2"), "key does not belong")),
                (("--tls-certificate", authority.crt("none"), "--tls-key", authority.key("n2")),
                 (authority.crt("none"), "No such file")),
                (("--tokens", tokens), (f"{tokens}:2: ", "not 64 hex digits"))):
            for mode in ("--dev", "--check-config"):
                code, _, complaints = run_bopd(["--id", 1, "--data", os.path.join(path, "data"),
                                                mode, "--listen", f"127.0.0.1:{free_port()}",
                                                *arguments])
                check_equal(code, 2, f"exit status with {arguments}")
                check_line("\n".join(complaints), *part)


# ---- HTTP ----


@test
def http_is_served_under_tls_to_whoever_has_a_token():
    if not shutil.which("curl"):
        raise Skip("there is no curl")
    with secured(start=False) as (cluster, authority):
        authority.issue("reader", "DNS:reader")
        with open(os.path.join(authority.directory, "tokens.yaml"), "a", encoding="ascii") as out:
            out.write('- {name: reader, certificate: reader, '
                      'rights: [{namespace: "*", right: read}]}\n')
        for node in cluster.nodes:
            node.http = free_port()
            node.extra += ["--http", f"127.0.0.1:{node.http}", "--tls-client-certificates",
                           "optional"]
        cluster.start()
        stranger = Authority(authority.directory, "stranger")

        def curl(node, path, *arguments, host="localhost", ca=authority.crt(), code=0):
            done = subprocess.run(
                ["curl", "-sS", "--max-time", "30", "-w", "\n%{http_code}", "--cacert", ca,
                 *arguments, f"https://{host}:{node.http}{path}"],
                capture_output=True, text=True, check=False)
            check_equal(done.returncode, code, f"curl {path} {arguments}: {done.stderr}")
            return done.stdout.rpartition("\n")[::2]

        token = ["-H", f"Authorization: Bearer {TOKEN}"]
        leader, follower = cluster.leader(), cluster.follower()
        check_equal(curl(leader, "/healthz")[1], "200", "health wants nobody's name")
        check_equal(curl(leader, "/v1/maps/m")[1], "401", "without a token")
        wait_until(lambda: curl(leader, "/v1/maps/m/entries/k", *token, "-X", "PUT", "-d", "v")[1]
                   in ("200", "201"), "an entry is put", clusters.PATIENCE)
        for host in ("localhost", "127.0.0.1"):
            check_equal(curl(follower, "/v1/maps/m/entries/k", *token, host=host), ("v", "200"),
                        f"the entry as {host}")
        body, status = curl(follower, "/v1/watch?kind=map&name=m&timeout_ms=0", *token)
        check_equal((status, "revision" in body), ("200", True), "a watch")
        shown = ["--cert", authority.crt("reader"), "--key", authority.key("reader")]
        check_equal(curl(follower, "/v1/maps/m/entries/k", *shown), ("v", "200"),
                    "the entry by a certificate")
        check_equal(curl(follower, "/v1/maps/m/entries/k", *shown, "-X", "DELETE")[1], "403",
                    "what the certificate does not allow")
        curl(leader, "/healthz", ca=stranger.crt(), code=60)
        plain = subprocess.run(["curl", "-sS", "--max-time", "30",
                                f"http://127.0.0.1:{leader.http}/healthz"], capture_output=True,
                               text=True, check=False)
        check("speaks TLS" in plain.stdout, f"in the clear: {plain.stdout!r} {plain.stderr!r}")


@test
def nothing_listens_beyond_loopback_without_tls_and_authentication():
    with directory() as path:
        code, _, complaints = run_bopd(["--id", 1, "--data", path, "--listen", "0.0.0.0:0"])
        check_equal(code, 2, "exit status")
        check_line("\n".join(complaints), "listen 0.0.0.0:0", "no TLS and no authentication",
                   "--tls-certificate", "--tokens", "--insecure")
        code, _, _ = run_bopd(["--id", 1, "--data", path, "--listen", "0.0.0.0:0", "--insecure",
                               "--check-config"])
        check_equal(code, 0, "exit status with --insecure")
        code, _, complaints = run_bopd(["--id", 1, "--data", path, "--http", "0.0.0.0:0"])
        check_equal(code, 2, "exit status with HTTP for all")
        check_line("\n".join(complaints), "http 0.0.0.0:0", "no TLS and no authentication")


if __name__ == "__main__":
    tap.main()
