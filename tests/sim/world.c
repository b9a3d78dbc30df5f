/*
 * The queue of events, the clock, chance, bytes under way, and what happened
 * lately.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define CALM_US   (15 * SIM_S) /* After the last fault; then all must be well. */
#define QUIET_US  (4 * SIM_S)  /* Of it clients go on asking for so long. */
#define REST_US   (30 * SIM_S) /* Where disks are slow, what was asked until then takes its time. */
#define EVENT_MAX 20000000     /* Of a run; a run away otherwise. */

static struct sim *current; /* Where nobody hands it on. */

void *sim_memory(size_t size)
{
    void *memory = calloc(1, size ? size : 1);

    if (!memory) {
        fprintf(stderr, "sim: out of memory\n");
        abort();
    }
    return memory;
}

/* ---- Chance ---- */

uint64_t sim_below(struct sim *sim, uint64_t bound)
{
    return bop_random_below(&sim->random, bound);
}

bool sim_chance(struct sim *sim, unsigned parts, unsigned whole)
{
    return bop_random_chance(&sim->random, parts, whole);
}

uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high)
{
    return low + sim_below(sim, high - low + 1);
}

uint64_t sim_latency(struct sim *sim)
{
    return !sim->calm && sim_chance(sim, 2, 100) ? sim_between(sim, 15 * SIM_MS, 400 * SIM_MS)
                                                 : sim_between(sim, SIM_MS, 15 * SIM_MS);
}

void sim_mix(struct sim *sim, uint64_t value)
{
    sim->digest = (sim->digest ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    sim->digest ^= sim->digest >> 29;
}

/* ---- What happened ---- */

static void print_line(const struct sim *sim, const struct sim_node *node, const char *text)
{
    printf("# %10.6f %s%.0" PRIu64 " %s\n", (double)sim->now_us / 1e6, node ? "node " : "-",
           node ? node->id : 0, text);
}

void sim_say(struct sim *sim, struct sim_node *node, const char *format, ...)
{
    char text[SIM_LINE - 16];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (node) {
        snprintf(node->lines[node->line], SIM_LINE, "%10.6f %s", (double)sim->now_us / 1e6, text);
        node->line = (node->line + 1) % SIM_RING;
    }
    if (sim->options.verbose) {
        print_line(sim, node, text);
    }
}

static void print_rings(const struct sim *sim)
{
    for (unsigned n = 0; n < sim->node_count; n++) {
        const struct sim_node *node = &sim->nodes[n];

        printf("# lately at node %" PRIu64 ":\n", node->id);
        for (unsigned i = 0; i < SIM_RING; i++) {
            const char *line = node->lines[(node->line + i) % SIM_RING];

            if (line[0]) {
                printf("#   %s\n", line);
            }
        }
    }
}

void sim_dump(void)
{
    const struct sim *sim = current;

    if (sim) {
        printf("# died in seed %" PRIu64 " at %.6f s: replay with --seed %" PRIu64 " --verbose\n",
               sim->options.seed, (double)sim->now_us / 1e6, sim->options.seed);
        print_rings(sim);
        fflush(stdout);
    }
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    va_list args;

    if (sim->failed) {
        return;
    }
    sim->failed = true;
    va_start(args, format);
    vsnprintf(sim->failure, sizeof(sim->failure), format, args);
    va_end(args);
    if (sim->options.mutation == SIM_MUTATE_NONE) {
        printf("# seed %" PRIu64 " at %.6f s: %s\n", sim->options.seed, (double)sim->now_us / 1e6,
               sim->failure);
        print_rings(sim);
    }
}

/* ---- Events: a heap by time, then by number ---- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->number < b->number);
}

void sim_push(struct sim *sim, uint64_t at_us, enum sim_event_kind kind, unsigned a, unsigned b,
              uint64_t c)
{
    struct sim_event event = {.at_us = bop_max_u64(at_us, sim->now_us),
                              .number = sim->number++,
                              .kind = (uint16_t)kind,
                              .a = (uint16_t)a,
                              .b = (uint16_t)b,
                              .c = c};
    size_t at = sim->event_count++;

    if (at == sim->event_capacity) {
        sim->event_capacity = at ? at * 2 : 1024;
        sim->events = realloc(sim->events, sim->event_capacity * sizeof(event));
        BOP_ASSERT(sim->events);
    }
    while (at > 0 && earlier(&event, &sim->events[(at - 1) / 2])) {
        sim->events[at] = sim->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    sim->events[at] = event;
}

static struct sim_event pop_event(struct sim *sim)
{
    struct sim_event first = sim->events[0], last = sim->events[--sim->event_count];
    size_t at = 0;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= sim->event_count) {
            break;
        }
        if (child + 1 < sim->event_count && earlier(&sim->events[child + 1], &sim->events[child])) {
            child++;
        }
        if (earlier(&last, &sim->events[child])) {
            break;
        }
        sim->events[at] = sim->events[child];
        at = child;
    }
    sim->events[at] = last;
    return first;
}

static void dispatch(struct sim *sim, const struct sim_event *event)
{
    switch ((enum sim_event_kind)event->kind) {
    case SIM_EVENT_TURN:
    case SIM_EVENT_TIMER:
    case SIM_EVENT_RUN:
    case SIM_EVENT_DONE:
    case SIM_EVENT_START:
    case SIM_EVENT_CRASH:
        sim_node_event(sim, event);
        break;
    case SIM_EVENT_DIAL:
    case SIM_EVENT_ACCEPT:
    case SIM_EVENT_READY:
    case SIM_EVENT_DELIVER:
    case SIM_EVENT_LOST:
        sim_net_event(sim, event);
        break;
    case SIM_EVENT_CLIENT:
    case SIM_EVENT_REQUEST:
    case SIM_EVENT_REPLY:
    case SIM_EVENT_HANGUP:
        sim_client_event(sim, event);
        break;
    case SIM_EVENT_NEMESIS:
        sim_nemesis_event(sim);
        break;
    case SIM_EVENT_OPERATOR:
        sim_operator_event(sim);
        break;
    }
}

/* ---- Bytes under way ---- */

void sim_pipe_init(struct sim_pipe *pipe)
{
    *pipe = (struct sim_pipe){0};
    bop_list_init(&pipe->pieces);
}

uint64_t sim_pipe_push(struct sim *sim, struct sim_pipe *pipe, struct bop_slice bytes)
{
    struct sim_piece *piece = sim_memory(sizeof(*piece) + bytes.size);

    piece->at_us = bop_max_u64(pipe->last_us, sim->now_us + sim_latency(sim));
    piece->size = bytes.size;
    memcpy(piece->bytes, bytes.data, bytes.size);
    bop_list_push_back(&pipe->pieces, &piece->link);
    pipe->last_us = piece->at_us;
    pipe->bytes += bytes.size;
    return piece->at_us;
}

struct sim_piece *sim_pipe_pop(struct sim *sim, struct sim_pipe *pipe)
{
    struct sim_piece *piece;

    if (bop_list_empty(&pipe->pieces)) {
        return NULL;
    }
    piece = BOP_CONTAINER_OF(pipe->pieces.next, struct sim_piece, link);
    if (piece->at_us > sim->now_us) {
        return NULL;
    }
    bop_list_remove(&piece->link);
    pipe->bytes -= piece->size;
    return piece;
}

void sim_pipe_clear(struct sim_pipe *pipe)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(&pipe->pieces))) {
        free(BOP_CONTAINER_OF(link, struct sim_piece, link));
    }
    pipe->bytes = 0;
    pipe->last_us = 0;
}

/* ---- Secrets ---- */

int __wrap_bop_random_secret(void *bytes, size_t size);

/* Ids that nobody may guess are part of what is sent, and must be the same when a seed is repeated.
 */
int __wrap_bop_random_secret(void *bytes, size_t size)
{
    uint8_t *at = bytes;

    BOP_ASSERT(current);
    for (size_t n = 0; n < size; n++) {
        at[n] = (uint8_t)bop_random_below(&current->secrets, 256);
    }
    return 0;
}

/* ---- A run ---- */

/* What the seed decides about the run as a whole. */
static void choose(struct sim *sim)
{
    const struct sim_options *options = &sim->options;

    sim->founders = options->nodes ? options->nodes : sim_chance(sim, 1, 3) ? 5 : 3;
    sim->founders = (unsigned)bop_min_u64(sim->founders, SIM_NODES_MAX - 1);
    sim->node_count = sim->founders + sim_chance(sim, 1, 4);
    sim->client_count = (unsigned)sim_between(sim, 2, SIM_CLIENTS_MAX);
    sim->snapshot_entries = sim_between(sim, 20, 200);
    sim->trailing_entries = sim_between(sim, 1, 50);
    sim->segment_bytes = sim_between(sim, 16, 64) * 1024;
    sim->queue_max = (size_t)sim_between(sim, 64, 4096) * 1024;
    sim->big_values = sim_chance(sim, 1, 8);
    sim->faults_end_us = (options->time_ms ? options->time_ms : sim_between(sim, 8000, 20000)) *
                         SIM_MS;
    sim->quiet_us = sim->faults_end_us + QUIET_US;
    sim->end_us = sim->faults_end_us + CALM_US;
}

static bool odd(enum buggify_point point)
{
    return current && current->odd[point] != 0 &&
           bop_random_chance(&current->oddities, current->odd[point], 1024);
}

/* At half of the places where our own code asks whether to be odd, more or less often. From a
 * source of its own: builds that do not ask run the same faults. */
static void choose_oddities(struct sim *sim)
{
    bop_random_seed(&sim->oddities, sim->options.seed ^ UINT64_C(0x6f6464));
    for (unsigned n = 0; n < BUGGIFY_COUNT; n++) {
        uint64_t dice = bop_random_below(&sim->oddities, 8);

        sim->odd[n] = dice < 4 ? 0 : dice < 6 ? 20 : dice < 7 ? 200 : 1000;
    }
    sim->odd[BUGGIFY_SNAPSHOT_NOW] = (uint16_t)bop_min_u64(sim->odd[BUGGIFY_SNAPSHOT_NOW], 20);
    sim->odd[BUGGIFY_PROPOSALS_FULL] = (uint16_t)bop_min_u64(sim->odd[BUGGIFY_PROPOSALS_FULL], 200);
    sim->odd[BUGGIFY_FORWARD_DROP] = (uint16_t)bop_min_u64(sim->odd[BUGGIFY_FORWARD_DROP], 200);
#ifdef BOP_DEBUG
    bop__buggify_hook = odd;
#else
    BOP_IGNORE(odd);
#endif
}

static void begin(struct sim *sim, const struct sim_options *options)
{
    sim->options = *options;
    bop_random_seed(&sim->random, options->seed);
    sim->now_us = SIM_S;
    bop_random_seed(&sim->secrets, options->seed ^ UINT64_C(0x736563726574));
    choose(sim);
    choose_oddities(sim);
    sim_defect = options->mutation;
    sim->faults_end_us += sim->now_us;
    sim->quiet_us += sim->now_us;
    sim->end_us += sim->now_us;
    sim_model_init(sim);
    sim_net_init(sim);
    for (unsigned n = 0; n < sim->node_count; n++) {
        sim_node_init(sim, n);
    }
    sim_clients_init(sim);
    sim_nemesis_init(sim);
}

static void end(struct sim *sim)
{
    for (unsigned n = 0; n < sim->node_count; n++) {
        sim_node_deinit(&sim->nodes[n]);
    }
    sim_clients_deinit(sim);
    sim_net_deinit(sim);
    sim_model_deinit(sim);
    free(sim->events);
}

static void step(struct sim *sim)
{
    struct sim_event event = pop_event(sim);

    sim->now_us = event.at_us;
    sim->stats.events++;
    sim_mix(sim, event.at_us);
    sim_mix(sim, (uint64_t)event.kind << 32 | (uint64_t)event.a << 16 | event.b);
    if (!sim->calm && sim->now_us >= sim->faults_end_us) {
        sim->calm = true;
        sim_nemesis_calm(sim);
    }
    sim->quiet = sim->quiet || sim->now_us >= sim->quiet_us;
    dispatch(sim, &event);
}

static bool some_node_is_down(const struct sim *sim, unsigned *out_index)
{
    for (unsigned n = 0; n < sim->node_count; n++) {
        if (!sim->nodes[n].up && sim->nodes[n].exists) {
            *out_index = n;
            return true;
        }
    }
    return false;
}

/* A session may expire at any time: what that commits gets some more time. */
static bool goes_on(const struct sim *sim)
{
    uint64_t next_us = sim->events[0].at_us;

    return next_us < sim->end_us || (next_us < sim->end_us + REST_US && !sim_model_at_rest(sim));
}

static void finish(struct sim *sim)
{
    unsigned down;

    if (!sim->failed && some_node_is_down(sim, &down)) {
        sim_fail(sim, "liveness: node %u is still down", down + 1);
    }
    if (!sim->failed) {
        sim_model_finish(sim);
    }
    if (!sim->failed && !sim_clients_done(sim)) {
        sim_fail(sim, "liveness: a client still waits for an answer");
    }
    if (!sim->failed) {
        sim_clients_finish(sim);
    }
}

bool sim_run(const struct sim_options *options, struct sim_stats *out_stats, uint64_t *out_digest,
             char *out_failure, size_t failure_size)
{
    struct sim *sim = sim_memory(sizeof(*sim));
    bool passed;

    current = sim;
    begin(sim, options);
    while (!sim->failed && goes_on(sim)) {
        step(sim);
        if (sim->stats.events > EVENT_MAX) {
            sim_fail(sim, "liveness: events without end");
        }
    }
    if (!sim->failed) {
        finish(sim);
    }
    passed = !sim->failed;
    sim->over = true;
    *out_stats = sim->stats;
    *out_digest = sim->digest;
    snprintf(out_failure, failure_size, "%s", sim->failure);
    end(sim);
    current = NULL;
    free(sim);
    return passed;
}
