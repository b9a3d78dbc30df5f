/*
 * A log that a command opens with all its tiers, and lets work until something has come about.
 */
#ifndef BOP_CLI_AOF_SESSION_H
#define BOP_CLI_AOF_SESSION_H

#include <bop/aof_admin.h>

#include "progress.h"

struct aof_session {
    const struct cli_args *args;
    const char *path;
    struct bop_object_store *objects; /* NULL: none. */
    struct bop_tiers *tiers;          /* NULL: the log was never opened with any. */
    struct bop_aof *aof;
    struct bop_aof_info info; /* Before it was opened. */
    struct progress progress;
    int failed;
    char message[256];
};

/**
 * Open the log in args->values[0], which must exist. budgets: of which tiers all is to go that the
 * next one has: 1 << tier. Returns an exit code, having said why if it is not 0.
 */
int aof_session_open(struct aof_session *session, const struct cli_args *args, unsigned budgets);
void aof_session_close(struct aof_session *session);

/**
 * Let it work until done returns true, or nothing is to be done any more, or the time of --timeout
 * is over. Returns 0, BOP_EEND if it came to rest without, BOP_ETIMEOUT, or the log's failure.
 */
int aof_session_run(struct aof_session *session, bool (*done)(struct aof_session *, void *user),
                    void *user);

/** Say why a run ended so, with what the tiers met last. Returns an exit code. */
int aof_session_complain(struct aof_session *session, int code, const char *what);

#endif
