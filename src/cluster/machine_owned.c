/*
 * What sessions own, by session: so the end of one costs what it owned, and takes one
 * entry of the log. The key sorts by kind, which is the order in which things end:
 *
 *      session u64 | kind u8 | id u32 | number u64      all big-endian
 *
 * Under id 0, number 0 of a kind is how many there are of it, u32: as all of them end with one
 * entry, there is a bound. While a batch is applied that number lies with the session in memory,
 * and goes to the store with the batch's end, however often it changed; also before a
 * transaction, which may be taken back.
 */
#include "machine_internal.h"

static struct bop_slice make_key(uint8_t out_key[MACHINE_OWNED_KEY],
                                 const struct machine_owned *owned)
{
    machine_store_be64(out_key, owned->session);
    out_key[8] = (uint8_t)owned->kind;
    machine_store_be32(out_key + 9, owned->id);
    machine_store_be64(out_key + 13, owned->number);
    return bop_slice(out_key, MACHINE_OWNED_KEY);
}

int bop__machine_owned_put(struct machine *machine, const struct machine_owned *owned,
                           struct bop_slice value)
{
    uint8_t key[MACHINE_OWNED_KEY];

    return bop__machine_put(machine, MACHINE_OWNED, make_key(key, owned), value);
}

int bop__machine_owned_insert(struct machine *machine, const struct machine_owned *owned,
                              struct bop_slice value, struct bop_slice *out_existing)
{
    uint8_t key[MACHINE_OWNED_KEY];

    return bop__machine_insert(machine, MACHINE_OWNED, make_key(key, owned), value, out_existing);
}

int bop__machine_owned_del(struct machine *machine, const struct machine_owned *owned)
{
    uint8_t key[MACHINE_OWNED_KEY];

    return bop__machine_del(machine, MACHINE_OWNED, make_key(key, owned));
}

int bop__machine_owned_get(struct machine *machine, const struct machine_owned *owned,
                           struct bop_slice *out_value)
{
    uint8_t key[MACHINE_OWNED_KEY];

    return bop_kv_get(machine->txn, machine->tables[MACHINE_OWNED], make_key(key, owned),
                      out_value);
}

/* ---- How many ---- */

static unsigned bit_of(enum machine_owned_kind kind)
{
    return 1u << (kind - 1);
}

static int count_read(struct machine *machine, uint64_t session, enum machine_owned_kind kind,
                      uint32_t *out_count)
{
    struct machine_owned counted = {.session = session, .kind = kind};
    struct bop_slice value;
    int rc = bop__machine_owned_get(machine, &counted, &value);

    *out_count = 0;
    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    if (value.size != 4) {
        return BOP_ECORRUPT;
    }
    *out_count = bop_load_u32(value.data);
    return 0;
}

/* The session, its number of that kind known. */
static int count_find(struct machine *machine, uint64_t id, enum machine_owned_kind kind,
                      struct session **out_session)
{
    struct session *session = bop__machine_session_find(machine, id);
    int rc;

    if (!session) {
        return BOP_ECORRUPT; /* What it owned would have ended with it. */
    }
    *out_session = session;
    if (session->owned_known & bit_of(kind)) {
        return 0;
    }
    rc = count_read(machine, id, kind, &session->owned[kind - 1]);
    if (rc == 0) {
        session->owned_known |= (uint8_t)bit_of(kind);
    }
    return rc;
}

static int count_set(struct machine *machine, struct session *session, enum machine_owned_kind kind,
                     uint32_t count)
{
    if (session->owned_dirty == 0) {
        int rc = bop_buf_append(&machine->owned_dirty, &session->id, sizeof(session->id));

        if (rc < 0) {
            return rc;
        }
    }
    session->owned[kind - 1] = count;
    session->owned_dirty |= (uint8_t)bit_of(kind);
    return 0;
}

int bop__machine_owned_full(struct machine *machine, uint64_t session, enum machine_owned_kind kind,
                            bool *out_full)
{
    struct session *found;
    int rc = count_find(machine, session, kind, &found);

    *out_full = rc == 0 && found->owned[kind - 1] >= MACHINE_SESSION_OWNED_MAX;
    return rc;
}

int bop__machine_owned_add(struct machine *machine, uint64_t session, enum machine_owned_kind kind,
                           bool *out_full)
{
    struct session *found;
    int rc = count_find(machine, session, kind, &found);

    *out_full = rc == 0 && found->owned[kind - 1] >= MACHINE_SESSION_OWNED_MAX;
    return rc < 0 || *out_full ? rc : count_set(machine, found, kind, found->owned[kind - 1] + 1);
}

int bop__machine_owned_sub(struct machine *machine, uint64_t session, enum machine_owned_kind kind)
{
    struct session *found;
    int rc = count_find(machine, session, kind, &found);

    if (rc == 0 && found->owned[kind - 1] == 0) {
        /* Members and registrations that an earlier version made were not counted. */
        return kind == OWNED_LOCK_REQUEST ? BOP_ECORRUPT : 0;
    }
    return rc ? rc : count_set(machine, found, kind, found->owned[kind - 1] - 1);
}

static int count_store(struct machine *machine, uint64_t session, enum machine_owned_kind kind,
                       uint32_t count)
{
    struct machine_owned counted = {.session = session, .kind = kind};
    uint8_t value[4];
    int rc;

    if (count == 0) {
        rc = bop__machine_owned_del(machine, &counted);
        return rc == BOP_ENOTFOUND ? 0 : rc; /* It came and went in this batch. */
    }
    bop_store_u32(value, count);
    return bop__machine_owned_put(machine, &counted, bop_slice(value, sizeof(value)));
}

/* The n-th of those with numbers to be stored; NULL: it has ended since. */
static struct session *dirty_session(const struct machine *machine, size_t n)
{
    return bop__machine_session_find(machine, bop_load_u64(machine->owned_dirty.data + n * 8));
}

int bop__machine_owned_flush(struct machine *machine)
{
    for (size_t n = 0; n < machine->owned_dirty.size / 8; n++) {
        struct session *session = dirty_session(machine, n);

        for (unsigned i = 0; session && i < MACHINE_OWNED_KINDS; i++) {
            enum machine_owned_kind kind = (enum machine_owned_kind)(i + 1);
            int rc = session->owned_dirty & bit_of(kind)
                         ? count_store(machine, session->id, kind, session->owned[i])
                         : 0;

            if (rc < 0) {
                return rc;
            }
        }
        if (session) {
            session->owned_dirty = 0;
        }
    }
    bop_buf_clear(&machine->owned_dirty);
    return 0;
}

void bop__machine_owned_forget(struct machine *machine)
{
    for (size_t n = 0; n < machine->owned_dirty.size / 8; n++) {
        struct session *session = dirty_session(machine, n);

        if (session) {
            session->owned_known &= (uint8_t)~session->owned_dirty;
            session->owned_dirty = 0;
        }
    }
    bop_buf_clear(&machine->owned_dirty);
}

/* ---- The end ---- */

/* The first thing that a session still owns. 0, BOP_ENOTFOUND or another code. */
static int first_of(struct machine *machine, uint64_t session, struct machine_owned *out_owned,
                    struct bop_buf *value)
{
    struct bop_kv_cursor *cursor;
    struct bop_slice key, found;
    uint8_t from[8];
    int rc = bop_kv_cursor_open(machine->txn, machine->tables[MACHINE_OWNED], &cursor);

    if (rc < 0) {
        return rc;
    }
    machine_store_be64(from, session);
    rc = bop_kv_cursor_seek(cursor, BOP_KV_AT_OR_AFTER, bop_slice(from, sizeof(from)), &key,
                            &found);
    if (rc == 0 && (key.size != MACHINE_OWNED_KEY || machine_load_be64(key.data) != session)) {
        rc = BOP_ENOTFOUND;
    }
    if (rc == 0) {
        *out_owned = (struct machine_owned){.session = session,
                                            .kind = (enum machine_owned_kind)key.data[8],
                                            .id = __builtin_bswap32(bop_load_u32(key.data + 9)),
                                            .number = machine_load_be64(key.data + 13)};
        bop_buf_clear(value);
        rc = bop_buf_append(value, found.data, found.size);
    }
    bop_kv_cursor_close(cursor);
    return rc;
}

static int end_one(struct machine *machine, const struct machine_owned *owned,
                   struct bop_slice value)
{
    if (owned->id == 0) {
        return 0; /* Their number, which goes with them. */
    }
    switch (owned->kind) {
    case OWNED_REGISTRATION:
        return bop__machine_registration_end(machine, owned, value);
    case OWNED_MEMBER:
        return bop__machine_member_end(machine, owned);
    case OWNED_LOCK_REQUEST:
        return bop__machine_lock_end(machine, owned);
    }
    return BOP_ECORRUPT;
}

int bop__machine_owned_end(struct machine *machine, uint64_t session)
{
    struct machine_owned owned;
    struct bop_buf value;
    int rc;

    bop_buf_init(&value, machine->allocator, 0);
    while ((rc = first_of(machine, session, &owned, &value)) == 0) {
        rc = bop__machine_owned_del(machine, &owned);
        if (rc == 0) {
            rc = end_one(machine, &owned, bop_buf_slice(&value));
        }
        if (rc < 0) {
            break;
        }
    }
    bop_buf_deinit(&value);
    return rc == BOP_ENOTFOUND ? 0 : rc;
}
