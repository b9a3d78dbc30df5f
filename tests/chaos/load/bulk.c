/*
 * Values that are large or many, to fill disks and memory and to give snapshots weight. Nothing
 * of it is written down.
 */
#include <string.h>

#include "load.h"

#define KEYS_MAX 4096

size_t load_bulk_bytes = 4096;
size_t load_bulk_state = 256u * 1024 * 1024;

static void stored(void *user, int code, const struct bop_result *result)
{
    load_end(user, code, NULL, 0);
}

static bool next(struct slot *slot)
{
    size_t keys = bop_min_u64(KEYS_MAX, 1 + load_bulk_state / load_bulk_bytes);
    uint32_t key = load_below((unsigned)keys);

    slot->silent = true;
    bop_buf_clear(&slot->buf);
    while (slot->buf.size < load_bulk_bytes) {
        uint64_t noise = bop_random_next(&load_random);

        if (bop_buf_append(&slot->buf, &noise, sizeof(noise)) != 0) {
            return false;
        }
    }
    load_begin(slot, CHAOS_REG_PUT, "bulk");
    return load_refused(slot, bop_client_map_put(slot->client, bop_slice_cstr("chaos-bulk"),
                                                 bop_slice(&key, sizeof(key)),
                                                 bop_buf_slice(&slot->buf), NULL, stored, slot));
}

const struct workload load_bulk = {.name = "bulk", .weight = 2, .next = next};
