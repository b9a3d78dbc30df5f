/*
 * The demo's entries lie one behind the other in one buffer; a second, sorted list
 * of their positions finds one by its key.
 */
#include "demo_data.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <bop/random.h>
#include <bop/wire.h>

#include "source.h"

#define CAPACITY_FIRST 1024
#define WORD_SYLLABLES 4
#define SYLLABLES      100                 /* 20 consonants, 5 vowels. */
#define WORDS          UINT64_C(100000000) /* 100 to the power of 4. */
#define WORDS_STRIDE   UINT64_C(38196607)  /* Prime to WORDS: each number gives its own word. */
#define VALUE_MIN      100
#define VALUE_MAX      200
#define SEED           1

void demo_data_init(struct demo_data *data)
{
    *data = (struct demo_data){.count = 0};
    bop_buf_init(&data->bytes, NULL, 0);
}

void demo_data_deinit(struct demo_data *data)
{
    bop_buf_deinit(&data->bytes);
    free(data->entries);
    free(data->sorted);
    *data = (struct demo_data){.count = 0};
}

struct bop_slice demo_data_key(const struct demo_data *data, size_t i)
{
    return bop_slice(data->bytes.data + data->entries[i].at, data->entries[i].key_size);
}

struct bop_slice demo_data_value(const struct demo_data *data, size_t i)
{
    return bop_slice(data->bytes.data + data->entries[i].at + data->entries[i].key_size,
                     data->entries[i].value_size);
}

/* ---- Making ---- */

static int grow(struct demo_data *data)
{
    size_t capacity = data->capacity ? data->capacity * 2 : CAPACITY_FIRST;
    struct demo_entry *entries = reallocarray(data->entries, capacity, sizeof(*entries));

    if (!entries) {
        return BOP_ENOMEM;
    }
    data->entries = entries;
    data->capacity = capacity;
    return 0;
}

int demo_data_add(struct demo_data *data, struct bop_slice key, struct bop_slice value)
{
    uint64_t at = data->bytes.size;
    int rc;

    if (key.size > BOP_KEY_MAX || value.size > BOP_VALUE_MAX) {
        return BOP_ETOOBIG;
    }
    if (data->count == data->capacity && grow(data) < 0) {
        return BOP_ENOMEM;
    }
    rc = bop_buf_reserve(&data->bytes, key.size + value.size);
    if (rc == 0) {
        rc = bop_buf_append(&data->bytes, key.data, key.size);
    }
    if (rc == 0) {
        rc = bop_buf_append(&data->bytes, value.data, value.size);
    }
    if (rc < 0) {
        return rc;
    }
    data->entries[data->count++] = (struct demo_entry){
        .at = at, .key_size = (uint32_t)key.size, .value_size = (uint32_t)value.size};
    return 0;
}

int demo_data_add_packages(struct demo_data *data, const char *path, struct bop_error *err)
{
    struct source source;
    size_t before = data->count;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 ? bop_error_set(err, -errno, "open %s", path) : 1;

    if (fd < 0) {
        return rc;
    }
    source_init(&source, fd, true);
    while (rc == 1) {
        rc = source_next(&source, err);
        if (rc < 0) {
            bop_error_wrap(err, "%s", path);
        } else if (rc == 1 && demo_data_add(data, bop_buf_slice(&source.key),
                                            bop_buf_slice(&source.value)) < 0) {
            rc = bop_error_set(err, BOP_ENOMEM, "read %s", path);
        }
    }
    source_deinit(&source);
    close(fd);
    return rc < 0 ? rc : (int)(data->count - before);
}

void demo_data_word(uint64_t number, char out_key[DEMO_KEY_MAX])
{
    static const char consonants[] = "bcdfghjklmnpqrstvwxz", vowels[] = "aeiou";
    uint64_t code = number * WORDS_STRIDE % WORDS;
    /* No package has a slash in its name. */
    int used = snprintf(out_key, DEMO_KEY_MAX, "word/");

    for (int i = 0; i < WORD_SYLLABLES; i++) {
        out_key[used++] = consonants[code % SYLLABLES / 5];
        out_key[used++] = vowels[code % 5];
        code /= SYLLABLES;
    }
    out_key[used] = '\0';
}

int demo_data_generate(struct demo_data *data, uint64_t count)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz     .";
    struct bop_random random;
    char key[DEMO_KEY_MAX], value[VALUE_MAX];
    int rc = 0;

    bop_random_seed(&random, SEED);
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        size_t size = VALUE_MIN + (size_t)bop_random_below(&random, VALUE_MAX - VALUE_MIN + 1);

        for (size_t j = 0; j < size; j++) {
            value[j] = letters[bop_random_next(&random) % (sizeof(letters) - 1)];
        }
        demo_data_word(i, key);
        rc = demo_data_add(data, bop_slice_cstr(key), bop_slice(value, size));
    }
    return rc;
}

/* ---- Sorting ---- */

static int compare_entries(const void *a, const void *b, void *user)
{
    const struct demo_data *data = (const struct demo_data *)user;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    int order = bop_slice_compare(demo_data_key(data, i), demo_data_key(data, j));

    return order ? order : i < j ? -1 : i > j;
}

static void sort(struct demo_data *data)
{
    for (size_t i = 0; i < data->count; i++) {
        data->sorted[i] = (uint32_t)i;
    }
    qsort_r(data->sorted, data->count, sizeof(*data->sorted), compare_entries, data);
}

/* Drop all but the last of each key. Returns whether there was such a thing. */
static bool drop_overwritten(struct demo_data *data)
{
    size_t kept = 0;

    for (size_t i = 0; i + 1 < data->count; i++) {
        if (bop_slice_equal(demo_data_key(data, data->sorted[i]),
                            demo_data_key(data, data->sorted[i + 1]))) {
            data->entries[data->sorted[i]].at = UINT64_MAX;
        }
    }
    for (size_t i = 0; i < data->count; i++) {
        if (data->entries[i].at != UINT64_MAX) {
            data->entries[kept++] = data->entries[i];
        }
    }
    if (kept == data->count) {
        return false;
    }
    data->count = kept;
    return true;
}

int demo_data_finish(struct demo_data *data)
{
    data->sorted = reallocarray(NULL, data->count + 1, sizeof(*data->sorted));
    if (!data->sorted) {
        return BOP_ENOMEM;
    }
    sort(data);
    if (drop_overwritten(data)) {
        sort(data);
    }
    return 0;
}

/* ---- Comparing ---- */

/* The position of the entry with this key; data->count if there is none. */
static size_t find(const struct demo_data *data, struct bop_slice key)
{
    size_t low = 0, high = data->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = bop_slice_compare(demo_data_key(data, data->sorted[middle]), key);

        if (order == 0) {
            return data->sorted[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return data->count;
}

int demo_check_begin(struct demo_check *check, const struct demo_data *data)
{
    *check = (struct demo_check){.data = data, .seen = calloc(data->count + 1, 1)};
    return check->seen ? 0 : BOP_ENOMEM;
}

void demo_check_entry(struct demo_check *check, struct bop_slice key, struct bop_slice value,
                      uint64_t version)
{
    size_t i = find(check->data, key);

    if (i == check->data->count) {
        check->unknown++;
        return;
    }
    if (check->seen[i]) {
        check->repeated++;
        return;
    }
    check->seen[i] = 1;
    check->found++;
    if (!bop_slice_equal(value, demo_data_value(check->data, i))) {
        check->different++;
    }
    if (check->data->entries[i].version != 0 && version != check->data->entries[i].version) {
        check->doubled++;
    }
}

void demo_check_end(struct demo_check *check)
{
    for (size_t i = 0; i < check->data->count; i++) {
        check->lost += !check->seen[i] && check->data->entries[i].version != 0;
    }
    free(check->seen);
    check->seen = NULL;
}

bool demo_check_good(const struct demo_check *check)
{
    return check->lost + check->different + check->doubled + check->repeated + check->unknown == 0;
}
