/*
 * Fuzzes what reads snapshot files, and the decoder of commands.
 *
 * Properties: nothing reads outside of the input and nothing is leaked (the
 * sanitizers' part); a file that is accepted can be loaded, and the state then
 * has the content that the file's end says; a command that is accepted, encoded
 * anew, gives the same bytes.
 *
 * The first byte says what the rest is: a file as it is; one whose checksums,
 * counts and digest are put right first, for random bytes never have them; or a command.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <bop/crc32c.h>

#include "snapshot_format.h"

#define MODE_FILE     0
#define MODE_REPAIRED 1
#define MODE_COMMAND  2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* ---- A file system of one file ---- */

static struct bop_slice file;

static int memory_open(struct bop_fs *self, const char *path, int flags)
{
    return 3;
}

static int memory_close(struct bop_fs *self, int fd)
{
    return 0;
}

static ssize_t memory_pread(struct bop_fs *self, int fd, void *out_bytes, size_t size,
                            uint64_t offset)
{
    if (offset >= file.size || size == 0) {
        return 0;
    }
    size = (size_t)bop_min_u64(size, file.size - offset);
    memcpy(out_bytes, file.data + offset, size);
    return (ssize_t)size;
}

static int memory_size(struct bop_fs *self, int fd, uint64_t *out_size)
{
    *out_size = file.size;
    return 0;
}

static struct bop_fs memory = {
    .open = memory_open, .close = memory_close, .pread = memory_pread, .size = memory_size};

/* ---- Repairing ---- */

/* Count the records of a payload as far as they are whole. */
static void tally(struct snapshot_tally *sum, struct bop_slice records)
{
    struct bop_slice key, value;
    enum machine_table table;

    while (bop__snapshot_record_next(&records, &table, &key, &value) &&
           (unsigned)table < MACHINE_TABLES) {
        snapshot_tally_add(sum, table, key, value);
    }
}

static void repair_block(uint8_t *block, uint32_t size, size_t tables, struct snapshot_tally *sum,
                         uint32_t *crc)
{
    uint8_t *payload = block + SNAPSHOT_BLOCK_HEAD;

    if (bop_load_u32(block) == SNAPSHOT_RECORDS) {
        tally(sum, bop_slice(payload, size));
    }
    if (bop_load_u32(block) == SNAPSHOT_END && size == SNAPSHOT_END_SIZE(tables)) {
        for (size_t i = 0; i < tables; i++) {
            bop_store_u64(payload + 8 * i, sum->records[i]);
        }
        bop_store_u64(payload + 8 * tables, sum->digest);
    }
    *crc = bop_crc32c(*crc, block, 8);
    *crc = bop_crc32c(*crc, payload, size);
    bop_store_u32(block + 8, *crc);
}

static void repair(uint8_t *bytes, size_t size)
{
    struct snapshot_tally sum = {0};
    size_t at = SNAPSHOT_PREAMBLE;
    size_t tables;
    uint32_t crc;

    if (size < SNAPSHOT_PREAMBLE) {
        return;
    }
    tables = machine_format_tables(bop_load_u32(bytes + 8));
    bop_store_u64(bytes, bop_load_u64(SNAPSHOT_MAGIC));
    crc = bop_crc32c(0, bytes, 12);
    bop_store_u32(bytes + 12, crc);
    while (size - at >= SNAPSHOT_BLOCK_HEAD) {
        uint32_t block = bop_load_u32(bytes + at + 4);

        if (block > size - at - SNAPSHOT_BLOCK_HEAD) {
            return;
        }
        repair_block(bytes + at, block, tables, &sum, &crc);
        at += SNAPSHOT_BLOCK_HEAD + block;
    }
}

/* ---- What is tried ---- */

static char directory[] = "/tmp/fuzz_snapshot_XXXXXX";

static void remove_directory(void)
{
    BOP_IGNORE(bop_kv_remove(directory, NULL));
    rmdir(directory);
}

/* An accepted file gives a state that has what the file says. */
static void load(void)
{
    static bool made;
    struct machine_options options = {
        .path = directory, .bytes_max = 64 << 20, .grow_step_bytes = 1 << 20};
    struct machine_view *view;
    struct machine *machine;
    struct snapshot_info info;
    uint64_t digest;

    if (!made) {
        require(mkdtemp(directory) != NULL);
        atexit(remove_directory);
        made = true;
    }
    require(bop__snapshot_load(&memory, "file", &options, &info, NULL) == 0);
    require(bop__machine_open(&options, &machine, NULL) == 0);
    require(bop__machine_view_open(machine, &view) == 0);
    require(bop__machine_content_digest(view, &digest) == 0);
    /* One of the old version is of a state that says so; the open has made it a new one. */
    require(bop_load_u32(file.data + 8) != SNAPSHOT_VERSION ||
            digest == bop_load_u64(file.data + file.size - 8));
    require(bop__machine_position(machine).index == info.raft.index);
    bop__machine_view_close(view);
    bop__machine_close(machine);
}

static void try_file(struct bop_slice bytes, bool repaired)
{
    struct snapshot_info info;
    uint8_t *copy = malloc(bytes.size + 1); /* The sanitizer watches its end but for one byte. */

    require(copy != NULL);
    if (bytes.size > 0) {
        memcpy(copy, bytes.data, bytes.size);
    }
    if (repaired) {
        repair(copy, bytes.size);
    }
    file = bop_slice(copy, bytes.size);
    if (bop__snapshot_check(NULL, &memory, "file", &info, NULL) == 0) {
        load();
    }
    free(copy);
}

static void try_command(struct bop_slice bytes)
{
    struct bop_operation operation;
    struct bop_writer writer;
    struct bop_buf buf;
    struct command command;

    if (bop__command_decode(bytes, &command) < 0) {
        return;
    }
    bop_buf_init(&buf, NULL, 0);
    writer = bop_writer(&buf);
    bop__command_encode(&writer, &command);
    require(writer.code == 0 && bop_slice_equal(bop_buf_slice(&buf), bytes));
    bop_buf_deinit(&buf);
    BOP_IGNORE(bop_operation_decode(command.operation, &operation));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_slice rest;

    if (size == 0) {
        return 0;
    }
    rest = bop_slice(data + 1, size - 1);
    if (data[0] % 4 == MODE_COMMAND) {
        try_command(rest);
    } else {
        try_file(rest, data[0] % 4 == MODE_REPAIRED);
    }
    return 0;
}
