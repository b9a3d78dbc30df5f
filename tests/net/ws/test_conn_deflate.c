/*
 * Connections with permessage-deflate, limits while inflating, and want of memory.
 */
#include "conn_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

#define OFFER "Sec-WebSocket-Extensions: permessage-deflate\r\n"

/* A peer's side of the compression. */
struct zip {
    struct bop_ws_zip *zip;
    struct bop_ws_zip_stream send, receive;
    struct bop_buf buf;
};

static void zip_init(struct zip *zip, bool takeover)
{
    struct bop_ws_deflate agreed = {.on = true,
                                    .server_takeover = takeover,
                                    .client_takeover = takeover,
                                    .server_bits = 15,
                                    .client_bits = 15};

    REQUIRE_EQ(bop_ws_zip_create(&(struct bop_ws_zip_options){.level = 6}, &zip->zip), 0);
    bop_ws_zip_streams(&agreed, true, &zip->send, &zip->receive);
    bop_buf_init(&zip->buf, NULL, 0);
}

static void zip_deinit(struct zip *zip)
{
    bop_ws_zip_stream_deinit(zip->zip, &zip->send);
    bop_ws_zip_stream_deinit(zip->zip, &zip->receive);
    bop_ws_zip_destroy(zip->zip);
    bop_buf_deinit(&zip->buf);
}

/* Send a message compressed, as one frame or cut into two. */
static void send_zipped(struct peer *peer, struct zip *zip, struct bop_slice message, bool cut)
{
    size_t half;

    bop_buf_clear(&zip->buf);
    REQUIRE_EQ(bop_ws_deflate(zip->zip, &zip->send, message, true, &zip->buf), 0);
    half = cut ? zip->buf.size / 2 : zip->buf.size;
    peer_send_frames(peer, {cut ? 0x41 : 0xc1, (const char *)zip->buf.data, half});
    if (cut) {
        peer_send_frames(peer, {FRAME(0x89, "between")});
        peer_send_frames(peer, {0x80, (const char *)zip->buf.data + half, zip->buf.size - half});
    }
}

/* The next message that came, inflated. */
static struct bop_slice receive_zipped(struct peer *peer, struct zip *zip, bool expect_zipped)
{
    struct fixture *f = peer->f;
    struct bop_ws_event event;
    struct bop_slice rest, piece;
    int rc;

    bop_buf_clear(&zip->buf);
    for (;;) {
        TURN_UNTIL((peer_receive(peer), peer->size > 0));
        rest = bop_slice(peer->bytes, peer->size);
        rc = bop_ws_decode(&peer->decoder, &peer->rules, &rest, &event);
        if (rc == 1 && event.opcode == BOP_WS_TEXT) {
            CHECK_EQ(event.compressed, expect_zipped);
            piece = bop_slice(event.data, event.size);
            if (event.compressed) {
                REQUIRE_EQ(bop_ws_inflate(zip->zip, &zip->receive, &piece, event.last, UINT64_MAX,
                                          NULL, SIZE_MAX, &zip->buf),
                           0);
            } else if (piece.size > 0) {
                REQUIRE_EQ(bop_buf_append(&zip->buf, piece.data, piece.size), 0);
            }
        }
        memmove(peer->bytes, rest.data, rest.size);
        peer->size = rest.size;
        if (rc == 1 && event.opcode == BOP_WS_TEXT && event.last) {
            return bop_buf_slice(&zip->buf);
        }
        CHECK(rc == 1 || rc == BOP_ETRUNCATED);
        REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
    }
}

static char long_text[20000];

static struct bop_slice text_of(size_t size)
{
    for (size_t i = 0; i < size; i++) {
        long_text[i] = (char)('a' + i * i / 7 % 26);
    }
    return bop_slice(long_text, size);
}

static void echo_zipped(struct fixture *f, bool takeover)
{
    struct peer *peer;
    struct zip zip = {0};
    struct bop_slice text = text_of(sizeof(long_text));

    f->echo = true;
    f->quiet = true;
    f->options.compression = takeover ? BOP_WS_COMPRESS_TAKEOVER : BOP_WS_COMPRESS_DEFAULT;
    serve(f);
    zip_init(&zip, takeover);
    peer = peer_open_with(f, OFFER, 0);
    CHECK(bop_ws_is_compressed(f->ws));
    for (int i = 0; i < 3; i++) {
        send_zipped(peer, &zip, text, i == 1);
        CHECK_SLICE_EQ(receive_zipped(peer, &zip, true), text);
        CHECK_EQ(f->rc, 0);
    }
    /* Below the threshold, or by wish, it goes as it is. */
    send_zipped(peer, &zip, bop_slice(long_text, 511), false);
    CHECK_SLICE_EQ(receive_zipped(peer, &zip, false), bop_slice(long_text, 511));
    CHECK_EQ(bop_ws_send_plain(f->ws, BOP_WS_TEXT, text), 0);
    CHECK_SLICE_EQ(receive_zipped(peer, &zip, false), text);
    /* In parts, the second small. */
    CHECK_EQ(bop_ws_send_part(f->ws, BOP_WS_TEXT, bop_slice(long_text, 9000), false), 0);
    CHECK_EQ(bop_ws_send_part(f->ws, BOP_WS_TEXT, bop_slice(long_text + 9000, 10), false), 0);
    CHECK_EQ(bop_ws_send_part(f->ws, BOP_WS_TEXT, bop_slice(long_text + 9010, 10990), true), 0);
    CHECK_SLICE_EQ(receive_zipped(peer, &zip, true), text);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, text), 0);
    CHECK_SLICE_EQ(receive_zipped(peer, &zip, true), text);
    zip_deinit(&zip);
    peer_free(peer);
}

TEST(deflate, is_negotiated_and_used)
{
    echo_zipped(f, false);
}

TEST(deflate, keeps_windows_where_agreed)
{
    /* The offer itself allows both takeovers. */
    echo_zipped(f, true);
}

TEST(deflate, is_not_used_where_it_shall_not)
{
    struct peer *peer;

    f->options.compression = BOP_WS_COMPRESS_NEVER;
    serve(f);
    peer = peer_open_with(f, OFFER, 0);
    CHECK(!peer->rules.deflate);
    CHECK(!bop_ws_is_compressed(f->ws));
    peer_send_frames(peer, {FRAME(0xc1, "x")});
    expect_got(peer, "X(1002 compressed, which was not negotiated) end");
    peer_free(peer);
}

/* A thousandfold: refused once it has grown past the limit, whatever is left of it. */
TEST(deflate, limits_what_is_inflated)
{
    struct zip zip = {0};
    struct peer *peer;
    uint8_t *zeros = calloc(1, 4 << 20);
    size_t before;

    REQUIRE(zeros != NULL);
    f->options.message_bytes_max = 10000;
    serve(f);
    for (int cut = 0; cut < 2; cut++) {
        zip_init(&zip, false);
        peer = peer_open_with(f, OFFER, 0);
        before = f->heap.live;
        send_zipped(peer, &zip, bop_slice(zeros, 4 << 20), cut == 1);
        expect_got(peer, "X(1009 the message is too big) end"); /* Already by the first half. */
        CHECK(f->heap.live < before + (1 << 20));
        CHECK_EQ(f->messages, 0);
        zip_deinit(&zip);
        peer_free(peer);
    }
    free(zeros);
}

TEST(deflate, fails_what_does_not_inflate)
{
    struct zip zip = {0};
    struct peer *peer;

    serve(f);
    peer = peer_open_with(f, OFFER, 0);
    peer_send_frames(peer, {FRAME(0xc1, "\xff\xff\xff\xff")});
    expect_got(peer, "X(1007 a message does not inflate, or not to UTF-8) end");
    peer_free(peer);
    zip_init(&zip, false);
    peer = peer_open_with(f, OFFER, 0);
    memset(long_text, 'x', 100);
    long_text[99] = '\xc0';
    send_zipped(peer, &zip, bop_slice(long_text, 100), false);
    expect_got(peer, "X(1007 a message does not inflate, or not to UTF-8) end");
    zip_deinit(&zip);
    peer_free(peer);
}

static size_t part_bytes, part_calls, part_ends;

static void count_part(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice part, bool first, bool last)
{
    CHECK_EQ(first, part_calls == 0);
    CHECK(part.size <= 64 * 1024);
    part_calls++;
    part_bytes += part.size;
    part_ends += last;
}

/* Many megabytes in pieces, in little memory. */
TEST(deflate, gives_parts_of_large_messages)
{
    struct zip zip = {0};
    struct peer *peer;
    uint8_t *zeros = calloc(1, 4 << 20);
    size_t before;

    REQUIRE(zeros != NULL);
    f->options.on_message = NULL;
    f->options.on_part = count_part;
    part_bytes = part_calls = part_ends = 0;
    serve(f);
    zip_init(&zip, false);
    peer = peer_open_with(f, OFFER, 0);
    before = f->heap.live;
    send_zipped(peer, &zip, bop_slice(zeros, 4 << 20), true);
    TURN_UNTIL(part_ends == 1);
    CHECK_EQ(part_bytes, 4 << 20);
    CHECK(part_calls >= 64);
    CHECK(f->heap.live < before + (1 << 20));
    zip_deinit(&zip);
    free(zeros);
    peer_free(peer);
}

/* ---- Want of memory ---- */

/* One connection with all that allocates. Whatever fails, it ends in order and leaves nothing. */
static void live_through(struct fixture *f)
{
    struct bop_http_server *server = NULL;
    struct bop_listener *listener;
    struct bop_loop *loop = NULL;
    struct bop_topics *topics = bop_topics_create(&f->heap.allocator);
    struct peer *peer;
    unsigned opens = f->opens;

    f->options.topics = topics;
    if (topics != NULL &&
        bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator}, &loop) == 0 &&
        bop_http_server_create(loop, NULL, &server) == 0 &&
        bop_ws_route(server, "/", &f->options, f) == 0 &&
        bop_http_listen(server, &(struct bop_http_listen_options){.host = "127.0.0.1"}, &listener,
                        NULL) == 0) {
        struct bop_loop *outer = f->loop;
        const char *const frames = "\x81\x85\0\0\0\0hello\x01\x85\0\0\0\0hello\x80\x81\0\0\0\0!";

        f->loop = loop;
        f->port = bop_listener_port(listener);
        peer = peer_ask(f, OFFER, 0);
        for (int i = 0; i < 20 && f->opens == opens; i++) {
            REQUIRE_EQ(bop_loop_run_once(loop, 0), 0);
        }
        BOP_IGNORE(send(peer->fd, frames, 11 + 11 + 7, MSG_NOSIGNAL));
        for (int i = 0; i < 4; i++) {
            REQUIRE_EQ(bop_loop_run_once(loop, 0), 0);
        }
        if (f->opens > opens) {
            BOP_IGNORE(bop_ws_subscribe(f->ws, "topic"));
            BOP_IGNORE(bop_topics_publish(topics, "topic", BOP_WS_TEXT, text_of(2000)));
            BOP_IGNORE(bop_ws_publish(f->ws, "topic", BOP_WS_TEXT, text_of(2000)));
            BOP_IGNORE(bop_ws_send(f->ws, BOP_WS_TEXT, text_of(2000)));
            BOP_IGNORE(bop_ws_send_part(f->ws, BOP_WS_TEXT, text_of(2000), false));
            BOP_IGNORE(bop_ws_send_part(f->ws, BOP_WS_TEXT, text_of(2000), true));
            REQUIRE_EQ(bop_loop_run_once(loop, 0), 0);
            BOP_IGNORE(bop_ws_close(f->ws, 1000, bytes("bye")));
        }
        REQUIRE_EQ(bop_loop_run_once(loop, 0), 0);
        peer_free(peer);
        f->loop = outer;
    }
    bop_http_server_destroy(server);
    bop_loop_destroy(loop);
    bop_topics_destroy(topics);
    f->options.topics = NULL;
}

TEST(memory, may_run_out_at_any_point)
{
    size_t live = f->heap.live;

    f->echo = true;
    f->quiet = true;
    f->options.on_close = NULL; /* Its order is not what is tested. */
    FAULT_SWEEP(&f->faults) {
        live_through(f);
        CHECK_EQ(f->heap.live, live);
        f->seen.size = 0;
    }
    CHECK(f->faults.at > 20);
    f->closes = f->opens;
}
