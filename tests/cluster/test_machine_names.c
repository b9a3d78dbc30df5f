/*
 * The names there are, of each kind, by prefix and page by page.
 */
#include "machine_owner_help.h"

FIXTURE(setup, teardown)

static void say_name(struct fixture *f, const struct bop_scan_entry *entry)
{
    char text[48];

    REQUIRE_EQ(entry->value.size, 8);
    CHECK(entry->version > 0 && entry->version <= last_index(f));
    snprintf(text, sizeof(text), "=%" PRId64 ";", (int64_t)bop_load_u64(entry->value.data));
    owner_say(f, entry->key);
    owner_say(f, bytes(text));
}

/* Names and sizes, in order. */
static void check_names(struct fixture *f, enum bop_name_kind kind, const char *prefix,
                        const char *wanted)
{
    struct bop_operation operation = {.op = BOP_OP_NAMES, .kind = kind, .prefix = bytes(prefix)};

    check_owner_pages(f, &operation, say_name, wanted);
}

static void write_one(struct fixture *f, const struct bop_operation *operation)
{
    CHECK_EQ(owner_write(f, 0, operation), BOP_STATUS_OK);
}

TEST(names, are_of_one_kind_each)
{
    write_one(
        f, &(struct bop_operation){.op = BOP_OP_MAP_PUT, .name = bytes("map"), .key = bytes("k")});
    write_one(
        f, &(struct bop_operation){.op = BOP_OP_SET_ADD, .name = bytes("set"), .key = bytes("k")});
    write_one(f, &(struct bop_operation){
                     .op = BOP_OP_MULTIMAP_PUT, .name = bytes("multimap"), .key = bytes("k")});
    write_one(f, &(struct bop_operation){
                     .op = BOP_OP_COUNTER_ADD, .name = bytes("counter"), .delta = -3});
    write_one(f, &(struct bop_operation){.op = BOP_OP_LOCK_ACQUIRE,
                                         .name = bytes("lock"),
                                         .capacity = 1,
                                         .permits = 1,
                                         .ttl_ms = BOP_LOCK_TIMEOUT_NEVER});
    write_one(f, &(struct bop_operation){
                     .op = BOP_OP_MEMBER_JOIN, .name = bytes("group"), .key = bytes("k")});
    write_one(f, &(struct bop_operation){.op = BOP_OP_REGISTRATION_ADD,
                                         .name = bytes("registry"),
                                         .key = bytes("k"),
                                         .sequence = 1});
    check_names(f, BOP_NAME_MAP, "", "map=1;");
    check_names(f, BOP_NAME_SET, "", "set=1;");
    check_names(f, BOP_NAME_MULTIMAP, "", "multimap=1;");
    check_names(f, BOP_NAME_COUNTER, "", "counter=-3;");
    check_names(f, BOP_NAME_LOCK, "", "lock=1;");
    check_names(f, BOP_NAME_GROUP, "", "group=1;");
    check_names(f, BOP_NAME_REGISTRY, "", "registry=1;");
}

TEST(names, say_what_made_them)
{
    struct bop_operation create = {.op = BOP_OP_MAP_CREATE, .name = bytes("m")};
    struct bop_operation names = {.op = BOP_OP_NAMES, .kind = BOP_NAME_MAP};
    struct bop_scan_entry entry;
    struct bop_result page;
    uint64_t made;

    write_one(f, &create);
    made = last_index(f);
    write_one(f,
              &(struct bop_operation){.op = BOP_OP_MAP_PUT, .name = bytes("m"), .key = bytes("k")});
    page = world_read(&f->world, &names);
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_EQ(entry.version, made);
    CHECK(!bop_scan_next(&page.entries, &entry));
}

/* A namespace is what stands in front of the first '/'. */
TEST(names, are_found_by_their_namespace)
{
    static const char *const names[] = {"app", "app/", "app/b", "app/a", "app-2/a",
                                        "apq", "ap",   "zoo/a", "app0"};

    check_names(f, BOP_NAME_MAP, "", "");
    for (size_t i = 0; i < BOP_COUNT_OF(names); i++) {
        write_one(f, &(struct bop_operation){.op = BOP_OP_MAP_CREATE, .name = bytes(names[i])});
    }
    check_names(f, BOP_NAME_MAP, "app/", "app/=0;app/a=0;app/b=0;");
    check_names(f, BOP_NAME_MAP, "app", "app=0;app-2/a=0;app/=0;app/a=0;app/b=0;app0=0;");
    check_names(f, BOP_NAME_MAP, "zoo/", "zoo/a=0;");
    check_names(f, BOP_NAME_MAP, "zzz", "");
    check_names(f, BOP_NAME_MAP, "",
                "ap=0;app=0;app-2/a=0;app/=0;app/a=0;app/b=0;app0=0;apq=0;zoo/a=0;");
    check_names(f, BOP_NAME_SET, "app/", "");
}

/* Also than a key of the store may be. */
TEST(names, are_none_with_a_prefix_that_is_longer_than_a_name)
{
    static uint8_t prefix[BOP_KEY_MAX];
    struct bop_operation operation = {.op = BOP_OP_NAMES, .kind = BOP_NAME_MAP};
    size_t sizes[] = {BOP_NAME_MAX, BOP_NAME_MAX + 1, BOP_KV_KEY_MAX + 1, sizeof(prefix)};

    memset(prefix, 'm', sizeof(prefix));
    write_one(f, &(struct bop_operation){.op = BOP_OP_MAP_CREATE, .name = bytes("m")});
    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        struct bop_result page;

        operation.prefix = bop_slice(prefix, sizes[i]);
        page = world_read(&f->world, &operation);
        CHECK_EQ(page.status, BOP_STATUS_OK);
        CHECK_EQ(page.count, 0);
        CHECK_EQ(page.cursor.size, 0);
    }
}

/* The cursor stays good when the name that it is at goes. */
TEST(names, go_on_behind_one_that_went)
{
    struct bop_operation operation = {.op = BOP_OP_NAMES, .kind = BOP_NAME_COUNTER, .limit = 1};
    struct bop_scan_entry entry;
    struct bop_result page;
    struct bop_buf cursor;

    for (char c = 'a'; c <= 'c'; c++) {
        write_one(f, &(struct bop_operation){
                         .op = BOP_OP_COUNTER_ADD, .name = bop_slice(&c, 1), .delta = c});
    }
    page = world_read(&f->world, &operation);
    bop_buf_init(&cursor, NULL, 0);
    REQUIRE_EQ(bop_buf_append(&cursor, page.cursor.data, page.cursor.size), 0);
    write_one(f, &(struct bop_operation){.op = BOP_OP_COUNTER_DELETE, .name = bytes("a")});
    operation.cursor = bop_buf_slice(&cursor);
    page = world_read(&f->world, &operation);
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_SLICE_EQ(entry.key, bytes("b"));
    operation.cursor = bytes("\x7f");
    CHECK_EQ(world_read(&f->world, &operation).status, BOP_STATUS_BAD_REQUEST);
    bop_buf_deinit(&cursor);
}
