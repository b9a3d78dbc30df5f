/*
 * The program: one seed or many, the digest of each, and TAP for the test run.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim.h"

#ifdef BOP_TEST_ETCD
#include "engine_etcd.h"
#endif

static const char usage[] =
    "usage: sim [--seed N | --seeds FROM..TO | --tap FROM TO | --regressions FILE | --prove]\n"
    "           [--nodes N] [--time-ms N] [--engine NAME] [--mutate NAME] [--verbose]\n"
    "\n"
    "Run whole clusters on virtual time, disk and network. Exit status 0 if all held.\n"
    "\n"
    "  --seed N             one run, twice, which must be equal; with --verbose once, with all\n"
    "                       that happens\n"
    "  --seeds FROM..TO     many runs; a line for each that fails, then a summary\n"
    "  --tap FROM TO        the same as TAP: one test, and the seeds that fail\n"
    "  --regressions FILE   the seeds of a file, as TAP\n"
    "  --prove              put in defects and see that they are found, as TAP\n"
    "  --nodes N            founding nodes, 1 to 5 (default: the seed says)\n"
    "  --time-ms N          virtual time with faults (default: the seed says)\n"
    "  --engine NAME        libraft (default), or etcd where it is built in\n"
    "  --mutate NAME        put in a defect: stale-read, lose-write, lose-disk, lose-vote,\n"
    "                       double-apply, tamper, dead-owner, no-undo, early, twice\n";

static const char *const mutations[SIM_MUTATE_COUNT] = {
    "none",   "stale-read", "lose-write", "lose-disk", "lose-vote", "double-apply",
    "tamper", "dead-owner", "no-undo",    "early",     "twice",
};

struct totals {
    struct sim_stats stats;
    uint64_t seeds, failed;
};

static char scratch[256];

#define FAILURE_MAX 512

static void add(struct totals *totals, const struct sim_stats *stats)
{
    struct sim_stats *sum = &totals->stats;

    totals->seeds++;
    sum->committed += stats->committed;
    sum->leaders += stats->leaders;
    sum->crashes += stats->crashes;
    sum->power_losses += stats->power_losses;
    sum->stops += stats->stops;
    sum->exits += stats->exits;
    sum->installs += stats->installs;
    sum->writes += stats->writes;
    sum->reads += stats->reads;
    sum->repeats += stats->repeats;
    sum->expired_sessions += stats->expired_sessions;
    sum->joins += stats->joins;
    sum->breaks += stats->breaks;
    sum->watched += stats->watched;
    sum->resyncs += stats->resyncs;
    sum->changes += stats->changes;
    sum->answers += stats->answers;
    sum->removed += stats->removed;
    sum->replaced += stats->replaced;
    sum->tails += stats->tails;
    sum->shown += stats->shown;
    sum->viewed += stats->viewed;
    sum->settled += stats->settled;
    sum->backups += stats->backups;
    sum->events += stats->events;
}

static void print_summary(const struct totals *totals)
{
    const struct sim_stats *sum = &totals->stats;

    printf("# %" PRIu64 " seeds, %" PRIu64 " failed: %" PRIu64 " entries committed, %" PRIu64
           " writes, %" PRIu64 " reads checked, %" PRIu64 " repeats, %" PRIu64 " leaders, %" PRIu64
           " crashes (%" PRIu64 " by power), %" PRIu64 " stops, %" PRIu64 " exits, %" PRIu64
           " installs, %" PRIu64 " joins, %" PRIu64 " breaks, %" PRIu64
           " sessions expired, %" PRIu64 " changes told to watches, %" PRIu64
           " begun with all there is, %" PRIu64 " read in views, %" PRIu64 " settled, %" PRIu64
           " backups, %" PRIu64 " resyncs, %" PRIu64 " changes of members, %" PRIu64
           " answers to operators, %" PRIu64 " removed, %" PRIu64 " replaced, %" PRIu64
           " logs cut, %" PRIu64 " events\n",
           totals->seeds, totals->failed, sum->committed, sum->writes, sum->reads, sum->repeats,
           sum->leaders, sum->crashes, sum->power_losses, sum->stops, sum->exits, sum->installs,
           sum->joins, sum->breaks, sum->expired_sessions, sum->watched, sum->shown, sum->viewed,
           sum->settled, sum->backups, sum->resyncs, sum->changes, sum->answers, sum->removed,
           sum->replaced, sum->tails, sum->events);
}

/* Returns whether all held. */
static bool run_seed(struct sim_options options, uint64_t seed, struct totals *totals,
                     uint64_t *out_digest)
{
    char failure[FAILURE_MAX];
    struct sim_stats stats;
    bool passed;

    options.seed = seed;
    passed = sim_run(&options, &stats, out_digest, failure, sizeof(failure));
    add(totals, &stats);
    if (!passed) {
        totals->failed++;
        printf("seed %" PRIu64 " FAILED: %s\n", seed, failure);
        printf("# replay: %s --seed %" PRIu64 " --engine %s --verbose\n", program_invocation_name,
               seed, options.engine->name);
    }
    fflush(stdout);
    return passed;
}

static bool run_range(const struct sim_options *options, uint64_t from, uint64_t to,
                      struct totals *totals)
{
    uint64_t digest;
    bool passed = true;

    for (uint64_t seed = from; seed <= to; seed++) {
        passed &= run_seed(*options, seed, totals, &digest);
    }
    return passed;
}

/* One seed, twice: the digests must be equal. */
static bool run_one(const struct sim_options *options, struct totals *totals)
{
    uint64_t first, second;
    bool passed = run_seed(*options, options->seed, totals, &first);

    printf("# digest %016" PRIx64 "\n", first);
    if (options->verbose) {
        return passed;
    }
    passed &= run_seed(*options, options->seed, totals, &second);
    if (first != second) {
        printf("seed %" PRIu64 " FAILED: two runs differ: %016" PRIx64 " and %016" PRIx64 "\n",
               options->seed, first, second);
        return false;
    }
    return passed;
}

static void tap_line(bool passed, unsigned number, const char *what)
{
    printf("%sok %u - %s\n", passed ? "" : "not ", number, what);
}

static bool run_tap(const struct sim_options *options, uint64_t from, uint64_t to)
{
    struct totals totals = {0};
    struct sim_options one = *options;
    char what[100];
    bool passed, same;

    printf("1..2\n");
    passed = run_range(options, from, to, &totals);
    print_summary(&totals);
    snprintf(what, sizeof(what), "sim: seeds %" PRIu64 " to %" PRIu64 " hold", from, to);
    tap_line(passed, 1, what);
    one.seed = from;
    same = run_one(&one, &totals);
    tap_line(same, 2, "sim: a seed repeats a run to the bit");
    return passed && same;
}

/* Lines of: seed, then what it once found. */
static bool run_regressions(const struct sim_options *options, const char *path)
{
    FILE *file = fopen(path, "re");
    struct totals totals = {0};
    unsigned number = 0;
    bool passed = true;
    char line[300], what[100];

    if (!file) {
        printf("Bail out! cannot open %s: %s\n", path, strerror(errno));
        return false;
    }
    while (fgets(line, sizeof(line), file)) {
        char *end;
        uint64_t digest, seed = strtoull(line, &end, 10);
        bool held;

        if (end == line) {
            continue; /* A comment. */
        }
        held = run_seed(*options, seed, &totals, &digest);
        passed &= held;
        snprintf(what, sizeof(what), "sim: seed %" PRIu64 " holds", seed);
        tap_line(held, ++number, what);
    }
    fclose(file);
    printf("1..%u\n", number);
    return passed;
}

#define PROVE_SEEDS_MAX 60

/* Each defect must be found within some seeds. */
static bool prove(const struct sim_options *options)
{
    bool passed = true;

    printf("1..%d\n", SIM_MUTATE_COUNT - 1);
    for (unsigned m = 1; m < SIM_MUTATE_COUNT; m++) {
        struct sim_options mutated = *options;
        char failure[FAILURE_MAX] = "";
        char what[100];
        bool found = false;

        mutated.mutation = (enum sim_mutation)m;
        for (mutated.seed = 1; mutated.seed <= PROVE_SEEDS_MAX && !found; mutated.seed++) {
            struct sim_stats stats;
            uint64_t digest;

            found = !sim_run(&mutated, &stats, &digest, failure, sizeof(failure));
        }
        printf("# %s: seed %" PRIu64 ": %s\n", mutations[m], mutated.seed - 1, failure);
        snprintf(what, sizeof(what), "sim: finds %s", mutations[m]);
        tap_line(found, m, what);
        passed &= found;
        fflush(stdout);
    }
    return passed;
}

static enum sim_mutation parse_mutation(const char *name)
{
    for (unsigned m = 0; m < SIM_MUTATE_COUNT; m++) {
        if (strcmp(name, mutations[m]) == 0) {
            return (enum sim_mutation)m;
        }
    }
    fprintf(stderr, "sim: no such mutation: %s\n", name);
    exit(2);
}

static const struct bop_raft_engine *parse_engine(const char *name)
{
#ifdef BOP_TEST_ETCD
    if (strcmp(name, "etcd") == 0) {
        return bop_raft_engine_etcd();
    }
#endif
    if (strcmp(name, "libraft") == 0) {
        return bop_raft_engine_libraft();
    }
    fprintf(stderr, "sim: no such engine, or not built in: %s\n", name);
    exit(2);
}

static uint64_t parse_number(const char *text)
{
    char *end;
    uint64_t value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end) {
        fprintf(stderr, "sim: not a number: %s\n", text);
        exit(2);
    }
    return value;
}

/* The stores are best in memory: nothing of them must survive. */
static void make_scratch(void)
{
    const char *base = getenv("TMPDIR");

    if (!base || !base[0]) {
        base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    }
    snprintf(scratch, sizeof(scratch), "%s/bop-sim-XXXXXX", base);
    if (!mkdtemp(scratch)) {
        perror(scratch);
        exit(2);
    }
}

static void on_abort(int signal_number)
{
    sim_dump();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* Where a sanitizer is linked in, it calls this when it has found something. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void watch_for_death(void)
{
    signal(SIGABRT, on_abort);
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(sim_dump);
    } else {
        signal(SIGSEGV, on_abort);
        signal(SIGBUS, on_abort);
    }
}

enum mode { MODE_SEED, MODE_SEEDS, MODE_TAP, MODE_REGRESSIONS, MODE_PROVE };

struct arguments {
    enum mode mode;
    uint64_t from, to;
    const char *path;
    struct sim_options options;
};

static void parse_range(const char *text, struct arguments *arguments)
{
    char *dots = strstr(text, "..");
    char first[32];

    if (!dots || dots - text >= (ptrdiff_t)sizeof(first)) {
        fprintf(stderr, "sim: not FROM..TO: %s\n", text);
        exit(2);
    }
    snprintf(first, sizeof(first), "%.*s", (int)(dots - text), text);
    arguments->from = parse_number(first);
    arguments->to = parse_number(dots + 2);
}

static struct arguments parse(int argc, char **argv)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'},    {"seeds", required_argument, NULL, 'r'},
        {"tap", required_argument, NULL, 't'},     {"regressions", required_argument, NULL, 'f'},
        {"prove", no_argument, NULL, 'p'},         {"nodes", required_argument, NULL, 'n'},
        {"time-ms", required_argument, NULL, 'm'}, {"engine", required_argument, NULL, 'e'},
        {"mutate", required_argument, NULL, 'u'},  {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},          {0},
    };
    struct arguments arguments = {
        .options = {.seed = 1, .scratch = scratch, .engine = bop_raft_engine_libraft()}};
    int option;

    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (option) {
        case 's':
            arguments.options.seed = parse_number(optarg);
            break;
        case 'r':
            arguments.mode = MODE_SEEDS;
            parse_range(optarg, &arguments);
            break;
        case 't':
            arguments.mode = MODE_TAP;
            arguments.from = parse_number(optarg);
            arguments.to = optind < argc ? parse_number(argv[optind++]) : arguments.from;
            break;
        case 'f':
            arguments.mode = MODE_REGRESSIONS;
            arguments.path = optarg;
            break;
        case 'p':
            arguments.mode = MODE_PROVE;
            break;
        case 'n':
            arguments.options.nodes = (unsigned)parse_number(optarg);
            break;
        case 'm':
            arguments.options.time_ms = parse_number(optarg);
            break;
        case 'e':
            arguments.options.engine = parse_engine(optarg);
            break;
        case 'u':
            arguments.options.mutation = parse_mutation(optarg);
            break;
        case 'v':
            arguments.options.verbose = true;
            break;
        default:
            fputs(usage, option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    return arguments;
}

int main(int argc, char **argv)
{
    struct arguments arguments = parse(argc, argv);
    const struct sim_options *options = &arguments.options;
    struct totals totals = {0};
    bool passed;

    make_scratch();
    watch_for_death();
    switch (arguments.mode) {
    case MODE_SEEDS:
        passed = run_range(options, arguments.from, arguments.to, &totals);
        print_summary(&totals);
        break;
    case MODE_TAP:
        passed = run_tap(options, arguments.from, arguments.to);
        break;
    case MODE_REGRESSIONS:
        passed = run_regressions(options, arguments.path);
        break;
    case MODE_PROVE:
        passed = prove(options);
        break;
    default:
        passed = run_one(options, &totals);
        print_summary(&totals);
    }
    rmdir(scratch);
    return passed ? 0 : 1;
}
