/*
 * The hard state of consensus on disk: term and vote, in two slots of one sector
 * each that are written in turn, so that a torn write spoils only the older one.
 * docs/design/data-directory.md has the format.
 */
#ifndef BOP_CLUSTER_VOTE_FILE_H
#define BOP_CLUSTER_VOTE_FILE_H

#include <bop/error.h>
#include <bop/fs.h>

struct vote_file {
    struct bop_fs *fs;
    int fd; /* -1: closed. */
    uint64_t counter;
    uint64_t term;
    uint64_t vote;
};

/** Open or make. A file in which neither slot is valid is BOP_ECORRUPT. */
BOP_MUST_USE int bop__vote_file_open(struct vote_file *file, struct bop_fs *fs, const char *path,
                                     bool create, struct bop_error *err);
/** Make term and vote durable. Returns when they are; a failure is final. */
BOP_MUST_USE int bop__vote_file_save(struct vote_file *file, uint64_t term, uint64_t vote);
void bop__vote_file_close(struct vote_file *file);

#endif
