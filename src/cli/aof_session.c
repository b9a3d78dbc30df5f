/*
 * A log with its tiers, for as long as a command needs them.
 */
#include "aof_session.h"

#include <inttypes.h>
#include <time.h>

#include "aof_common.h"

#define TURN_US    2000
#define NO_BUDGET  (UINT64_C(1) << 60)
#define TIMEOUT_MS 600000
#define REST_TURNS 50 /* So many turns without anything to do are rest. */

static void on_durable(void *user, uint64_t seq)
{
    BOP_IGNORE(user);
    BOP_IGNORE(seq); /* The log is asked. */
}

static void on_failed(void *user, int code, const char *message)
{
    struct aof_session *session = user;

    session->failed = code;
    snprintf(session->message, sizeof(session->message), "%s", message);
}

static int open_tiers(struct aof_session *session, unsigned budgets)
{
    struct bop_tiers_options options = {
        .objects = session->objects,
        .prefix = session->args->aof.prefix,
        .tier0_bytes = budgets & 1 ? 1 : NO_BUDGET,
        .tier1_bytes = budgets & 2 ? 1 : NO_BUDGET,
    };
    struct bop_error err = {0};

    if (!session->objects && !session->info.has_manifest) {
        return CLI_OK;
    }
    return bop_tiers_create(&options, &session->tiers, &err) < 0 ? aof_complain(&err) : CLI_OK;
}

static int open_log(struct aof_session *session)
{
    struct bop_aof_options options = {.path = session->path,
                                      .tiers = session->tiers,
                                      .name = session->args->aof.name,
                                      .on_durable = on_durable,
                                      .on_failed = on_failed,
                                      .user = session};
    struct bop_error err = {0};
    int rc = bop_aof_open(&options, &session->aof, NULL, &err);

    if (rc == BOP_ECORRUPT) {
        return cli_complain(CLI_AOF_FAILED, "%s; `bop aof verify` says more", err.message);
    }
    return rc < 0 ? aof_complain(&err) : CLI_OK;
}

int aof_session_open(struct aof_session *session, const struct cli_args *args, unsigned budgets)
{
    struct bop_aof_admin_options log = {.path = args->values[0]};
    struct bop_error err = {0};
    int exit_code;

    *session = (struct aof_session){.args = args, .path = args->values[0]};
    /* Opening would make a log where there is none. */
    if (bop_aof_inspect(&log, NULL, NULL, &session->info, &err) < 0) {
        return aof_complain(&err);
    }
    exit_code = aof_objects(args, &session->objects);
    if (exit_code == CLI_OK) {
        exit_code = open_tiers(session, budgets);
    }
    if (exit_code == CLI_OK) {
        exit_code = open_log(session);
    }
    progress_init(&session->progress, stderr, "moved", 0, false);
    return exit_code;
}

void aof_session_close(struct aof_session *session)
{
    progress_clear(&session->progress);
    bop_aof_close(session->aof);
    bop_tiers_destroy(session->tiers);
    if (session->objects) {
        session->objects->destroy(session->objects);
    }
}

static uint64_t now_ms(void)
{
    return bop_clock_monotonic_ms(bop_clock_system());
}

static void nap(void)
{
    struct timespec time = {.tv_nsec = TURN_US * 1000};

    nanosleep(&time, NULL);
}

/* True if it has work, or waits for a time to try again. */
static bool turn(struct aof_session *session)
{
    struct bop_tiers_status status = {0};
    bool busy = bop_aof_poll(session->aof) > 0;

    if (session->tiers) {
        BOP_IGNORE(bop_tiers_poll(session->tiers));
        bop_tiers_status(session->tiers, &status);
        busy |= bop_tiers_busy(session->tiers) || status.packs_waiting + status.uploads_waiting > 0;
        progress_show(&session->progress, status.packs + status.uploads + status.evictions,
                      status.message);
    }
    return busy || bop_aof_busy(session->aof);
}

int aof_session_run(struct aof_session *session, bool (*done)(struct aof_session *, void *user),
                    void *user)
{
    uint64_t limit = session->args->timeout_ms > 0 ? session->args->timeout_ms : TIMEOUT_MS;
    uint64_t end = now_ms() + limit;
    unsigned resting = 0;

    while (session->failed == 0) {
        bool busy = turn(session);

        if (done && done(session, user)) {
            return 0;
        }
        resting = busy ? 0 : resting + 1;
        if (resting > REST_TURNS) {
            return done ? BOP_EEND : 0;
        }
        if (now_ms() > end) {
            return BOP_ETIMEOUT;
        }
        nap();
    }
    return session->failed;
}

int aof_session_complain(struct aof_session *session, int code, const char *what)
{
    struct bop_tiers_status status = {0};
    const char *why = session->message;

    progress_clear(&session->progress);
    if (session->tiers) {
        bop_tiers_status(session->tiers, &status);
    }
    if (session->failed == 0) {
        why = status.message[0] ? status.message : bop_strerror(code);
    }
    return cli_complain(aof_exit_code(status.last_error ? status.last_error : code), "%s: %s: %s",
                        session->path, what, why);
}
