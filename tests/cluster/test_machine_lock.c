/*
 * Locks in the state machine: who gets what, in which order, with which token, and that
 * nothing is left behind.
 */
#include <stdio.h>

#include "lock_help.h"
#include "machine_lock.h"

struct fixture {
    struct test_heap heap;
    struct bop_buf events;
    struct world world;
    struct owner a, b, c;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    bop_buf_init(&f->events, NULL, 0);
    world_init(&f->world, &f->heap.allocator);
    lock_level(&f->world);
    f->a = owner_open(&f->world);
    f->b = owner_open(&f->world);
    f->c = owner_open(&f->world);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    bop_buf_deinit(&f->events);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

#define FREE    0
#define NOTHING UINT64_MAX /* Of lock_token(): there is no such request. */

static uint64_t index_now(struct fixture *f)
{
    return bop__machine_position(f->world.machine).index;
}

/* A request for some permits of a capacity that waits for ever. */
static struct bop_result ask(struct fixture *f, struct owner *owner, const char *lock,
                             uint32_t capacity, uint32_t permits)
{
    struct bop_operation operation = op_acquire(lock, capacity, permits, LOCK_FOREVER, "");

    return lock_do(&f->world, owner, &operation);
}

static struct bop_result write_lock(struct fixture *f, struct owner *owner, enum bop_op op,
                                    const char *lock, uint32_t capacity)
{
    struct bop_operation operation = {.op = op, .name = bytes(lock), .capacity = capacity};

    return lock_do(&f->world, owner, &operation);
}

static void end(struct fixture *f, struct owner *owner)
{
    CHECK_EQ(world_end_session(&f->world, owner->session, LOCK_TOKEN), BOP_STATUS_OK);
}

/* ---- Mutexes ---- */

TEST(lock, first_one_gets_it_with_its_index_as_token)
{
    struct bop_result got = lock_acquire(&f->world, &f->a, "l", LOCK_FOREVER);

    CHECK_EQ(got.status, BOP_STATUS_OK);
    CHECK_EQ(got.ticket, index_now(f));
    CHECK_EQ(got.token, index_now(f));
    CHECK_EQ(got.position, 0);
    CHECK(lock_release(&f->world, &f->a, "l", got.ticket));
    lock_check_empty(&f->world);
}

TEST(lock, others_wait_in_the_order_of_the_log)
{
    struct world *w = &f->world;
    uint64_t first = lock_acquire(w, &f->a, "l", LOCK_FOREVER).ticket;
    struct bop_result second = lock_acquire(w, &f->b, "l", LOCK_FOREVER);
    struct bop_result third = lock_acquire(w, &f->c, "l", LOCK_FOREVER);

    CHECK_EQ(second.token, 0);
    CHECK_EQ(second.position, 1);
    CHECK_EQ(third.position, 2);
    CHECK(lock_release(w, &f->a, "l", first));
    CHECK_EQ(lock_token(w, "l", second.ticket), index_now(f));
    CHECK_EQ(lock_token(w, "l", third.ticket), 0);
    CHECK(lock_release(w, &f->b, "l", second.ticket));
    CHECK_EQ(lock_token(w, "l", third.ticket), index_now(f));
    CHECK(lock_release(w, &f->c, "l", third.ticket));
    lock_check_empty(w);
}

/* The owner is the request, not the session. */
TEST(lock, session_that_asks_twice_waits_for_itself)
{
    struct world *w = &f->world;
    uint64_t first = lock_acquire(w, &f->a, "l", LOCK_FOREVER).ticket;
    struct bop_result second = lock_acquire(w, &f->a, "l", LOCK_FOREVER);

    CHECK_EQ(second.token, 0);
    CHECK_EQ(second.position, 1);
    CHECK(lock_release(w, &f->a, "l", first));
    CHECK_EQ(lock_token(w, "l", second.ticket), index_now(f));
    CHECK(lock_release(w, &f->a, "l", second.ticket));
    lock_check_empty(w);
}

TEST(lock, release_is_done_once_and_by_its_session)
{
    struct world *w = &f->world;
    struct bop_operation release;
    uint64_t ticket = lock_acquire(w, &f->a, "l", LOCK_FOREVER).ticket;

    release = op_release("l", ticket);
    CHECK_EQ(owner_write(w, &f->b, &release), BOP_STATUS_NOT_FOUND);
    CHECK_EQ(lock_token(w, "l", ticket), ticket);
    CHECK(!lock_release(w, &f->a, "l", ticket + 1));
    CHECK(!lock_release(w, &f->a, "other", ticket));
    CHECK(lock_release(w, &f->a, "l", ticket));
    CHECK(!lock_release(w, &f->a, "l", ticket));
    lock_check_empty(w);
}

TEST(lock, waiting_request_can_be_taken_back)
{
    struct world *w = &f->world;
    uint64_t first = lock_acquire(w, &f->a, "l", 60000).ticket;
    uint64_t second = lock_acquire(w, &f->b, "l", 60000).ticket;
    uint64_t third = lock_acquire(w, &f->c, "l", 60000).ticket;

    CHECK(lock_release(w, &f->b, "l", second));
    CHECK(!lock_release(w, &f->b, "l", second));
    CHECK_EQ(lock_acquire(w, &f->b, "l", 60000).position, 2);
    CHECK(lock_release(w, &f->a, "l", first));
    CHECK_EQ(lock_token(w, "l", third), index_now(f));
    CHECK_EQ(lock_token(w, "l", second), NOTHING);
}

TEST(lock, zero_timeout_does_not_wait)
{
    struct world *w = &f->world;
    struct bop_result got;
    uint64_t first = lock_acquire(w, &f->a, "l", 0).ticket;

    CHECK(first > 0);
    got = lock_acquire(w, &f->b, "l", 0);
    CHECK_EQ(got.status, BOP_STATUS_OK);
    CHECK_EQ(got.ticket, 0);
    CHECK_EQ(got.token, 0);
    CHECK_EQ(got.position, 1);
    CHECK(lock_release(w, &f->a, "l", first));
    lock_check_empty(w);
}

TEST(lock, needs_a_session)
{
    struct owner nobody = {0};
    struct bop_operation acquire = op_acquire("l", 1, 1, 0, "");
    struct bop_operation release = op_release("l", 1);

    CHECK_EQ(owner_write(&f->world, &nobody, &acquire), BOP_STATUS_NO_SESSION);
    CHECK_EQ(owner_write(&f->world, &nobody, &release), BOP_STATUS_NO_SESSION);
    lock_check_empty(&f->world);
}

/* Beyond its deletion, too. */
TEST(lock, tokens_rise)
{
    uint64_t last = 0;

    for (int i = 0; i < 20; i++) {
        struct owner *owner = i % 2 ? &f->a : &f->b;
        struct bop_result got = lock_acquire(&f->world, owner, "l", LOCK_FOREVER);

        CHECK(got.token > last);
        last = got.token;
        CHECK(lock_release(&f->world, owner, "l", got.ticket));
    }
    lock_check_empty(&f->world);
}

/* ---- Semaphores, readers and writers ---- */

TEST(lock, semaphore_gives_what_it_has)
{
    uint64_t two = ask(f, &f->a, "s", 5, 2).ticket;
    struct bop_result three = ask(f, &f->b, "s", 5, 3);
    struct bop_result one = ask(f, &f->c, "s", 5, 1);

    CHECK_EQ(three.position, 0);
    CHECK_EQ(one.position, 1);
    CHECK(lock_release(&f->world, &f->a, "s", two));
    CHECK_EQ(lock_token(&f->world, "s", one.ticket), index_now(f));
}

/* One that wants much is not starved by those that want little. */
TEST(lock, nobody_overtakes_the_head)
{
    struct world *w = &f->world;
    uint64_t first = ask(f, &f->a, "s", 5, 1).ticket;
    struct bop_result all = ask(f, &f->b, "s", 5, 5);
    struct bop_result little = ask(f, &f->c, "s", 5, 1);
    struct bop_operation try_one = op_acquire("s", 5, 1, 0, "");

    CHECK_EQ(all.position, 1);
    CHECK_EQ(little.position, 2);
    CHECK_EQ(lock_do(w, &f->c, &try_one).ticket, 0);
    CHECK(lock_release(w, &f->a, "s", first));
    CHECK_EQ(lock_token(w, "s", all.ticket), index_now(f));
    CHECK_EQ(lock_token(w, "s", little.ticket), 0);
}

TEST(lock, readers_share_what_writers_have_alone)
{
    struct world *w = &f->world;
    const uint32_t all = INT32_MAX;
    uint64_t writer = ask(f, &f->a, "rw", all, all).ticket;
    uint64_t reader[3], next;

    for (int i = 0; i < 3; i++) {
        reader[i] = ask(f, &f->b, "rw", all, 1).ticket;
    }
    next = ask(f, &f->c, "rw", all, all).ticket;
    CHECK(lock_release(w, &f->a, "rw", writer));
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(lock_token(w, "rw", reader[i]), index_now(f));
    }
    CHECK_EQ(lock_token(w, "rw", next), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(lock_token(w, "rw", next), 0);
        CHECK(lock_release(w, &f->b, "rw", reader[i]));
    }
    CHECK_EQ(lock_token(w, "rw", next), index_now(f));
}

/* The head that goes makes room for smaller ones behind it. */
TEST(lock, cancel_of_the_head_lets_others_in)
{
    struct world *w = &f->world;
    uint64_t much, little, more;

    ask(f, &f->a, "s", 5, 3);
    much = ask(f, &f->b, "s", 5, 4).ticket;
    little = ask(f, &f->c, "s", 5, 1).ticket;
    more = ask(f, &f->c, "s", 5, 1).ticket;
    CHECK(lock_release(w, &f->b, "s", much));
    CHECK_EQ(lock_token(w, "s", little), index_now(f));
    CHECK_EQ(lock_token(w, "s", more), index_now(f));
}

TEST(lock, capacity_is_the_locks)
{
    struct bop_result got;

    ask(f, &f->a, "s", 5, 1);
    got = ask(f, &f->b, "s", 4, 1);
    CHECK_EQ(got.status, BOP_STATUS_CONDITION);
    CHECK_EQ(got.version, 5);
    CHECK_EQ(ask(f, &f->b, "s", 5, 6).status, BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(ask(f, &f->b, "s", 5, 0).status, BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(ask(f, &f->b, "s", 0, 0).status, BOP_STATUS_BAD_REQUEST);
}

/* ---- Making and deleting ---- */

TEST(lock, made_one_stays_until_it_is_deleted)
{
    struct owner nobody = {0};
    struct bop_operation get = {.op = BOP_OP_LOCK_GET, .name = bytes("l")};
    uint64_t ticket;

    CHECK_EQ(world_read(&f->world, &get).status, BOP_STATUS_NOT_FOUND);
    CHECK(write_lock(f, &nobody, BOP_OP_LOCK_CREATE, "l", 2).existed);
    CHECK(!write_lock(f, &nobody, BOP_OP_LOCK_CREATE, "l", 2).existed);
    CHECK_EQ(write_lock(f, &nobody, BOP_OP_LOCK_CREATE, "l", 3).version, 2);
    ticket = ask(f, &f->a, "l", 2, 1).ticket;
    CHECK_EQ(write_lock(f, &f->b, BOP_OP_LOCK_DELETE, "l", 0).status, BOP_STATUS_CONDITION);
    CHECK_EQ(write_lock(f, &f->b, BOP_OP_LOCK_DELETE, "l", 0).version, 1);
    CHECK(lock_release(&f->world, &f->a, "l", ticket));
    CHECK_EQ(world_read(&f->world, &get).capacity, 2);
    CHECK_EQ(world_read(&f->world, &get).permits, 0);
    CHECK(write_lock(f, &nobody, BOP_OP_LOCK_DELETE, "l", 0).existed);
    CHECK(!write_lock(f, &nobody, BOP_OP_LOCK_DELETE, "l", 0).existed);
    lock_check_empty(&f->world);
}

/* One that came with a request exists, and stays from when somebody makes it. */
TEST(lock, one_that_came_with_a_request_can_be_kept)
{
    uint64_t ticket = ask(f, &f->a, "l", 2, 1).ticket;

    CHECK(!write_lock(f, &f->b, BOP_OP_LOCK_CREATE, "l", 2).existed);
    CHECK(lock_release(&f->world, &f->a, "l", ticket));
    CHECK_EQ(world_records(&f->world, MACHINE_LOCKS), 1);
    CHECK(write_lock(f, &f->b, BOP_OP_LOCK_DELETE, "l", 0).existed);
    lock_check_empty(&f->world);
}

/* ---- Ends of sessions ---- */

TEST(lock, all_requests_end_with_their_session)
{
    struct world *w = &f->world;
    uint64_t other;

    lock_acquire(w, &f->a, "l", LOCK_FOREVER);
    lock_acquire(w, &f->b, "l", 60000);
    other = lock_acquire(w, &f->c, "l", LOCK_FOREVER).ticket;
    lock_acquire(w, &f->b, "m", LOCK_FOREVER);
    end(f, &f->b);
    CHECK_EQ(lock_token(w, "l", other), 0);
    CHECK_EQ(world_records(w, MACHINE_LOCKS), 1);
    CHECK_EQ(world_records(w, MACHINE_DEADLINES), 0);
    end(f, &f->a);
    CHECK_EQ(lock_token(w, "l", other), index_now(f));
    end(f, &f->c);
    lock_check_empty(w);
}

/* It holds the lock and waits for it as the next one, too. */
TEST(lock, nothing_is_granted_to_the_session_that_ends)
{
    struct world *w = &f->world;
    uint64_t other;

    lock_acquire(w, &f->a, "l", LOCK_FOREVER);
    lock_acquire(w, &f->a, "l", LOCK_FOREVER);
    lock_acquire(w, &f->a, "l", 60000);
    other = lock_acquire(w, &f->b, "l", LOCK_FOREVER).ticket;
    bop__machine_events_to(w->machine, &f->events);
    end(f, &f->a);
    CHECK_EQ(lock_token(w, "l", other), index_now(f));
    bop__machine_events_to(w->machine, NULL);
    {
        struct bop_slice left = bop_buf_slice(&f->events);
        struct bop_event event;
        unsigned grants = 0;

        while (bop_event_next(&left, &event) == 1) {
            if (event.type == BOP_EVENT_LOCK_GRANT) {
                CHECK_EQ(event.session, f->b.session);
                grants++;
            }
        }
        CHECK_EQ(grants, 1);
    }
}

/* In whatever order the entry names them. */
TEST(lock, nothing_is_granted_to_sessions_that_end_together)
{
    struct world *w = &f->world;

    for (int order = 0; order < 2; order++) {
        struct owner one = owner_open(w), two = owner_open(w);
        uint64_t both[2] = {order ? one.session : two.session, order ? two.session : one.session};
        struct bop_slice left;
        struct bop_event event;
        uint64_t last;

        lock_acquire(w, &one, "l", LOCK_FOREVER);
        lock_acquire(w, &two, "l", LOCK_FOREVER);
        lock_acquire(w, &one, "l", LOCK_FOREVER);
        last = lock_acquire(w, &f->a, "l", LOCK_FOREVER).ticket;
        bop_buf_clear(&f->events);
        bop__machine_events_to(w->machine, &f->events);
        CHECK_EQ(world_expire(w, both, 2), BOP_STATUS_OK);
        bop__machine_events_to(w->machine, NULL);
        CHECK_EQ(lock_token(w, "l", last), index_now(f));
        left = bop_buf_slice(&f->events);
        while (bop_event_next(&left, &event) == 1) {
            CHECK(event.type != BOP_EVENT_LOCK_GRANT || event.session == f->a.session);
        }
        CHECK(lock_release(w, &f->a, "l", last));
    }
    lock_check_empty(w);
}

/* ---- Timeouts ---- */

TEST(lock, request_goes_when_its_time_is_up)
{
    struct world *w = &f->world;
    struct bop_operation much = op_acquire("s", 5, 4, 500, "");
    uint64_t first, second;

    w->time_ms = 10000;
    ask(f, &f->a, "s", 5, 3);
    first = lock_do(w, &f->b, &much).ticket;
    second = ask(f, &f->c, "s", 5, 2).ticket;
    CHECK_EQ(bop__machine_deadline_next(w->machine), 10500);
    lock_timers(w, 10499);
    CHECK_EQ(lock_token(w, "s", first), 0);
    lock_timers(w, 10500);
    CHECK_EQ(lock_token(w, "s", first), NOTHING);
    CHECK_EQ(lock_token(w, "s", second), index_now(f));
    CHECK_EQ(bop__machine_deadline_next(w->machine), UINT64_MAX);
    CHECK(!lock_release(w, &f->b, "s", first));
}

TEST(lock, time_does_not_matter_any_more_once_it_is_granted)
{
    struct world *w = &f->world;
    uint64_t first = lock_acquire(w, &f->a, "l", 100).ticket;
    uint64_t second = lock_acquire(w, &f->b, "l", 100).ticket;

    CHECK(lock_release(w, &f->a, "l", first));
    CHECK_EQ(world_records(w, MACHINE_DEADLINES), 0);
    lock_timers(w, 1000000);
    CHECK(lock_token(w, "l", second) > 0);
    CHECK(lock_release(w, &f->b, "l", second));
    lock_check_empty(w);
}

/* ---- Adopting ---- */

TEST(lock, grant_can_be_adopted_by_its_label)
{
    struct world *w = &f->world;
    struct bop_operation acquire = op_acquire("l", 1, 1, LOCK_FOREVER, "job-7");
    struct bop_operation adopt = {
        .op = BOP_OP_LOCK_ADOPT, .name = bytes("l"), .label = bytes("job-7")};
    struct bop_result got = lock_do(w, &f->a, &acquire), adopted;

    CHECK_EQ(lock_do(w, &f->c, &acquire).token, 0); /* It waits, and is no grant. */
    adopted = lock_do(w, &f->b, &adopt);
    CHECK_EQ(adopted.ticket, got.ticket);
    CHECK_EQ(adopted.token, got.token);
    CHECK_EQ(lock_do(w, &f->b, &adopt).ticket, got.ticket);
    end(f, &f->a); /* Whose it is no more. */
    CHECK_EQ(lock_token(w, "l", got.ticket), got.token);
    adopt.label = bytes("job-8");
    CHECK_EQ(lock_do(w, &f->c, &adopt).ticket, 0);
    adopt.label = bytes("");
    CHECK_EQ(owner_write(w, &f->c, &adopt), BOP_STATUS_BAD_REQUEST);
    CHECK(lock_release(w, &f->b, "l", got.ticket));
    end(f, &f->c);
    lock_check_empty(w);
}

/* ---- Reading ---- */

TEST(lock, tells_who_holds_and_who_waits)
{
    struct world *w = &f->world;
    struct bop_operation acquire = op_acquire("s", 5, 3, LOCK_FOREVER, "first");
    struct bop_operation get = {.op = BOP_OP_LOCK_GET, .name = bytes("s"), .limit = 1};
    struct bop_operation owned = {.op = BOP_OP_LOCK_OWNED, .session = f->b.session};
    uint64_t first = lock_do(w, &f->a, &acquire).ticket, second;
    struct bop_scan_entry entry;
    struct bop_result page;
    uint8_t cursor[64];

    acquire.label = bytes("second");
    second = lock_do(w, &f->b, &acquire).ticket;
    page = world_read(w, &get);
    CHECK_EQ(page.status, BOP_STATUS_OK);
    CHECK_EQ(page.capacity, 5);
    CHECK_EQ(page.permits, 3);
    CHECK_EQ(page.count, 1);
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_SLICE_EQ(entry.key, bytes("first"));
    CHECK_EQ(entry.version, first);
    CHECK_EQ(bop_load_u64(entry.value.data), f->a.session);
    CHECK_EQ(bop_load_u64(entry.value.data + 8), first);
    CHECK_EQ(bop_load_u32(entry.value.data + 16), 3);
    REQUIRE(page.cursor.size > 0 && page.cursor.size <= sizeof(cursor));
    memcpy(cursor, page.cursor.data, page.cursor.size);
    get.cursor = bop_slice(cursor, page.cursor.size);
    page = world_read(w, &get);
    CHECK_EQ(page.count, 1);
    CHECK_EQ(page.cursor.size, 0);
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_EQ(entry.version, second);
    CHECK_EQ(bop_load_u64(entry.value.data + 8), FREE);
    page = world_read(w, &owned);
    CHECK_EQ(page.count, 1);
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_SLICE_EQ(entry.key, bytes("s"));
    CHECK_EQ(entry.version, second);
    CHECK_EQ(bop_load_u32(entry.value.data + 8), 3);
    CHECK_SLICE_EQ(bop_slice(entry.value.data + 16, entry.value.size - 16), bytes("second"));
    owned.session = 12345;
    CHECK_EQ(world_read(w, &owned).count, 0);
}

TEST(lock, requests_of_a_session_come_in_pages)
{
    struct world *w = &f->world;
    struct bop_operation owned = {.op = BOP_OP_LOCK_OWNED, .session = f->a.session, .limit = 7};
    uint8_t cursor[64];
    unsigned seen = 0;
    char name[16];

    for (unsigned i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "l%u", i % 10);
        lock_acquire(w, &f->a, name, LOCK_FOREVER);
    }
    do {
        struct bop_result page = world_read(w, &owned);

        CHECK(page.count > 0);
        seen += page.count;
        REQUIRE(page.cursor.size <= sizeof(cursor));
        memcpy(cursor, page.cursor.data, page.cursor.size);
        owned.cursor = bop_slice(cursor, page.cursor.size);
    } while (owned.cursor.size > 0);
    CHECK_EQ(seen, 50);
    owned.cursor = bytes("\1short");
    CHECK_EQ(world_read(w, &owned).status, BOP_STATUS_BAD_REQUEST);
    owned.op = BOP_OP_LOCK_GET;
    owned.name = bytes("l1");
    CHECK_EQ(world_read(w, &owned).status, BOP_STATUS_BAD_REQUEST);
}

/* ---- Events ---- */

static struct bop_event next_event(struct bop_slice *left)
{
    struct bop_event event = {0};

    REQUIRE_EQ(bop_event_next(left, &event), 1);
    return event;
}

static void check_event(struct bop_slice *left, enum bop_event_type type, uint8_t flags,
                        uint64_t session, uint64_t ticket, uint64_t token)
{
    struct bop_event event = next_event(left);

    CHECK_EQ(event.type, type);
    CHECK_EQ(event.flags, flags);
    CHECK_SLICE_EQ(event.name, bytes("l"));
    CHECK_EQ(event.session, session);
    CHECK_EQ((uint64_t)event.number, ticket);
    CHECK_EQ(event.token, token);
    CHECK_SLICE_EQ(event.value,
                   type == BOP_EVENT_LOCK_CANCEL || session == 0 ? bytes("") : bytes("why"));
}

TEST(lock, tells_what_happens)
{
    struct world *w = &f->world;
    struct bop_operation acquire = op_acquire("l", 1, 1, 500, "why");
    uint64_t a = f->a.session, b = f->b.session, one, two, three, granted;
    struct bop_slice left;

    bop__machine_events_to(w->machine, &f->events);
    w->time_ms = 1000;
    write_lock(f, &f->a, BOP_OP_LOCK_CREATE, "l", 1);
    one = lock_do(w, &f->a, &acquire).ticket;
    two = lock_do(w, &f->b, &acquire).ticket;
    three = lock_do(w, &f->a, &acquire).ticket;
    lock_release(w, &f->a, "l", one);
    granted = index_now(f);
    lock_timers(w, 2000);
    lock_release(w, &f->b, "l", two);
    write_lock(f, &f->a, BOP_OP_LOCK_DELETE, "l", 0);
    bop__machine_events_to(w->machine, NULL);

    left = bop_buf_slice(&f->events);
    check_event(&left, BOP_EVENT_LOCK_CREATE, 0, 0, 0, 0);
    check_event(&left, BOP_EVENT_LOCK_GRANT, 0, a, one, one);
    check_event(&left, BOP_EVENT_LOCK_WAIT, 0, b, two, 0);
    check_event(&left, BOP_EVENT_LOCK_WAIT, 0, a, three, 0);
    check_event(&left, BOP_EVENT_LOCK_RELEASE, 0, a, one, one);
    check_event(&left, BOP_EVENT_LOCK_GRANT, 0, b, two, granted);
    check_event(&left, BOP_EVENT_LOCK_CANCEL, BOP_EVENT_EXPIRED, a, three, 0);
    check_event(&left, BOP_EVENT_LOCK_RELEASE, 0, b, two, granted);
    check_event(&left, BOP_EVENT_LOCK_DELETE, 0, 0, 0, 0);
    CHECK_EQ(left.size, 0);
}

/* ---- Transactions ---- */

/* Operations one after the other as a transaction holds them. */
static void add_operation(struct bop_buf *buf, const struct bop_operation *operation)
{
    struct bop_writer writer = bop_writer(buf);
    struct bop_buf one;

    bop_buf_init(&one, NULL, 0);
    {
        struct bop_writer inner = bop_writer(&one);

        bop_operation_encode(&inner, operation);
        REQUIRE_EQ(inner.code, 0);
    }
    bop_write_bytes(&writer, bop_buf_slice(&one));
    REQUIRE_EQ(writer.code, 0);
    bop_buf_deinit(&one);
}

static uint8_t transact(struct fixture *f, struct owner *owner,
                        const struct bop_operation *const *operations, uint32_t count)
{
    struct bop_operation transaction = {.op = BOP_OP_TRANSACTION, .then_count = count};
    struct bop_buf items;
    uint8_t status;

    bop_buf_init(&items, NULL, 0);
    for (uint32_t i = 0; i < count; i++) {
        add_operation(&items, operations[i]);
    }
    transaction.then_items = bop_buf_slice(&items);
    status = owner_write(&f->world, owner, &transaction);
    bop_buf_deinit(&items);
    return status;
}

TEST(lock, transaction_that_fails_takes_all_of_it_back)
{
    struct world *w = &f->world;
    uint64_t first = lock_acquire(w, &f->a, "l", LOCK_FOREVER).ticket;
    struct bop_operation release = op_release("l", first);
    struct bop_operation another = op_acquire("m", 1, 1, 700, "");
    struct bop_operation waits = op_acquire("l", 1, 1, 700, "");
    struct bop_operation wrong = op_acquire("l", 2, 1, 0, "");
    struct bop_operation put = op_put("map", bytes("k"), bytes("v"));
    const struct bop_operation *fails[] = {&put, &another, &waits, &release, &wrong};
    const struct bop_operation *works[] = {&put, &another, &release, &waits};
    uint64_t second = lock_acquire(w, &f->b, "l", 60000).ticket;

    CHECK_EQ(transact(f, &f->a, fails, 5), BOP_STATUS_CONDITION);
    CHECK_EQ(lock_token(w, "l", first), first);
    CHECK_EQ(lock_token(w, "l", second), 0);
    CHECK_EQ(world_records(w, MACHINE_LOCKS), 1);
    CHECK_EQ(world_records(w, MACHINE_LOCK_REQUESTS), 2);
    CHECK_EQ(world_records(w, MACHINE_OWNED), 4); /* A request and a count each. */
    CHECK_EQ(world_records(w, MACHINE_DEADLINES), 1);
    CHECK_EQ(transact(f, &f->a, works, 4), BOP_STATUS_OK);
    CHECK_EQ(lock_token(w, "l", second), index_now(f));
    CHECK_EQ(lock_token(w, "l", index_now(f)), 0);
    CHECK_EQ(lock_token(w, "m", index_now(f)), index_now(f));
}

/* Two requests of one entry would have one ticket. */
TEST(lock, transaction_asks_for_a_lock_once)
{
    struct bop_operation acquire = op_acquire("s", 9, 1, LOCK_FOREVER, "");
    struct bop_operation other = op_acquire("t", 9, 1, LOCK_FOREVER, "");
    const struct bop_operation *twice[] = {&acquire, &acquire};
    const struct bop_operation *each[] = {&acquire, &other};

    CHECK_EQ(transact(f, &f->a, twice, 2), BOP_STATUS_BAD_REQUEST);
    lock_check_empty(&f->world);
    CHECK_EQ(transact(f, &f->a, each, 2), BOP_STATUS_OK);
    CHECK_EQ(lock_token(&f->world, "s", index_now(f)), index_now(f));
    CHECK_EQ(lock_token(&f->world, "t", index_now(f)), index_now(f));
    end(f, &f->a);
    lock_check_empty(&f->world);
}

static uint8_t put_if_granted(struct fixture *f, uint64_t token)
{
    struct bop_compare compare = {.kind = BOP_COMPARE_LOCK,
                                  .relation = BOP_EQUAL,
                                  .name = bytes("l"),
                                  .number = (int64_t)token};
    struct bop_operation transaction = {.op = BOP_OP_TRANSACTION, .compare_count = 1};
    struct bop_operation put = op_put("m", bytes("k"), bytes("v"));
    struct bop_buf compares, items;
    struct bop_writer writer;
    struct bop_result result;

    bop_buf_init(&compares, NULL, 0);
    bop_buf_init(&items, NULL, 0);
    writer = bop_writer(&compares);
    bop_compare_encode(&writer, &compare);
    add_operation(&items, &put);
    transaction.compares = bop_buf_slice(&compares);
    transaction.then_items = bop_buf_slice(&items);
    transaction.then_count = 1;
    CHECK_EQ(owner_write(&f->world, &f->c, &transaction), BOP_STATUS_OK);
    result = world_decoded(&f->world, BOP_OP_TRANSACTION);
    bop_buf_deinit(&compares);
    bop_buf_deinit(&items);
    return result.existed;
}

/* The fence in the cluster itself. */
TEST(lock, transaction_asks_whether_a_token_is_good)
{
    struct world *w = &f->world;
    struct bop_result first = lock_acquire(w, &f->a, "l", LOCK_FOREVER), second;

    CHECK(put_if_granted(f, first.token));
    CHECK(!put_if_granted(f, first.token + 1));
    CHECK(!put_if_granted(f, 0));
    second = lock_acquire(w, &f->b, "l", LOCK_FOREVER);
    CHECK(!put_if_granted(f, second.ticket));
    CHECK(lock_release(w, &f->a, "l", first.ticket));
    CHECK(put_if_granted(f, lock_token(w, "l", second.ticket)));
    CHECK(!put_if_granted(f, first.token));
    CHECK(lock_release(w, &f->b, "l", second.ticket));
    CHECK(!put_if_granted(f, second.token));
}

/* ---- Bounds ---- */

/* What a lock and a session may have is bounded, and told. */
TEST(lock, requests_are_bounded)
{
    struct world *w = &f->world;
    struct bop_result result = {0};
    unsigned count = 0;

    world_begin(w);
    while (count < MACHINE_SESSION_OWNED_MAX) {
        result = ask(f, &f->a, "s", INT32_MAX, 1);
        REQUIRE_EQ(result.status, BOP_STATUS_OK);
        count++;
    }
    CHECK_EQ(ask(f, &f->a, "s", INT32_MAX, 1).status, BOP_STATUS_BUSY);
    CHECK_EQ(ask(f, &f->a, "t", INT32_MAX, 1).status, BOP_STATUS_BUSY);
    while (count < MACHINE_LOCK_REQUESTS_MAX) {
        REQUIRE_EQ(ask(f, &f->b, "s", INT32_MAX, 1).status, BOP_STATUS_OK);
        count++;
    }
    CHECK_EQ(ask(f, &f->c, "s", INT32_MAX, 1).status, BOP_STATUS_BUSY);
    CHECK_EQ(ask(f, &f->c, "t", INT32_MAX, 1).status, BOP_STATUS_OK);
    CHECK(lock_release(w, &f->a, "s", result.ticket));
    CHECK_EQ(ask(f, &f->a, "t", INT32_MAX, 1).status, BOP_STATUS_OK);
    end(f, &f->a);
    end(f, &f->b);
    end(f, &f->c);
    world_commit(w);
    lock_check_empty(w);
}

/* The id of a lock that has requests. */
static uint32_t id_of(struct fixture *f, const char *name)
{
    struct machine_lock lock = {0};
    struct machine_view *view;

    REQUIRE_EQ(bop__machine_view_open(f->world.machine, &view), 0);
    CHECK_EQ(bop__machine_lock_find(view->txn, view->tables, bytes(name), &lock), 0);
    bop__machine_view_close(view);
    return lock.id;
}

TEST(lock, ids_come_round_and_pass_by_those_in_use)
{
    struct world *w = &f->world;
    uint64_t round = UINT64_C(1) << 32;
    uint64_t first = lock_acquire(w, &f->a, "a", LOCK_FOREVER).ticket;
    uint64_t second = lock_acquire(w, &f->a, "b", LOCK_FOREVER).ticket;
    uint64_t third, fourth;

    CHECK_EQ(id_of(f, "a"), first);
    CHECK_EQ(id_of(f, "b"), second);
    for (unsigned again = 0; again < 2; again++) {
        w->machine->position.index = round + first - 1;
        third = lock_acquire(w, &f->b, "c", LOCK_FOREVER).ticket;
        CHECK_EQ(third, round + first);
        CHECK_EQ(id_of(f, "c"), second + 1);
        round *= 2;
        w->machine->position.index = round - 1;
        fourth = lock_acquire(w, &f->b, "d", LOCK_FOREVER).ticket;
        CHECK_EQ(fourth, round);
        CHECK_EQ(id_of(f, "d"), 1);
        CHECK(lock_release(w, &f->b, "c", third));
        CHECK(lock_release(w, &f->b, "d", fourth));
        world_reopen(w);
    }
    CHECK(lock_release(w, &f->a, "a", first));
    CHECK(lock_release(w, &f->a, "b", second));
    end(f, &f->a);
    end(f, &f->b);
    end(f, &f->c);
    lock_check_empty(w);
}

/* ---- Faults ---- */

static void log_add(struct world *w, struct bop_buf *log)
{
    struct bop_writer writer = bop_writer(log);

    bop_write_bytes(&writer, bop_buf_slice(&w->bytes));
    REQUIRE_EQ(writer.code, 0);
}

/* Run a few entries and note them: waits, grants, a timeout, an end of a session. */
static void make_log(struct fixture *f, struct bop_buf *log)
{
    struct world *w = &f->world;
    struct bop_operation waits = op_acquire("l", 1, 1, 500, "label");
    uint64_t first = 0;

    world_close(w);
    w->options.path = test_path(NULL, "made");
    world_init(w, &f->heap.allocator);
    lock_level(w);
    log_add(w, log);
    f->a = owner_open(w);
    log_add(w, log);
    f->b = owner_open(w);
    log_add(w, log);
    for (int i = 0; i < 4; i++) {
        struct bop_result got = lock_do(w, i % 2 ? &f->b : &f->a, &waits);

        first = i == 0 ? got.ticket : first;
        log_add(w, log);
    }
    CHECK(lock_release(w, &f->a, "l", first));
    log_add(w, log);
    lock_timers(w, w->time_ms + 500);
    log_add(w, log);
    end(f, &f->b);
    log_add(w, log);
}

/* Apply all of a log as one batch. */
static int apply_log(struct world *w, struct bop_slice log)
{
    struct bop_reader reader = bop_reader(log);
    int rc = bop__machine_begin(w->machine);

    if (rc < 0) {
        return rc;
    }
    while (rc == 0 && bop_reader_left(&reader) > 0) {
        struct bop_raft_entry entry = {.term = WORLD_TERM, .type = BOP_RAFT_COMMAND};
        struct machine_result result;

        entry.data = bop_read_bytes(&reader);
        rc = bop__machine_apply(w->machine, bop__machine_position(w->machine).index + 1, &entry,
                                &w->results, &result);
    }
    if (rc < 0) {
        CHECK_EQ(bop__machine_abort(w->machine), 0);
        return rc;
    }
    return bop__machine_commit(w->machine);
}

/* Whichever allocation fails, the batch is undone and done again, and the end is the same. */
TEST(lock, survives_each_fault)
{
    struct world *w = &f->world;
    struct bop_faults faults = {0};
    struct test_heap heap;
    struct bop_buf log;
    uint64_t content;

    bop_buf_init(&log, NULL, 0);
    make_log(f, &log);
    lock_check_empty(w);
    content = world_digest(w);
    test_heap_init(&heap, &faults);
    bop__machine_close(w->machine);
    w->options.allocator = &heap.allocator;
    FAULT_SWEEP(&faults) {
        struct bop_buf events;
        int rc;

        w->options.path = test_path(NULL, "swept");
        rc = bop__machine_open(&w->options, &w->machine, NULL);
        if (rc < 0) {
            REQUIRE_EQ(bop__machine_open(&w->options, &w->machine, NULL), 0);
        }
        bop_buf_init(&events, &heap.allocator, 0);
        bop__machine_events_to(w->machine, &events);
        rc = apply_log(w, bop_buf_slice(&log));
        if (rc < 0) {
            CHECK_EQ(rc, BOP_ENOMEM);
            CHECK_EQ(bop__machine_position(w->machine).index, 0);
            CHECK_EQ(apply_log(w, bop_buf_slice(&log)), 0);
        }
        faults.fail_at = 0;
        CHECK_EQ(world_digest(w), content);
        bop__machine_close(w->machine);
        w->machine = NULL;
        bop_buf_deinit(&events);
        CHECK_EQ(heap.live, 0);
    }
    bop_buf_deinit(&log);
}
