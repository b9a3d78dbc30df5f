/*
 * Shared by service_legacy.c (kinds of maps, sets, multimaps and counters) and
 * service_legacy_node.c (kinds of nodes and locks).
 */
#ifndef BOP_CLUSTER_SERVICE_LEGACY_H
#define BOP_CLUSTER_SERVICE_LEGACY_H

#include <bop/transaction.h>

#include "service_internal.h"

bool bop__service_legacy_is_of_node(uint16_t kind);
/** Serve one; the payload is checked. BOP_EAGAIN while another one is under way. */
BOP_MUST_USE int bop__service_legacy_node(struct service_conn *conn,
                                          const struct bop_wire_frame *frame);
/** A frame came: a connection that has joined is alive. */
void bop__service_legacy_alive(struct service_conn *conn);
/** The connection is freed. What it joined as stays until its time is up. */
void bop__service_legacy_free(struct service_conn *conn);
/** A request of these kinds is under way, and the next one must wait. */
bool bop__service_legacy_busy(const struct service_conn *conn);

#endif
