/*
 * Sampled allocations: which are alive, and where they were made.
 *
 * A thread counts down the bytes it allocates; whatever takes the count below 0
 * is sampled, and a new gap is drawn from an exponential distribution with the
 * mean sample_bytes. That has no memory, so a block of s bytes is sampled with
 * the probability 1 - exp(-s / sample_bytes) whatever came before it, which is
 * what readers of a profile undo.
 *
 *      blocks   open addressing by address: address, size, stack
 *      stacks   open addressing by tag and frames, only ever added to
 *      filter   counters by a hash of the address: 0 says "not sampled"
 *               without the lock
 *
 * All three are one mapping, made by the first start and never given back, as
 * frees look at the filter without the lock. Nothing under the lock allocates,
 * and nothing that a stack walk allocates is sampled: depth and walking keep a
 * thread from meeting itself.
 *
 * A fork holds the lock, so that the child finds whole tables. Handlers of other
 * libraries may run meanwhile and wait for a lock whose owner allocates here, so
 * the hooks do not wait for a fork: what is sampled then is dropped, and a
 * sampled block that is freed then is taken out when its address is sampled or
 * freed again.
 *
 * Stacks are walked by unwind tables, not by frame pointers: most of what runs
 * on this heap is built without them, and a wrong one ends in a fault. The
 * unwinder of gcc 12 with glibc 2.35 finds tables without a lock; older ones
 * take the loader's, so a start walks once to have it set up. A walk takes a
 * few microseconds, once in sample_bytes.
 */
#include "sample.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unwind.h>

#include <bop/heap_profile.h>
#include <bop/random.h>

#include "thread.h"

#define BLOCK_SLOTS                                                                                \
    (BOP__SAMPLE_BLOCKS_MAX * 2) /* At most half full, so that probes are short.                   \
                                  */
#define STACK_SLOTS    (BOP__SAMPLE_STACKS_MAX * 2)
#define FILTER_SLOTS   (BOP__SAMPLE_BLOCKS_MAX * 4)
#define OWN_FRAMES_MAX 16 /* Of the sampler and of what is BOP__ALLOCATES. */
#define SPINS_MAX      100
#define GAP_MEAN_MAX   ((uint64_t)1 << 56) /* 64 times that fits a countdown. */

_Static_assert((BLOCK_SLOTS & (BLOCK_SLOTS - 1)) == 0, "slots are found by masks");
_Static_assert((STACK_SLOTS & (STACK_SLOTS - 1)) == 0, "slots are found by masks");
_Static_assert((FILTER_SLOTS & (FILTER_SLOTS - 1)) == 0, "slots are found by masks");

struct sampled_block {
    uintptr_t address; /* 0: a free slot. */
    size_t size;
    uint32_t stack; /* Index in tables.stacks. */
};

struct tables {
    _Atomic uint32_t filter[FILTER_SLOTS];
    struct sampled_block blocks[BLOCK_SLOTS];
    uint32_t stack_slots[STACK_SLOTS]; /* Index in stacks + 1; 0: free. */
    struct bop__sample_stack stacks[BOP__SAMPLE_STACKS_MAX];
};

_Atomic bool bop__sample_on;
_Atomic uint32_t bop__sample_live;
static _Atomic unsigned starting; /* Starts under way: the gates stay up. */

/* Counts the starts: a thread that sees a new one draws a new gap. */
static _Atomic uint32_t generation;
static _Atomic size_t gap_mean;
static _Atomic(struct tables *) tables;
static _Atomic uint64_t threads_seen;

/* Guards the tables but for the filter's counters, and what follows. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t stack_count;
static _Atomic uint64_t dropped_count; /* Written without the lock too. */
static _Atomic uint64_t dropped_bytes;

/* Forks under way. Relaxed: whoever does not see one yet looks again. */
static _Atomic uint32_t forks;

struct sampling_thread {
    int64_t countdown;
    uint32_t generation;
    uint32_t depth; /* Of holding the lock: a fork handler holds it while others of it may free. */
    bool walking;
    bool seeded;
    struct bop_random random;
};

static _Thread_local struct sampling_thread self __attribute__((tls_model("initial-exec")));

static void enter(void)
{
    if (self.depth++ == 0) {
        pthread_mutex_lock(&lock);
    }
}

/* As enter(), but false rather than to wait for a fork. */
static bool enter_unless_forking(void)
{
    if (self.depth == 0) {
        for (unsigned tries = 0; pthread_mutex_trylock(&lock) != 0; tries++) {
            if (atomic_load_explicit(&forks, memory_order_relaxed) != 0) {
                return false;
            }
            if (tries >= SPINS_MAX) {
                sched_yield(); /* Somebody copies the tables. */
            }
        }
    }
    self.depth++;
    return true;
}

static void leave(void)
{
    if (--self.depth == 0) {
        pthread_mutex_unlock(&lock);
    }
}

/* -- Gaps -------------------------------------------------------------------------------------- */

/* -ln(u / 2^64). The C library's is in libm, which nothing else here needs. */
static double minus_log(uint64_t u)
{
    const double ln2 = 0.69314718055994530942;
    int zeros = u ? __builtin_clzll(u) : 63;
    /* u = m * 2^(63 - zeros), 1 <= m < 2, and ln m = 2 atanh(z). */
    double m = (double)((u << zeros) | (uint64_t)1 << 63) / 9223372036854775808.0;
    double z = (m - 1) / (m + 1);
    double square = z * z;
    double sum = 0;

    for (int k = 15; k >= 1; k -= 2) {
        sum = sum * square + 1.0 / k;
    }
    return (zeros + 1) * ln2 - 2 * z * sum;
}

static int64_t draw_gap(struct sampling_thread *thread)
{
    double mean = (double)bop_min_u64(atomic_load_explicit(&gap_mean, memory_order_relaxed),
                                      GAP_MEAN_MAX);

    if (!thread->seeded) {
        /* By the order of the threads alone: a program that runs alike is sampled alike. */
        bop_random_seed(&thread->random,
                        atomic_fetch_add_explicit(&threads_seen, 1, memory_order_relaxed));
        thread->seeded = true;
    }
    return (int64_t)(minus_log(bop_random_next(&thread->random)) * mean);
}

/* -- Stacks ------------------------------------------------------------------------------------ */

/* Made by the linker around what is BOP__ALLOCATES, if there is anything. */
extern const char __start_bop_alloc_text[] __attribute__((weak, visibility("hidden")));
extern const char __stop_bop_alloc_text[] __attribute__((weak, visibility("hidden")));

struct walk {
    uintptr_t frames[BOP__SAMPLE_FRAMES_MAX + OWN_FRAMES_MAX];
    unsigned depth;
};

static _Unwind_Reason_Code walk_step(struct _Unwind_Context *context, void *user)
{
    struct walk *walk = user;
    uintptr_t pc = (uintptr_t)_Unwind_GetIP(context);

    if (pc == 0) {
        return _URC_END_OF_STACK;
    }
    walk->frames[walk->depth++] = pc;
    return walk->depth < BOP_COUNT_OF(walk->frames) ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static bool allocates(uintptr_t pc)
{
    return pc > (uintptr_t)__start_bop_alloc_text && pc <= (uintptr_t)__stop_bop_alloc_text;
}

/* The stack from the frame that returns to `caller` on, without what is BOP__ALLOCATES. */
static void walk_stack(uintptr_t caller, struct bop__sample_stack *out_stack)
{
    struct walk walk = {.depth = 0};
    unsigned first = 0;

    self.walking = true;
    _Unwind_Backtrace(walk_step, &walk);
    self.walking = false;

    while (first < walk.depth && first < OWN_FRAMES_MAX && walk.frames[first] != caller) {
        first++;
    }
    if (first == walk.depth || first == OWN_FRAMES_MAX) {
        first = 0; /* A walk that lost its way is told as it is. */
    }
    while (first + 1 < walk.depth && allocates(walk.frames[first])) {
        first++;
    }
    out_stack->depth = (uint32_t)bop_min_u64(walk.depth - first, BOP__SAMPLE_FRAMES_MAX);
    memcpy(out_stack->frames, walk.frames + first, out_stack->depth * sizeof(walk.frames[0]));
}

/* -- The tables -------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

static _Atomic uint32_t *filter_slot(struct tables *t, const void *block)
{
    return &t->filter[mix((uintptr_t)block) >> 32 & (FILTER_SLOTS - 1)];
}

static void hash_stack(struct bop__sample_stack *stack)
{
    uint64_t hash = stack->tag_index;

    for (uint32_t i = 0; i < stack->depth; i++) {
        hash = mix(hash ^ stack->frames[i]);
    }
    stack->hash = hash;
}

static bool same_stack(const struct bop__sample_stack *a, const struct bop__sample_stack *b)
{
    return a->hash == b->hash && a->tag_index == b->tag_index && a->depth == b->depth &&
           memcmp(a->frames, b->frames, a->depth * sizeof(a->frames[0])) == 0;
}

/* The known stack like this one, or a copy of it. NULL beyond the bound. */
static struct bop__sample_stack *intern_stack(struct tables *t,
                                              const struct bop__sample_stack *stack)
{
    size_t slot = stack->hash & (STACK_SLOTS - 1);
    struct bop__sample_stack *known;

    for (; t->stack_slots[slot] != 0; slot = (slot + 1) & (STACK_SLOTS - 1)) {
        known = &t->stacks[t->stack_slots[slot] - 1];
        if (same_stack(known, stack)) {
            return known;
        }
    }
    if (stack_count == BOP__SAMPLE_STACKS_MAX) {
        return NULL;
    }
    known = &t->stacks[stack_count++];
    t->stack_slots[slot] = (uint32_t)stack_count;
    memcpy(known, stack,
           offsetof(struct bop__sample_stack, frames) + stack->depth * sizeof(stack->frames[0]));
    return known;
}

/* The slot of the address, or the free one where it would go. */
static size_t block_slot(const struct tables *t, uintptr_t address)
{
    size_t slot = mix(address) & (BLOCK_SLOTS - 1);

    while (t->blocks[slot].address != 0 && t->blocks[slot].address != address) {
        slot = (slot + 1) & (BLOCK_SLOTS - 1);
    }
    return slot;
}

/* Empty the slot and move up what was pushed past it, so that no probe meets a gap. */
static void remove_block(struct tables *t, size_t hole)
{
    for (size_t at = (hole + 1) & (BLOCK_SLOTS - 1); t->blocks[at].address != 0;
         at = (at + 1) & (BLOCK_SLOTS - 1)) {
        size_t home = mix(t->blocks[at].address) & (BLOCK_SLOTS - 1);

        if (((at - home) & (BLOCK_SLOTS - 1)) >= ((at - hole) & (BLOCK_SLOTS - 1))) {
            t->blocks[hole] = t->blocks[at];
            hole = at;
        }
    }
    t->blocks[hole].address = 0;
}

/* Take the block out of the tables if it is there. */
static void forget(struct tables *t, const void *block)
{
    size_t slot = block_slot(t, (uintptr_t)block);
    struct bop__sample_stack *stack;

    if (t->blocks[slot].address == 0) {
        return;
    }
    stack = &t->stacks[t->blocks[slot].stack];
    stack->live_count--;
    stack->live_bytes -= t->blocks[slot].size;
    remove_block(t, slot);
    atomic_fetch_sub_explicit(filter_slot(t, block), 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&bop__sample_live, 1, memory_order_relaxed);
}

static void drop(size_t size)
{
    atomic_fetch_add_explicit(&dropped_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&dropped_bytes, size, memory_order_relaxed);
}

static void record(struct tables *t, const void *block, size_t size,
                   const struct bop__sample_stack *walked)
{
    struct bop__sample_stack *stack;
    size_t slot;

    forget(t, block); /* Freed unseen, by what frees without the hook. */
    stack = intern_stack(t, walked);
    if (!stack ||
        atomic_load_explicit(&bop__sample_live, memory_order_relaxed) == BOP__SAMPLE_BLOCKS_MAX) {
        drop(size);
        return;
    }
    slot = block_slot(t, (uintptr_t)block);
    t->blocks[slot] = (struct sampled_block){
        .address = (uintptr_t)block, .size = size, .stack = (uint32_t)(stack - t->stacks)};
    stack->live_count++;
    stack->live_bytes += size;
    stack->total_count++;
    stack->total_bytes += size;
    /* Relaxed: whoever frees the block got it from this thread, in order. */
    atomic_fetch_add_explicit(filter_slot(t, block), 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&bop__sample_live, 1, memory_order_relaxed);
}

/* -- The hooks --------------------------------------------------------------------------------- */

/* Apart from the countdown, to keep the stack frame of the usual case small. */
static __attribute__((noinline)) void sample(const void *block, size_t size, unsigned tag_index,
                                             uintptr_t caller)
{
    /* Acquire pairs with the release of start(): the mapping is there. */
    struct tables *t = atomic_load_explicit(&tables, memory_order_acquire);
    struct bop__sample_stack stack = {.tag_index = tag_index};

    if (!t) {
        return; /* The start is not wholly seen yet. */
    }
    walk_stack(caller, &stack);
    hash_stack(&stack);
    if (!enter_unless_forking()) {
        drop(size);
        return;
    }
    /* Looked at again: a stop, or a stop and a start, may have come in between. */
    if (atomic_load_explicit(&bop__sample_on, memory_order_relaxed)) {
        record(t, block, size, &stack);
    }
    leave();
}

__attribute__((noinline)) void bop__sample_allocated_slow(const void *block, size_t size,
                                                          unsigned tag_index)
{
    struct sampling_thread *thread = &self;
    uint32_t now = atomic_load_explicit(&generation, memory_order_acquire);

    if (!block || thread->walking || thread->depth > 0) {
        return;
    }
    if (thread->generation != now) {
        thread->generation = now;
        thread->countdown = draw_gap(thread);
    }
    if (size == 0) {
        size = 1; /* A reader divides by the mean size of a stack's blocks. */
    }
    if (size <= PTRDIFF_MAX && thread->countdown >= (int64_t)size) {
        thread->countdown -= (int64_t)size;
        return;
    }
    thread->countdown = draw_gap(thread);
    sample(block, size, tag_index, (uintptr_t)__builtin_return_address(0));
}

__attribute__((noinline)) void bop__sample_freed_slow(const void *block)
{
    struct tables *t = atomic_load_explicit(&tables, memory_order_acquire);

    if (!block || !t || atomic_load_explicit(filter_slot(t, block), memory_order_relaxed) == 0) {
        return;
    }
    if (enter_unless_forking()) {
        forget(t, block);
        leave();
    }
}

/* -- Start and stop ---------------------------------------------------------------------------- */

static void before_fork(void)
{
    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
    enter();
}

static void after_fork_in_parent(void)
{
    leave();
    atomic_fetch_sub_explicit(&forks, 1, memory_order_relaxed);
}

/* The thread that forked holds the lock here too; others that were at it are not there. */
static void after_fork_in_child(void)
{
    leave();
    atomic_store_explicit(&forks, 0, memory_order_relaxed);
}

static void set_up_fork(void)
{
    /* Fails for lack of memory only; a child could then find the lock held. */
    BOP_IGNORE(pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child));
}

static struct tables *map_tables(void)
{
    void *memory = mmap(NULL, sizeof(struct tables), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

/* Empty what was used of the tables. */
static void clear(struct tables *t)
{
    for (size_t slot = 0; slot < BLOCK_SLOTS; slot++) {
        if (t->blocks[slot].address != 0) {
            atomic_fetch_sub_explicit(filter_slot(t, (const void *)t->blocks[slot].address), 1,
                                      memory_order_relaxed);
            t->blocks[slot].address = 0;
        }
    }
    memset(t->stack_slots, 0, sizeof(t->stack_slots));
    memset(t->stacks, 0, stack_count * sizeof(t->stacks[0]));
    stack_count = 0;
    dropped_count = 0;
    dropped_bytes = 0;
    atomic_store_explicit(&bop__sample_live, 0, memory_order_relaxed);
}

int bop_heap_profile_start(size_t sample_bytes)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct bop__sample_stack unused;
    struct tables *t;
    int rc = 0;

    if (sample_bytes == 0) {
        return BOP_EINVAL;
    }
    pthread_once(&once, set_up_fork);
    walk_stack(0, &unused); /* The first walk may allocate. */

    /* Before and not under our lock, which a fork may take on either side of this one. */
    atomic_fetch_add_explicit(&starting, 1, memory_order_relaxed);
    pthread_mutex_lock(&bop__mem_lock);
    bop__mem_gate_all(BOP__GATE_SAMPLE);
    pthread_mutex_unlock(&bop__mem_lock);
    enter();
    t = atomic_load_explicit(&tables, memory_order_relaxed);
    if (atomic_load_explicit(&bop__sample_on, memory_order_relaxed)) {
        rc = BOP_EBUSY;
    } else if (!t && !(t = map_tables())) {
        rc = BOP_ENOMEM;
    } else {
        clear(t);
        /* Release: who sees the new generation, or the flag through it, sees the mapping. */
        atomic_store_explicit(&tables, t, memory_order_release);
        atomic_store_explicit(&gap_mean, sample_bytes, memory_order_relaxed);
        atomic_fetch_add_explicit(&generation, 1, memory_order_release);
        /* Release: who samples a block, and whom it is handed to, sees the gates up. */
        atomic_store_explicit(&bop__sample_on, true, memory_order_release);
    }
    leave();
    /* Release pairs with the acquire in has_nothing_to_do(). */
    atomic_fetch_sub_explicit(&starting, 1, memory_order_release);
    return rc;
}

static bool has_nothing_to_do(void)
{
    /* Acquire: `on` is not read older than a start that has ended by then. */
    return atomic_load_explicit(&starting, memory_order_acquire) == 0 &&
           !atomic_load_explicit(&bop__sample_on, memory_order_relaxed) &&
           atomic_load_explicit(&bop__sample_live, memory_order_relaxed) == 0;
}

void bop__sample_gate(void)
{
    if (BOP_LIKELY(!has_nothing_to_do())) {
        return;
    }
    pthread_mutex_lock(&bop__mem_lock);
    /* A start may have come in between: it is counted before it raises the gates under this lock.
     * A sample that its thread is still at after a stop is not recorded. */
    if (has_nothing_to_do()) {
        bop__mem_gate_none(BOP__GATE_SAMPLE);
    }
    pthread_mutex_unlock(&bop__mem_lock);
}

void bop_heap_profile_stop(void)
{
    enter();
    atomic_store_explicit(&bop__sample_on, false, memory_order_relaxed);
    leave();
}

bool bop_heap_profile_running(void)
{
    return atomic_load_explicit(&bop__sample_on, memory_order_relaxed);
}

/* -- Snapshots --------------------------------------------------------------------------------- */

int bop__sample_snapshot(struct bop__sample_snapshot *out_snapshot)
{
    struct bop__sample_snapshot snapshot = {.mapped_bytes = 0};
    struct tables *t;

    /* Room for as many as there may be: pages that are not touched cost nothing. */
    snapshot.mapped_bytes = BOP__SAMPLE_STACKS_MAX * sizeof(*snapshot.stacks);
    snapshot.stacks = mmap(NULL, snapshot.mapped_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (snapshot.stacks == MAP_FAILED) {
        return BOP_ENOMEM;
    }
    enter();
    t = atomic_load_explicit(&tables, memory_order_relaxed);
    if (t) {
        memcpy(snapshot.stacks, t->stacks, stack_count * sizeof(t->stacks[0]));
    }
    snapshot.count = stack_count;
    snapshot.sample_bytes = atomic_load_explicit(&gap_mean, memory_order_relaxed);
    snapshot.dropped_count = dropped_count;
    snapshot.dropped_bytes = dropped_bytes;
    leave();
    *out_snapshot = snapshot;
    return 0;
}

void bop__sample_snapshot_deinit(struct bop__sample_snapshot *snapshot)
{
    if (snapshot->mapped_bytes > 0) {
        munmap(snapshot->stacks, snapshot->mapped_bytes);
    }
    *snapshot = (struct bop__sample_snapshot){.mapped_bytes = 0};
}
