/*
 * What tests of the client share: turning a loop until something holds, and a real node
 * on the test's own loop.
 */
#ifndef TEST_CLIENT_HELP_H
#define TEST_CLIENT_HELP_H

#include <stdio.h>

#include <bop/clock.h>
#include <bop/loop.h>
#include <bop/node.h>

#include "tap.h"

#define PATIENCE_MS 60000 /* Nothing takes so long but a bug. */

#define TURN_LOOP_UNTIL(loop, condition)                                                           \
    do {                                                                                           \
        uint64_t end_ = bop_clock_monotonic_ms(bop_clock_system()) + PATIENCE_MS;                  \
                                                                                                   \
        while (!(condition)) {                                                                     \
            REQUIRE(bop_clock_monotonic_ms(bop_clock_system()) < end_);                            \
            REQUIRE_EQ(bop_loop_run_once(loop, 10), 0);                                            \
        }                                                                                          \
    } while (0)

static inline void on_node_failed(void *user, int code, const char *message)
{
    test_note("the node failed: %s", message);
    CHECK_EQ(code, 0);
}

/* A node of one, and where it listens. */
static inline struct bop_node *start_one_node(struct bop_loop *loop, char out_endpoint[64])
{
    struct bop_node_options options = {
        .loop = loop, .data = test_path(NULL, "node"), .id = 1, .on_failed = on_node_failed};
    struct bop_error err = {0};
    struct bop_node *node = NULL;

    REQUIRE_EQ(bop_node_start(&options, &node, NULL, &err), 0);
    snprintf(out_endpoint, 64, "127.0.0.1:%u", bop_node_port(node));
    return node;
}

#endif
