/*
 * Fuzzes what reads a chunk of a log's manifest.
 *
 * Properties: nothing reads outside of the input and nothing is leaked (the
 * sanitizers' part); of a chunk that is accepted no two kept segments overlap, and what
 * it says, written as a snapshot, reads the same.
 *
 * The first byte says what the rest is: a chunk as it is, or one whose numbers, links and
 * checksums are put right first, for random bytes never have them.
 */
#include <stdlib.h>

#include "store/aof/manifest_replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t log_id[BOP_AOF_ID_SIZE] = "the log's own id";

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* ---- Repairing ---- */

static void repair_record(uint8_t *at, uint32_t length, struct bop__manifest_place *place)
{
    struct bop__manifest_record_header header;

    memcpy(&header, at, sizeof(header));
    header.number = place->number++;
    header.chain = place->chain;
    header.mark = BOP__MANIFEST_MARK;
    header.payload_crc = bop_crc32c(0, at + sizeof(header), length);
    header.header_crc = 0;
    header.header_crc = bop_crc32c(place->salt, &header, sizeof(header));
    memcpy(at, &header, sizeof(header));
    place->chain = bop_crc32c(
        0, (const uint32_t[3]){header.header_crc, header.payload_crc, header.chain}, 12);
}

static void repair(uint8_t *bytes, size_t size)
{
    struct bop__manifest_chunk_header header;
    struct bop__manifest_place place;
    size_t at = BOP__MANIFEST_HEADER;

    if (size < at) {
        return;
    }
    memcpy(&header, bytes, sizeof(header));
    header.magic = BOP__MANIFEST_MAGIC;
    header.version = BOP__MANIFEST_VERSION;
    header.index = 1;
    header.flags = 0;
    memcpy(header.log_id, log_id, sizeof(log_id));
    header.crc = 0;
    header.crc = bop_crc32c(0, &header, sizeof(header));
    memcpy(bytes, &header, sizeof(header));
    place = (struct bop__manifest_place){
        .salt = header.crc, .chain = header.seed, .number = header.first};
    while (size - at >= BOP__MANIFEST_RECORD) {
        uint32_t length = bop_load_u32(bytes + at + 28);
        uint64_t whole = bop__manifest_record_size(length);

        if (whole > size - at) {
            return;
        }
        repair_record(bytes + at, length, &place);
        at += whole;
    }
}

/* ---- What is tried ---- */

static int replay(struct bop_slice chunk, struct bop__catalogue *catalogue)
{
    struct bop__manifest_replay replay = {.allocator = bop_allocator_default(),
                                          .path = "chunk",
                                          .index = 1,
                                          .log_id = log_id,
                                          .catalogue = catalogue};
    struct bop_error err;
    int rc = bop__manifest_replay(&replay, chunk, &err);

    require(rc == 0 || err.message[0] != '\0');
    require(replay.end <= chunk.size);
    return rc;
}

static void check_order(const struct bop__catalogue *catalogue)
{
    uint64_t end = 0;

    for (size_t i = 0; i < catalogue->count; i++) {
        const struct bop__manifest_entry *entry = catalogue->entries[i];

        require(entry->facts.base < entry->facts.end_seq);
        if (!entry->dropped) {
            require(entry->facts.base >= end);
            end = entry->facts.end_seq;
        }
    }
}

/* Write the catalogue as a chunk, and read it. */
static void round_trip(const struct bop__catalogue *catalogue)
{
    struct bop__manifest_record marker = {.kind = BOP__MANIFEST_SNAPSHOT_MARKER,
                                          .first_seq = catalogue->count};
    struct bop__manifest_place place;
    struct bop__catalogue again;
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 0);
    bop__catalogue_init(&again, bop_allocator_default());
    require(bop__manifest_header_encode(1, log_id, 1, 0, &buf, &place) == 0);
    for (size_t i = 0; i < catalogue->count; i++) {
        struct bop__manifest_record record = {.kind = BOP__MANIFEST_CATALOGUE};

        place.back = 0;
        require(bop__manifest_record_encode(&record, catalogue->entries[i], &place, &buf) == 0);
    }
    require(bop__manifest_record_encode(&marker, NULL, &place, &buf) == 0);
    require(replay(bop_buf_slice(&buf), &again) == 0);
    require(again.count == catalogue->count);
    for (size_t i = 0; i < again.count; i++) {
        require(memcmp(&again.entries[i]->facts, &catalogue->entries[i]->facts,
                       sizeof(again.entries[i]->facts)) == 0);
        require(again.entries[i]->uploaded == catalogue->entries[i]->uploaded);
        require(again.entries[i]->packed_bytes == catalogue->entries[i]->packed_bytes);
    }
    bop__catalogue_deinit(&again);
    bop_buf_deinit(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop__catalogue catalogue;
    uint8_t *copy;

    if (size < 1) {
        return 0;
    }
    /* A block of exactly the size, so that the sanitizer sees a read beyond it. */
    copy = malloc(size);
    require(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    if (data[0] & 1) {
        repair(copy, size - 1);
    }
    copy = realloc(copy, size > 1 ? size - 1 : 1);
    bop__catalogue_init(&catalogue, bop_allocator_default());
    if (replay(bop_slice(copy, size - 1), &catalogue) == 0) {
        check_order(&catalogue);
        round_trip(&catalogue);
    }
    bop__catalogue_deinit(&catalogue);
    free(copy);
    return 0;
}
