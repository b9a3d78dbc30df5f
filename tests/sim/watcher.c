/*
 * Watches of clients: each hears every change of one name, goes on at another node where it
 * was cut off, and begins anew where events are not kept any more. What it is told must be
 * what the model says, each event once and in order.
 */
#include <stdio.h>
#include <stdlib.h>
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
        {BOP_WATCH_REGISTRY, "r"}, {BOP_WATCH_NAMES, ""},     {BOP_WATCH_SESSION, ""},
    };
    struct sim *sim = client->sim;

    client->watch_count = (unsigned)sim_below(sim, SIM_WATCHES + 1);
    for (unsigned n = 0; n < client->watch_count; n++) {
        struct sim_watch *watch = &client->watches[n];
        uint64_t choice = sim_below(sim, BOP_COUNT_OF(choices));

        *watch = (struct sim_watch){.what = choices[choice].what,
                                    .previous = sim_chance(sim, 1, 2)};
        watch->snapshot = watch->what != BOP_WATCH_SESSION && sim_chance(sim, 1, 2);
        watch->acknowledges = sim_chance(sim, 1, 2);
        watch->shown = sim_memory(sizeof(*watch->shown));
        snprintf(watch->name, sizeof(watch->name), "%s", choices[choice].name);
    }
}

void sim_watches_deinit(struct sim_client *client)
{
    for (unsigned n = 0; n < client->watch_count; n++) {
        free(client->watches[n].shown);
    }
}

/* Shown anew how things stand. */
static void begin(struct sim_watch *watch)
{
    watch->begins = watch->asked;
    watch->shown->count = 0;
    watch->shown->sum = 0;
}

static uint8_t flags_of(const struct sim_watch *watch)
{
    unsigned flags = BOP_WATCH_PROGRESS;

    flags |= watch->previous ? BOP_WATCH_PREVIOUS : 0;
    flags |= watch->asked ? BOP_WATCH_SNAPSHOT : 0;
    flags |= watch->acknowledges ? BOP_WATCH_ACKNOWLEDGE : 0;
    return (uint8_t)flags;
}

static void open_watch(struct sim_client *client, struct sim_watch *watch, struct sim_conn *conn)
{
    struct bop_watch_open_request out = {.what = (uint8_t)watch->what,
                                         .name = bop_slice_cstr(watch->name),
                                         .revision = watch->revision};
    uint8_t key[9] = {0};
    struct bop_buf frame;
    struct bop_writer writer = bop_writer(&frame);
    size_t at;

    watch->id = WATCH_ID + ++client->watch_ids;
    watch->open = false;
    watch->conn = conn->number;
    watch->acknowledged = 0;
    watch->asked = watch->snapshot && watch->revision == 0;
    begin(watch);
    out.flags = flags_of(watch);
    if (watch->what == BOP_WATCH_SESSION) {
        for (unsigned n = 0; n < 8; n++) {
            key[n] = (uint8_t)(watch->session >> (56 - 8 * n));
        }
        out.from = bop_slice(key, 8);
        out.to = bop_slice(key, 9);
    }
    bop_buf_init(&frame, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&frame, &at) == 0);
    bop_watch_open_request_encode(&writer, &out);
    BOP_ASSERT(writer.code == 0);
    bop_wire_end(&frame, at, BOP_WIRE_KIND_WATCH_OPEN_REQUEST, BOP_WIRE_REQUEST, watch->id);
    sim_client_send(conn, &frame);
    bop_buf_deinit(&frame);
}

/* A watch of a session is of the client's newest one. */
static bool has_session(struct sim_client *client, struct sim_watch *watch)
{
    if (client->session != 0 && client->session != watch->session) {
        watch->session = client->session;
        watch->id = 0;
        watch->open = false;
        watch->revision = 0;
    }
    return watch->session != 0;
}

void sim_watches_turn(struct sim_client *client)
{
    for (unsigned n = 0; n < client->watch_count; n++) {
        struct sim_conn *conn = &client->conns[sim_below(client->sim, SIM_CONNS)];

        if (client->watches[n].what == BOP_WATCH_SESSION &&
            !has_session(client, &client->watches[n])) {
            continue;
        }
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

static void acknowledge(struct sim_conn *conn, uint64_t revision)
{
    struct bop_watch_ack out = {.revision = revision};
    struct bop_buf frame;
    struct bop_writer writer = bop_writer(&frame);
    size_t at;

    bop_buf_init(&frame, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&frame, &at) == 0);
    bop_watch_ack_encode(&writer, &out);
    BOP_ASSERT(writer.code == 0);
    bop_wire_end(&frame, at, BOP_WIRE_KIND_WATCH_ACK, BOP_WIRE_REQUEST, 0);
    sim_client_send(conn, &frame);
    bop_buf_deinit(&frame);
}

/* All watches of the connection were told everything up to here. */
static void marked(struct sim_conn *conn, const struct bop_watch_events *in)
{
    struct sim_client *client = conn->client;
    bool wanted = false;

    if (in->events.size > 0 || !(in->flags & BOP_WATCH_EVENTS_PROGRESS)) {
        sim_fail(client->sim, "what a connection is told of all its watches is no mark");
    }
    for (unsigned n = 0; n < client->watch_count; n++) {
        struct sim_watch *watch = &client->watches[n];

        if (watch->id != 0 && watch->open && watch->conn == conn->number) {
            sim_model_marked(client->sim, watch, in->revision);
            watch->acknowledged = bop_max_u64(watch->acknowledged, in->revision);
            wanted = wanted || watch->acknowledges;
        }
    }
    if (wanted && conn->service) {
        acknowledge(conn, in->revision);
    }
}

static void told(struct sim_conn *conn, const struct bop_wire_frame *frame)
{
    struct sim_client *client = conn->client;
    struct sim_watch *watch = find(client, frame->request);
    struct bop_watch_events in;

    if (bop_watch_events_decode(frame->payload, &in) < 0) {
        sim_fail(client->sim, "what a watch is told is malformed");
    } else if (frame->request == 0) {
        marked(conn, &in);
    } else if (!watch) {
        return; /* It was opened anew elsewhere. */
    } else if (in.flags & BOP_WATCH_EVENTS_RESYNC) {
        client->sim->stats.resyncs++;
        watch->revision = 0;
        if (watch->asked) {
            begin(watch); /* It goes on with a snapshot. */
        } else {
            watch->id = 0;
            watch->open = false;
        }
    } else if (!watch->open) {
        sim_fail(client->sim, "a watch is told something before it is open");
    } else {
        sim_model_watched(client->sim, watch, &in);
    }
}

bool sim_watches_frame(struct sim_conn *conn, const struct bop_wire_frame *frame)
{
    if (frame->kind == BOP_WIRE_KIND_WATCH_OPEN_RESPONSE) {
        opened(conn->client, frame);
        return true;
    }
    if (frame->kind == BOP_WIRE_KIND_WATCH_EVENTS) {
        told(conn, frame);
        return true;
    }
    return false;
}
