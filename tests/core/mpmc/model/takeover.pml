/*
 * Taking over what a consumer token of a lanes queue has claimed and not touched
 * (lanes_claim.c). The owner takes item after item, and publishes claim after
 * claim, with plain stores and loads; a thief holds the token's lock and has the
 * processors fenced.
 *
 *      owner                                  thief, under the lock
 *      at = i + 1                             e = end; index; a = at
 *      (hot fence)                            end: e -> a, by compare-and-swap
 *      i + 1 <= end: item i is mine           rare fence
 *      else, under the lock, look again       b = at; of another claim: nothing
 *                                             end = min(b, e); items [b, e) are mine
 *
 * at and end are words of a claim's number and an offset. The items lie in blocks
 * of CLAIM, each with a count of those that are done; the owner may close its
 * token at any time, with something left in it.
 *
 * Checked: no item is taken twice; none is lost: at the end each is taken, or
 * left in the claim, or was never claimed; no item is read in a block that is
 * done as a whole and may be somebody else's by then; and done comes to no more
 * than was taken.
 *
 * Must fail: BROKEN_NO_FENCE, without the rare fence; BROKEN_NO_SECOND_LOOK,
 * where the thief trusts its first look; BROKEN_NO_LOCK, where the owner does not
 * look again under the lock; BROKEN_STORE_END, where the thief lowers end by a
 * store and so may undo the publishing of a claim.
 */
#ifndef ITEMS
#define ITEMS 4
#endif
#ifndef CLAIM
#define CLAIM 2 /* Items that the owner claims at once. */
#endif
#ifndef THIEVES
#define THIEVES 2
#endif
#ifndef TRIES
#define TRIES 2 /* Of each thief. */
#endif

#define AT    0
#define END   1
#define INDEX 2 /* The item at offset 0 of the claim. */
#define LOCK  3
#define WORDS 4

#define PROCESSES (THIEVES + 1)
#define DEPTH     4
#include "tso.pml"

/* A word of a claim. */
#define FIRST(number)   ((number) * 8)
#define number_of(word) ((word) / 8)
#define offset_of(word) ((word) % 8)

bool taken[ITEMS];
byte done[(ITEMS + CLAIM - 1) / CLAIM];
byte next; /* The first item of the lane that is not claimed. */
byte running = PROCESSES;

inline take(item)
{
    d_step {
        assert(!taken[item]);
        assert(done[(item) / CLAIM] < CLAIM);
        taken[item] = true
    }
}

inline add_done(item, n)
{
    d_step {
        done[(item) / CLAIM] = done[(item) / CLAIM] + n;
        assert(done[(item) / CLAIM] <= CLAIM)
    }
}

inline lock(me)
{
    atomic { drained(me) && mem[LOCK] == 0 -> mem[LOCK] = 1 }
}

inline unlock(me)
{
    store(me, LOCK, 0)
}

proctype owner()
{
    byte a, e, claim_end, index;
    bool mine;

    do
    ::  load(0, AT, a);
        if
        :: a == claim_end -> /* Used up, and counted: a new claim. */
            if
            :: next == ITEMS -> break
            :: next < ITEMS ->
                a = FIRST(number_of(claim_end) + 1);
                index = next;
                next = (next + CLAIM < ITEMS -> next + CLAIM : ITEMS);
                store(0, AT, a);
                store(0, INDEX, index);
                claim_end = a + next - index;
                store(0, END, claim_end)
            fi
        :: a != claim_end ->
            store(0, AT, a + 1);
            load(0, END, e);
            mine = true;
            if
            :: a + 1 <= e
            :: a + 1 > e ->
#ifdef BROKEN_NO_LOCK
                mine = false;
                claim_end = a + 1;
#else
                lock(0);
                load(0, END, e);
                mine = (e > a);
                store(0, AT, a + mine);
                claim_end = (e > a -> e : a);
                unlock(0)
#endif
            fi;
            if
            :: mine -> take(index + offset_of(a)); a++
            :: else
            fi;
            if
            :: a == claim_end || !mine -> add_done(index, offset_of(claim_end))
            :: else
            fi;
            e = 0;
            mine = false
        :: a != claim_end -> /* Close the token. */
            lock(0);
            unlock(0);
            add_done(index, offset_of(a));
            break
        :: a == claim_end -> break
        fi;
        a = 0
    od;
    atomic { drained(0) -> running-- }
}

proctype thief(byte me)
{
    byte a, b, e, i, index, tries;

    do
    :: tries < TRIES ->
        tries++;
        if
        :: lock(me);
            load(me, END, e);
            load(me, INDEX, index);
            load(me, AT, a);
            if
            :: number_of(a) != number_of(e) || a >= e -> goto nothing
            :: else
            fi;
#ifdef BROKEN_STORE_END
            store(me, END, a);
#else
            atomic {
                drained(me);
                if
                :: mem[END] == e -> mem[END] = a
                :: else -> goto nothing
                fi
            };
#endif
#ifndef BROKEN_NO_FENCE
            rare_fence(me, i);
#endif
#ifdef BROKEN_NO_SECOND_LOOK
            b = a;
#else
            load(me, AT, b);
#endif
            if
            :: number_of(b) != number_of(e) -> goto nothing
            :: number_of(b) == number_of(e) && b >= e ->
                atomic {
                    drained(me);
                    if
                    :: mem[END] == a -> mem[END] = e
                    :: else
                    fi
                };
                goto nothing
            :: number_of(b) == number_of(e) && b < e
            fi;
            store(me, END, b);
            unlock(me);
            a = b;
            do
            :: b < e -> take(index + offset_of(b)); b++
            :: else -> break
            od;
            add_done(index, e - a);
            goto again;
nothing:
            unlock(me);
again:
            atomic { a = 0; b = 0; e = 0; index = 0 }
        :: mem[LOCK] != 0 /* Another has it: do something else. */
        fi
    :: else -> break
    od;
    atomic { drained(me) -> running-- }
}

init {
    byte i;

    atomic {
        run owner();
        run flusher(0);
        i = 1;
        do
        :: i <= THIEVES -> run thief(i); run flusher(i); i++
        :: else -> break
        od;
        i = 0
    };
    running == 0;
    d_step {
        /* What is left in the claim counts as taken, as does what nobody has claimed. */
        do
        :: number_of(mem[AT]) == number_of(mem[END]) && mem[AT] < mem[END] ->
            assert(!taken[mem[INDEX] + offset_of(mem[AT])]);
            taken[mem[INDEX] + offset_of(mem[AT])] = true;
            mem[AT]++
        :: else -> break
        od;
        do
        :: next < ITEMS -> assert(!taken[next]); taken[next] = true; next++
        :: else -> break
        od;
        do
        :: i < ITEMS -> assert(taken[i]); i++
        :: else -> break
        od
    }
}
