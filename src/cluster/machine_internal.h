/*
 * What the files of the state machine share. machine.c keeps batches and
 * positions; machine_map.c, machine_set.c, machine_multimap.c, machine_counter.c,
 * machine_member.c and machine_registration.c run operations, with what collections have in
 * common in machine_collection.c, machine_scan.c, machine_pair.c and machine_garbage.c;
 * machine_session.c keeps sessions and machine_reply.c what their writes came to.
 *
 * Three things lie in memory beside the store:
 *
 *   sessions     all of them, by id, without their replies, but with how much they own: what is
 *                new of that goes to the store when the batch is committed;
 *   collections  id and size of the collections last used: a size goes to the
 *                store when the batch is committed, and not once an entry;
 *   chunks       replies of the sessions last heard: a chunk of 64 goes to the
 *                store when the batch is committed, and not once a reply.
 *
 * collections and chunks are caches of bounded size. When one is full, what it has that
 * the store has not is written there and all of it is forgotten. As a record's
 * content is the same whenever it is written, the store's content after a commit
 * does not depend on that, nor on where batches begin and end.
 */
#ifndef BOP_CLUSTER_MACHINE_INTERNAL_H
#define BOP_CLUSTER_MACHINE_INTERNAL_H

#include "machine.h"
#include "machine_record.h"

#define MACHINE_COLLECTIONS_CACHED_MAX 384  /* Of MACHINE_COLLECTION_SLOTS. */
#define MACHINE_COLLECTION_SLOTS       512  /* A power of two. */
#define MACHINE_CHUNKS_CACHED_MIN      16   /* Room to begin with; */
#define MACHINE_CHUNKS_CACHED_MAX      1024 /* and to grow to. */
#define MACHINE_CHUNKS_TIDY            48   /* Not worth it below. */
#define MACHINE_CHUNK_SLOTS            2048 /* A power of two, well above that. */
#define MACHINE_SESSION_SLOTS_MIN      64   /* A power of two. */
#define MACHINE_SWEEP_MAX              64 /* Entries of garbage that go with an entry of the log. */
#define MACHINE_SCRATCH_BYTES_KEPT     (256 * 1024)
#define MACHINE_SEEN_UNKNOWN           UINT64_MAX /* Not heard of since it came into memory. */
#define MACHINE_OWNED_KINDS            3

/* ---- Collections ---- */

enum collection_kind {
    COLLECTION_MAP,
    COLLECTION_SET,
    COLLECTION_MULTIMAP,
    COLLECTION_GROUP,
    COLLECTION_REGISTRY,
};
#define COLLECTION_KINDS 5

struct collection {
    enum collection_kind kind;
    struct machine_collection_record record;
    uint32_t hash;
    bool used;
    bool dirty; /* The store has another record, or none. */
    uint8_t name_size;
    uint8_t name[BOP_NAME_MAX];
};

struct collection_cache {
    struct collection *slots; /* Open addressing, linear; nothing is ever removed but all. */
    size_t count;
};

/* ---- Sessions ---- */

struct session {
    uint64_t id;      /* 0: the slot is free. */
    uint64_t seen_ms; /* When it was heard of; of one that is cut, when that was told. */
    uint64_t via;     /* The node it was heard of through; 0: not known. */
    uint32_t timeout_ms;
    uint32_t grace_ms; /* 0: none. */
    uint8_t token[BOP_TOKEN_SIZE];
    bool cut; /* The connection it was used on broke, and nothing was heard since. */
    /* What follows from the session's chunks; not known before loaded. */
    bool loaded;
    bool ending; /* The entry under way ends it: it is granted nothing any more. */
    uint64_t acked;
    uint64_t chunk_last; /* The highest chunk that has a reply; 0: perhaps none. */
    /* How many it owns of each kind, from kind 1 on: machine_owned.c. */
    uint32_t owned[MACHINE_OWNED_KINDS];
    uint8_t owned_known; /* A bit for each kind: that was read, or follows; */
    uint8_t owned_dirty; /* and the store has another number. */
};

struct session_table {
    struct session *slots; /* Open addressing, linear. */
    size_t capacity;       /* A power of two, or 0. */
    size_t count;
    uint64_t silent_ms; /* Until then none is found expired. */
};

/* ---- Replies ---- */

struct chunk_state {
    uint64_t session;
    uint64_t number;
    bool stored; /* The store has a record of it. */
    bool dirty;  /* And not this one. */
    bool dead;   /* Removed from the store; nothing looks for it any more. */
    struct machine_chunk chunk;
};

struct chunk_cache {
    struct chunk_state *chunks; /* Owned; count of capacity are in use. */
    size_t count;
    size_t capacity;
    size_t dead;     /* Of count. */
    uint16_t *index; /* MACHINE_CHUNK_SLOTS, each 0 or 1 + the chunk's place. Linear. */
};

/** What a transaction changed, so that it can be taken back: machine_undo.c. */
struct machine_undo {
    bool active;
    struct bop_buf records; /* Of what was there before each change: table, key, value. */
    uint32_t map_next;
    uint64_t garbage;
    int64_t batch_entries;
    uint64_t deadline_next;
    size_t events_size;
};

struct machine {
    struct bop_allocator *allocator;
    struct bop_kv *kv;
    struct bop_kv_table tables[MACHINE_TABLES];
    struct bop_kv_txn *txn; /* The batch under way, or NULL. */
    int failed;             /* Not 0: memory and store may differ, nothing is applied any more. */

    struct machine_position position; /* The batch included. */
    uint32_t map_next;                /* Id of the next collection, of whatever kind. */
    bool map_next_dirty;
    struct bop_buf conf;

    struct session_table sessions;
    struct bop_buf owned_dirty; /* Ids, u64 each, of the sessions with numbers to be stored. */
    struct collection_cache collections;
    struct chunk_cache chunks;
    struct machine_undo undo;
    struct machine_past *past; /* Being walked, and told before what changes; or NULL. */
    struct bop_buf results;    /* Of the operations of a transaction. */
    struct bop_buf large;      /* The result of the entry under way, if its reply says LARGE. */
    struct bop_buf *events;    /* Where to tell what changes; NULL: nobody wants to know. */
    uint64_t deadline_next;    /* No deadline is earlier. UINT64_MAX: there is none. */
    uint32_t level;            /* What the cluster agreed to speak of. */
    struct {                   /* The entry under way. */
        uint64_t index;
        uint64_t session; /* Of a write; 0: none. It is open. */
    } entry;
    struct bop_buf scratch; /* A record to be written. */
    struct bop_buf pair;    /* The key of its entry, if it is of a multimap. */
    uint64_t garbage;       /* Collections of which something is left over. */
    uint64_t large_results; /* Records in the table of results. */
    bool lock_id_known;     /* Set when the first lock takes an id: */
    uint32_t lock_id_max;   /* No request there is lies under one above it. */

    uint64_t batch_applied; /* Entries of the batch under way. */
    uint64_t batch_replays;
    int64_t batch_entries; /* By how many the collections grew. */
    uint64_t entries;      /* Of all collections, as of the last commit. */
    struct bop_metric *metric_applied;
    struct bop_metric *metric_replays;
    struct bop_metric *metric_sessions;
    struct bop_metric *metric_entries;
};

struct machine_view {
    struct bop_allocator *allocator;
    struct bop_kv_txn *txn;
    struct bop_kv_table tables[MACHINE_TABLES];
    struct machine_position position;
};

/* ---- Operations: what a write came to ---- */

static inline void machine_reply_set(struct machine_reply *reply, enum bop_status status)
{
    reply->status = (uint8_t)status;
    reply->size = 0;
}

/** A result of any size: append it to machine->large, which is empty, and say so. */
static inline void machine_reply_large(struct machine_reply *reply)
{
    reply->size = MACHINE_RESULT_LARGE;
}

static inline void machine_reply_add_u8(struct machine_reply *reply, uint8_t value)
{
    reply->result[reply->size++] = value;
}

static inline void machine_reply_add_u64(struct machine_reply *reply, uint64_t value)
{
    bop_store_u64(reply->result + reply->size, value);
    reply->size = (uint8_t)(reply->size + 8);
}

/** Run a write. 0, with *out_reply set, or a code that ends the batch. */
BOP_MUST_USE int bop__machine_map_write(struct machine *machine, uint64_t index,
                                        const struct bop_operation *operation,
                                        struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_set_write(struct machine *machine, uint64_t index,
                                        const struct bop_operation *operation,
                                        struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_multimap_write(struct machine *machine, uint64_t index,
                                             const struct bop_operation *operation,
                                             struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_counter_write(struct machine *machine, uint64_t index,
                                            const struct bop_operation *operation,
                                            struct machine_reply *out_reply);

/** Run a read. A bop_status, or a negative code. */
BOP_MUST_USE int bop__machine_map_read(struct machine_view *view,
                                       const struct bop_operation *operation, struct bop_buf *out);
BOP_MUST_USE int bop__machine_set_read(struct machine_view *view,
                                       const struct bop_operation *operation, struct bop_buf *out);
BOP_MUST_USE int bop__machine_multimap_read(struct machine_view *view,
                                            const struct bop_operation *operation,
                                            struct bop_buf *out);
BOP_MUST_USE int bop__machine_counter_read(struct machine_view *view,
                                           const struct bop_operation *operation,
                                           struct bop_buf *out);

/** The same of kinds that later levels brought. */
BOP_MUST_USE int bop__machine_lock_write(struct machine *machine,
                                         const struct bop_operation *operation,
                                         struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_member_write(struct machine *machine,
                                           const struct bop_operation *operation,
                                           struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_registration_write(struct machine *machine,
                                                 const struct bop_operation *operation,
                                                 struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_transaction_write(struct machine *machine,
                                                const struct bop_operation *operation,
                                                struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_lock_read(struct machine_view *view,
                                        const struct bop_operation *operation, struct bop_buf *out);
BOP_MUST_USE int bop__machine_member_read(struct machine_view *view,
                                          const struct bop_operation *operation,
                                          struct bop_buf *out);
BOP_MUST_USE int bop__machine_registration_read(struct machine_view *view,
                                                const struct bop_operation *operation,
                                                struct bop_buf *out);
BOP_MUST_USE int bop__machine_names_read(struct machine_view *view,
                                         const struct bop_operation *operation,
                                         struct bop_buf *out);

/** Is a lock granted with this token? machine_lock.c. */
BOP_MUST_USE int bop__machine_lock_granted(struct machine_view *view, struct bop_slice name,
                                           uint64_t token, bool *out_granted);
/** Does a compare hold? scratch is cleared first. 0 or a code. */
BOP_MUST_USE int bop__machine_compare(struct machine_view *view, const struct bop_compare *compare,
                                      struct bop_buf *scratch, bool *out_holds);

/* ---- Changing the store: all of it goes through these, so that it can be taken back, and a past
 * that is being walked knows ---- */

BOP_MUST_USE int bop__machine_put(struct machine *machine, enum machine_table table,
                                  struct bop_slice key, struct bop_slice value);
/** Put what is not there: one search instead of two. 0, BOP_EEXISTS with what is there, borrowed
 * until the next change, or another code. */
BOP_MUST_USE int bop__machine_insert(struct machine *machine, enum machine_table table,
                                     struct bop_slice key, struct bop_slice value,
                                     struct bop_slice *out_existing);
/** 0, BOP_ENOTFOUND or another code. */
BOP_MUST_USE int bop__machine_del(struct machine *machine, enum machine_table table,
                                  struct bop_slice key);
/** Delete what a cursor of this table stands at. */
BOP_MUST_USE int bop__machine_cursor_del(struct machine *machine, enum machine_table table,
                                         struct bop_kv_cursor *cursor, struct bop_slice key,
                                         struct bop_slice value);

/** The same of what no transaction takes back. */
BOP_MUST_USE int bop__machine_put_lasting(struct machine *machine, enum machine_table table,
                                          struct bop_slice key, struct bop_slice value);
BOP_MUST_USE int bop__machine_del_lasting(struct machine *machine, enum machine_table table,
                                          struct bop_slice key);
BOP_MUST_USE int bop__machine_cursor_del_lasting(struct machine *machine, enum machine_table table,
                                                 struct bop_kv_cursor *cursor, struct bop_slice key,
                                                 struct bop_slice value);

/** From here on all that changes can be taken back... */
BOP_MUST_USE int bop__machine_undo_begin(struct machine *machine);
/** ...and is not, */
void bop__machine_undo_drop(struct machine *machine);
/** ...or is. */
BOP_MUST_USE int bop__machine_undo_run(struct machine *machine);

/** Tell of a change, if anybody wants to know. 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__machine_event(struct machine *machine, const struct bop_event *event);

/* ---- What sessions own: it ends with them, in the order of kinds, ids and numbers ---- */

enum machine_owned_kind {
    OWNED_REGISTRATION = 1, /* id of the registry, its sequence -> registry s, address b */
    OWNED_LOCK_REQUEST = 2, /* id of the lock, ticket -> empty */
    OWNED_MEMBER = 3,       /* id of the group, its number -> empty */
};
#define MACHINE_OWNED_KEY         21
#define MACHINE_SESSION_OWNED_MAX 131072 /* Of each kind: all of it ends with one entry. */

struct machine_owned {
    uint64_t session;
    enum machine_owned_kind kind;
    uint32_t id;
    uint64_t number;
};
BOP_MUST_USE int bop__machine_owned_put(struct machine *machine, const struct machine_owned *owned,
                                        struct bop_slice value);
/** As bop__machine_insert(). */
BOP_MUST_USE int bop__machine_owned_insert(struct machine *machine,
                                           const struct machine_owned *owned,
                                           struct bop_slice value, struct bop_slice *out_existing);
/** 0, BOP_ENOTFOUND or another code. */
BOP_MUST_USE int bop__machine_owned_del(struct machine *machine, const struct machine_owned *owned);
/** The value, borrowed until the next change. 0, BOP_ENOTFOUND or another code. */
BOP_MUST_USE int bop__machine_owned_get(struct machine *machine, const struct machine_owned *owned,
                                        struct bop_slice *out_value);
/** Whether the session has as many of a kind as it may have. */
BOP_MUST_USE int bop__machine_owned_full(struct machine *machine, uint64_t session,
                                         enum machine_owned_kind kind, bool *out_full);
/** Count one more of a kind, unless the session has as many as it may have: *out_full. */
BOP_MUST_USE int bop__machine_owned_add(struct machine *machine, uint64_t session,
                                        enum machine_owned_kind kind, bool *out_full);
/** And one less. Not for what ends with the session. */
BOP_MUST_USE int bop__machine_owned_sub(struct machine *machine, uint64_t session,
                                        enum machine_owned_kind kind);
/** Bring the numbers to the store. */
BOP_MUST_USE int bop__machine_owned_flush(struct machine *machine);
/** Forget the numbers that are not in the store: they are read from there again. */
void bop__machine_owned_forget(struct machine *machine);
/** A session ends: so does all that it owns. machine_owned.c dispatches to: */
BOP_MUST_USE int bop__machine_owned_end(struct machine *machine, uint64_t session);
BOP_MUST_USE int bop__machine_lock_end(struct machine *machine, const struct machine_owned *owned);
BOP_MUST_USE int bop__machine_member_end(struct machine *machine,
                                         const struct machine_owned *owned);
/** Do records of these make sense by themselves? */
BOP_MUST_USE int bop__machine_member_check(struct bop_slice key, struct bop_slice value);
BOP_MUST_USE int bop__machine_member_name_check(struct bop_slice key, struct bop_slice value);
BOP_MUST_USE int bop__machine_registration_owned_check(struct bop_slice value);
/** value is a copy. */
BOP_MUST_USE int bop__machine_registration_end(struct machine *machine,
                                               const struct machine_owned *owned,
                                               struct bop_slice value);

/* ---- Deadlines: what goes by the cluster's time, which is that of entries ---- */

enum machine_deadline_kind {
    DEADLINE_ENTRY = 1, /* id of the map, the entry's version -> name of the map s, its key b */
    DEADLINE_LOCK = 2,  /* id of the lock, ticket -> empty */
};
#define MACHINE_DEADLINE_KEY_MIN 21
#define MACHINE_DEADLINE_KEY_SHORT                                                                 \
    100 /* Bytes of an entry's key that are put behind it as they are; */
#define MACHINE_DEADLINE_KEY_LONG 101 /* of a longer one so many, the last 32 its digest. */
#define MACHINE_DEADLINE_KEY_MAX  (MACHINE_DEADLINE_KEY_MIN + MACHINE_DEADLINE_KEY_LONG)
#define MACHINE_TIMERS_MAX        1024 /* That go with one entry of the log. */

struct machine_deadline {
    uint64_t time_ms;
    enum machine_deadline_kind kind;
    uint32_t id;
    uint64_t number;
    struct bop_slice key; /* ENTRY: its own, for several may have the same version. */
};
BOP_MUST_USE int bop__machine_deadline_put(struct machine *machine,
                                           const struct machine_deadline *deadline,
                                           struct bop_slice value);
/** 0, BOP_ENOTFOUND or another code. */
BOP_MUST_USE int bop__machine_deadline_del(struct machine *machine,
                                           const struct machine_deadline *deadline);
/** A TIMERS entry: all that is due by the machine's time, up to MACHINE_TIMERS_MAX of them.
 * machine_deadline.c dispatches, each deadline's record being gone already, to: */
BOP_MUST_USE int bop__machine_timers(struct machine *machine, struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_entry_expire(struct machine *machine,
                                           const struct machine_deadline *deadline,
                                           struct bop_slice value);
BOP_MUST_USE int bop__machine_lock_timeout(struct machine *machine,
                                           const struct machine_deadline *deadline);
/** Find the first one in the store. */
BOP_MUST_USE int bop__machine_deadlines_load(struct machine *machine, struct bop_kv_txn *txn);

/* ---- Collections: what their kinds share ---- */

/** Bring a collection into the cache. *out_collection, borrowed until the next find or make, is
 * NULL if there is none of that kind and name. */
BOP_MUST_USE int bop__machine_collection_find(struct machine *machine, enum collection_kind kind,
                                              struct bop_slice name,
                                              struct collection **out_collection);
/** Make one that find did not find. *out_collection is NULL if there are too many. */
BOP_MUST_USE int bop__machine_collection_make(struct machine *machine, uint64_t index,
                                              enum collection_kind kind, struct bop_slice name,
                                              struct collection **out_collection);
/** The create of any kind: made just now B. */
BOP_MUST_USE int bop__machine_collection_create(struct machine *machine, uint64_t index,
                                                enum collection_kind kind, struct bop_slice name,
                                                struct machine_reply *reply);

/** Write what the cache has and the store has not. */
BOP_MUST_USE int bop__machine_collections_flush(struct machine *machine);
void bop__machine_collections_forget(struct machine *machine);

/**
 * Look for an entry. Returns 0, BOP_ENOTFOUND, or BOP_EEXISTS if another key has
 * the same prefix and digest: a collision of SHA-256, which nobody has seen yet.
 */
BOP_MUST_USE int bop__machine_entry_find(struct bop_kv_txn *txn, struct bop_kv_table table,
                                         const struct machine_key *store_key, struct bop_slice key,
                                         struct machine_entry *out_entry);
/** Put one that existed or not, and count it. */
BOP_MUST_USE int bop__machine_entry_put(struct machine *machine, struct collection *collection,
                                        const struct machine_key *store_key,
                                        const struct machine_entry *entry, bool existed);
/** Put one that is not there, and count it; else BOP_EEXISTS. */
BOP_MUST_USE int bop__machine_entry_insert(struct machine *machine, struct collection *collection,
                                           const struct machine_key *store_key,
                                           const struct machine_entry *entry);
/** Delete one that is there. */
BOP_MUST_USE int bop__machine_entry_delete(struct machine *machine, struct collection *collection,
                                           const struct machine_key *store_key);

/** Delete up to max entries of an id whose store keys go on with prefix; *out_removed is how many
 * there were. The collection's own count is the caller's. */
BOP_MUST_USE int bop__machine_entries_remove(struct machine *machine, uint32_t id,
                                             struct bop_slice prefix, uint64_t max,
                                             uint64_t *out_removed);

/** The clear of any kind: how many there were q. */
BOP_MUST_USE int bop__machine_collection_clear(struct machine *machine, enum collection_kind kind,
                                               struct bop_slice name, struct machine_reply *reply);
/** Remove a little of what clears left over; there is some. */
BOP_MUST_USE int bop__machine_garbage_sweep(struct machine *machine);

/** 0, BOP_ENOTFOUND if there is no such collection, or another code. */
BOP_MUST_USE int bop__machine_view_collection(struct machine_view *view, enum collection_kind kind,
                                              struct bop_slice name,
                                              struct machine_collection_record *out_record);
/** The size and the scan of any kind. A bop_status, or a negative code. */
BOP_MUST_USE int bop__machine_collection_size(struct machine_view *view, enum collection_kind kind,
                                              struct bop_slice name, struct bop_buf *out);
BOP_MUST_USE int bop__machine_collection_scan(struct machine_view *view, enum collection_kind kind,
                                              const struct bop_operation *operation,
                                              struct bop_buf *out);

static inline bool machine_begins_with(struct bop_slice bytes, struct bop_slice prefix)
{
    return bytes.size >= prefix.size &&
           (prefix.size == 0 || memcmp(bytes.data, prefix.data, prefix.size) == 0);
}

/** The scan of what of a map lies in a range. */
BOP_MUST_USE int bop__machine_range_scan(struct machine_view *view,
                                         const struct bop_operation *operation,
                                         struct bop_buf *out);

/** A walk over the entries of one id, in store order. Begin, then seek, then next until it is not
 * 0; what it is at is borrowed until it moves. */
struct machine_walk {
    struct bop_kv_cursor *cursor;
    uint8_t id[MACHINE_MAP_ID_SIZE];
    struct bop_slice store_key; /* What the cursor is at... */
    struct bop_slice store_value;
    struct bop_slice key;       /* ...the key of it without the id, */
    struct machine_entry entry; /* and taken apart. */
};
BOP_MUST_USE int bop__machine_walk_begin(struct machine_walk *walk, struct bop_kv_txn *txn,
                                         struct bop_kv_table table, uint32_t id);
/** To the first store key at `from` or above, or only above. 0 or BOP_ENOTFOUND. */
BOP_MUST_USE int bop__machine_walk_seek(struct machine_walk *walk, struct bop_slice from,
                                        bool after);
BOP_MUST_USE int bop__machine_walk_next(struct machine_walk *walk);
void bop__machine_walk_end(struct machine_walk *walk);

/** A page of a scan while it is being filled. */
struct machine_page {
    struct bop_buf *out;
    size_t begin; /* Where entries begin in out. */
    uint32_t limit;
    uint32_t count;
    bool more;
    bool again;            /* There was a cursor: */
    struct bop_slice from; /* go on behind this store key, without the id. */
    size_t last_size;      /* Where the next page goes on. */
    uint8_t last[BOP_KV_KEY_MAX - MACHINE_MAP_ID_SIZE];
};
/** 0, BOP_STATUS_BAD_REQUEST for a cursor that is none, or a code. */
BOP_MUST_USE int bop__machine_page_begin(struct machine_page *page,
                                         const struct bop_operation *operation,
                                         struct bop_buf *out);
/** Append an entry, behind which a page would go on at `at`. 1: the page was full before. */
BOP_MUST_USE int bop__machine_page_add(struct machine_page *page, struct bop_slice at,
                                       const struct machine_entry *entry);
/** BOP_STATUS_OK or a code. */
BOP_MUST_USE int bop__machine_page_end(struct machine_page *page, uint64_t revision);

/* ---- Sessions ---- */

/** Borrowed until a session is added or removed. */
struct session *bop__machine_session_find(const struct machine *machine, uint64_t id);

/** Fill the table from the store, in txn; what was seen of a session stays known. */
BOP_MUST_USE int bop__machine_sessions_load(struct machine *machine, struct bop_kv_txn *txn);

/** Run the commands of sessions; out_result is filled in. 0, or a code that ends the batch. */
BOP_MUST_USE int bop__machine_session_write(struct machine *machine, uint64_t index,
                                            const struct command *command,
                                            struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_session_open(struct machine *machine, uint64_t index,
                                           const struct command *command,
                                           struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_session_close(struct machine *machine, const struct command *command,
                                            struct machine_reply *out_reply);
BOP_MUST_USE int bop__machine_sessions_expire(struct machine *machine,
                                              const struct command *command,
                                              struct machine_reply *out_reply);
/** Run the operation of a WRITE, without a look at its session. */
BOP_MUST_USE int bop__machine_execute(struct machine *machine, uint64_t index,
                                      struct bop_slice operation, struct machine_reply *out_reply);

/* ---- Replies ---- */

/** Find out what is known of a session from its chunks, if that was not done. */
BOP_MUST_USE int bop__machine_replies_load(struct machine *machine, struct session *session);

/** The chunk of a sequence, empty if there is none. Borrowed until the next call. */
BOP_MUST_USE int bop__machine_replies_chunk(struct machine *machine, const struct session *session,
                                            uint64_t sequence, struct chunk_state **out_chunk);

/** Remove the chunks from first up to but without end. */
BOP_MUST_USE int bop__machine_replies_remove(struct machine *machine, const struct session *session,
                                             uint64_t first, uint64_t end);

/** Keep machine->large as the result of a write of a session, and bring it back. */
BOP_MUST_USE int bop__machine_large_put(struct machine *machine, uint64_t session,
                                        uint64_t sequence);
BOP_MUST_USE int bop__machine_large_get(struct machine *machine, uint64_t session,
                                        uint64_t sequence);
BOP_MUST_USE int bop__machine_replies_flush(struct machine *machine);
void bop__machine_replies_forget(struct machine *machine);
/** After a commit: forget all if most are dead, so that a few sessions stay within a few chunks. */
void bop__machine_replies_tidy(struct machine *machine);

/* ---- The store, for snapshots ---- */

/** Open or make all tables, those too that an older format has not. */
BOP_MUST_USE int bop__machine_tables_open(struct bop_kv_txn *txn,
                                          struct bop_kv_table tables[MACHINE_TABLES]);

/** Chain a record to a digest of content. */
uint64_t bop__machine_record_digest(uint64_t digest, enum machine_table table, struct bop_slice key,
                                    struct bop_slice value);

typedef int machine_walk_fn(void *user, enum machine_table table, struct bop_slice key,
                            struct bop_slice value);
/** Call fn for each record, in the order of tables and keys, until it returns another than 0. */
BOP_MUST_USE int bop__machine_walk(struct machine_view *view, machine_walk_fn *fn, void *user);

#endif
