/*
 * The load of the chaos tests: processes that each ask for one thing at a time,
 * several of them over each connection, and write down what they heard.
 *
 * A process is a slot. When it is idle, its workload's next() chooses an operation: it calls
 * load_begin(), asks the client, and the callback calls load_end(), which writes the line of
 * the history. A workload keeps what its processes share in a static struct of its own: the program
 * has one thread.
 *
 * Once told to stop (SIGTERM), no process begins anything new; when all are idle, final() of each
 * workload reads what is to be read while nobody writes, step by step, each until it is answered.
 */
#ifndef BOP_CHAOS_LOAD_H
#define BOP_CHAOS_LOAD_H

#include <bop/client.h>
#include <bop/random.h>

#include "history.h"

#define LOAD_ASKED_MAX  4
#define LOAD_OBJECT_MAX 64

struct slot {
    struct bop_client *client;
    const struct workload *workload;
    uint32_t process;
    bool busy;
    bool silent; /* What is under way is not written down. */

    /* Of the operation under way. */
    enum chaos_op op;
    int64_t start;
    char object[LOAD_OBJECT_MAX];
    int64_t asked[LOAD_ASKED_MAX];
    size_t asked_count;

    /* The workload's. */
    unsigned phase;
    uint64_t version;
    uint64_t ticket;
    int64_t token;
    int64_t held;
    struct bop_client_lock *lock;
    size_t object_index;
    struct bop_buf buf;

    /* Of a final step. */
    bool answered;
};

struct workload {
    const char *name;
    unsigned weight; /* Slots of each connection. */
    /* Begin an operation. False: there is nothing to do now. */
    bool (*next)(struct slot *slot);
    /* Begin the step-th of the last operations; false: there are no more. NULL: there are none. */
    bool (*final)(struct slot *slot, size_t step);
};

/* In the order of the table in main.c. */
extern const struct workload load_register;
extern const struct workload load_counter;
extern const struct workload load_tally;
extern const struct workload load_set;
extern const struct workload load_list;
extern const struct workload load_lock;
extern const struct workload load_lock_wait;
extern const struct workload load_bank;
extern const struct workload load_skew;
extern const struct workload load_watch;
extern const struct workload load_bulk;

extern struct bop_random load_random;
extern size_t load_bulk_bytes; /* Size of the bulk's values. */
extern size_t load_bulk_state; /* Of all of them together. */

/** 0 to bound - 1. */
unsigned load_below(unsigned bound);
/** A number that nobody had before, from 1. */
int64_t load_unique(void);

/** All that came and all that was due until then has been looked at, however slow we are. */
int64_t load_heard_ns(void);

/** An operation begins: the time is taken. */
void load_begin(struct slot *slot, enum chaos_op op, const char *object);
void load_asks(struct slot *slot, int64_t number);
/** It was not even asked for: rc is that of the client's call. Returns false. */
bool load_refused(struct slot *slot, int rc);
/** It ended with what the client says; numbers are what was answered, written down if code is 0. */
void load_end(struct slot *slot, int code, const int64_t *numbers, size_t count);

/** Numbers as values: 8 bytes each, little-endian. */
struct bop_slice load_bytes_of(const int64_t *number);
bool load_numbers_of(struct bop_slice bytes, const int64_t **out_numbers, size_t *out_count);

/**
 * Objects that come in generations: each serves for so many operations and is then left for a
 * new one, so that histories stay short enough to be searched.
 */
struct load_generation {
    unsigned number;
    unsigned uses;
    int64_t last; /* Whatever was last seen of it. */
};
/** Name the object for one more use: "PREFIXindex.generation". */
void load_use(struct load_generation *generation, char prefix, size_t index, unsigned uses_max,
              char *out_name);
/** The step-th object there ever was among count; false: there are no more. */
bool load_nth(const struct load_generation *generations, size_t count, char prefix, size_t step,
              char *out_name);

#endif
