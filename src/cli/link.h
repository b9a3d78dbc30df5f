/*
 * A client on a loop that this program turns itself: what commands ask through.
 *
 * Requests are asked for on link->client and the loop is turned by link_turn(),
 * or link_call() does both for one request. A server that was never there is
 * noticed early: waiting for it through the whole timeout would only hide the
 * mistake.
 */
#ifndef BOP_CLI_LINK_H
#define BOP_CLI_LINK_H

#include <bop/client_view.h>

#include "cli.h"

struct link {
    const struct cli_args *args;
    struct bop_loop *loop;
    struct bop_client *client;
    uint64_t timeout_ms;
    uint64_t opened_us;
    bool saw_timeout;   /* A server did not even refuse. */
    bool contacted;     /* A server was reached, now or before. */
    bool in_vain;       /* None was, and it is time to say so. */
    uint64_t silent_us; /* Since when none is; 0: one is. */
    bool told_silence;
    struct bop_client_info info; /* As of the last turn, for messages. */
};

struct link_options {
    const struct cli_args *args;
    uint64_t timeout_ms;      /* When the command line says none. */
    unsigned outstanding_max; /* 0: the client's default. */
    bool pin;
    uint32_t grace_ms;   /* Of the session. */
    uint32_t session_ms; /* Its timeout; 0: the client's default. */
    uint64_t silence_ms; /* When a server is given up that says nothing. 0: the client's default. */
};

/** Begin to connect. Returns an exit code; what failed was said. */
BOP_MUST_USE int link_open(const struct link_options *options, struct link *out_link);

/** End the session in order and free all. A zeroed link is fine. */
void link_close(struct link *link);

/** One turn of the loop of at most wait_ms. Returns 0, BOP_ETIMEOUT when in_vain, or -errno. */
BOP_MUST_USE int link_turn(struct link *link, int wait_ms);

/** As link_turn(), for what may wait for ever: it says so if no server answers for long, and when
 * one does again. */
BOP_MUST_USE int link_turn_patiently(struct link *link, int wait_ms);

/**
 * Ask and wait. The result's slices point into buf, which is cleared first.
 * Returns the code of the request.
 */
BOP_MUST_USE int link_call(struct link *link, const struct bop_operation *operation,
                           struct bop_buf *buf, struct bop_result *out_result);

/** Open a view and wait for it. Returns the code of the request. */
BOP_MUST_USE int link_view_open(struct link *link, struct bop_client_view *out_view);

/** As link_call(), of a view; NULL: of the cluster as it is. */
BOP_MUST_USE int link_view_call(struct link *link, const struct bop_client_view *view,
                                const struct bop_operation *operation, struct bop_buf *buf,
                                struct bop_result *out_result);

/** Say that something was not done for this code, and why. Returns the exit code. */
int link_complain(const struct link *link, int code, const char *format, ...) BOP_PRINTF(3, 4);

/** How a read is to be done, as the flags say. */
enum bop_consistency link_consistency(const struct cli_args *args);

#endif
