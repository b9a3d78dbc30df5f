/*
 * The lines of `bop txn`: words, in quotes where they have spaces, and what they mean.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "txn_words.h"

/* ---- Words ---- */

static int hex(int c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that an escape stands for; *at is behind the backslash and moves on. -1: none. */
static int escaped(struct bop_slice line, size_t *at)
{
    int c = *at < line.size ? line.data[(*at)++] : -1;

    switch (c) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case '\\':
    case '"':
        return c;
    case 'x':
        if (line.size - *at < 2 || hex(line.data[*at]) < 0 || hex(line.data[*at + 1]) < 0) {
            return -1;
        }
        *at += 2;
        return hex(line.data[*at - 2]) << 4 | hex(line.data[*at - 1]);
    default:
        return -1;
    }
}

/* One word from *at on into words->bytes. */
static const char *take_word(struct txn_words *words, struct bop_slice line, size_t *at)
{
    bool quoted = line.data[*at] == '"';
    size_t begin = words->bytes.size;

    *at += quoted;
    for (;;) {
        int c = *at < line.size ? line.data[*at] : -1;
        uint8_t byte;

        if (c == -1 || (quoted ? c == '"' : isspace(c))) {
            if (quoted && c == -1) {
                return "a quote that is not closed";
            }
            *at += quoted;
            break;
        }
        (*at)++;
        if (quoted && c == '\\') {
            c = escaped(line, at);
            if (c < 0) {
                return "a backslash before something else than n, t, \\, \" or xNN";
            }
        }
        byte = (uint8_t)c;
        if (bop_buf_append(&words->bytes, &byte, 1) < 0) {
            return "too long";
        }
    }
    words->at[words->count] = begin;
    words->sizes[words->count++] = words->bytes.size - begin;
    return NULL;
}

static const char *split(struct txn_words *words, struct bop_slice line)
{
    size_t at = 0;

    bop_buf_clear(&words->bytes);
    words->count = 0;
    while (at < line.size) {
        const char *wrong;

        if (isspace(line.data[at])) {
            at++;
            continue;
        }
        if (words->count == TXN_WORDS_MAX) {
            return "too many words";
        }
        wrong = take_word(words, line, &at);
        if (wrong) {
            return wrong;
        }
    }
    return NULL;
}

/* Of a word without bytes, and of one that is not there, the data is NULL. */
static struct bop_slice word(const struct txn_words *words, size_t n)
{
    const uint8_t *bytes = words->bytes.data; /* NULL until a word had any. */

    return bytes && n < words->count && words->sizes[n] > 0
               ? bop_slice(bytes + words->at[n], words->sizes[n])
               : bop_slice(NULL, 0);
}

static bool is(const struct txn_words *words, size_t n, const char *text)
{
    return n < words->count && bop_slice_equal(word(words, n), bop_slice_cstr(text));
}

static bool number(const struct txn_words *words, size_t n, int64_t *out_number)
{
    char text[32] = "", *end;
    struct bop_slice bytes = word(words, n);

    if (bytes.size == 0 || bytes.size >= sizeof(text)) {
        return false;
    }
    memcpy(text, bytes.data, bytes.size);
    errno = 0;
    *out_number = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0 && (isdigit((unsigned char)text[0]) || text[0] == '-');
}

/* ---- Compares ---- */

static bool relation(const struct txn_words *words, size_t n, enum bop_relation *out_relation)
{
    static const char *const texts[] = {"=", "!=", "<", ">"};

    for (unsigned i = 0; i < BOP_COUNT_OF(texts); i++) {
        if (is(words, n, texts[i])) {
            *out_relation = (enum bop_relation)(BOP_EQUAL + i);
            return true;
        }
    }
    return false;
}

/* "present" or "absent" at the end. */
static bool presence(const struct txn_words *words, size_t n, struct bop_compare *compare)
{
    compare->relation = BOP_EQUAL;
    compare->number = is(words, n, "present");
    return words->count == n + 1 && (is(words, n, "present") || is(words, n, "absent"));
}

static bool compare_of(const struct txn_words *words, struct bop_compare *compare)
{
    *compare = (struct bop_compare){.name = word(words, 2), .key = word(words, 3)};
    if (is(words, 1, "map") && is(words, 4, "version")) {
        compare->kind = BOP_COMPARE_VERSION;
        return words->count == 7 && relation(words, 5, &compare->relation) &&
               number(words, 6, &compare->number);
    }
    if (is(words, 1, "map") && is(words, 4, "value")) {
        compare->kind = BOP_COMPARE_VALUE;
        compare->value = word(words, 6);
        return words->count == 7 && relation(words, 5, &compare->relation);
    }
    if (is(words, 1, "counter")) {
        compare->kind = BOP_COMPARE_COUNTER;
        compare->key = bop_slice(NULL, 0);
        return words->count == 5 && relation(words, 3, &compare->relation) &&
               number(words, 4, &compare->number);
    }
    if (is(words, 1, "set") || is(words, 1, "member")) {
        compare->kind = is(words, 1, "set") ? BOP_COMPARE_SET : BOP_COMPARE_MEMBER;
        return presence(words, 4, compare);
    }
    if (is(words, 1, "multimap")) {
        compare->kind = BOP_COMPARE_MULTIMAP;
        compare->value = word(words, 4);
        return presence(words, 5, compare);
    }
    compare->kind = BOP_COMPARE_LOCK;
    compare->key = bop_slice(NULL, 0);
    compare->relation = BOP_EQUAL;
    return is(words, 1, "lock") && is(words, 3, "token") && words->count == 5 &&
           number(words, 4, &compare->number);
}

/* ---- Operations ---- */

/* Which fields the words behind a name fill in: k key, v value, n number, d delta. */
static const struct {
    const char *kind;
    const char *verb;
    enum bop_op op;
    const char *fields;
} rows[] = {
    {"map", "put", BOP_OP_MAP_PUT, "kv"},
    {"map", "del", BOP_OP_MAP_DELETE, "k"},
    {"map", "get", BOP_OP_MAP_GET, "k"},
    {"map", "size", BOP_OP_MAP_SIZE, ""},
    {"map", "clear", BOP_OP_MAP_CLEAR, ""},
    {"counter", "add", BOP_OP_COUNTER_ADD, "d"},
    {"counter", "set", BOP_OP_COUNTER_SET, "n"},
    {"counter", "get", BOP_OP_COUNTER_GET, ""},
    {"counter", "delete", BOP_OP_COUNTER_DELETE, ""},
    {"set", "add", BOP_OP_SET_ADD, "k"},
    {"set", "remove", BOP_OP_SET_REMOVE, "k"},
    {"set", "contains", BOP_OP_SET_CONTAINS, "k"},
    {"set", "size", BOP_OP_SET_SIZE, ""},
    {"multimap", "put", BOP_OP_MULTIMAP_PUT, "kv"},
    {"multimap", "remove", BOP_OP_MULTIMAP_REMOVE_VALUE, "kv"},
    {"multimap", "contains", BOP_OP_MULTIMAP_CONTAINS_ENTRY, "kv"},
};

static bool fill_in(const struct txn_words *words, const char *fields,
                    struct bop_operation *operation)
{
    size_t n = 4;

    for (; *fields != '\0'; fields++, n++) {
        bool good = n < words->count;

        switch (*fields) {
        case 'k':
            operation->key = word(words, n);
            break;
        case 'v':
            operation->value = word(words, n);
            break;
        case 'n':
            good = number(words, n, &operation->number);
            break;
        default:
            good = number(words, n, &operation->delta);
        }
        if (!good) {
            return false;
        }
    }
    return n == words->count;
}

static bool operation_of(const struct txn_words *words, struct bop_operation *operation)
{
    for (size_t i = 0; i < BOP_COUNT_OF(rows); i++) {
        if (is(words, 1, rows[i].kind) && is(words, 2, rows[i].verb)) {
            *operation = (struct bop_operation){.op = rows[i].op, .name = word(words, 3)};
            return words->count > 3 && fill_in(words, rows[i].fields, operation);
        }
    }
    return false;
}

/* ---- Lines ---- */

void txn_words_init(struct txn_words *words)
{
    *words = (struct txn_words){0};
    bop_buf_init(&words->bytes, NULL, 0);
    bop_buf_init(&words->then_ops, NULL, 0);
    bop_buf_init(&words->else_ops, NULL, 0);
    bop_transaction_init(&words->txn, NULL);
}

void txn_words_deinit(struct txn_words *words)
{
    bop_buf_deinit(&words->bytes);
    bop_buf_deinit(&words->then_ops);
    bop_buf_deinit(&words->else_ops);
    bop_transaction_deinit(&words->txn);
}

static const char *add_operation(struct txn_words *words, bool then)
{
    struct bop_operation operation;
    uint8_t op;

    if (!operation_of(words, &operation)) {
        return "no operation; `bop txn --help` shows them";
    }
    op = (uint8_t)operation.op;
    if (bop_buf_append(then ? &words->then_ops : &words->else_ops, &op, 1) < 0) {
        return "too long";
    }
    if (then) {
        bop_transaction_then(&words->txn, &operation);
    } else {
        bop_transaction_else(&words->txn, &operation);
    }
    return NULL;
}

static bool is_comment(const struct txn_words *words)
{
    struct bop_slice first = word(words, 0);

    return first.size > 0 && first.data[0] == '#';
}

const char *txn_words_add(struct txn_words *words, struct bop_slice line)
{
    struct bop_compare compare;
    const char *wrong = split(words, line);

    if (wrong || words->count == 0 || is_comment(words)) {
        return wrong;
    }
    if (is(words, 0, "then") || is(words, 0, "else")) {
        return add_operation(words, is(words, 0, "then"));
    }
    if (!is(words, 0, "if")) {
        return "a line begins with if, then or else";
    }
    if (!compare_of(words, &compare)) {
        return "no comparison; `bop txn --help` shows them";
    }
    bop_transaction_if(&words->txn, &compare);
    return NULL;
}
