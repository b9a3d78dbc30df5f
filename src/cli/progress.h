/*
 * How far a long work has come: on a terminal a line that is drawn over and over,
 * else, if wanted, a line every second.
 */
#ifndef BOP_CLI_PROGRESS_H
#define BOP_CLI_PROGRESS_H

#include <stdio.h>

#include <bop/base.h>

#define COUNT_TEXT_MAX 32

/** "100,754". Returns out_text. */
const char *count_text(uint64_t count, char out_text[COUNT_TEXT_MAX]);

struct progress {
    FILE *out;
    const char *what; /* "imported" */
    uint64_t total;   /* 0: not known. */
    uint64_t started_us;
    uint64_t shown_us;
    uint64_t shown_count;
    double rate; /* Of late, in counts a second. */
    bool terminal;
    bool lines; /* Without a terminal: a line every second. */
    bool drawn; /* The cursor is on a line of ours. */
};

void progress_init(struct progress *progress, FILE *out, const char *what, uint64_t total,
                   bool lines);

/** Show where we are, unless it was shown just now. note stands at the end. */
void progress_show(struct progress *progress, uint64_t count, const char *note);

/** Wipe the line, so that something else can be printed. */
void progress_clear(struct progress *progress);

double progress_seconds(const struct progress *progress);

#endif
