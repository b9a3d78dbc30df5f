/*
 * Reading histories: see history.h.
 */
#include "history.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Memory that is freed with the history. */
struct chaos_block {
    struct chaos_block *next;
    max_align_t bytes[];
};

static const struct {
    const char *text;
    enum chaos_kind kind;
    int asked;
    int answered;
} ops[] = {
#define CHAOS_OP(symbol, text, kind, asked, answered) {text, kind, asked, answered},
#include "history_ops.def"
#undef CHAOS_OP
};

const char *chaos_op_text(enum chaos_op op)
{
    return ops[op].text;
}

enum chaos_kind chaos_op_kind(enum chaos_op op)
{
    return ops[op].kind;
}

const char *chaos_kind_text(enum chaos_kind kind)
{
    static const char *const texts[] = {
        [CHAOS_REGISTER] = "register", [CHAOS_COUNTER] = "counter", [CHAOS_TALLY] = "tally",
        [CHAOS_SET] = "set",           [CHAOS_LIST] = "list",       [CHAOS_LOCK] = "lock",
        [CHAOS_BANK] = "bank",         [CHAOS_SKEW] = "skew",       [CHAOS_WATCH] = "watch",
    };

    return texts[kind];
}

void *chaos__allocate(size_t count, size_t size)
{
    void *memory = calloc(count != 0 ? count : 1, size);

    if (memory == NULL) {
        fprintf(stderr, "no memory for %zu times %zu bytes\n", count, size);
        abort();
    }
    return memory;
}

void *chaos__grow(void *memory, size_t *capacity, size_t size)
{
    size_t wanted = *capacity != 0 ? *capacity * 2 : 64;
    void *grown = realloc(memory, wanted * size);

    if (grown == NULL) {
        fprintf(stderr, "no memory for %zu times %zu bytes\n", wanted, size);
        abort();
    }
    *capacity = wanted;
    return grown;
}

void chaos_history_init(struct chaos_history *history)
{
    memset(history, 0, sizeof(*history));
}

void chaos_history_deinit(struct chaos_history *history)
{
    struct chaos_block *block = history->blocks;

    while (block != NULL) {
        struct chaos_block *next = block->next;

        free(block);
        block = next;
    }
    free(history->events);
    free(history->parts);
    memset(history, 0, sizeof(*history));
}

static void *keep(struct chaos_history *history, const void *bytes, size_t size)
{
    struct chaos_block *block = chaos__allocate(1, sizeof(*block) + size + 1);

    block->next = history->blocks;
    history->blocks = block;
    if (size != 0) {
        memcpy(block->bytes, bytes, size);
    }
    return block->bytes;
}

/* ---- One line ---- */

/* The next word, ended by a zero; NULL at the end of the line. */
static char *next_word(char **rest)
{
    char *word = *rest + strspn(*rest, " \t\r\n");

    if (*word == '\0') {
        return NULL;
    }
    *rest = word + strcspn(word, " \t\r\n");
    if (**rest != '\0') {
        *(*rest)++ = '\0';
    }
    return word;
}

static bool number_of(const char *word, int64_t *out_number)
{
    char *end;

    if (word == NULL) {
        return false;
    }
    errno = 0;
    *out_number = strtoll(word, &end, 10);
    return errno == 0 && end != word && *end == '\0';
}

static bool outcome_of(const char *word, enum chaos_outcome *out_outcome)
{
    static const char *const texts[] = {
        [CHAOS_OK] = "ok", [CHAOS_FAIL] = "fail", [CHAOS_UNKNOWN] = "unknown"};

    for (size_t i = 0; word != NULL && i < sizeof(texts) / sizeof(*texts); i++) {
        if (strcmp(word, texts[i]) == 0) {
            *out_outcome = (enum chaos_outcome)i;
            return true;
        }
    }
    return false;
}

static bool op_of(const char *word, enum chaos_op *out_op)
{
    for (size_t i = 0; word != NULL && i < CHAOS_OPS; i++) {
        if (strcmp(word, ops[i].text) == 0) {
            *out_op = (enum chaos_op)i;
            return true;
        }
    }
    return false;
}

/* What is wrong with it, or NULL. */
static const char *parse_times(char **rest, struct chaos_event *event)
{
    int64_t process;
    char *word;

    if (!number_of(next_word(rest), &event->start)) {
        return "no start";
    }
    word = next_word(rest);
    event->end = CHAOS_NEVER;
    if (word == NULL || (strcmp(word, "-") != 0 && !number_of(word, &event->end))) {
        return "no end";
    }
    if (event->end < event->start) {
        return "it ends before it begins";
    }
    if (!number_of(next_word(rest), &process) || process < 0 || process > UINT32_MAX) {
        return "no process";
    }
    event->process = (uint32_t)process;
    if (!outcome_of(next_word(rest), &event->outcome)) {
        return "no outcome";
    }
    if ((event->outcome == CHAOS_UNKNOWN) != (event->end == CHAOS_NEVER)) {
        return "the end does not fit the outcome";
    }
    return NULL;
}

static const char *check_count(const struct chaos_event *event)
{
    size_t asked = (size_t)ops[event->op].asked;
    int answered = ops[event->op].answered;

    if (event->count < asked) {
        return "numbers are missing";
    }
    if (event->outcome != CHAOS_OK) {
        return event->count == asked ? NULL : "too many numbers";
    }
    if (answered < 0 || event->count == asked + (size_t)answered) {
        return NULL;
    }
    return "not as many numbers as the operation has";
}

static const char *parse_numbers(struct chaos_history *history, char **rest,
                                 struct chaos_event *event)
{
    int64_t *numbers = NULL;
    size_t capacity = 0;
    const char *wrong = NULL;
    char *word;

    event->count = 0;
    while (wrong == NULL && (word = next_word(rest)) != NULL) {
        if (event->count == capacity) {
            numbers = chaos__grow(numbers, &capacity, sizeof(*numbers));
        }
        if (!number_of(word, &numbers[event->count++])) {
            wrong = "not a number";
        }
    }
    if (wrong == NULL) {
        wrong = check_count(event);
    }
    event->args = keep(history, numbers, event->count * sizeof(*numbers));
    free(numbers);
    return wrong;
}

static const char *parse(struct chaos_history *history, char *line, struct chaos_event *event)
{
    const char *wrong = parse_times(&line, event);
    char *object;

    if (wrong != NULL) {
        return wrong;
    }
    if (!op_of(next_word(&line), &event->op)) {
        return "no such operation";
    }
    object = next_word(&line);
    if (object == NULL) {
        return "no object";
    }
    event->object = keep(history, object, strlen(object));
    return parse_numbers(history, &line, event);
}

bool chaos_history_add(struct chaos_history *history, const char *line, size_t number, char *why,
                       size_t why_size)
{
    struct chaos_event event = {.line = number};
    const char *wrong;
    char *copy;

    line += strspn(line, " \t\r\n");
    if (*line == '\0' || *line == '#') {
        return true;
    }
    copy = chaos__allocate(1, strlen(line) + 1);
    memcpy(copy, line, strlen(line));
    wrong = parse(history, copy, &event);
    free(copy);
    if (wrong != NULL) {
        snprintf(why, why_size, "line %zu: %s", number, wrong);
        return false;
    }
    if (history->count == history->capacity) {
        history->events = chaos__grow(history->events, &history->capacity,
                                      sizeof(*history->events));
    }
    history->events[history->count++] = event;
    return true;
}

bool chaos_history_read(struct chaos_history *history, FILE *file, char *why, size_t why_size)
{
    char *line = NULL;
    size_t size = 0, number = 0;
    bool fine = true;

    while (fine && getline(&line, &size, file) >= 0) {
        fine = chaos_history_add(history, line, ++number, why, why_size);
    }
    if (fine && ferror(file)) {
        snprintf(why, why_size, "cannot be read");
        fine = false;
    }
    free(line);
    return fine;
}

/* ---- All of it ---- */

static int compare_events(const void *a, const void *b)
{
    const struct chaos_event *left = a, *right = b;
    int names = strcmp(left->object, right->object);

    if (names != 0) {
        return names;
    }
    if (left->start != right->start) {
        return left->start < right->start ? -1 : 1;
    }
    return left->line < right->line ? -1 : left->line > right->line;
}

bool chaos_history_finish(struct chaos_history *history, char *why, size_t why_size)
{
    size_t capacity = 0;

    if (history->count != 0) {
        qsort(history->events, history->count, sizeof(*history->events), compare_events);
    }
    for (size_t i = 0; i < history->count; i++) {
        struct chaos_event *event = &history->events[i];
        struct chaos_part *part = history->part_count != 0
                                      ? &history->parts[history->part_count - 1]
                                      : NULL;

        if (part != NULL && strcmp(part->object, event->object) == 0) {
            if (part->kind != ops[event->op].kind) {
                snprintf(why, why_size, "line %zu: %s is a %s elsewhere", event->line,
                         event->object, chaos_kind_text(part->kind));
                return false;
            }
            event->object = part->object;
            part->count++;
            continue;
        }
        if (history->part_count == capacity) {
            history->parts = chaos__grow(history->parts, &capacity, sizeof(*history->parts));
        }
        history->parts[history->part_count++] = (struct chaos_part){
            .object = event->object, .kind = ops[event->op].kind, .events = event, .count = 1};
    }
    return true;
}
