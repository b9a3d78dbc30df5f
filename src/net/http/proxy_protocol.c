/*
 * PROXY protocol headers, by the specification of 2020.
 *
 * Version 1 is a line of text, version 2 has a binary head of 16 bytes: 12 that
 * no other protocol begins with, version and command, family and transport, and
 * the size of what follows: addresses by the family, then TLVs.
 */
#include <bop/proxy_protocol.h>

#include <sys/socket.h>

#include <bop/crc32c.h>
#include <bop/error.h>

#define V1_MAX      107 /* "PROXY TCP6 " with the longest of all, and CRLF. */
#define V2_HEAD     16
#define INET4_SIZE  12
#define INET6_SIZE  36
#define UNIX_PATH   108
#define CRC32C_SIZE 4

static const uint8_t signature[12] = {'\r', '\n', '\r', '\n', '\0', '\r',
                                      '\n', 'Q',  'U',  'I',  'T',  '\n'};

static uint16_t read_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

/* ---- Version 1 ---- */

/* The text before the next space, which is taken as well; size 0: there is none. */
static struct bop_slice next_word(struct bop_slice *in_out_line)
{
    struct bop_slice line = *in_out_line;
    const uint8_t *space = line.size > 0 ? memchr(line.data, ' ', line.size) : NULL;
    size_t size = space ? (size_t)(space - line.data) : line.size;

    *in_out_line = space ? bop_slice(space + 1, line.size - size - 1) : bop_slice(NULL, 0);
    return bop_slice(line.data, size);
}

/* Decimal, without leading zeros. */
static bool read_port(struct bop_slice word, uint16_t *out_port)
{
    unsigned port = 0;

    if (word.size == 0 || word.size > 5 || (word.size > 1 && word.data[0] == '0')) {
        return false;
    }
    for (size_t i = 0; i < word.size; i++) {
        if (word.data[i] < '0' || word.data[i] > '9') {
            return false;
        }
        port = port * 10 + (word.data[i] - (unsigned)'0');
    }
    *out_port = (uint16_t)port;
    return port <= UINT16_MAX;
}

/* A bare address of the family, of the characters that such have. */
static bool read_ip(struct bop_slice word, int family, struct bop_address *out_address)
{
    const char *allowed = family == AF_INET ? "0123456789." : "0123456789abcdefABCDEF:.";
    char text[46];

    if (word.size == 0 || word.size >= sizeof(text)) {
        return false;
    }
    for (size_t i = 0; i < word.size; i++) {
        if (word.data[i] == '\0' || !strchr(allowed, word.data[i])) {
            return false;
        }
    }
    memcpy(text, word.data, word.size);
    text[word.size] = '\0';
    return bop_address_parse(text, 0, out_address) == 0 && out_address->family == family;
}

static bool read_addresses(struct bop_slice line, int family, struct bop_proxy_header *header)
{
    struct bop_slice source = next_word(&line), destination = next_word(&line);
    struct bop_slice source_port = next_word(&line), destination_port = next_word(&line);

    header->family = BOP_PROXY_INET;
    return !line.data && read_ip(source, family, &header->source) &&
           read_ip(destination, family, &header->destination) &&
           read_port(source_port, &header->source.port) &&
           read_port(destination_port, &header->destination.port);
}

/* Up to CRLF: 0 with the line, BOP_ETRUNCATED or BOP_EMALFORMED. */
static int read_line(struct bop_slice bytes, struct bop_slice *out_line)
{
    size_t size = (size_t)bop_min_u64(bytes.size, V1_MAX);

    for (size_t i = 0; i < size; i++) {
        if (bytes.data[i] == '\r') {
            if (i + 1 == bytes.size) {
                /* Else an LF would come as byte 108. */
                return i + 1 < V1_MAX ? BOP_ETRUNCATED : BOP_EMALFORMED;
            }
            *out_line = bop_slice(bytes.data, i);
            return i + 1 < V1_MAX && bytes.data[i + 1] == '\n' ? 0 : BOP_EMALFORMED;
        }
        if (bytes.data[i] < ' ' || bytes.data[i] > '~') {
            return BOP_EMALFORMED;
        }
    }
    return size < V1_MAX ? BOP_ETRUNCATED : BOP_EMALFORMED;
}

static bool is_word(struct bop_slice word, const char *text)
{
    return bop_slice_equal(word, bop_slice_cstr(text));
}

static int parse_v1(struct bop_slice bytes, struct bop_proxy_header *header)
{
    struct bop_slice line, kind;
    int rc = read_line(bytes, &line);

    if (rc != 0) {
        return rc;
    }
    header->version = 1;
    header->size = line.size + 2;
    next_word(&line);
    kind = next_word(&line);
    if (is_word(kind, "UNKNOWN")) {
        return 0; /* What follows is to be ignored. */
    }
    if (is_word(kind, "TCP4")) {
        return read_addresses(line, AF_INET, header) ? 0 : BOP_EMALFORMED;
    }
    return is_word(kind, "TCP6") && read_addresses(line, AF_INET6, header) ? 0 : BOP_EMALFORMED;
}

/* ---- Version 2 ---- */

bool bop_proxy_tlv_next(struct bop_slice *in_out_rest, uint8_t *out_type,
                        struct bop_slice *out_value)
{
    struct bop_slice rest = *in_out_rest;
    size_t size;

    if (rest.size < 3) {
        return false;
    }
    size = read_u16(rest.data + 1);
    if (size > rest.size - 3) {
        return false;
    }
    *out_type = rest.data[0];
    *out_value = bop_slice(rest.data + 3, size);
    *in_out_rest = bop_slice(rest.data + 3 + size, rest.size - 3 - size);
    return true;
}

/* The checksum is of the whole header with zeros in its own place. */
static bool checksum_is_right(struct bop_slice header, struct bop_slice value)
{
    static const uint8_t zeros[CRC32C_SIZE] = {0};
    const uint8_t *v = value.data, *after = v + CRC32C_SIZE;
    uint32_t crc = bop_crc32c(0, header.data, (size_t)(v - header.data));

    crc = bop_crc32c(crc, zeros, sizeof(zeros));
    crc = bop_crc32c(crc, after, (size_t)(header.data + header.size - after));
    return crc == ((uint32_t)v[0] << 24 | (uint32_t)v[1] << 16 | (uint32_t)v[2] << 8 | v[3]);
}

static int check_tlvs(struct bop_slice whole, struct bop_slice tlvs)
{
    struct bop_slice value;
    bool checked = false;
    uint8_t type;

    while (bop_proxy_tlv_next(&tlvs, &type, &value)) {
        if (type != BOP_PROXY_TLV_CRC32C) {
            continue;
        }
        if (value.size != CRC32C_SIZE || checked) {
            return BOP_EMALFORMED;
        }
        checked = true;
        if (!checksum_is_right(whole, value)) {
            return BOP_ECORRUPT;
        }
    }
    return tlvs.size == 0 ? 0 : BOP_EMALFORMED;
}

static struct bop_slice read_path(const uint8_t *at)
{
    return bop_slice(at, strnlen((const char *)at, UNIX_PATH));
}

static struct bop_address read_binary(const uint8_t *ip, const uint8_t *port, uint16_t family)
{
    struct bop_address address = {.family = family, .port = read_u16(port)};

    memcpy(address.ip, ip, family == AF_INET ? 4 : 16);
    return address;
}

/* The addresses at the front of what follows the head: how many bytes, or BOP_EMALFORMED. */
static int read_v2_addresses(struct bop_slice body, uint8_t family, struct bop_proxy_header *header)
{
    const uint8_t *at = body.data;
    static const uint16_t sizes[4] = {0, INET4_SIZE, INET6_SIZE, 2 * UNIX_PATH};

    if (family > 3 || body.size < sizes[family]) {
        return BOP_EMALFORMED;
    }
    if (family == 1) {
        header->source = read_binary(at, at + 8, AF_INET);
        header->destination = read_binary(at + 4, at + 10, AF_INET);
    } else if (family == 2) {
        header->source = read_binary(at, at + 32, AF_INET6);
        header->destination = read_binary(at + 16, at + 34, AF_INET6);
    } else if (family == 3) {
        header->source_path = read_path(at);
        header->destination_path = read_path(at + UNIX_PATH);
    }
    header->family = family == 0 ? BOP_PROXY_UNSPEC : family == 3 ? BOP_PROXY_UNIX : BOP_PROXY_INET;
    return sizes[family];
}

static int parse_v2(struct bop_slice bytes, struct bop_proxy_header *header)
{
    struct bop_slice body;
    uint8_t transport;
    int taken = 0;

    /* Each byte is looked at as soon as it is there. */
    if (bytes.size > 12 && bytes.data[12] != 0x20 && bytes.data[12] != 0x21) {
        return BOP_EMALFORMED;
    }
    if (bytes.size > 13 && ((bytes.data[13] & 0x0f) > 2 || bytes.data[13] >> 4 > 3)) {
        return BOP_EMALFORMED;
    }
    if (bytes.size < V2_HEAD) {
        return BOP_ETRUNCATED;
    }
    header->version = 2;
    header->size = V2_HEAD + (size_t)read_u16(bytes.data + 14);
    if (header->size > BOP_PROXY_BYTES_MAX) {
        return BOP_ETOOBIG;
    }
    if (bytes.size < header->size) {
        return BOP_ETRUNCATED;
    }
    body = bop_slice(bytes.data + V2_HEAD, header->size - V2_HEAD);
    transport = bytes.data[13] & 0x0f;
    header->is_local = bytes.data[12] == 0x20;
    /* LOCAL and what has no family or transport: addresses, if any, are to be skipped. */
    if (header->is_local || transport == 0 || bytes.data[13] >> 4 == 0) {
        return 0;
    }
    header->is_datagram = transport == 2;
    taken = read_v2_addresses(body, bytes.data[13] >> 4, header);
    if (taken < 0) {
        return taken;
    }
    header->tlvs = bop_slice(body.data + taken, body.size - (size_t)taken);
    return check_tlvs(bop_slice(bytes.data, header->size), header->tlvs);
}

int bop_proxy_parse(struct bop_slice bytes, struct bop_proxy_header *out_header)
{
    static const char v1[] = "PROXY ";
    struct bop_proxy_header header = {.version = 0};
    size_t size;
    int rc;

    if (bytes.size == 0) {
        return BOP_ETRUNCATED;
    }
    if (bytes.data[0] == signature[0]) {
        size = (size_t)bop_min_u64(bytes.size, sizeof(signature));
        rc = memcmp(bytes.data, signature, size) != 0 ? BOP_EMALFORMED : parse_v2(bytes, &header);
    } else {
        size = (size_t)bop_min_u64(bytes.size, sizeof(v1) - 1);
        rc = memcmp(bytes.data, v1, size) != 0 ? BOP_EMALFORMED : parse_v1(bytes, &header);
    }
    if (rc == 0) {
        *out_header = header;
    }
    return rc;
}
