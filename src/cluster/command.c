/*
 * Commands as bytes. The decoder accepts exactly what the encoder makes, and
 * keeps no promise about an operation's inside: that is decoded when it is run,
 * so that one that makes no sense fails alike on every replica.
 */
#include "command.h"

#define EXPIRED_ID_SIZE 8

static void read_body(struct bop_reader *reader, uint8_t kind, struct command *command)
{
    uint32_t count;

    switch (command->kind) {
    case COMMAND_WRITE:
        command->session = bop_read_u64(reader);
        command->sequence = bop_read_u64(reader);
        command->acked = bop_read_u64(reader);
        command->operation = bop_read_raw(reader, bop_reader_left(reader));
        break;
    case COMMAND_SESSION_OPEN:
        command->timeout_ms = bop_read_u32(reader);
        if (kind == COMMAND_SESSION_OPEN_GRACE) {
            command->grace_ms = bop_read_u32(reader);
            reader->failed = reader->failed || command->grace_ms == 0; /* That has a kind. */
        }
        break;
    case COMMAND_SESSION_CLOSE:
        command->session = bop_read_u64(reader);
        break;
    case COMMAND_SESSION_EXPIRE:
        count = bop_read_u32(reader);
        if (count > COMMAND_EXPIRE_MAX) {
            reader->failed = true;
            break;
        }
        command->expired = bop_read_raw(reader, (size_t)count * EXPIRED_ID_SIZE);
        break;
    case COMMAND_TIMERS:
        break;
    case COMMAND_LEVEL:
        command->level = bop_read_u32(reader);
        break;
    default:
        reader->failed = true;
    }
}

int bop__command_decode(struct bop_slice bytes, struct command *out_command)
{
    struct bop_reader reader = bop_reader(bytes);
    struct command command = {0};
    uint8_t version = bop_read_u8(&reader);
    uint8_t kind;
    bool zeros;

    if (!reader.failed && version != COMMAND_VERSION) {
        return BOP_EVERSION;
    }
    kind = bop_read_u8(&reader);
    command.kind = kind == COMMAND_SESSION_OPEN_GRACE ? COMMAND_SESSION_OPEN
                                                      : (enum command_kind)kind;
    zeros = bop_read_u16(&reader) == 0;
    zeros = bop_read_u32(&reader) == 0 && zeros;
    command.origin_node = bop_read_u64(&reader);
    command.origin_request = bop_read_u64(&reader);
    command.time_ms = bop_read_u64(&reader);
    read_body(&reader, kind, &command);
    if (command.kind == COMMAND_SESSION_OPEN || command.kind == COMMAND_SESSION_CLOSE) {
        struct bop_slice token = bop_read_raw(&reader, BOP_TOKEN_SIZE);

        if (!reader.failed) {
            memcpy(command.token, token.data, BOP_TOKEN_SIZE);
        }
    }
    if (!bop_reader_done(&reader) || !zeros) {
        return BOP_EMALFORMED;
    }
    *out_command = command;
    return 0;
}

void bop__command_encode(struct bop_writer *writer, const struct command *command)
{
    bool grace = command->kind == COMMAND_SESSION_OPEN && command->grace_ms > 0;

    bop_write_u8(writer, COMMAND_VERSION);
    bop_write_u8(writer, grace ? COMMAND_SESSION_OPEN_GRACE : (uint8_t)command->kind);
    bop_write_u16(writer, 0);
    bop_write_u32(writer, 0);
    bop_write_u64(writer, command->origin_node);
    bop_write_u64(writer, command->origin_request);
    bop_write_u64(writer, command->time_ms);
    switch (command->kind) {
    case COMMAND_WRITE:
        bop_write_u64(writer, command->session);
        bop_write_u64(writer, command->sequence);
        bop_write_u64(writer, command->acked);
        bop_write_raw(writer, command->operation);
        break;
    case COMMAND_SESSION_OPEN:
        bop_write_u32(writer, command->timeout_ms);
        if (grace) {
            bop_write_u32(writer, command->grace_ms);
        }
        bop_write_raw(writer, bop_slice(command->token, BOP_TOKEN_SIZE));
        break;
    case COMMAND_SESSION_CLOSE:
        bop_write_u64(writer, command->session);
        bop_write_raw(writer, bop_slice(command->token, BOP_TOKEN_SIZE));
        break;
    case COMMAND_SESSION_EXPIRE:
        BOP_ASSERT(command->expired.size % EXPIRED_ID_SIZE == 0 &&
                   command->expired.size / EXPIRED_ID_SIZE <= COMMAND_EXPIRE_MAX);
        bop_write_u32(writer, (uint32_t)(command->expired.size / EXPIRED_ID_SIZE));
        bop_write_raw(writer, command->expired);
        break;
    case COMMAND_TIMERS:
        break;
    case COMMAND_LEVEL:
        bop_write_u32(writer, command->level);
        break;
    }
}
