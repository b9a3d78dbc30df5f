/*
 * Appending from a command: tasks run on its one thread, when there is enough to write.
 */
#include "aof_writer.h"

#include "aof_common.h"

static void on_durable(void *user, uint64_t seq)
{
    struct aof_writer *writer = user;

    writer->durable = seq;
    writer->commits++;
}

static void on_failed(void *user, int code, const char *message)
{
    struct aof_writer *writer = user;

    writer->failed = code;
    bop_error_say(&writer->err, code, "%s", message);
}

/* A log that has tiers is opened with them: what left the directory is not missing. Nothing is
 * moved. */
static int open_tiers(struct aof_writer *writer, const char *path, struct bop_error *err)
{
    struct bop_tiers_options options = {.tier0_bytes = UINT64_C(1) << 60,
                                        .tier1_bytes = UINT64_C(1) << 60};
    char manifest[4096];

    if (snprintf(manifest, sizeof(manifest), "%s/manifest", path) >= (int)sizeof(manifest) ||
        !bop_fs_exists(bop_fs_real(), manifest)) {
        return 0;
    }
    return bop_tiers_create(&options, &writer->tiers, err);
}

int aof_writer_open(struct aof_writer *writer, const struct bop_aof_options *options)
{
    struct bop_aof_options own = *options;
    struct bop_error err = {0};
    int rc;

    *writer = (struct aof_writer){0};
    bop_inline_init(&writer->executor);
    own.executor = &writer->executor.executor;
    own.on_durable = on_durable;
    own.on_failed = on_failed;
    own.user = writer;
    rc = open_tiers(writer, options->path, &err);
    own.tiers = writer->tiers;
    if (rc == 0) {
        rc = bop_aof_open(&own, &writer->aof, &writer->recovery, &err);
    }
    if (rc == BOP_ECORRUPT) {
        return cli_complain(CLI_AOF_FAILED, "%s; `bop aof verify` says more", err.message);
    }
    if (rc < 0) {
        return aof_complain(&err);
    }
    bop_inline_poll(&writer->executor);
    return CLI_OK;
}

int aof_writer_flush(struct aof_writer *writer)
{
    bop_inline_poll(&writer->executor);
    if (writer->tiers) {
        BOP_IGNORE(bop_tiers_poll(writer->tiers));
    }
    return writer->failed;
}

int aof_writer_append(struct aof_writer *writer, const struct bop_aof_record *record)
{
    int rc = bop_aof_append(writer->aof, record, 1);

    if (rc == BOP_EFULL) {
        rc = aof_writer_flush(writer);
        if (rc == 0) {
            rc = bop_aof_append(writer->aof, record, 1);
        }
    }
    if (rc < 0 && writer->err.code == 0) {
        bop_error_set(&writer->err, rc, "append record %" PRIu64, bop_aof_last(writer->aof) + 1);
    }
    return rc;
}

void aof_writer_close(struct aof_writer *writer)
{
    if (writer->aof) {
        bop_inline_poll(&writer->executor);
        bop_aof_close(writer->aof);
    }
    bop_tiers_destroy(writer->tiers);
}
