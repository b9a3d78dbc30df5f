/*
 * A plain model of the state: arrays and loops, written after the rules and not after the
 * code. It holds the few names that the clients of the simulator use; values are kept as
 * digests, results and events are compared as digests.
 *
 * It is one struct without pointers: a transaction that fails is undone by a copy.
 */
#ifndef BOP_TESTS_SIM_STATE_H
#define BOP_TESTS_SIM_STATE_H

#include <bop/watch.h>
#include <bop/wire.h>

#include "command.h"

#define STATE_MAPS      2 /* "m" and "n", keys "a", "b", ... So all that follow. */
#define STATE_KEYS      8
#define STATE_COUNTERS  4 /* "c0", "c1" grow; of "c2" and "c3" the sum stays. */
#define STATE_SETS      1 /* "s" */
#define STATE_MEMBERS   6
#define STATE_MULTIMAPS 1 /* "u" */
#define STATE_PAIR_KEYS 3
#define STATE_VALUES    3
#define STATE_LOCKS     3 /* "l0" to "l2" */
#define STATE_REQUESTS  400
#define STATE_GROUP     24 /* Members of "g". */
#define STATE_REGISTRY  512
#define STATE_ADDRESSES 4
#define STATE_OPEN      1024 /* Sessions. */

/* What reads show, each with a history of its own. */
enum state_object {
    OBJECT_MAP_KEY = 0,
    OBJECT_MAP_SIZE = OBJECT_MAP_KEY + STATE_MAPS * STATE_KEYS,
    OBJECT_MAP = OBJECT_MAP_SIZE + STATE_MAPS,
    OBJECT_COUNTER = OBJECT_MAP + STATE_MAPS,
    OBJECT_SET_MEMBER = OBJECT_COUNTER + STATE_COUNTERS,
    OBJECT_SET = OBJECT_SET_MEMBER + STATE_SETS * STATE_MEMBERS,
    OBJECT_PAIRS_OF = OBJECT_SET + STATE_SETS,
    OBJECT_MULTIMAP = OBJECT_PAIRS_OF + STATE_MULTIMAPS * STATE_PAIR_KEYS,
    OBJECT_LOCK = OBJECT_MULTIMAP + STATE_MULTIMAPS,
    OBJECT_GROUP = OBJECT_LOCK + STATE_LOCKS,
    OBJECT_REGISTRY = OBJECT_GROUP + 1,
    /* As those are shown all of it who begin to watch. */
    OBJECT_QUEUE = OBJECT_REGISTRY + 1,
    OBJECT_JOINED = OBJECT_QUEUE + STATE_LOCKS,
    OBJECT_REGISTERED = OBJECT_JOINED + 1,
    OBJECT_NAMES = OBJECT_REGISTERED + 1,
    OBJECT_COUNT = OBJECT_NAMES + 1,
};

struct state_cell {
    bool present;
    uint64_t version;
    uint64_t value;       /* A digest. */
    uint64_t ttl_ms;      /* 0: for good. */
    uint64_t deadline_ms; /* Likewise. */
};

struct state_map {
    bool made;
    uint64_t id; /* By which deadlines of the same time are in order. */
    struct state_cell keys[STATE_KEYS];
};

struct state_set {
    bool made;
    struct state_cell members[STATE_MEMBERS];
};

struct state_multimap {
    bool made;
    struct state_cell pairs[STATE_PAIR_KEYS][STATE_VALUES];
};

struct state_counter {
    bool made;
    int64_t value;
};

struct state_request {
    uint64_t ticket, session, token;
    uint64_t deadline_ms; /* UINT64_MAX: none. */
    uint64_t label;       /* A digest; 0: it has none. */
    uint32_t permits;
};

struct state_lock {
    bool exists, stays;
    uint64_t id;
    uint32_t capacity;
    uint32_t count;
    struct state_request requests[STATE_REQUESTS];
};

struct state_member {
    uint64_t number, session;
    uint64_t name;  /* A digest. */
    uint64_t info;  /* Likewise, */
    uint64_t shown; /* of the value that a list shows. */
};

struct state_registration {
    uint64_t session, sequence, index;
    unsigned address;
};

struct state {
    uint64_t index;   /* Of the entry under way; so the next. */
    uint64_t session; /* Whose write it is. */
    uint64_t time_ms;
    uint32_t level;
    uint64_t next_id;
    struct state_map maps[STATE_MAPS];
    struct state_counter counters[STATE_COUNTERS];
    struct state_set sets[STATE_SETS];
    struct state_multimap multimaps[STATE_MULTIMAPS];
    struct state_lock locks[STATE_LOCKS];
    uint32_t member_count;
    struct state_member members[STATE_GROUP];
    uint32_t registration_count;
    struct state_registration registrations[STATE_REGISTRY];
    uint32_t open_count;
    struct {
        uint64_t id;
        bool ending;
    } open[STATE_OPEN];
    bool lost; /* It met what it does not know, or ran out of room. */
};

/** What an entry changed, as those hear it who watch. */
struct state_event {
    uint64_t index;    /* The entry. */
    uint64_t digest;   /* All of it but what follows. */
    uint64_t previous; /* What was there before. */
    uint64_t session;  /* Whose it is; 0: nobody's. */
    uint8_t what;      /* enum bop_watch_what. */
    uint8_t flags;
    bool names; /* It makes or deletes a name. */
    char name[3];
};

struct state_events {
    struct state_event *list;
    size_t count, capacity;
};

struct state_reply {
    uint8_t status;
    uint64_t digest; /* As state_result_digest(). */
};

void state_init(struct state *state);
/** Run a write. */
struct state_reply state_write(struct state *state, struct state_events *events,
                               const struct bop_operation *operation);
/** What is due by state->time_ms goes. */
void state_timers(struct state *state, struct state_events *events);
void state_open(struct state *state, struct state_events *events, uint64_t session);
/** Those of a list of u64 that are open. */
void state_end(struct state *state, struct state_events *events, struct bop_slice sessions,
               bool expired);
bool state_is_open(const struct state *state, uint64_t session);

/** A digest of bytes; 0 of none. */
uint64_t state_hash(struct bop_slice bytes);
uint64_t state_mix(uint64_t digest, uint64_t word);
/** Of a write's result as it came over the wire. operation: what was asked. False: malformed. */
bool state_result_digest(const struct bop_operation *operation, uint8_t status,
                         struct bop_slice bytes, uint64_t *out_digest);
/** An event as it was told, as the model has it. */
struct state_event state_event_of(uint64_t index, const struct bop_event *event);

/** What a read operation shows, and the digest of what it showed. OBJECT_COUNT: it is not one of
 * those that can be placed. */
unsigned state_read_object(const struct bop_operation *operation);
uint64_t state_read_digest(const struct bop_operation *operation, const struct bop_result *result);
uint64_t state_object_digest(const struct state *state, unsigned object);
/** The digest of an entry of a scan. */
uint64_t state_item(uint64_t key, uint64_t version, uint64_t value);

/* shown.c */

/** What a watch was shown so far of how things stand. */
struct state_shown {
    uint64_t count, sum;
    uint64_t items[STATE_REQUESTS]; /* Of a lock: in order. */
};

/** What the pages of a watch show; OBJECT_COUNT: it has none. */
unsigned state_watch_object(uint8_t what, const char *name);
uint64_t state_shown_digest(const struct state *state, unsigned object);
void state_show(struct state_shown *shown, uint8_t what, const struct bop_event *event);
/** To be compared with state_object_digest() of what was shown. */
uint64_t state_shown(const struct state_shown *shown, uint8_t what);
/** The requests of a session, and one of them as LOCK_OWNED has it. */
uint64_t state_owned_digest(const struct state *state, uint64_t session);
uint64_t state_owned_item(const struct bop_scan_entry *entry);

#endif
