/*
 * A log that a command appends to, and waits for.
 */
#ifndef BOP_CLI_AOF_WRITER_H
#define BOP_CLI_AOF_WRITER_H

#include <bop/tiers.h>

#include "cli.h"

struct aof_writer {
    struct bop_inline_executor executor;
    struct bop_aof *aof;
    struct bop_tiers *tiers; /* If the log was opened with some before; NULL: none. */
    uint64_t durable;
    uint64_t commits; /* Calls of on_durable. */
    int failed;
    struct bop_error err;
    struct bop_aof_recovery recovery;
};

/** Open it. Returns an exit code, having said why if it is not 0. */
int aof_writer_open(struct aof_writer *writer, const struct bop_aof_options *options);
/** Bring all to the disk. 0 or a code, with the reason in writer->err. */
int aof_writer_flush(struct aof_writer *writer);
/** Append, and flush first if too much is pending. */
int aof_writer_append(struct aof_writer *writer, const struct bop_aof_record *record);
void aof_writer_close(struct aof_writer *writer);

#endif
