/*
 * The client of a cluster: maps, sets, multimaps and counters from any program.
 *
 *     static void stored(void *user, int code, const struct bop_result *result) { ... }
 *
 *     const char *endpoints[] = {"10.0.0.1:4000", "10.0.0.2:4000"};
 *     struct bop_client_options options = {
 *         .loop = loop, .endpoints = endpoints, .endpoint_count = 2};
 *
 *     rc = bop_client_create(&options, &client, &err);
 *     rc = bop_client_map_put(client, bop_slice_cstr("m"), key, value, NULL, stored, user);
 *
 * What it does by itself: it finds the leader and follows it, and learns of the other
 * servers from the one that it is connected to, so that one address is enough where
 * clients reach servers by the addresses by which these reach each other; after a lost
 * connection, or when nobody leads for a while, it sends what is unanswered
 * again; its writes run in a session, so that one which is sent twice is done
 * once and has one result. The caller hears of each request exactly once.
 *
 * What it cannot hide: BOP_ETIMEOUT, when no answer came in time; BOP_ESESSION,
 * when the client was cut off for longer than its session lasts; and
 * BOP_EUNCERTAIN, when a write was sent without an answer, and denied when it was
 * sent again (bop_client_info() has why). Of a write that ends in one of these
 * three it is not known whether it was or will be done. (Nor is it after
 * BOP_ECANCELED and BOP_EPROTOCOL.) Any other code says that nothing was changed.
 *
 * Requests under way at the same time are sent, and so far as nothing is sent again
 * also done, in the order in which they were asked for, writes among themselves and
 * reads among themselves. To be sure of an order, wait for the first one's callback.
 *
 * Threads: bop_client is for the thread of its loop only. bop_client_blocking
 * has a loop and a thread of its own and may be called from any thread.
 */
#ifndef BOP_CLIENT_H
#define BOP_CLIENT_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>
#include <bop/log.h>
#include <bop/loop.h>
#include <bop/slice.h>
#include <bop/transaction.h>
#include <bop/wire.h>

#define BOP_CLIENT_ENDPOINTS_MAX   64
#define BOP_CLIENT_OUTSTANDING_MAX 16384      /* Upper bound of the option. */
#define BOP_CLIENT_NO_TIMEOUT      UINT64_MAX /* As request_timeout_ms. */

struct bop_client;
struct bop_tls; /* bop/tls.h */

/** TLS of a client. Files are PEM; texts are copied. All NULL: the system's CAs are trusted. */
struct bop_client_tls {
    const char *ca;          /* Who vouches for the servers. */
    const char *certificate; /* The client's own, where servers want one; and its key. */
    const char *key;
    const char *server_name; /* In the servers' certificates. Default: each endpoint's host. */
    /* Instead of the files: made for clients (bop_tls_create()), borrowed while the loop lives. Its
     * owner may reload it. */
    struct bop_tls *shared;
};

/** How to build a client. A zeroed field means its default. */
struct bop_client_options {
    struct bop_allocator *allocator; /* Borrowed while the loop lives. Default: the process's. */
    struct bop_loop *loop;        /* Borrowed until destroy. Required; not used by blocking ones. */
    struct bop_log *log;          /* Borrowed until destroy. Default: none. */
    const char *const *endpoints; /* "host:port", "[::1]:port"; copied. Required. */
    size_t endpoint_count;        /* 1 to BOP_CLIENT_ENDPOINTS_MAX. */
    const char *cluster;          /* Refuse servers of any other; copied. Default: any. */
    const char *name;             /* For people, in the servers' logs; copied. Default: "client". */
    uint32_t session_timeout_ms;  /* Default 10,000. */
    /* When the connection breaks and no other one is made within this time, the session ends, and
     * not only after its timeout: so what a program that died held is free soon. 0: after the
     * timeout. (A cluster some of whose servers are of an older version takes no notice.) */
    uint32_t session_grace_ms;
    /* The session is lost, and with it all that it owned: members, registrations, locks. Called
     * once all its writes have ended with BOP_ESESSION; may ask for more. The next write opens
     * another one. NULL: nobody wants to know. */
    void (*on_session_lost)(void *user);
    void *user;                  /* Of on_session_lost. */
    uint64_t request_timeout_ms; /* From asking to giving up. Default 30,000. */
    uint64_t connect_timeout_ms; /* Default 2,000. */
    uint64_t
        silence_timeout_ms;   /* A server that says nothing for so long is left. Default 2,000. */
    unsigned outstanding_max; /* Requests under way; more are BOP_EFULL. Default 4,096. */
    size_t outstanding_bytes_max; /* Of their operations, likewise. Default 64 MiB. */
    /* Stay with the endpoints as given, whoever leads and whatever servers there are besides: for
     * reads at followers. */
    bool pin;
    const struct bop_client_tls *tls; /* Copied. Default: none, all is sent in the clear. */
    const char *token;                /* Shown to every server; copied. Default: none. */
    /* Fills with bytes nobody can guess; returns 0 or a code. Default: bop_random_secret(). */
    int (*secret)(void *out_bytes, size_t size);
};

/**
 * Make a client and begin to connect. On success *out_client is the caller's.
 * Servers need not be there yet: requests wait for them.
 *
 * Returns 0, BOP_EINVAL for an endpoint or option that makes no sense (err says which),
 * BOP_ENOMEM or another code.
 */
BOP_API BOP_MUST_USE int bop_client_create(const struct bop_client_options *options,
                                           struct bop_client **out_client, struct bop_error *err);

/**
 * End all requests under way with BOP_ECANCELED, from inside this call, and free
 * the client. Its session is closed if the loop goes on turning, else it expires.
 * Not from inside a callback of the client's. NULL is fine.
 */
BOP_API void bop_client_destroy(struct bop_client *client);

/* ---- Requests ---- */

/**
 * Called exactly once per accepted request, from the loop. code is 0;
 * BOP_ENOTFOUND; BOP_ECONDITION (result->version is that of what is there); or
 * another code, as at the top. result is never NULL; it and all it points to are borrowed
 * for the call. The callback may ask for more.
 */
typedef void (*bop_client_fn)(void *user, int code, const struct bop_result *result);

/**
 * Ask for any operation; what it points to is copied. consistency is for reads.
 * fn may be NULL.
 *
 * Returns 0; BOP_EFULL when outstanding_max or outstanding_bytes_max is met;
 * BOP_EINVAL or BOP_ETOOBIG for an operation no server would take; BOP_ECLOSED while
 * the client is being destroyed; BOP_ENOMEM. When it is not 0, fn is not called.
 */
BOP_API BOP_MUST_USE int bop_client_execute(struct bop_client *client,
                                            const struct bop_operation *operation,
                                            enum bop_consistency consistency, bop_client_fn fn,
                                            void *user);

/** Only if so; NULL where one is asked for means always. */
struct bop_client_if {
    enum bop_condition condition;
    uint64_t version;          /* BOP_IF_VERSION */
    struct bop_slice expected; /* BOP_IF_VALUE */
};

/** Result: existed, version. */
BOP_API BOP_MUST_USE int bop_client_map_put(struct bop_client *client, struct bop_slice map,
                                            struct bop_slice key, struct bop_slice value,
                                            const struct bop_client_if *only_if, bop_client_fn fn,
                                            void *user);
/** Result: existed. */
BOP_API BOP_MUST_USE int bop_client_map_delete(struct bop_client *client, struct bop_slice map,
                                               struct bop_slice key,
                                               const struct bop_client_if *only_if,
                                               bop_client_fn fn, void *user);
/** Result: version, value; or BOP_ENOTFOUND. */
BOP_API BOP_MUST_USE int bop_client_map_get(struct bop_client *client, struct bop_slice map,
                                            struct bop_slice key, enum bop_consistency consistency,
                                            bop_client_fn fn, void *user);
/** Result: size. */
BOP_API BOP_MUST_USE int bop_client_map_size(struct bop_client *client, struct bop_slice map,
                                             enum bop_consistency consistency, bop_client_fn fn,
                                             void *user);
/**
 * One page of at most limit entries (0: as many as the server likes) from cursor
 * on, which is empty at first and result->cursor then; the last page has an empty one.
 * Result: revision, cursor, count, entries, to be walked by bop_scan_next() on a copy.
 */
BOP_API BOP_MUST_USE int bop_client_map_scan(struct bop_client *client, struct bop_slice map,
                                             struct bop_slice cursor, uint32_t limit,
                                             enum bop_consistency consistency, bop_client_fn fn,
                                             void *user);
/** Which keys: those that begin with prefix, from `from` on and below `to`. Empty: all. */
struct bop_client_range {
    struct bop_slice prefix;
    struct bop_slice from;
    struct bop_slice to;
};
/** As bop_client_map_scan(), of the keys in a range. */
BOP_API BOP_MUST_USE int bop_client_map_range(struct bop_client *client, struct bop_slice map,
                                              const struct bop_client_range *range,
                                              struct bop_slice cursor, uint32_t limit,
                                              enum bop_consistency consistency, bop_client_fn fn,
                                              void *user);
/** Result: number, the new value; or BOP_EOVERFLOW. */
BOP_API BOP_MUST_USE int bop_client_counter_add(struct bop_client *client, struct bop_slice counter,
                                                int64_t delta, bop_client_fn fn, void *user);
/** Set it to value if it is expected; one that does not exist is 0. Result: number, which is value,
 * or with BOP_ECONDITION what there is. */
BOP_API BOP_MUST_USE int bop_client_counter_cas(struct bop_client *client, struct bop_slice counter,
                                                int64_t expected, int64_t value, bop_client_fn fn,
                                                void *user);
/** Result: existed. */
BOP_API BOP_MUST_USE int bop_client_counter_set(struct bop_client *client, struct bop_slice counter,
                                                int64_t value, bop_client_fn fn, void *user);
/** Result: existed. */
BOP_API BOP_MUST_USE int bop_client_counter_delete(struct bop_client *client,
                                                   struct bop_slice counter, bop_client_fn fn,
                                                   void *user);
/** Result: number; or BOP_ENOTFOUND. */
BOP_API BOP_MUST_USE int bop_client_counter_get(struct bop_client *client, struct bop_slice counter,
                                                enum bop_consistency consistency, bop_client_fn fn,
                                                void *user);
/** Result: existed, which here says that it was added. A member has at most BOP_KEY_MAX bytes. */
BOP_API BOP_MUST_USE int bop_client_set_add(struct bop_client *client, struct bop_slice set,
                                            struct bop_slice member, bop_client_fn fn, void *user);
/** Result: existed. */
BOP_API BOP_MUST_USE int bop_client_set_remove(struct bop_client *client, struct bop_slice set,
                                               struct bop_slice member, bop_client_fn fn,
                                               void *user);
/** Result: existed; not BOP_ENOTFOUND. */
BOP_API BOP_MUST_USE int bop_client_set_contains(struct bop_client *client, struct bop_slice set,
                                                 struct bop_slice member,
                                                 enum bop_consistency consistency, bop_client_fn fn,
                                                 void *user);
/** Result: size. */
BOP_API BOP_MUST_USE int bop_client_set_size(struct bop_client *client, struct bop_slice set,
                                             enum bop_consistency consistency, bop_client_fn fn,
                                             void *user);
/** As bop_client_map_scan(): the members are the entries' keys, their values are empty. */
BOP_API BOP_MUST_USE int bop_client_set_scan(struct bop_client *client, struct bop_slice set,
                                             struct bop_slice cursor, uint32_t limit,
                                             enum bop_consistency consistency, bop_client_fn fn,
                                             void *user);

/** As put; after ttl_ms of the cluster's time, which does not pass while nobody leads, the entry
 * goes by itself, unless it is put again. 0: for good. */
BOP_API BOP_MUST_USE int bop_client_map_put_ttl(struct bop_client *client, struct bop_slice map,
                                                struct bop_slice key, struct bop_slice value,
                                                uint64_t ttl_ms,
                                                const struct bop_client_if *only_if,
                                                bop_client_fn fn, void *user);
/** As put_ttl. Result: version, the new one; existed and value: what was there before. With
 * BOP_ECONDITION, of what is there, nothing having changed. */
BOP_API BOP_MUST_USE int bop_client_map_exchange(struct bop_client *client, struct bop_slice map,
                                                 struct bop_slice key, struct bop_slice value,
                                                 uint64_t ttl_ms,
                                                 const struct bop_client_if *only_if,
                                                 bop_client_fn fn, void *user);
/** Delete. Result: existed, version and value of what was there; with BOP_ECONDITION, is there. */
BOP_API BOP_MUST_USE int bop_client_map_take(struct bop_client *client, struct bop_slice map,
                                             struct bop_slice key,
                                             const struct bop_client_if *only_if, bop_client_fn fn,
                                             void *user);
/** Result: version, value, and ttl_ms that is left to it (0: for good); or BOP_ENOTFOUND. */
BOP_API BOP_MUST_USE int bop_client_map_get_ttl(struct bop_client *client, struct bop_slice map,
                                                struct bop_slice key,
                                                enum bop_consistency consistency, bop_client_fn fn,
                                                void *user);
/** Put many at once, all at one moment. items are count times bop_item_encode() with
 * BOP_OP_MAP_PUT_ALL. Result: size, how many of the keys were not there. */
BOP_API BOP_MUST_USE int bop_client_map_put_all(struct bop_client *client, struct bop_slice map,
                                                struct bop_slice items, uint32_t count,
                                                uint64_t ttl_ms, bop_client_fn fn, void *user);
/**
 * Run a transaction; it may be changed or freed at once. Result: existed, which here says
 * that all compares held; count and entries, walked by bop_transaction_result_next(): a status
 * and a result for each operation that was run. If one of them failed nothing was done and
 * code says why; with BOP_ECONDITION version is the number of that operation, from 0.
 */
BOP_API BOP_MUST_USE int bop_client_transaction(struct bop_client *client,
                                                const struct bop_transaction *txn, bop_client_fn fn,
                                                void *user);

/** Remove all entries of a map, however many, at once. Result: size, how many there were. */
BOP_API BOP_MUST_USE int bop_client_map_clear(struct bop_client *client, struct bop_slice map,
                                              bop_client_fn fn, void *user);
/** Likewise all members. */
BOP_API BOP_MUST_USE int bop_client_set_clear(struct bop_client *client, struct bop_slice set,
                                              bop_client_fn fn, void *user);

/** Result: existed, which here says that it was added. A key and a value have at most BOP_KEY_MAX
 * bytes each. */
BOP_API BOP_MUST_USE int bop_client_multimap_put(struct bop_client *client,
                                                 struct bop_slice multimap, struct bop_slice key,
                                                 struct bop_slice value, bop_client_fn fn,
                                                 void *user);
/** Remove a key with all its values. Result: size, how many there were. */
BOP_API BOP_MUST_USE int bop_client_multimap_remove(struct bop_client *client,
                                                    struct bop_slice multimap, struct bop_slice key,
                                                    bop_client_fn fn, void *user);
/** Result: existed. */
BOP_API BOP_MUST_USE int bop_client_multimap_remove_value(struct bop_client *client,
                                                          struct bop_slice multimap,
                                                          struct bop_slice key,
                                                          struct bop_slice value, bop_client_fn fn,
                                                          void *user);
/** Result: size, how many pairs there were. */
BOP_API BOP_MUST_USE int bop_client_multimap_clear(struct bop_client *client,
                                                   struct bop_slice multimap, bop_client_fn fn,
                                                   void *user);
/** Result: size, in pairs. */
BOP_API BOP_MUST_USE int bop_client_multimap_size(struct bop_client *client,
                                                  struct bop_slice multimap,
                                                  enum bop_consistency consistency,
                                                  bop_client_fn fn, void *user);
/** Result: size, in values of the key. The server counts them one by one. */
BOP_API BOP_MUST_USE int bop_client_multimap_key_size(struct bop_client *client,
                                                      struct bop_slice multimap,
                                                      struct bop_slice key,
                                                      enum bop_consistency consistency,
                                                      bop_client_fn fn, void *user);
/** Result of the three: existed. For a value the server looks through all pairs. */
BOP_API BOP_MUST_USE int bop_client_multimap_contains_key(struct bop_client *client,
                                                          struct bop_slice multimap,
                                                          struct bop_slice key,
                                                          enum bop_consistency consistency,
                                                          bop_client_fn fn, void *user);
BOP_API BOP_MUST_USE int bop_client_multimap_contains_value(struct bop_client *client,
                                                            struct bop_slice multimap,
                                                            struct bop_slice value,
                                                            enum bop_consistency consistency,
                                                            bop_client_fn fn, void *user);
BOP_API BOP_MUST_USE int
bop_client_multimap_contains_entry(struct bop_client *client, struct bop_slice multimap,
                                   struct bop_slice key, struct bop_slice value,
                                   enum bop_consistency consistency, bop_client_fn fn, void *user);
/**
 * A page, as of bop_client_map_scan(). op is one of BOP_OP_MULTIMAP_GET (the values of key),
 * _KEYS, _VALUES and _ENTRIES (which do not look at key); BOP_EINVAL for any other. What of a pair
 * was not asked for is empty in the entries.
 */
BOP_API BOP_MUST_USE int bop_client_multimap_scan(struct bop_client *client, enum bop_op op,
                                                  struct bop_slice multimap, struct bop_slice key,
                                                  struct bop_slice cursor, uint32_t limit,
                                                  enum bop_consistency consistency,
                                                  bop_client_fn fn, void *user);

/* ---- Members, registrations, names ---- */

/**
 * Be a member of a group, for as long as the session lasts; or, if it is that already, set its
 * information (at most BOP_KEY_MAX bytes). Result: version, by which members are in order;
 * BOP_ECONDITION with that of another session's member of this name. bop/presence.h does it anew
 * in each session.
 */
BOP_API BOP_MUST_USE int bop_client_member_join(struct bop_client *client, struct bop_slice group,
                                                struct bop_slice member, struct bop_slice info,
                                                bop_client_fn fn, void *user);
/** Result of both: existed; false if there is none, or it is another session's. */
BOP_API BOP_MUST_USE int bop_client_member_set(struct bop_client *client, struct bop_slice group,
                                               struct bop_slice member, struct bop_slice info,
                                               bop_client_fn fn, void *user);
BOP_API BOP_MUST_USE int bop_client_member_leave(struct bop_client *client, struct bop_slice group,
                                                 struct bop_slice member, bop_client_fn fn,
                                                 void *user);
/** Result: version; value: session u64 and information b. Or BOP_ENOTFOUND. */
BOP_API BOP_MUST_USE int bop_client_member_get(struct bop_client *client, struct bop_slice group,
                                               struct bop_slice member,
                                               enum bop_consistency consistency, bop_client_fn fn,
                                               void *user);
/** A page, as of bop_client_map_scan(), in the order of joining: to be walked by
 * bop_client_member_next(). */
BOP_API BOP_MUST_USE int bop_client_member_list(struct bop_client *client, struct bop_slice group,
                                                struct bop_slice cursor, uint32_t limit,
                                                enum bop_consistency consistency, bop_client_fn fn,
                                                void *user);
struct bop_client_member {
    struct bop_slice name;
    uint64_t number;
    uint64_t session;
    struct bop_slice info;
};
/** Take the first one off a page's entries. False when none is left. */
BOP_API bool bop_client_member_next(struct bop_slice *entries,
                                    struct bop_client_member *out_member);

/**
 * Register at an address under a number of one's own, for as long as the session lasts. A number
 * names one registration of the session in the registry: BOP_EINVAL if it is used for another
 * address. Result: existed, which here says that it was added.
 */
BOP_API BOP_MUST_USE int bop_client_registration_add(struct bop_client *client,
                                                     struct bop_slice registry,
                                                     struct bop_slice address, uint64_t sequence,
                                                     bop_client_fn fn, void *user);
/** Result: existed. */
BOP_API BOP_MUST_USE int bop_client_registration_remove(struct bop_client *client,
                                                        struct bop_slice registry,
                                                        struct bop_slice address, uint64_t sequence,
                                                        bop_client_fn fn, void *user);
/** All of them, of which key is the address, or none. Result: size, how many were added. */
BOP_API BOP_MUST_USE int bop_client_registration_add_all(struct bop_client *client,
                                                         struct bop_slice registry,
                                                         const struct bop_item *items,
                                                         uint32_t count, bop_client_fn fn,
                                                         void *user);
/** Pages, as of bop_client_map_scan(), to be walked by bop_client_registration_next(): of an
 * address, whose entries lack it, */
BOP_API BOP_MUST_USE int
bop_client_registration_get(struct bop_client *client, struct bop_slice registry,
                            struct bop_slice address, struct bop_slice cursor, uint32_t limit,
                            enum bop_consistency consistency, bop_client_fn fn, void *user);
/** or of all. */
BOP_API BOP_MUST_USE int bop_client_registration_list(struct bop_client *client,
                                                      struct bop_slice registry,
                                                      struct bop_slice cursor, uint32_t limit,
                                                      enum bop_consistency consistency,
                                                      bop_client_fn fn, void *user);
struct bop_client_registration {
    struct bop_slice address;
    uint64_t added; /* By which entry of the log. */
    uint64_t session;
    uint64_t sequence;
};
/** Take the first one off a page's entries. False when none is left. */
BOP_API bool bop_client_registration_next(struct bop_slice *entries,
                                          struct bop_client_registration *out_registration);

/** The names of one kind that begin with prefix, which may be a namespace and its '/'. A page, as
 * of bop_client_map_scan(), to be walked by bop_client_name_next(). */
BOP_API BOP_MUST_USE int bop_client_names(struct bop_client *client, enum bop_name_kind kind,
                                          struct bop_slice prefix, struct bop_slice cursor,
                                          uint32_t limit, enum bop_consistency consistency,
                                          bop_client_fn fn, void *user);
struct bop_client_name {
    struct bop_slice name;
    uint64_t created; /* By which entry of the log. */
    int64_t size;     /* Entries, members, requests ...; of a counter, its value. */
};
BOP_API bool bop_client_name_next(struct bop_slice *entries, struct bop_client_name *out_name);

/** status is NULL unless code is 0, and borrowed for the call. */
typedef void (*bop_client_status_fn)(void *user, int code,
                                     const struct bop_status_response *status);

/** Ask the server we are connected to how it is. Returns as bop_client_execute(). */
BOP_API BOP_MUST_USE int bop_client_status(struct bop_client *client, bop_client_status_fn fn,
                                           void *user);

/** response is the answer's payload, for the decoders of bop/cluster_admin.h; empty unless code is
 * 0, and borrowed for the call. */
typedef void (*bop_client_admin_fn)(void *user, int code, struct bop_slice response);

/**
 * Ask the server we are connected to for a piece of administration: kind is one of
 * BOP_WIRE_KIND_CLUSTER_..._REQUEST or BACKUP_..._REQUEST (BOP_EINVAL else), payload what its
 * encoder made. If the connection breaks meanwhile it is asked again, which does no harm. Returns
 * as bop_client_execute().
 */
BOP_API BOP_MUST_USE int bop_client_admin(struct bop_client *client, uint16_t kind,
                                          struct bop_slice payload, bop_client_admin_fn fn,
                                          void *user);

/* ---- Looking in ---- */

struct bop_client_info {
    bool ready;       /* Connected and greeted. */
    uint64_t node;    /* By whom; 0 if by none. */
    uint64_t leader;  /* As that one said last; 0: none known. */
    size_t servers;   /* Addresses that it may connect to: those given, and those told of. */
    uint64_t session; /* 0: none. */
    size_t outstanding;
    uint64_t connects;        /* Connections greeted since creation. */
    uint64_t moves;           /* Of these, made to go to the leader. */
    uint64_t resent;          /* Requests sent again. */
    uint64_t retries;         /* Answers of RETRY and BUSY. */
    uint64_t timeouts;        /* Requests given up. */
    uint64_t sessions_opened; /* The first one included. */
    uint64_t sessions_lost;
    struct bop_error trouble; /* Why the last attempt to connect failed; code 0: it did not. */
    struct bop_error denied;  /* What a server said when it last denied something; code 0: never. */
};

BOP_API void bop_client_info(const struct bop_client *client, struct bop_client_info *out_info);

/* ---- Blocking ---- */

/** A client on a thread of its own, which keeps the session alive between calls. Any thread. */
struct bop_client_blocking;

/** options->loop is ignored. Returns as bop_client_create(), or -errno if there is no thread. */
BOP_API BOP_MUST_USE int bop_client_blocking_open(const struct bop_client_options *options,
                                                  struct bop_client_blocking **out_client,
                                                  struct bop_error *err);

/** Close the session and end the thread. No call may be under way. NULL is fine. */
BOP_API void bop_client_blocking_close(struct bop_client_blocking *client);

/**
 * Run an operation and wait for its end. *out_result's slices point into buf, which is
 * cleared first; it is zeroed but for the status when there is none. buf may be NULL if
 * the caller wants no slices, out_result if not even that. err says why a request timed
 * out as far as it is known.
 *
 * Returns the code that a callback would have got, or that of bop_client_execute().
 */
BOP_API BOP_MUST_USE int bop_client_blocking_execute(struct bop_client_blocking *client,
                                                     const struct bop_operation *operation,
                                                     enum bop_consistency consistency,
                                                     struct bop_buf *buf,
                                                     struct bop_result *out_result,
                                                     struct bop_error *err);

BOP_API BOP_MUST_USE int bop_client_blocking_map_put(struct bop_client_blocking *client,
                                                     struct bop_slice map, struct bop_slice key,
                                                     struct bop_slice value,
                                                     const struct bop_client_if *only_if,
                                                     uint64_t *out_version, struct bop_error *err);
/** BOP_ENOTFOUND if there was no such key. */
BOP_API BOP_MUST_USE int bop_client_blocking_map_delete(struct bop_client_blocking *client,
                                                        struct bop_slice map, struct bop_slice key,
                                                        const struct bop_client_if *only_if,
                                                        struct bop_error *err);
/** The value is put into out_value, cleared first. out_version may be NULL. */
BOP_API BOP_MUST_USE int bop_client_blocking_map_get(struct bop_client_blocking *client,
                                                     struct bop_slice map, struct bop_slice key,
                                                     enum bop_consistency consistency,
                                                     struct bop_buf *out_value,
                                                     uint64_t *out_version, struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_map_size(struct bop_client_blocking *client,
                                                      struct bop_slice map,
                                                      enum bop_consistency consistency,
                                                      uint64_t *out_size, struct bop_error *err);
/** *out_value, which may be NULL: what there is now; also with BOP_ECONDITION. */
BOP_API BOP_MUST_USE int bop_client_blocking_counter_cas(struct bop_client_blocking *client,
                                                         struct bop_slice counter, int64_t expected,
                                                         int64_t value, int64_t *out_value,
                                                         struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_counter_set(struct bop_client_blocking *client,
                                                         struct bop_slice counter, int64_t value,
                                                         struct bop_error *err);
/** BOP_ENOTFOUND if there was none. */
BOP_API BOP_MUST_USE int bop_client_blocking_counter_delete(struct bop_client_blocking *client,
                                                            struct bop_slice counter,
                                                            struct bop_error *err);
/** out_value may be NULL. */
BOP_API BOP_MUST_USE int bop_client_blocking_counter_add(struct bop_client_blocking *client,
                                                         struct bop_slice counter, int64_t delta,
                                                         int64_t *out_value, struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_counter_get(struct bop_client_blocking *client,
                                                         struct bop_slice counter,
                                                         enum bop_consistency consistency,
                                                         int64_t *out_value, struct bop_error *err);
/** *out_added, which may be NULL: whether it was not there before. */
BOP_API BOP_MUST_USE int bop_client_blocking_set_add(struct bop_client_blocking *client,
                                                     struct bop_slice set, struct bop_slice member,
                                                     bool *out_added, struct bop_error *err);
/** *out_removed, which may be NULL: whether it was there. */
BOP_API BOP_MUST_USE int bop_client_blocking_set_remove(struct bop_client_blocking *client,
                                                        struct bop_slice set,
                                                        struct bop_slice member, bool *out_removed,
                                                        struct bop_error *err);
BOP_API BOP_MUST_USE int
bop_client_blocking_set_contains(struct bop_client_blocking *client, struct bop_slice set,
                                 struct bop_slice member, enum bop_consistency consistency,
                                 bool *out_contained, struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_set_size(struct bop_client_blocking *client,
                                                      struct bop_slice set,
                                                      enum bop_consistency consistency,
                                                      uint64_t *out_size, struct bop_error *err);
/** out_added, out_removed: may be NULL, here and below. */
BOP_API BOP_MUST_USE int bop_client_blocking_multimap_put(struct bop_client_blocking *client,
                                                          struct bop_slice multimap,
                                                          struct bop_slice key,
                                                          struct bop_slice value, bool *out_added,
                                                          struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_multimap_remove(struct bop_client_blocking *client,
                                                             struct bop_slice multimap,
                                                             struct bop_slice key,
                                                             uint64_t *out_removed,
                                                             struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_multimap_remove_value(
    struct bop_client_blocking *client, struct bop_slice multimap, struct bop_slice key,
    struct bop_slice value, bool *out_removed, struct bop_error *err);
BOP_API BOP_MUST_USE int
bop_client_blocking_multimap_key_size(struct bop_client_blocking *client, struct bop_slice multimap,
                                      struct bop_slice key, enum bop_consistency consistency,
                                      uint64_t *out_size, struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_multimap_contains_entry(
    struct bop_client_blocking *client, struct bop_slice multimap, struct bop_slice key,
    struct bop_slice value, enum bop_consistency consistency, bool *out_contained,
    struct bop_error *err);
/** *out_number, which may be NULL: its own; with BOP_ECONDITION, that of the one there is. */
BOP_API BOP_MUST_USE int
bop_client_blocking_member_join(struct bop_client_blocking *client, struct bop_slice group,
                                struct bop_slice member, struct bop_slice info,
                                uint64_t *out_number, struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_member_set(struct bop_client_blocking *client,
                                                        struct bop_slice group,
                                                        struct bop_slice member,
                                                        struct bop_slice info, bool *out_set,
                                                        struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_member_leave(struct bop_client_blocking *client,
                                                          struct bop_slice group,
                                                          struct bop_slice member, bool *out_left,
                                                          struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_registration_add(struct bop_client_blocking *client,
                                                              struct bop_slice registry,
                                                              struct bop_slice address,
                                                              uint64_t sequence, bool *out_added,
                                                              struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_registration_remove(
    struct bop_client_blocking *client, struct bop_slice registry, struct bop_slice address,
    uint64_t sequence, bool *out_removed, struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_registration_add_all(
    struct bop_client_blocking *client, struct bop_slice registry, const struct bop_item *items,
    uint32_t count, uint64_t *out_added, struct bop_error *err);

/** A page of a scan, borrowed for the call. Returns whether it goes on. */
typedef bool (*bop_client_page_fn)(void *user, const struct bop_result *page);
/** All pages of any scan, list or names, one after another; fn is called by this thread. */
BOP_API BOP_MUST_USE int bop_client_blocking_pages(struct bop_client_blocking *client,
                                                   const struct bop_operation *operation,
                                                   enum bop_consistency consistency,
                                                   bop_client_page_fn fn, void *user,
                                                   struct bop_error *err);

/** *out_status's slices point into buf, which is cleared first. */
BOP_API BOP_MUST_USE int bop_client_blocking_status(struct bop_client_blocking *client,
                                                    struct bop_buf *buf,
                                                    struct bop_status_response *out_status,
                                                    struct bop_error *err);
BOP_API void bop_client_blocking_info(struct bop_client_blocking *client,
                                      struct bop_client_info *out_info);

#endif
