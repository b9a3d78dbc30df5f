/*
 * Timers: a hierarchical wheel (Varghese and Lauck) of 1 ms ticks.
 *
 * The due time is read as 11 digits to the base 64. A timer lies at the level of
 * the highest digit in which its due time differs from the wheel's time, in the
 * slot of that digit: what is due within the wheel's present 64 ms at level 0,
 * one slot a millisecond; within its present 4 s at level 1; and so on to the
 * end of time, so there is no list of timers too far away.
 *
 *      time 1:02:05   level 0  |. . . . . 5 . . . 9 . .|  due 1:02:09
 *                     level 1  |. . 2 . . 5 . . . . . .|  due 1:05:xx
 *                     level 2  |. 1 . 3 . . . . . . . .|  due 3:xx:xx
 *
 * When the wheel's time enters a slot of a higher level, its timers move down.
 * Slots lie ahead of the wheel's time and none wraps around, so the first timer
 * due lies in the first used slot of the lowest used level: a bit map a level
 * finds it with two instructions. The wheel's time goes from one used slot to
 * the next, however far that is.
 *
 * Equal due times fire in the order of starting, without a number for it: at any
 * time all timers of one due time lie in one slot, each joins at its end, and
 * moving down keeps their order.
 *
 * Invariants, checked by bop__timers_check():
 *
 *   (1) No timer of the wheel is due before the wheel's time.
 *   (2) Each lies in the slot that its due time and the wheel's time give.
 *   (3) A bit is set if and only if its slot, or its level, is in use.
 */
#include "loop_internal.h"

/* Timers of a slot that are looked at to know when the first of them is due. If
 * there are more, the loop wakes when the slot begins, on behalf of them all. */
#define LOOKS_MAX 16

static unsigned level_of(uint64_t due_ms, uint64_t now_ms)
{
    uint64_t difference = due_ms ^ now_ms;

    return difference == 0 ? 0
                           : (63u - (unsigned)__builtin_clzll(difference)) / BOP__WHEEL_DIGIT_BITS;
}

static unsigned digit_of(uint64_t due_ms, unsigned level)
{
    return (unsigned)(due_ms >> level * BOP__WHEEL_DIGIT_BITS) & (BOP__WHEEL_SLOTS - 1);
}

/* The first time of a slot ahead, given the wheel's time. */
static uint64_t slot_begin(uint64_t now_ms, unsigned level, unsigned slot)
{
    unsigned shift = level * BOP__WHEEL_DIGIT_BITS, above = shift + BOP__WHEEL_DIGIT_BITS;
    uint64_t higher = above < 64 ? now_ms >> above << above : 0;

    return higher | (uint64_t)slot << shift;
}

static void place(struct bop__timers *timers, struct bop_timer *timer)
{
    unsigned level = level_of(timer->due_ms, timers->now_ms);
    unsigned slot = digit_of(timer->due_ms, level);

    bop_list_push_back(&timers->slots[level][slot], &timer->link);
    timers->used_slots[level] |= UINT64_C(1) << slot;
    timers->used_levels |= 1u << level;
}

static void clear_bit(struct bop__timers *timers, unsigned level, unsigned slot)
{
    timers->used_slots[level] &= ~(UINT64_C(1) << slot);
    if (timers->used_slots[level] == 0) {
        timers->used_levels &= ~(1u << level);
    }
}

static void take_out(struct bop__timers *timers, struct bop_timer *timer)
{
    bop_list_remove(&timer->link);
    timer->link.next = NULL;
    timers->count--;
    /* One that is overdue is off the wheel already, in `due`. */
    if (timer->due_ms >= timers->now_ms) {
        unsigned level = level_of(timer->due_ms, timers->now_ms);
        unsigned slot = digit_of(timer->due_ms, level);

        if (bop_list_empty(&timers->slots[level][slot])) {
            clear_bit(timers, level, slot);
        }
    }
    if (timer->due_ms <= timers->next_ms) {
        timers->next_known = false;
    }
}

void bop__timers_check(const struct bop__timers *timers)
{
    size_t count = 0;

    for (unsigned level = 0; level < BOP__WHEEL_LEVELS; level++) {
        BOP_ASSERT((timers->used_levels >> level & 1) == (timers->used_slots[level] != 0));
        for (unsigned slot = 0; slot < BOP__WHEEL_SLOTS; slot++) {
            const struct bop_list *list = &timers->slots[level][slot];

            BOP_ASSERT((timers->used_slots[level] >> slot & 1) == !bop_list_empty(list));
            BOP_LIST_FOR_EACH(link, list) {
                const struct bop_timer *timer = BOP_CONTAINER_OF(link, struct bop_timer, link);

                BOP_ASSERT(timer->due_ms >= timers->now_ms);
                BOP_ASSERT(level_of(timer->due_ms, timers->now_ms) == level);
                BOP_ASSERT(digit_of(timer->due_ms, level) == slot);
                BOP_ASSERT(!timers->next_known || timer->due_ms >= timers->next_ms);
                count++;
            }
        }
    }
    BOP_LIST_FOR_EACH(link, &timers->due) {
        count++;
    }
    BOP_ASSERT(count == timers->count);
}

void bop__timers_init(struct bop__timers *timers, uint64_t now_ms)
{
    *timers = (struct bop__timers){.now_ms = now_ms, .next_ms = UINT64_MAX, .next_known = true};
    for (unsigned level = 0; level < BOP__WHEEL_LEVELS; level++) {
        for (unsigned slot = 0; slot < BOP__WHEEL_SLOTS; slot++) {
            bop_list_init(&timers->slots[level][slot]);
        }
    }
    bop_list_init(&timers->due);
}

static void forget_all(struct bop_list *list)
{
    for (struct bop_list *link = list->next, *next; link != list; link = next) {
        next = link->next;
        link->next = NULL;
    }
    bop_list_init(list);
}

void bop__timers_deinit(struct bop__timers *timers)
{
    for (unsigned level = 0; level < BOP__WHEEL_LEVELS; level++) {
        for (unsigned slot = 0; slot < BOP__WHEEL_SLOTS; slot++) {
            forget_all(&timers->slots[level][slot]);
        }
    }
    forget_all(&timers->due);
    bop__timers_init(timers, timers->now_ms);
}

/* ---- When the next is due ---- */

static uint64_t find_next(const struct bop__timers *timers)
{
    unsigned level, slot, looks = 0;
    const struct bop_list *list;
    uint64_t first_ms = UINT64_MAX;

    if (timers->used_levels == 0) {
        return UINT64_MAX;
    }
    level = (unsigned)__builtin_ctz(timers->used_levels);
    slot = (unsigned)__builtin_ctzll(timers->used_slots[level]);
    list = &timers->slots[level][slot];
    if (level == 0) {
        return slot_begin(timers->now_ms, level, slot);
    }
    BOP_LIST_FOR_EACH(link, list) {
        if (looks++ == LOOKS_MAX) {
            return slot_begin(timers->now_ms, level, slot);
        }
        first_ms = bop_min_u64(first_ms, BOP_CONTAINER_OF(link, struct bop_timer, link)->due_ms);
    }
    return first_ms;
}

uint64_t bop__timers_next_ms(struct bop__timers *timers)
{
    if (!timers->next_known) {
        timers->next_ms = find_next(timers);
        timers->next_known = true;
    }
    return timers->next_ms;
}

/* ---- Firing ---- */

/* Let time pass, and move what became due to `due`, in order. */
static void advance(struct bop__timers *timers, uint64_t now_ms)
{
    while (timers->used_levels != 0) {
        unsigned level = (unsigned)__builtin_ctz(timers->used_levels);
        unsigned slot = (unsigned)__builtin_ctzll(timers->used_slots[level]);
        uint64_t begin_ms = slot_begin(timers->now_ms, level, slot);
        struct bop_list taken, *link;

        if (begin_ms > now_ms) {
            break;
        }
        timers->now_ms = begin_ms;
        timers->next_known = false;
        bop__list_take(&timers->slots[level][slot], &taken);
        clear_bit(timers, level, slot);
        while ((link = bop_list_pop_front(&taken)) != NULL) {
            if (level == 0) {
                bop_list_push_back(&timers->due, link);
            } else {
                place(timers, BOP_CONTAINER_OF(link, struct bop_timer, link));
            }
        }
    }
    /* No used slot begins on the way, so all stay where they are. */
    timers->now_ms = now_ms;
}

void bop__timers_run(struct bop_loop *loop)
{
    struct bop__timers *timers = &loop->timers;

    advance(timers, loop->now_ms);
    /* What is started meanwhile goes to the wheel, for the next turn at the earliest. */
    while (!bop_list_empty(&timers->due)) {
        struct bop_timer *timer = BOP_CONTAINER_OF(timers->due.next, struct bop_timer, link);

        take_out(timers, timer);
        timer->fn(timer);
    }
}

/* ---- For users ---- */

void bop_timer_init(struct bop_timer *timer, void (*fn)(struct bop_timer *timer))
{
    *timer = (struct bop_timer){.fn = fn};
}

int bop_timer_start(struct bop_loop *loop, struct bop_timer *timer, uint64_t delay_ms)
{
    struct bop__timers *timers = &loop->timers;

    bop__loop_check_thread(loop);
    if (bop_timer_is_running(timer)) {
        take_out(timers, timer);
    }
    if (!loop->in_turn) {
        bop__loop_read_clock(loop); /* The last turn may be long ago. */
    }
    /* A delay past the end of time is as good as never. */
    timer->due_ms = delay_ms > UINT64_MAX - loop->now_ms ? UINT64_MAX : loop->now_ms + delay_ms;
    place(timers, timer);
    timers->count++;
    if (timer->due_ms < timers->next_ms) {
        /* Known or not: if not, all that is known is that nothing is due earlier. */
        timers->next_ms = timer->due_ms;
    }
    if (!loop->in_turn) {
        bop__outside_settle(loop);
    }
    return 0;
}

void bop_timer_stop(struct bop_loop *loop, struct bop_timer *timer)
{
    bop__loop_check_thread(loop);
    if (bop_timer_is_running(timer)) {
        take_out(&loop->timers, timer);
    }
}
