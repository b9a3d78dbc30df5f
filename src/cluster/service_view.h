/*
 * Views that clients hold open: any number of reads of one revision. Each pins what it
 * shows in the store, so they are few and do not last.
 */
#ifndef BOP_CLUSTER_SERVICE_VIEW_H
#define BOP_CLUSTER_SERVICE_VIEW_H

#include <bop/base.h>

#define SERVICE_VIEWS_MAX      64 /* Of a node... */
#define SERVICE_VIEWS_CONN_MAX 16 /* ...and of a connection. */
#define SERVICE_VIEW_IDLE_MS   30000
#define SERVICE_VIEW_LIFE_MS   300000

struct service;
struct service_conn;
struct machine_view;

struct service_view {
    uint64_t id; /* Drawn at random, so that no other node knows it. 0: free. */
    struct service_conn *conn;
    struct machine_view *view;
    uint64_t opened_ms;
    uint64_t used_ms;
};

struct service_views {
    struct service_view list[SERVICE_VIEWS_MAX];
    unsigned count;
};

/** Close those of a connection. */
void bop__service_views_close(struct service_conn *conn);
/** Close all. */
void bop__service_views_release(struct service *service);
/** Close those that are over. Returns when to look again. */
uint64_t bop__service_views_turn(struct service *service, uint64_t now_ms);

#endif
