/*
 * Hazard records and the stack of retired segments; see fifo_hazard.h.
 *
 * Why nothing is freed too early: who protects stores its pointer and then reads
 * again that the segment is still linked; who frees has unlinked it and then reads
 * the pointers. All four are sequentially consistent, so one of the two sees the
 * other: the first tries again, or the second keeps the segment.
 *
 * Why nothing stays for ever: who drops a pointer clears it, counts `dropped` up
 * and then looks whether anything is retired; who puts segments back reads
 * `dropped` after that and sweeps again if it has changed since before the look.
 * Again one of the two sees the other.
 */
#include <sched.h>

#include "fifo_hazard.h"

_Static_assert(sizeof(struct bop__fifo_hazard) == BOP__CACHE_LINE, "padding is off");

enum held {
    FREE = 0,
    HELD = 1,
    WANTED = 2, /* Held, and somebody would like to free its segment. */
};

static bool hold(struct bop__fifo_hazard *hazard)
{
    unsigned expected = FREE;

    /* Relaxed: only whether it is worth trying. Acquire pairs with let_go(): the last holder's
     * writes to the record are done. */
    return atomic_load_explicit(&hazard->held, memory_order_relaxed) == FREE &&
           atomic_compare_exchange_strong_explicit(&hazard->held, &expected, HELD,
                                                   memory_order_acquire, memory_order_relaxed);
}

static void let_go(struct bop__fifo_hazard *hazard)
{
    /* Release pairs with hold(). */
    atomic_store_explicit(&hazard->held, FREE, memory_order_release);
}

/* Also takes the pointer of a record that nobody holds, if it is in the way. */
static bool protects(struct bop__fifo_hazard *hazard, const struct bop__fifo_segment *segment)
{
    unsigned expected = HELD;

    /* Sequentially consistent, as the head of the file says. */
    if (atomic_load_explicit(&hazard->segment, memory_order_seq_cst) != segment) {
        return false;
    }
    if (hold(hazard)) {
        /* Relaxed: nobody uses it, and let_go() releases it to the next holder. */
        atomic_store_explicit(&hazard->segment, NULL, memory_order_relaxed);
        let_go(hazard);
        return false;
    }
    /* Relaxed: a hint to an operation under way, which may miss it; then the next sweep finds the
     * record free. */
    atomic_compare_exchange_strong_explicit(&hazard->held, &expected, WANTED, memory_order_relaxed,
                                            memory_order_relaxed);
    return true;
}

static bool is_protected(struct bop__fifo_hazards *hazards, const struct bop__fifo_segment *segment)
{
    for (size_t role = 0; role < BOP__FIFO_ROLES; role++) {
        for (size_t i = 0; i < BOP__FIFO_FIXED_HAZARDS; i++) {
            if (protects(&hazards->fixed[role][i], segment)) {
                return true;
            }
        }
    }
    /* Sequentially consistent, so that a record whose pointer counts is seen: it was added before
     * its pointer was stored. */
    for (struct bop__fifo_hazard *hazard =
             atomic_load_explicit(&hazards->list, memory_order_seq_cst);
         hazard; hazard = hazard->next) {
        if (protects(hazard, segment)) {
            return true;
        }
    }
    return false;
}

/* Push a chain of segments, linked by `below`, onto the stack. */
static void push_retired(struct bop__fifo_hazards *hazards, struct bop__fifo_segment *first,
                         struct bop__fifo_segment *last)
{
    /* Relaxed: the exchange checks it. */
    struct bop__fifo_segment *top = atomic_load_explicit(&hazards->retired, memory_order_relaxed);

    do {
        last->below = top;
        /* Sequentially consistent, as the head of the file says; its release pairs with the
         * exchange in sweep(). Nobody pops single segments, so there is no ABA. */
    } while (!atomic_compare_exchange_weak_explicit(&hazards->retired, &top, first,
                                                    memory_order_seq_cst, memory_order_relaxed));
}

/* Give free what nobody protects. */
static void sweep(struct bop__fifo_hazards *hazards)
{
    struct bop__fifo_segment *segment, *below, *first, *last;
    uint64_t dropped;

    do {
        /* Sequentially consistent, both loads of it, as the head of the file says. */
        dropped = atomic_load_explicit(&hazards->dropped, memory_order_seq_cst);
        /* Acquire pairs with push_retired(). */
        segment = atomic_exchange_explicit(&hazards->retired, NULL, memory_order_seq_cst);
        first = last = NULL;
        for (; segment; segment = below) {
            below = segment->below;
            if (!is_protected(hazards, segment)) {
                bop__fifo_store_give(hazards->store, segment);
                continue;
            }
            segment->below = first;
            first = segment;
            last = last ? last : segment;
        }
        if (!first) {
            return;
        }
        push_retired(hazards, first, last);
    } while (atomic_load_explicit(&hazards->dropped, memory_order_seq_cst) != dropped);
}

/* A pointer was dropped: what it protected may be free now. */
static void sweep_after_drop(struct bop__fifo_hazards *hazards)
{
    /* Sequentially consistent, both, as the head of the file says. */
    atomic_fetch_add_explicit(&hazards->dropped, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&hazards->retired, memory_order_seq_cst)) {
        sweep(hazards);
    }
}

struct bop__fifo_segment *bop__fifo_hazard_protect_slow(struct bop__fifo_hazards *hazards,
                                                        struct bop__fifo_hazard *hazard,
                                                        _Atomic(struct bop__fifo_segment *) *from)
{
    /* Relaxed: our own. */
    struct bop__fifo_segment *before = atomic_load_explicit(&hazard->segment, memory_order_relaxed);
    struct bop__fifo_segment *segment;
    /* Relaxed: a guess, which the loop checks. */
    struct bop__fifo_segment *again = atomic_load_explicit(from, memory_order_relaxed);

    do {
        segment = again;
        /* Sequentially consistent, both, as the head of the file says. */
        atomic_store_explicit(&hazard->segment, segment, memory_order_seq_cst);
        again = atomic_load_explicit(from, memory_order_seq_cst);
    } while (again != segment);
    hazard->limit = 0;
    if (before) {
        sweep_after_drop(hazards);
    }
    return segment;
}

void bop__fifo_hazard_drop(struct bop__fifo_hazards *hazards, struct bop__fifo_hazard *hazard)
{
    /* Sequentially consistent, as the head of the file says. */
    atomic_store_explicit(&hazard->segment, NULL, memory_order_seq_cst);
    sweep_after_drop(hazards);
}

void bop__fifo_hazard_retire(struct bop__fifo_hazards *hazards, struct bop__fifo_segment *segment)
{
    push_retired(hazards, segment, segment);
    sweep(hazards);
}

/* A new record, held and listed, or NULL. */
static struct bop__fifo_hazard *add_record(struct bop__fifo_hazards *hazards)
{
    struct bop__fifo_hazard *hazard = bop_alloc_zeroed(hazards->allocator, sizeof(*hazard));

    if (!hazard) {
        return NULL;
    }
    atomic_init(&hazard->held, HELD);
    /* Relaxed: the exchange checks it. */
    hazard->next = atomic_load_explicit(&hazards->list, memory_order_relaxed);
    /* Sequentially consistent: see is_protected(). */
    while (!atomic_compare_exchange_weak_explicit(&hazards->list, &hazard->next, hazard,
                                                  memory_order_seq_cst, memory_order_relaxed)) {
    }
    return hazard;
}

/* A listed record that nobody held, or NULL. */
static struct bop__fifo_hazard *find_record(struct bop__fifo_hazards *hazards)
{
    /* Acquire pairs with add_record(). */
    struct bop__fifo_hazard *hazard = atomic_load_explicit(&hazards->list, memory_order_acquire);

    while (hazard && !hold(hazard)) {
        hazard = hazard->next;
    }
    return hazard;
}

struct bop__fifo_hazard *bop__fifo_hazard_open(struct bop__fifo_hazards *hazards)
{
    struct bop__fifo_hazard *hazard = find_record(hazards);

    return hazard ? hazard : add_record(hazards);
}

void bop__fifo_hazard_close(struct bop__fifo_hazards *hazards, struct bop__fifo_hazard *hazard)
{
    bop__fifo_hazard_drop(hazards, hazard);
    let_go(hazard);
}

/* Spreads threads over the fixed records. */
static unsigned thread_number(void)
{
    static atomic_uint threads;
    static _Thread_local unsigned number; /* From 1. */

    if (BOP_UNLIKELY(number == 0)) {
        /* Relaxed: only to differ. */
        number = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) + 1;
        number = number == 0 ? 1 : number;
    }
    return number;
}

struct bop__fifo_hazard *bop__fifo_hazard_borrow(struct bop__fifo_hazards *hazards,
                                                 enum bop__fifo_role role)
{
    unsigned start = thread_number();
    struct bop__fifo_hazard *hazard;

    for (;;) {
        for (unsigned i = 0; i < BOP__FIFO_FIXED_HAZARDS; i++) {
            hazard = &hazards->fixed[role][(start + i) % BOP__FIFO_FIXED_HAZARDS];
            if (BOP_LIKELY(hold(hazard))) {
                return hazard;
            }
        }
        hazard = bop__fifo_hazard_open(hazards);
        if (hazard) {
            return hazard;
        }
        /* No memory: those who hold the fixed records are in the middle of one operation. */
        sched_yield();
    }
}

void bop__fifo_hazard_return(struct bop__fifo_hazards *hazards, struct bop__fifo_hazard *hazard)
{
    /* Relaxed: see protects(). */
    bool wanted = atomic_load_explicit(&hazard->held, memory_order_relaxed) == WANTED;

    let_go(hazard);
    if (BOP_UNLIKELY(wanted)) {
        sweep(hazards);
    }
}

void bop__fifo_hazards_deinit(struct bop__fifo_hazards *hazards)
{
    struct bop__fifo_hazard *hazard = atomic_load_explicit(&hazards->list, memory_order_relaxed);
    struct bop__fifo_hazard *next;

    sweep(hazards);
    BOP_ASSERT(atomic_load_explicit(&hazards->retired, memory_order_relaxed) == NULL);
    for (; hazard; hazard = next) {
        next = hazard->next;
        bop_free(hazards->allocator, hazard, sizeof(*hazard));
    }
}
