/*
 * Entries of listings whose values have parts of their own (enum bop_op says which).
 */
#include "http.h"

/* "sessions" of HTTP names, of locks, members and registrations. */
static void write_session(struct http_json *json, uint64_t session)
{
    bop__json_u64(json, "session", session);
}

void bop__http_entry_name(struct http_json *json, const struct bop_scan_entry *entry)
{
    struct bop_reader reader = bop_reader(entry->value);

    bop__json_text(json, "name", entry->key);
    bop__json_u64(json, "made", entry->version);
    bop__json_i64(json, "size", bop_read_i64(&reader));
}

void bop__http_entry_request(struct http_json *json, const struct bop_scan_entry *entry)
{
    struct bop_reader reader = bop_reader(entry->value);

    bop__json_bytes(json, "label", entry->key);
    bop__json_u64(json, "ticket", entry->version);
    write_session(json, bop_read_u64(&reader));
    bop__json_u64(json, "token", bop_read_u64(&reader));
    bop__json_u64(json, "permits", bop_read_u32(&reader));
}

void bop__http_entry_member(struct http_json *json, const struct bop_scan_entry *entry)
{
    struct bop_reader reader = bop_reader(entry->value);

    bop__json_bytes(json, "member", entry->key);
    bop__json_u64(json, "number", entry->version);
    write_session(json, bop_read_u64(&reader));
    bop__json_bytes(json, "info", bop_read_bytes(&reader));
}

void bop__http_entry_registration(struct http_json *json, const struct bop_scan_entry *entry)
{
    struct bop_reader reader = bop_reader(entry->value);

    if (entry->key.size > 0) {
        bop__json_bytes(json, "address", entry->key);
    }
    write_session(json, bop_read_u64(&reader));
    bop__json_u64(json, "sequence", bop_read_u64(&reader));
}
