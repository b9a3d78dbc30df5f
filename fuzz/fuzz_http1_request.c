/*
 * Fuzzes heads of requests. The first byte picks the limits.
 *
 * Properties: every engine gives the same for the same bytes; what a good head
 * has lies in its bytes; a part of a good head is wanted more of, a part of a bad
 * one either that or refused as the whole is.
 */
#include "fuzz_http1.h"

static int parse(const struct bop__http_engine *engine, struct bop_slice bytes, uint8_t choice,
                 struct bop_http_head *head, const char **out_why)
{
    static const struct bop_http1_limits tight = {
        .head_bytes_max = 90, .target_bytes_max = 20, .headers_max = 3, .body_bytes_max = 1000};

    return bop__http_parse_request(engine, bytes, choice % 2 ? &tight : NULL, head, out_why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0) {
        check_heads(parse, data[0], bop_slice(data + 1, size - 1));
    }
    return 0;
}
