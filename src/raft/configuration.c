/*
 * Configurations: their encoding and their rules.
 *
 * The payload of a CHANGE entry is in libraft's own format, for its core decodes
 * such entries itself when they are submitted, received or restored:
 *
 *      u8 1 | u64 count | count * { u64 id | address, NUL | u8 role } | zeros to 8 bytes
 *
 * with roles 0 standby, 1 voter, 2 spare. The core's decoder trusts what it is
 * given, so whatever comes from a peer or a disk passes this decoder first. It
 * takes exactly what the encoder makes: one byte more or other than that is
 * malformed.
 */
#include "configuration.h"

#define FORMAT      1
#define PADDING     8
#define ADDRESS_MAX (sizeof(((struct bop_raft_server *)NULL)->address) - 1)

/* The role byte on disk and wire. */
static const uint8_t role_codes[] = {
    [BOP_RAFT_STANDBY] = 0,
    [BOP_RAFT_VOTER] = 1,
    [BOP_RAFT_SPARE] = 2,
};

static const enum bop_raft_role roles[] = {BOP_RAFT_STANDBY, BOP_RAFT_VOTER, BOP_RAFT_SPARE};

static bool server_valid(const struct bop_raft_server *server)
{
    return server->id > 0 && server->role >= BOP_RAFT_VOTER && server->role <= BOP_RAFT_SPARE &&
           server->address[0] != '\0' &&
           memchr(server->address, '\0', sizeof(server->address)) != NULL;
}

bool bop__raft_configuration_valid(const struct bop_raft_configuration *conf)
{
    if (conf->count == 0 || conf->count > BOP_RAFT_SERVERS_MAX) {
        return false;
    }
    for (unsigned i = 0; i < conf->count; i++) {
        const struct bop_raft_server *server = &conf->servers[i];

        if (!server_valid(server)) {
            return false;
        }
        for (unsigned j = 0; j < i; j++) {
            if (conf->servers[j].id == server->id ||
                strcmp(conf->servers[j].address, server->address) == 0) {
                return false;
            }
        }
    }
    return true;
}

const struct bop_raft_server *
bop__raft_configuration_find(const struct bop_raft_configuration *conf, uint64_t id)
{
    for (unsigned i = 0; i < conf->count; i++) {
        if (conf->servers[i].id == id) {
            return &conf->servers[i];
        }
    }
    return NULL;
}

unsigned bop__raft_configuration_voters(const struct bop_raft_configuration *conf)
{
    unsigned voters = 0;

    for (unsigned i = 0; i < conf->count; i++) {
        voters += conf->servers[i].role == BOP_RAFT_VOTER;
    }
    return voters;
}

unsigned bop__raft_configuration_difference(const struct bop_raft_configuration *from,
                                            const struct bop_raft_configuration *to,
                                            struct bop_raft_configuration *out_ordered)
{
    unsigned differences = 0;

    out_ordered->count = 0;
    for (unsigned i = 0; i < from->count; i++) {
        const struct bop_raft_server *before = &from->servers[i];
        const struct bop_raft_server *after = bop__raft_configuration_find(to, before->id);

        if (!after) {
            differences++;
            continue;
        }
        differences += after->role != before->role || strcmp(after->address, before->address) != 0;
        out_ordered->servers[out_ordered->count++] = *after;
    }
    for (unsigned i = 0; i < to->count; i++) {
        if (!bop__raft_configuration_find(from, to->servers[i].id)) {
            differences++;
            out_ordered->servers[out_ordered->count++] = to->servers[i];
        }
    }
    return differences;
}

int bop_raft_configuration_encode(const struct bop_raft_configuration *conf, struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    size_t before = out->size;

    if (!bop__raft_configuration_valid(conf)) {
        return BOP_EINVAL;
    }
    bop_write_u8(&writer, FORMAT);
    bop_write_u64(&writer, conf->count);
    for (unsigned i = 0; i < conf->count; i++) {
        const struct bop_raft_server *server = &conf->servers[i];

        bop_write_u64(&writer, server->id);
        bop_write_raw(&writer, bop_slice(server->address, strlen(server->address) + 1));
        bop_write_u8(&writer, role_codes[server->role]);
    }
    while (writer.code == 0 && (out->size - before) % PADDING != 0) {
        bop_write_u8(&writer, 0);
    }
    if (writer.code != 0) {
        out->size = before;
    }
    return writer.code;
}

static void read_address(struct bop_reader *reader, struct bop_raft_server *server)
{
    size_t left = bop_reader_left(reader);
    const uint8_t *end = left > 0 ? memchr(reader->at, '\0', left) : NULL;
    size_t length = end ? (size_t)(end - reader->at) : 0;

    if (length == 0 || length > ADDRESS_MAX) {
        reader->failed = true;
        return;
    }
    memcpy(server->address, bop_read_raw(reader, length + 1).data, length + 1);
}

static void read_server(struct bop_reader *reader, struct bop_raft_server *server)
{
    uint8_t code;

    *server = (struct bop_raft_server){.id = bop_read_u64(reader)};
    read_address(reader, server);
    code = bop_read_u8(reader);
    if (code >= BOP_COUNT_OF(roles)) {
        reader->failed = true;
        return;
    }
    server->role = roles[code];
}

/* Only zeros, and no more of them than it takes to reach the next multiple. */
static void read_padding(struct bop_reader *reader, size_t size)
{
    if (size % PADDING != 0 || bop_reader_left(reader) >= PADDING) {
        reader->failed = true;
    }
    while (!reader->failed && bop_reader_left(reader) > 0) {
        if (bop_read_u8(reader) != 0) {
            reader->failed = true;
        }
    }
}

int bop_raft_configuration_decode(struct bop_slice data, struct bop_raft_configuration *out_conf)
{
    struct bop_reader reader = bop_reader(data);
    struct bop_raft_configuration conf;
    uint64_t count;

    conf.count = 0;
    if (bop_read_u8(&reader) != FORMAT) {
        return BOP_EMALFORMED;
    }
    count = bop_read_u64(&reader);
    if (count > BOP_RAFT_SERVERS_MAX) {
        return BOP_EMALFORMED;
    }
    while (conf.count < count && !reader.failed) {
        read_server(&reader, &conf.servers[conf.count++]);
    }
    read_padding(&reader, data.size);
    if (!bop_reader_done(&reader) || !bop__raft_configuration_valid(&conf)) {
        return BOP_EMALFORMED;
    }
    memcpy(out_conf->servers, conf.servers, conf.count * sizeof(conf.servers[0]));
    out_conf->count = conf.count;
    return 0;
}
