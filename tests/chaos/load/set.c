/*
 * A set that is only added to; members are looked for by others soon after.
 */
#include <string.h>

#include "load.h"

#define USES_MAX 2000
#define RECENT   16

static struct load_generation sets[1];
static int64_t recent[RECENT]; /* Members asked for lately, of the generation there is. */
static unsigned recent_count;

static void added(void *user, int code, const struct bop_result *result)
{
    load_end(user, code, &(int64_t){result->existed}, 1);
}

static bool add(struct slot *slot, const char *name)
{
    int64_t member = load_unique();

    recent[recent_count++ % RECENT] = member;
    load_begin(slot, CHAOS_SET_ADD, name);
    load_asks(slot, member);
    return load_refused(slot, bop_client_set_add(slot->client, bop_slice_cstr(name),
                                                 load_bytes_of(&member), added, slot));
}

static bool look(struct slot *slot, const char *name)
{
    int64_t member = recent[load_below(recent_count < RECENT ? recent_count : RECENT)];

    load_begin(slot, CHAOS_SET_HAS, name);
    load_asks(slot, member);
    return load_refused(slot, bop_client_set_contains(slot->client, bop_slice_cstr(name),
                                                      load_bytes_of(&member), BOP_READ_LINEARIZABLE,
                                                      added, slot));
}

static bool next(struct slot *slot)
{
    char name[LOAD_OBJECT_MAX];
    unsigned before = sets[0].number;

    load_use(&sets[0], 's', 0, USES_MAX, name);
    if (sets[0].number != before) {
        recent_count = 0;
    }
    return recent_count == 0 || load_below(3) != 0 ? add(slot, name) : look(slot, name);
}

/* ---- All members, page by page ---- */

static void page(void *user, int code, const struct bop_result *result);

static int ask_for_page(struct slot *slot, struct bop_slice cursor)
{
    return bop_client_set_scan(slot->client, bop_slice_cstr(slot->object), cursor, 0,
                               BOP_READ_LINEARIZABLE, page, slot);
}

static void page(void *user, int code, const struct bop_result *result)
{
    struct slot *slot = user;
    struct bop_slice entries = result->entries;
    struct bop_scan_entry entry;

    while (code == 0 && bop_scan_next(&entries, &entry)) {
        int64_t member = -1; /* Nobody has added such bytes. */

        if (entry.key.size == sizeof(member)) {
            memcpy(&member, entry.key.data, sizeof(member));
        }
        if (bop_buf_append(&slot->buf, &member, sizeof(member)) != 0) {
            code = BOP_ENOMEM;
        }
    }
    if (code != 0 || result->cursor.size == 0) {
        load_end(slot, code, (const int64_t *)slot->buf.data, slot->buf.size / sizeof(int64_t));
    } else if (ask_for_page(slot, result->cursor) != 0) {
        load_end(slot, BOP_EFULL, NULL, 0);
    }
}

static bool final(struct slot *slot, size_t step)
{
    char name[LOAD_OBJECT_MAX];

    if (!load_nth(sets, 1, 's', step, name)) {
        return false;
    }
    bop_buf_clear(&slot->buf);
    load_begin(slot, CHAOS_SET_ALL, name);
    (void)load_refused(slot, ask_for_page(slot, bop_slice(NULL, 0)));
    return true;
}

const struct workload load_set = {.name = "set", .weight = 1, .next = next, .final = final};
