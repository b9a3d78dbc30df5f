/*
 * A snapshot file: one revision of the whole state machine, streamed from a view
 * of the store, checked whole before anything of it is believed. The format is
 * docs/design/snapshot.md.
 */
#ifndef BOP_CLUSTER_SNAPSHOT_H
#define BOP_CLUSTER_SNAPSHOT_H

#include <bop/error.h>
#include <bop/fs.h>
#include <bop/raft.h>

#include "machine.h"
#include "machine_record.h"

/** Free bytes of the disk that no snapshot takes: the log's, so that a node whose disk is nearly
 * full can still be told who leads. */
#define SNAPSHOT_ROOM_KEPT (UINT64_C(16) * 1024 * 1024)

/** What a snapshot file says of itself. */
struct snapshot_info {
    struct bop_raft_snapshot raft; /* index, term, configuration. */
    struct machine_position position;
    uint64_t bytes;   /* Of the file. */
    uint64_t entries; /* Key-value pairs. */
    uint64_t digest;  /* Of the content, as bop__machine_content_digest(). */
    uint32_t format;  /* Of the state in it. */
};

/**
 * Write a view to path: into path.tmp, synced, renamed, directory synced. Any
 * thread (the view's). conf is the configuration as of the view's position, in
 * the payload form of a CHANGE entry. BOP_ENOROOM: less than SNAPSHOT_ROOM_KEPT would be left on
 * the disk. On failure no file is left but perhaps the .tmp.
 */
BOP_MUST_USE int bop__snapshot_write(struct bop_allocator *allocator, struct bop_fs *fs,
                                     const char *path, struct machine_view *view,
                                     struct bop_slice conf, struct snapshot_info *out_info,
                                     struct bop_error *err);

/** The same in steps, with what was there at one position: open, then its records in order, then
 * finish or drop. What is not read soon is kept out of the page cache. After a failure of open
 * there is nothing to drop; finish ends the writer in any case. */
struct snapshot_writer;
BOP_MUST_USE int bop__snapshot_writer_open(struct bop_allocator *allocator, struct bop_fs *fs,
                                           const char *path,
                                           const struct machine_position *position,
                                           struct bop_slice conf, bool read_soon,
                                           struct snapshot_writer **out_writer,
                                           struct bop_error *err);
/** A machine_walk_fn; user is the writer. 0 or a code, and then the writer can only be dropped. */
BOP_MUST_USE int bop__snapshot_writer_record(void *user, enum machine_table table,
                                             struct bop_slice key, struct bop_slice value);
BOP_MUST_USE int bop__snapshot_writer_finish(struct snapshot_writer *writer,
                                             struct snapshot_info *out_info, struct bop_error *err);
/** NULL is fine. */
void bop__snapshot_writer_drop(struct snapshot_writer *writer);

/** Read and check a whole file: BOP_ECORRUPT, BOP_EVERSION, BOP_ETRUNCATED. Memory is bounded
 * whatever it claims. */
BOP_MUST_USE int bop__snapshot_check(struct bop_allocator *allocator, struct bop_fs *fs,
                                     const char *path, struct snapshot_info *out_info,
                                     struct bop_error *err);

/** What a file says of itself in its header, and in its last block how many entries it has; what
 * lies in between is not looked at. Codes as of a check. */
BOP_MUST_USE int bop__snapshot_peek(struct bop_allocator *allocator, struct bop_fs *fs,
                                    const char *path, struct snapshot_info *out_info,
                                    struct bop_error *err);

/**
 * Make the state of a machine that is not open from a file that is checked
 * first: the store at options->path is removed and made anew. If it fails or the
 * process dies in between, the position found at the next open is 0.
 */
BOP_MUST_USE int bop__snapshot_load(struct bop_fs *fs, const char *path,
                                    const struct machine_options *options,
                                    struct snapshot_info *out_info, struct bop_error *err);

#endif
