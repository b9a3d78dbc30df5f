/*
 * Sessions: a table of all of them in memory, and what their commands do.
 *
 * A session's id is the index of the entry that opened it. Its writes are
 * numbered by the client, which says with each one up to where it has all
 * replies; those are forgotten, and the others answered again if asked for:
 *
 *      1 ... acked | acked + 1 ...... acked + MACHINE_WINDOW_MAX | above
 *       STALE        run once, then the reply as it was            BUSY
 *
 * Writes run in the order of the log, whatever their numbers.
 */
#include <openssl/crypto.h>

#include "machine_internal.h"

/* ---- The table ---- */

static size_t slot_of(const struct session_table *table, uint64_t id)
{
    return (size_t)machine_mix(0, id) & (table->capacity - 1);
}

static struct session *table_find(const struct session_table *table, uint64_t id)
{
    if (table->capacity == 0 || id == 0) {
        return NULL;
    }
    for (size_t i = slot_of(table, id); table->slots[i].id != 0;
         i = (i + 1) & (table->capacity - 1)) {
        if (table->slots[i].id == id) {
            return &table->slots[i];
        }
    }
    return NULL;
}

/* There is room, and no session of that id. */
static struct session *table_place(struct session_table *table, uint64_t id)
{
    size_t i = slot_of(table, id);

    while (table->slots[i].id != 0) {
        i = (i + 1) & (table->capacity - 1);
    }
    table->slots[i] = (struct session){.id = id, .seen_ms = MACHINE_SEEN_UNKNOWN};
    table->count++;
    table->silent_ms = 0;
    return &table->slots[i];
}

static void table_free(struct bop_allocator *allocator, struct session_table *table)
{
    bop_free(allocator, table->slots, table->capacity * sizeof(*table->slots));
    *table = (struct session_table){0};
}

/* Room for one more at most at three quarters. */
static int table_reserve(struct bop_allocator *allocator, struct session_table *table)
{
    struct session_table grown = {0};

    if (table->capacity > 0 && table->count + 1 <= table->capacity / 4 * 3) {
        return 0;
    }
    grown.capacity = table->capacity ? table->capacity * 2 : MACHINE_SESSION_SLOTS_MIN;
    grown.slots = bop_alloc_array(allocator, grown.capacity, sizeof(*grown.slots));
    if (!grown.slots) {
        return BOP_ENOMEM;
    }
    for (size_t i = 0; i < table->capacity; i++) {
        if (table->slots[i].id != 0) {
            *table_place(&grown, table->slots[i].id) = table->slots[i];
        }
    }
    table_free(allocator, table);
    *table = grown;
    return 0;
}

/* Those behind it in its run move up to where a search for them still gets. */
static void table_remove(struct session_table *table, struct session *session)
{
    size_t mask = table->capacity - 1;
    size_t hole = (size_t)(session - table->slots);

    for (size_t i = (hole + 1) & mask; table->slots[i].id != 0; i = (i + 1) & mask) {
        size_t home = slot_of(table, table->slots[i].id);

        if (((i - home) & mask) >= ((i - hole) & mask)) {
            table->slots[hole] = table->slots[i];
            hole = i;
        }
    }
    table->slots[hole].id = 0;
    table->count--;
}

struct session *bop__machine_session_find(const struct machine *machine, uint64_t id)
{
    return table_find(&machine->sessions, id);
}

/* Add a session as the store has it. */
static int load_one(struct machine *machine, struct session_table *table, struct bop_slice key,
                    struct bop_slice value)
{
    struct machine_session_record record;
    const struct session *old;
    struct session *session;
    int rc;

    rc = bop__machine_record_check(MACHINE_SESSIONS, key, value);
    if (rc == 0) {
        rc = bop__machine_session_decode(value, &record);
    }
    if (rc == 0) {
        rc = table_reserve(machine->allocator, table);
    }
    if (rc != 0) {
        return rc;
    }
    session = table_place(table, machine_load_be64(key.data));
    session->timeout_ms = record.timeout_ms;
    session->grace_ms = record.grace_ms;
    memcpy(session->token, record.token, BOP_TOKEN_SIZE);
    old = table_find(&machine->sessions, session->id);
    if (old) {
        session->seen_ms = old->seen_ms;
        session->via = old->via;
        session->cut = old->cut;
    }
    return 0;
}

int bop__machine_sessions_load(struct machine *machine, struct bop_kv_txn *txn)
{
    struct session_table table = {0};
    struct bop_kv_cursor *cursor;
    struct bop_slice key, value;
    int rc = bop_kv_cursor_open(txn, machine->tables[MACHINE_SESSIONS], &cursor);

    if (rc < 0) {
        return rc;
    }
    rc = bop_kv_cursor_seek(cursor, BOP_KV_FIRST, bop_slice(NULL, 0), &key, &value);
    while (rc == 0) {
        rc = load_one(machine, &table, key, value);
        if (rc == 0) {
            rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bop_slice(NULL, 0), &key, &value);
        }
    }
    bop_kv_cursor_close(cursor);
    if (rc != BOP_ENOTFOUND) {
        table_free(machine->allocator, &table);
        return rc;
    }
    table_free(machine->allocator, &machine->sessions);
    machine->sessions = table;
    return 0;
}

/* ---- Commands ---- */

/* Run a write that was not run before, and remember it. */
static int run_once(struct machine *machine, uint64_t index, const struct command *command,
                    struct session *session, struct chunk_state *chunk,
                    struct machine_reply *out_reply)
{
    unsigned bit = (unsigned)(command->sequence % MACHINE_CHUNK_REPLIES);
    uint64_t acked = bop_max_u64(session->acked, command->acked);
    uint64_t first = (session->acked + 1) / MACHINE_CHUNK_REPLIES;
    uint64_t end = bop_min_u64((acked + 1) / MACHINE_CHUNK_REPLIES, session->chunk_last + 1);
    int rc;

    machine->entry.session = session->id;
    rc = bop__machine_execute(machine, index, command->operation, out_reply);
    if (rc < 0) {
        return rc;
    }
    if (out_reply->size == MACHINE_RESULT_LARGE) {
        rc = bop__machine_large_put(machine, session->id, command->sequence);
        if (rc < 0) {
            return rc;
        }
    }
    chunk->chunk.applied |= UINT64_C(1) << bit;
    chunk->chunk.replies[bit] = *out_reply;
    chunk->chunk.acked = acked;
    chunk->dirty = true;
    /* This one's chunk is not among them: its sequence is above acked. */
    rc = bop__machine_replies_remove(machine, session, first, end);
    session->acked = acked;
    session->chunk_last = bop_max_u64(session->chunk_last, chunk->number);
    return rc;
}

int bop__machine_session_write(struct machine *machine, uint64_t index,
                               const struct command *command, struct machine_reply *out_reply)
{
    struct session *session = table_find(&machine->sessions, command->session);
    struct chunk_state *chunk;
    unsigned bit = (unsigned)(command->sequence % MACHINE_CHUNK_REPLIES);
    int rc;

    if (command->acked >= command->sequence) { /* A sequence of 0 is refused here as well. */
        machine_reply_set(out_reply, BOP_STATUS_BAD_REQUEST);
        return 0;
    }
    if (!session) {
        machine_reply_set(out_reply, BOP_STATUS_NO_SESSION);
        return 0;
    }
    rc = bop__machine_replies_load(machine, session);
    if (rc < 0) {
        return rc;
    }
    if (command->sequence <= session->acked) {
        machine_reply_set(out_reply, BOP_STATUS_STALE);
        return 0;
    }
    /* Before a chunk is made for it; one that has run is never above the window. */
    if (command->sequence - bop_max_u64(session->acked, command->acked) > MACHINE_WINDOW_MAX) {
        machine_reply_set(out_reply, BOP_STATUS_BUSY);
        return 0;
    }
    rc = bop__machine_replies_chunk(machine, session, command->sequence, &chunk);
    if (rc < 0) {
        return rc;
    }
    if (chunk->chunk.applied >> bit & 1) {
        *out_reply = chunk->chunk.replies[bit];
        machine->batch_replays++;
        return out_reply->size == MACHINE_RESULT_LARGE
                   ? bop__machine_large_get(machine, session->id, command->sequence)
                   : 0;
    }
    return run_once(machine, index, command, session, chunk, out_reply);
}

int bop__machine_session_open(struct machine *machine, uint64_t index,
                              const struct command *command, struct machine_reply *out_reply)
{
    struct machine_session_record record = {
        .timeout_ms = bop__machine_session_timeout(command->timeout_ms),
        .grace_ms = command->grace_ms,
        .opened_ms = machine->position.time_ms};
    uint8_t key[8], bytes[MACHINE_SESSION_SIZE_MAX];
    struct session *session;
    size_t size;
    int rc;

    if (record.grace_ms > 0 && machine->level < MACHINE_LEVEL_GRACE) {
        machine_reply_set(out_reply, BOP_STATUS_TOO_OLD);
        return 0;
    }
    if (machine->sessions.count >= MACHINE_SESSIONS_MAX) {
        machine_reply_set(out_reply, BOP_STATUS_BUSY);
        return 0;
    }
    memcpy(record.token, command->token, BOP_TOKEN_SIZE);
    rc = table_reserve(machine->allocator, &machine->sessions);
    if (rc < 0) {
        return rc;
    }
    machine_store_be64(key, index);
    size = bop__machine_session_encode(bytes, &record);
    rc = bop__machine_put_lasting(machine, MACHINE_SESSIONS, bop_slice(key, sizeof(key)),
                                  bop_slice(bytes, size));
    if (rc < 0) {
        return rc;
    }
    session = table_place(&machine->sessions, index);
    session->timeout_ms = record.timeout_ms;
    session->grace_ms = record.grace_ms;
    memcpy(session->token, record.token, BOP_TOKEN_SIZE);
    session->loaded = true;                                            /* There are no chunks, */
    session->owned_known = (uint8_t)((1u << MACHINE_OWNED_KINDS) - 1); /* and nothing is owned. */
    machine_reply_set(out_reply, BOP_STATUS_OK);
    machine_reply_add_u64(out_reply, index);
    return bop__machine_event(
        machine, &(struct bop_event){.type = BOP_EVENT_SESSION_OPEN, .session = index});
}

/* Remove a session and all that hangs off it. */
static int end_session(struct machine *machine, struct session *session, uint8_t flags)
{
    struct bop_event event = {
        .type = BOP_EVENT_SESSION_END, .flags = flags, .session = session->id};
    uint8_t key[8];
    int rc = bop__machine_replies_load(machine, session);

    if (rc == 0) {
        rc = bop__machine_owned_end(machine, session->id);
    }
    if (rc == 0) {
        rc = bop__machine_event(machine, &event);
    }
    if (rc == 0) {
        rc = bop__machine_replies_remove(machine, session,
                                         (session->acked + 1) / MACHINE_CHUNK_REPLIES,
                                         session->chunk_last + 1);
    }
    if (rc == 0) {
        machine_store_be64(key, session->id);
        rc = bop__machine_del_lasting(machine, MACHINE_SESSIONS, bop_slice(key, sizeof(key)));
    }
    if (rc == 0) {
        table_remove(&machine->sessions, session);
    }
    return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc;
}

static bool token_equal(const struct session *session, const uint8_t *token)
{
    return CRYPTO_memcmp(session->token, token, BOP_TOKEN_SIZE) == 0;
}

int bop__machine_session_close(struct machine *machine, const struct command *command,
                               struct machine_reply *out_reply)
{
    struct session *session = table_find(&machine->sessions, command->session);

    if (!session) {
        machine_reply_set(out_reply, BOP_STATUS_NO_SESSION);
        return 0;
    }
    if (!token_equal(session, command->token)) {
        machine_reply_set(out_reply, BOP_STATUS_REFUSED);
        return 0;
    }
    machine_reply_set(out_reply, BOP_STATUS_OK);
    session->ending = true;
    return end_session(machine, session, 0);
}

int bop__machine_sessions_expire(struct machine *machine, const struct command *command,
                                 struct machine_reply *out_reply)
{
    /* All of them first, so that none of them is given what another one leaves. */
    for (size_t at = 0; at < command->expired.size; at += 8) {
        struct session *session = table_find(&machine->sessions,
                                             bop_load_u64(command->expired.data + at));

        if (session) {
            session->ending = true;
        }
    }
    for (size_t at = 0; at < command->expired.size; at += 8) {
        struct session *session = table_find(&machine->sessions,
                                             bop_load_u64(command->expired.data + at));
        int rc = session ? end_session(machine, session, BOP_EVENT_EXPIRED) : 0;

        if (rc < 0) {
            return rc;
        }
    }
    machine_reply_set(out_reply, BOP_STATUS_OK);
    return 0;
}

/* ---- Liveness, which is not replicated ---- */

uint64_t bop__machine_session_count(const struct machine *machine)
{
    return machine->sessions.count;
}

bool bop__machine_session_check(const struct machine *machine, uint64_t session,
                                const uint8_t *token)
{
    const struct session *found = table_find(&machine->sessions, session);

    return found && (!token || token_equal(found, token));
}

/* The time at which it is silent for too long is put off by that, but for a clock that was not
 * known or went back. */
static void see(struct machine *machine, struct session *session, uint64_t seen_ms)
{
    if (seen_ms < session->seen_ms) {
        machine->sessions.silent_ms = 0;
    }
    session->seen_ms = seen_ms;
}

bool bop__machine_session_seen(struct machine *machine, uint64_t session, uint64_t seen_ms)
{
    struct session *found = table_find(&machine->sessions, session);

    if (found) {
        see(machine, found, seen_ms);
        found->cut = false;
    }
    return found != NULL;
}

bool bop__machine_session_heard(struct machine *machine, uint64_t session, uint64_t via,
                                uint64_t seen_ms)
{
    struct session *found = table_find(&machine->sessions, session);

    if (found) {
        see(machine, found, seen_ms);
        found->cut = false;
        found->via = via;
    }
    return found != NULL;
}

void bop__machine_session_wrote(struct machine *machine, uint64_t session, uint64_t via,
                                uint64_t seen_ms)
{
    struct session *found = table_find(&machine->sessions, session);

    if (found && !found->cut) {
        see(machine, found, seen_ms);
        found->via = found->via ? found->via : via;
    }
}

void bop__machine_session_cut(struct machine *machine, uint64_t session, uint64_t via,
                              uint64_t now_ms)
{
    struct session *found = table_find(&machine->sessions, session);

    /* It may have gone on through another node, whose word came faster. */
    if (found && found->grace_ms > 0 && found->via == via && !found->cut) {
        found->cut = true;
        found->seen_ms = now_ms;
        machine->sessions.silent_ms = 0;
    }
}

void bop__machine_sessions_seen_all(struct machine *machine, uint64_t seen_ms)
{
    machine->sessions.silent_ms = 0;
    for (size_t i = 0; i < machine->sessions.capacity; i++) {
        machine->sessions.slots[i].seen_ms = seen_ms;
        machine->sessions.slots[i].cut = false;
        machine->sessions.slots[i].via = 0;
    }
}

/* For how long nothing need be heard of it. */
static uint64_t patience_ms(const struct session *session)
{
    return session->cut ? bop_min_u64(session->grace_ms, session->timeout_ms) : session->timeout_ms;
}

/* When it will have been silent for too long, if it is not heard of. */
static uint64_t silent_ms(const struct session *session)
{
    uint64_t patience = patience_ms(session);

    return session->seen_ms > UINT64_MAX - patience ? UINT64_MAX : session->seen_ms + patience;
}

/*
 * Until the time at which the first of them will have been silent for too long as of now, there
 * is none to be found: what is heard meanwhile only puts that off. So all of them are looked
 * at as often as a session's patience ends, and not as often as somebody asks.
 */
size_t bop__machine_sessions_expired(struct machine *machine, uint64_t now_ms,
                                     uint64_t *out_sessions, size_t max)
{
    struct session_table *table = &machine->sessions;
    uint64_t first_ms = UINT64_MAX;
    size_t count = 0;

    if (now_ms <= table->silent_ms) {
        return 0;
    }
    for (size_t i = 0; i < table->capacity && count < max; i++) {
        struct session *session = &table->slots[i];

        if (session->id == 0) {
            continue;
        }
        if (session->seen_ms == MACHINE_SEEN_UNKNOWN) {
            session->seen_ms = now_ms;
        }
        if (silent_ms(session) < now_ms) {
            out_sessions[count++] = session->id;
        }
        first_ms = bop_min_u64(first_ms, silent_ms(session));
    }
    /* Those found are there until an entry ends them, which may not come to pass. */
    table->silent_ms = count > 0 || max == 0 ? 0 : first_ms;
    return count;
}
