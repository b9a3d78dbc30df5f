/*
 * Addresses: what is one, what is malformed, and what can only be a name.
 */
#include <arpa/inet.h>
#include <netinet/in.h>

#include <bop/address.h>

#include "tap.h"

static void check_text(const char *host, const char *expected)
{
    struct bop_address address;
    char text[BOP_ADDRESS_TEXT_MAX];
    int rc = bop_address_parse(host, 80, &address);

    if (rc != 0) {
        test_note("%s", host);
    }
    REQUIRE_EQ(rc, 0);
    bop_address_format(&address, text);
    CHECK_STR_EQ(text, expected);
}

TEST(address, is_read_and_written)
{
    check_text("127.0.0.1", "127.0.0.1:80");
    check_text("0.0.0.0", "0.0.0.0:80");
    check_text("255.255.255.255", "255.255.255.255:80");
    check_text("::", "[::]:80");
    check_text("::1", "[::1]:80");
    check_text("[::1]", "[::1]:80");
    check_text("2001:DB8::00ff", "[2001:db8::ff]:80");
    check_text("::ffff:1.2.3.4", "[::ffff:1.2.3.4]:80");
    check_text("fe80::1%7", "[fe80::1%7]:80");
    check_text("fe80::1%lo", "[fe80::1%1]:80");
    check_text("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%4294967295",
               "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:80");
}

TEST(address, that_is_malformed_is_no_name)
{
    static const char *const hosts[] = {
        "",
        "1",
        "1.2",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.256",
        "01.2.3.4",
        "1.2.3.4.",
        "1..2.3",
        "1.2.3.0x4",
        "0x7f000001",
        "0x",
        "2130706433",
        "a.1",
        "a.b.077",
        "1.2.3.4:80",
        "::g",
        ":",
        ":::",
        "1::2::3",
        "[::1",
        "::1]",
        "[::1]:80",
        "[]",
        "[1.2.3.4]",
        "::1%",
        "::1%0",
        "::1%nosuchif",
        "::1%99999999999",
        "1.2.3.4%1",
        "name%1",
        "1:2:3:4:5:6:7:8:9",
        "12345::",
        "host:80",
        "[host]",
        "1111111111111111111111111111111111:111111111111111111111111111",
    };

    for (size_t i = 0; i < BOP_COUNT_OF(hosts); i++) {
        struct bop_address address = {.port = 7};
        int rc = bop_address_parse(hosts[i], 80, &address);

        if (rc != BOP_EINVAL) {
            test_note("%s", hosts[i]);
        }
        CHECK_EQ(rc, BOP_EINVAL);
        CHECK_EQ(address.port, 7); /* Written on success only. */
    }
}

TEST(address, is_not_what_can_only_be_a_name)
{
    static const char *const hosts[] = {
        "localhost", "a", "1a", "1.2.3.d", "0xg", "x0", "0", "example.com.", "1.2.3.4.com", "db-1",
    };

    for (size_t i = 0; i < BOP_COUNT_OF(hosts); i++) {
        struct bop_address address;
        int expected = strcmp(hosts[i], "0") == 0 ? BOP_EINVAL : BOP_ENOTFOUND;

        CHECK_EQ(bop_address_parse(hosts[i], 80, &address), expected);
    }
}

TEST(address, survives_the_way_through_a_sockaddr)
{
    static const char *const hosts[] = {"1.2.3.4", "::1", "fe80::1%3"};

    for (size_t i = 0; i < BOP_COUNT_OF(hosts); i++) {
        struct sockaddr_storage storage;
        struct bop_address address, again;
        socklen_t size;

        REQUIRE_EQ(bop_address_parse(hosts[i], 4000, &address), 0);
        size = bop_address_to_sockaddr(&address, &storage);
        CHECK_EQ(size, i == 0 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        again = bop_address_from_sockaddr((struct sockaddr *)&storage);
        CHECK(bop_address_equal(&address, &again));
        again.port++;
        CHECK(!bop_address_equal(&address, &again));
    }
}

TEST(address, of_another_family_is_none)
{
    struct sockaddr_storage storage = {.ss_family = AF_UNIX};
    struct bop_address address = bop_address_from_sockaddr((struct sockaddr *)&storage);
    char text[BOP_ADDRESS_TEXT_MAX];

    CHECK_EQ(address.family, AF_UNSPEC);
    CHECK_EQ(bop_address_to_sockaddr(&address, &storage), 0);
    bop_address_format(&address, text);
    CHECK_STR_EQ(text, "unknown");
}

TEST(address, of_a_number)
{
    struct bop_address address = bop_address_ipv4(0x7f000001, 4000), parsed;

    REQUIRE_EQ(bop_address_parse("127.0.0.1", 4000, &parsed), 0);
    CHECK(bop_address_equal(&address, &parsed));
}
