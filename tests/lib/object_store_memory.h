/*
 * An object store in memory that fails on demand, for what is built on
 * bop_object_store. Nothing in it is left to chance or to the clock: equal
 * calls give equal results.
 *
 *     struct object_memory *memory = object_memory_create(&f->heap.allocator);
 *     struct bop_object_store *store = object_memory_store(memory);
 *
 *     object_memory_fail(memory, OBJECT_MEMORY_PUT, 2, BOP_EIO, OBJECT_MEMORY_LOSE_ANSWER);
 *     // ... the second put from here on is done, and answered with BOP_EIO ...
 *     object_memory_destroy(memory);
 *
 * It does what a real server does: a put whose digest is not its content's is BOP_ECORRUPT,
 * content longer than a part is sent in parts and can be resumed by its upload id, a listing
 * says nothing of digests.
 *
 * Threads: any. Calls on a held store (see below) wait outside of its lock.
 */
#ifndef BOP_TESTS_OBJECT_STORE_MEMORY_H
#define BOP_TESTS_OBJECT_STORE_MEMORY_H

#include <bop/fs.h>
#include <bop/object_store.h>

struct object_memory;

enum object_memory_call {
    OBJECT_MEMORY_ANY, /* Whichever comes. */
    OBJECT_MEMORY_PUT,
    OBJECT_MEMORY_GET,
    OBJECT_MEMORY_HEAD,
    OBJECT_MEMORY_REMOVE,
    OBJECT_MEMORY_LIST,
    OBJECT_MEMORY_CALLS, /* The number of these. */
};

enum object_memory_failure {
    OBJECT_MEMORY_REFUSE,      /* Nothing is done. A put in parts has sent its first. */
    OBJECT_MEMORY_LOSE_ANSWER, /* It is done, and the caller is told that it failed. */
};

/** An empty store. NULL when memory is short. allocator NULL: the default one. */
struct object_memory *object_memory_create(struct bop_allocator *allocator);

/** Free it with all objects; the same as the store's own destroy. NULL is fine. */
void object_memory_destroy(struct object_memory *memory);

/** What to hand out; lives as long as the memory. */
struct bop_object_store *object_memory_store(struct object_memory *memory);

/* ---- Faults ---- */

/** The n-th such call from now (1: the next) fails with code. One at a time; n 0 takes it back. */
void object_memory_fail(struct object_memory *memory, enum object_memory_call call, unsigned n,
                        int code, enum object_memory_failure failure);

/** Every call fails with code until it is set to 0 again: the server is gone. */
void object_memory_outage(struct object_memory *memory, int code);

/** Every call is a step of faults (borrowed, NULL: none) that fails with BOP_EIO, so that a sweep
 * covers it. */
void object_memory_faults(struct object_memory *memory, struct bop_faults *faults);

/** List what is there now for as long as this is on, whatever is put and removed. 0 or BOP_ENOMEM.
 */
int object_memory_stale_lists(struct object_memory *memory, bool on);

/** The n-th get from now gives its bytes with one bit of the middle one flipped, and no error. */
void object_memory_corrupt_get(struct object_memory *memory, unsigned n);

/** The n-th get from now gives half of its bytes, and no error. */
void object_memory_short_get(struct object_memory *memory, unsigned n);

/** Flip one bit of an object at rest. False if there is no such bit. */
bool object_memory_flip_bit(struct object_memory *memory, const char *key, uint64_t bit);

/** Calls that come while this is on wait until it is off, or until cancel. */
void object_memory_hold(struct object_memory *memory, bool on);

/** How many calls wait now. */
unsigned object_memory_held(struct object_memory *memory);

/** Take back cancel, as a new client of the same server would be without it. */
void object_memory_revive(struct object_memory *memory);

/* ---- What is there, and what was done ---- */

/** Bytes above which a put is sent in parts of that many. Default 1 MiB. */
void object_memory_part_bytes(struct object_memory *memory, uint64_t bytes);

/** The time of objects put from now on. Default 1,000,000,000. */
void object_memory_now(struct object_memory *memory, uint64_t seconds);

/** Put an object without a call being counted or failing. 0 or BOP_ENOMEM. */
int object_memory_set(struct object_memory *memory, const char *key, struct bop_slice content);

/** An object's bytes, valid until it changes; data NULL if it is not there. */
struct bop_slice object_memory_find(struct object_memory *memory, const char *key);

size_t object_memory_count(struct object_memory *memory);

/** Uploads begun and neither completed nor aborted. */
size_t object_memory_uploads(struct object_memory *memory);

/** Calls so far, failed ones too; ANY: of all kinds. */
uint64_t object_memory_calls(struct object_memory *memory, enum object_memory_call call);

/** Bytes taken in by puts, parts that failed later included; and given out by gets. */
uint64_t object_memory_bytes_put(struct object_memory *memory);
uint64_t object_memory_bytes_got(struct object_memory *memory);

#endif
