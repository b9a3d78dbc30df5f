/*
 * Watches of clients: each hears every change of one name, goes on at another node where it
 * was cut off, and begins anew where events are not kept any more. What it is told must be
 * what the model says, each event once and in order.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define WATCH_ID UINT32_C(0x40000000) /* Above those of operations. */

static struct sim_watch *find(struct sim_client *client, uint32_t id)
{
    for (unsigned n = 0; n < client->watch_count; n++) {
        if (id != 0 && client->watches[n].id == id) {
            return &client->watches[n];
        }
    }
    return NULL;
}

void sim_watches_init(struct sim_client *client)
{
    static const struct {
        enum bop_watch_what what;
        const char *name;
    } choices[] = {
        {BOP_WATCH_MAP, "m"},      {BOP_WATCH_MAP, "n"},      {BOP_WATCH_SET, "s"},
        {BOP_WATCH_MULTIMAP, "u"}, {BOP_WATCH_COUNTER, "c0"}, {BOP_WATCH_COUNTER, "c2"},
        {BOP_WATCH_LOCK, "l0"},    {BOP_WATCH_LOCK, "l2"},    {BOP_WATCH_GROUP, "g"},
        {BOP_WATCH_REGISTRY, "r"},
    };
    struct sim *sim = client->sim;

    client->watch_count = (unsigned)sim_below(sim, SIM_WATCHES + 1);
    for (unsigned n = 0; n < client->watch_count; n++) {
        struct sim_watch *watch = &client->watches[n];
        uint64_t choice = sim_below(sim, BOP_COUNT_OF(choices));

        *watch = (struct sim_watch){.what = choices[choice].what,
                                    .previous = sim_chance(sim, 1, 2)};
        snprintf(watch->name, sizeof(watch->name), "%s", choices[choice].name);
    }
}

static void open_watch(struct sim_client *client, struct sim_watch *watch, struct sim_conn *conn)
{
    struct bop_watch_open_request out = {
        .what = (uint8_t)watch->what,
        .name = bop_slice_cstr(watch->name),
        .flags = watch->previous ? BOP_WATCH_PREVIOUS | BOP_WATCH_PROGRESS : BOP_WATCH_PROGRESS,
        .revision = watch->revision};
    struct bop_buf frame;
    struct bop_writer writer = bop_writer(&frame);
    size_t at;

    watch->id = WATCH_ID + ++client->watch_ids;
    watch->open = false;
    watch->conn = conn->number;
    bop_buf_init(&frame, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&frame, &at) == 0);
    bop_watch_open_request_encode(&writer, &out);
    BOP_ASSERT(writer.code == 0);
    bop_wire_end(&frame, at, BOP_WIRE_KIND_WATCH_OPEN_REQUEST, BOP_WIRE_REQUEST, watch->id);
    sim_client_send(conn, &frame);
    bop_buf_deinit(&frame);
}

void sim_watches_turn(struct sim_client *client)
{
    for (unsigned n = 0; n < client->watch_count; n++) {
        struct sim_conn *conn = &client->conns[sim_below(client->sim, SIM_CONNS)];

        if (client->watches[n].id == 0 && conn->service) {
            open_watch(client, &client->watches[n], conn);
        }
    }
}

void sim_watches_hangup(struct sim_client *client, unsigned conn)
{
    for (unsigned n = 0; n < client->watch_count; n++) {
        if (client->watches[n].conn == conn) {
            client->watches[n].id = 0;
            client->watches[n].open = false;
        }
    }
}

static void opened(struct sim_client *client, const struct bop_wire_frame *frame)
{
    struct sim_watch *watch = find(client, frame->request);
    struct bop_watch_open_response in;

    if (bop_watch_open_response_decode(frame->payload, &in) < 0) {
        sim_fail(client->sim, "a response to WATCH_OPEN is malformed");
    } else if (!watch) {
        return;
    } else if (in.status == BOP_STATUS_OK) {
        if (watch->revision != 0 && in.revision != watch->revision) {
            sim_fail(client->sim, "a watch after entry %" PRIu64 " begins after %" PRIu64,
                     watch->revision, in.revision);
        }
        watch->open = true;
        sim_model_watch_from(client->sim, watch, in.revision);
    } else if (in.status == BOP_STATUS_COMPACTED) {
        client->sim->stats.resyncs++;
        watch->id = 0;
        watch->revision = 0;
    } else if (in.status == BOP_STATUS_BUSY || in.status == BOP_STATUS_RETRY) {
        watch->id = 0;
    } else {
        sim_fail(client->sim, "a watch is answered \"%s\"", bop_status_text(in.status));
    }
}

static void told(struct sim_client *client, const struct bop_wire_frame *frame)
{
    struct sim_watch *watch = find(client, frame->request);
    struct bop_watch_events in;

    if (bop_watch_events_decode(frame->payload, &in) < 0) {
        sim_fail(client->sim, "what a watch is told is malformed");
    } else if (!watch) {
        return; /* A mark of all of a connection, or it was opened anew elsewhere. */
    } else if (in.flags & BOP_WATCH_EVENTS_RESYNC) {
        client->sim->stats.resyncs++;
        watch->id = 0;
        watch->open = false;
        watch->revision = 0;
    } else if (!watch->open) {
        sim_fail(client->sim, "a watch is told something before it is open");
    } else {
        sim_model_watched(client->sim, watch, &in);
    }
}

bool sim_watches_frame(struct sim_client *client, const struct bop_wire_frame *frame)
{
    if (frame->kind == BOP_WIRE_KIND_WATCH_OPEN_RESPONSE) {
        opened(client, frame);
        return true;
    }
    if (frame->kind == BOP_WIRE_KIND_WATCH_EVENTS) {
        told(client, frame);
        return true;
    }
    return false;
}
