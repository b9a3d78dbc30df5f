/*
 * Fuzzes the small files of a data directory, each of which decides whether a node may
 * start: term and vote, its place in the cluster, whose directory it is; what
 * configurations say of servers; and the records of the state machine's store.
 *
 * Properties: nothing reads outside and nothing leaks (the sanitizers' part); what is
 * refused is refused by the code for it, with a sentence; what is accepted is the same when
 * it is saved and read again; a configuration that is accepted is encoded as the same bytes.
 *
 * The first byte says what the rest is.
 */
#include <bop/crc32c.h>
#include <bop/sim.h>

#include "data_dir.h"
#include "machine_record.h"
#include "member.h"
#include "member_file.h"
#include "vote_file.h"

#include "fuzz_round_trip.h"

#define SLOT_SIZE   36 /* Of the vote file, as in docs/design/data-directory.md. */
#define SLOT_STRIDE 4096

static struct bop_fs *fs;

static void put(const char *path, struct bop_slice bytes)
{
    int fd = fs->open(fs, path, O_RDWR | O_CREAT | O_TRUNC);

    require(fd >= 0);
    require(bop_fs_write_all(fs, fd, bytes.data, bytes.size, 0) == 0);
    require(fs->close(fs, fd) == 0);
}

static void require_sentence(int rc, const struct bop_error *err)
{
    require(err->code == rc && err->message[0] != '\0');
}

/* ---- Term and vote ---- */

/* The rest is up to two slots; `sealed` gives them magic and checksum. */
static void vote(struct bop_slice bytes, bool sealed)
{
    uint8_t file_bytes[SLOT_STRIDE + SLOT_SIZE] = {0};
    struct vote_file file, again;
    struct bop_error err = {0};
    size_t size = sizeof(file_bytes);
    int rc;

    for (unsigned n = 0; n < 2; n++) {
        size_t part = bytes.size < SLOT_SIZE ? bytes.size : SLOT_SIZE;
        uint8_t *slot = file_bytes + (size_t)n * SLOT_STRIDE;

        if (part > 0) {
            memcpy(slot, bytes.data, part);
        }
        if (sealed) {
            memcpy(slot, "BOPVOTE1", 8);
            bop_store_u32(slot + 32, bop_crc32c(0, slot, 32));
        }
        bytes = bop_slice(bytes.data + part, bytes.size - part);
    }
    if (bytes.size > 0) { /* Cut somewhere. */
        size = bytes.data[0] * UINT64_C(16) % (sizeof(file_bytes) + 1);
    }
    put("/vote", bop_slice(file_bytes, size));
    rc = bop__vote_file_open(&file, fs, "/vote", false, &err);
    require(rc == 0 || rc == BOP_ECORRUPT);
    if (rc < 0) {
        require_sentence(rc, &err);
        return;
    }
    require(bop__vote_file_save(&file, file.term + 1, 7) == 0);
    bop__vote_file_close(&file);
    require(bop__vote_file_open(&again, fs, "/vote", false, NULL) == 0);
    require(again.term == file.term && again.vote == 7);
    bop__vote_file_close(&again);
}

/* ---- Its place ---- */

static void member(struct bop_slice bytes)
{
    struct member_file file, again;
    struct bop_error err = {0};
    int rc;

    put("/member", bytes);
    rc = bop__member_file_open(&file, fs, "/member", 1, MEMBER_NO, &err);
    require(rc == 0 || rc == BOP_ECORRUPT || rc == BOP_ETOOBIG);
    if (rc < 0) {
        require_sentence(rc, &err);
        return;
    }
    require(file.incarnation != 0);
    require(bop__member_file_save(&file, fs, "/member", file.state, NULL) == 0);
    require(bop__member_file_open(&again, fs, "/member", 1, MEMBER_NO, NULL) == 0);
    require(again.incarnation == file.incarnation && again.state == file.state);
    fuzz_clear();
    require(bop_fs_read_file(fs, "/member", 4096, &fuzz_scratch) >= 0);
    require(bop_slice_equal(bop_buf_slice(&fuzz_scratch), bytes)); /* There is one way. */
}

/* ---- Whose it is ---- */

static void identity(struct bop_slice bytes)
{
    struct bop_error err = {0};
    struct data_dir dir;
    uint64_t node;
    char cluster[256];
    int rc, open_rc;

    require(bop_fs_mkdirs(fs, "/d") == 0);
    put("/d/identity", bytes);
    put("/d/boot", bytes);
    rc = bop__data_dir_identity(fs, "/d", &node, cluster, sizeof(cluster), &err);
    require(rc == 0 || rc == BOP_ECORRUPT || rc == BOP_ETOOBIG);
    if (rc < 0) {
        require_sentence(rc, &err);
    }
    err = (struct bop_error){0};
    open_rc = bop__data_dir_open(&dir, fs, "/d", rc == 0 ? node : 1, rc == 0 ? cluster : "c", "1",
                                 &err);
    if (rc == 0) {
        require(open_rc == 0 && !dir.fresh && !dir.state_whole);
        bop__data_dir_close(&dir, fs);
        require(bop__data_dir_open(&dir, fs, "/d", node + 1, cluster, "1", NULL) == BOP_EMISMATCH);
    } else {
        require(open_rc == BOP_ECORRUPT || open_rc == BOP_EVERSION || open_rc == BOP_EMISMATCH ||
                open_rc == BOP_ETOOBIG);
        require_sentence(open_rc, &err);
    }
}

/* ---- Servers ---- */

static void server(struct bop_slice text)
{
    char formatted[MEMBER_TEXT_MAX];
    struct member parsed, again;

    if (bop__member_parse(text, &parsed) == 0 && bop__member_format(&parsed, formatted) == 0) {
        require(bop__member_parse(bop_slice_cstr(formatted), &again) == 0);
        require(strcmp(again.address, parsed.address) == 0);
        require(again.incarnation == parsed.incarnation && again.priority == parsed.priority);
        require(again.learner == parsed.learner);
        require(bop_slice_equal(bop__member_address(formatted), bop_slice_cstr(parsed.address)));
    }
}

static void configuration(struct bop_slice bytes)
{
    struct bop_raft_configuration conf;
    struct member parsed;

    if (bop_raft_configuration_decode(bytes, &conf) < 0) {
        return;
    }
    fuzz_clear();
    require(bop_raft_configuration_encode(&conf, &fuzz_scratch) == 0);
    require(bop_slice_equal(bop_buf_slice(&fuzz_scratch), bytes));
    for (unsigned n = 0; n < conf.count; n++) {
        bop__member_of(&conf.servers[n], &parsed);
        require(memchr(parsed.address, 0, sizeof(parsed.address)) != NULL);
        require(bop__member_find(&conf, conf.servers[n].id) != NULL);
    }
}

/* ---- Records: decoders take exactly what encoders make ---- */

static void record(uint8_t which, struct bop_slice bytes)
{
    static struct machine_chunk chunk;
    uint8_t again[MACHINE_CHUNK_MAX];
    struct machine_position position;
    struct machine_collection_record collection;
    struct machine_counter counter;
    struct machine_session_record session;
    size_t size = bytes.size;
    int rc;

    switch (which % 5) {
    case 0:
        rc = bop__machine_position_decode(bytes, &position);
        if (rc == 0) {
            bop__machine_position_encode(again, &position);
        }
        break;
    case 1:
        rc = bop__machine_collection_decode(bytes, &collection);
        if (rc == 0) {
            bop__machine_collection_encode(again, &collection);
        }
        break;
    case 2:
        rc = bop__machine_counter_decode(bytes, &counter);
        if (rc == 0) {
            bop__machine_counter_encode(again, &counter);
        }
        break;
    case 3:
        rc = bop__machine_session_decode(bytes, &session);
        if (rc == 0) {
            size = bop__machine_session_encode(again, &session);
        }
        break;
    default:
        rc = bop__machine_chunk_decode(bytes, &chunk);
        if (rc == 0) {
            size = bop__machine_chunk_encode(again, &chunk);
        }
    }
    require(rc == 0 || rc == BOP_ECORRUPT);
    require(rc != 0 || bop_slice_equal(bop_slice(again, size), bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_fs_sim_options options = {.seed = 1};
    struct bop_fs_sim *disk;
    struct bop_slice rest;

    if (size == 0) {
        return 0;
    }
    require(bop_fs_sim_create(&options, &disk) == 0);
    fs = bop_fs_sim_fs(disk);
    rest = bop_slice(data + 1, size - 1);
    switch (data[0] % 7) {
    case 0:
        vote(rest, false);
        break;
    case 1:
        vote(rest, true);
        break;
    case 2:
        member(rest);
        break;
    case 3:
        identity(rest);
        break;
    case 4:
        server(rest);
        break;
    case 6:
        record(data[0] / 7, rest);
        break;
    default:
        configuration(rest);
    }
    bop_fs_sim_destroy(disk);
    return 0;
}
