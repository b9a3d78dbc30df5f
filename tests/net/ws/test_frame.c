/*
 * The frame decoder and encoder: every rule of RFC 6455, section 5 and 7, that shows on the wire.
 * Each case in both roles, with each kind of vectors, whole and cut at every byte.
 */
#include "frame_fixture.h"

#include "../../../src/net/ws/ws_frame.h"

#include "cases_frame.h"

static void run_case(const struct frame_case *c, bool client)
{
    struct bop_ws_rules rules = {
        .message_bytes_max = c->max ? c->max : UINT64_MAX, .client = client, .deflate = c->deflate};
    struct wire wire = {.key = 7};

    wire_put_frames(&wire, c->frames, !client);
    check_record(c->name, &rules, bop_slice(wire.data, wire.size), c->expected);
    if (c->fails_at != 0) {
        size_t at = c->fails_at + (client ? 0 : c->fails_at_keys);

        if (failing_size(&rules, bop_slice(wire.data, wire.size)) != at) {
            test__failed(__FILE__, __LINE__, "%s: fails after %zu bytes instead of %zu", c->name,
                         failing_size(&rules, bop_slice(wire.data, wire.size)), at);
        }
    }
    free(wire.data);
}

TEST(frame, cases)
{
    size_t count = 0;

    for (int simd = WS_SCALAR; simd <= (int)bop__ws_simd_best(); simd++) {
        bop__ws_simd_limit((enum ws_simd)simd);
        for (size_t i = 0; i < BOP_COUNT_OF(frame_cases); i++, count += 2) {
            run_case(&frame_cases[i], false);
            run_case(&frame_cases[i], true);
        }
    }
    test_note("%zu cases", count);
}
