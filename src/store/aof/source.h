/*
 * A segment's bytes, from wherever they are: the file as it was written, in each tier.
 * Offsets are those in that file.
 */
#ifndef BOP_STORE_AOF_SOURCE_H
#define BOP_STORE_AOF_SOURCE_H

#include <bop/aof.h>

struct bop__segment_source {
    enum bop_aof_tier tier;
    const char *name; /* The file or the object, for messages. Lives as long as this. */
    /* Nothing is read from here on. Of a sealed segment: its whole size with the footer. Of one
     * that is written: how far it has got; whoever reads it raises this as the log grows. */
    uint64_t size;
    /* Bytes from offset on, at least `least` of them unless the segment ends before; maybe many
     * more, as they come. They stay until the next call or close. 0 (out_bytes may be shorter than
     * `least` only at the end), BOP_EHYDRATING, BOP_ECORRUPT, BOP_ENOMEM or the file's code. */
    int (*at)(struct bop__segment_source *self, uint64_t offset, size_t least,
              struct bop_slice *out_bytes, struct bop_error *err);
    /* A nearer place to begin walking to a record than the footer's leaf: of a record at or before
     * seq that lies in the same frame, mostly. False: this one has not got seq. NULL: nothing
     * nearer is known. Reads nothing. */
    bool (*find)(const struct bop__segment_source *self, uint64_t seq, uint64_t *out_seq,
                 uint64_t *out_offset);
    /* Have the kernel read these bytes ahead. Does not wait. NULL: there is nothing to be done. */
    void (*prefetch)(struct bop__segment_source *self, uint64_t offset, uint64_t bytes);
    void (*close)(struct bop__segment_source *self);
};

/**
 * The bytes of a local segment file. With pread it is never mapped. sealed: it does not change any
 * more, and is read up to its end; else size is 0 at first.
 */
int bop__file_source_open(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                          bool sealed, bool pread, struct bop__segment_source **out_source,
                          struct bop_error *err);

#endif
