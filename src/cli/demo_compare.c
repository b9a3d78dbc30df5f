/*
 * The end of the demo: each node by itself is asked for all it has, and that is
 * compared with what was written.
 *
 * A client is pinned to the node, and its reads are linearizable: the node makes
 * sure that it is not behind, then answers from its own state.
 */
#include <inttypes.h>

#include "demo.h"

#define PAGE_ENTRIES      1000
#define READ_TIMEOUT_MS   30000
#define COUNTER_RETRY_MAX 3

struct reading {
    struct demo *demo;
    struct demo_check *check;
    struct bop_client *client;
    struct bop_buf cursor;
    int64_t counter;
    int code;
    bool waiting;
};

/* ---- Catching up ---- */

static bool same_applied(const struct demo *demo)
{
    bool same = true;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        const struct probe *probe = &demo->probes[i];

        same = same && probe->answered && probe->heard_us >= demo->load.ended_us &&
               probe->status.applied == demo->probes[0].status.applied;
    }
    return same;
}

static bool killed_caught_up(const struct demo *demo, uint64_t goal)
{
    const struct probe *probe = &demo->probes[demo->killed];

    return probe->answered && probe->heard_us >= demo->load.ended_us &&
           probe->status.applied >= goal;
}

/* What the living nodes have committed: the killed one has to come there. */
static uint64_t goal_of(const struct demo *demo)
{
    uint64_t goal = 0;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        if (i != demo->killed && demo->probes[i].answered) {
            goal = bop_max_u64(goal, demo->probes[i].status.commit);
        }
    }
    return goal;
}

static int wait_until_caught_up(struct demo *demo)
{
    uint64_t from = bop_clock_monotonic_us(bop_clock_system());
    bool told = false;

    while (!told || !same_applied(demo)) {
        int rc = demo_turn(demo);

        if (rc < 0) {
            return rc;
        }
        if (!told && killed_caught_up(demo, goal_of(demo))) {
            told = true;
            demo_tell(demo, DEMO_GOOD, "node %u has caught up: entry %" PRIu64 " of the log",
                      demo->killed + 1, demo->probes[demo->killed].status.applied);
        }
        if (bop_clock_monotonic_us(bop_clock_system()) - from > DEMO_PATIENCE_US) {
            return demo_too_long(demo, "for the three nodes to have applied the same");
        }
    }
    demo->digests_equal =
        demo->probes[0].status.applied_digest == demo->probes[1].status.applied_digest &&
        demo->probes[0].status.applied_digest == demo->probes[2].status.applied_digest;
    demo_tell(demo, demo->digests_equal ? DEMO_GOOD : DEMO_BAD,
              "the digests of all that was applied are %s on the three nodes",
              demo->digests_equal ? "equal" : "NOT equal");
    return 0;
}

/* ---- Reading a node ---- */

static void on_page(void *user, int code, const struct bop_result *result)
{
    struct reading *reading = (struct reading *)user;
    struct bop_slice entries = result->entries;
    struct bop_scan_entry entry;

    reading->waiting = false;
    reading->code = code;
    while (code == 0 && bop_scan_next(&entries, &entry)) {
        demo_check_entry(reading->check, entry.key, entry.value, entry.version);
    }
    bop_buf_clear(&reading->cursor);
    if (code == 0) {
        reading->code = bop_buf_append(&reading->cursor, result->cursor.data, result->cursor.size);
    }
}

static void on_counter(void *user, int code, const struct bop_result *result)
{
    struct reading *reading = (struct reading *)user;

    reading->waiting = false;
    reading->code = code;
    reading->counter = result->number;
}

/* Turn until what was asked for with code rc has been answered. */
static int wait_for(struct reading *reading, int rc, const char *what)
{
    reading->code = rc;
    reading->waiting = rc == 0;
    while (reading->waiting) {
        rc = demo_turn(reading->demo);
        if (rc < 0) {
            return rc;
        }
    }
    return reading->code < 0 ? bop_error_set(&reading->demo->err, reading->code, "%s", what) : 0;
}

static int read_all(struct reading *reading)
{
    int rc;

    do {
        rc = bop_client_map_scan(reading->client, bop_slice_cstr(DEMO_MAP),
                                 bop_buf_slice(&reading->cursor), PAGE_ENTRIES,
                                 BOP_READ_LINEARIZABLE, on_page, reading);
        rc = wait_for(reading, rc, "read the map");
        progress_show(&reading->demo->progress, reading->check->found, "");
    } while (rc == 0 && reading->cursor.size > 0);
    if (rc < 0) {
        return rc;
    }
    rc = bop_client_counter_get(reading->client, bop_slice_cstr(DEMO_COUNTER),
                                BOP_READ_LINEARIZABLE, on_counter, reading);
    return wait_for(reading, rc, "read the counter");
}

static void tell_node(struct demo *demo, unsigned i)
{
    const struct demo_check *check = &demo->checks[i];
    char count[COUNT_TEXT_MAX];

    count_text(check->found, count);
    if (demo_check_good(check) && check->found == demo->data.count) {
        demo_tell(demo, DEMO_GOOD, "node %u has the %s entries byte for byte, and nothing else",
                  i + 1, count);
        return;
    }
    demo_tell(demo, DEMO_BAD,
              "node %u has %s entries: %" PRIu64 " lost, %" PRIu64 " changed, %" PRIu64
              " written twice, %" PRIu64 " given twice, %" PRIu64 " that nobody wrote",
              i + 1, count, check->lost, check->different, check->doubled, check->repeated,
              check->unknown);
}

static int compare_node(struct demo *demo, unsigned i)
{
    const char *endpoint = demo->cluster.nodes[i].address;
    struct reading reading = {.demo = demo, .check = &demo->checks[i]};
    struct bop_client_options options = {
        .loop = demo->loop,
        .endpoints = &endpoint,
        .endpoint_count = 1,
        .cluster = DEMO_CLUSTER,
        .name = "bop demo",
        .request_timeout_ms = READ_TIMEOUT_MS,
        .pin = true,
    };
    int rc = demo_check_begin(&demo->checks[i], &demo->data);

    if (rc < 0) {
        return bop_error_set(&demo->err, rc, "compare node %u", i + 1);
    }
    bop_buf_init(&reading.cursor, NULL, 0);
    progress_init(&demo->progress, demo->out, "compared", demo->data.count, true);
    rc = bop_client_create(&options, &reading.client, &demo->err);
    if (rc == 0) {
        rc = read_all(&reading);
    }
    if (rc < 0) {
        bop_error_wrap(&demo->err, "node %u", i + 1);
    }
    bop_client_destroy(reading.client);
    bop_buf_deinit(&reading.cursor);
    demo_check_end(&demo->checks[i]);
    if (rc == 0) {
        demo->checked[i] = true;
        demo->counter = i == 0 || reading.counter > demo->counter ? reading.counter : demo->counter;
        tell_node(demo, i);
    }
    return rc;
}

int demo_compare(struct demo *demo)
{
    int rc = wait_until_caught_up(demo);

    for (unsigned i = 0; i < DEMO_NODES && rc == 0; i++) {
        rc = compare_node(demo, i);
    }
    return rc;
}
