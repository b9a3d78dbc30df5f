/*
 * Fuzzes what the command line reads from files and pipes: entries, members and counters as
 * lines of JSON, package databases, a log's records in both forms, the lines of `bop txn`;
 * and the same entries as the HTTP API takes them.
 *
 * Properties: nothing reads outside and nothing leaks (the sanitizers' part); a refusal says
 * why; what is read, written and read again is the same; the command line and
 * the HTTP API understand a line alike; a transaction that is accepted is one that a node
 * takes, but for its size.
 *
 * The first byte says what the rest is.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "aof_record.h"
#include "http/http.h"
#include "ndjson.h"
#include "txn_words.h"

#include "fuzz_round_trip.h"

enum {
    MODE_ENTRIES,
    MODE_MEMBERS,
    MODE_COUNTERS,
    MODE_PACKAGES,
    MODE_RECORDS,
    MODE_RECORDS_REPAIRED,
    MODE_TRANSACTION,
    MODE_BYTES,
    MODES,
};

/* A file that holds just this. */
static int file_of(struct bop_slice bytes)
{
    static int fd = -1;

    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        require(fd >= 0);
    }
    require(ftruncate(fd, 0) == 0);
    require(lseek(fd, 0, SEEK_SET) == 0);
    require(write(fd, bytes.data, bytes.size) == (ssize_t)bytes.size);
    require(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static void require_sentence(int rc, const struct bop_error *err)
{
    require(rc < 0 && err->code == rc && err->message[0] != '\0');
}

/* ---- Entries ---- */

/* What was read, as a line of its own, is read as the same. */
static void entry_again(struct bop_slice key, struct bop_slice value)
{
    struct bop_buf line, again_key, again_value;

    bop_buf_init(&line, NULL, 0);
    bop_buf_init(&again_key, NULL, 0);
    bop_buf_init(&again_value, NULL, 0);
    require(ndjson_write(&line, key, value) == 0);
    require(ndjson_read(bop_buf_slice(&line), &again_key, &again_value, NULL) == 0);
    require(bop_slice_equal(bop_buf_slice(&again_key), key));
    require(bop_slice_equal(bop_buf_slice(&again_value), value));
    require(bop__http_parse_line(bop_buf_slice(&line), &again_key, &again_value) == 0);
    require(bop_slice_equal(bop_buf_slice(&again_key), key));
    require(bop_slice_equal(bop_buf_slice(&again_value), value));
    bop_buf_deinit(&line);
    bop_buf_deinit(&again_key);
    bop_buf_deinit(&again_value);
}

/* Both say yes, and the same, or both say no. */
static void line_alike(struct bop_slice line)
{
    struct bop_buf key, value, http_key, http_value;
    struct bop_error err = {0};
    int rc, http_rc;

    bop_buf_init(&key, NULL, 0);
    bop_buf_init(&value, NULL, 0);
    bop_buf_init(&http_key, NULL, 0);
    bop_buf_init(&http_value, NULL, 0);
    rc = ndjson_read(line, &key, &value, &err);
    http_rc = bop__http_parse_line(line, &http_key, &http_value);
    require(rc == http_rc);
    if (rc == 0) {
        require(bop_slice_equal(bop_buf_slice(&key), bop_buf_slice(&http_key)));
        require(bop_slice_equal(bop_buf_slice(&value), bop_buf_slice(&http_value)));
    } else {
        require_sentence(rc, &err);
    }
    bop_buf_deinit(&key);
    bop_buf_deinit(&value);
    bop_buf_deinit(&http_key);
    bop_buf_deinit(&http_value);
}

static void member_again(struct bop_slice member)
{
    struct bop_buf line, again;

    bop_buf_init(&line, NULL, 0);
    bop_buf_init(&again, NULL, 0);
    require(ndjson_write_member(&line, member) == 0);
    require(ndjson_read_member(bop_buf_slice(&line), &again, NULL) == 0);
    require(bop_slice_equal(bop_buf_slice(&again), member));
    bop_buf_deinit(&line);
    bop_buf_deinit(&again);
}

static void counter_again(struct bop_slice name, int64_t value)
{
    struct bop_buf line, again;
    int64_t again_value;

    bop_buf_init(&line, NULL, 0);
    bop_buf_init(&again, NULL, 0);
    require(ndjson_write_counter(&line, name, value) == 0);
    require(ndjson_read_counter(bop_buf_slice(&line), &again, &again_value, NULL) == 0);
    require(bop_slice_equal(bop_buf_slice(&again), name) && again_value == value);
    bop_buf_deinit(&line);
    bop_buf_deinit(&again);
}

static void entries(unsigned mode, struct bop_slice bytes)
{
    struct bop_error err = {0};
    struct source source;
    int rc;

    source_init(&source, file_of(bytes), mode == MODE_PACKAGES);
    source.lines.patient = true;
    source.members = mode == MODE_MEMBERS;
    source.counters = mode == MODE_COUNTERS;
    while ((rc = source_next(&source, &err)) == 1) {
        if (mode == MODE_MEMBERS) {
            member_again(bop_buf_slice(&source.key));
        } else if (mode == MODE_COUNTERS) {
            counter_again(bop_buf_slice(&source.key), source.number);
        } else {
            entry_again(bop_buf_slice(&source.key), bop_buf_slice(&source.value));
        }
    }
    if (rc < 0) {
        require_sentence(rc, &err);
    }
    source_deinit(&source);
}

/* ---- Records ---- */

/* Give raw records the checksums that they should have; random bytes never do. */
static void repair(uint8_t *bytes, size_t size)
{
    size_t at = sizeof(aof_record_magic);

    if (size < at) {
        return;
    }
    memcpy(bytes, aof_record_magic, at);
    while (size - at >= AOF_RECORD_HEAD) {
        struct bop_buf record;
        struct bop_aof_view view = {.seq = bop_load_u64(bytes + at),
                                    .tag = bop_load_u64(bytes + at + 8),
                                    .time_us = bop_load_u64(bytes + at + 16)};
        size_t payload = bop_load_u32(bytes + at + 24) % 64;

        if (payload > size - at - AOF_RECORD_HEAD) {
            payload = size - at - AOF_RECORD_HEAD;
        }
        view.payload = bop_slice(bytes + at + AOF_RECORD_HEAD, payload);
        bop_buf_init(&record, NULL, 0);
        require(aof_record_write(&record, &view, true) == 0);
        memcpy(bytes + at, record.data, record.size);
        at += record.size;
        bop_buf_deinit(&record);
    }
}

static void records(struct bop_slice bytes)
{
    struct bop_aof_record record;
    struct bop_error err = {0};
    struct aof_records in;
    struct bop_buf out;
    uint64_t seq;
    int rc;

    bop_buf_init(&out, NULL, 0);
    aof_records_init(&in, file_of(bytes));
    while ((rc = aof_records_next(&in, &record, &seq, &err)) == 1) {
        struct bop_aof_view view = {
            .seq = seq, .tag = record.tag, .time_us = record.time_us, .payload = record.body};

        if (in.raw && out.size == 0) {
            require(bop_buf_append(&out, aof_record_magic, sizeof(aof_record_magic)) == 0);
        }
        require(aof_record_write(&out, &view, in.raw) == 0);
    }
    if (rc < 0) {
        require_sentence(rc, &err);
    } else if (in.raw && in.number > 0) {
        require(bop_slice_equal(bop_buf_slice(&out), bytes)); /* There is one way to write them. */
    }
    aof_records_deinit(&in);
    bop_buf_deinit(&out);
}

static void repaired(struct bop_slice bytes)
{
    uint8_t *copy = malloc(bytes.size + 1);

    require(copy != NULL);
    if (bytes.size > 0) {
        memcpy(copy, bytes.data, bytes.size);
    }
    repair(copy, bytes.size);
    records(bop_slice(copy, bytes.size));
    free(copy);
}

/* ---- Transactions ---- */

static void transaction(struct bop_slice bytes)
{
    struct bop_operation operation, again;
    struct txn_words words;
    struct bop_writer writer;
    const char *wrong = NULL;

    txn_words_init(&words);
    while (bytes.size > 0 && !wrong) {
        const uint8_t *feed = memchr(bytes.data, '\n', bytes.size);
        size_t size = feed ? (size_t)(feed - bytes.data) + 1 : bytes.size;

        wrong = txn_words_add(&words, bop_slice(bytes.data, size));
        bytes = bop_slice(bytes.data + size, bytes.size - size);
    }
    require(!wrong || wrong[0] != '\0');
    if (!wrong && bop_transaction_operation(&words.txn, &operation) == 0) {
        int rc;

        require(words.then_ops.size == operation.then_count);
        require(words.else_ops.size == operation.else_count);
        writer = fuzz_writer();
        bop_operation_encode(&writer, &operation);
        require(writer.code == 0);
        rc = bop_operation_decode(bop_buf_slice(&fuzz_scratch), &again);
        require(rc == 0 || rc == BOP_ETOOBIG || rc == BOP_EMALFORMED);
    }
    txn_words_deinit(&words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_slice rest;
    size_t half;

    if (size == 0) {
        return 0;
    }
    rest = bop_slice(data + 1, size - 1);
    switch (data[0] % MODES) {
    case MODE_RECORDS:
        records(rest);
        break;
    case MODE_RECORDS_REPAIRED:
        repaired(rest);
        break;
    case MODE_TRANSACTION:
        transaction(rest);
        break;
    case MODE_BYTES:
        half = rest.size / 2;
        entry_again(bop_slice(rest.data, half), bop_slice(rest.data + half, rest.size - half));
        member_again(rest);
        break;
    case MODE_ENTRIES:
        line_alike(rest);
        entries(MODE_ENTRIES, rest);
        break;
    default:
        entries(data[0] % MODES, rest);
    }
    return 0;
}
