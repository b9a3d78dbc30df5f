/*
 * Beginning and ending operations, and what the workloads share.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "record.h"

static struct {
    FILE *out;
    int64_t last_unique;
    struct load_counts counts;
} record;

struct bop_random load_random;

void load_record_to(FILE *out)
{
    record.out = out;
}

void load_record_counts(struct load_counts *out_counts)
{
    *out_counts = record.counts;
}

unsigned load_below(unsigned bound)
{
    return (unsigned)bop_random_below(&load_random, bound);
}

int64_t load_unique(void)
{
    return ++record.last_unique;
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void load_begin(struct slot *slot, enum chaos_op op, const char *object)
{
    BOP_ASSERT(!slot->busy);
    slot->busy = true;
    slot->answered = false;
    slot->op = op;
    slot->asked_count = 0;
    snprintf(slot->object, sizeof(slot->object), "%s", object);
    slot->start = now_ns();
}

void load_asks(struct slot *slot, int64_t number)
{
    BOP_ASSERT(slot->asked_count < LOAD_ASKED_MAX);
    slot->asked[slot->asked_count++] = number;
}

bool load_refused(struct slot *slot, int rc)
{
    if (rc == 0) {
        return true;
    }
    BOP_IGNORE(rc);
    slot->busy = false;
    return false;
}

/* As client.h says: of these it is not known whether the operation was done. */
static enum chaos_outcome outcome_of(int code)
{
    switch (code) {
    case 0:
        return CHAOS_OK;
    case BOP_ETIMEOUT:
    case BOP_ESESSION:
    case BOP_EUNCERTAIN:
    case BOP_ECANCELED:
    case BOP_EPROTOCOL:
        return CHAOS_UNKNOWN;
    default:
        return CHAOS_FAIL;
    }
}

void load_end(struct slot *slot, int code, const int64_t *numbers, size_t count)
{
    static const char *const texts[] = {
        [CHAOS_OK] = "ok", [CHAOS_FAIL] = "fail", [CHAOS_UNKNOWN] = "unknown"};
    enum chaos_outcome outcome = outcome_of(code);

    BOP_ASSERT(slot->busy);
    slot->busy = false;
    slot->answered = code == 0;
    record.counts.by_outcome[outcome]++;
    if (slot->silent) {
        return;
    }
    fprintf(record.out, "%" PRId64 " ", slot->start);
    if (outcome == CHAOS_UNKNOWN) {
        fprintf(record.out, "-");
    } else {
        fprintf(record.out, "%" PRId64, now_ns());
    }
    fprintf(record.out, " %" PRIu32 " %s %s %s", slot->process, texts[outcome],
            chaos_op_text(slot->op), slot->object);
    for (size_t i = 0; i < slot->asked_count; i++) {
        fprintf(record.out, " %" PRId64, slot->asked[i]);
    }
    for (size_t i = 0; i < count && outcome == CHAOS_OK; i++) {
        fprintf(record.out, " %" PRId64, numbers[i]);
    }
    fprintf(record.out, "\n");
}

/* ---- Values ---- */

struct bop_slice load_bytes_of(const int64_t *number)
{
    return bop_slice(number, sizeof(*number));
}

bool load_numbers_of(struct bop_slice bytes, const int64_t **out_numbers, size_t *out_count)
{
    static int64_t numbers[8192];

    if (bytes.size % sizeof(*numbers) != 0 || bytes.size > sizeof(numbers)) {
        return false;
    }
    if (bytes.size != 0) {
        memcpy(numbers, bytes.data, bytes.size);
    }
    *out_numbers = numbers;
    *out_count = bytes.size / sizeof(*numbers);
    return true;
}

/* ---- Generations ---- */

static void name_it(char prefix, size_t index, unsigned number, char *out_name)
{
    snprintf(out_name, LOAD_OBJECT_MAX, "%c%zu.%u", prefix, index, number);
}

void load_use(struct load_generation *generation, char prefix, size_t index, unsigned uses_max,
              char *out_name)
{
    if (generation->uses++ == uses_max) {
        generation->uses = 1;
        generation->number++;
        generation->last = 0;
    }
    name_it(prefix, index, generation->number, out_name);
}

bool load_nth(const struct load_generation *generations, size_t count, char prefix, size_t step,
              char *out_name)
{
    for (size_t i = 0; i < count; i++) {
        size_t there = generations[i].number + 1u;

        if (step < there) {
            name_it(prefix, i, (unsigned)step, out_name);
            return true;
        }
        step -= there;
    }
    return false;
}
