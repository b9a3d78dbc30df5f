/*
 * bop aof inspect, dump, segments list, manifest check: what is known of a log.
 */
#include <string.h>

#include "aof_common.h"

struct look {
    const struct cli_args *args;
    json_t *segments; /* With --json. */
    bool found;       /* What --segment names. */
    int code;
};

static struct bop_aof_admin_options options_of(const struct cli_args *args)
{
    return (struct bop_aof_admin_options){.path = args->values[0]};
}

/* ---- One segment ---- */

static json_t *segment_json(const struct bop_aof_segment_info *info)
{
    char root[2 * BOP_AOF_DIGEST_SIZE + 1];
    json_t *tiers = json_array();
    json_t *object;

    if (info->local) {
        json_array_append_new(tiers, json_integer(0));
    }
    if (info->in_tier1) {
        json_array_append_new(tiers, json_integer(1));
    }
    if (info->in_tier2) {
        json_array_append_new(tiers, json_integer(2));
    }
    object = json_pack("{s:o,s:o,s:o,s:s*,s:s,s:o,s:b,s:b,s:b,s:o,s:o,s:o,s:o,s:i,s:b}",
                       "generation", aof_number(info->generation), "first", aof_number(info->base),
                       "end", info->end_seq ? aof_number(info->end_seq) : json_null(), "file",
                       info->file[0] ? info->file : NULL, "residency",
                       aof_residency(info->residency), "tiers", tiers, "sealed", info->sealed,
                       "newest", info->newest, "left", info->left, "file_bytes",
                       aof_number(info->file_bytes), "end_bytes", aof_number(info->end), "front",
                       aof_number(info->front), "epoch", aof_number(info->epoch), "version",
                       (int)info->version, "aligned", info->aligned);
    if (object && info->sealed) {
        json_object_set_new(object, "root",
                            json_string(aof_hex(info->root, sizeof(info->root), root)));
        json_object_set_new(object, "first_time_us", aof_number(info->first_time_us));
        json_object_set_new(object, "last_time_us", aof_number(info->last_time_us));
    }
    if (object && info->packed_file) {
        json_object_set_new(object, "packed_file", json_string(info->packed_file));
    }
    if (object && info->packed_bytes > 0) {
        json_object_set_new(object, "packed_bytes", aof_number(info->packed_bytes));
    }
    if (object && info->key) {
        json_object_set_new(object, "key", json_string(info->key));
        json_object_set_new(object, "uploading", json_boolean(info->uploading));
        json_object_set_new(object, "delete_queued", json_boolean(info->delete_queued));
    }
    if (object && info->code) {
        json_object_set_new(object, "problem", json_string(info->problem));
    }
    return object;
}

static const char *state_of(const struct bop_aof_segment_info *info)
{
    return info->left            ? "void"
           : info->code          ? "damaged"
           : info->newest        ? "open"
           : info->delete_queued ? "leaving"
           : info->uploading     ? "uploading"
           : info->sealed        ? "sealed"
                                 : "full";
}

static void print_segment_line(const struct bop_aof_segment_info *info)
{
    char bytes[AOF_BYTES_TEXT], last[24] = "?";

    if (info->end_seq > 0) {
        snprintf(last, sizeof(last), "%" PRIu64, info->end_seq - 1);
    }
    printf("%-10" PRIu64 " %-12" PRIu64 " %-12s %10s  %s%s%s   %-9s %s\n", info->generation,
           info->base, info->end_seq == info->base ? "-" : last,
           aof_bytes(info->local ? info->file_bytes : info->packed_bytes, bytes),
           info->local ? "0" : "-", info->in_tier1 ? "1" : "-", info->in_tier2 ? "2" : "-",
           state_of(info),
           info->local         ? info->file
           : info->packed_file ? info->packed_file
           : info->key         ? info->key
                               : aof_residency(info->residency));
    if (info->code) {
        printf("    %s\n", info->problem);
    }
}

static void print_heading(void)
{
    printf("%-10s %-12s %-12s %10s  %-3s  %-9s %s\n", "GENERATION", "FIRST", "LAST", "BYTES",
           "TIER", "STATE", "FILE");
}

static int take_segment(void *user, const struct bop_aof_segment_info *info)
{
    struct look *look = user;
    const struct cli_aof_args *aof = &look->args->aof;

    if ((aof->segment > 0 && aof->segment != info->generation) ||
        (aof->tier == 1 && !info->local) || (aof->tier == 2 && !info->in_tier1) ||
        (aof->tier == 3 && !info->in_tier2)) {
        return 0;
    }
    look->found = true;
    if (look->args->json) {
        return json_array_append_new(look->segments, segment_json(info)) < 0 ? BOP_ENOMEM : 0;
    }
    print_segment_line(info);
    return 0;
}

/* Everything that is known of one, for dump. */
static int dump_segment(void *user, const struct bop_aof_segment_info *info)
{
    char root[2 * BOP_AOF_DIGEST_SIZE + 1];
    struct look *look = user;

    if (look->args->json) {
        return take_segment(user, info);
    }
    if (look->args->aof.segment > 0 && look->args->aof.segment != info->generation) {
        return 0;
    }
    look->found = true;
    printf("\nsegment %" PRIu64 ": records from %" PRIu64, info->generation, info->base);
    if (info->end_seq > info->base) {
        printf(" to %" PRIu64, info->end_seq - 1);
    }
    printf(", %s, %s\n", state_of(info), aof_residency(info->residency));
    if (info->local) {
        printf("  file      %s, %" PRIu64 " bytes, records end at %" PRIu64 "\n", info->file,
               info->file_bytes, info->end);
        printf("  header    version %u, %s, next at %" PRIu64 " bytes, front %" PRIu64
               ", epoch %" PRIu64 "\n",
               info->version, info->aligned ? "aligned" : "packed", info->limit_bytes, info->front,
               info->epoch);
    }
    if (info->sealed) {
        printf("  sealed    root %s\n            times %" PRIu64 " to %" PRIu64 " us\n",
               aof_hex(info->root, sizeof(info->root), root), info->first_time_us,
               info->last_time_us);
    }
    if (info->packed_file) {
        printf("  tier 1    %s, %" PRIu64 " bytes\n", info->packed_file, info->packed_bytes);
    }
    if (info->key) {
        printf("  tier 2    %s, %s\n", info->key,
               info->delete_queued ? "to be deleted"
               : info->in_tier2    ? "there"
                                   : "on its way");
    }
    if (info->code) {
        printf("  PROBLEM   %s\n", info->problem);
    }
    return 0;
}

/* ---- The log ---- */

static json_t *log_json(const struct cli_args *args, const struct bop_aof_info *info)
{
    char id[2 * BOP_AOF_ID_SIZE + 1];
    json_t *object = json_pack(
        "{s:s,s:s,s:o,s:o,s:o,s:o,s:o,s:i,s:i,s:i,s:o,s:o,s:o,s:b,s:i}", "path", args->values[0],
        "id", aof_hex(info->log_id, sizeof(info->log_id), id), "first", aof_number(info->first),
        "oldest", aof_number(info->oldest), "last", aof_number(info->last), "epoch",
        aof_number(info->epoch), "generation", aof_number(info->generation), "segments",
        (int)info->segments, "archived", (int)info->archived, "void", (int)info->left,
        "local_bytes", aof_number(info->local_bytes), "packed_bytes",
        aof_number(info->packed_bytes), "tier2_bytes", aof_number(info->tier2_bytes), "manifest",
        info->has_manifest, "problems", (int)info->problems);

    if (object && info->manifest_code) {
        json_object_set_new(object, "manifest_problem", json_string(info->manifest_problem));
    }
    return object;
}

static void print_log(const struct cli_args *args, const struct bop_aof_info *info)
{
    char id[2 * BOP_AOF_ID_SIZE + 1], local[AOF_BYTES_TEXT], packed[AOF_BYTES_TEXT],
        tier2[AOF_BYTES_TEXT];

    printf("log       %s, id %s\n", args->values[0],
           aof_hex(info->log_id, sizeof(info->log_id), id));
    if (info->last + 1 == info->oldest) {
        printf("records   none; the next is %" PRIu64 "\n", info->last + 1);
    } else {
        printf("records   %" PRIu64 " to %" PRIu64 "\n", info->oldest, info->last);
    }
    printf("segments  %u local, %u in lower tiers only%s\n", info->segments, info->archived,
           info->left ? ", and some that the next open removes" : "");
    printf("bytes     %s local, %s packed, %s in the object store\n",
           aof_bytes(info->local_bytes, local), aof_bytes(info->packed_bytes, packed),
           aof_bytes(info->tier2_bytes, tier2));
    printf("epoch     %" PRIu64 ", generation %" PRIu64 "\n", info->epoch, info->generation);
    printf("manifest  %s\n", info->manifest_code  ? info->manifest_problem
                             : info->has_manifest ? "good"
                                                  : "none");
    printf("problems  %u%s\n", info->problems,
           info->problems ? "; `bop aof verify` says what they cost" : "");
}

static int inspect(struct look *look, bop_aof_segment_fn *fn, struct bop_aof_info *out_info)
{
    struct bop_aof_admin_options options = options_of(look->args);
    struct bop_error err = {0};
    int rc = bop_aof_inspect(&options, fn, look, out_info, &err);

    if (rc == BOP_ENOMEM && !err.code) {
        bop_error_set(&err, rc, "look at %s", options.path);
    }
    return rc < 0 ? aof_complain(&err) : CLI_OK;
}

int cmd_aof_inspect(const struct cli_args *args)
{
    struct look look = {.args = args};
    struct bop_aof_info info;
    int exit_code = inspect(&look, NULL, &info);

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    if (args->json) {
        aof_print_json(log_json(args, &info));
    } else {
        print_log(args, &info);
    }
    return aof_finish(info.problems > 0 ? CLI_AOF_FAILED : CLI_OK);
}

int cmd_aof_segments_list(const struct cli_args *args)
{
    struct look look = {.args = args, .segments = json_array()};
    struct bop_aof_info info;
    int exit_code;

    if (!args->json) {
        print_heading();
    }
    exit_code = inspect(&look, take_segment, &info);
    if (exit_code == CLI_OK && args->json) {
        aof_print_json(json_pack("{s:O}", "segments", look.segments));
    }
    json_decref(look.segments);
    return aof_finish(exit_code != CLI_OK ? exit_code
                      : info.problems > 0 ? CLI_AOF_FAILED
                                          : CLI_OK);
}

/* ---- Records ---- */

static int dump_record(void *user, const struct bop_aof_view *view,
                       const struct bop_aof_place *place)
{
    const struct look *look = user;

    if (look->args->json) {
        aof_print_json(json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:s}", "seq", aof_number(view->seq),
                                 "tag", aof_number(view->tag), "time_us", aof_number(view->time_us),
                                 "bytes", aof_number(view->payload.size), "generation",
                                 aof_number(place->generation), "offset", aof_number(place->offset),
                                 "durable_seq", aof_number(place->durable_seq), "file",
                                 place->file));
    } else {
        printf("record %" PRIu64 " segment %" PRIu64 " offset %" PRIu64 " bytes %zu tag %" PRIu64
               " time_us %" PRIu64 " vouches %" PRIu64 "\n",
               view->seq, place->generation, place->offset, view->payload.size, view->tag,
               view->time_us, place->durable_seq);
    }
    return 0;
}

static int dump_records(struct look *look)
{
    struct bop_aof_check_options options = {.log = options_of(look->args),
                                            .first_seq = look->args->aof.from,
                                            .last_seq = look->args->aof.to,
                                            .generation = look->args->aof.segment,
                                            .on_record = dump_record,
                                            .user = look};
    struct bop_aof_report report;
    struct bop_error err = {0};

    return bop_aof_check(&options, &report, &err) < 0 ? aof_complain(&err) : CLI_OK;
}

int cmd_aof_dump(const struct cli_args *args)
{
    struct look look = {.args = args, .segments = json_array()};
    struct bop_aof_info info;
    int exit_code;

    exit_code = inspect(&look, NULL, &info);
    if (exit_code == CLI_OK && !args->json) {
        print_log(args, &info);
    }
    if (exit_code == CLI_OK) {
        exit_code = inspect(&look, dump_segment, &info);
    }
    if (exit_code == CLI_OK && !look.found && args->aof.segment > 0) {
        exit_code = cli_complain(CLI_AOF_NOT_FOUND, "%s has no segment %" PRIu64, args->values[0],
                                 args->aof.segment);
    }
    if (exit_code == CLI_OK && args->json) {
        aof_print_json(
            json_pack("{s:o,s:O}", "log", log_json(args, &info), "segments", look.segments));
    }
    json_decref(look.segments);
    if (exit_code == CLI_OK && info.problems > 0) {
        exit_code = CLI_AOF_FAILED;
    }
    if (args->aof.records && (exit_code == CLI_OK || exit_code == CLI_AOF_FAILED)) {
        int records = dump_records(&look);

        exit_code = exit_code != CLI_OK ? exit_code : records;
    }
    return aof_finish(exit_code);
}

/* ---- The manifest ---- */

static int print_chunk(void *user, const struct bop_aof_chunk_info *chunk)
{
    const struct cli_args *args = user;

    if (args->json) {
        json_t *object = json_pack(
            "{s:s,s:o,s:o,s:o,s:o,s:o,s:b,s:o,s:o}", "chunk", chunk->file, "file_bytes",
            aof_number(chunk->file_bytes), "committed_bytes", aof_number(chunk->committed_bytes),
            "records", aof_number(chunk->records), "unknown_records",
            aof_number(chunk->unknown_records), "bad_records", aof_number(chunk->bad_records),
            "snapshot", chunk->snapshot, "stored_crc", aof_number(chunk->stored_crc),
            "computed_crc", aof_number(chunk->computed_crc));

        if (object && chunk->code) {
            json_object_set_new(object, "problem", json_string(chunk->problem));
        }
        aof_print_json(object);
        return 0;
    }
    printf("%s: %" PRIu64 " records, %" PRIu64 " of %" PRIu64 " bytes committed, crc %08" PRIx32
           "%s%s\n",
           chunk->file, chunk->records, chunk->committed_bytes, chunk->file_bytes,
           chunk->stored_crc, chunk->stored_crc == chunk->computed_crc ? "" : " (wrong)",
           chunk->snapshot ? ", begins with a snapshot" : "");
    if (chunk->unknown_records > 0) {
        printf("    %" PRIu64 " records of kinds that this version does not know\n",
               chunk->unknown_records);
    }
    if (chunk->code) {
        printf("    %s\n", chunk->problem);
    }
    return 0;
}

static int print_event(void *user, const struct bop_aof_manifest_event *event)
{
    const struct cli_args *args = user;

    if (args->json) {
        aof_print_json(json_pack("{s:s,s:o,s:o,s:o,s:o,s:s*}", "event", event->kind, "chunk",
                                 aof_number(event->chunk), "offset", aof_number(event->offset),
                                 "generation", aof_number(event->generation), "time_ms",
                                 aof_number(event->time_ms), "key", event->key));
    } else {
        printf("%" PRIu64 ":%" PRIu64 " %s segment %" PRIu64 " at %" PRIu64 " ms%s%s\n",
               event->chunk, event->offset, event->kind, event->generation, event->time_ms,
               event->key ? " " : "", event->key ? event->key : "");
    }
    return 0;
}

static int repair_manifest(const struct cli_args *args)
{
    struct bop_aof_admin_options options = options_of(args);
    struct bop_error err = {0};
    unsigned lost = 0;

    if (bop_aof_manifest_repair(&options, &lost, &err) < 0) {
        return aof_complain(&err);
    }
    if (lost > 0) {
        fprintf(stderr, "%u chunks put aside as .broken; what only they said is lost\n", lost);
    }
    return CLI_OK;
}

int cmd_aof_manifest_check(const struct cli_args *args)
{
    struct bop_aof_manifest_options options = {.log = options_of(args),
                                               .on_chunk = print_chunk,
                                               .on_event = args->aof.events ? print_event : NULL,
                                               .user = (void *)args};
    struct bop_aof_manifest_report report = {0};
    struct bop_error err = {0};
    int exit_code = args->aof.repair ? repair_manifest(args) : CLI_OK;
    int rc;

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    rc = bop_aof_manifest_check(&options, &report, &err);
    if (rc < 0 && report.chunks == 0) {
        return aof_complain(&err);
    }
    if (args->json) {
        aof_print_json(json_pack("{s:i,s:i,s:o,s:i,s:i,s:s*}", "chunks", (int)report.chunks,
                                 "bad_chunks", (int)report.bad_chunks, "records",
                                 aof_number(report.records), "segments", (int)report.segments,
                                 "in_tier2", (int)report.in_tier2, "problem",
                                 rc < 0 ? err.message : NULL));
    } else {
        printf("%u chunks, %u bad; %" PRIu64 " records; %u segments, %u in the object store\n",
               report.chunks, report.bad_chunks, report.records, report.segments, report.in_tier2);
    }
    return rc < 0 ? aof_finish(aof_complain(&err)) : aof_finish(CLI_OK);
}
