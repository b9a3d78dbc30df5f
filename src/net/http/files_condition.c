/*
 * Conditional and range requests (RFC 9110, 13 and 14), as far as they are a
 * matter of comparing headers with a file's validators.
 */
#include "../text.h"
#include "files.h"

/* One entity tag from the front of a list. False at its end, or where it is malformed. */
static bool next_tag(struct bop_slice *list, bool *out_weak, struct bop_slice *out_tag)
{
    const uint8_t *at = list->data;
    const uint8_t *end = list->size > 0 ? at + list->size : at;
    const uint8_t *close;

    while (at < end && (*at == ' ' || *at == '\t' || *at == ',')) {
        at++;
    }
    *out_weak = end - at >= 2 && at[0] == 'W' && at[1] == '/';
    at += *out_weak ? 2 : 0;
    if (at == end || *at != '"') {
        return false;
    }
    close = (const uint8_t *)memchr(at + 1, '"', (size_t)(end - at - 1));
    if (close == NULL) {
        return false;
    }
    *out_tag = bop_slice(at, (size_t)(close + 1 - at));
    *list = bop_slice(close + 1, (size_t)(end - close - 1));
    return true;
}

/* Our tags are strong, so only a weak one of the client can fail a strong comparison. */
static bool names_tag(struct bop_slice list, const char *etag, bool strong)
{
    struct bop_slice tag;
    bool weak;

    if (bop__text_is(list, "*")) {
        return true;
    }
    while (next_tag(&list, &weak, &tag)) {
        if (bop_slice_equal(tag, bop_slice_cstr(etag)) && !(strong && weak)) {
            return true;
        }
    }
    return false;
}

/* -1: no such header; else whether one of the lists of that name has the tag. */
static int header_names_tag(const struct bop_http_head *head, const char *name, const char *etag,
                            bool strong)
{
    int result = -1;

    for (unsigned i = 0; i < head->header_count; i++) {
        if (bop__text_is(head->headers[i].name, name)) {
            if (names_tag(head->headers[i].value, etag, strong)) {
                return 1;
            }
            result = 0;
        }
    }
    return result;
}

/* Whether a date is there and the file is newer. Dates that are none are ignored. */
static bool newer_than(const struct bop_http_head *head, const char *name,
                       const struct bop__file *file, bool *out_there)
{
    struct bop_slice value = bop_http_find(head, name);
    int64_t date;

    *out_there = value.data != NULL && bop_http_date_parse(value, &date);
    return *out_there && file->modified_s > date;
}

unsigned bop__files_condition(const struct bop_http_head *head, const struct bop__file *file)
{
    int match = header_names_tag(head, "If-Match", file->etag, true);
    int none_match;
    bool there;

    if (match == 0 || (match < 0 && newer_than(head, "If-Unmodified-Since", file, &there))) {
        return 412;
    }
    none_match = header_names_tag(head, "If-None-Match", file->etag, false);
    if (none_match >= 0) {
        return none_match == 1 ? 304 : 200;
    }
    return !newer_than(head, "If-Modified-Since", file, &there) && there ? 304 : 200;
}

bool bop__files_range_holds(const struct bop_http_head *head, const struct bop__file *file)
{
    struct bop_slice value = bop_http_known(head, BOP_HTTP_IF_RANGE);
    int64_t date;

    if (value.data == NULL) {
        return true;
    }
    if (value.size > 0 && (value.data[0] == '"' || value.data[0] == 'W')) {
        return bop_slice_equal(value, bop_slice_cstr(file->etag));
    }
    return bop_http_date_parse(value, &date) && date == file->modified_s;
}

/* ---- Ranges ---- */

/* Digits from the front. Returns their number; what does not fit counts as UINT64_MAX. */
static size_t take_number(struct bop_slice *text, uint64_t *out_value)
{
    uint64_t value = 0;
    size_t digits = 0;

    while (digits < text->size && text->data[digits] >= '0' && text->data[digits] <= '9') {
        uint64_t digit = (uint64_t)(text->data[digits++] - '0');

        value = value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : value * 10 + digit;
    }
    *text = bop_slice(text->data + digits, text->size - digits);
    *out_value = value;
    return digits;
}

static void skip_spaces(struct bop_slice *text)
{
    while (text->size > 0 && (text->data[0] == ' ' || text->data[0] == '\t')) {
        *text = bop_slice(text->data + 1, text->size - 1);
    }
}

/* "5-9", "5-" or "-9" from the front. False: malformed. *out_range is of size 0 where it is beyond
 * the file. */
static bool take_range(struct bop_slice *text, uint64_t size, struct bop__range *out_range)
{
    uint64_t first, last;
    size_t first_digits = take_number(text, &first);
    size_t last_digits;

    if (text->size == 0 || text->data[0] != '-') {
        return false;
    }
    *text = bop_slice(text->data + 1, text->size - 1);
    last_digits = take_number(text, &last);
    if ((first_digits == 0 && last_digits == 0) ||
        (first_digits > 0 && last_digits > 0 && last < first)) {
        return false;
    }
    if (first_digits == 0) { /* The last so many bytes. */
        out_range->size = bop_min_u64(last, size);
        out_range->first = size - out_range->size;
        return true;
    }
    if (last_digits == 0 || last >= size) {
        last = size - 1; /* Wraps for an empty file, which has no first either. */
    }
    out_range->first = first;
    out_range->size = first < size ? last - first + 1 : 0;
    return true;
}

int bop__files_ranges(struct bop_slice value, uint64_t size,
                      struct bop__range ranges[BOP__FILES_RANGES_MAX])
{
    uint64_t total = 0;
    int count = 0, seen = 0;

    if (value.size < 6 || strncasecmp((const char *)value.data, "bytes=", 6) != 0) {
        return 0; /* Another unit, or none: as if it was not there. */
    }
    value = bop_slice(value.data + 6, value.size - 6);
    do {
        struct bop__range range;

        skip_spaces(&value);
        if (++seen > BOP__FILES_RANGES_MAX || !take_range(&value, size, &range)) {
            return 0;
        }
        if (range.size > 0) {
            ranges[count++] = range;
            total += range.size;
        }
        skip_spaces(&value);
        if (value.size > 0 && value.data[0] != ',') {
            return 0;
        }
        value = value.size > 0 ? bop_slice(value.data + 1, value.size - 1) : value;
    } while (value.size > 0);
    if (count == 0) {
        return -1;
    }
    return total > size && count > 1 ? 0
                                     : count; /* Ranges that overlap cost more than the whole. */
}
