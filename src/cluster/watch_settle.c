/*
 * Whether all who watch a key have acknowledged a revision.
 *
 * What a connection acknowledges are marks: behind a mark of a revision it has seen to everything
 * up to there, of all its watches. So one mark settles whatever waits for it, and a connection
 * for which nobody waits sends nothing.
 *
 * A watch that is in its past or snapshot, or whose connection is behind, has not heard
 * yet; its connection gets its mark when it has.
 */
#include "watch_internal.h"

struct look {
    uint64_t revision;
    bool settled;
};

static void look_at(struct look *look, const struct watch *watch)
{
    struct watch_conn *conn = watch->conn;

    if (!(watch->flags & BOP_WATCH_ACKNOWLEDGE) || conn->acked >= look->revision) {
        return;
    }
    look->settled = false;
    if (conn->marked < look->revision && !conn->mark_asked) {
        conn->mark_asked = true;
        bop__watch_conn_busy(conn);
    }
}

static void on_interval(void *user, struct watch_interval *interval)
{
    BOP_LIST_FOR_EACH(link, &interval->watches) {
        look_at((struct look *)user, BOP_CONTAINER_OF(link, struct watch, link));
    }
}

static bool is_about(const struct watch_interval *interval,
                     const struct bop_watch_settle_request *ask)
{
    const struct watch_name *name = interval->name;

    return name->what == ask->what &&
           bop_slice_equal(bop_slice(name->bytes, name->size), ask->name) &&
           bop__watch_interval_matches(interval, WATCH_KEY, ask->key);
}

bool bop__watch_settled(struct watch_hub *hub, const struct bop_watch_settle_request *ask,
                        uint64_t revision)
{
    struct look look = {.revision = revision, .settled = true};

    bop__watch_index_match(&hub->index, ask->what, ask->name, WATCH_KEY, ask->key, on_interval,
                           &look);
    /* Those that are behind, or have pending watches, are all among the busy ones. */
    BOP_LIST_FOR_EACH(link, &hub->busy) {
        struct watch_conn *conn = BOP_CONTAINER_OF(link, struct watch_conn, busy);

        if (conn->behind) {
            bop__watch_index_match(&conn->own, ask->what, ask->name, WATCH_KEY, ask->key,
                                   on_interval, &look);
        }
        BOP_LIST_FOR_EACH(at, &conn->pending) {
            const struct watch *watch = BOP_CONTAINER_OF(at, struct watch, link);

            if (is_about(watch->interval, ask)) {
                look_at(&look, watch);
            }
        }
    }
    return look.settled;
}
