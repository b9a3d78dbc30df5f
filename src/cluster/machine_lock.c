/*
 * Locks: what changes them. One kind serves all: a lock has a capacity, a request takes
 * some of it. A mutex has the capacity 1; of a semaphore's n, requests take what they
 * like; of a lock for readers and writers, readers take 1 and writers all.
 *
 * Requests are served strictly in the order of their tickets, which are the indexes of
 * their entries: nobody overtakes the head of those that wait, however little it wants.
 * So those granted always come before those that wait,
 *
 *      tickets    12 15 16 | 20 31 32 ...
 *                 granted  | waiting
 *                      `granted` of the lock
 *
 * and neither granting nor leaving costs more for a long queue.
 *
 * The owner is the request, not its session: a session that asks twice waits for itself.
 * The token of a grant is the index of the entry that granted it, so it rises from grant to grant
 * of a lock, beyond deletion and making it anew; those granted side by side by one entry have the
 * same.
 *
 * All requests of a session end with it. Of the sessions that an entry ends, none is granted
 * anything on the way: where such a one is at the head, granting stops, and goes on when it is
 * taken out.
 *
 * Requests of a lock lie under an id that is taken when the first one comes: the lower half of its
 * ticket, or the next number that no lock uses. Ids are used again, for nothing is left under
 * them: a busy server would have given out every one of them in a day.
 */
#include "machine_lock.h"

/* A lock under work. */
struct work {
    struct machine *machine;
    struct bop_slice name; /* Not borrowed from the store. */
    struct machine_lock lock;
};

static int missing_is_corrupt(int rc)
{
    return rc == BOP_ENOTFOUND ? BOP_ECORRUPT : rc;
}

static int load(struct work *work)
{
    return bop__machine_lock_find(work->machine->txn, work->machine->tables, work->name,
                                  &work->lock);
}

/* Store the lock's record, or remove it, if nothing keeps it. */
static int store(struct work *work)
{
    uint8_t bytes[MACHINE_LOCK_SIZE];

    if (work->lock.requests == 0) {
        work->lock.id = 0;
        work->lock.granted = 0;
        if (!work->lock.stays) {
            return missing_is_corrupt(bop__machine_del(work->machine, MACHINE_LOCKS, work->name));
        }
    }
    bop__machine_lock_encode(bytes, &work->lock);
    return bop__machine_put(work->machine, MACHINE_LOCKS, work->name,
                            bop_slice(bytes, sizeof(bytes)));
}

static int request_find(struct work *work, uint64_t ticket, struct machine_lock_request *out)
{
    if (work->lock.requests == 0) {
        return BOP_ENOTFOUND;
    }
    return bop__machine_lock_request_find(work->machine->txn, work->machine->tables, work->lock.id,
                                          ticket, out);
}

static int request_put(struct work *work, uint64_t ticket,
                       const struct machine_lock_request *request)
{
    struct bop_buf *scratch = &work->machine->scratch;
    uint8_t key[MACHINE_LOCK_REQUEST_KEY];
    int rc = bop__machine_lock_request_encode(request, scratch);

    return rc ? rc
              : bop__machine_put(work->machine, MACHINE_LOCK_REQUESTS,
                                 bop__machine_lock_request_key(key, work->lock.id, ticket),
                                 bop_buf_slice(scratch));
}

static int tell(struct work *work, enum bop_event_type type, uint8_t flags, uint64_t ticket,
                const struct machine_lock_request *request)
{
    struct bop_event event = {.type = type,
                              .flags = flags,
                              .name = work->name,
                              .value = request->label,
                              .session = request->session,
                              .number = (int64_t)ticket,
                              .token = request->token};

    if (type == BOP_EVENT_LOCK_CANCEL) {
        event.value = bop_slice(NULL, 0);
    }
    return bop__machine_event(work->machine, &event);
}

static int tell_lock(struct work *work, enum bop_event_type type)
{
    return bop__machine_event(work->machine, &(struct bop_event){.type = type, .name = work->name});
}

/* ---- What a session has ---- */

static struct machine_owned owned_by(uint64_t session, uint32_t id, uint64_t ticket)
{
    return (struct machine_owned){
        .session = session, .kind = OWNED_LOCK_REQUEST, .id = id, .number = ticket};
}

/* *out_full: the session has as many requests as it may have, and did not get this one. */
static int own(struct work *work, uint64_t session, uint64_t ticket, bool *out_full)
{
    struct machine_owned owned = owned_by(session, work->lock.id, ticket);
    int rc = bop__machine_owned_add(work->machine, session, OWNED_LOCK_REQUEST, out_full);

    return rc < 0 || *out_full ? rc
                               : bop__machine_owned_put(work->machine, &owned, bop_slice(NULL, 0));
}

static int disown(struct work *work, uint64_t session, uint64_t ticket)
{
    struct machine_owned owned = owned_by(session, work->lock.id, ticket);
    int rc = bop__machine_owned_sub(work->machine, session, OWNED_LOCK_REQUEST);

    if (rc == 0) {
        rc = bop__machine_owned_del(work->machine, &owned);
    }
    return missing_is_corrupt(rc);
}

/* ---- Granting ---- */

static struct machine_deadline deadline_of(const struct work *work, uint64_t ticket,
                                           uint64_t time_ms)
{
    return (struct machine_deadline){
        .time_ms = time_ms, .kind = DEADLINE_LOCK, .id = work->lock.id, .number = ticket};
}

/* It does not wait any more, or never did. */
static void take(struct work *work, uint64_t ticket, struct machine_lock_request *request)
{
    request->token = work->machine->entry.index;
    request->deadline_ms = 0;
    work->lock.taken += request->permits;
    work->lock.granted = ticket;
}

static int grant(struct work *work, uint64_t ticket, struct machine_lock_request *request)
{
    struct machine_deadline deadline = deadline_of(work, ticket, request->deadline_ms);
    int rc;

    take(work, ticket, request);
    work->lock.waiting--;
    rc = tell(work, BOP_EVENT_LOCK_GRANT, 0, ticket, request);
    if (rc == 0) {
        rc = request_put(work, ticket, request);
    }
    if (rc == 0 && deadline.time_ms != 0) {
        rc = bop__machine_deadline_del(work->machine, &deadline);
    }
    return missing_is_corrupt(rc);
}

static int head(struct work *work, uint64_t *out_ticket, struct machine_lock_request *out_request)
{
    struct machine_lock_walk walk;
    int rc = bop__machine_lock_walk_begin(&walk, work->machine->txn, work->machine->tables,
                                          work->lock.id);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_lock_walk_seek(&walk, work->lock.granted + 1);
    if (rc == 0) {
        *out_ticket = walk.ticket;
        *out_request = walk.request; /* Of the store, so it outlives the walk. */
    }
    bop__machine_lock_walk_end(&walk);
    return missing_is_corrupt(rc);
}

static bool lives(const struct machine *machine, uint64_t session)
{
    const struct session *found = bop__machine_session_find(machine, session);

    return found && !found->ending;
}

/* Grant to as many heads as fit. */
static int grant_heads(struct work *work)
{
    int rc = 0;

    while (rc == 0 && work->lock.waiting > 0 && work->lock.taken < work->lock.capacity) {
        struct machine_lock_request request = {0};
        uint64_t ticket = 0;

        rc = head(work, &ticket, &request);
        if (rc < 0 || request.permits > work->lock.capacity - work->lock.taken ||
            !lives(work->machine, request.session)) {
            break;
        }
        rc = grant(work, ticket, &request);
    }
    return rc;
}

/* ---- Leaving ---- */

/* Take a request out, but for what its session owns and its deadline, and let others have what it
 * had. The request is borrowed from the store. */
static int leave(struct work *work, uint64_t ticket, const struct machine_lock_request *request,
                 uint8_t flags)
{
    struct machine_lock *lock = &work->lock;
    uint8_t key[MACHINE_LOCK_REQUEST_KEY];
    bool held = request->token != 0;
    uint32_t permits = request->permits;
    int rc = tell(work, held ? BOP_EVENT_LOCK_RELEASE : BOP_EVENT_LOCK_CANCEL, flags, ticket,
                  request);

    if (rc == 0) {
        rc = bop__machine_del(work->machine, MACHINE_LOCK_REQUESTS,
                              bop__machine_lock_request_key(key, lock->id, ticket));
    }
    if (rc < 0 || lock->requests == 0 || (held ? lock->taken < permits : lock->waiting == 0)) {
        return rc < 0 ? missing_is_corrupt(rc) : BOP_ECORRUPT;
    }
    lock->requests--;
    if (held) {
        lock->taken -= permits;
    } else {
        lock->waiting--;
    }
    rc = grant_heads(work);
    return rc ? rc : store(work);
}

/* The same of one whose lock's name is not known yet, and is copied. */
static int leave_by_id(struct machine *machine, uint32_t id, uint64_t ticket, uint8_t flags,
                       bool timed_out)
{
    struct work work = {.machine = machine, .lock = {.id = id}};
    struct machine_lock_request request;
    struct machine_deadline deadline;
    uint8_t name[BOP_NAME_MAX];
    uint64_t session;
    int rc = bop__machine_lock_request_find(machine->txn, machine->tables, id, ticket, &request);

    if (rc < 0) {
        return missing_is_corrupt(rc);
    }
    memcpy(name, request.name.data, request.name.size);
    work.name = bop_slice(name, request.name.size);
    session = request.session;
    deadline = deadline_of(&work, ticket, request.deadline_ms);
    if (timed_out && (request.token != 0 || deadline.time_ms == 0)) {
        return BOP_ECORRUPT;
    }
    rc = load(&work);
    if (rc < 0 || work.lock.id != id) {
        return rc < 0 ? missing_is_corrupt(rc) : BOP_ECORRUPT;
    }
    rc = leave(&work, ticket, &request, flags);
    if (rc == 0 && timed_out) {
        work.lock.id = id; /* The lock may be gone by now. */
        return disown(&work, session, ticket);
    }
    return rc == 0 && deadline.time_ms != 0
               ? missing_is_corrupt(bop__machine_deadline_del(machine, &deadline))
               : rc;
}

int bop__machine_lock_end(struct machine *machine, const struct machine_owned *owned)
{
    return leave_by_id(machine, owned->id, owned->number, BOP_EVENT_EXPIRED, false);
}

int bop__machine_lock_timeout(struct machine *machine, const struct machine_deadline *deadline)
{
    return leave_by_id(machine, deadline->id, deadline->number, BOP_EVENT_EXPIRED, true);
}

static int answer(int rc, bool yes, struct machine_reply *reply)
{
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, yes);
    return rc;
}

static int release(struct work *work, uint64_t ticket, struct machine_reply *reply)
{
    struct machine_lock_request request;
    struct machine_deadline deadline;
    int rc = request_find(work, ticket, &request);

    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? answer(0, false, reply) : rc;
    }
    if (request.session != work->machine->entry.session) {
        machine_reply_set(reply, BOP_STATUS_NOT_FOUND);
        return 0;
    }
    deadline = deadline_of(work, ticket, request.deadline_ms);
    rc = leave(work, ticket, &request, 0);
    work->lock.id = deadline.id; /* The lock may be gone by now. */
    rc = rc ? rc : disown(work, work->machine->entry.session, ticket);
    if (rc == 0 && deadline.time_ms != 0) {
        rc = missing_is_corrupt(bop__machine_deadline_del(work->machine, &deadline));
    }
    return answer(rc, true, reply);
}

/* ---- Acquiring ---- */

/* The id of the last request there is, or 0. */
static int id_last(struct machine *machine, uint32_t *out_id)
{
    struct bop_kv_cursor *cursor;
    struct bop_slice key, value;
    int rc = bop_kv_cursor_open(machine->txn, machine->tables[MACHINE_LOCK_REQUESTS], &cursor);

    *out_id = 0;
    if (rc < 0) {
        return rc;
    }
    rc = bop_kv_cursor_seek(cursor, BOP_KV_LAST, bop_slice(NULL, 0), &key, &value);
    if (rc == 0) {
        *out_id = __builtin_bswap32(bop_load_u32(key.data));
    }
    bop_kv_cursor_close(cursor);
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

static int id_search(struct work *work, uint32_t from, uint32_t *out_id)
{
    struct machine_lock_walk walk;
    int rc = bop__machine_lock_walk_begin(&walk, work->machine->txn, work->machine->tables, 0);

    if (rc < 0) {
        return rc;
    }
    for (walk.id = from;; walk.id++) {
        rc = walk.id == 0 ? 0 : bop__machine_lock_walk_seek(&walk, 0);
        if (rc < 0) {
            break;
        }
    }
    bop__machine_lock_walk_end(&walk);
    *out_id = walk.id;
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

/* An id for a lock that gets its first request. What is above all that were used since the store
 * was last read is not searched for; tickets rise, so that is nearly every one. */
static int id_find(struct work *work, uint64_t ticket)
{
    struct machine *machine = work->machine;
    uint32_t id = (uint32_t)ticket;
    int rc = 0;

    if (!machine->lock_id_known) {
        rc = id_last(machine, &machine->lock_id_max);
        machine->lock_id_known = rc == 0;
    }
    if (rc == 0 && id <= machine->lock_id_max) {
        rc = id_search(work, id, &id);
    }
    if (rc == 0) {
        machine->lock_id_max = (uint32_t)bop_max_u64(machine->lock_id_max, id);
        work->lock.id = id;
    }
    return rc;
}

static int told(int rc, uint64_t ticket, uint64_t token, uint64_t position,
                struct machine_reply *reply)
{
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u64(reply, ticket);
    machine_reply_add_u64(reply, token);
    machine_reply_add_u64(reply, position);
    return rc;
}

/* Put the records of a request that the lock has room for. */
static int enqueue(struct work *work, struct machine_lock_request *request, bool fits,
                   struct machine_reply *reply)
{
    uint64_t ticket = work->machine->entry.index;
    struct machine_deadline deadline = deadline_of(work, ticket, request->deadline_ms);
    bool full;
    int rc = own(work, request->session, ticket, &full);

    if (rc < 0 || full) {
        machine_reply_set(reply, BOP_STATUS_BUSY);
        return rc;
    }
    work->lock.requests++;
    if (fits) {
        take(work, ticket, request);
    } else {
        work->lock.waiting++;
    }
    rc = tell(work, fits ? BOP_EVENT_LOCK_GRANT : BOP_EVENT_LOCK_WAIT, 0, ticket, request);
    if (rc == 0) {
        rc = request_put(work, ticket, request);
    }
    if (rc == 0 && !fits && deadline.time_ms != 0) {
        rc = bop__machine_deadline_put(work->machine, &deadline, bop_slice(NULL, 0));
    }
    return told(rc ? rc : store(work), ticket, request->token, fits ? 0 : work->lock.waiting,
                reply);
}

static uint64_t deadline_at(const struct machine *machine, uint64_t timeout_ms)
{
    uint64_t time_ms;

    /* A time beyond all is for ever, too. */
    return timeout_ms == BOP_LOCK_TIMEOUT_NEVER ||
                   __builtin_add_overflow(machine->position.time_ms, timeout_ms, &time_ms)
               ? 0
               : time_ms;
}

static int acquire(struct work *work, const struct bop_operation *operation,
                   struct machine_reply *reply)
{
    struct machine *machine = work->machine;
    struct machine_lock *lock = &work->lock;
    struct machine_lock_request request = {.session = machine->entry.session,
                                           .deadline_ms = deadline_at(machine, operation->ttl_ms),
                                           .permits = operation->permits,
                                           .name = operation->name,
                                           .label = operation->label},
                                other;
    bool fits = lock->waiting == 0 && operation->permits <= lock->capacity - lock->taken;
    int rc;

    if (lock->capacity != operation->capacity) {
        machine_reply_set(reply, BOP_STATUS_CONDITION);
        machine_reply_add_u64(reply, lock->capacity);
        return 0;
    }
    if (lock->requests >= MACHINE_LOCK_REQUESTS_MAX) {
        machine_reply_set(reply, BOP_STATUS_BUSY);
        return 0;
    }
    /* The ticket is taken if another operation of this transaction asked for this lock. */
    rc = request_find(work, machine->entry.index, &other);
    if (rc != BOP_ENOTFOUND) {
        machine_reply_set(reply, BOP_STATUS_BAD_REQUEST);
        return rc;
    }
    if (!fits && operation->ttl_ms == 0) {
        return told(0, 0, 0, (uint64_t)lock->waiting + 1, reply);
    }
    rc = lock->requests == 0 ? id_find(work, machine->entry.index) : 0;
    return rc ? rc : enqueue(work, &request, fits, reply);
}

/* ---- Adopting ---- */

/* The first grant with a label. 0, BOP_ENOTFOUND or another code. */
static int find_label(struct work *work, struct bop_slice label, uint64_t *out_ticket,
                      struct machine_lock_request *out_request)
{
    struct machine_lock_walk walk;
    int rc = bop__machine_lock_walk_begin(&walk, work->machine->txn, work->machine->tables,
                                          work->lock.id);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_lock_walk_seek(&walk, 0);
    while (rc == 0 && !bop_slice_equal(walk.request.label, label)) {
        rc = walk.ticket >= work->lock.granted ? BOP_ENOTFOUND : bop__machine_lock_walk_next(&walk);
    }
    if (rc == 0 && walk.request.token == 0) {
        rc = BOP_ENOTFOUND;
    }
    if (rc == 0) {
        *out_ticket = walk.ticket;
        *out_request = walk.request; /* Of the store, so it outlives the walk. */
    }
    bop__machine_lock_walk_end(&walk);
    return rc;
}

/* To those who watch it is a release, and a grant with the token that there was. */
static int move_to(struct work *work, uint64_t ticket, struct machine_lock_request *request)
{
    uint64_t session = work->machine->entry.session, before = request->session;
    int rc = tell(work, BOP_EVENT_LOCK_RELEASE, 0, ticket, request);

    request->session = session;
    if (rc == 0) {
        rc = tell(work, BOP_EVENT_LOCK_GRANT, 0, ticket, request);
    }
    if (rc == 0) {
        rc = request_put(work, ticket, request);
    }
    return rc ? rc : disown(work, before, ticket);
}

static int adopt(struct work *work, struct bop_slice label, struct machine_reply *reply)
{
    uint64_t session = work->machine->entry.session;
    struct machine_lock_request request = {0};
    uint64_t ticket = 0;
    bool full = false;
    int rc = find_label(work, label, &ticket, &request);

    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u64(reply, rc == 0 ? ticket : 0);
    machine_reply_add_u64(reply, rc == 0 ? request.token : 0);
    if (rc == BOP_ENOTFOUND || request.session == session) {
        return 0;
    }
    rc = own(work, session, ticket, &full);
    if (rc < 0 || full) {
        machine_reply_set(reply, BOP_STATUS_BUSY);
        return rc;
    }
    /* That was a change: what was borrowed has to be looked for anew. */
    rc = missing_is_corrupt(request_find(work, ticket, &request));
    return rc ? rc : move_to(work, ticket, &request);
}

/* ---- Making and deleting ---- */

static int create(struct work *work, bool existed, const struct bop_operation *operation,
                  struct machine_reply *reply)
{
    bool stayed = existed && work->lock.stays;
    int rc = 0;

    if (work->lock.capacity != operation->capacity) {
        machine_reply_set(reply, BOP_STATUS_CONDITION);
        machine_reply_add_u64(reply, work->lock.capacity);
        return 0;
    }
    work->lock.stays = true;
    if (!stayed) {
        rc = tell_lock(work, BOP_EVENT_LOCK_CREATE);
        rc = rc ? rc : store(work);
    }
    return answer(rc, !existed, reply);
}

static int delete (struct work *work, bool existed, struct machine_reply *reply)
{
    int rc;

    if (!existed) {
        return answer(0, false, reply);
    }
    if (work->lock.requests > 0) {
        machine_reply_set(reply, BOP_STATUS_CONDITION);
        machine_reply_add_u64(reply, work->lock.requests);
        return 0;
    }
    work->lock.stays = false;
    rc = tell_lock(work, BOP_EVENT_LOCK_DELETE);
    return answer(rc ? rc : store(work), true, reply);
}

/* ---- All of them ---- */

int bop__machine_lock_write(struct machine *machine, const struct bop_operation *operation,
                            struct machine_reply *out_reply)
{
    struct work work = {.machine = machine, .name = operation->name};
    int rc = load(&work);
    bool existed = rc == 0;

    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    if (!existed) {
        work.lock = (struct machine_lock){.capacity = operation->capacity,
                                          .created = machine->entry.index};
    }
    switch (operation->op) {
    case BOP_OP_LOCK_CREATE:
        return create(&work, existed, operation, out_reply);
    case BOP_OP_LOCK_DELETE:
        return delete (&work, existed, out_reply);
    default:
        break;
    }
    /* The others are requests, which end with a session. */
    machine_reply_set(out_reply, BOP_STATUS_NO_SESSION);
    if (machine->entry.session == 0) {
        return 0;
    }
    switch (operation->op) {
    case BOP_OP_LOCK_ACQUIRE:
        return acquire(&work, operation, out_reply);
    case BOP_OP_LOCK_RELEASE:
        return release(&work, operation->sequence, out_reply);
    case BOP_OP_LOCK_ADOPT:
        machine_reply_set(out_reply, BOP_STATUS_BAD_REQUEST);
        return operation->label.size == 0 ? 0 : adopt(&work, operation->label, out_reply);
    default:
        machine_reply_set(out_reply, BOP_STATUS_BAD_REQUEST);
        return 0;
    }
}
