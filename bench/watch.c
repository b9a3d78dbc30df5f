/*
 * One event to many watches: how long until the last one has it.
 *
 *     watch --servers HOST:PORT,... [--watches N] [--connections C] [--events E]
 *
 * N watches of one key on C connections are opened; then E times in turn the key is put by
 * a client of its own, and when all N watches were told the next put follows. The time of an
 * event runs from the call that asks for the put to the callback of the last watch; all
 * connections are on one loop of this process, whose share of the time it includes. It prints
 * "NAME VALUE" lines. Exit status 1 if an event is told twice, late or never.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/client_watch.h>

#define CONNECTIONS_MAX 1000
#define SERVERS_MAX     16
#define EVENTS_MAX      1000
#define PATIENCE_MS     60000

struct bench {
    struct bop_loop *loop;
    struct bop_client *clients[CONNECTIONS_MAX + 1]; /* The last one writes. */
    struct bop_client_watch **watches;
    const char *servers[SERVERS_MAX];
    size_t server_count;
    uint64_t count;
    uint64_t connections;
    uint64_t events;
    uint64_t told; /* Of the event under way. */
    uint64_t round;
    bool written;
    bool failed;
    double times_ms[EVENTS_MAX];
};

static double now_ms(void)
{
    return (double)bop_clock_monotonic_us(bop_clock_system()) / 1000;
}

static void on_news(void *user, const struct bop_client_news *news)
{
    struct bench *bench = user;
    struct bop_slice rest = news->events;
    struct bop_event event;

    if (news->code != 0) {
        return;
    }
    if (news->flags & BOP_WATCH_EVENTS_RESYNC) {
        bench->failed = true;
    }
    while (bop_event_next(&rest, &event) > 0) {
        bench->failed = bench->failed || event.value.size != sizeof(bench->round) ||
                        memcmp(event.value.data, &bench->round, sizeof(bench->round)) != 0;
        bench->told++;
    }
}

static void on_written(void *user, int code, const struct bop_result *result)
{
    struct bench *bench = user;

    bench->written = true;
    bench->failed = bench->failed || code != 0;
}

static void complain(const char *text)
{
    fprintf(stderr, "watch: %s\n", text);
    exit(1);
}

static void turn(struct bench *bench, double begun_ms)
{
    if (bop_loop_run_once(bench->loop, 100) < 0 || bench->failed) {
        complain("an event was told twice or wrongly, or a request failed");
    }
    if (now_ms() - begun_ms > PATIENCE_MS) {
        complain("no end of it");
    }
}

static void open_all(struct bench *bench)
{
    struct bop_client_options options = {
        .loop = bench->loop, .endpoints = bench->servers, .endpoint_count = bench->server_count};
    struct bop_slice key = bop_slice_cstr("k");
    struct bop_client_watch_options what = {
        .what = BOP_WATCH_MAP, .name = bop_slice_cstr("watched"), .key = &key};
    double begun_ms = now_ms();
    uint64_t open = 0;

    for (uint64_t n = 0; n <= bench->connections; n++) {
        if (bop_client_create(&options, &bench->clients[n], NULL) < 0) {
            complain("no client");
        }
    }
    for (uint64_t n = 0; n < bench->count; n++) {
        if (bop_client_watch_open(bench->clients[n % bench->connections], &what, on_news, bench,
                                  &bench->watches[n]) < 0) {
            complain("no watch");
        }
    }
    while (open < bench->count) {
        turn(bench, begun_ms);
        while (open < bench->count && bop_client_watch_revision(bench->watches[open]) > 0) {
            open++;
        }
    }
    printf("open_ms %.1f\n", now_ms() - begun_ms);
}

static void one_event(struct bench *bench, uint64_t round)
{
    double begun_ms = now_ms();

    bench->told = 0;
    bench->round = round;
    bench->written = false;
    if (bop_client_map_put(bench->clients[bench->connections], bop_slice_cstr("watched"),
                           bop_slice_cstr("k"), bop_slice(&bench->round, sizeof(bench->round)),
                           NULL, on_written, bench) < 0) {
        complain("no put");
    }
    while (bench->told < bench->count || !bench->written) {
        turn(bench, begun_ms);
    }
    bench->times_ms[round] = now_ms() - begun_ms;
    bench->failed = bench->failed || bench->told != bench->count;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

static void parse(struct bench *bench, int argc, char **argv)
{
    static const struct option options[] = {{"servers", required_argument, NULL, 's'},
                                            {"watches", required_argument, NULL, 'n'},
                                            {"connections", required_argument, NULL, 'c'},
                                            {"events", required_argument, NULL, 'e'},
                                            {0}};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 's':
            for (char *at = strtok(optarg, ","); at && bench->server_count < SERVERS_MAX;
                 at = strtok(NULL, ",")) {
                bench->servers[bench->server_count++] = at;
            }
            break;
        case 'n':
            bench->count = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            bench->connections = strtoull(optarg, NULL, 10);
            break;
        case 'e':
            bench->events = strtoull(optarg, NULL, 10);
            break;
        default:
            exit(2);
        }
    }
    if (bench->server_count == 0 || bench->count == 0 || bench->connections == 0 ||
        bench->connections > CONNECTIONS_MAX || bench->events == 0 || bench->events > EVENTS_MAX) {
        fprintf(stderr, "watch: --servers is wanted, and numbers that make sense\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct bench bench = {.count = 100000, .connections = 100, .events = 20};
    struct bop_loop_options options = {0};

    parse(&bench, argc, argv);
    bench.watches = calloc(bench.count, sizeof(struct bop_client_watch *));
    if (!bench.watches || bop_loop_create(&options, &bench.loop) < 0) {
        complain("no memory");
    }
    open_all(&bench);
    for (uint64_t n = 0; n < bench.events; n++) {
        one_event(&bench, n);
    }
    qsort(bench.times_ms, bench.events, sizeof(double), compare);
    printf("event_ms_median %.1f\nevent_ms_max %.1f\n", bench.times_ms[bench.events / 2],
           bench.times_ms[bench.events - 1]);
    for (uint64_t n = 0; n <= bench.connections; n++) {
        bop_client_destroy(bench.clients[n]);
    }
    bop_loop_destroy(bench.loop);
    free(bench.watches);
    return bench.failed;
}
