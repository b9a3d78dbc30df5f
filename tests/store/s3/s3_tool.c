/*
 * One call of the S3 client from the command line, for test_s3.py.
 *
 *     s3_tool OPTION=VALUE... COMMAND ARGUMENT...
 *
 * Prints lines of a word and a value, of which the last are
 *
 *     rc BOP_EDENIED
 *     message put a/b in bucket ...
 *     metric bop_s3_requests_total 3
 *     live 0
 *
 * A line on standard input, if cancel=1, cancels.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <bop/mem.h>
#include <bop/object_store.h>

#define THREADS_MAX 32

struct tool {
    struct bop_s3_options options;
    struct bop_object_store *store;
    struct bop_metrics *metrics;
    struct bop_error err;
    struct bop_object_put put;
    struct bop_object_meta meta[BOP_OBJECT_META_MAX];
    uint8_t customer_key[32];
    size_t get_max;
    bool cancel;
    bool progress;
    char **arguments; /* Of the command. */
};

static void die(const char *what)
{
    fprintf(stderr, "s3_tool: %s\n", what);
    exit(2);
}

static void print_hex(const char *word, const uint8_t digest[32])
{
    printf("%s ", word);
    for (size_t i = 0; i < 32; i++) {
        printf("%02x", digest[i]);
    }
    putchar('\n');
}

static void print_info(const struct bop_object_info *info)
{
    printf("size %" PRIu64 "\nmodified %" PRIu64 "\netag %s\n", info->size, info->modified_s,
           info->etag);
    if (info->sha256_known) {
        print_hex("sha256", info->sha256);
    }
}

/* ---- Options ---- */

static void set_customer_key(struct tool *tool, const char *hex)
{
    for (size_t i = 0; i < 32; i++) {
        unsigned byte;

        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) {
            die("customer_key has 64 hex digits");
        }
        tool->customer_key[i] = (uint8_t)byte;
    }
    tool->options.customer_key = tool->customer_key;
}

static void add_meta(struct tool *tool, char *value)
{
    char *colon = strchr(value, ':');

    if (!colon || tool->put.meta_count == BOP_OBJECT_META_MAX) {
        die("meta=NAME:VALUE");
    }
    *colon = '\0';
    tool->meta[tool->put.meta_count++] = (struct bop_object_meta){value, colon + 1};
    tool->put.meta = tool->meta;
}

static bool set_text(struct tool *tool, const char *name, const char *value)
{
    const struct {
        const char *name;
        const char **to;
    } texts[] = {
        {"endpoint", &tool->options.endpoint},     {"bucket", &tool->options.bucket},
        {"region", &tool->options.region},         {"prefix", &tool->options.prefix},
        {"access_key", &tool->options.access_key}, {"secret_key", &tool->options.secret_key},
        {"token", &tool->options.session_token},   {"ca_file", &tool->options.ca_file},
        {"kms_key", &tool->options.kms_key_id},    {"kms_context", &tool->options.kms_context},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(texts); i++) {
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].to = value;
            return true;
        }
    }
    return false;
}

static bool set_number(struct tool *tool, const char *name, const char *value)
{
    unsigned number = (unsigned)strtoul(value, NULL, 10);
    const struct {
        const char *name;
        unsigned *to;
    } numbers[] = {
        {"attempts", &tool->options.attempts},
        {"backoff_ms", &tool->options.backoff_ms},
        {"connect_ms", &tool->options.connect_timeout_ms},
        {"stall_ms", &tool->options.stall_timeout_ms},
        {"connections", &tool->options.connections_max},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(numbers); i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].to = number;
            return true;
        }
    }
    return false;
}

static void set(struct tool *tool, const char *name, char *value)
{
    static const char *const kinds[] = {"none", "s3", "kms", "customer"};

    if (set_text(tool, name, value) || set_number(tool, name, value)) {
        return;
    }
    if (strcmp(name, "part_bytes") == 0) {
        tool->options.part_bytes = strtoull(value, NULL, 10);
    } else if (strcmp(name, "get_max") == 0) {
        tool->get_max = strtoull(value, NULL, 10);
    } else if (strcmp(name, "virtual_host") == 0) {
        tool->options.virtual_host = value[0] == '1';
    } else if (strcmp(name, "only_new") == 0) {
        tool->put.only_new = value[0] == '1';
    } else if (strcmp(name, "cancel") == 0) {
        tool->cancel = value[0] == '1';
    } else if (strcmp(name, "progress") == 0) {
        tool->progress = value[0] == '1';
    } else if (strcmp(name, "upload") == 0) {
        snprintf(tool->put.upload_id, sizeof(tool->put.upload_id), "%s", value);
    } else if (strcmp(name, "meta") == 0) {
        add_meta(tool, value);
    } else if (strcmp(name, "customer_key") == 0) {
        set_customer_key(tool, value);
    } else if (strcmp(name, "encryption") == 0) {
        for (size_t i = 0; i < BOP_COUNT_OF(kinds); i++) {
            if (strcmp(value, kinds[i]) == 0) {
                tool->options.encryption = (enum bop_s3_encryption)i;
            }
        }
    } else {
        die(name);
    }
}

/* ---- Commands ---- */

static int run_check(struct tool *tool)
{
    return bop_s3_check(tool->store, &tool->err);
}

static void print_upload(BOP_UNUSED void *user, const char *id)
{
    printf("upload %s\n", id);
    fflush(stdout);
}

static void print_progress(BOP_UNUSED void *user, uint64_t bytes)
{
    printf("progress %" PRIu64 "\n", bytes);
    fflush(stdout);
}

static void digest_file(const char *path, uint8_t out_digest[32])
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    FILE *file = fopen(path, "rb");
    char bytes[65536];
    size_t got;

    if (!file || !hash || EVP_DigestInit_ex(hash, EVP_sha256(), NULL) != 1) {
        die(path);
    }
    while ((got = fread(bytes, 1, sizeof(bytes), file)) > 0) {
        if (EVP_DigestUpdate(hash, bytes, got) != 1) {
            die("hash");
        }
    }
    if (EVP_DigestFinal_ex(hash, out_digest, NULL) != 1) {
        die("hash");
    }
    EVP_MD_CTX_free(hash);
    fclose(file);
}

/* put KEY FILE [DIGEST_FILE]: the digest is that of another file, to be a wrong one. */
static int run_put(struct tool *tool)
{
    const char *path = tool->arguments[1];
    struct bop_fs *fs = bop_fs_real();
    struct bop_object_info info;
    int rc;

    tool->put.key = tool->arguments[0];
    tool->put.source.fs = fs;
    tool->put.source.fd = fs->open(fs, path, O_RDONLY);
    if (tool->put.source.fd < 0 || fs->size(fs, tool->put.source.fd, &tool->put.source.size) < 0) {
        die(path);
    }
    digest_file(tool->arguments[2] ? tool->arguments[2] : path, tool->put.sha256);
    tool->put.on_upload_id = print_upload;
    tool->put.on_progress = tool->progress ? print_progress : NULL;
    rc = tool->store->put(tool->store, &tool->put, &info, &tool->err);
    fs->close(fs, tool->put.source.fd);
    printf("left %s\n", tool->put.upload_id);
    if (rc == 0) {
        print_info(&info);
    }
    return rc;
}

/* get KEY OFFSET SIZE FILE */
static int run_get(struct tool *tool)
{
    uint64_t offset = strtoull(tool->arguments[1], NULL, 10);
    uint64_t size = strcmp(tool->arguments[2], "all") == 0 ? UINT64_MAX
                                                           : strtoull(tool->arguments[2], NULL, 10);
    struct bop_buf out;
    int rc;

    bop_buf_init(&out, NULL, tool->get_max);
    rc = bop_buf_append(&out, "<", 1);
    rc = rc ? rc
            : tool->store->get(tool->store, tool->arguments[0], offset, size, &out, &tool->err);
    printf("got %zu\n", out.size - 1);
    if (rc == 0) {
        FILE *file = fopen(tool->arguments[3], "wb");

        /* What was in the buffer before is there still. */
        if (!file || out.data[0] != '<' ||
            fwrite(out.data + 1, 1, out.size - 1, file) != out.size - 1 || fclose(file) != 0) {
            die(tool->arguments[3]);
        }
    }
    bop_buf_deinit(&out);
    return rc;
}

static int run_head(struct tool *tool)
{
    struct bop_object_info info;
    int rc = tool->store->head(tool->store, tool->arguments[0], &info, &tool->err);

    if (rc == 0) {
        print_info(&info);
    }
    return rc;
}

static int run_remove(struct tool *tool)
{
    return tool->store->remove(tool->store, tool->arguments[0], &tool->err);
}

static int print_key(BOP_UNUSED void *user, const char *key, const struct bop_object_info *info)
{
    printf("key %" PRIu64 " %s\n", info->size, key);
    return info->sha256_known ? BOP_EINVAL : 0;
}

static int run_list(struct tool *tool)
{
    return tool->store->list(tool->store, tool->arguments[0], print_key, NULL, &tool->err);
}

static int remove_key(void *user, const char *key, BOP_UNUSED const struct bop_object_info *info)
{
    struct tool *tool = user;

    return tool->store->remove(tool->store, key, &tool->err);
}

/* Removes from inside of the walk. */
static int run_empty(struct tool *tool)
{
    return tool->store->list(tool->store, tool->arguments[0], remove_key, tool, &tool->err);
}

/* abort PREFIX SECONDS */
static int run_abort(struct tool *tool)
{
    unsigned count = 0;
    int rc = bop_s3_abort_uploads(tool->store, tool->arguments[0],
                                  strtoull(tool->arguments[1], NULL, 10), &count, &tool->err);

    printf("aborted %u\n", count);
    return rc;
}

/* ---- Many at once ---- */

struct worker {
    pthread_t thread;
    struct tool *tool;
    unsigned number;
    unsigned count;
    int rc;
    struct bop_error err;
};

static int put_and_get(struct worker *worker, const char *key)
{
    struct bop_object_store *store = worker->tool->store;
    struct bop_object_put put = {.key = key, .source = {.bytes = key, .size = strlen(key)}};
    struct bop_buf out;
    int rc;

    if (EVP_Digest(key, strlen(key), put.sha256, NULL, EVP_sha256(), NULL) != 1) {
        return BOP_ENOMEM;
    }
    rc = store->put(store, &put, NULL, &worker->err);
    if (rc < 0) {
        return rc;
    }
    bop_buf_init(&out, NULL, 0);
    rc = store->get(store, key, 0, UINT64_MAX, &out, &worker->err);
    if (rc == 0 && !bop_slice_equal(bop_buf_slice(&out), bop_slice_cstr(key))) {
        rc = BOP_ECORRUPT;
    }
    bop_buf_deinit(&out);
    return rc;
}

static void *work(void *user)
{
    struct worker *worker = user;
    char key[64];

    for (unsigned i = 0; worker->rc == 0 && i < worker->count; i++) {
        snprintf(key, sizeof(key), "%s%02u/%05u", worker->tool->arguments[0], worker->number, i);
        worker->rc = put_and_get(worker, key);
    }
    return NULL;
}

/* many PREFIX THREADS COUNT */
static int run_many(struct tool *tool)
{
    unsigned threads = (unsigned)strtoul(tool->arguments[1], NULL, 10);
    struct worker workers[THREADS_MAX] = {0};
    int rc = 0;

    for (unsigned i = 0; i < threads && i < THREADS_MAX; i++) {
        workers[i].tool = tool;
        workers[i].number = i;
        workers[i].count = (unsigned)strtoul(tool->arguments[2], NULL, 10);
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            die("thread");
        }
    }
    for (unsigned i = 0; i < threads && i < THREADS_MAX; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].rc < 0 && rc == 0) {
            rc = workers[i].rc;
            tool->err = workers[i].err;
        }
    }
    return rc;
}

/* ---- All of it ---- */

static const struct command {
    const char *name;
    int arguments;
    int (*run)(struct tool *tool);
} commands[] = {
    {"check", 0, run_check}, {"put", 2, run_put},       {"get", 4, run_get},
    {"head", 1, run_head},   {"remove", 1, run_remove}, {"list", 1, run_list},
    {"empty", 1, run_empty}, {"abort", 2, run_abort},   {"many", 3, run_many},
};

static void *cancel_on_line(void *user)
{
    struct tool *tool = user;
    char byte;

    if (read(STDIN_FILENO, &byte, 1) == 1) {
        tool->store->cancel(tool->store);
    }
    return NULL;
}

static int run(struct tool *tool, const struct command *command)
{
    pthread_t thread;
    int rc = bop_s3_create(&tool->options, &tool->store, &tool->err);

    if (rc < 0) {
        return rc;
    }
    if (tool->cancel && pthread_create(&thread, NULL, cancel_on_line, tool) != 0) {
        die("thread");
    }
    rc = command->run(tool);
    if (tool->cancel) {
        pthread_join(thread, NULL);
    }
    tool->store->destroy(tool->store);
    return rc;
}

static void print_metrics(struct bop_metrics *metrics)
{
    struct bop_buf text;
    char *save = NULL;

    bop_buf_init(&text, NULL, 0);
    if (bop_metrics_write(metrics, &text) < 0 || bop_buf_append(&text, "", 1) < 0) {
        die("metrics");
    }
    for (char *line = strtok_r((char *)text.data, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        if (line[0] != '#' && !strstr(line, "_us_bucket")) {
            printf("metric %s\n", line);
        }
    }
    bop_buf_deinit(&text);
}

/* Memory that the client has kept. */
static size_t live_bytes(void)
{
    static struct bop_mem_stats stats;

    bop_mem_stats(&stats);
    for (size_t i = 0; i < stats.tag_count; i++) {
        if (strcmp(stats.tags[i].name, "store.s3") == 0) {
            return stats.tags[i].live_bytes;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct tool tool;
    const struct command *command = NULL;
    int at = 1;
    int rc;

    for (; at < argc && strchr(argv[at], '='); at++) {
        char *equals = strchr(argv[at], '=');

        *equals = '\0';
        set(&tool, argv[at], equals + 1);
    }
    for (size_t i = 0; at < argc && i < BOP_COUNT_OF(commands); i++) {
        if (strcmp(argv[at], commands[i].name) == 0) {
            command = &commands[i];
        }
    }
    if (!command || argc - at - 1 < command->arguments) {
        die("which command, and its arguments?");
    }
    tool.arguments = argv + at + 1;
    if (bop_metrics_create(NULL, &tool.metrics) < 0) {
        die("metrics");
    }
    tool.options.metrics = tool.metrics;
    rc = run(&tool, command);
    printf("rc %s\nmessage %s\n", rc ? bop_error_name(rc) : "OK", rc ? tool.err.message : "");
    print_metrics(tool.metrics);
    bop_metrics_destroy(tool.metrics);
    printf("live %zu\n", live_bytes());
    return 0;
}
