/*
 * The settings of bopd, where they are said and what they may be.
 *
 * One table holds every setting with its key, its flag and the function that
 * takes its text, so that a file and the command line mean the same and fail
 * with the same words. libcyaml therefore gives us strings only: its own
 * numbers take -1 for 2^64 - 1 and its booleans any word for true.
 */
#include "config.h"

#include <arpa/inet.h>
#include <cyaml/cyaml.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include <bop/fs.h>

#define NAME_LONGEST         40 /* Of a flag or key that a suggestion is sought for. */
#define SUGGESTION_EDITS_MAX 3
#define NOTE_MAX             200 /* Of a message of libcyaml's that is kept. */
#define SHOWN_BYTES          80  /* Of a wrong value that is shown. */

/* ---- Values. A message begins behind the name of the flag or key. ---- */

static int parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *out_number,
                        struct bop_error *err)
{
    uint64_t number = 0;
    bool good = text[0] != 0;

    for (const char *at = text; *at && good; at++) {
        unsigned digit = (unsigned)(*at - '0');

        good = *at >= '0' && *at <= '9' && number <= (UINT64_MAX - digit) / 10;
        number = good ? number * 10 + digit : number;
    }
    if (!good || number < least || number > most) {
        return bop_error_say(err, BOP_ECONFIG, "not a whole number from %" PRIu64 " to %" PRIu64,
                             least, most);
    }
    *out_number = number;
    return 0;
}

/* A number of bytes: 64GiB, 64G, or 68719476736. */
static int parse_bytes(const char *text, uint64_t least, uint64_t most, uint64_t *out_bytes,
                       struct bop_error *err)
{
    static const char units[] = "KMGT";
    size_t digits = strspn(text, "0123456789");
    const char *suffix = text + digits;
    const char *unit = *suffix ? strchr(units, *suffix) : NULL;
    char number[24];
    uint64_t value = 0;
    unsigned shift = 0;
    int rc = BOP_ECONFIG;

    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        suffix += strcmp(suffix + 1, "iB") == 0 ? 3 : 1;
    }
    if (digits > 0 && digits < sizeof(number) && !*suffix) {
        memcpy(number, text, digits);
        number[digits] = 0;
        rc = parse_number(number, 0, UINT64_MAX >> shift, &value, NULL);
    }
    value <<= shift;
    if (rc < 0 || value < least || value > most) {
        bool small = least < 1 << 20;

        return bop_error_say(err, BOP_ECONFIG,
                             "not a size from %" PRIu64 "%s to %" PRIu64
                             "MiB; write a number and KiB, MiB, GiB or TiB, for example %s",
                             small ? least >> 10 : least >> 20, small ? "KiB" : "MiB", most >> 20,
                             small ? "64MiB" : "64GiB");
    }
    *out_bytes = value;
    return 0;
}

static int parse_bool(const char *text, bool *out_value, struct bop_error *err)
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        return bop_error_say(err, BOP_ECONFIG, "write true or false");
    }
    *out_value = text[0] == 't';
    return 0;
}

/* Text without control characters, at most size_max bytes; out has room for a NUL too. */
static int parse_text(const char *text, size_t size_max, char *out_text, struct bop_error *err)
{
    size_t size = strlen(text);

    if (size == 0) {
        return bop_error_say(err, BOP_ECONFIG, "empty");
    }
    if (size > size_max) {
        return bop_error_say(err, BOP_ECONFIG, "longer than %zu bytes", size_max);
    }
    if (!bop_slice_is_utf8(bop_slice(text, size))) {
        return bop_error_say(err, BOP_ECONFIG, "not UTF-8");
    }
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f) {
            return bop_error_say(err, BOP_ECONFIG, "has a control character");
        }
    }
    memcpy(out_text, text, size + 1);
    return 0;
}

static bool is_ipv6(const char *host)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    size_t size = strcspn(host, "%"); /* A scope may follow. */

    if (size >= sizeof(text)) {
        return false;
    }
    memcpy(text, host, size);
    text[size] = 0;
    return inet_pton(AF_INET6, text, &address) == 1;
}

/* HOST:PORT; `form` is what to write, `example` how it may look. */
static int parse_address(const char *text, uint64_t port_least, const char *form,
                         const char *example, struct config_address *out, struct bop_error *err)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    struct config_address address;
    uint64_t port = 0;
    size_t size;

    if (text[0] != '[' && colon && memchr(text, ':', (size_t)(colon - text))) {
        return bop_error_say(err, BOP_ECONFIG,
                             "an IPv6 address needs brackets; write [ADDRESS]:PORT, for example "
                             "[::1]:%d",
                             CONFIG_PORT);
    }
    if (!colon || (text[0] == '[' && strchr(text, ']') && colon < strchr(text, ']'))) {
        return bop_error_say(err, BOP_ECONFIG, "no port; write %s, for example %s", form, example);
    }
    size = (size_t)(colon - text);
    if (text[0] == '[') {
        if (size < 3 || text[size - 1] != ']') {
            return bop_error_say(err, BOP_ECONFIG, "brackets around an IPv6 address do not match");
        }
        host = text + 1;
        size -= 2;
    }
    if (size == 0 || size > CONFIG_HOST_MAX) {
        return bop_error_say(err, BOP_ECONFIG, "%s; write %s, for example %s",
                             size ? "the host is too long" : "no host", form, example);
    }
    memcpy(address.host, host, size);
    address.host[size] = 0;
    if (text[0] == '[' && !is_ipv6(address.host)) {
        return bop_error_say(err, BOP_ECONFIG, "not an IPv6 address in the brackets");
    }
    for (size_t i = 0; text[0] != '[' && i < size; i++) {
        if ((unsigned char)host[i] <= ' ' || (unsigned char)host[i] >= 0x7f ||
            strchr("/[]=,'\"\\", host[i])) {
            return bop_error_say(err, BOP_ECONFIG, "not a host name; write %s, for example %s",
                                 form, example);
        }
    }
    if (parse_number(colon + 1, port_least, UINT16_MAX, &port, NULL) < 0) {
        return bop_error_say(err, BOP_ECONFIG, "the port is not a number from %" PRIu64 " to %d",
                             port_least, UINT16_MAX);
    }
    address.port = (uint16_t)port;
    *out = address;
    return 0;
}

/* ---- Settings ---- */

static int set_id(struct config *config, const char *text, struct bop_error *err)
{
    return parse_number(text, 1, UINT64_MAX, &config->id, err);
}

static int set_cluster(struct config *config, const char *text, struct bop_error *err)
{
    return parse_text(text, BOP_NAME_MAX, config->cluster, err);
}

static int set_data(struct config *config, const char *text, struct bop_error *err)
{
    return parse_text(text, CONFIG_PATH_MAX, config->data, err);
}

static int set_listen(struct config *config, const char *text, struct bop_error *err)
{
    config->listen_given = true;
    return parse_address(text, 0, "HOST:PORT", "127.0.0.1:4700", &config->listen, err);
}

static int set_http(struct config *config, const char *text, struct bop_error *err)
{
    config->http_given = true;
    return parse_address(text, 0, "HOST:PORT", "127.0.0.1:4780", &config->http, err);
}

static int add_peer(struct config *config, const char *text, struct bop_error *err)
{
    const char form[] = "ID=HOST:PORT", example[] = "2=10.0.0.2:4700";
    const char *equals = strchr(text, '=');
    struct config_peer peer = {0};
    char id[24];
    int rc;

    if (!equals || (size_t)(equals - text) >= sizeof(id)) {
        return bop_error_say(err, BOP_ECONFIG, "no id; write %s, for example %s", form, example);
    }
    memcpy(id, text, (size_t)(equals - text));
    id[equals - text] = 0;
    if (parse_number(id, 1, UINT64_MAX, &peer.id, NULL) < 0) {
        return bop_error_say(err, BOP_ECONFIG,
                             "the id is not a whole number from 1; write %s, for example %s", form,
                             example);
    }
    rc = parse_address(equals + 1, 1, form, example, &peer.address, err);
    if (rc < 0) {
        return rc;
    }
    for (unsigned i = 0; i < config->peer_count; i++) {
        const struct config_peer *other = &config->peers[i];

        if (other->id == peer.id) {
            return bop_error_say(err, BOP_ECONFIG,
                                 "the id %" PRIu64 " is there twice; every node has one of its own",
                                 peer.id);
        }
        if (other->address.port == peer.address.port &&
            strcmp(other->address.host, peer.address.host) == 0) {
            return bop_error_say(err, BOP_ECONFIG,
                                 "peer %" PRIu64 " has this address too; every node has one of its "
                                 "own",
                                 other->id);
        }
    }
    if (config->peer_count == CONFIG_PEERS_MAX) {
        return bop_error_say(err, BOP_ECONFIG, "more than %d peers", CONFIG_PEERS_MAX);
    }
    config->peers[config->peer_count++] = peer;
    return 0;
}

static int set_join(struct config *config, const char *text, struct bop_error *err)
{
    return parse_bool(text, &config->join, err);
}

static int set_learner(struct config *config, const char *text, struct bop_error *err)
{
    return parse_bool(text, &config->learner, err);
}

static int set_dev(struct config *config, const char *text, struct bop_error *err)
{
    return parse_bool(text, &config->dev, err);
}

static int set_check_config(struct config *config, const char *text, struct bop_error *err)
{
    return parse_bool(text, &config->check_config, err);
}

static int set_log_level(struct config *config, const char *text, struct bop_error *err)
{
    if (!bop_log_level_parse(text, &config->log_level)) {
        return bop_error_say(err, BOP_ECONFIG, "no such level; write debug, info, warn or error");
    }
    return 0;
}

static int set_election_timeout(struct config *config, const char *text, struct bop_error *err)
{
    return parse_number(text, 20, 60000, &config->election_timeout_ms, err);
}

static int set_heartbeat(struct config *config, const char *text, struct bop_error *err)
{
    return parse_number(text, 5, 20000, &config->heartbeat_ms, err);
}

static int set_snapshot_entries(struct config *config, const char *text, struct bop_error *err)
{
    return parse_number(text, 100, UINT64_C(1000000000000), &config->snapshot_entries, err);
}

static int set_trailing_entries(struct config *config, const char *text, struct bop_error *err)
{
    return parse_number(text, 1, UINT64_C(1000000000000), &config->trailing_entries, err);
}

static int set_inflight_entries(struct config *config, const char *text, struct bop_error *err)
{
    return parse_number(text, 1, 1000000, &config->inflight_entries, err);
}

static int set_uncommitted_bytes(struct config *config, const char *text, struct bop_error *err)
{
    return parse_bytes(text, UINT64_C(64) << 10, UINT64_C(1) << 30, &config->uncommitted_bytes,
                       err);
}

static int set_send_bytes_s(struct config *config, const char *text, struct bop_error *err)
{
    return parse_bytes(text, 0, UINT64_C(1) << 40, &config->send_bytes_s, err);
}

static int set_connections(struct config *config, const char *text, struct bop_error *err)
{
    return parse_number(text, 1, 1000000, &config->connections_max, err);
}

static int set_state_bytes(struct config *config, const char *text, struct bop_error *err)
{
    return parse_bytes(text, UINT64_C(16) << 20, UINT64_C(64) << 40, &config->state_bytes_max, err);
}

static int set_segment_bytes(struct config *config, const char *text, struct bop_error *err)
{
    return parse_bytes(text, UINT64_C(1) << 20, UINT64_C(4) << 30, &config->segment_bytes, err);
}

static int set_tls_certificate(struct config *config, const char *text, struct bop_error *err)
{
    return parse_text(text, CONFIG_PATH_MAX, config->tls_certificate, err);
}

static int set_tls_key(struct config *config, const char *text, struct bop_error *err)
{
    return parse_text(text, CONFIG_PATH_MAX, config->tls_key, err);
}

static int set_tls_ca(struct config *config, const char *text, struct bop_error *err)
{
    return parse_text(text, CONFIG_PATH_MAX, config->tls_ca, err);
}

static int set_tls_node_name(struct config *config, const char *text, struct bop_error *err)
{
    int rc = parse_text(text, CONFIG_HOST_MAX - 20, config->tls_node_name, err);

    if (rc == 0 && !strstr(text, "{id}")) {
        rc = bop_error_say(err, BOP_ECONFIG,
                           "no {id} in it, which stands for the node's number; write for example "
                           "bop-node-{id}");
    }
    return rc;
}

static int set_client_certificates(struct config *config, const char *text, struct bop_error *err)
{
    static const char *const words[] = {
        [BOP_NODE_CERTIFICATES_NONE] = "none",
        [BOP_NODE_CERTIFICATES_OPTIONAL] = "optional",
        [BOP_NODE_CERTIFICATES_REQUIRED] = "required",
    };

    for (unsigned i = 0; i < BOP_COUNT_OF(words); i++) {
        if (strcmp(text, words[i]) == 0) {
            config->client_certificates = (enum bop_node_certificates)i;
            return 0;
        }
    }
    return bop_error_say(err, BOP_ECONFIG, "write none, optional or required");
}

static int set_tokens(struct config *config, const char *text, struct bop_error *err)
{
    return parse_text(text, CONFIG_PATH_MAX, config->tokens, err);
}

static int set_insecure(struct config *config, const char *text, struct bop_error *err)
{
    return parse_bool(text, &config->insecure, err);
}

/* What a file says; libcyaml fills it in. */
struct document {
    char *id, *cluster, *data, *listen, *http, *join, *learner, *log_level;
    char *election_timeout_ms, *heartbeat_ms, *snapshot_entries, *trailing_entries;
    char *inflight_entries, *uncommitted_bytes, *send_bytes_s;
    char **peers;
    unsigned peers_count;
    struct limits {
        char *connections, *state_bytes, *segment_bytes;
    } limits;
    struct tls {
        char *certificate, *key, *ca, *node_name, *client_certificates;
    } tls;
    char *tokens, *insecure;
};

struct setting {
    const char *flag;     /* NULL: in a file only. */
    const char *argument; /* NULL: a switch. */
    const char *key;      /* "group.key" of those in a group; NULL: on the command line only. */
    int (*set)(struct config *config, const char *text, struct bop_error *err);
    size_t offset; /* Of the char * in a document. */
};

#define IN_DOCUMENT(member) offsetof(struct document, member)

static const struct setting settings[] = {
    {"--id", "N", "id", set_id, IN_DOCUMENT(id)},
    {"--cluster", "NAME", "cluster", set_cluster, IN_DOCUMENT(cluster)},
    {"--data", "DIR", "data", set_data, IN_DOCUMENT(data)},
    {"--listen", "HOST:PORT", "listen", set_listen, IN_DOCUMENT(listen)},
    {"--http", "HOST:PORT", "http", set_http, IN_DOCUMENT(http)},
    {"--peer", "ID=HOST:PORT", NULL, add_peer, 0},
    {"--join", NULL, "join", set_join, IN_DOCUMENT(join)},
    {"--learner", NULL, "learner", set_learner, IN_DOCUMENT(learner)},
    {"--dev", NULL, NULL, set_dev, 0},
    {"--check-config", NULL, NULL, set_check_config, 0},
    {"--log-level", "LEVEL", "log_level", set_log_level, IN_DOCUMENT(log_level)},
    {NULL, NULL, "election_timeout_ms", set_election_timeout, IN_DOCUMENT(election_timeout_ms)},
    {NULL, NULL, "heartbeat_ms", set_heartbeat, IN_DOCUMENT(heartbeat_ms)},
    {NULL, NULL, "snapshot_entries", set_snapshot_entries, IN_DOCUMENT(snapshot_entries)},
    {NULL, NULL, "trailing_entries", set_trailing_entries, IN_DOCUMENT(trailing_entries)},
    {NULL, NULL, "inflight_entries", set_inflight_entries, IN_DOCUMENT(inflight_entries)},
    {NULL, NULL, "uncommitted_bytes", set_uncommitted_bytes, IN_DOCUMENT(uncommitted_bytes)},
    {NULL, NULL, "send_bytes_s", set_send_bytes_s, IN_DOCUMENT(send_bytes_s)},
    {NULL, NULL, "limits.connections", set_connections, IN_DOCUMENT(limits.connections)},
    {NULL, NULL, "limits.state_bytes", set_state_bytes, IN_DOCUMENT(limits.state_bytes)},
    {NULL, NULL, "limits.segment_bytes", set_segment_bytes, IN_DOCUMENT(limits.segment_bytes)},
    {"--tls-certificate", "FILE", "tls.certificate", set_tls_certificate,
     IN_DOCUMENT(tls.certificate)},
    {"--tls-key", "FILE", "tls.key", set_tls_key, IN_DOCUMENT(tls.key)},
    {"--tls-ca", "FILE", "tls.ca", set_tls_ca, IN_DOCUMENT(tls.ca)},
    {"--tls-client-certificates", "none|optional|required", "tls.client_certificates",
     set_client_certificates, IN_DOCUMENT(tls.client_certificates)},
    {NULL, NULL, "tls.node_name", set_tls_node_name, IN_DOCUMENT(tls.node_name)},
    {"--tokens", "FILE", "tokens", set_tokens, IN_DOCUMENT(tokens)},
    {"--insecure", NULL, "insecure", set_insecure, IN_DOCUMENT(insecure)},
};

/* Flags that are no settings. */
static const char *const other_flags[] = {"--config", "--help", "--version"};

void config_init(struct config *out)
{
    *out = (struct config){
        .cluster = "bop",
        .listen = {.host = "127.0.0.1", .port = CONFIG_PORT},
        .log_level = BOP_LOG_INFO,
        .election_timeout_ms = 300,
        .heartbeat_ms = 50,
        .snapshot_entries = 1000000,
        .trailing_entries = 10000,
        .inflight_entries = 65536,
        .uncommitted_bytes = UINT64_C(32) << 20,
        .connections_max = 10000,
        .state_bytes_max = UINT64_C(64) << 30,
        .segment_bytes = UINT64_C(64) << 20,
    };
}

/* A key as it stands in the file, without its group. */
static const char *leaf(const char *key)
{
    const char *dot = key ? strchr(key, '.') : NULL;

    return dot ? dot + 1 : key;
}

/* ---- Suggestions ---- */

static size_t edit_distance(const char *a, const char *b)
{
    size_t row[NAME_LONGEST + 1];
    size_t width = strlen(b);

    if (strlen(a) > NAME_LONGEST || width > NAME_LONGEST) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= width; j++) {
        row[j] = j;
    }
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t j = 0; j < width; j++) {
            size_t above = row[j + 1];
            size_t least = diagonal + (a[i] != b[j]);

            least = least < above + 1 ? least : above + 1;
            row[j + 1] = least < row[j] + 1 ? least : row[j] + 1;
            diagonal = above;
        }
    }
    return row[width];
}

static void consider(const char *name, const char *candidate, size_t *best, const char **nearest)
{
    size_t edits = candidate ? edit_distance(name, candidate) : SIZE_MAX;

    if (edits < *best) {
        *best = edits;
        *nearest = candidate;
    }
}

/* One more than the edits that still make a likely slip of a name. */
static size_t edits_bound(const char *name)
{
    return 1 + (size_t)bop_min_u64(SUGGESTION_EDITS_MAX, strlen(name) / 2);
}

static const char *nearest_flag(const char *name)
{
    size_t best = edits_bound(name);
    const char *nearest = NULL;

    for (size_t i = 0; i < BOP_COUNT_OF(settings); i++) {
        consider(name, settings[i].flag, &best, &nearest);
    }
    for (size_t i = 0; i < BOP_COUNT_OF(other_flags); i++) {
        consider(name, other_flags[i], &best, &nearest);
    }
    return nearest;
}

static const char *nearest_key(const char *name)
{
    static const char *const groups[] = {"peers", "limits", "tls"};
    size_t best = edits_bound(name);
    const char *nearest = NULL;

    for (size_t i = 0; i < BOP_COUNT_OF(settings); i++) {
        consider(name, leaf(settings[i].key), &best, &nearest);
    }
    for (size_t i = 0; i < BOP_COUNT_OF(groups); i++) {
        consider(name, groups[i], &best, &nearest);
    }
    return nearest;
}

/* ---- The file ---- */

/* All values are strings here; see the top. */
#define STRING(structure, name)                                                                    \
    CYAML_FIELD_STRING_PTR(#name, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, structure, name, 0,    \
                           CYAML_UNLIMITED)

static const cyaml_schema_value_t peer_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED),
};

static const cyaml_schema_field_t limits_schema[] = {
    STRING(struct limits, connections),
    STRING(struct limits, state_bytes),
    STRING(struct limits, segment_bytes),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t tls_schema[] = {
    STRING(struct tls, certificate),
    STRING(struct tls, key),
    STRING(struct tls, ca),
    STRING(struct tls, node_name),
    STRING(struct tls, client_certificates),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t document_fields[] = {
    STRING(struct document, id),
    STRING(struct document, cluster),
    STRING(struct document, data),
    STRING(struct document, listen),
    STRING(struct document, http),
    STRING(struct document, join),
    STRING(struct document, learner),
    STRING(struct document, log_level),
    STRING(struct document, election_timeout_ms),
    STRING(struct document, heartbeat_ms),
    STRING(struct document, snapshot_entries),
    STRING(struct document, trailing_entries),
    STRING(struct document, inflight_entries),
    STRING(struct document, uncommitted_bytes),
    STRING(struct document, send_bytes_s),
    CYAML_FIELD_SEQUENCE("peers", CYAML_FLAG_POINTER_NULL | CYAML_FLAG_OPTIONAL, struct document,
                         peers, &peer_schema, 0, CYAML_UNLIMITED),
    CYAML_FIELD_MAPPING("limits", CYAML_FLAG_OPTIONAL, struct document, limits, limits_schema),
    CYAML_FIELD_MAPPING("tls", CYAML_FLAG_OPTIONAL, struct document, tls, tls_schema),
    STRING(struct document, tokens),
    STRING(struct document, insecure),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t document_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct document, document_fields),
};

/* What libcyaml logged: its first message, and the field and line its backtrace begins with. */
struct yaml_notes {
    char message[NOTE_MAX];
    char field[NAME_LONGEST + 1];
    unsigned line;
};

BOP_PRINTF(3, 0)
static void note(cyaml_log_t level, void *context, const char *format, va_list arguments)
{
    struct yaml_notes *notes = context;
    char text[NOTE_MAX];
    const char *at, *line;

    vsnprintf(text, sizeof(text), format, arguments);
    text[strcspn(text, "\n")] = 0;
    at = strncmp(text, "Load: ", 6) == 0 ? text + 6 : text;
    line = strstr(at, "(line: ");
    if (strncmp(at, "  in ", 5) != 0) {
        if (!notes->message[0] && strcmp(at, "Backtrace:") != 0) {
            snprintf(notes->message, sizeof(notes->message), "%s", at);
        }
    } else if (line && !notes->line) {
        notes->line = (unsigned)strtoul(line + strlen("(line: "), NULL, 10);
        if (sscanf(at, "  in mapping field '%40[^']'", notes->field) != 1) {
            notes->field[0] = 0;
        }
    }
}

/* The line of a text on which a key stands, or 0. Good for block style, which people write. */
static unsigned line_of_key(struct bop_slice text, const char *key)
{
    size_t key_size = strlen(key), at = 0;

    for (unsigned line = 1; at < text.size; line++) {
        const uint8_t *feed = memchr(text.data + at, '\n', text.size - at);
        size_t end = feed ? (size_t)(feed - text.data) : text.size;

        while (at < end && (text.data[at] == ' ' || text.data[at] == '{')) {
            at++;
        }
        if (end - at > key_size && memcmp(text.data + at, key, key_size) == 0 &&
            (text.data[at + key_size] == ':' || text.data[at + key_size] == ' ')) {
            return line;
        }
        at = end + 1;
    }
    return 0;
}

/* The line at which the text is not YAML, or 0: libcyaml does not tell. */
static unsigned line_of_syntax_error(struct bop_slice text)
{
    yaml_parser_t parser;
    yaml_event_t event;
    unsigned line = 0;

    if (!yaml_parser_initialize(&parser)) {
        return 0;
    }
    yaml_parser_set_input_string(&parser, text.data, text.size);
    for (bool more = true; more;) {
        if (!yaml_parser_parse(&parser, &event)) {
            line = (unsigned)parser.problem_mark.line + 1;
            break;
        }
        more = event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return line;
}

/* "name" or "name:line". */
static int at_line(struct bop_error *err, const char *name, unsigned line)
{
    return line ? bop_error_wrap(err, "%s:%u", name, line) : bop_error_wrap(err, "%s", name);
}

static int say_unknown_key(struct bop_slice text, const char *name, const char *key,
                           struct bop_error *err)
{
    const char *nearest = nearest_key(key);

    if (nearest) {
        bop_error_say(err, BOP_ECONFIG, "no such key; did you mean %s?", nearest);
    } else {
        bop_error_say(err, BOP_ECONFIG, "no such key; bopd.conf(5) lists them");
    }
    bop_error_wrap(err, "%.*s", SHOWN_BYTES, key);
    at_line(err, name, line_of_key(text, key));
    return BOP_ECONFIG;
}

/* libcyaml's complaint in our words, where we have some. */
static int say_yaml_error(struct bop_slice text, const char *name, cyaml_err_t code,
                          struct yaml_notes *notes, struct bop_error *err)
{
    static const char unknown[] = "Unexpected key: ";
    static const char syntax[] = "libyaml: ";

    if (code == CYAML_ERR_OOM) {
        return bop_error_set(err, BOP_ENOMEM, "%s", name);
    }
    if (code == CYAML_ERR_LIBYAML_PARSER) {
        const char *what = notes->message;

        what += strncmp(what, syntax, strlen(syntax)) == 0 ? strlen(syntax) : 0;
        bop_error_say(err, BOP_ECONFIG, "not YAML: %s", what);
        at_line(err, name, line_of_syntax_error(text));
        return BOP_ECONFIG;
    }
    if (strncmp(notes->message, unknown, strlen(unknown)) == 0) {
        return say_unknown_key(text, name, notes->message + strlen(unknown), err);
    }
    if (code == CYAML_ERR_ALIAS) {
        bop_error_say(err, BOP_ECONFIG, "aliases are not supported; write the value itself");
    } else if (!notes->line) {
        bop_error_say(err, BOP_ECONFIG,
                      "not a list of keys and values; write one setting a line, for example id: 1");
    } else if (strcmp(notes->field, "peers") == 0) {
        bop_error_say(err, BOP_ECONFIG,
                      "not a list of peers; write each as - ID=HOST:PORT on a line of its own");
    } else if (strncmp(notes->message, "Mapping field already seen", 26) == 0) {
        bop_error_say(err, BOP_ECONFIG, "is there twice; drop one");
    } else {
        bop_error_say(err, BOP_ECONFIG, "%s",
                      notes->message[0] ? notes->message : cyaml_strerror(code));
    }
    if (notes->field[0]) {
        bop_error_wrap(err, "%s", notes->field);
    }
    at_line(err, name, notes->line);
    return BOP_ECONFIG;
}

/* Put "name:line: key: value: " before what a setting said. */
static int blame_key(struct bop_slice text, const char *name, const char *key, const char *value,
                     struct bop_error *err)
{
    bop_error_wrap(err, "%s: %.*s", key, SHOWN_BYTES, value);
    at_line(err, name, line_of_key(text, leaf(key)));
    return BOP_ECONFIG;
}

static int apply_document(const struct document *document, struct bop_slice text, const char *name,
                          struct config *config, struct bop_error *err)
{
    for (size_t i = 0; i < BOP_COUNT_OF(settings); i++) {
        const struct setting *setting = &settings[i];
        const char *value;

        if (!setting->key) {
            continue;
        }
        value = *(char *const *)(const void *)((const char *)document + setting->offset);
        if (value && setting->set(config, value, err) < 0) {
            return blame_key(text, name, setting->key, value, err);
        }
    }
    for (unsigned i = 0; document->peers && i < document->peers_count; i++) {
        if (add_peer(config, document->peers[i], err) < 0) {
            return blame_key(text, name, "peers", document->peers[i], err);
        }
    }
    return 0;
}

static int parse_document(struct bop_slice text, const char *name, struct config *config,
                          struct bop_error *err)
{
    struct yaml_notes notes = {0};
    const cyaml_config_t yaml = {
        .log_fn = note,
        .log_ctx = &notes,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_WARNING,
        .flags = CYAML_CFG_NO_ALIAS,
    };
    struct document *document = NULL;
    cyaml_err_t code;
    int rc = 0;

    if (text.size > CONFIG_FILE_MAX) {
        return bop_error_say(err, BOP_ECONFIG, "%s: larger than %d bytes", name, CONFIG_FILE_MAX);
    }
    if (text.size > 0 && memchr(text.data, 0, text.size)) {
        return bop_error_say(err, BOP_ECONFIG, "%s: not a text: has NUL bytes", name);
    }
    code = cyaml_load_data(text.data ? text.data : (const uint8_t *)"", text.size, &yaml,
                           &document_schema, (cyaml_data_t **)&document, NULL);
    if (code != CYAML_OK) {
        return say_yaml_error(text, name, code, &notes, err);
    }
    if (notes.message[0]) {
        /* The only warning there is. */
        rc = bop_error_say(err, BOP_ECONFIG, "%s: has a second document after ---; drop it", name);
    } else if (document) {
        rc = apply_document(document, text, name, config, err);
    }
    cyaml_free(&yaml, &document_schema, document, 0);
    return rc;
}

/* Wrong values are shown as they were given: what would break the line must not. */
static int one_line(int rc, struct bop_error *err)
{
    for (char *at = err && rc < 0 ? err->message : NULL; at && *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            *at = '?';
        }
    }
    return rc;
}

int config_parse_yaml(struct bop_slice text, const char *name, struct config *config,
                      struct bop_error *err)
{
    return one_line(parse_document(text, name, config, err), err);
}

static int read_file(const char *path, struct config *config, struct bop_error *err)
{
    struct bop_buf text;
    int rc;

    bop_buf_init(&text, NULL, 0);
    rc = bop_fs_read_file(bop_fs_real(), path, CONFIG_FILE_MAX, &text);
    if (rc == 0) {
        rc = config_parse_yaml(bop_buf_slice(&text), path, config, err);
    } else if (rc != BOP_ENOMEM) {
        bop_error_set(err, rc, "--config %s: cannot read it", path);
        rc = BOP_ECONFIG;
    } else {
        bop_error_set(err, rc, "--config %s", path);
    }
    bop_buf_deinit(&text);
    return rc;
}

/* ---- The command line ---- */

/* An argument taken apart: a setting, or one of the other flags. */
struct argument {
    const struct setting *setting;
    const char *flag;
    const char *value; /* NULL: none. */
};

static int say_unknown_flag(const char *text, size_t size, struct bop_error *err)
{
    char name[NAME_LONGEST + 2];
    const char *nearest;

    if (text[0] != '-') {
        return bop_error_say(err, BOP_ECONFIG,
                             "%.*s: what is this for? Every setting has a flag before it; bopd "
                             "--help lists them",
                             SHOWN_BYTES, text);
    }
    snprintf(name, sizeof(name), "%.*s", (int)bop_min_u64(size, sizeof(name)), text);
    nearest = nearest_flag(name);
    if (nearest) {
        return bop_error_say(err, BOP_ECONFIG, "%s: no such flag; did you mean %s?", name, nearest);
    }
    return bop_error_say(err, BOP_ECONFIG, "%s: no such flag; bopd --help lists them", name);
}

static bool is_flag(const char *flag, const char *text, size_t size)
{
    return flag && strlen(flag) == size && memcmp(flag, text, size) == 0;
}

/* Take apart argv[*at] and go on to the next. */
static int next_argument(int argc, char **argv, int *at, struct argument *out,
                         struct bop_error *err)
{
    const char *text = argv[(*at)++];
    size_t size = strcspn(text, "=");
    bool takes_value = false;

    *out = (struct argument){.value = text[size] ? text + size + 1 : NULL};
    for (size_t i = 0; i < BOP_COUNT_OF(settings); i++) {
        if (is_flag(settings[i].flag, text, size)) {
            out->setting = &settings[i];
            out->flag = settings[i].flag;
            takes_value = settings[i].argument != NULL;
        }
    }
    for (size_t i = 0; i < BOP_COUNT_OF(other_flags); i++) {
        if (is_flag(other_flags[i], text, size)) {
            out->flag = other_flags[i];
            takes_value = i == 0;
        }
    }
    if (is_flag("-h", text, size)) {
        out->flag = "--help";
    }
    if (!out->flag) {
        return say_unknown_flag(text, size, err);
    }
    if (!takes_value && out->value) {
        return bop_error_say(err, BOP_ECONFIG, "%s: takes no value; write %s alone", out->flag,
                             out->flag);
    }
    if (takes_value && !out->value) {
        if (*at >= argc || strncmp(argv[*at], "--", 2) == 0) {
            return bop_error_say(err, BOP_ECONFIG, "%s: no value; write %s %s", out->flag,
                                 out->flag, out->setting ? out->setting->argument : "FILE");
        }
        out->value = argv[(*at)++];
    }
    return 0;
}

/* A first look: the file comes before all other flags, help before everything. */
static int find_other_flags(int argc, char **argv, struct config *config, const char **out_path,
                            struct bop_error *err)
{
    for (int at = 1; at < argc;) {
        struct argument argument;
        int rc = next_argument(argc, argv, &at, &argument, err);

        if (rc < 0) {
            return rc;
        }
        if (strcmp(argument.flag, "--config") == 0) {
            if (*out_path) {
                return bop_error_say(err, BOP_ECONFIG, "--config: is there twice; drop one");
            }
            *out_path = argument.value;
        }
        config->help |= strcmp(argument.flag, "--help") == 0;
        config->version |= strcmp(argument.flag, "--version") == 0;
    }
    return 0;
}

static int apply_flags(int argc, char **argv, struct config *config, struct bop_error *err)
{
    bool seen[BOP_COUNT_OF(settings)] = {false};

    for (int at = 1; at < argc;) {
        struct argument argument;
        int rc = next_argument(argc, argv, &at, &argument, err);
        size_t index;

        if (rc < 0) {
            return rc;
        }
        if (!argument.setting) {
            continue;
        }
        index = (size_t)(argument.setting - settings);
        if (argument.setting->set == add_peer) {
            config->peer_count = seen[index] ? config->peer_count : 0; /* Not the file's. */
        } else if (seen[index]) {
            return bop_error_say(err, BOP_ECONFIG, "%s: is there twice; drop one", argument.flag);
        }
        seen[index] = true;
        if (argument.setting->set(config, argument.value ? argument.value : "true", err) < 0) {
            bop_error_wrap(err, "%s %.*s", argument.flag, SHOWN_BYTES,
                           argument.value ? argument.value : "");
            return BOP_ECONFIG;
        }
    }
    return 0;
}

int config_parse(int argc, char **argv, struct config *out, struct bop_error *err)
{
    const char *path = NULL;
    int rc;

    config_init(out);
    rc = find_other_flags(argc, argv, out, &path, err);
    if (out->help || out->version) {
        /* Also before a mistake: who asks for help may have made one. */
        if (err) {
            *err = (struct bop_error){0};
        }
        return 0;
    }
    if (rc == 0 && path) {
        rc = read_file(path, out, err);
    }
    if (rc == 0) {
        rc = apply_flags(argc, argv, out, err);
    }
    return one_line(rc ? rc : config_check(out, err), err);
}

/* ---- What belongs together ---- */

const struct config_peer *config_self(const struct config *config)
{
    for (unsigned i = 0; i < config->peer_count; i++) {
        if (config->peers[i].id == config->id) {
            return &config->peers[i];
        }
    }
    return NULL;
}

static bool listens_everywhere(const struct config *config)
{
    return strcmp(config->listen.host, "0.0.0.0") == 0 || strcmp(config->listen.host, "::") == 0;
}

static int check_cluster(const struct config *config, struct bop_error *err)
{
    const struct config_peer *self = config_self(config);
    unsigned others = config->peer_count - (self ? 1 : 0);

    if (config->dev && (others > 0 || config->join)) {
        return bop_error_say(err, BOP_ECONFIG,
                             "--dev is a node by itself; drop --dev, or the peers and --join");
    }
    if (config->learner && !config->join) {
        return bop_error_say(err, BOP_ECONFIG,
                             "--learner is for a node that joins: add --join, or use `bop cluster "
                             "demote` on one that is there");
    }
    if (config->join && others == 0) {
        return bop_error_say(err, BOP_ECONFIG,
                             "--join: no peer to ask; add --peer ID=HOST:PORT of a member");
    }
    if (others == CONFIG_PEERS_MAX) {
        return bop_error_say(err, BOP_ECONFIG,
                             "%d peers and this node are more than the %d nodes "
                             "that a cluster can have",
                             CONFIG_PEERS_MAX, CONFIG_PEERS_MAX);
    }
    if ((others > 0 || config->join) && !self &&
        (listens_everywhere(config) || config->listen.port == 0)) {
        char text[BOP_ADDRESS_MAX + 1];

        return bop_error_say(err, BOP_ECONFIG,
                             "listen %s: the peers need an address of this node that they can "
                             "reach; add --peer %" PRIu64 "=HOST:PORT",
                             config_address_format(&config->listen, text), config->id);
    }
    return 0;
}

int config_check(struct config *config, struct bop_error *err)
{
    const struct config_peer *self;
    int rc;

    if (config->id == 0 && config->dev) {
        config->id = 1;
    }
    if (config->dev && !config->http_given) {
        config->http = (struct config_address){.host = "127.0.0.1", .port = CONFIG_HTTP_PORT};
    }
    if (config->id == 0) {
        return bop_error_say(err, BOP_ECONFIG,
                             "no id; add --id N, a number from 1 that no other node of the cluster "
                             "has (or try bopd --dev)");
    }
    if (!config->data[0] && !config->dev) {
        return bop_error_say(err, BOP_ECONFIG,
                             "no data directory; add --data DIR (or try bopd --dev)");
    }
    if (config->heartbeat_ms * 2 > config->election_timeout_ms) {
        return bop_error_say(err, BOP_ECONFIG,
                             "heartbeat_ms: %" PRIu64 " is more than half of election_timeout_ms, "
                             "%" PRIu64 "; lower the one or raise the other",
                             config->heartbeat_ms, config->election_timeout_ms);
    }
    self = config_self(config);
    if (self && !config->listen_given) {
        config->listen = self->address;
    }
    rc = check_cluster(config, err);
    return rc < 0 ? rc : config_check_security(config, err);
}

char *config_address_format(const struct config_address *address,
                            char out_text[BOP_ADDRESS_MAX + 1])
{
    bool brackets = strchr(address->host, ':') != NULL;

    snprintf(out_text, BOP_ADDRESS_MAX + 1, brackets ? "[%s]:%u" : "%s:%u", address->host,
             (unsigned)address->port);
    return out_text;
}

const char *config_help(void)
{
    return "bopd - a node of a BOP cluster\n"
           "\n"
           "Usage:\n"
           "  bopd --dev                                one node, temporary data: to try it\n"
           "  bopd --id N --data DIR [--peer ID=HOST:PORT]... [FLAGS]\n"
           "  bopd --config FILE [FLAGS]\n"
           "  bopd --config FILE --check-config\n"
           "\n"
           "Flags (one given here wins over the same in the file):\n"
           "  --config FILE         read FILE, YAML as in bopd.conf(5)\n"
           "  --id N                this node's number, from 1; no other node has it\n"
           "  --data DIR            directory of log and state, this node's alone; made if "
           "missing\n"
           "  --listen HOST:PORT    where to listen; the address of this node in the list of\n"
           "                        peers if it is there, else 127.0.0.1:4700\n"
           "  --http HOST:PORT      where to serve HTTP and JSON; without it nowhere, but for "
           "--dev\n"
           "  --peer ID=HOST:PORT   a node of the cluster; once for each, with or without this\n"
           "                        one; instead of those in the file. No peers: a cluster of one\n"
           "  --join                be added to a running cluster, through any of the peers\n"
           "  --learner             with --join: get all data, but no vote until promoted\n"
           "  --cluster NAME        name of the cluster, the same at all nodes (bop)\n"
           "  --log-level LEVEL     debug, info, warn or error (info)\n"
           "  --tls-certificate FILE, --tls-key FILE\n"
           "                        speak TLS to clients and peers, with this certificate (PEM)\n"
           "  --tls-ca FILE         who vouches for peers and for certificates of clients\n"
           "  --tls-client-certificates none|optional|required\n"
           "                        whether clients need one (none)\n"
           "  --tokens FILE         want a token of clients; this file says which may do what\n"
           "  --insecure            listen beyond this machine without TLS and authentication\n"
           "  --dev                 one node with id 1 and a temporary directory\n"
           "  --check-config        check everything said here and in the file, and leave\n"
           "  --version             print the version and leave\n"
           "  --help, -h            print this and leave\n"
           "\n"
           "Addresses are host:port; of IPv6 [::1]:4700. Both --flag value and --flag=value work.\n"
           "The peers matter at the first start only: later the nodes are what the cluster's log\n"
           "says, which bop(1) changes.\n"
           "\n"
           "Example, three nodes on one machine:\n"
           "  peers='--peer 1=127.0.0.1:4701 --peer 2=127.0.0.1:4702 --peer 3=127.0.0.1:4703'\n"
           "  bopd --id 1 --data n1 $peers & bopd --id 2 --data n2 $peers &\n"
           "  bopd --id 3 --data n3 $peers &\n"
           "\n"
           "Files:\n"
           "  DIR    its layout is in docs/design/data-directory.md; one bopd at a time\n"
           "\n"
           "SIGHUP reads certificates, key, CA and tokens again; connections go on.\n"
           "\n"
           "Exit status:\n"
           "  0  stopped as asked (SIGTERM, SIGINT), or the configuration is good\n"
           "  1  failed at run time\n"
           "  2  wrong usage or configuration\n"
           "  3  the data directory cannot be opened\n"
           "  4  cannot listen\n";
}
