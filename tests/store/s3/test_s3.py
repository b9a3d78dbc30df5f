#!/usr/bin/env python3
"""The S3 client against a real server, and against what networks and servers do to it.

usage: test_s3.py S3_TOOL SOURCE_ROOT [WORD...]
"""

import atexit
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "system"))

import proxy as faults  # pylint: disable=wrong-import-position
import server  # pylint: disable=wrong-import-position
import tap  # pylint: disable=wrong-import-position
from tap import Skip, check, check_equal, test  # pylint: disable=wrong-import-position

TOOL, ROOT = sys.argv[1:3]
PART = 5 << 20

# No proxy of the machine's, which the client would use, nor its CA files.
ENVIRONMENT = {key: value for key, value in os.environ.items()
               if not key.lower().endswith("_proxy") and not key.startswith(("SSL_", "CURL_"))}


class Bench:
    """The server, the proxy before it, and a folder for files; made by the first that asks."""
    _one = None

    def __init__(self):
        path, why = server.program(ROOT)
        if not path:
            raise Skip(why)
        self.server = server.Server(path)
        atexit.register(self.server.close)
        self.proxy = faults.Proxy(self.server.port, self.server.ca_file)
        atexit.register(self.proxy.close)
        self.folder = tempfile.TemporaryDirectory(prefix="bop-s3-files-")
        atexit.register(self.folder.cleanup)

    @classmethod
    def get_quietly(cls):
        """The one that there is."""
        return cls._one

    @classmethod
    def get(cls):
        if cls._one is None:
            try:
                cls._one = cls()
            except Skip as skip:
                cls._one = skip
        if isinstance(cls._one, Skip):
            raise cls._one
        cls._one.proxy.clear()
        return cls._one

    def file(self, name, content=b""):
        path = os.path.join(self.folder.name, name)
        with open(path, "wb") as out:
            out.write(content)
        return path


class Result:
    def __init__(self, output):
        self.lines = [line.split(" ", 1) for line in output.splitlines()]
        self.words = {line[0]: line[1] if len(line) > 1 else "" for line in self.lines}
        self.rc = self.words.get("rc")
        self.message = self.words.get("message", "")
        self.metrics = dict(line[1].rsplit(" ", 1) for line in self.lines if line[0] == "metric")

    def all(self, word):
        return [line[1] for line in self.lines if line[0] == word]

    def metric(self, name):
        return int(self.metrics[f"bop_s3_{name}"])


def command(arguments, options):
    bench = Bench.get_quietly()
    merged = {"endpoint": bench.proxy.endpoint, "bucket": server.BUCKET, "region": server.REGION,
              "access_key": server.ACCESS_KEY, "secret_key": server.SECRET_KEY,
              "backoff_ms": 10, "part_bytes": PART}
    merged.update(options)
    return [TOOL] + [f"{key}={value}" for key, value in merged.items() if value is not None] \
        + [str(argument) for argument in arguments]


def run(*arguments, **options):
    """What the tool prints. Nothing may be left in its memory, nor may a sanitizer object."""
    done = subprocess.run(command(arguments, options), capture_output=True, text=True, timeout=300,
                          env=ENVIRONMENT, stdin=subprocess.DEVNULL)
    tap.note(f"{arguments} {options}\n{done.stdout[-1500:]}{done.stderr[-3000:]}")
    check_equal(done.returncode, 0, "exit status of s3_tool")
    result = Result(done.stdout)
    check_equal(result.words["live"], "0", "bytes that the client has not given back")
    check("\n" not in result.message and len(result.message) < 512, "the message is a line")
    return result


def ok(*arguments, **options):
    result = run(*arguments, **options)
    check_equal(result.rc, "OK", result.message)
    return result


def fails(code, parts, *arguments, **options):
    """It fails with that code, and with a message that has all the parts."""
    result = run(*arguments, **options)
    check_equal(result.rc, code, f"code of: {result.message}")
    for part in parts:
        check(part in result.message, f"{part!r} is not in: {result.message}")
    return result


def get(bench, key, offset=0, size="all", **options):
    path = bench.file("got")
    ok("get", key, offset, size, path, **options)
    with open(path, "rb") as got:
        return got.read()


def content(size, seed=0):
    return b"".join(hashlib.sha256(f"{seed}/{i}".encode()).digest()
                    for i in range((size + 31) // 32))[:size]


# ---- What it is for ----

@test
def the_check_says_that_all_is_well():
    Bench.get()
    ok("check")


@test
def an_object_comes_back_as_it_was_put():
    bench = Bench.get()
    data = content(100_000)
    path = bench.file("a", data)
    put = ok("put", "plain", path, meta="kind:segment")
    check_equal(put.words["size"], "100000", "size")
    check_equal(put.words["sha256"], hashlib.sha256(data).hexdigest(), "digest")
    check_equal(ok("head", "plain").words["sha256"], put.words["sha256"], "digest by head")
    check(get(bench, "plain") == data, "all of it")
    check(get(bench, "plain", 0, 1) == data[:1], "its first byte")
    check(get(bench, "plain", 99_990, 5) == data[-10:-5], "a range")
    check(get(bench, "plain", 99_990, 100) == data[-10:], "a range over its end")
    check(get(bench, "plain", 99_990) == data[-10:], "an open range")
    check(get(bench, "plain", 100_000, 5) == b"", "a range behind its end")
    check(get(bench, "plain", 100_005) == b"", "an open range behind its end")
    check(get(bench, "plain", 5, 0) == b"", "an empty range")
    ok("remove", "plain")
    ok("remove", "plain")
    fails("BOP_ENOTFOUND", ["get plain in bucket test-bucket"], "get", "plain", 0, "all", path)
    fails("BOP_ENOTFOUND", ["head plain in bucket test-bucket"], "head", "plain")


@test
def an_empty_object_is_one_too():
    bench = Bench.get()
    ok("put", "empty", bench.file("e"))
    check(get(bench, "empty") == b"", "its content")
    check_equal(ok("head", "empty").words["size"], "0", "size")


@test
def any_key_is_signed_and_encoded_right():
    bench = Bench.get()
    path = bench.file("k", b"x")
    keys = ["a b", "a+b", "a%20b", "a=b&c=d", "ü/é/\U0001f600", "a'()*!~b", "a:b;c,d@e$f",
            "x" * 200 + "/" + "y" * 200, "a?b#c", "-", "a/b"]
    for key in keys:
        ok("put", f"keys/{key}", path)
    for key in keys:
        check(get(bench, f"keys/{key}") == b"x", key)
    listed = [line.split(" ", 1)[1] for line in ok("list", "keys/").all("key")]
    check_equal(listed, sorted((f"keys/{key}" for key in keys), key=lambda k: k.encode()),
                "the listing")
    check_equal(ok("list", "keys/a+").all("key"), ["1 keys/a+b"], "keys with that prefix")
    ok("empty", "keys/")
    check_equal(ok("list", "keys/").all("key"), [], "after removing from inside of a walk")


@test
def keys_have_the_prefix_in_the_bucket_only():
    bench = Bench.get()
    ok("put", "b", bench.file("p", b"x"), prefix="pre/fix")
    check_equal(ok("list", "", prefix="pre/fix").all("key"), ["1 b"], "with the prefix")
    check_equal(ok("list", "pre/").all("key"), ["1 pre/fix/b"], "without")


@test
def a_listing_goes_on_page_by_page():
    bench = Bench.get()
    # 8 times 126 objects: a page has 1000.
    many = ok("many", "pages/", 8, 126, connections=8)
    check_equal(many.metric("requests_total"), 3 * 8 * 126, "a head, a put and a get of each")
    bench.proxy.clear()
    keys = [line.split(" ", 1)[1] for line in ok("list", "pages/").all("key")]
    check_equal(len(keys), 8 * 126, "keys")
    check_equal(keys, sorted(keys), "in order")
    check_equal(bench.proxy.count("GET", "continuation-token="), 1, "second pages")


# ---- Idempotence ----

@test
def what_is_there_already_is_not_sent_again():
    bench = Bench.get()
    path = bench.file("i", content(5000))
    ok("put", "twice", path)
    bench.proxy.clear()
    again = ok("put", "twice", path, only_new=1)
    check_equal(again.words["size"], "5000", "size")
    check_equal([r.method for r in bench.proxy.requests], ["HEAD"], "requests")


@test
def only_new_does_not_replace():
    bench = Bench.get()
    one, other = bench.file("one", b"one"), bench.file("other", b"other")
    ok("put", "new", one, only_new=1)
    fails("BOP_ECONDITION", ["put new", "other content"], "put", "new", other, only_new=1)
    check(get(bench, "new") == b"one", "what is there")
    ok("put", "new", other)
    check(get(bench, "new") == b"other", "what is there after a plain put")


@test
def only_new_holds_against_a_writer_in_between():
    bench = Bench.get()
    one, other = bench.file("one", b"one"), bench.file("other", b"other")
    for name, loser, code in (("race", other, "BOP_ECONDITION"), ("tie", one, "OK")):
        key = f"between/{name}"
        missing = faults.status(404)  # What the HEAD sees just before the other writer comes.
        ok("put", key, one)
        with bench.proxy.fault(missing, method="HEAD", path=key):
            check_equal(run("put", key, loser, only_new=1).rc, code, name)
        check(get(bench, key) == b"one", "what is there")


@test
def a_lost_answer_to_a_put_does_no_harm():
    bench = Bench.get()
    path = bench.file("l", content(5000))
    with bench.proxy.fault(faults.lose_answer, method="PUT") as rule:
        put = ok("put", "lost", path, only_new=1)
    check_equal(rule.met, 1, "answers lost")
    # Newer versions of libcurl try again by themselves.
    check_equal(bench.proxy.count("PUT"), 2, f"puts, {put.metric('retries_total')} by us")
    check(get(bench, "lost") == content(5000), "its content")


@test
def a_request_that_arrives_twice_does_no_harm():
    bench = Bench.get()
    path = bench.file("d", content(PART + 5000))
    with bench.proxy.fault(faults.duplicate, times=100):
        ok("put", "doubled", path)
        check(get(bench, "doubled") == content(PART + 5000), "its content")
        ok("remove", "doubled")


# ---- In parts ----

@test
def a_big_object_goes_in_parts():
    bench = Bench.get()
    data = content(2 * PART + 12345)
    put = ok("put", "big", bench.file("b", data))
    check_equal(len(put.all("upload")), 2, "uploads told: its id, and that it is over")
    check_equal(put.words["left"], "", "upload left")
    check_equal(bench.proxy.count("PUT", "partNumber="), 3, "parts")
    check_equal(put.words["sha256"], hashlib.sha256(data).hexdigest(), "digest")
    check_equal(put.metric("sent_bytes_total"), len(data), "bytes sent")
    check(get(bench, "big") == data, "its content")
    check(get(bench, "big", PART - 5, 10) == data[PART - 5:PART + 5], "over the edge of parts")


@test
def a_part_that_fails_is_sent_again_alone():
    bench = Bench.get()
    data = content(2 * PART + 5, seed=1)
    with bench.proxy.fault(faults.cut_request(100_000), query="partNumber=2"):
        put = ok("put", "part-again", bench.file("b", data))
    check_equal(bench.proxy.count("PUT", "partNumber="), 4, "parts")
    check_equal(put.metric("retries_total"), 1, "retries")
    check(get(bench, "part-again") == data, "its content")


def start(*arguments, **options):
    return subprocess.Popen(command(arguments, options), stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


@test
def an_upload_goes_on_after_its_process_was_killed():
    bench = Bench.get()
    path = bench.file("b", content(3 * PART + 7, seed=2))
    with bench.proxy.fault(faults.hold, query="partNumber=3"):
        process = start("put", "killed", path)
        upload = process.stdout.readline().split()[1]
        check(bench.proxy.holding.wait(60), "part 3 is under way")
        process.kill()
        process.communicate()
    bench.proxy.clear()
    ok("put", "killed", path, upload=upload)
    check_equal(sorted(r.parameter("partNumber") for r in bench.proxy.requests
                       if r.parameter("partNumber")), ["3", "4"], "parts sent after the restart")
    check(get(bench, "killed") == content(3 * PART + 7, seed=2), "its content")


@test
def an_upload_of_other_content_is_not_gone_on_with():
    bench = Bench.get()
    path = bench.file("b", content(PART + 7, seed=3))
    with bench.proxy.fault(faults.status(403, "AccessDenied"), query="partNumber=2"):
        cut = fails("BOP_EDENIED", ["put other", "AccessDenied"], "put", "other", path)
    check(cut.words["left"], "an upload is left")
    bench.proxy.clear()
    path = bench.file("b2", content(PART + 7, seed=4))
    ok("put", "other", path, upload=cut.words["left"])
    check_equal(bench.proxy.count("POST", "uploads="), 1, "uploads begun")
    check(get(bench, "other") == content(PART + 7, seed=4), "its content")
    ok("abort", "other", 0)


@test
def an_upload_that_is_gone_is_begun_anew():
    bench = Bench.get()
    data = content(PART + 7, seed=5)
    path = bench.file("b", data)
    with bench.proxy.fault(faults.status(403, "AccessDenied"), query="partNumber=2"):
        cut = fails("BOP_EDENIED", [], "put", "gone", path)
    check_equal(ok("abort", "gone", 0).words["aborted"], "1", "uploads aborted")
    check_equal(ok("abort", "gone", 0).words["aborted"], "0", "uploads aborted by then")
    ok("put", "gone", path, upload=cut.words["left"])
    check(get(bench, "gone") == data, "its content")


@test
def only_old_uploads_are_aborted():
    bench = Bench.get()
    path = bench.file("b", content(PART + 7, seed=6))
    with bench.proxy.fault(faults.status(403, "AccessDenied"), query="partNumber=2"):
        fails("BOP_EDENIED", [], "put", "young", path)
    check_equal(ok("abort", "young", 3600).words["aborted"], "0", "uploads aborted")
    older = faults.change_answer(lambda answer: answer.with_body(
        re.sub(rb"<Initiated>\d+", b"<Initiated>2001", answer.body)))
    with bench.proxy.fault(older, query="uploads="):
        check_equal(ok("abort", "young", 3600).words["aborted"], "1", "uploads aborted")


@test
def a_part_that_is_not_ours_is_sent_again():
    bench = Bench.get()
    path = bench.file("b", content(2 * PART, seed=7))
    with bench.proxy.fault(faults.status(403, "AccessDenied"), query="partNumber=2"):
        cut = fails("BOP_EDENIED", [], "put", "foreign", path)
    other = faults.change_answer(lambda answer: answer.with_body(
        re.sub(rb"<ChecksumSHA256>.", b"<ChecksumSHA256>=", answer.body)))
    bench.proxy.clear()
    with bench.proxy.fault(other, method="GET", query="part-number-marker"):
        ok("put", "foreign", path, upload=cut.words["left"])
    check_equal(bench.proxy.count("PUT", "partNumber="), 2, "parts sent")


@test
def a_completion_that_says_200_and_fails_is_tried_again():
    bench = Bench.get()
    data = content(PART + 7, seed=8)
    late = faults.body("<?xml version=\"1.0\"?>\n \n<Error><Code>InternalError</Code>"
                       "<Message>later</Message></Error>")
    with bench.proxy.fault(late, method="POST", query="uploadId=", times=2):
        put = ok("put", "late", bench.file("b", data))
    check_equal(put.metric("retries_total"), 2, "retries")
    check(get(bench, "late") == data, "its content")
    with bench.proxy.fault(late, method="POST", query="uploadId=", times=4):
        put = fails("BOP_EIO", ["InternalError: later", "4 attempts"], "put", "late",
                    bench.file("b", content(PART + 7, seed=9)))
    check(put.words["left"], "the upload can be gone on with")
    ok("abort", "late", 0)


@test
def a_completion_whose_answer_is_lost_is_one():
    bench = Bench.get()
    data = content(PART + 7, seed=10)
    for key, new in (("complete", 0), ("complete-new", 1)):
        with bench.proxy.fault(faults.lose_answer, method="POST", query="uploadId="):
            put = ok("put", key, bench.file("b", data), only_new=new)
        check_equal(put.words["left"], "", "upload left")
        check(get(bench, key) == data, "its content")


@test
def content_that_is_not_what_was_ordered_is_refused():
    bench = Bench.get()
    small, big = bench.file("s", b"small"), bench.file("b", content(PART + 7))
    fails("BOP_ECORRUPT", ["put wrong", "not what its digest was made of"],
          "put", "wrong", small, big)
    big_put = fails("BOP_ECORRUPT", ["put wrong", "not what its SHA-256 was made of"],
                    "put", "wrong", big, small)
    check_equal(big_put.words["left"], "", "upload left")
    check_equal(ok("abort", "wrong", 0).words["aborted"], "0", "uploads left at the server")
    fails("BOP_ENOTFOUND", [], "head", "wrong")


# ---- Networks ----

@test
def a_server_in_trouble_is_asked_again():
    bench = Bench.get()
    path = bench.file("t", content(5000, seed=11))
    for number, code in ((500, "InternalError"), (503, "ServiceUnavailable"), (502, None)):
        with bench.proxy.fault(faults.status(number, code), method="PUT", times=2):
            put = ok("put", f"trouble/{number}", path)
        check_equal(put.metric("retries_total"), 2, "retries")
    with bench.proxy.fault(faults.status(500, "InternalError"), method="GET", times=99) as rule:
        result = fails("BOP_EIO", ["get trouble/500", "InternalError", "gave up after 3 attempts"],
                       "get", "trouble/500", 0, "all", path, attempts=3)
    check_equal(rule.met, 3, "attempts")
    check_equal(result.metric("failures_total"), 1, "failures")


@test
def a_server_that_throttles_is_left_alone_for_as_long_as_it_asks():
    bench = Bench.get()
    path = bench.file("t", content(5000, seed=12))
    began = time.monotonic()
    with bench.proxy.fault(faults.status(429, "TooManyRequests", headers=[("Retry-After", "1")]),
                           method="PUT"):
        put = ok("put", "throttled", path)
    check(time.monotonic() - began >= 1.0, "it waited for a second")
    check_equal(put.metric("throttled_total"), 1, "answers that throttled")
    slow = faults.status(503, "SlowDown", message="Please reduce your request rate")
    with bench.proxy.fault(slow, method="GET", times=99):
        fails("BOP_EBUSY", ["SlowDown: Please reduce"], "get", "throttled", 0, "all", path)
    with bench.proxy.fault(faults.status(503, "SlowDown", headers=[("Retry-After", "3600")]),
                           method="GET", times=99) as rule:
        fails("BOP_EBUSY", ["SlowDown"], "get", "throttled", 0, "all", path)
    check_equal(rule.met, 1, "attempts at one that wants an hour")


@test
def a_cut_connection_is_made_anew():
    bench = Bench.get()
    data = content(300_000, seed=13)
    path = bench.file("c", data)
    with bench.proxy.fault(faults.cut_request(100_000), method="PUT"):
        ok("put", "cut", path)
    for at in (0, 1, 150_000):
        with bench.proxy.fault(faults.cut_answer(at), method="GET") as rule:
            check(get(bench, "cut") == data, f"all, cut at {at}")
        check_equal(rule.met, 1, "cuts")
    with bench.proxy.fault(faults.cut_answer(7), method="GET"):
        check(get(bench, "cut", 10, 100) == data[10:110], "a range")
    with bench.proxy.fault(faults.cut_answer(7), method="GET", times=99):
        result = fails("BOP_EIO", ["get cut"], "get", "cut", 0, "all", path)
    check_equal(result.words["got"], "0", "bytes left in the caller's buffer")
    with bench.proxy.fault(faults.cut_answer(300), method="GET", query="list-type"):
        ok("list", "cut")


@test
def a_byte_changed_on_the_way_is_noticed():
    bench = Bench.get()
    data = content(200_000, seed=14)
    path = bench.file("f", data)
    with bench.proxy.fault(faults.flip_request(1000), method="PUT") as rule:
        ok("put", "flipped", path)
    check_equal(rule.met, 1, "bodies changed")
    with bench.proxy.fault(faults.flip_answer(1000), method="GET"):
        check(get(bench, "flipped") == data, "its content")
    with bench.proxy.fault(faults.flip_answer(1000), method="GET", times=99):
        result = fails("BOP_ECORRUPT", ["get flipped", "another SHA-256"], "get", "flipped", 0,
                       "all", path)
    check_equal(result.words["got"], "0", "bytes left in the caller's buffer")
    with bench.proxy.fault(faults.flip_request(1000), method="PUT", times=99):
        fails("BOP_ECORRUPT", ["put flipped-too"], "put", "flipped-too", path)


@test
def another_range_than_was_asked_for_is_noticed():
    bench = Bench.get()
    path = bench.file("r", content(1000, seed=15))
    ok("put", "range", path)

    def as_range(text, number=206, size=10):
        return lambda proxy, request, forward: faults.Answer(
            number, [("Content-Range", text)] if text else [], b"x" * size)

    for answer in (as_range("bytes 11-20/1000"), as_range("bytes 10-18/1000", size=9),
                   as_range("bytes 10-30/1000", size=21), as_range("bytes 10-19/1000", size=9),
                   as_range("bytes 10-19/1000", size=2000), as_range("bytes 10-19", size=10),
                   as_range("bytes 10-9/1000", size=0), as_range("octets"), as_range(""),
                   as_range("", number=200), as_range("bytes 10-18/19x", size=9)):
        with bench.proxy.fault(answer, method="GET", times=99):
            result = fails("BOP_ECORRUPT", ["get range"], "get", "range", 10, 10, path, attempts=2)
        check_equal(result.words["got"], "0", "bytes left in the caller's buffer")
    with bench.proxy.fault(as_range("bytes 10-18/19", size=9), method="GET"):
        check_equal(get(bench, "range", 10, 10), b"x" * 9, "a range that the object ends in")


@test
def a_buffer_is_not_filled_above_its_bound():
    bench = Bench.get()
    path = bench.file("m", content(5000))
    ok("put", "bounded", path)
    fails("BOP_ETOOBIG", ["get bounded"], "get", "bounded", 0, "all", path, get_max=4096)
    ok("get", "bounded", 0, 4000, path, get_max=4096)


@test
def a_transfer_that_stalls_is_ended():
    bench = Bench.get()
    with bench.proxy.fault(faults.hold, method="GET", times=2):
        fails("BOP_ETIMEOUT", ["check bucket test-bucket", "no byte moved for 200 ms"],
              "check", stall_ms=200, attempts=2)
    bench.proxy.released.set()


@test
def cancel_ends_what_is_under_way_and_what_waits():
    bench = Bench.get()
    for attempts, fault in ((1, faults.hold),
                            (9, faults.status(503, "SlowDown", headers=[("Retry-After", "50")]))):
        bench.proxy.clear()
        with bench.proxy.fault(fault, method="GET", times=99):
            process = start("check", cancel=1, attempts=attempts)
            tap.wait_until(lambda: bench.proxy.requests, "the request is there")
            began = time.monotonic()
            output, _ = process.communicate("cancel\n", timeout=60)
        bench.proxy.released.set()
        check_equal(Result(output).rc, "BOP_ECANCELED", "code")
        check(time.monotonic() - began < 20, "soon")


# ---- What is wrong is named ----

@test
def a_wrong_bucket_is_named():
    Bench.get()
    way_out = ["no-such-bucket", "NoSuchBucket", "create the bucket, or correct its name"]
    fails("BOP_ENOTFOUND", way_out, "check", bucket="no-such-bucket")
    fails("BOP_ENOTFOUND", way_out, "head", "a", bucket="no-such-bucket")
    fails("BOP_ENOTFOUND", way_out, "list", "", bucket="no-such-bucket")
    fails("BOP_ENOTFOUND", way_out, "remove", "a", bucket="no-such-bucket")
    fails("BOP_ENOTFOUND", way_out, "put", "a", TOOL_FILE, bucket="no-such-bucket")


@test
def wrong_credentials_are_named():
    Bench.get()
    for arguments in (("check",), ("head", "a"), ("put", "a", TOOL_FILE)):
        fails("BOP_EDENIED", ["SignatureDoesNotMatch", "check access key access-key and its "
                              "secret key"], *arguments, secret_key="wrong-secret")
        fails("BOP_EDENIED", ["InvalidAccessKeyId", "nobody"], *arguments, access_key="nobody")
        fails("BOP_EDENIED", ["AccessDenied", "no access key is configured"], *arguments,
              access_key=None, secret_key=None)


@test
def a_session_token_is_sent_and_signed():
    bench = Bench.get()
    fails("BOP_EDENIED", ["InvalidToken", "session token"], "check", token="no/good+token==")
    request = bench.proxy.requests[-1]
    check_equal(request.header("x-amz-security-token"), "no/good+token==", "the token")
    check("x-amz-security-token" in request.header("Authorization"), "it is signed")


@test
def a_clock_that_is_wrong_is_named():
    bench = Bench.get()
    skewed = faults.status(403, "RequestTimeTooSkewed", "The difference between the request time "
                           "and the current time is too large.",
                           more="<ServerTime>2026-01-31T12:00:00Z</ServerTime>")
    with bench.proxy.fault(skewed, method="GET") as rule:
        fails("BOP_EDENIED", ["RequestTimeTooSkewed", "set this machine's clock",
                              "2026-01-31T12:00:00Z"], "check")
    check_equal(rule.met, 1, "attempts")
    with bench.proxy.fault(faults.status(403), method="HEAD"), \
            bench.proxy.fault(skewed, method="GET"):
        fails("BOP_EDENIED", ["RequestTimeTooSkewed"], "put", "a", TOOL_FILE)


@test
def a_wrong_region_is_named_with_the_right_one():
    bench = Bench.get()
    fails("BOP_ECONFIG", ["AuthorizationHeaderMalformed", "eu-test-1", "us-east-9"], "check",
          region="us-east-9")
    moved = faults.status(301, "PermanentRedirect", headers=[("x-amz-bucket-region", "eu-west-1")])
    for method, arguments in (("GET", ("check",)), ("HEAD", ("head", "a"))):
        with bench.proxy.fault(moved, method=method), bench.proxy.fault(moved, method="GET"):
            fails("BOP_ECONFIG", ["the bucket is in region eu-west-1, the configuration says "
                                  "eu-test-1"], *arguments)
    other = faults.status(307, "TemporaryRedirect", more="<Endpoint>b.s3.example</Endpoint>")
    with bench.proxy.fault(other, method="GET"):
        fails("BOP_ECONFIG", ["to be reached at b.s3.example"], "check")


@test
def a_wrong_certificate_is_named():
    bench = Bench.get()
    endpoint = bench.server.endpoint
    fails("BOP_ECONFIG", ["check bucket", endpoint, "give the CA file"], "check",
          endpoint=endpoint)
    other = server.make_certificate(bench.folder.name, "other")
    fails("BOP_ECONFIG", [endpoint, "the CA file"], "check", endpoint=endpoint, ca_file=other)
    fails("BOP_ECONFIG", ["CA file cannot be read"], "check", endpoint=endpoint,
          ca_file="/nowhere")
    ok("check", endpoint=endpoint, ca_file=bench.server.ca_file)
    # The certificate is for other names.
    fails("BOP_ECONFIG", ["check the endpoint's name"], "check",
          endpoint=endpoint.replace("127.0.0.1", "other.localhost"),
          ca_file=bench.server.ca_file)


@test
def an_endpoint_that_cannot_be_reached_is_named():
    bench = Bench.get()
    closed = server.free_port()
    result = fails("BOP_EIO", [f"http://127.0.0.1:{closed}", "check the endpoint's port"], "check",
                   endpoint=f"http://127.0.0.1:{closed}", attempts=2)
    check_equal(result.metric("retries_total"), 1, "retries")
    fails("BOP_EIO", ["no-such-host.invalid", "check the endpoint's name"], "check",
          endpoint="http://no-such-host.invalid", attempts=1)
    fails("BOP_EIO", ["TLS port"], "check", endpoint=bench.proxy.endpoint.replace("http", "https"),
          attempts=1)
    result = run("check", endpoint=bench.server.endpoint.replace("https", "http"), attempts=1)
    check(result.rc in ("BOP_EIO", "BOP_EPROTOCOL"), f"{result.rc} {result.message}")


@test
def an_endpoint_that_is_no_object_store_is_named():
    bench = Bench.get()
    for page in ("<html><body>Welcome</body></html>", "", "hello"):
        with bench.proxy.fault(faults.body(page), method="GET"):
            fails("BOP_EPROTOCOL", ["is this an S3 endpoint?"], "check")


# ---- Listings that are not to be trusted ----

def listing(inside):
    return faults.body(f"<?xml version=\"1.0\"?><ListBucketResult>{inside}</ListBucketResult>")


def entry(key):
    return f"<Contents><Key>{key}</Key><Size>1</Size></Contents>"


@test
def a_stale_listing_is_what_the_caller_gets():
    bench = Bench.get()
    ok("put", "stale/a", TOOL_FILE)
    with bench.proxy.fault(listing(entry("stale/a") + entry("stale/gone")), method="GET"):
        check_equal(ok("list", "stale/").all("key"), ["1 stale/a", "1 stale/gone"], "keys")
    ok("remove", "stale/gone")


@test
def a_token_goes_back_as_it_came():
    bench = Bench.get()
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>a/b+c= &amp;d</NextContinuationToken>"
    with bench.proxy.fault(listing(more + entry("a")), method="GET"), \
            bench.proxy.fault(listing(entry("b")), method="GET"):
        check_equal(ok("list", "").all("key"), ["1 a", "1 b"], "keys")
    request = bench.proxy.requests[-1]
    # A libcurl that cannot sign the token asks for what is behind the last key.
    check(request.parameter("continuation-token") == "a/b+c= &d"
          or request.parameter("start-after") == "a", f"the second page: {request.query}")


@test
def a_listing_that_lies_ends():
    bench = Bench.get()
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    for page in (listing(entry("b") + entry("a")), listing(entry("a") + entry("a")),
                 listing(entry("other")), listing(more), listing("<IsTruncated>true</IsTruncated>"),
                 listing(entry("a" * 2000)), faults.body("<ListBucketResult>"),
                 faults.body("<a>" * 100),
                 faults.body("<!DOCTYPE l [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>"
                             "<ListBucketResult>" + entry("&b;") + "</ListBucketResult>"),
                 faults.body("<ListBucketResult>" + "x" * (9 << 20))):
        with bench.proxy.fault(page, method="GET", times=200):
            result = run("list", "a", attempts=2)
        check(result.rc in ("BOP_ECORRUPT", "BOP_ETOOBIG"), f"{result.rc} {result.message}")


# ---- Encryption ----

CUSTOMER_KEY = "00112233445566778899aabbccddeeff" * 2


def direct(bench):
    """Options for the server itself, over TLS."""
    return {"endpoint": bench.server.endpoint, "ca_file": bench.server.ca_file}


def encrypted(bench, key, data, **options):
    """Put, head, range and all with these options; or False if this libcurl cannot sign it."""
    options.update(direct(bench))
    put = run("put", key, bench.file("x", data), **options)
    if put.rc == "BOP_EUNSUPPORTED":
        check("needs libcurl 8.10 or later" in put.message, put.message)
        tap.say(put.message)
        return False
    check_equal(put.rc, "OK", put.message)
    check(get(bench, key, **options) == data, "its content")
    check(get(bench, key, 100, 10, **options) == data[100:110], "a range")
    return True


@test
def the_server_encrypts_with_a_key_of_its_own():
    bench = Bench.get()
    check(encrypted(bench, "sse-s3", content(1000), encryption="s3"), "it works")
    check(encrypted(bench, "sse-s3-big", content(PART + 7), encryption="s3"), "in parts")


@test
def the_server_encrypts_with_a_key_that_it_manages():
    bench = Bench.get()
    check(encrypted(bench, "sse-kms", content(1000), encryption="kms"), "the default key")
    encrypted(bench, "sse-kms-key", content(1000), encryption="kms", kms_key=server.KMS_KEY,
              kms_context='{"bop": "test"}')
    if encrypted(bench, "sse-kms-big", content(PART + 7), encryption="kms",
                 kms_key=server.KMS_KEY):
        fails("BOP_ECONFIG", ["no-such-key"], "put", "sse-kms-wrong", TOOL_FILE, encryption="kms",
              kms_key="no-such-key", **direct(bench))


@test
def the_server_encrypts_with_our_key():
    bench = Bench.get()
    options = {"encryption": "customer", "customer_key": CUSTOMER_KEY}
    if not encrypted(bench, "sse-c", content(1000), **options):
        return
    check(encrypted(bench, "sse-c-big", content(PART + 7), **options), "in parts")
    wrong = {"encryption": "customer", "customer_key": CUSTOMER_KEY[::-1]}
    fails("BOP_EDENIED", ["customer's key"], "get", "sse-c", 0, "all", TOOL_FILE + ".not", **wrong,
          **direct(bench))
    check(run("get", "sse-c", 0, "all", TOOL_FILE + ".not", **direct(bench)).rc != "OK",
          "without the key")


@test
def our_key_is_not_sent_in_the_clear():
    bench = Bench.get()
    fails("BOP_ECONFIG", ["over TLS only"], "put", "clear", TOOL_FILE, encryption="customer",
          customer_key=CUSTOMER_KEY)
    check_equal(bench.proxy.requests, [], "requests")


@test
def a_bucket_can_be_part_of_the_host():
    bench = Bench.get()
    options = direct(bench)
    options["endpoint"] = options["endpoint"].replace("127.0.0.1", "localhost")
    ok("check", virtual_host=1, **options)
    ok("put", "in-host", bench.file("v", b"virtual"), virtual_host=1, **options)
    check(get(bench, "in-host", virtual_host=1, **options) == b"virtual", "its content")
    check(get(bench, "in-host") == b"virtual", "it is in that bucket")


@test
def calls_of_many_threads_share_few_connections():
    Bench.get()
    many = ok("many", "threads/", 16, 10, connections=3)
    check_equal(many.metric("requests_total"), 480, "requests")
    check_equal(many.metric("failures_total"), 0, "failures")


TOOL_FILE = os.path.abspath(__file__)

tap.main()
