/*
 * Origins, their connections, and who waits for one.
 *
 * A call takes the connection that was kept last: the longer one lies, the
 * likelier its server has closed it. A new one is made within the bounds of
 * origin and client; at the client's, one that is kept for another origin goes.
 */
#include <strings.h>

#include "../loop/loop_internal.h"
#include "client_internal.h"

static uint32_t hash_of(const struct bop__client_url *url, const char *unix_path)
{
    uint32_t hash = 2166136261u; /* FNV-1a, of what a server cannot choose. */

    for (size_t i = 0; i < url->host.size; i++) {
        hash = (hash ^ (url->host.data[i] | 0x20u)) * 16777619u;
    }
    for (const char *c = unix_path; c != NULL && *c != '\0'; c++) {
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    }
    return (hash ^ url->port ^ (uint32_t)url->tls << 16) * 16777619u;
}

static bool is_origin(const struct bop__client_origin *origin, const struct bop__client_url *url,
                      const char *unix_path)
{
    return origin->tls == url->tls && origin->port == url->port &&
           strlen(origin->host) == url->host.size &&
           strncasecmp(origin->host, (const char *)url->host.data, url->host.size) == 0 &&
           (origin->unix_path != NULL) == (unix_path != NULL) &&
           (unix_path == NULL || strcmp(origin->unix_path, unix_path) == 0);
}

static char *copy_text(struct bop_allocator *allocator, struct bop_slice text)
{
    char *copy = (char *)bop_alloc(allocator, text.size + 1);

    if (copy != NULL) {
        memcpy(copy, text.data, text.size);
        copy[text.size] = '\0';
    }
    return copy;
}

static void free_text(struct bop_allocator *allocator, char *text)
{
    if (text != NULL) {
        bop_free(allocator, text, strlen(text) + 1);
    }
}

static void free_origin(struct bop__client_origin *origin)
{
    struct bop_allocator *allocator = origin->client->allocator;

    free_text(allocator, origin->host);
    free_text(allocator, origin->unix_path);
    bop_free(allocator, origin, sizeof(*origin));
}

struct bop__client_origin *bop__client_origin(struct bop_http_client *client,
                                              const struct bop__client_url *url,
                                              const char *unix_path)
{
    uint32_t hash = hash_of(url, unix_path);
    struct bop_list *bucket = &client->buckets[hash & (BOP__CLIENT_BUCKETS - 1)];
    struct bop__client_origin *origin;

    BOP_LIST_FOR_EACH(link, bucket) {
        origin = BOP_CONTAINER_OF(link, struct bop__client_origin, link);
        if (origin->hash == hash && is_origin(origin, url, unix_path)) {
            return origin;
        }
    }
    origin = (struct bop__client_origin *)bop_alloc_zeroed(client->allocator, sizeof(*origin));
    if (origin == NULL) {
        return NULL;
    }
    origin->client = client;
    origin->hash = hash;
    origin->tls = url->tls;
    origin->port = url->port;
    origin->host = copy_text(client->allocator, url->host);
    if (unix_path != NULL) {
        origin->unix_path = copy_text(client->allocator, bop_slice_cstr(unix_path));
    }
    if (origin->host == NULL || (unix_path != NULL && origin->unix_path == NULL)) {
        free_origin(origin);
        return NULL;
    }
    bop_list_init(&origin->conns);
    bop_list_init(&origin->kept);
    bop_list_init(&origin->waiting);
    bop_list_push_back(bucket, &origin->link);
    return origin;
}

void bop__origin_release(struct bop__client_origin *origin)
{
    if (bop_list_empty(&origin->conns) && bop_list_empty(&origin->waiting)) {
        bop_list_remove(&origin->link);
        free_origin(origin);
    }
}

/* ---- Who gets a connection ---- */

static struct bop__client_conn *take_kept(struct bop__client_origin *origin)
{
    struct bop__client_conn *conn;

    if (bop_list_empty(&origin->kept)) {
        return NULL;
    }
    conn = BOP_CONTAINER_OF(origin->kept.prev, struct bop__client_conn, kept);
    bop_list_remove(&conn->kept);
    origin->client->kept_count--;
    return conn;
}

static bool all_pipelinable(const struct bop__client_conn *conn)
{
    BOP_LIST_FOR_EACH(link, &conn->calls) {
        if (!BOP_CONTAINER_OF(link, struct bop__call, link)->pipelinable) {
            return false;
        }
    }
    return true;
}

/* One that has shown that it answers several calls, with room for another. */
static struct bop__client_conn *find_pipeline(struct bop__client_origin *origin)
{
    struct bop__client_conn *best = NULL;

    BOP_LIST_FOR_EACH(link, &origin->conns) {
        struct bop__client_conn *conn = BOP_CONTAINER_OF(link, struct bop__client_conn, link);

        if (!conn->closing && conn->open && conn->served > 0 && !conn->last &&
            conn->call_count < origin->client->options.pipeline_max &&
            (best == NULL || conn->call_count < best->call_count) && all_pipelinable(conn)) {
            best = conn;
        }
    }
    return best;
}

/* Close one that is kept for nobody. */
static bool close_kept(struct bop_http_client *client)
{
    for (size_t i = 0; i < BOP__CLIENT_BUCKETS; i++) {
        BOP_LIST_FOR_EACH(link, &client->buckets[i]) {
            struct bop__client_origin *origin = BOP_CONTAINER_OF(link, struct bop__client_origin,
                                                                 link);

            if (!bop_list_empty(&origin->kept)) {
                bop__conn_close(BOP_CONTAINER_OF(origin->kept.next, struct bop__client_conn, kept));
                return true;
            }
        }
    }
    return false;
}

static bool may_connect(struct bop__client_origin *origin)
{
    struct bop_http_client *client = origin->client;

    return origin->conn_count < client->options.connections_per_host_max &&
           (client->conn_count < client->options.connections_max || close_kept(client));
}

/* A connection for a call; NULL: it waits, or has ended for want of one. */
static struct bop__client_conn *find_connection(struct bop__client_origin *origin,
                                                struct bop__call *call, bool *out_go_on)
{
    struct bop__client_conn *conn = take_kept(origin);
    int rc;

    *out_go_on = true;
    if (conn == NULL && call->pipelinable && origin->client->options.pipeline_max > 1) {
        conn = find_pipeline(origin);
    }
    if (conn != NULL) {
        return conn;
    }
    if (!may_connect(origin)) {
        *out_go_on = false;
        return NULL;
    }
    rc = bop__client_connect(origin, &conn, &call->error);
    if (rc != 0) {
        bop__call_end_later(call, rc);
        return NULL;
    }
    return conn;
}

void bop__origin_dispatch(struct bop__client_origin *origin)
{
    bool go_on = !origin->client->destroying;

    while (go_on && !bop_list_empty(&origin->waiting)) {
        struct bop__call *call = BOP_CONTAINER_OF(origin->waiting.next, struct bop__call, link);
        struct bop__client_conn *conn = find_connection(origin, call, &go_on);

        if (conn != NULL) {
            bop__call_detach(call);
            bop__conn_take(conn, call);
        }
    }
}

void bop__client_dispatch_all(struct bop_http_client *client)
{
    for (size_t i = 0; client->waiting > 0 && i < BOP__CLIENT_BUCKETS; i++) {
        BOP_LIST_FOR_EACH(link, &client->buckets[i]) {
            bop__origin_dispatch(BOP_CONTAINER_OF(link, struct bop__client_origin, link));
        }
    }
}
