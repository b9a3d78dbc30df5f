/*
 * The segments of a fifo queue (fifo_push.c, fifo_pop.c, fifo_hazard.c): slots
 * reserved and published, given up by consumers that find them empty, a change
 * of segments, hazard pointers that stay in the token, and segments that are used
 * again. Runs are left out: to this protocol they are items.
 *
 * Producers push their items and close their tokens; consumers try to pop some
 * times and close theirs. The first segment has one slot left.
 *
 * Checked: no operation touches a segment that was freed since it was protected;
 * every item is popped once at most, and those that were not are inside; an item
 * is popped after all whose pushes had ended before its own began; "empty" is not
 * said while an item whose push had ended before the pop began is inside; when all
 * tokens are closed, every segment is linked or free.
 *
 * Memory is sequentially consistent: the operations that this hangs on are
 * read-modify-writes, or marked seq_cst in the code.
 *
 * Must fail: BROKEN_NO_VALIDATE, where the pointer is not read again after it was
 * protected; BROKEN_NO_TAIL_HELP, where the head may overtake the tail;
 * BROKEN_NO_RECOUNT, where a consumer goes to the next segment without counting
 * the slots again; BROKEN_NO_GIVE_UP_CHECK, where a producer does not notice that
 * its slot was given up; BROKEN_NO_DROP_SWEEP, where who drops a pointer does not
 * sweep.
 */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef PUSHES
#define PUSHES 1
#endif
#ifndef CONSUMERS
#define CONSUMERS 1
#endif
#ifndef POPS
#define POPS 2
#endif
#ifndef SEGMENTS
#define SEGMENTS 3
#endif
#define CELLS 2

#define NONE   15
#define EMPTY  0
#define TAKEN  100
#define TOKENS (PRODUCERS + CONSUMERS)
#define ITEMS  (PRODUCERS * PUSHES)

typedef segment {
    byte reserved; /* enqueue: slots asked for. */
    bool closed;
    byte final; /* Slots when it was closed. */
    byte dequeue;
    byte next;
    byte cell[CELLS];
    bool live;
    byte life /* Counts its uses. */
}

segment seg[SEGMENTS];
byte head, tail;
byte hazard[TOKENS];
byte retired; /* A bit for each segment on the stack. */
byte dropped;

/* Ghosts: a bit for each item. */
byte completed;     /* Pushes that have returned. */
byte popped;
byte before[ITEMS]; /* completed, when its push began. */
byte running = TOKENS;

#define bit(x) (1 << (x))
#define used(s) assert(seg[s].live && seg[s].life == life)

/* -- Hazard pointers --------------------------------------------------------------------------- */

/* Each look at a record is a step. mine, kept, s, t, seen are the caller's. */
inline sweep()
{
    do
    ::  seen = dropped;
        atomic { mine = retired; retired = 0 };
        kept = 0;
        s = 0;
        do
        :: s < SEGMENTS && (mine & bit(s)) ->
            t = 0;
            do
            :: t < TOKENS && hazard[t] == s -> kept = kept | bit(s); break
            :: t < TOKENS && hazard[t] != s -> t++
            :: t == TOKENS ->
                atomic { assert(seg[s].live); seg[s].live = false };
                break
            od;
            s++
        :: s < SEGMENTS && !(mine & bit(s)) -> s++
        :: s == SEGMENTS -> break
        od;
        if
        :: kept == 0 -> break
        :: else -> retired = retired | kept
        fi;
        if
        :: dropped == seen -> break
        :: else
        fi
    od;
    atomic { mine = 0; kept = 0; s = 0; t = 0; seen = 0 }
}

inline sweep_after_drop()
{
#ifndef BROKEN_NO_DROP_SWEEP
    dropped++;
    if
    :: retired != 0 -> sweep()
    :: else
    fi
#else
    skip
#endif
}

/* at: the segment that `from` names, protected; life: its use. */
inline protect(me, from)
{
    at = from;
    if
    :: at == hazard[me]
    :: else ->
        was = hazard[me];
        do
        ::  hazard[me] = at;
#ifdef BROKEN_NO_VALIDATE
            break;
#endif
            if
            :: from == at -> break
            :: else -> at = from
            fi
        od;
        limit = 0;
        life = seg[at].life;
        if
        :: was != NONE -> was = NONE; sweep_after_drop()
        :: else
        fi
    fi
}

inline drop(me)
{
    hazard[me] = NONE;
    sweep_after_drop()
}

/* -- Segments ---------------------------------------------------------------------------------- */

/* A free segment with the item in it, known to nobody; NONE if there is none. */
inline take_segment(item)
{
    d_step {
        fresh = 0;
        do
        :: fresh < SEGMENTS && seg[fresh].live -> fresh++
        :: fresh < SEGMENTS && !seg[fresh].live ->
            seg[fresh].live = true;
            seg[fresh].life++;
            seg[fresh].reserved = 1;
            seg[fresh].closed = false;
            seg[fresh].final = NONE;
            seg[fresh].dequeue = 0;
            seg[fresh].next = NONE;
            seg[fresh].cell[0] = item;
            seg[fresh].cell[1] = EMPTY;
            break
        :: else -> fresh = NONE; break
        od
    }
}

inline close_segment(which)
{
    atomic {
        used(which);
        if
        :: !seg[which].closed ->
            seg[which].closed = true;
            slots = (seg[which].reserved < CELLS -> seg[which].reserved : CELLS)
        :: else -> slots = NONE
        fi
    };
    if
    :: slots != NONE -> seg[which].final = slots
    :: else
    fi;
    slots = 0
}

inline count_limit(which)
{
    used(which);
    d_step {
        limit = (seg[which].reserved < CELLS -> seg[which].reserved : CELLS);
        if
        :: seg[which].closed && seg[which].final < limit -> limit = seg[which].final
        :: else
        fi
    }
}

proctype producer(byte me)
{
    byte calls, at, life, was, limit, slot, fresh, next, slots, mine, kept, s, t, seen, item;

    do
    :: calls < PUSHES ->
        item = me * PUSHES + calls + 1;
        calls++;
        before[item - 1] = completed;
again:
        protect(me, tail);
        used(at);
        if
        :: seg[at].next == NONE ->
            atomic {
                used(at);
                slot = (seg[at].closed -> NONE : seg[at].reserved);
                seg[at].reserved = (seg[at].reserved < 6 -> seg[at].reserved + 1 : 6)
            }
        :: else -> slot = NONE
        fi;
        if
        :: slot < CELLS ->
            atomic {
                used(at);
                if
#ifdef BROKEN_NO_GIVE_UP_CHECK
                :: seg[at].cell[slot] == TAKEN -> slot = 0
#else
                :: seg[at].cell[slot] == TAKEN -> slot = 0; goto again
#endif
                :: seg[at].cell[slot] == EMPTY -> seg[at].cell[slot] = item; slot = 0
                fi
            };
            goto pushed
        :: else -> slot = 0
        fi;
        /* No room: go on to the next segment, or link one. */
        used(at);
        next = seg[at].next;
        if
        :: next != NONE ->
            atomic {
                if
                :: tail == at -> tail = next
                :: else
                fi;
                next = 0
            };
            goto again
        :: else -> next = 0
        fi;
        take_segment(item);
        if
        :: fresh == NONE -> fresh = 0; goto refused
        :: else
        fi;
        close_segment(at);
        atomic {
            used(at);
            if
            :: seg[at].next == NONE -> seg[at].next = fresh
            :: else -> seg[fresh].live = false; fresh = 0; goto again
            fi
        };
        atomic {
            if
            :: tail == at -> tail = fresh
            :: else
            fi;
            fresh = 0
        };
pushed:
        completed = completed | bit(item - 1);
        goto next_call;
refused:
        popped = popped | bit(item - 1); /* It counts for nothing. */
next_call:
        skip
    :: else -> break
    od;
    drop(me);
    running--
}

proctype consumer(byte me)
{
    byte calls, at, life, was, limit, place, cell, next, mine, kept, s, t, seen, at_begin;

    do
    :: calls < POPS ->
        calls++;
        at_begin = completed;
again:
        protect(me, head);
        used(at);
        place = seg[at].dequeue;
        if
        :: place >= limit ->
            count_limit(at);
            if
            :: place < limit
            :: else ->
                used(at);
                next = seg[at].next;
                if
                :: next == NONE ->
                    assert((at_begin & ~popped) == 0); /* Empty. */
                    goto next_call
                :: else
                fi;
#ifndef BROKEN_NO_RECOUNT
                count_limit(at);
                if
                :: place < limit -> goto again
                :: else
                fi;
#endif
#ifndef BROKEN_NO_TAIL_HELP
                atomic {
                    if
                    :: tail == at -> tail = next
                    :: else
                    fi
                };
#endif
                atomic {
                    if
                    :: head == at -> head = next
                    :: else -> goto again
                    fi
                };
                hazard[me] = NONE;
                retired = retired | bit(at);
                sweep();
                goto again
            fi
        :: else
        fi;
        used(at);
        cell = seg[at].cell[place];
        if
        :: cell == EMPTY -> /* Looked at for long enough. */
            atomic {
                used(at);
                if
                :: seg[at].cell[place] == EMPTY -> seg[at].cell[place] = TAKEN; cell = TAKEN
                :: else -> cell = seg[at].cell[place]
                fi
            }
        :: else
        fi;
        atomic {
            used(at);
            if
            :: seg[at].dequeue == place ->
                seg[at].dequeue = place + 1;
                if
                :: cell == TAKEN -> goto again
                :: else ->
                    assert(!(popped & bit(cell - 1)));
                    assert((before[cell - 1] & ~popped) == 0);
                    popped = popped | bit(cell - 1)
                fi
            :: else -> goto again
            fi
        };
next_call:
        atomic { place = 0; cell = 0; next = 0; at_begin = 0 }
    :: else -> break
    od;
    drop(me);
    running--
}

init {
    byte i, j, inside, linked;

    atomic {
        i = 0;
        do
        :: i < TOKENS -> hazard[i] = NONE; i++
        :: else -> break
        od;
        seg[0].live = true;
        seg[0].life = 1;
        seg[0].reserved = 1;
        seg[0].dequeue = 1;
        seg[0].cell[0] = TAKEN;
        seg[0].next = NONE;
        seg[0].final = NONE;
        i = 0;
        do
        :: i < PRODUCERS -> run producer(i); i++
        :: i >= PRODUCERS && i < TOKENS -> run consumer(i); i++
        :: i == TOKENS -> break
        od;
        i = 0
    };
    running == 0;
    d_step {
        /* What is inside, and where. */
        i = head;
        do
        ::  linked = linked | bit(i);
            assert(seg[i].live);
            j = seg[i].dequeue;
            do
            :: j < CELLS ->
                if
                :: seg[i].cell[j] != EMPTY && seg[i].cell[j] != TAKEN ->
                    inside = inside | bit(seg[i].cell[j] - 1)
                :: else
                fi;
                j++
            :: else -> break
            od;
            if
            :: seg[i].next == NONE -> break
            :: else -> i = seg[i].next
            fi
        od;
        assert((inside & popped) == 0);
        assert((inside | popped) == bit(ITEMS) - 1);
        i = 0;
        do
        :: i < SEGMENTS -> assert(seg[i].live == ((linked & bit(i)) != 0)); i++
        :: else -> break
        od
    }
}
