/*
 * Pieces are asked for a few ahead of their answers, in order and written in order, so
 * that what is in the file is always all of its beginning. Who asks slower gets them
 * slower: that is all there is to flow control, and to --rate.
 */
#include "backup_fetch.h"

#include <unistd.h>

#define TURN_MS       20
#define LOOK_EVERY_US 100000
#define CUT_OFF_US    5000000 /* Without a connection; then the node is gone. */

static uint64_t now_us(void)
{
    return bop_clock_monotonic_us(bop_clock_system());
}

int fetch_open(struct fetch *fetch, const struct cli_args *args, const char *server)
{
    int exit_code;

    *fetch = (struct fetch){.args = *args, .fd = -1};
    fetch->args.server_count = 1;
    snprintf(fetch->args.servers[0].text, sizeof(fetch->args.servers[0].text), "%s", server);
    if (fetch->args.timeout_ms == 0) {
        fetch->args.timeout_ms = CLI_IMPORT_TIMEOUT_MS;
    }
    fetch->rate = args->aof.rate;
    fetch->open = true;
    exit_code = cluster_open(&fetch->cluster, &fetch->args, true);
    return exit_code;
}

void fetch_close(struct fetch *fetch)
{
    if (fetch->open) {
        cluster_close(&fetch->cluster);
        fetch->open = false;
    }
}

/* ---- Cutting ---- */

static int ask(struct fetch *fetch, enum bop_backup_action action, uint64_t backup)
{
    struct bop_backup_request request = {.action = (uint8_t)action, .backup = backup};
    struct bop_writer writer = bop_writer(&fetch->cluster.request);
    int rc;

    bop_buf_clear(&fetch->cluster.request);
    bop_backup_request_encode(&writer, &request);
    rc = writer.code ? writer.code : cluster_ask(&fetch->cluster, BOP_WIRE_KIND_BACKUP_REQUEST);
    if (rc == 0) {
        rc = bop_backup_response_decode(bop_buf_slice(&fetch->cluster.response), &fetch->backup);
    }
    if (rc == 0) {
        snprintf(fetch->text, sizeof(fetch->text), "%.*s", (int)fetch->backup.text.size,
                 (const char *)fetch->backup.text.data);
        fetch->backup.text = bop_slice_cstr(fetch->text);
    }
    return rc;
}

static int wait_us(struct fetch *fetch, uint64_t us)
{
    uint64_t until = now_us() + us;
    int rc = 0;

    while (rc == 0 && now_us() < until) {
        rc = link_turn(&fetch->cluster.link, TURN_MS);
    }
    return rc;
}

int fetch_look(struct fetch *fetch, uint64_t backup)
{
    int rc = ask(fetch, BOP_BACKUP_LOOK, backup);

    /* Cutting takes as long as it takes: the node says each time that it is at it. */
    while (rc == 0 && fetch->backup.code == BOP_BACKUP_CUTTING) {
        rc = wait_us(fetch, LOOK_EVERY_US);
        if (rc == 0) {
            rc = ask(fetch, BOP_BACKUP_LOOK, fetch->backup.backup);
        }
    }
    return rc;
}

int fetch_cut(struct fetch *fetch, bool stale)
{
    enum bop_backup_action action = stale ? BOP_BACKUP_CUT_STALE : BOP_BACKUP_CUT;
    uint64_t give_up_us = now_us() + fetch->args.timeout_ms * 1000;
    int rc = ask(fetch, action, 0);

    while (rc == 0 && fetch->backup.code == BOP_BACKUP_NOT_NOW && now_us() < give_up_us) {
        rc = wait_us(fetch, LOOK_EVERY_US);
        if (rc == 0) {
            rc = ask(fetch, action, 0);
        }
    }
    return rc == 0 && fetch->backup.code == BOP_BACKUP_CUTTING
               ? fetch_look(fetch, fetch->backup.backup)
               : rc;
}

void fetch_drop(struct fetch *fetch)
{
    if (fetch->open && fetch->cluster.link.client) {
        /* The node forgets it by itself, only later. */
        BOP_IGNORE(ask(fetch, BOP_BACKUP_DROP, fetch->backup.backup));
    }
}

/* ---- Pieces ---- */

static int write_at(int fd, struct bop_slice bytes, uint64_t offset)
{
    while (bytes.size > 0) {
        ssize_t size = pwrite(fd, bytes.data, bytes.size, (off_t)offset);

        if (size < 0 && errno != EINTR) {
            return -errno;
        }
        if (size > 0) {
            bytes = bop_slice(bytes.data + size, bytes.size - (size_t)size);
            offset += (uint64_t)size;
        }
    }
    return 0;
}

static int take_piece(struct fetch *fetch, struct bop_slice payload)
{
    struct bop_backup_read_response piece;
    int rc = bop_backup_read_response_decode(payload, &piece);

    if (rc < 0) {
        return rc;
    }
    switch (piece.code) {
    case BOP_BACKUP_OK:
        break;
    case BOP_BACKUP_LATER:
        fetch->wait_until_us = now_us() + (uint64_t)piece.wait_ms * 1000;
        fetch->astray = true;
        return 0;
    case BOP_BACKUP_UNKNOWN:
        return BOP_ENOTFOUND;
    default:
        return BOP_EIO;
    }
    if (piece.offset != fetch->next || piece.bytes.size == 0) {
        fetch->astray = true;
        return 0;
    }
    rc = write_at(fetch->fd, piece.bytes, piece.offset);
    fetch->next += rc == 0 ? piece.bytes.size : 0;
    return rc;
}

static void on_piece(void *user, int code, struct bop_slice response)
{
    struct fetch_piece *piece = (struct fetch_piece *)user;
    struct fetch *fetch = piece->fetch;

    piece->busy = false;
    fetch->outstanding--;
    if (fetch->rc == 0) {
        fetch->rc = code < 0 ? code : take_piece(fetch, response);
    }
}

static int ask_piece(struct fetch *fetch, struct fetch_piece *piece)
{
    struct bop_backup_read_request request = {
        .backup = fetch->backup.backup,
        .offset = fetch->asked,
        .size = (uint32_t)bop_min_u64(BOP_BACKUP_PIECE_MAX, fetch->backup.bytes - fetch->asked),
    };
    struct bop_writer writer = bop_writer(&fetch->cluster.request);
    int rc;

    bop_buf_clear(&fetch->cluster.request);
    bop_backup_read_request_encode(&writer, &request);
    rc = writer.code;
    if (rc == 0) {
        piece->fetch = fetch;
        rc = bop_client_admin(fetch->cluster.link.client, BOP_WIRE_KIND_BACKUP_READ_REQUEST,
                              bop_buf_slice(&fetch->cluster.request), on_piece, piece);
    }
    if (rc == 0) {
        piece->busy = true;
        fetch->outstanding++;
        fetch->asked += request.size;
    }
    return rc;
}

/* Whether the time for the next piece has come. */
static bool may_ask(const struct fetch *fetch)
{
    uint64_t now = now_us();

    if (fetch->astray || fetch->asked >= fetch->backup.bytes || now < fetch->wait_until_us) {
        return false;
    }
    return fetch->rate == 0 || (double)(fetch->asked - fetch->begun_at) * 1e6 <=
                                   (double)fetch->rate * (double)(now - fetch->begun_us);
}

static int ask_pieces(struct fetch *fetch)
{
    int rc = 0;

    if (fetch->astray && fetch->outstanding == 0) {
        fetch->astray = false;
        fetch->asked = fetch->next;
    }
    for (unsigned n = 0; n < FETCH_WINDOW && rc == 0; n++) {
        if (!fetch->pieces[n].busy && may_ask(fetch)) {
            rc = ask_piece(fetch, &fetch->pieces[n]);
        }
    }
    return rc;
}

/* A node that is gone is not waited for as long as an answer is. */
static int look_at_connection(struct fetch *fetch)
{
    if (fetch->cluster.link.info.ready) {
        fetch->cut_off_us = 0;
    } else if (fetch->cut_off_us == 0) {
        fetch->cut_off_us = now_us();
    } else if (now_us() - fetch->cut_off_us > CUT_OFF_US) {
        return BOP_ECLOSED;
    }
    return 0;
}

int fetch_pieces(struct fetch *fetch, int fd, uint64_t from, struct progress *progress)
{
    int rc = 0;

    fetch->fd = fd;
    fetch->next = from;
    fetch->asked = from;
    fetch->begun_at = from;
    fetch->begun_us = now_us();
    while (rc == 0 && fetch->rc == 0 && fetch->next < fetch->backup.bytes) {
        rc = ask_pieces(fetch);
        if (rc == 0) {
            rc = link_turn(&fetch->cluster.link, TURN_MS);
        }
        if (rc == 0) {
            rc = look_at_connection(fetch);
        }
        progress_show(progress, fetch->next, "bytes");
    }
    return rc < 0 ? rc : fetch->rc;
}
