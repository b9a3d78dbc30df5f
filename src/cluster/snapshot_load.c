/*
 * Loading a snapshot: check the file, remove the store, append block by block.
 *
 * META, and with it the format without which a store is not believed, goes in
 * with the last transaction. Whatever ends the load before that leaves a store
 * that the next open makes anew.
 *
 * The file is read twice, for a state may be larger than memory; what is loaded
 * is checked the second time as well, against the first time's digest too.
 */
#include "snapshot_format.h"

#include <inttypes.h>

#include <bop/mem.h>

/* How often a transaction is begun again that found no room: each time with more reserved. */
#define LOAD_ATTEMPTS_MAX 4
/* META has four records, none longer than a configuration. */
#define META_BYTES_MAX (4 * (SNAPSHOT_RECORD_HEAD + BOP_KV_KEY_MAX) + MACHINE_CONF_MAX + 1024)

struct load {
    struct bop_kv *kv;
    struct bop_kv_table tables[MACHINE_TABLES];
    struct bop_buf meta; /* Records put off to the end. */
};

static int set_aside(struct load *load, struct bop_slice key, struct bop_slice value)
{
    struct bop_writer out = bop_writer(&load->meta);

    bop_write_u8(&out, MACHINE_META);
    bop_write_u16(&out, (uint16_t)key.size);
    bop_write_u32(&out, (uint32_t)value.size);
    bop_write_raw(&out, key);
    bop_write_raw(&out, value);
    return out.code;
}

/* Put records into the store, of META or of the other tables. */
static int put_records(const struct load *load, struct bop_kv_txn *txn, struct bop_slice records,
                       bool meta)
{
    struct bop_slice key, value;
    enum machine_table table;

    while (bop__snapshot_record_next(&records, &table, &key, &value)) {
        int rc;

        if ((table == MACHINE_META) != meta) {
            continue;
        }
        rc = bop_kv_append(txn, load->tables[table], key, value);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* The same in a transaction, begun again with more room if there was too little. */
static int store_records(const struct load *load, struct bop_slice records, bool meta)
{
    int rc = BOP_ENOROOM;

    for (unsigned attempt = 0; rc == BOP_ENOROOM && attempt < LOAD_ATTEMPTS_MAX; attempt++) {
        struct bop_kv_txn *txn;

        rc = bop_kv_begin(load->kv, true, &txn);
        if (rc < 0) {
            return rc;
        }
        rc = put_records(load, txn, records, meta);
        if (rc == 0) {
            rc = bop_kv_commit(txn);
        } else {
            bop_kv_abort(txn);
        }
    }
    return rc;
}

static int load_block(struct load *load, struct bop_slice records)
{
    struct bop_slice rest = records, key, value;
    enum machine_table table;

    while (bop__snapshot_record_next(&rest, &table, &key, &value)) {
        int rc = table == MACHINE_META ? set_aside(load, key, value) : 0;

        if (rc < 0) {
            return rc;
        }
    }
    return store_records(load, records, false);
}

static int open_tables(struct load *load)
{
    struct bop_kv_txn *txn;
    int rc = bop_kv_begin(load->kv, true, &txn);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_tables_open(txn, load->tables);
    if (rc < 0) {
        bop_kv_abort(txn);
        return rc;
    }
    return bop_kv_commit(txn);
}

/* Read through the file. With `load` what it holds goes into the store, but for META. */
static int read_through(struct snapshot_reader *reader, struct load *load)
{
    struct bop_slice records;
    int rc;

    while ((rc = bop__snapshot_reader_next(reader, &records)) > 0) {
        rc = load ? load_block(load, records) : 0;
        if (rc < 0) {
            return rc;
        }
    }
    return rc;
}

/* The file is whole: replace the store. */
static int load_store(struct snapshot_reader *reader, const struct machine_options *options,
                      struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "cluster.snapshot");
    struct bop_kv_options kv_options = {.allocator = allocator,
                                        .path = options->path,
                                        .bytes_max = options->bytes_max,
                                        .grow_step_bytes = options->grow_step_bytes};
    uint64_t digest = reader->tally.digest;
    struct load load = {0};
    int rc = bop_kv_remove(options->path, err);

    if (rc == 0) {
        rc = bop_kv_open(&kv_options, &load.kv, err);
    }
    if (rc < 0) {
        return rc;
    }
    bop_buf_init(&load.meta, allocator, META_BYTES_MAX);
    rc = open_tables(&load);
    if (rc == 0) {
        rc = bop__snapshot_reader_rewind(reader);
    }
    if (rc == 0) {
        rc = read_through(reader, &load);
    }
    if (rc == 0 && reader->tally.digest != digest) {
        rc = BOP_ECORRUPT; /* Somebody writes to the file. */
    }
    if (rc == 0) {
        rc = store_records(&load, bop_buf_slice(&load.meta), true);
    }
    bop_buf_deinit(&load.meta);
    bop_kv_close(load.kv);
    return rc ? bop_error_set(err, rc, "fill the state %s", options->path) : 0;
}

int bop__snapshot_load(struct bop_fs *fs, const char *path, const struct machine_options *options,
                       struct snapshot_info *out_info, struct bop_error *err)
{
    struct snapshot_reader reader;
    int rc = bop__snapshot_reader_open(
        &reader, bop_allocator_or_tag(options->allocator, "cluster.snapshot"), fs, path);

    if (rc == 0) {
        rc = read_through(&reader, NULL);
    }
    if (rc < 0) {
        bop_error_set(err, rc, "snapshot %s, block at byte %" PRIu64, path, reader.block_at);
    } else {
        rc = load_store(&reader, options, err);
        if (rc < 0) {
            bop_error_wrap(err, "load snapshot %s", path);
        }
    }
    bop__snapshot_reader_close(&reader);
    if (rc == 0) {
        *out_info = reader.info;
    }
    return rc;
}
