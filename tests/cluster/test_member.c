/*
 * Servers as texts, and the file that says which directory is whose.
 */
#include <bop/sim.h>

#include "member.h"
#include "member_file.h"
#include "tap.h"

struct fixture {
    struct bop_fs_sim *disk;
    struct bop_fs *fs;
    struct bop_error err;
};

static void setup(struct fixture *f)
{
    struct bop_fs_sim_options options = {.seed = 1};

    REQUIRE_EQ(bop_fs_sim_create(&options, &f->disk), 0);
    f->fs = bop_fs_sim_fs(f->disk);
}

static void teardown(struct fixture *f)
{
    bop_fs_sim_destroy(f->disk);
}

FIXTURE(setup, teardown)

TEST(member, is_an_address_if_it_says_no_more)
{
    struct member member;
    char text[MEMBER_TEXT_MAX];

    REQUIRE_EQ(bop__member_parse(bytes("10.0.0.1:4700"), &member), 0);
    CHECK_STR_EQ(member.address, "10.0.0.1:4700");
    CHECK_EQ(member.incarnation, 0);
    CHECK_EQ(member.priority, 1);
    CHECK(!member.learner);
    CHECK(!member.introduced);
    REQUIRE_EQ(bop__member_format(&member, text), 0);
    CHECK_STR_EQ(text, "10.0.0.1:4700");
}

TEST(member, comes_back_with_all_attributes)
{
    static const char whole[] = "[::1]:4700;i=00ab000000000001;p=0;l;m=90;v=2";
    struct member member;
    char text[MEMBER_TEXT_MAX];

    REQUIRE_EQ(bop__member_parse(bytes(whole), &member), 0);
    CHECK_STR_EQ(member.address, "[::1]:4700");
    CHECK_EQ(member.incarnation, UINT64_C(0x00ab000000000001));
    CHECK_EQ(member.priority, 0);
    CHECK(member.learner);
    CHECK_EQ(member.since, 90);
    CHECK_EQ(member.level, 2);
    CHECK(member.introduced);
    REQUIRE_EQ(bop__member_format(&member, text), 0);
    CHECK_STR_EQ(text, whole);
    CHECK_SLICE_EQ(bop__member_address(text), bytes("[::1]:4700"));
}

TEST(member, skips_attributes_of_later_versions)
{
    struct member member;

    REQUIRE_EQ(bop__member_parse(bytes("h:1;z=9;p=7;q"), &member), 0);
    CHECK_EQ(member.priority, 7);
}

TEST(member, refuses_what_makes_no_sense)
{
    static const char *const wrong[] = {"",
                                        ";p=1",
                                        "h:1;",
                                        "h:1;p=",
                                        "h:1;p=101",
                                        "h:1;p=x",
                                        "h:1;p=-",
                                        "h:1;i=g",
                                        "h:1;;l",
                                        "h:1;v=4294967296",
                                        "h:1;i=00000000000000001"};
    struct member member;

    for (size_t n = 0; n < BOP_COUNT_OF(wrong); n++) {
        CHECK_EQ(bop__member_parse(bytes(wrong[n]), &member), BOP_EMALFORMED);
    }
}

TEST(member, of_a_text_that_makes_no_sense_has_the_address)
{
    struct bop_raft_server server = {.id = 1, .address = "h:1;p=1000"};
    struct member member;

    bop__member_of(&server, &member);
    CHECK_STR_EQ(member.address, "h:1");
    CHECK_EQ(member.priority, 1);
}

TEST(member, refuses_what_has_no_room)
{
    struct member member = {.incarnation = 1, .priority = 1};
    char text[MEMBER_TEXT_MAX];

    memset(member.address, 'a', 270);
    CHECK_EQ(bop__member_format(&member, text), BOP_ETOOBIG);
}

TEST(member_file, keeps_its_incarnation)
{
    struct member_file file;

    REQUIRE_EQ(bop__member_file_open(&file, f->fs, "/member", 77, MEMBER_NO, &f->err), 0);
    CHECK_EQ(file.incarnation, 77);
    CHECK_EQ(file.state, MEMBER_NO);
    REQUIRE_EQ(bop__member_file_save(&file, f->fs, "/member", MEMBER_YES, &f->err), 0);
    bop_fs_sim_lose_power(f->disk);
    REQUIRE_EQ(bop__member_file_open(&file, f->fs, "/member", 78, MEMBER_NO, &f->err), 0);
    CHECK_EQ(file.incarnation, 77);
    CHECK_EQ(file.state, MEMBER_YES);
}

TEST(member_file, refuses_damage)
{
    static const char *const wrong[] = {"",
                                        "incarnation 0000000000000000\nmember no\n",
                                        "incarnation 000000000000004d\nmember no",
                                        "incarnation 000000000000004d\nmember maybe\n",
                                        "incarnation 4d\nmember no\n",
                                        "incarnation 000000000000004d\nmember no\n\n"};
    struct member_file file;

    for (size_t n = 0; n < BOP_COUNT_OF(wrong); n++) {
        REQUIRE_EQ(bop_fs_write_file(f->fs, "/member", bytes(wrong[n]), &f->err), 0);
        CHECK_EQ(bop__member_file_open(&file, f->fs, "/member", 78, MEMBER_NO, &f->err),
                 BOP_ECORRUPT);
    }
    CHECK_STR_HAS(f->err.message, "bop cluster replace");
}

/* Each operation fails once in turn, with the power cut after it: the error is said, nothing stays
 * open, and the file says what it said before or after, whole. */
TEST(member_file, survives_each_fault)
{
    struct bop_faults faults = {0};

    FAULT_SWEEP(&faults) {
        struct bop_fs_sim_options options = {.seed = faults.fail_at};
        struct member_file file = {0};
        struct bop_error err = {0};
        struct bop_fs_faulty faulty;
        struct bop_fs_sim *disk;
        int rc;

        REQUIRE_EQ(bop_fs_sim_create(&options, &disk), 0);
        bop_fs_faulty_init(&faulty, bop_fs_sim_fs(disk), &faults);
        rc = bop__member_file_open(&file, &faulty.fs, "/member", 7, MEMBER_NO, &err);
        if (rc == 0) {
            CHECK_EQ(file.incarnation, 7);
            rc = bop__member_file_save(&file, &faulty.fs, "/member", MEMBER_YES, &err);
            CHECK_EQ(file.state, rc == 0 ? MEMBER_YES : MEMBER_NO);
        }
        if (rc == 0) {
            rc = bop__member_file_open(&file, &faulty.fs, "/member", 8, MEMBER_NO, &err);
            CHECK(rc < 0 || (file.incarnation == 7 && file.state == MEMBER_YES));
        }
        CHECK_EQ(rc, faults.fired);
        CHECK(rc == 0 || (err.code == rc && err.message[0] != '\0'));
        CHECK_EQ(faulty.open_files, 0);
        bop_fs_sim_lose_power(disk);
        CHECK_EQ(bop__member_file_open(&file, bop_fs_sim_fs(disk), "/member", 9, MEMBER_NO, NULL),
                 0);
        CHECK(rc < 0 || (file.incarnation == 7 && file.state == MEMBER_YES));
        bop_fs_sim_destroy(disk);
    }
    CHECK(faults.at >= 10);
}
