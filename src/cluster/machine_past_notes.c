/*
 * Notes of what was: runs, as they are made, and all of them by key.
 *
 * A run is a buffer with notes side by side, and is kept as it is: the table of slots says where
 * the first note of a key lies. The keys of what was deleted are in a list as well, in order; many
 * are sorted in at once, so that each search goes on from where the one before ended.
 */
#include <stdlib.h>

#include "machine_past.h"

#define SLOTS_MIN   4096u /* A power of two. */
#define OFFSET_BITS 32    /* Of a slot: place in the run, plus one, */
#define RUN_BITS    20    /* the run, */
#define TAG_SHIFT   (OFFSET_BITS + RUN_BITS)
#define RUNS_MAX    (1u << RUN_BITS) /* and above that as much of the hash as fits. */

/* ---- Runs ---- */

struct run_head {
    uint32_t value_size;
    uint16_t key_size;
    uint8_t table;
    uint8_t flags;
};

#define EXISTED 1
#define GOES    2

int bop__past_run_add(struct past_run *run, const struct past_note *note)
{
    struct run_head head = {
        .value_size = (uint32_t)note->value.size,
        .key_size = (uint16_t)note->key.size,
        .table = (uint8_t)note->table,
        .flags = (uint8_t)((note->existed ? EXISTED : 0) | (note->goes ? GOES : 0))};
    size_t size = sizeof(head) + note->key.size + note->value.size;
    uint8_t *at;
    int rc = bop_buf_reserve(&run->bytes, size);

    if (rc < 0) {
        return rc;
    }
    at = run->bytes.data + run->bytes.size;
    memcpy(at, &head, sizeof(head));
    memcpy(at + sizeof(head), note->key.data, note->key.size);
    if (note->value.size > 0) {
        memcpy(at + sizeof(head) + note->key.size, note->value.data, note->value.size);
    }
    run->bytes.size += size;
    run->count++;
    run->going += note->goes;
    return 0;
}

struct past_note bop__past_run_at(const struct past_run *run, size_t at, size_t *out_next)
{
    const uint8_t *bytes = run->bytes.data + at;
    struct run_head head;

    memcpy(&head, bytes, sizeof(head));
    bytes += sizeof(head);
    *out_next = at + sizeof(head) + head.key_size + head.value_size;
    return (struct past_note){.table = (enum machine_table)head.table,
                              .existed = (head.flags & EXISTED) != 0,
                              .goes = (head.flags & GOES) != 0,
                              .key = bop_slice(bytes, head.key_size),
                              .value = bop_slice(bytes + head.key_size, head.value_size)};
}

static void run_empty(struct past_run *run)
{
    struct bop_allocator *allocator = run->bytes.allocator;

    bop_buf_deinit(&run->bytes);
    bop_buf_init(&run->bytes, allocator, 0);
    run->count = 0;
    run->going = 0;
}

/* ---- By key ---- */

static struct past_note note_of(const struct past_notes *notes, uint64_t slot)
{
    const struct past_run *run = &notes->runs[slot >> OFFSET_BITS & (RUNS_MAX - 1)];
    size_t next;

    return bop__past_run_at(run, (size_t)(slot & UINT32_MAX) - 1, &next);
}

/* The slot of a key: its note's, or a free one. */
static uint64_t *slot_find(const struct past_notes *notes, enum machine_table table,
                           struct bop_slice key, uint32_t hash)
{
    size_t mask = notes->slot_count - 1;
    uint64_t tag = (uint64_t)hash << 32 >> TAG_SHIFT;

    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        uint64_t slot = notes->slots[at];

        if (slot == 0) {
            return &notes->slots[at];
        }
        if (slot >> TAG_SHIFT == tag) {
            struct past_note note = note_of(notes, slot);

            if (note.table == table && bop_slice_equal(note.key, key)) {
                return &notes->slots[at];
            }
        }
    }
}

/* Room for so many more, at most half full. */
static int slots_reserve(struct past_notes *notes, size_t more)
{
    struct past_notes old = *notes;
    size_t count = notes->slot_count == 0 ? SLOTS_MIN : notes->slot_count;
    uint64_t *slots;

    while (count / 2 < notes->count + more) {
        count *= 2;
    }
    if (count == notes->slot_count) {
        return 0;
    }
    slots = bop_alloc_zeroed(notes->allocator, count * sizeof(*slots));
    if (!slots) {
        return BOP_ENOMEM;
    }
    notes->slots = slots;
    notes->slot_count = count;
    for (size_t n = 0; n < old.slot_count; n++) {
        if (old.slots[n] != 0) {
            struct past_note note = note_of(notes, old.slots[n]);

            *slot_find(notes, note.table, note.key, past_hash(note.table, note.key)) = old.slots[n];
        }
    }
    bop_free(notes->allocator, old.slots, old.slot_count * sizeof(*slots));
    notes->bytes += (count - old.slot_count) * sizeof(*slots);
    return 0;
}

bool bop__past_notes_find(const struct past_notes *notes, enum machine_table table,
                          struct bop_slice key, uint32_t hash, struct past_note *out_note)
{
    uint64_t slot = notes->count > 0 ? *slot_find(notes, table, key, hash) : 0;

    if (slot == 0) {
        return false;
    }
    *out_note = note_of(notes, slot);
    return true;
}

/* ---- What was deleted ---- */

struct past_gone {
    uint16_t key_size;
    uint8_t table;
    uint8_t levels;
    struct past_gone *next[]; /* `levels` of them; behind them the key. */
};

struct gone_key {
    enum machine_table table;
    struct bop_slice key;
};

static size_t gone_bytes(const struct past_gone *gone)
{
    return sizeof(*gone) + gone->levels * sizeof(struct past_gone *) + gone->key_size;
}

static struct gone_key key_of(const struct past_gone *gone)
{
    return (struct gone_key){.table = (enum machine_table)gone->table,
                             .key = bop_slice(gone->next + gone->levels, gone->key_size)};
}

static int compare(const struct gone_key *a, const struct gone_key *b)
{
    return a->table != b->table ? (a->table > b->table) - (a->table < b->table)
                                : bop_slice_compare(a->key, b->key);
}

static int compare_gone(const struct past_gone *gone, const struct gone_key *key)
{
    struct gone_key of_gone = key_of(gone);

    return compare(&of_gone, key);
}

/* One level, and each further one in a quarter of the cases. */
static uint8_t draw_levels(struct past_notes *notes)
{
    uint8_t levels = 1;

    notes->random = notes->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    for (uint64_t bits = notes->random >> 32; levels < PAST_LEVELS && (bits & 3) == 0; bits >>= 2) {
        levels++;
    }
    return levels;
}

static struct past_gone *make_gone(struct past_notes *notes, const struct gone_key *key)
{
    struct past_gone head = {.key_size = (uint16_t)key->key.size,
                             .table = (uint8_t)key->table,
                             .levels = draw_levels(notes)};
    struct past_gone *gone = bop_alloc(notes->allocator, gone_bytes(&head));

    if (gone) {
        *gone = head;
        memcpy(gone->next + gone->levels, key->key.data, key->key.size);
        notes->bytes += gone_bytes(gone);
    }
    return gone;
}

/*
 * Put a key where it belongs, unless it is there. ways[n] has the link of level n that the search
 * before went last, of a key below this one: its record's, or the list's.
 */
static int insert(struct past_notes *notes, struct past_gone **ways[PAST_LEVELS],
                  const struct gone_key *key)
{
    struct past_gone **links = NULL, *gone;
    bool moved = false;

    for (unsigned level = PAST_LEVELS; level-- > 0;) {
        if (!moved) {
            links = ways[level]; /* Farther than what is above. */
        }
        while (links[level] && compare_gone(links[level], key) < 0) {
            links = links[level]->next;
            moved = true;
        }
        ways[level] = links;
    }
    if (links[0] && compare_gone(links[0], key) == 0) {
        return 0;
    }
    gone = make_gone(notes, key);
    if (!gone) {
        return BOP_ENOMEM;
    }
    for (unsigned level = 0; level < gone->levels; level++) {
        gone->next[level] = ways[level][level];
        ways[level][level] = gone;
    }
    return 0;
}

static int compare_keys(const void *a, const void *b)
{
    return compare(a, b);
}

/* The keys of a run that go with their change. */
static int add_gone(struct past_notes *notes, const struct past_run *run,
                    const struct past_place *place)
{
    struct past_gone **ways[PAST_LEVELS];
    struct gone_key *keys;
    size_t count = 0;
    int rc = 0;

    if (run->going == 0) {
        return 0;
    }
    keys = bop_alloc_array(notes->allocator, run->going, sizeof(*keys));
    if (!keys) {
        return BOP_ENOMEM;
    }
    for (size_t at = 0; at < run->bytes.size;) {
        struct past_note note = bop__past_run_at(run, at, &at);

        if (note.goes && past_is_beyond(place, note.table, note.key)) {
            keys[count++] = (struct gone_key){.table = note.table, .key = note.key};
        }
    }
    qsort(keys, count, sizeof(*keys), compare_keys);
    for (unsigned level = 0; level < PAST_LEVELS; level++) {
        ways[level] = notes->gone;
    }
    for (size_t n = 0; n < count && rc == 0; n++) {
        rc = insert(notes, ways, &keys[n]);
    }
    bop_free(notes->allocator, keys, run->going * sizeof(*keys));
    return rc;
}

bool bop__past_notes_gone(const struct past_notes *notes, enum machine_table *out_table,
                          struct bop_slice *out_key)
{
    struct gone_key key;

    if (!notes->gone[0]) {
        return false;
    }
    key = key_of(notes->gone[0]);
    *out_table = key.table;
    *out_key = key.key;
    return true;
}

void bop__past_notes_drop_gone(struct past_notes *notes)
{
    struct past_gone *gone = notes->gone[0];

    for (unsigned level = 0; level < gone->levels; level++) {
        notes->gone[level] = gone->next[level];
    }
    notes->bytes -= gone_bytes(gone);
    bop_free(notes->allocator, gone, gone_bytes(gone));
}

/* ---- All of them ---- */

void bop__past_notes_init(struct past_notes *notes, struct bop_allocator *allocator)
{
    *notes = (struct past_notes){.allocator = allocator};
}

void bop__past_notes_deinit(struct past_notes *notes)
{
    while (notes->gone[0]) {
        bop__past_notes_drop_gone(notes);
    }
    for (size_t n = 0; n < notes->run_count; n++) {
        bop_buf_deinit(&notes->runs[n].bytes);
    }
    bop_free(notes->allocator, notes->runs, notes->run_capacity * sizeof(*notes->runs));
    bop_free(notes->allocator, notes->slots, notes->slot_count * sizeof(*notes->slots));
}

static int runs_reserve(struct past_notes *notes)
{
    size_t capacity = notes->run_capacity == 0 ? 64 : 2 * notes->run_capacity;
    struct past_run *runs;

    if (notes->run_count < notes->run_capacity) {
        return 0;
    }
    if (notes->run_count == RUNS_MAX) {
        return BOP_ENOMEM;
    }
    runs = bop_realloc(notes->allocator, notes->runs, notes->run_capacity * sizeof(*runs),
                       capacity * sizeof(*runs));
    if (!runs) {
        return BOP_ENOMEM;
    }
    notes->runs = runs;
    notes->run_capacity = capacity;
    return 0;
}

/* Those of the newest run. */
static void index_run(struct past_notes *notes, const struct past_place *place)
{
    const struct past_run *run = &notes->runs[notes->run_count - 1];

    for (size_t at = 0, next; at < run->bytes.size; at = next) {
        struct past_note note = bop__past_run_at(run, at, &next);
        uint32_t hash;
        uint64_t *slot;

        if (!past_is_beyond(place, note.table, note.key)) {
            continue;
        }
        hash = past_hash(note.table, note.key);
        slot = slot_find(notes, note.table, note.key, hash);
        if (*slot == 0) {
            *slot = (uint64_t)hash << 32 >> TAG_SHIFT << TAG_SHIFT |
                    (uint64_t)(notes->run_count - 1) << OFFSET_BITS | (at + 1);
            notes->count++;
        }
    }
}

int bop__past_notes_add(struct past_notes *notes, struct past_run *run,
                        const struct past_place *place)
{
    int rc;

    if (run->count == 0) {
        return 0;
    }
    rc = slots_reserve(notes, run->count);
    if (rc == 0) {
        rc = runs_reserve(notes);
    }
    if (rc == 0) {
        rc = add_gone(notes, run, place);
    }
    if (rc < 0) {
        run_empty(run);
        return rc;
    }
    notes->bytes += run->bytes.capacity;
    notes->runs[notes->run_count++] = *run;
    *run = (struct past_run){.count = 0};
    bop_buf_init(&run->bytes, notes->allocator, 0);
    index_run(notes, place);
    return 0;
}
