/*
 * A store as lines of kv_text.h.
 */
#include <string.h>

#include "kv_flags.h"
#include "kv_text.h"
#include "ndjson.h"

void kv_writer_init(struct kv_writer *writer)
{
    *writer = (struct kv_writer){0};
    bop_buf_init(&writer->text, NULL, 0);
}

void kv_writer_deinit(struct kv_writer *writer)
{
    bop_buf_deinit(&writer->text);
}

/* Write an object as a line and let go of it. */
static int put_line(struct kv_writer *writer, json_t *object)
{
    int rc = object ? ndjson_write_object(&writer->text, object) : BOP_ENOMEM;

    json_decref(object);
    return rc;
}

static int dump_entry(void *context, struct bop_slice key, struct bop_slice value)
{
    struct kv_writer *writer = context;
    int rc = ndjson_write(&writer->text, key, value);

    if (rc < 0) {
        return rc;
    }
    writer->entries++;
    return writer->flush(writer->user, false);
}

static int dump_table(void *context, const char *name, struct bop_kv_table table)
{
    struct kv_writer *writer = context;
    struct bop_kv_table_stat stat;
    int rc;

    if (writer->table && strcmp(writer->table, name) != 0) {
        return 0;
    }
    writer->table_seen = true;
    rc = bop_kv_table_stat(writer->txn, table, &stat);
    if (rc == 0) {
        rc = put_line(writer,
                      json_pack("{s:s,s:o}", "table", name, "flags", kv_flags_to_json(stat.flags)));
    }
    return rc < 0 ? rc
                  : bop_kv_scan(writer->txn, table, BOP_KV_FIRST, bop_slice(NULL, 0), BOP_KV_NEXT,
                                dump_entry, writer);
}

static int dump_sequence(void *context, const char *name, uint64_t number)
{
    struct kv_writer *writer = context;
    json_t *object = json_object();
    int rc = object ? ndjson_set_bytes(object, "sequence", bop_slice_cstr(name)) : BOP_ENOMEM;

    if (rc == 0 && json_object_set_new(object, "number", kv_number_text(number)) < 0) {
        rc = BOP_ENOMEM;
    }
    if (rc < 0) {
        json_decref(object);
        return rc;
    }
    return put_line(writer, object);
}

static int dump_canary(struct kv_writer *writer)
{
    struct bop_kv_canary canary;
    int rc = bop_kv_canary_get(writer->txn, &canary);

    if (rc < 0 || canary.version == 0) {
        return rc;
    }
    return put_line(writer, json_pack("{s:[o,o,o]}", "canary", kv_number_text(canary.x),
                                      kv_number_text(canary.y), kv_number_text(canary.z)));
}

int kv_write(struct kv_writer *writer)
{
    int rc = put_line(writer, json_pack("{s:i}", "bop-kv-dump", 1));

    if (rc == 0 && !writer->table) {
        rc = bop_kv_sequences(writer->txn, dump_sequence, writer);
    }
    if (rc == 0 && !writer->table) {
        rc = dump_canary(writer);
    }
    if (rc == 0) {
        rc = bop_kv_tables(writer->txn, dump_table, writer);
    }
    return rc < 0 ? rc : writer->flush(writer->user, true);
}
