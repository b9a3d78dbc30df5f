/*
 * Puts for those who watch: a map of a few keys. The watchers are watcher.py's.
 */
#include <string.h>

#include "load.h"

#define KEYS 8
#define MAP  "chaos-watch"

static void stored(void *user, int code, const struct bop_result *result)
{
    load_end(user, code, &(int64_t){(int64_t)result->version}, 1);
}

static bool next(struct slot *slot)
{
    int64_t key = 1 + (int64_t)load_below(KEYS), value = load_unique();

    load_begin(slot, CHAOS_WATCH_PUT, "watch");
    load_asks(slot, key);
    load_asks(slot, value);
    return load_refused(slot,
                        bop_client_map_put(slot->client, bop_slice_cstr(MAP), load_bytes_of(&key),
                                           load_bytes_of(&value), NULL, stored, slot));
}

static void scanned(void *user, int code, const struct bop_result *result)
{
    struct bop_slice entries = result->entries;
    int64_t numbers[3 * KEYS] = {0};
    struct bop_scan_entry entry;
    size_t count = 0;

    while (code == 0 && count + 3 <= 3 * KEYS && bop_scan_next(&entries, &entry)) {
        if (entry.key.size == sizeof(*numbers) && entry.value.size == sizeof(*numbers)) {
            memcpy(&numbers[count], entry.key.data, sizeof(*numbers));
            memcpy(&numbers[count + 1], entry.value.data, sizeof(*numbers));
            numbers[count + 2] = (int64_t)entry.version;
            count += 3;
        }
    }
    load_end(user, code, numbers, count);
}

static bool final(struct slot *slot, size_t step)
{
    if (step != 0) {
        return false;
    }
    load_begin(slot, CHAOS_WATCH_FINAL, "watch");
    (void)load_refused(slot,
                       bop_client_map_scan(slot->client, bop_slice_cstr(MAP), bop_slice(NULL, 0), 0,
                                           BOP_READ_LINEARIZABLE, scanned, slot));
    return true;
}

const struct workload load_watch = {.name = "watch", .weight = 1, .next = next, .final = final};
