/*
 * Merkle trees as RFC 9162 hashes them: the well-known vectors of RFC 6962's log, which has the
 * same hashing, and every tree of up to 70 leaves against the definition.
 */
#include "store/aof/merkle.h"

#include <stdio.h>

#include "tap.h"

#define LEAVES_MAX 70

struct fixture {
    struct bop__merkle merkle;
    uint8_t hashes[LEAVES_MAX][BOP_AOF_DIGEST_SIZE];
};

static void setup(struct fixture *f)
{
    REQUIRE_EQ(bop__merkle_init(&f->merkle), 0);
}

static void teardown(struct fixture *f)
{
    bop__merkle_deinit(&f->merkle);
}

FIXTURE(setup, teardown)

static void from_hex(const char *hex, uint8_t *out_bytes)
{
    for (size_t i = 0; hex[2 * i]; i++) {
        unsigned byte = 0;

        REQUIRE_EQ(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out_bytes[i] = (uint8_t)byte;
    }
}

static void check_hex(const uint8_t hash[BOP_AOF_DIGEST_SIZE], const char *hex)
{
    uint8_t wanted[BOP_AOF_DIGEST_SIZE];

    from_hex(hex, wanted);
    CHECK_MEM_EQ(hash, wanted, BOP_AOF_DIGEST_SIZE);
}

static void add_leaf(struct fixture *f, struct bop_slice bytes)
{
    uint64_t index = f->merkle.leaves;
    size_t half = bytes.size / 2;

    bop__merkle_leaf_begin(&f->merkle);
    bop__merkle_leaf_add(&f->merkle, bytes.data, half);
    bop__merkle_leaf_add(&f->merkle, bytes.data + half, bytes.size - half);
    bop__merkle_leaf_end(&f->merkle, f->hashes[index]);
}

/* Leaves "0", "1" and so on. */
static void add_numbers(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char text[16];

        snprintf(text, sizeof(text), "%u", i);
        add_leaf(f, bytes(text));
    }
}

/* MTH of the definition, by recursion. */
static void by_definition(struct fixture *f, uint64_t from, uint64_t to,
                          uint8_t out_root[BOP_AOF_DIGEST_SIZE])
{
    uint8_t sides[2][BOP_AOF_DIGEST_SIZE];
    struct bop__merkle two;
    uint64_t half = 1;

    if (to - from == 1) {
        memcpy(out_root, f->hashes[from], BOP_AOF_DIGEST_SIZE);
        return;
    }
    while (half * 2 < to - from) {
        half *= 2;
    }
    by_definition(f, from, from + half, sides[0]);
    by_definition(f, from + half, to, sides[1]);
    REQUIRE_EQ(bop__merkle_init(&two), 0);
    bop__merkle_push(&two, sides[0]);
    bop__merkle_push(&two, sides[1]);
    CHECK_EQ(bop__merkle_root(&two, out_root), 0);
    bop__merkle_deinit(&two);
}

/* The inputs and roots that Certificate Transparency implementations test with. */
TEST(merkle, gives_the_vectors_of_certificate_transparency)
{
    static const char *const inputs[8] = {
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    };
    static const char *const roots[8] = {
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    };
    uint8_t root[BOP_AOF_DIGEST_SIZE];

    CHECK_EQ(bop__merkle_root(&f->merkle, root), 0);
    check_hex(root, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (size_t i = 0; i < 8; i++) {
        uint8_t leaf[16];

        from_hex(inputs[i], leaf);
        add_leaf(f, bop_slice(leaf, strlen(inputs[i]) / 2));
        CHECK_EQ(bop__merkle_root(&f->merkle, root), 0);
        check_hex(root, roots[i]);
    }
}

TEST(merkle, is_the_definition_for_every_count)
{
    for (unsigned count = 1; count <= LEAVES_MAX; count++) {
        uint8_t root[BOP_AOF_DIGEST_SIZE], wanted[BOP_AOF_DIGEST_SIZE];

        bop__merkle_clear(&f->merkle);
        add_numbers(f, count);
        CHECK_EQ(f->merkle.leaves, count);
        CHECK_EQ(bop__merkle_root(&f->merkle, root), 0);
        by_definition(f, 0, count, wanted);
        CHECK_MEM_EQ(root, wanted, sizeof(root));
    }
}

/* Each leaf of each tree is proven by its path, and by no path with a bit changed, left out or
 * added. */
TEST(merkle, paths_lead_to_the_root)
{
    uint8_t siblings[BOP_AOF_PROOF_MAX][BOP_AOF_DIGEST_SIZE] = {0};
    const uint8_t(*path)[BOP_AOF_DIGEST_SIZE] = (const uint8_t(*)[BOP_AOF_DIGEST_SIZE])siblings;

    for (unsigned count = 1; count <= LEAVES_MAX; count++) {
        struct bop__merkle_leaves leaves = {f->hashes[0], BOP_AOF_DIGEST_SIZE, count};
        uint8_t root[BOP_AOF_DIGEST_SIZE], found[BOP_AOF_DIGEST_SIZE];

        bop__merkle_clear(&f->merkle);
        add_numbers(f, count);
        REQUIRE_EQ(bop__merkle_root(&f->merkle, root), 0);
        for (unsigned index = 0; index < count; index++) {
            int length = bop__merkle_path(&f->merkle, &leaves, index, siblings);

            REQUIRE(length >= 0);
            CHECK_EQ(bop__merkle_fold(&f->merkle, f->hashes[index], index, count, path,
                                      (uint32_t)length, found),
                     0);
            CHECK_MEM_EQ(found, root, sizeof(root));
            for (int i = 0; i < length; i++) {
                siblings[i][i % BOP_AOF_DIGEST_SIZE] ^= 0x10;
                CHECK_EQ(bop__merkle_fold(&f->merkle, f->hashes[index], index, count, path,
                                          (uint32_t)length, found),
                         0);
                CHECK(memcmp(found, root, sizeof(root)) != 0);
                siblings[i][i % BOP_AOF_DIGEST_SIZE] ^= 0x10;
            }
            if (length > 0) {
                CHECK_EQ(bop__merkle_fold(&f->merkle, f->hashes[index], index, count, path,
                                          (uint32_t)length - 1, found),
                         BOP_ECORRUPT);
            }
            CHECK_EQ(bop__merkle_fold(&f->merkle, f->hashes[index], index, count, path,
                                      (uint32_t)length + 1, found),
                     BOP_ECORRUPT);
        }
    }
}

TEST(merkle, refuses_leaves_that_there_are_not)
{
    uint8_t siblings[BOP_AOF_PROOF_MAX][BOP_AOF_DIGEST_SIZE] = {0};
    const uint8_t(*path)[BOP_AOF_DIGEST_SIZE] = (const uint8_t(*)[BOP_AOF_DIGEST_SIZE])siblings;
    uint8_t root[BOP_AOF_DIGEST_SIZE];

    CHECK_EQ(bop__merkle_fold(&f->merkle, f->hashes[0], 0, 0, path, 0, root), BOP_ECORRUPT);
    CHECK_EQ(bop__merkle_fold(&f->merkle, f->hashes[0], 3, 3, path, 2, root), BOP_ECORRUPT);
    CHECK_EQ(bop__merkle_fold(&f->merkle, f->hashes[0], UINT64_MAX, 3, path, 2, root),
             BOP_ECORRUPT);
    CHECK_EQ(
        bop__merkle_fold(&f->merkle, f->hashes[0], 0, UINT64_MAX, path, BOP_AOF_PROOF_MAX, root),
        BOP_ECORRUPT);
    CHECK_EQ(bop__merkle_fold(&f->merkle, f->hashes[0], 0, UINT64_MAX, path, UINT32_MAX, root),
             BOP_ECORRUPT);
}
