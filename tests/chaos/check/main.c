/*
 * chaos_check: judge histories.
 *
 *     chaos_check [--cap SECONDS] FILE...
 *
 * Prints a line for each kind of object, then one for each that is wrong. Exits with 0 if all
 * are fine, 1 if one is not or could not be decided, and 2 for what is no history.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define CAP_SECONDS    600
#define COMPLAINTS_MAX 20

static int judge(const struct chaos_history *history, uint64_t cap_ms)
{
    size_t objects[CHAOS_KINDS] = {0}, events[CHAOS_KINDS] = {0}, states[CHAOS_KINDS] = {0};
    size_t wrong = 0;

    for (size_t i = 0; i < history->part_count; i++) {
        const struct chaos_part *part = &history->parts[i];
        struct chaos_verdict verdict = chaos_check_part(part, cap_ms);

        objects[part->kind]++;
        events[part->kind] += part->count;
        if (verdict.states > states[part->kind]) {
            states[part->kind] = verdict.states;
        }
        if (verdict.judgement != CHAOS_FINE && wrong++ < COMPLAINTS_MAX) {
            printf("%s %s\n", verdict.judgement == CHAOS_WRONG ? "wrong" : "undecided",
                   verdict.text);
        }
    }
    for (int kind = 0; kind < CHAOS_KINDS; kind++) {
        if (objects[kind] == 0) {
            continue;
        }
        printf("%s: %zu operations on %zu", chaos_kind_text((enum chaos_kind)kind), events[kind],
               objects[kind]);
        if (states[kind] != 0) {
            printf(", at most %zu states of one seen", states[kind]);
        }
        printf("\n");
    }
    if (wrong != 0) {
        printf("%zu of %zu objects failed\n", wrong, history->part_count);
    }
    return wrong != 0;
}

static int check_file(const char *path, uint64_t cap_ms)
{
    struct chaos_history history;
    char why[256];
    FILE *file = fopen(path, "r");
    int result = 2;

    if (file == NULL) {
        fprintf(stderr, "chaos_check: %s: cannot be opened\n", path);
        return 2;
    }
    chaos_history_init(&history);
    if (!chaos_history_read(&history, file, why, sizeof(why)) ||
        !chaos_history_finish(&history, why, sizeof(why))) {
        fprintf(stderr, "chaos_check: %s: %s\n", path, why);
    } else {
        result = judge(&history, cap_ms);
    }
    fclose(file);
    chaos_history_deinit(&history);
    return result;
}

int main(int argc, char **argv)
{
    uint64_t cap_ms = CAP_SECONDS * 1000;
    int worst = 0, first = 1;

    if (argc > 2 && strcmp(argv[1], "--cap") == 0) {
        cap_ms = strtoull(argv[2], NULL, 10) * 1000;
        first = 3;
    }
    if (first >= argc) {
        fprintf(stderr, "usage: chaos_check [--cap SECONDS] FILE...\n");
        return 2;
    }
    for (int i = first; i < argc; i++) {
        int result = check_file(argv[i], cap_ms);

        worst = result > worst ? result : worst;
    }
    return worst;
}
