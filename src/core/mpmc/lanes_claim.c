/*
 * Claims: what a consumer token has taken from a lane ahead of its pops, and how
 * others take that over.
 *
 *      items[0]        at            end
 *      |---------------|--------------|
 *        popped          untouched
 *
 * `at` and `end` hold the claim's number in the upper bits and an offset in the
 * lower ones, so that words of different claims never compare equal.
 *
 * The owner's pop, without a read-modify-write (the T.H.E. protocol of Cilk-5 with
 * the roles of its fences made unequal):
 *
 *      at = i + 1;  hot fence;  i + 1 <= end ?  item i is mine  :  settle under the lock
 *
 * Taking over, under the victim's lock:
 *
 *      e = end;  a = at;  end: e -> a;  rare fence;  a2 = at;
 *      end = min(a2, e);  [a2, e) is the thief's
 *
 *   (1) An item goes to one of the two. If the owner stored at = i + 1 before the
 *       rare fence, then a2 > i and the item stays with the owner. If after, the
 *       owner's load of end comes after it too, and finds i + 1 > end.
 *   (2) An owner that finds i + 1 > end takes the lock, so it sees the end that the
 *       thief left: the items below it are the owner's.
 *   (3) A new claim is published in the order at, the other fields, end. A thief
 *       reads end, the fields, at: if the numbers of the two words agree then the
 *       fields are those of that claim. Its change of end is a compare-and-swap,
 *       which fails once a newer claim is published; should the owner have used up
 *       the claim and be in the midst of publishing the next one, then a2 has
 *       another number and the thief has nothing, and changes nothing more.
 *   (4) The owner publishes only when its claim is used up, by itself or by what it
 *       found under the lock; so while a thief has [a2, e) not empty the owner is
 *       held up at the lock, and `end` is the thief's to write.
 *   (5) Each side adds what it took to the block's `done`: the owner when its claim
 *       comes to an end, the thief as the owner of a claim of its own. So a block
 *       with items that may yet be read is never retired.
 *
 * Order. A consumer receives a lane's items in ascending order. A thief may take a
 * run over if it has received nothing behind it, or has no token; or, whatever it
 * has received, if the victim is closed, or the thread that made the claim has
 * exited. A thief without a token has no place for what it does not return, and one
 * that is to claim nothing ahead must not hold it, so that
 * becomes the victim's `rest`: a run under the lock which anybody may go on with,
 * by the same rule. Its owner does so before it claims anything else, and always
 * may: it has received nothing behind the rest that it had not when it claimed it.
 *
 * Nothing that is inside is overlooked by who looks everywhere, first at the lanes
 * and then at the claims (lanes_pop.c):
 *
 *   (6) From a lane to a claim: `claiming` is set before head moves, and cleared
 *       after the claim is published. Who found the lane empty because head had
 *       moved finds the mark, or the claim.
 *   (7) From claim to claim or rest: the mark (`claiming` or `moving`) is set and
 *       then `takeovers` is counted up before `end` is lowered. Who looks reads the
 *       count first and last: a takeover that began in between shows in the count,
 *       one that began before, in its mark or its result.
 *   (8) Who finds a mark, a count that moved, or a lock that is held must not say
 *       that the queue is empty for good, but may go to sleep: whoever publishes a
 *       claim with something left in it looks for waiters afterwards and wakes one,
 *       and in a queue that is being closed whoever uses up a claim or ends a
 *       takeover wakes all.
 */
#include "lanes.h"

#include <string.h>

#include "front.h"

#define STALL_PAUSES 8u /* Some 100 ns: what a busy owner needs for several pops. */
#define SUSPECTS_MAX 8u /* Victims looked at again after that. */

static uint64_t number_of(uint64_t word)
{
    return word >> CLAIM_OFFSET_BITS;
}

static unsigned offset_of(uint64_t word)
{
    return (unsigned)(word & CLAIM_OFFSET_MASK);
}

static struct lanes *queue_of(const struct lanes_consumer *consumer)
{
    return lanes_of(consumer->base.queue);
}

unsigned bop__claim_left(struct lanes_consumer *consumer)
{
    /* Acquire, both: pair with the releases of publish(); and the second is not before the first,
     * so that `at` is not older than `end`. */
    uint64_t end = atomic_load_explicit(&consumer->end, memory_order_acquire);
    uint64_t at = atomic_load_explicit(&consumer->at, memory_order_acquire);

    return number_of(at) == number_of(end) && at < end ? (unsigned)(end - at) : 0;
}

/* Something that others may be waiting for has come to its end: in a queue that is being closed
 * they have to hear of it. */
static void tell_if_closing(struct lanes *queue)
{
    bop__fence_hot();
    /* Relaxed: the fence orders it after our change, and close's wake-up is behind a fence too. */
    if (BOP_UNLIKELY(atomic_load_explicit(&queue->base.state, memory_order_relaxed) !=
                     BOP__MPMC_OPEN)) {
        bop__mpmc_signal_not_empty(&queue->base, UINT32_MAX);
    }
}

/* -- The owner's side -------------------------------------------------------------------------- */

void bop__claim_publish(struct lanes_consumer *consumer, const struct lane_run *run, unsigned taken)
{
    uint64_t number = number_of(consumer->claim_end) + 1;
    uint64_t first = number << CLAIM_OFFSET_BITS;
    struct lanes_thread *thread = bop__lanes_thread();

    /* Relaxed: the releases that follow hold it before them. */
    atomic_store_explicit(&consumer->at, first + taken, memory_order_relaxed);
    /* Release, all: who reads one of these by acquire also sees the new `at`, invariant (3). */
    atomic_store_explicit(&consumer->lane, run->lane, memory_order_release);
    atomic_store_explicit(&consumer->block, run->block, memory_order_release);
    atomic_store_explicit(&consumer->index, run->index, memory_order_release);
    atomic_store_explicit(&consumer->items, &run->block->items[run->index - run->block->base],
                          memory_order_release);
    atomic_store_explicit(&consumer->thread, thread, memory_order_release);
    /* The load relaxed: it is the calling thread's own. */
    atomic_store_explicit(&consumer->thread_life,
                          thread ? atomic_load_explicit(&thread->life, memory_order_relaxed) : 0,
                          memory_order_release);
    consumer->claim_end = first + run->count;
    /* Release: with it come the fields, and the items, which we have acquired. */
    atomic_store_explicit(&consumer->end, first + run->count, memory_order_release);
    /* Release: who sees it cleared sees the claim, invariant (6). */
    atomic_store_explicit(&consumer->claiming, 0, memory_order_release);
}

void bop__claim_finish(struct lanes_consumer *consumer)
{
    /* Relaxed, all: the owner's own. */
    struct lane *lane = atomic_load_explicit(&consumer->lane, memory_order_relaxed);
    struct lane_block *block = atomic_load_explicit(&consumer->block, memory_order_relaxed);
    uint64_t index = atomic_load_explicit(&consumer->index, memory_order_relaxed);
    unsigned taken = offset_of(consumer->claim_end);

    if (taken > 0) {
        bop__lanes_note_received(consumer, lane, index + taken);
        bop__lane_done(lane, block, taken);
    }
    tell_if_closing(queue_of(consumer));
}

unsigned bop__claim_contended(struct lanes_consumer *consumer, uint64_t from, unsigned wanted)
{
    uint64_t end;
    unsigned mine;

    pthread_mutex_lock(&consumer->lock);
    /* Relaxed, both: thieves write and read them under the lock, but for a look from outside. */
    end = atomic_load_explicit(&consumer->end, memory_order_relaxed);
    mine = end > from ? (unsigned)bop_min_u64(end - from, wanted) : 0;
    atomic_store_explicit(&consumer->at, from + mine, memory_order_relaxed);
    consumer->claim_end = bop_max_u64(end, from);
    pthread_mutex_unlock(&consumer->lock);
    return mine;
}

void bop__claim_close(struct lanes_consumer *consumer)
{
    struct lanes *queue = queue_of(consumer);
    struct lane_block *block;
    struct lane *lane;
    uint64_t at;
    unsigned taken = 0;
    bool orphan;

    pthread_mutex_lock(&consumer->lock);
    /* Relaxed, all: ours, or written under the lock. */
    at = atomic_load_explicit(&consumer->at, memory_order_relaxed);
    lane = atomic_load_explicit(&consumer->lane, memory_order_relaxed);
    block = atomic_load_explicit(&consumer->block, memory_order_relaxed);
    if (at != consumer->claim_end) {
        taken = offset_of(at); /* Else finish() has added them. */
    }
    orphan = bop__claim_left(consumer) > 0 || consumer->rest.count > 0;
    consumer->orphan = orphan;
    if (orphan) {
        /* Relaxed: a hint, which the signal below orders for those who must not miss it. */
        atomic_fetch_add_explicit(&queue->orphans, 1, memory_order_relaxed);
    }
    /* Release pairs with the acquire of thieves: they see the last `at`. */
    atomic_store_explicit(&consumer->closed, true, memory_order_release);
    pthread_mutex_unlock(&consumer->lock);

    if (taken > 0) {
        bop__lane_done(lane, block, taken);
    }
    if (orphan) {
        bop__mpmc_signal_not_empty(&queue->base, 1);
    }
    tell_if_closing(queue);
}

/* -- Taking over ------------------------------------------------------------------------------- */

/* One take-over under way. */
struct raid {
    struct lanes *queue;
    struct lanes_consumer *thief; /* Or NULL. */
    struct lanes_consumer *victim;
    uint64_t *out_items;
    size_t count;
    bool left_something; /* Of the run: in the thief's claim, or the victim's rest. */
};

/* Whether order allows the thief a run of the lane that starts at index. */
static bool in_order(const struct raid *raid, const struct lane *lane, uint64_t index)
{
    return !raid->thief || *bop__lanes_received(raid->thief, lane->id) <= index;
}

/* Whether the claim is nobody's any more. */
static bool is_abandoned(struct lanes_consumer *victim)
{
    struct lanes_thread *thread;
    uint64_t life;

    /* Acquire pairs with the release in close. */
    if (atomic_load_explicit(&victim->closed, memory_order_acquire)) {
        return true;
    }
    /* Acquire, both: as the other fields of a claim, invariant (3). */
    thread = atomic_load_explicit(&victim->thread, memory_order_acquire);
    life = atomic_load_explicit(&victim->thread_life, memory_order_acquire);
    /* Acquire pairs with the release of the exit. */
    return thread && atomic_load_explicit(&thread->life, memory_order_acquire) != life;
}

/* Set the mark of invariant (7), and count. */
static void begin_moving(const struct raid *raid)
{
    /* Relaxed, both: the count's release holds them before it. */
    if (raid->thief) {
        atomic_store_explicit(&raid->thief->claiming, 1, memory_order_relaxed);
    } else {
        atomic_store_explicit(&raid->victim->moving, true, memory_order_relaxed);
    }
    /* acq_rel: release shows the mark to who reads the count; acquire holds what follows. */
    atomic_fetch_add_explicit(&raid->queue->takeovers, 1, memory_order_acq_rel);
}

static void end_moving(const struct raid *raid)
{
    /* Release, both: who sees it cleared sees where the run is now. */
    if (raid->thief) {
        atomic_store_explicit(&raid->thief->claiming, 0, memory_order_release);
    } else {
        atomic_store_explicit(&raid->victim->moving, false, memory_order_release);
    }
}

/* The victim's claim as the thief read it. */
struct sight {
    uint64_t at;
    uint64_t end;
    struct lane_run run; /* Of the whole claim, from offset 0. */
};

/* Read a claim that has something left; invariant (3). */
static bool sight_claim(struct lanes_consumer *victim, struct sight *sight, bool *out_abandoned)
{
    /* Acquire, all: pair with the releases of publish(). */
    sight->end = atomic_load_explicit(&victim->end, memory_order_acquire);
    sight->run.lane = atomic_load_explicit(&victim->lane, memory_order_acquire);
    sight->run.block = atomic_load_explicit(&victim->block, memory_order_acquire);
    sight->run.index = atomic_load_explicit(&victim->index, memory_order_acquire);
    *out_abandoned = is_abandoned(victim);
    sight->at = atomic_load_explicit(&victim->at, memory_order_acquire);
    return number_of(sight->at) == number_of(sight->end) && sight->at < sight->end;
}

/* Take the rest of the claim from its owner. The caller has the lock and has set the mark. */
static bool steal(struct lanes_consumer *victim, struct sight *sight, struct lane_run *out_run)
{
    uint64_t end = sight->end, at;

    /* acq_rel: the number of a takeover under way is counted before; see (3) for why it may fail.
     */
    if (!atomic_compare_exchange_strong_explicit(&victim->end, &end, sight->at,
                                                 memory_order_acq_rel, memory_order_relaxed)) {
        return false;
    }
    bop__fence_rare();
    /* Acquire: with a number of a later claim it shows that we have nothing. */
    at = atomic_load_explicit(&victim->at, memory_order_acquire);
    if (number_of(at) != number_of(sight->end)) {
        return false;
    }
    if (at >= sight->end) {
        uint64_t lowered = sight->at;

        /* All is the owner's, who may wait for the lock to hear so, or has gone on: then it fails.
         * Relaxed: nothing comes with it but the number. */
        atomic_compare_exchange_strong_explicit(&victim->end, &lowered, sight->end,
                                                memory_order_relaxed, memory_order_relaxed);
        return false;
    }
    /* Relaxed: the owner is held up at the lock, invariant (4), or reads a number. */
    atomic_store_explicit(&victim->end, at, memory_order_relaxed);
    *out_run = sight->run;
    out_run->index += offset_of(at);
    out_run->count = (unsigned)(sight->end - at);
    return true;
}

/* Return items from the front of a run, which moves on behind them. */
static unsigned take_front(struct raid *raid, struct lane_run *run)
{
    unsigned taken = (unsigned)bop_min_u64(run->count, raid->count);

    memcpy(raid->out_items, &run->block->items[run->index - run->block->base],
           taken * sizeof(*raid->out_items));
    if (raid->thief) {
        bop__lanes_note_received(raid->thief, run->lane, run->index + taken);
    }
    run->index += taken;
    run->count -= taken;
    return taken;
}

/* Whether it may hold more than it returns. */
static bool claims(const struct lanes_consumer *thief)
{
    return thief && thief->claim_ahead > 1;
}

/* Put what is left of the run where it stays. The caller has the victim's lock. */
static void settle(struct raid *raid, const struct lane_run *run, bool from_rest)
{
    struct lanes_consumer *victim = raid->victim;

    if (!claims(raid->thief)) {
        victim->rest = *run;
    } else if (from_rest) {
        victim->rest.count = 0;
    }
    if (claims(raid->thief) && run->count > 0) {
        bop__claim_publish(raid->thief, run, 0);
    }
    raid->left_something = run->count > 0;
    /* Release: who sees it sees what was moved elsewhere, too. */
    atomic_store_explicit(&victim->rest_count, victim->rest.count, memory_order_release);
    if (victim->orphan && victim->rest.count == 0 && bop__claim_left(victim) == 0) {
        victim->orphan = false;
        /* Relaxed: a hint. */
        atomic_fetch_sub_explicit(&raid->queue->orphans, 1, memory_order_relaxed);
    }
}

/* The caller has the victim's lock. Items popped; *out_left says that something remained. */
static unsigned raid_locked(struct raid *raid, bool *out_left)
{
    struct lanes_consumer *victim = raid->victim;
    struct lane_run run = victim->rest;
    struct sight sight;
    bool abandoned, from_rest = run.count > 0, found = false;
    unsigned taken = 0;

    *out_left = false;
    if (from_rest) {
        found = victim == raid->thief || is_abandoned(victim) ||
                in_order(raid, run.lane, run.index);
        *out_left = !found;
    }
    if (!found && victim != raid->thief && sight_claim(victim, &sight, &abandoned)) {
        found = abandoned || in_order(raid, sight.run.lane, sight.run.index + offset_of(sight.at));
        from_rest = false;
        *out_left |= !found;
    }
    if (!found) {
        return 0;
    }
    begin_moving(raid);
    if (from_rest || steal(victim, &sight, &run)) {
        struct lane_block *block = run.block;
        struct lane *lane = run.lane;

        taken = take_front(raid, &run);
        settle(raid, &run, from_rest);
        end_moving(raid);
        bop__lane_done(lane, block, taken);
        return taken;
    }
    end_moving(raid);
    return 0;
}

/* Whether there is anything to be had from a victim, and whether to try now. */
static bool worth_raiding(struct lanes_consumer *victim, const struct lanes_consumer *thief,
                          enum takeover how, bool *out_later, bool *out_elsewhere)
{
    /* Acquire, both, and before the others: invariants (6) and (7). */
    bool marked = atomic_load_explicit(&victim->claiming, memory_order_acquire) != 0 ||
                  atomic_load_explicit(&victim->moving, memory_order_acquire);
    unsigned left = victim == thief ? 0 : bop__claim_left(victim);
    /* Acquire pairs with the release in settle(). */
    bool rest = atomic_load_explicit(&victim->rest_count, memory_order_acquire) > 0;

    *out_later = false;
    if (left == 0 && !rest) {
        *out_elsewhere |= marked;
        return false;
    }
    if (how == TAKEOVER_ALL) {
        return true;
    }
    if (how == TAKEOVER_ORPHANS) {
        /* Acquire: as in is_abandoned(). */
        return atomic_load_explicit(&victim->closed, memory_order_acquire);
    }
    if (rest || is_abandoned(victim)) {
        return true;
    }
    *out_later = true;
    return false;
}

/* The caller has the victim's lock, which this gives back. */
static size_t raid_and_unlock(struct raid *raid, struct lanes_consumer *victim, bool *out_elsewhere)
{
    unsigned taken;
    bool left = false;

    raid->victim = victim;
    taken = raid_locked(raid, &left);
    *out_elsewhere |= left || bop__claim_left(victim) > 0;
    pthread_mutex_unlock(&victim->lock);
    if (taken > 0) {
        if (raid->left_something) {
            bop__mpmc_signal_not_empty(&raid->queue->base, 1); /* Invariant (8). */
        }
        tell_if_closing(raid->queue);
    }
    return taken;
}

static size_t raid_one(struct raid *raid, struct lanes_consumer *victim, bool *out_elsewhere)
{
    if (pthread_mutex_trylock(&victim->lock) != 0) {
        *out_elsewhere = true; /* Whoever holds it goes on with what is there. */
        return 0;
    }
    return raid_and_unlock(raid, victim, out_elsewhere);
}

size_t bop__claim_take_rest(struct lanes_consumer *consumer, uint64_t *out_items, size_t count)
{
    struct raid raid = {
        .queue = queue_of(consumer), .thief = consumer, .out_items = out_items, .count = count};
    bool elsewhere = false;

    /* Relaxed: a rest that is news to us is in a claim that we were held up at the lock for. */
    if (BOP_LIKELY(atomic_load_explicit(&consumer->rest_count, memory_order_relaxed) == 0)) {
        return 0;
    }
    pthread_mutex_lock(&consumer->lock);
    return raid_and_unlock(&raid, consumer, &elsewhere);
}

static void pause_stalled(void)
{
    for (unsigned i = 0; i < STALL_PAUSES; i++) {
        bop__mpmc_pause();
    }
}

/* Victims that are busy for all that one can see. */
struct suspects {
    unsigned count;
    struct {
        struct lanes_consumer *victim;
        uint64_t at;
    } of[SUSPECTS_MAX];
};

static void suspect(struct suspects *suspects, struct lanes_consumer *victim)
{
    if (suspects->count < SUSPECTS_MAX) {
        suspects->of[suspects->count].victim = victim;
        /* Relaxed: it is only compared. */
        suspects->of[suspects->count].at = atomic_load_explicit(&victim->at, memory_order_relaxed);
        suspects->count++;
    }
}

/* Look at the suspects again after a moment. */
static size_t raid_suspects(struct raid *raid, const struct suspects *suspects, bool *out_elsewhere)
{
    size_t taken = 0;

    if (suspects->count > 0) {
        pause_stalled();
    }
    for (unsigned i = 0; i < suspects->count && taken == 0; i++) {
        struct lanes_consumer *victim = suspects->of[i].victim;

        /* Relaxed: it is only compared. */
        if (atomic_load_explicit(&victim->at, memory_order_relaxed) == suspects->of[i].at) {
            taken = raid_one(raid, victim, out_elsewhere);
        } else {
            *out_elsewhere = true;
        }
    }
    return taken;
}

size_t bop__lanes_take_over(struct lanes *queue, struct lanes_consumer *thief, uint64_t *out_items,
                            size_t count, enum takeover how, bool *out_elsewhere)
{
    struct raid raid = {.queue = queue, .thief = thief, .out_items = out_items, .count = count};
    struct suspects suspects = {.count = 0};
    /* Acquire pairs with the acq_rel in begin_moving(), invariant (7). */
    unsigned takeovers = atomic_load_explicit(&queue->takeovers, memory_order_acquire);
    /* Acquire pairs with the release of who made the newest. */
    struct lanes_consumer *victim = atomic_load_explicit(&queue->consumers, memory_order_acquire);

    for (; victim; victim = victim->next) {
        bool later;
        size_t taken;

        if (!worth_raiding(victim, thief, how, &later, out_elsewhere)) {
            if (later) {
                suspect(&suspects, victim);
            }
            continue;
        }
        taken = raid_one(&raid, victim, out_elsewhere);
        if (taken > 0) {
            return taken;
        }
    }
    if (suspects.count > 0) {
        size_t taken = raid_suspects(&raid, &suspects, out_elsewhere);

        if (taken > 0) {
            return taken;
        }
    }
    /* Relaxed: the looks above are loads by acquire, and so come before it. */
    if (atomic_load_explicit(&queue->takeovers, memory_order_relaxed) != takeovers) {
        *out_elsewhere = true;
    }
    return 0;
}

/* -- For a loop that arms ---------------------------------------------------------------------- */

/* Whether a loop is to be told of the victim's claim: of an abandoned one always, of others once
 * for each state that they are seen in, for it may be that order keeps the loop from having it. */
static bool worth_telling(struct lanes_consumer *victim)
{
    /* Acquire: as in worth_raiding(). */
    unsigned rest = atomic_load_explicit(&victim->rest_count, memory_order_acquire);
    uint64_t state;

    if (bop__claim_left(victim) == 0 && rest == 0) {
        return false;
    }
    if (is_abandoned(victim)) {
        return true;
    }
    /* Relaxed, both: they are only compared. */
    state = atomic_load_explicit(&victim->at, memory_order_relaxed) + ((uint64_t)rest << 48);
    return atomic_exchange_explicit(&victim->told, state, memory_order_relaxed) != state;
}

bool bop__lanes_worth_a_look(struct bop_mpmc *base)
{
    /* Acquire, both: pair with the releases of who made the newest. */
    struct lane *lane = atomic_load_explicit(&lanes_of(base)->lanes, memory_order_acquire);
    struct lanes_consumer *consumer = atomic_load_explicit(&lanes_of(base)->consumers,
                                                           memory_order_acquire);
    bool worth = false;

    for (; lane && !worth; lane = lane->next) {
        /* Relaxed, both: the fence of arming orders them; they are only compared. */
        worth = atomic_load_explicit(&lane->head, memory_order_relaxed) !=
                atomic_load_explicit(&lane->tail, memory_order_relaxed);
    }
    for (; consumer && !worth; consumer = consumer->next) {
        worth = worth_telling(consumer);
    }
    return worth;
}
