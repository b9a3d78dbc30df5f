/*
 * What a data directory knows of its own place in the cluster: the file `member`.
 *
 *      incarnation <16 hexadecimal digits>
 *      member <no, yes or removed>
 *
 * The incarnation is drawn when the directory is made and tells it from every other
 * one that was ever used under the same id: a node whose disk was replaced has
 * forgotten its votes and what it acknowledged, and must not pass for the old one.
 */
#ifndef BOP_CLUSTER_MEMBER_FILE_H
#define BOP_CLUSTER_MEMBER_FILE_H

#include <bop/error.h>
#include <bop/fs.h>

enum member_state {
    MEMBER_NO,      /* It has yet to find itself in a committed configuration. */
    MEMBER_YES,     /* It was in one: it never asks to be added again. */
    MEMBER_REMOVED, /* It was taken out of the cluster, for good. */
};

struct member_file {
    uint64_t incarnation;
    enum member_state state;
};

/**
 * Read it; if there is none, make it with this incarnation and state: of a new directory,
 * and of one from before there was this file. BOP_ECORRUPT if it makes no sense.
 */
BOP_MUST_USE int bop__member_file_open(struct member_file *file, struct bop_fs *fs,
                                       const char *path, uint64_t incarnation,
                                       enum member_state state, struct bop_error *err);

/** Write the state down, synced. */
BOP_MUST_USE int bop__member_file_save(struct member_file *file, struct bop_fs *fs,
                                       const char *path, enum member_state state,
                                       struct bop_error *err);

#endif
