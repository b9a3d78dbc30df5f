/*
 * A log's directory as tools see it: all segments of which anything is known, from file names,
 * headers, footers, the manifest and the packed files. Nothing is locked and nothing changed.
 *
 *      admin_open.c     what there is, and which segments are of the log
 *      admin_inspect.c  ... told to the caller
 *      admin_check.c    every record of it, and what is wrong
 *      admin_copies.c   packed files and objects
 *      admin_repair.c   making it usable again
 *      admin_manifest.c the manifest's chunks
 */
#ifndef BOP_STORE_AOF_ADMIN_H
#define BOP_STORE_AOF_ADMIN_H

#include <inttypes.h>

#include <bop/aof_admin.h>

#include "format.h"
#include "manifest.h"
#include "warm.h"

#define BOP__ADMIN_PATH_MAX 4096
#define BOP__ADMIN_NAME_MAX 96

struct bop__admin_segment {
    uint64_t base;
    uint64_t generation;
    uint64_t limit; /* Above its last record, as the next segment or its facts have it. */
    bool local;     /* There is a file. */
    bool kept;      /* It is of the log. */
    bool newest;    /* Of the local ones. */

    char name[BOP__ADMIN_NAME_MAX]; /* The local file's. */
    uint64_t file_bytes;
    /* As it is if code is 0, or was found out all the same; else only base and generation. */
    struct bop__aof_segment_header header;
    int code;      /* Of the header, or of reading it. */
    bool guessed;  /* It is bad, and known what it should be. */
    bool misnamed; /* It is good, and another segment's than the name says. */
    bool foreign;  /* Another log's. */
    struct bop_error err;
    int footer_code; /* BOP_ENOTFOUND: it has none. */
    struct bop_error footer_err;
    struct bop__segment_facts facts; /* If footer_code is 0, or as the manifest has them. */

    const struct bop__manifest_entry *entry; /* NULL: the manifest does not know it. */
    char packed_name[BOP__ADMIN_NAME_MAX];   /* "warm/..."; empty: there is none. */
    uint64_t packed_bytes;                   /* Of the file. */
};

struct bop__admin {
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    struct bop_clock *clock;
    const char *path;
    uint8_t *block; /* A header's. */

    struct bop__admin_segment *segments; /* Of the log by base; others behind. */
    size_t count;                        /* Of the log. */
    size_t total;
    size_t capacity;
    size_t found; /* Where the last one was that was looked for. */

    bool locked; /* By us. */
    bool identity_known;
    uint8_t log_id[BOP_AOF_ID_SIZE];
    uint64_t epoch;
    uint64_t generation; /* The highest of any name. */
    uint64_t front;      /* As the newest good header has it; 0: there is none. */

    struct bop__manifest *manifest; /* Read-only; NULL: none, or it does not open. */
    bool has_manifest;
    int manifest_code;
    struct bop_error manifest_err;
};

/** Look at a directory. BOP_ENOTFOUND: there is no log. *admin is deinited by the caller, whatever
 * this returns. */
int bop__admin_open(const struct bop_aof_admin_options *options, struct bop__admin *admin,
                    struct bop_error *err);
void bop__admin_deinit(struct bop__admin *admin);

/** "<path>/<name>". 0 or -ENAMETOOLONG. */
int bop__admin_path(const struct bop__admin *admin, const char *name,
                    char out_path[BOP__ADMIN_PATH_MAX], struct bop_error *err);

/** Whether there is a file or directory of this path. What the disk answers else is an error: not
 * knowing is not a no. */
int bop__admin_exists(const struct bop__admin *admin, const char *path, bool *out_exists,
                      struct bop_error *err);

/** The newest local segment that is of the log, or NULL. */
struct bop__admin_segment *bop__admin_newest(const struct bop__admin *admin);

/** True if another tier is said to have the segment: a packed file or an object. */
bool bop__admin_elsewhere(const struct bop__admin_segment *segment);

/** True if someone has the log open. The lock is held for a moment. */
bool bop__admin_in_use(const struct bop__admin *admin);

/** A source of the local file, of the size it has now. */
int bop__admin_source(const struct bop__admin *admin, const struct bop__admin_segment *segment,
                      struct bop__segment_source **out_source, struct bop_error *err);

/** Take the log's lock. BOP_ELOCKED, with the way out. */
int bop__admin_lock(struct bop__admin *admin, int *out_fd, struct bop_error *err);
/** fd below 0: nothing. */
void bop__admin_unlock(struct bop__admin *admin, int fd);

/** Put a header block right of which a single bit is wrong; false if that is not it. */
bool bop__admin_guess_header(uint8_t *block, struct bop__aof_segment_header *out_header);

/* Behind the name of a segment that is on its way to its own name. */
#define BOP__ADMIN_MOVED ".moved"

/** "<base>-<generation>.seg" of a segment, as it should be. */
void bop__admin_name(const struct bop__admin_segment *segment, char out_name[BOP__ADMIN_NAME_MAX]);

/* ---- Checking ---- */

/** What is wrong, for repairs. */
struct bop__admin_finding {
    enum bop_aof_problem_kind kind;
    struct bop__admin_segment *segment; /* NULL: none is there. */
    uint64_t offset;
    uint64_t first_seq, last_seq; /* Last below first: no record is concerned. */
    bool elsewhere;
    int code;
    uint32_t link; /* Of the record before first_seq, if known. */
    bool link_known;
};

struct bop__admin_check {
    struct bop_aof_check_options options;
    struct bop__admin *admin;
    struct bop_aof_report report;
    struct bop_error first; /* The first problem. */
    struct bop_error *err;  /* What ended it. */
    struct bop__admin_segment *previous;
    uint64_t next; /* The record to come; 0: any. */
    uint32_t link; /* Of the one before it, if known. */
    bool link_known;
    uint64_t bytes_total;
    uint64_t began_us;
    uint64_t told_bytes;
    /* For repairs. May be NULL. A non-zero result ends the check. */
    int (*on_finding)(void *user, const struct bop__admin_finding *finding);
    /* Where the records of the newest segment end. */
    uint64_t tail_end;
    void *user;
};

/** Read everything. 0 (problems are counted in report), or what ended it. */
int bop__admin_check(struct bop__admin_check *check);

/** Say that something is wrong; bytes 0: unknown. */
int bop__admin_found(struct bop__admin_check *check, const struct bop__admin_finding *finding,
                     const char *file, uint64_t bytes, const char *text);

/** Count bytes that were read, and wait as long as the rate asks. */
void bop__admin_pace(struct bop__admin_check *check, uint64_t bytes);

/** Give a good record to the caller. */
int bop__admin_give(struct bop__admin_check *check, const struct bop__aof_record_header *header,
                    struct bop_slice bytes, uint64_t offset,
                    const struct bop__admin_segment *segment, const char *file,
                    enum bop_aof_tier tier);

/* ---- Copies in lower tiers ---- */

/** Give records [first, last] of another copy of the segment. True in *out_all if it had all of
 * them good. */
int bop__admin_copy_give(struct bop__admin_check *check, const struct bop__admin_segment *segment,
                         uint64_t first, uint64_t last, bool *out_all);

/** Check the packed file and the object of a segment, as asked for. */
int bop__admin_copies_check(struct bop__admin_check *check, struct bop__admin_segment *segment);

/** True if the manifest says that there is one. */
bool bop__admin_has_object(const struct bop__admin_segment *segment);
/** The packed segment in the object store. */
int bop__admin_open_object(struct bop__admin *admin, struct bop_object_store *store,
                           const struct bop__admin_segment *segment,
                           struct bop__packed **out_packed, struct bop_error *err);
/** ... and in tier 1. */
int bop__admin_open_packed(struct bop__admin *admin, const struct bop__admin_segment *segment,
                           struct bop__packed **out_packed, struct bop_error *err);

/** True if its packed file is good, read from end to end. */
bool bop__admin_packed_good(struct bop__admin *admin, const struct bop__admin_segment *segment);

#endif
