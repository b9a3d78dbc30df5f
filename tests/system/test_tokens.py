#!/usr/bin/env python3
"""Tokens: what each may do on real nodes, made by bop, changed while clients are there, guessed at
by strangers, and in place of them certificates."""

import hashlib
import os
import signal
import subprocess
import sys
import threading

import cluster as clusters
import tap
import wire
from certificates import Authority
from cluster import Cluster
from tap import Skip, check, check_equal, note, test, wait_until

BOP = sys.argv[2] if len(sys.argv) > 2 else ""


def entry(name, token, *rights, certificate=None):
    lines = [f"- name: {name}"]
    if token:
        lines.append(f"  sha256: {hashlib.sha256(token).hexdigest()}")
    if certificate:
        lines.append(f"  certificate: {certificate}")
    listed = ", ".join(f'{{namespace: "{space}", right: {right}}}' for space, right in rights)
    return "\n".join(lines + [f"  rights: [{listed}]", ""])


READER, WRITER, ROOT = b"the reader's", b"the writer's", b"the root's"
READS, WRITES = entry("reader", READER, ("blue", "read")), entry("writer", WRITER, ("blue", "write"))
ROOTS = entry("root", ROOT, ("*", "admin"))
SHOW_ROOT = {"BOP_TOKEN": ROOT.decode()}


class Guarded(Cluster):
    """A cluster whose nodes want tokens; the tests' own look at it with root's."""

    def __init__(self, text, count=1, extra=()):
        super().__init__(count, start=False)
        self.path = os.path.join(self.directory, "tokens.yaml")
        self.put(text)
        for node in self.nodes:
            node.extra = ["--tokens", self.path, *extra]
        wire.TRUST["token"] = ROOT
        self.start()

    def put(self, text):
        with open(self.path + ".new", "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(self.path + ".new", self.path)

    def reload(self, text, expected="reloaded certificates and tokens"):
        self.put(text)
        for node in self.nodes:
            seen = len(node.log())
            node.process.send_signal(signal.SIGHUP)
            wait_until(lambda node=node, seen=seen: any(expected in line
                                                        for line in node.log()[seen:]),
                       f"node {node.number} read its tokens")

    def __exit__(self, kind, *more):
        wire.TRUST["token"] = None
        super().__exit__(kind, *more)

    def as_client(self, token, node=None):
        trust = {"context": None, "token": token}
        return wire.Connection((node or self.nodes[0]).port, trust=trust)


def write(connection, operation):
    """Until it is decided: a cluster that has just begun may have no leader for a moment."""
    def once():
        got = connection.write(operation)
        return None if got[0] in (wire.RETRY, wire.BUSY) else got
    return wait_until(once, "a write is decided")


def denial(answer):
    status, result = answer
    check_equal(status, wire.DENIED, "status")
    reader = wire.Reader(result)
    text = reader.text()
    reader.end()
    return text


def bop(port, *arguments, status=0, env=None):
    if not os.path.exists(BOP):
        raise Skip("there is no bop to run; name it behind bopd")
    done = subprocess.run([BOP, "--server", f"127.0.0.1:{port}", *map(str, arguments)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env=clusters.environment() | (env or {}), timeout=clusters.PATIENCE,
                          check=False)
    note(f"bop {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    check_equal(done.returncode, status, f"exit status of bop {arguments}: {done.stderr}")
    return done.stdout, done.stderr


@test
def rights_are_those_of_the_token_and_the_namespace():
    with Guarded(READS + WRITES + ROOTS, count=3) as cluster:
        for node in cluster.nodes:
            with cluster.as_client(WRITER, node) as writer, cluster.as_client(READER, node) as reader:
                key = f"k{node.number}"
                put = wire.map_put("blue/m", key, "v")
                check_equal(write(writer, put)[0], wire.OK, "a write in the writer's namespace")
                check_equal(writer.read(wire.map_get("blue/m", key))[0], wire.OK, "its read")
                check_equal(reader.read(wire.map_get("blue/m", key))[0], wire.OK, "a read")
                check_equal(denial(write(reader, put)),
                            'token reader may not write in namespace "blue"', "what is said")
                for name in ("red/m", "m", "bluer/m", "/blue/m"):
                    check("may not write" in denial(write(writer, wire.map_put(name, "k", "v"))), name)
                    check("may not read" in denial(reader.read(wire.map_get(name, "k"))), name)
                check_equal(reader.status()["node"], node.number, "the status")
        check_equal(len(clusters.read_map(cluster.nodes[0], "blue/m")), 3, "entries")


@test
def whoever_shows_nothing_gets_a_hello_and_no_more():
    with Guarded(ROOTS) as cluster, cluster.as_client(None) as stranger:
        check_equal(stranger.hello()["status"], wire.OK, "the hello")
        check("wants a token" in denial(write(stranger, wire.counter_add("c", 1))), "a write")
        check("wants a token" in denial(stranger.read(wire.counter_get("c"))), "a read")
        check_equal(stranger.session_open(1000, bytes(16))[0], wire.DENIED, "a session")
        check_equal(stranger.session_resume(1, bytes(16)), wire.DENIED, "a resume")
        for kind, payload in ((wire.STATUS, b""),
                              (wire.COUNTER_INCREMENT, wire.blob("c") + wire.i64(1))):
            got = stranger.answer(stranger.send(kind, payload))
            check_equal(got.kind, wire.ERROR_RESPONSE, f"the kind that answers {kind}")
            check(b"access denied" in got.payload, f"the text that answers {kind}")
        check_equal(clusters.read(cluster.nodes[0], wire.counter_get("c"))[0], wire.NOT_FOUND,
                    "the counter")
        # After all of that it may still show a token.
        check_equal(stranger.auth(ROOT), wire.OK, "a token")
        check_equal(write(stranger, wire.counter_add("c", 1))[0], wire.OK, "a write with a token")


@test
def guessing_ends_the_connection():
    with Guarded(ROOTS) as cluster:
        for _ in range(50):
            with cluster.as_client(None) as guesser:
                for n in range(3):
                    guesser.send(wire.AUTH, f"guess {n}".encode())
                _, frames = guesser.until_closed()
                statuses = [f.payload for f in frames if f.kind == wire.AUTH + 1]
                check_equal(statuses, [wire.u8(wire.DENIED)] * 3, "answers")
        told = [line for line in cluster.nodes[0].log() if "token that is not known" in line]
        check(told and len(told) <= 150, f"{len(told)} lines of the log")
        for payload in (b"", b"x" * 513):
            with cluster.as_client(None) as guesser:
                guesser.send(wire.AUTH, payload)
                reason, _ = guesser.until_closed()
                check("AUTH_REQUEST" in (reason or ""), f"reason {reason!r}")


@test
def a_change_counts_at_once_where_clients_are():
    with Guarded(READS + WRITES + ROOTS) as cluster, cluster.as_client(WRITER) as writer:
        add = wire.counter_add("blue/c", 1)
        check_equal(write(writer, add)[0], wire.OK, "a write")
        cluster.reload(ROOTS + entry("writer", WRITER, ("blue", "read")))
        check_equal(denial(write(writer, add)), 'token writer may not write in namespace "blue"',
                    "with a right less")
        cluster.reload(ROOTS)
        check_equal(denial(write(writer, add)), "the token that was shown is not known any more",
                    "without the token")
        cluster.reload(ROOTS + "- name: x\n", expected="reload: ")
        check("not known any more" in denial(write(writer, add)), "after a wrong file")
        cluster.reload(ROOTS + WRITES)
        check_equal(write(writer, add)[0], wire.OK, "with the token again")


def as_bop(cluster, token, *arguments):
    """bop in the background with this token. Its end is the test's to wait for."""
    if not os.path.exists(BOP):
        raise Skip("there is no bop to run; name it behind bopd")
    path = os.path.join(cluster.directory, "bop.token")
    with open(path, "wb") as out:
        out.write(token)
    return subprocess.Popen([BOP, "--server", f"127.0.0.1:{cluster.nodes[0].port}", "--token-file",
                             path, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=clusters.environment(),
                            preexec_fn=clusters.die_with_parent)


@test
def a_watch_ends_with_the_right_to_it():
    with Guarded(READS + WRITES + ROOTS) as cluster, cluster.as_client(WRITER) as writer:
        watch = as_bop(cluster, READER, "watch", "counter", "blue/c")
        told = threading.Event()
        reading = threading.Thread(target=lambda: watch.stdout.readline() and told.set())
        reading.start()

        def add():
            write(writer, wire.counter_add("blue/c", 1))
            return told.is_set()
        wait_until(add, "the watch hears of a write")
        reading.join()
        cluster.reload(WRITES + ROOTS)
        _, complaint = watch.communicate(timeout=clusters.PATIENCE)
        check_equal(watch.returncode, 1, "exit status of the watch")
        check("may not watch this any more" in complaint, complaint)
        watch = as_bop(cluster, READER, "watch", "counter", "blue/c")
        _, complaint = watch.communicate(timeout=clusters.PATIENCE)
        check_equal(watch.returncode, 1, "exit status of another one")
        check("access denied" in complaint, complaint)


@test
def a_lock_can_be_waited_for_with_rights_on_its_namespace_alone():
    with Guarded(WRITES + ROOTS) as cluster:
        first = as_bop(cluster, WRITER, "lock", "blue/l")
        token = int(first.stdout.readline())
        second = as_bop(cluster, WRITER, "lock", "blue/l")
        wait_until(lambda: len(bop(cluster.nodes[0].port, "lock", "list", "blue/l", env=SHOW_ROOT)[0]
                               .splitlines()) == 2, "the second one waits")
        _, complaint = first.communicate("", timeout=clusters.PATIENCE)
        check_equal((first.returncode, complaint), (0, ""), "the end of the first")
        check(int(second.stdout.readline()) > token, "tokens grow")
        _, complaint = second.communicate("", timeout=clusters.PATIENCE)
        check_equal((second.returncode, complaint), (0, ""), "the end of the second")


@test
def nobody_is_a_member_without_the_right():
    with Guarded(WRITES + ROOTS) as cluster:
        for words in (("member", "join", "red/g"), ("registration", "add", "red/r", "a")):
            refused = as_bop(cluster, WRITER, *words, "--", "touch",
                             os.path.join(cluster.directory, "ran"))
            _, complaint = refused.communicate(timeout=clusters.PATIENCE)
            check_equal(refused.returncode, 1, f"exit status of {words}")
            check('may not write in namespace "red"' in complaint, complaint)
        check(not os.path.exists(os.path.join(cluster.directory, "ran")), "a command ran")


@test
def bop_makes_tokens_that_nodes_take():
    with Guarded(ROOTS) as cluster:
        port, token = cluster.nodes[0].port, os.path.join(cluster.directory, "app.token")
        stanza, _ = bop(port, "token", "new", "app", "app:write", "*:read", "--token-file", token)
        check_equal(os.stat(token).st_mode & 0o777, 0o600, "mode of the token's file")
        with open(token, encoding="ascii") as text:
            check(text.read().strip() not in stanza, "the stanza tells the token")
        bop(port, "token", "new", "app", "app:write", "--token-file", token, status=1)
        cluster.reload(ROOTS + stanza)
        bop(port, "--token-file", token, "map", "put", "app/m", "k", "v")
        bop(port, "map", "get", "app/m", "k", env={"BOP_TOKEN_FILE": token})
        bop(port, "--token-file", token, "status")
        _, complaint = bop(port, "--token-file", token, "map", "put", "m", "k", "v", status=1)
        check('token app may not write in namespace ""' in complaint, complaint)
        _, complaint = bop(port, "map", "get", "app/m", "k", status=1)
        check("access denied" in complaint and "--token-file" in complaint, complaint)
        _, shown = bop(port, "token", "new", "b", ":read")
        with cluster.as_client(None) as client:
            check_equal(client.auth(shown.split()[-1].encode()), wire.DENIED, "a token not entered")
        for rights in (["app"], ["app:all"], ["a/b:read"], ["app:admin"]):
            bop(port, "token", "new", "c", *rights, status=2)


@test
def a_certificate_may_stand_for_a_token():
    with Cluster(1, start=False) as cluster:
        authority, node = Authority(cluster.directory), cluster.nodes[0]
        authority.issue_node(1)
        authority.issue("app", "DNS:app.example.org")
        authority.issue("other", "DNS:other.example.org")
        tokens = os.path.join(cluster.directory, "tokens.yaml")
        with open(tokens, "w", encoding="ascii") as out:
            out.write(entry("app", None, ("app", "write"), certificate="app.example.org") + ROOTS)
        node.extra = ["--tls-certificate", authority.crt("n1"), "--tls-key", authority.key("n1"),
                      "--tls-ca", authority.crt(), "--tls-client-certificates", "optional",
                      "--tokens", tokens]
        wire.TRUST.update(context=authority.context(), token=ROOT)
        try:
            cluster.start()
            trust = {"context": authority.context("app"), "token": None}
            with wire.Connection(node.port, trust=trust) as app:
                check_equal(write(app, wire.counter_add("app/c", 1))[0], wire.OK, "a write")
                check_equal(denial(write(app, wire.counter_add("c", 1))),
                            'token app may not write in namespace ""', "beyond its namespace")
                check_equal(app.auth(ROOT), wire.OK, "a token in place of it")
                check_equal(write(app, wire.counter_add("c", 1))[0], wire.OK, "a write of root's")
            trust["context"] = authority.context("other")
            with wire.Connection(node.port, trust=trust) as other:
                check("wants a token" in denial(other.read(wire.counter_get("app/c"))), "a stranger")
        finally:
            wire.TRUST.update(context=None, token=None)


if __name__ == "__main__":
    tap.main()
