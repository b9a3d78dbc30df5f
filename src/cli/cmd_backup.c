/*
 * bop backup, bop backup check.
 *
 * What comes is written to FILE.partial, and beside it, in FILE.partial.from, which node
 * has the rest: that is what --resume goes on from. FILE appears, or is replaced, once
 * all of it is there, checked and on disk.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "backup_fetch.h"

#define PATH_BYTES     4096
#define TURN_MS        20
#define CANDIDATES_MAX (BOP_STATUS_PEERS_MAX + BOP_CLIENT_ENDPOINTS_MAX)

struct backup {
    const struct cli_args *args;
    const char *file;
    char partial[PATH_BYTES];
    char from[PATH_BYTES];
    int fd; /* Of partial. */
    struct fetch fetch;
    struct cli_address candidates[CANDIDATES_MAX]; /* Whom to ask, the best first. */
    size_t candidate_count;
    const char *server; /* Who has it. */
    uint64_t begin;     /* What was there already. */
};

/* ---- Where it goes ---- */

static int open_partial(struct backup *backup)
{
    struct stat status;
    int length = snprintf(backup->from, PATH_BYTES, "%s.partial.from", backup->file);

    if (length < 0 || length >= PATH_BYTES) {
        return cli_complain(CLI_FAILED, "%s: %s", backup->file, bop_strerror(-ENAMETOOLONG));
    }
    snprintf(backup->partial, PATH_BYTES, "%.*s", length - 5, backup->from);
    if (stat(backup->file, &status) == 0 && !S_ISREG(status.st_mode)) {
        return cli_complain(CLI_USAGE, "%s is no file: a backup is read back to be checked",
                            backup->file);
    }
    backup->fd = open(backup->partial, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (backup->fd < 0) {
        return cli_complain(CLI_FAILED, "write %s: %s", backup->partial, bop_strerror(-errno));
    }
    if (flock(backup->fd, LOCK_EX | LOCK_NB) < 0) {
        return cli_complain(CLI_FAILED, "%s is being written by another bop", backup->partial);
    }
    return CLI_OK;
}

/* Note where the rest of it is. Without that it cannot be resumed, but it can be done. */
static void write_from(const struct backup *backup)
{
    FILE *out = fopen(backup->from, "we");

    if (out) {
        fprintf(out, "bop-backup 1\nserver %s\nbackup %016" PRIx64 "\nbytes %" PRIu64 "\n",
                backup->server, backup->fetch.backup.backup, backup->fetch.backup.bytes);
        BOP_IGNORE(fclose(out));
    }
}

static bool read_from(const struct backup *backup, struct cli_address *out_server, uint64_t *out_id,
                      uint64_t *out_bytes)
{
    static const char head[] = "server ";
    FILE *in = fopen(backup->from, "re");
    char line[BOP_ADDRESS_MAX + sizeof(head) + 1];
    bool good;

    if (!in) {
        return false;
    }
    good = fgets(line, sizeof(line), in) && strcmp(line, "bop-backup 1\n") == 0 &&
           fgets(line, sizeof(line), in) && strncmp(line, head, sizeof(head) - 1) == 0 &&
           fscanf(in, "backup %" SCNx64 " bytes %" SCNu64, out_id, out_bytes) == 2;
    fclose(in);
    if (good) {
        line[strcspn(line, "\n")] = '\0';
        snprintf(out_server->text, sizeof(out_server->text), "%.*s", BOP_ADDRESS_MAX,
                 line + sizeof(head) - 1);
    }
    return good;
}

/* ---- Whom to ask ---- */

struct survey {
    struct backup *backup;
    int code;
    bool done;
};

static void add_candidate(struct backup *backup, struct bop_slice address)
{
    if (backup->candidate_count < CANDIDATES_MAX && address.size > 0 &&
        address.size <= BOP_ADDRESS_MAX) {
        snprintf(backup->candidates[backup->candidate_count++].text,
                 sizeof(backup->candidates[0].text), "%.*s", (int)address.size,
                 (const char *)address.data);
    }
}

/* Those that do not lead first, and the leader last: it has enough to do. */
static void on_status(void *user, int code, const struct bop_status_response *status)
{
    struct survey *survey = (struct survey *)user;

    survey->done = true;
    survey->code = code;
    for (unsigned leads = 0; code == 0 && leads < 2; leads++) {
        for (unsigned n = 0; n < status->peer_count; n++) {
            const struct bop_status_peer *peer = &status->peers[n];

            if ((peer->id == status->leader) == (leads == 1) && peer->connected) {
                add_candidate(survey->backup, peer->address);
            }
        }
    }
}

/* As given, with --stale; else of the servers that those given know. */
static int find_candidates(struct backup *backup)
{
    const struct cli_args *args = backup->args;
    struct survey survey = {.backup = backup};
    struct cluster cluster;
    int rc, exit_code = CLI_OK;

    for (size_t n = 0; args->stale && n < args->server_count; n++) {
        add_candidate(backup, bop_slice_cstr(args->servers[n].text));
    }
    if (args->stale) {
        return CLI_OK;
    }
    exit_code = cluster_open(&cluster, args, false);
    if (exit_code == CLI_OK) {
        rc = bop_client_status(cluster.link.client, on_status, &survey);
        while (rc == 0 && !survey.done) {
            rc = link_turn(&cluster.link, TURN_MS);
        }
        rc = rc < 0 ? rc : survey.code;
        if (rc < 0) {
            exit_code = link_complain(&cluster.link, rc, "ask who the servers are");
        }
    }
    cluster_close(&cluster);
    /* Perhaps they cannot be reached from here by the addresses that they know each other by. */
    for (size_t n = 0; n < args->server_count; n++) {
        add_candidate(backup, bop_slice_cstr(args->servers[n].text));
    }
    return exit_code;
}

/* ---- Having it cut ---- */

static int complain_of_code(const struct backup *backup)
{
    const struct bop_backup_response *in = &backup->fetch.backup;

    return cli_complain(
        CLI_FAILED, "node %" PRIu64 " takes no backup: %s%s", in->node, backup->fetch.text,
        in->code == BOP_BACKUP_NOT_NOW ? ": nobody leads; --stale takes what the node has" : "");
}

/* The first one that does it. */
static int cut(struct backup *backup)
{
    int exit_code = find_candidates(backup);

    for (size_t n = 0; n < backup->candidate_count && exit_code == CLI_OK; n++) {
        bool last = n + 1 == backup->candidate_count;
        int rc;

        backup->server = backup->candidates[n].text;
        exit_code = fetch_open(&backup->fetch, backup->args, backup->server);
        if (exit_code != CLI_OK) {
            break;
        }
        rc = fetch_cut(&backup->fetch, backup->args->stale);
        if (rc == 0 && backup->fetch.backup.code == BOP_BACKUP_OK) {
            return CLI_OK;
        }
        if (rc == 0 && last) {
            exit_code = complain_of_code(backup);
        } else if (rc < 0 && (last || rc == BOP_EDENIED)) {
            exit_code = link_complain(&backup->fetch.cluster.link, rc, "take a backup");
        }
        fetch_close(&backup->fetch);
    }
    return exit_code != CLI_OK ? exit_code
                               : cli_complain(CLI_FAILED, "no server is known to be up");
}

/* Go on with what is there. False: it must be begun anew. */
static bool resume(struct backup *backup)
{
    struct stat status;
    uint64_t id, bytes;

    if (!read_from(backup, &backup->candidates[0], &id, &bytes) || fstat(backup->fd, &status) < 0 ||
        status.st_size == 0) {
        return false;
    }
    backup->server = backup->candidates[0].text;
    if (fetch_open(&backup->fetch, backup->args, backup->server) == CLI_OK &&
        fetch_look(&backup->fetch, id) == 0 && backup->fetch.backup.code == BOP_BACKUP_OK &&
        backup->fetch.backup.bytes == bytes && (uint64_t)status.st_size <= bytes) {
        backup->begin = (uint64_t)status.st_size;
        return true;
    }
    fprintf(stderr, "bop: %s has the rest of that backup no more: a new one is taken\n",
            backup->server);
    fetch_close(&backup->fetch);
    return false;
}

static int begin(struct backup *backup)
{
    int exit_code;

    if (backup->args->aof.resume && resume(backup)) {
        return CLI_OK;
    }
    if (ftruncate(backup->fd, 0) < 0) {
        return cli_complain(CLI_FAILED, "empty %s: %s", backup->partial, bop_strerror(-errno));
    }
    unlink(backup->from);
    exit_code = cut(backup);
    if (exit_code == CLI_OK) {
        write_from(backup);
    }
    return exit_code;
}

/* ---- Getting and keeping it ---- */

static int get(struct backup *backup)
{
    struct progress progress;
    int rc;

    progress_init(&progress, stderr, "backed up", backup->fetch.backup.bytes, false);
    rc = fetch_pieces(&backup->fetch, backup->fd, backup->begin, &progress);
    progress_clear(&progress);
    if (rc == 0) {
        return CLI_OK;
    }
    return cli_complain(CLI_FAILED,
                        "%" PRIu64 " of %" PRIu64 " bytes came from %s, then: %s: run it again "
                        "with --resume",
                        backup->fetch.next, backup->fetch.backup.bytes, backup->server,
                        bop_strerror(rc));
}

static int sync_directory(const char *file)
{
    const char *slash = strrchr(file, '/');
    char directory[PATH_BYTES] = ".";
    int fd, rc;

    if (slash) {
        snprintf(directory, sizeof(directory), "%.*s", slash == file ? 1 : (int)(slash - file),
                 file);
    }
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int keep(struct backup *backup, struct bop_backup_info *out_info)
{
    struct bop_error err = {0};
    int rc = fsync(backup->fd) < 0 ? -errno : 0;

    if (rc == 0 && bop_backup_check(backup->partial, out_info, &err) < 0) {
        unlink(backup->partial);
        unlink(backup->from);
        return cli_complain(CLI_FAILED, "what came is damaged, and was removed: %s", err.message);
    }
    if (rc == 0) {
        rc = rename(backup->partial, backup->file) < 0 ? -errno : sync_directory(backup->file);
    }
    if (rc < 0) {
        return cli_complain(CLI_FAILED, "write %s: %s", backup->file, bop_strerror(rc));
    }
    unlink(backup->from);
    return CLI_OK;
}

/* ---- Telling ---- */

static void print_servers(const struct bop_raft_configuration *conf)
{
    for (unsigned n = 0; n < conf->count; n++) {
        const struct bop_raft_server *server = &conf->servers[n];

        printf("  node %" PRIu64 " at %.*s%s\n", server->id, (int)strcspn(server->address, ";"),
               server->address, server->role == BOP_RAFT_VOTER ? "" : ", without a vote");
    }
}

static int print_info(const struct cli_args *args, const char *file, uint64_t node,
                      const struct bop_backup_info *info, bool servers)
{
    json_t *object;
    int rc = 0;

    if (!args->json) {
        printf("%s: entry %" PRIu64 " of term %" PRIu64 ", %" PRIu64 " records, %" PRIu64
               " bytes, format %" PRIu32 ": good\n",
               file, info->index, info->term, info->entries, info->bytes, info->format);
        if (servers) {
            printf("of the cluster:\n");
            print_servers(&info->configuration);
        }
        return CLI_OK;
    }
    object = json_pack("{s:s, s:I, s:I, s:I, s:I, s:i}", "file", file, "index",
                       (json_int_t)info->index, "term", (json_int_t)info->term, "records",
                       (json_int_t)info->entries, "bytes", (json_int_t)info->bytes, "format",
                       (int)info->format);
    if (node != 0) {
        json_object_set_new(object, "node", json_integer((json_int_t)node));
    }
    rc = object ? json_dumpf(object, stdout, JSON_INDENT(2)) : -1;
    json_decref(object);
    putchar('\n');
    return rc < 0 ? cli_complain(CLI_FAILED, "cannot write the output") : CLI_OK;
}

int cmd_backup(const struct cli_args *args)
{
    static struct backup backup; /* Large, and one a process. */
    static struct bop_backup_info info;
    int exit_code;

    backup = (struct backup){.args = args, .file = args->values[0], .fd = -1};
    exit_code = open_partial(&backup);
    if (exit_code == CLI_OK) {
        exit_code = begin(&backup);
    }
    if (exit_code == CLI_OK) {
        exit_code = get(&backup);
    }
    if (exit_code == CLI_OK) {
        fetch_drop(&backup.fetch);
        exit_code = keep(&backup, &info);
    }
    if (exit_code == CLI_OK) {
        exit_code = print_info(args, backup.file, backup.fetch.backup.node, &info, false);
    }
    fetch_close(&backup.fetch);
    if (backup.fd >= 0) {
        close(backup.fd);
    }
    return cli_finish_output(exit_code);
}

int cmd_backup_check(const struct cli_args *args)
{
    static struct bop_backup_info info; /* Large, and one a process. */
    struct bop_error err = {0};

    if (bop_backup_check(args->values[0], &info, &err) < 0) {
        return cli_complain_error(&err);
    }
    return cli_finish_output(print_info(args, args->values[0], 0, &info, true));
}
