/*
 * Reading a chunk of the manifest from its first byte to its end.
 */
#ifndef BOP_STORE_AOF_MANIFEST_REPLAY_H
#define BOP_STORE_AOF_MANIFEST_REPLAY_H

#include "manifest_catalogue.h"

struct bop__manifest_replay {
    struct bop_allocator *allocator;
    const char *path; /* For messages. */
    uint64_t index;   /* What the file's name says. */
    const uint8_t *log_id;
    struct bop__catalogue *catalogue; /* Empty; filled. */
    /* Called for each record; may be NULL. A non-zero result ends the replay and is returned. */
    int (*on_record)(void *user, uint64_t offset, const struct bop__manifest_record *record);
    void *user;

    /* Results. */
    struct bop__manifest_chunk_header header;
    struct bop__manifest_place place; /* Of the record after the last. */
    uint64_t end;                     /* Where it would lie. */
    uint64_t snapshot_end;
    uint64_t records;
    uint64_t unknown;
};

/**
 * Replay a chunk. 0; BOP_ECORRUPT, BOP_EVERSION, BOP_EMISMATCH (another log's), BOP_ENOMEM. The
 * results hold as far as it got.
 */
int bop__manifest_replay(struct bop__manifest_replay *replay, struct bop_slice chunk,
                         struct bop_error *err);

#endif
