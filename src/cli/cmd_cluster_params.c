/*
 * bop cluster params: parameters of one node while it runs.
 */
#include "cmd_cluster.h"

#include <inttypes.h>
#include <string.h>

#include <jansson.h>

/* NAME=VALUE of the command line. */
static int read_setting(const char *text, struct bop_admin_param *out)
{
    const char *equals = strchr(text, '=');

    if (!equals || equals == text || !equals[1]) {
        return cli_complain(CLI_USAGE, "%s: not NAME=VALUE", text);
    }
    out->name = bop_slice(text, (size_t)(equals - text));
    out->value = bop_slice_cstr(equals + 1);
    return CLI_OK;
}

static void print_params(const struct bop_admin_params *params)
{
    printf("node %" PRIu64 "\n", params->node);
    for (unsigned i = 0; i < params->count; i++) {
        const struct bop_admin_param *param = &params->params[i];

        printf("  %-20.*s %12.*s  %s%.*s\n", (int)param->name.size, (const char *)param->name.data,
               (int)param->value.size, (const char *)param->value.data,
               param->live ? "" : "(fixed) ", (int)param->about.size,
               (const char *)param->about.data);
    }
}

static int print_json(const struct bop_admin_params *params)
{
    json_t *object = json_object();
    json_t *values = json_object();
    int rc;

    for (unsigned i = 0; i < params->count; i++) {
        const struct bop_admin_param *param = &params->params[i];

        json_object_setn_new(values, (const char *)param->name.data, param->name.size,
                             json_pack("{s:s%, s:b}", "value", (const char *)param->value.data,
                                       param->value.size, "live", param->live));
    }
    json_object_set_new(object, "node", json_integer((json_int_t)params->node));
    json_object_set_new(object, "params", values);
    rc = json_dumpf(object, stdout, JSON_INDENT(2));
    json_decref(object);
    putchar('\n');
    return rc < 0 ? cli_complain(CLI_FAILED, "cannot write the output") : CLI_OK;
}

static int ask(struct cluster *cluster, const struct bop_admin_params *in,
               struct bop_admin_params *out)
{
    struct bop_writer writer = bop_writer(&cluster->request);
    int rc;

    bop_admin_params_request_encode(&writer, in);
    rc = writer.code ? writer.code : cluster_ask(cluster, BOP_WIRE_KIND_CLUSTER_PARAMS_REQUEST);
    if (rc == 0) {
        rc = bop_admin_params_response_decode(bop_buf_slice(&cluster->response), out);
    }
    if (rc < 0) {
        return link_complain(&cluster->link, rc, "ask for parameters");
    }
    return out->code == BOP_ADMIN_OK ? CLI_OK : cluster_complain(out->code, out->text);
}

int cmd_cluster_params(const struct cli_args *args)
{
    static struct bop_admin_params in, out; /* Large, and one a process. */
    struct cluster cluster;
    int exit_code = CLI_OK;

    for (size_t i = 0; i < args->value_count && exit_code == CLI_OK; i++) {
        exit_code = read_setting(args->values[i], &in.params[in.count++]);
    }
    if (exit_code != CLI_OK) {
        return exit_code;
    }
    exit_code = cluster_open(&cluster, args, true);
    if (exit_code == CLI_OK) {
        exit_code = ask(&cluster, &in, &out);
    }
    if (exit_code == CLI_OK && args->json) {
        exit_code = print_json(&out);
    } else if (exit_code == CLI_OK) {
        print_params(&out);
    }
    cluster_close(&cluster);
    return cli_finish_output(exit_code);
}
