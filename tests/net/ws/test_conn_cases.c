/*
 * The decoder's cases once more, on connections: what is good is given to the
 * handlers; what is bad is answered with a close frame of its code, and the end;
 * whether it comes whole or byte by byte.
 */
#include "conn_fixture.h"

#include "cases_frame.h"
#include "state.h"

FIXTURE(fixture_setup, fixture_teardown)

/* The server may have closed before all is sent: what it says is what counts. */
static void send_wire(struct peer *peer, const struct wire *wire, bool bytewise)
{
    struct fixture *f = peer->f;

    for (size_t at = 0; at < wire->size && !peer->ended && !peer->reset;) {
        ssize_t sent = send(peer->fd, wire->data + at, bytewise ? 1 : wire->size - at,
                            MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno != EAGAIN) {
            return;
        }
        at += sent > 0 ? (size_t)sent : 0;
        turn(f->loop);
        peer_read(peer);
    }
}

/* Where a case's end is written: "!1002" for a failure, "X(1000)" for a close frame; or NULL. */
static const char *end_of(const char *expected)
{
    const char *fails = strstr(expected, "!10");

    return fails != NULL ? fails : strstr(expected, "X(");
}

/* The messages before that, or all. */
static bool are_seen(const struct fixture *f, const char *expected)
{
    const char *end = end_of(expected);
    size_t size = end != NULL ? (size_t)(end - expected) : strlen(expected);

    while (size > 0 && expected[size - 1] == ' ') {
        size--;
    }
    return f->seen.size >= size && memcmp(f->seen.text, expected, size) == 0;
}

static void check_end(struct peer *peer, const char *expected)
{
    struct fixture *f = peer->f;
    const char *end = end_of(expected);
    char text[64];

    if (end != NULL) {
        snprintf(text, sizeof(text), "X(%.4s", end + (end[0] == '!' ? 1 : 2));
        TURN_UNTIL((peer_read(peer), peer->ended || peer->reset));
        CHECK_STR_HAS(peer->got.text, text);
        CHECK(!peer->reset);
    } else {
        CHECK_EQ(f->closes + 1, f->opens);
    }
}

static void run_case(struct fixture *f, const struct frame_case *c, bool bytewise)
{
    struct peer *peer = peer_open(f);
    struct wire wire = {.key = 7};
    unsigned failures = test__failures();

    wire_put_frames(&wire, c->frames, true);
    send_wire(peer, &wire, bytewise);
    TURN_UNTIL(are_seen(f, c->expected));
    check_end(peer, c->expected);
    peer_free(peer);
    TURN_UNTIL(f->closes == f->opens);
    seen(f);
    if (test__failures() != failures) {
        test_note("in the case \"%s\", %s", c->name, bytewise ? "byte by byte" : "whole");
    }
    free(wire.data);
}

TEST(conn, does_what_the_cases_say)
{
    unsigned count = 0;

    f->options.message_bytes_max = SIZE_MAX;
    f->options.compression = BOP_WS_COMPRESS_NEVER;
    serve(f);
    for (size_t i = 0; i < BOP_COUNT_OF(frame_cases); i++) {
        if (frame_cases[i].max == 0 &&
            !frame_cases[i].deflate) { /* Those have tests of their own. */
            struct wire wire = {.key = 7};

            wire_put_frames(&wire, frame_cases[i].frames, true);
            run_case(f, &frame_cases[i], false);
            if (wire.size < 2000) {
                run_case(f, &frame_cases[i], true);
            }
            free(wire.data);
            count++;
        }
    }
    test_note("%u cases", count);
}
