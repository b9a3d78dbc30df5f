/*
 * Reading a snapshot block by block. Nothing is believed before its checksum is
 * right, and no size before it is below its bound and what is left of the file;
 * and as a right checksum does not make a right writer, each record is looked at too.
 */
#include <inttypes.h>

#include <bop/crc32c.h>
#include <bop/mem.h>

#include "snapshot_format.h"

/* Read the next block into reader->block. */
static int read_block(struct snapshot_reader *reader, uint32_t *out_kind)
{
    uint64_t left = reader->size - reader->offset;
    uint8_t head[SNAPSHOT_BLOCK_HEAD];
    uint32_t size;
    int rc;

    reader->block_at = reader->offset;
    if (left < sizeof(head)) {
        return BOP_ETRUNCATED;
    }
    rc = bop_fs_read_exact(reader->fs, reader->fd, head, sizeof(head), reader->offset);
    if (rc < 0) {
        return rc;
    }
    size = bop_load_u32(head + 4);
    if (size > SNAPSHOT_BLOCK_MAX) {
        return BOP_ECORRUPT;
    }
    if (size > left - sizeof(head)) {
        return BOP_ETRUNCATED;
    }
    bop_buf_clear(&reader->block);
    rc = bop_buf_reserve(&reader->block, size);
    if (rc == 0) {
        rc = bop_fs_read_exact(reader->fs, reader->fd, reader->block.data, size,
                               reader->offset + sizeof(head));
    }
    if (rc < 0) {
        return rc;
    }
    reader->block.size = size;
    reader->offset += sizeof(head) + size;
    reader->crc = bop_crc32c(reader->crc, head, 8);
    reader->crc = bop_crc32c(reader->crc, reader->block.data, size);
    *out_kind = bop_load_u32(head);
    return reader->crc == bop_load_u32(head + 8) ? 0 : BOP_ECORRUPT;
}

static int read_preamble(struct snapshot_reader *reader)
{
    uint8_t bytes[SNAPSHOT_PREAMBLE];
    uint32_t version;
    int rc = reader->fs->size(reader->fs, reader->fd, &reader->size);

    reader->block_at = 0;

    if (rc == 0 && reader->size < sizeof(bytes)) {
        rc = BOP_ETRUNCATED;
    }
    if (rc == 0) {
        rc = bop_fs_read_exact(reader->fs, reader->fd, bytes, sizeof(bytes), 0);
    }
    if (rc < 0) {
        return rc;
    }
    reader->crc = bop_crc32c(0, bytes, sizeof(bytes) - 4);
    if (memcmp(bytes, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_SIZE) != 0 ||
        reader->crc != bop_load_u32(bytes + sizeof(bytes) - 4)) {
        return BOP_ECORRUPT;
    }
    reader->offset = sizeof(bytes);
    version = bop_load_u32(bytes + SNAPSHOT_MAGIC_SIZE);
    if (version < SNAPSHOT_VERSION_MIN || version > SNAPSHOT_VERSION) {
        return BOP_EVERSION;
    }
    reader->format = version;
    reader->tables = machine_format_tables(version);
    return 0;
}

static int read_header(struct snapshot_reader *reader)
{
    struct snapshot_info *info = &reader->info;
    struct bop_reader in;
    struct bop_slice position, conf;
    uint32_t kind, format, zeros;
    int rc = read_block(reader, &kind);

    if (rc < 0) {
        return rc;
    }
    in = bop_reader(bop_buf_slice(&reader->block));
    format = bop_read_u32(&in);
    if (kind == SNAPSHOT_HEADER && !in.failed && format != reader->format) {
        return BOP_EVERSION;
    }
    zeros = bop_read_u32(&in);
    position = bop_read_raw(&in, MACHINE_POSITION_SIZE);
    conf = bop_read_bytes(&in);
    if (kind != SNAPSHOT_HEADER || !bop_reader_done(&in) || zeros != 0 ||
        conf.size > MACHINE_CONF_MAX) {
        return BOP_ECORRUPT;
    }
    *info = (struct snapshot_info){.bytes = reader->size, .format = reader->format};
    rc = bop__machine_position_decode(position, &info->position);
    if (rc == 0 && conf.size > 0 && bop_raft_configuration_decode(conf, &info->raft.conf) < 0) {
        rc = BOP_ECORRUPT;
    }
    info->raft.index = info->position.index;
    info->raft.term = info->position.term;
    info->raft.conf_index = info->position.conf_index;
    return rc;
}

bool bop__snapshot_record_next(struct bop_slice *records, enum machine_table *out_table,
                               struct bop_slice *out_key, struct bop_slice *out_value)
{
    struct bop_reader in = bop_reader(*records);
    uint8_t table = bop_read_u8(&in);
    uint16_t key_size = bop_read_u16(&in);
    uint32_t value_size = bop_read_u32(&in);
    struct bop_slice key = bop_read_raw(&in, key_size);
    struct bop_slice value = bop_read_raw(&in, value_size);

    if (in.failed) {
        return false;
    }
    *records = bop_slice(in.at, bop_reader_left(&in));
    *out_table = (enum machine_table)table;
    *out_key = key;
    *out_value = value;
    return true;
}

static bool in_order(const struct snapshot_reader *reader, unsigned table, struct bop_slice key)
{
    if ((int)table != reader->table) {
        return (int)table > reader->table;
    }
    return bop_slice_compare(bop_slice(reader->key, reader->key_size), key) < 0;
}

/* Keep what a record that is right by itself says of others. */
static void note_record(struct snapshot_reader *reader, enum machine_table table,
                        struct bop_slice key, struct bop_slice value)
{
    uint32_t id = 0;

    if (table == MACHINE_MAPS || table == MACHINE_SETS || table == MACHINE_MULTIMAPS) {
        id = bop_load_u32(value.data);
    } else if (table == MACHINE_GARBAGE) {
        id = __builtin_bswap32(bop_load_u32(key.data));
    }
    reader->map_id_max = id > reader->map_id_max ? id : reader->map_id_max;
    if (table != MACHINE_META) {
        return;
    }
    if (bop_slice_equal(key, bop_slice_cstr(MACHINE_META_FORMAT))) {
        reader->format_seen = bop_load_u32(value.data) == reader->format;
    } else if (bop_slice_equal(key, bop_slice_cstr(MACHINE_META_MAP_NEXT))) {
        reader->map_next = bop_load_u32(value.data);
    } else if (bop_slice_equal(key, bop_slice_cstr(MACHINE_META_POSITION))) {
        /* It was decoded by the check. */
        BOP_IGNORE(bop__machine_position_decode(value, &reader->position));
    }
}

/* Look at a record by itself and at its place. */
static int check_record(struct snapshot_reader *reader, enum machine_table table,
                        struct bop_slice key, struct bop_slice value)
{
    int rc;

    if ((unsigned)table >= reader->tables || key.size == 0 || key.size > BOP_KV_KEY_MAX ||
        !in_order(reader, table, key)) {
        return BOP_ECORRUPT;
    }
    rc = bop__machine_record_check(table, key, value);
    if (rc < 0) {
        return rc;
    }
    reader->table = (int)table;
    reader->key_size = key.size;
    memcpy(reader->key, key.data, key.size);
    note_record(reader, table, key, value);
    snapshot_tally_add(&reader->tally, table, key, value);
    reader->info.entries++;
    return 0;
}

static int check_records(struct snapshot_reader *reader)
{
    struct bop_slice records = bop_buf_slice(&reader->block), key, value;
    enum machine_table table;

    if (records.size == 0) {
        return BOP_ECORRUPT; /* A writer makes no empty blocks. */
    }
    while (records.size > 0) {
        int rc;

        if (!bop__snapshot_record_next(&records, &table, &key, &value)) {
            return BOP_ECORRUPT;
        }
        rc = check_record(reader, table, key, value);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static bool same_position(const struct machine_position *a, const struct machine_position *b)
{
    return a->index == b->index && a->term == b->term && a->digest == b->digest &&
           a->time_ms == b->time_ms && a->conf_index == b->conf_index;
}

static int check_end(struct snapshot_reader *reader)
{
    struct bop_reader in = bop_reader(bop_buf_slice(&reader->block));
    bool same = reader->block.size == SNAPSHOT_END_SIZE(reader->tables) &&
                reader->offset == reader->size;

    for (size_t i = 0; i < reader->tables; i++) {
        same = bop_read_u64(&in) == reader->tally.records[i] && same;
    }
    same = bop_read_u64(&in) == reader->tally.digest && same;
    /* A state in which nothing was applied has no position yet. */
    return same && reader->format_seen && reader->map_id_max < reader->map_next &&
                   same_position(&reader->position, &reader->info.position)
               ? 0
               : BOP_ECORRUPT;
}

int bop__snapshot_reader_next(struct snapshot_reader *reader, struct bop_slice *out_records)
{
    uint32_t kind;
    int rc = read_block(reader, &kind);

    if (rc < 0) {
        return rc;
    }
    if (kind == SNAPSHOT_END) {
        return check_end(reader);
    }
    rc = kind == SNAPSHOT_RECORDS ? check_records(reader) : BOP_ECORRUPT;
    if (rc < 0) {
        return rc;
    }
    *out_records = bop_buf_slice(&reader->block);
    return 1;
}

int bop__snapshot_reader_rewind(struct snapshot_reader *reader)
{
    int rc = read_preamble(reader);

    reader->tally = (struct snapshot_tally){0};
    reader->table = -1;
    reader->format_seen = false;
    reader->position = (struct machine_position){0};
    reader->map_next = 1;
    reader->map_id_max = 0;
    return rc ? rc : read_header(reader);
}

int bop__snapshot_reader_open(struct snapshot_reader *reader, struct bop_allocator *allocator,
                              struct bop_fs *fs, const char *path)
{
    int rc;

    *reader = (struct snapshot_reader){.fs = fs, .fd = -1};
    bop_buf_init(&reader->block, allocator, 0);
    rc = fs->open(fs, path, O_RDONLY);
    if (rc < 0) {
        return rc;
    }
    reader->fd = rc;
    return bop__snapshot_reader_rewind(reader);
}

void bop__snapshot_reader_close(struct snapshot_reader *reader)
{
    if (reader->fd >= 0) {
        /* Only read: closing has nothing to report. */
        BOP_IGNORE(reader->fs->close(reader->fs, reader->fd));
        reader->fd = -1;
    }
    bop_buf_deinit(&reader->block);
}

int bop__snapshot_check(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                        struct snapshot_info *out_info, struct bop_error *err)
{
    struct snapshot_reader reader;
    struct bop_slice records;
    int rc = bop__snapshot_reader_open(&reader, bop_allocator_or_tag(allocator, "cluster.snapshot"),
                                       fs, path);

    if (rc == 0) {
        do {
            rc = bop__snapshot_reader_next(&reader, &records);
        } while (rc > 0);
    }
    bop__snapshot_reader_close(&reader);
    if (rc < 0) {
        return bop_error_set(err, rc, "snapshot %s, block at byte %" PRIu64, path, reader.block_at);
    }
    *out_info = reader.info;
    return 0;
}

/* The END block by its place, which its size says. Its checksum goes on from all that is before. */
static int peek_end(struct snapshot_reader *reader)
{
    uint32_t size = SNAPSHOT_END_SIZE(reader->tables);
    uint8_t bytes[SNAPSHOT_BLOCK_HEAD + SNAPSHOT_END_SIZE(MACHINE_TABLES)];
    int rc;

    if (reader->size - reader->offset < SNAPSHOT_BLOCK_HEAD + size) {
        return BOP_ETRUNCATED;
    }
    reader->block_at = reader->size - SNAPSHOT_BLOCK_HEAD - size;
    rc = bop_fs_read_exact(reader->fs, reader->fd, bytes, SNAPSHOT_BLOCK_HEAD + size,
                           reader->block_at);
    if (rc < 0) {
        return rc;
    }
    if (bop_load_u32(bytes) != SNAPSHOT_END || bop_load_u32(bytes + 4) != size) {
        return BOP_ECORRUPT;
    }
    for (size_t i = 0; i < reader->tables; i++) {
        reader->info.entries += bop_load_u64(bytes + SNAPSHOT_BLOCK_HEAD + 8 * i);
    }
    return 0;
}

int bop__snapshot_peek(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                       struct snapshot_info *out_info, struct bop_error *err)
{
    struct snapshot_reader reader;
    int rc = bop__snapshot_reader_open(&reader, bop_allocator_or_tag(allocator, "cluster.snapshot"),
                                       fs, path);

    if (rc == 0) {
        rc = peek_end(&reader);
    }
    bop__snapshot_reader_close(&reader);
    if (rc < 0) {
        return bop_error_set(err, rc, "snapshot %s, block at byte %" PRIu64, path, reader.block_at);
    }
    *out_info = reader.info;
    return 0;
}
