/*
 * A client waits until all who watch the registry, and said that they acknowledge, have done so for
 * all that was acknowledged when it asked. If it is told that they have, then they have: each that
 * was open by then and still is.
 */
#include "sim.h"

#define SETTLE_REQUEST UINT32_C(0x70000000) /* Above those of views. */
#define TIMEOUT_MS     2000

static void send(struct sim_client *client, const struct bop_watch_settle_request *request)
{
    struct sim_settler *settler = &client->settler;
    struct bop_buf frame;
    struct bop_writer writer = bop_writer(&frame);
    size_t at;

    settler->request = settler->request ? settler->request + 1 : SETTLE_REQUEST;
    bop_buf_init(&frame, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&frame, &at) == 0);
    bop_watch_settle_request_encode(&writer, request);
    BOP_ASSERT(writer.code == 0);
    bop_wire_end(&frame, at, BOP_WIRE_KIND_WATCH_SETTLE_REQUEST, BOP_WIRE_REQUEST,
                 settler->request);
    sim_client_send(&client->conns[settler->conn], &frame);
    bop_buf_deinit(&frame);
}

/* Of who is no server, or not yet, nobody asks. That was decided at some time between question and
 * answer, so it must be one at both. */
static bool is_at_server(const struct sim_conn *conn)
{
    const struct bop_raft_configuration *conf = sim_model_configuration(conn->client->sim);

    return conn->node && (conf->count == 0 || bop__member_find(conf, conn->node->id));
}

static bool takes_part(const struct sim_watch *watch)
{
    return watch->id != 0 && watch->open && watch->acknowledges &&
           watch->what == BOP_WATCH_REGISTRY;
}

static void note_watches(struct sim_client *client)
{
    struct sim *sim = client->sim;

    for (unsigned c = 0; c < sim->client_count; c++) {
        for (unsigned n = 0; n < SIM_WATCHES; n++) {
            const struct sim_watch *watch = &sim->clients[c].watches[n];
            bool counts = takes_part(watch) && is_at_server(&sim->clients[c].conns[watch->conn]);

            client->settler.watches[c][n] = counts ? watch->id : 0;
        }
    }
}

void sim_settler_hangup(struct sim_client *client, unsigned conn)
{
    if (client->settler.conn == conn) {
        client->settler.asked = false;
    }
}

/* What is on its way to the one that watches may yet tell it that its watch is over. */
static void suspect(struct sim_client *client, unsigned c, unsigned n)
{
    struct sim_settler *settler = &client->settler;
    struct sim_client *other = &client->sim->clients[c];
    const struct sim_watch *watch = &other->watches[n];

    settler->suspect = &other->watches[n];
    settler->suspect_id = watch->id;
    settler->suspect_client = c;
    settler->heard = watch->acknowledged;
    settler->until_us = other->conns[watch->conn].replies.last_us;
}

static void check(struct sim_client *client)
{
    const struct sim_settler *settler = &client->settler;
    struct sim *sim = client->sim;

    for (unsigned c = 0; c < sim->client_count; c++) {
        for (unsigned n = 0; n < SIM_WATCHES; n++) {
            const struct sim_watch *watch = &sim->clients[c].watches[n];

            if (settler->watches[c][n] != 0 && takes_part(watch) &&
                watch->id == settler->watches[c][n] && watch->acknowledged < settler->floor &&
                sim->clients[c].conns[watch->conn].service &&
                is_at_server(&sim->clients[c].conns[watch->conn])) {
                suspect(client, c, n);
            }
        }
    }
    sim->stats.settled++;
}

/* By now it would know. */
static void judge(struct sim_client *client)
{
    struct sim_settler *settler = &client->settler;
    const struct sim_watch *watch = settler->suspect;
    struct sim *sim = client->sim;

    if (!watch || sim->now_us <= settler->until_us) {
        return;
    }
    settler->suspect = NULL;
    if (takes_part(watch) && watch->id == settler->suspect_id) {
        sim_fail(sim,
                 "client %u was told that all have heard of entry %" PRIu64
                 ", and a watch of client %u had acknowledged %" PRIu64,
                 client->index, settler->floor, settler->suspect_client, settler->heard);
    }
}

void sim_settler_turn(struct sim_client *client)
{
    static const uint8_t addresses[] = {'a', 'b', 'c', 'd'};
    struct sim_settler *settler = &client->settler;
    struct bop_watch_settle_request request = {
        .what = BOP_WATCH_REGISTRY, .name = bop_slice_cstr("r"), .timeout_ms = TIMEOUT_MS};

    judge(client);
    if (settler->asked || settler->suspect || client->sim->quiet ||
        !sim_chance(client->sim, 1, 60)) {
        return;
    }
    settler->conn = (unsigned)sim_below(client->sim, SIM_CONNS);
    if (!client->conns[settler->conn].service) {
        return;
    }
    request.key = bop_slice(&addresses[sim_below(client->sim, BOP_COUNT_OF(addresses))], 1);
    settler->asked = true;
    settler->floor = sim_model_floor(client->sim);
    note_watches(client);
    send(client, &request);
}

bool sim_settler_frame(struct sim_client *client, const struct bop_wire_frame *frame)
{
    struct bop_watch_settle_response in;

    if (frame->kind != BOP_WIRE_KIND_WATCH_SETTLE_RESPONSE) {
        return false;
    }
    if (!client->settler.asked || frame->request != client->settler.request ||
        bop_watch_settle_response_decode(frame->payload, &in) < 0) {
        sim_fail(client->sim, "an answer to WATCH_SETTLE is malformed or was not asked for");
        return true;
    }
    client->settler.asked = false;
    if (in.status == BOP_STATUS_OK && in.complete) {
        check(client);
    } else if (in.status != BOP_STATUS_OK && in.status != BOP_STATUS_RETRY &&
               in.status != BOP_STATUS_BUSY) {
        sim_fail(client->sim, "WATCH_SETTLE is answered \"%s\"", bop_status_text(in.status));
    }
    return true;
}
