/*
 * The messages of cluster administration, field by field in the order on the wire.
 * The rules are those of wire_messages.c.
 */
#include <bop/cluster_admin.h>

static struct bop_slice read_text(struct bop_reader *reader, size_t size_max)
{
    struct bop_slice text = bop_read_string(reader);

    if (text.size > size_max) {
        reader->failed = true;
    }
    return text;
}

static int finish(const struct bop_reader *reader)
{
    return bop_reader_done(reader) ? 0 : BOP_EMALFORMED;
}

const char *bop_admin_code_text(uint8_t code)
{
    static const char *const texts[] = {
        [BOP_ADMIN_OK] = "ok",
        [BOP_ADMIN_NO_LEADER] = "no leader",
        [BOP_ADMIN_BUSY] = "another change is under way",
        [BOP_ADMIN_MOVING] = "leadership is handed over first",
        [BOP_ADMIN_LAGS] = "not up to date",
        [BOP_ADMIN_NO_QUORUM] = "would lose the quorum",
        [BOP_ADMIN_UNKNOWN_NODE] = "no such server",
        [BOP_ADMIN_EXISTS] = "id or address in use",
        [BOP_ADMIN_TOO_MANY] = "too many servers",
        [BOP_ADMIN_BAD_REQUEST] = "bad request",
        [BOP_ADMIN_UNCERTAIN] = "outcome unknown",
        [BOP_ADMIN_REFUSED] = "refused",
    };

    return code < BOP_COUNT_OF(texts) ? texts[code] : "unknown code";
}

/* ---- Members ---- */

static void read_server(struct bop_reader *reader, struct bop_admin_server *out)
{
    out->id = bop_read_u64(reader);
    out->address = read_text(reader, BOP_ADDRESS_MAX);
    out->role = bop_read_u8(reader);
    out->learner = bop_read_bool(reader);
    out->priority = bop_read_u32(reader);
    out->incarnation = bop_read_u64(reader);
    out->connected = bop_read_bool(reader);
    out->match = bop_read_u64(reader);
    out->silent_ms = bop_read_u64(reader);
    out->level = bop_read_u32(reader);
}

static void write_server(struct bop_writer *writer, const struct bop_admin_server *in)
{
    bop_write_u64(writer, in->id);
    bop_write_bytes(writer, in->address);
    bop_write_u8(writer, in->role);
    bop_write_bool(writer, in->learner);
    bop_write_u32(writer, in->priority);
    bop_write_u64(writer, in->incarnation);
    bop_write_bool(writer, in->connected);
    bop_write_u64(writer, in->match);
    bop_write_u64(writer, in->silent_ms);
    bop_write_u32(writer, in->level);
}

int bop_admin_members_decode(struct bop_slice payload, struct bop_admin_members *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_admin_members message = {0};

    message.code = bop_read_u8(&reader);
    message.text = read_text(&reader, BOP_ADMIN_TEXT_MAX);
    message.leader = bop_read_u64(&reader);
    message.term = bop_read_u64(&reader);
    message.commit = bop_read_u64(&reader);
    message.configuration_index = bop_read_u64(&reader);
    message.changing = bop_read_bool(&reader);
    message.count = bop_read_u8(&reader);
    if (message.count > BOP_RAFT_SERVERS_MAX) {
        return BOP_EMALFORMED;
    }
    for (unsigned i = 0; i < message.count; i++) {
        read_server(&reader, &message.servers[i]);
    }
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_admin_members_encode(struct bop_writer *writer, const struct bop_admin_members *in)
{
    BOP_ASSERT(in->count <= BOP_RAFT_SERVERS_MAX);
    bop_write_u8(writer, in->code);
    bop_write_bytes(writer, in->text);
    bop_write_u64(writer, in->leader);
    bop_write_u64(writer, in->term);
    bop_write_u64(writer, in->commit);
    bop_write_u64(writer, in->configuration_index);
    bop_write_bool(writer, in->changing);
    bop_write_u8(writer, in->count);
    for (unsigned i = 0; i < in->count; i++) {
        write_server(writer, &in->servers[i]);
    }
}

/* ---- Changes ---- */

int bop_admin_change_request_decode(struct bop_slice payload, struct bop_admin_change_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_admin_change_request message = {0};

    message.action = bop_read_u8(&reader);
    message.flags = bop_read_u8(&reader);
    message.node = bop_read_u64(&reader);
    message.priority = bop_read_u32(&reader);
    message.address = read_text(&reader, BOP_ADDRESS_MAX);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_admin_change_request_encode(struct bop_writer *writer,
                                     const struct bop_admin_change_request *in)
{
    bop_write_u8(writer, in->action);
    bop_write_u8(writer, in->flags);
    bop_write_u64(writer, in->node);
    bop_write_u32(writer, in->priority);
    bop_write_bytes(writer, in->address);
}

static void read_strength(struct bop_reader *reader, struct bop_admin_strength *out)
{
    out->voters = bop_read_u8(reader);
    out->quorum = bop_read_u8(reader);
    out->alive = bop_read_u8(reader);
}

static void write_strength(struct bop_writer *writer, const struct bop_admin_strength *in)
{
    bop_write_u8(writer, in->voters);
    bop_write_u8(writer, in->quorum);
    bop_write_u8(writer, in->alive);
}

int bop_admin_change_response_decode(struct bop_slice payload,
                                     struct bop_admin_change_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_admin_change_response message = {0};

    message.code = bop_read_u8(&reader);
    message.text = read_text(&reader, BOP_ADMIN_TEXT_MAX);
    read_strength(&reader, &message.before);
    read_strength(&reader, &message.after);
    message.index = bop_read_u64(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_admin_change_response_encode(struct bop_writer *writer,
                                      const struct bop_admin_change_response *in)
{
    bop_write_u8(writer, in->code);
    bop_write_bytes(writer, in->text);
    write_strength(writer, &in->before);
    write_strength(writer, &in->after);
    bop_write_u64(writer, in->index);
}

/* ---- Transfer ---- */

int bop_admin_transfer_request_decode(struct bop_slice payload,
                                      struct bop_admin_transfer_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    uint64_t node = bop_read_u64(&reader);

    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    out->node = node;
    return 0;
}

void bop_admin_transfer_request_encode(struct bop_writer *writer,
                                       const struct bop_admin_transfer_request *in)
{
    bop_write_u64(writer, in->node);
}

int bop_admin_transfer_response_decode(struct bop_slice payload,
                                       struct bop_admin_transfer_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_admin_transfer_response message = {0};

    message.code = bop_read_u8(&reader);
    message.text = read_text(&reader, BOP_ADMIN_TEXT_MAX);
    message.leader = bop_read_u64(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_admin_transfer_response_encode(struct bop_writer *writer,
                                        const struct bop_admin_transfer_response *in)
{
    bop_write_u8(writer, in->code);
    bop_write_bytes(writer, in->text);
    bop_write_u64(writer, in->leader);
}

/* ---- Parameters ---- */

static void read_params(struct bop_reader *reader, struct bop_admin_params *out, bool response)
{
    out->count = bop_read_u8(reader);
    if (out->count > BOP_ADMIN_PARAMS_MAX) {
        reader->failed = true;
        out->count = 0;
    }
    for (unsigned i = 0; i < out->count; i++) {
        struct bop_admin_param *param = &out->params[i];

        param->name = read_text(reader, BOP_NAME_MAX);
        param->value = read_text(reader, BOP_NAME_MAX);
        if (response) {
            param->live = bop_read_bool(reader);
            param->about = read_text(reader, BOP_ADMIN_TEXT_MAX);
        }
    }
}

static void write_params(struct bop_writer *writer, const struct bop_admin_params *in,
                         bool response)
{
    BOP_ASSERT(in->count <= BOP_ADMIN_PARAMS_MAX);
    bop_write_u8(writer, in->count);
    for (unsigned i = 0; i < in->count; i++) {
        bop_write_bytes(writer, in->params[i].name);
        bop_write_bytes(writer, in->params[i].value);
        if (response) {
            bop_write_bool(writer, in->params[i].live);
            bop_write_bytes(writer, in->params[i].about);
        }
    }
}

int bop_admin_params_request_decode(struct bop_slice payload, struct bop_admin_params *out)
{
    struct bop_reader reader = bop_reader(payload);

    *out = (struct bop_admin_params){0};
    read_params(&reader, out, false);
    return finish(&reader);
}

void bop_admin_params_request_encode(struct bop_writer *writer, const struct bop_admin_params *in)
{
    write_params(writer, in, false);
}

int bop_admin_params_response_decode(struct bop_slice payload, struct bop_admin_params *out)
{
    struct bop_reader reader = bop_reader(payload);

    *out = (struct bop_admin_params){0};
    out->code = bop_read_u8(&reader);
    out->text = read_text(&reader, BOP_ADMIN_TEXT_MAX);
    out->node = bop_read_u64(&reader);
    read_params(&reader, out, true);
    return finish(&reader);
}

void bop_admin_params_response_encode(struct bop_writer *writer, const struct bop_admin_params *in)
{
    bop_write_u8(writer, in->code);
    bop_write_bytes(writer, in->text);
    bop_write_u64(writer, in->node);
    write_params(writer, in, true);
}
