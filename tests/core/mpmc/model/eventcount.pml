/*
 * The eventcount under a queue: nobody sleeps over an item, or over the closing.
 *
 * Producers publish by a plain store (their count of items, as a lane's tail) and
 * signal; consumers look, announce themselves, look again and sleep. The word is
 * waiters, woken and armed; the epoch is the futex. Which sleeper the kernel
 * wakes is left open: it goes by priority first.
 *
 * QUOTA: each consumer takes as many items as are its own, all together just
 * what is pushed; CLOSING: consumers take items until the queue is closed, which
 * happens when all is pushed; ARMED: the first consumer is a loop that arms the
 * queue instead of sleeping. A consumer that sleeps for ever is an invalid end
 * state.
 *
 * Must fail: BROKEN_NO_FENCE, where the waiter does not fence between announcing
 * itself and its last look; BROKEN_NO_LAST_LOOK; BROKEN_KEY_AFTER, where the key
 * is read after the announcement; BROKEN_SLEEP_ON, where a waiter that the kernel
 * has woken sleeps again if the epoch is its own (the wake-up was meant for
 * another, which is counted as woken and lies asleep).
 */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef PUSHES
#define PUSHES 1 /* Of each producer. */
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif

/* Of producer p at index p. Only they store; all else is read-modify-write. */
#define CLOSED    PRODUCERS
#define WORDS     (PRODUCERS + 1)
#define PROCESSES (PRODUCERS + 1) /* The last one closes. */
#define DEPTH     2
#include "tso.pml"

byte waiters, woken, epoch;
bool armed, notified;
byte popped;
bool asleep[3]; /* CONSUMERS of them are in use. */

#if PRODUCERS > 1
#define PUSHED (mem[0] + mem[1])
#else
#define PUSHED (mem[0])
#endif

/* -- The changer's side ------------------------------------------------------------------------ */

/* Wake one, whichever, if there is one. */
inline futex_wake()
{
    if
    :: atomic { asleep[0] -> asleep[0] = false }
    :: atomic { asleep[1] -> asleep[1] = false }
    :: atomic { asleep[2] -> asleep[2] = false }
    :: atomic { !asleep[0] && !asleep[1] && !asleep[2] -> skip }
    fi
}

/* marked and was_armed are the caller's. The read-modify-writes wait for the buffer. */
inline signal(me, wake_count)
{
    if
    :: waiters == 0 && !armed /* All of the cost while nobody waits: one load. */
    :: else ->
        atomic {
            drained(me) ->
            marked = (waiters - woken < wake_count -> waiters - woken : wake_count);
            woken = woken + marked;
            was_armed = armed;
            armed = false
        };
        if
        :: marked > 0 ->
            epoch++;
            do
            :: marked > 0 -> futex_wake(); marked--
            :: else -> break
            od
        :: else
        fi;
        if
        :: was_armed -> was_armed = false; notified = true
        :: else
        fi
    fi
}

proctype producer(byte me)
{
    byte pushed, marked;
    bool was_armed;

    do
    :: pushed < PUSHES ->
        pushed++;
        store(me, me, pushed);
        signal(me, 1)
    :: else -> break
    od
}

proctype closer()
{
    byte marked;
    bool was_armed;

    PUSHED == PRODUCERS * PUSHES;
    store(PRODUCERS, CLOSED, 1);
    signal(PRODUCERS, 255)
}

/* -- The waiter's side ------------------------------------------------------------------------- */

/* The producers' stores are looked at one after the other; taking is one step, as by the lanes'
 * heads. A consumer stores nothing, so it reads memory. */
inline look(found)
{
    atomic {
        found = false;
        if
        :: PUSHED > popped -> popped++; found = true
        :: PUSHED == popped
        fi
    }
}

inline leave()
{
    d_step {
        waiters--;
        if
        :: woken > 0 -> woken--
        :: else
        fi
    }
}

inline wait(c_, k_)
{
    do
    ::  atomic {
            if
            :: epoch != k_ -> break
            :: else -> asleep[c_] = true
            fi
        };
        !asleep[c_];
#ifndef BROKEN_SLEEP_ON
        break
#endif
    od;
    leave()
}

proctype consumer(byte me; byte quota)
{
    byte i, key;
    bool found;

    do
    ::  look(found);
        if
        :: found -> goto took
        :: else
        fi;
#ifndef BROKEN_KEY_AFTER
        key = epoch;
        waiters++;
#else
        waiters++;
        key = epoch;
#endif
#ifndef BROKEN_NO_FENCE
        rare_fence(0, i);
#endif
#ifndef BROKEN_NO_LAST_LOOK
        found = (mem[CLOSED] == 1);
        if
        :: found -> leave(); goto closed
        :: else
        fi;
        look(found);
        if
        :: found -> leave(); goto took
        :: else
        fi;
#endif
        wait(me, key);
        key = 0;
        if
        :: mem[CLOSED] == 1 -> goto closed
        :: else
        fi;
        goto again;
took:
        found = false;
        key = 0;
#ifdef CLOSING
        skip;
#else
        quota--;
        if
        :: quota == 0 -> break
        :: else
        fi;
#endif
again:
        skip
    od;
    goto done;
closed:
    do /* What was accepted before can be popped. */
    ::  look(found);
        if
        :: !found -> break
        :: else
        fi
    od;
done:
    skip
}

/* An event loop: it arms the queue, and is called. */
proctype loop(byte quota)
{
    byte i;
    bool found;

    do
    ::  do
        :: quota == 0 -> goto done
        :: else ->
            look(found);
            if
            :: found -> quota--
            :: else -> break
            fi
        od;
        notified = false;
        armed = true;
#ifndef BROKEN_NO_FENCE
        rare_fence(0, i);
#endif
        look(found);
        if
        :: found ->
            armed = false;
            quota--
        :: else ->
            notified
        fi
    od;
done:
    skip
}

init {
    byte i;

    atomic {
        do
        :: i < PRODUCERS -> run producer(i); run flusher(i); i++
        :: else -> break
        od;
        i = 0;
#ifdef CLOSING
        run closer();
        run flusher(PRODUCERS);
#endif
#ifdef ARMED
        run loop(PRODUCERS * PUSHES - (CONSUMERS - 1));
        i = 1;
#endif
        do
        :: i < CONSUMERS - 1 -> run consumer(i, 1); i++
        :: i == CONSUMERS - 1 ->
#ifdef ARMED
            run consumer(i, 1);
#else
            run consumer(i, PRODUCERS * PUSHES - (CONSUMERS - 1));
#endif
            i++
        :: else -> break
        od;
        i = 0
    }
}
