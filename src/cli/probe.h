/*
 * Asking one node, and no other, how it is.
 */
#ifndef BOP_CLI_PROBE_H
#define BOP_CLI_PROBE_H

#include <bop/client.h>

struct cli_args;

struct probe {
    struct bop_client *client;
    char address[BOP_ADDRESS_MAX + 1];
    uint64_t node;            /* As others call it, or as it said; 0: not known. */
    bool asking;              /* A request is under way. */
    bool answered;            /* status is good; it stays when the next request is in vain. */
    int code;                 /* Of the last request. */
    struct bop_error trouble; /* Why it was given up, in more words. */
    uint64_t heard_us;        /* When it answered last. */
    struct bop_buf buf;       /* What status points into. */
    struct bop_status_response status;
};

struct probe_options {
    struct bop_loop *loop;
    const char *address;
    const char *cluster; /* NULL: any. */
    uint64_t timeout_ms;
    const struct cli_args *args; /* For TLS and token. NULL: none. */
};

/** Begin to connect. Returns 0 or a code with err set, as bop_client_create(). */
BOP_MUST_USE int probe_open(struct probe *probe, const struct probe_options *options,
                            struct bop_error *err);
void probe_close(struct probe *probe);

/** Ask, unless that is under way. */
void probe_ask(struct probe *probe);

/** Why the node cannot be reached, as far as is known by now; 0 if nothing speaks against it. */
int probe_trouble(const struct probe *probe);

/** Ask no more; code says why. What was heard stays. */
void probe_give_up(struct probe *probe, int code);

/** Of those that answered and lead, the one with the highest term, or NULL. */
const struct probe *probe_leader(const struct probe *probes, size_t count);

/** "leader", "follower", ... */
const char *probe_state_text(uint8_t state);

#endif
