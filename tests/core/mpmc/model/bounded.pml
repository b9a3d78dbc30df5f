/*
 * The ring of a bounded queue: cells with stamps, runs of them taken by one
 * compare-and-swap of an index, refusals, and the closing bit. There are as few
 * different stamps as can do, two, so that they come round often.
 *
 * Producers push single items and bulks (all of them, or as many as fit),
 * consumers pop single items and bulks until the queue is closed and drained,
 * and it is closed at any time. Refusals may be spurious where the code gives up
 * waiting for a thread in mid-operation, which here may happen at once.
 *
 * Checked: position p is popped once and yields what was pushed at p (with the
 * order of the compare-and-swaps that is linearizability); nothing is pushed
 * after the close has returned; a pop that began after that and finds nothing
 * leaves nothing behind; refusals that are to be exact are.
 *
 * Memory is sequentially consistent here: the stores that hand a cell over are
 * two, the item and the stamp, which neither x86 nor release reorder.
 *
 * Must fail: BROKEN_STAMP_FIRST, where a push publishes before it has written;
 * BROKEN_STORE_INDEX, where the index is stored rather than exchanged;
 * BROKEN_NO_CLOSE_WAIT, where close does not wait for pushes under way;
 * BROKEN_ONE_STAMP, where laps are not told apart.
 */
#ifndef CELLS
#define CELLS 2
#endif
#ifndef PUSHES
#define PUSHES 1 /* Calls of each producer: an item or a bulk. */
#endif
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef BULK
#define BULK 2
#endif

#define POSITIONS 9
#define CLOSED    128

#ifdef BROKEN_ONE_STAMP
#define STAMPS 1
#else
#define STAMPS 2
#endif

byte filled[CELLS], emptied[CELLS];
byte item[CELLS];
byte tail, head;
byte pushed[POSITIONS]; /* What was pushed at each position. */
bool taken[POSITIONS];
bool close_returned;

#define TAIL     (tail & 127)
#define VALUE(i) (1 + id * 32 + calls * 4 + i)

#ifdef BROKEN_STORE_INDEX
#define may_advance(index, seen) true
#else
#define may_advance(index, seen) (index == seen)
#endif

#define STAMP(p)    (((p) / CELLS + 1) % STAMPS)
#define IS_FREE(p)  (emptied[(p) % CELLS] == ((p) / CELLS) % STAMPS)
#define HAS_ITEM(p) (filled[(p) % CELLS] == STAMP(p))

/* The cells from `position` on that are free, or hold items, up to `most`; one load each. */
inline count_free(position, most)
{
    run_length = 0;
    do
    :: run_length < most && IS_FREE(position + run_length) -> run_length++
    :: run_length < most && !IS_FREE(position + run_length) -> break
    :: run_length == most -> break
    od
}

inline count_items(position, most)
{
    run_length = 0;
    do
    :: run_length < most && HAS_ITEM(position + run_length) -> run_length++
    :: run_length < most && !HAS_ITEM(position + run_length) -> break
    :: run_length == most -> break
    od
}

proctype producer(byte id)
{
    byte calls, t, run_length, most, least, i, h;
    bool late;

    do
    :: calls < PUSHES ->
        calls++;
        atomic {
            if
            :: most = 1; least = 1
            :: most = BULK; least = BULK
            :: most = BULK; least = 1
            fi;
            late = close_returned
        };
        t = tail;
        do
        :: t >= CLOSED -> break
        :: t < CLOSED && least > CELLS -> break
        :: t < CLOSED && least <= CELLS ->
            count_free(t, most);
            if
            :: run_length >= least ->
                atomic {
                    if
                    :: may_advance(tail, t) ->
                        assert(!late && !close_returned);
                        tail = t + run_length;
                        i = 0;
                        do
                        :: i < run_length ->
                            pushed[t + i] = VALUE(i);
                            i++
                        :: else -> break
                        od;
                        i = 0;
                        goto publish
                    :: else -> t = tail
                    fi
                }
            :: else ->
                i = t;
                t = tail;
                if
                :: t != i -> i = 0
                :: else ->
                    i = 0;
                    atomic {
                        h = head;
                        if
                        :: t + least - 1 - h >= CELLS && h <= t + least - 1 ->
                            assert(TAIL + least - head > CELLS);
                            h = 0;
                            break
                        :: else -> h = 0
                        fi
                    };
                    if
                    :: skip      /* Look again. */
                    :: break     /* Refused. */
                    fi
                fi
            fi
        od;
        goto next;
publish:
        do
        :: i < run_length ->
#ifdef BROKEN_STAMP_FIRST
            filled[(t + i) % CELLS] = STAMP(t + i);
            item[(t + i) % CELLS] = VALUE(i);
#else
            item[(t + i) % CELLS] = VALUE(i);
            filled[(t + i) % CELLS] = STAMP(t + i);
#endif
            i++
        :: else -> break
        od;
next:
        atomic { t = 0; i = 0; run_length = 0; most = 0; least = 0 }
    :: else -> break
    od
}

proctype consumer()
{
    byte h, t, run_length, most, i, value;
    bool closed_before;

    do
    ::  atomic {
            closed_before = close_returned;
            if
            :: most = 1
            :: most = BULK
            fi
        };
        h = head;
        do
        ::  count_items(h, most);
            if
            :: run_length > 0 ->
                atomic {
                    if
                    :: head == h -> head = h + run_length; break
                    :: else -> h = head
                    fi
                }
            :: else ->
                i = h;
                h = head;
                if
                :: h != i -> i = 0
                :: else ->
                    i = 0;
                    atomic {
                        t = TAIL;
                        if
                        :: t == h -> assert(head == TAIL); t = 0; goto nothing
                        :: else -> t = 0
                        fi
                    };
                    if
                    :: skip
                    :: goto nothing
                    fi
                fi
            fi
        od;
        i = 0;
        do
        :: i < run_length ->
            value = item[(h + i) % CELLS];
            d_step {
                assert(!taken[h + i]);
                assert(value == pushed[h + i]);
                taken[h + i] = true;
                value = 0
            };
            emptied[(h + i) % CELLS] = STAMP(h + i);
            i++
        :: else -> break
        od;
        goto again;
nothing:
        if
        :: closed_before -> assert(head == TAIL); goto done
        :: else -> close_returned || TAIL != head /* Sleep. */
        fi;
again:
        atomic { h = 0; i = 0; run_length = 0; closed_before = false }
    od;
done:
    skip
}

proctype closer()
{
    byte end, position;

    atomic { end = tail; tail = tail | CLOSED };
    position = head;
#ifndef BROKEN_NO_CLOSE_WAIT
    do
    :: position < end -> HAS_ITEM(position); position++
    :: else -> break
    od;
#endif
    close_returned = true
}

init {
    byte i;

    atomic {
        do
        :: i < PRODUCERS -> run producer(i); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < CONSUMERS -> run consumer(); i++
        :: else -> break
        od;
        i = 0;
        run closer()
    }
}
