/*
 * Shared by service.c (our own kinds) and service_legacy.c (the prototype's).
 */
#ifndef BOP_CLUSTER_SERVICE_INTERNAL_H
#define BOP_CLUSTER_SERVICE_INTERNAL_H

#include "service.h"

struct service {
    struct service_options options;
    struct bop_allocator *allocator;
    struct replica *replica;
    uint64_t started_ms;
    uint64_t clients;
    struct bop_buf scratch;
};

struct service_conn {
    struct service *service;
    const struct service_io *io;
    void *user;
    bool closed; /* The client is gone; freed with the last request. */
    bool paused;
    unsigned outstanding;
};

/** A request under way. Its payload follows the struct. */
struct service_request {
    union {
        struct replica_write write;
        struct replica_read read;
    };
    struct service_conn *conn;
    uint32_t id;
    uint16_t kind;
    size_t size; /* Of the payload. */
    uint8_t payload[];
};

/** Begin a response; NULL: nobody to answer. */
struct bop_buf *bop__service_begin(struct service_conn *conn, size_t *out_at);
void bop__service_end(struct service_conn *conn, struct bop_buf *out, size_t at,
                      enum bop_wire_kind kind, uint8_t flags, uint32_t request,
                      const struct bop_writer *writer);

/** Make a request, counted in its connection. NULL: no memory. */
struct service_request *bop__service_request(struct service_conn *conn,
                                             const struct bop_wire_frame *frame);
/** It is answered. */
void bop__service_finish(struct service_request *request);

static inline struct bop_slice bop__service_payload(const struct service_request *request)
{
    return bop_slice(request->payload, request->size);
}

/** Kinds 1 to 74. */
BOP_MUST_USE int bop__service_legacy(struct service_conn *conn, const struct bop_wire_frame *frame);

/** Answer with kind 69. */
void bop__service_error(struct service_conn *conn, uint32_t request, const char *text);

#endif
