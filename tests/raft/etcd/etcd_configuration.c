/*
 * Configurations: those of the log, which our owner takes to be in force as soon
 * as they are written, and their members, which etcd takes in once committed.
 */
#include "engine_etcd.h"

#include <bop/mem.h>

void bop__etcd_members(const struct bop_raft_configuration *conf, struct etcd_members *out)
{
    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < conf->count; i++) {
        const struct bop_raft_server *server = &conf->servers[i];

        if (server->role == BOP_RAFT_VOTER) {
            out->voters[out->voter_count++] = server->id;
        } else if (server->role == BOP_RAFT_STANDBY) {
            out->learners[out->learner_count++] = server->id;
        }
    }
}

static unsigned count_changes(const struct bop_raft_entry *entries, size_t count)
{
    unsigned changes = 0;

    for (size_t i = 0; i < count; i++) {
        changes += entries[i].type == BOP_RAFT_CHANGE;
    }
    return changes;
}

int bop__etcd_entries(struct etcd_engine *self, const struct bop_raft_entry *entries, size_t count,
                      struct etcd_entries *out)
{
    unsigned changes = count_changes(entries, count);
    size_t size = count * sizeof(struct etcd_entry);
    struct etcd_members *members;
    struct etcd_entry *list;

    /* One block: first the members, which need no less alignment. */
    members = bop_alloc(self->allocator, changes * sizeof(*members) + size + 1);
    if (!members) {
        return BOP_ENOMEM;
    }
    list = (struct etcd_entry *)(void *)(members + changes);
    *out = (struct etcd_entries){.entries = list, .changes = members, .count = count};
    for (size_t i = 0; i < count; i++) {
        struct bop_raft_configuration conf;

        list[i] = (struct etcd_entry){.term = entries[i].term,
                                      .change = entries[i].type == BOP_RAFT_CHANGE,
                                      .size = (uint32_t)entries[i].data.size};
        if (list[i].change) {
            if (bop_raft_configuration_decode(entries[i].data, &conf) != 0) {
                bop_free(self->allocator, out->changes ? (void *)(uintptr_t)out->changes : NULL,
                         changes * sizeof(*members) + size + 1);
                return BOP_EINVAL;
            }
            bop__etcd_members(&conf, members++);
        }
    }
    return 0;
}

void bop__etcd_entries_free(struct etcd_engine *self, struct etcd_entries *entries)
{
    void *block = (void *)(uintptr_t)entries->changes;
    size_t size = (size_t)((const char *)(entries->entries + entries->count) - (char *)block) + 1;

    bop_free(self->allocator, block, size);
}

static int push(struct etcd_engine *self, uint64_t index, const struct bop_raft_configuration *conf)
{
    if (self->change_count == self->change_capacity) {
        unsigned capacity = self->change_capacity ? self->change_capacity * 2 : 4;
        struct etcd_change *changes = bop_realloc(self->allocator, self->changes,
                                                  self->change_capacity * sizeof(*changes),
                                                  capacity * sizeof(*changes));

        if (!changes) {
            return BOP_ENOMEM;
        }
        self->changes = changes;
        self->change_capacity = capacity;
    }
    self->changes[self->change_count].index = index;
    self->changes[self->change_count++].conf = *conf;
    return 0;
}

int bop__etcd_changes_append(struct etcd_engine *self, uint64_t index,
                             const struct bop_raft_entry *entries, size_t count)
{
    while (self->change_count > 0 && self->changes[self->change_count - 1].index >= index) {
        self->change_count--;
    }
    for (size_t i = 0; i < count; i++) {
        struct bop_raft_configuration conf;
        int rc = 0;

        if (entries[i].type == BOP_RAFT_CHANGE) {
            rc = bop_raft_configuration_decode(entries[i].data, &conf);
            rc = rc == 0 ? push(self, index + i, &conf) : rc;
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

int bop__etcd_changes_reset(struct etcd_engine *self, uint64_t index,
                            const struct bop_raft_configuration *conf)
{
    self->change_count = 0;
    return push(self, index, conf);
}

void bop__etcd_changes_settle(struct etcd_engine *self, uint64_t commit)
{
    unsigned old = 0;

    while (old + 1 < self->change_count && self->changes[old + 1].index <= commit) {
        old++;
    }
    if (old > 0) {
        self->change_count -= old;
        memmove(self->changes, self->changes + old, self->change_count * sizeof(*self->changes));
    }
}

const struct etcd_change *bop__etcd_change_at(const struct etcd_engine *self, uint64_t index)
{
    for (unsigned i = self->change_count; i > 0; i--) {
        if (self->changes[i - 1].index <= index) {
            return &self->changes[i - 1];
        }
    }
    return NULL;
}
