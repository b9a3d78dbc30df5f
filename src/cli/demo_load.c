/*
 * Requests of the demo, counted and timed.
 */
#include "demo_load.h"

#include <stdlib.h>

static uint64_t now_us(void)
{
    return bop_clock_monotonic_us(bop_clock_system());
}

void demo_load_begin(struct demo_load *load, struct bop_client *client, struct demo_data *data)
{
    *load = (struct demo_load){
        .client = client,
        .data = data,
        .hold_at = data->count - data->count / 4,
        .started_us = now_us(),
    };
    for (unsigned i = 0; i < DEMO_OUTSTANDING; i++) {
        load->puts[i].load = load;
        load->puts[i].next = load->free;
        load->free = &load->puts[i];
    }
}

void demo_load_killed(struct demo_load *load)
{
    struct bop_client_info info;

    bop_client_info(load->client, &info);
    load->killed_us = now_us();
    load->killed_connects = info.connects;
    load->hold_at = load->data->count;
}

/* Answers that were on their way when the leader died do not end the gap. */
static void note_gap(struct demo_load *load, uint64_t now)
{
    struct bop_client_info info;

    if (load->killed_us == 0 || load->again_us != 0) {
        return;
    }
    bop_client_info(load->client, &info);
    if (info.connects > load->killed_connects) {
        load->again_us = now;
    }
}

static void fail(struct demo_load *load, int code)
{
    /* The end of the client is no failure of the load. */
    if (load->code == 0 && code != BOP_ECANCELED) {
        load->code = code;
    }
}

static void on_put(void *user, int code, const struct bop_result *result)
{
    struct demo_put *put = (struct demo_put *)user;
    struct demo_load *load = put->load;
    struct demo_entry *entry = &load->data->entries[put->entry];
    uint64_t now = now_us();

    put->next = load->free;
    load->free = put;
    if (code < 0) {
        fail(load, code);
        return;
    }
    entry->version = result->version;
    entry->latency_us = (uint32_t)bop_min_u64(now - put->asked_us, UINT32_MAX);
    load->existed += result->existed;
    load->acked++;
    load->ended_us = now;
    note_gap(load, now);
    demo_load_go_on(load);
}

static void on_added(void *user, int code, const struct bop_result *result)
{
    struct demo_load *load = (struct demo_load *)user;

    load->adding--;
    if (code < 0) {
        fail(load, code);
    }
}

static bool ask_for_next(struct demo_load *load)
{
    struct demo_put *put = load->free;
    int rc;

    put->entry = load->next;
    put->asked_us = now_us();
    rc = bop_client_map_put(load->client, bop_slice_cstr(DEMO_MAP),
                            demo_data_key(load->data, load->next),
                            demo_data_value(load->data, load->next), NULL, on_put, put);
    if (rc == 0) {
        load->free = put->next;
        load->next++;
        load->in_batch++;
    } else if (rc != BOP_EFULL) {
        fail(load, rc);
    }
    return rc == 0;
}

static bool add_batch(struct demo_load *load)
{
    int rc = bop_client_counter_add(load->client, bop_slice_cstr(DEMO_COUNTER),
                                    (int64_t)load->in_batch, on_added, load);

    if (rc == 0) {
        load->adding++;
        load->added += (int64_t)load->in_batch;
        load->in_batch = 0;
    } else if (rc != BOP_EFULL) {
        fail(load, rc);
    }
    return rc == 0;
}

void demo_load_go_on(struct demo_load *load)
{
    while (load->code == 0) {
        bool at_end = load->next == load->data->count;

        if (load->in_batch == DEMO_BATCH || (at_end && load->in_batch > 0)) {
            if (!add_batch(load)) {
                return;
            }
        }
        if (at_end || load->next >= load->hold_at || !load->free || !ask_for_next(load)) {
            return;
        }
    }
}

bool demo_load_done(const struct demo_load *load)
{
    return load->acked == load->data->count && load->adding == 0 && load->in_batch == 0;
}

static int compare_latencies(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

uint64_t demo_load_latency_us(const struct demo_load *load, double share)
{
    size_t count = load->data->count, at;
    uint32_t *latencies = reallocarray(NULL, count + 1, sizeof(*latencies));
    uint64_t latency = 0;

    if (latencies && count > 0) {
        for (size_t i = 0; i < count; i++) {
            latencies[i] = load->data->entries[i].latency_us;
        }
        qsort(latencies, count, sizeof(*latencies), compare_latencies);
        at = (size_t)((double)count * share);
        latency = latencies[at < count ? at : count - 1];
    }
    free(latencies);
    return latency;
}
