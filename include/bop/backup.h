/*
 * Backups: one revision of all that a cluster holds, in the snapshot file's own
 * format (docs/design/snapshot.md), taken from a running node over the wire and made
 * into the first node of a new cluster.
 *
 * Kinds 170 to 173, for administrators. A node cuts a backup into a file of its own
 * while writes go on; the client asks for one piece of it after the other, as fast as
 * it likes, and may go on where it stopped over another connection. The file lasts
 * until it is dropped, nobody has asked for it for BOP_BACKUP_KEEP_MS, or the node
 * stops.
 */
#ifndef BOP_BACKUP_H
#define BOP_BACKUP_H

#include <bop/fs.h>
#include <bop/raft.h>
#include <bop/slice.h>
#include <bop/wire.h>

#define BOP_BACKUP_TEXT_MAX  1024         /* Bytes of a sentence. */
#define BOP_BACKUP_PIECE_MAX (256 * 1024) /* Bytes of a piece. */
#define BOP_BACKUP_KEEP_MS   600000

enum bop_backup_action {
    BOP_BACKUP_CUT = 1,       /* A new one, with all that was acknowledged before. */
    BOP_BACKUP_CUT_STALE = 2, /* A new one of what this node has, whoever leads. */
    BOP_BACKUP_LOOK = 3,      /* How is this one? */
    BOP_BACKUP_DROP = 4,      /* This one is not needed any more. */
};

/** What became of a request. */
enum bop_backup_code {
    BOP_BACKUP_OK = 0,
    BOP_BACKUP_CUTTING = 1,     /* It is being written: look again. */
    BOP_BACKUP_NOT_NOW = 2,     /* Nobody leads, or the node loads a snapshot: ask again. */
    BOP_BACKUP_BUSY = 3,        /* The node has as many as it takes. */
    BOP_BACKUP_UNKNOWN = 4,     /* The node has none of this id (any more). */
    BOP_BACKUP_FAILED = 5,      /* It could not be written or read; the sentence says why. */
    BOP_BACKUP_LATER = 6,       /* Of a piece: the node sends no more than it may. */
    BOP_BACKUP_BAD_REQUEST = 7, /* An offset behind the end. */
};

/** "ok", "being written", ... Never NULL. */
BOP_API const char *bop_backup_code_text(uint8_t code);

struct bop_backup_request { /* 170 */
    uint8_t action;
    uint64_t backup; /* 0 of a new one. */
};
struct bop_backup_response { /* 171 */
    uint8_t code;
    struct bop_slice text; /* s */
    uint64_t backup;       /* Its id, of this node. */
    uint64_t node;
    /* Once it is cut; zeros before. */
    uint64_t bytes;
    uint64_t index; /* The last entry in it. */
    uint64_t term;
};
struct bop_backup_read_request { /* 172 */
    uint64_t backup;
    uint64_t offset;
    uint32_t size; /* At most; no more than BOP_BACKUP_PIECE_MAX come. */
};
struct bop_backup_read_response { /* 173 */
    uint8_t code;
    uint32_t wait_ms; /* LATER: ask again then. */
    uint64_t offset;
    struct bop_slice bytes; /* The rest of the payload; none at the end of the file. */
};

/* Each decoder wants the whole payload and leaves no byte unread; BOP_EMALFORMED otherwise. */
BOP_API BOP_MUST_USE int bop_backup_request_decode(struct bop_slice payload,
                                                   struct bop_backup_request *out);
BOP_API void bop_backup_request_encode(struct bop_writer *writer,
                                       const struct bop_backup_request *in);
BOP_API BOP_MUST_USE int bop_backup_response_decode(struct bop_slice payload,
                                                    struct bop_backup_response *out);
BOP_API void bop_backup_response_encode(struct bop_writer *writer,
                                        const struct bop_backup_response *in);
BOP_API BOP_MUST_USE int bop_backup_read_request_decode(struct bop_slice payload,
                                                        struct bop_backup_read_request *out);
BOP_API void bop_backup_read_request_encode(struct bop_writer *writer,
                                            const struct bop_backup_read_request *in);
BOP_API BOP_MUST_USE int bop_backup_read_response_decode(struct bop_slice payload,
                                                         struct bop_backup_read_response *out);
BOP_API void bop_backup_read_response_encode(struct bop_writer *writer,
                                             const struct bop_backup_read_response *in);

/* ---- Files, without a cluster ---- */

/** What a backup file says of itself. */
struct bop_backup_info {
    uint32_t format; /* Of the state in it. */
    uint64_t index;  /* The last entry in it. */
    uint64_t term;
    uint64_t bytes;
    uint64_t entries;                            /* Records. */
    uint64_t time_ms;                            /* The cluster's, as of that entry. */
    struct bop_raft_configuration configuration; /* Of the cluster it is from. */
};

/**
 * Read a whole file and check every byte and record of it. Returns 0; BOP_ECORRUPT,
 * BOP_ETRUNCATED or BOP_EVERSION, with the place in err; or -errno.
 */
BOP_API BOP_MUST_USE int bop_backup_check(const char *path, struct bop_backup_info *out_info,
                                          struct bop_error *err);

struct bop_restore_options {
    struct bop_allocator *allocator; /* Borrowed. Default: the process's. */
    struct bop_fs *fs;               /* Borrowed. Default: the system's. */
    const char *file;
    const char *data;         /* The directory to be made; missing, or empty. */
    const char *cluster;      /* The name of the new cluster. */
    uint64_t node;            /* The number of this node. */
    uint64_t state_bytes_max; /* As of the node that will use it; 0: the default. */
    /* The voters of the new cluster, this node among them. Of several, each is made from
     * the same file with the same list. Addresses are "host:port". */
    const struct bop_raft_configuration *servers;
};

/**
 * Make a backup into the data directory of a node of a new cluster, which a bopd can
 * start with. The file is checked whole before anything is made. Returns 0; as
 * bop_backup_check(); BOP_EEXISTS if the directory is not empty; BOP_EINVAL; or -errno. A
 * directory that was not finished is refused by bopd: remove it.
 */
BOP_API BOP_MUST_USE int bop_restore(const struct bop_restore_options *options,
                                     struct bop_backup_info *out_info, struct bop_error *err);

#endif
