/*
 * Error codes and messages.
 */
#include <bop/error.h>

#include "tap.h"

#define CAPACITY (BOP_ERROR_MESSAGE_MAX - 1)

struct fixture {
    struct bop_error err;
    char text[2 * BOP_ERROR_MESSAGE_MAX];
};

FIXTURE(NULL, NULL)

/* A string of `count` bytes 'x' in f->text. */
static const char *xs(struct fixture *f, size_t count)
{
    memset(f->text, 'x', count);
    f->text[count] = '\0';
    return f->text;
}

TEST(strerror, knows_our_own_codes)
{
    CHECK_STR_EQ(bop_strerror(BOP_ECORRUPT), "data is corrupt");
    CHECK_STR_EQ(bop_strerror(BOP_EPROTOCOL), "protocol violation");
}

TEST(strerror, knows_the_systems_codes)
{
    CHECK_STR_EQ(bop_strerror(-ENOENT), "No such file or directory");
    CHECK_STR_EQ(bop_strerror(BOP_EINVAL), "Invalid argument");
}

TEST(strerror, has_a_text_for_any_number)
{
    CHECK_STR_EQ(bop_strerror(0), "no error");
    CHECK_STR_EQ(bop_strerror(ENOENT), "unknown error");
    CHECK_STR_EQ(bop_strerror(-9999), "unknown error");
    CHECK_STR_EQ(bop_strerror(-19999), "unknown error");
    CHECK_STR_EQ(bop_strerror(INT32_MIN), "unknown error");
    CHECK_STR_EQ(bop_strerror(INT32_MAX), "unknown error");
}

TEST(error_name, gives_the_name_of_a_code)
{
    CHECK_STR_EQ(bop_error_name(0), "BOP_OK");
    CHECK_STR_EQ(bop_error_name(BOP_ECORRUPT), "BOP_ECORRUPT");
    CHECK_STR_EQ(bop_error_name(-ENOENT), "ENOENT");
    CHECK_STR_EQ(bop_error_name(BOP_ENOMEM), "ENOMEM");
    CHECK_STR_EQ(bop_error_name(7), "UNKNOWN");
    CHECK_STR_EQ(bop_error_name(-19999), "UNKNOWN");
    CHECK_STR_EQ(bop_error_name(INT32_MIN), "UNKNOWN");
}

/* Codes go to disk and over the wire: once given, a number is for ever. */
TEST(errors_def, has_codes_that_are_distinct_and_out_of_the_way_of_errno)
{
    static const int codes[] = {
#define BOP_ERROR(name, value, text) value,
#include <bop/errors.def>
#undef BOP_ERROR
    };

    for (size_t i = 0; i < BOP_COUNT_OF(codes); i++) {
        CHECK(codes[i] < -10000);
        for (size_t j = 0; j < i; j++) {
            CHECK(codes[i] != codes[j]);
        }
    }
    CHECK_EQ(BOP_ECANCELED, -10001);
    CHECK_EQ(BOP_EPROTOCOL, -10027);
}

TEST(error_set, puts_the_text_of_the_code_after_the_sentence)
{
    CHECK_EQ(bop_error_set(&f->err, -ENOENT, "open %s", "a.log"), -ENOENT);
    CHECK_EQ(f->err.code, -ENOENT);
    CHECK_STR_EQ(f->err.message, "open a.log: No such file or directory");
}

TEST(error_say, has_the_sentence_alone)
{
    CHECK_EQ(bop_error_say(&f->err, BOP_ECONFIG, "port %d is taken; set another", 80), BOP_ECONFIG);
    CHECK_EQ(f->err.code, BOP_ECONFIG);
    CHECK_STR_EQ(f->err.message, "port 80 is taken; set another");
}

TEST(error_wrap, puts_a_sentence_in_front)
{
    bop_error_set(&f->err, BOP_ELOCKED, "lock");
    CHECK_EQ(bop_error_wrap(&f->err, "open log %s", "/var/lib/bop"), BOP_ELOCKED);
    CHECK_EQ(f->err.code, BOP_ELOCKED);
    CHECK_STR_EQ(f->err.message, "open log /var/lib/bop: lock: in use by another process");
}

TEST(error, may_be_null)
{
    CHECK_EQ(bop_error_set(NULL, BOP_EFULL, "x"), BOP_EFULL);
    CHECK_EQ(bop_error_say(NULL, BOP_EFULL, "x"), BOP_EFULL);
    CHECK_EQ(bop_error_wrap(NULL, "x"), 0);
}

TEST(error, may_have_its_own_message_as_an_argument)
{
    bop_error_say(&f->err, BOP_EFULL, "one");
    bop_error_say(&f->err, BOP_EFULL, "%s, two", f->err.message);
    CHECK_STR_EQ(f->err.message, "one, two");
    bop_error_wrap(&f->err, "[%s]", f->err.message);
    CHECK_STR_EQ(f->err.message, "[one, two]: one, two");
    bop_error_set(&f->err, BOP_EFULL, "<%s>", f->err.message);
    CHECK_STR_EQ(f->err.message, "<[one, two]: one, two>: full");
}

/* 511 bytes fit, and so do 512 with the last one cut. */
TEST(error_say, cuts_what_is_too_long)
{
    bop_error_say(&f->err, BOP_EFULL, "%s", xs(f, CAPACITY));
    CHECK_EQ(strlen(f->err.message), CAPACITY);
    bop_error_say(&f->err, BOP_EFULL, "%s", xs(f, CAPACITY + 1));
    CHECK_EQ(strlen(f->err.message), CAPACITY);
}

TEST(error_set, keeps_the_text_of_the_code_when_the_rest_is_cut)
{
    bop_error_set(&f->err, BOP_EFULL, "%s", xs(f, CAPACITY + 100));
    CHECK_EQ(strlen(f->err.message), CAPACITY);
    CHECK_STR_EQ(f->err.message + CAPACITY - 8, "xx: full");
}

TEST(error_wrap, cuts_the_older_sentence)
{
    bop_error_say(&f->err, BOP_EFULL, "%s", xs(f, CAPACITY));
    bop_error_wrap(&f->err, "front");
    CHECK_EQ(strlen(f->err.message), CAPACITY);
    CHECK_MEM_EQ(f->err.message, "front: xxx", 10);

    bop_error_wrap(&f->err, "%s", xs(f, CAPACITY + 5));
    CHECK_EQ(strlen(f->err.message), CAPACITY);
}

/* A character of two, three or four bytes that would be cut anywhere goes as a whole. */
TEST(error_say, cuts_between_characters)
{
    static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};

    for (size_t i = 0; i < BOP_COUNT_OF(characters); i++) {
        size_t length = strlen(characters[i]);

        for (size_t kept = 0; kept <= length; kept++) {
            bop_error_say(&f->err, BOP_EFULL, "%s%s!", xs(f, CAPACITY - kept), characters[i]);
            CHECK_EQ(strlen(f->err.message), kept == length ? CAPACITY : CAPACITY - kept);
            CHECK(bop_slice_is_utf8(bytes(f->err.message)));

            bop_error_say(&f->err, BOP_EFULL, "%s%s!", xs(f, CAPACITY - kept - 3), characters[i]);
            bop_error_wrap(&f->err, "a");
            CHECK(bop_slice_is_utf8(bytes(f->err.message)));
        }
    }
}

TEST(error_say, cuts_bytes_that_are_no_characters_too)
{
    memset(f->text, 0x80, CAPACITY + 10);
    f->text[CAPACITY + 10] = '\0';
    bop_error_say(&f->err, BOP_EFULL, "%s", f->text);
    CHECK(strlen(f->err.message) <= CAPACITY);
    CHECK(strlen(f->err.message) >= CAPACITY - 4);
}
