/*
 * The encoding of configurations, and its agreement with libraft's.
 */
#include <stdio.h>
#include <stdlib.h>

#include <raft.h>

#include "../../src/raft/configuration.h"
#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_buf buf;
    struct bop_raft_configuration conf;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop_buf_init(&f->buf, &f->heap.allocator, 0);
    f->conf = (struct bop_raft_configuration){
        .count = 3,
        .servers = {{.id = 1, .role = BOP_RAFT_VOTER, .address = "a:1"},
                    {.id = 0x0203, .role = BOP_RAFT_STANDBY, .address = "b:22"},
                    {.id = UINT64_MAX, .role = BOP_RAFT_SPARE, .address = "c"}},
    };
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->buf);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* Of f->conf, byte by byte: it must be the same for ever. */
static const uint8_t golden[] = {
    1,                                                                /* Format. */
    3,   0,   0,   0,   0,   0,   0,   0,                             /* Servers. */
    1,   0,   0,   0,   0,   0,   0,   0,   'a', ':', '1', 0,   1,    /* A voter. */
    3,   2,   0,   0,   0,   0,   0,   0,   'b', ':', '2', '2', 0, 0, /* A standby. */
    255, 255, 255, 255, 255, 255, 255, 255, 'c', 0,   2,              /* A spare. */
    0,   0,   0,   0,   0,   0,   0,   0,   0,
};

#define GOLDEN_SIZE 48 /* 9 + 13 + 14 + 11 is 47, and one zero to a multiple of 8. */

static bool same(const struct bop_raft_configuration *a, const struct bop_raft_configuration *b)
{
    if (a->count != b->count) {
        return false;
    }
    for (unsigned i = 0; i < a->count; i++) {
        if (a->servers[i].id != b->servers[i].id || a->servers[i].role != b->servers[i].role ||
            strcmp(a->servers[i].address, b->servers[i].address) != 0) {
            return false;
        }
    }
    return true;
}

TEST(configuration, has_these_very_bytes)
{
    REQUIRE_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bop_slice(golden, GOLDEN_SIZE));
}

TEST(configuration, comes_back_as_it_was)
{
    struct bop_raft_configuration back;

    REQUIRE_EQ(bop_raft_configuration_decode(bop_slice(golden, GOLDEN_SIZE), &back), 0);
    CHECK(same(&f->conf, &back));
}

/* A configuration that fills every bound, after bytes of something else in the buffer. */
TEST(configuration, holds_as_many_servers_as_allowed)
{
    struct bop_raft_configuration back;

    f->conf.count = BOP_RAFT_SERVERS_MAX;
    for (unsigned i = 0; i < BOP_RAFT_SERVERS_MAX; i++) {
        struct bop_raft_server *server = &f->conf.servers[i];

        server->id = i + 1;
        server->role = BOP_RAFT_VOTER;
        memset(server->address, 'x', sizeof(server->address) - 1);
        server->address[i] = 'y';
        server->address[sizeof(server->address) - 1] = '\0';
    }
    REQUIRE_EQ(bop_buf_append(&f->buf, "abc", 3), 0);
    REQUIRE_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), 0);
    CHECK_EQ((f->buf.size - 3) % 8, 0);
    REQUIRE_EQ(bop_raft_configuration_decode(bop_slice(f->buf.data + 3, f->buf.size - 3), &back),
               0);
    CHECK(same(&f->conf, &back));
}

TEST(configuration, refuses_to_encode_what_breaks_the_rules)
{
    struct bop_raft_configuration good = f->conf;

    f->conf.count = 0;
    CHECK_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), BOP_EINVAL);
    f->conf.count = BOP_RAFT_SERVERS_MAX + 1;
    CHECK_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), BOP_EINVAL);
    f->conf = good;
    f->conf.servers[1].id = 1;
    CHECK_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), BOP_EINVAL);
    f->conf = good;
    f->conf.servers[1].id = 0;
    CHECK_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), BOP_EINVAL);
    f->conf = good;
    f->conf.servers[2].role = 4;
    CHECK_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), BOP_EINVAL);
    f->conf = good;
    strcpy(f->conf.servers[2].address, "a:1");
    CHECK_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), BOP_EINVAL);
    f->conf = good;
    f->conf.servers[0].address[0] = '\0';
    CHECK_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), BOP_EINVAL);
    f->conf = good;
    memset(f->conf.servers[0].address, 'x', sizeof(f->conf.servers[0].address));
    CHECK_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), BOP_EINVAL);
    CHECK_EQ(f->buf.size, 0);
}

/* Decode a copy of its own size, so that a sanitizer sees a read past the end. */
static int decode_copy(const uint8_t *data, size_t size)
{
    struct bop_raft_configuration conf;
    uint8_t *copy = malloc(size > 0 ? size : 1);
    int rc;

    REQUIRE(copy != NULL);
    memcpy(copy, data, size);
    rc = bop_raft_configuration_decode(bop_slice(copy, size), &conf);
    free(copy);
    return rc;
}

TEST(configuration, is_malformed_when_cut_or_longer)
{
    for (size_t size = 0; size < GOLDEN_SIZE; size++) {
        CHECK_EQ(decode_copy(golden, size), BOP_EMALFORMED);
    }
    CHECK_EQ(decode_copy(golden, GOLDEN_SIZE), 0);
    CHECK_EQ(decode_copy(golden, sizeof(golden)), BOP_EMALFORMED);
}

/* Whatever a flipped bit makes of it, it is refused or another valid configuration. */
TEST(configuration, survives_each_flipped_bit)
{
    uint8_t bent[GOLDEN_SIZE];
    unsigned refused = 0;

    for (unsigned bit = 0; bit < GOLDEN_SIZE * 8; bit++) {
        struct bop_raft_configuration conf;

        memcpy(bent, golden, sizeof(bent));
        bent[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (bop_raft_configuration_decode(bop_slice(bent, sizeof(bent)), &conf) == 0) {
            CHECK(bop__raft_configuration_valid(&conf));
            CHECK(!same(&conf, &f->conf));
        } else {
            refused++;
        }
    }
    CHECK(refused > 8 + 64 + 8); /* At least the format, the count and the padding. */
}

/* The core decodes CHANGE entries itself. */
TEST(configuration, is_what_libraft_writes_and_reads)
{
    struct raft_configuration conf;
    struct raft_buffer buf;

    raft_configuration_init(&conf);
    REQUIRE_EQ(raft_configuration_add(&conf, 1, "a:1", RAFT_VOTER), 0);
    REQUIRE_EQ(raft_configuration_add(&conf, 0x0203, "b:22", RAFT_STANDBY), 0);
    REQUIRE_EQ(raft_configuration_add(&conf, UINT64_MAX, "c", RAFT_SPARE), 0);
    REQUIRE_EQ(raft_configuration_encode(&conf, &buf), 0);
    CHECK_SLICE_EQ(bop_slice(buf.base, buf.len), bop_slice(golden, GOLDEN_SIZE));
    raft_free(buf.base);
    raft_configuration_close(&conf);
}

TEST(configuration, says_when_memory_or_room_is_out)
{
    FAULT_SWEEP(&f->faults) {
        int rc = bop_raft_configuration_encode(&f->conf, &f->buf);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(f->buf.size, rc == 0 ? GOLDEN_SIZE : 0);
        bop_buf_deinit(&f->buf);
        bop_buf_init(&f->buf, &f->heap.allocator, 0);
    }
    f->buf.size_max = GOLDEN_SIZE - 1;
    CHECK_EQ(bop_raft_configuration_encode(&f->conf, &f->buf), BOP_EFULL);
    CHECK_EQ(f->buf.size, 0);
}

TEST(configuration, counts_what_differs_and_keeps_the_order)
{
    struct bop_raft_configuration to = f->conf, ordered;

    to.servers[0] = f->conf.servers[2];
    to.servers[2] = f->conf.servers[0];
    CHECK_EQ(bop__raft_configuration_difference(&f->conf, &to, &ordered), 0);
    CHECK(same(&ordered, &f->conf));

    to.servers[2].role = BOP_RAFT_STANDBY; /* Server 1. */
    CHECK_EQ(bop__raft_configuration_difference(&f->conf, &to, &ordered), 1);
    CHECK_EQ(ordered.servers[0].id, 1);
    CHECK_EQ(ordered.servers[0].role, BOP_RAFT_STANDBY);

    to.servers[0].id = 9; /* One gone, one new. */
    CHECK_EQ(bop__raft_configuration_difference(&f->conf, &to, &ordered), 3);
    CHECK_EQ(ordered.servers[2].id, 9);
}
