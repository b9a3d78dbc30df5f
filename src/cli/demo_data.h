/*
 * What the demo writes, and whether a node has just that.
 */
#ifndef BOP_CLI_DEMO_DATA_H
#define BOP_CLI_DEMO_DATA_H

#include <bop/error.h>
#include <bop/slice.h>

#define DEMO_KEY_MAX 64 /* Bytes of a generated key, NUL included. */

struct demo_entry {
    uint64_t at; /* In data->bytes: the key, then the value. */
    uint32_t key_size;
    uint32_t value_size;
    uint64_t version;    /* As acknowledged; 0: it was not yet. */
    uint32_t latency_us; /* From asking to that. */
};

/** The entries in the order in which they are written. Zeroed is empty; init before use. */
struct demo_data {
    struct bop_buf bytes;
    struct demo_entry *entries;
    size_t count;
    size_t capacity;
    uint32_t *sorted; /* Positions in entries, ascending by key; made by demo_data_finish(). */
};

void demo_data_init(struct demo_data *data);
void demo_data_deinit(struct demo_data *data);

/** Returns 0 or BOP_ENOMEM, or BOP_ETOOBIG for what no map takes. */
BOP_MUST_USE int demo_data_add(struct demo_data *data, struct bop_slice key,
                               struct bop_slice value);

/** Add the packages of a file. Returns how many, or a code with err set. */
BOP_MUST_USE int demo_data_add_packages(struct demo_data *data, const char *path,
                                        struct bop_error *err);

/**
 * Add count entries, the same ones each time: made-up words, no two alike and none
 * that a package could have, with values of 100 to 200 bytes.
 */
BOP_MUST_USE int demo_data_generate(struct demo_data *data, uint64_t count);

/** The key of the generated entry of this number, below 100,000,000. */
void demo_data_word(uint64_t number, char out_key[DEMO_KEY_MAX]);

/** Sort. Of entries with one key only the last stays. Nothing can be added afterwards. */
BOP_MUST_USE int demo_data_finish(struct demo_data *data);

struct bop_slice demo_data_key(const struct demo_data *data, size_t i);
struct bop_slice demo_data_value(const struct demo_data *data, size_t i);

/* ---- Comparing ---- */

/** What differs between what was written and what a node has. */
struct demo_check {
    const struct demo_data *data;
    uint8_t *seen; /* One for each entry of data. */
    uint64_t found;
    uint64_t lost;      /* Acknowledged, but not there. Counted by demo_check_end(). */
    uint64_t different; /* There with another value. */
    uint64_t doubled;   /* There in another version than was acknowledged: written twice. */
    uint64_t repeated;  /* A key given more than once. */
    uint64_t unknown;   /* Nobody wrote that. */
};

BOP_MUST_USE int demo_check_begin(struct demo_check *check, const struct demo_data *data);
void demo_check_entry(struct demo_check *check, struct bop_slice key, struct bop_slice value,
                      uint64_t version);
/** Count what is missing and free what begin made; the counts stay. */
void demo_check_end(struct demo_check *check);

/** True if the node has each acknowledged entry as written, once, and nothing else. */
bool demo_check_good(const struct demo_check *check);

#endif
