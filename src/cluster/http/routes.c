/*
 * What is served. A kind of state is rows in both tables: where its operations lie
 * and what they take, and what their results look like.
 */
#include "http.h"

#define READ  HTTP_RIGHT_READ
#define WRITE HTTP_RIGHT_WRITE
#define ADMIN HTTP_RIGHT_ADMIN
#define KNOWN HTTP_RIGHT_KNOWN
#define NONE  HTTP_RIGHT_NONE

static const struct http_route routes[] = {
    /* Maps. */
    {"GET", "/v1/maps", READ, BOP_OP_NAMES, TAKES_PAGE | TAKES_PREFIX, NULL, BOP_NAME_MAP},
    {"GET", "/v1/maps/{name}", READ, BOP_OP_MAP_SIZE},
    {"POST", "/v1/maps/{name}", WRITE, BOP_OP_MAP_CREATE},
    {"GET", "/v1/maps/{name}/entries", READ, BOP_OP_MAP_RANGE, TAKES_PAGE | TAKES_RANGE},
    {"POST", "/v1/maps/{name}/entries", WRITE, BOP_OP_MAP_PUT_ALL, TAKES_FIELDS},
    {"DELETE", "/v1/maps/{name}/entries", WRITE, BOP_OP_MAP_CLEAR},
    {"GET", "/v1/maps/{name}/entries/{key}", READ, BOP_OP_MAP_GET,
     TAKES_KEY | TAKES_CONDITION | TAKES_TTL},
    {"PUT", "/v1/maps/{name}/entries/{key}", WRITE, BOP_OP_MAP_PUT,
     TAKES_KEY | TAKES_VALUE | TAKES_CONDITION | TAKES_TTL | TAKES_RETURN},
    {"DELETE", "/v1/maps/{name}/entries/{key}", WRITE, BOP_OP_MAP_DELETE,
     TAKES_KEY | TAKES_CONDITION | TAKES_RETURN},
    {"GET", "/v1/maps/{name}/export", READ, BOP_OP_MAP_RANGE, TAKES_RANGE, bop__http_serve_export},
    {"POST", "/v1/maps/{name}/import", WRITE, BOP_OP_MAP_PUT, TAKES_STREAM, bop__http_serve_import},
    /* Sets. */
    {"GET", "/v1/sets", READ, BOP_OP_NAMES, TAKES_PAGE | TAKES_PREFIX, NULL, BOP_NAME_SET},
    {"GET", "/v1/sets/{name}", READ, BOP_OP_SET_SIZE},
    {"POST", "/v1/sets/{name}", WRITE, BOP_OP_SET_CREATE},
    {"GET", "/v1/sets/{name}/members", READ, BOP_OP_SET_SCAN, TAKES_PAGE},
    {"DELETE", "/v1/sets/{name}/members", WRITE, BOP_OP_SET_CLEAR},
    {"GET", "/v1/sets/{name}/members/{member}", READ, BOP_OP_SET_CONTAINS, TAKES_KEY},
    {"PUT", "/v1/sets/{name}/members/{member}", WRITE, BOP_OP_SET_ADD, TAKES_KEY},
    {"DELETE", "/v1/sets/{name}/members/{member}", WRITE, BOP_OP_SET_REMOVE, TAKES_KEY},
    /* Multimaps. */
    {"GET", "/v1/multimaps", READ, BOP_OP_NAMES, TAKES_PAGE | TAKES_PREFIX, NULL,
     BOP_NAME_MULTIMAP},
    {"GET", "/v1/multimaps/{name}", READ, BOP_OP_MULTIMAP_SIZE, TAKES_KEY_QUERY},
    {"POST", "/v1/multimaps/{name}", WRITE, BOP_OP_MULTIMAP_CREATE},
    {"GET", "/v1/multimaps/{name}/contains", READ, BOP_OP_MULTIMAP_CONTAINS_ENTRY,
     TAKES_KEY_QUERY | TAKES_VALUE_QUERY},
    {"GET", "/v1/multimaps/{name}/entries", READ, BOP_OP_MULTIMAP_ENTRIES, TAKES_PAGE},
    {"DELETE", "/v1/multimaps/{name}/entries", WRITE, BOP_OP_MULTIMAP_CLEAR},
    {"GET", "/v1/multimaps/{name}/values", READ, BOP_OP_MULTIMAP_VALUES, TAKES_PAGE},
    {"GET", "/v1/multimaps/{name}/keys", READ, BOP_OP_MULTIMAP_KEYS, TAKES_PAGE},
    {"GET", "/v1/multimaps/{name}/keys/{key}", READ, BOP_OP_MULTIMAP_GET, TAKES_KEY | TAKES_PAGE},
    {"POST", "/v1/multimaps/{name}/keys/{key}", WRITE, BOP_OP_MULTIMAP_PUT,
     TAKES_KEY | TAKES_VALUE},
    {"DELETE", "/v1/multimaps/{name}/keys/{key}", WRITE, BOP_OP_MULTIMAP_REMOVE,
     TAKES_KEY | TAKES_VALUE_QUERY},
    /* Counters. */
    {"GET", "/v1/counters", READ, BOP_OP_NAMES, TAKES_PAGE | TAKES_PREFIX, NULL, BOP_NAME_COUNTER},
    {"GET", "/v1/counters/{name}", READ, BOP_OP_COUNTER_GET},
    {"POST", "/v1/counters/{name}", WRITE, BOP_OP_COUNTER_CREATE},
    {"PUT", "/v1/counters/{name}", WRITE, BOP_OP_COUNTER_SET, TAKES_NUMBER},
    {"DELETE", "/v1/counters/{name}", WRITE, BOP_OP_COUNTER_DELETE},
    {"POST", "/v1/counters/{name}/add", WRITE, BOP_OP_COUNTER_ADD, TAKES_DELTA},
    /* Locks, semaphores, read/write locks: requests belong to the session of the headers. */
    {"GET", "/v1/locks", READ, BOP_OP_NAMES, TAKES_PAGE | TAKES_PREFIX, NULL, BOP_NAME_LOCK},
    {"GET", "/v1/locks/{name}", READ, BOP_OP_LOCK_GET, TAKES_PAGE},
    {"POST", "/v1/locks/{name}", WRITE, BOP_OP_LOCK_CREATE, TAKES_FIELDS},
    {"DELETE", "/v1/locks/{name}", WRITE, BOP_OP_LOCK_DELETE},
    {"POST", "/v1/locks/{name}/acquire", WRITE, BOP_OP_LOCK_ACQUIRE, TAKES_FIELDS},
    {"POST", "/v1/locks/{name}/release", WRITE, BOP_OP_LOCK_RELEASE, TAKES_FIELDS},
    {"POST", "/v1/locks/{name}/adopt", WRITE, BOP_OP_LOCK_ADOPT, TAKES_FIELDS},
    /* Members of groups, which are sessions. */
    {"GET", "/v1/groups", READ, BOP_OP_NAMES, TAKES_PAGE | TAKES_PREFIX, NULL, BOP_NAME_GROUP},
    {"GET", "/v1/groups/{name}/members", READ, BOP_OP_MEMBER_LIST, TAKES_PAGE},
    {"GET", "/v1/groups/{name}/members/{member}", READ, BOP_OP_MEMBER_GET, TAKES_KEY},
    {"PUT", "/v1/groups/{name}/members/{member}", WRITE, BOP_OP_MEMBER_JOIN,
     TAKES_KEY | TAKES_VALUE},
    {"DELETE", "/v1/groups/{name}/members/{member}", WRITE, BOP_OP_MEMBER_LEAVE, TAKES_KEY},
    /* Registrations, of sessions at addresses. */
    {"GET", "/v1/registries", READ, BOP_OP_NAMES, TAKES_PAGE | TAKES_PREFIX, NULL,
     BOP_NAME_REGISTRY},
    {"GET", "/v1/registries/{name}/addresses", READ, BOP_OP_REGISTRATION_LIST, TAKES_PAGE},
    {"GET", "/v1/registries/{name}/addresses/{key}", READ, BOP_OP_REGISTRATION_GET,
     TAKES_KEY | TAKES_PAGE},
    {"PUT", "/v1/registries/{name}/addresses/{key}", WRITE, BOP_OP_REGISTRATION_ADD,
     TAKES_KEY | TAKES_SEQUENCE},
    {"DELETE", "/v1/registries/{name}/addresses/{key}", WRITE, BOP_OP_REGISTRATION_REMOVE,
     TAKES_KEY | TAKES_SEQUENCE},
    /* Sessions. */
    {"POST", "/v1/sessions", KNOWN, 0, TAKES_JSON, bop__http_serve_session_open},
    {"POST", "/v1/sessions/{id}/alive", KNOWN, 0, 0, bop__http_serve_session_alive},
    {"DELETE", "/v1/sessions/{id}", KNOWN, 0, 0, bop__http_serve_session_close},
    /* Everything at once. */
    {"POST", "/v1/transactions", WRITE, BOP_OP_TRANSACTION, TAKES_FIELDS},
    {"GET", "/v1/watch", READ, 0, TAKES_WATCH, bop__http_serve_watch},
    {"POST", "/v1/settle", READ, 0, TAKES_SETTLE, bop__http_serve_settle},
    /* The node and its cluster. */
    {"GET", "/v1/status", KNOWN, 0, 0, bop__http_serve_status},
    {"GET", "/v1/cluster", KNOWN, 0, 0, bop__http_serve_cluster},
    {"GET", "/v1/backup", ADMIN, 0, TAKES_CONSISTENCY, bop__http_serve_backup},
    {"GET", "/v1/openapi.json", NONE, 0, 0, bop__http_serve_openapi},
    {"GET", "/metrics", KNOWN, 0, 0, bop__http_serve_metrics},
    {"GET", "/healthz", NONE, 0, 0, bop__http_serve_healthz},
    {"GET", "/readyz", NONE, 0, 0, bop__http_serve_readyz},
    {"GET", "/debug/state", ADMIN, 0, 0, bop__http_serve_state},
    {"GET", "/debug/log", ADMIN, 0, 0, bop__http_serve_log},
    {"PUT", "/debug/log", ADMIN, 0, TAKES_JSON, bop__http_serve_log_set},
    {"GET", "/debug/heap/profile", ADMIN, 0, 0, bop__http_serve_profile},
    {"POST", "/debug/heap/start", ADMIN, 0, TAKES_SAMPLE, bop__http_serve_profile_start},
    {"POST", "/debug/heap/stop", ADMIN, 0, 0, bop__http_serve_profile_stop},
};

const struct http_route *bop__http_routes(size_t *out_count)
{
    *out_count = BOP_COUNT_OF(routes);
    return routes;
}

static const struct http_form forms[] = {
    [BOP_OP_MAP_PUT] = {SHAPE_PUT, "existed"},
    [BOP_OP_MAP_PUT_TTL] = {SHAPE_PUT, "existed"},
    [BOP_OP_MAP_EXCHANGE] = {SHAPE_PREVIOUS, "existed"},
    [BOP_OP_MAP_TAKE] = {SHAPE_PREVIOUS, "existed"},
    [BOP_OP_MAP_PUT_ALL] = {SHAPE_SIZE, "added"},
    [BOP_OP_MAP_GET_TTL] = {SHAPE_VALUE, NULL},
    [BOP_OP_MAP_DELETE] = {SHAPE_FLAG, "existed"},
    [BOP_OP_MAP_CREATE] = {SHAPE_MADE, "created"},
    [BOP_OP_MAP_CLEAR] = {SHAPE_SIZE, "removed"},
    [BOP_OP_MAP_GET] = {SHAPE_VALUE, NULL},
    [BOP_OP_MAP_SIZE] = {SHAPE_SIZE, "size"},
    [BOP_OP_MAP_RANGE] = {SHAPE_PAGE, "entries", "key", "value", true},

    [BOP_OP_COUNTER_ADD] = {SHAPE_NUMBER, "value"},
    [BOP_OP_COUNTER_CREATE] = {SHAPE_MADE, "created"},
    [BOP_OP_COUNTER_CAS] = {SHAPE_NUMBER, "value"},
    [BOP_OP_COUNTER_SET] = {SHAPE_FLAG, "existed"},
    [BOP_OP_COUNTER_DELETE] = {SHAPE_FLAG, "existed"},
    [BOP_OP_COUNTER_GET] = {SHAPE_NUMBER, "value"},

    [BOP_OP_SET_ADD] = {SHAPE_MADE, "added"},
    [BOP_OP_SET_REMOVE] = {SHAPE_FLAG, "existed"},
    [BOP_OP_SET_CREATE] = {SHAPE_MADE, "created"},
    [BOP_OP_SET_CLEAR] = {SHAPE_SIZE, "removed"},
    [BOP_OP_SET_CONTAINS] = {SHAPE_FLAG, "contained"},
    [BOP_OP_SET_SIZE] = {SHAPE_SIZE, "size"},
    [BOP_OP_SET_SCAN] = {SHAPE_PAGE, "members", "member"},

    [BOP_OP_MULTIMAP_PUT] = {SHAPE_MADE, "added"},
    [BOP_OP_MULTIMAP_REMOVE] = {SHAPE_SIZE, "removed"},
    [BOP_OP_MULTIMAP_REMOVE_VALUE] = {SHAPE_FLAG, "existed"},
    [BOP_OP_MULTIMAP_CREATE] = {SHAPE_MADE, "created"},
    [BOP_OP_MULTIMAP_CLEAR] = {SHAPE_SIZE, "removed"},
    [BOP_OP_MULTIMAP_GET] = {SHAPE_PAGE, "values", NULL, "value"},
    [BOP_OP_MULTIMAP_SIZE] = {SHAPE_SIZE, "size"},
    [BOP_OP_MULTIMAP_KEY_SIZE] = {SHAPE_SIZE, "size"},
    [BOP_OP_MULTIMAP_CONTAINS_KEY] = {SHAPE_FLAG, "contained"},
    [BOP_OP_MULTIMAP_CONTAINS_VALUE] = {SHAPE_FLAG, "contained"},
    [BOP_OP_MULTIMAP_CONTAINS_ENTRY] = {SHAPE_FLAG, "contained"},
    [BOP_OP_MULTIMAP_KEYS] = {SHAPE_PAGE, "keys", "key"},
    [BOP_OP_MULTIMAP_VALUES] = {SHAPE_PAGE, "values", NULL, "value"},
    [BOP_OP_MULTIMAP_ENTRIES] = {SHAPE_PAGE, "entries", "key", "value"},

    [BOP_OP_LOCK_ACQUIRE] = {SHAPE_TICKET, NULL},
    [BOP_OP_LOCK_RELEASE] = {SHAPE_FLAG, "released"},
    [BOP_OP_LOCK_CREATE] = {SHAPE_MADE, "created"},
    [BOP_OP_LOCK_DELETE] = {SHAPE_FLAG, "existed"},
    [BOP_OP_LOCK_ADOPT] = {SHAPE_TICKET, NULL},
    [BOP_OP_LOCK_GET] = {SHAPE_PAGE, "requests", .entry = bop__http_entry_request},
    [BOP_OP_MEMBER_JOIN] = {SHAPE_VERSION, "number"},
    [BOP_OP_MEMBER_LEAVE] = {SHAPE_FLAG, "existed"},
    [BOP_OP_MEMBER_LIST] = {SHAPE_PAGE, "members", .entry = bop__http_entry_member},
    [BOP_OP_MEMBER_GET] = {SHAPE_MEMBER, NULL},
    [BOP_OP_REGISTRATION_ADD] = {SHAPE_MADE, "added"},
    [BOP_OP_REGISTRATION_REMOVE] = {SHAPE_FLAG, "existed"},
    [BOP_OP_REGISTRATION_LIST] = {SHAPE_PAGE, "registrations",
                                  .entry = bop__http_entry_registration},
    [BOP_OP_REGISTRATION_GET] = {SHAPE_PAGE, "registrations",
                                 .entry = bop__http_entry_registration},
    [BOP_OP_NAMES] = {SHAPE_PAGE, "names", .entry = bop__http_entry_name},
    [BOP_OP_TRANSACTION] = {SHAPE_TRANSACTION, NULL},
};

const struct http_form *bop__http_form(enum bop_op op)
{
    return (size_t)op < BOP_COUNT_OF(forms) && forms[op].shape ? &forms[op] : NULL;
}
