/*
 * Lines of kv_text.h, into a transaction.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kv_flags.h"
#include "kv_text.h"
#include "ndjson.h"

void kv_reader_init(struct kv_reader *reader)
{
    *reader = (struct kv_reader){0};
    bop_buf_init(&reader->key, NULL, 0);
    bop_buf_init(&reader->value, NULL, 0);
}

void kv_reader_deinit(struct kv_reader *reader)
{
    bop_buf_deinit(&reader->key);
    bop_buf_deinit(&reader->value);
}

static int bad(struct kv_reader *reader, const char *what)
{
    return bop_error_say(&reader->err, BOP_EMALFORMED, "%s", what);
}

/* A decimal number in a string. */
static bool number_of(const json_t *value, uint64_t *out_number)
{
    const char *text = json_string_value(value);
    char *end = NULL;

    if (!text || text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *out_number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static int load_sequence(struct kv_reader *reader, const json_t *object)
{
    uint64_t number, before;
    int rc = ndjson_get_bytes(object, "sequence", &reader->key, &reader->err);

    if (rc < 0 || !number_of(json_object_get(object, "number"), &number)) {
        return rc < 0 ? rc : bad(reader, "\"number\" is no number in a string");
    }
    rc = bop_buf_append(&reader->key, "", 1);
    if (rc < 0 || memchr(reader->key.data, 0, reader->key.size - 1)) {
        return rc < 0 ? rc : bad(reader, "\"sequence\" is no name");
    }
    return bop_kv_sequence(reader->txn, (const char *)reader->key.data, number, &before);
}

static int load_canary(struct kv_reader *reader, const json_t *numbers)
{
    struct bop_kv_canary canary;

    if (json_array_size(numbers) != 3 || !number_of(json_array_get(numbers, 0), &canary.x) ||
        !number_of(json_array_get(numbers, 1), &canary.y) ||
        !number_of(json_array_get(numbers, 2), &canary.z)) {
        return bad(reader, "\"canary\" is no array of three numbers in strings");
    }
    return bop_kv_canary_set(reader->txn, &canary);
}

static int load_table(struct kv_reader *reader, const json_t *object)
{
    const char *name = json_string_value(json_object_get(object, "table"));
    unsigned flags;

    if (!name || !kv_flags_from_json(json_object_get(object, "flags"), &flags)) {
        return bad(reader, name ? "\"flags\" has a word that is no kind of table"
                                : "\"table\" is no string");
    }
    reader->put_flags = flags & BOP_KV_DUP_SORT ? BOP_KV_APPEND_DUP : BOP_KV_APPEND;
    reader->in_table = true;
    return bop_kv_table_open_with(reader->txn, name, flags | BOP_KV_CREATE, &reader->table);
}

static int load_entry(struct kv_reader *reader, const json_t *object)
{
    int rc;

    if (!reader->in_table) {
        return bad(reader, "an entry before any table");
    }
    rc = ndjson_get_bytes(object, "key", &reader->key, &reader->err);
    if (rc == 0) {
        rc = ndjson_get_bytes(object, "value", &reader->value, &reader->err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = bop_kv_put_with(reader->txn, reader->table, bop_buf_slice(&reader->key),
                         bop_buf_slice(&reader->value), reader->put_flags, NULL);
    if (rc == BOP_EINVAL || rc == BOP_EEXISTS) { /* Not in order, as after an edit by hand. */
        rc = bop_kv_put(reader->txn, reader->table, bop_buf_slice(&reader->key),
                        bop_buf_slice(&reader->value));
    }
    reader->entries++;
    return rc;
}

static int load_object(struct kv_reader *reader, const json_t *object)
{
    if (!reader->headed) {
        reader->headed = json_integer_value(json_object_get(object, "bop-kv-dump")) == 1;
        return reader->headed ? 0 : bad(reader, "not written by `bop kv dump` in version 1");
    }
    if (json_object_get(object, "table")) {
        return load_table(reader, object);
    }
    if (json_object_get(object, "canary")) {
        return load_canary(reader, json_object_get(object, "canary"));
    }
    if (json_object_get(object, "sequence") || json_object_get(object, "sequence64")) {
        return load_sequence(reader, object);
    }
    return load_entry(reader, object);
}

int kv_read_line(struct kv_reader *reader, struct bop_slice line)
{
    json_error_t trouble;
    json_t *object = json_loadb((const char *)line.data, line.size,
                                JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &trouble);
    int rc;

    if (!json_is_object(object)) {
        rc = bad(reader, object ? "no JSON object" : trouble.text);
    } else {
        rc = load_object(reader, object);
    }
    json_decref(object);
    return rc;
}

int kv_read_end(struct kv_reader *reader)
{
    return reader->headed ? 0 : bad(reader, "the file is empty");
}
