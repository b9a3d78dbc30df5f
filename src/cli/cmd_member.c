/*
 * bop member list and join, and bop registration list, get and add.
 *
 * A member or registration is there as long as bop is: the loop is turned until standard input
 * ends, a signal comes or the command that was given ends.
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bop/client_watch.h>
#include <bop/presence.h>

#include "ndjson.h"
#include "pages.h"

#define TURN_MS     20
#define SIGNAL_EXIT 128 /* And its number, as shells say it. */
#define NO_EXEC     127

/* ---- Looking ---- */

static int complain_of_nonsense(void)
{
    return cli_complain(CLI_FAILED, "the server says what makes no sense");
}

static int print_member(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    struct bop_reader reader = bop_reader(entry->value);
    uint64_t session = bop_read_u64(&reader);
    struct bop_slice info = bop_read_bytes(&reader);
    json_t *object;

    if (!bop_reader_done(&reader)) {
        return complain_of_nonsense();
    }
    if (!args->json) {
        printf("%" PRIu64 "\t", entry->version);
        pages_print_escaped(entry->key);
        putchar('\t');
        pages_print_escaped(info);
        putchar('\n');
        return CLI_OK;
    }
    object = json_pack("{s:I, s:I}", "number", (json_int_t)entry->version, "session",
                       (json_int_t)session);
    if (object && (ndjson_set_bytes(object, "member", entry->key) < 0 ||
                   ndjson_set_bytes(object, "info", info) < 0)) {
        json_decref(object);
        object = NULL;
    }
    return pages_print_object(object);
}

int cmd_member_list(const struct cli_args *args)
{
    struct bop_operation operation = {.op = BOP_OP_MEMBER_LIST,
                                      .name = bop_slice_cstr(args->values[0])};

    return pages_print(args, &operation, "list members", print_member);
}

static int print_registration(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    bool all = args->value_count == 1;
    uint64_t session, sequence;
    json_t *object;

    if (entry->value.size != 16) {
        return complain_of_nonsense();
    }
    session = bop_load_u64(entry->value.data);
    sequence = bop_load_u64(entry->value.data + 8);
    if (!args->json) {
        if (all) {
            pages_print_escaped(entry->key);
            putchar('\t');
        }
        printf("%" PRIu64 "\t%" PRIu64 "\n", session, sequence);
        return CLI_OK;
    }
    object = json_pack("{s:I, s:I}", "session", (json_int_t)session, "sequence",
                       (json_int_t)sequence);
    if (object && all && ndjson_set_bytes(object, "address", entry->key) < 0) {
        json_decref(object);
        object = NULL;
    }
    return pages_print_object(object);
}

int cmd_registration_list(const struct cli_args *args)
{
    struct bop_operation operation = {.op = BOP_OP_REGISTRATION_LIST,
                                      .name = bop_slice_cstr(args->values[0])};

    return pages_print(args, &operation, "list registrations", print_registration);
}

int cmd_registration_get(const struct cli_args *args)
{
    struct bop_operation operation = {.op = BOP_OP_REGISTRATION_GET,
                                      .name = bop_slice_cstr(args->values[0]),
                                      .key = bop_slice_cstr(args->values[1])};

    return pages_print(args, &operation, "list registrations", print_registration);
}

/* ---- Being there ---- */

#define SEQUENCE 1 /* Of the one registration that there is. */

struct joined {
    const struct cli_args *args;
    bool registers;
    struct link link;
    struct bop_presence *presence;
    bool there; /* It was, once. */
    bool told_taken;
    bool settled;
    int code; /* It will not be. */
};

static int complain_of(const struct joined *joined, int code)
{
    return link_complain(&joined->link, code, joined->registers ? "register in %s" : "join %s",
                         joined->args->values[0]);
}

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    caught = number;
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};

    for (size_t i = 0; i < BOP_COUNT_OF(numbers); i++) {
        sigaction(numbers[i], &action, NULL);
    }
}

static void on_news(void *user, enum bop_presence_news news, struct bop_slice name, int code)
{
    struct joined *joined = (struct joined *)user;

    switch (news) {
    case BOP_PRESENCE_THERE:
        joined->there = true;
        joined->told_taken = false;
        break;
    case BOP_PRESENCE_LOST:
        BOP_IGNORE(cli_complain(CLI_FAILED, "cut off for too long; %s again",
                                joined->registers ? "registering" : "joining"));
        break;
    case BOP_PRESENCE_TAKEN:
        if (!joined->told_taken) {
            BOP_IGNORE(cli_complain(CLI_CONDITION, "%s has a member %.*s; waiting for it to leave",
                                    joined->args->values[0], (int)bop_min_u64(name.size, 100),
                                    (const char *)name.data));
        }
        joined->told_taken = true;
        break;
    case BOP_PRESENCE_FAILED:
        joined->code = code;
        break;
    }
}

/* "host:pid", which nobody else is. */
static void make_name(char *out_name, size_t size)
{
    char host[128] = "?";

    BOP_IGNORE(gethostname(host, sizeof(host) - 1));
    snprintf(out_name, size, "%s:%ld", host, (long)getpid());
}

static bool input_ended(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char bytes[4096];

    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, bytes, sizeof(bytes)) <= 0;
}

/* Turn the loop until it is there. */
static int wait_for_it(struct joined *joined)
{
    while (!joined->there) {
        int rc = joined->code ? joined->code : link_turn(&joined->link, TURN_MS);

        if (caught != 0) {
            return SIGNAL_EXIT + caught;
        }
        if (rc < 0) {
            return complain_of(joined, rc);
        }
    }
    return CLI_OK;
}

static void on_settled(void *user, int code)
{
    struct joined *joined = (struct joined *)user;

    joined->settled = true;
    if (code != 0) {
        BOP_IGNORE(cli_complain(CLI_FAILED, "not all who watch %s are known to have heard of %s",
                                joined->args->values[0], joined->args->values[1]));
    }
}

/* It is there; wait until all who watch the address have heard. */
static int settle(struct joined *joined)
{
    const struct cli_args *args = joined->args;
    int rc = bop_client_watch_settle(joined->link.client, BOP_WATCH_REGISTRY,
                                     bop_slice_cstr(args->values[0]),
                                     bop_slice_cstr(args->values[1]), 0, on_settled, joined);

    while (rc == 0 && !joined->settled && caught == 0) {
        rc = link_turn(&joined->link, TURN_MS);
    }
    return caught ? SIGNAL_EXIT + caught : rc < 0 ? complain_of(joined, rc) : CLI_OK;
}

static int hold(struct joined *joined)
{
    puts(joined->registers ? "registered" : "joined");
    if (fflush(stdout) != 0) {
        return cli_finish_output(CLI_FAILED);
    }
    while (joined->code == 0 && caught == 0 && !input_ended()) {
        /* The presence goes on as it can. */
        BOP_IGNORE(link_turn_patiently(&joined->link, TURN_MS));
    }
    return joined->code ? complain_of(joined, joined->code)
           : caught     ? SIGNAL_EXIT + caught
                        : CLI_OK;
}

/* In the child. The parent's end must be its end, too. */
static void become(char *const *words, pid_t parent)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent) {
        execvp(words[0], words);
        fprintf(stderr, "bop: run %s: %s\n", words[0], bop_strerror(-errno));
    }
    _exit(NO_EXEC);
}

static int run_command(struct joined *joined)
{
    pid_t parent = getpid(), child;
    int status = 0;

    fflush(stdout);
    child = fork();
    if (child < 0) {
        return cli_complain(CLI_FAILED, "run %s: %s", joined->args->rest[0], bop_strerror(-errno));
    }
    if (child == 0) {
        become(joined->args->rest, parent);
    }
    while (waitpid(child, &status, WNOHANG) == 0) {
        int number = caught;

        caught = 0;
        if (number != 0 && !(number == SIGINT && isatty(STDIN_FILENO))) {
            kill(child, number); /* A terminal sends SIGINT to both. */
        }
        BOP_IGNORE(link_turn(&joined->link, TURN_MS));
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : SIGNAL_EXIT + WTERMSIG(status);
}

/* Say so, and wait until it is done: whoever looks next does not see it any more. */
static void leave(struct joined *joined, const char *name)
{
    struct bop_slice first = bop_slice_cstr(joined->args->values[0]);
    int rc = 0;

    if (joined->registers) {
        bop_presence_remove(joined->presence, first, bop_slice_cstr(joined->args->values[1]),
                            SEQUENCE);
    } else {
        bop_presence_leave(joined->presence, first, bop_slice_cstr(name));
    }
    while (rc == 0 && !bop_presence_there(joined->presence) && caught == 0) {
        rc = link_turn(&joined->link, TURN_MS);
    }
    /* If it could not be said, the end of the session says it. */
}

static int ask(struct joined *joined, const char *name)
{
    const struct cli_args *args = joined->args;
    struct bop_slice first = bop_slice_cstr(args->values[0]);

    return joined->registers ? bop_presence_add(joined->presence, first,
                                                bop_slice_cstr(args->values[1]), SEQUENCE)
                             : bop_presence_join(joined->presence, first, bop_slice_cstr(name),
                                                 bop_slice_cstr(args->info ? args->info : ""));
}

static int join(struct joined *joined)
{
    const struct cli_args *args = joined->args;
    struct bop_presence_options options = {
        .client = joined->link.client, .news = on_news, .user = joined};
    char made[256];
    const char *name = args->aof.name ? args->aof.name : made;
    int exit_code, rc;

    make_name(made, sizeof(made));
    rc = bop_presence_create(&options, &joined->presence);
    if (rc == 0) {
        rc = ask(joined, name);
    }
    if (rc < 0) {
        return complain_of(joined, rc);
    }
    exit_code = wait_for_it(joined);
    if (exit_code == CLI_OK && args->settle) {
        exit_code = settle(joined);
    }
    if (exit_code != CLI_OK) {
        return exit_code;
    }
    exit_code = args->rest ? run_command(joined) : hold(joined);
    caught = 0;
    leave(joined, name);
    return exit_code;
}

static int be_there(const struct cli_args *args, bool registers)
{
    struct link_options options = {
        .args = args, .timeout_ms = CLI_TIMEOUT_MS, .grace_ms = CLI_GRACE_MS};
    struct joined joined = {.args = args, .registers = registers};
    int exit_code = link_open(&options, &joined.link);

    if (exit_code == CLI_OK) {
        catch_signals();
        exit_code = join(&joined);
        bop_presence_destroy(joined.presence);
    }
    link_close(&joined.link);
    return exit_code;
}

int cmd_member_join(const struct cli_args *args)
{
    return be_there(args, false);
}

int cmd_registration_add(const struct cli_args *args)
{
    return be_there(args, true);
}
