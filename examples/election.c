/*
 * One of many leads; when it goes, the next one does.
 *
 *     election 127.0.0.1:4700 reports alice
 *
 * Start several of them, under different names, with `bopd --dev` running; end the one that leads
 * with Ctrl-C or kill it. What a leader writes should carry its token, so that whoever is written
 * to can refuse an earlier leader that does not know yet that it is none.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include <bop/client_election.h>

#define LAST_TURNS 3 /* To send the session's end and to close. */
#define TURN_MS    100

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    (void)number;
    ended = 1;
}

static void won(void *user, struct bop_client_election *election, uint64_t token)
{
    (void)election;
    printf("%s leads, with token %" PRIu64 "\n", (const char *)user, token);
    fflush(stdout);
}

/* Stop what a leader does, before the next one begins. */
static void lost(void *user, struct bop_client_election *election)
{
    (void)election;
    printf("%s leads no more\n", (const char *)user);
    fflush(stdout);
}

static void failed(void *user, struct bop_client_election *election, int code)
{
    (void)election;
    fprintf(stderr, "election: %s cannot stand: %s\n", (const char *)user, bop_strerror(code));
    ended = 1;
}

static void observed(void *user, struct bop_slice leader, uint64_t token)
{
    (void)token;
    (void)user;
    printf("the leader is %.*s\n", leader.size ? (int)leader.size : 6,
           leader.size ? (const char *)leader.data : "nobody");
    fflush(stdout);
}

static int fail(const char *what, int code)
{
    fprintf(stderr, "election: %s: %s\n", what, bop_strerror(code));
    return 1;
}

static int run(struct bop_loop *loop, struct bop_client *client, char **argv)
{
    struct bop_client_election_options options = {.name = bop_slice_cstr(argv[2]),
                                                  .candidate = bop_slice_cstr(argv[3]),
                                                  .won = won,
                                                  .lost = lost,
                                                  .failed = failed,
                                                  .user = argv[3]};
    struct bop_client_election *election = NULL;
    struct bop_client_observer *observer = NULL;
    int rc = bop_client_election_campaign(client, &options, &election);

    if (rc == 0) {
        rc = bop_client_election_observe(client, options.name, observed, NULL, &observer);
    }
    while (rc == 0 && !ended) {
        rc = bop_loop_run_once(loop, TURN_MS);
        rc = rc == -EINTR ? 0 : rc;
    }
    bop_client_election_unobserve(observer);
    bop_client_election_resign(election);
    return rc < 0 ? fail(argv[2], rc) : 0;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct bop_client_options options = {0};
    struct bop_client *client = NULL;
    struct bop_error err = {0};
    struct bop_loop *loop;
    int exit_code, rc;

    if (argc != 4) {
        fprintf(stderr, "use: election HOST:PORT NAME CANDIDATE\n");
        return 2;
    }
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    rc = bop_loop_create(NULL, &loop);
    if (rc < 0) {
        return fail("create a loop", rc);
    }
    options.loop = loop;
    options.endpoints = (const char *const[]){argv[1]};
    options.endpoint_count = 1;
    options.session_timeout_ms = 5000;
    options.session_grace_ms = 2000; /* If it is killed the next one leads after so long. */
    rc = bop_client_create(&options, &client, &err);
    exit_code = rc < 0 ? fail(argv[1], rc) : run(loop, client, argv);
    bop_client_destroy(client);
    for (int i = 0; i < LAST_TURNS; i++) {
        BOP_IGNORE(bop_loop_run_once(loop, 0)); /* What cannot be said any more: it expires. */
    }
    bop_loop_destroy(loop);
    return exit_code;
}
