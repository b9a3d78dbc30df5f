/*
 * The load of bench/cluster: so many requests outstanding, each answered one
 * followed at once by the next, over the client library.
 *
 *     load --servers HOST:PORT,... --mode MODE [--outstanding K] [--clients C]
 *          [--seconds S] [--warmup S] [--keys N] [--size BYTES] [--seed N]
 *          [--trace] [--count-failed]
 *
 *     write     put values of --size bytes under random keys
 *     read      get random keys, linearizably
 *     counter   add to one of the keys' counters
 *     lock      acquire a lock of the request's own and release it: two writes, counted as one
 *     register  add registrations, each another one, at one of the keys' addresses
 *     failover  as write; what counts is the longest gap between answers
 *     fill      put each of the keys once, then end
 *     bulk      likewise, 1,000 with each request
 *     leader    end as soon as somebody leads
 *
 * It prints "NAME VALUE" lines. Latencies run from the call that asks to the
 * callback that answers, and are counted in buckets 1/64 of their value wide.
 * Answers before the warm-up is over are not counted. Exit status 1 if any
 * request failed: a figure with errors in it is none; but with --count-failed
 * they are told as "failed". With --trace there is a line "# SECONDS ANSWERS"
 * for every 50 ms on CLOCK_MONOTONIC, warm-up included. SIGTERM ends it early, and in
 * order: then "ops" and the quantiles mean nothing, the rest does.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <bop/client.h>
#include <bop/random.h>

#define OUTSTANDING_MAX BOP_CLIENT_OUTSTANDING_MAX
#define CLIENTS_MAX     64
#define VALUE_MAX       65536
#define KEY_BYTES       12 /* "key-" and 8 digits. */
#define NS_PER_S        1000000000ull
#define TICK_MS         5
#define GIVE_UP_S       30 /* After the end, and before the first answer. */
#define BULK_KEYS       1000
#define TRACE_NS        50000000ull
#define TRACE_SLOTS     12000 /* What is later is not traced. */

/* Buckets: 64 below 64 ns, then 64 an octave. */
#define SUB_BITS 6
#define BUCKETS  ((64 - SUB_BITS) << SUB_BITS)

enum mode {
    MODE_WRITE,
    MODE_READ,
    MODE_COUNTER,
    MODE_LOCK,
    MODE_REGISTER,
    MODE_FAILOVER,
    MODE_FILL,
    MODE_BULK,
    MODE_LEADER,
    MODE_COUNT
};

static const char *const mode_names[MODE_COUNT] = {
    "write", "read", "counter", "lock", "register", "failover", "fill", "bulk", "leader"};

struct settings {
    enum mode mode;
    const char *servers[BOP_CLIENT_ENDPOINTS_MAX];
    size_t server_count;
    unsigned outstanding;
    unsigned clients;
    double seconds;
    double warmup;
    unsigned keys;
    unsigned size;
    uint64_t seed;
    bool trace;
    bool count_failed;
};

/* One of K requests, again and again. */
struct slot {
    struct load *load;
    struct bop_client *client;
    uint64_t asked_ns;
    uint64_t ticket; /* Of the lock it holds; 0: none. */
};

struct load {
    struct settings settings;
    struct bop_loop *loop;
    struct bop_client *clients[CLIENTS_MAX];
    struct slot *slots;
    struct bop_random random;
    struct bop_timer tick;
    uint8_t value[VALUE_MAX];
    unsigned next_key;    /* Of fill; of bulk the next thousand. */
    struct bop_buf items; /* Of bulk. */
    uint64_t registrations;
    unsigned under_way;
    bool stopping;
    uint64_t begun_ns;
    uint64_t first_ns; /* First answer; 0: none yet. */
    uint64_t count_from_ns;
    uint64_t count_to_ns;
    uint64_t last_ns; /* Last answer. */
    uint64_t gap_ns;  /* The longest between two answers... */
    uint64_t gap_end_ns;
    uint64_t answers;
    uint64_t counted;
    uint64_t errors;
    uint64_t slowest_ns;
    int first_error;
    uint64_t buckets[BUCKETS];
    uint32_t trace[TRACE_SLOTS];
};

static volatile sig_atomic_t told_to_stop;

static void on_signal(int number)
{
    BOP_IGNORE(number);
    told_to_stop = 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- Latencies ---- */

static unsigned bucket_of(uint64_t ns)
{
    unsigned octave;

    if (ns < 1u << SUB_BITS) {
        return (unsigned)ns;
    }
    octave = 63u - (unsigned)__builtin_clzll(ns) - SUB_BITS;
    return (octave + 1) << SUB_BITS | (unsigned)(ns >> octave & ((1u << SUB_BITS) - 1));
}

/* The upper end of a bucket: a quantile is never flattered. */
static uint64_t bucket_end(unsigned bucket)
{
    unsigned octave = bucket >> SUB_BITS;
    uint64_t sub = bucket & ((1u << SUB_BITS) - 1);

    return octave == 0 ? sub : ((sub | 1u << SUB_BITS) + 1) << (octave - 1);
}

static double quantile_us(const struct load *load, double part)
{
    uint64_t wanted = (uint64_t)(part * (double)load->counted);
    uint64_t seen = 0;

    for (unsigned n = 0; n < BUCKETS; n++) {
        seen += load->buckets[n];
        if (seen > wanted) {
            return (double)bop_min_u64(bucket_end(n), load->slowest_ns) / 1000;
        }
    }
    return (double)load->slowest_ns / 1000;
}

static void count(struct load *load, uint64_t asked_ns, uint64_t now)
{
    uint64_t ns = now - asked_ns;

    if (load->first_ns == 0) {
        load->first_ns = now;
        load->count_from_ns = now + (uint64_t)(load->settings.warmup * (double)NS_PER_S);
        load->count_to_ns = load->count_from_ns +
                            (uint64_t)(load->settings.seconds * (double)NS_PER_S);
    } else if (now - load->last_ns > load->gap_ns) {
        load->gap_ns = now - load->last_ns;
        load->gap_end_ns = now;
    }
    load->last_ns = now;
    load->answers++;
    if ((now - load->begun_ns) / TRACE_NS < TRACE_SLOTS) {
        load->trace[(now - load->begun_ns) / TRACE_NS]++;
    }
    if (now >= load->count_from_ns && now < load->count_to_ns) {
        load->buckets[bucket_of(ns)]++;
        load->counted++;
        load->slowest_ns = bop_max_u64(load->slowest_ns, ns);
    }
}

/* ---- Requests ---- */

static void ask(struct slot *slot);

static void on_answer(void *user, int code, const struct bop_result *result)
{
    struct slot *slot = user;
    struct load *load = slot->load;
    uint64_t now = now_ns();

    load->under_way--;
    if (code == BOP_ECANCELED) {
        return;
    }
    if (code != 0 ||
        (load->settings.mode == MODE_READ && result->value.size != load->settings.size)) {
        load->errors++;
        load->first_error = load->first_error ? load->first_error : code ? code : BOP_ECORRUPT;
    }
    if (load->settings.mode == MODE_LOCK && slot->ticket == 0 && code == 0) {
        slot->ticket = result->ticket;
        ask(slot);
        return;
    }
    slot->ticket = 0;
    count(load, slot->asked_ns, now);
    if (!load->stopping) {
        slot->asked_ns = now;
        ask(slot);
    }
}

static bool is_fill(enum mode mode)
{
    return mode == MODE_FILL || mode == MODE_BULK;
}

static unsigned pick_key(struct load *load)
{
    return is_fill(load->settings.mode)
               ? load->next_key++
               : (unsigned)bop_random_below(&load->random, load->settings.keys);
}

static struct bop_slice make_key(char out_key[KEY_BYTES], unsigned number)
{
    static const char prefix[4] = {'k', 'e', 'y', '-'};

    memcpy(out_key, prefix, sizeof(prefix));
    for (int digit = KEY_BYTES - 1; digit >= (int)sizeof(prefix); digit--, number /= 10) {
        out_key[digit] = (char)('0' + number % 10);
    }
    return bop_slice(out_key, KEY_BYTES);
}

static int ask_bulk(struct slot *slot, unsigned number)
{
    struct load *load = slot->load;
    unsigned first = number * BULK_KEYS;
    unsigned end = (unsigned)bop_min_u64(first + BULK_KEYS, load->settings.keys);
    struct bop_writer writer = bop_writer(&load->items);
    char key[KEY_BYTES];

    bop_buf_clear(&load->items);
    for (unsigned n = first; n < end; n++) {
        struct bop_item item = {.key = make_key(key, n),
                                .value = bop_slice(load->value, load->settings.size)};

        bop_item_encode(&writer, BOP_OP_MAP_PUT_ALL, &item);
    }
    if (writer.code < 0) {
        return writer.code;
    }
    return bop_client_map_put_all(slot->client, bop_slice("bench", 5),
                                  bop_slice(load->items.data, load->items.size), end - first, 0,
                                  on_answer, slot);
}

static bool is_over(const struct load *load, unsigned number)
{
    const struct settings *settings = &load->settings;

    return (settings->mode == MODE_FILL && number >= settings->keys) ||
           (settings->mode == MODE_BULK && number * (uint64_t)BULK_KEYS >= settings->keys);
}

/* What the modes ask that are neither of a map nor of a key alone. */
static int ask_other(struct slot *slot, struct bop_slice key)
{
    struct load *load = slot->load;
    struct bop_operation operation = {.name = key};
    char name[32];

    switch (load->settings.mode) {
    case MODE_COUNTER:
        operation.op = BOP_OP_COUNTER_ADD;
        operation.delta = 1;
        break;
    case MODE_REGISTER:
        operation.op = BOP_OP_REGISTRATION_ADD;
        operation.name = bop_slice("bench", 5);
        operation.key = key;
        operation.sequence = ++load->registrations;
        break;
    default:
        snprintf(name, sizeof(name), "lock-%zu", (size_t)(slot - load->slots));
        operation.name = bop_slice_cstr(name);
        operation.op = slot->ticket == 0 ? BOP_OP_LOCK_ACQUIRE : BOP_OP_LOCK_RELEASE;
        operation.capacity = 1;
        operation.permits = 1;
        operation.sequence = slot->ticket;
    }
    return bop_client_execute(slot->client, &operation, BOP_READ_LINEARIZABLE, on_answer, slot);
}

static bool is_other(enum mode mode)
{
    return mode == MODE_COUNTER || mode == MODE_LOCK || mode == MODE_REGISTER;
}

static void ask(struct slot *slot)
{
    struct load *load = slot->load;
    struct bop_slice map = bop_slice("bench", 5);
    unsigned number = pick_key(load);
    char bytes[KEY_BYTES];
    struct bop_slice key;
    int rc;

    if (is_over(load, number)) {
        load->stopping = true;
        return;
    }
    key = make_key(bytes, number);
    if (load->settings.mode == MODE_READ) {
        rc = bop_client_map_get(slot->client, map, key, BOP_READ_LINEARIZABLE, on_answer, slot);
    } else if (load->settings.mode == MODE_BULK) {
        rc = ask_bulk(slot, number);
    } else if (is_other(load->settings.mode)) {
        rc = ask_other(slot, key);
    } else {
        bop_store_u64(load->value, bop_random_next(&load->random));
        rc = bop_client_map_put(slot->client, map, key, bop_slice(load->value, load->settings.size),
                                NULL, on_answer, slot);
    }
    if (rc < 0) {
        load->errors++;
        load->first_error = rc;
        load->stopping = true;
        return;
    }
    load->under_way++;
}

static bool somebody_leads(const struct load *load)
{
    struct bop_client_info info;

    bop_client_info(load->clients[0], &info);
    return info.ready && info.leader != 0 && info.leader == info.node;
}

static void on_tick(struct bop_timer *timer)
{
    struct load *load = BOP_CONTAINER_OF(timer, struct load, tick);
    uint64_t now = now_ns();
    uint64_t since = load->first_ns ? load->count_to_ns : load->begun_ns;

    if (load->settings.mode == MODE_LEADER && somebody_leads(load)) {
        load->stopping = true;
    }
    if (!is_fill(load->settings.mode) && load->first_ns && now >= load->count_to_ns) {
        load->stopping = true;
    }
    if (told_to_stop && !load->stopping) {
        load->stopping = true;
        load->count_to_ns = now;
    }
    if ((load->stopping && load->under_way == 0) ||
        (now > since && now - since > GIVE_UP_S * NS_PER_S)) {
        load->errors += load->under_way + !load->stopping;
        bop_loop_stop(load->loop);
    } else if (bop_timer_start(load->loop, timer, TICK_MS) < 0) {
        abort();
    }
}

/* ---- Beginning and end ---- */

static void print_trace(const struct load *load)
{
    uint64_t slots = bop_min_u64((load->last_ns - load->begun_ns) / TRACE_NS, TRACE_SLOTS);

    for (uint64_t n = 0; n < slots; n++) {
        printf("# %.3f %" PRIu32 "\n", (double)(load->begun_ns + n * TRACE_NS) / 1e9,
               load->trace[n]);
    }
}

static void print_results(const struct load *load)
{
    struct bop_client_info info;
    struct rusage usage;

    bop_client_info(load->clients[0], &info);
    if (load->settings.mode == MODE_LEADER) {
        printf("leader %" PRIu64 "\n", info.leader);
        return;
    }
    if (load->settings.trace) {
        print_trace(load);
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("ops %.0f\n", (double)load->counted / load->settings.seconds);
    printf("p50_us %.1f\n", quantile_us(load, 0.5));
    printf("p99_us %.1f\n", quantile_us(load, 0.99));
    printf("p999_us %.1f\n", quantile_us(load, 0.999));
    printf("max_us %.1f\n", (double)load->slowest_ns / 1000);
    printf("gap_ms %.3f\n", (double)load->gap_ns / 1e6);
    /* On CLOCK_MONOTONIC, for who knows when it killed the leader. */
    printf("gap_end_s %.6f\n", (double)load->gap_end_ns / 1e9);
    printf("answers %" PRIu64 "\n", load->answers);
    printf("resent %" PRIu64 "\n", info.resent);
    printf("failed %" PRIu64 "\n", load->errors);
    printf("cpu_us %.3f\n", ((double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
                             (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec)) /
                                (double)bop_max_u64(load->answers, 1));
}

static int start(struct load *load, struct bop_error *err)
{
    const struct settings *settings = &load->settings;
    struct bop_client_options options = {
        .loop = load->loop,
        .endpoints = settings->servers,
        .endpoint_count = settings->server_count,
        .name = "load",
        .outstanding_max = settings->outstanding + 1,
    };

    for (unsigned n = 0; n < settings->clients; n++) {
        int rc = bop_client_create(&options, &load->clients[n], err);

        if (rc < 0) {
            return rc;
        }
    }
    load->begun_ns = now_ns();
    for (unsigned n = 0; n < settings->outstanding && settings->mode != MODE_LEADER; n++) {
        load->slots[n] = (struct slot){.load = load,
                                       .client = load->clients[n % settings->clients],
                                       .asked_ns = load->begun_ns};
        ask(&load->slots[n]);
    }
    bop_timer_init(&load->tick, on_tick);
    return bop_timer_start(load->loop, &load->tick, TICK_MS);
}

static int run(struct load *load)
{
    struct bop_error err = {0};
    int rc = bop_loop_create(NULL, &load->loop);

    if (rc < 0) {
        fprintf(stderr, "load: %s\n", bop_strerror(rc));
        return 1;
    }
    bop_buf_init(&load->items, NULL, BOP_WIRE_FRAME_MAX);
    bop_random_seed(&load->random, load->settings.seed);
    for (unsigned n = 0; n < load->settings.size; n++) {
        load->value[n] = (uint8_t)bop_random_next(&load->random);
    }
    rc = start(load, &err);
    if (rc == 0) {
        rc = bop_loop_run(load->loop);
    }
    if (rc < 0) {
        fprintf(stderr, "load: %s\n", err.code ? err.message : bop_strerror(rc));
    } else if (load->errors > 0) {
        fprintf(stderr, "load: %" PRIu64 " requests failed, the first one: %s\n", load->errors,
                load->first_error ? bop_strerror(load->first_error) : "no answer");
        rc = load->settings.count_failed ? 0 : 1;
    }
    if (rc == 0) {
        print_results(load);
    }
    for (unsigned n = 0; n < load->settings.clients; n++) {
        bop_client_destroy(load->clients[n]);
    }
    /* The turn that sends the last word on each session. */
    BOP_IGNORE(bop_loop_run_once(load->loop, 0));
    bop_loop_destroy(load->loop);
    bop_buf_deinit(&load->items);
    return rc == 0 ? 0 : 1;
}

/* ---- The command line ---- */

static int usage(const char *what)
{
    fprintf(stderr, "load: %s\n", what);
    return 2;
}

/* Splits the text in place. */
static bool take_servers(struct settings *settings, char *text)
{
    for (char *rest = text, *server; (server = strsep(&rest, ",")) != NULL;) {
        if (settings->server_count == BOP_CLIENT_ENDPOINTS_MAX) {
            return false;
        }
        settings->servers[settings->server_count++] = server;
    }
    return true;
}

static bool take_mode(struct settings *settings, const char *name)
{
    for (unsigned n = 0; n < MODE_COUNT; n++) {
        if (strcmp(name, mode_names[n]) == 0) {
            settings->mode = (enum mode)n;
            return true;
        }
    }
    return false;
}

static bool take_options(struct settings *settings, int argc, char **argv)
{
    static const struct option options[] = {
        {"servers", required_argument, NULL, 'a'},     {"mode", required_argument, NULL, 'm'},
        {"outstanding", required_argument, NULL, 'k'}, {"clients", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 't'},     {"warmup", required_argument, NULL, 'w'},
        {"keys", required_argument, NULL, 'n'},        {"size", required_argument, NULL, 's'},
        {"seed", required_argument, NULL, 'r'},        {"trace", no_argument, NULL, 'x'},
        {"count-failed", no_argument, NULL, 'f'},      {0},
    };
    bool good = true;
    int option;

    while (good && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'a':
            good = take_servers(settings, optarg);
            break;
        case 'm':
            good = take_mode(settings, optarg);
            break;
        case 'k':
            settings->outstanding = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'c':
            settings->clients = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 't':
            settings->seconds = strtod(optarg, NULL);
            break;
        case 'w':
            settings->warmup = strtod(optarg, NULL);
            break;
        case 'n':
            settings->keys = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 's':
            settings->size = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            settings->seed = strtoull(optarg, NULL, 10);
            break;
        case 'x':
            settings->trace = true;
            break;
        case 'f':
            settings->count_failed = true;
            break;
        default:
            good = false;
            break;
        }
    }
    return good && optind == argc;
}

int main(int argc, char **argv)
{
    static struct load load = {
        .settings = {.mode = MODE_COUNT,
                     .outstanding = 1,
                     .clients = 1,
                     .seconds = 5,
                     .warmup = 1,
                     .keys = 10000,
                     .size = 128,
                     .seed = 1},
    };
    struct settings *settings = &load.settings;
    int exit_code;

    if (!take_options(settings, argc, argv) || settings->server_count == 0 ||
        settings->mode == MODE_COUNT) {
        return usage("give --servers HOST:PORT,... and --mode write, read, counter, lock, "
                     "register, failover, fill, bulk or leader; see the head of bench/load.c");
    }
    if (settings->outstanding < 1 || settings->outstanding >= OUTSTANDING_MAX ||
        settings->clients < 1 || settings->clients > CLIENTS_MAX || settings->keys < 1 ||
        settings->keys > 99999999 || settings->size < 8 || settings->size > VALUE_MAX ||
        !(settings->seconds > 0)) {
        return usage("an option is out of range");
    }
    load.slots = calloc(settings->outstanding, sizeof(*load.slots));
    if (!load.slots) {
        return usage("out of memory");
    }
    signal(SIGTERM, on_signal);
    exit_code = run(&load);
    free(load.slots);
    return exit_code;
}
