/*
 * The key-value store by itself: a library of books, kept in a directory.
 *
 *     kv DIRECTORY
 *
 * Shows write transactions, an index by a table with duplicates, a sequence for ids, a snapshot
 * that does not see later commits, a scan over a range, and a hot backup. The directory gets two
 * stores, books and backup, and may hold neither.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <bop/kv_admin.h>

struct library {
    struct bop_kv *kv;
    struct bop_kv_table books;     /* Title by number. */
    struct bop_kv_table by_author; /* Numbers by author: a key with many values, in order. */
};

static int complain(const char *what, int rc)
{
    fprintf(stderr, "%s: %s (%s)\n", what, bop_strerror(rc), bop_kv_cause_text());
    return rc;
}

static int open_library(struct library *library, const char *path)
{
    /* Durable on its own: without a log beside it, each commit is synced. */
    struct bop_kv_options options = {.path = path, .durability = BOP_KV_SURVIVES_SYSTEM};
    struct bop_kv_txn *txn;
    struct bop_error err;
    int rc = bop_kv_open(&options, &library->kv, &err);

    if (rc < 0) {
        fprintf(stderr, "%s\n", err.message);
        return rc;
    }
    rc = bop_kv_begin(library->kv, true, &txn);
    if (rc < 0) {
        return complain("begin", rc);
    }
    rc = bop_kv_table_open_with(txn, "books", BOP_KV_CREATE | BOP_KV_INTEGER_KEY, &library->books);
    if (rc == 0) {
        rc = bop_kv_table_open_with(txn, "by-author",
                                    BOP_KV_CREATE | BOP_KV_DUP_SORT | BOP_KV_DUP_FIXED |
                                        BOP_KV_INTEGER_DUP,
                                    &library->by_author);
    }
    if (rc < 0) {
        bop_kv_abort(txn);
        return complain("open tables", rc);
    }
    return bop_kv_commit(txn);
}

/* A book and its place in the index, in one transaction: both or none. */
static int add_book(struct library *library, const char *author, const char *title)
{
    struct bop_kv_txn *txn;
    uint64_t number;
    int rc = bop_kv_begin(library->kv, true, &txn);

    if (rc < 0) {
        return complain("begin", rc);
    }
    rc = bop_kv_sequence(txn, "books", 1, &number);
    if (rc == 0) {
        rc = bop_kv_put(txn, library->books, bop_slice(&number, sizeof(number)),
                        bop_slice_cstr(title));
    }
    if (rc == 0) {
        rc = bop_kv_put(txn, library->by_author, bop_slice_cstr(author),
                        bop_slice(&number, sizeof(number)));
    }
    if (rc < 0) {
        bop_kv_abort(txn);
        return complain("add a book", rc);
    }
    return bop_kv_commit(txn);
}

/* Print the titles of an author as the transaction sees them. */
static int print_author(struct library *library, struct bop_kv_txn *txn, const char *author)
{
    struct bop_slice key, number, title;
    struct bop_kv_cursor *cursor;
    int rc = bop_kv_cursor_open(txn, library->by_author, &cursor);

    if (rc < 0) {
        return complain("open a cursor", rc);
    }
    printf("%s:", author);
    rc = bop_kv_cursor_seek(cursor, BOP_KV_AT, bop_slice_cstr(author), &key, &number);
    while (rc == 0) {
        rc = bop_kv_get(txn, library->books, number, &title);
        if (rc == 0) {
            printf(" %.*s.", (int)title.size, (const char *)title.data);
            rc = bop_kv_cursor_seek(cursor, BOP_KV_NEXT_DUP, bop_slice(NULL, 0), &key, &number);
        }
    }
    printf("\n");
    bop_kv_cursor_close(cursor);
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

/* A reader's snapshot stays as it was while a book is added. */
static int show_snapshot(struct library *library)
{
    struct bop_kv_txn *snapshot, *now;
    int rc = bop_kv_begin(library->kv, false, &snapshot);

    if (rc < 0) {
        return complain("begin", rc);
    }
    rc = add_book(library, "Lem", "Fiasco");
    if (rc == 0) {
        rc = print_author(library, snapshot, "Lem");
    }
    bop_kv_abort(snapshot);
    if (rc == 0 && (rc = bop_kv_begin(library->kv, false, &now)) == 0) {
        rc = print_author(library, now, "Lem");
        bop_kv_abort(now);
    }
    return rc;
}

/* How many books the authors from L to N have, counted in pieces of two authors. */
static int count_range(struct library *library)
{
    struct bop_kv_range range = {.from = bop_slice_cstr("L"), .to = bop_slice_cstr("O")};
    struct bop_kv_txn *txn;
    uint64_t count = 0;
    int rc = bop_kv_begin(library->kv, false, &txn);

    if (rc < 0) {
        return complain("begin", rc);
    }
    do {
        rc = bop_kv_range_count(txn, library->by_author, &range, 2, &count);
    } while (rc == BOP_EAGAIN);
    bop_kv_abort(txn);
    printf("L to N: %" PRIu64 " books\n", count);
    return rc;
}

static int run(struct library *library, const char *directory)
{
    static const char *const books[][2] = {{"Le Guin", "The Dispossessed"},
                                           {"Lem", "Solaris"},
                                           {"Mann", "Der Zauberberg"},
                                           {"Lem", "The Cyberiad"},
                                           {"Woolf", "Orlando"}};
    char backup[4096];
    struct bop_error err;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < BOP_COUNT_OF(books); i++) {
        rc = add_book(library, books[i][0], books[i][1]);
    }
    if (rc == 0) {
        rc = show_snapshot(library);
    }
    if (rc == 0) {
        rc = count_range(library);
    }
    snprintf(backup, sizeof(backup), "%s/backup", directory);
    if (rc == 0 && (rc = bop_kv_copy(library->kv, backup, true, &err)) < 0) {
        fprintf(stderr, "%s\n", err.message);
    }
    return rc;
}

int main(int argc, char **argv)
{
    struct library library = {0};
    char path[4096];
    int rc;

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    snprintf(path, sizeof(path), "%s/books", argv[1]);
    rc = open_library(&library, path);
    if (rc == 0) {
        rc = run(&library, argv[1]);
    }
    bop_kv_close(library.kv);
    return rc < 0 ? 1 : 0;
}
