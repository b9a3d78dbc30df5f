/*
 * Looking after a log's directory from outside: what is in it, whether all of it is
 * good, and making it usable again.
 *
 * Looking takes no lock and changes nothing: the log may be open in another process and
 * written to meanwhile. Repairing takes the lock, and is the only thing here that
 * changes files; what it changes it keeps as <name>.broken first.
 *
 * Every checksum on the way is checked and no length is believed before it: a damaged
 * file is a problem that is told, and nothing else. All calls block.
 */
#ifndef BOP_AOF_ADMIN_H
#define BOP_AOF_ADMIN_H

#include <bop/tiers.h>

/** Which log, and by what means. Zeroed but for path: the real file system. */
struct bop_aof_admin_options {
    struct bop_allocator *allocator; /* Default: the process's. */
    struct bop_fs *fs;               /* Default: the real one. */
    struct bop_clock *clock;         /* Default: the system's. */
    const char *path;                /* The log's directory. Required. */
};

/* ---- What there is ---- */

/** How a segment is known to be, without reading its records. */
struct bop_aof_segment_info {
    const char *file; /* Its name in the directory; "" if it is not local. */
    uint64_t base;
    uint64_t end_seq; /* One above its last record; 0: unknown. */
    uint64_t generation;
    uint64_t epoch;
    uint64_t front;       /* The log's first record when it was begun. */
    uint64_t limit_bytes; /* What its header says a successor begins at. */
    uint64_t file_bytes;
    uint64_t end; /* Where its records end in the file; 0: unknown. */
    unsigned version;
    bool aligned;
    bool local;
    bool sealed; /* It has a good footer. */
    bool newest; /* It takes appends. */
    bool left;   /* It is no longer of the log: the next open removes it. */
    uint64_t first_time_us, last_time_us; /* If sealed, like root. */
    uint8_t root[BOP_AOF_DIGEST_SIZE];

    /* By the manifest, and the directory of packed files. */
    bool known;
    bool in_tier1; /* There is a file; its content is looked at by bop_aof_check(). */
    bool in_tier2;
    bool uploading;
    bool delete_queued;
    enum bop_tiers_residency residency;
    uint64_t packed_bytes;
    const char *packed_file; /* In the log's directory; NULL: none. */
    const char *key;         /* In the object store; NULL: none. */

    int code; /* What is wrong with header or footer, or 0, and in words. */
    const char *problem;
};

struct bop_aof_info {
    uint8_t log_id[BOP_AOF_ID_SIZE];
    uint64_t first;  /* The first record in a local segment; last + 1: none is. */
    uint64_t oldest; /* The first one that is there, maybe in a lower tier. */
    uint64_t last;   /* As far as the newest segment's records are good. */
    uint64_t epoch;
    uint64_t generation;
    uint64_t local_bytes, packed_bytes, tier2_bytes;
    unsigned segments; /* Local ones that are of the log. */
    unsigned archived; /* Those in lower tiers only. */
    unsigned left;
    unsigned problems; /* Among headers, footers and the manifest. */
    bool has_manifest;
    int manifest_code; /* 0, or what is wrong with it, and in words. */
    char manifest_problem[BOP_ERROR_MESSAGE_MAX];
};

/** 0 to go on; anything else ends the list and comes back. */
typedef int bop_aof_segment_fn(void *user, const struct bop_aof_segment_info *segment);

/**
 * List the segments of a log, oldest first, those no longer of it last. Reads headers and
 * footers, and the newest segment's records. fn may be NULL. Damage is told of in the infos
 * and is no failure. BOP_ENOTFOUND if there is no log in the directory.
 */
BOP_API BOP_MUST_USE int bop_aof_inspect(const struct bop_aof_admin_options *options,
                                         bop_aof_segment_fn *fn, void *user,
                                         struct bop_aof_info *out_info, struct bop_error *err);

/** True if path is a log's directory: it holds a segment file, or a manifest. */
BOP_API bool bop_aof_is_log(const struct bop_aof_admin_options *options);

/* ---- Whether it is good ---- */

enum bop_aof_problem_kind {
    BOP_AOF_PROBLEM_HEADER,  /* Of a segment: damaged, another's, or of another version. */
    BOP_AOF_PROBLEM_MISSING, /* Records that no file has. */
    BOP_AOF_PROBLEM_RECORDS, /* Damaged ones. */
    BOP_AOF_PROBLEM_FOOTER,  /* The records are looked at all the same. */
    BOP_AOF_PROBLEM_ORDER,   /* A segment does not follow the one before. */
    BOP_AOF_PROBLEM_PACKED,  /* A file of tier 1. */
    BOP_AOF_PROBLEM_OBJECT,  /* Of tier 2. */
    BOP_AOF_PROBLEM_MANIFEST,
    BOP_AOF_PROBLEM_READ, /* The system could not read a file. */
};

struct bop_aof_problem {
    enum bop_aof_problem_kind kind;
    const char *file; /* With its path; the key of an object. */
    uint64_t offset;  /* In it, */
    uint64_t bytes;   /* and how much of it; 0: unknown. */
    /* The records concerned; last below first: none. */
    uint64_t first_seq, last_seq;
    bool elsewhere; /* Another tier has these records. */
    int code;
    const char *text;
};

/** The word for a kind, as "records". */
BOP_API const char *bop_aof_problem_word(enum bop_aof_problem_kind kind);

/** Where a record lies. */
struct bop_aof_place {
    const char *file;
    uint64_t generation;
    uint64_t offset;
    uint64_t durable_seq; /* Records up to here it vouches for. */
};

struct bop_aof_check_options {
    struct bop_aof_admin_options log;
    uint64_t first_seq;  /* From here, */
    uint64_t last_seq;   /* up to here; 0: all. Whole segments are left out, others are read. */
    uint64_t generation; /* This segment only; 0: all. */
    bool packed;         /* Also packed files of segments that are there as written. */
    /* Also objects, borrowed. */
    struct bop_object_store *objects;
    uint64_t bytes_per_s; /* Read no faster; 0: no limit. */
    /* May be NULL, each. A non-zero result of on_record ends the check and is returned. */
    int (*on_record)(void *user, const struct bop_aof_view *view,
                     const struct bop_aof_place *place);
    void (*on_problem)(void *user, const struct bop_aof_problem *problem);
    void (*on_progress)(void *user, uint64_t bytes, uint64_t bytes_total);
    void *user;
};

struct bop_aof_report {
    unsigned segments; /* Looked at, */
    unsigned packed;
    unsigned objects;
    uint64_t records; /* Good ones. */
    uint64_t bytes;
    uint64_t first, last;
    unsigned problems;
    uint64_t lost; /* Records that no copy looked at has. */
    uint64_t lost_first, lost_last;
    uint64_t torn_bytes; /* Behind the last record: never acknowledged. */
    uint64_t torn_from_seq;
    bool in_use; /* The end may be on its way: another process has the log open. */
};

/**
 * Read every record of a log, oldest first. A record that is in several tiers is given once, of the
 * first that has it good.
 *
 * Returns 0, BOP_ECORRUPT if there were problems (*out_report is filled in then as well, err tells
 * the first), BOP_ENOTFOUND (no log, or no such segment), or what on_record returned.
 */
BOP_API BOP_MUST_USE int bop_aof_check(const struct bop_aof_check_options *options,
                                       struct bop_aof_report *out_report, struct bop_error *err);

/* ---- Making it usable again ---- */

enum bop_aof_repaired {
    BOP_AOF_REPAIRED_TAIL,     /* A torn tail was cut: no acknowledged record. */
    BOP_AOF_REPAIRED_HEADER,   /* Written anew. */
    BOP_AOF_REPAIRED_FOOTER,   /* Cut off: the next open makes it again. */
    BOP_AOF_REPAIRED_SEGMENT,  /* Got back from a packed file, or left to the object store. */
    BOP_AOF_REPAIRED_NAME,     /* A segment's file has its own name again. */
    BOP_AOF_REPAIRED_STRAY,    /* A file that is not of the log was put aside. */
    BOP_AOF_REPAIRED_CUT,      /* The log ends before the first record that is lost. */
    BOP_AOF_REPAIRED_PACKED,   /* A bad packed file was put aside: another tier has it. */
    BOP_AOF_REPAIRED_MANIFEST, /* A chunk was put aside. */
};

struct bop_aof_repair {
    enum bop_aof_repaired what;
    const char *file;
    const char *broken; /* The copy, or NULL if nothing of it was changed. */
    const char *text;
};

struct bop_aof_repair_options {
    struct bop_aof_admin_options log;
    struct bop_object_store *objects; /* To get segments back from, borrowed. May be NULL. */
    bool dry_run;                     /* Only tell. */
    void (*on_repair)(void *user, const struct bop_aof_repair *repair); /* May be NULL. */
    void (*on_problem)(void *user, const struct bop_aof_problem *problem);
    void *user;
};

struct bop_aof_repair_report {
    struct bop_aof_report found;
    unsigned repairs;
    unsigned chunks_lost; /* Of the manifest. */
    uint64_t last;        /* The log ends here now. */
    /* What the log had and has no longer; last below first: nothing. */
    uint64_t lost_first, lost_last;
    uint64_t lost_good; /* Of these, good ones behind damage: the .broken copies have them. */
};

/**
 * Make a log that does not open usable: what another copy has is got back from there, a header is
 * written anew from what is known of it, a footer that is bad is cut off, a tail that is torn is
 * cut. What cannot be had back ends the log: records from the first lost one on go.
 *
 * Every file that is changed is there as <name>.broken (or .broken-2 and so on) before, on disk.
 * Cut short anywhere, it can be run again. A good log is not touched. Returns 0, BOP_ELOCKED,
 * BOP_EEXISTS if there are a hundred copies of a file already, BOP_EVERSION (nothing is changed),
 * BOP_ECONDITION if the log would be cut before segments that lower tiers have, or a file's.
 */
BOP_API BOP_MUST_USE int bop_aof_repair(const struct bop_aof_repair_options *options,
                                        struct bop_aof_repair_report *out_report,
                                        struct bop_error *err);

/* ---- The manifest ---- */

struct bop_aof_chunk_info {
    const char *file;
    uint64_t index;
    uint64_t file_bytes, committed_bytes, uncommitted_bytes;
    uint64_t records, unknown_records, bad_records;
    uint32_t stored_crc, computed_crc;
    bool snapshot; /* It begins with a whole one: those before it are not needed. */
    int code;
    const char *problem;
};

struct bop_aof_manifest_event {
    uint64_t chunk;
    uint64_t offset;
    const char *kind; /* As "upload-done". */
    uint64_t generation;
    uint64_t time_ms;
    const char *key; /* NULL: none. */
};

struct bop_aof_manifest_options {
    struct bop_aof_admin_options log;
    /* May be NULL. A non-zero result ends it and is returned. */
    int (*on_chunk)(void *user, const struct bop_aof_chunk_info *chunk);
    int (*on_event)(void *user, const struct bop_aof_manifest_event *event);
    void *user;
};

struct bop_aof_manifest_report {
    unsigned chunks;
    unsigned bad_chunks;
    uint64_t records;
    unsigned segments; /* Known, */
    unsigned in_tier2; /* and of them in the object store. */
};

/**
 * Put chunks that cannot be read aside as <name>.broken and go on with the newest that can; what
 * only they said is lost, and *out_lost says how many went. Nothing is done to a manifest that
 * opens. BOP_ELOCKED if the log is open.
 */
BOP_API BOP_MUST_USE int bop_aof_manifest_repair(const struct bop_aof_admin_options *options,
                                                 unsigned *out_lost, struct bop_error *err);

/** Look at a manifest. BOP_ECORRUPT if it would not open, err says why; BOP_ENOTFOUND if the log
 * has none. */
BOP_API BOP_MUST_USE int bop_aof_manifest_check(const struct bop_aof_manifest_options *options,
                                                struct bop_aof_manifest_report *out_report,
                                                struct bop_error *err);

#endif
