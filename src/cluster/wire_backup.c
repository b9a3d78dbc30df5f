/*
 * The messages of backups, field by field in the order on the wire. The rules are
 * those of wire_messages.c.
 */
#include <bop/backup.h>

static int finish(const struct bop_reader *reader)
{
    return bop_reader_done(reader) ? 0 : BOP_EMALFORMED;
}

const char *bop_backup_code_text(uint8_t code)
{
    static const char *const texts[] = {
        [BOP_BACKUP_OK] = "ok",
        [BOP_BACKUP_CUTTING] = "being written",
        [BOP_BACKUP_NOT_NOW] = "not now",
        [BOP_BACKUP_BUSY] = "too many backups",
        [BOP_BACKUP_UNKNOWN] = "no such backup",
        [BOP_BACKUP_FAILED] = "failed",
        [BOP_BACKUP_LATER] = "later",
        [BOP_BACKUP_BAD_REQUEST] = "bad request",
    };

    return code < BOP_COUNT_OF(texts) ? texts[code] : "unknown code";
}

int bop_backup_request_decode(struct bop_slice payload, struct bop_backup_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_backup_request message = {0};

    message.action = bop_read_u8(&reader);
    message.backup = bop_read_u64(&reader);
    if (finish(&reader) < 0 || message.action < BOP_BACKUP_CUT ||
        message.action > BOP_BACKUP_DROP) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_backup_request_encode(struct bop_writer *writer, const struct bop_backup_request *in)
{
    bop_write_u8(writer, in->action);
    bop_write_u64(writer, in->backup);
}

int bop_backup_response_decode(struct bop_slice payload, struct bop_backup_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_backup_response message = {0};

    message.code = bop_read_u8(&reader);
    message.text = bop_read_string(&reader);
    message.backup = bop_read_u64(&reader);
    message.node = bop_read_u64(&reader);
    message.bytes = bop_read_u64(&reader);
    message.index = bop_read_u64(&reader);
    message.term = bop_read_u64(&reader);
    if (finish(&reader) < 0 || message.text.size > BOP_BACKUP_TEXT_MAX) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_backup_response_encode(struct bop_writer *writer, const struct bop_backup_response *in)
{
    bop_write_u8(writer, in->code);
    bop_write_bytes(writer, in->text);
    bop_write_u64(writer, in->backup);
    bop_write_u64(writer, in->node);
    bop_write_u64(writer, in->bytes);
    bop_write_u64(writer, in->index);
    bop_write_u64(writer, in->term);
}

int bop_backup_read_request_decode(struct bop_slice payload, struct bop_backup_read_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_backup_read_request message = {0};

    message.backup = bop_read_u64(&reader);
    message.offset = bop_read_u64(&reader);
    message.size = bop_read_u32(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_backup_read_request_encode(struct bop_writer *writer,
                                    const struct bop_backup_read_request *in)
{
    bop_write_u64(writer, in->backup);
    bop_write_u64(writer, in->offset);
    bop_write_u32(writer, in->size);
}

int bop_backup_read_response_decode(struct bop_slice payload, struct bop_backup_read_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_backup_read_response message = {0};

    message.code = bop_read_u8(&reader);
    message.wait_ms = bop_read_u32(&reader);
    message.offset = bop_read_u64(&reader);
    message.bytes = bop_read_raw(&reader, bop_reader_left(&reader));
    if (finish(&reader) < 0 || message.bytes.size > BOP_BACKUP_PIECE_MAX) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_backup_read_response_encode(struct bop_writer *writer,
                                     const struct bop_backup_read_response *in)
{
    bop_write_u8(writer, in->code);
    bop_write_u32(writer, in->wait_ms);
    bop_write_u64(writer, in->offset);
    bop_write_raw(writer, in->bytes);
}
