/*
 * bop lock NAME -- COMMAND, and bop lock list and release.
 *
 * The loop is turned while the command runs, so that the session lives; signals that
 * would end bop go to the command, whose end is what bop waits for.
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bop/client_lock.h>

#include "link.h"
#include "ndjson.h"

#define TURN_MS     20
#define SIGNAL_EXIT 128 /* And its number, as shells say it. */
#define NO_EXEC     127

struct holder {
    const struct cli_args *args;
    struct link link;
    struct bop_client_lock *lock;
    bool done; /* Asking came to its end: */
    int code;  /* so. */
    bool lost;
    bool released;
};

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

static int take_signal(void)
{
    int number = caught;

    caught = 0;
    return number;
}

/* ---- The lock ---- */

static void on_granted(void *user, struct bop_client_lock *lock, int code)
{
    struct holder *holder = (struct holder *)user;

    (void)lock;
    holder->done = true;
    holder->code = code;
    if (code != 0) {
        holder->lock = NULL;
    }
}

static void on_lost(void *user, struct bop_client_lock *lock)
{
    (void)lock;
    ((struct holder *)user)->lost = true;
}

static void on_released(void *user, int code)
{
    struct holder *holder = (struct holder *)user;

    (void)code; /* If it could not be said the end of the session says it. */
    holder->released = true;
}

/* Who asks: for those who list the lock, and to take it away. */
static void make_label(const struct cli_args *args, char *out_label, size_t size)
{
    char host[128] = "?";

    BOP_IGNORE(gethostname(host, sizeof(host) - 1));
    if (args->label) {
        snprintf(out_label, size, "%s", args->label);
    } else {
        snprintf(out_label, size, "%s pid %ld%s%s", host, (long)getpid(), args->rest ? ": " : "",
                 args->rest ? args->rest[0] : "");
    }
}

static int ask(struct holder *holder, const struct bop_client_lock_options *options)
{
    int rc;

    holder->done = false;
    rc = bop_client_lock_acquire(holder->link.client, options, on_granted, on_lost, holder,
                                 &holder->lock);
    while (rc == 0 && !holder->done && caught == 0) {
        rc = link_turn_patiently(&holder->link, TURN_MS);
    }
    return rc ? rc : holder->done ? holder->code : BOP_ECANCELED;
}

/* The capacity of a lock that has another one than was asked for; 0: it has gone meanwhile. */
static int find_capacity(struct holder *holder, uint32_t *out_capacity)
{
    struct bop_operation get = {
        .op = BOP_OP_LOCK_GET, .name = bop_slice_cstr(holder->args->values[0]), .limit = 1};
    struct bop_result result;
    struct bop_buf buf;
    int rc;

    bop_buf_init(&buf, NULL, 0);
    rc = link_call(&holder->link, &get, &buf, &result);
    *out_capacity = rc == 0 ? result.capacity : 0;
    bop_buf_deinit(&buf);
    return rc == BOP_ENOTFOUND ? 0 : rc;
}

/* What to ask for. Who wants the lock alone takes all of it, so that others may share it. */
static struct bop_client_lock_options wanted_of(const struct cli_args *args)
{
    struct bop_client_lock_options options = {
        .name = bop_slice_cstr(args->values[0]),
        .capacity = (uint32_t)args->capacity,
        .permits = (uint32_t)args->permits,
        .timeout_ms = args->timeout_ms,
    };

    if (args->shared) {
        bop_client_lock_for_reading(&options);
    } else if (args->capacity == 0) {
        bop_client_lock_for_writing(&options);
    }
    return options;
}

/* Ask and wait. Returns an exit code; CLI_OK: it is held. */
static int acquire(struct holder *holder)
{
    const struct cli_args *args = holder->args;
    struct bop_client_lock_options options = wanted_of(args);
    bool any = !args->shared && args->capacity == 0;
    char label[BOP_LABEL_MAX + 1];
    int rc;

    make_label(args, label, sizeof(label));
    options.label = bop_slice_cstr(label);
    rc = ask(holder, &options);
    while (rc == BOP_ECONDITION && any) {
        /* Programs that never share a lock make it with a capacity of 1. */
        rc = find_capacity(holder, &options.capacity);
        if (rc == 0 && options.capacity == 0) {
            bop_client_lock_for_writing(&options);
        }
        options.permits = options.capacity;
        rc = rc ? rc : ask(holder, &options);
    }
    if (caught != 0) {
        return SIGNAL_EXIT + caught;
    }
    if (rc == BOP_ETIMEOUT && holder->done && holder->link.info.ready) {
        return cli_complain(CLI_CONDITION, "the lock %s was not free in time", args->values[0]);
    }
    if (rc == BOP_ECONDITION) {
        return cli_complain(CLI_CONDITION,
                            "the lock %s is in use with another capacity: give the --capacity "
                            "that the others give",
                            args->values[0]);
    }
    return rc ? link_complain(&holder->link, rc, "acquire %s", args->values[0]) : CLI_OK;
}

static void release(struct holder *holder)
{
    if (!holder->lock || bop_client_lock_release(holder->lock, on_released, holder) != 0) {
        return;
    }
    holder->lock = NULL;
    while (!holder->released && link_turn(&holder->link, TURN_MS) == 0) {
    }
}

static int complain_of_loss(const struct holder *holder)
{
    return cli_complain(CLI_FAILED,
                        "the lock %s was lost: cut off from the cluster for too long, or taken "
                        "away by `bop lock release`",
                        holder->args->values[0]);
}

/* ---- The command ---- */

/* In the child. The parent's end must be its end, too. */
static void become(char *const *words, uint64_t token, pid_t parent)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, token);
    setenv("BOP_LOCK_TOKEN", text, 1);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent) {
        execvp(words[0], words);
        fprintf(stderr, "bop: run %s: %s\n", words[0], strerror(errno));
    }
    _exit(NO_EXEC);
}

static int exit_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : SIGNAL_EXIT + WTERMSIG(status);
}

/* Turn the loop until the child ends. */
static int attend(struct holder *holder, pid_t child)
{
    bool told = false;
    int status = 0;

    while (waitpid(child, &status, WNOHANG) == 0) {
        int number = take_signal();

        if (number != 0 && !(number == SIGINT && isatty(STDIN_FILENO))) {
            kill(child, number); /* A terminal sends SIGINT to both. */
        }
        if (holder->lost && !told) {
            BOP_IGNORE(complain_of_loss(holder));
            kill(child, SIGTERM);
            told = true;
        }
        BOP_IGNORE(link_turn(&holder->link, TURN_MS)); /* The lock's loss says what matters. */
    }
    return holder->lost ? CLI_FAILED : exit_of(status);
}

static int run_command(struct holder *holder)
{
    pid_t parent = getpid(), child;

    fflush(stdout);
    child = fork();
    if (child < 0) {
        return cli_complain(CLI_FAILED, "run %s: %s", holder->args->rest[0], strerror(errno));
    }
    if (child == 0) {
        become(holder->args->rest, bop_client_lock_token(holder->lock), parent);
    }
    return attend(holder, child);
}

/* ---- Without a command ---- */

static bool input_ended(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char bytes[4096];

    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, bytes, sizeof(bytes)) <= 0;
}

static int hold(struct holder *holder)
{
    uint64_t token = bop_client_lock_token(holder->lock);

    printf(holder->args->json ? "{\"token\":%" PRIu64 "}\n" : "%" PRIu64 "\n", token);
    if (fflush(stdout) != 0) {
        return cli_finish_output(CLI_FAILED);
    }
    while (!holder->lost && !input_ended()) {
        int number = take_signal();

        if (number != 0) {
            return SIGNAL_EXIT + number;
        }
        BOP_IGNORE(link_turn(&holder->link, TURN_MS));
    }
    return holder->lost ? complain_of_loss(holder) : CLI_OK;
}

int cmd_lock(const struct cli_args *args)
{
    /* --timeout is how long to wait for the lock; a request has its usual time. */
    struct cli_args asking = *args;
    struct link_options options = {
        .args = &asking,
        .timeout_ms = CLI_TIMEOUT_MS,
        .grace_ms = CLI_GRACE_MS,
        /* When its server dies with it, nobody tells that it was cut off. A holder gives up after
         * half of this, or the grace, so that a longer one would help nobody. */
        .session_ms = 2 * CLI_GRACE_MS};
    struct holder holder = {.args = args};
    int exit_code;

    if (args->shared && (args->capacity || args->permits)) {
        return cli_complain(CLI_USAGE, "--shared goes without --capacity and --permits");
    }
    if (args->permits > args->capacity) {
        return cli_complain(CLI_USAGE, "--permits %" PRIu64 ": more than the --capacity",
                            args->permits);
    }
    asking.timeout_ms = 0;
    exit_code = link_open(&options, &holder.link);
    if (exit_code != CLI_OK) {
        return exit_code;
    }
    catch_signals();
    exit_code = acquire(&holder);
    if (exit_code == CLI_OK) {
        exit_code = args->rest ? run_command(&holder) : hold(&holder);
        release(&holder);
    }
    link_close(&holder.link);
    return exit_code;
}

/* ---- Looking ---- */

/* A label is anybody's bytes: nothing of it may break the line. */
static void print_label(struct bop_slice label)
{
    for (size_t i = 0; i < label.size; i++) {
        uint8_t c = label.data[i];

        if (c < 0x20 || c == '\\' || c == 0x7f) {
            printf("\\x%02x", c);
        } else {
            putchar(c);
        }
    }
}

static void print_request(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    uint64_t session = bop_load_u64(entry->value.data);
    uint64_t token = bop_load_u64(entry->value.data + 8);
    uint32_t permits = bop_load_u32(entry->value.data + 16);
    char waits[24] = "waits";
    json_t *object;

    if (args->json) {
        object = json_pack("{s:I, s:I, s:I, s:I}", "ticket", (json_int_t)entry->version, "token",
                           (json_int_t)token, "permits", (json_int_t)permits, "session",
                           (json_int_t)session);
        if (object && ndjson_set_bytes(object, "label", entry->key) == 0) {
            BOP_IGNORE(json_dumpf(object, stdout, JSON_COMPACT)); /* The flush at the end tells. */
            putchar('\n');
        }
        json_decref(object);
        return;
    }
    if (token != 0) {
        snprintf(waits, sizeof(waits), "%" PRIu64, token);
    }
    printf("%" PRIu64 "\t%s\t%" PRIu32 "\t%" PRIu64 "\t", entry->version, waits, permits, session);
    print_label(entry->key);
    putchar('\n');
}

/* Call fn for each request until it says that it has seen enough. Returns an exit code. */
typedef bool (*request_fn)(const struct cli_args *args, const struct bop_scan_entry *entry,
                           void *user);

static int each_request(struct link *link, const struct cli_args *args, request_fn fn, void *user)
{
    struct bop_operation get = {.op = BOP_OP_LOCK_GET, .name = bop_slice_cstr(args->values[0])};
    struct bop_buf buf, cursor;
    struct bop_result page;
    bool enough = false;
    int rc;

    bop_buf_init(&buf, NULL, 0);
    bop_buf_init(&cursor, NULL, 0);
    do {
        struct bop_scan_entry entry;

        get.cursor = bop_buf_slice(&cursor);
        rc = link_call(link, &get, &buf, &page);
        if (rc != 0) {
            break;
        }
        while (!enough && bop_scan_next(&page.entries, &entry) && entry.value.size == 20) {
            enough = fn(args, &entry, user);
        }
        bop_buf_clear(&cursor);
        rc = bop_buf_append(&cursor, page.cursor.data, page.cursor.size);
    } while (rc == 0 && cursor.size > 0 && !enough);
    bop_buf_deinit(&buf);
    bop_buf_deinit(&cursor);
    if (rc == BOP_ENOTFOUND) {
        return cli_complain(CLI_NOT_FOUND, "nobody has the lock %s", args->values[0]);
    }
    return rc ? link_complain(link, rc, "look at the lock %s", args->values[0]) : CLI_OK;
}

static bool print_one(const struct cli_args *args, const struct bop_scan_entry *entry, void *user)
{
    (void)user;
    print_request(args, entry);
    return false;
}

int cmd_lock_list(const struct cli_args *args)
{
    struct link_options options = {.args = args, .timeout_ms = CLI_TIMEOUT_MS, .pin = args->stale};
    struct link link;
    int exit_code = link_open(&options, &link);

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    exit_code = each_request(&link, args, print_one, NULL);
    link_close(&link);
    return cli_finish_output(exit_code);
}

/* ---- Taking away ---- */

struct wanted {
    uint64_t ticket;
    bool found;
    bool granted;
    char label[BOP_LABEL_MAX];
    size_t label_size;
};

static bool find_one(const struct cli_args *args, const struct bop_scan_entry *entry, void *user)
{
    struct wanted *wanted = (struct wanted *)user;

    (void)args;
    if (entry->version != wanted->ticket || entry->key.size > sizeof(wanted->label)) {
        return false;
    }
    wanted->found = true;
    wanted->granted = bop_load_u64(entry->value.data + 8) != 0;
    wanted->label_size = entry->key.size;
    if (entry->key.size > 0) {
        memcpy(wanted->label, entry->key.data, entry->key.size);
    }
    return true;
}

/* Adopt by the label, and release what was adopted. */
static int take_away(struct link *link, const struct cli_args *args, const struct wanted *wanted)
{
    struct bop_operation operation = {.op = BOP_OP_LOCK_ADOPT,
                                      .name = bop_slice_cstr(args->values[0]),
                                      .label = bop_slice(wanted->label, wanted->label_size)};
    struct bop_result result;
    struct bop_buf buf;
    int rc;

    bop_buf_init(&buf, NULL, 0);
    rc = link_call(link, &operation, &buf, &result);
    if (rc == 0 && result.ticket != wanted->ticket) {
        bop_buf_deinit(&buf);
        return result.ticket == 0
                   ? cli_complain(CLI_NOT_FOUND, "%s %s is released", args->values[0],
                                  args->values[1])
                   : cli_complain(CLI_FAILED,
                                  "%s: ticket %" PRIu64 " has the same label: it is this "
                                  "command's now, and goes with it; try again",
                                  args->values[0], result.ticket);
    }
    operation.op = BOP_OP_LOCK_RELEASE;
    operation.sequence = wanted->ticket;
    rc = rc ? rc : link_call(link, &operation, &buf, &result);
    bop_buf_deinit(&buf);
    return rc ? link_complain(link, rc, "release %s", args->values[0]) : CLI_OK;
}

int cmd_lock_release(const struct cli_args *args)
{
    struct link_options options = {.args = args, .timeout_ms = CLI_TIMEOUT_MS};
    struct wanted wanted = {0};
    struct link link;
    char *end = NULL;
    int exit_code;

    errno = 0;
    wanted.ticket = strtoull(args->values[1], &end, 10);
    if (end == args->values[1] || *end || errno != 0 || args->values[1][0] == '-') {
        return cli_complain(CLI_USAGE, "%s: not a ticket; `bop lock list` says them",
                            args->values[1]);
    }
    exit_code = link_open(&options, &link);
    if (exit_code != CLI_OK) {
        return exit_code;
    }
    exit_code = each_request(&link, args, find_one, &wanted);
    if (exit_code == CLI_OK && !wanted.found) {
        exit_code = cli_complain(CLI_NOT_FOUND, "%s has no request %s", args->values[0],
                                 args->values[1]);
    } else if (exit_code == CLI_OK && (!wanted.granted || wanted.label_size == 0)) {
        exit_code = cli_complain(CLI_FAILED,
                                 "%s %s %s: only who asked for it can take it back; "
                                 "its session's end does, too",
                                 args->values[0], args->values[1],
                                 wanted.granted ? "has no label" : "is not granted");
    }
    if (exit_code == CLI_OK) {
        exit_code = take_away(&link, args, &wanted);
    }
    link_close(&link);
    return cli_finish_output(exit_code);
}
