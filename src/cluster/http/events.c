/*
 * Watches as JSON: what one is of, and the events that it is told. The names are those
 * of docs/design/http-api.md.
 */
#include <bop/watch.h>

#include "http.h"

#define SESSION_BYTES 8

/* ---- What is watched ---- */

static const char *const kinds[] = {
    [BOP_WATCH_MAP] = "map",           [BOP_WATCH_SET] = "set",
    [BOP_WATCH_MULTIMAP] = "multimap", [BOP_WATCH_COUNTER] = "counter",
    [BOP_WATCH_LOCK] = "lock",         [BOP_WATCH_GROUP] = "group",
    [BOP_WATCH_REGISTRY] = "registry", [BOP_WATCH_SESSION] = "session",
    [BOP_WATCH_NAMES] = "names",
};

uint8_t bop__http_watch_kind(struct bop_slice name)
{
    for (size_t n = 1; n < BOP_COUNT_OF(kinds); n++) {
        if (bop_slice_equal(name, bop_slice_cstr(kinds[n]))) {
            return (uint8_t)n;
        }
    }
    return 0;
}

static bool has_bounds(const struct http_watch *watch)
{
    return watch->has_key || watch->prefix.size + watch->from.size + watch->to.size > 0;
}

/* first, or nothing if it is 0, then bytes, then a zero byte if `above`. data NULL: no memory. */
static struct bop_slice joined(struct http_call *call, uint8_t first, struct bop_slice bytes,
                               bool above)
{
    size_t before = first != 0;
    uint8_t *copy = bop_arena_alloc(call->arena, before + bytes.size + 1, 1);

    if (!copy) {
        return bop_slice(NULL, 0);
    }
    copy[0] = first;
    if (bytes.size > 0) {
        memcpy(copy + before, bytes.data, bytes.size);
    }
    copy[before + bytes.size] = 0;
    return bop_slice(copy, before + bytes.size + above);
}

/* One key is from it on and below its successor. In names, each key begins with the kind. */
static int set_keys(struct http_call *call, const struct http_watch *watch,
                    struct bop_watch_open_request *out)
{
    uint8_t of = watch->of;
    bool names = watch->what == BOP_WATCH_NAMES;

    if (watch->has_key) {
        out->from = joined(call, of, watch->key, false);
        out->to = joined(call, of, watch->key, true);
        return out->from.data && out->to.data ? 0 : -1;
    }
    out->prefix = names && of ? joined(call, of, watch->prefix, false) : watch->prefix;
    out->from = watch->from.size > 0 && names ? joined(call, of, watch->from, false) : watch->from;
    out->to = watch->to.size > 0 && names ? joined(call, of, watch->to, false) : watch->to;
    return (names && of && !out->prefix.data) || (watch->from.size > 0 && !out->from.data) ||
                   (watch->to.size > 0 && !out->to.data)
               ? -1
               : 0;
}

static int set_session(struct http_call *call, const struct http_watch *watch,
                       struct bop_watch_open_request *out)
{
    uint8_t id[SESSION_BYTES];

    if (watch->session == 0) {
        return 0;
    }
    for (unsigned n = 0; n < SESSION_BYTES; n++) {
        id[n] = (uint8_t)(watch->session >> (8 * (SESSION_BYTES - 1 - n)));
    }
    out->from = joined(call, 0, bop_slice(id, sizeof(id)), false);
    out->to = joined(call, 0, bop_slice(id, sizeof(id)), true);
    return out->from.data && out->to.data ? 0 : -1;
}

/* NULL, or what makes no sense. */
static const char *nonsense(const struct http_watch *watch)
{
    bool everywhere = watch->what == BOP_WATCH_SESSION || watch->what == BOP_WATCH_NAMES;

    if (watch->what == 0) {
        return "kind is map, set, multimap, counter, lock, group, registry, session or names";
    }
    if (everywhere != (watch->name.size == 0)) {
        return everywhere ? "a watch of sessions or of names has no name" : "name must be there";
    }
    if (watch->has_key && watch->prefix.size + watch->from.size + watch->to.size > 0) {
        return "give key, or prefix, from and to";
    }
    if ((watch->what == BOP_WATCH_COUNTER || watch->what == BOP_WATCH_LOCK ||
         watch->what == BOP_WATCH_SESSION) &&
        has_bounds(watch)) {
        return "a watch of this kind has no keys";
    }
    if (watch->session != 0 && watch->what != BOP_WATCH_SESSION) {
        return "session is for a watch of sessions";
    }
    if ((watch->of != 0 && watch->what != BOP_WATCH_NAMES) || watch->of > BOP_WATCH_REGISTRY) {
        return "of is for a watch of names: map, set, multimap, counter, lock, group or registry";
    }
    if (watch->what == BOP_WATCH_NAMES && watch->of == 0 && has_bounds(watch)) {
        return "give of, the kind whose names key, prefix, from and to are";
    }
    if ((watch->flags & BOP_WATCH_SNAPSHOT) &&
        (watch->revision != 0 || watch->what == BOP_WATCH_SESSION)) {
        return "a snapshot is for what is no session, and without a revision";
    }
    return NULL;
}

int bop__http_watch_request(struct http_call *call, const struct http_watch *watch,
                            struct bop_watch_open_request *out, struct http_problem *out_problem)
{
    const char *why = nonsense(watch);
    size_t most = watch->what == BOP_WATCH_NAMES ? BOP_NAME_MAX : BOP_KEY_MAX;

    if (why) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST, "%s", why);
    }
    if (watch->name.size > BOP_NAME_MAX || watch->key.size > most || watch->prefix.size > most ||
        watch->from.size > most || watch->to.size > most) {
        return bop__http_problem(out_problem, HTTP_TOO_BIG, "the name or a bound is too long");
    }
    if (!bop_slice_is_utf8(watch->name)) {
        return bop__http_problem(out_problem, HTTP_BAD_REQUEST, "the name is not UTF-8");
    }
    *out = (struct bop_watch_open_request){.what = watch->what,
                                           .name = watch->name,
                                           .flags = watch->flags,
                                           .revision = watch->revision};
    if ((watch->what == BOP_WATCH_SESSION ? set_session(call, watch, out)
                                          : set_keys(call, watch, out)) < 0) {
        return bop__http_problem(out_problem, HTTP_BUSY, "no memory for the request");
    }
    return 0;
}

/* What has no name reaches everywhere. */
bool bop__http_watch_allows(struct auth_who *who, struct bop_slice name)
{
    return name.size > 0 ? bop__auth_allows(who, BOP_RIGHT_READ, name)
                         : bop__auth_allows_all(who, BOP_RIGHT_READ);
}

int bop__http_watch_authorise(struct auth_who *who, struct bop_slice name,
                              struct http_problem *out_problem)
{
    char text[AUTH_TEXT_MAX];

    if (bop__http_watch_allows(who, name)) {
        return 0;
    }
    return bop__http_problem(out_problem, HTTP_DENIED, "%s",
                             bop__auth_refusal(who, BOP_RIGHT_READ, name, name.size == 0, text));
}

/* ---- Events ---- */

/* What the parts of a type of event are called; NULL: it has no such part. */
struct form {
    const char *type;
    const char *key;
    const char *value;
    const char *number;
    bool session;
    bool token;
};

static const struct form event_forms[] = {
    [BOP_EVENT_MAP_PUT] = {"map.put", "key", "value"},
    [BOP_EVENT_MAP_DELETE] = {"map.delete", "key"},
    [BOP_EVENT_MAP_CREATE] = {"map.create"},
    [BOP_EVENT_MAP_CLEAR] = {"map.clear", .number = "removed"},
    [BOP_EVENT_SET_ADD] = {"set.add", "member"},
    [BOP_EVENT_SET_REMOVE] = {"set.remove", "member"},
    [BOP_EVENT_SET_CREATE] = {"set.create"},
    [BOP_EVENT_SET_CLEAR] = {"set.clear", .number = "removed"},
    [BOP_EVENT_MULTIMAP_PUT] = {"multimap.put", "key", "value"},
    [BOP_EVENT_MULTIMAP_REMOVE_VALUE] = {"multimap.remove_value", "key", "value"},
    [BOP_EVENT_MULTIMAP_REMOVE] = {"multimap.remove", "key", .number = "removed"},
    [BOP_EVENT_MULTIMAP_CREATE] = {"multimap.create"},
    [BOP_EVENT_MULTIMAP_CLEAR] = {"multimap.clear", .number = "removed"},
    [BOP_EVENT_COUNTER_SET] = {"counter.set", .number = "value"},
    [BOP_EVENT_COUNTER_CREATE] = {"counter.create"},
    [BOP_EVENT_COUNTER_DELETE] = {"counter.delete"},
    [BOP_EVENT_LOCK_WAIT] = {"lock.wait", NULL, "label", "ticket", true},
    [BOP_EVENT_LOCK_GRANT] = {"lock.grant", NULL, "label", "ticket", true, true},
    [BOP_EVENT_LOCK_RELEASE] = {"lock.release", NULL, "label", "ticket", true, true},
    [BOP_EVENT_LOCK_CANCEL] = {"lock.cancel", NULL, NULL, "ticket", true},
    [BOP_EVENT_LOCK_CREATE] = {"lock.create"},
    [BOP_EVENT_LOCK_DELETE] = {"lock.delete"},
    [BOP_EVENT_MEMBER_JOIN] = {"member.join", "member", "info", "number", true},
    [BOP_EVENT_MEMBER_SET] = {"member.set", "member", "info", "number", true},
    [BOP_EVENT_MEMBER_LEAVE] = {"member.leave", "member", NULL, "number", true},
    [BOP_EVENT_REGISTRATION_ADD] = {"registration.add", "address", NULL, "sequence", true},
    [BOP_EVENT_REGISTRATION_REMOVE] = {"registration.remove", "address", NULL, "sequence", true},
    [BOP_EVENT_SESSION_OPEN] = {"session.open", .session = true},
    [BOP_EVENT_SESSION_END] = {"session.end", .session = true},
};

static void write_event(struct http_json *json, const struct bop_event *event)
{
    static const struct form other = {"other"};
    const struct form *form = (size_t)event->type < BOP_COUNT_OF(event_forms) &&
                                      event_forms[event->type].type
                                  ? &event_forms[event->type]
                                  : &other;

    bop__json_open(json, NULL, '{');
    bop__json_text(json, "type", bop_slice_cstr(form->type));
    if (event->name.size > 0) {
        bop__json_text(json, "name", event->name);
    }
    if (form->key) {
        bop__json_bytes(json, form->key, event->key);
    }
    if (form->value) {
        bop__json_bytes(json, form->value, event->value);
    }
    if (form->number) {
        bop__json_i64(json, form->number, event->number);
    } else if ((event->flags & BOP_EVENT_SNAPSHOT) && event->number != 0) {
        bop__json_i64(json, "version", event->number);
    }
    if (form->session) {
        bop__json_u64(json, "session", event->session);
    }
    if (form->token && event->token != 0) {
        bop__json_u64(json, "token", event->token);
    }
    if (event->flags & BOP_EVENT_NO_PREVIOUS) {
        bop__json_bool(json, "had_previous", true);
    } else if (event->flags & BOP_EVENT_HAD_PREVIOUS) {
        bop__json_bytes(json, "previous", event->previous);
    }
    if (event->flags & BOP_EVENT_EXPIRED) {
        bop__json_bool(json, "expired", true);
    }
    bop__json_close(json, '}');
}

void bop__json_events(struct http_json *json, struct bop_slice events)
{
    struct bop_event event;

    while (bop_event_next(&events, &event) > 0) {
        write_event(json, &event);
    }
}
