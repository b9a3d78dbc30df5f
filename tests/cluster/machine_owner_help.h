/*
 * What the tests of members and registrations share: a machine with sessions that write,
 * and the events of entries as text.
 */
#ifndef BOP_TESTS_CLUSTER_MACHINE_OWNER_HELP_H
#define BOP_TESTS_CLUSTER_MACHINE_OWNER_HELP_H

#include <inttypes.h>
#include <stdio.h>

#include "machine_help.h"

#define OWNERS      4
#define OWNER_TOKEN "0123456789abcdef"

struct fixture {
    struct test_heap heap;
    struct world world;
    struct bop_buf events;
    struct bop_buf text;
    uint64_t sessions[OWNERS];
    uint64_t sequences[OWNERS];
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    world_init(&f->world, &f->heap.allocator);
    world_newest_level(&f->world);
    bop_buf_init(&f->events, NULL, 0);
    bop_buf_init(&f->text, NULL, 0);
    for (size_t i = 0; i < OWNERS; i++) {
        f->sessions[i] = world_session(&f->world, 10000, OWNER_TOKEN);
    }
    bop__machine_events_to(f->world.machine, &f->events);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    CHECK_EQ(f->heap.live, 0);
    bop_buf_deinit(&f->events);
    bop_buf_deinit(&f->text);
}

/* A write of one of the sessions. Returns the status; the result is world_decoded()'s. */
static uint8_t owner_write(struct fixture *f, size_t owner, const struct bop_operation *operation)
{
    uint64_t sequence = ++f->sequences[owner];

    return world_write(&f->world, f->sessions[owner], sequence, sequence - 1, operation);
}

static uint64_t last_index(const struct fixture *f)
{
    return bop__machine_position(f->world.machine).index;
}

/* Which of the sessions, as a letter. */
static char owner_letter(const struct fixture *f, uint64_t session)
{
    for (size_t i = 0; i < OWNERS; i++) {
        if (f->sessions[i] == session) {
            return (char)('A' + i);
        }
    }
    return '?';
}

static const char *event_word(enum bop_event_type type)
{
    switch (type) {
    case BOP_EVENT_MEMBER_JOIN:
        return "join";
    case BOP_EVENT_MEMBER_SET:
        return "set";
    case BOP_EVENT_MEMBER_LEAVE:
        return "leave";
    case BOP_EVENT_REGISTRATION_ADD:
        return "add";
    case BOP_EVENT_REGISTRATION_REMOVE:
        return "remove";
    case BOP_EVENT_SESSION_END:
        return "end";
    case BOP_EVENT_LOCK_RELEASE:
        return "release";
    default:
        return "other";
    }
}

/* What was told since the last call, "join A g/a;" and so on; "!" says EXPIRED. */
BOP_UNUSED static struct bop_slice told(struct fixture *f)
{
    struct bop_slice events = bop_buf_slice(&f->events);
    struct bop_event event;

    bop_buf_clear(&f->text);
    while (bop_event_next(&events, &event) == 1) {
        char text[128];
        int size = snprintf(text, sizeof(text), "%s%s %c %.*s/%.*s%s%.*s;", event_word(event.type),
                            event.flags & BOP_EVENT_EXPIRED ? "!" : "",
                            owner_letter(f, event.session), (int)event.name.size,
                            (const char *)event.name.data, (int)event.key.size,
                            (const char *)event.key.data, event.value.size > 0 ? "=" : "",
                            (int)event.value.size, (const char *)event.value.data);

        REQUIRE_EQ(bop_buf_append(&f->text, text, (size_t)size), 0);
    }
    CHECK_EQ(events.size, 0);
    bop_buf_clear(&f->events);
    return bop_buf_slice(&f->text);
}

/* All pages of a scan, `limit` entries at a time, each entry through `put` into f->text. */
typedef void owner_entry_fn(struct fixture *f, const struct bop_scan_entry *entry);

static void owner_pages(struct fixture *f, const struct bop_operation *wanted, uint32_t limit,
                        owner_entry_fn *put)
{
    struct bop_operation operation = *wanted;
    struct bop_buf cursor;
    struct bop_result page;
    unsigned turns = 0;

    bop_buf_clear(&f->text);
    bop_buf_init(&cursor, NULL, 0);
    operation.limit = limit;
    do {
        struct bop_scan_entry entry;

        operation.cursor = bop_buf_slice(&cursor);
        page = world_read(&f->world, &operation);
        REQUIRE_EQ(page.status, BOP_STATUS_OK);
        REQUIRE(turns++ < 10000);
        CHECK_EQ(page.revision, last_index(f));
        while (bop_scan_next(&page.entries, &entry)) {
            put(f, &entry);
        }
        bop_buf_clear(&cursor);
        REQUIRE_EQ(bop_buf_append(&cursor, page.cursor.data, page.cursor.size), 0);
    } while (cursor.size > 0);
    bop_buf_deinit(&cursor);
}

/* However many a page has, the pages together say this. */
static void check_owner_pages(struct fixture *f, const struct bop_operation *operation,
                              owner_entry_fn *put, const char *wanted)
{
    for (uint32_t limit = 0; limit < 4; limit++) {
        owner_pages(f, operation, limit, put);
        CHECK_SLICE_EQ(bop_buf_slice(&f->text), bytes(wanted));
    }
}

static void owner_say(struct fixture *f, struct bop_slice text)
{
    REQUIRE_EQ(bop_buf_append(&f->text, text.data, text.size), 0);
}

#endif
