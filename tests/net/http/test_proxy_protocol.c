/*
 * PROXY headers: good and bad ones of both versions, whole and cut at every byte.
 */
#include <bop/proxy_protocol.h>

#include <stdio.h>

#include <bop/crc32c.h>
#include <bop/error.h>

#include "tap.h"

/* Parse whole, and see that each part is either more wanted or refused as the whole is. */
static int parse(struct bop_slice text, struct bop_proxy_header *header)
{
    int rc = bop_proxy_parse(text, header);
    size_t size = rc == 0 ? header->size : text.size;

    for (size_t cut = 0; cut < size; cut++) {
        struct bop_proxy_header part;
        int cut_rc = bop_proxy_parse(bop_slice(text.data, cut), &part);

        CHECK(cut_rc == BOP_ETRUNCATED || (cut_rc == rc && rc != 0));
    }
    return rc;
}

static void check_address(const struct bop_address *address, const char *expected)
{
    char text[BOP_ADDRESS_TEXT_MAX];

    bop_address_format(address, text);
    CHECK_STR_EQ(text, expected);
}

TEST(proxy_v1, reads_the_good)
{
    struct bop_proxy_header header;

    REQUIRE_EQ(parse(bytes("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET /"), &header), 0);
    CHECK_EQ(header.version, 1);
    CHECK_EQ(header.size, 45);
    CHECK_EQ(header.family, BOP_PROXY_INET);
    CHECK(!header.is_local);
    check_address(&header.source, "192.0.2.1:56324");
    check_address(&header.destination, "198.51.100.2:443");

    REQUIRE_EQ(parse(bytes("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"), &header), 0);
    check_address(&header.source, "[2001:db8::1]:0");
    check_address(&header.destination, "[::1]:65535");

    REQUIRE_EQ(parse(bytes("PROXY UNKNOWN\r\n"), &header), 0);
    CHECK_EQ(header.family, BOP_PROXY_UNSPEC);
    /* The longest there is: 107 bytes. */
    REQUIRE_EQ(parse(bytes("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                           "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
                     &header),
               0);
    CHECK_EQ(header.size, 107);
}

TEST(proxy_v1, refuses_the_bad)
{
    static const char *const cases[] = {
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n",
        "PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 localhost 1.2.3.4 1 2\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 655350\r\n",
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 655350 and so on for long",
    };
    struct bop_proxy_header header;

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        int rc = parse(bytes(cases[i]), &header);

        CHECK_EQ(rc, BOP_EMALFORMED);
        if (rc != BOP_EMALFORMED) {
            test_note("of %s", cases[i]);
        }
    }
}

/* ---- Version 2 ---- */

struct v2 {
    uint8_t data[BOP_PROXY_BYTES_MAX + 16];
    size_t size;
};

static void put(struct v2 *v2, const void *data, size_t size)
{
    memcpy(v2->data + v2->size, data, size);
    v2->size += size;
    v2->data[14] = (uint8_t)((v2->size - 16) >> 8);
    v2->data[15] = (uint8_t)(v2->size - 16);
}

static void begin(struct v2 *v2, uint8_t command, uint8_t family)
{
    memcpy(v2->data, "\r\n\r\n\0\r\nQUIT\n", 12);
    v2->data[12] = command;
    v2->data[13] = family;
    v2->size = 14;
    v2->size = 16;
    put(v2, "", 0);
}

static void put_tlv(struct v2 *v2, uint8_t type, const char *value, size_t size)
{
    uint8_t head[3] = {type, (uint8_t)(size >> 8), (uint8_t)size};

    put(v2, head, 3);
    put(v2, value, size);
}

/* A checksum TLV at `at`, whose value is zeros, becomes right. */
static void put_checksum(struct v2 *v2, size_t at)
{
    uint32_t crc = bop_crc32c(0, v2->data, v2->size);

    for (int i = 0; i < 4; i++) {
        v2->data[at + 3 + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
    }
}

#define IPV4 "\x0a\x00\x00\x01\x0a\x00\x00\x02\x1f\x90\x00\x50"

static int parse_v2(const struct v2 *v2, struct bop_proxy_header *header)
{
    return parse(bop_slice(v2->data, v2->size), header);
}

TEST(proxy_v2, reads_ipv4_with_tlvs)
{
    struct bop_proxy_header header;
    struct bop_slice rest, value;
    struct v2 v2;
    uint8_t type;
    size_t at;

    begin(&v2, 0x21, 0x11);
    put(&v2, IPV4, 12);
    put_tlv(&v2, BOP_PROXY_TLV_AUTHORITY, "example.org", 11);
    at = v2.size;
    put_tlv(&v2, BOP_PROXY_TLV_CRC32C, "\0\0\0\0", 4);
    put_tlv(&v2, 0xee, "", 0);
    put_checksum(&v2, at);

    REQUIRE_EQ(parse_v2(&v2, &header), 0);
    CHECK_EQ(header.version, 2);
    CHECK_EQ(header.size, v2.size);
    CHECK(!header.is_datagram);
    check_address(&header.source, "10.0.0.1:8080");
    check_address(&header.destination, "10.0.0.2:80");
    rest = header.tlvs;
    REQUIRE(bop_proxy_tlv_next(&rest, &type, &value));
    CHECK_EQ(type, BOP_PROXY_TLV_AUTHORITY);
    CHECK_SLICE_EQ(value, bytes("example.org"));
    REQUIRE(bop_proxy_tlv_next(&rest, &type, &value));
    CHECK_EQ(type, BOP_PROXY_TLV_CRC32C);
    REQUIRE(bop_proxy_tlv_next(&rest, &type, &value));
    CHECK_EQ(type, 0xee);
    CHECK_EQ(value.size, 0);
    CHECK(!bop_proxy_tlv_next(&rest, &type, &value));

    v2.data[20] ^= 1;
    CHECK_EQ(parse_v2(&v2, &header), BOP_ECORRUPT);
}

TEST(proxy_v2, reads_the_other_families)
{
    struct bop_proxy_header header;
    struct v2 v2;
    uint8_t paths[216] = {0};

    begin(&v2, 0x21, 0x22);
    put(&v2, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
    put(&v2, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
    put(&v2, "\x00\x01\xff\xff", 4);
    REQUIRE_EQ(parse_v2(&v2, &header), 0);
    CHECK(header.is_datagram);
    check_address(&header.source, "[2001:db8::1]:1");
    check_address(&header.destination, "[::1]:65535");

    begin(&v2, 0x21, 0x31);
    memcpy(paths, "/run/a", 6);
    memset(paths + 108, 'b', 108);
    put(&v2, paths, sizeof(paths));
    REQUIRE_EQ(parse_v2(&v2, &header), 0);
    CHECK_EQ(header.family, BOP_PROXY_UNIX);
    CHECK_SLICE_EQ(header.source_path, bytes("/run/a"));
    CHECK_EQ(header.destination_path.size, 108);
}

TEST(proxy_v2, skips_what_local_and_unknown_say)
{
    struct bop_proxy_header header;
    struct v2 v2;

    begin(&v2, 0x20, 0x00);
    REQUIRE_EQ(parse_v2(&v2, &header), 0);
    CHECK(header.is_local);
    CHECK_EQ(header.size, 16);

    begin(&v2, 0x20, 0x11);
    put(&v2, "anything", 8); /* Not even addresses. */
    REQUIRE_EQ(parse_v2(&v2, &header), 0);
    CHECK_EQ(header.size, 24);
    CHECK_EQ(header.family, BOP_PROXY_UNSPEC);

    begin(&v2, 0x21, 0x00);
    put(&v2, "anything", 8);
    REQUIRE_EQ(parse_v2(&v2, &header), 0);
    CHECK(!header.is_local);
    CHECK_EQ(header.family, BOP_PROXY_UNSPEC);
}

TEST(proxy_v2, refuses_the_bad)
{
    struct bop_proxy_header header;
    struct v2 v2;

    for (unsigned command = 0; command < 256; command++) {
        begin(&v2, (uint8_t)command, 0x00);
        CHECK_EQ(parse_v2(&v2, &header), command == 0x20 || command == 0x21 ? 0 : BOP_EMALFORMED);
    }
    for (unsigned family = 0; family < 256; family++) {
        begin(&v2, 0x20, (uint8_t)family);
        CHECK_EQ(parse_v2(&v2, &header),
                 family >> 4 <= 3 && (family & 15) <= 2 ? 0 : BOP_EMALFORMED);
    }
    begin(&v2, 0x21, 0x11);
    put(&v2, IPV4, 11); /* One byte short. */
    CHECK_EQ(parse_v2(&v2, &header), BOP_EMALFORMED);
    put(&v2, "\x50\x01\x00", 3); /* A TLV without its size. */
    CHECK_EQ(parse_v2(&v2, &header), BOP_EMALFORMED);
    put(&v2,
        "\x05"
        "ab",
        3); /* And one that is longer than the header. */
    CHECK_EQ(parse_v2(&v2, &header), BOP_EMALFORMED);

    begin(&v2, 0x21, 0x11);
    put(&v2, IPV4, 12);
    put_tlv(&v2, BOP_PROXY_TLV_CRC32C, "\0\0\0", 3);
    CHECK_EQ(parse_v2(&v2, &header), BOP_EMALFORMED);
}

TEST(proxy_v2, refuses_a_second_checksum_and_what_is_too_long)
{
    struct bop_proxy_header header;
    struct v2 v2;
    size_t at;

    begin(&v2, 0x21, 0x11);
    put(&v2, IPV4, 12);
    at = v2.size;
    put_tlv(&v2, BOP_PROXY_TLV_CRC32C, "\0\0\0\0", 4);
    put_tlv(&v2, BOP_PROXY_TLV_CRC32C, "\0\0\0\0", 4);
    put_checksum(&v2, at);
    CHECK_EQ(parse_v2(&v2, &header), BOP_EMALFORMED);

    begin(&v2, 0x20, 0x00);
    memset(v2.data + 16, 0, sizeof(v2.data) - 16);
    put(&v2, v2.data + 16, BOP_PROXY_BYTES_MAX - 16);
    CHECK_EQ(parse_v2(&v2, &header), 0);
    put(&v2, "", 1);
    CHECK_EQ(parse_v2(&v2, &header), BOP_ETOOBIG);
}
