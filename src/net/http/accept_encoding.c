/*
 * Which content coding a client takes, and which of them it likes best (RFC
 * 9110, 12.5.3).
 *
 * What is malformed is as if it was not there: a client that cannot be
 * understood is sent the bytes as they are.
 */
#include "accept_encoding.h"

#include "../text.h"
#include "parse_list.h"

#define WHOLE 1000 /* A weight of 1, in thousandths. */

static const char *const names[BOP__HTTP_CODINGS] = {
    [BOP__HTTP_IDENTITY] = "identity",
    [BOP__HTTP_GZIP] = "gzip",
    [BOP__HTTP_DEFLATE] = "deflate",
};

const char *bop__http_coding_name(enum bop__http_coding coding)
{
    return names[coding];
}

/* "0", "0.5", "1.000": thousandths; -1: malformed. */
static int read_weight(struct bop_slice text)
{
    int weight, unit = WHOLE / 10;

    if (text.size == 0 || text.size > 5 || (text.data[0] != '0' && text.data[0] != '1') ||
        (text.size > 1 && text.data[1] != '.')) {
        return -1;
    }
    weight = (text.data[0] - '0') * WHOLE;
    for (size_t i = 2; i < text.size; i++, unit /= 10) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return -1;
        }
        weight += (text.data[i] - '0') * unit;
    }
    return weight <= WHOLE ? weight : -1;
}

static struct bop_slice trim(struct bop_slice text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text = bop_slice(text.data + 1, text.size - 1);
    }
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t')) {
        text.size--;
    }
    return text;
}

/* "gzip;q=0.5" -> "gzip" and 500. A weight of -1: malformed. */
static struct bop_slice take_apart(struct bop_slice element, int *out_weight)
{
    const uint8_t *end = element.size > 0 ? (const uint8_t *)memchr(element.data, ';', element.size)
                                          : NULL;
    struct bop_slice rest;

    *out_weight = WHOLE;
    if (end == NULL) {
        return element;
    }
    rest = trim(bop_slice(end + 1, element.size - (size_t)(end + 1 - element.data)));
    element.size = (size_t)(end - element.data);
    *out_weight = bop__text_begins(rest, "q=")
                      ? read_weight(bop_slice(rest.data + 2, rest.size - 2))
                      : -1; /* Codings have no other parameters. */
    return trim(element);
}

/* By its name or, for gzip, its old one. BOP__HTTP_CODINGS: none of ours. */
static unsigned coding_of(struct bop_slice name)
{
    unsigned coding = BOP__HTTP_IDENTITY;

    if (bop__text_is(name, "x-gzip")) {
        return BOP__HTTP_GZIP;
    }
    while (coding < BOP__HTTP_CODINGS && !bop__text_is(name, names[coding])) {
        coding++;
    }
    return coding;
}

/* What is said by name counts, wherever the "*" stands. */
struct said {
    int weights[BOP__HTTP_CODINGS]; /* -1: nothing was. */
    int others;
};

static void read_list(struct bop_slice value, struct said *said)
{
    struct bop__http_list list = bop__http_list(value);
    struct bop_slice element;
    int weight;

    while (bop__http_list_next(&list, &element)) {
        struct bop_slice name = take_apart(element, &weight);
        unsigned coding = coding_of(name);

        if (weight >= 0 && coding < BOP__HTTP_CODINGS) {
            said->weights[coding] = weight;
        } else if (weight >= 0 && bop__text_is(name, "*")) {
            said->others = weight;
        }
    }
}

struct bop__http_accepts bop__http_accepts(const struct bop_http_head *head)
{
    struct said said = {.weights = {-1, -1, -1}};
    struct bop__http_accepts accepts = {0};

    if (bop_http_known(head, BOP_HTTP_ACCEPT_ENCODING).data == NULL) {
        return accepts;
    }
    for (unsigned i = 0; i < head->header_count; i++) {
        if (bop__text_is(head->headers[i].name, "Accept-Encoding")) {
            read_list(head->headers[i].value, &said);
        }
    }
    for (unsigned i = 0; i < BOP__HTTP_CODINGS; i++) {
        int unsaid = i == BOP__HTTP_IDENTITY ? 0 : said.others;

        accepts.weights[i] = (uint16_t)(said.weights[i] >= 0 ? said.weights[i] : unsaid);
    }
    return accepts;
}

bool bop__http_accepts_coding(const struct bop__http_accepts *accepts, enum bop__http_coding coding)
{
    return accepts->weights[coding] > 0 &&
           accepts->weights[coding] >= accepts->weights[BOP__HTTP_IDENTITY];
}

enum bop__http_coding bop__http_choose_coding(const struct bop__http_accepts *accepts)
{
    /* gzip where both are liked: some clients take "deflate" for one without zlib's head. */
    enum bop__http_coding best = accepts->weights[BOP__HTTP_DEFLATE] >
                                         accepts->weights[BOP__HTTP_GZIP]
                                     ? BOP__HTTP_DEFLATE
                                     : BOP__HTTP_GZIP;

    return bop__http_accepts_coding(accepts, best) ? best : BOP__HTTP_IDENTITY;
}
