/*
 * Fuzzes heads of responses. The first byte picks the limits and the method that
 * was asked with. Properties as of fuzz_http1_request.
 */
#include "fuzz_http1.h"

static int parse(const struct bop__http_engine *engine, struct bop_slice bytes, uint8_t choice,
                 struct bop_http_head *head, const char **out_why)
{
    static const struct bop_http1_limits tight = {.head_bytes_max = 90, .headers_max = 3};
    static const enum bop_http_method methods[] = {BOP_HTTP_GET, BOP_HTTP_HEAD, BOP_HTTP_CONNECT,
                                                   BOP_HTTP_POST};

    return bop__http_parse_response(engine, bytes, choice % 2 ? &tight : NULL,
                                    methods[choice / 2 % 4], head, out_why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0) {
        check_heads(parse, data[0], bop_slice(data + 1, size - 1));
    }
    return 0;
}
