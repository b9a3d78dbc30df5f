/*
 * Sequences and the canary: a table of our own, which the first change makes.
 *
 *      "canary"        x, y, z, version: u64 each
 *      "seq." + name   u64
 */
#include <string.h>

#include "kv.h"

#define CANARY_KEY        "canary"
#define CANARY_BYTES      32
#define SEQUENCE_PREFIX   "seq."
#define SEQUENCE_NAME_MAX 255

/* Get an entry of exactly `size` bytes; zeros if there is none. */
static int read_state(struct bop_kv_txn *txn, struct bop_slice key, uint8_t *out, size_t size)
{
    struct bop_kv_table table;
    struct bop_slice value;
    int rc = bop__kv_table_open(txn, KV_OWN_TABLE, false, true, 0, &table);

    if (rc == 0) {
        rc = bop_kv_get(txn, table, key, &value);
    }
    if (rc == 0 && value.size != size) {
        return bop__kv_refuse(BOP_ECORRUPT, "the store's own state");
    }
    if (rc == 0) {
        memcpy(out, value.data, size);
    } else if (rc == BOP_ENOTFOUND) {
        memset(out, 0, size);
        rc = 0;
    }
    return rc;
}

static int write_state(struct bop_kv_txn *txn, struct bop_slice key, const uint8_t *value,
                       size_t size)
{
    struct bop_kv_table table;
    int rc = bop__kv_table_open(txn, KV_OWN_TABLE, true, true, 0, &table);

    return rc ? rc : bop_kv_put(txn, table, key, bop_slice(value, size));
}

int bop_kv_sequence(struct bop_kv_txn *txn, const char *name, uint64_t add, uint64_t *out_before)
{
    char key[sizeof(SEQUENCE_PREFIX) + SEQUENCE_NAME_MAX] = SEQUENCE_PREFIX;
    const size_t prefix = sizeof(SEQUENCE_PREFIX) - 1;
    size_t size = strlen(name);
    uint8_t bytes[8];
    uint64_t before;
    int rc;

    if (size == 0 || size > SEQUENCE_NAME_MAX) {
        return bop__kv_refuse(BOP_EINVAL, "a sequence's name has 1 to 255 bytes");
    }
    memcpy(key + prefix, name, size);
    rc = read_state(txn, bop_slice(key, prefix + size), bytes, sizeof(bytes));
    if (rc < 0) {
        return rc;
    }
    before = bop_load_u64(bytes);
    if (before > UINT64_MAX - add) {
        return bop__kv_refuse(BOP_EOVERFLOW, "a sequence would overflow");
    }
    bop_store_u64(bytes, before + add);
    rc = add ? write_state(txn, bop_slice(key, prefix + size), bytes, sizeof(bytes)) : 0;
    if (rc == 0) {
        *out_before = before;
    }
    return rc;
}

struct sequences {
    bop_kv_sequence_fn *fn;
    void *context;
};

static int call_for_sequence(void *context, struct bop_slice key, struct bop_slice value)
{
    const struct sequences *sequences = context;
    const size_t prefix = sizeof(SEQUENCE_PREFIX) - 1;
    char name[SEQUENCE_NAME_MAX + 1];

    if (key.size <= prefix || key.size > prefix + SEQUENCE_NAME_MAX || value.size != 8 ||
        memcmp(key.data, SEQUENCE_PREFIX, prefix) != 0) {
        return 0; /* The canary. */
    }
    memcpy(name, key.data + prefix, key.size - prefix);
    name[key.size - prefix] = '\0';
    return sequences->fn(sequences->context, name, bop_load_u64(value.data));
}

int bop_kv_sequences(struct bop_kv_txn *txn, bop_kv_sequence_fn *fn, void *context)
{
    struct sequences sequences = {.fn = fn, .context = context};
    struct bop_kv_table table;
    int rc = bop__kv_table_open(txn, KV_OWN_TABLE, false, true, 0, &table);

    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    return bop_kv_scan(txn, table, BOP_KV_FIRST, bop_slice(NULL, 0), BOP_KV_NEXT, call_for_sequence,
                       &sequences);
}

int bop_kv_canary_get(struct bop_kv_txn *txn, struct bop_kv_canary *out)
{
    uint8_t bytes[CANARY_BYTES] = {0};
    int rc = read_state(txn, bop_slice_cstr(CANARY_KEY), bytes, sizeof(bytes));

    if (rc == 0) {
        *out = (struct bop_kv_canary){
            .x = bop_load_u64(bytes),
            .y = bop_load_u64(bytes + 8),
            .z = bop_load_u64(bytes + 16),
            .version = bop_load_u64(bytes + 24),
        };
    }
    return rc;
}

int bop_kv_canary_set(struct bop_kv_txn *txn, const struct bop_kv_canary *canary)
{
    uint8_t bytes[CANARY_BYTES] = {0};

    bop_store_u64(bytes, canary->x);
    bop_store_u64(bytes + 8, canary->y);
    bop_store_u64(bytes + 16, canary->z);
    bop_store_u64(bytes + 24, bop_kv_txn_id(txn));
    return write_state(txn, bop_slice_cstr(CANARY_KEY), bytes, sizeof(bytes));
}
