/*
 * Administration of a cluster over the wire: who its servers are, changes of that,
 * handing leadership over, parameters of a node while it runs. Kinds 160 to 167;
 * any node takes them and asks the leader where only that one can answer.
 *
 * Every response begins with a code and a sentence for people. The sentence says
 * what was done, or why not and the way out.
 */
#ifndef BOP_CLUSTER_ADMIN_H
#define BOP_CLUSTER_ADMIN_H

#include <bop/raft.h>
#include <bop/slice.h>
#include <bop/wire.h>

#define BOP_ADMIN_TEXT_MAX     1024 /* Bytes of a sentence. */
#define BOP_ADMIN_PARAMS_MAX   64
#define BOP_ADMIN_PRIORITY_MAX 100
#define BOP_ADMIN_PRIORITY     1 /* Of a server that was given none. */

/** What became of a request. */
enum bop_admin_code {
    BOP_ADMIN_OK = 0,
    BOP_ADMIN_NO_LEADER = 1,    /* Nobody leads, or the leader cannot be reached: ask again. */
    BOP_ADMIN_BUSY = 2,         /* Another change is under way: ask again. */
    BOP_ADMIN_MOVING = 3,       /* The leader hands over first, for it is the one to change: ask
                                   again. */
    BOP_ADMIN_LAGS = 4,         /* The server is not up to date enough: ask again later. */
    BOP_ADMIN_NO_QUORUM = 5,    /* Of the voters that would be left too few are alive. */
    BOP_ADMIN_UNKNOWN_NODE = 6, /* The cluster has no server of this id. */
    BOP_ADMIN_EXISTS = 7,       /* The id or the address is in use. */
    BOP_ADMIN_TOO_MANY = 8,     /* Servers. */
    BOP_ADMIN_BAD_REQUEST = 9,
    BOP_ADMIN_UNCERTAIN = 10, /* Leadership was lost meanwhile: look, then ask again. */
    BOP_ADMIN_REFUSED = 11,   /* Not this one, not now; the sentence says why. */
};

/** "ok", "no leader", ... Never NULL. */
BOP_API const char *bop_admin_code_text(uint8_t code);

/** True for an answer after which the same request may succeed without anybody's doing. */
static inline bool bop_admin_code_is_passing(uint8_t code)
{
    return code >= BOP_ADMIN_NO_LEADER && code <= BOP_ADMIN_LAGS;
}

/** A server as the leader sees it. */
struct bop_admin_server {
    uint64_t id;
    struct bop_slice address; /* s */
    uint8_t role;             /* enum bop_raft_role. */
    bool learner;             /* Is not made a voter by itself. */
    uint32_t priority;        /* 0: should not lead. The highest one leads if it is up to date. */
    uint64_t incarnation;     /* Of its data directory; 0: not recorded yet. */
    bool connected;
    uint64_t match;     /* The last entry known to be durable there. */
    uint64_t silent_ms; /* Since something came from it; UINT64_MAX: never. */
    uint32_t level;     /* The highest feature level it can do; 0: it did not say. */
};

struct bop_admin_members { /* 161; 160 has no payload */
    uint8_t code;
    struct bop_slice text; /* s */
    uint64_t leader;       /* Who answers. */
    uint64_t term;
    uint64_t commit;
    uint64_t configuration_index; /* The entry of the last committed configuration. */
    bool changing;                /* The list below is not committed yet. */
    uint8_t count;
    struct bop_admin_server servers[BOP_RAFT_SERVERS_MAX];
};

enum bop_admin_action {
    BOP_ADMIN_ADD = 1,     /* As a server without a vote; address is where it listens. */
    BOP_ADMIN_PROMOTE = 2, /* Give it a vote. */
    BOP_ADMIN_DEMOTE = 3,  /* Take its vote; it goes on getting the log. */
    BOP_ADMIN_REMOVE = 4,  /* For good: its data directory is not taken back. */
    BOP_ADMIN_PRIORITY_SET = 5,
};

enum bop_admin_flags {
    BOP_ADMIN_PLAN = 1,  /* Say what it would do, and do nothing. */
    BOP_ADMIN_VOTER = 2, /* ADD: make it a voter once it is up to date. */
};

struct bop_admin_change_request { /* 162 */
    uint8_t action;
    uint8_t flags;
    uint64_t node;
    uint32_t priority;        /* ADD, PRIORITY_SET. */
    struct bop_slice address; /* s: ADD; else empty. */
};

/** What a configuration withstands. */
struct bop_admin_strength {
    uint8_t voters;
    uint8_t quorum; /* Voters that must be alive. */
    uint8_t alive;  /* Voters that are. */
};

struct bop_admin_change_response { /* 163 */
    uint8_t code;
    struct bop_slice text; /* s */
    struct bop_admin_strength before;
    struct bop_admin_strength after;
    uint64_t index; /* The entry of the change; 0: there is none. */
};

struct bop_admin_transfer_request { /* 164 */
    uint64_t node;                  /* 0: to the voter that is furthest. */
};
struct bop_admin_transfer_response { /* 165 */
    uint8_t code;
    struct bop_slice text; /* s */
    uint64_t leader;       /* Now. */
};

/** A parameter of the node that is asked, never of the others. */
struct bop_admin_param {
    struct bop_slice name;  /* s */
    struct bop_slice value; /* s: decimal, or "true", "false". */
    bool live;              /* Responses: it can be set while the node runs. */
    struct bop_slice about; /* s; responses. */
};
struct bop_admin_params { /* 166: to be set, none to read only; 167: all there are */
    uint8_t code;         /* Responses, as the next. All are set, or none. */
    struct bop_slice text;
    uint64_t node;
    uint8_t count;
    struct bop_admin_param params[BOP_ADMIN_PARAMS_MAX];
};

/* Each decoder wants the whole payload and leaves no byte unread; BOP_EMALFORMED otherwise. */
BOP_API BOP_MUST_USE int bop_admin_members_decode(struct bop_slice payload,
                                                  struct bop_admin_members *out);
BOP_API void bop_admin_members_encode(struct bop_writer *writer,
                                      const struct bop_admin_members *in);
BOP_API BOP_MUST_USE int bop_admin_change_request_decode(struct bop_slice payload,
                                                         struct bop_admin_change_request *out);
BOP_API void bop_admin_change_request_encode(struct bop_writer *writer,
                                             const struct bop_admin_change_request *in);
BOP_API BOP_MUST_USE int bop_admin_change_response_decode(struct bop_slice payload,
                                                          struct bop_admin_change_response *out);
BOP_API void bop_admin_change_response_encode(struct bop_writer *writer,
                                              const struct bop_admin_change_response *in);
BOP_API BOP_MUST_USE int bop_admin_transfer_request_decode(struct bop_slice payload,
                                                           struct bop_admin_transfer_request *out);
BOP_API void bop_admin_transfer_request_encode(struct bop_writer *writer,
                                               const struct bop_admin_transfer_request *in);
BOP_API BOP_MUST_USE int
bop_admin_transfer_response_decode(struct bop_slice payload,
                                   struct bop_admin_transfer_response *out);
BOP_API void bop_admin_transfer_response_encode(struct bop_writer *writer,
                                                const struct bop_admin_transfer_response *in);
BOP_API BOP_MUST_USE int bop_admin_params_request_decode(struct bop_slice payload,
                                                         struct bop_admin_params *out);
BOP_API void bop_admin_params_request_encode(struct bop_writer *writer,
                                             const struct bop_admin_params *in);
BOP_API BOP_MUST_USE int bop_admin_params_response_decode(struct bop_slice payload,
                                                          struct bop_admin_params *out);
BOP_API void bop_admin_params_response_encode(struct bop_writer *writer,
                                              const struct bop_admin_params *in);

/* ---- Offline ---- */

struct bop_repair_options {
    struct bop_allocator *allocator; /* Borrowed. Default: the process's. */
    struct bop_log *log;             /* Borrowed. Default: none. */
    const char *data;                /* The data directory of a node that is stopped. */
    bool dry_run;                    /* Only look. */
};

/** What was found, and done unless it was a dry run. */
struct bop_repair_report {
    uint64_t node;
    char cluster[256];
    uint64_t term;           /* As found. */
    uint64_t snapshot_index; /* 0: no snapshot. */
    uint64_t first_index;    /* Of the log. */
    uint64_t last_index;
    uint64_t conf_index; /* The entry that the configuration came from; 0: a snapshot. */
    struct bop_raft_configuration before;
    uint64_t new_term;
    uint64_t new_index; /* The entry that makes it the only voter. */
    char backup[4096];  /* Where what was changed lies as it was. */
};

/**
 * After a majority was lost for good: make one surviving node the only server of its
 * cluster, with all that its log holds. What only the lost ones had is lost, and none
 * of them must ever come back. Returns 0; BOP_ELOCKED while the node runs, BOP_ECORRUPT,
 * BOP_EVERSION, -errno. Nothing is changed unless 0 is returned, but for the backup.
 */
BOP_API BOP_MUST_USE int bop_repair(const struct bop_repair_options *options,
                                    struct bop_repair_report *out_report, struct bop_error *err);

#endif
