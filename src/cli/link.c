/*
 * Asking, waiting, and saying why there is no answer.
 */
#include "link.h"

#include "trust.h"

#include <inttypes.h>

#define TURN_MS             20
#define CONNECT_TIMEOUT_MS  2000
#define REFUSED_PATIENCE_MS 500 /* Time for a daemon that is just starting. */
#define LAST_TURNS          3   /* To send the session's end and to close. */
#define CALLED_SERVERS_MAX  200 /* Bytes of the list of servers in a message. */
#define SILENCE_MS          10000

int link_open(const struct link_options *options, struct link *out_link)
{
    const struct cli_args *args = options->args;
    const char *endpoints[BOP_CLIENT_ENDPOINTS_MAX];
    struct bop_error err = {0};
    struct trust trust;
    struct bop_client_options client_options = {
        .endpoints = endpoints,
        .endpoint_count = args->server_count,
        .cluster = args->cluster,
        .name = "bop",
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .outstanding_max = options->outstanding_max,
        .pin = options->pin,
        .session_grace_ms = options->grace_ms,
        .session_timeout_ms = options->session_ms,
        .silence_timeout_ms = options->silence_ms,
    };
    int rc;

    *out_link = (struct link){
        .args = args,
        .timeout_ms = args->timeout_ms ? args->timeout_ms : options->timeout_ms,
        .opened_us = bop_clock_monotonic_us(bop_clock_system()),
    };
    for (size_t i = 0; i < args->server_count; i++) {
        endpoints[i] = args->servers[i].text;
    }
    rc = bop_loop_create(NULL, &out_link->loop);
    if (rc < 0) {
        return cli_complain(CLI_FAILED, "create a loop: %s", bop_strerror(rc));
    }
    client_options.loop = out_link->loop;
    client_options.request_timeout_ms = out_link->timeout_ms;
    rc = trust_options(args, &trust, &client_options, &err);
    if (rc == 0) {
        rc = bop_client_create(&client_options, &out_link->client, &err);
    }
    explicit_bzero(trust.token, sizeof(trust.token));
    if (rc < 0) {
        link_close(out_link);
        return cli_complain(rc == BOP_EINVAL ? CLI_USAGE : CLI_FAILED, "%s", err.message);
    }
    return CLI_OK;
}

void link_close(struct link *link)
{
    if (link->client) {
        bop_client_destroy(link->client);
        for (int i = 0; i < LAST_TURNS; i++) {
            /* What cannot be said any more: the session expires. */
            BOP_IGNORE(bop_loop_run_once(link->loop, 0));
        }
    }
    if (link->loop) {
        bop_loop_destroy(link->loop);
    }
    *link = (struct link){0};
}

/* Nobody was reached so far: has it been long enough? */
static bool is_in_vain(struct link *link)
{
    int trouble = link->info.trouble.code;
    uint64_t waited_ms, patience_ms = REFUSED_PATIENCE_MS;

    if (trouble == 0) {
        return false;
    }
    link->saw_timeout |= trouble == BOP_ETIMEOUT || trouble == -ETIMEDOUT;
    if (link->saw_timeout) {
        patience_ms += CONNECT_TIMEOUT_MS * link->args->server_count;
    }
    waited_ms = (bop_clock_monotonic_us(bop_clock_system()) - link->opened_us) / 1000;
    return waited_ms >= patience_ms;
}

int link_turn(struct link *link, int wait_ms)
{
    int rc = bop_loop_run_once(link->loop, wait_ms);

    if (rc < 0 && rc != -EINTR) {
        return rc;
    }
    bop_client_info(link->client, &link->info);
    link->contacted |= link->info.connects > 0;
    if (!link->contacted && is_in_vain(link)) {
        link->in_vain = true;
        return BOP_ETIMEOUT;
    }
    return 0;
}

int link_turn_patiently(struct link *link, int wait_ms)
{
    int rc = link_turn(link, wait_ms);
    uint64_t now_us = bop_clock_monotonic_us(bop_clock_system());

    if (link->info.ready) {
        if (link->told_silence) {
            BOP_IGNORE(cli_complain(CLI_OK, "node %" PRIu64 " answers again", link->info.node));
        }
        link->told_silence = false;
        link->silent_us = 0;
    } else if (link->silent_us == 0) {
        link->silent_us = now_us;
    } else if (link->contacted && !link->told_silence &&
               now_us - link->silent_us >= UINT64_C(1000) * SILENCE_MS) {
        BOP_IGNORE(cli_complain(CLI_OK, "no server answers any more (%s); waiting for one",
                                bop_strerror(link->info.trouble.code)));
        link->told_silence = true;
    }
    return rc;
}

/* ---- One request ---- */

struct call {
    const struct bop_operation *operation;
    struct bop_buf *buf;
    struct bop_result *result;
    struct bop_client_view *view; /* To be opened. */
    int code;
    bool done;
};

/* Encode the result anew, so that it outlives the callback. */
static void on_result(void *user, int code, const struct bop_result *result)
{
    struct call *call = (struct call *)user;
    struct bop_writer writer = bop_writer(call->buf);

    call->done = true;
    call->code = code;
    if (code != 0 && code != BOP_ECONDITION) {
        return;
    }
    bop_result_encode(&writer, call->operation->op, result);
    if (writer.code == 0) {
        writer.code = bop_result_decode(call->operation->op, result->status,
                                        bop_buf_slice(call->buf), call->result);
    }
    call->code = writer.code ? writer.code : code;
}

static void on_view(void *user, int code, const struct bop_client_view *view)
{
    struct call *call = (struct call *)user;

    call->done = true;
    call->code = code;
    if (code == 0) {
        *call->view = *view;
    }
}

/* Turn the loop until there is an answer to what was asked with this code. */
static int wait_for(struct link *link, const struct call *call, int rc)
{
    while (rc == 0 && !call->done) {
        rc = link_turn(link, TURN_MS);
    }
    if (rc < 0 && !call->done) {
        /* The callback must not come when its call is gone; now it comes at once. */
        bop_client_destroy(link->client);
        link->client = NULL;
    }
    return rc < 0 ? rc : call->code;
}

int link_view_open(struct link *link, struct bop_client_view *out_view)
{
    struct call call = {.view = out_view};

    return wait_for(link, &call, bop_client_view_open(link->client, on_view, &call));
}

int link_view_call(struct link *link, const struct bop_client_view *view,
                   const struct bop_operation *operation, struct bop_buf *buf,
                   struct bop_result *out_result)
{
    struct call call = {.operation = operation, .buf = buf, .result = out_result};
    int rc;

    *out_result = (struct bop_result){0};
    bop_buf_clear(buf);
    rc = view ? bop_client_view_read(link->client, view, operation, on_result, &call)
              : bop_client_execute(link->client, operation, link_consistency(link->args), on_result,
                                   &call);
    return wait_for(link, &call, rc);
}

int link_call(struct link *link, const struct bop_operation *operation, struct bop_buf *buf,
              struct bop_result *out_result)
{
    return link_view_call(link, NULL, operation, buf, out_result);
}

/* ---- Failures ---- */

static const char *called_servers(const struct cli_args *args, char out_list[CALLED_SERVERS_MAX])
{
    int used = 0;

    out_list[0] = '\0';
    for (size_t i = 0; i < args->server_count && used < CALLED_SERVERS_MAX; i++) {
        used += snprintf(out_list + used, CALLED_SERVERS_MAX - (size_t)used, "%s%s",
                         i > 0 ? ", " : "", args->servers[i].text);
    }
    return out_list;
}

/* Why there was no answer in time: nobody there, nobody that leads, or only slow. */
static int complain_of_silence(const struct link *link, const char *doing)
{
    const struct bop_client_info *info = &link->info;
    double seconds = (double)link->timeout_ms / 1000;
    char servers[CALLED_SERVERS_MAX];

    called_servers(link->args, servers);
    if ((!link->contacted || !info->ready) && trust_is_about(&info->trouble)) {
        return trust_complain(&info->trouble);
    }
    if (!link->contacted) {
        return cli_complain(
            CLI_FAILED,
            "no server at %s answers (%s): start one with `bopd --dev`, or name one with --server",
            servers, info->trouble.code ? bop_strerror(info->trouble.code) : "nothing heard");
    }
    if (!info->ready) {
        return cli_complain(CLI_FAILED,
                            "%s: the connection to %s was lost and no server answers (%s): see "
                            "`bop status`",
                            doing, servers, bop_strerror(info->trouble.code));
    }
    if (info->leader == 0) {
        return cli_complain(CLI_FAILED,
                            "%s: node %" PRIu64 " knew no leader for %g s: are most nodes of the "
                            "cluster up? See `bop status`",
                            doing, info->node, seconds);
    }
    return cli_complain(CLI_FAILED,
                        "%s: no answer from node %" PRIu64 " in %g s; a write may still be done: "
                        "look, or give more --timeout",
                        doing, info->node, seconds);
}

int link_complain(const struct link *link, int code, const char *format, ...)
{
    char doing[256], servers[CALLED_SERVERS_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(doing, sizeof(doing), format, arguments);
    va_end(arguments);
    switch (code) {
    case BOP_ETIMEOUT:
        return complain_of_silence(link, doing);
    case BOP_EDENIED:
        return cli_complain(CLI_FAILED,
                            "%s: access denied: %s: give another token with --token-file "
                            "or BOP_TOKEN",
                            doing, link->info.denied.message);
    case BOP_EUNCERTAIN:
        return cli_complain(CLI_FAILED,
                            "%s: access denied: %s: but it was sent before, so it is not known "
                            "whether it was done: look",
                            doing, link->info.denied.message);
    case BOP_EMISMATCH:
        return cli_complain(CLI_FAILED,
                            "%s is of another cluster than %s: drop --cluster, or name other "
                            "servers with --server",
                            called_servers(link->args, servers),
                            link->args->cluster ? link->args->cluster : "asked for");
    case BOP_EINVAL:
        return cli_complain(CLI_USAGE, "%s: a name has 1 to %d bytes and is UTF-8", doing,
                            BOP_NAME_MAX);
    case BOP_ETOOBIG:
        return cli_complain(CLI_FAILED,
                            "%.80s: too big: a name has at most %d bytes, a key %u, a value %u",
                            doing, BOP_NAME_MAX, BOP_KEY_MAX, BOP_VALUE_MAX);
    case BOP_ESESSION:
        return cli_complain(CLI_FAILED,
                            "%s: cut off for longer than the session lasts, so it is not known "
                            "whether it was done: look",
                            doing);
    case BOP_ENOROOM:
        return cli_complain(CLI_FAILED,
                            "%s: no room left on the servers' disks: nothing was "
                            "changed; make room there",
                            doing);
    default:
        return cli_complain(cli_exit_code(code), "%s: %s", doing, bop_strerror(code));
    }
}

enum bop_consistency link_consistency(const struct cli_args *args)
{
    return args->stale ? BOP_READ_STALE : BOP_READ_LINEARIZABLE;
}
