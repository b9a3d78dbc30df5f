/*
 * Watches of a client: be told what changes, as it changes.
 *
 *     static void changed(void *user, const struct bop_client_news *news)
 *     {
 *         struct bop_slice rest = news->events;
 *         struct bop_event event;
 *
 *         while (bop_event_next(&rest, &event) > 0) { ... }
 *     }
 *
 *     struct bop_client_watch_options options = {
 *         .what = BOP_WATCH_MAP, .name = bop_slice_cstr("m"), .prefix = bop_slice_cstr("user/")};
 *
 *     rc = bop_client_watch_open(client, &options, changed, user, &watch);
 *
 * A watch outlives connections and goes with the client from node to node: each event is
 * told once, those of one entry of the log together, in the order of entries. What it
 * cannot hide is that a node no longer has the events since it was last heard; then
 * the news has BOP_WATCH_EVENTS_RESYNC, and after it come events from now on, or first a
 * snapshot if the watch was opened with one. What was promised is in docs/design/watches.md.
 *
 * Threads: as bop_client.
 */
#ifndef BOP_CLIENT_WATCH_H
#define BOP_CLIENT_WATCH_H

#include <bop/client.h>
#include <bop/watch.h>

struct bop_client_watch;

/** What to watch; all is copied. Zero means: all keys, from now on. */
struct bop_client_watch_options {
    enum bop_watch_what what;
    struct bop_slice name;       /* Empty for SESSION and NAMES. */
    const struct bop_slice *key; /* This key alone; then the next three count for nothing. */
    struct bop_slice prefix;
    struct bop_slice from;
    struct bop_slice to;
    uint8_t flags;     /* enum bop_watch_flags. */
    uint64_t revision; /* Events after this one; not with SNAPSHOT. */
};

/** What is told. Everything is borrowed for the call. */
struct bop_client_news {
    int code;          /* Not 0: the watch is over, and nothing more is told. */
    uint64_t revision; /* What the events are of. */
    uint8_t flags;     /* enum bop_watch_events_flags. */
    struct bop_slice events;
};

/**
 * From the loop. With code 0: events of an entry (flags 0, or MORE when others of it
 * follow); pages of a snapshot (SNAPSHOT, with MORE but for the last one); LIVE: all of the past
 * is told; RESYNC: forget what you know; PROGRESS: nothing more up to this revision. It
 * may open and close watches, this one too.
 */
typedef void (*bop_client_watch_fn)(void *user, const struct bop_client_news *news);

/**
 * Begin to watch, at once or when a server is there. Returns 0, BOP_EINVAL for options that no
 * server would take, BOP_ETOOBIG, BOP_ECLOSED or BOP_ENOMEM.
 */
BOP_API BOP_MUST_USE int bop_client_watch_open(struct bop_client *client,
                                               const struct bop_client_watch_options *options,
                                               bop_client_watch_fn fn, void *user,
                                               struct bop_client_watch **out_watch);

/** End it: fn is not called any more. Not after its client was destroyed, nor after news with a
 * code, which freed it. NULL is fine. */
BOP_API void bop_client_watch_close(struct bop_client_watch *watch);

/** code 0: all have; BOP_EUNCERTAIN: not all are known to have; or as of a request. */
typedef void (*bop_client_settled_fn)(void *user, int code);

/**
 * Wait until all who watch this with BOP_WATCH_ACKNOWLEDGE, on all servers, have heard what it is
 * now, and their callbacks have returned; at most timeout_ms (0: 5,000; at most 60,000). key
 * is empty where the kind has none. Servers that are down, and their clients, are not waited for;
 * then it is BOP_EUNCERTAIN. Nor are servers whose removal from the cluster was committed
 * before the request came; these are no part of it any more, so that code 0 says nothing of clients
 * that are still on one. Of one that is removed meanwhile the answer counts; without it, it is
 * BOP_EUNCERTAIN. Returns as bop_client_execute().
 */
BOP_API BOP_MUST_USE int bop_client_watch_settle(struct bop_client *client,
                                                 enum bop_watch_what what, struct bop_slice name,
                                                 struct bop_slice key, uint32_t timeout_ms,
                                                 bop_client_settled_fn fn, void *user);

/**
 * bop_client_registration_add(), and wait until all who watch the address have heard of it. Result:
 * existed, as there. BOP_EUNCERTAIN: it is added, but not all are known to have heard; or, as of
 * any write, it may be added.
 */
BOP_API BOP_MUST_USE int bop_client_registration_add_settled(struct bop_client *client,
                                                             struct bop_slice registry,
                                                             struct bop_slice address,
                                                             uint64_t sequence, uint32_t timeout_ms,
                                                             bop_client_fn fn, void *user);

/** Both of a blocking client, from any thread. The second: *out_added, unless NULL, whether it was
 * known not to have been there before; with BOP_EUNCERTAIN as well. */
BOP_API BOP_MUST_USE int bop_client_blocking_watch_settle(struct bop_client_blocking *client,
                                                          enum bop_watch_what what,
                                                          struct bop_slice name,
                                                          struct bop_slice key, uint32_t timeout_ms,
                                                          struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_registration_add_settled(
    struct bop_client_blocking *client, struct bop_slice registry, struct bop_slice address,
    uint64_t sequence, uint32_t timeout_ms, bool *out_added, struct bop_error *err);

/** All events up to here were told; 0: it has not begun yet. */
BOP_API uint64_t bop_client_watch_revision(const struct bop_client_watch *watch);

#endif
