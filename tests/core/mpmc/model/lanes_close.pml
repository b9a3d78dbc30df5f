/*
 * Closing a queue of lanes (lanes_push.c, mpmc.c): pushes cost no
 * read-modify-write, and still none succeeds once close has returned.
 *
 *      push                              close
 *      pushing = 1                       state = CLOSING, by compare-and-swap
 *      (hot fence)                       rare fence
 *      state is OPEN? else give up       wait until no lane is pushing
 *      tail = tail + 1                   state = CLOSED
 *      pushing = 0
 *
 * Checked: when close has returned, no push that has not given up is under way,
 * and the tails in memory hold all that were accepted: a consumer that reads
 * CLOSED and then finds the lanes empty has left nothing behind.
 *
 * Must fail: BROKEN_NO_FENCE, without the rare fence; BROKEN_NO_WAIT, where close
 * does not wait for pushes under way.
 */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef PUSHES
#define PUSHES 2
#endif

/* The words of lane p at 2 * p. */
#define TAIL(p)    (2 * (p))
#define PUSHING(p) (2 * (p) + 1)
#define STATE      (2 * PRODUCERS)
#define WORDS      (2 * PRODUCERS + 1)
#define CLOSING    1
#define CLOSED     2
#define PROCESSES  (PRODUCERS + 1) /* The last one closes. */
#define DEPTH      4
#include "tso.pml"

byte accepted[PRODUCERS];
bool close_returned;

proctype producer(byte me)
{
    byte pushes, state;

    do
    :: pushes < PUSHES ->
        pushes++;
        store(me, PUSHING(me), 1);
        load(me, STATE, state);
        if
        :: state != 0 -> store(me, PUSHING(me), 0); break
        :: state == 0
        fi;
        d_step {
            assert(!close_returned);
            accepted[me]++
        };
        store(me, TAIL(me), accepted[me]);
        store(me, PUSHING(me), 0)
    :: else -> break
    od
}

proctype closer()
{
    byte i;

    atomic { drained(PRODUCERS); mem[STATE] = CLOSING };
#ifndef BROKEN_NO_FENCE
    rare_fence(PRODUCERS, i);
#endif
#ifndef BROKEN_NO_WAIT
    do
    :: i < PRODUCERS -> mem[PUSHING(i)] == 0; i++
    :: else -> break
    od;
    i = 0;
#endif
    store(PRODUCERS, STATE, CLOSED);
    close_returned = true
}

/* Pops what it finds; it stores nothing, so it reads memory. */
proctype consumer()
{
    byte i, popped[PRODUCERS];

    mem[STATE] == CLOSED;
    do
    :: i < PRODUCERS -> popped[i] = mem[TAIL(i)]; i++
    :: else -> break
    od;
    atomic {
        i = 0;
        do
        :: i < PRODUCERS -> assert(popped[i] == accepted[i]); i++
        :: else -> break
        od
    }
}

init {
    byte i;

    atomic {
        do
        :: i < PRODUCERS -> run producer(i); run flusher(i); i++
        :: else -> break
        od;
        run closer();
        run flusher(PRODUCERS);
        run consumer()
    }
}
