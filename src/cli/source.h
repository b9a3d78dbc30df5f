/*
 * Where entries come from: a file or pipe, read piece by piece.
 *
 *     NDJSON   ndjson.h
 *     dpkg     /var/lib/dpkg/status: one entry a package, its name to its stanza
 */
#ifndef BOP_CLI_SOURCE_H
#define BOP_CLI_SOURCE_H

#include <bop/error.h>
#include <bop/slice.h>

/* ---- Lines ---- */

/** Reads lines from a descriptor it borrows. Memory is bounded by the longest line. */
struct lines {
    int fd;
    size_t line_max;
    struct bop_buf buf;
    size_t at;      /* Where the next line begins. */
    size_t scanned; /* No line feed before here. */
    uint64_t bytes; /* Read so far. */
    bool patient;   /* Wait for a pipe that has nothing now. */
    bool at_end;
};

void lines_init(struct lines *lines, int fd, size_t line_max);
void lines_deinit(struct lines *lines);

/**
 * The next line with its line feed, which the last one may lack; borrowed until the next call.
 * Returns 1, or 0 at the end; BOP_EAGAIN if nothing is there yet and it is not patient;
 * BOP_ETOOBIG; -errno; BOP_ENOMEM.
 */
BOP_MUST_USE int lines_next(struct lines *lines, struct bop_slice *out_line);

/* ---- Stanzas ---- */

/** A paragraph of a package database, as far as it was read. Init by stanza_init(). */
struct stanza {
    struct bop_buf text;
    struct bop_buf name;
    struct bop_buf architecture;
    bool same; /* Multi-Arch: same. */
};

void stanza_init(struct stanza *stanza);
void stanza_deinit(struct stanza *stanza);
void stanza_clear(struct stanza *stanza);

/** Take a line. Returns 1 if it ended a stanza that is now complete, 0, or BOP_ENOMEM or BOP_EFULL.
 */
BOP_MUST_USE int stanza_add(struct stanza *stanza, struct bop_slice line);

/**
 * What the entry is called: the package's name, followed by ":architecture" where several may be
 * installed at once (Multi-Arch: same), as `dpkg -l` prints it.
 * Returns 0, BOP_ENOTFOUND if there is no Package field, BOP_ENOMEM.
 */
BOP_MUST_USE int stanza_key(const struct stanza *stanza, struct bop_buf *out_key);

/* ---- Entries ---- */

struct source {
    struct lines lines;
    struct stanza stanza;
    struct bop_buf key;
    struct bop_buf value;
    uint64_t line; /* The number of the last one read. */
    bool dpkg;
    bool members;   /* Of a set: lines have no key and value but a member, which comes as key. */
    bool counters;  /* Lines are of counters: their name comes as key, */
    int64_t number; /* and this is their value. */
};

void source_init(struct source *source, int fd, bool dpkg);
void source_deinit(struct source *source);

/**
 * The next entry into source->key and value. Returns 1, 0 at the end, BOP_EAGAIN as
 * lines_next(), or another code with what is wrong, and in which line, in err.
 */
BOP_MUST_USE int source_next(struct source *source, struct bop_error *err);

#endif
