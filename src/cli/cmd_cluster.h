/*
 * What the commands of the group `cluster` share: asking, and asking again while the
 * answer is one that passes.
 */
#ifndef BOP_CLI_CMD_CLUSTER_H
#define BOP_CLI_CMD_CLUSTER_H

#include <bop/cluster_admin.h>

#include "link.h"

/** A link and the answer that came last. */
struct cluster {
    struct link link;
    struct bop_buf request;
    struct bop_buf response;
    uint64_t deadline_us;
};

/** Begin. pin: stay with the server named. Returns an exit code; what failed was said. */
BOP_MUST_USE int cluster_open(struct cluster *cluster, const struct cli_args *args, bool pin);
void cluster_close(struct cluster *cluster);

/** Send what lies in request. The answer is in response. Returns 0 or a code. */
BOP_MUST_USE int cluster_ask(struct cluster *cluster, uint16_t kind);

/** Wait a moment before asking again. False if the time is up. */
BOP_MUST_USE bool cluster_wait(struct cluster *cluster);

/** The members, asked for until somebody leads. Slices point into response. Returns an exit code.
 */
BOP_MUST_USE int cluster_members(struct cluster *cluster, struct bop_admin_members *out);

/** A change, asked for again while the answer is a passing one. Returns an exit code; what the
 * server said is said. */
BOP_MUST_USE int cluster_change(struct cluster *cluster, const struct bop_admin_change_request *in,
                                struct bop_admin_change_response *out);

/** Say why the server refuses. Returns the exit code. */
int cluster_complain(uint8_t code, struct bop_slice text);

/** A node's number from the command line. */
BOP_MUST_USE bool cluster_number(const char *text, uint64_t max, uint64_t *out_number);

int cmd_cluster_status(const struct cli_args *args);
int cmd_cluster_members(const struct cli_args *args);
int cmd_cluster_add(const struct cli_args *args);
int cmd_cluster_promote(const struct cli_args *args);
int cmd_cluster_demote(const struct cli_args *args);
int cmd_cluster_remove(const struct cli_args *args);
int cmd_cluster_replace(const struct cli_args *args);
int cmd_cluster_priority(const struct cli_args *args);
int cmd_cluster_transfer(const struct cli_args *args);
int cmd_cluster_plan(const struct cli_args *args);
int cmd_cluster_params(const struct cli_args *args);
int cmd_cluster_repair(const struct cli_args *args);

#endif
