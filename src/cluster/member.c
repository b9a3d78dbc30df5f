/*
 * Servers as texts.
 */
#include "member.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/cluster_admin.h>

#define HEX_DIGITS_MAX 16

/* A number that is all there is up to the end of the attribute. */
static bool read_number(struct bop_slice text, unsigned base, uint64_t max, uint64_t *out_number)
{
    uint64_t number = 0;

    if (text.size == 0 || text.size > HEX_DIGITS_MAX) {
        return false;
    }
    for (size_t n = 0; n < text.size; n++) {
        char c = (char)text.data[n];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : base;

        if (digit >= base || number > (max - digit) / base) {
            return false;
        }
        number = number * base + digit;
    }
    *out_number = number;
    return true;
}

/* One attribute, without its semicolon. */
static bool take_attribute(struct bop_slice text, struct member *member)
{
    struct bop_slice value;
    uint64_t number = 0;
    bool ok = true;

    if (text.size == 1 && text.data[0] == 'l') {
        member->learner = true;
        return true;
    }
    if (text.size < 2 || text.data[1] != '=') {
        return text.size > 0; /* Of a later version, perhaps. */
    }
    value = bop_slice(text.data + 2, text.size - 2);
    switch (text.data[0]) {
    case 'i':
        ok = read_number(value, 16, UINT64_MAX, &member->incarnation);
        break;
    case 'p':
        ok = read_number(value, 10, BOP_ADMIN_PRIORITY_MAX, &number);
        member->priority = (uint32_t)number;
        break;
    case 'm':
        ok = read_number(value, 10, UINT64_C(1) << 53, &member->since);
        break;
    case 'v':
        ok = read_number(value, 10, UINT32_MAX, &number);
        member->level = (uint32_t)number;
        break;
    default:
        break;
    }
    return ok;
}

static size_t until_semicolon(struct bop_slice text)
{
    const uint8_t *end = text.size > 0 ? memchr(text.data, ';', text.size) : NULL;

    return end ? (size_t)(end - text.data) : text.size;
}

int bop__member_parse(struct bop_slice text, struct member *out)
{
    struct member member = {.priority = BOP_ADMIN_PRIORITY};
    size_t size = until_semicolon(text);

    if (size == 0 || text.size >= MEMBER_TEXT_MAX || memchr(text.data, '\0', text.size)) {
        return BOP_EMALFORMED;
    }
    memcpy(member.address, text.data, size);
    while (size < text.size) {
        text = bop_slice(text.data + size + 1, text.size - size - 1);
        size = until_semicolon(text);
        if (!take_attribute(bop_slice(text.data, size), &member)) {
            return BOP_EMALFORMED;
        }
        member.introduced = true;
    }
    *out = member;
    return 0;
}

static BOP_PRINTF(3, 4) void add(char text[MEMBER_TEXT_MAX], size_t *size, const char *format, ...)
{
    va_list args;
    int more;

    if (*size >= MEMBER_TEXT_MAX) {
        return;
    }
    va_start(args, format);
    more = vsnprintf(text + *size, MEMBER_TEXT_MAX - *size, format, args);
    va_end(args);
    *size += more < 0 ? MEMBER_TEXT_MAX : (size_t)more;
}

int bop__member_format(const struct member *member, char out_text[MEMBER_TEXT_MAX])
{
    size_t size = 0;

    add(out_text, &size, "%s", member->address);
    if (member->incarnation != 0) {
        add(out_text, &size, ";i=%016" PRIx64, member->incarnation);
    }
    if (member->priority != BOP_ADMIN_PRIORITY) {
        add(out_text, &size, ";p=%" PRIu32, member->priority);
    }
    if (member->learner) {
        add(out_text, &size, ";l");
    }
    if (member->since != 0) {
        add(out_text, &size, ";m=%" PRIu64, member->since);
    }
    if (member->level != 0) {
        add(out_text, &size, ";v=%" PRIu32, member->level);
    }
    return size < MEMBER_TEXT_MAX ? 0 : BOP_ETOOBIG;
}

struct bop_slice bop__member_address(const char *text)
{
    return bop_slice(text, strcspn(text, ";"));
}

void bop__member_of(const struct bop_raft_server *server, struct member *out)
{
    if (bop__member_parse(bop_slice_cstr(server->address), out) < 0) {
        struct bop_slice address = bop__member_address(server->address);

        *out = (struct member){.priority = BOP_ADMIN_PRIORITY};
        memcpy(out->address, address.data, address.size);
    }
}

const struct bop_raft_server *bop__member_find(const struct bop_raft_configuration *conf,
                                               uint64_t id)
{
    for (unsigned n = 0; n < conf->count; n++) {
        if (conf->servers[n].id == id) {
            return &conf->servers[n];
        }
    }
    return NULL;
}
