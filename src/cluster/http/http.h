/*
 * Shared by the files of the HTTP API.
 *
 *      api.c         the server, and from a request's head to its route
 *      routes.c      the table of routes, and of what operations answer
 *      translate.c   a request's path, query, headers and body -> an operation
 *      fields.c      operations and transactions as JSON
 *      entries.c     entries of listings that have parts
 *      condition.c   If-Match and If-None-Match
 *      answer.c      an operation's result -> status, headers and JSON
 *      problem.c     what went wrong, as application/problem+json
 *      json.c        JSON as it is written; bytes in it; base64
 *      request.c     a request's life: body, replica, answer
 *      authorise.c   who may do what
 *      export.c      a whole map, line by line; import.c: back
 *      backup.c      the whole state as a file
 *      sessions.c    sessions, which writes may belong to
 *      events.c      watches and events as JSON
 *      watch.c       events after a revision, waited for; watch_socket.c: by WebSocket
 *      settle.c      until all who watch have heard
 *      status.c      the node and its cluster; health.c: whether it is well
 *      debug.c       heap profile, log level, state
 *
 * A kind of state is rows in the two tables of routes.c. All up to request.c is
 * free of sockets and of the replica: it is what the fuzzer calls.
 */
#ifndef BOP_CLUSTER_HTTP_H
#define BOP_CLUSTER_HTTP_H

#include <bop/arena.h>
#include <bop/mem.h>
#include <bop/router.h>
#include <bop/watch.h>

#include "../auth.h"
#include "api.h"

/* Bounds. */
#define HTTP_CONNECTIONS_MAX 1024
#define HTTP_TARGET_MAX      (208u * 1024) /* The longest key, all of it percent-encoded. */
#define HTTP_HEAD_MAX        (224u * 1024)
#define HTTP_FIELDS_MAX      (1024u * 1024)       /* Of a JSON body that has values. */
#define HTTP_JSON_MAX        (64u * 1024)         /* Of a JSON body. */
#define HTTP_BODIES_MAX      (256u * 1024 * 1024) /* Held of all requests. */
#define HTTP_LIMIT_DEFAULT   100                  /* Entries in a page. */
#define HTTP_LIMIT_MAX       10000
#define HTTP_DETAIL_MAX      256
#define HTTP_ARENA_BYTES     1024
#define HTTP_WATCH_MS        30000 /* How long a watch waits for an event, unless it says, */
#define HTTP_WATCH_MAX_MS    300000
#define HTTP_SETTLE_MAX_MS   60000
#define HTTP_WATCH_PAGE      (1024u * 1024) /* JSON of events above is answered, not added to. */

/** What a token must allow. */
enum http_right {
    HTTP_RIGHT_NONE,  /* Nothing: everybody may. */
    HTTP_RIGHT_KNOWN, /* Nothing, but it must be one that is known. */
    HTTP_RIGHT_READ,
    HTTP_RIGHT_WRITE,
    HTTP_RIGHT_ADMIN,
};

/* ---- Problems ---- */

enum http_problem_kind {
    HTTP_NO_PROBLEM = 0,
    /* One for each bop_status. */
    HTTP_NOT_FOUND,
    HTTP_CONDITION,
    HTTP_RETRY,
    HTTP_NO_SESSION,
    HTTP_BAD_REQUEST,
    HTTP_TOO_BIG,
    HTTP_BUSY,
    HTTP_NO_ROOM,
    HTTP_STALE,
    HTTP_OVERFLOW,
    HTTP_UNCERTAIN,
    HTTP_REFUSED,
    HTTP_DENIED,
    HTTP_TOO_OLD,
    HTTP_COMPACTED,
    HTTP_NO_VIEW,
    /* HTTP's own. */
    HTTP_NO_ROUTE,
    HTTP_NO_METHOD,
    HTTP_CROSS_ORIGIN,
    HTTP_MISDIRECTED,
    HTTP_NO_TOKEN,
    HTTP_NOT_READY,
    HTTP_FAILED,
    HTTP_PROBLEM_COUNT,
};

struct http_problem {
    enum http_problem_kind kind;
    char detail[HTTP_DETAIL_MAX]; /* A sentence; empty: the title says it all. */
    bool has_version;             /* CONDITION: of what is there. */
    uint64_t version;
    bool has_value; /* CONDITION of a counter: what it is. */
    int64_t value;
    bool has_stored; /* An import that ended early. */
    uint64_t stored;
    bool has_oldest; /* COMPACTED: after which revision there still are all events. */
    uint64_t oldest;
};

/** Set the problem and return -1. */
int bop__http_problem(struct http_problem *out, enum http_problem_kind kind, const char *format,
                      ...) BOP_PRINTF(3, 4);
/** The problem that says the same as a bop_status other than OK. */
enum http_problem_kind bop__http_problem_of_status(uint8_t status);
unsigned bop__http_problem_code(enum http_problem_kind kind);
/** "not-found": the last part of its type. */
const char *bop__http_problem_name(enum http_problem_kind kind);

/* ---- JSON written ---- */

/** Writes to a buffer; code is 0 or the first failure. Commas are its business. */
struct http_json {
    struct bop_buf *buf;
    int code;
    bool comma; /* The next thing needs one in front. */
};

static inline struct http_json bop__http_json(struct bop_buf *buf)
{
    return (struct http_json){.buf = buf};
}

/* name NULL: an element of an array, or the whole document. */
void bop__json_open(struct http_json *json, const char *name, char bracket);
void bop__json_close(struct http_json *json, char bracket);
void bop__json_bool(struct http_json *json, const char *name, bool value);
void bop__json_u64(struct http_json *json, const char *name, uint64_t value);
void bop__json_i64(struct http_json *json, const char *name, int64_t value);
/** What is not UTF-8 in it is replaced. */
void bop__json_text(struct http_json *json, const char *name, struct bop_slice text);
/** "name" if the bytes are UTF-8, else "name64" in base64. */
void bop__json_bytes(struct http_json *json, const char *name, struct bop_slice bytes);
void bop__json_raw(struct http_json *json, const char *text);
/** An object, as a problem's answer is. */
void bop__json_problem(struct http_json *json, const char *name,
                       const struct http_problem *problem);
/** An object for each event, elements of the array that is open. */
void bop__json_events(struct http_json *json, struct bop_slice events);

/** Append in base64 with padding; url: with "-" and "_", without padding. */
BOP_MUST_USE int bop__base64_encode(struct bop_buf *buf, struct bop_slice bytes, bool url);
/** Append what the text stands for. Strict: there is one text for each value. 0, BOP_EMALFORMED,
 * or BOP_ENOMEM. */
BOP_MUST_USE int bop__base64_decode(struct bop_buf *buf, struct bop_slice text, bool url);

/* ---- Routes ---- */

/* Where the parts of an operation come from. */
enum {
    TAKES_KEY = 1 << 0,          /* The rest of the path. */
    TAKES_VALUE = 1 << 1,        /* The body as it is. */
    TAKES_NUMBER = 1 << 2,       /* JSON: {"value": n}, and "expected". */
    TAKES_DELTA = 1 << 3,        /* JSON: {"delta": n}. */
    TAKES_CONDITION = 1 << 4,    /* If-Match, If-None-Match, ?if_value. */
    TAKES_PAGE = 1 << 5,         /* ?cursor, ?limit */
    TAKES_RANGE = 1 << 6,        /* ?prefix, ?from, ?to */
    TAKES_KEY_QUERY = 1 << 7,    /* ?key */
    TAKES_VALUE_QUERY = 1 << 8,  /* ?value */
    TAKES_SAMPLE = 1 << 9,       /* ?sample_bytes */
    TAKES_JSON = 1 << 10,        /* A JSON body, which serve looks at. */
    TAKES_STREAM = 1 << 11,      /* A body that serve takes in pieces. */
    TAKES_FIELDS = 1 << 12,      /* JSON: what the operation has besides its name. */
    TAKES_TTL = 1 << 13,         /* ?ttl_ms of a write, ?ttl=true of a read */
    TAKES_RETURN = 1 << 14,      /* ?return=previous */
    TAKES_SEQUENCE = 1 << 15,    /* ?sequence */
    TAKES_PREFIX = 1 << 16,      /* ?prefix alone */
    TAKES_WATCH = 1 << 17,       /* What a watch is of; or it is opened as a WebSocket. */
    TAKES_CONSISTENCY = 1 << 19, /* ?consistency, of what is no operation. */
    TAKES_SETTLE = 1 << 18,      /* ?kind, ?name, ?key and ?timeout_ms, at most a minute. */
};

struct http_request;

struct http_route {
    const char *method;
    const char *path; /* "{name}" is a segment; "{key}" and "{member}" at the end all the rest. */
    enum http_right right;
    enum bop_op op; /* 0: serve answers. */
    unsigned takes;
    void (*serve)(struct http_request *request);
    enum bop_name_kind kind; /* Of NAMES. */
};

const struct http_route *bop__http_routes(size_t *out_count);

/** How an operation's result looks. */
enum http_shape {
    SHAPE_NONE = 0,
    SHAPE_FLAG,     /* {"existed": true} */
    SHAPE_MADE,     /* {"created": true}, and 201 if so. */
    SHAPE_PUT,      /* {"existed": true, "version": 7} with ETag; 201 if it did not exist. */
    SHAPE_PREVIOUS, /* {"existed": true, "version": 7, "previous": "v"} with ETag. */
    SHAPE_VALUE,    /* The bytes, with ETag; inside a transaction {"version": 7, "value": "v"}. */
    SHAPE_SIZE,     /* {"size": 7} */
    SHAPE_NUMBER,   /* {"value": -7} */
    SHAPE_VERSION,  /* {"number": 7} */
    SHAPE_TICKET,   /* {"ticket": 7, "token": 7, "position": 0} */
    SHAPE_MEMBER,   /* {"number": 7, "session": 8, "info": "i"} */
    SHAPE_PAGE,     /* {"revision": 9, "entries": [...], "cursor": "..."} */
    SHAPE_TRANSACTION, /* {"held": true, "results": [...]} */
};

struct http_form {
    enum http_shape shape;
    const char *member; /* The name of what there is to say, or of the array. */
    const char *key;    /* SHAPE_PAGE: what entries have. NULL: not this. */
    const char *value;
    bool version;
    /* Entries whose value has parts of its own. NULL: as above. */
    void (*entry)(struct http_json *json, const struct bop_scan_entry *entry);
};

/* entries.c */
void bop__http_entry_name(struct http_json *json, const struct bop_scan_entry *entry);
void bop__http_entry_request(struct http_json *json, const struct bop_scan_entry *entry);
void bop__http_entry_member(struct http_json *json, const struct bop_scan_entry *entry);
void bop__http_entry_registration(struct http_json *json, const struct bop_scan_entry *entry);

/** NULL for an operation that no route has. */
const struct http_form *bop__http_form(enum bop_op op);

/* ---- Translating ---- */

/** What is to be watched, as a query or a message says it. */
struct http_watch {
    uint8_t what; /* enum bop_watch_what; 0: not said. */
    uint8_t of;   /* Of NAMES: those of this kind; 0: all. */
    uint8_t flags;
    bool has_key;
    struct bop_slice name;
    struct bop_slice key;
    struct bop_slice prefix;
    struct bop_slice from;
    struct bop_slice to;
    uint64_t session; /* Of SESSION: this one; 0: all. */
    uint64_t revision;
    uint64_t timeout_ms;
};

/** A request as an operation. Slices lie in the arena, or in the body. */
struct http_call {
    struct bop_arena *arena; /* The caller's. */
    const struct http_route *route;
    struct bop_operation operation;
    bool stale;
    bool has_key; /* What may be left out was given. */
    bool has_value;
    bool has_expected;
    bool if_none_match;       /* Of a GET: 304 if it has... */
    bool if_none_any;         /* ...any version, */
    uint64_t if_none_version; /* ...or this one. */
    uint64_t sample_bytes;
    uint64_t session; /* Of a write, by headers, as the next two; 0: none. */
    uint64_t sequence;
    uint64_t acked;
    bool has_token; /* Of that session, by BOP-Token. */
    uint8_t token[BOP_TOKEN_SIZE];
    struct http_watch watch; /* TAKES_WATCH, TAKES_SETTLE; name and bounds are the operation's. */
};

/** The path, query and headers of a request for the route that matches. 0, or -1 with a problem. */
BOP_MUST_USE int bop__http_translate(struct http_call *call, const struct bop_http_head *head,
                                     const struct bop_router_match *match,
                                     struct http_problem *out_problem);
/** Then its body, which is empty where the route takes none. call borrows it. */
BOP_MUST_USE int bop__http_translate_body(struct http_call *call, struct bop_slice body,
                                          struct http_problem *out_problem);
/** The operation's bytes, in out, cleared first; checked as those of every client are. */
BOP_MUST_USE int bop__http_encode(const struct http_call *call, struct bop_buf *out,
                                  struct http_problem *out_problem);
/** A copy in the arena. data NULL: no memory. */
struct bop_slice bop__http_keep(struct http_call *call, struct bop_slice bytes);
/** How large a body this route takes. */
uint64_t bop__http_body_max(const struct http_route *route);

/** fields.c: a body that has what the operation needs besides its name. */
BOP_MUST_USE int bop__http_take_fields(struct http_call *call, struct bop_slice body,
                                       struct http_problem *out_problem);

/* ---- Watches ---- */

/** A message of a client's WebSocket. */
struct http_watch_message {
    enum {
        WATCH_MESSAGE_OPEN,
        WATCH_MESSAGE_CLOSE,
        WATCH_MESSAGE_ACK,
        WATCH_MESSAGE_SESSION,
    } kind;
    uint32_t id; /* 0: there is none, or none that can be read. */
    struct http_watch watch;
    struct bop_watch_ack ack;
    uint64_t session; /* That the WebSocket stands for from now on, and its token. */
    uint8_t token[BOP_TOKEN_SIZE];
};

/** enum bop_watch_what of its name; 0: there is none. */
uint8_t bop__http_watch_kind(struct bop_slice name);
/** What the hub takes, in call's arena. 0, or -1 with a problem. */
BOP_MUST_USE int bop__http_watch_request(struct http_call *call, const struct http_watch *watch,
                                         struct bop_watch_open_request *out,
                                         struct http_problem *out_problem);
/** Whether what has this name may be watched; without one: everything. */
BOP_MUST_USE bool bop__http_watch_allows(struct auth_who *who, struct bop_slice name);
/** The same. 0, or -1 with a problem. */
BOP_MUST_USE int bop__http_watch_authorise(struct auth_who *who, struct bop_slice name,
                                           struct http_problem *out_problem);
/** fields.c: a message, in call's arena. out->id is set if it can be read, problem or not. */
BOP_MUST_USE int bop__http_take_watch_message(struct http_call *call, struct bop_slice text,
                                              struct http_watch_message *out,
                                              struct http_problem *out_problem);

/** translate.c: a session's token, from text. */
BOP_MUST_USE bool bop__http_take_token(struct http_call *call, struct bop_slice text,
                                       uint8_t out_token[BOP_TOKEN_SIZE]);

/** condition.c: the conditional headers. */
BOP_MUST_USE int bop__http_condition(struct http_call *call, const struct bop_http_head *head,
                                     struct http_problem *out_problem);

/* ---- Answers ---- */

/** A whole answer. */
struct http_answer {
    unsigned status;
    const char *type; /* NULL: no content. */
    bool has_version; /* Of ETag. */
    uint64_t version;
    bool has_ttl; /* Of BOP-TTL-Ms. */
    uint64_t ttl_ms;
    unsigned retry_after_s; /* 0: no such header. */
    bool wants_token;       /* WWW-Authenticate says so. */
    const char *allow;      /* Or NULL. */
    struct bop_buf text;    /* Backing of content, if that is not borrowed. */
    struct bop_slice content;
};

/** Both set all but text, which is the caller's, and cleared first. 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__http_answer_result(struct http_answer *answer, const struct http_call *call,
                                         const struct bop_result *result);
BOP_MUST_USE int bop__http_answer_problem(struct http_answer *answer,
                                          const struct http_problem *problem);

/* ---- A request under way ---- */

struct http_api {
    struct http_api_options options;
    struct http_api_backend backend;
    struct bop_allocator *allocator;
    struct bop_http_server *server;
    struct bop_listener *listener;
    uint16_t port;
    bool local;    /* Listens on loopback, in the clear. */
    bool stopping; /* What breaks from now on breaks for that. */
    bool closed;   /* The backend may be gone. */
    struct bop_router *router;
    struct bop_list standing; /* WebSockets that stand for sessions. */
    size_t requests;          /* That live. */
    size_t body_bytes;        /* That they hold. */
};

struct http_request {
    union { /* The replica's, or the executor's, while busy. */
        struct replica_write write;
        struct replica_read read;
        struct bop_task task;
    };
    struct http_api *api;
    struct bop_http_exchange *http;
    const struct http_route *route;
    struct bop_arena arena;
    struct http_call call;
    struct auth_who who;
    struct http_answer answer;
    struct bop_buf body;  /* As it comes; counted in the api. */
    struct bop_buf bytes; /* The operation, encoded. */
    size_t counted;
    bool head_only; /* HEAD: no content is sent. */
    bool no_body;
    bool busy;    /* Somebody has to come back to it. */
    bool over;    /* Answered, or nobody waits for an answer any more. */
    void *stream; /* export.c and import.c */
    void (*stream_end)(struct http_request *request); /* Called when it is freed. */
};

/** Begin a request whose head has come; it lives until it is answered and not busy. */
void bop__http_begin(struct http_api *api, struct bop_http_exchange *http,
                     const struct bop_http_head *head, const struct bop_router_match *match);

/* One of these ends it. None may be touched afterwards but by who is busy with it. */
void bop__http_send(struct http_request *request);
void bop__http_fail(struct http_request *request, const struct http_problem *problem);
void bop__http_fail_with(struct http_request *request, enum http_problem_kind kind,
                         const char *detail);
/** The answer's text is whole: send it with 200, or the status set. code: of who wrote it. */
void bop__http_send_text(struct http_request *request, const char *type, int code);
/** The exchange was ended by other means. */
void bop__http_over(struct http_request *request);
/** Nobody is busy with it any more: free it, if it is over. */
void bop__http_idle(struct http_request *request);

/** Count bytes that a request holds against the bound of all. False: over it. */
bool bop__http_hold(struct http_request *request, size_t bytes);
void bop__http_release(struct http_request *request, size_t bytes);

/** Run the read of an operation on the view, into out. The bop_status, or RETRY. */
uint8_t bop__http_read_view(struct machine_view *view, const struct bop_operation *operation,
                            struct bop_buf *out);

/** Put a whole answer on its way. */
BOP_MUST_USE int bop__http_send_answer(struct bop_http_exchange *http,
                                       const struct http_answer *answer);

/** A router of all routes; what a match gives is a struct http_route. */
BOP_MUST_USE int bop__http_router(struct bop_allocator *allocator, struct bop_router **out_router);

/** authorise.c: whether this request may do what its route does to what its path names. */
BOP_MUST_USE int bop__http_authorise(struct http_api *api, struct bop_http_exchange *http,
                                     const struct bop_http_head *head, const struct http_call *call,
                                     struct auth_who *out_who, struct http_problem *out_problem);
/** The same of an operation whose names are in its body. Both: 0, or -1 with a problem. */
BOP_MUST_USE int bop__http_authorise_operation(struct auth_who *who,
                                               const struct bop_operation *operation,
                                               struct http_problem *out_problem);

/** import.c: an entry's bytes from a line. 0, BOP_EMALFORMED or BOP_ENOMEM. */
BOP_MUST_USE int bop__http_parse_line(struct bop_slice line, struct bop_buf *key,
                                      struct bop_buf *value);

/* What routes serve that are no operations. */
void bop__http_serve_export(struct http_request *request);
void bop__http_serve_import(struct http_request *request);
void bop__http_serve_backup(struct http_request *request);
void bop__http_serve_watch(struct http_request *request);
void bop__http_serve_settle(struct http_request *request);
/** The request wants to become a WebSocket, on which watches are opened: ends it. */
void bop__http_watch_upgrade(struct http_request *request, const struct bop_http_head *head);
void bop__http_serve_session_open(struct http_request *request);
void bop__http_serve_session_alive(struct http_request *request);
void bop__http_serve_session_close(struct http_request *request);
void bop__http_serve_status(struct http_request *request);
void bop__http_serve_cluster(struct http_request *request);
void bop__http_serve_metrics(struct http_request *request);
void bop__http_serve_openapi(struct http_request *request);
void bop__http_serve_healthz(struct http_request *request);
void bop__http_serve_readyz(struct http_request *request);
void bop__http_serve_profile(struct http_request *request);
void bop__http_serve_profile_start(struct http_request *request);
void bop__http_serve_profile_stop(struct http_request *request);
void bop__http_serve_log(struct http_request *request);
void bop__http_serve_log_set(struct http_request *request);
void bop__http_serve_state(struct http_request *request);

/* openapi_json.c, which the build makes of docs/openapi.json. */
extern const unsigned char bop__openapi_json[];
extern const size_t bop__openapi_json_size;

#endif
