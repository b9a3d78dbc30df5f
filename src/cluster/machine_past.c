/* Walking the state as it was, in slices: machine_past.h. */
#include <bop/mem.h>

#include "buggify.h"
#include "machine_past.h"

#define RECENT_SLOTS    4096u /* A power of two. */
#define AHEAD           16    /* Records. */
#define RECORD_OVERHEAD 16    /* Of a record in a slice: to visit it is work. */

struct machine_past {
    struct bop_allocator *allocator;
    struct machine *machine;
    struct machine_position position;
    size_t bytes_max;

    /* What the machine notes. */
    bool noting;
    int failed;
    struct past_place from; /* Where the slice under way began: what lies beyond is noted. */
    struct past_run fresh;
    uint32_t *recent;          /* For each hash the last note of it in fresh: 1 + where, or 0. */
    size_t notes_bytes;        /* When the slice under way began. */
    struct machine_view *held; /* Opened as there were too many notes: the next slice's. */

    /* The walk's. */
    struct past_place at;
    struct past_run run; /* The notes up to the slice under way, until it begins. */
    struct past_notes notes;
    struct machine_view *view;
    bool view_stays; /* Up to the end. */
};

/* ---- Noting ---- */

static uint32_t *recent_of(const struct machine_past *past, enum machine_table table,
                           struct bop_slice key)
{
    return &past->recent[past_hash(table, key) & (RECENT_SLOTS - 1)];
}

/* The same key again and again is noted once in a slice. Mostly: another key may have taken its
 * place. */
static bool is_recent(const struct machine_past *past, enum machine_table table,
                      struct bop_slice key, bool goes)
{
    uint32_t at = *recent_of(past, table, key);
    struct past_note note;
    size_t next;

    if (at == 0) {
        return false;
    }
    note = bop__past_run_at(&past->fresh, at - 1, &next);
    return note.table == table && (note.goes || !goes) && bop_slice_equal(note.key, key);
}

bool bop__machine_past_wants(const struct machine_past *past, enum machine_table table,
                             struct bop_slice key, bool goes)
{
    return past->noting && past_is_beyond(&past->from, table, key) &&
           !is_recent(past, table, key, goes);
}

/* No more notes: what the store holds as of the last commit stays in sight. The notes there are
 * reach up to here, beyond it. */
static void hold(struct machine_past *past)
{
    past->noting = false;
    past->failed = bop__machine_view_open(past->machine, &past->held);
}

void bop__machine_past_note(struct machine_past *past, const struct past_note *note)
{
    size_t at = past->fresh.bytes.size;

    if (past->notes_bytes + at + note->key.size + note->value.size > past->bytes_max ||
        buggify(BUGGIFY_PAST_FULL) || bop__past_run_add(&past->fresh, note) < 0) {
        hold(past);
        return;
    }
    *recent_of(past, note->table, note->key) = (uint32_t)at + 1;
}

/* ---- Opening, turns ---- */

int bop__machine_past_open(struct machine *machine, size_t bytes_max,
                           struct machine_past **out_past)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(machine->allocator, "cluster.snapshot");
    struct machine_past *past = bop_alloc_zeroed(allocator, sizeof(*past));

    BOP_ASSERT(!machine->txn && !machine->past);
    if (!past) {
        return BOP_ENOMEM;
    }
    past->allocator = allocator;
    past->recent = bop_alloc_zeroed(allocator, RECENT_SLOTS * sizeof(*past->recent));
    if (!past->recent) {
        bop_free(allocator, past, sizeof(*past));
        return BOP_ENOMEM;
    }
    past->machine = machine;
    past->position = machine->position;
    past->bytes_max = bop_min_u64(bytes_max, UINT32_MAX / 2);
    past->noting = true;
    bop__past_notes_init(&past->notes, allocator);
    bop_buf_init(&past->fresh.bytes, allocator, 0);
    bop_buf_init(&past->run.bytes, allocator, 0);
    machine->past = past;
    *out_past = past;
    return 0;
}

struct machine_position bop__machine_past_position(const struct machine_past *past)
{
    return past->position;
}

int bop__machine_past_turn(struct machine_past *past)
{
    struct past_run run = past->run;

    if (past->failed < 0 || past->view_stays) {
        return past->failed;
    }
    BOP_ASSERT(run.count == 0);
    bop__machine_view_close(past->view);
    past->view = past->held;
    past->view_stays = past->held != NULL;
    past->held = NULL;
    past->run = past->fresh;
    past->fresh = run;
    past->from = past->at;
    past->notes_bytes = past->notes.bytes;
    memset(past->recent, 0, RECENT_SLOTS * sizeof(*past->recent));
    return past->view ? 0 : bop__machine_view_open(past->machine, &past->view);
}

bool bop__machine_past_rest(struct machine_past *past)
{
    if (past->view_stays || past->held) {
        return false;
    }
    bop__machine_view_close(past->view);
    past->view = NULL;
    return true;
}

void bop__machine_past_close(struct machine_past *past)
{
    if (!past) {
        return;
    }
    past->machine->past = NULL;
    bop__machine_view_close(past->view);
    bop__machine_view_close(past->held);
    bop__past_notes_deinit(&past->notes);
    bop_buf_deinit(&past->fresh.bytes);
    bop_buf_deinit(&past->run.bytes);
    bop_free(past->allocator, past->recent, RECENT_SLOTS * sizeof(*past->recent));
    bop_free(past->allocator, past, sizeof(*past));
}

/* ---- Walking ---- */

struct slice {
    struct machine_past *past;
    machine_walk_fn *fn;
    void *user;
    size_t left;
    bool full;
};

static void place_set(struct past_place *place, unsigned table, struct bop_slice key)
{
    place->table = table;
    place->key_size = (uint16_t)key.size;
    if (key.size > 0) {
        memcpy(place->key, key.data, key.size);
    }
}

static int tell(struct slice *slice, enum machine_table table, struct bop_slice key,
                struct bop_slice value)
{
    size_t size = key.size + value.size + RECORD_OVERHEAD;
    int rc = slice->fn(slice->user, table, key, value);

    slice->full = size >= slice->left;
    slice->left -= bop_min_u64(size, slice->left);
    if (slice->full) {
        place_set(&slice->past->at, (unsigned)table, key);
    }
    return rc;
}

/* The next key of this table that was deleted. */
static bool next_gone(const struct past_notes *notes, enum machine_table table,
                      struct bop_slice *out_key)
{
    enum machine_table of_key;

    return bop__past_notes_gone(notes, &of_key, out_key) && of_key == table;
}

/* Records of the view, some of them ahead: where their notes would be is on its way meanwhile. */
struct ahead {
    struct bop_kv_cursor *cursor;
    const struct past_notes *notes;
    enum machine_table table;
    size_t at;
    size_t count;
    struct bop_kv_pair pairs[AHEAD];
    uint32_t hashes[AHEAD];
};

static void ahead_fetch(struct ahead *ahead)
{
    ahead->at = 0;
    for (size_t n = 0; n < ahead->count; n++) {
        ahead->hashes[n] = past_hash(ahead->table, ahead->pairs[n].key);
        past_notes_fetch(ahead->notes, ahead->hashes[n]);
    }
}

/* To the first record behind a key. Where count is 0 then, there is none. */
static int ahead_seek(struct ahead *ahead, struct bop_slice from)
{
    int rc = bop_kv_cursor_seek(ahead->cursor, BOP_KV_AFTER, from, &ahead->pairs[0].key,
                                &ahead->pairs[0].value);

    ahead->count = rc == 0;
    ahead_fetch(ahead);
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

static int ahead_next(struct ahead *ahead)
{
    int rc;

    if (++ahead->at < ahead->count) {
        return 0;
    }
    rc = bop_kv_cursor_fetch(ahead->cursor, BOP_KV_NEXT, ahead->pairs, AHEAD, &ahead->count);
    ahead_fetch(ahead);
    return rc;
}

/* What a key was: as the note says, or else as the view does. */
static int tell_current(struct slice *slice, const struct ahead *ahead)
{
    const struct bop_kv_pair *pair = &ahead->pairs[ahead->at];
    struct past_note note;

    if (!bop__past_notes_find(ahead->notes, ahead->table, pair->key, ahead->hashes[ahead->at],
                              &note)) {
        return tell(slice, ahead->table, pair->key, pair->value);
    }
    return note.existed ? tell(slice, ahead->table, note.key, note.value) : 0;
}

/* What a key was that the view has not. */
static int tell_gone(struct slice *slice, enum machine_table table, struct bop_slice key)
{
    struct past_note note;

    return bop__past_notes_find(&slice->past->notes, table, key, past_hash(table, key), &note) &&
                   note.existed
               ? tell(slice, table, note.key, note.value)
               : 0;
}

static int walk_cursor(struct slice *slice, struct ahead *ahead)
{
    struct past_place *place = &slice->past->at;
    struct past_notes *notes = &slice->past->notes;
    int rc = ahead_seek(ahead, bop_slice(place->key, place->key_size));

    while (rc == 0 && !slice->full) {
        struct bop_slice gone;
        bool any_gone = next_gone(notes, ahead->table, &gone);
        int order = any_gone ? -1 : 1;

        if (ahead->count == 0 && !any_gone) {
            break;
        }
        if (any_gone && ahead->count > 0) {
            order = bop_slice_compare(gone, ahead->pairs[ahead->at].key);
        }
        rc = order < 0 ? tell_gone(slice, ahead->table, gone) : tell_current(slice, ahead);
        if (order <= 0) {
            bop__past_notes_drop_gone(notes);
        }
        if (order >= 0 && rc == 0) {
            rc = ahead_next(ahead);
        }
    }
    return rc;
}

static int walk_table(struct slice *slice, enum machine_table table)
{
    struct machine_past *past = slice->past;
    struct ahead ahead = {.notes = &past->notes, .table = table};
    int rc = bop_kv_cursor_open(past->view->txn, past->view->tables[table], &ahead.cursor);

    if (rc == 0) {
        rc = walk_cursor(slice, &ahead);
        bop_kv_cursor_close(ahead.cursor);
    }
    return rc;
}

int bop__machine_past_walk(struct machine_past *past, size_t bytes, machine_walk_fn *fn, void *user,
                           bool *out_more)
{
    struct slice slice = {.past = past, .fn = fn, .user = user, .left = bytes};
    int rc = bop__past_notes_add(&past->notes, &past->run, &past->at);

    while (rc == 0 && !slice.full && past->at.table < MACHINE_TABLES) {
        rc = walk_table(&slice, (enum machine_table)past->at.table);
        if (rc == 0 && !slice.full) {
            place_set(&past->at, past->at.table + 1, bop_slice(NULL, 0));
        }
    }
    *out_more = slice.full;
    return rc;
}
