/*
 * Handshakes are rationed: a full one costs what thousands of messages cost, and
 * a burst of new connections must not hold up those that are at work. A step is
 * what one delivery of bytes brings to one handshake. Those over the ration of a
 * turn wait with their bytes, first come first served.
 */
#include "stream.h"

/* Who sends more than a handshake has goes on out of turn: reading it again from
 * the kernel later would cost more than the step. */
#define WAITING_BYTES_MAX (64u * 1024)

/* Steps that may yet be made in this turn. */
static bool has_ration(struct bop__tls_wire *wire, const struct bop_tls *tls)
{
    if (wire->turn != wire->loop->iteration) {
        wire->turn = wire->loop->iteration;
        wire->steps = 0;
    }
    return wire->steps < tls->handshakes_per_turn;
}

bool bop__tls_admit(struct bop__tls_stream *stream)
{
    struct bop__tls_wire *wire = stream->wire;

    if (!bop_list_empty(&wire->waiting) || !has_ration(wire, stream->tls)) {
        return false;
    }
    wire->steps++;
    return true;
}

/* Take it off the list, with its bytes for the caller to free. */
static struct bop_buf leave(struct bop__tls_stream *stream)
{
    struct bop__tls_waiting *waiting = stream->waiting;
    struct bop_buf input;

    BOP_ASSERT(waiting != NULL); /* It is on the list. */
    input = waiting->input;
    bop_list_remove(&waiting->link);
    stream->waiting = NULL;
    bop_free(stream->wire->loop->allocator, waiting, sizeof(*waiting));
    return input;
}

static void go_on_with_waiting(struct bop_post *post)
{
    struct bop__tls_wire *wire = BOP_CONTAINER_OF(post, struct bop__tls_wire, post);

    wire->posted = false;
    while (!bop_list_empty(&wire->waiting)) {
        struct bop__tls_stream *stream =
            BOP_CONTAINER_OF(wire->waiting.next, struct bop__tls_waiting, link)->stream;
        struct bop_buf input;

        if (!has_ration(wire, stream->tls)) {
            wire->posted = true;
            bop_loop_post(wire->loop, &wire->post);
            return;
        }
        wire->steps++;
        input = leave(stream);
        if (stream->sock->state == BOP__SOCKET_OPEN) {
            bop__tls_go_on(stream, bop_buf_slice(&input));
        }
        bop_buf_deinit(&input);
    }
}

/* Put bytes behind those that wait. */
static int add(struct bop__tls_stream *stream, struct bop_slice bytes)
{
    struct bop__tls_wire *wire = stream->wire;
    struct bop__tls_waiting *waiting = stream->waiting;

    if (waiting == NULL) {
        waiting = (struct bop__tls_waiting *)bop_alloc(wire->loop->allocator, sizeof(*waiting));
        if (waiting == NULL) {
            return BOP_ENOMEM;
        }
        waiting->stream = stream;
        bop_buf_init(&waiting->input, wire->loop->allocator, 0);
        bop_list_push_back(&wire->waiting, &waiting->link);
        stream->waiting = waiting;
    }
    return bop_buf_append(&waiting->input, bytes.data, bytes.size);
}

int bop__tls_wait(struct bop__tls_stream *stream, struct bop_slice bytes)
{
    struct bop__tls_wire *wire = stream->wire;
    struct bop_buf input;
    int rc = add(stream, bytes);

    if (rc != 0) {
        return rc;
    }
    if (stream->waiting->input.size > WAITING_BYTES_MAX) {
        wire->steps++;
        input = leave(stream);
        bop__tls_go_on(stream, bop_buf_slice(&input));
        bop_buf_deinit(&input);
    } else if (!wire->posted) {
        wire->posted = true;
        wire->post.fn = go_on_with_waiting;
        bop_loop_post(wire->loop, &wire->post);
    }
    return 0;
}

void bop__tls_stop_waiting(struct bop__tls_stream *stream)
{
    if (stream->waiting != NULL) {
        struct bop_buf input = leave(stream);

        bop_buf_deinit(&input);
    }
}
