/*
 * The blocks of a lane and the map that finds them (lanes_block.c): the producer
 * puts blocks in and doubles the map, consumers claim items, look their block up
 * and count it done, and whoever completes a block takes it out and hands it to
 * the producer as a spare or frees it.
 *
 * A block holds one unit of two items; the map starts with one slot and doubles
 * to four. Consumers claim one item at a time.
 *
 * Checked: who has claimed an item finds the block of its unit, and reads its
 * item: the block is neither free nor in use for another unit; at the end every
 * item was read once, the map is empty, and no block is held but the spare.
 *
 * Memory is sequentially consistent: the four operations at the head of
 * lanes_block.c are seq_cst in the code, the others hand blocks over by release
 * and acquire.
 *
 * Must fail: BROKEN_NO_REREAD, where the producer does not look at the old map
 * again; BROKEN_NO_NEWER_MAP, where who takes out does not look for a newer one;
 * BROKEN_PLAIN_CLEAR, where a slot is cleared whatever is in it;
 * BROKEN_DONE_FIRST, where an item is counted before it is read;
 * BROKEN_SPARE_FIRST, where the block is handed on before its slot is cleared.
 */
#ifndef UNITS
#define UNITS 3
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#define BLOCKS (UNITS + 1)
#define MAPS   3 /* Of 1, 2 and 4 slots. */
#define NONE   15

typedef map_of {
    byte slot[4]
}

typedef block {
    bool live;
    byte base; /* Its unit. */
    byte done;
    byte item[2]
}

map_of maps[MAPS];
block blocks[BLOCKS];
byte map; /* The current one. */
byte spare = NONE;
byte head, tail;
bool seen[UNITS * 2];
byte running = CONSUMERS + 1;

#define slot_of(unit, m) ((unit) & ((1 << (m)) - 1))

proctype producer()
{
    byte unit, b, u, was;

    do
    :: unit < UNITS ->
        atomic { b = spare; spare = NONE };
        if
        :: b == NONE ->
            atomic {
                b = 0;
                do
                :: blocks[b].live -> b++
                :: else -> break
                od;
                blocks[b].live = true
            }
        :: else
        fi;
        blocks[b].base = unit;
        blocks[b].done = 0;
        do
        :: maps[map].slot[slot_of(unit, map)] == NONE -> break
        :: maps[map].slot[slot_of(unit, map)] != NONE -> /* Double the map. */
            assert(map + 1 < MAPS);
            was = map;
            u = (unit > (1 << was) -> unit - (1 << was) : 0);
            do
            :: u < unit ->
                maps[was + 1].slot[slot_of(u, was + 1)] = maps[was].slot[slot_of(u, was)];
                u++
            :: else -> break
            od;
            map = was + 1;
#ifndef BROKEN_NO_REREAD
            u = (unit > (1 << was) -> unit - (1 << was) : 0);
            do
            :: u < unit && maps[was].slot[slot_of(u, was)] == NONE ->
                maps[was + 1].slot[slot_of(u, was + 1)] = NONE;
                u++
            :: u < unit && maps[was].slot[slot_of(u, was)] != NONE -> u++
            :: u == unit -> break
            od;
#endif
            u = 0
        od;
        maps[map].slot[slot_of(unit, map)] = b;
        blocks[b].item[0] = 2 * unit;
        tail++;
        blocks[b].item[1] = 2 * unit + 1;
        tail++;
        unit++;
        b = 0
    :: else -> break
    od;
    running--
}

inline read_item()
{
    assert(blocks[b].live);
    d_step {
        assert(blocks[b].item[i & 1] == i && blocks[b].base == i / 2);
        assert(!seen[i]);
        seen[i] = true
    }
}

inline clear_slot(m)
{
#ifdef BROKEN_PLAIN_CLEAR
    maps[m].slot[slot_of(i / 2, m)] = NONE
#else
    atomic {
        if
        :: maps[m].slot[slot_of(i / 2, m)] == b -> maps[m].slot[slot_of(i / 2, m)] = NONE
        :: else
        fi
    }
#endif
}

inline hand_on()
{
    atomic {
        if
        :: spare == NONE -> spare = b
        :: else -> assert(blocks[b].live); blocks[b].live = false
        fi
    }
}

proctype consumer()
{
    byte i, b, m, newer;
    bool last;

    do
    :: head == 2 * UNITS -> break
    :: head < tail ->
        i = head;
        atomic {
            if
            :: head == i && i < tail -> head++
            :: else -> goto again
            fi
        };
        m = map;
        b = maps[m].slot[slot_of(i / 2, m)];
        assert(b != NONE);
#ifndef BROKEN_DONE_FIRST
        read_item();
#endif
        atomic {
            assert(blocks[b].live);
            blocks[b].done++;
            last = (blocks[b].done == 2)
        };
        if
        :: last ->
#ifdef BROKEN_SPARE_FIRST
            hand_on();
#endif
            m = map;
            do
            ::  clear_slot(m);
#ifdef BROKEN_NO_NEWER_MAP
                break;
#endif
                newer = map;
                if
                :: newer == m -> break
                :: else -> m = newer
                fi
            od;
#ifndef BROKEN_SPARE_FIRST
            hand_on();
#endif
            newer = 0
        :: else
        fi;
#ifdef BROKEN_DONE_FIRST
        read_item();
#endif
again:
        atomic { i = 0; b = 0; m = 0; last = false }
    od;
    running--
}

init {
    byte i, m;

    atomic {
        m = 0;
        do
        :: m < MAPS ->
            i = 0;
            do
            :: i < 4 -> maps[m].slot[i] = NONE; i++
            :: else -> break
            od;
            m++
        :: else -> break
        od;
        run producer();
        i = 0;
        do
        :: i < CONSUMERS -> run consumer(); i++
        :: else -> break
        od;
        i = 0;
        m = 0
    };
    running == 0;
    d_step {
        do
        :: i < 2 * UNITS -> assert(seen[i]); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < 4 -> assert(maps[map].slot[i] == NONE); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < BLOCKS -> assert(!blocks[i].live || i == spare); i++
        :: else -> break
        od
    }
}
