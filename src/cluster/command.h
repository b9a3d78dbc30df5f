/*
 * A command: the payload of a log entry of type COMMAND. The bytes are a disk
 * format, docs/design/state-machine.md:
 *
 *      0 version u8 = 1 | 1 kind u8 | 2 zeros u16 | 4 zeros u32
 *      8 origin node u64 | 16 origin request u64 | 24 time_ms u64 | 32 body by kind
 *
 *      WRITE           session u64, sequence u64, acked u64, operation
 *      SESSION_OPEN    timeout_ms u32, token 16 bytes
 *      SESSION_CLOSE   session u64, token 16 bytes
 *      SESSION_EXPIRE  count u32, that many session u64
 *      TIMERS          nothing: what is due by the entry's time goes
 *      LEVEL           level u32: what the cluster speaks of from here on
 *      7               a SESSION_OPEN with grace: timeout_ms u32, grace_ms u32, token 16 bytes
 *
 * The origin says which node answers the client once it has applied the entry.
 * time_ms is stamped by the leader, so that applying needs no clock.
 */
#ifndef BOP_CLUSTER_COMMAND_H
#define BOP_CLUSTER_COMMAND_H

#include <bop/slice.h>
#include <bop/wire.h>

#define COMMAND_VERSION     1
#define COMMAND_HEADER      32
#define COMMAND_TIME_OFFSET 24
#define COMMAND_EXPIRE_MAX  1024 /* Sessions that one entry may expire. */

enum command_kind {
    COMMAND_WRITE = 1,
    COMMAND_SESSION_OPEN = 2,
    COMMAND_SESSION_CLOSE = 3,
    COMMAND_SESSION_EXPIRE = 4,
    COMMAND_TIMERS = 5,
    COMMAND_LEVEL = 6,
};
/* In bytes, what opens a session with grace: to all who hold a decoded command, a SESSION_OPEN. */
#define COMMAND_SESSION_OPEN_GRACE 7

struct command {
    enum command_kind kind;
    uint32_t timeout_ms; /* OPEN, as the next. */
    uint32_t grace_ms;
    uint64_t origin_node;
    uint64_t origin_request;
    uint64_t time_ms;
    uint64_t session;
    uint64_t sequence;
    uint64_t acked;
    struct bop_slice operation;    /* WRITE; borrowed. */
    uint8_t token[BOP_TOKEN_SIZE]; /* OPEN, CLOSE. */
    struct bop_slice expired;      /* EXPIRE: count u64s, borrowed. */
    uint32_t level;                /* LEVEL. */
};

/** Returns 0, BOP_EMALFORMED or BOP_EVERSION. The operation itself is not decoded. */
BOP_MUST_USE int bop__command_decode(struct bop_slice bytes, struct command *out_command);
void bop__command_encode(struct bop_writer *writer, const struct command *command);

/** Stamp the leader's time into an encoded command of at least COMMAND_HEADER bytes. */
static inline void bop__command_set_time(uint8_t *bytes, uint64_t time_ms)
{
    bop_store_u64(bytes + COMMAND_TIME_OFFSET, time_ms);
}

#endif
