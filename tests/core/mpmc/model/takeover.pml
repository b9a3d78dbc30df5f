/*
 * Taking over what a consumer token of a lanes queue has claimed and not
 * touched. The owner takes item after item with two plain stores and loads; a
 * thief holds the token's lock and has the processors fenced.
 *
 *      owner                                  thief, under the lock
 *      i = at; at = i + 1                     a = at; e = end; end = a
 *      (hot fence)                            rare fence
 *      i + 1 <= end: item i is mine           b = at
 *      else, under the lock, look again       end = min(b, e); items [b, e) are mine
 *
 * Checked: every item is taken exactly once, whoever takes it, and none is lost.
 *
 * Must fail: BROKEN_NO_FENCE, without the rare fence; BROKEN_NO_SECOND_LOOK,
 * where the thief trusts its first look; BROKEN_NO_LOCK, where the owner does not
 * look again under the lock.
 */
#ifndef ITEMS
#define ITEMS 4
#endif
#ifndef CLAIM
#define CLAIM 3 /* Items that the owner claims at once. */
#endif
#ifndef THIEVES
#define THIEVES 2
#endif
#ifndef TRIES
#define TRIES 2 /* Of each thief. */
#endif

#define AT    0
#define END   1
#define LOCK  2
#define WORDS 3

#define PROCESSES (THIEVES + 1)
#define DEPTH     4
#include "tso.pml"

byte taken[ITEMS];
byte running = PROCESSES;

inline take(item)
{
    d_step {
        assert(taken[item] == 0);
        taken[item]++
    }
}

inline unlock(me)
{
    store(me, LOCK, 0)
}

proctype owner()
{
    byte i, e;
    byte next; /* The first item of the lane that is not claimed. */

    do
    ::  load(0, AT, i);
        store(0, AT, i + 1);
        load(0, END, e);
        if
        :: i + 1 <= e -> take(i)
        :: else ->
            atomic { drained(0) && mem[LOCK] == 0 -> mem[LOCK] = 1 };
#ifndef BROKEN_NO_LOCK
            load(0, END, e);
#endif
            if
            :: i + 1 <= e ->
                unlock(0);
                take(i)
            :: else ->
                if
                :: next < ITEMS ->
                    i = (next + CLAIM < ITEMS -> next + CLAIM : ITEMS);
                    store(0, AT, next);
                    store(0, END, i);
                    next = i;
                    unlock(0)
                :: else ->
                    store(0, AT, e);
                    unlock(0);
                    break
                fi
            fi
        fi
    od;
    running--
}

proctype thief(byte me)
{
    byte a, b, e, i, tries;

    do
    :: tries < TRIES ->
        tries++;
        if
        :: atomic { drained(me) && mem[LOCK] == 0 -> mem[LOCK] = 1 };
            load(me, AT, a);
            load(me, END, e);
            if
            :: a < e ->
                store(me, END, a);
#ifndef BROKEN_NO_FENCE
                rare_fence(me, i);
#endif
#ifdef BROKEN_NO_SECOND_LOOK
                b = a;
#else
                load(me, AT, b);
#endif
                if
                :: b > e -> b = e
                :: else
                fi;
                if
                :: store(me, END, b) /* Take what is left. */
                :: store(me, END, e); b = e /* Leave it: it would break the thief's order. */
                fi;
                unlock(me);
                do
                :: b < e -> take(b); b++
                :: else -> break
                od
            :: else -> unlock(me)
            fi;
            a = 0; b = 0; e = 0
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
    do
    :: i < ITEMS -> assert(taken[i] == 1); i++
    :: else -> break
    od
}
