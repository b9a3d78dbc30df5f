/*
 * What a reader waits for.
 *
 * An event is told when the reader's own counts differ from the catalogue's, so however many
 * happen between two calls, none is missed.
 */
#include <bop/clock.h>

#include "stream.h"

static enum bop_aof_event event_of(struct bop_aof_reader *r,
                                   const struct bop__catalogue_state *state)
{
    if (r->voided || state->truncations != r->told_truncations) {
        r->told_truncations = state->truncations;
        return BOP_AOF_EVENT_TRUNCATED;
    }
    if (state->sealed != r->told_sealed) {
        r->told_sealed = state->sealed;
        return BOP_AOF_EVENT_SEALED;
    }
    if (r->hydrating ? state->hydrations != r->hydrations : state->visible >= r->next) {
        r->hydrating = false;
        return BOP_AOF_EVENT_RECORDS;
    }
    return state->closed ? BOP_AOF_EVENT_CLOSED : BOP_AOF_EVENT_NONE;
}

static int left_ms(uint64_t deadline_ms)
{
    uint64_t now = bop_clock_monotonic_ms(bop_clock_system());

    return now < deadline_ms ? (int)bop_min_u64(deadline_ms - now, INT32_MAX) : 0;
}

enum bop_aof_event bop_aof_reader_wait(struct bop_aof_reader *reader, int timeout_ms)
{
    uint64_t deadline_ms = timeout_ms > 0
                               ? bop_clock_monotonic_ms(bop_clock_system()) + (uint64_t)timeout_ms
                               : 0;
    bool more = true;

    while (true) {
        struct bop__catalogue_state state = bop__aof_catalogue_state(reader->lookup.catalogue,
                                                                     reader->lookup.level);
        enum bop_aof_event event = event_of(reader, &state);

        if (event != BOP_AOF_EVENT_NONE || !more) {
            return event;
        }
        bop__reader_purge(reader);
        more = bop__aof_catalogue_wait(reader->lookup.catalogue, state.changes,
                                       timeout_ms < 0 ? -1 : left_ms(deadline_ms));
    }
}

uint64_t bop_aof_reader_sealed(const struct bop_aof_reader *reader)
{
    return reader->told_sealed;
}
