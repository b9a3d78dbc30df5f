/*
 * Shared by service_legacy.c (kinds of maps, sets, multimaps and counters) and
 * service_legacy_node.c (kinds of nodes and locks) and service_sync.c (the state-sync stream).
 */
#ifndef BOP_CLUSTER_SERVICE_LEGACY_H
#define BOP_CLUSTER_SERVICE_LEGACY_H

#include <bop/transaction.h>

#include "service_internal.h"

typedef int service_entry_fn(void *user, const struct bop_scan_entry *entry);
/** Run a read that answers in pages to its end and call fn for each entry, until it returns another
 * than 0. That, or 0, a bop_status or a code. */
BOP_MUST_USE int bop__service_each_entry(struct machine_view *view, struct bop_allocator *allocator,
                                         struct bop_operation *operation, service_entry_fn *fn,
                                         void *user);

bool bop__service_legacy_is_of_node(uint16_t kind);
/** Serve one; the payload is checked. BOP_EAGAIN while another one is under way. */
BOP_MUST_USE int bop__service_legacy_node(struct service_conn *conn,
                                          const struct bop_wire_frame *frame);
/** A frame came: a connection that has joined is alive. */
void bop__service_legacy_alive(struct service_conn *conn);
/** The connection is freed. What it joined as stays until its time is up. */
void bop__service_legacy_free(struct service_conn *conn);
/** The id of a node in a member's name; empty: it is none's. */
struct bop_slice bop__service_node_id(struct bop_slice group, struct bop_slice member);

typedef int service_node_fn(void *user, struct bop_slice id, uint64_t session);
/** Call fn for each connection of each node, in the order of joining, until it returns another than
 * 0, which is returned; or a bop_status or a code. */
BOP_MUST_USE int bop__service_each_node(struct machine_view *view, struct bop_allocator *allocator,
                                        service_node_fn *fn, void *user);

/* ---- service_sync.c ---- */

struct sync;

/** From here on the connection is told the state, and what changes. */
BOP_MUST_USE int bop__service_sync_begin(struct service_conn *conn, struct sync **out_sync);
/** NULL is fine. */
void bop__service_sync_end(struct sync *sync);
/** A STATE_SYNC_ACK came, checked. A code: close. */
BOP_MUST_USE int bop__service_sync_acked(struct sync *sync, struct bop_slice payload);
/** The stream of a connection; NULL: there is none. */
struct sync *bop__service_legacy_sync(const struct service_conn *conn);

/** A request of these kinds is under way, and the next one must wait. */
bool bop__service_legacy_busy(const struct service_conn *conn);

#endif
