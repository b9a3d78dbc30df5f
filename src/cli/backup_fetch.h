/*
 * Getting a backup from one node: having it cut, and its pieces into a file.
 */
#ifndef BOP_CLI_BACKUP_FETCH_H
#define BOP_CLI_BACKUP_FETCH_H

#include <bop/backup.h>

#include "cmd_cluster.h"
#include "progress.h"

#define FETCH_WINDOW 4 /* Pieces asked for ahead of their answers. */

struct fetch;

struct fetch_piece {
    struct fetch *fetch;
    bool busy;
};

/** One a node. Nothing of it may go before fetch_close(). */
struct fetch {
    struct cli_args args; /* As given, but for the server. */
    struct cluster cluster;
    bool open;
    struct bop_backup_response backup; /* Once cut. Its text is in `text`. */
    char text[BOP_BACKUP_TEXT_MAX + 1];
    uint64_t rate; /* Bytes a second; 0: as fast as they come. */
    int fd;
    uint64_t next; /* Written up to here. */
    uint64_t asked;
    uint64_t begun_at; /* When pieces were first asked for, and from where. */
    uint64_t begun_us;
    uint64_t wait_until_us;
    uint64_t cut_off_us; /* Since when there is no connection; 0: there is one. */
    unsigned outstanding;
    bool astray; /* An answer was not the next piece: ask anew from there. */
    int rc;
    struct fetch_piece pieces[FETCH_WINDOW];
};

/** Connect to this server, and no other. Returns an exit code. */
BOP_MUST_USE int fetch_open(struct fetch *fetch, const struct cli_args *args, const char *server);
void fetch_close(struct fetch *fetch);

/** Have one cut, and wait until it is. Returns 0 and backup.code, or a code. */
BOP_MUST_USE int fetch_cut(struct fetch *fetch, bool stale);

/** Look whether the node still has this one. Likewise. */
BOP_MUST_USE int fetch_look(struct fetch *fetch, uint64_t backup);

/** All of it from `from` on into a file. Returns 0, or a code; `next` says how far it came. */
BOP_MUST_USE int fetch_pieces(struct fetch *fetch, int fd, uint64_t from,
                              struct progress *progress);

/** Tell the node that it need not keep it. Best effort. */
void fetch_drop(struct fetch *fetch);

#endif
