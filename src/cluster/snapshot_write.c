/*
 * Writing a snapshot: records as they come, in blocks, and these in chunks. Memory is a block and
 * a chunk; a chunk is one write.
 *
 * A snapshot is not read soon. So it can be written past the page cache, where there is such a
 * thing: nothing is copied into pages that have to be found, written back and freed, there is no
 * pile of them for the log's syncs to wait behind, and no sync that forces the file system's
 * journal while the log, on the same disk, is in use.
 */
#include <inttypes.h>
#include <stdio.h>

#include <bop/crc32c.h>
#include <bop/mem.h>

#include "snapshot_format.h"

#define CHUNK_MEMORY (SNAPSHOT_CHUNK_BYTES + BOP_FS_ALIGN)

struct snapshot_writer {
    struct bop_fs *fs;
    int fd;
    bool direct; /* Past the page cache: only whole pages can be written. */
    uint64_t offset;
    uint64_t synced;
    uint32_t crc;
    void *memory;   /* What the chunk lies in. */
    uint8_t *chunk; /* To be written there. */
    size_t chunk_size;
    struct bop_buf buf; /* Of the block under way, head included. */
    size_t block_at;    /* Where it begins in buf: behind the preamble at first. */
    struct snapshot_tally tally;
    struct snapshot_info info;
    char path[SNAPSHOT_PATH_MAX];
    char temporary[SNAPSHOT_PATH_MAX];
};

static void block_begin(struct snapshot_writer *writer, struct bop_writer *out)
{
    static const uint8_t head[SNAPSHOT_BLOCK_HEAD];

    writer->block_at = writer->buf.size;
    bop_write_raw(out, bop_slice(head, sizeof(head)));
}

/* What is in the chunk may be written: the log's room is left to it. */
static int look_at_room(struct snapshot_writer *writer)
{
    uint64_t left;
    int rc = writer->fs->free_bytes(writer->fs, writer->temporary, &left);

    return rc == 0 && left < SNAPSHOT_ROOM_KEPT + writer->chunk_size ? BOP_ENOROOM : rc;
}

static int write_chunk(struct snapshot_writer *writer)
{
    int rc = look_at_room(writer);

    if (rc == 0) {
        rc = bop_fs_write_all(writer->fs, writer->fd, writer->chunk, writer->chunk_size,
                              writer->offset);
    }
    if (rc < 0) {
        return rc;
    }
    writer->offset += writer->chunk_size;
    writer->chunk_size = 0;
    if (writer->direct || writer->offset - writer->synced < SNAPSHOT_SYNC_BYTES) {
        return 0;
    }
    /* By and by: a gigabyte at once in the end would keep the log, on the same disk, waiting. */
    writer->synced = writer->offset;
    return writer->fs->sync(writer->fs, writer->fd);
}

static int put(struct snapshot_writer *writer, struct bop_slice bytes)
{
    const uint8_t *from = bytes.data;
    int rc = 0;

    for (size_t left = bytes.size, size; left > 0 && rc == 0; left -= size) {
        size = bop_min_u64(left, SNAPSHOT_CHUNK_BYTES - writer->chunk_size);
        memcpy(writer->chunk + writer->chunk_size, from, size);
        writer->chunk_size += size;
        from += size;
        rc = writer->chunk_size == SNAPSHOT_CHUNK_BYTES ? write_chunk(writer) : 0;
    }
    return rc;
}

/* The last chunk, and no more than belongs to the file. */
static int put_end(struct snapshot_writer *writer)
{
    uint64_t size = writer->offset + writer->chunk_size;
    size_t beyond = writer->direct ? (size_t)(-size % BOP_FS_ALIGN) : 0;
    int rc = 0;

    memset(writer->chunk + writer->chunk_size, 0, beyond);
    writer->chunk_size += beyond;
    if (writer->chunk_size > 0) {
        rc = write_chunk(writer);
    }
    writer->offset = size;
    return rc == 0 && beyond > 0 ? writer->fs->truncate(writer->fs, writer->fd, size) : rc;
}

/* Fill in the head and pass on what is in the buffer. */
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
    rc = put(writer, bop_buf_slice(&writer->buf));
    bop_buf_clear(&writer->buf);
    return rc;
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

int bop__snapshot_writer_record(void *user, enum machine_table table, struct bop_slice key,
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

static int finish_content(struct snapshot_writer *writer)
{
    int rc = writer->buf.size > 0 ? block_end(writer, SNAPSHOT_RECORDS) : 0;

    if (rc == 0) {
        rc = write_end(writer);
    }
    if (rc == 0) {
        rc = put_end(writer);
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

static int create_file(struct snapshot_writer *writer)
{
    int flags = O_RDWR | O_CREAT | O_TRUNC;
    int rc = -EINVAL;

    if (writer->direct) {
        rc = writer->fs->open(writer->fs, writer->temporary, flags | O_DIRECT);
        writer->direct = rc != -EINVAL;
    }
    return writer->direct ? rc : writer->fs->open(writer->fs, writer->temporary, flags);
}

static int writer_open(struct snapshot_writer *writer, const struct machine_position *position,
                       struct bop_slice conf, struct bop_error *err)
{
    int rc;

    if (conf.size > MACHINE_CONF_MAX) {
        rc = BOP_ETOOBIG;
    } else {
        rc = conf.size > 0 ? bop_raft_configuration_decode(conf, &writer->info.raft.conf) : 0;
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "configuration for %s", writer->path);
    }
    rc = create_file(writer);
    if (rc < 0) {
        return bop_error_set(err, rc, "create %s", writer->temporary);
    }
    writer->fd = rc;
    writer->info.position = *position;
    rc = write_header(writer, position, conf);
    return rc < 0 ? bop_error_set(err, rc, "write %s", writer->temporary) : 0;
}

/* 0 or the code of the close, if the file was open. */
static int writer_free(struct snapshot_writer *writer)
{
    int rc = writer->fd >= 0 ? writer->fs->close(writer->fs, writer->fd) : 0;

    bop_free(writer->buf.allocator, writer->memory, CHUNK_MEMORY);
    bop_buf_deinit(&writer->buf);
    return rc;
}

int bop__snapshot_writer_open(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                              const struct machine_position *position, struct bop_slice conf,
                              bool read_soon, struct snapshot_writer **out_writer,
                              struct bop_error *err)
{
    struct snapshot_writer *writer;
    int n, rc;

    allocator = bop_allocator_or_tag(allocator, "cluster.snapshot");
    writer = bop_alloc_zeroed(allocator, sizeof(*writer));
    if (!writer) {
        return bop_error_set(err, BOP_ENOMEM, "write %s", path);
    }
    writer->fs = fs;
    writer->fd = -1;
    writer->direct = !read_soon;
    bop_buf_init(&writer->buf, allocator, 0);
    writer->memory = bop_alloc(allocator, CHUNK_MEMORY);
    if (!writer->memory) {
        bop_free(allocator, writer, sizeof(*writer));
        return bop_error_set(err, BOP_ENOMEM, "write %s", path);
    }
    writer->chunk = (uint8_t *)writer->memory + -(uintptr_t)writer->memory % BOP_FS_ALIGN;
    n = snprintf(writer->temporary, sizeof(writer->temporary), "%s.tmp", path);
    if (n < 0 || (size_t)n >= sizeof(writer->temporary)) {
        BOP_IGNORE(writer_free(writer));
        bop_free(allocator, writer, sizeof(*writer));
        return bop_error_set(err, -ENAMETOOLONG, "%s", path);
    }
    memcpy(writer->path, writer->temporary, (size_t)n - 4);
    rc = writer_open(writer, position, conf, err);
    if (rc < 0) {
        bop__snapshot_writer_drop(writer);
        return rc;
    }
    *out_writer = writer;
    return 0;
}

void bop__snapshot_writer_drop(struct snapshot_writer *writer)
{
    struct bop_allocator *allocator;

    if (!writer) {
        return;
    }
    allocator = writer->buf.allocator;
    /* Best effort, both: the next one begins by emptying the file. */
    BOP_IGNORE(writer_free(writer));
    BOP_IGNORE(writer->fs->unlink(writer->fs, writer->temporary));
    bop_free(allocator, writer, sizeof(*writer));
}

int bop__snapshot_writer_finish(struct snapshot_writer *writer, struct snapshot_info *out_info,
                                struct bop_error *err)
{
    struct bop_allocator *allocator = writer->buf.allocator;
    struct snapshot_info *info = &writer->info;
    int closed, rc = finish_content(writer);

    closed = writer_free(writer);
    rc = rc ? rc : closed;
    rc = rc < 0 ? bop_error_set(err, rc, "write %s", writer->temporary)
                : publish(writer->fs, writer->path, writer->temporary, err);
    if (rc < 0) {
        BOP_IGNORE(writer->fs->unlink(writer->fs, writer->temporary));
    } else {
        info->raft.index = info->position.index;
        info->raft.term = info->position.term;
        info->raft.conf_index = info->position.conf_index;
        info->bytes = writer->offset;
        info->digest = writer->tally.digest;
        info->format = MACHINE_FORMAT;
        for (size_t i = 0; i < MACHINE_TABLES; i++) {
            info->entries += writer->tally.records[i];
        }
        *out_info = *info;
    }
    bop_free(allocator, writer, sizeof(*writer));
    return rc;
}

int bop__snapshot_write(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                        struct machine_view *view, struct bop_slice conf,
                        struct snapshot_info *out_info, struct bop_error *err)
{
    struct machine_position position = bop__machine_view_position(view);
    struct snapshot_writer *writer;
    int rc = bop__snapshot_writer_open(allocator, fs, path, &position, conf, true, &writer, err);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_walk(view, bop__snapshot_writer_record, writer);
    if (rc < 0) {
        bop_error_set(err, rc, "write %s", writer->temporary);
        bop__snapshot_writer_drop(writer);
        return rc;
    }
    return bop__snapshot_writer_finish(writer, out_info, err);
}
