/*
 * What RFC 9110 and 9112 want of a parser, case by case.
 *
 * Each case is given whole and cut at every byte, to every engine, in memory of
 * exactly its size so that a sanitizer sees what is read beyond. A part of a good
 * message must be wanted more of; a part of a bad one either that or refused as
 * the whole is. Heads are also given a byte at a time, parsed only when
 * bop_http1_may_go_on() says so.
 */
#include <stdio.h>
#include <stdlib.h>

#include "parse.h"
#include "tap.h"

/* ---- Saying what a head says ---- */

static void put_slice(FILE *out, const char *before, struct bop_slice text, const char *after)
{
    if (text.data) {
        fprintf(out, "%s%.*s%s", before, (int)text.size, (const char *)text.data, after);
    }
}

static void put_framing(FILE *out, const struct bop_http_head *head)
{
    static const char *const names[] = {"none", "length", "chunked", "until-close"};

    fprintf(out, "1.%u %s %s", head->minor, head->keep_alive ? "keep" : "close",
            names[head->framing]);
    if (head->framing == BOP_HTTP_LENGTH) {
        fprintf(out, "=%" PRIu64, head->content_length);
    } else if (head->content_length > 0) {
        fprintf(out, " length=%" PRIu64, head->content_length);
    }
    fprintf(out, "%s%s%s", head->expect_continue ? " expect" : "", head->upgrade ? " upgrade" : "",
            head->trailers ? " trailers" : "");
}

static void summary(const struct bop_http_head *head, char *out_text, size_t size)
{
    static const char *const methods[] = {"other",  "GET",     "HEAD",    "POST",  "PUT",
                                          "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    static const char *const forms[] = {"", " absolute", " authority", " asterisk"};
    FILE *out = fmemopen(out_text, size, "w");

    if (head->status > 0) {
        fprintf(out, "%u ", head->status);
        put_slice(out, "\"", head->reason, "\" ");
    } else {
        fputs(methods[head->method], out);
        put_slice(out, head->method == BOP_HTTP_OTHER ? ":" : NULL,
                  head->method == BOP_HTTP_OTHER ? head->method_text : bop_slice(NULL, 0), "");
        fputs(forms[head->target_form], out);
        put_slice(out, " ", head->path, "");
        put_slice(out, " ?", head->query, "");
        put_slice(out, " @", head->authority, "");
        fputc(' ', out);
    }
    put_framing(out, head);
    fclose(out);
}

/* ---- Parsing a copy that ends where the memory ends ---- */

struct fixture {
    struct bop_http_head head;
    const struct bop__http_engine *engine;
    enum bop_http_method request_method; /* Of responses. */
    bool is_response;
    uint8_t *copy;
    const char *why;
};

static void teardown(struct fixture *f)
{
    free(f->copy);
}

FIXTURE(NULL, teardown)

static int parse(struct fixture *f, struct bop_slice text, const struct bop_http1_limits *limits)
{
    free(f->copy);
    f->copy = malloc(text.size > 0 ? text.size : 1);
    REQUIRE(f->copy != NULL);
    memcpy(f->copy, text.data, text.size);
    f->why = NULL;
    text = bop_slice(f->copy, text.size);
    return f->is_response ? bop__http_parse_response(f->engine, text, limits, f->request_method,
                                                     &f->head, &f->why)
                          : bop__http_parse_request(f->engine, text, limits, &f->head, &f->why);
}

static void tell(struct fixture *f, const char *section, struct bop_slice text, size_t cut)
{
    char shown[160];
    size_t size = 0;

    for (size_t i = 0; i < text.size && size < sizeof(shown) - 5; i++) {
        uint8_t c = text.data[i];

        size += (size_t)snprintf(shown + size, sizeof(shown) - size,
                                 c < ' ' || c >= 0x7f || c == '\\' ? "\\x%02x" : "%c", c);
    }
    test_note("RFC %s, %s, cut to %zu: %s", section, f->engine->name, cut, shown);
}

/* A byte at a time, as from a slow peer, parsed when it is worthwhile. */
static int drip(struct fixture *f, struct bop_slice text, const struct bop_http1_limits *limits,
                unsigned *out_parses)
{
    size_t seen = 0;
    int rc = BOP_ETRUNCATED;

    *out_parses = 0;
    for (size_t size = 1; size <= text.size && rc == BOP_ETRUNCATED; size++) {
        if (bop_http1_may_go_on(bop_slice(text.data, size), seen, limits)) {
            rc = parse(f, bop_slice(text.data, size), limits);
            seen = size;
            ++*out_parses;
        }
    }
    return rc;
}

/* The whole, every part of it, and drop by drop. */
static void check_cuts(struct fixture *f, const char *section, struct bop_slice text, int rc)
{
    size_t need = rc == 0 ? f->head.size : text.size;
    unsigned parses;
    int got;

    for (size_t cut = 0; cut <= text.size; cut++) {
        int expected = rc == 0 && cut >= need ? 0 : BOP_ETRUNCATED;

        got = parse(f, bop_slice(text.data, cut), NULL);
        CHECK(got == expected || (rc != 0 && got == rc));
        if (!(got == expected || (rc != 0 && got == rc))) {
            tell(f, section, text, cut);
        }
    }
    got = drip(f, text, NULL, &parses);
    /* An error inside of a line shows when the line ends, which some cases do not. */
    CHECK(got == rc || (rc != 0 && got == BOP_ETRUNCATED));
}

static void check_good(struct fixture *f, const char *section, struct bop_slice text,
                       const char *expected)
{
    char got[512] = "";
    int rc = parse(f, text, NULL);

    CHECK_EQ(rc, 0);
    if (rc == 0) {
        summary(&f->head, got, sizeof(got));
        CHECK_STR_EQ(got, expected);
    }
    if (rc != 0 || strcmp(got, expected) != 0) {
        tell(f, section, text, text.size);
        return;
    }
    check_cuts(f, section, text, 0);
}

static void check_line(struct fixture *f, const char *section, struct bop_slice text,
                       unsigned count, const char *name, const char *value)
{
    REQUIRE_EQ(parse(f, text, NULL), 0);
    CHECK_EQ(f->head.header_count, count);
    CHECK_SLICE_EQ(f->head.headers[1].name, bytes(name));
    CHECK_SLICE_EQ(bop_http_find(&f->head, name), bytes(value));
    check_cuts(f, section, text, 0);
}

static void check_bad(struct fixture *f, const char *section, struct bop_slice text, int expected)
{
    int rc = parse(f, text, NULL);

    CHECK_EQ(rc, expected);
    CHECK(f->why != NULL);
    if (rc != expected || !f->why) {
        tell(f, section, text, text.size);
        return;
    }
    check_cuts(f, section, text, expected);
}

#define TEXT(literal) bop_slice(literal, sizeof(literal) - 1)

#define GET_LINE "GET / HTTP/1.1\r\n"
#define GET      GET_LINE "Host: h\r\n"
#define POST     "POST / HTTP/1.1\r\nHost: h\r\n"

static void requests(struct fixture *f)
{
#define GOOD(section, text, expected) check_good(f, section, TEXT(text), expected);
#define LINE(section, text, count, name, value)                                                    \
    check_line(f, section, TEXT(text), count, name, value);
#define BAD(section, status, text) check_bad(f, section, TEXT(text), -(status));
#include "cases_request.def"
#undef GOOD
#undef LINE
#undef BAD
}

#undef GET
#undef POST

static void responses(struct fixture *f)
{
    f->is_response = true;
#define GOOD(section, method, text, expected)                                                      \
    f->request_method = BOP_HTTP_##method;                                                         \
    check_good(f, section, TEXT(text), expected);
#define BAD(section, method, code, text)                                                           \
    f->request_method = BOP_HTTP_##method;                                                         \
    check_bad(f, section, TEXT(text), code);
#include "cases_response.def"
#undef GOOD
#undef BAD
}

static void with_each_engine(struct fixture *f, void (*run)(struct fixture *f))
{
    for (unsigned i = 0; (f->engine = bop__http_engine_at(i)) != NULL; i++) {
        test_note("engine %s", f->engine->name);
        run(f);
    }
}

TEST(requests, are_read_as_the_rfcs_say)
{
    with_each_engine(f, requests);
}

TEST(responses, are_read_as_the_rfcs_say)
{
    with_each_engine(f, responses);
}

/* ---- Each of the 256 bytes in each place ---- */

/* Put one byte between two texts; what becomes of it depends on whether it is in `good`. */
static void check_byte(struct fixture *f, const char *before, unsigned c, const char *after,
                       bool is_good)
{
    char text[256];
    size_t size = strlen(before);
    int rc;

    memcpy(text, before, size);
    text[size++] = (char)c;
    memcpy(text + size, after, strlen(after));
    size += strlen(after);
    rc = parse(f, bop_slice(text, size), NULL);
    CHECK_EQ(rc == 0, is_good);
    if ((rc == 0) != is_good) {
        tell(f, "9110", bop_slice(text, size), size);
    }
    if (rc != 0 && !f->is_response) {
        CHECK_EQ(rc, -400);
    }
}

#define ALNUM "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static bool is_in(unsigned c, const char *set)
{
    return c != 0 && strchr(set, (int)c) != NULL;
}

static void each_byte(struct fixture *f)
{
    /* The place of a byte in a vector should not matter, so texts of several lengths. */
    static const char *const fillers[] = {
        "", "abcdefg", "abcdefghijklmnopqrstuvwxyz0123",
        "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrst"};

    for (unsigned c = 0; c < 256; c++) {
        bool token = is_in(c, ALNUM "!#$%&'*+-.^_`|~"), visible = c > 0x20 && c < 0x7f;
        bool value = visible || c >= 0x80 || c == ' ' || c == '\t';

        check_byte(f, "GE", c, "T / HTTP/1.1\r\nHost: h\r\n\r\n", token);
        for (size_t i = 0; i < BOP_COUNT_OF(fillers); i++) {
            char text[256];

            sprintf(text, "GET /%s", fillers[i]);
            check_byte(f, text, c, "x HTTP/1.1\r\nHost: h\r\n\r\n",
                       visible && !is_in(c, "\"#<>\\"));
            sprintf(text, "GET /?%s", fillers[i]);
            check_byte(f, text, c, "x HTTP/1.1\r\nHost: h\r\n\r\n", visible && c != '#');
            sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\n%s", fillers[i]);
            /* A colon ends the name, and there is no value that an x and a colon cannot be. */
            check_byte(f, text, c, "x: y\r\n\r\n", token || (c == ':' && i > 0));
            sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\nX: %s", fillers[i]);
            check_byte(f, text, c, "y\r\n\r\n", value);
        }
        check_byte(f, "GET / HTTP/1.1\r\nHost: h", c, "\r\n\r\n",
                   is_in(c, ALNUM "-._~!$&'()*+,;=: \t"));
    }
}

TEST(bytes, may_stand_where_the_grammar_has_them)
{
    with_each_engine(f, each_byte);
}

static void each_byte_of_a_reason(struct fixture *f)
{
    f->is_response = true;
    for (unsigned c = 0; c < 256; c++) {
        check_byte(f, "HTTP/1.1 200 a", c, "b\r\n\r\n", (c >= ' ' && c != 0x7f) || c == '\t');
    }
}

TEST(bytes, may_stand_in_a_reason)
{
    with_each_engine(f, each_byte_of_a_reason);
}

/* ---- Limits ---- */

/* `count` times a byte, between two texts. */
static struct bop_slice long_text(char *out_text, const char *before, char c, size_t count,
                                  const char *after)
{
    size_t size = strlen(before);

    memcpy(out_text, before, size);
    memset(out_text + size, c, count);
    memcpy(out_text + size + count, after, strlen(after));
    return bop_slice(out_text, size + count + strlen(after));
}

static void limits(struct fixture *f)
{
    static char text[40000];
    static const char after_target[] = " HTTP/1.1\r\nHost: h\r\n\r\n";
    struct bop_http1_limits small = {
        .head_bytes_max = 100, .target_bytes_max = 10, .headers_max = 2};

    CHECK_EQ(parse(f, long_text(text, "GET /", 'a', 8191, after_target), NULL), 0);
    CHECK_EQ(parse(f, long_text(text, "GET /", 'a', 8192, after_target), NULL), -414);
    CHECK_EQ(parse(f, long_text(text, "GET /", 'a', 8192, ""), NULL), -414);
    CHECK_EQ(parse(f, long_text(text, "GET /", 'a', 8191, ""), NULL), BOP_ETRUNCATED);
    CHECK_EQ(parse(f, long_text(text, "GET /?", 'a', 8191, after_target), NULL), -414);
    /* "GET / HTTP/1.1\r\nX: " is 19 bytes, the two line ends are 4: 16,361 + 23 is 16 KiB. */
    CHECK_EQ(parse(f, long_text(text, "GET / HTTP/1.0\r\nX: ", 'a', 16361, "\r\n\r\n"), NULL), 0);
    CHECK_EQ(parse(f, long_text(text, "GET / HTTP/1.0\r\nX: ", 'a', 16362, "\r\n\r\n"), NULL),
             -431);
    CHECK_EQ(parse(f, long_text(text, "GET / HTTP/1.0\r\nX: ", 'a', 16365, ""), NULL), -431);
    CHECK_EQ(parse(f, long_text(text, "GET / HTTP/1.0\r\nX: ", 'a', 16364, ""), NULL),
             BOP_ETRUNCATED);
    CHECK_EQ(parse(f, long_text(text, "GET / HTTP/1.0\r\n", 'a', 30000, ""), NULL), -431);
    CHECK_EQ(parse(f, long_text(text, "GET / HTTP/1.0\r\nX:", ' ', 30000, ""), NULL), -431);

    CHECK_EQ(parse(f, bytes("GET /12345678 HTTP/1.0\r\n\r\n"), &small), 0);
    CHECK_EQ(parse(f, bytes("GET /123456789 HTTP/1.0\r\n\r\n"), &small), 0);
    CHECK_EQ(parse(f, bytes("GET /1234567890 HTTP/1.0\r\n\r\n"), &small), -414);
    CHECK_EQ(parse(f, bytes("GET / HTTP/1.0\r\nA:\r\nB:\r\n\r\n"), &small), 0);
    CHECK_EQ(parse(f, bytes("GET / HTTP/1.0\r\nA:\r\nB:\r\nC:\r\n\r\n"), &small), -431);
    CHECK_EQ(parse(f, bytes("GET / HTTP/1.0\r\nA:\r\nB:\r\nC"), &small), -431);
    CHECK_EQ(parse(f, bytes("GET / HTTP/1.0\r\nA:\r\nB:\r\n\r"), &small), BOP_ETRUNCATED);
    /* What comes after a head does not count. */
    CHECK_EQ(parse(f, long_text(text, "GET / HTTP/1.0\r\n\r\n", 'a', 1000, ""), &small), 0);

    small.body_bytes_max = 10;
    CHECK_EQ(parse(f, bytes("GET / HTTP/1.0\r\nContent-Length: 10\r\n\r\n"), &small), 0);
    CHECK_EQ(parse(f, bytes("GET / HTTP/1.0\r\nContent-Length: 11\r\n\r\n"), &small), -413);
    /* More than the head has room for is as much as it has. */
    small = (struct bop_http1_limits){.headers_max = 1000, .head_bytes_max = 30000};
    strcpy(text, "GET / HTTP/1.0\r\n");
    for (int i = 0; i < BOP_HTTP_HEADERS_MAX; i++) {
        strcat(text, "A:\r\n");
    }
    CHECK_EQ(parse(f, bytes(strcat(text, "\r\n")), &small), 0);
    text[strlen(text) - 2] = '\0';
    CHECK_EQ(parse(f, bytes(strcat(text, "A:\r\n\r\n")), &small), -431);
}

TEST(limits, have_their_statuses)
{
    with_each_engine(f, limits);
}

static void response_limits(struct fixture *f)
{
    static char text[40000];

    f->is_response = true;
    CHECK_EQ(parse(f, long_text(text, "HTTP/1.1 200 ", 'a', 20000, ""), NULL), BOP_ETOOBIG);
    CHECK_EQ(parse(f, long_text(text, "HTTP/1.1 200 x\r\nX: ", 'a', 20000, ""), NULL), BOP_ETOOBIG);
}

TEST(limits, hold_for_responses)
{
    with_each_engine(f, response_limits);
}

/* A head of a byte at a time is parsed once a line, not once a byte. */
TEST(limits, make_a_dripping_head_cheap)
{
    static char text[40000];
    unsigned parses;

    f->engine = bop__http_engine();
    CHECK_EQ(drip(f, long_text(text, "GET / HTTP/1.0\r\nX: ", 'a', 10000, "\r\nY: z\r\n\r\n"), NULL,
                  &parses),
             0);
    CHECK_EQ(parses, 1 + 1 + 1 + 1 + 1 + 1); /* First byte, four lines, where a line is too long. */
    CHECK_EQ(drip(f, long_text(text, "GET /", 'a', 20000, ""), NULL, &parses), -414);
    CHECK_EQ(parses, 2);
    CHECK_EQ(drip(f, long_text(text, "GET / HTTP/1.0\r\nX: ", 'a', 20000, ""), NULL, &parses),
             -431);
    CHECK_EQ(parses, 4); /* First byte, the line, where a first line is too long, the limit. */
}

/* ---- Bodies ---- */

struct decoded {
    struct bop_http1_body body;
    char content[256];
    size_t content_size;
    size_t rest; /* Bytes not taken. */
    int rc;
};

static void decode_begin(struct decoded *d, enum bop_http_framing framing, uint64_t length)
{
    static struct bop_http_head head;

    memset(d, 0, sizeof(*d));
    head.framing = framing;
    head.content_length = length;
    bop_http1_body_init(&d->body, &head);
    d->rc = BOP_ETRUNCATED;
}

/* Give a piece, of memory that ends with it. */
static void decode_piece(struct decoded *d, struct bop_slice text)
{
    uint8_t *copy = malloc(text.size > 0 ? text.size : 1);
    struct bop_slice left, data;

    REQUIRE(copy != NULL);
    memcpy(copy, text.data, text.size);
    left = bop_slice(copy, text.size);
    while ((d->rc = bop_http1_body_decode(&d->body, &left, &data)) == 1) {
        REQUIRE(d->content_size + data.size < sizeof(d->content));
        memcpy(d->content + d->content_size, data.data, data.size);
        d->content_size += data.size;
    }
    CHECK(d->rc != BOP_ETRUNCATED || left.size == 0);
    CHECK_EQ(data.size, 0);
    d->rest = left.size;
    free(copy);
}

static void check_body(const char *section, struct bop_slice text, int rc, struct bop_slice content,
                       size_t rest)
{
    struct decoded d;

    for (size_t cut = 0; cut <= text.size; cut++) {
        decode_begin(&d, BOP_HTTP_CHUNKED, 0);
        decode_piece(&d, bop_slice(text.data, cut));
        if (d.rc == BOP_ETRUNCATED) {
            decode_piece(&d, bop_slice(text.data + cut, text.size - cut));
        } else if (d.rc == 0) {
            d.rest += text.size - cut;
        }
        CHECK_EQ(d.rc, rc);
        if (rc == 0 || rc == BOP_ETRUNCATED) {
            CHECK_SLICE_EQ(bop_slice(d.content, d.content_size), content);
            CHECK_EQ(d.rest, rest);
        }
        if (d.rc != rc) {
            test_note("RFC %s, cut at %zu: %.*s", section, cut, (int)text.size,
                      (const char *)text.data);
        }
        /* It stays as it is. */
        if (d.rc != BOP_ETRUNCATED) {
            decode_piece(&d, bytes("0\r\n\r\n"));
            CHECK_EQ(d.rc, rc);
            CHECK_EQ(d.rest, 5);
        }
    }
}

TEST(bodies, are_decoded_as_the_rfc_says)
{
#define GOOD(section, text, content, rest)                                                         \
    check_body(section, TEXT(text), 0, TEXT(content), sizeof(rest) - 1);
#define PART(section, text, content)                                                               \
    check_body(section, TEXT(text), BOP_ETRUNCATED, TEXT(content), 0);
#define BAD(section, status, text) check_body(section, TEXT(text), -(status), TEXT(""), 0);
#include "cases_body.def"
#undef GOOD
#undef PART
#undef BAD
}

TEST(bodies, have_bounded_extensions_and_trailers)
{
    static char text[20000];
    struct decoded d;

    decode_begin(&d, BOP_HTTP_CHUNKED, 0);
    decode_piece(&d, long_text(text, "1;a=", 'b', 4093, "\r\nx\r\n")); /* With ";a=" 4096. */
    CHECK_EQ(d.rc, BOP_ETRUNCATED);
    decode_begin(&d, BOP_HTTP_CHUNKED, 0);
    decode_piece(&d, long_text(text, "1;a=", 'b', 4094, "\r\nx\r\n"));
    CHECK_EQ(d.rc, -431);
    decode_begin(&d, BOP_HTTP_CHUNKED, 0);
    decode_piece(&d, long_text(text, "0\r\nX: ", 'b', 5000, "\r\n\r\n"));
    CHECK_EQ(d.rc, -431);
    decode_begin(&d, BOP_HTTP_CHUNKED, 0);
    decode_piece(&d, long_text(text, "0\r\n", 'b', 5000, ": y\r\n\r\n"));
    CHECK_EQ(d.rc, -431);
    /* Many small chunks with extensions are as bad as one. */
    decode_begin(&d, BOP_HTTP_CHUNKED, 0);
    for (int i = 0; i < 120 && d.rc == BOP_ETRUNCATED; i++) {
        decode_piece(&d, bytes("1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n"));
    }
    CHECK_EQ(d.rc, -431);
    /* Chunks that are longer than theirs may go on for ever. */
    decode_begin(&d, BOP_HTTP_CHUNKED, 0);
    for (int i = 0; i < 500; i++) {
        decode_piece(&d, bytes("14;signature=12345\r\n01234567890123456789\r\n"));
        CHECK_EQ(d.rc, BOP_ETRUNCATED);
        d.content_size = 0;
    }
}

TEST(bodies, of_a_length_end_with_it)
{
    struct decoded d;

    decode_begin(&d, BOP_HTTP_LENGTH, 5);
    decode_piece(&d, bytes("hel"));
    CHECK_EQ(d.rc, BOP_ETRUNCATED);
    decode_piece(&d, bytes("loGET"));
    CHECK_EQ(d.rc, 0);
    CHECK_EQ(d.rest, 3);
    CHECK_SLICE_EQ(bop_slice(d.content, d.content_size), bytes("hello"));
    decode_begin(&d, BOP_HTTP_LENGTH, 0);
    decode_piece(&d, bytes("GET"));
    CHECK_EQ(d.rc, 0);
    CHECK_EQ(d.rest, 3);
    decode_begin(&d, BOP_HTTP_NO_BODY, 0);
    decode_piece(&d, bytes("GET"));
    CHECK_EQ(d.rc, 0);
    CHECK_EQ(d.rest, 3);
    decode_begin(&d, BOP_HTTP_UNTIL_CLOSE, 0);
    decode_piece(&d, bytes("hel"));
    decode_piece(&d, bytes("lo"));
    CHECK_EQ(d.rc, BOP_ETRUNCATED);
    CHECK_SLICE_EQ(bop_slice(d.content, d.content_size), bytes("hello"));
}

/* ---- Whole connections ---- */

/* What a server keeps of one. */
struct stream {
    struct fixture *f;
    uint8_t kept[1024]; /* Bytes of a head that is not whole. */
    size_t kept_size;
    size_t seen; /* Of them, when they were parsed last. */
    bool in_body;
    struct decoded decoded;
    bool is_over;
    FILE *log;
};

/* A head, if there is a whole one. True: go on. */
static bool stream_head(struct stream *s)
{
    struct fixture *f = s->f;
    struct bop_slice bytes = bop_slice(s->kept, s->kept_size);
    int rc = BOP_ETRUNCATED;

    if (bytes.size > 0 && bop_http1_may_go_on(bytes, s->seen, NULL)) {
        rc = parse(f, bytes, NULL);
        s->seen = bytes.size;
    }
    if (rc == BOP_ETRUNCATED) {
        return false;
    }
    if (rc != 0) {
        fprintf(s->log, "%d", -rc);
        s->is_over = true;
        return false;
    }
    put_slice(s->log, "", f->head.method_text, " ");
    put_slice(s->log, "", f->head.path, "");
    s->in_body = f->head.framing != BOP_HTTP_NO_BODY;
    if (s->in_body) {
        decode_begin(&s->decoded, f->head.framing, f->head.content_length);
        fputc(' ', s->log);
    } else {
        fputs("; ", s->log);
    }
    s->kept_size -= f->head.size;
    memmove(s->kept, s->kept + f->head.size, s->kept_size);
    s->seen = 0;
    return true;
}

static bool stream_body(struct stream *s)
{
    decode_piece(&s->decoded, bop_slice(s->kept, s->kept_size));
    memmove(s->kept, s->kept + s->kept_size - s->decoded.rest, s->decoded.rest);
    s->kept_size = s->decoded.rest;
    if (s->decoded.rc == BOP_ETRUNCATED) {
        return false;
    }
    if (s->decoded.rc != 0) {
        fprintf(s->log, "%d", -s->decoded.rc);
        s->is_over = true;
        return false;
    }
    put_slice(s->log, "[", bop_slice(s->decoded.content, s->decoded.content_size), "]; ");
    s->in_body = false;
    return true;
}

static void stream_give(struct stream *s, struct bop_slice bytes)
{
    if (s->is_over) {
        return;
    }
    REQUIRE(s->kept_size + bytes.size <= sizeof(s->kept));
    memcpy(s->kept + s->kept_size, bytes.data, bytes.size);
    s->kept_size += bytes.size;
    while (s->in_body ? stream_body(s) : stream_head(s)) {
    }
}

/* In two pieces, or by the byte where cut is past the end. */
static void check_stream(struct fixture *f, const char *section, struct bop_slice text,
                         const char *expected, size_t cut)
{
    char log[512] = "";
    struct stream s = {.f = f, .log = fmemopen(log, sizeof(log), "w")};

    if (cut <= text.size) {
        stream_give(&s, bop_slice(text.data, cut));
        stream_give(&s, bop_slice(text.data + cut, text.size - cut));
    } else {
        for (size_t i = 0; i < text.size; i++) {
            stream_give(&s, bop_slice(text.data + i, 1));
        }
    }
    if (!s.is_over) {
        fputs("...", s.log);
    }
    fclose(s.log);
    /* By the byte, what is wrong in a line that never ends is not seen. */
    if (cut <= text.size || text.data[text.size - 1] == '\n') {
        CHECK_STR_EQ(log, expected);
        if (strcmp(log, expected) != 0) {
            tell(f, section, text, cut);
        }
    }
}

static void check_streams(struct fixture *f, const char *section, struct bop_slice text,
                          const char *expected)
{
    for (size_t cut = 0; cut <= text.size + (text.size > 0); cut++) {
        check_stream(f, section, text, expected, cut);
    }
}

static void streams(struct fixture *f)
{
#define STREAM(section, text, log) check_streams(f, section, TEXT(text), log);
#include "cases_stream.def"
#undef STREAM
}

TEST(connections, are_read_without_a_doubt)
{
    with_each_engine(f, streams);
}
