/*
 * Members of groups in the state machine: names that are theirs alone, the order of joining,
 * the end of sessions, and what is told of all that. A random log is compared with a model.
 */
#include <stdlib.h>

#include <bop/random.h>

#include "machine_owner_help.h"

FIXTURE(setup, teardown)

static uint8_t run(struct fixture *f, size_t owner, enum bop_op op, const char *group,
                   struct bop_slice name, struct bop_slice info)
{
    struct bop_operation operation = {.op = op, .name = bytes(group), .key = name, .value = info};

    return owner_write(f, owner, &operation);
}

/* Join; returns the number. */
static uint64_t join(struct fixture *f, size_t owner, const char *group, const char *name,
                     const char *info)
{
    CHECK_EQ(run(f, owner, BOP_OP_MEMBER_JOIN, group, bytes(name), bytes(info)), BOP_STATUS_OK);
    return world_decoded(&f->world, BOP_OP_MEMBER_JOIN).version;
}

static bool set(struct fixture *f, size_t owner, const char *group, const char *name,
                const char *info)
{
    CHECK_EQ(run(f, owner, BOP_OP_MEMBER_SET, group, bytes(name), bytes(info)), BOP_STATUS_OK);
    return world_decoded(&f->world, BOP_OP_MEMBER_SET).existed;
}

static bool leave(struct fixture *f, size_t owner, const char *group, const char *name)
{
    CHECK_EQ(run(f, owner, BOP_OP_MEMBER_LEAVE, group, bytes(name), bytes("")), BOP_STATUS_OK);
    return world_decoded(&f->world, BOP_OP_MEMBER_LEAVE).existed;
}

static void say_member(struct fixture *f, const struct bop_scan_entry *entry)
{
    struct bop_reader reader = bop_reader(entry->value);
    char letter = owner_letter(f, bop_read_u64(&reader));

    owner_say(f, entry->key);
    owner_say(f, bop_slice(&letter, 1));
    owner_say(f, bop_read_bytes(&reader));
    CHECK(bop_reader_done(&reader));
    owner_say(f, bytes(";"));
}

/* The members of a group, in order: name, letter of the session, info. */
static void check_list(struct fixture *f, const char *group, const char *wanted)
{
    struct bop_operation operation = {.op = BOP_OP_MEMBER_LIST, .name = bytes(group)};

    check_owner_pages(f, &operation, say_member, wanted);
}

TEST(member, lists_in_the_order_of_joining)
{
    uint64_t first = join(f, 1, "g", "zoe", "1");
    uint64_t second, third;

    CHECK_EQ(first, last_index(f));
    second = join(f, 0, "g", "anna", "2");
    third = join(f, 2, "g", "mia", "");
    CHECK(first < second && second < third);
    join(f, 0, "other", "anna", "x");
    check_list(f, "g", "zoeB1;annaA2;miaC;");
    check_list(f, "other", "annaAx;");
    check_list(f, "none", "");
}

/* Joining again is to set: the place in the list stays. */
TEST(member, joins_again_without_a_new_number)
{
    uint64_t number = join(f, 0, "g", "a", "1");

    join(f, 1, "g", "b", "");
    CHECK_EQ(join(f, 0, "g", "a", "2"), number);
    check_list(f, "g", "aA2;bB;");
    CHECK_SLICE_EQ(told(f), bytes("join A g/a=1;join B g/b;set A g/a=2;"));
}

TEST(member, has_a_name_that_is_its_alone)
{
    uint64_t number = join(f, 0, "g", "a", "1");

    CHECK_EQ(run(f, 1, BOP_OP_MEMBER_JOIN, "g", bytes("a"), bytes("2")), BOP_STATUS_CONDITION);
    CHECK_EQ(world_decoded(&f->world, BOP_OP_MEMBER_JOIN).version, number);
    CHECK(!set(f, 1, "g", "a", "3"));
    CHECK(!leave(f, 1, "g", "a"));
    check_list(f, "g", "aA1;");
    CHECK(leave(f, 0, "g", "a"));
    CHECK(join(f, 1, "g", "a", "2") > number);
    check_list(f, "g", "aB2;");
}

TEST(member, sets_and_leaves)
{
    CHECK(!set(f, 0, "g", "a", "1"));
    CHECK(!leave(f, 0, "g", "a"));
    CHECK_EQ(world_records(&f->world, MACHINE_GROUPS), 0);
    join(f, 0, "g", "a", "1");
    CHECK(set(f, 0, "g", "a", "2"));
    CHECK(leave(f, 0, "g", "a"));
    CHECK(!leave(f, 0, "g", "a"));
    CHECK_SLICE_EQ(told(f), bytes("join A g/a=1;set A g/a=2;leave A g/a=2;"));
    CHECK_EQ(world_records(&f->world, MACHINE_MEMBERS), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_MEMBER_NAMES), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_OWNED), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_GROUPS), 1);
}

TEST(member, is_found_by_its_name)
{
    struct bop_operation operation = {
        .op = BOP_OP_MEMBER_GET, .name = bytes("g"), .key = bytes("a")};
    uint64_t number = join(f, 2, "g", "a", "here");
    struct bop_result result = world_read(&f->world, &operation);
    struct bop_reader reader = bop_reader(result.value);

    CHECK_EQ(result.status, BOP_STATUS_OK);
    CHECK_EQ(result.version, number);
    CHECK_EQ(bop_read_u64(&reader), f->sessions[2]);
    CHECK_SLICE_EQ(bop_read_bytes(&reader), bytes("here"));
    operation.key = bytes("b");
    CHECK_EQ(world_read(&f->world, &operation).status, BOP_STATUS_NOT_FOUND);
    operation.name = bytes("h");
    CHECK_EQ(world_read(&f->world, &operation).status, BOP_STATUS_NOT_FOUND);
}

/* Nobody would ever end it. */
TEST(member, needs_a_session)
{
    struct bop_operation operation = {
        .op = BOP_OP_MEMBER_JOIN, .name = bytes("g"), .key = bytes("a")};

    CHECK_EQ(world_write(&f->world, 0, 0, 0, &operation), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(world_records(&f->world, MACHINE_GROUPS), 0);
}

TEST(member, has_names_and_infos_up_to_their_bounds)
{
    struct bop_slice empty = bytes("");
    uint8_t *large = malloc(BOP_KEY_MAX + 1);
    struct bop_operation operation = {.op = BOP_OP_MEMBER_GET, .name = bytes("g")};

    REQUIRE(large);
    memset(large, 'x', BOP_KEY_MAX + 1);
    CHECK_EQ(run(f, 0, BOP_OP_MEMBER_JOIN, "g", bop_slice(large, BOP_KEY_MAX),
                 bop_slice(large, BOP_KEY_MAX)),
             BOP_STATUS_OK);
    CHECK_EQ(run(f, 0, BOP_OP_MEMBER_JOIN, "g", bop_slice(large, BOP_KEY_MAX - 1), empty),
             BOP_STATUS_OK);
    CHECK_EQ(run(f, 0, BOP_OP_MEMBER_JOIN, "g", empty, empty), BOP_STATUS_OK);
    CHECK_EQ(run(f, 0, BOP_OP_MEMBER_JOIN, "g", bytes("y"), bop_slice(large, BOP_KEY_MAX + 1)),
             BOP_STATUS_TOO_BIG);
    CHECK_EQ(run(f, 0, BOP_OP_MEMBER_JOIN, "g", bop_slice(large, BOP_KEY_MAX + 1), empty),
             BOP_STATUS_TOO_BIG);
    operation.key = bop_slice(large, BOP_KEY_MAX);
    CHECK_EQ(world_read(&f->world, &operation).value.size, 8 + 4 + BOP_KEY_MAX);
    operation.key = bop_slice(large, BOP_KEY_MAX - 1);
    CHECK_EQ(world_read(&f->world, &operation).value.size, 8 + 4);
    CHECK_EQ(world_records(&f->world, MACHINE_MEMBERS), 3);
    CHECK_EQ(world_expire(&f->world, f->sessions, 1), BOP_STATUS_OK);
    CHECK_EQ(world_records(&f->world, MACHINE_MEMBER_NAMES), 0);
    free(large);
}

/* One entry, whatever the session had: registrations first, members after them, then the session
 * itself; groups in the order of their making. */
TEST(member, ends_with_its_session_after_its_registrations)
{
    struct bop_operation registration = {
        .op = BOP_OP_REGISTRATION_ADD, .name = bytes("r"), .key = bytes("addr"), .sequence = 1};
    uint64_t before;

    join(f, 0, "g", "a", "1");
    join(f, 1, "g", "b", "");
    join(f, 0, "h", "a", "");
    CHECK_EQ(owner_write(f, 0, &registration), BOP_STATUS_OK);
    told(f);
    before = last_index(f);
    CHECK_EQ(world_expire(&f->world, f->sessions, 1), BOP_STATUS_OK);
    CHECK_EQ(last_index(f), before + 1);
    CHECK_SLICE_EQ(told(f), bytes("remove! A r/addr;leave! A g/a=1;leave! A h/a;end! A /;"));
    check_list(f, "g", "bB;");
    check_list(f, "h", "");
    CHECK_EQ(world_end_session(&f->world, f->sessions[1], OWNER_TOKEN), BOP_STATUS_OK);
    CHECK_SLICE_EQ(told(f), bytes("leave! B g/b;end B /;"));
    CHECK_EQ(world_records(&f->world, MACHINE_OWNED), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_MEMBERS), 0);
}

/* All that a session has ends with one entry, so there is a bound. */
TEST(member, is_one_of_so_many_of_its_session)
{
    char name[16];

    world_begin(&f->world);
    for (unsigned n = 0; n < MACHINE_SESSION_OWNED_MAX; n++) {
        snprintf(name, sizeof(name), "%u", n);
        join(f, 0, n % 2 ? "g" : "h", name, "");
    }
    CHECK_EQ(run(f, 0, BOP_OP_MEMBER_JOIN, "g", bytes("more"), bytes("")), BOP_STATUS_BUSY);
    join(f, 0, "g", "1", "again"); /* It is there. */
    CHECK_EQ(run(f, 1, BOP_OP_MEMBER_JOIN, "g", bytes("more"), bytes("")), BOP_STATUS_OK);
    CHECK(leave(f, 0, "g", "1"));
    join(f, 0, "g", "other", "");
    CHECK_EQ(run(f, 0, BOP_OP_MEMBER_JOIN, "g", bytes("1"), bytes("")), BOP_STATUS_BUSY);
    world_commit(&f->world);
    CHECK_EQ(world_end_session(&f->world, f->sessions[0], OWNER_TOKEN), BOP_STATUS_OK);
    check_list(f, "h", "");
    check_list(f, "g", "moreB;");
    CHECK(leave(f, 1, "g", "more"));
    CHECK_EQ(world_records(&f->world, MACHINE_OWNED), 0);
}

/* A transaction of joins, of a name and a group each. Returns its status. */
static uint8_t join_both(struct fixture *f, const char *const names[][2], uint32_t count)
{
    struct bop_operation transaction = {.op = BOP_OP_TRANSACTION, .then_count = count};
    struct bop_buf items, one;
    struct bop_writer writer = bop_writer(&items);
    uint8_t status;

    bop_buf_init(&items, NULL, 0);
    bop_buf_init(&one, NULL, 0);
    for (uint32_t i = 0; i < count; i++) {
        struct bop_operation operation = {
            .op = BOP_OP_MEMBER_JOIN, .name = bytes(names[i][0]), .key = bytes(names[i][1])};
        struct bop_writer inner = bop_writer(&one);

        bop_buf_clear(&one);
        bop_operation_encode(&inner, &operation);
        bop_write_bytes(&writer, bop_buf_slice(&one));
    }
    REQUIRE_EQ(writer.code, 0);
    transaction.then_items = bop_buf_slice(&items);
    status = owner_write(f, 0, &transaction);
    bop_buf_deinit(&items);
    bop_buf_deinit(&one);
    return status;
}

/* The number is the entry's index, so an entry has room for one member of a group. */
TEST(member, joins_a_group_once_in_an_entry)
{
    static const char *const same[][2] = {{"g", "a"}, {"g", "b"}};
    static const char *const others[][2] = {{"g", "a"}, {"h", "b"}, {"g", "a"}};

    CHECK_EQ(join_both(f, same, 2), BOP_STATUS_BAD_REQUEST);
    check_list(f, "g", "");
    CHECK_EQ(world_records(&f->world, MACHINE_GROUPS), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_OWNED), 0);
    CHECK_SLICE_EQ(told(f), bytes(""));
    CHECK_EQ(join_both(f, others, 3), BOP_STATUS_OK);
    check_list(f, "g", "aA;");
    check_list(f, "h", "bA;");
    CHECK_SLICE_EQ(told(f), bytes("join A g/a;join A h/b;set A g/a;"));
}

/* ---- Against a model ---- */

#define STEPS  1500
#define GROUPS 3
#define NAMES  5

struct model_member {
    uint64_t number; /* 0: nobody. */
    size_t owner;
    unsigned info;
};

struct model {
    struct model_member members[GROUPS][NAMES];
};

static const char *const group_names[GROUPS] = {"g", "app/g", "app/h"};

static void model_end(struct model *model, size_t owner)
{
    for (size_t i = 0; i < GROUPS * NAMES; i++) {
        struct model_member *member = &model->members[i / NAMES][i % NAMES];

        if (member->owner == owner) {
            member->number = 0;
        }
    }
}

/* The next one in the order of numbers, or NULL. */
static const struct model_member *model_next(const struct model *model, size_t group,
                                             uint64_t after)
{
    const struct model_member *next = NULL;

    for (size_t i = 0; i < NAMES; i++) {
        const struct model_member *member = &model->members[group][i];

        if (member->number > after && (!next || member->number < next->number)) {
            next = member;
        }
    }
    return next;
}

static void check_model(struct fixture *f, const struct model *model)
{
    for (size_t group = 0; group < GROUPS; group++) {
        const struct model_member *member = NULL;
        char wanted[NAMES * 32];
        size_t size = 0;

        wanted[0] = 0;
        while ((member = model_next(model, group, member ? member->number : 0))) {
            size += (size_t)snprintf(wanted + size, sizeof(wanted) - size, "n%u%c%u;",
                                     (unsigned)(member - model->members[group]),
                                     (char)('A' + member->owner), member->info);
        }
        check_list(f, group_names[group], wanted);
    }
}

static void step_write(struct fixture *f, struct model *model, struct bop_random *random)
{
    static const enum bop_op ops[] = {BOP_OP_MEMBER_JOIN, BOP_OP_MEMBER_JOIN, BOP_OP_MEMBER_SET,
                                      BOP_OP_MEMBER_LEAVE};
    enum bop_op op = ops[bop_random_below(random, BOP_COUNT_OF(ops))];
    size_t group = bop_random_below(random, GROUPS), name = bop_random_below(random, NAMES);
    size_t owner = bop_random_below(random, OWNERS);
    unsigned info = (unsigned)bop_random_below(random, 100);
    struct model_member *member = &model->members[group][name];
    bool taken = member->number != 0, own = taken && member->owner == owner;
    char name_text[8], info_text[8];
    struct bop_result result;
    uint8_t status;

    snprintf(name_text, sizeof(name_text), "n%u", (unsigned)name);
    snprintf(info_text, sizeof(info_text), "%u", info);
    status = run(f, owner, op, group_names[group], bytes(name_text),
                 op == BOP_OP_MEMBER_LEAVE ? bytes("") : bytes(info_text));
    result = world_decoded(&f->world, op);
    CHECK_EQ(status,
             op == BOP_OP_MEMBER_JOIN && taken && !own ? BOP_STATUS_CONDITION : BOP_STATUS_OK);
    if (op == BOP_OP_MEMBER_JOIN && !taken) {
        *member = (struct model_member){.number = last_index(f), .owner = owner};
        own = true;
    }
    if (op == BOP_OP_MEMBER_JOIN) {
        CHECK_EQ(result.version, member->number);
    } else {
        CHECK_EQ(result.existed, own);
    }
    if (own && op == BOP_OP_MEMBER_LEAVE) {
        member->number = 0;
    } else if (own) {
        member->info = info;
    }
}

/* The same log for any size of batches. */
static void random_log(struct fixture *f, size_t batch, struct model *model)
{
    struct bop_random random;

    bop_random_seed(&random, 7);
    for (size_t i = 0; i < STEPS; i++) {
        size_t owner = bop_random_below(&random, OWNERS);

        if (batch > 1 && i % batch == 0) {
            world_begin(&f->world);
        }
        if (bop_random_below(&random, 20) == 0) {
            CHECK_EQ(world_expire(&f->world, &f->sessions[owner], 1), BOP_STATUS_OK);
            f->sessions[owner] = world_session(&f->world, 10000, OWNER_TOKEN);
            f->sequences[owner] = 0;
            model_end(model, owner);
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

TEST(member, agrees_with_a_model_whatever_the_batches)
{
    static const size_t batches[] = {7, 64};
    struct world first;
    uint64_t digest;
    uint64_t session = f->sessions[0];

    random_log(f, 1, &(struct model){0});
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
        CHECK_EQ(f->sessions[0], session);
        random_log(f, batches[i], &(struct model){0});
        CHECK_EQ(world_digest(&f->world), digest);
        world_close(&f->world);
    }
    f->world = first;
}
