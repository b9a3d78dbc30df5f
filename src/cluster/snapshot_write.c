/*
 * Writing a snapshot: a view's records as they come, in blocks. Memory is one
 * block; a block is one write.
 */
#include <inttypes.h>
#include <stdio.h>

#include <bop/crc32c.h>
#include <bop/mem.h>

#include "snapshot_format.h"

struct snapshot_writer {
    struct bop_fs *fs;
    const char *path;
    int fd;
    uint64_t offset;
    uint64_t synced;
    uint32_t crc;
    struct bop_buf buf; /* Of the block under way, head included. */
    size_t block_at;    /* Where it begins in buf: behind the preamble at first. */
    struct snapshot_tally tally;
};

static void block_begin(struct snapshot_writer *writer, struct bop_writer *out)
{
    static const uint8_t head[SNAPSHOT_BLOCK_HEAD];

    writer->block_at = writer->buf.size;
    bop_write_raw(out, bop_slice(head, sizeof(head)));
}

/* What is in the buffer may be written: the log's room is left to it. */
static int look_at_room(struct snapshot_writer *writer)
{
    uint64_t left;
    int rc = writer->fs->free_bytes(writer->fs, writer->path, &left);

    return rc == 0 && left < SNAPSHOT_ROOM_KEPT + writer->buf.size ? BOP_ENOROOM : rc;
}

/* Fill in the head and write what is in the buffer. */
static int block_end(struct snapshot_writer *writer, enum snapshot_block kind)
{
    uint8_t *head = writer->buf.data + writer->block_at;
    size_t size = writer->buf.size - writer->block_at - SNAPSHOT_BLOCK_HEAD;
    int rc;

    bop_store_u32(head, (uint32_t)kind);
    bop_store_u32(head + 4, (uint32_t)size);
    writer->crc = bop_crc32c(writer->crc, head, 8);
    writer->crc = bop_crc32c(writer->crc, head + SNAPSHOT_BLOCK_HEAD, size);
    bop_store_u32(head + 8, writer->crc);
    rc = look_at_room(writer);
    if (rc == 0) {
        rc = bop_fs_write_all(writer->fs, writer->fd, writer->buf.data, writer->buf.size,
                              writer->offset);
    }
    if (rc < 0) {
        return rc;
    }
    writer->offset += writer->buf.size;
    bop_buf_clear(&writer->buf);
    if (writer->offset - writer->synced < SNAPSHOT_SYNC_BYTES) {
        return 0;
    }
    /* By and by: a gigabyte at once in the end would keep the log, on the same disk, waiting. */
    writer->synced = writer->offset;
    return writer->fs->sync(writer->fs, writer->fd);
}

static int write_header(struct snapshot_writer *writer, const struct machine_position *position,
                        struct bop_slice conf)
{
    struct bop_writer out = bop_writer(&writer->buf);
    uint8_t bytes[MACHINE_POSITION_SIZE];

    bop_write_raw(&out, bop_slice(SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_SIZE));
    bop_write_u32(&out, SNAPSHOT_VERSION);
    if (out.code == 0) {
        writer->crc = bop_crc32c(0, writer->buf.data, writer->buf.size);
    }
    bop_write_u32(&out, writer->crc);
    block_begin(writer, &out);
    bop__machine_position_encode(bytes, position);
    bop_write_u32(&out, MACHINE_FORMAT);
    bop_write_u32(&out, 0);
    bop_write_raw(&out, bop_slice(bytes, sizeof(bytes)));
    bop_write_bytes(&out, conf);
    return out.code ? out.code : block_end(writer, SNAPSHOT_HEADER);
}

static int write_record(void *user, enum machine_table table, struct bop_slice key,
                        struct bop_slice value)
{
    struct snapshot_writer *writer = user;
    struct bop_writer out = bop_writer(&writer->buf);

    if (writer->buf.size == 0) {
        block_begin(writer, &out);
    }
    bop_write_u8(&out, (uint8_t)table);
    bop_write_u16(&out, (uint16_t)key.size);
    bop_write_u32(&out, (uint32_t)value.size);
    bop_write_raw(&out, key);
    bop_write_raw(&out, value);
    if (out.code < 0) {
        return out.code;
    }
    snapshot_tally_add(&writer->tally, table, key, value);
    return writer->buf.size >= SNAPSHOT_BLOCK_BYTES ? block_end(writer, SNAPSHOT_RECORDS) : 0;
}

static int write_end(struct snapshot_writer *writer)
{
    struct bop_writer out = bop_writer(&writer->buf);

    block_begin(writer, &out);
    for (size_t i = 0; i < MACHINE_TABLES; i++) {
        bop_write_u64(&out, writer->tally.records[i]);
    }
    bop_write_u64(&out, writer->tally.digest);
    return out.code ? out.code : block_end(writer, SNAPSHOT_END);
}

static int write_content(struct snapshot_writer *writer, struct machine_view *view,
                         struct bop_slice conf)
{
    struct machine_position position = bop__machine_view_position(view);
    int rc = write_header(writer, &position, conf);

    if (rc == 0) {
        rc = bop__machine_walk(view, write_record, writer);
    }
    if (rc == 0 && writer->buf.size > 0) {
        rc = block_end(writer, SNAPSHOT_RECORDS);
    }
    if (rc == 0) {
        rc = write_end(writer);
    }
    return rc ? rc : writer->fs->sync(writer->fs, writer->fd);
}

/* Make the finished file's name durable. */
static int publish(struct bop_fs *fs, const char *path, const char *temporary,
                   struct bop_error *err)
{
    char directory[SNAPSHOT_PATH_MAX];
    const char *slash = strrchr(path, '/');
    int rc = fs->rename(fs, temporary, path);

    if (rc < 0) {
        return bop_error_set(err, rc, "rename %s", temporary);
    }
    if (!slash) {
        strcpy(directory, ".");
    } else {
        size_t size = slash == path ? 1 : (size_t)(slash - path);

        memcpy(directory, path, size); /* Fits: the path with ".tmp" did. */
        directory[size] = 0;
    }
    rc = fs->sync_dir(fs, directory);
    if (rc < 0) {
        /* Nobody may find a file that may not be there tomorrow. */
        BOP_IGNORE(fs->unlink(fs, path));
        return bop_error_set(err, rc, "sync directory %s", directory);
    }
    return 0;
}

static int write_file(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                      struct machine_view *view, struct bop_slice conf,
                      struct snapshot_writer *writer, struct bop_error *err)
{
    int closed, rc = fs->open(fs, path, O_RDWR | O_CREAT | O_TRUNC);

    if (rc < 0) {
        return bop_error_set(err, rc, "create %s", path);
    }
    *writer = (struct snapshot_writer){.fs = fs, .path = path, .fd = rc};
    bop_buf_init(&writer->buf, allocator, 0);
    rc = write_content(writer, view, conf);
    bop_buf_deinit(&writer->buf);
    closed = fs->close(fs, writer->fd);
    rc = rc ? rc : closed;
    return rc ? bop_error_set(err, rc, "write %s", path) : 0;
}

int bop__snapshot_write(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                        struct machine_view *view, struct bop_slice conf,
                        struct snapshot_info *out_info, struct bop_error *err)
{
    struct machine_position position = bop__machine_view_position(view);
    struct snapshot_info info = {.position = position};
    char temporary[SNAPSHOT_PATH_MAX];
    struct snapshot_writer writer = {0};
    int n = snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    int rc;

    if (n < 0 || (size_t)n >= sizeof(temporary)) {
        return bop_error_set(err, -ENAMETOOLONG, "%s", path);
    }
    rc = conf.size > MACHINE_CONF_MAX ? BOP_ETOOBIG : 0;
    if (rc == 0 && conf.size > 0) {
        rc = bop_raft_configuration_decode(conf, &info.raft.conf);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "configuration for %s", path);
    }
    rc = write_file(bop_allocator_or_tag(allocator, "cluster.snapshot"), fs, temporary, view, conf,
                    &writer, err);
    if (rc == 0) {
        rc = publish(fs, path, temporary, err);
    }
    if (rc < 0) {
        /* Best effort: the next one begins by emptying it. */
        BOP_IGNORE(fs->unlink(fs, temporary));
        return rc;
    }
    info.raft.index = position.index;
    info.raft.term = position.term;
    info.raft.conf_index = position.conf_index;
    info.bytes = writer.offset;
    info.digest = writer.tally.digest;
    info.format = MACHINE_FORMAT;
    for (size_t i = 0; i < MACHINE_TABLES; i++) {
        info.entries += writer.tally.records[i];
    }
    *out_info = info;
    return 0;
}
