/*
 * bop aof seal, flush, hydrate, segments delete, restore: moving a log's segments.
 */
#include <string.h>

#include "aof_common.h"
#include "aof_session.h"

/* ---- seal ---- */

struct sealing {
    uint64_t generation; /* Of the segment that took appends. */
};

static bool is_sealed(struct aof_session *session, void *user)
{
    const struct sealing *sealing = user;
    struct bop_aof_status status;

    bop_aof_status(session->aof, &status);
    return status.generation > sealing->generation && !bop_aof_busy(session->aof);
}

int cmd_aof_seal(const struct cli_args *args)
{
    struct aof_session session;
    struct bop_aof_status status;
    struct sealing sealing;
    int exit_code = aof_session_open(&session, args, 0);
    uint64_t last;
    int rc = 0;

    if (exit_code == CLI_OK) {
        bop_aof_status(session.aof, &status);
        sealing.generation = status.generation;
        last = bop_aof_last(session.aof);
        rc = bop_aof_seal(session.aof);
        if (rc == 0 && last + 1 > bop_aof_first(session.aof)) {
            rc = aof_session_run(&session, is_sealed, &sealing);
        }
        /* Without records in the newest segment there is nothing to seal. */
        rc = rc == BOP_EEND ? 0 : rc;
        if (rc < 0) {
            exit_code = aof_session_complain(&session, rc, "seal");
        } else if (args->json) {
            aof_print_json(json_pack("{s:o,s:o}", "last", aof_number(last), "generation",
                                     aof_number(sealing.generation)));
        } else {
            printf("%s: sealed up to record %" PRIu64 "\n", session.path, last);
        }
    }
    aof_session_close(&session);
    return aof_finish(exit_code);
}

/* ---- flush ---- */

static bool is_archived(struct aof_session *session, void *user)
{
    struct bop_tiers_status status;
    const struct bop_aof_status *before = user;
    struct bop_aof_status log;

    bop_aof_status(session->aof, &log);
    if (log.durable < before->last || bop_aof_busy(session->aof)) {
        return false;
    }
    if (!session->tiers) {
        return true;
    }
    bop_tiers_status(session->tiers, &status);
    return status.packs_waiting == 0 && status.uploads_waiting == 0 &&
           !bop_tiers_busy(session->tiers);
}

static void print_flushed(const struct cli_args *args, const struct bop_aof_status *status)
{
    if (args->json) {
        aof_print_json(json_pack("{s:o,s:o,s:o}", "last", aof_number(status->last), "durable",
                                 aof_number(status->durable), "tier2", aof_number(status->tier2)));
        return;
    }
    printf("%s: on disk up to record %" PRIu64, args->values[0], status->durable);
    if (status->tier2 >= status->oldest && status->tier2 > 0) {
        printf(", in the object store up to %" PRIu64, status->tier2);
    }
    putchar('\n');
}

int cmd_aof_flush(const struct cli_args *args)
{
    struct aof_session session;
    struct bop_aof_status status;
    int exit_code = aof_session_open(&session, args, 0);
    int rc;

    if (exit_code == CLI_OK) {
        bop_aof_status(session.aof, &status);
        rc = bop_aof_flush(session.aof, status.last);
        if (rc == 0) {
            rc = aof_session_run(&session, is_archived, &status);
        }
        bop_aof_status(session.aof, &status);
        if (rc < 0) {
            exit_code = aof_session_complain(&session, rc, "flush");
        } else {
            print_flushed(args, &status);
        }
    }
    aof_session_close(&session);
    return aof_finish(exit_code);
}

/* ---- hydrate ---- */

struct range {
    uint64_t first;
    uint64_t last;
    unsigned segments; /* In the range, */
    unsigned here;     /* and of them local. */
};

static int count_here(void *user, const struct bop_tiers_segment *segment)
{
    struct range *range = user;

    if (segment->base <= range->last && segment->end_seq > range->first) {
        range->segments++;
        range->here += segment->in_tier0 || segment->in_tier1;
    }
    return 0;
}

static bool is_here(struct aof_session *session, void *user)
{
    struct range *range = user;

    range->segments = 0;
    range->here = 0;
    BOP_IGNORE(bop_tiers_segments(session->tiers, session->aof, count_here, range));
    return range->here == range->segments;
}

static int find_segment(void *user, const struct bop_aof_segment_info *info)
{
    struct range *range = user;

    if (info->generation == range->segments && !info->left) {
        range->first = info->base;
        range->last = info->newest ? 0 : info->end_seq - 1;
    }
    return 0;
}

/* The records that --segment, or --from and --to, name. */
static int find_range(const struct cli_args *args, struct range *out_range)
{
    struct bop_aof_admin_options log = {.path = args->values[0]};
    struct bop_aof_info info;
    struct bop_error err = {0};

    *out_range = (struct range){.first = args->aof.from ? args->aof.from : 1,
                                .last = args->aof.to ? args->aof.to : INT64_MAX};
    if (args->aof.segment == 0) {
        return CLI_OK;
    }
    *out_range = (struct range){.segments = (unsigned)args->aof.segment};
    if (bop_aof_inspect(&log, find_segment, out_range, &info, &err) < 0) {
        return aof_complain(&err);
    }
    return out_range->first > 0 ? CLI_OK
                                : cli_complain(CLI_AOF_NOT_FOUND, "%s has no segment %" PRIu64,
                                               log.path, args->aof.segment);
}

static int hydrate(struct aof_session *session, struct range *range)
{
    int rc;

    if (!session->tiers) {
        return cli_complain(CLI_AOF_NOT_FOUND, "%s has no lower tiers: all of it is local",
                            session->path);
    }
    rc = bop_tiers_pin(session->tiers, session->aof, range->first, range->last);
    if (rc == 0) {
        rc = aof_session_run(session, is_here, range);
    }
    if (rc < 0) {
        return aof_session_complain(
            session, rc, session->objects ? "hydrate" : "hydrate: no object store was given");
    }
    if (range->segments == 0) {
        return cli_complain(CLI_AOF_NOT_FOUND, "%s has no sealed segment with these records",
                            session->path);
    }
    if (session->args->json) {
        aof_print_json(json_pack("{s:i}", "segments", (int)range->segments));
    } else {
        printf("%s: %u segments are local\n", session->path, range->segments);
    }
    return CLI_OK;
}

int cmd_aof_hydrate(const struct cli_args *args)
{
    struct aof_session session = {0};
    struct range range;
    int exit_code = find_range(args, &range);

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    exit_code = aof_session_open(&session, args, 0);
    if (exit_code == CLI_OK) {
        exit_code = hydrate(&session, &range);
    }
    aof_session_close(&session);
    return aof_finish(exit_code);
}

/* ---- segments delete ---- */

static int drop_records(struct aof_session *session, const struct range *range)
{
    /* A log with tiers lets go only of what the object store is known to have. */
    int rc = session->tiers ? aof_session_run(session, NULL, NULL) : 0;
    uint64_t before = bop_aof_first(session->aof);

    if (rc == 0) {
        rc = bop_aof_truncate_front(session->aof, range->last + 1);
    }
    if (rc == 0) {
        rc = aof_session_run(session, NULL, NULL);
    }
    if (rc < 0) {
        return aof_session_complain(session, rc, "delete");
    }
    if (session->tiers && bop_aof_first(session->aof) <= range->last) {
        return cli_complain(CLI_AOF_FAILED,
                            "%s: the object store does not have all of it yet: `bop aof flush` "
                            "first; the log begins with record %" PRIu64,
                            session->path, bop_aof_first(session->aof));
    }
    if (session->args->json) {
        aof_print_json(json_pack("{s:o,s:o}", "was_first", aof_number(before), "first",
                                 aof_number(bop_aof_first(session->aof))));
    } else {
        printf("%s: the log begins with record %" PRIu64 "\n", session->path,
               bop_aof_first(session->aof));
    }
    return CLI_OK;
}

struct in_tier {
    unsigned tier;
    unsigned count;
};

static int count_in_tier(void *user, const struct bop_aof_segment_info *info)
{
    struct in_tier *in = user;

    in->count += !info->left && !info->newest && (in->tier == 0 ? info->local : info->in_tier1);
    return 0;
}

/* Sealed segments that are in a tier. */
static int count_tier(const struct cli_args *args, struct in_tier *out_in)
{
    struct bop_aof_admin_options log = {.path = args->values[0]};
    struct bop_aof_info info;
    struct bop_error err = {0};

    *out_in = (struct in_tier){.tier = args->aof.tier - 1};
    return bop_aof_inspect(&log, count_in_tier, out_in, &info, &err) < 0 ? aof_complain(&err)
                                                                         : CLI_OK;
}

/* Have a tier give up what the next one has, verified: the tiers know what that is. */
static int empty_tier(const struct cli_args *args)
{
    struct aof_session session = {0};
    struct in_tier before, after;
    int exit_code = count_tier(args, &before);

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    exit_code = aof_session_open(&session, args, 1u << before.tier);
    if (exit_code == CLI_OK && !session.tiers) {
        exit_code = cli_complain(CLI_AOF_NOT_FOUND, "%s has no lower tiers: all of it is local",
                                 session.path);
    }
    if (exit_code == CLI_OK) {
        int rc = aof_session_run(&session, NULL, NULL);

        exit_code = rc < 0 ? aof_session_complain(&session, rc, "delete") : CLI_OK;
    }
    aof_session_close(&session);
    if (exit_code == CLI_OK) {
        exit_code = count_tier(args, &after);
    }
    if (exit_code == CLI_OK && args->json) {
        aof_print_json(json_pack("{s:i,s:i,s:i}", "tier", (int)before.tier, "before",
                                 (int)before.count, "now", (int)after.count));
    } else if (exit_code == CLI_OK) {
        printf("%s: tier %u had %u segments and has %u\n", args->values[0], before.tier,
               before.count, after.count);
    }
    return aof_finish(exit_code);
}

int cmd_aof_segments_delete(const struct cli_args *args)
{
    struct aof_session session = {0};
    struct range range;
    int exit_code;

    if (args->aof.tier == 3) {
        return cli_complain(CLI_AOF_USAGE,
                            "objects go by retention, or with their records: see --segment");
    }
    if (args->aof.tier > 0) {
        return empty_tier(args);
    }
    if (args->aof.segment == 0) {
        return cli_complain(CLI_AOF_USAGE, "say which: --segment GENERATION or --tier 0|1");
    }
    exit_code = find_range(args, &range);
    if (exit_code == CLI_OK && range.last == 0) {
        exit_code = cli_complain(CLI_AOF_USAGE,
                                 "segment %" PRIu64 " takes appends: `bop aof seal` it first",
                                 args->aof.segment);
    }
    if (exit_code == CLI_OK && !args->aof.force) {
        exit_code = cli_complain(CLI_AOF_USAGE,
                                 "records up to %" PRIu64
                                 " would be lost, but for what lower tiers "
                                 "have: --force if that is meant",
                                 range.last);
    }
    if (exit_code != CLI_OK) {
        return exit_code;
    }
    exit_code = aof_session_open(&session, args, 0);
    if (exit_code == CLI_OK) {
        exit_code = drop_records(&session, &range);
    }
    aof_session_close(&session);
    return aof_finish(exit_code);
}

/* ---- restore ---- */

int cmd_aof_restore(const struct cli_args *args)
{
    struct bop_tiers_options options = {.prefix = args->aof.prefix};
    struct bop_tiers_restored restored = {0};
    struct bop_error err = {0};
    int exit_code;
    int rc;

    if (!args->aof.name) {
        return cli_complain(CLI_AOF_USAGE, "say which log: --name NAME, as it is in the tiers");
    }
    exit_code = aof_objects(args, &options.objects);
    if (exit_code == CLI_OK && !options.objects) {
        exit_code = cli_complain(CLI_AOF_USAGE, "from where: give --endpoint and --bucket");
    }
    if (exit_code != CLI_OK) {
        return exit_code;
    }
    rc = bop_tiers_restore(&options, args->values[0], args->aof.name, &restored, &err);
    options.objects->destroy(options.objects);
    if (rc < 0) {
        return aof_complain(&err);
    }
    if (args->json) {
        aof_print_json(json_pack("{s:i,s:o,s:o,s:i}", "segments", (int)restored.segments, "first",
                                 aof_number(restored.first_seq), "last",
                                 aof_number(restored.last_seq), "manifest_chunks",
                                 (int)restored.manifest_chunks));
    } else {
        printf("%s: %u segments with records %" PRIu64 " to %" PRIu64
               ", which stay in the object store until they are read\n",
               args->values[0], restored.segments, restored.first_seq, restored.last_seq);
    }
    return aof_finish(CLI_OK);
}
