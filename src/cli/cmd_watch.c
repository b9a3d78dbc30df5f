/*
 * bop watch: what changes, a line an event, until it is interrupted or --limit is met.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <bop/client_watch.h>

#include "link.h"
#include "ndjson.h"

#define TURN_MS 250

struct watching {
    const struct cli_args *args;
    uint64_t left; /* Events to be told; UINT64_MAX: no limit. */
    bool done;
    int code;
    struct bop_buf line;
};

static const char *const kinds[] = {
    [BOP_WATCH_MAP] = "map",           [BOP_WATCH_SET] = "set",
    [BOP_WATCH_MULTIMAP] = "multimap", [BOP_WATCH_COUNTER] = "counter",
    [BOP_WATCH_LOCK] = "lock",         [BOP_WATCH_GROUP] = "group",
    [BOP_WATCH_REGISTRY] = "registry", [BOP_WATCH_SESSION] = "session",
    [BOP_WATCH_NAMES] = "names",
};

static const char *type_text(enum bop_event_type type)
{
    switch (type) {
    case BOP_EVENT_MAP_PUT:
    case BOP_EVENT_MULTIMAP_PUT:
        return "put";
    case BOP_EVENT_MAP_DELETE:
    case BOP_EVENT_COUNTER_DELETE:
    case BOP_EVENT_LOCK_DELETE:
        return "delete";
    case BOP_EVENT_MAP_CREATE:
    case BOP_EVENT_SET_CREATE:
    case BOP_EVENT_MULTIMAP_CREATE:
    case BOP_EVENT_COUNTER_CREATE:
    case BOP_EVENT_LOCK_CREATE:
        return "create";
    case BOP_EVENT_MAP_CLEAR:
    case BOP_EVENT_SET_CLEAR:
    case BOP_EVENT_MULTIMAP_CLEAR:
        return "clear";
    case BOP_EVENT_SET_ADD:
    case BOP_EVENT_REGISTRATION_ADD:
        return "add";
    case BOP_EVENT_SET_REMOVE:
    case BOP_EVENT_MULTIMAP_REMOVE:
    case BOP_EVENT_REGISTRATION_REMOVE:
        return "remove";
    case BOP_EVENT_MULTIMAP_REMOVE_VALUE:
        return "remove-value";
    case BOP_EVENT_COUNTER_SET:
    case BOP_EVENT_MEMBER_SET:
        return "set";
    case BOP_EVENT_LOCK_WAIT:
        return "wait";
    case BOP_EVENT_LOCK_GRANT:
        return "grant";
    case BOP_EVENT_LOCK_RELEASE:
        return "release";
    case BOP_EVENT_LOCK_CANCEL:
        return "cancel";
    case BOP_EVENT_MEMBER_JOIN:
        return "join";
    case BOP_EVENT_MEMBER_LEAVE:
        return "leave";
    case BOP_EVENT_SESSION_OPEN:
        return "open";
    case BOP_EVENT_SESSION_END:
        return "end";
    }
    return "unknown";
}

/* ---- A line ---- */

static int set_number(json_t *object, const char *name, int64_t value)
{
    return value != 0 ? json_object_set_new(object, name, json_integer(value)) : 0;
}

static int set_bytes(json_t *object, const char *name, struct bop_slice value, bool always)
{
    return value.size > 0 || always ? ndjson_set_bytes(object, name, value) : 0;
}

static bool has_value(enum bop_event_type type)
{
    return type == BOP_EVENT_MAP_PUT || type == BOP_EVENT_MULTIMAP_PUT;
}

static bool has_key(enum bop_event_type type)
{
    const char *text = type_text(type);

    return type < BOP_EVENT_COUNTER_SET && strcmp(text, "create") != 0 &&
           strcmp(text, "clear") != 0;
}

static int fill(json_t *object, const struct bop_event *event, uint64_t revision)
{
    bool previous = (event->flags & BOP_EVENT_HAD_PREVIOUS) &&
                    !(event->flags & BOP_EVENT_NO_PREVIOUS);
    int rc = json_object_set_new(object, "revision", json_integer((json_int_t)revision));

    rc |= json_object_set_new(object, "event", json_string(type_text(event->type)));
    rc |= set_bytes(object, "name", event->name, false);
    rc |= set_bytes(object, "key", event->key, has_key(event->type));
    rc |= set_bytes(object, "value", event->value, has_value(event->type));
    rc |= set_bytes(object, "previous", event->previous, previous);
    rc |= set_number(object, "session", (int64_t)event->session);
    rc |= set_number(object, "number", event->number);
    rc |= set_number(object, "token", (int64_t)event->token);
    if (event->flags & BOP_EVENT_EXPIRED) {
        rc |= json_object_set_new(object, "expired", json_true());
    }
    if (event->flags & BOP_EVENT_SNAPSHOT) {
        rc |= json_object_set_new(object, "snapshot", json_true());
    }
    return rc;
}

static void print_json(struct watching *watching, const struct bop_event *event, uint64_t revision)
{
    json_t *object = json_object();

    bop_buf_clear(&watching->line);
    if (!object || fill(object, event, revision) != 0 ||
        ndjson_write_object(&watching->line, object) < 0) {
        watching->code = BOP_ENOMEM;
        watching->done = true;
    } else {
        fwrite(watching->line.data, 1, watching->line.size, stdout);
    }
    json_decref(object);
}

/* What a terminal can show of bytes. */
static void print_bytes(struct bop_slice bytes)
{
    putchar(' ');
    for (size_t n = 0; n < bytes.size; n++) {
        putchar(bytes.data[n] >= ' ' && bytes.data[n] != 0x7f ? bytes.data[n] : '.');
    }
}

static void print_text(const struct bop_event *event, uint64_t revision)
{
    printf("%" PRIu64 " %s", revision, type_text(event->type));
    if (event->key.size > 0) {
        print_bytes(event->key);
    }
    if (event->value.size > 0) {
        print_bytes(event->value);
    }
    if (event->number != 0 || event->type == BOP_EVENT_COUNTER_SET) {
        printf(" %" PRId64, event->number);
    }
    if (event->token != 0) {
        printf(" token=%" PRIu64, event->token);
    }
    if (event->session != 0) {
        printf(" session=%" PRIu64, event->session);
    }
    if (event->previous.size > 0) {
        printf(" previous:");
        print_bytes(event->previous);
    }
    printf("%s%s\n", event->flags & BOP_EVENT_EXPIRED ? " expired" : "",
           event->flags & BOP_EVENT_SNAPSHOT ? " snapshot" : "");
}

/* ---- Watching ---- */

static void on_news(void *user, const struct bop_client_news *news)
{
    struct watching *watching = (struct watching *)user;
    struct bop_slice rest = news->events;
    struct bop_event event;

    if (news->code != 0) {
        watching->code = watching->done ? 0 : news->code;
        watching->done = true;
        return;
    }
    if (news->flags & BOP_WATCH_EVENTS_RESYNC) {
        if (watching->args->json) {
            printf("{\"revision\":%" PRIu64 ",\"event\":\"resync\"}\n", news->revision);
        } else {
            printf("%" PRIu64 " resync\n", news->revision);
        }
    }
    while (!watching->done && bop_event_next(&rest, &event) > 0) {
        if (watching->args->json) {
            print_json(watching, &event, news->revision);
        } else {
            print_text(&event, news->revision);
        }
        watching->done = watching->done || --watching->left == 0;
    }
    fflush(stdout);
    watching->done = watching->done || ferror(stdout);
}

static int kind_of(const char *text)
{
    for (size_t n = 1; n < BOP_COUNT_OF(kinds); n++) {
        if (strcmp(kinds[n], text) == 0) {
            return (int)n;
        }
    }
    return 0;
}

/* The id of a session as a key: most significant byte first. */
static bool session_key(const char *text, uint8_t out_key[8])
{
    char *end = NULL;
    uint64_t id = strtoull(text, &end, 10);

    for (int n = 0; n < 8; n++) {
        out_key[n] = (uint8_t)(id >> (56 - 8 * n));
    }
    return end != text && !*end && id != 0;
}

/* Returns an exit code. key has room for a session's. */
static int options_of(const struct cli_args *args, struct bop_client_watch_options *options,
                      struct bop_slice *key, uint8_t session[8])
{
    int kind = kind_of(args->values[0]);
    bool named = kind != BOP_WATCH_SESSION && kind != BOP_WATCH_NAMES;

    if (kind == 0) {
        return cli_complain(CLI_USAGE,
                            "%s: not one of map, set, multimap, counter, lock, group, registry, "
                            "session, names",
                            args->values[0]);
    }
    if (named != (args->value_count > 1) && kind != BOP_WATCH_SESSION) {
        return cli_complain(CLI_USAGE, named ? "watch %s: which one?" : "watch %s: it has no name",
                            args->values[0]);
    }
    if ((kind == BOP_WATCH_COUNTER || kind == BOP_WATCH_LOCK) &&
        (args->value_count > 2 || args->aof.prefix || args->first || args->below)) {
        return cli_complain(CLI_USAGE,
                            "watch %s: it has no keys: drop KEY, --prefix, --first and "
                            "--below",
                            args->values[0]);
    }
    if (kind == BOP_WATCH_SESSION && args->snapshot) {
        return cli_complain(CLI_USAGE, "watch session: of sessions there is no --snapshot");
    }
    if (args->snapshot && args->revision) {
        return cli_complain(CLI_USAGE, "--snapshot and --revision: only one of them");
    }
    options->what = (enum bop_watch_what)kind;
    if (kind == BOP_WATCH_SESSION && args->value_count > 1) {
        if (!session_key(args->values[1], session)) {
            return cli_complain(CLI_USAGE, "%s: not the number of a session", args->values[1]);
        }
        *key = bop_slice(session, 8);
        options->key = key;
    } else if (named) {
        options->name = bop_slice_cstr(args->values[1]);
    }
    if (args->value_count > 2) {
        *key = bop_slice_cstr(args->values[2]);
        options->key = key;
    }
    options->prefix = bop_slice_cstr(args->aof.prefix ? args->aof.prefix : "");
    options->from = bop_slice_cstr(args->first ? args->first : "");
    options->to = bop_slice_cstr(args->below ? args->below : "");
    options->flags = (uint8_t)((args->previous ? BOP_WATCH_PREVIOUS : 0) |
                               (args->snapshot ? BOP_WATCH_SNAPSHOT : 0));
    options->revision = args->revision;
    return CLI_OK;
}

static int run(struct watching *watching, const struct bop_client_watch_options *options)
{
    const struct cli_args *args = watching->args;
    struct link_options link_options = {
        .args = args, .timeout_ms = CLI_TIMEOUT_MS, .pin = args->stale};
    struct bop_client_watch *watch;
    struct link link;
    int exit_code = link_open(&link_options, &link);
    int rc;

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    rc = bop_client_watch_open(link.client, options, on_news, watching, &watch);
    while (rc == 0 && !watching->done) {
        rc = link_turn_patiently(&link, TURN_MS);
    }
    rc = rc == 0 ? watching->code : rc;
    watching->done = true; /* What comes from closing is not told. */
    exit_code = rc < 0 ? link_complain(&link, rc, "watch %s", args->values[0]) : CLI_OK;
    link_close(&link);
    return exit_code;
}

int cmd_watch(const struct cli_args *args)
{
    struct watching watching = {.args = args, .left = args->limit ? args->limit : UINT64_MAX};
    struct bop_client_watch_options options = {0};
    struct bop_slice key;
    uint8_t session[8];
    int exit_code = options_of(args, &options, &key, session);

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    bop_buf_init(&watching.line, NULL, 0);
    exit_code = run(&watching, &options);
    bop_buf_deinit(&watching.line);
    return cli_finish_output(exit_code);
}
