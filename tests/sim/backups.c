/*
 * Backups of clients: cut while everything goes on, fetched in pieces, and then checked: the file
 * is whole, has all that was acknowledged when it was asked for, and is the state of its entry.
 */
#include <bop/backup.h>

#include "sim.h"
#include "snapshot.h"

#define BACKUP_REQUEST UINT32_C(0x50000000) /* Between those of watches and of views. */
#define LOOK_US        (50 * SIM_MS)
#define FILE_PATH      "/backup"

static void send(struct sim_client *client, enum bop_wire_kind kind, struct bop_buf *payload)
{
    struct sim_backup *backup = &client->backup;
    struct bop_buf frame;
    size_t at;

    backup->request = backup->request ? backup->request + 1 : BACKUP_REQUEST;
    backup->asked = true;
    bop_buf_init(&frame, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&frame, &at) == 0);
    BOP_ASSERT(bop_buf_append(&frame, payload->data, payload->size) == 0);
    bop_wire_end(&frame, at, kind, BOP_WIRE_REQUEST, backup->request);
    sim_client_send(&client->conns[backup->conn], &frame);
    bop_buf_deinit(&frame);
    bop_buf_deinit(payload);
}

static void send_action(struct sim_client *client, enum bop_backup_action action)
{
    struct bop_backup_request request = {.action = (uint8_t)action, .backup = client->backup.id};
    struct bop_buf payload;
    struct bop_writer writer = bop_writer(&payload);

    bop_buf_init(&payload, NULL, 0);
    bop_backup_request_encode(&writer, &request);
    BOP_ASSERT(writer.code == 0);
    send(client, BOP_WIRE_KIND_BACKUP_REQUEST, &payload);
}

static void begin(struct sim_client *client)
{
    struct sim_backup *backup = &client->backup;
    bool stale = sim_chance(client->sim, 1, 4);

    backup->conn = (unsigned)sim_below(client->sim, SIM_CONNS);
    if (client->conns[backup->conn].service) {
        backup->state = SIM_BACKUP_CUTS;
        backup->id = 0;
        backup->floor = stale ? 0 : sim_model_floor(client->sim);
        bop_buf_clear(&backup->file);
        send_action(client, stale ? BOP_BACKUP_CUT_STALE : BOP_BACKUP_CUT);
    }
}

static void ask_piece(struct sim_client *client)
{
    struct sim_backup *backup = &client->backup;
    struct bop_backup_read_request request = {.backup = backup->id,
                                              .offset = backup->file.size,
                                              .size = (uint32_t)sim_between(client->sim, 1, 8192)};
    struct bop_buf payload;
    struct bop_writer writer = bop_writer(&payload);

    bop_buf_init(&payload, NULL, 0);
    bop_backup_read_request_encode(&writer, &request);
    BOP_ASSERT(writer.code == 0);
    send(client, BOP_WIRE_KIND_BACKUP_READ_REQUEST, &payload);
}

void sim_backup_turn(struct sim_client *client)
{
    struct sim_backup *backup = &client->backup;
    struct sim *sim = client->sim;

    if (backup->state == SIM_BACKUP_NONE) {
        if (!sim->quiet && sim_chance(sim, 1, 200)) {
            begin(client);
        }
    } else if (backup->asked || sim->now_us < backup->wait_us ||
               !client->conns[backup->conn].service) {
        return;
    } else if (backup->state == SIM_BACKUP_CUTS) {
        send_action(client, BOP_BACKUP_LOOK);
    } else {
        ask_piece(client);
    }
}

void sim_backup_hangup(struct sim_client *client, unsigned conn)
{
    if (client->backup.conn == conn) {
        client->backup.state = SIM_BACKUP_NONE;
        client->backup.asked = false;
    }
}

/* ---- Checking ---- */

static int check_file(struct sim_client *client, struct snapshot_info *out_info,
                      struct bop_error *err)
{
    struct bop_fs_sim_options options = {.seed = 1, .capacity_bytes = UINT64_C(1) << 30};
    struct bop_fs_sim *disk;
    int rc = bop_fs_sim_create(&options, &disk);

    BOP_ASSERT(rc == 0);
    rc = bop_fs_write_file(bop_fs_sim_fs(disk), FILE_PATH, bop_buf_slice(&client->backup.file),
                           err);
    BOP_ASSERT(rc == 0);
    rc = bop__snapshot_check(NULL, bop_fs_sim_fs(disk), FILE_PATH, out_info, err);
    bop_fs_sim_destroy(disk);
    return rc;
}

static void check(struct sim_client *client)
{
    const struct sim_backup *backup = &client->backup;
    struct snapshot_info info;
    struct bop_error err = {0};

    if (check_file(client, &info, &err) < 0) {
        sim_fail(client->sim, "a backup of %zu bytes is refused: %s", backup->file.size,
                 err.message);
    } else if (info.raft.index != backup->index || backup->file.size != backup->bytes ||
               backup->index < backup->floor) {
        sim_fail(client->sim,
                 "a backup of entry %" PRIu64 " is one of entry %" PRIu64 ", and all up to %" PRIu64
                 " was acknowledged",
                 backup->index, info.raft.index, backup->floor);
    } else {
        /* The file ends with the digest of its content, which was checked. */
        sim_model_backed_up(client->sim, backup->index, info.position.digest,
                            bop_load_u64(backup->file.data + backup->file.size - 8));
        client->sim->stats.backups++;
    }
}

/* ---- Answers ---- */

static void acted(struct sim_client *client, struct bop_slice payload)
{
    struct sim_backup *backup = &client->backup;
    struct bop_backup_response in;

    if (bop_backup_response_decode(payload, &in) < 0) {
        sim_fail(client->sim, "a response to BACKUP is malformed");
        return;
    }
    if (backup->state == SIM_BACKUP_CUTS && in.code == BOP_BACKUP_CUTTING) {
        backup->id = in.backup;
        backup->wait_us = client->sim->now_us + LOOK_US;
    } else if (backup->state == SIM_BACKUP_CUTS && in.code == BOP_BACKUP_OK) {
        backup->state = SIM_BACKUP_READS;
        backup->id = in.backup;
        backup->index = in.index;
        backup->bytes = in.bytes;
    } else {
        backup->state = SIM_BACKUP_NONE; /* Dropped; or not now, or not any more. */
    }
}

static void was_read(struct sim_client *client, struct bop_slice payload)
{
    struct sim_backup *backup = &client->backup;
    struct bop_backup_read_response in;

    if (bop_backup_read_response_decode(payload, &in) < 0) {
        sim_fail(client->sim, "a response to BACKUP_READ is malformed");
    } else if (in.code == BOP_BACKUP_LATER) {
        backup->wait_us = client->sim->now_us + in.wait_ms * SIM_MS;
    } else if (in.code != BOP_BACKUP_OK) {
        backup->state = SIM_BACKUP_NONE;
    } else if (in.offset != backup->file.size) {
        sim_fail(client->sim, "a piece of a backup is another one");
    } else if (in.bytes.size > 0) {
        BOP_ASSERT(bop_buf_append(&backup->file, in.bytes.data, in.bytes.size) == 0);
    } else {
        check(client);
        backup->state = SIM_BACKUP_DROPS;
        if (client->conns[backup->conn].service) {
            send_action(client, BOP_BACKUP_DROP);
        }
    }
}

bool sim_backup_frame(struct sim_client *client, const struct bop_wire_frame *frame)
{
    bool read = frame->kind == BOP_WIRE_KIND_BACKUP_READ_RESPONSE;

    if (!read && frame->kind != BOP_WIRE_KIND_BACKUP_RESPONSE) {
        return false;
    }
    if (!client->backup.asked || frame->request != client->backup.request) {
        sim_fail(client->sim, "client %u gets a piece of a backup it did not ask for",
                 client->index);
        return true;
    }
    client->backup.asked = false;
    if (read) {
        was_read(client, frame->payload);
    } else {
        acted(client, frame->payload);
    }
    return true;
}

void sim_backup_init(struct sim_client *client)
{
    bop_buf_init(&client->backup.file, NULL, 0);
}

void sim_backup_deinit(struct sim_client *client)
{
    bop_buf_deinit(&client->backup.file);
}
