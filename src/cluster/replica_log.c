/*
 * Entries: the log on disk, numbered as consensus numbers them, and the cache of
 * the newest ones in front of it. A record's tag is term * 256 + type.
 */
#include "buggify.h"
#include "replica_internal.h"

static void on_durable(void *user, uint64_t seq)
{
    struct replica *replica = user;

    replica->durable = seq;
    bop__entry_cache_trim(&replica->cache, seq);
}

static void on_failed(void *user, int code, const char *message)
{
    struct replica *replica = user;

    bop__replica_fail(replica, code, "the log failed: %s", message);
}

int bop__replica_log_open(struct replica *replica, struct bop_error *err)
{
    char path[PATH_MAX_BYTES];
    struct bop_aof_recovery recovery;
    struct bop_aof_options options = {
        .allocator = replica->options.allocator,
        .fs = replica->fs,
        .executor = replica->options.log_executor,
        .log = replica->options.log,
        .metrics = replica->options.metrics,
        .path = path,
        .segment_bytes = replica->options.segment_bytes,
        .pending_bytes_max = (uint64_t)LOG_PENDING_MAX + UNCOMMITTED_MAX + BOP_WIRE_FRAME_MAX * 4,
        .no_footers = true, /* Snapshots let segments go soon. */
        .room_min = 1,      /* New writes are refused before, with NO_ROOM; entries are not. */
        .keeps_without_room = true,
        .on_durable = on_durable,
        .on_failed = on_failed,
        .user = replica,
    };
    int rc = bop__replica_path(replica, path, "log");

    if (rc < 0) {
        return rc;
    }
    rc = bop_aof_open(&options, &replica->aof, &recovery, err);
    if (rc < 0) {
        return rc;
    }
    if (recovery.torn_from_seq != 0) {
        bop_log(replica->options.log, BOP_LOG_WARN, "log",
                "cut a torn tail that was never acknowledged from=%" PRIu64 " bytes=%" PRIu64,
                recovery.torn_from_seq, recovery.torn_bytes);
    }
    replica->durable = bop_aof_durable(replica->aof);
    replica->durable_told = replica->durable;
    return 0;
}

/* Drop what a conflicting leader's entries replace. */
static int truncate(struct replica *replica, uint64_t last_kept)
{
    int rc = bop_aof_truncate_back(replica->aof, last_kept);

    if (rc < 0) {
        return rc;
    }
    bop__entry_cache_truncate(&replica->cache, last_kept);
    replica->log_window_count = 0;
    replica->durable = bop_min_u64(replica->durable, last_kept);
    replica->durable_told = bop_min_u64(replica->durable_told, last_kept);
    return 0;
}

static int reserve_records(struct replica *replica, unsigned count)
{
    size_t size = sizeof(struct bop_aof_record);
    struct bop_aof_record *records;

    if (count <= replica->log_records_capacity) {
        return 0;
    }
    records = bop_realloc(replica->allocator, replica->log_records,
                          replica->log_records_capacity * size, count * size);
    if (!records) {
        return BOP_ENOMEM;
    }
    replica->log_records = records;
    replica->log_records_capacity = count;
    return 0;
}

int bop__replica_log_append(struct replica *replica, uint64_t index,
                            const struct bop_raft_entry *entries, unsigned count)
{
    uint64_t time_us = bop_clock_wall_ms(replica->options.clock) * 1000;
    int rc = reserve_records(replica, count);

    if (rc == 0 && index <= bop_aof_last(replica->aof)) {
        rc = truncate(replica, index - 1);
    }
    if (rc < 0) {
        return rc;
    }
    BOP_ASSERT(index == bop_aof_last(replica->aof) + 1);
    for (unsigned n = 0; n < count; n++) {
        replica->disk_taken += entries[n].data.size;
        replica->log_records[n] = (struct bop_aof_record){
            .tag = entries[n].term << 8 | (uint64_t)entries[n].type,
            .time_us = time_us,
            .body = entries[n].data,
        };
    }
    rc = bop__entry_cache_append(&replica->cache, index, entries, count);
    return rc < 0 ? rc : bop_aof_append(replica->aof, replica->log_records, count);
}

const struct bop_raft_entry *bop__replica_log_get(struct replica *replica, uint64_t index,
                                                  struct bop_raft_entry *storage)
{
    const struct bop_raft_entry *cached = bop__entry_cache_get(&replica->cache, index);
    const struct bop_aof_view *view;
    struct bop_error err = {0};

    if (cached) {
        return cached;
    }
    if (index < replica->log_window || index - replica->log_window >= replica->log_window_count) {
        unsigned max = buggify(BUGGIFY_LOG_READ_ONE) ? 1 : LOG_READ_MAX;
        int rc = bop_aof_read(replica->aof, index, max, LOG_READ_BYTES, &replica->log_scratch,
                              replica->log_views, &err);

        replica->log_window_count = 0;
        if (rc < 0) {
            bop__replica_fail(replica, rc, "read entry %" PRIu64 " of the log: %s", index,
                              err.message);
            return NULL;
        }
        replica->log_window = index;
        replica->log_window_count = (unsigned)rc;
    }
    view = &replica->log_views[index - replica->log_window];
    storage->term = view->tag >> 8;
    storage->type = (enum bop_raft_entry_type)(view->tag & 0xff);
    storage->data = view->payload;
    return storage;
}
