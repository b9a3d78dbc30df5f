/* The records of the state machine's tables, as machine_record.h says. */
#include <openssl/evp.h>

#include "machine_internal.h"

/* ---- Position ---- */

void bop__machine_position_encode(uint8_t out_bytes[MACHINE_POSITION_SIZE],
                                  const struct machine_position *position)
{
    bop_store_u64(out_bytes, position->index);
    bop_store_u64(out_bytes + 8, position->term);
    bop_store_u64(out_bytes + 16, position->digest);
    bop_store_u64(out_bytes + 24, position->time_ms);
    bop_store_u64(out_bytes + 32, position->conf_index);
}

int bop__machine_position_decode(struct bop_slice bytes, struct machine_position *out_position)
{
    struct machine_position position;

    if (bytes.size != MACHINE_POSITION_SIZE) {
        return BOP_ECORRUPT;
    }
    position.index = bop_load_u64(bytes.data);
    position.term = bop_load_u64(bytes.data + 8);
    position.digest = bop_load_u64(bytes.data + 16);
    position.time_ms = bop_load_u64(bytes.data + 24);
    position.conf_index = bop_load_u64(bytes.data + 32);
    if (position.conf_index > position.index) {
        return BOP_ECORRUPT;
    }
    *out_position = position;
    return 0;
}

/* ---- Collections ---- */

void bop__machine_collection_encode(uint8_t out_bytes[MACHINE_COLLECTION_SIZE],
                                    const struct machine_collection_record *record)
{
    bop_store_u32(out_bytes, record->id);
    bop_store_u64(out_bytes + 4, record->entries);
    bop_store_u64(out_bytes + 12, record->created);
}

int bop__machine_collection_decode(struct bop_slice bytes,
                                   struct machine_collection_record *out_record)
{
    if (bytes.size != MACHINE_COLLECTION_SIZE) {
        return BOP_ECORRUPT;
    }
    out_record->id = bop_load_u32(bytes.data);
    out_record->entries = bop_load_u64(bytes.data + 4);
    out_record->created = bop_load_u64(bytes.data + 12);
    return out_record->id > 0 ? 0 : BOP_ECORRUPT;
}

/* ---- Entries ---- */

int bop__machine_key_make(uint32_t id, struct bop_slice key, struct machine_key *out_key)
{
    uint8_t *at = out_key->bytes + MACHINE_MAP_ID_SIZE;

    machine_store_be32(out_key->bytes, id);
    if (key.size <= MACHINE_SHORT_KEY_MAX) {
        if (key.size > 0) {
            memcpy(at, key.data, key.size);
        }
        out_key->size = MACHINE_MAP_ID_SIZE + key.size;
        return 0;
    }
    memcpy(at, key.data, MACHINE_LONG_PREFIX);
    out_key->size = BOP_KV_KEY_MAX;
    /* The library fails for want of memory only. */
    return EVP_Digest(key.data, key.size, at + MACHINE_LONG_PREFIX, NULL, EVP_sha256(), NULL) == 1
               ? 0
               : BOP_ENOMEM;
}

int bop__machine_entry_decode(struct bop_slice store_key, struct bop_slice bytes,
                              struct machine_entry *out_entry)
{
    struct bop_reader reader = bop_reader(bytes);
    struct machine_entry entry;

    if (store_key.size < MACHINE_MAP_ID_SIZE) {
        return BOP_ECORRUPT;
    }
    entry.version = bop_read_u64(&reader);
    entry.deadline_ms = 0;
    if (entry.version & MACHINE_VERSION_DEADLINE) {
        entry.version &= ~MACHINE_VERSION_DEADLINE;
        entry.deadline_ms = bop_read_u64(&reader);
        if (entry.deadline_ms == 0) {
            return BOP_ECORRUPT;
        }
    }
    if (store_key.size < BOP_KV_KEY_MAX) {
        entry.key = bop_slice(store_key.data + MACHINE_MAP_ID_SIZE,
                              store_key.size - MACHINE_MAP_ID_SIZE);
    } else {
        entry.key = bop_read_bytes(&reader);
        if (entry.key.size <= MACHINE_SHORT_KEY_MAX || entry.key.size > MACHINE_ENTRY_KEY_MAX) {
            return BOP_ECORRUPT;
        }
    }
    entry.value = bop_read_raw(&reader, bop_reader_left(&reader));
    if (reader.failed || entry.value.size > BOP_VALUE_MAX) {
        return BOP_ECORRUPT;
    }
    *out_entry = entry;
    return 0;
}

int bop__machine_entry_encode(const struct machine_key *store_key,
                              const struct machine_entry *entry, struct bop_buf *buf)
{
    struct bop_writer writer = bop_writer(buf);

    bop_buf_clear(buf);
    if (entry->deadline_ms == 0) {
        bop_write_u64(&writer, entry->version);
    } else {
        bop_write_u64(&writer, entry->version | MACHINE_VERSION_DEADLINE);
        bop_write_u64(&writer, entry->deadline_ms);
    }
    if (store_key->size == BOP_KV_KEY_MAX) {
        bop_write_bytes(&writer, entry->key);
    }
    bop_write_raw(&writer, entry->value);
    return writer.code;
}

/* ---- Counters ---- */

void bop__machine_counter_encode(uint8_t out_bytes[MACHINE_COUNTER_SIZE],
                                 const struct machine_counter *counter)
{
    bop_store_u64(out_bytes, (uint64_t)counter->value);
    bop_store_u64(out_bytes + 8, counter->created);
}

int bop__machine_counter_decode(struct bop_slice bytes, struct machine_counter *out_counter)
{
    if (bytes.size != MACHINE_COUNTER_SIZE) {
        return BOP_ECORRUPT;
    }
    out_counter->value = (int64_t)bop_load_u64(bytes.data);
    out_counter->created = bop_load_u64(bytes.data + 8);
    return 0;
}

/* ---- Sessions ---- */

size_t bop__machine_session_encode(uint8_t out_bytes[MACHINE_SESSION_SIZE_MAX],
                                   const struct machine_session_record *record)
{
    bop_store_u32(out_bytes, record->timeout_ms);
    memcpy(out_bytes + 4, record->token, BOP_TOKEN_SIZE);
    bop_store_u64(out_bytes + 4 + BOP_TOKEN_SIZE, record->opened_ms);
    if (record->grace_ms == 0) {
        return MACHINE_SESSION_SIZE;
    }
    bop_store_u32(out_bytes + MACHINE_SESSION_SIZE, record->grace_ms);
    return MACHINE_SESSION_SIZE_MAX;
}

int bop__machine_session_decode(struct bop_slice bytes, struct machine_session_record *out_record)
{
    if (bytes.size != MACHINE_SESSION_SIZE && bytes.size != MACHINE_SESSION_SIZE_MAX) {
        return BOP_ECORRUPT;
    }
    out_record->grace_ms = 0;
    if (bytes.size == MACHINE_SESSION_SIZE_MAX) {
        out_record->grace_ms = bop_load_u32(bytes.data + MACHINE_SESSION_SIZE);
        if (out_record->grace_ms == 0) {
            return BOP_ECORRUPT; /* It would have been left out. */
        }
    }
    out_record->timeout_ms = bop_load_u32(bytes.data);
    memcpy(out_record->token, bytes.data + 4, BOP_TOKEN_SIZE);
    out_record->opened_ms = bop_load_u64(bytes.data + 4 + BOP_TOKEN_SIZE);
    return out_record->timeout_ms >= MACHINE_SESSION_TIMEOUT_MIN_MS &&
                   out_record->timeout_ms <= MACHINE_SESSION_TIMEOUT_MAX_MS
               ? 0
               : BOP_ECORRUPT;
}

/* ---- Replies ---- */

size_t bop__machine_chunk_encode(uint8_t out_bytes[MACHINE_CHUNK_MAX],
                                 const struct machine_chunk *chunk)
{
    uint8_t *at = out_bytes + 16;

    bop_store_u64(out_bytes, chunk->acked);
    bop_store_u64(out_bytes + 8, chunk->applied);
    for (uint64_t left = chunk->applied; left != 0; left &= left - 1) {
        const struct machine_reply *reply = &chunk->replies[__builtin_ctzll(left)];

        *at++ = reply->status;
        *at++ = reply->size;
        if (reply->size == MACHINE_RESULT_LARGE) {
            continue;
        }
        /* All of it, for a copy of constant size is an instruction or two; the next one overwrites
         * what is too much. */
        memcpy(at, reply->result, MACHINE_RESULT_MAX);
        at += reply->size;
    }
    return (size_t)(at - out_bytes);
}

int bop__machine_chunk_decode(struct bop_slice bytes, struct machine_chunk *out_chunk)
{
    struct bop_reader reader = bop_reader(bytes);

    out_chunk->acked = bop_read_u64(&reader);
    out_chunk->applied = bop_read_u64(&reader);
    for (uint64_t left = out_chunk->applied; left != 0; left &= left - 1) {
        struct machine_reply *reply = &out_chunk->replies[__builtin_ctzll(left)];
        struct bop_slice result;

        reply->status = bop_read_u8(&reader);
        reply->size = bop_read_u8(&reader);
        if (reply->size == MACHINE_RESULT_LARGE) {
            continue;
        }
        result = bop_read_raw(&reader, reply->size);
        if (reader.failed || reply->size > MACHINE_RESULT_MAX) {
            return BOP_ECORRUPT;
        }
        if (result.size > 0) {
            memcpy(reply->result, result.data, result.size);
        }
    }
    return bop_reader_done(&reader) && out_chunk->applied != 0 ? 0 : BOP_ECORRUPT;
}

void bop__machine_chunk_key(uint8_t out_key[MACHINE_CHUNK_KEY], uint64_t session, uint64_t number)
{
    machine_store_be64(out_key, session);
    machine_store_be64(out_key + 8, number);
}

/* ---- Garbage ---- */

int bop__machine_garbage_decode(struct bop_slice bytes, uint64_t *out_left)
{
    if (bytes.size != MACHINE_GARBAGE_SIZE) {
        return BOP_ECORRUPT;
    }
    *out_left = bop_load_u64(bytes.data);
    return *out_left > 0 ? 0 : BOP_ECORRUPT;
}

/* ---- All of them ---- */

static int check_name(struct bop_slice key)
{
    return key.size > 0 && key.size <= BOP_NAME_MAX && bop_slice_is_utf8(key) ? 0 : BOP_ECORRUPT;
}

static int check_entry(struct bop_slice key, struct bop_slice value)
{
    struct machine_entry entry;
    struct machine_key made;
    int rc = bop__machine_entry_decode(key, value, &entry);

    if (rc == 0 && key.size == BOP_KV_KEY_MAX) {
        rc = bop__machine_key_make(0, entry.key, &made);
        if (rc == 0 && memcmp(made.bytes + MACHINE_MAP_ID_SIZE, key.data + MACHINE_MAP_ID_SIZE,
                              BOP_KV_KEY_MAX - MACHINE_MAP_ID_SIZE) != 0) {
            rc = BOP_ECORRUPT;
        }
    }
    return rc;
}

static bool known_kind(uint8_t kind, uint8_t last)
{
    return kind >= 1 && kind <= last;
}

static int check_deadline(struct bop_slice key, struct bop_slice value)
{
    struct bop_reader reader = bop_reader(value);
    struct bop_slice name;

    if (key.size < MACHINE_DEADLINE_KEY_MIN || key.size > MACHINE_DEADLINE_KEY_MAX ||
        !known_kind(key.data[8], DEADLINE_LOCK)) {
        return BOP_ECORRUPT;
    }
    if (key.data[8] == DEADLINE_LOCK) {
        return key.size == MACHINE_DEADLINE_KEY_MIN && value.size == 0 ? 0 : BOP_ECORRUPT;
    }
    name = bop_read_string(&reader);
    bop_read_bytes(&reader);
    return bop_reader_done(&reader) && name.size > 0 && name.size <= BOP_NAME_MAX ? 0
                                                                                  : BOP_ECORRUPT;
}

static int check_meta(struct bop_slice key, struct bop_slice value)
{
    struct machine_position position;

    if (bop_slice_equal(key, bop_slice_cstr(MACHINE_META_CONF))) {
        return value.size <= MACHINE_CONF_MAX ? 0 : BOP_ECORRUPT;
    }
    if (bop_slice_equal(key, bop_slice_cstr(MACHINE_META_FORMAT))) {
        if (value.size != 4) {
            return BOP_ECORRUPT;
        }
        return bop_load_u32(value.data) >= MACHINE_FORMAT_MIN &&
                       bop_load_u32(value.data) <= MACHINE_FORMAT
                   ? 0
                   : BOP_EVERSION;
    }
    if (bop_slice_equal(key, bop_slice_cstr(MACHINE_META_LEVEL))) {
        if (value.size != 4 || bop_load_u32(value.data) < MACHINE_LEVEL_MIN) {
            return BOP_ECORRUPT;
        }
        return bop_load_u32(value.data) <= MACHINE_LEVEL ? 0 : BOP_EVERSION;
    }
    if (bop_slice_equal(key, bop_slice_cstr(MACHINE_META_MAP_NEXT))) {
        return value.size == 4 && bop_load_u32(value.data) > 0 ? 0 : BOP_ECORRUPT;
    }
    if (bop_slice_equal(key, bop_slice_cstr(MACHINE_META_POSITION))) {
        return bop__machine_position_decode(value, &position);
    }
    return BOP_ECORRUPT;
}

int bop__machine_record_check(enum machine_table table, struct bop_slice key,
                              struct bop_slice value)
{
    struct machine_collection_record collection;
    uint64_t left;
    struct machine_counter counter;
    struct machine_session_record session;
    struct machine_chunk chunk;
    int rc;

    switch (table) {
    case MACHINE_MAPS:
    case MACHINE_SETS:
    case MACHINE_MULTIMAPS:
    case MACHINE_GROUPS:
    case MACHINE_REGISTRIES:
        rc = check_name(key);
        return rc ? rc : bop__machine_collection_decode(value, &collection);
    case MACHINE_ENTRIES:
        return check_entry(key, value);
    case MACHINE_COUNTERS:
        rc = check_name(key);
        return rc ? rc : bop__machine_counter_decode(value, &counter);
    case MACHINE_SESSIONS:
        if (key.size != 8 || machine_load_be64(key.data) == 0) {
            return BOP_ECORRUPT;
        }
        return bop__machine_session_decode(value, &session);
    case MACHINE_REPLIES:
        return key.size == MACHINE_CHUNK_KEY ? bop__machine_chunk_decode(value, &chunk)
                                             : BOP_ECORRUPT;
    case MACHINE_RESULTS:
        return key.size == MACHINE_CHUNK_KEY ? 0 : BOP_ECORRUPT;
    case MACHINE_OWNED:
        if (key.size != MACHINE_OWNED_KEY || !known_kind(key.data[8], OWNED_MEMBER)) {
            return BOP_ECORRUPT;
        }
        if (bop_load_u32(key.data + 9) == 0) {
            return value.size == 4 ? 0 : BOP_ECORRUPT; /* How many. */
        }
        return key.data[8] == OWNED_REGISTRATION ? bop__machine_registration_owned_check(value) : 0;
    case MACHINE_DEADLINES:
        return check_deadline(key, value);
    case MACHINE_LOCKS:
        rc = check_name(key);
        return rc ? rc : bop__machine_lock_check(value);
    case MACHINE_LOCK_REQUESTS:
        return bop__machine_lock_request_check(key, value);
        return 0;
    case MACHINE_MEMBERS:
        return bop__machine_member_check(key, value);
    case MACHINE_MEMBER_NAMES:
        return bop__machine_member_name_check(key, value);
    case MACHINE_META:
        return check_meta(key, value);
    case MACHINE_GARBAGE:
        if (key.size != MACHINE_GARBAGE_KEY || bop_load_u32(key.data) == 0) {
            return BOP_ECORRUPT;
        }
        return bop__machine_garbage_decode(value, &left);
    }
    return BOP_ECORRUPT;
}
