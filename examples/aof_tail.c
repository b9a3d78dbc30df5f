/*
 * The append-only log by itself: one thread appends, another follows.
 *
 *     aof_tail DIRECTORY [RECORDS]
 *
 * The owner appends RECORDS records (1000) to the log in DIRECTORY, which is made if it is missing,
 * and waits until all are on disk. Meanwhile a follower prints each record once it is durable, as
 * "NUMBER TEXT", without copying it: it waits at the end of the log for the next one. At last the
 * receipt of the last record is verified.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <bop/aof.h>

struct follower {
    struct bop_aof *aof;
    uint64_t from;  /* The first record to print. */
    uint64_t until; /* The last one. */
    pthread_t thread;
    int rc;
};

static int complain(const char *what, int rc, const struct bop_error *err)
{
    fprintf(stderr, "aof_tail: %s: %s\n", what, err && err->code ? err->message : bop_strerror(rc));
    return rc;
}

/* ---- The follower ---- */

static int print_records(struct follower *f, struct bop_aof_reader *reader)
{
    struct bop_error err = {0};
    int rc = bop_aof_reader_seek(reader, f->from, &err);

    while (rc == 0 && bop_aof_reader_position(reader) <= f->until) {
        struct bop_aof_view view;

        rc = bop_aof_reader_next(reader, &view, &err);
        if (rc == 0) {
            /* The payload is the log's own memory, until the next call on this reader. */
            printf("%" PRIu64 " %.*s\n", view.seq, (int)view.payload.size,
                   (const char *)view.payload.data);
        } else if (rc == BOP_EEND) {
            /* Other events (a segment was sealed, say) are not of interest here: look again. */
            rc = bop_aof_reader_wait(reader, -1) == BOP_AOF_EVENT_CLOSED ? BOP_ECLOSED : 0;
        }
    }
    return rc < 0 ? complain("read", rc, &err) : 0;
}

static void *follow(void *arg)
{
    struct follower *f = arg;
    /* Only what an fdatasync has returned for: what is printed survives a power failure. */
    const struct bop_aof_reader_options options = {.level = BOP_AOF_DISK};
    struct bop_aof_reader *reader;

    f->rc = bop_aof_reader_open(f->aof, &options, &reader);
    if (f->rc < 0) {
        complain("open a reader", f->rc, NULL);
        return NULL;
    }
    f->rc = print_records(f, reader);
    bop_aof_reader_close(reader);
    return NULL;
}

/* ---- The owner ---- */

static int append_records(struct bop_aof *aof, uint64_t count, struct bop_aof_receipt *out_receipt)
{
    for (uint64_t i = 0; i < count; i++) {
        char text[64];
        struct bop_aof_record record = {.tag = i};
        struct bop_aof_append append = {.records = &record, .count = 1};
        int rc;

        snprintf(text, sizeof(text), "measurement %" PRIu64, i);
        record.head = bop_slice_cstr(text);
        /* Waits when too much is on its way to the disk already; the record is copied. */
        rc = bop_aof_append_wait(aof, &append, out_receipt, -1);
        if (rc < 0) {
            return complain("append", rc, NULL);
        }
    }
    return 0;
}

static int verify(struct bop_aof *aof, const struct bop_aof_receipt *receipt)
{
    struct bop_aof_verified verified;
    struct bop_error err = {0};
    int rc = bop_aof_verify(aof, receipt, &verified, &err);

    if (rc < 0) {
        return complain("verify", rc, &err);
    }
    if (verified.verdict != BOP_AOF_VERDICT_KEPT) {
        fprintf(stderr, "aof_tail: record %" PRIu64 " is not there\n", receipt->seq);
        return BOP_ENOTFOUND;
    }
    return 0;
}

static int run(struct bop_aof *aof, uint64_t count)
{
    struct follower follower = {.aof = aof, .from = bop_aof_last(aof) + 1};
    struct bop_aof_receipt receipt;
    int rc;

    follower.until = bop_aof_last(aof) + count;
    rc = -pthread_create(&follower.thread, NULL, follow, &follower);
    if (rc < 0) {
        return complain("start a thread", rc, NULL);
    }
    rc = append_records(aof, count, &receipt);
    if (rc == 0) {
        rc = bop_aof_wait(aof, BOP_AOF_DISK, follower.until, -1);
    }
    if (rc < 0) {
        /* The follower would wait for ever for what does not come. */
        complain("write", rc, NULL);
        exit(1);
    }
    pthread_join(follower.thread, NULL);
    rc = follower.rc;
    return rc == 0 && count > 0 ? verify(aof, &receipt) : rc;
}

int main(int argc, char **argv)
{
    struct bop_aof_options options = {.path = argc > 1 ? argv[1] : NULL};
    struct bop_error err = {0};
    struct bop_aof *aof;
    int rc;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: aof_tail DIRECTORY [RECORDS]\n");
        return 2;
    }
    rc = bop_aof_open(&options, &aof, NULL, &err);
    if (rc < 0) {
        complain(argv[1], rc, &err);
        return 1;
    }
    rc = run(aof, argc > 2 ? strtoull(argv[2], NULL, 10) : 1000);
    bop_aof_close(aof);
    return rc < 0 ? 1 : 0;
}
