/*
 * The parts of `bop demo` that its files share: the state of the story, how it is
 * told, and its end.
 */
#ifndef BOP_CLI_DEMO_H
#define BOP_CLI_DEMO_H

#include "cli.h"
#include "demo_cluster.h"
#include "demo_load.h"
#include "probe.h"
#include "progress.h"

#define DEMO_PATIENCE_US UINT64_C(60000000) /* For each thing that is waited for. */

enum demo_phase {
    DEMO_CALM,
    DEMO_KILLED,    /* The leader is. */
    DEMO_RECOVERED, /* There is another, and writes go on. */
    DEMO_RESTARTED, /* The killed one was. */
};

struct demo {
    const struct cli_args *args;
    FILE *out; /* Where the story goes; the report as JSON has standard output for itself. */
    uint64_t started_us;
    struct bop_loop *loop;
    struct demo_data data;
    uint64_t packages;
    struct demo_cluster cluster;
    struct bop_client *client; /* The writer's. */
    struct demo_load load;
    struct probe probes[DEMO_NODES];
    uint64_t probed_us;
    struct progress progress;
    uint64_t leader; /* As told last; 0: none. */
    uint64_t elected_us;
    struct demo_check checks[DEMO_NODES];
    int64_t counter; /* What the nodes say of it; the highest. */
    enum demo_phase phase;
    unsigned killed; /* The index of the node that was. */
    bool color;
    bool probing;
    bool checked[DEMO_NODES];
    bool digests_equal;
    struct bop_error err; /* Why the story came to its end before time. */
};

/* ---- demo_tell.c ---- */

enum demo_mood {
    DEMO_PLAIN,
    DEMO_GOOD,
    DEMO_BAD,
};

/** One line of the story, with the time. */
void demo_tell(struct demo *demo, enum demo_mood mood, const char *format, ...) BOP_PRINTF(3, 4);

/** Writes that are in a node, or in the counter, more often than they were asked for. */
uint64_t demo_duplicates(const struct demo *demo);
uint64_t demo_lost(const struct demo *demo);
uint64_t demo_different(const struct demo *demo);
/** True if all was compared and nothing was lost, doubled or changed. */
bool demo_is_good(const struct demo *demo);

void demo_print_report(struct demo *demo);
void demo_print_how_to_talk(const struct demo *demo);

/* ---- demo_story.c ---- */

/** From the first process to the last comparison. Returns 0, or a code with demo->err set. */
BOP_MUST_USE int demo_play(struct demo *demo);

/** One turn of everything that is under way. Returns 0, or a code with demo->err set. */
BOP_MUST_USE int demo_turn(struct demo *demo);

/** What to return when DEMO_PATIENCE_US is over. */
int demo_too_long(struct demo *demo, const char *waiting_for);

/** True once Ctrl-C was pressed, or the like. */
bool demo_interrupted(void);
void demo_catch_signals(void);

/* ---- demo_compare.c ---- */

/** Wait until all nodes have applied the same, then look whether it is what was written. */
BOP_MUST_USE int demo_compare(struct demo *demo);

#endif
