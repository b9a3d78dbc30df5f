/*
 * Fuzzes PROXY headers.
 *
 * Properties: a good header lies in its bytes and below its bound; a part of one
 * is wanted more of; a part of a bad one either that or refused as the whole is.
 * Version 2 is also tried with its checksum made right, which chance would not do.
 */
#include <stdlib.h>

#include <bop/crc32c.h>
#include <bop/error.h>
#include <bop/proxy_protocol.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void check_good(const struct bop_proxy_header *header, struct bop_slice bytes)
{
    struct bop_slice rest = header->tlvs, value;
    size_t size = 0;
    uint8_t type;

    require(header->size <= bytes.size && header->size <= BOP_PROXY_BYTES_MAX);
    require(header->version == 1 || header->version == 2);
    require(header->family != BOP_PROXY_INET ||
            (header->source.family != 0 && header->source.family == header->destination.family));
    while (bop_proxy_tlv_next(&rest, &type, &value)) {
        size += 3 + value.size;
    }
    require(size == header->tlvs.size && rest.size == 0);
}

static int check(struct bop_slice bytes, struct bop_proxy_header *header)
{
    int rc = bop_proxy_parse(bytes, header);
    size_t need = rc == 0 ? header->size : bytes.size;

    if (rc == 0) {
        check_good(header, bytes);
    }
    for (size_t cut = 0; cut < need; cut += 1 + bytes.size / 64) {
        uint8_t *copy = malloc(cut > 0 ? cut : 1);
        struct bop_proxy_header part;
        int got;

        require(copy != NULL);
        memcpy(copy, bytes.data, cut);
        got = bop_proxy_parse(bop_slice(copy, cut), &part);
        require(got == BOP_ETRUNCATED || (rc != 0 && got == rc));
        free(copy);
    }
    return rc;
}

/* What looks like it at the end may be inside of another TLV. */
static bool ends_with_sum(const struct bop_proxy_header *header, const uint8_t *end)
{
    struct bop_slice rest = header->tlvs, value;
    uint8_t type = 0;
    bool found = false;

    while (bop_proxy_tlv_next(&rest, &type, &value)) {
        found = type == BOP_PROXY_TLV_CRC32C && value.data + value.size == end;
    }
    return found;
}

/* If the last TLV is a checksum, make it right. */
static void repaired(struct bop_slice bytes)
{
    uint8_t *copy;
    size_t size;
    uint32_t crc;
    struct bop_proxy_header header;

    if (bytes.size < 16) {
        return;
    }
    size = 16 + (size_t)(bytes.data[14] << 8 | bytes.data[15]);
    if (size > bytes.size || size < 16 + 7 || memcmp(bytes.data + size - 7, "\3\0\4", 3) != 0) {
        return;
    }
    copy = malloc(size);
    require(copy != NULL);
    memcpy(copy, bytes.data, size);
    memset(copy + size - 4, 0, 4);
    crc = bop_crc32c(0, copy, size);
    for (int i = 0; i < 4; i++) {
        copy[size - 4 + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
    }
    if (check(bop_slice(copy, size), &header) == 0 && ends_with_sum(&header, copy + size)) {
        copy[size - 1] ^= 1;
        require(check(bop_slice(copy, size), &header) == BOP_ECORRUPT);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_proxy_header header;

    BOP_IGNORE(check(bop_slice(data, size), &header)); /* Its checks are inside. */
    repaired(bop_slice(data, size));
    return 0;
}
