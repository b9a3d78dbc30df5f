/*
 * A complete client: put, get, count, scan.
 *
 *     client 127.0.0.1:4700
 *
 * Try it with `bopd --dev` running.
 */
#include <inttypes.h>
#include <stdio.h>

#include <bop/client.h>

static int fail(const char *what, const struct bop_error *err)
{
    fprintf(stderr, "client: %s: %s\n", what, err->message);
    return 1;
}

/* Put a value, read it back, and count that we were here. */
static int greet(struct bop_client_blocking *client)
{
    struct bop_slice map = bop_slice_cstr("greetings");
    struct bop_slice key = bop_slice_cstr("hello");
    struct bop_error err = {0};
    struct bop_buf value;
    uint64_t version;
    int64_t visits;
    int exit_code = 0;

    bop_buf_init(&value, NULL, 0);
    if (bop_client_blocking_map_put(client, map, key, bop_slice_cstr("world"), NULL, &version,
                                    &err) < 0) {
        exit_code = fail("put", &err);
    } else if (bop_client_blocking_map_get(client, map, key, BOP_READ_LINEARIZABLE, &value,
                                           &version, &err) < 0) {
        exit_code = fail("get", &err);
    } else if (bop_client_blocking_counter_add(client, bop_slice_cstr("visits"), 1, &visits, &err) <
               0) {
        exit_code = fail("add", &err);
    } else {
        printf("hello %.*s, version %" PRIu64 ", visit %" PRId64 "\n", (int)value.size,
               (const char *)value.data, version, visits);
    }
    bop_buf_deinit(&value);
    return exit_code;
}

int main(int argc, char **argv)
{
    const char *endpoints[] = {argc > 1 ? argv[1] : "127.0.0.1:4700"};
    struct bop_client_options options = {
        .endpoints = endpoints,
        .endpoint_count = 1,
        .name = "example",
        .request_timeout_ms = 5000,
    };
    struct bop_client_blocking *client;
    struct bop_error err = {0};
    int exit_code;

    if (bop_client_blocking_open(&options, &client, &err) < 0) {
        return fail("open", &err);
    }
    exit_code = greet(client);
    bop_client_blocking_close(client);
    return exit_code;
}
