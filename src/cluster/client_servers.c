/*
 * The servers that a client was not given but told of.
 *
 * Who was given one address would be cut off when that server dies, though the cluster lives. So a
 * client asks whoever greets it for its status, which lists the members of the cluster, with the
 * addresses by which they reach each other; clients are taken at the same. It asks once at the
 * first greeting, so that the answer comes before those to its requests, then after each further
 * one, spread out, for all clients of a server that died come at once, and once in a while.
 *
 * The given ones come first: in each round of attempts all of them, then one that was told of. For
 * addresses among servers need not be of use to clients, and a client that cannot reach them is to
 * find a given one that is back as soon as if it did not know of them. Nor is such an address worth
 * as much as a given one: who answers there must be of the cluster that told of it (the hello says
 * so), by TLS of the same trust and name as any.
 *
 * What was told of is replaced as a whole by the next answer. Whatever goes wrong here, the client
 * is as well off as without.
 */
#include "client_internal.h"

#include <bop/mem.h>

void bop__client_servers_deinit(struct bop_client *client)
{
    struct client_servers *servers = &client->servers;

    bop_free(client->allocator, servers->list, servers->capacity * sizeof(*servers->list));
    *servers = (struct client_servers){0};
}

void bop__client_servers_greeted(struct bop_client *client)
{
    struct client_servers *servers = &client->servers;

    servers->asked = false;
    servers->ask_ms = bop_loop_now_ms(client->loop);
    if (servers->known) {
        servers->ask_ms += bop_random_below(&client->random, CLIENT_SERVERS_SPREAD_MS);
    }
    bop__client_servers_ask(client);
}

void bop__client_servers_ask(struct bop_client *client)
{
    struct client_servers *servers = &client->servers;
    struct bop_buf *buf;
    size_t at;

    if (client->pin || servers->asked || !bop__client_ready(client) ||
        bop_loop_now_ms(client->loop) < servers->ask_ms) {
        return;
    }
    buf = bop__client_frame_begin(client, &at);
    if (buf) {
        servers->asked = bop__client_frame_end(client, buf, at, BOP_WIRE_KIND_STATUS_REQUEST,
                                               BOP_WIRE_KIND_STATUS_REQUEST, 0);
    }
}

bool bop__client_servers_kind(const struct bop_wire_frame *frame)
{
    return frame->request == BOP_WIRE_KIND_STATUS_REQUEST &&
           (frame->kind == BOP_WIRE_KIND_STATUS_RESPONSE ||
            frame->kind == BOP_WIRE_KIND_ERROR_RESPONSE);
}

static bool is_given(const struct bop_client *client, const struct client_endpoint *endpoint)
{
    for (size_t i = 0; i < client->endpoint_count; i++) {
        if (client->endpoints[i].port == endpoint->port &&
            strcmp(client->endpoints[i].host, endpoint->host) == 0) {
            return true;
        }
    }
    return false;
}

/* Those of the answer that were not given, into list unless it is NULL. Returns how many. */
static size_t collect(const struct bop_client *client, const struct bop_status_response *status,
                      struct client_endpoint *list)
{
    struct client_endpoint endpoint;
    size_t count = 0;

    for (unsigned i = 0; i < status->peer_count; i++) {
        if (bop__client_endpoint_parse(status->peers[i].address, &endpoint) < 0 ||
            is_given(client, &endpoint)) {
            continue;
        }
        if (list) {
            list[count] = endpoint;
        }
        count++;
    }
    return count;
}

static void learn(struct bop_client *client, const struct bop_status_response *status)
{
    struct client_servers *servers = &client->servers;
    size_t count = collect(client, status, NULL);

    if (count > servers->capacity) {
        struct client_endpoint *list = (struct client_endpoint *)bop_alloc_array(
            client->allocator, count, sizeof(*list));

        if (!list) {
            return; /* Those of the last time are better than none. */
        }
        bop_free(client->allocator, servers->list, servers->capacity * sizeof(*list));
        servers->list = list;
        servers->capacity = count;
    }
    servers->count = count > 0 ? collect(client, status, servers->list) : 0;
    servers->next = count > 0 ? bop_random_below(&client->random, count) : 0;
    servers->known = true;
}

int bop__client_servers_answer(struct bop_client *client, const struct bop_wire_frame *frame)
{
    struct client_servers *servers = &client->servers;
    struct bop_status_response status;

    if (!servers->asked) {
        return BOP_EPROTOCOL;
    }
    servers->asked = false;
    servers->ask_ms = bop_loop_now_ms(client->loop) + CLIENT_SERVERS_AGAIN_MS;
    /* It may be denied, or be of a version that says more. */
    if (frame->kind == BOP_WIRE_KIND_STATUS_RESPONSE &&
        bop_status_response_decode(frame->payload, &status) == 0) {
        learn(client, &status);
    }
    return 0;
}

size_t bop__client_round(const struct bop_client *client)
{
    return client->endpoint_count + (client->servers.count > 0);
}

const struct client_endpoint *bop__client_next_endpoint(struct bop_client *client, bool *out_told)
{
    struct client_servers *servers = &client->servers;
    const struct client_endpoint *endpoint;

    *out_told = servers->count > 0 && client->attempts >= client->endpoint_count;
    if (*out_told) {
        endpoint = &servers->list[servers->next];
        servers->next = (servers->next + 1) % servers->count;
    } else {
        endpoint = &client->endpoints[client->next_endpoint];
        client->next_endpoint = (client->next_endpoint + 1) % client->endpoint_count;
    }
    return endpoint;
}
