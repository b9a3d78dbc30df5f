/*
 * The counters in a registry. What was counted since the last time is added, so
 * that servers may share the metrics; a request costs nothing more.
 */
#include <stdio.h>

#include "server_internal.h"

struct series {
    const char *name;
    const char *labels; /* Beside the user's. */
    const char *help;
    size_t offset; /* In struct bop_http_counters. */
    bool gauge;
};

#define COUNTER(field) offsetof(struct bop_http_counters, field)

static const struct series all_series[BOP__HTTP_METRICS] = {
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

static int64_t value_of(const struct bop_http_counters *counters, const struct series *series)
{
    uint64_t value;

    memcpy(&value, (const char *)counters + series->offset, sizeof(value));
    return (int64_t)value;
}

static struct bop_metric *make(struct bop_metrics *metrics, const struct series *series,
                               const char *labels)
{
    char both[256];

    snprintf(both, sizeof(both), "%s%s%s", labels != NULL ? labels : "",
             labels != NULL && series->labels != NULL ? "," : "",
             series->labels != NULL ? series->labels : "");
    return series->gauge
               ? bop_metrics_gauge(metrics, series->name, both[0] ? both : NULL, series->help)
               : bop_metrics_counter(metrics, series->name, both[0] ? both : NULL, series->help);
}

void bop__http_metrics_publish(struct bop_http_server *server)
{
    struct bop_http_counters counters;

    if (server->metrics == NULL) {
        return;
    }
    counters = bop_http_counters(server);
    for (size_t i = 0; i < BOP_COUNT_OF(all_series); i++) {
        bop_metric_add(server->series[i], value_of(&counters, &all_series[i]) -
                                              value_of(&server->published, &all_series[i]));
    }
    server->published = counters;
}

void bop__http_metrics_end(struct bop_http_server *server)
{
    bop__http_metrics_publish(server);
    for (size_t i = 0; server->metrics != NULL && i < BOP_COUNT_OF(all_series); i++) {
        if (all_series[i].gauge) {
            bop_metric_add(server->series[i], -value_of(&server->published, &all_series[i]));
        }
    }
    server->metrics = NULL;
}

int bop_http_metrics(struct bop_http_server *server, struct bop_metrics *metrics,
                     const char *labels)
{
    struct bop_metric *series[BOP__HTTP_METRICS];

    if (server->metrics != NULL && server->metrics != metrics) {
        return BOP_EINVAL;
    }
    if (server->metrics == NULL) {
        for (size_t i = 0; i < BOP_COUNT_OF(all_series); i++) {
            series[i] = make(metrics, &all_series[i], labels);
            if (series[i] == NULL) {
                return BOP_ENOMEM;
            }
        }
        memcpy(server->series, series, sizeof(series));
        server->metrics = metrics;
    }
    bop__http_metrics_publish(server);
    return 0;
}
