/*
 * What a log and its tiers ask of each other: one archive for each log with tiers.
 *
 * All on the owner's thread, but for what readers call on theirs: bop__archive_find,
 * bop__archive_source and bop__archive_touch.
 */
#ifndef BOP_STORE_AOF_ARCHIVE_H
#define BOP_STORE_AOF_ARCHIVE_H

#include <bop/tiers.h>

#include "footer.h"

struct bop__archive;

/** What the archive asks of the log. */
struct bop__archive_calls {
    /* Tier 1 or 2 holds this segment verified and durable, and it may leave tier 0: stop using
     * its file and remove it. False if the log cannot let go of it now; it will be asked again. */
    bool (*release)(void *log, uint64_t generation);
    /* All records up to seq are in tier 2, verified. */
    void (*tier2)(void *log, uint64_t seq);
    /* What was being fetched has come, or failed: readers look again. */
    void (*hydrated)(void *log);
    /* Sealed segments waiting for their packing have become fewer. */
    void (*room)(void *log);
    /* There may be memory by now for the segment that was refused: tell it again. */
    void (*again)(void *log);
    /* The oldest record that can be read has moved up, by retention. */
    void (*oldest)(void *log, uint64_t seq);
};

struct bop__archive_options {
    const char *path; /* The log's directory; the archive's are warm/ and manifest/ in it. */
    const char *name;
    uint8_t log_id[BOP_AOF_ID_SIZE];
    const struct bop__archive_calls *calls;
    void *log;
};

/** Open the manifest and what it speaks of. Blocks. */
int bop__archive_open(struct bop_tiers *tiers, const struct bop__archive_options *options,
                      struct bop__archive **out_archive, struct bop_error *err);

/**
 * No call comes from now on. Its sources are closed. Work under way on the tiers' own lanes is
 * ended; on executors that were handed in it may still be there: opening the same log again is
 * BOP_EBUSY until they are through.
 */
void bop__archive_close(struct bop__archive *archive);

/** The segments it knows, oldest first. Returns how many; out_facts has room for `max`. */
size_t bop__archive_segments(const struct bop__archive *archive,
                             struct bop__segment_facts *out_facts, size_t max);

/**
 * A segment was sealed (its footer is on disk), or was found sealed at open. Known ones are fine.
 * 0, or BOP_ENOMEM: to be told again when calls.again asks for it, and before any later segment
 * (those are refused too).
 */
int bop__archive_sealed(struct bop__archive *archive, const struct bop__segment_facts *facts,
                        const char *path);

/** Sealed segments that are not yet verified in a lower tier. Costs nothing to ask often. */
size_t bop__archive_waiting(struct bop__archive *archive);

/** Records above last_kept are void: segments that have any of them are dropped from all tiers. */
int bop__archive_truncate_back(struct bop__archive *archive, uint64_t last_kept,
                               struct bop_error *err);

/**
 * The archived segment that holds record seq, or else the first one above it: facts.base tells.
 * BOP_ENOTFOUND: there is none. Any thread; looks at memory only.
 */
int bop__archive_find(struct bop__archive *archive, uint64_t seq,
                      struct bop__segment_facts *out_facts);

/**
 * A source for an archived segment. Any thread. blocking: its calls wait for the object store; else
 * they, and this, may return BOP_EHYDRATING, and calls.hydrated follows. BOP_ENOTFOUND: not known.
 */
int bop__archive_source(struct bop__archive *archive, uint64_t generation, bool blocking,
                        struct bop__segment_source **out_source, struct bop_error *err);

/** Somebody reads this segment: it is not the coldest. Any thread. */
void bop__archive_touch(struct bop__archive *archive, uint64_t generation);

/** Fetch frames ahead, as bop_aof_prefetch asks. */
int bop__archive_prefetch(struct bop__archive *archive, uint64_t seq, uint64_t bytes);

#endif
