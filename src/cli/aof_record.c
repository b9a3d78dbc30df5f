/*
 * A log's records in files.
 */
#include "aof_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bop/crc32c.h>

#include "ndjson.h"

#define READ_BYTES (256u * 1024)
/* A line in which JSON takes six bytes for each of the longest payload. */
#define LINE_MAX_BYTES ((size_t)6 * BOP_AOF_RECORD_MAX + 4096)

const char aof_record_magic[8] = {'B', 'O', 'P', 'A', 'O', 'F', 'X', '1'};

/* ---- Writing ---- */

static int set_number(json_t *object, const char *name, uint64_t number)
{
    char text[24];
    json_t *value;

    snprintf(text, sizeof(text), "%" PRIu64, number);
    value = number <= INT64_MAX ? json_integer((json_int_t)number) : json_string(text);
    return json_object_set_new(object, name, value) < 0 ? BOP_ENOMEM : 0;
}

static int write_line(struct bop_buf *out, const struct bop_aof_view *view)
{
    json_t *object = json_object();
    int rc = object ? set_number(object, "seq", view->seq) : BOP_ENOMEM;

    if (rc == 0) {
        rc = set_number(object, "tag", view->tag);
    }
    if (rc == 0) {
        rc = set_number(object, "time_us", view->time_us);
    }
    if (rc == 0) {
        rc = ndjson_set_bytes(object, "payload", view->payload);
    }
    if (rc == 0) {
        rc = ndjson_write_object(out, object);
    }
    json_decref(object);
    return rc;
}

static uint32_t record_crc(const uint8_t *head, struct bop_slice payload)
{
    return bop_crc32c(bop_crc32c(0, head, AOF_RECORD_HEAD - 4), payload.data, payload.size);
}

static int write_raw(struct bop_buf *out, const struct bop_aof_view *view)
{
    uint8_t head[AOF_RECORD_HEAD];
    int rc;

    bop_store_u64(head, view->seq);
    bop_store_u64(head + 8, view->tag);
    bop_store_u64(head + 16, view->time_us);
    bop_store_u32(head + 24, (uint32_t)view->payload.size);
    bop_store_u32(head + 28, record_crc(head, view->payload));
    rc = bop_buf_append(out, head, sizeof(head));
    return rc < 0 ? rc : bop_buf_append(out, view->payload.data, view->payload.size);
}

int aof_record_write(struct bop_buf *out, const struct bop_aof_view *view, bool raw)
{
    return raw ? write_raw(out, view) : write_line(out, view);
}

/* ---- Reading ---- */

void aof_records_init(struct aof_records *records, int fd)
{
    *records = (struct aof_records){.fd = fd};
    lines_init(&records->lines, fd, LINE_MAX_BYTES);
    records->lines.patient = true;
    bop_buf_init(&records->held, NULL, 0);
    bop_buf_init(&records->payload, NULL, 0);
}

void aof_records_deinit(struct aof_records *records)
{
    lines_deinit(&records->lines);
    bop_buf_deinit(&records->held);
    bop_buf_deinit(&records->payload);
}

/* Have `least` bytes held behind `at`, if there are so many. */
static int fill(struct aof_records *records, size_t least)
{
    while (records->held.size - records->at < least && !records->at_end) {
        ssize_t size;
        int rc;

        bop_buf_consume(&records->held, records->at);
        records->at = 0;
        rc = bop_buf_reserve(&records->held, READ_BYTES);
        if (rc < 0) {
            return rc;
        }
        size = read(records->fd, records->held.data + records->held.size, READ_BYTES);
        if (size < 0 && errno != EINTR) {
            return -errno;
        }
        records->held.size += size > 0 ? (size_t)size : 0;
        records->at_end = size == 0;
    }
    return 0;
}

/* Which form it is: what was read to see that is the lines' if it is text. */
static int begin(struct aof_records *records, struct bop_error *err)
{
    int rc = fill(records, sizeof(aof_record_magic));

    if (rc < 0) {
        return bop_error_set(err, rc, "read it");
    }
    records->begun = true;
    records->raw = records->held.size >= sizeof(aof_record_magic) &&
                   memcmp(records->held.data, aof_record_magic, sizeof(aof_record_magic)) == 0;
    if (records->raw) {
        records->at = sizeof(aof_record_magic);
        return 0;
    }
    rc = bop_buf_append(&records->lines.buf, records->held.data, records->held.size);
    records->lines.at_end = records->at_end;
    return rc < 0 ? bop_error_set(err, rc, "read it") : 0;
}

static int next_raw(struct aof_records *records, struct bop_aof_record *out_record,
                    uint64_t *out_seq, struct bop_error *err)
{
    int rc = fill(records, AOF_RECORD_HEAD);
    const uint8_t *head = records->held.data + records->at;
    size_t size;

    if (rc < 0) {
        return bop_error_set(err, rc, "read it");
    }
    if (records->held.size == records->at) {
        return 0;
    }
    records->number++;
    size = records->held.size - records->at < AOF_RECORD_HEAD ? SIZE_MAX : bop_load_u32(head + 24);
    if (size > BOP_AOF_RECORD_MAX) {
        return bop_error_say(err, BOP_EMALFORMED, "record %" PRIu64 " of the file is damaged",
                             records->number);
    }
    rc = fill(records, AOF_RECORD_HEAD + size);
    if (rc < 0) {
        return bop_error_set(err, rc, "read it");
    }
    head = records->held.data + records->at;
    out_record->body = bop_slice(head + AOF_RECORD_HEAD, size);
    if (records->held.size - records->at < AOF_RECORD_HEAD + size ||
        bop_load_u32(head + 28) != record_crc(head, out_record->body)) {
        return bop_error_say(err, BOP_EMALFORMED, "record %" PRIu64 " of the file is damaged",
                             records->number);
    }
    *out_seq = bop_load_u64(head);
    out_record->tag = bop_load_u64(head + 8);
    out_record->time_us = bop_load_u64(head + 16);
    records->at += AOF_RECORD_HEAD + size;
    return 1;
}

/* A number, as such or as text; one that is not there is 0. */
static bool get_number(const json_t *object, const char *name, uint64_t *out_number)
{
    const json_t *value = json_object_get(object, name);
    const char *text = json_string_value(value);
    char *end = NULL;

    *out_number = 0;
    if (json_is_integer(value)) {
        *out_number = (uint64_t)json_integer_value(value);
        return json_integer_value(value) >= 0;
    }
    if (text && text[0] >= '0' && text[0] <= '9') {
        errno = 0;
        *out_number = strtoull(text, &end, 10);
        return errno == 0 && *end == '\0';
    }
    return !value;
}

static int take_object(struct aof_records *records, const json_t *object,
                       struct bop_aof_record *out_record, uint64_t *out_seq, struct bop_error *err)
{
    int rc;

    if (!get_number(object, "seq", out_seq) || !get_number(object, "tag", &out_record->tag) ||
        !get_number(object, "time_us", &out_record->time_us)) {
        return bop_error_say(err, BOP_EMALFORMED,
                             "\"seq\", \"tag\" and \"time_us\" are whole numbers");
    }
    rc = ndjson_get_bytes(object, "payload", &records->payload, err);
    out_record->body = bop_buf_slice(&records->payload);
    return rc;
}

static int next_line(struct aof_records *records, struct bop_aof_record *out_record,
                     uint64_t *out_seq, struct bop_error *err)
{
    struct bop_error why = {0};
    struct bop_slice line;
    json_error_t trouble;
    json_t *object;
    int rc;

    do {
        rc = lines_next(&records->lines, &line);
    } while (rc == BOP_EAGAIN);
    if (rc <= 0) {
        return rc == 0 ? 0 : bop_error_set(err, rc, "line %" PRIu64, records->number + 1);
    }
    records->number++;
    object = json_loadb((const char *)line.data, line.size, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES,
                        &trouble);
    rc = json_is_object(object)
             ? take_object(records, object, out_record, out_seq, &why)
             : bop_error_say(&why, BOP_EMALFORMED, "%s", object ? "no JSON object" : trouble.text);
    json_decref(object);
    return rc == 0 ? 1
                   : bop_error_say(err, rc, "line %" PRIu64 ": %s", records->number, why.message);
}

int aof_records_next(struct aof_records *records, struct bop_aof_record *out_record,
                     uint64_t *out_seq, struct bop_error *err)
{
    int rc = records->begun ? 0 : begin(records, err);

    *out_record = (struct bop_aof_record){0};
    *out_seq = 0;
    if (rc < 0) {
        return rc;
    }
    return records->raw ? next_raw(records, out_record, out_seq, err)
                        : next_line(records, out_record, out_seq, err);
}
