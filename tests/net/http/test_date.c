/*
 * Dates: the three forms of RFC 9110, 5.6.7, and what is none.
 */
#include <bop/http1.h>

#include <time.h>

#include <bop/random.h>

#include "tap.h"

TEST(date, reads_all_three_forms)
{
    static const struct {
        const char *text;
        int64_t unix_s;
    } cases[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
        {"Sun Nov  6 08:49:37 1994", 784111777},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Wed, 31 Dec 1969 23:59:59 GMT", -1},
        {"Tue, 29 Feb 2000 12:00:00 GMT", 951825600},
        {"Thursday, 01-Jan-70 00:00:00 GMT", 0},
        {"Monday, 01-Jan-01 00:00:00 GMT", 978307200},
        {"Wednesday, 31-Dec-69 23:59:59 GMT", 3155759999}, /* 2069 */
        {"Thu Feb 29 00:00:00 2024", 1709164800},
        {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800}, /* A leap second. */
        {"Mon, 06 Nov 1994 08:49:37 GMT", 784111777},  /* A Sunday, but who cares. */
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        int64_t got = 1;

        CHECK(bop_http_date_parse(bytes(cases[i].text), &got));
        CHECK_EQ(got, cases[i].unix_s);
    }
}

TEST(date, refuses_what_is_none)
{
    static const char *const cases[] = {
        "",
        "now",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "sun, 06 nov 1994 08:49:37 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Abc 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 29 Feb 1994 08:49:37 GMT",
        "Sun, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT ",
        "Sun, 06 Nov 1994  08:49:37 GMT",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov -994 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06 Nov 94 08:49:37 GMT",
        "Sun Nov 06 08:49:37 1994 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  0 08:49:37 1994",
        "Sun Nov    08:49:37 1994",
        "Sun Nov  6 08:49:37 199x",
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        int64_t got;
        bool read = bop_http_date_parse(bytes(cases[i]), &got);

        CHECK(!read);
        if (read) {
            test_note("%s", cases[i]);
        }
    }
}

/* Against the C library's calendar, and back. */
TEST(date, writes_what_it_reads)
{
    struct bop_random random;
    char text[30], expected[64];

    bop_random_seed(&random, 8);
    for (int i = 0; i < 20000; i++) {
        time_t at = (time_t)bop_random_below(&random, INT64_C(253402300800));
        struct tm tm;
        int64_t got;

        REQUIRE(gmtime_r(&at, &tm) != NULL);
        REQUIRE(strftime(expected, sizeof(expected), "%a, %d %b %Y %H:%M:%S GMT", &tm) == 29);
        bop_http_date_format(at, text);
        CHECK_STR_EQ(text, expected);
        CHECK(bop_http_date_parse(bytes(text), &got));
        CHECK_EQ(got, at);
    }
    bop_http_date_format(-5, text);
    CHECK_STR_EQ(text, "Thu, 01 Jan 1970 00:00:00 GMT");
    bop_http_date_format(INT64_MAX, text);
    CHECK_STR_EQ(text, "Fri, 31 Dec 9999 23:59:59 GMT");
}
