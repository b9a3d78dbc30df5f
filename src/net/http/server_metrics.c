/*
 * A server's counters in a registry.
 */
#include "server_internal.h"

#define COUNTER(field) offsetof(struct bop_http_counters, field)

static const struct bop__series all_series[] = {
    {"bop_http_connections_total", NULL, "Connections accepted.", COUNTER(connections), false},
    {"bop_http_connections", NULL, "Connections that are open.", COUNTER(connections_now), true},
    {"bop_http_requests_total", NULL, "Requests, malformed ones included.", COUNTER(requests),
     false},
    {"bop_http_responses_total", "class=\"none\"", "Answers, by class of their status.",
     COUNTER(responses[0]), false},
    {"bop_http_responses_total", "class=\"1xx\"", "Answers, by class of their status.",
     COUNTER(responses[1]), false},
    {"bop_http_responses_total", "class=\"2xx\"", "Answers, by class of their status.",
     COUNTER(responses[2]), false},
    {"bop_http_responses_total", "class=\"3xx\"", "Answers, by class of their status.",
     COUNTER(responses[3]), false},
    {"bop_http_responses_total", "class=\"4xx\"", "Answers, by class of their status.",
     COUNTER(responses[4]), false},
    {"bop_http_responses_total", "class=\"5xx\"", "Answers, by class of their status.",
     COUNTER(responses[5]), false},
    {"bop_http_malformed_total", NULL, "Requests that the parser refused.", COUNTER(malformed),
     false},
    {"bop_http_timeouts_total", NULL, "Requests and answers that took too long.", COUNTER(timeouts),
     false},
    {"bop_http_aborted_total", NULL, "Connections that went before their answer was whole.",
     COUNTER(aborted), false},
    {"bop_http_refused_total", NULL, "Connections above the listener's most.", COUNTER(refused),
     false},
    {"bop_http_out_of_files_total", NULL, "Times that accepting waited for a descriptor.",
     COUNTER(out_of_files), false},
    {"bop_http_received_bytes_total", NULL, "Bytes of requests.", COUNTER(bytes_received), false},
    {"bop_http_slow_total", NULL, "Times that a client did not take its answers.", COUNTER(slow),
     false},
    {"bop_http_slow", NULL, "Connections whose clients do not take their answers.",
     COUNTER(slow_now), true},
    {"bop_http_sent_bytes_total", NULL, "Bytes of answers.", COUNTER(bytes_sent), false},
};

void bop__http_metrics_publish(struct bop_http_server *server)
{
    if (server->exported != NULL) {
        struct bop_http_counters counters = bop_http_counters(server);

        bop__export_update(server->exported, &counters);
    }
}

void bop__http_metrics_end(struct bop_http_server *server)
{
    bop__http_metrics_publish(server);
    bop__export_destroy(server->exported);
    server->exported = NULL;
}

int bop_http_metrics(struct bop_http_server *server, struct bop_metrics *metrics,
                     const char *labels)
{
    if (server->exported == NULL) {
        server->exported = bop__export_create(server->allocator, metrics, labels, all_series,
                                              BOP_COUNT_OF(all_series));
        if (server->exported == NULL) {
            return BOP_ENOMEM;
        }
    }
    if (bop__export_registry(server->exported) != metrics) {
        return BOP_EINVAL;
    }
    bop__http_metrics_publish(server);
    return 0;
}
