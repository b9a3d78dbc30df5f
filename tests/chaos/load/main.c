/*
 * chaos_load: keep a cluster busy and write the history.
 *
 *     chaos_load --servers HOST:PORT,... --history FILE [--workloads NAME,...]
 *                [--rate N] [--seed N] [--bulk BYTES] [--bulk-state BYTES]
 *
 * One connection stays with each server, whoever leads (so that what a server that
 * is cut off says is heard), and two go where the leader is. SIGTERM ends it in order: see
 * load.h. It prints how many operations were ok, failed and are unknown.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

#define CLIENTS_MAX        18 /* 16 servers, and */
#define ROAMING            2  /* that many that follow the leader. */
#define SLOTS_MAX          1024
#define LASTS              8 /* Final operations at a time. */
#define TICK_MS            5
#define REQUEST_TIMEOUT_MS 4000
#define SESSION_TIMEOUT_MS 6000
#define FINAL_PAUSE_MS     100
#define DEFAULT_RATE       1500

static const struct workload *const workloads[] = {
    &load_register,  &load_counter, &load_tally, &load_set,   &load_list, &load_lock,
    &load_lock_wait, &load_bank,    &load_skew,  &load_watch, &load_bulk,
};
#define WORKLOADS (sizeof(workloads) / sizeof(*workloads))

/* Does final operations. */
struct last {
    struct slot slot;
    const struct workload *workload; /* Whose step is under way or to be asked for again, */
    size_t step;                     /* this one. NULL: none. */
};

static struct {
    const char *servers[CLIENTS_MAX];
    size_t server_count;
    bool wanted[WORKLOADS];
    unsigned rate;
    const char *ca; /* NULL: no TLS. */

    struct bop_loop *loop;
    struct bop_client *clients[CLIENTS_MAX];
    size_t client_count;
    struct slot slots[SLOTS_MAX];
    size_t slot_count;
    size_t first; /* To be asked next. */
    double allowance;
    struct bop_timer tick;
    uint64_t tick_ms;  /* When it was last, */
    uint64_t heard_ms; /* and the time before. */

    struct last lasts[LASTS];
    size_t last_workload; /* Whose next step */
    size_t last_step;     /* nobody has begun yet. */
} load = {.rate = DEFAULT_RATE};

static volatile sig_atomic_t told_to_stop;

static void on_signal(int number)
{
    told_to_stop = 1;
}

BOP_NORETURN static void die(const char *what, const char *why)
{
    fprintf(stderr, "chaos_load: %s: %s\n", what, why);
    exit(2);
}

/* ---- Turning ---- */

static void begin_operations(void)
{
    load.allowance += (double)load.rate * TICK_MS / 1000;
    if (load.allowance > load.rate) {
        load.allowance = load.rate;
    }
    for (size_t tried = 0; tried < load.slot_count && load.allowance >= 1; tried++) {
        struct slot *slot = &load.slots[load.first];

        load.first = (load.first + 1) % load.slot_count;
        if (!slot->busy && slot->workload->next(slot)) {
            load.allowance--;
        }
    }
}

static bool all_idle(void)
{
    for (size_t i = 0; i < load.slot_count; i++) {
        if (load.slots[i].busy) {
            return false;
        }
    }
    return true;
}

/* Begin the next of the final operations. Returns false if there are no more. */
static bool begin_last(struct last *last)
{
    for (; load.last_workload < WORKLOADS; load.last_workload++, load.last_step = 0) {
        const struct workload *workload = workloads[load.last_workload];

        if (load.wanted[load.last_workload] && workload->final != NULL &&
            workload->final(&last->slot, load.last_step)) {
            last->workload = workload;
            last->step = load.last_step++;
            return true;
        }
    }
    last->workload = NULL;
    return false;
}

/* Keep all of them busy; what got no answer is asked for again. Returns when to look again, or 0
 * when all are done. */
static uint64_t go_on_finishing(void)
{
    uint64_t pause_ms = 0;

    for (size_t n = 0; n < LASTS; n++) {
        struct last *last = &load.lasts[n];

        if (!last->slot.busy && last->workload != NULL && !last->slot.answered) {
            BOP_IGNORE(last->workload->final(&last->slot, last->step));
            pause_ms = FINAL_PAUSE_MS;
        } else if (last->slot.busy || begin_last(last)) {
            pause_ms = bop_max_u64(pause_ms, 1);
        }
    }
    return pause_ms;
}

/* A turn of the loop hears what has come, then looks at the timers that are due. */
int64_t load_heard_ns(void)
{
    return (int64_t)load.heard_ms * 1000000;
}

static void look_at_clock(void)
{
    load.heard_ms = load.tick_ms;
    load.tick_ms = bop_loop_now_ms(load.loop);
}

static void on_tick(struct bop_timer *timer)
{
    uint64_t pause_ms = TICK_MS;

    look_at_clock();

    if (!told_to_stop) {
        begin_operations();
    } else if (all_idle()) {
        pause_ms = go_on_finishing();
        if (pause_ms == 0) {
            bop_loop_stop(load.loop);
            return;
        }
    }
    BOP_IGNORE(bop_timer_start(load.loop, timer, pause_ms));
}

/* ---- Setting up ---- */

static void add_client(const char *const *endpoints, size_t count, bool pin)
{
    struct bop_client_options options = {
        .loop = load.loop,
        .endpoints = endpoints,
        .endpoint_count = count,
        .name = "chaos",
        .request_timeout_ms = REQUEST_TIMEOUT_MS,
        .session_timeout_ms = SESSION_TIMEOUT_MS,
        .pin = pin,
    };
    struct bop_client_tls tls = {.ca = load.ca};
    struct bop_error err;

    options.tls = load.ca ? &tls : NULL;
    if (bop_client_create(&options, &load.clients[load.client_count], &err) != 0) {
        die("client", err.message);
    }
    load.client_count++;
}

static void add_slot(struct bop_client *client, const struct workload *workload)
{
    struct slot *slot;

    if (load.slot_count == SLOTS_MAX) {
        die("slots", "too many");
    }
    slot = &load.slots[load.slot_count];
    slot->client = client;
    slot->workload = workload;
    slot->process = (uint32_t)load.slot_count++;
    bop_buf_init(&slot->buf, NULL, 0);
}

static void set_up(void)
{
    struct bop_loop_options options = {0};

    if (bop_loop_create(&options, &load.loop) != 0) {
        die("loop", "cannot be made");
    }
    for (size_t i = 0; i < load.server_count; i++) {
        add_client(&load.servers[i], 1, true);
    }
    for (size_t i = 0; i < ROAMING; i++) {
        add_client(load.servers, load.server_count, false);
    }
    for (size_t w = 0; w < WORKLOADS; w++) {
        for (unsigned n = 0; load.wanted[w] && n < workloads[w]->weight; n++) {
            for (size_t c = 0; c < load.client_count; c++) {
                add_slot(load.clients[c], workloads[w]);
            }
        }
    }
    for (size_t n = 0; n < LASTS; n++) {
        load.lasts[n].slot.client = load.clients[load.client_count - 1];
        load.lasts[n].slot.process = (uint32_t)(load.slot_count + n);
        bop_buf_init(&load.lasts[n].slot.buf, NULL, 0);
    }
    bop_timer_init(&load.tick, on_tick);
    BOP_IGNORE(bop_timer_start(load.loop, &load.tick, 0));
}

static void tear_down(void)
{
    bop_timer_stop(load.loop, &load.tick);
    for (size_t i = 0; i < load.client_count; i++) {
        bop_client_destroy(load.clients[i]);
    }
    for (size_t i = 0; i < load.slot_count; i++) {
        bop_buf_deinit(&load.slots[i].buf);
    }
    for (size_t n = 0; n < LASTS; n++) {
        bop_buf_deinit(&load.lasts[n].slot.buf);
    }
    bop_loop_destroy(load.loop);
}

/* ---- Options ---- */

static void take_servers(char *text)
{
    for (char *word = strtok(text, ","); word != NULL; word = strtok(NULL, ",")) {
        if (load.server_count == CLIENTS_MAX - ROAMING) {
            die("--servers", "too many");
        }
        load.servers[load.server_count++] = word;
    }
}

static void take_workloads(char *text)
{
    for (char *word = strtok(text, ","); word != NULL; word = strtok(NULL, ",")) {
        size_t found = 0;

        while (found < WORKLOADS && strcmp(workloads[found]->name, word) != 0) {
            found++;
        }
        if (found == WORKLOADS) {
            die(word, "no such workload");
        }
        load.wanted[found] = true;
    }
}

static FILE *take_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"servers", required_argument, NULL, 's'},
        {"history", required_argument, NULL, 'h'},
        {"workloads", required_argument, NULL, 'w'},
        {"rate", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 'x'},
        {"bulk", required_argument, NULL, 'b'},
        {"bulk-state", required_argument, NULL, 'm'},
        {"ca", required_argument, NULL, 'a'},
        {0},
    };
    char usual[] = "register,counter,tally,set,list,lock,lock-wait,bank,skew,watch";
    bool chosen = false;
    uint64_t seed = 1;
    FILE *out = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 's':
            take_servers(optarg);
            break;
        case 'h':
            out = fopen(optarg, "w");
            break;
        case 'w':
            take_workloads(optarg);
            chosen = true;
            break;
        case 'r':
            load.rate = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'x':
            seed = strtoull(optarg, NULL, 10);
            break;
        case 'a':
            load.ca = optarg;
            break;
        case 'b':
            load_bulk_bytes = strtoull(optarg, NULL, 10);
            break;
        case 'm':
            load_bulk_state = strtoull(optarg, NULL, 10);
            break;
        default:
            exit(2);
        }
    }
    if (!chosen) {
        take_workloads(usual);
    }
    if (out == NULL || load.server_count == 0 || load.rate == 0 || load_bulk_bytes == 0) {
        die("usage", "chaos_load --servers HOST:PORT,... --history FILE [--workloads NAME,...] "
                     "[--rate N] [--seed N] [--bulk BYTES] [--bulk-state BYTES] [--ca FILE]");
    }
    bop_random_seed(&load_random, seed);
    return out;
}

int main(int argc, char **argv)
{
    FILE *out = take_options(argc, argv);
    struct load_counts counts;
    int rc;

    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    load_record_to(out);
    set_up();
    rc = bop_loop_run(load.loop);
    tear_down();
    load_record_counts(&counts);
    printf("ok %" PRIu64 " fail %" PRIu64 " unknown %" PRIu64 "\n", counts.by_outcome[CHAOS_OK],
           counts.by_outcome[CHAOS_FAIL], counts.by_outcome[CHAOS_UNKNOWN]);
    return fclose(out) != 0 || rc != 0;
}
