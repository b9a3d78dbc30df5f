/*
 * Readers against a model: random steps of the log and of several readers, each of which must see
 * what the model says. And the same with the log on a thread of its own.
 */
#include "small_log.h"

#define FIRST       5
#define RECORDS_MAX 20000
#define READERS     4

struct model_reader {
    struct bop_aof_reader *reader;
    enum bop_aof_level level;
    uint64_t next;
    bool follows; /* next - 1 was read. */
    bool voided;  /* ... and is truncated. */
    bool jumped;  /* Beyond what there was when something was truncated: may be told or not. */
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct small_log log;
    struct bop_random random;
    uint16_t lengths[RECORDS_MAX]; /* Of the record that has the number now. */
    uint64_t oldest;
    size_t dropped; /* Segments that are gone from the front. */
    struct model_reader readers[READERS];
    struct bop_error err;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    small_init(&f->log, &f->heap.allocator, bop_fs_real(), FIRST);
    f->oldest = FIRST;
}

static void teardown(struct fixture *f)
{
    for (size_t i = 0; i < READERS; i++) {
        bop_aof_reader_close(f->readers[i].reader);
    }
    small_deinit(&f->log);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static uint64_t below(struct fixture *f, uint64_t bound)
{
    return bop_random_next(&f->random) % bound;
}

/* ---- The log's steps ---- */

static void append_some(struct fixture *f)
{
    for (uint64_t i = below(f, 60); i-- > 0 && small_next(&f->log) < RECORDS_MAX;) {
        size_t length = below(f, 10) == 0 ? below(f, 20000) : below(f, 300);

        f->lengths[small_next(&f->log)] = (uint16_t)length;
        small_append(&f->log, length);
        if (below(f, 20) == 0) {
            maker_filler(&small_newest(&f->log)->maker);
        }
    }
}

static void truncate_some(struct fixture *f)
{
    uint64_t last = small_next(&f->log) - 1;
    uint64_t kept;

    small_publish(&f->log, below(f, 2));
    if (last < f->oldest || f->log.count + 1 >= SMALL_SEGMENTS) {
        return;
    }
    kept = f->oldest + below(f, last - f->oldest + 1);
    small_truncate(&f->log, kept);
    for (size_t i = 0; i < READERS; i++) {
        struct model_reader *m = &f->readers[i];

        m->voided |= m->follows && m->next - 1 > kept;
        m->jumped |= !m->follows && m->next > kept + 1;
    }
}

/* The oldest segment goes, as when it was packed or truncated from the front. */
static void drop_some(struct fixture *f)
{
    size_t n = f->dropped;

    while (n < f->log.count &&
           f->log.segments[n].maker.facts.end_seq <= f->log.segments[n].maker.facts.base) {
        n++; /* Truncated away as a whole. */
    }
    if (n + 2 < f->log.count && f->log.durable.seq >= f->log.segments[n].maker.facts.end_seq) {
        f->oldest = f->log.segments[n].maker.facts.end_seq;
        bop__aof_catalogue_oldest(&f->log.catalogue, f->oldest);
        small_drop(&f->log, n);
        f->dropped = n + 1;
    }
}

static void seal_some(struct fixture *f)
{
    for (size_t n = f->dropped; n + 1 < f->log.count; n++) {
        struct small_segment *segment = &f->log.segments[n];

        if (!segment->sealed && segment->maker.facts.end_seq > segment->maker.facts.base &&
            below(f, 2)) {
            small_seal(&f->log, n);
        }
    }
}

static void log_step(struct fixture *f)
{
    switch (below(f, 12)) {
    case 0:
        if (f->log.count + 1 < SMALL_SEGMENTS &&
            small_next(&f->log) > small_newest(&f->log)->maker.facts.base) {
            small_publish(&f->log, false);
            small_roll(&f->log);
        }
        break;
    case 1:
        if (below(f, 4) == 0) {
            truncate_some(f);
        }
        break;
    case 2:
        if (below(f, 3) == 0) {
            drop_some(f);
        }
        break;
    case 3:
        seal_some(f);
        break;
    case 4:
    case 5:
    case 6:
        small_publish(&f->log, below(f, 2));
        break;
    default:
        append_some(f);
    }
}

/* ---- The readers' steps ---- */

static uint64_t visible(struct fixture *f, const struct model_reader *m)
{
    return m->level == BOP_AOF_OS ? f->log.os.seq : f->log.durable.seq;
}

static void check_view(struct fixture *f, const struct model_reader *m,
                       const struct bop_aof_view *view)
{
    CHECK_EQ(view->seq, m->next);
    CHECK(m->next <= visible(f, m));
    CHECK_EQ(view->payload.size, f->lengths[m->next]);
    CHECK_EQ(view->tag, maker_tag(m->next));
    check_payload(m->next, view->payload);
}

static void reader_next(struct fixture *f, struct model_reader *m)
{
    struct bop_aof_view view = {0};
    int rc = bop_aof_reader_next(m->reader, &view, &f->err);

    if (m->voided && m->next > visible(f, m)) {
        CHECK(rc == BOP_ENOTFOUND || rc == BOP_EEND); /* At the latest when there is another. */
    } else if (m->voided) {
        CHECK_EQ(rc, BOP_ENOTFOUND);
    } else if (m->next < f->oldest) {
        /* What is gone may be read on if its file was open. */
        CHECK(rc == 0 || rc == BOP_ENOTFOUND);
    } else if (m->next > visible(f, m)) {
        CHECK(rc == BOP_EEND || (m->jumped && rc == BOP_ENOTFOUND));
        m->voided = rc == BOP_ENOTFOUND;
    } else {
        CHECK(rc == 0 || (m->jumped && rc == BOP_ENOTFOUND));
    }
    if (rc == 0) {
        check_view(f, m, &view);
        m->next++;
        m->follows = true;
        m->jumped = false;
    }
    CHECK_EQ(bop_aof_reader_position(m->reader), m->next);
}

static void sought(struct model_reader *m, uint64_t seq)
{
    m->next = seq;
    m->follows = m->voided = m->jumped = false;
}

static void reader_seek(struct fixture *f, struct model_reader *m)
{
    uint64_t last = visible(f, m);
    uint64_t seq = FIRST + below(f, last - FIRST + 4);
    int rc;

    if (below(f, 3) > 0) {
        rc = bop_aof_reader_seek(m->reader, seq, &f->err);
        if (seq < f->oldest || seq > last + 1) {
            /* A segment that was looked up may still be sought in. */
            CHECK(rc == BOP_ENOTFOUND || seq < f->oldest);
        } else {
            CHECK_EQ(rc, 0);
        }
    } else {
        rc = bop_aof_reader_seek_time(m->reader, maker_time(seq) - below(f, 3), &f->err);
        CHECK_EQ(rc, 0);
        seq = bop_max_u64(f->oldest, bop_min_u64(seq, last + 1));
    }
    if (rc == 0) {
        sought(m, seq);
        CHECK_EQ(bop_aof_reader_position(m->reader), seq);
    }
}

static void reader_step(struct fixture *f)
{
    struct model_reader *m = &f->readers[below(f, READERS)];

    if (!m->reader || below(f, 300) == 0) {
        struct bop__lookup lookup = small_lookup(&f->log, below(f, 2));

        bop_aof_reader_close(m->reader);
        lookup.level = m->level = below(f, 2) ? BOP_AOF_OS : BOP_AOF_DISK;
        REQUIRE_EQ(bop__reader_open(&lookup, &f->heap.allocator, &m->reader), 0);
        sought(m, f->oldest);
    } else if (below(f, 12) == 0) {
        reader_seek(f, m);
    } else {
        for (uint64_t i = below(f, 40); i-- > 0;) {
            reader_next(f, m);
        }
    }
}

TEST(reader, sees_what_the_model_says)
{
    for (unsigned round = 0; round < 6; round++) {
        bop_random_seed(&f->random, 100 + round);
        for (unsigned i = 0; i < 4000 && f->log.count + 2 < SMALL_SEGMENTS; i++) {
            log_step(f);
            for (int k = 0; k < 4; k++) {
                reader_step(f);
            }
        }
        teardown(f);
        memset(f, 0, sizeof(*f));
        setup(f);
    }
}

/* ---- With threads ---- */

#define THREAD_RECORDS 6000

struct follower {
    pthread_t thread;
    struct fixture *f;
    bool pread;
    uint64_t records;
    uint64_t seals;
    uint64_t again; /* Times that something was truncated under it. */
};

/* The length of a record tells how many truncations came before it: never less than before it. */
static void follow(struct follower *w, struct bop_aof_reader *reader)
{
    struct bop_error err;
    size_t version = 0;

    while (true) {
        struct bop_aof_view view = {0};
        int rc = bop_aof_reader_next(reader, &view, &err);

        if (rc == 0) {
            CHECK(view.payload.size >= version);
            version = view.payload.size;
            check_payload(view.seq, view.payload);
            w->records++;
        } else if (rc == BOP_ENOTFOUND) {
            uint64_t back = bop_aof_reader_position(reader);

            /* To the nearest that there is. */
            while (bop_aof_reader_seek(reader, back, &err) < 0) {
                back -= back > FIRST ? 1 : 0;
            }
            version = 0;
            w->again++;
        } else {
            enum bop_aof_event event;

            CHECK_EQ(rc, BOP_EEND);
            event = bop_aof_reader_wait(reader, -1);
            if (event == BOP_AOF_EVENT_CLOSED) {
                break;
            }
        }
    }
    w->seals = bop_aof_reader_sealed(reader);
}

static void *run_follower(void *arg)
{
    struct follower *w = arg;
    struct bop__lookup lookup = small_lookup(&w->f->log, w->pread);
    struct bop_aof_reader *reader = NULL;

    if (bop__reader_open(&lookup, bop_allocator_default(), &reader) < 0) {
        CHECK(false);
        return NULL;
    }
    follow(w, reader);
    CHECK_EQ(bop_aof_reader_position(reader), w->f->log.durable.seq + 1);
    bop_aof_reader_close(reader);
    return NULL;
}

static void start(struct fixture *f, struct follower *followers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        followers[i] = (struct follower){.f = f, .pread = i % 2};
        REQUIRE_EQ(pthread_create(&followers[i].thread, NULL, run_follower, &followers[i]), 0);
    }
}

static void finish(struct fixture *f, struct follower *followers, size_t count)
{
    bop__aof_catalogue_close(&f->log.catalogue);
    for (size_t i = 0; i < count; i++) {
        REQUIRE_EQ(pthread_join(followers[i].thread, NULL), 0);
    }
}

TEST(reader, follows_a_log_that_is_written_rolled_and_sealed)
{
    struct follower followers[3];
    uint64_t seals = 0;

    f->log.zeros = 300000;
    start(f, followers, 3);
    for (unsigned i = 0; i < THREAD_RECORDS; i++) {
        small_append(&f->log, 100);
        if (i % 7 == 0) {
            small_publish(&f->log, true);
        }
        if (i % 150 == 149) {
            small_publish(&f->log, true);
            small_roll(&f->log);
            small_seal(&f->log, f->log.count - 2); /* Cuts the file under the readers. */
            seals++;
        }
    }
    small_publish(&f->log, true);
    finish(f, followers, 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQ(followers[i].records, THREAD_RECORDS);
        CHECK_EQ(followers[i].seals, seals);
        CHECK_EQ(followers[i].again, 0);
    }
}

TEST(reader, follows_a_log_that_is_truncated)
{
    struct follower followers[3];

    bop_random_seed(&f->random, 9);
    start(f, followers, 3);
    for (unsigned version = 0; version < 50; version++) {
        for (unsigned i = 0; i < 60; i++) {
            small_append(&f->log, version);
            if (i % 5 == 0) {
                small_publish(&f->log, true);
            }
        }
        small_publish(&f->log, true);
        small_truncate(&f->log, small_next(&f->log) - 1 - below(f, 20));
    }
    small_append(&f->log, 50);
    small_publish(&f->log, true);
    finish(f, followers, 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK(followers[i].records >= small_next(&f->log) - FIRST);
    }
}
