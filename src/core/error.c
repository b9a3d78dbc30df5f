/*
 * Error codes and errors with context.
 *
 * A message too long for its place is cut at the end, between two characters
 * and never within one. bop_error_set() cuts what the caller formatted instead,
 * so that the text of the code is always there.
 */
#include <bop/error.h>

#include <stdio.h>
#include <string.h>

/* The length of text without an incomplete UTF-8 sequence at its end. */
static size_t whole_characters(const char *text, size_t length)
{
    size_t start = length;
    unsigned char lead;
    size_t need;

    while (start > 0 && length - start < 3 && ((unsigned char)text[start - 1] & 0xc0) == 0x80) {
        start--;
    }
    if (start == 0) {
        return length;
    }
    lead = (unsigned char)text[start - 1];
    need = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    return length - (start - 1) < need ? start - 1 : length;
}

/* Format into room bytes with the NUL, cutting between characters. Returns the length. */
static BOP_PRINTF(3, 0) size_t
    format_cut(char *out, size_t room, const char *format, va_list arguments)
{
    int wanted = vsnprintf(out, room, format, arguments);

    if (wanted < 0) {
        out[0] = '\0';
        return 0;
    }
    if ((size_t)wanted < room) {
        return (size_t)wanted;
    }
    room = whole_characters(out, room - 1);
    out[room] = '\0';
    return room;
}

/* Append text to out, which holds length bytes of BOP_ERROR_MESSAGE_MAX, cutting as above. */
static void append_cut(char *out, size_t length, const char *text)
{
    size_t size = strlen(text);

    if (size > BOP_ERROR_MESSAGE_MAX - 1 - length) {
        size = whole_characters(text, BOP_ERROR_MESSAGE_MAX - 1 - length);
    }
    memcpy(out + length, text, size);
    out[length + size] = '\0';
}

const char *bop_strerror(int code)
{
    const char *text = NULL;

    switch (code) {
    case 0:
        return "no error";
#define BOP_ERROR(name, value, text_of_it)                                                         \
    case value:                                                                                    \
        return text_of_it;
#include <bop/errors.def>
#undef BOP_ERROR
    default:
        break;
    }
    if (code < 0 && code > -10000) {
        text = strerrordesc_np(-code);
    }
    return text ? text : "unknown error";
}

const char *bop_error_name(int code)
{
    const char *text = NULL;

    switch (code) {
    case 0:
        return "BOP_OK";
#define BOP_ERROR(name, value, text_of_it)                                                         \
    case value:                                                                                    \
        return #name;
#include <bop/errors.def>
#undef BOP_ERROR
    default:
        break;
    }
    if (code < 0 && code > -10000) {
        text = strerrorname_np(-code);
    }
    return text ? text : "UNKNOWN";
}

/* What an analyzer sees in their place is not for here. */
#undef bop_error_set
#undef bop_error_say

/* The formatting below goes through a buffer of its own, since an argument may
 * be the very message that is being replaced. */

int bop_error_set(struct bop_error *err, int code, const char *format, ...)
{
    char message[BOP_ERROR_MESSAGE_MAX];
    const char *text = bop_strerror(code);
    va_list arguments;
    size_t length;

    if (!err) {
        return code;
    }
    va_start(arguments, format);
    length = format_cut(message, sizeof(message) - strlen(": ") - strlen(text), format, arguments);
    va_end(arguments);
    memcpy(message + length, ": ", sizeof(": "));
    append_cut(message, length + strlen(": "), text);

    err->code = code;
    memcpy(err->message, message, strlen(message) + 1);
    return code;
}

int bop_error_say(struct bop_error *err, int code, const char *format, ...)
{
    char message[BOP_ERROR_MESSAGE_MAX];
    va_list arguments;
    size_t length;

    if (!err) {
        return code;
    }
    va_start(arguments, format);
    length = format_cut(message, sizeof(message), format, arguments);
    va_end(arguments);

    err->code = code;
    memcpy(err->message, message, length + 1);
    return code;
}

int bop_error_wrap(struct bop_error *err, const char *format, ...)
{
    char message[BOP_ERROR_MESSAGE_MAX];
    va_list arguments;
    size_t length;

    if (!err) {
        return 0;
    }
    va_start(arguments, format);
    length = format_cut(message, sizeof(message) - strlen(": "), format, arguments);
    va_end(arguments);
    memcpy(message + length, ": ", sizeof(": "));
    append_cut(message, length + strlen(": "), err->message);

    memcpy(err->message, message, strlen(message) + 1);
    return err->code;
}
