/* Pairs of a key and a value: machine_pair.h. */
#include <openssl/evp.h>

#include "machine_pair.h"

#define HEAD_MAX  MACHINE_PAIR_HEAD_MAX
#define HEAD_CUT  200
#define HEAD_LONG (HEAD_CUT + 2 + MACHINE_DIGEST_SIZE)

_Static_assert(HEAD_MAX <= MACHINE_LONG_PREFIX, "the store keeps heads as they are");
_Static_assert(HEAD_LONG <= HEAD_MAX, "both forms fit");

/* ---- Pairs as bytes ---- */

int bop__machine_head_make(struct bop_slice key, struct machine_head *out_head)
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

static int decode_cut(const struct machine_entry *entry, struct machine_pair *out_pair)
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

int bop__machine_pair_decode(const struct machine_entry *entry, struct machine_pair *out_pair)
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

int bop__machine_pair_encode(const struct machine_head *head, struct bop_slice key,
                             struct bop_slice value, struct bop_buf *buf,
                             struct machine_entry *out_entry)
{
    struct bop_writer writer = bop_writer(buf);

    bop_buf_clear(buf);
    bop_write_raw(&writer, machine_head_slice(head));
    bop_write_raw(&writer, value);
    *out_entry = (struct machine_entry){.key = bop_buf_slice(buf)};
    if (head->cut) {
        out_entry->value = key;
    }
    return writer.code;
}

int bop__machine_pair_find(struct bop_kv_txn *txn, struct bop_kv_table table,
                           const struct machine_key *store_key, const struct machine_entry *wanted)
{
    struct machine_entry entry;
    int rc = bop__machine_entry_find(txn, table, store_key, wanted->key, &entry);

    return rc == 0 && !bop_slice_equal(entry.value, wanted->value) ? BOP_EEXISTS : rc;
}

/* ---- Walking ---- */

int bop__machine_pairs_begin(struct machine_pairs *pairs, struct machine_view *view,
                             enum collection_kind kind, struct bop_slice name,
                             struct bop_slice head)
{
    struct machine_collection_record record;
    int rc = bop__machine_view_collection(view, kind, name, &record);

    pairs->head = head;
    return rc ? rc
              : bop__machine_walk_begin(&pairs->walk, view->txn, view->tables[MACHINE_ENTRIES],
                                        record.id);
}

static int pairs_found(struct machine_pairs *pairs, int rc)
{
    if (rc == 0 && !machine_begins_with(pairs->walk.key, pairs->head)) {
        rc = BOP_ENOTFOUND;
    }
    return rc ? rc : bop__machine_pair_decode(&pairs->walk.entry, &pairs->pair);
}

int bop__machine_pairs_first(struct machine_pairs *pairs, const struct machine_page *page)
{
    bool again = page && page->again && bop_slice_compare(page->from, pairs->head) >= 0;

    return pairs_found(
        pairs, bop__machine_walk_seek(&pairs->walk, again ? page->from : pairs->head, again));
}

int bop__machine_pairs_next(struct machine_pairs *pairs)
{
    return pairs_found(pairs, bop__machine_walk_next(&pairs->walk));
}

int bop__machine_pairs_next_key(struct machine_pairs *pairs, struct bop_slice head)
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
