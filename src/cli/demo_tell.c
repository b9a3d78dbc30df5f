/*
 * The demo's words: lines with the time, the table at the end, how to go on.
 */
#include <inttypes.h>
#include <unistd.h>

#include "demo.h"

static uint64_t since_ms(uint64_t from_us, uint64_t to_us)
{
    return to_us > from_us ? (to_us - from_us) / 1000 : 0;
}

void demo_tell(struct demo *demo, enum demo_mood mood, const char *format, ...)
{
    static const char *const colors[] = {"", "\033[32m", "\033[1;31m"};
    double seconds = (double)(bop_clock_monotonic_us(bop_clock_system()) - demo->started_us) / 1e6;
    bool color = demo->color && mood != DEMO_PLAIN;
    va_list arguments;

    progress_clear(&demo->progress);
    fprintf(demo->out, "%6.1f s  %s", seconds, color ? colors[mood] : "");
    va_start(arguments, format);
    vfprintf(demo->out, format, arguments);
    va_end(arguments);
    fputs(color ? "\033[0m\n" : "\n", demo->out);
    fflush(demo->out);
}

/* ---- The outcome ---- */

uint64_t demo_lost(const struct demo *demo)
{
    uint64_t most = 0;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        most = bop_max_u64(most, demo->checks[i].lost);
    }
    return most;
}

uint64_t demo_different(const struct demo *demo)
{
    uint64_t most = 0;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        most = bop_max_u64(most, demo->checks[i].different);
    }
    return most;
}

uint64_t demo_duplicates(const struct demo *demo)
{
    int64_t excess = demo->counter - (int64_t)demo->data.count;
    uint64_t most = bop_max_u64(demo->load.existed, excess > 0 ? (uint64_t)excess : 0);

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        const struct demo_check *check = &demo->checks[i];

        most = bop_max_u64(most, check->doubled + check->repeated + check->unknown);
    }
    return most;
}

bool demo_is_good(const struct demo *demo)
{
    bool good = demo_load_done(&demo->load) && demo->digests_equal && demo->load.again_us != 0 &&
                demo->counter == (int64_t)demo->data.count && demo->load.existed == 0;

    for (unsigned i = 0; i < DEMO_NODES; i++) {
        good = good && demo->checked[i] && demo_check_good(&demo->checks[i]) &&
               demo->checks[i].found == demo->data.count;
    }
    return good;
}

/* ---- The report ---- */

static double per_second(const struct demo *demo)
{
    uint64_t us = demo->load.ended_us - demo->load.started_us;

    return us > 0 ? (double)demo->load.acked * 1e6 / (double)us : 0;
}

static void print_row(struct demo *demo, bool good, const char *name, const char *value)
{
    const char *color = !demo->color ? "" : good ? "\033[32m" : "\033[1;31m";

    fprintf(demo->out, "  %-36s %s%s%s\n", name, color, value, demo->color ? "\033[0m" : "");
}

static void print_table(struct demo *demo)
{
    const struct demo_load *load = &demo->load;
    char text[128], count[COUNT_TEXT_MAX];

    fputc('\n', demo->out);
    print_row(demo, load->acked == demo->data.count, "entries written and acknowledged",
              count_text(load->acked, count));
    print_row(demo, demo_lost(demo) == 0, "lost", count_text(demo_lost(demo), count));
    print_row(demo, demo_duplicates(demo) == 0, "duplicates",
              count_text(demo_duplicates(demo), count));
    print_row(demo, demo_different(demo) == 0, "changed", count_text(demo_different(demo), count));
    snprintf(text, sizeof(text), "%" PRIu64 " ms (from the kill to the next acknowledged write)",
             since_ms(load->killed_us, load->again_us));
    print_row(demo, load->again_us != 0, "time without a leader", text);
    snprintf(text, sizeof(text), "p50 %.2f ms, p99 %.2f ms (%d under way at a time)",
             (double)demo_load_latency_us(load, 0.5) / 1000,
             (double)demo_load_latency_us(load, 0.99) / 1000, DEMO_OUTSTANDING);
    print_row(demo, true, "write latency", text);
    snprintf(text, sizeof(text), "%s writes/s (the time without a leader included)",
             count_text((uint64_t)per_second(demo), count));
    print_row(demo, true, "throughput", text);
    fputc('\n', demo->out);
    fflush(demo->out);
}

static void print_json(const struct demo *demo)
{
    const struct demo_load *load = &demo->load;

    printf("{\"good\":%s,\"entries\":%zu,\"packages\":%" PRIu64 ",\"acknowledged\":%" PRIu64
           ",\"lost\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"changed\":%" PRIu64
           ",\"without_leader_ms\":%" PRIu64 ",\"elected_ms\":%" PRIu64
           ",\"latency_p50_us\":%" PRIu64 ",\"latency_p99_us\":%" PRIu64
           ",\"outstanding\":%d,\"writes_per_second\":%.0f}\n",
           demo_is_good(demo) ? "true" : "false", demo->data.count, demo->packages, load->acked,
           demo_lost(demo), demo_duplicates(demo), demo_different(demo),
           since_ms(load->killed_us, load->again_us), since_ms(load->killed_us, demo->elected_us),
           demo_load_latency_us(load, 0.5), demo_load_latency_us(load, 0.99), DEMO_OUTSTANDING,
           per_second(demo));
}

void demo_print_report(struct demo *demo)
{
    print_table(demo);
    if (demo->args->json) {
        print_json(demo);
    }
}

void demo_print_how_to_talk(const struct demo *demo)
{
    const struct demo_node *nodes = demo->cluster.nodes;
    char self[DEMO_PATH];
    ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);

    self[size > 0 ? size : 0] = '\0';
    fprintf(demo->out,
            "The three nodes go on running. To talk to them:\n"
            "  export BOP_SERVER=%s,%s,%s\n"
            "  %s status\n"
            "  %s map get %s %s\n"
            "  %s map export %s demo.ndjson\n"
            "Data and logs are in %s. To stop them and remove that:\n"
            "  kill %d %d %d; sleep 1; rm -r %s\n",
            nodes[0].address, nodes[1].address, nodes[2].address, self, self, DEMO_MAP,
            demo->packages > 0 ? "bash" : "word/babababa", self, DEMO_MAP, demo->cluster.directory,
            (int)nodes[0].pid, (int)nodes[1].pid, (int)nodes[2].pid, demo->cluster.directory);
    fflush(demo->out);
}
