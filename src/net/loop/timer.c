/*
 * Timers: a binary heap of (due time, order of starting).
 *
 * A timer knows its place in the heap (slot), so stopping and moving cost
 * O(log n) as starting does, and there is no descriptor and no system call a
 * timer: the loop waits until the first one is due.
 *
 * Invariants, checked by timers_check():
 *
 *   (1) An entry is not earlier than its parent.
 *   (2) heap[i].timer->slot == i, and due_ms of both agree.
 */
#include "loop_internal.h"

#define TIMERS_CAPACITY_MIN 16

static bool is_earlier(const struct bop__timer_entry *a, const struct bop__timer_entry *b)
{
    return a->due_ms < b->due_ms || (a->due_ms == b->due_ms && a->sequence < b->sequence);
}

static void timers_check(const struct bop__timers *timers)
{
#ifdef BOP_DEBUG
    for (size_t i = 0; i < timers->count; i++) {
        const struct bop__timer_entry *entry = &timers->heap[i];

        BOP_ASSERT(i == 0 || !is_earlier(entry, &timers->heap[(i - 1) / 2]));
        BOP_ASSERT(entry->timer->slot == i && entry->timer->due_ms == entry->due_ms);
    }
#else
    (void)timers;
#endif
}

static void place(struct bop__timers *timers, size_t slot, struct bop__timer_entry entry)
{
    timers->heap[slot] = entry;
    entry.timer->slot = slot;
}

/* Put the entry where it belongs, given that only `slot` is free. */
static void sift(struct bop__timers *timers, size_t slot, struct bop__timer_entry entry)
{
    while (slot > 0 && is_earlier(&entry, &timers->heap[(slot - 1) / 2])) {
        place(timers, slot, timers->heap[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * slot + 1;

        if (child + 1 < timers->count &&
            is_earlier(&timers->heap[child + 1], &timers->heap[child])) {
            child++;
        }
        if (child >= timers->count || !is_earlier(&timers->heap[child], &entry)) {
            break;
        }
        place(timers, slot, timers->heap[child]);
        slot = child;
    }
    place(timers, slot, entry);
}

static void remove_at(struct bop__timers *timers, size_t slot)
{
    timers->heap[slot].timer->slot = SIZE_MAX;
    timers->count--;
    if (slot < timers->count) {
        sift(timers, slot, timers->heap[timers->count]);
    }
    timers_check(timers);
}

static int grow(struct bop_loop *loop)
{
    struct bop__timers *timers = &loop->timers;
    size_t capacity = timers->capacity ? timers->capacity * 2 : TIMERS_CAPACITY_MIN;
    void *heap;

    if (capacity > SIZE_MAX / sizeof(*timers->heap)) {
        return BOP_ENOMEM;
    }
    heap = bop_realloc(loop->allocator, timers->heap, timers->capacity * sizeof(*timers->heap),
                       capacity * sizeof(*timers->heap));
    if (heap == NULL) {
        return BOP_ENOMEM;
    }
    timers->heap = (struct bop__timer_entry *)heap;
    timers->capacity = capacity;
    return 0;
}

void bop_timer_init(struct bop_timer *timer, void (*fn)(struct bop_timer *timer))
{
    *timer = (struct bop_timer){.slot = SIZE_MAX, .fn = fn};
}

int bop_timer_start(struct bop_loop *loop, struct bop_timer *timer, uint64_t delay_ms)
{
    struct bop__timers *timers = &loop->timers;
    struct bop__timer_entry entry = {.timer = timer};

    if (!bop_timer_is_running(timer)) {
        if (timers->count == timers->capacity && grow(loop) != 0) {
            return BOP_ENOMEM;
        }
        timer->slot = timers->count++;
    }
    if (!loop->in_turn) {
        /* Between turns the last turn's time may be long ago. */
        loop->now_ms = bop_clock_monotonic_ms(loop->clock);
    }
    /* A delay past the end of time is as good as never. */
    entry.due_ms = delay_ms > UINT64_MAX - loop->now_ms ? UINT64_MAX : loop->now_ms + delay_ms;
    entry.sequence = timers->sequence++;
    timer->due_ms = entry.due_ms;
    sift(timers, timer->slot, entry);
    timers_check(timers);
    return 0;
}

void bop_timer_stop(struct bop_loop *loop, struct bop_timer *timer)
{
    if (bop_timer_is_running(timer)) {
        BOP_ASSERT(timer->slot < loop->timers.count);
        BOP_ASSERT(loop->timers.heap[timer->slot].timer == timer);
        remove_at(&loop->timers, timer->slot);
    }
}

void bop__timers_run(struct bop_loop *loop)
{
    struct bop__timers *timers = &loop->timers;
    /* One started meanwhile is due at now_ms at the earliest, so it lies behind
     * all that were due before: reaching it means that those are done. */
    uint64_t sequence_end = timers->sequence;

    while (timers->count > 0 && timers->heap[0].due_ms <= loop->now_ms &&
           timers->heap[0].sequence < sequence_end) {
        struct bop_timer *timer = timers->heap[0].timer;

        remove_at(timers, 0);
        timer->fn(timer);
    }
}

void bop__timers_deinit(struct bop_loop *loop)
{
    struct bop__timers *timers = &loop->timers;

    for (size_t i = 0; i < timers->count; i++) {
        timers->heap[i].timer->slot = SIZE_MAX;
    }
    if (timers->heap != NULL) {
        bop_free(loop->allocator, timers->heap, timers->capacity * sizeof(*timers->heap));
    }
    *timers = (struct bop__timers){.heap = NULL};
}
