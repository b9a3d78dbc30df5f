/*
 * What cannot be told at once: watches that begin with the past, watches that lost
 * events, connections whose queue was full. Each turn does a bounded share of it, and
 * nothing for a connection that has no room.
 */
#include "watch_internal.h"

#define AGAIN_MS 100 /* After something that could not be had. */

static bool is_full(const struct watch_conn *conn)
{
    return bop__watch_queued(conn) > conn->hub->options.queue_high;
}

/* ---- A connection that is behind ---- */

static void lose_all(struct watch_conn *conn)
{
    for (size_t n = 0; n < conn->capacity; n++) {
        for (struct watch *watch = conn->slots[n]; watch; watch = watch->next) {
            if (watch->state == WATCH_LIVE) {
                bop__watch_lose(watch);
            }
        }
    }
}

/* Through the history, as far as there is room. Returns when it wants to go on by itself. */
static uint64_t catch_up(struct watch_conn *conn)
{
    struct watch_hub *hub = conn->hub;
    struct history_cursor cursor;
    struct bop_slice events;
    uint64_t revision;

    if (!bop__history_seek(&hub->history, conn->sent, &cursor)) {
        lose_all(conn);
        conn->behind = false;
        return UINT64_MAX;
    }
    while (bop__history_next(&hub->history, &cursor, &revision, &events)) {
        if (hub->entries_left == 0) {
            return hub->now_ms;
        }
        hub->entries_left--;
        if (bop__watch_entry(hub, events) < 0) {
            return hub->now_ms + AGAIN_MS;
        }
        if (!bop__watch_dispatch(hub, &conn->own, conn, revision)) {
            return UINT64_MAX;
        }
        conn->sent = revision;
    }
    conn->behind = false;
    bop__watch_conn_move(conn, &hub->index);
    return UINT64_MAX;
}

/* ---- A watch that is not live ---- */

/* Nothing of the past is left to be told. */
static enum watch_step finish_replay(struct watch *watch)
{
    struct watch_conn *conn = watch->conn;
    uint64_t told = conn->behind ? conn->sent : conn->hub->told;

    if (bop__watch_go_live(watch) < 0) {
        return WATCH_STEP_LATER;
    }
    watch->last = bop_max_u64(watch->last, told);
    bop__watch_tell(conn, watch, watch->last, BOP_WATCH_EVENTS_LIVE, bop_slice(NULL, 0));
    return WATCH_STEP_DONE;
}

static enum watch_step replay(struct watch *watch)
{
    struct watch_hub *hub = watch->conn->hub;
    struct history_cursor cursor;
    struct bop_slice events;
    uint64_t revision;

    if (!bop__history_seek(&hub->history, watch->last, &cursor)) {
        watch->state = WATCH_LOST;
        return WATCH_STEP_NEXT;
    }
    while (bop__history_next(&hub->history, &cursor, &revision, &events)) {
        if (hub->entries_left == 0) {
            return WATCH_STEP_TURN;
        }
        if (is_full(watch->conn)) {
            return WATCH_STEP_FULL;
        }
        hub->entries_left--;
        if (bop__watch_entry(hub, events) < 0) {
            return WATCH_STEP_LATER;
        }
        bop__watch_dispatch_one(watch, revision);
        if (watch->state == WATCH_LOST) {
            return WATCH_STEP_NEXT;
        }
        watch->last = revision;
    }
    return finish_replay(watch);
}

/* With SNAPSHOT it begins again, else it ends here. */
static enum watch_step tell_lost(struct watch *watch)
{
    if (!watch->resync_told) {
        if (is_full(watch->conn)) {
            return WATCH_STEP_FULL;
        }
        bop__watch_tell_resync(watch);
    }
    watch->resync_told = false;
    if (watch->flags & BOP_WATCH_SNAPSHOT) {
        watch->state = WATCH_SNAPSHOT;
        return WATCH_STEP_NEXT;
    }
    bop__watch_free(watch);
    return WATCH_STEP_DONE;
}

static enum watch_step step(struct watch *watch)
{
    switch ((enum watch_state)watch->state) {
    case WATCH_SNAPSHOT:
        return bop__watch_snapshot_step(watch);
    case WATCH_REPLAY:
        return replay(watch);
    case WATCH_LOST:
        return tell_lost(watch);
    case WATCH_LIVE:
        break;
    }
    BOP_ASSERT(!"a live watch among those that are pending");
    return WATCH_STEP_DONE;
}

/* Until it is done, or can do no more now. */
static enum watch_step steps(struct watch *watch)
{
    enum watch_step result;

    do {
        result = step(watch);
    } while (result == WATCH_STEP_NEXT);
    return result;
}

/* Each watch that is pending once; a watch that has to wait does not hold up the others. */
static uint64_t work_pending(struct watch_conn *conn)
{
    struct bop_list todo;
    uint64_t due_ms = UINT64_MAX;

    bop_list_init(&todo);
    while (!bop_list_empty(&conn->pending)) {
        bop_list_push_back(&todo, bop_list_pop_front(&conn->pending));
    }
    while (!bop_list_empty(&todo)) {
        struct watch *watch = BOP_CONTAINER_OF(todo.next, struct watch, link);
        enum watch_step result = steps(watch);

        if (result == WATCH_STEP_DONE) {
            continue;
        }
        if (result == WATCH_STEP_LATER) {
            due_ms = bop_min_u64(due_ms, conn->hub->now_ms + AGAIN_MS);
            bop_list_remove(&watch->link);
            bop_list_push_back(&conn->pending, &watch->link);
            continue;
        }
        /* Full, or enough for now: all that is left waits as it stood. */
        due_ms = result == WATCH_STEP_TURN ? conn->hub->now_ms : due_ms;
        while (!bop_list_empty(&todo)) {
            struct bop_list *last = todo.prev;

            bop_list_remove(last);
            bop_list_push_front(&conn->pending, last);
        }
    }
    return due_ms;
}

uint64_t bop__watch_conn_work(struct watch_conn *conn)
{
    uint64_t due_ms = UINT64_MAX;

    if (bop__watch_queued(conn) > conn->hub->options.queue_low) {
        return UINT64_MAX; /* What takes it turns the loop. */
    }
    if (conn->behind) {
        due_ms = catch_up(conn);
    }
    return bop_min_u64(due_ms, work_pending(conn));
}
