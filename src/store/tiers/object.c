/*
 * Packed segments as objects: reading ranges, moving whole ones, comparing what
 * is there with what should be; and digests.
 */
#include <string.h>

#include <openssl/evp.h>

#include <bop/error.h>

#include "internal.h"

/* ---- Digests ---- */

int bop__sha256(const void *bytes, size_t size, uint8_t out_digest[32])
{
    return EVP_Digest(bytes, size, out_digest, NULL, EVP_sha256(), NULL) == 1 ? 0 : BOP_ENOMEM;
}

void bop__hex(const uint8_t *bytes, size_t size, char *out_text)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < size; i++) {
        out_text[2 * i] = digits[bytes[i] >> 4];
        out_text[2 * i + 1] = digits[bytes[i] & 15];
    }
    out_text[2 * size] = '\0';
}

static EVP_MD_CTX *digest_begin(void)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();

    if (digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(digest);
        return NULL;
    }
    return digest;
}

static int digest_file(struct bop_tiers *tiers, EVP_MD_CTX *digest, int fd, uint64_t size,
                       uint8_t *piece)
{
    for (uint64_t at = 0; at < size;) {
        size_t part = (size_t)bop_min_u64(BOP__PIECE_BYTES, size - at);
        int rc = bop_fs_read_exact(tiers->options.fs, fd, piece, part, at);

        if (rc < 0) {
            return rc;
        }
        if (EVP_DigestUpdate(digest, piece, part) != 1) {
            return BOP_ENOMEM;
        }
        at += part;
    }
    return 0;
}

int bop__sha256_file(struct bop_tiers *tiers, int fd, uint64_t size, uint8_t out_digest[32],
                     struct bop_error *err)
{
    struct bop_allocator *allocator = tiers->allocator;
    uint8_t *piece;
    EVP_MD_CTX *digest;
    int rc = BOP_ENOMEM;

    piece = bop_alloc(allocator, BOP__PIECE_BYTES);
    digest = digest_begin();
    if (piece && digest) {
        rc = digest_file(tiers, digest, fd, size, piece);
    }
    if (rc == 0 && EVP_DigestFinal_ex(digest, out_digest, NULL) != 1) {
        rc = BOP_ENOMEM;
    }
    EVP_MD_CTX_free(digest);
    if (piece) {
        bop_free(allocator, piece, BOP__PIECE_BYTES);
    }
    return rc < 0 ? bop_error_set(err, rc, "compute the digest of a file") : 0;
}

/* ---- Whole objects ---- */

int bop__object_head(struct bop_tiers *tiers, const struct bop__object_facts *facts,
                     struct bop_object_info *out_info, struct bop_error *err)
{
    struct bop_object_store *objects = tiers->options.objects;
    int rc = objects->head(objects, facts->key, out_info, err);

    if (rc < 0) {
        return rc;
    }
    if (out_info->size != facts->size) {
        return bop_error_set(err, BOP_ECORRUPT,
                             "object %s has %" PRIu64 " bytes instead of %" PRIu64, facts->key,
                             out_info->size, facts->size);
    }
    if (out_info->sha256_known && facts->sha256 &&
        memcmp(out_info->sha256, facts->sha256, sizeof(out_info->sha256)) != 0) {
        return bop_error_set(err, BOP_ECORRUPT, "object %s has another digest", facts->key);
    }
    return 0;
}

int bop__object_get(struct bop_tiers *tiers, const char *key, uint64_t offset, size_t size,
                    struct bop_buf *out, struct bop_error *err)
{
    struct bop_object_store *objects = tiers->options.objects;
    size_t before = out->size;
    int rc = objects->get(objects, key, offset, size, out, err);

    if (rc < 0) {
        return rc;
    }
    if (out->size - before != size) {
        size_t got = out->size - before;

        out->size = before;
        return bop_error_set(err, BOP_ECORRUPT,
                             "object %s gave %zu of %zu bytes at offset %" PRIu64, key, got, size,
                             offset);
    }
    return 0;
}

static int copy_piece(struct bop_tiers *tiers, const struct bop__object_facts *facts, int fd,
                      uint64_t at, EVP_MD_CTX *digest, struct bop_buf *piece, struct bop_error *err)
{
    size_t part = (size_t)bop_min_u64(BOP__PIECE_BYTES, facts->size - at);
    int rc;

    bop_buf_clear(piece);
    rc = bop__object_get(tiers, facts->key, at, part, piece, err);
    if (rc < 0) {
        return rc;
    }
    if (EVP_DigestUpdate(digest, piece->data, part) != 1) {
        return bop_error_set(err, BOP_ENOMEM, "compute the digest of %s", facts->key);
    }
    rc = fd < 0 ? 0 : bop_fs_write_all(tiers->options.fs, fd, piece->data, part, at);
    return rc < 0 ? bop_error_set(err, rc, "write what object %s holds", facts->key) : 0;
}

int bop__object_copy(struct bop_tiers *tiers, const struct bop__object_facts *facts, int fd,
                     const _Atomic bool *cancel, struct bop_error *err)
{
    EVP_MD_CTX *digest = digest_begin();
    uint8_t sha256[32];
    struct bop_buf piece;
    int rc = 0;

    if (!digest) {
        return bop_error_set(err, BOP_ENOMEM, "read object %s", facts->key);
    }
    bop_buf_init(&piece, tiers->allocator, 0);
    for (uint64_t at = 0; rc == 0 && at < facts->size; at += BOP__PIECE_BYTES) {
        rc = cancel && atomic_load_explicit(cancel, memory_order_relaxed)
                 ? bop_error_set(err, BOP_ECANCELED, "read object %s", facts->key)
                 : copy_piece(tiers, facts, fd, at, digest, &piece, err);
    }
    bop_buf_deinit(&piece);
    if (rc == 0 && EVP_DigestFinal_ex(digest, sha256, NULL) != 1) {
        rc = bop_error_set(err, BOP_ENOMEM, "compute the digest of %s", facts->key);
    }
    EVP_MD_CTX_free(digest);
    if (rc == 0 && facts->sha256 && memcmp(sha256, facts->sha256, sizeof(sha256)) != 0) {
        rc = bop_error_set(err, BOP_ECORRUPT, "object %s holds other bytes than were put",
                           facts->key);
    }
    return rc;
}

/* ---- Ranges, for readers ---- */

struct object_packed {
    struct bop__packed packed;
    struct bop_tiers *tiers;
    struct bop_allocator *allocator;
    struct bop__tiered *segment;
    char *key;
    enum bop__object_use use;
    struct bop_buf ahead; /* What was read last, and more behind it. */
    uint64_t ahead_offset;
    uint64_t next_offset; /* Where a read goes on from the last one. */
};

static struct object_packed *object_of(struct bop__packed *packed)
{
    return BOP_CONTAINER_OF(packed, struct object_packed, packed);
}

/* Readers on threads of their own wait for each other, so that memory has a bound. */
static void get_begin(struct bop_tiers *tiers)
{
    pthread_mutex_lock(&tiers->lock);
    while (tiers->gets >= BOP__GETS_MAX) {
        pthread_cond_wait(&tiers->get_ended, &tiers->lock);
    }
    tiers->gets++;
    pthread_mutex_unlock(&tiers->lock);
}

static void get_end(struct bop_tiers *tiers)
{
    pthread_mutex_lock(&tiers->lock);
    tiers->gets--;
    pthread_cond_signal(&tiers->get_ended);
    pthread_mutex_unlock(&tiers->lock);
}

static bool is_ahead(const struct object_packed *object, uint64_t offset, size_t size)
{
    return offset >= object->ahead_offset &&
           offset + size <= object->ahead_offset + object->ahead.size;
}

static int reader_read(struct object_packed *object, uint64_t offset, size_t size,
                       struct bop_error *err)
{
    struct bop_tiers *tiers = object->tiers;
    size_t more = offset == object->next_offset ? size * (1 + tiers->options.read_ahead) : size;
    int rc;

    more = (size_t)bop_min_u64(more, object->packed.size - offset);
    bop_buf_clear(&object->ahead);
    object->ahead_offset = offset;
    get_begin(tiers);
    rc = bop__object_get(tiers, object->key, offset, more, &object->ahead, err);
    get_end(tiers);
    bop__count(tiers, BOP__COUNT_FETCHES, 1);
    if (rc < 0) {
        bop_buf_clear(&object->ahead);
        bop__count(tiers, BOP__COUNT_FETCH_FAILURES, 1);
    }
    return rc;
}

static int object_read(struct bop__packed *self, uint64_t offset, size_t size, struct bop_buf *out,
                       struct bop_error *err)
{
    struct object_packed *object = object_of(self);
    int rc = 0;

    if (offset > self->size || size > self->size - offset) {
        return bop_error_set(err, BOP_ECORRUPT, "object %s ends before offset %" PRIu64,
                             object->key, offset + size);
    }
    if (object->use != BOP__OBJECT_READER) {
        return bop__object_get(object->tiers, object->key, offset, size, out, err);
    }
    if (!is_ahead(object, offset, size)) {
        rc = reader_read(object, offset, size, err);
    }
    if (rc < 0) {
        return rc;
    }
    object->next_offset = offset + size;
    rc = bop_buf_append(out, object->ahead.data + (offset - object->ahead_offset), size);
    return rc < 0 ? bop_error_set(err, rc, "read object %s", object->key) : 0;
}

/* Note what is wanted; the owner sees to it. */
static int object_ask(struct bop__packed *self, uint64_t offset, size_t size, uint64_t frame)
{
    struct object_packed *object = object_of(self);
    struct bop__tiered *segment = object->segment;
    struct bop_tiers *tiers = object->tiers;
    uint64_t now_us = bop__tiers_now_us(tiers);
    int code = BOP_EHYDRATING;

    BOP_IGNORE(offset);
    pthread_mutex_lock(&tiers->lock);
    if (now_us < segment->fetch_until_us) {
        code = segment->fetch_code;
    } else {
        unsigned i = 0;

        while (i < segment->wanted_count && segment->wanted[i].frame != frame) {
            i++;
        }
        if (i == segment->wanted_count && i < BOP__WANTED_MAX) {
            segment->wanted[i] = (struct bop__wanted){frame, size, now_us};
            segment->wanted_count++;
        }
    }
    pthread_mutex_unlock(&tiers->lock);
    if (code == BOP_EHYDRATING) {
        bop__tiers_wake(tiers);
    }
    return code;
}

static void object_close(struct bop__packed *self)
{
    struct object_packed *object = object_of(self);

    bop_buf_deinit(&object->ahead);
    bop_free(object->allocator, object->key, strlen(object->key) + 1);
    bop_free(object->allocator, object, sizeof(*object));
}

int bop__object_open(struct bop__tiered *segment, const struct bop__object_facts *facts,
                     enum bop__object_use use, struct bop__packed **out_packed)
{
    struct bop_tiers *tiers = segment->archive->tiers;
    struct bop_allocator *allocator = tiers->allocator;
    struct object_packed *object = bop_alloc_zeroed(allocator, sizeof(*object));
    size_t key_size = strlen(facts->key) + 1;

    if (!object) {
        return BOP_ENOMEM;
    }
    object->key = bop_alloc(allocator, key_size);
    if (!object->key) {
        bop_free(allocator, object, sizeof(*object));
        return BOP_ENOMEM;
    }
    memcpy(object->key, facts->key, key_size);
    object->tiers = tiers;
    object->allocator = allocator;
    object->segment = segment;
    object->use = use;
    object->next_offset = UINT64_MAX;
    bop_buf_init(&object->ahead, tiers->allocator, 0);
    object->packed = (struct bop__packed){.tier = BOP_AOF_COLD,
                                          .name = object->key,
                                          .size = facts->size,
                                          .file_number = facts->number,
                                          .read = object_read,
                                          .ask = use == BOP__OBJECT_ASKING ? object_ask : NULL,
                                          .close = object_close};
    *out_packed = &object->packed;
    return 0;
}
