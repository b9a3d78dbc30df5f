/*
 * A client's counters in a registry.
 */
#include <stddef.h>

#include "../loop/loop_internal.h"
#include "../metrics/export.h"
#include "client_internal.h"

#define COUNTER(field) offsetof(struct bop_http_client_counters, field)

static const struct bop__series all_series[] = {
    {"bop_http_client_calls_total", NULL, "Calls begun.", COUNTER(calls), false},
    {"bop_http_client_failed_total", NULL, "Calls that ended without an answer.", COUNTER(failed),
     false},
    {"bop_http_client_retried_total", NULL,
     "Calls made again, as the kept connection had been closed.", COUNTER(retried), false},
    {"bop_http_client_redirected_total", NULL, "Redirects followed.", COUNTER(redirected), false},
    {"bop_http_client_connections_total", NULL, "Connections made.", COUNTER(connections), false},
    {"bop_http_client_reused_total", NULL, "Calls on a kept connection.", COUNTER(reused), false},
    {"bop_http_client_connections", NULL, "Connections, those being made included.",
     COUNTER(open_now), true},
    {"bop_http_client_kept", NULL, "Connections kept for the next call.", COUNTER(kept_now), true},
    {"bop_http_client_waiting", NULL, "Calls that wait for a connection.", COUNTER(waiting_now),
     true},
};

static void publish(struct bop_http_client *client)
{
    struct bop_http_client_counters counters = bop_http_client_counters(client);

    bop__export_update(client->exported, &counters);
}

void bop__client_publish_soon(struct bop_http_client *client)
{
    if (client->exported != NULL && !bop_timer_is_running(&client->publish)) {
        BOP_IGNORE(bop_timer_start(client->loop, &client->publish,
                                   BOP__EXPORT_INTERVAL_MS)); /* Always 0. */
    }
}

static void on_publish(struct bop_timer *timer)
{
    struct bop_http_client *client = BOP_CONTAINER_OF(timer, struct bop_http_client, publish);

    publish(client);
    if (client->conn_count > 0 || client->waiting > 0) {
        bop__client_publish_soon(client);
    }
}

int bop_http_client_metrics(struct bop_http_client *client, struct bop_metrics *metrics,
                            const char *labels)
{
    if (client->exported == NULL) {
        client->exported = bop__export_create(client->allocator, metrics, labels, all_series,
                                              BOP_COUNT_OF(all_series));
        if (client->exported == NULL) {
            return BOP_ENOMEM;
        }
        bop_timer_init(&client->publish, on_publish);
        bop__client_publish_soon(client);
    }
    if (bop__export_registry(client->exported) != metrics) {
        return BOP_EINVAL;
    }
    publish(client);
    return 0;
}

void bop__client_unexport(struct bop_http_client *client)
{
    if (client->exported != NULL) {
        publish(client);
        bop_timer_stop(client->loop, &client->publish);
        bop__export_destroy(client->exported);
        client->exported = NULL;
    }
}
