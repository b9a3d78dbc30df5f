/*
 * Frames by hand: building them, decoding them whole or cut anywhere, and writing down what came
 * out, so that a case is a line: these frames, this record.
 *
 * The record of a decoding: "T(Hello) B(...) P(ping) O(pong) X(1000 bye)" for whole messages and
 * control frames in the order they end; a compressed message has a "z" before; "!1002" where it
 * failed. Bytes outside of ASCII are \xx, of long payloads only the size: "B(#70000)".
 */
#ifndef BOP_TESTS_NET_WS_FRAME_FIXTURE_H
#define BOP_TESTS_NET_WS_FRAME_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>

#include <bop/ws_codec.h>

#include "tap.h"

#define RECORD_MAX 32768

/* How a frame is written wrongly on purpose. */
enum wire_fault {
    WIRE_FINE = 0,
    WIRE_OTHER_ROLE, /* Masked by a server, unmasked by a client. */
    WIRE_SIZE_16,    /* The length in the form of 16 bits, whatever it is. */
    WIRE_SIZE_64,    /* Of 64 bits. */
    WIRE_SIZE_TOP,   /* Of 64 bits, with the topmost one set. */
    WIRE_HEADER,     /* Header only, claiming `size`. */
};

struct wire_frame {
    unsigned first;   /* Byte 0; a case's list ends with END. */
    const char *text; /* Payload, or NULL: `size` times 'x'. */
    size_t size;
    enum wire_fault fault;
};

#define TEXT(payload)         0x81, (payload), sizeof(payload) - 1
#define FRAME(first, payload) (first), (payload), sizeof(payload) - 1
#define END                                                                                        \
    {                                                                                              \
        0xffff                                                                                     \
    }

/* ---- Writing ---- */

struct wire {
    uint8_t *data;
    size_t size;
    size_t capacity;
    uint32_t key; /* Of the next frame. */
};

static inline void wire_put(struct wire *wire, const void *data, size_t size)
{
    if (wire->size + size > wire->capacity) {
        wire->capacity = 2 * (wire->size + size) + 64;
        wire->data = realloc(wire->data, wire->capacity);
        BOP_ASSERT(wire->data);
    }
    if (size > 0) {
        memcpy(wire->data + wire->size, data, size);
    }
    wire->size += size;
}

/* Independent of the library's own writer. */
static inline void wire_put_frame(struct wire *wire, const struct wire_frame *frame, bool masked)
{
    uint8_t header[10] = {(uint8_t)frame->first};
    uint64_t size = frame->size;
    unsigned width = size < 126 ? 0 : size < 65536 ? 2 : 8;
    uint8_t key[4];

    masked = masked != (frame->fault == WIRE_OTHER_ROLE);
    width = frame->fault == WIRE_SIZE_16 ? 2 : frame->fault == WIRE_SIZE_64 ? 8 : width;
    if (frame->fault == WIRE_SIZE_TOP) {
        width = 8;
        size |= UINT64_C(1) << 63;
    }
    header[1] = (uint8_t)((masked ? 0x80 : 0) | (width == 0   ? (unsigned)size
                                                 : width == 2 ? 126
                                                              : 127));
    for (unsigned i = 0; i < width; i++) {
        header[2 + i] = (uint8_t)(size >> 8 * (width - 1 - i));
    }
    wire_put(wire, header, 2 + width);
    wire->key = wire->key * 1664525 + 1013904223;
    memcpy(key, &wire->key, 4);
    if (masked) {
        wire_put(wire, key, 4);
    }
    if (frame->fault == WIRE_HEADER) {
        return;
    }
    for (size_t i = 0; i < frame->size; i++) {
        uint8_t byte = (uint8_t)(frame->text ? frame->text[i] : 'x');

        byte ^= masked ? key[i & 3] : 0;
        wire_put(wire, &byte, 1);
    }
}

static inline void wire_put_frames(struct wire *wire, const struct wire_frame *frames, bool masked)
{
    for (; frames->first != 0xffff; frames++) {
        wire_put_frame(wire, frames, masked);
    }
}

/* ---- Decoding ---- */

struct record {
    char text[RECORD_MAX];
    size_t size;
    uint8_t *message;
    size_t message_size;
    bool failed;
    const char *why;
};

static inline void record_put(struct record *record, const char *text)
{
    size_t size = strlen(text);

    BOP_ASSERT(record->size + size < RECORD_MAX);
    memcpy(record->text + record->size, text, size + 1);
    record->size += size;
}

static inline void record_payload(struct record *record, char kind, const char *front,
                                  const uint8_t *data, size_t size)
{
    char text[64];

    snprintf(text, sizeof(text), "%s%c(%s", record->size ? " " : "", kind, front);
    record_put(record, text);
    if (size > 200) {
        snprintf(text, sizeof(text), "#%zu", size);
        record_put(record, text);
    }
    for (size_t i = 0; i < size && size <= 200; i++) {
        bool plain = data[i] >= 0x20 && data[i] < 0x7f && data[i] != '\\';

        snprintf(text, sizeof(text), plain ? "%c" : "\\%02x", data[i]);
        record_put(record, text);
    }
    record_put(record, ")");
}

static inline void record_event(struct record *record, const struct bop_ws_event *event)
{
    char code[16] = "";

    switch (event->opcode) {
    case BOP_WS_TEXT:
    case BOP_WS_BINARY:
        CHECK_EQ(event->first, record->message == NULL);
        record->message = realloc(record->message, record->message_size + event->size + 1);
        BOP_ASSERT(record->message);
        if (event->size > 0) {
            memcpy(record->message + record->message_size, event->data, event->size);
        }
        record->message_size += event->size;
        if (event->last) {
            CHECK_EQ(event->frame_left, 0);
            record_payload(record, event->opcode == BOP_WS_TEXT ? 'T' : 'B',
                           event->compressed ? "z:" : "", record->message, record->message_size);
            free(record->message);
            record->message = NULL;
            record->message_size = 0;
        }
        break;
    case BOP_WS_CLOSE:
        snprintf(code, sizeof(code), event->size ? "%d " : "%d", event->close_code);
        record_payload(record, 'X', code, event->data, event->size);
        break;
    default:
        record_payload(record, event->opcode == BOP_WS_PING ? 'P' : 'O', "", event->data,
                       event->size);
    }
}

/* Feed bytes to a decoder in pieces that end at each of the cuts and at the end. The bytes that a
 * piece leaves are given again with the next, from memory of their exact size. */
static inline void decode_cut(struct bop_ws_decoder *decoder, const struct bop_ws_rules *rules,
                              struct bop_slice input, const size_t *cuts, size_t cut_count,
                              struct record *record)
{
    uint8_t *kept = NULL;
    size_t kept_size = 0, at = 0;

    for (size_t i = 0; i <= cut_count && !record->failed; i++) {
        size_t end = i < cut_count ? cuts[i] : input.size;
        size_t size = kept_size + end - at;
        uint8_t *memory = malloc(size ? size : 1);
        struct bop_slice bytes = bop_slice(memory, size);
        struct bop_ws_event event;
        int rc;

        BOP_ASSERT(memory);
        if (kept_size > 0) {
            memcpy(memory, kept, kept_size);
        }
        memcpy(memory + kept_size, input.data + at, end - at);
        at = end;
        while ((rc = bop_ws_decode(decoder, rules, &bytes, &event)) == 1) {
            record_event(record, &event);
        }
        if (rc != BOP_ETRUNCATED) {
            char code[16];

            snprintf(code, sizeof(code), "%s!%d", record->size ? " " : "", -rc);
            record_put(record, code);
            record->failed = true;
            record->why = event.why;
            CHECK_EQ(event.close_code, -rc);
            CHECK(event.why != NULL);
        }
        free(kept);
        kept_size = bytes.size;
        kept = malloc(kept_size + 1);
        BOP_ASSERT(kept);
        if (kept_size > 0) {
            memcpy(kept, bytes.data, kept_size);
        }
        CHECK(record->failed || kept_size < 14 + BOP_WS_CONTROL_MAX);
        free(memory);
    }
    free(kept);
    free(record->message);
    record->message = NULL;
}

static inline void decode_whole(const struct bop_ws_rules *rules, struct bop_slice input,
                                struct record *record)
{
    struct bop_ws_decoder decoder = {0};

    *record = (struct record){0};
    decode_cut(&decoder, rules, input, NULL, 0, record);
}

/* The record must be `expected`: whole, in single bytes, and cut in two anywhere (at 4,096 evenly
 * spread places of a long input). */
static inline void check_record(const char *name, const struct bop_ws_rules *rules,
                                struct bop_slice input, const char *expected)
{
    static struct record record;
    size_t step = input.size > 4096 ? input.size / 4096 : 1;
    size_t *cuts = malloc((input.size + 1) * sizeof(*cuts));

    BOP_ASSERT(cuts);
    decode_whole(rules, input, &record);
    if (strcmp(record.text, expected) != 0) {
        test__failed(__FILE__, __LINE__, "%s: \"%s\" instead of \"%s\"%s%s", name, record.text,
                     expected, record.why ? ", " : "", record.why ? record.why : "");
        free(cuts);
        return;
    }
    for (size_t at = 0; at < input.size; at += step) {
        struct bop_ws_decoder decoder = {0};

        record = (struct record){0};
        decode_cut(&decoder, rules, input, &at, 1, &record);
        if (strcmp(record.text, expected) != 0) {
            test__failed(__FILE__, __LINE__, "%s, cut at %zu: \"%s\" instead of \"%s\"", name, at,
                         record.text, expected);
            break;
        }
    }
    for (size_t i = 0; i < input.size; i++) {
        cuts[i] = i;
    }
    if (input.size <= 4096) {
        struct bop_ws_decoder decoder = {0};

        record = (struct record){0};
        decode_cut(&decoder, rules, input, cuts, input.size, &record);
        if (strcmp(record.text, expected) != 0) {
            test__failed(__FILE__, __LINE__, "%s, in bytes: \"%s\" instead of \"%s\"", name,
                         record.text, expected);
        }
    }
    free(cuts);
}

/* How many bytes it takes until decoding fails; SIZE_MAX: it doesn't. */
static inline size_t failing_size(const struct bop_ws_rules *rules, struct bop_slice input)
{
    static struct record record;

    for (size_t size = 0; size <= input.size; size++) {
        decode_whole(rules, bop_slice(input.data, size), &record);
        if (record.failed) {
            return size;
        }
    }
    return SIZE_MAX;
}

#endif
