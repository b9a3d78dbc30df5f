/*
 * Registrations in the state machine: adding and removing, bulk adds, reading by address,
 * and the end of sessions. A random log is compared with a model.
 */
#include <stdlib.h>

#include <bop/random.h>

#include "machine_owner_help.h"

FIXTURE(setup, teardown)

static uint8_t run(struct fixture *f, size_t owner, enum bop_op op, struct bop_slice address,
                   uint64_t sequence)
{
    struct bop_operation operation = {
        .op = op, .name = bytes("r"), .key = address, .sequence = sequence};

    return owner_write(f, owner, &operation);
}

static bool add(struct fixture *f, size_t owner, const char *address, uint64_t sequence)
{
    CHECK_EQ(run(f, owner, BOP_OP_REGISTRATION_ADD, bytes(address), sequence), BOP_STATUS_OK);
    return world_decoded(&f->world, BOP_OP_REGISTRATION_ADD).existed;
}

static bool remove_one(struct fixture *f, size_t owner, const char *address, uint64_t sequence)
{
    CHECK_EQ(run(f, owner, BOP_OP_REGISTRATION_REMOVE, bytes(address), sequence), BOP_STATUS_OK);
    return world_decoded(&f->world, BOP_OP_REGISTRATION_REMOVE).existed;
}

static uint8_t add_all(struct fixture *f, size_t owner, const struct bop_item *items,
                       uint32_t count)
{
    struct bop_operation operation = {
        .op = BOP_OP_REGISTRATION_ADD_ALL, .name = bytes("r"), .count = count};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);
    uint8_t status;

    bop_buf_init(&buf, NULL, 0);
    for (uint32_t i = 0; i < count; i++) {
        bop_item_encode(&writer, operation.op, &items[i]);
    }
    REQUIRE_EQ(writer.code, 0);
    operation.items = bop_buf_slice(&buf);
    status = owner_write(f, owner, &operation);
    bop_buf_deinit(&buf);
    return status;
}

static void say_registration(struct fixture *f, const struct bop_scan_entry *entry)
{
    struct bop_reader reader = bop_reader(entry->value);
    char letter = owner_letter(f, bop_read_u64(&reader));
    char text[32];

    snprintf(text, sizeof(text), "%c%" PRIu64 ";", letter, bop_read_u64(&reader));
    CHECK(bop_reader_done(&reader));
    CHECK(entry->version > 0 && entry->version <= last_index(f));
    owner_say(f, entry->key);
    owner_say(f, bytes(text));
}

/* Who listens at an address: letter of the session, sequence. */
static void check_get(struct fixture *f, const char *address, const char *wanted)
{
    struct bop_operation operation = {
        .op = BOP_OP_REGISTRATION_GET, .name = bytes("r"), .key = bytes(address)};

    check_owner_pages(f, &operation, say_registration, wanted);
}

static void check_list(struct fixture *f, const char *wanted)
{
    struct bop_operation operation = {.op = BOP_OP_REGISTRATION_LIST, .name = bytes("r")};

    check_owner_pages(f, &operation, say_registration, wanted);
}

TEST(registration, is_there_once)
{
    CHECK(add(f, 0, "a", 1));
    CHECK(!add(f, 0, "a", 1));
    CHECK(add(f, 0, "a", 2));
    CHECK(add(f, 1, "a", 1));
    check_get(f, "a", "A1;A2;B1;");
    CHECK_EQ(world_records(&f->world, MACHINE_ENTRIES), 3);
    CHECK_SLICE_EQ(told(f), bytes("add A r/a;add A r/a;add B r/a;"));
}

TEST(registration, is_removed_by_its_session_only)
{
    CHECK(!remove_one(f, 0, "a", 1));
    CHECK_EQ(world_records(&f->world, MACHINE_REGISTRIES), 0);
    add(f, 0, "a", 1);
    CHECK(!remove_one(f, 1, "a", 1));
    CHECK(!remove_one(f, 0, "b", 1));
    CHECK(!remove_one(f, 0, "a", 2));
    told(f);
    CHECK(remove_one(f, 0, "a", 1));
    CHECK(!remove_one(f, 0, "a", 1));
    CHECK_SLICE_EQ(told(f), bytes("remove A r/a;"));
    check_list(f, "");
    CHECK_EQ(world_records(&f->world, MACHINE_OWNED), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_REGISTRIES), 1);
}

/* A number names one registration of its session. */
TEST(registration, does_not_share_its_number)
{
    add(f, 0, "a", 1);
    CHECK_EQ(run(f, 0, BOP_OP_REGISTRATION_ADD, bytes("b"), 1), BOP_STATUS_BAD_REQUEST);
    check_list(f, "aA1;");
    CHECK(remove_one(f, 0, "a", 1));
    CHECK(add(f, 0, "b", 1));
    check_list(f, "bA1;");
}

TEST(registration, needs_a_session)
{
    struct bop_operation operation = {
        .op = BOP_OP_REGISTRATION_ADD, .name = bytes("r"), .key = bytes("a"), .sequence = 1};

    CHECK_EQ(world_write(&f->world, 0, 0, 0, &operation), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(world_records(&f->world, MACHINE_REGISTRIES), 0);
}

TEST(registration, comes_in_bulk)
{
    struct bop_item items[] = {
        {.key = bytes("a"), .sequence = 1},
        {.key = bytes("b"), .sequence = 2},
        {.key = bytes("a"), .sequence = 3},
        {.key = bytes("a"), .sequence = 1},
    };
    uint64_t before;

    add(f, 0, "b", 2);
    told(f);
    before = last_index(f);
    CHECK_EQ(add_all(f, 0, items, 4), BOP_STATUS_OK);
    CHECK_EQ(last_index(f), before + 1);
    CHECK_EQ(world_decoded(&f->world, BOP_OP_REGISTRATION_ADD_ALL).size, 2);
    check_list(f, "aA1;aA3;bA2;");
    CHECK_SLICE_EQ(told(f), bytes("add A r/a;add A r/a;"));
}

/* The number 1 is given twice: nothing is done, not even the registry is made. */
TEST(registration, comes_in_bulk_or_not_at_all)
{
    struct bop_item items[] = {{.key = bytes("a"), .sequence = 1},
                               {.key = bytes("b"), .sequence = 1}};

    CHECK_EQ(add_all(f, 0, items, 2), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(world_records(&f->world, MACHINE_REGISTRIES), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_ENTRIES), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_OWNED), 0);
    CHECK_SLICE_EQ(told(f), bytes(""));
    CHECK(add(f, 0, "b", 1));
    items[1].sequence = 2;
    CHECK_EQ(add_all(f, 0, items, 2), BOP_STATUS_BAD_REQUEST);
    check_list(f, "bA1;");
}

/* How many the store says that a session has. */
static uint32_t counted(struct fixture *f, size_t owner)
{
    uint8_t key[MACHINE_OWNED_KEY] = {[8] = OWNED_REGISTRATION};
    struct machine_view *view;
    struct bop_slice value;
    uint32_t count = 0;

    machine_store_be64(key, f->sessions[owner]);
    REQUIRE_EQ(bop__machine_view_open(f->world.machine, &view), 0);
    if (bop_kv_get(view->txn, view->tables[MACHINE_OWNED], bop_slice(key, sizeof(key)), &value) ==
        0) {
        REQUIRE_EQ(value.size, 4);
        count = bop_load_u32(value.data);
    }
    bop__machine_view_close(view);
    return count;
}

/* Their number goes to the store with the batch, or with it is lost. */
TEST(registration, is_counted_whatever_becomes_of_its_batch)
{
    struct bop_item clash[] = {{.key = bytes("b"), .sequence = 20},
                               {.key = bytes("c"), .sequence = 1}};

    add(f, 0, "a", 1);
    add(f, 0, "a", 2);
    CHECK_EQ(counted(f, 0), 2);

    world_begin(&f->world);
    add(f, 0, "a", 3);
    add(f, 1, "a", 3);
    CHECK(remove_one(f, 0, "a", 2));
    CHECK(remove_one(f, 0, "a", 1));
    world_abort(&f->world);
    f->sequences[0] = f->sequences[1] = 2;
    CHECK_EQ(counted(f, 0), 2);
    CHECK_EQ(counted(f, 1), 0);

    world_reopen(&f->world);
    bop__machine_events_to(f->world.machine, &f->events);
    world_begin(&f->world);
    add(f, 0, "a", 3);
    CHECK_EQ(add_all(f, 0, clash, 2), BOP_STATUS_BAD_REQUEST); /* All is taken back, */
    CHECK(remove_one(f, 0, "a", 2));
    add(f, 0, "a", 4);
    add(f, 1, "a", 1);
    CHECK(remove_one(f, 1, "a", 1)); /* and of this one nothing is ever stored. */
    world_commit(&f->world);
    CHECK_EQ(counted(f, 0), 3);
    CHECK_EQ(counted(f, 1), 0);

    world_begin(&f->world);
    add(f, 0, "a", 5);
    CHECK_EQ(world_expire(&f->world, f->sessions, 1), BOP_STATUS_OK);
    world_commit(&f->world);
    CHECK_EQ(world_records(&f->world, MACHINE_OWNED), 0);
}

/* All that a session has ends with one entry, so there is a bound. */
TEST(registration, is_one_of_so_many_of_its_session)
{
    struct bop_item two[] = {{.key = bytes("b"), .sequence = MACHINE_SESSION_OWNED_MAX + 1},
                             {.key = bytes("c"), .sequence = MACHINE_SESSION_OWNED_MAX + 2}};

    world_begin(&f->world);
    for (uint64_t n = 0; n < MACHINE_SESSION_OWNED_MAX; n++) {
        CHECK(add(f, 0, "a", n));
    }
    CHECK_EQ(run(f, 0, BOP_OP_REGISTRATION_ADD, bytes("b"), MACHINE_SESSION_OWNED_MAX),
             BOP_STATUS_BUSY);
    CHECK(!add(f, 0, "a", 7)); /* It is there. */
    CHECK(add(f, 1, "b", 1));
    CHECK(remove_one(f, 0, "a", 7));
    CHECK_EQ(add_all(f, 0, two, 2), BOP_STATUS_BUSY); /* There is room for one. */
    CHECK_EQ(add_all(f, 0, two, 1), BOP_STATUS_OK);
    CHECK_EQ(run(f, 0, BOP_OP_REGISTRATION_ADD, bytes("c"), 7), BOP_STATUS_BUSY);
    world_commit(&f->world);
    CHECK_EQ(world_end_session(&f->world, f->sessions[0], OWNER_TOKEN), BOP_STATUS_OK);
    check_list(f, "bB1;");
    CHECK(remove_one(f, 1, "b", 1));
    CHECK_EQ(world_records(&f->world, MACHINE_OWNED), 0);
}

/* Addresses that contain, begin with and end in others, and ones longer than the store's keys. */
TEST(registration, has_addresses_of_any_bytes)
{
    struct bop_slice addresses[] = {
        bytes(""), bytes("a"), bop_slice("a\0", 2), bop_slice("a\0b", 3), bytes("ab"), {0}, {0}};
    size_t count = BOP_COUNT_OF(addresses);
    uint8_t *large = malloc(BOP_KEY_MAX);

    REQUIRE(large);
    memset(large, 'x', BOP_KEY_MAX);
    addresses[5] = bop_slice(large, BOP_KEY_MAX);
    addresses[6] = bop_slice(large, BOP_KEY_MAX - 1);
    for (size_t i = 0; i < count; i++) {
        CHECK_EQ(run(f, i % OWNERS, BOP_OP_REGISTRATION_ADD, addresses[i], i), BOP_STATUS_OK);
    }
    for (size_t i = 0; i < count; i++) {
        struct bop_operation operation = {
            .op = BOP_OP_REGISTRATION_GET, .name = bytes("r"), .key = addresses[i]};
        char wanted[8];

        snprintf(wanted, sizeof(wanted), "%c%zu;", (char)('A' + i % OWNERS), i);
        check_owner_pages(f, &operation, say_registration, wanted);
    }
    CHECK_EQ(world_expire(&f->world, f->sessions, OWNERS), BOP_STATUS_OK);
    CHECK_EQ(world_records(&f->world, MACHINE_ENTRIES), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_OWNED), 0);
    free(large);
}

TEST(registration, ends_with_its_session)
{
    uint64_t before;

    add(f, 0, "b", 1);
    add(f, 1, "b", 1);
    add(f, 0, "a", 2);
    told(f);
    before = last_index(f);
    CHECK_EQ(world_expire(&f->world, f->sessions, 1), BOP_STATUS_OK);
    CHECK_EQ(last_index(f), before + 1);
    /* In the order of their numbers. */
    CHECK_SLICE_EQ(told(f), bytes("remove! A r/b;remove! A r/a;end! A /;"));
    check_list(f, "bB1;");
    CHECK_EQ(world_end_session(&f->world, f->sessions[1], OWNER_TOKEN), BOP_STATUS_OK);
    CHECK_SLICE_EQ(told(f), bytes("remove! B r/b;end B /;"));
    check_list(f, "");
}

/* ---- Against a model ---- */

#define STEPS     1500
#define ADDRESSES 4
#define NUMBERS   6

/* Which address each number of each session is registered at; -1: none. */
struct model {
    int at[OWNERS][NUMBERS];
};

static void model_init(struct model *model)
{
    memset(model, 0xff, sizeof(*model));
}

static void check_model(struct fixture *f, const struct model *model)
{
    for (int address = 0; address < ADDRESSES; address++) {
        char name[2] = {(char)('a' + address), 0};
        char wanted[OWNERS * NUMBERS * 8];
        size_t size = 0;
        size_t order[OWNERS] = {0, 1, 2, 3};

        wanted[0] = 0;
        /* Sessions are in the order of their opening. */
        for (size_t i = 0; i < OWNERS; i++) {
            for (size_t k = i + 1; k < OWNERS; k++) {
                if (f->sessions[order[k]] < f->sessions[order[i]]) {
                    size_t other = order[i];

                    order[i] = order[k];
                    order[k] = other;
                }
            }
        }
        for (size_t i = 0; i < OWNERS * NUMBERS; i++) {
            size_t owner = order[i / NUMBERS], number = i % NUMBERS;

            if (model->at[owner][number] == address) {
                size += (size_t)snprintf(wanted + size, sizeof(wanted) - size, "%c%zu;",
                                         (char)('A' + owner), number);
            }
        }
        check_get(f, name, wanted);
    }
}

static void step_bulk(struct fixture *f, struct model *model, struct bop_random *random)
{
    size_t owner = bop_random_below(random, OWNERS);
    struct bop_item items[3];
    char names[3][2] = {{0}};
    struct model after = *model;
    uint64_t added = 0;
    bool clash = false;

    for (size_t i = 0; i < 3; i++) {
        int address = (int)bop_random_below(random, ADDRESSES);
        size_t number = bop_random_below(random, NUMBERS);
        int *at = &after.at[owner][number];

        names[i][0] = (char)('a' + address);
        items[i] = (struct bop_item){.key = bytes(names[i]), .sequence = number};
        clash = clash || (*at >= 0 && *at != address);
        added += *at < 0;
        *at = *at < 0 ? address : *at;
    }
    CHECK_EQ(add_all(f, owner, items, 3), clash ? BOP_STATUS_BAD_REQUEST : BOP_STATUS_OK);
    if (!clash) {
        CHECK_EQ(world_decoded(&f->world, BOP_OP_REGISTRATION_ADD_ALL).size, added);
        *model = after;
    }
}

static void step_write(struct fixture *f, struct model *model, struct bop_random *random)
{
    bool adding = bop_random_below(random, 2) == 0;
    size_t owner = bop_random_below(random, OWNERS), number = bop_random_below(random, NUMBERS);
    int address = (int)bop_random_below(random, ADDRESSES);
    int *at = &model->at[owner][number];
    char name[2] = {(char)('a' + address), 0};

    if (!adding) {
        CHECK_EQ(remove_one(f, owner, name, number), *at == address);
        *at = *at == address ? -1 : *at;
    } else if (*at >= 0 && *at != address) {
        CHECK_EQ(run(f, owner, BOP_OP_REGISTRATION_ADD, bytes(name), number),
                 BOP_STATUS_BAD_REQUEST);
    } else {
        CHECK_EQ(add(f, owner, name, number), *at < 0);
        *at = address;
    }
}

/* The same log for any size of batches. */
static void random_log(struct fixture *f, size_t batch, struct model *model)
{
    struct bop_random random;

    bop_random_seed(&random, 11);
    model_init(model);
    for (size_t i = 0; i < STEPS; i++) {
        uint64_t what = bop_random_below(&random, 20);
        size_t owner = bop_random_below(&random, OWNERS);

        if (batch > 1 && i % batch == 0) {
            world_begin(&f->world);
        }
        if (what == 0) {
            CHECK_EQ(world_expire(&f->world, &f->sessions[owner], 1), BOP_STATUS_OK);
            f->sessions[owner] = world_session(&f->world, 10000, OWNER_TOKEN);
            f->sequences[owner] = 0;
            memset(model->at[owner], 0xff, sizeof(model->at[owner]));
        } else if (what < 4) {
            step_bulk(f, model, &random);
        } else {
            step_write(f, model, &random);
        }
        if (batch > 1 && (i % batch == batch - 1 || i == STEPS - 1)) {
            world_commit(&f->world);
        }
        if (batch == 1 && i % 50 == 0) {
            check_model(f, model);
        }
    }
    check_model(f, model);
}

TEST(registration, agrees_with_a_model_whatever_the_batches)
{
    static const size_t batches[] = {7, 64};
    struct world first;
    struct model model;
    uint64_t digest;

    random_log(f, 1, &model);
    digest = world_digest(&f->world);
    first = f->world;
    for (size_t i = 0; i < BOP_COUNT_OF(batches); i++) {
        f->world = (struct world){.options = {.path = test_path(NULL, i ? "state2" : "state1")}};
        world_init(&f->world, &f->heap.allocator);
        world_newest_level(&f->world);
        for (size_t owner = 0; owner < OWNERS; owner++) {
            f->sessions[owner] = world_session(&f->world, 10000, OWNER_TOKEN);
            f->sequences[owner] = 0;
        }
        random_log(f, batches[i], &model);
        CHECK_EQ(world_digest(&f->world), digest);
        world_close(&f->world);
    }
    f->world = first;
}
