/*
 * Counters of WebSockets and of topics in a registry.
 *
 * A group says how its own stand with its wheel's ticks, once a second and when
 * its last connection has gone; with them it says how its topics' stand.
 */
#include <stddef.h>

#include <bop/error.h>

#include "../metrics/export.h"
#include "conn.h"

#define GROUP(field) offsetof(struct bop_ws_counters, field)

static const struct bop__series group_series[] = {
    {"bop_ws_opened_total", NULL, "WebSockets opened.", GROUP(opened), false},
    {"bop_ws_open", NULL, "WebSockets that are open.", GROUP(open_now), true},
    {"bop_ws_received_messages_total", NULL, "Whole messages received.", GROUP(messages_received),
     false},
    {"bop_ws_sent_messages_total", NULL, "Messages sent, not those of topics.",
     GROUP(messages_sent), false},
    {"bop_ws_pings_total", NULL, "Pings that connections sent by themselves.", GROUP(pings_sent),
     false},
    {"bop_ws_slow_total", NULL, "Times that something was dropped for a slow peer.", GROUP(slow),
     false},
    {"bop_ws_slow_closed_total", NULL, "WebSockets closed as their peer was slow.",
     GROUP(slow_closed), false},
    {"bop_ws_failed_total", NULL, "WebSockets whose peer broke a rule or a bound.", GROUP(failed),
     false},
    {"bop_ws_timeouts_total", NULL, "WebSockets cut as nothing came, or no close frame.",
     GROUP(timeouts), false},
};

#define TOPICS(field) offsetof(struct bop_topics_counters, field)

static const struct bop__series topics_series[] = {
    {"bop_topics", NULL, "Topics that have subscribers, counted on each loop.", TOPICS(topics),
     true},
    {"bop_topics_subscriptions", NULL, "Subscriptions to topics.", TOPICS(subscriptions), true},
    {"bop_topics_published_total", NULL, "Messages published.", TOPICS(published), false},
    {"bop_topics_delivered_total", NULL, "Messages sent to subscribers.", TOPICS(delivered), false},
    {"bop_topics_dropped_total", NULL, "Messages dropped for slow subscribers.", TOPICS(dropped),
     false},
    {"bop_topics_closed_total", NULL, "Subscribers closed as they were slow.", TOPICS(closed),
     false},
};

/* ---- WebSockets ---- */

int bop__ws_group_export(struct bop__ws_group *group)
{
    const struct bop_ws_options *options = &group->options;

    if (options->metrics == NULL) {
        return 0;
    }
    group->exported = bop__export_create(group->home->loop->allocator, options->metrics,
                                         options->metrics_labels, group_series,
                                         BOP_COUNT_OF(group_series));
    return group->exported != NULL ? 0 : BOP_ENOMEM;
}

static void publish_topics(struct bop_topics *topics)
{
    pthread_mutex_lock(&topics->export_lock);
    if (topics->exported != NULL) {
        struct bop_topics_counters counters = bop_topics_counters(topics);

        bop__export_update(topics->exported, &counters);
    }
    pthread_mutex_unlock(&topics->export_lock);
}

void bop__ws_group_publish(struct bop__ws_group *group)
{
    bop__export_update(group->exported, group->counters);
    if (group->branch != NULL) {
        publish_topics(group->branch->topics);
    }
}

void bop__ws_group_unexport(struct bop__ws_group *group)
{
    bop__ws_group_publish(group);
    bop__export_destroy(group->exported);
    group->exported = NULL;
}

/* ---- Topics ---- */

int bop_topics_metrics(struct bop_topics *topics, struct bop_metrics *metrics, const char *labels)
{
    int rc = 0;

    pthread_mutex_lock(&topics->export_lock);
    if (topics->exported == NULL) {
        topics->exported = bop__export_create(topics->allocator, metrics, labels, topics_series,
                                              BOP_COUNT_OF(topics_series));
        rc = topics->exported != NULL ? 0 : BOP_ENOMEM;
    } else if (bop__export_registry(topics->exported) != metrics) {
        rc = BOP_EINVAL;
    }
    pthread_mutex_unlock(&topics->export_lock);
    if (rc == 0) {
        publish_topics(topics);
    }
    return rc;
}

void bop__topics_unexport(struct bop_topics *topics)
{
    publish_topics(topics);
    pthread_mutex_lock(&topics->export_lock);
    bop__export_destroy(topics->exported);
    topics->exported = NULL;
    pthread_mutex_unlock(&topics->export_lock);
}
