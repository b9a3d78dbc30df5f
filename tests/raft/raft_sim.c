/*
 * A cluster in one process, on virtual time. See raft_sim.h.
 */
#include "raft_sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define TERMS_MAX 100000

static void violation(struct sim *sim, const char *format, ...) BOP_PRINTF(2, 3);

static void violation(struct sim *sim, const char *format, ...)
{
    va_list args;
    int length;

    if (sim->violation[0] != '\0') {
        return;
    }
    length = snprintf(sim->violation, sizeof(sim->violation),
                      "seed %llu, %llu ms: ", (unsigned long long)sim->options.seed,
                      (unsigned long long)sim->now_ms);
    va_start(args, format);
    vsnprintf(sim->violation + length, sizeof(sim->violation) - (size_t)length, format, args);
    va_end(args);
}

/* Tests may stop at lack of memory: it is no fault they look for here. */
static void *must(void *memory)
{
    if (!memory) {
        abort();
    }
    return memory;
}

static uint64_t chance_ms(struct sim *sim, uint64_t max)
{
    return max > 0 ? bop_random_below(&sim->random, max + 1) : 0;
}

/* ---- Logs ---- */

static struct bop_slice keep(struct sim *sim, struct bop_slice data)
{
    struct bop_buf *buf;

    if (data.size == 0) {
        return bop_slice(NULL, 0);
    }
    buf = sim->arena_count > 0 ? sim->arena[sim->arena_count - 1] : NULL;
    if (!buf || buf->capacity - buf->size < data.size) {
        sim->arena = must(realloc(sim->arena, (sim->arena_count + 1) * sizeof(*sim->arena)));
        buf = must(calloc(1, sizeof(*buf)));
        bop_buf_init(buf, NULL, 0);
        if (bop_buf_reserve(buf, data.size + 65536) != 0) {
            abort();
        }
        sim->arena[sim->arena_count++] = buf;
    }
    if (bop_buf_append(buf, data.data, data.size) != 0) {
        abort();
    }
    return bop_slice(buf->data + buf->size - data.size, data.size);
}

static uint64_t log_last(const struct sim_log *log)
{
    return log->first + log->count - 1;
}

static struct bop_raft_entry *log_at(const struct sim_log *log, uint64_t index)
{
    return index >= log->first && index < log->first + log->count
               ? &log->entries[index - log->first]
               : NULL;
}

static void log_reset(struct sim_log *log, uint64_t first)
{
    log->first = first;
    log->count = 0;
}

/* Replace the log from index on. */
static void log_put(struct sim *sim, struct sim_log *log, uint64_t index,
                    const struct bop_raft_entry *entries, unsigned count)
{
    if (index < log->first || index > log->first + log->count) {
        violation(sim, "an append at %llu leaves a gap in the log", (unsigned long long)index);
        return;
    }
    log->count = index - log->first;
    if (log->count + count > log->capacity) {
        log->capacity = (log->count + count) * 2;
        log->entries = must(realloc(log->entries, log->capacity * sizeof(*log->entries)));
    }
    for (unsigned i = 0; i < count; i++) {
        log->entries[log->count] = entries[i];
        log->count++;
    }
}

static void log_drop_below(struct sim_log *log, uint64_t first)
{
    size_t surplus;

    if (first <= log->first) {
        return;
    }
    surplus = first - log->first;
    if (surplus > log->count) {
        surplus = log->count;
    }
    memmove(log->entries, log->entries + surplus, (log->count - surplus) * sizeof(*log->entries));
    log->count -= surplus;
    log->first = first;
}

static void log_copy(struct sim *sim, struct sim_log *to, const struct sim_log *from)
{
    log_reset(to, from->first);
    log_put(sim, to, from->first, from->entries, (unsigned)from->count);
}

static uint64_t hash_entry(const struct bop_raft_entry *entry)
{
    uint64_t hash = UINT64_C(14695981039346656037) ^ (uint64_t)entry->type;

    for (size_t i = 0; i < entry->data.size; i++) {
        hash = (hash ^ entry->data.data[i]) * UINT64_C(1099511628211);
    }
    return hash;
}

/* ---- Network ---- */

static void free_message(struct sim_message *message)
{
    free(message->entries);
    free(message);
}

static void enqueue(struct sim *sim, struct sim_message *message)
{
    struct sim_message **at = &sim->messages;

    while (*at && (*at)->at_ms <= message->at_ms) {
        at = &(*at)->next;
    }
    message->next = *at;
    *at = message;
}

static struct sim_message *new_message(struct sim *sim, struct sim_node *node,
                                       const struct bop_raft_message *in)
{
    struct sim_message *message = must(calloc(1, sizeof(*message)));
    uint64_t from = node->id, to = in->peer;

    message->from = from;
    message->to = to;
    message->message = *in;
    message->message.peer = from;
    message->at_ms = sim->now_ms + 1 + chance_ms(sim, sim->options.latency_ms_max);
    if (bop_random_chance(&sim->random, 1, 100)) {
        message->at_ms += chance_ms(sim, sim->options.latency_ms_max * 20);
    }
    if (in->type != BOP_RAFT_INSTALL) {
        message->at_ms = bop_max_u64(message->at_ms, sim->last_ms[from][to]);
        sim->last_ms[from][to] = message->at_ms;
    }
    return message;
}

/* Fill the entries of an append from the log, in frames of at most piece_max. */
static void send_append(struct sim *sim, struct sim_node *node, const struct bop_raft_message *in)
{
    unsigned left = in->append.count;
    struct bop_raft_message piece = *in;

    do {
        unsigned count = left;
        struct sim_message *message;

        if (sim->options.piece_max > 0 && count > sim->options.piece_max) {
            count = sim->options.piece_max;
        }
        piece.append.count = count;
        message = new_message(sim, node, &piece);
        message->entries = must(calloc(count + 1, sizeof(*message->entries)));
        for (unsigned i = 0; i < count; i++) {
            const struct bop_raft_entry *entry = log_at(&node->log,
                                                        piece.append.prev_index + 1 + i);

            if (!entry) {
                violation(sim, "node %llu sends an entry it does not have",
                          (unsigned long long)node->id);
                free_message(message);
                return;
            }
            message->entries[i] = *entry;
        }
        message->message.append.entries = message->entries;
        enqueue(sim, message);
        left -= count;
        if (left > 0) {
            piece.append.prev_index += count;
            piece.append.prev_term = log_at(&node->log, piece.append.prev_index)->term;
        }
    } while (left > 0);
}

static void send_message(struct sim *sim, struct sim_node *node, const struct bop_raft_message *in)
{
    struct sim_message *message;

    if (in->peer == 0 || in->peer > sim->options.nodes || in->peer == node->id) {
        violation(sim, "node %llu sends to %llu", (unsigned long long)node->id,
                  (unsigned long long)in->peer);
        return;
    }
    if (in->type == BOP_RAFT_APPEND) {
        send_append(sim, node, in);
        return;
    }
    message = new_message(sim, node, in);
    if (in->type == BOP_RAFT_INSTALL) {
        message->snapshot = node->snapshot;
        message->message.install = node->snapshot.meta;
        message->at_ms += chance_ms(sim, sim->options.latency_ms_max * 10);
        sim->installs++;
    }
    enqueue(sim, message);
}

/* ---- The owner of an engine ---- */

static void step(struct sim *sim, struct sim_node *node, struct bop_raft_event *event);

static void commit_entry(struct sim *sim, struct sim_node *node, uint64_t index,
                         const struct bop_raft_entry *entry)
{
    uint64_t hash = hash_entry(entry);

    if (index >= SIM_LOG_MAX) {
        violation(sim, "the simulated log is full");
        return;
    }
    if (index == sim->committed_last + 1) {
        sim->committed[index] = (struct sim_committed){.term = entry->term, .hash = hash};
        sim->committed_last = index;
    } else if (index > sim->committed_last || sim->committed[index].term != entry->term ||
               sim->committed[index].hash != hash) {
        violation(sim, "node %llu commits another entry at %llu (term %llu, not %llu)",
                  (unsigned long long)node->id, (unsigned long long)index,
                  (unsigned long long)entry->term, (unsigned long long)sim->committed[index].term);
    }
}

static void answer_reads(struct sim *sim, struct sim_node *node)
{
    for (unsigned i = 0; i < SIM_READS_MAX; i++) {
        struct sim_read *read = &node->reads[i];

        if (read->context != 0 && read->index != 0 && read->index <= node->applied) {
            if (node->applied < read->floor) {
                violation(sim, "node %llu serves a stale read", (unsigned long long)node->id);
            }
            read->context = 0;
            sim->reads_granted++;
        }
    }
}

static void apply(struct sim *sim, struct sim_node *node)
{
    struct bop_raft_status status;
    uint64_t until;

    bop_raft_status(node->raft, &status);
    if (status.installing) {
        return;
    }
    until = bop_min_u64(status.commit, node->durable);
    while (node->applied < until && sim->violation[0] == '\0') {
        const struct bop_raft_entry *entry = log_at(&node->log, node->applied + 1);

        if (!entry) {
            violation(sim, "node %llu lacks committed entry %llu", (unsigned long long)node->id,
                      (unsigned long long)node->applied + 1);
            return;
        }
        node->applied++;
        commit_entry(sim, node, node->applied, entry);
        node->hash = node->hash * 31 + hash_entry(entry);
        if (entry->type == BOP_RAFT_CHANGE) {
            node->conf_index = node->applied;
            if (bop_raft_configuration_decode(entry->data, &node->conf) != 0) {
                violation(sim, "a committed configuration is malformed");
            }
        }
    }
    sim->acknowledged = bop_max_u64(sim->acknowledged, node->applied);
    answer_reads(sim, node);
}

static void check_leader(struct sim *sim, struct sim_node *node)
{
    struct bop_raft_status status;

    bop_raft_status(node->raft, &status);
    if (status.state != BOP_RAFT_LEADER || status.term >= TERMS_MAX) {
        return;
    }
    if (sim->leaders[status.term] == 0) {
        sim->leaders[status.term] = node->id;
        sim->elections++;
    } else if (sim->leaders[status.term] != node->id) {
        violation(sim, "two leaders in term %llu", (unsigned long long)status.term);
    }
}

static void begin_write(struct sim *sim, struct sim_node *node,
                        const struct bop_raft_append_update *append)
{
    struct bop_raft_entry *entries = must(calloc(append->count, sizeof(*entries)));
    struct sim_write *write;

    for (unsigned i = 0; i < append->count; i++) {
        entries[i] = append->entries[i];
        entries[i].data = keep(sim, append->entries[i].data);
    }
    /* What was durable beyond is not any more, nor will an older write make it so. */
    node->durable = bop_min_u64(node->durable, append->index - 1);
    for (unsigned i = 0; i < node->write_count; i++) {
        struct sim_write *older = &node->writes[(node->write_head + i) % SIM_WRITES_MAX];

        if (older->index + older->count > append->index) {
            older->overtaken = true;
        }
    }
    log_put(sim, &node->log, append->index, entries, append->count);
    if (node->write_count == SIM_WRITES_MAX) {
        violation(sim, "too many writes under way");
        free(entries);
        return;
    }
    node->disk_free_ms = bop_max_u64(node->disk_free_ms, sim->now_ms) +
                         chance_ms(sim, sim->options.disk_ms_max) +
                         (bop_random_chance(&sim->random, 1, 50)
                              ? chance_ms(sim, UINT64_C(20) * sim->options.disk_ms_max)
                              : 0);
    write = &node->writes[(node->write_head + node->write_count++) % SIM_WRITES_MAX];
    *write = (struct sim_write){.index = append->index,
                                .entries = entries,
                                .count = append->count,
                                .done_ms = node->disk_free_ms};
}

static void take_reads(struct sim *sim, struct sim_node *node, const struct bop_raft_update *update)
{
    for (unsigned i = 0; i < update->read_count; i++) {
        struct sim_read *read = NULL;

        for (unsigned j = 0; j < SIM_READS_MAX; j++) {
            if (node->reads[j].context == update->reads[i].context) {
                read = &node->reads[j];
            }
        }
        if (!read || read->index != 0) {
            violation(sim, "node %llu answers a read twice", (unsigned long long)node->id);
        } else if (update->reads[i].code != 0) {
            read->context = 0;
            sim->reads_refused++;
        } else {
            read->index = update->reads[i].index;
            if (read->index < read->floor) {
                violation(sim, "node %llu grants a read at %llu that must see %llu",
                          (unsigned long long)node->id, (unsigned long long)read->index,
                          (unsigned long long)read->floor);
            }
        }
    }
}

static void take_update(struct sim *sim, struct sim_node *node,
                        const struct bop_raft_update *update)
{
    if (update->hard_state) {
        if (update->term < node->term ||
            (update->term == node->term && node->vote != 0 && update->vote != node->vote)) {
            violation(sim, "node %llu takes back its term or vote", (unsigned long long)node->id);
        }
        node->term = update->term;
        node->vote = update->vote;
    }
    for (unsigned i = 0; i < update->append_count; i++) {
        begin_write(sim, node, &update->appends[i]);
    }
    if (update->install) {
        if (update->install->index != node->installing.meta.index) {
            violation(sim, "node %llu installs another snapshot", (unsigned long long)node->id);
        }
        for (unsigned i = 0; i < node->write_count; i++) {
            node->writes[(node->write_head + i) % SIM_WRITES_MAX].overtaken = true;
        }
        node->install_done_ms = sim->now_ms + 1 + chance_ms(sim, sim->options.disk_ms_max * 10);
    }
    for (unsigned i = 0; i < update->message_count; i++) {
        send_message(sim, node, &update->messages[i]);
    }
    if (update->state_changed) {
        check_leader(sim, node);
    }
    take_reads(sim, node, update);
    apply(sim, node);
}

static int try_step(struct sim *sim, struct sim_node *node, struct bop_raft_event *event)
{
    struct bop_raft_update update;
    int rc;

    event->now_ms = sim->now_ms;
    rc = bop_raft_step(node->raft, event, &update);
    if (rc == 0) {
        take_update(sim, node, &update);
    } else if (rc != BOP_ENOTLEADER && rc != BOP_EBUSY && rc != BOP_EINVAL) {
        violation(sim, "node %llu fails: %d %s", (unsigned long long)node->id, rc,
                  bop_raft_last_error(node->raft));
    }
    return rc;
}

static void step(struct sim *sim, struct sim_node *node, struct bop_raft_event *event)
{
    int rc = try_step(sim, node, event);

    if (rc != 0) {
        violation(sim, "node %llu refuses event %d: %d %s", (unsigned long long)node->id,
                  (int)event->type, rc, bop_raft_last_error(node->raft));
    }
}

/* ---- Disk ---- */

static void finish_write(struct sim *sim, struct sim_node *node)
{
    struct sim_write write = node->writes[node->write_head];
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_ENTRIES_PERSISTED};

    node->write_head = (node->write_head + 1) % SIM_WRITES_MAX;
    node->write_count--;
    if (write.index >= node->disk.first) {
        log_put(sim, &node->disk, write.index, write.entries, write.count);
    }
    free(write.entries);
    if (write.overtaken || node->install_done_ms != 0) {
        return;
    }
    node->durable = write.index + write.count - 1;
    event.persisted_index = node->durable;
    step(sim, node, &event);
}

static void drop_writes(struct sim_node *node)
{
    while (node->write_count > 0) {
        free(node->writes[node->write_head].entries);
        node->write_head = (node->write_head + 1) % SIM_WRITES_MAX;
        node->write_count--;
    }
}

static void finish_install(struct sim *sim, struct sim_node *node)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SNAPSHOT_PERSISTED};

    drop_writes(node);
    node->snapshot = node->installing;
    node->install_done_ms = 0;
    log_reset(&node->disk, node->snapshot.meta.index + 1);
    log_reset(&node->log, node->snapshot.meta.index + 1);
    node->durable = node->snapshot.meta.index;
    node->applied = node->snapshot.meta.index;
    node->hash = node->snapshot.hash;
    node->conf = node->snapshot.meta.conf;
    node->conf_index = node->snapshot.meta.conf_index;
    event.snapshot_persisted = &node->snapshot.meta;
    step(sim, node, &event);
}

static void run_disk(struct sim *sim, struct sim_node *node)
{
    while (node->up && !node->hold_disk && node->write_count > 0 &&
           node->writes[node->write_head].done_ms <= sim->now_ms) {
        finish_write(sim, node);
    }
    if (node->up && !node->hold_disk && node->install_done_ms != 0 &&
        node->install_done_ms <= sim->now_ms) {
        finish_install(sim, node);
    }
}

/* ---- Life of a node ---- */

void sim_configuration_of(unsigned voters, struct bop_raft_configuration *out_conf)
{
    memset(out_conf, 0, sizeof(*out_conf));
    out_conf->count = voters;
    for (unsigned i = 0; i < voters; i++) {
        out_conf->servers[i].id = i + 1;
        out_conf->servers[i].role = BOP_RAFT_VOTER;
        snprintf(out_conf->servers[i].address, sizeof(out_conf->servers[i].address), "node%u:1",
                 i + 1);
    }
}

static void recover(struct sim *sim, struct sim_node *node)
{
    log_copy(sim, &node->log, &node->disk);
    node->durable = log_last(&node->log);
    node->applied = node->snapshot.meta.index;
    node->hash = node->snapshot.hash;
    node->conf = node->snapshot.meta.conf;
    node->conf_index = node->snapshot.meta.conf_index;
    node->disk_free_ms = 0;
    node->install_done_ms = 0;
    memset(node->reads, 0, sizeof(node->reads));
}

void sim_start(struct sim *sim, uint64_t id)
{
    struct sim_node *node = &sim->nodes[id];
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_START};
    struct bop_raft_options options = {
        .allocator = sim->options.allocator,
        .id = id,
        .address = "here:1",
        .seed = bop_random_next(&sim->random),
        .inflight_entries_max = 256,
        .install_timeout_ms = 5000,
    };
    struct bop_error err = {0};

    if (node->up) {
        return;
    }
    if (bop_raft_create(sim->options.engine, &options, &node->raft, &err) != 0) {
        violation(sim, "create: %s", err.message);
        return;
    }
    node->up = true;
    recover(sim, node);
    event.start.term = node->term;
    event.start.vote = node->vote;
    event.start.snapshot = node->snapshot.meta.index > 0 ? &node->snapshot.meta : NULL;
    event.start.first_index = node->log.first;
    event.start.entries = node->log.entries;
    event.start.count = node->log.count;
    step(sim, node, &event);
}

/* Part of the write under way may be on disk: entries are written in order. */
static void tear_write(struct sim *sim, struct sim_node *node)
{
    struct sim_write *write = &node->writes[node->write_head];

    if (node->write_count == 0 || write->index < node->disk.first) {
        return;
    }
    log_put(sim, &node->disk, write->index, write->entries,
            (unsigned)bop_random_below(&sim->random, write->count + 1));
}

/* A crash between the snapshot's sync and the log's reset: recovery finishes the reset. */
static void tear_install(struct sim *sim, struct sim_node *node)
{
    if (node->install_done_ms != 0 && bop_random_chance(&sim->random, 1, 4)) {
        node->snapshot = node->installing;
        log_reset(&node->disk, node->snapshot.meta.index + 1);
    }
}

void sim_crash(struct sim *sim, uint64_t id)
{
    struct sim_node *node = &sim->nodes[id];

    if (!node->up) {
        return;
    }
    sim->crashes++;
    node->up = false;
    bop_raft_destroy(node->raft);
    node->raft = NULL;
    if (bop_random_chance(&sim->random, 1, 2)) {
        tear_write(sim, node);
    }
    tear_install(sim, node);
    drop_writes(node);
    for (uint64_t peer = 1; peer <= sim->options.nodes; peer++) {
        sim_break(sim, id, peer);
    }
}

/* All voters have the committed entry at index, and so all below it. */
static bool held_by_all(const struct sim *sim, const struct bop_raft_configuration *conf,
                        uint64_t index, uint64_t but)
{
    for (unsigned i = 0; i < conf->count; i++) {
        const struct sim_node *node = &sim->nodes[conf->servers[i].id];
        const struct bop_raft_entry *entry = log_at(&node->disk, index);

        if (conf->servers[i].role == BOP_RAFT_VOTER && node->id != but &&
            node->snapshot.meta.index < index &&
            (!entry || entry->term != sim->committed[index].term)) {
            return false;
        }
    }
    return true;
}

/* Its last entries of this log may go: the others have them, and who votes stays the same. */
static uint64_t lowest_to_lose(const struct sim *sim, const struct sim_node *node)
{
    uint64_t low = log_last(&node->disk) + 1, leader = sim_leader((struct sim *)sim);
    struct bop_raft_configuration conf;
    struct bop_raft_status status;

    if (leader == 0 || low - 1 > sim->committed_last) {
        return low;
    }
    bop_raft_configuration(sim->nodes[leader].raft, &conf, NULL);
    bop_raft_status(sim->nodes[leader].raft, &status);
    if (status.changing || !status.ready || !held_by_all(sim, &conf, low - 1, node->id)) {
        return low;
    }
    while (low - 1 > bop_max_u64(node->snapshot.meta.index, node->disk.first) &&
           log_at(&node->disk, low - 1)->type != BOP_RAFT_CHANGE) {
        low--;
    }
    return low;
}

void sim_lose_tail(struct sim *sim, uint64_t id)
{
    struct sim_node *node = &sim->nodes[id];
    uint64_t last = log_last(&node->disk), low;

    if (node->up || node->disk.count == 0) {
        return;
    }
    low = lowest_to_lose(sim, node);
    if (low <= last) {
        sim->losses++;
        node->disk.count = low + bop_random_below(&sim->random, last + 1 - low) - node->disk.first;
    }
}

void sim_break(struct sim *sim, uint64_t a, uint64_t b)
{
    struct sim_message **at = &sim->messages;

    while (*at) {
        struct sim_message *message = *at;

        if ((message->from == a && message->to == b) || (message->from == b && message->to == a)) {
            *at = message->next;
            free_message(message);
        } else {
            at = &message->next;
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        struct bop_raft_event event = {.type = BOP_RAFT_EVENT_PEER_LOST};
        struct sim_node *node = &sim->nodes[i == 0 ? a : b];

        event.peer = i == 0 ? b : a;
        if (a != b && node->up) {
            step(sim, node, &event);
        }
    }
}

void sim_isolate(struct sim *sim, uint64_t id)
{
    for (uint64_t peer = 1; peer <= sim->options.nodes; peer++) {
        sim->cut[id][peer] = true;
        sim->cut[peer][id] = true;
    }
}

void sim_heal(struct sim *sim)
{
    memset(sim->cut, 0, sizeof(sim->cut));
}

struct sim *sim_create(const struct sim_options *options)
{
    struct sim *sim = must(calloc(1, sizeof(*sim)));
    struct bop_raft_configuration conf;
    struct bop_raft_entry first = {.term = 1, .type = BOP_RAFT_CHANGE};
    struct bop_buf buf;

    sim->options = *options;
    sim->now_ms = 1000;
    bop_random_seed(&sim->random, options->seed);
    sim->leaders = must(calloc(TERMS_MAX, sizeof(*sim->leaders)));
    sim->committed = must(calloc(SIM_LOG_MAX, sizeof(*sim->committed)));

    sim_configuration_of(options->voters, &conf);
    bop_buf_init(&buf, NULL, 0);
    if (bop_raft_configuration_encode(&conf, &buf) != 0) {
        abort();
    }
    first.data = keep(sim, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
    for (uint64_t id = 1; id <= options->nodes; id++) {
        struct sim_node *node = &sim->nodes[id];

        node->id = id;
        log_reset(&node->disk, 1);
        if (id <= options->voters) {
            node->term = 1;
            log_put(sim, &node->disk, 1, &first, 1);
        }
    }
    return sim;
}

void sim_destroy(struct sim *sim)
{
    for (uint64_t id = 1; id <= sim->options.nodes; id++) {
        struct sim_node *node = &sim->nodes[id];

        bop_raft_destroy(node->raft);
        drop_writes(node);
        free(node->log.entries);
        free(node->disk.entries);
    }
    while (sim->messages) {
        struct sim_message *next = sim->messages->next;

        free_message(sim->messages);
        sim->messages = next;
    }
    for (size_t i = 0; i < sim->arena_count; i++) {
        bop_buf_deinit(sim->arena[i]);
        free(sim->arena[i]);
    }
    free(sim->arena);
    free(sim->leaders);
    free(sim->committed);
    free(sim);
}

/* ---- Time ---- */

static void deliver(struct sim *sim, struct sim_message *message)
{
    struct sim_node *node = &sim->nodes[message->to];
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_RECEIVE};
    struct bop_raft_status status;

    if (!node->up || sim->cut[message->from][message->to]) {
        return;
    }
    if (message->message.type == BOP_RAFT_INSTALL) {
        bop_raft_status(node->raft, &status);
        if (!status.installing) {
            node->installing = message->snapshot;
        }
    }
    event.receive = &message->message;
    step(sim, node, &event);
}

static void run_messages(struct sim *sim)
{
    while (sim->messages && sim->messages->at_ms <= sim->now_ms && sim->violation[0] == '\0') {
        struct sim_message *message = sim->messages;

        sim->messages = message->next;
        deliver(sim, message);
        free_message(message);
    }
}

static void run_timers(struct sim *sim)
{
    for (uint64_t id = 1; id <= sim->options.nodes; id++) {
        struct sim_node *node = &sim->nodes[id];
        struct bop_raft_event event = {.type = BOP_RAFT_EVENT_TIME};

        run_disk(sim, node);
        if (node->up && bop_raft_deadline_ms(node->raft) <= sim->now_ms) {
            step(sim, node, &event);
            if (node->up && bop_raft_deadline_ms(node->raft) <= sim->now_ms) {
                violation(sim, "the deadline of node %llu does not move", (unsigned long long)id);
            }
        }
    }
}

static uint64_t next_ms(const struct sim *sim, uint64_t limit_ms)
{
    uint64_t next = limit_ms;

    if (sim->messages) {
        next = bop_min_u64(next, sim->messages->at_ms);
    }
    for (uint64_t id = 1; id <= sim->options.nodes; id++) {
        const struct sim_node *node = &sim->nodes[id];

        if (!node->up) {
            continue;
        }
        next = bop_min_u64(next, bop_raft_deadline_ms(node->raft));
        if (!node->hold_disk && node->write_count > 0) {
            next = bop_min_u64(next, node->writes[node->write_head].done_ms);
        }
        if (!node->hold_disk && node->install_done_ms != 0) {
            next = bop_min_u64(next, node->install_done_ms);
        }
    }
    return bop_max_u64(next, sim->now_ms + 1);
}

/* One moment in which something happens, at limit_ms at the latest. */
static void run_once(struct sim *sim, uint64_t limit_ms)
{
    sim->now_ms = bop_min_u64(next_ms(sim, limit_ms), limit_ms);
    run_messages(sim);
    run_timers(sim);
}

void sim_run(struct sim *sim, uint64_t ms)
{
    uint64_t end = sim->now_ms + ms;

    while (sim->now_ms < end && sim->violation[0] == '\0') {
        run_once(sim, end);
    }
}

uint64_t sim_leader(struct sim *sim)
{
    uint64_t leader = 0, term = 0;

    for (uint64_t id = 1; id <= sim->options.nodes; id++) {
        struct bop_raft_status status;

        if (!sim->nodes[id].up) {
            continue;
        }
        bop_raft_status(sim->nodes[id].raft, &status);
        if (status.state == BOP_RAFT_LEADER && status.term > term) {
            leader = id;
            term = status.term;
        }
    }
    return leader;
}

uint64_t sim_run_until_leader(struct sim *sim, uint64_t limit_ms)
{
    uint64_t end = sim->now_ms + limit_ms;

    while (sim->violation[0] == '\0') {
        uint64_t leader = sim_leader(sim);

        if (leader != 0 && sim_status(sim, leader).ready) {
            return leader;
        }
        if (sim->now_ms >= end) {
            return 0;
        }
        run_once(sim, end);
    }
    return 0;
}

/* Gets the log, as the leader sees it. */
static bool follows(struct sim *sim, uint64_t leader, uint64_t id)
{
    struct bop_raft_configuration conf;

    if (leader == 0 || !sim->nodes[id].up) {
        return false;
    }
    bop_raft_configuration(sim->nodes[leader].raft, &conf, NULL);
    for (unsigned i = 0; i < conf.count; i++) {
        if (conf.servers[i].id == id) {
            return conf.servers[i].role != BOP_RAFT_SPARE;
        }
    }
    return false;
}

static bool equal(struct sim *sim)
{
    uint64_t leader = sim_leader(sim);

    for (uint64_t id = 1; id <= sim->options.nodes; id++) {
        if (follows(sim, leader, id) && sim->nodes[id].applied != sim->committed_last) {
            return false;
        }
    }
    return leader != 0 && sim_status(sim, leader).commit == sim_status(sim, leader).last_index;
}

/* The same state, and the same idea of who belongs to the cluster. */
static void compare(struct sim *sim, uint64_t a, uint64_t b)
{
    struct bop_raft_configuration conf_a, conf_b;
    uint64_t index_a, index_b;

    bop_raft_configuration(sim->nodes[a].raft, &conf_a, &index_a);
    bop_raft_configuration(sim->nodes[b].raft, &conf_b, &index_b);
    if (sim->nodes[a].hash != sim->nodes[b].hash) {
        violation(sim, "nodes %llu and %llu differ", (unsigned long long)a, (unsigned long long)b);
    }
    for (unsigned i = 0; index_a == index_b && i < conf_a.count; i++) {
        if (conf_a.count != conf_b.count || conf_a.servers[i].id != conf_b.servers[i].id ||
            conf_a.servers[i].role != conf_b.servers[i].role) {
            index_a = UINT64_MAX;
        }
    }
    if (index_a != index_b) {
        violation(sim, "nodes %llu and %llu have other configurations", (unsigned long long)a,
                  (unsigned long long)b);
    }
}

bool sim_run_until_equal(struct sim *sim, uint64_t limit_ms)
{
    uint64_t end = sim->now_ms + limit_ms;
    uint64_t leader;

    while (sim->violation[0] == '\0' && !equal(sim)) {
        if (sim->now_ms >= end) {
            return false;
        }
        run_once(sim, end);
    }
    leader = sim_leader(sim);
    for (uint64_t id = 1; id <= sim->options.nodes; id++) {
        if (id != leader && follows(sim, leader, id)) {
            compare(sim, leader, id);
        }
    }
    return sim->violation[0] == '\0';
}

/* ---- Requests ---- */

struct bop_raft_status sim_status(struct sim *sim, uint64_t id)
{
    struct bop_raft_status status = {0};

    if (sim->nodes[id].up) {
        bop_raft_status(sim->nodes[id].raft, &status);
    }
    return status;
}

int sim_submit(struct sim *sim, uint64_t id, unsigned count)
{
    struct bop_raft_entry entries[64];
    uint64_t values[64];
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SUBMIT};

    for (unsigned i = 0; i < count; i++) {
        values[i] = ++sim->values;
        entries[i] = (struct bop_raft_entry){
            .type = BOP_RAFT_COMMAND,
            .data = bop_slice(&values[i], sizeof(values[i])),
        };
    }
    event.submit.entries = entries;
    event.submit.count = count;
    return try_step(sim, &sim->nodes[id], &event);
}

int sim_change(struct sim *sim, uint64_t id, uint64_t server, enum bop_raft_role role)
{
    struct sim_node *node = &sim->nodes[id];
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_CHANGE};
    struct bop_raft_configuration conf;
    unsigned at = 0;
    int rc;

    bop_raft_configuration(node->raft, &conf, NULL);
    while (at < conf.count && conf.servers[at].id != server) {
        at++;
    }
    if ((unsigned)role == 0) {
        if (at == conf.count) {
            return BOP_EINVAL;
        }
        conf.servers[at] = conf.servers[--conf.count];
    } else {
        if (at == conf.count) {
            conf.count++;
            memset(&conf.servers[at], 0, sizeof(conf.servers[at]));
            conf.servers[at].id = server;
            snprintf(conf.servers[at].address, sizeof(conf.servers[at].address), "node%llu:1",
                     (unsigned long long)server);
        }
        conf.servers[at].role = role;
    }
    event.change = &conf;
    rc = try_step(sim, node, &event);
    sim->changes += rc == 0;
    return rc;
}

int sim_transfer(struct sim *sim, uint64_t id, uint64_t to)
{
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_TRANSFER};

    event.peer = to;
    return try_step(sim, &sim->nodes[id], &event);
}

int sim_snapshot(struct sim *sim, uint64_t id, uint64_t trailing)
{
    struct sim_node *node = &sim->nodes[id];
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_SNAPSHOT_TAKEN};
    struct sim_snapshot snapshot = {.hash = node->hash};
    const struct bop_raft_entry *entry = log_at(&node->log, node->applied);
    int rc;

    if (!entry || node->conf_index == 0) {
        return BOP_EINVAL;
    }
    snapshot.meta.index = node->applied;
    snapshot.meta.term = entry->term;
    snapshot.meta.conf = node->conf;
    snapshot.meta.conf_index = node->conf_index;
    event.taken.snapshot = &snapshot.meta;
    event.taken.trailing = trailing;
    rc = try_step(sim, node, &event);
    if (rc == 0) {
        node->snapshot = snapshot;
        if (node->applied > trailing) {
            log_drop_below(&node->log, node->applied - trailing + 1);
            log_drop_below(&node->disk, node->applied - trailing + 1);
        }
    }
    return rc;
}

int sim_read(struct sim *sim, uint64_t id)
{
    struct sim_node *node = &sim->nodes[id];
    struct bop_raft_event event = {.type = BOP_RAFT_EVENT_READ};

    for (unsigned i = 0; i < SIM_READS_MAX; i++) {
        if (node->reads[i].context == 0) {
            event.read_context = ++sim->contexts;
            node->reads[i] = (struct sim_read){.context = event.read_context,
                                               .floor = sim->acknowledged};
            return try_step(sim, node, &event);
        }
    }
    return BOP_EBUSY;
}

void sim_print(struct sim *sim)
{
    for (uint64_t id = 1; id <= sim->options.nodes; id++) {
        struct sim_node *node = &sim->nodes[id];
        struct bop_raft_status status = sim_status(sim, id);
        struct bop_raft_configuration conf = {.count = 0};
        uint64_t conf_index = 0;

        printf(
            "# node %llu %s: state %d term %llu leader %llu commit %llu last %llu snapshot %llu%s "
            "applied %llu durable %llu log %llu+%zu;",
            (unsigned long long)id, node->up ? "up" : "down", (int)status.state,
            (unsigned long long)status.term, (unsigned long long)status.leader,
            (unsigned long long)status.commit, (unsigned long long)status.last_index,
            (unsigned long long)status.snapshot_index, status.installing ? " installing" : "",
            (unsigned long long)node->applied, (unsigned long long)node->durable,
            (unsigned long long)node->log.first, node->log.count);
        if (node->up) {
            bop_raft_configuration(node->raft, &conf, &conf_index);
        }
        printf(" servers @%llu", (unsigned long long)conf_index);
        for (unsigned i = 0; i < conf.count; i++) {
            printf(" %llu%c", (unsigned long long)conf.servers[i].id, "?vsp"[conf.servers[i].role]);
        }
        for (unsigned i = 0; status.state == BOP_RAFT_LEADER && i < conf.count; i++) {
            printf(" match %llu:%llu", (unsigned long long)conf.servers[i].id,
                   (unsigned long long)bop_raft_match_index(node->raft, conf.servers[i].id));
        }
        printf("\n");
    }
}
