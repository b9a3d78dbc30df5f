/*
 * A backup of the node's whole state as a file: what `bop backup` fetches, cut and sent in one
 * answer. It begins once the file is cut, so that its length can be told; a piece is read when
 * those before have gone out.
 */
#include <inttypes.h>

#include "../replica_backup.h"

#include "http.h"

#define TYPE    "application/octet-stream"
#define LOOK_MS 20 /* Whether it is cut. */

/* The stream of its request. */
struct sending {
    struct http_request *request;
    struct bop_timer timer; /* To look again, or to send more. */
    uint64_t backup;        /* 0: none was cut yet. */
    uint64_t bytes;
    uint64_t offset;
    bool begun; /* The head of the answer is out. */
};

static struct replica *replica_of(const struct sending *sending)
{
    return sending->request->api->backend.replica;
}

static void drop(struct sending *sending)
{
    struct bop_backup_request in = {.action = BOP_BACKUP_DROP, .backup = sending->backup};
    struct bop_backup_response response;

    if (sending->backup != 0 && !sending->request->api->closed) {
        bop__replica_backup(replica_of(sending), &in, &response);
    }
    sending->backup = 0;
}

static void end(struct http_request *request)
{
    struct sending *sending = request->stream;

    bop_timer_stop(request->api->options.loop, &sending->timer);
    drop(sending);
    bop_free(request->api->allocator, sending, sizeof(*sending));
}

/* What is not the whole must not look like it: the connection is cut. */
static void fail(struct sending *sending, enum http_problem_kind kind, const char *why)
{
    if (sending->begun) {
        bop_http_close(sending->request->http); /* on_abort follows. */
    } else {
        bop__http_fail_with(sending->request, kind, why);
    }
}

static void fail_with_code(struct sending *sending, uint8_t code, struct bop_slice text)
{
    char why[HTTP_DETAIL_MAX];
    enum http_problem_kind kind = code == BOP_BACKUP_NOT_NOW ? HTTP_RETRY
                                  : code == BOP_BACKUP_BUSY  ? HTTP_BUSY
                                                             : HTTP_FAILED;

    snprintf(why, sizeof(why), "%.*s", (int)bop_min_u64(text.size, sizeof(why) - 1),
             (const char *)text.data);
    fail(sending, kind, why);
}

static void wait(struct sending *sending, uint64_t ms)
{
    if (bop_timer_start(sending->request->api->options.loop, &sending->timer, ms) < 0) {
        fail(sending, HTTP_BUSY, "no memory for a backup");
    }
}

/* ---- Pieces ---- */

static void finish(struct sending *sending)
{
    struct http_request *request = sending->request;

    if (bop_http_end(request->http, bop_slice(NULL, 0)) < 0) {
        bop_http_close(request->http);
    } else {
        bop__http_over(request);
    }
}

static void send(struct sending *sending)
{
    struct bop_backup_read_request in = {
        .backup = sending->backup, .offset = sending->offset, .size = BOP_BACKUP_PIECE_MAX};
    struct bop_backup_read_response piece;
    int rc = 0;

    while (rc == 0 && sending->offset < sending->bytes) {
        in.offset = sending->offset;
        bop__replica_backup_read(replica_of(sending), &in, &piece);
        if (piece.code == BOP_BACKUP_LATER) {
            wait(sending, piece.wait_ms);
            return;
        }
        if (piece.code != BOP_BACKUP_OK || piece.bytes.size == 0) {
            bop_http_close(sending->request->http);
            return;
        }
        sending->offset += piece.bytes.size;
        rc = bop_http_write(sending->request->http, piece.bytes);
    }
    if (rc < 0) {
        bop_http_close(sending->request->http);
    } else if (sending->offset == sending->bytes) {
        finish(sending);
    } /* Else on_drain() goes on. */
}

static void on_drain(struct bop_http_exchange *http, void *user)
{
    struct sending *sending = ((struct http_request *)user)->stream;

    if (sending->begun && !bop_timer_is_running(&sending->timer) &&
        !sending->request->api->closed) {
        send(sending);
    }
}

static void begin(struct sending *sending, const struct bop_backup_response *backup)
{
    struct bop_http_exchange *http = sending->request->http;
    char name[64], index[24];
    int rc;

    snprintf(name, sizeof(name), "attachment; filename=\"%" PRIu64 ".backup\"", backup->index);
    snprintf(index, sizeof(index), "%" PRIu64, backup->index);
    rc = bop_http_content_length(http, backup->bytes);
    if (rc == 0) {
        rc = bop_http_header(http, "Content-Type", bop_slice_cstr(TYPE));
    }
    if (rc == 0) {
        rc = bop_http_header(http, "Content-Disposition", bop_slice_cstr(name));
    }
    if (rc == 0) {
        rc = bop_http_header(http, "BOP-Revision", bop_slice_cstr(index));
    }
    if (rc < 0) {
        fail(sending, HTTP_BUSY, "no memory for a backup");
        return;
    }
    sending->begun = true;
    sending->bytes = backup->bytes;
    send(sending);
}

/* ---- Cutting ---- */

static void look(struct sending *sending, uint8_t action)
{
    struct bop_backup_request in = {.action = action, .backup = sending->backup};
    struct bop_backup_response response;

    bop__replica_backup(replica_of(sending), &in, &response);
    if (response.code == BOP_BACKUP_CUTTING || response.code == BOP_BACKUP_OK) {
        sending->backup = response.backup;
    }
    if (response.code == BOP_BACKUP_CUTTING) {
        wait(sending, LOOK_MS);
    } else if (response.code == BOP_BACKUP_OK) {
        begin(sending, &response);
    } else {
        fail_with_code(sending, response.code, response.text);
    }
}

static void on_timer(struct bop_timer *timer)
{
    struct sending *sending = BOP_CONTAINER_OF(timer, struct sending, timer);

    if (sending->request->api->closed) {
        return; /* on_abort is on its way. */
    }
    if (sending->begun) {
        send(sending);
    } else {
        look(sending, BOP_BACKUP_LOOK);
    }
}

/* This node has all that was acknowledged before. */
static void read_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct http_request *request = BOP_CONTAINER_OF(read, struct http_request, read);

    if (request->over) {
        bop__http_idle(request);
        return;
    }
    request->busy = false;
    if (code < 0) {
        bop__http_fail_with(request, HTTP_RETRY, "");
    } else {
        look(request->stream, BOP_BACKUP_CUT);
    }
}

void bop__http_serve_backup(struct http_request *request)
{
    struct sending *sending;

    if (request->head_only) { /* None is cut for nobody. */
        bop__http_send_text(request, TYPE, 0);
        return;
    }
    sending = bop_alloc_zeroed(request->api->allocator, sizeof(*sending));
    if (!sending) {
        bop__http_fail_with(request, HTTP_BUSY, "no memory for a backup");
        return;
    }
    sending->request = request;
    bop_timer_init(&sending->timer, on_timer);
    request->stream = sending;
    request->stream_end = end;
    bop_http_on_drain(request->http, on_drain, request);
    bop_http_end_aborts(request->http); /* No more is cut or read for who has gone. */
    if (request->call.stale) {
        look(sending, BOP_BACKUP_CUT_STALE);
        return;
    }
    request->busy = true;
    request->read = (struct replica_read){.done = read_done};
    bop__replica_read(request->api->backend.replica, &request->read);
}
