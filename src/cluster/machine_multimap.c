/*
 * Multimaps: pairs of a key and a value, each there once, any number of values to a key.
 *
 * A pair is the key of an entry (machine_record.h), in bytes that sort by key and then
 * by value: a head made of the key, and behind it the value.
 *
 *      head of a key      the key with FF behind each 00, then 00 01
 *      if above 240       the first 200 bytes of that, 00 02, SHA-256 of the key; the
 *                         entry's value is the whole key
 *
 * No head is the beginning of another one, so the pairs of a key are those whose store
 * keys begin with its head: they lie side by side, and a walk over them meets no others.
 */
#include <openssl/evp.h>

#include "machine_internal.h"

#define HEAD_MAX  MACHINE_PAIR_HEAD_MAX
#define HEAD_CUT  200
#define HEAD_LONG (HEAD_CUT + 2 + MACHINE_DIGEST_SIZE)

_Static_assert(HEAD_MAX <= MACHINE_LONG_PREFIX, "the store keeps heads as they are");
_Static_assert(HEAD_LONG <= HEAD_MAX, "both forms fit");

struct head {
    bool cut; /* Of a long key. */
    size_t size;
    uint8_t bytes[HEAD_MAX];
};

/* ---- Pairs as bytes ---- */

/* Returns 0 or BOP_ENOMEM. */
static int head_make(struct bop_slice key, struct head *out_head)
{
    uint8_t *at = out_head->bytes;
    size_t size = 0;
    bool fits = true;

    for (size_t i = 0; i < key.size && fits; i++) {
        size_t more = key.data[i] == 0 ? 2 : 1;

        fits = size + more <= HEAD_MAX - 2;
        if (fits) {
            at[size++] = key.data[i];
            if (more == 2) {
                at[size++] = 0xff;
            }
        }
    }
    out_head->cut = !fits;
    if (fits) {
        at[size++] = 0;
        at[size++] = 1;
        out_head->size = size;
        return 0;
    }
    at[HEAD_CUT] = 0;
    at[HEAD_CUT + 1] = 2;
    out_head->size = HEAD_LONG;
    /* The library fails for want of memory only. */
    return EVP_Digest(key.data, key.size, at + HEAD_CUT + 2, NULL, EVP_sha256(), NULL) == 1
               ? 0
               : BOP_ENOMEM;
}

static struct bop_slice head_slice(const struct head *head)
{
    return bop_slice(head->bytes, head->size);
}

/* A pair taken apart. */
struct pair {
    struct bop_slice head; /* Borrowed, as the others; the key perhaps from `unescaped`. */
    struct bop_slice key;
    struct bop_slice value;
    uint8_t unescaped[HEAD_MAX];
};

static int decode_cut(const struct machine_entry *entry, struct pair *out_pair)
{
    if (entry->key.size < HEAD_LONG || entry->key.data[HEAD_CUT] != 0 ||
        entry->key.data[HEAD_CUT + 1] != 2) {
        return BOP_ECORRUPT;
    }
    out_pair->head = bop_slice(entry->key.data, HEAD_LONG);
    out_pair->key = entry->value;
    out_pair->value = bop_slice(entry->key.data + HEAD_LONG, entry->key.size - HEAD_LONG);
    return 0;
}

static int pair_decode(const struct machine_entry *entry, struct pair *out_pair)
{
    const uint8_t *from = entry->key.data;
    size_t i = 0, size = 0;

    if (entry->value.size > 0) {
        return decode_cut(entry, out_pair);
    }
    while (i + 1 < entry->key.size && i + 1 < HEAD_MAX && (from[i] != 0 || from[i + 1] == 0xff)) {
        out_pair->unescaped[size++] = from[i];
        i += from[i] == 0 ? 2 : 1;
    }
    if (i + 2 > entry->key.size || i + 2 > HEAD_MAX || from[i] != 0 || from[i + 1] != 1) {
        return BOP_ECORRUPT;
    }
    i += 2;
    out_pair->head = bop_slice(from, i);
    out_pair->key = bop_slice(out_pair->unescaped, size);
    out_pair->value = bop_slice(from + i, entry->key.size - i);
    return 0;
}

/* The pair as an entry without a version: its key is put into buf. */
static int pair_encode(const struct head *head, const struct bop_operation *operation,
                       struct bop_buf *buf, struct machine_entry *out_entry)
{
    struct bop_writer writer = bop_writer(buf);

    bop_buf_clear(buf);
    bop_write_raw(&writer, head_slice(head));
    bop_write_raw(&writer, operation->value);
    *out_entry = (struct machine_entry){.key = bop_buf_slice(buf)};
    if (head->cut) {
        out_entry->value = operation->key;
    }
    return writer.code;
}

/* Look for a pair. As bop__machine_entry_find(); BOP_EEXISTS for a digest met twice, too. */
static int pair_find(struct bop_kv_txn *txn, struct bop_kv_table table,
                     const struct machine_key *store_key, const struct machine_entry *wanted)
{
    struct machine_entry entry;
    int rc = bop__machine_entry_find(txn, table, store_key, wanted->key, &entry);

    return rc == 0 && !bop_slice_equal(entry.value, wanted->value) ? BOP_EEXISTS : rc;
}

/* ---- Writes ---- */

static int tell(struct machine *machine, enum bop_event_type type,
                const struct bop_operation *operation, uint64_t number)
{
    return bop__machine_event(machine, &(struct bop_event){.type = type,
                                                           .name = operation->name,
                                                           .key = operation->key,
                                                           .value = operation->value,
                                                           .number = (int64_t)number});
}

static int put(struct machine *machine, uint64_t index, struct collection *multimap,
               const struct bop_operation *operation, struct machine_key *store_key,
               struct machine_entry *entry, struct machine_reply *reply)
{
    int rc;

    if (!multimap) {
        rc = bop__machine_collection_make(machine, index, COLLECTION_MULTIMAP, operation->name,
                                          &multimap);
        if (rc < 0 || !multimap) {
            machine_reply_set(reply, BOP_STATUS_BUSY);
            return rc;
        }
        machine_store_be32(store_key->bytes, multimap->record.id);
    }
    entry->version = index;
    rc = tell(machine, BOP_EVENT_MULTIMAP_PUT, operation, 0);
    return rc ? rc : bop__machine_entry_put(machine, multimap, store_key, entry, false);
}

/* A put or a remove of one pair. */
static int change_pair(struct machine *machine, uint64_t index, struct collection *multimap,
                       const struct head *head, const struct bop_operation *operation,
                       struct machine_reply *reply)
{
    bool putting = operation->op == BOP_OP_MULTIMAP_PUT;
    struct machine_key store_key;
    struct machine_entry entry;
    int rc = pair_encode(head, operation, &machine->pair, &entry);

    if (rc == 0) {
        rc = bop__machine_key_make(multimap ? multimap->record.id : 0, entry.key, &store_key);
    }
    if (rc < 0) {
        return rc;
    }
    rc = BOP_ENOTFOUND;
    if (multimap) {
        rc = pair_find(machine->txn, machine->tables[MACHINE_ENTRIES], &store_key, &entry);
    }
    if (rc == BOP_EEXISTS) {
        machine_reply_set(reply, BOP_STATUS_BAD_REQUEST);
        return 0;
    }
    if (rc < 0 && rc != BOP_ENOTFOUND) {
        return rc;
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u8(reply, putting == (rc == BOP_ENOTFOUND));
    if (putting) {
        return rc == 0 ? 0 : put(machine, index, multimap, operation, &store_key, &entry, reply);
    }
    if (rc == BOP_ENOTFOUND) {
        return 0;
    }
    rc = tell(machine, BOP_EVENT_MULTIMAP_REMOVE_VALUE, operation, 0);
    return rc ? rc : bop__machine_entry_delete(machine, multimap, &store_key);
}

/* All pairs of a key. */
static int remove_key(struct machine *machine, struct collection *multimap, const struct head *head,
                      const struct bop_operation *operation, struct machine_reply *reply)
{
    uint64_t removed = 0;
    int rc = 0;

    if (multimap) {
        rc = bop__machine_entries_remove(machine, multimap->record.id, head_slice(head), UINT64_MAX,
                                         &removed);
        if (rc == 0 && removed > multimap->record.entries) {
            rc = BOP_ECORRUPT;
        }
        multimap->record.entries -= removed;
        multimap->dirty = true;
    }
    if (rc == 0 && removed > 0) {
        rc = tell(machine, BOP_EVENT_MULTIMAP_REMOVE, operation, removed);
    }
    machine_reply_set(reply, BOP_STATUS_OK);
    machine_reply_add_u64(reply, removed);
    return rc;
}

int bop__machine_multimap_write(struct machine *machine, uint64_t index,
                                const struct bop_operation *operation,
                                struct machine_reply *out_reply)
{
    struct collection *multimap;
    struct head head;
    int rc;

    if (operation->op == BOP_OP_MULTIMAP_CREATE) {
        return bop__machine_collection_create(machine, index, COLLECTION_MULTIMAP, operation->name,
                                              out_reply);
    }
    if (operation->op == BOP_OP_MULTIMAP_CLEAR) {
        return bop__machine_collection_clear(machine, COLLECTION_MULTIMAP, operation->name,
                                             out_reply);
    }
    rc = bop__machine_collection_find(machine, COLLECTION_MULTIMAP, operation->name, &multimap);
    if (rc == 0) {
        rc = head_make(operation->key, &head);
    }
    if (rc < 0) {
        return rc;
    }
    return operation->op == BOP_OP_MULTIMAP_REMOVE
               ? remove_key(machine, multimap, &head, operation, out_reply)
               : change_pair(machine, index, multimap, &head, operation, out_reply);
}

/* ---- Reads ---- */

/* Walk over pairs of a multimap while they begin with head (empty: all). */
struct pairs {
    struct machine_walk walk;
    struct bop_slice head;
    struct pair pair; /* The one it is at. */
};

static int pairs_found(struct pairs *pairs, int rc)
{
    if (rc == 0 && !machine_begins_with(pairs->walk.key, pairs->head)) {
        rc = BOP_ENOTFOUND;
    }
    return rc ? rc : pair_decode(&pairs->walk.entry, &pairs->pair);
}

/* To the first pair; or, of a page that goes on, to the first behind the last one's end. */
static int pairs_first(struct pairs *pairs, const struct machine_page *page)
{
    bool again = page && page->again && bop_slice_compare(page->from, pairs->head) >= 0;

    return pairs_found(
        pairs, bop__machine_walk_seek(&pairs->walk, again ? page->from : pairs->head, again));
}

static int pairs_next(struct pairs *pairs)
{
    return pairs_found(pairs, bop__machine_walk_next(&pairs->walk));
}

/* To the first pair of the next key. */
static int pairs_next_key(struct pairs *pairs, struct bop_slice head)
{
    uint8_t above[BOP_KV_KEY_MAX];
    size_t size = head.size;

    BOP_ASSERT(size <= sizeof(above));
    memcpy(above, head.data, size);
    /* What comes behind all that begins with it. */
    while (size > 0 && above[size - 1] == 0xff) {
        size--;
    }
    if (size == 0) {
        return BOP_ENOTFOUND;
    }
    above[size - 1]++;
    return pairs_found(pairs, bop__machine_walk_seek(&pairs->walk, bop_slice(above, size), false));
}

/* What of a pair belongs into a page of this operation. */
static int add_pair(struct machine_page *page, enum bop_op op, const struct pairs *pairs)
{
    struct machine_entry entry = {.version = pairs->walk.entry.version};

    if (op == BOP_OP_MULTIMAP_ENTRIES || op == BOP_OP_MULTIMAP_KEYS) {
        entry.key = pairs->pair.key;
    }
    if (op == BOP_OP_MULTIMAP_KEYS) {
        entry.version = 0;
        return bop__machine_page_add(page, pairs->pair.head, &entry);
    }
    entry.value = pairs->pair.value;
    return bop__machine_page_add(page, pairs->walk.key, &entry);
}

static int fill_page(struct machine_page *page, enum bop_op op, struct pairs *pairs)
{
    bool keys = op == BOP_OP_MULTIMAP_KEYS;
    int rc = keys && page->again ? pairs_next_key(pairs, page->from) : pairs_first(pairs, page);

    while (rc == 0) {
        rc = add_pair(page, op, pairs);
        if (rc == 0) {
            rc = keys ? pairs_next_key(pairs, pairs->pair.head) : pairs_next(pairs);
        }
    }
    return rc < 0 && rc != BOP_ENOTFOUND ? rc : 0;
}

/* Begin a walk; BOP_ENOTFOUND if there is no such multimap. */
static int pairs_begin(struct pairs *pairs, struct machine_view *view, struct bop_slice name,
                       struct bop_slice head)
{
    struct machine_collection_record record;
    int rc = bop__machine_view_collection(view, COLLECTION_MULTIMAP, name, &record);

    pairs->head = head;
    return rc ? rc
              : bop__machine_walk_begin(&pairs->walk, view->txn, view->tables[MACHINE_ENTRIES],
                                        record.id);
}

static int scan(struct machine_view *view, const struct bop_operation *operation,
                struct bop_slice head, struct bop_buf *out)
{
    struct machine_page page;
    struct pairs pairs;
    int rc = bop__machine_page_begin(&page, operation, out);

    if (rc != 0) {
        return rc;
    }
    rc = pairs_begin(&pairs, view, operation->name, head);
    if (rc == 0) {
        rc = fill_page(&page, operation->op, &pairs);
        bop__machine_walk_end(&pairs.walk);
    } else if (rc == BOP_ENOTFOUND) {
        rc = 0;
    }
    return rc ? rc : bop__machine_page_end(&page, view->position.index);
}

/* Count pairs up to max: of a head, or with a value, or both by turns. */
static int count(struct machine_view *view, const struct bop_operation *operation,
                 struct bop_slice head, const struct bop_slice *value, uint64_t max,
                 uint64_t *out_count)
{
    struct pairs pairs;
    uint64_t found = 0;
    int rc = pairs_begin(&pairs, view, operation->name, head);

    if (rc == 0) {
        rc = pairs_first(&pairs, NULL);
        while (rc == 0 && found < max) {
            found += !value || bop_slice_equal(pairs.pair.value, *value);
            rc = pairs_next(&pairs);
        }
        bop__machine_walk_end(&pairs.walk);
    }
    *out_count = found;
    return rc < 0 && rc != BOP_ENOTFOUND ? rc : 0;
}

static int contains_entry(struct machine_view *view, const struct bop_operation *operation,
                          const struct head *head, uint64_t *out_count)
{
    struct machine_collection_record record;
    struct machine_key store_key;
    struct machine_entry entry;
    struct bop_buf buf;
    int rc = bop__machine_view_collection(view, COLLECTION_MULTIMAP, operation->name, &record);

    *out_count = 0;
    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    bop_buf_init(&buf, view->allocator, 0);
    rc = pair_encode(head, operation, &buf, &entry);
    if (rc == 0) {
        rc = bop__machine_key_make(record.id, entry.key, &store_key);
    }
    if (rc == 0) {
        rc = pair_find(view->txn, view->tables[MACHINE_ENTRIES], &store_key, &entry);
        *out_count = rc == 0;
    }
    bop_buf_deinit(&buf);
    return rc == BOP_ENOTFOUND || rc == BOP_EEXISTS ? 0 : rc;
}

static int answer(int rc, bool as_number, uint64_t number, struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);

    if (rc < 0) {
        return rc;
    }
    if (as_number) {
        bop_write_u64(&writer, number);
    } else {
        bop_write_bool(&writer, number > 0);
    }
    return writer.code ? writer.code : BOP_STATUS_OK;
}

int bop__machine_multimap_read(struct machine_view *view, const struct bop_operation *operation,
                               struct bop_buf *out)
{
    struct bop_slice all = bop_slice(NULL, 0);
    struct head head;
    uint64_t number;
    int rc = head_make(operation->key, &head);

    if (rc < 0) {
        return rc;
    }
    switch (operation->op) {
    case BOP_OP_MULTIMAP_GET:
        return scan(view, operation, head_slice(&head), out);
    case BOP_OP_MULTIMAP_KEYS:
    case BOP_OP_MULTIMAP_VALUES:
    case BOP_OP_MULTIMAP_ENTRIES:
        return scan(view, operation, all, out);
    case BOP_OP_MULTIMAP_SIZE:
        return bop__machine_collection_size(view, COLLECTION_MULTIMAP, operation->name, out);
    case BOP_OP_MULTIMAP_KEY_SIZE:
        rc = count(view, operation, head_slice(&head), NULL, UINT64_MAX, &number);
        return answer(rc, true, number, out);
    case BOP_OP_MULTIMAP_CONTAINS_KEY:
        rc = count(view, operation, head_slice(&head), NULL, 1, &number);
        return answer(rc, false, number, out);
    case BOP_OP_MULTIMAP_CONTAINS_VALUE:
        rc = count(view, operation, all, &operation->value, 1, &number);
        return answer(rc, false, number, out);
    case BOP_OP_MULTIMAP_CONTAINS_ENTRY:
        rc = contains_entry(view, operation, &head, &number);
        return answer(rc, false, number, out);
    default:
        return BOP_STATUS_BAD_REQUEST;
    }
}
