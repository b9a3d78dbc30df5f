/*
 * Fuzzes what `bop kv load` reads: a key-value store as lines of JSON, into a real store.
 *
 * Properties: nothing reads outside and nothing leaks (the sanitizers' part); a refusal of a line
 * says why; what is loaded and dumped, loaded and dumped again is the same, byte by byte; what
 * is given up leaves nothing behind.
 *
 * The first byte says whether the rest is the file, or what follows its first line, or the contents
 * of a table, of which lines are made first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kv_flags.h"
#include "kv_text.h"
#include "ndjson.h"

#include "fuzz_round_trip.h"

enum {
    MODE_FILE,
    MODE_BODY,
    MODE_TABLE,
    MODES,
};

static const char head[] = "{\"bop-kv-dump\":1}\n";
static char path[64];
static struct bop_kv *kv;

static void remove_store(void)
{
    bop_kv_close(kv);
    require(bop_kv_remove(path, NULL) == 0 && rmdir(path) == 0);
}

static void open_store(void)
{
    struct bop_kv_options options = {.path = path,
                                     .bytes_max = UINT64_C(1) << 26,
                                     .tables_max = 64,
                                     .durability = BOP_KV_SURVIVES_SYSTEM};
    const char *parent = getenv("TMPDIR");

    snprintf(path, sizeof(path), "%.40s/fuzz-kv-XXXXXX", parent ? parent : "/tmp");
    require(mkdtemp(path) != NULL);
    require(bop_kv_open(&options, &kv, NULL) == 0);
    require(atexit(remove_store) == 0);
}

static int load_lines(struct kv_reader *reader, struct bop_slice text)
{
    int rc = 0;

    while (rc == 0 && text.size > 0) {
        const uint8_t *feed = memchr(text.data, '\n', text.size);
        size_t size = feed ? (size_t)(feed - text.data) + 1 : text.size;

        rc = kv_read_line(reader, bop_slice(text.data, size));
        text = bop_slice(text.data + size, text.size - size);
    }
    return rc == 0 ? kv_read_end(reader) : rc;
}

static int stay(void *user, bool last)
{
    return 0;
}

/* Load text into the empty store, dump what is there, and give it up. False: it is refused. */
static bool load_and_dump(struct bop_slice text, struct bop_buf *out_dump)
{
    struct kv_reader reader;
    struct kv_writer writer;
    struct bop_kv_txn *txn;
    int rc;

    require(bop_kv_begin(kv, true, &txn) == 0);
    kv_reader_init(&reader);
    reader.txn = txn;
    rc = load_lines(&reader, text);
    require(rc <= 0);
    if (rc == BOP_EMALFORMED) {
        require(reader.err.code == rc && reader.err.message[0] != '\0');
    }
    if (rc == 0) {
        kv_writer_init(&writer);
        writer.txn = txn;
        writer.flush = stay;
        require(kv_write(&writer) == 0);
        require(bop_buf_append(out_dump, writer.text.data, writer.text.size) == 0);
        kv_writer_deinit(&writer);
    }
    kv_reader_deinit(&reader);
    bop_kv_abort(txn);
    return rc == 0;
}

static void load(struct bop_slice text)
{
    struct bop_buf first, second;

    bop_buf_init(&first, NULL, 0);
    bop_buf_init(&second, NULL, 0);
    if (load_and_dump(text, &first)) {
        require(load_and_dump(bop_buf_slice(&first), &second));
        require(bop_slice_equal(bop_buf_slice(&first), bop_buf_slice(&second)));
    }
    bop_buf_deinit(&first);
    bop_buf_deinit(&second);
}

/* ---- Lines out of bytes ---- */

static struct bop_slice take(struct bop_slice *bytes, size_t size)
{
    struct bop_slice out = bop_slice(bytes->data, size < bytes->size ? size : bytes->size);

    *bytes = bop_slice(bytes->data + out.size, bytes->size - out.size);
    return out;
}

static void write_table(struct bop_buf *text, unsigned number, unsigned flags)
{
    char name[16];
    json_t *object;

    snprintf(name, sizeof(name), "t%u", number);
    object = json_pack("{s:s,s:o}", "table", name, "flags", kv_flags_to_json(flags));
    require(object && ndjson_write_object(text, object) == 0);
    json_decref(object);
}

/* A byte says what comes: a table of some kind, or the sizes of a key and its value. */
static void make_lines(struct bop_buf *text, struct bop_slice bytes)
{
    unsigned tables = 0;

    while (bytes.size > 1) {
        uint8_t what = take(&bytes, 1).data[0];

        if (tables == 0 || what >= 0xf0) {
            write_table(text, tables++ % 8, bytes.data[0]);
            take(&bytes, 1);
        } else {
            struct bop_slice key = take(&bytes, what % 16), value = take(&bytes, what / 16);

            require(ndjson_write(text, key, value) == 0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_slice rest;
    struct bop_buf text;

    if (size == 0) {
        return 0;
    }
    if (!kv) {
        open_store();
    }
    rest = bop_slice(data + 1, size - 1);
    bop_buf_init(&text, NULL, 0);
    if (data[0] % MODES != MODE_FILE) {
        require(bop_buf_append(&text, head, sizeof(head) - 1) == 0);
    }
    if (data[0] % MODES == MODE_TABLE) {
        make_lines(&text, rest);
    } else {
        require(bop_buf_append(&text, rest.data, rest.size) == 0);
    }
    load(bop_buf_slice(&text));
    bop_buf_deinit(&text);
    return 0;
}
