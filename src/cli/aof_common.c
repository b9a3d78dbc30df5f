/*
 * What the commands of the group `aof` share.
 */
#include "aof_common.h"

#include <stdlib.h>
#include <string.h>

#include "ndjson.h"

int aof_exit_code(int code)
{
    switch (code) {
    case 0:
        return CLI_OK;
    case BOP_EINVAL:
        return CLI_AOF_USAGE;
    case BOP_ENOTFOUND:
        return CLI_AOF_NOT_FOUND;
    case BOP_EDENIED:
    case BOP_ECONFIG:
        return CLI_AOF_DENIED;
    default:
        return CLI_AOF_FAILED;
    }
}

int aof_complain(const struct bop_error *err)
{
    return cli_complain(aof_exit_code(err->code ? err->code : BOP_EIO), "%s",
                        err->message[0] ? err->message : bop_strerror(err->code));
}

int aof_finish(int exit_code)
{
    return cli_finish_output(CLI_OK) == CLI_OK ? exit_code : CLI_AOF_FAILED;
}

void aof_print_json(json_t *object)
{
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 0);
    if (object && ndjson_write_object(&buf, object) == 0) {
        fwrite(buf.data, 1, buf.size, stdout);
    } else {
        cli_complain(CLI_AOF_FAILED, "%s", bop_strerror(BOP_ENOMEM));
    }
    bop_buf_deinit(&buf);
    json_decref(object);
}

json_t *aof_number(uint64_t number)
{
    char text[24];

    if (number <= INT64_MAX) {
        return json_integer((json_int_t)number);
    }
    snprintf(text, sizeof(text), "%" PRIu64, number);
    return json_string(text);
}

const char *aof_hex(const uint8_t *bytes, size_t size, char *out_text)
{
    for (size_t i = 0; i < size; i++) {
        snprintf(out_text + 2 * i, 3, "%02x", bytes[i]);
    }
    out_text[2 * size] = '\0';
    return out_text;
}

const char *aof_bytes(uint64_t bytes, char out_text[AOF_BYTES_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double size = (double)bytes;
    size_t unit = 0;

    for (; size >= 1024 && unit + 1 < BOP_COUNT_OF(units); unit++) {
        size /= 1024;
    }
    snprintf(out_text, AOF_BYTES_TEXT, unit == 0 ? "%.0f %s" : "%.1f %s", size, units[unit]);
    return out_text;
}

const char *aof_residency(enum bop_tiers_residency residency)
{
    static const char *const words[BOP_TIERS_RESIDENCIES] = {
        [BOP_TIERS_TIER0] = "local",
        [BOP_TIERS_TIER1] = "packed",
        [BOP_TIERS_TIER2] = "object store",
        [BOP_TIERS_NEEDS_RECOVERY] = "needs recovery",
    };

    return (size_t)residency < BOP_COUNT_OF(words) ? words[residency] : "";
}

void aof_print_problem(void *user, const struct bop_aof_problem *problem)
{
    const struct cli_args *args = (const struct cli_args *)user;
    bool concerned = problem->last_seq >= problem->first_seq;

    if (args->json) {
        json_t *object = json_pack("{s:s,s:s,s:o,s:o,s:b,s:s,s:s}", "problem",
                                   bop_aof_problem_word(problem->kind), "file", problem->file,
                                   "offset", aof_number(problem->offset), "bytes",
                                   aof_number(problem->bytes), "elsewhere", problem->elsewhere,
                                   "code", bop_error_name(problem->code), "text", problem->text);

        if (object && concerned) {
            json_object_set_new(object, "first", aof_number(problem->first_seq));
            json_object_set_new(object, "last", aof_number(problem->last_seq));
        }
        aof_print_json(object);
        return;
    }
    printf("%s: %s\n", bop_aof_problem_word(problem->kind), problem->text);
    if (concerned) {
        printf("    records %" PRIu64 " to %" PRIu64 "%s\n", problem->first_seq, problem->last_seq,
               problem->elsewhere ? ": another tier has them" : " are lost");
    }
}

int aof_objects(const struct cli_args *args, struct bop_object_store **out_store)
{
    const struct cli_aof_args *aof = &args->aof;
    const char *endpoint = aof->endpoint ? aof->endpoint : getenv("BOP_TIER2_ENDPOINT");
    struct bop_s3_options options = {.endpoint = endpoint,
                                     .bucket = aof->bucket,
                                     .region = aof->region,
                                     .ca_file = aof->ca,
                                     .access_key = getenv("BOP_TIER2_ACCESS_KEY"),
                                     .secret_key = getenv("BOP_TIER2_SECRET_KEY"),
                                     .session_token = getenv("BOP_TIER2_TOKEN")};
    struct bop_error err = {0};
    int rc;

    *out_store = NULL;
    if (!aof->endpoint && !aof->bucket) {
        return CLI_OK; /* An endpoint in the environment alone does not ask for it. */
    }
    if (!endpoint || !aof->bucket) {
        return cli_complain(CLI_AOF_USAGE, "an object store has an endpoint and a bucket: give %s",
                            endpoint ? "--bucket NAME" : "--endpoint URL");
    }
    if (args->timeout_ms > 0) {
        options.connect_timeout_ms = (unsigned)bop_min_u64(args->timeout_ms, UINT32_MAX);
        options.stall_timeout_ms = options.connect_timeout_ms;
    }
    rc = bop_s3_create(&options, out_store, &err);
    if (rc < 0) {
        return cli_complain(CLI_AOF_DENIED, "%s", err.message);
    }
    /* What is wrong with it is said before anything is begun. */
    rc = bop_s3_check(*out_store, &err);
    if (rc < 0) {
        (*out_store)->destroy(*out_store);
        *out_store = NULL;
        return cli_complain(rc == BOP_ENOTFOUND ? CLI_AOF_DENIED : aof_exit_code(rc), "%s",
                            err.message);
    }
    return CLI_OK;
}
