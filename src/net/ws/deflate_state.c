#include "deflate_internal.h"

#include <bop/random.h>

#define DEFAULT_LEVEL     6
#define DEFAULT_MEM_LEVEL 8
#define DEFAULT_SPARE_MAX 4
/* Below this libdeflate gains nothing: building its tables costs what it saves. */
#define DEFAULT_WHOLE_MIN 384
#define BLOCK_HEAD        16 /* Holds a block's size, and keeps what follows aligned. */

const uint8_t ws_tail[4] = {0x00, 0x00, 0xff, 0xff};

/* ---- Memory: zlib frees without a size ---- */

static void *zip_alloc(void *user, unsigned count, unsigned size)
{
    struct bop_ws_zip *zip = user;
    size_t bytes = (size_t)count * size + BLOCK_HEAD;
    uint8_t *block = bop_alloc(zip->allocator, bytes);

    if (!block) {
        return NULL;
    }
    memcpy(block, &bytes, sizeof(bytes));
    return block + BLOCK_HEAD;
}

static void zip_free(void *user, void *memory)
{
    struct bop_ws_zip *zip = user;
    uint8_t *block = memory;
    size_t bytes;

    if (block) {
        block -= BLOCK_HEAD;
        memcpy(&bytes, block, sizeof(bytes));
        bop_free(zip->allocator, block, bytes);
    }
}

/* ---- States ---- */

static void destroy_state(struct bop_ws_zip *zip, struct bop_ws_zip_state *state)
{
    if (state->deflates) {
        deflateEnd(&state->z);
    } else {
        inflateEnd(&state->z);
    }
    bop_free(zip->allocator, state, sizeof(*state));
}

static struct bop_ws_zip_state *create_state(struct bop_ws_zip *zip, bool deflates, unsigned bits,
                                             int mem_level)
{
    struct bop_ws_zip_state *state = bop_alloc_zeroed(zip->allocator, sizeof(*state));
    int rc;

    if (!state) {
        return NULL;
    }
    state->deflates = deflates;
    state->bits = (uint8_t)bits;
    state->mem_level = (uint8_t)mem_level;
    state->z.zalloc = zip_alloc;
    state->z.zfree = zip_free;
    state->z.opaque = zip;
    rc = deflates ? deflateInit2(&state->z, zip->level, Z_DEFLATED, -(int)bits, mem_level,
                                 Z_DEFAULT_STRATEGY)
                  : inflateInit2(&state->z, -(int)bits);
    if (rc != Z_OK) {
        bop_free(zip->allocator, state, sizeof(*state));
        return NULL;
    }
    return state;
}

struct bop_ws_zip_state *bop__ws_zip_take(struct bop_ws_zip *zip, bool deflates, unsigned bits,
                                          int mem_level)
{
    struct bop_ws_zip_state **link;

    for (link = &zip->spare[deflates]; *link; link = &(*link)->next) {
        struct bop_ws_zip_state *state = *link;

        if (state->bits == bits && state->mem_level == mem_level) {
            *link = state->next;
            zip->spare_count[deflates]--;
            return state;
        }
    }
    return create_state(zip, deflates, bits, mem_level);
}

void bop__ws_zip_give(struct bop_ws_zip *zip, struct bop_ws_zip_state *state)
{
    if (!state) {
        return;
    }
    if (zip->spare_count[state->deflates] >= zip->spare_max ||
        (state->deflates ? deflateReset(&state->z) : inflateReset(&state->z)) != Z_OK) {
        destroy_state(zip, state);
        return;
    }
    state->tail = 0;
    state->total = 0;
    state->ended = false;
    state->next = zip->spare[state->deflates];
    zip->spare[state->deflates] = state;
    zip->spare_count[state->deflates]++;
}

/* ---- What a loop shares ---- */

int bop_ws_zip_create(const struct bop_ws_zip_options *options, struct bop_ws_zip **out_zip)
{
    struct bop_allocator *allocator = bop_allocator_or_default(options->allocator);
    struct bop_ws_zip *zip;
    int rc;

    if (options->level < 0 || options->level > 9 || options->mem_level < 0 ||
        options->mem_level > 9) {
        return BOP_EINVAL;
    }
    zip = bop_alloc_zeroed(allocator, sizeof(*zip));
    if (!zip) {
        return BOP_ENOMEM;
    }
    zip->allocator = allocator;
    zip->level = options->level ? options->level : DEFAULT_LEVEL;
    zip->mem_level = options->mem_level ? options->mem_level : DEFAULT_MEM_LEVEL;
    zip->spare_max = options->spare_max ? options->spare_max : DEFAULT_SPARE_MAX;
    zip->whole_min = DEFAULT_WHOLE_MIN;
    bop_buf_init(&zip->whole, allocator, 0);
    rc = bop_random_secret(zip->magic, sizeof(zip->magic));
    if (rc == 0) {
        zip->decompressor = libdeflate_alloc_decompressor();
        rc = zip->decompressor ? 0 : BOP_ENOMEM;
    }
    if (rc != 0) {
        bop_ws_zip_destroy(zip);
        return rc;
    }
    *out_zip = zip;
    return 0;
}

void bop_ws_zip_destroy(struct bop_ws_zip *zip)
{
    if (!zip) {
        return;
    }
    for (unsigned kind = 0; kind < BOP_COUNT_OF(zip->spare); kind++) {
        while (zip->spare[kind]) {
            struct bop_ws_zip_state *state = zip->spare[kind];

            zip->spare[kind] = state->next;
            destroy_state(zip, state);
        }
    }
    if (zip->decompressor) {
        libdeflate_free_decompressor(zip->decompressor);
    }
    bop_buf_deinit(&zip->whole);
    bop_free(zip->allocator, zip, sizeof(*zip));
}

/* ---- Directions ---- */

void bop_ws_zip_streams(const struct bop_ws_deflate *deflate, bool client,
                        struct bop_ws_zip_stream *out_send, struct bop_ws_zip_stream *out_receive)
{
    struct bop_ws_zip_stream server = {.bits = deflate->server_bits,
                                       .takeover = deflate->server_takeover};
    struct bop_ws_zip_stream other = {.bits = deflate->client_bits,
                                      .takeover = deflate->client_takeover};

    *out_send = client ? other : server;
    *out_receive = client ? server : other;
}

void bop_ws_zip_stream_deinit(struct bop_ws_zip *zip, struct bop_ws_zip_stream *stream)
{
    bop__ws_zip_give(zip, stream->state);
    stream->state = NULL;
    stream->inside = false;
}
