/*
 * bop kv check, stat, copy: looking after a key-value store in a directory.
 */
#include <inttypes.h>
#include <string.h>

#include <bop/kv_admin.h>

#include "cli.h"
#include "kv_flags.h"
#include "ndjson.h"

/* ---- Kinds of tables ---- */

static const struct {
    unsigned flag;
    const char *word;
} kinds[] = {
    {BOP_KV_REVERSE_KEY, "reverse-key"}, {BOP_KV_DUP_SORT, "dup-sort"},
    {BOP_KV_INTEGER_KEY, "integer-key"}, {BOP_KV_DUP_FIXED, "dup-fixed"},
    {BOP_KV_INTEGER_DUP, "integer-dup"}, {BOP_KV_REVERSE_DUP, "reverse-dup"},
};

json_t *kv_flags_to_json(unsigned flags)
{
    json_t *array = json_array();

    for (size_t i = 0; i < BOP_COUNT_OF(kinds); i++) {
        if (flags & kinds[i].flag && json_array_append_new(array, json_string(kinds[i].word)) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static unsigned flag_of(const char *word)
{
    for (size_t i = 0; i < BOP_COUNT_OF(kinds); i++) {
        if (word && strcmp(word, kinds[i].word) == 0) {
            return kinds[i].flag;
        }
    }
    return 0;
}

bool kv_flags_from_json(const json_t *array, unsigned *out_flags)
{
    *out_flags = 0;
    for (size_t i = 0; i < json_array_size(array); i++) {
        unsigned flag = flag_of(json_string_value(json_array_get(array, i)));

        if (flag == 0) {
            return false;
        }
        *out_flags |= flag;
    }
    return !array || json_is_array(array);
}

/* Print an object as one line and let go of it. */
static int print_json(json_t *object)
{
    struct bop_buf buf;
    int rc;

    bop_buf_init(&buf, NULL, 0);
    rc = object ? ndjson_write_object(&buf, object) : BOP_ENOMEM;
    if (rc == 0) {
        fwrite(buf.data, 1, buf.size, stdout);
    }
    bop_buf_deinit(&buf);
    json_decref(object);
    return rc < 0 ? cli_complain(CLI_FAILED, "%s", bop_strerror(rc)) : CLI_OK;
}

/* ---- check ---- */

static void print_problem(void *context, uint64_t page, const char *table, const char *text)
{
    const struct cli_args *args = context;

    if (args->json) {
        BOP_IGNORE(print_json(
            json_pack("{s:I,s:s,s:s}", "page", (json_int_t)page, "table", table, "problem", text)));
    } else {
        printf("page %" PRIu64 "%s%s: %s\n", page, table[0] ? ", table " : "", table, text);
    }
}

int cmd_kv_check(const struct cli_args *args)
{
    struct bop_kv_check_options options = {.problem = print_problem, .context = (void *)args};
    struct bop_kv_check_result result = {0};
    struct bop_error err = {0};
    int rc = bop_kv_check_path(args->values[0], &options, &result, &err);

    if (rc < 0 && result.problems == 0) {
        return cli_complain_error(&err);
    }
    if (args->json) {
        BOP_IGNORE(print_json(json_pack(
            "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "txn", (json_int_t)result.txn, "page_bytes",
            (json_int_t)result.page_bytes, "pages", (json_int_t)result.pages, "pages_used",
            (json_int_t)result.pages_used, "pages_free", (json_int_t)result.pages_free,
            "pages_lost", (json_int_t)result.pages_lost, "tables", (json_int_t)result.tables,
            "entries", (json_int_t)result.entries, "problems", (json_int_t)result.problems)));
    } else {
        printf("%s: %" PRIu64 " pages of %" PRIu64 " bytes: %" PRIu64 " used, %" PRIu64
               " free, %" PRIu64 " lost; %" PRIu64 " entries in %" PRIu64 " tables; %" PRIu64
               " problems\n",
               args->values[0], result.pages, result.page_bytes, result.pages_used,
               result.pages_free, result.pages_lost, result.entries, result.tables,
               result.problems);
    }
    return cli_finish_output(rc < 0 ? CLI_FAILED : CLI_OK);
}

/* ---- stat ---- */

struct stat_job {
    const struct cli_args *args;
    struct bop_kv_txn *txn;
    json_t *tables;
    json_t *sequences;
};

static int stat_table(void *context, const char *name, struct bop_kv_table table)
{
    struct stat_job *job = context;
    struct bop_kv_table_stat stat;
    json_t *flags, *object;
    int rc = bop_kv_table_stat(job->txn, table, &stat);

    if (rc < 0) {
        return rc;
    }
    flags = kv_flags_to_json(stat.flags);
    object = json_pack("{s:s,s:o,s:I,s:i,s:I,s:I,s:I}", "name", name, "flags", flags, "entries",
                       (json_int_t)stat.entries, "depth", (int)stat.depth, "branch_pages",
                       (json_int_t)stat.branch_pages, "leaf_pages", (json_int_t)stat.leaf_pages,
                       "overflow_pages", (json_int_t)stat.overflow_pages);
    if (!object) {
        return BOP_ENOMEM;
    }
    if (!job->args->json) {
        printf("table %s: %" PRIu64 " entries, depth %u, pages: %" PRIu64 " branch, %" PRIu64
               " leaf, %" PRIu64 " overflow\n",
               name, stat.entries, stat.depth, stat.branch_pages, stat.leaf_pages,
               stat.overflow_pages);
    }
    return json_array_append_new(job->tables, object) < 0 ? BOP_ENOMEM : 0;
}

json_t *kv_number_text(uint64_t number)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, number);
    return json_string(text);
}

static int stat_sequence(void *context, const char *name, uint64_t number)
{
    struct stat_job *job = context;

    if (!job->args->json) {
        printf("sequence %s: %" PRIu64 "\n", name, number);
    }
    return json_object_set_new(job->sequences, name, kv_number_text(number)) < 0 ? BOP_ENOMEM : 0;
}

static void print_info(const struct bop_kv_info *info, const struct bop_kv_canary *canary)
{
    printf("%s: %" PRIu64 " bytes used in pages of %" PRIu64 ", last transaction %" PRIu64
           ", %u readers\n",
           info->path, info->used_bytes, info->page_bytes, info->last_txn, info->readers);
    if (canary->version > 0) {
        printf("canary: %" PRIu64 " %" PRIu64 " %" PRIu64 ", set by transaction %" PRIu64 "\n",
               canary->x, canary->y, canary->z, canary->version);
    }
}

static int stat_store(struct stat_job *job, struct bop_kv *kv)
{
    struct bop_kv_canary canary;
    struct bop_kv_info info;
    int rc;

    bop_kv_info(kv, &info);
    rc = bop_kv_canary_get(job->txn, &canary);
    if (rc == 0 && !job->args->json) {
        print_info(&info, &canary);
    }
    if (rc == 0) {
        rc = bop_kv_tables(job->txn, stat_table, job);
    }
    if (rc == 0) {
        rc = bop_kv_sequences(job->txn, stat_sequence, job);
    }
    if (rc == 0 && job->args->json) {
        rc = print_json(
            json_pack("{s:s,s:I,s:I,s:I,s:i,s:O,s:O,s:[o,o,o]}", "path", info.path, "used_bytes",
                      (json_int_t)info.used_bytes, "page_bytes", (json_int_t)info.page_bytes,
                      "last_txn", (json_int_t)info.last_txn, "readers", (int)info.readers, "tables",
                      job->tables, "sequences", job->sequences, "canary", kv_number_text(canary.x),
                      kv_number_text(canary.y), kv_number_text(canary.z)));
    }
    return rc;
}

/* Open for reading; says why it cannot be. */
static int open_to_read(const char *path, struct bop_kv **out_kv)
{
    struct bop_kv_options options = {.path = path, .read_only = true, .tables_max = 4096};
    struct bop_error err = {0};

    return bop_kv_open(&options, out_kv, &err) < 0 ? cli_complain_error(&err) : CLI_OK;
}

int cmd_kv_stat(const struct cli_args *args)
{
    struct stat_job job = {.args = args, .tables = json_array(), .sequences = json_object()};
    struct bop_kv *kv;
    int exit_code = open_to_read(args->values[0], &kv);
    int rc;

    if (exit_code == CLI_OK) {
        rc = bop_kv_begin(kv, false, &job.txn);
        if (rc == 0) {
            rc = stat_store(&job, kv);
            bop_kv_abort(job.txn);
        }
        if (rc < 0) {
            exit_code = cli_complain(CLI_FAILED, "%s: %s: %s", args->values[0], bop_strerror(rc),
                                     bop_kv_cause_text());
        }
        bop_kv_close(kv);
    }
    json_decref(job.tables);
    json_decref(job.sequences);
    return cli_finish_output(exit_code);
}

/* ---- copy ---- */

int cmd_kv_copy(const struct cli_args *args)
{
    struct bop_error err = {0};
    struct bop_kv *kv;
    int exit_code = open_to_read(args->values[0], &kv);

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    if (bop_kv_copy(kv, args->values[1], args->compact, &err) < 0) {
        exit_code = cli_complain_error(&err);
    }
    bop_kv_close(kv);
    return exit_code;
}
