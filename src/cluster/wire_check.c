/*
 * Checks of the prototype's payloads, driven by the field letters of
 * wire_kinds.def.
 *
 * Counts are believed only as far as bytes can follow them: an element is at
 * least MIN_... bytes long, so a count above what is left divided by that is
 * refused before the first element is looked at, and the work is linear in the
 * payload. There is no recursion: the deepest nesting, a map of sets, is two
 * loops, and the operations of a state sync have flat fields only.
 */
#include <bop/wire.h>

#include "wire_kinds.h"

/* The fewest bytes of an element: its own length or tag and what must follow. */
enum {
    MIN_BYTES = 4,     /* An empty string or byte string. */
    MIN_MAP_ENTRY = 8, /* An empty key with an empty set. */
    MIN_SYNC_OP = 5,   /* A tag with an empty name. */
};

/* The fields of each state-sync operation, by tag. */
static const char *const sync_operations[] = {
    [0] = "s",     /* MapCreated: map */
    [1] = "sbo",   /* MapUpdated: map, key, value; none is a deletion */
    [2] = "s",     /* MapDeleted: map */
    [3] = "s",     /* SetCreated: set */
    [4] = "sbB",   /* SetUpdated: set, value, added */
    [5] = "s",     /* SetDeleted: set */
    [6] = "s",     /* CounterCreated: counter */
    [7] = "si",    /* CounterUpdated: counter, value */
    [8] = "s",     /* CounterDeleted: counter */
    [9] = "s",     /* MultimapCreated: multimap */
    [10] = "sbbB", /* MultimapUpdated: multimap, key, value, added */
    [11] = "sb",   /* MultimapKeyCleared: multimap, key */
    [12] = "s",    /* MultimapDeleted: multimap */
    [13] = "s",    /* LockCreated: lock */
    [14] = "ss",   /* LockAcquired: lock, node */
    [15] = "ss",   /* LockReleased: lock, node */
    [16] = "s",    /* LockDeleted: lock */
    [17] = "s",    /* NodeJoined: node */
    [18] = "s",    /* NodeLeft: node */
    [19] = "sq",   /* NodeConnectionAdded: node, connection */
    [20] = "sq",   /* NodeConnectionRemoved: node, connection */
};

_Static_assert(BOP_COUNT_OF(sync_operations) == 21, "the prototype has 21 operations");

/* A count of elements of at least `element_min` bytes each; 0 when it cannot be true. */
static uint32_t read_count(struct bop_reader *reader, size_t element_min)
{
    uint32_t count = bop_read_u32(reader);

    if (count > bop_reader_left(reader) / element_min) {
        reader->failed = true;
        return 0;
    }
    return count;
}

static void check_list(struct bop_reader *reader, bool strings)
{
    uint32_t count = read_count(reader, MIN_BYTES);

    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        if (strings) {
            bop_read_string(reader);
        } else {
            bop_read_bytes(reader);
        }
    }
}

static void check_map(struct bop_reader *reader)
{
    uint32_t count = read_count(reader, MIN_MAP_ENTRY);

    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        bop_read_bytes(reader);
        check_list(reader, false);
    }
}

/* The fields that are not made of others. */
static void check_field(struct bop_reader *reader, char letter)
{
    switch (letter) {
    case 's':
        bop_read_string(reader);
        break;
    case 'b':
        bop_read_bytes(reader);
        break;
    case 'o':
        if (bop_read_bool(reader)) {
            bop_read_bytes(reader);
        }
        break;
    case 'O':
        if (bop_read_bool(reader)) {
            bop_read_u64(reader);
        }
        break;
    case 'c': /* OK is 0 and ERR is 1: the values of a bool. */
    case 'B':
        bop_read_bool(reader);
        break;
    case 'q':
    case 'i':
        bop_read_u64(reader);
        break;
    default:
        BOP_ASSERT(!"a field letter of the table is not known");
    }
}

static void check_sync_operations(struct bop_reader *reader)
{
    uint32_t count = read_count(reader, MIN_SYNC_OP);

    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        uint8_t tag = bop_read_u8(reader);

        if (tag >= BOP_COUNT_OF(sync_operations)) {
            reader->failed = true;
            return;
        }
        for (const char *letter = sync_operations[tag]; *letter; letter++) {
            check_field(reader, *letter);
        }
    }
}

int bop_wire_check(uint16_t kind, struct bop_slice payload)
{
    const struct wire_kind_info *info = bop__wire_kind(kind);
    struct bop_reader reader = bop_reader(payload);

    if (!info) {
        return BOP_EMALFORMED;
    }
    if (info->fields[0] == '*') {
        return 0;
    }
    for (const char *letter = info->fields; *letter && !reader.failed; letter++) {
        switch (*letter) {
        case 'S':
            check_list(&reader, true);
            break;
        case 'L':
            check_list(&reader, false);
            break;
        case 'M':
            check_map(&reader);
            break;
        case 'Y':
            check_sync_operations(&reader);
            break;
        default:
            check_field(&reader, *letter);
        }
    }
    return bop_reader_done(&reader) ? 0 : BOP_EMALFORMED;
}
