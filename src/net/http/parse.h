/*
 * What the parts of the head parser share.
 *
 * A parse has two steps. The first (parse_core.h, compiled once for each kind of
 * processor) takes the bytes apart and refuses whatever no message may hold; it
 * finds the headers we know and notes which of them came twice. The second
 * (parse_target.c, parse_framing.c) looks at what the parts say together.
 */
#ifndef BOP_NET_HTTP_PARSE_H
#define BOP_NET_HTTP_PARSE_H

#include <bop/error.h>
#include <bop/http1.h>

/* ---- Classes of characters ---- */

enum bop__http_class {
    BOP__HTTP_TOKEN = 0, /* tchar of RFC 9110, 5.6.2. */
    BOP__HTTP_PATH,      /* Of a target, up to "?": visible ASCII but " # < > ? and backslash. */
    BOP__HTTP_QUERY,     /* Of a target, after "?": visible ASCII but #. */
    BOP__HTTP_VALUE,     /* field-vchar, space and tab: no controls. */
    BOP__HTTP_HOST,      /* reg-name of RFC 3986 without "%". */
    BOP__HTTP_CLASS_COUNT,
};

/* Bit 1 << class is set for the characters of the class. */
extern const uint8_t bop__http_classes[256];

/* For SIMD: bit h of [class][l] is set if character h * 16 + l (h below 8) is of the class. */
extern const uint8_t bop__http_nibbles[BOP__HTTP_CLASS_COUNT][16];

static inline bool bop__http_is(uint8_t character, enum bop__http_class which)
{
    return (bop__http_classes[character] >> which & 1) != 0;
}

/* ---- Known headers ---- */

/* Found while parsing as well, but only by their presence. */
enum {
    BOP__HTTP_TE = BOP_HTTP_KNOWN_COUNT,
    BOP__HTTP_TRAILER,
    BOP__HTTP_NAME_COUNT,
};

#define BOP__HTTP_NAME_MAX 24 /* The longest of them. */

struct bop__http_name {
    uint8_t size;
    char text[BOP__HTTP_NAME_MAX + 1]; /* Lower case, zeros after it. */
};

extern const struct bop__http_name bop__http_names[BOP__HTTP_NAME_COUNT];

/* A perfect hash: no two names share a slot. BOP__HTTP_NAME_COUNT where there is none. */
extern const uint8_t bop__http_name_slots[64];

static inline unsigned bop__http_name_slot(const uint8_t *name, size_t size)
{
    return ((unsigned)size + 31u * (name[size - 1] | 0x20u)) & 63u;
}

/* Whether characters of a token are those of a lower-case name of the same size, 2 or more. Setting
 * bit 5 makes letters lower case and turns no other tchar into a letter or a hyphen. */
static inline bool bop__http_same_name(const uint8_t *name, const char *lower, size_t size)
{
    const uint64_t bit5 = UINT64_C(0x2020202020202020);
    size_t at = 0;

    if (size < 4) {
        return (bop_load_u16(name) | 0x2020) == bop_load_u16(lower) &&
               (bop_load_u16(name + size - 2) | 0x2020) == bop_load_u16(lower + size - 2);
    }
    if (size < 8) {
        return (bop_load_u32(name) | (uint32_t)bit5) == bop_load_u32(lower) &&
               (bop_load_u32(name + size - 4) | (uint32_t)bit5) == bop_load_u32(lower + size - 4);
    }
    for (; at + 8 < size; at += 8) {
        if ((bop_load_u64(name + at) | bit5) != bop_load_u64(lower + at)) {
            return false;
        }
    }
    return (bop_load_u64(name + size - 8) | bit5) == bop_load_u64(lower + size - 8);
}

/* The known name, or BOP__HTTP_NAME_COUNT. name is a token of at least one character. */
static inline unsigned bop__http_name_find(const uint8_t *name, size_t size)
{
    unsigned found = bop__http_name_slots[bop__http_name_slot(name, size)];

    if (found == BOP__HTTP_NAME_COUNT || bop__http_names[found].size != size ||
        !bop__http_same_name(name, bop__http_names[found].text, size)) {
        return BOP__HTTP_NAME_COUNT;
    }
    return found;
}

/* ---- A parse ---- */

struct bop__http_parse {
    const uint8_t *at;  /* What is next. */
    const uint8_t *end; /* Where the bytes end, or the limit of a head. */
    struct bop_http_head *head;
    size_t target_bytes_max;
    unsigned headers_max;
    const uint8_t *host_stop; /* Where Host, if it was there, ceases to be a plain name. */
    bool in_headers;          /* The first line is done. */
    uint32_t seen;            /* Bit n: known name n was there. */
    uint32_t repeated;        /* Bit n: more than once. */
    const char *why;
};

/* Methods longer than this are refused as unknown, before a head's limit is used up. */
#define BOP__HTTP_METHOD_MAX 64

/* Empty lines before a request that are skipped. */
#define BOP__HTTP_EMPTY_LINES_MAX 8

/* How to take bytes apart on one kind of processor. Each returns 0 at the head's end,
 * BOP_ETRUNCATED, or -status with parse->why set. */
struct bop__http_engine {
    const char *name;
    int (*request)(struct bop__http_parse *parse);
    int (*response)(struct bop__http_parse *parse);
};

extern const struct bop__http_engine bop__http_engine_scalar;
#if defined(__x86_64__)
extern const struct bop__http_engine bop__http_engine_sse42;
extern const struct bop__http_engine bop__http_engine_avx2;
#endif

/* The best for this processor. And by number, from 0 (scalar): NULL where there are no more. */
const struct bop__http_engine *bop__http_engine(void);
const struct bop__http_engine *bop__http_engine_at(unsigned index);

/* As the public functions, with an engine of choice. */
int bop__http_parse_request(const struct bop__http_engine *engine, struct bop_slice bytes,
                            const struct bop_http1_limits *limits, struct bop_http_head *out_head,
                            const char **out_why);
int bop__http_parse_response(const struct bop__http_engine *engine, struct bop_slice bytes,
                             const struct bop_http1_limits *limits,
                             enum bop_http_method request_method, struct bop_http_head *out_head,
                             const char **out_why);

/* ---- The second step: 0 or -status with parse->why ---- */

/* First lines that are not the usual. *in_out_at is moved behind what was read. */
int bop__http_request_version(struct bop__http_parse *parse, const uint8_t **in_out_at);
int bop__http_status_begin(struct bop__http_parse *parse, const uint8_t **in_out_at);
/* The method of that name. */
enum bop_http_method bop__http_method_find(const uint8_t *text, size_t size);
/* A target that is not a path of origin form. Sets target_form, authority, path, query. */
int bop__http_target(struct bop__http_parse *parse);
/* How large the body is and what becomes of the connection. */
int bop__http_request_framing(struct bop__http_parse *parse, uint64_t body_bytes_max);
int bop__http_response_framing(struct bop__http_parse *parse, enum bop_http_method request_method);

/* ":" and a port up to 65535, or nothing. "host:" has an empty port, which the grammar allows. */
bool bop__http_port_is_valid(const uint8_t *at, const uint8_t *end);

/* "host", "host:port", "[v6]:port" without user information: what Host may have. An empty host is
 * good where allowed and without a port. */
bool bop__http_authority_is_valid(struct bop_slice authority, bool empty_allowed);

static inline int bop__http_refuse(struct bop__http_parse *parse, int status, const char *why)
{
    parse->why = why;
    return -status;
}

#endif
