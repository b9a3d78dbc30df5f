/*
 * Lists: the value of a key is a list of numbers, and an append is a put of the longer list if the
 * version is still the one that was read.
 */
#include <string.h>

#include "load.h"

#define LISTS    2
#define USES_MAX 300 /* A read and an append each are one. */
#define MAP      bop_slice_cstr("chaos-lists")

static struct load_generation lists[LISTS];

static void appended(void *user, int code, const struct bop_result *result)
{
    load_end(user, code, NULL, 0);
}

/* Append to what was read, which is in slot->buf; its version 0 says that there is none. */
static bool append(struct slot *slot)
{
    int64_t element = load_unique();
    struct bop_client_if only_if = {
        .condition = slot->version == 0 ? BOP_IF_ABSENT : BOP_IF_VERSION, .version = slot->version};
    char name[LOAD_OBJECT_MAX];

    memcpy(name, slot->object, sizeof(name));
    if (bop_buf_append(&slot->buf, &element, sizeof(element)) != 0) {
        return false;
    }
    slot->phase = 0;
    load_begin(slot, CHAOS_LIST_APPEND, name);
    load_asks(slot, element);
    return load_refused(slot,
                        bop_client_map_put(slot->client, MAP, bop_slice_cstr(name),
                                           bop_buf_slice(&slot->buf), &only_if, appended, slot));
}

static void got(void *user, int code, const struct bop_result *result)
{
    static const int64_t strange = -1; /* Nobody has appended it. */
    struct slot *slot = user;
    const int64_t *elements = NULL;
    size_t count = 0;

    if (code == 0 && !load_numbers_of(result->value, &elements, &count)) {
        elements = &strange;
        count = 1;
    }
    slot->version = code == 0 ? result->version : 0;
    code = code == BOP_ENOTFOUND ? 0 : code;
    bop_buf_clear(&slot->buf);
    slot->phase = code == 0 && bop_buf_append(&slot->buf, elements, count * sizeof(*elements)) == 0;
    load_end(slot, code, elements, count);
}

static bool get_it(struct slot *slot, const char *name)
{
    load_begin(slot, CHAOS_LIST_GET, name);
    return load_refused(slot, bop_client_map_get(slot->client, MAP, bop_slice_cstr(name),
                                                 BOP_READ_LINEARIZABLE, got, slot));
}

static bool next(struct slot *slot)
{
    char name[LOAD_OBJECT_MAX];

    if (slot->phase != 0) {
        return append(slot);
    }
    slot->object_index = load_below(LISTS);
    load_use(&lists[slot->object_index], 'l', slot->object_index, USES_MAX, name);
    return get_it(slot, name);
}

static bool final(struct slot *slot, size_t step)
{
    char name[LOAD_OBJECT_MAX];

    if (!load_nth(lists, LISTS, 'l', step, name)) {
        return false;
    }
    get_it(slot, name);
    return true;
}

const struct workload load_list = {.name = "list", .weight = 1, .next = next, .final = final};
