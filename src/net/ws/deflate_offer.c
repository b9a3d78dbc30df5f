/*
 * Agreeing on permessage-deflate (RFC 7692, section 7.1).
 *
 *                                       offer            answer
 *      server_no_context_takeover       no value         no value
 *      client_no_context_takeover       no value         no value
 *      server_max_window_bits           8-15             8-15, not above the offer's
 *      client_max_window_bits           none or 8-15     8-15, not above; only if offered
 *
 * An offer with anything else, or anything twice, is declined, and the next one looked at; an
 * answer with anything else fails the connection.
 */
#include "../text.h"
#include "ws_frame.h"

#include <stdio.h>

#define BITS_MIN 8
#define BITS_MAX 15

/* The parameters of an offer or answer. */
struct agreed {
    bool server_no_takeover;
    bool client_no_takeover;
    bool has_server_bits;
    bool has_client_bits;
    unsigned server_bits; /* 0: no value. */
    unsigned client_bits;
};

static unsigned bits_or_max(uint8_t bits)
{
    return bits == 0 || bits > BITS_MAX ? BITS_MAX : bits < BITS_MIN ? BITS_MIN : bits;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* "8" to "15" as it stands; 0: no such number. */
static unsigned read_bits(const char *value)
{
    for (unsigned bits = BITS_MIN; bits <= BITS_MAX; bits++) {
        char text[12];

        snprintf(text, sizeof(text), "%u", bits);
        if (strcmp(text, value) == 0) {
            return bits;
        }
    }
    return 0;
}

static bool read_flag(const struct ws_parameter *parameter, bool *flag)
{
    if (*flag || parameter->has_value) {
        return false;
    }
    return *flag = true;
}

static bool read_parameter(const struct ws_parameter *parameter, bool value_optional,
                           struct agreed *agreed)
{
    bool *seen;
    unsigned *bits;

    if (bop__text_is(parameter->name, "server_no_context_takeover")) {
        return read_flag(parameter, &agreed->server_no_takeover);
    }
    if (bop__text_is(parameter->name, "client_no_context_takeover")) {
        return read_flag(parameter, &agreed->client_no_takeover);
    }
    if (bop__text_is(parameter->name, "server_max_window_bits")) {
        seen = &agreed->has_server_bits;
        bits = &agreed->server_bits;
        value_optional = false;
    } else if (bop__text_is(parameter->name, "client_max_window_bits")) {
        seen = &agreed->has_client_bits;
        bits = &agreed->client_bits;
    } else {
        return false;
    }
    if (*seen) {
        return false;
    }
    *seen = true;
    if (!parameter->has_value) {
        return value_optional;
    }
    *bits = read_bits(parameter->value);
    return *bits != 0;
}

static bool read_parameters(const struct ws_extension *extension, bool value_optional,
                            struct agreed *agreed)
{
    *agreed = (struct agreed){.has_server_bits = false};
    for (unsigned i = 0; i < extension->parameter_count; i++) {
        if (!read_parameter(&extension->parameters[i], value_optional, agreed)) {
            return false;
        }
    }
    return true;
}

static bool is_deflate(const struct ws_extension *extension)
{
    return bop__text_is(extension->name, "permessage-deflate");
}

/* ---- Servers ---- */

static void write_text(const struct agreed *agreed, char out_text[BOP_WS_EXTENSION_TEXT_MAX])
{
    int size = snprintf(out_text, BOP_WS_EXTENSION_TEXT_MAX, "permessage-deflate%s%s",
                        agreed->server_no_takeover ? "; server_no_context_takeover" : "",
                        agreed->client_no_takeover ? "; client_no_context_takeover" : "");

    if (agreed->has_server_bits) {
        size += snprintf(out_text + size, (size_t)(BOP_WS_EXTENSION_TEXT_MAX - size),
                         "; server_max_window_bits=%u", agreed->server_bits);
    }
    if (agreed->has_client_bits) {
        size += snprintf(out_text + size, (size_t)(BOP_WS_EXTENSION_TEXT_MAX - size),
                         agreed->client_bits ? "; client_max_window_bits=%u"
                                             : "; client_max_window_bits",
                         agreed->client_bits);
    }
    BOP_ASSERT(size < BOP_WS_EXTENSION_TEXT_MAX);
}

static void accept_offer(const struct agreed *offer, const struct bop_ws_deflate_options *options,
                         struct bop_ws_deflate *out_deflate, struct agreed *out_answer)
{
    unsigned server_bits = bits_or_max(options->server_bits);
    unsigned client_bits = bits_or_max(options->client_bits);
    struct agreed answer = {
        .server_no_takeover = offer->server_no_takeover || !options->server_takeover,
        .client_no_takeover = offer->client_no_takeover || !options->client_takeover,
    };

    if (offer->has_server_bits) {
        server_bits = least(server_bits, offer->server_bits);
    }
    answer.has_server_bits = offer->has_server_bits || server_bits < BITS_MAX;
    answer.server_bits = server_bits;
    if (!offer->has_client_bits) {
        client_bits = BITS_MAX; /* It cannot be asked to use less. */
    } else if (offer->client_bits != 0) {
        client_bits = least(client_bits, offer->client_bits);
    }
    answer.has_client_bits = client_bits < BITS_MAX;
    answer.client_bits = client_bits;
    *out_answer = answer;
    *out_deflate = (struct bop_ws_deflate){.on = true,
                                           .server_takeover = !answer.server_no_takeover,
                                           .client_takeover = !answer.client_no_takeover,
                                           .server_bits = (uint8_t)server_bits,
                                           .client_bits = (uint8_t)client_bits};
}

bool bop_ws_deflate_accept(const struct bop_http_head *head,
                           const struct bop_ws_deflate_options *options,
                           struct bop_ws_deflate *out_deflate,
                           char out_text[BOP_WS_EXTENSION_TEXT_MAX])
{
    struct ws_extensions extensions = {.head = head};
    struct ws_extension extension;
    struct agreed offer, answer;

    *out_deflate = (struct bop_ws_deflate){.on = false};
    out_text[0] = '\0';
    while (options->enabled && bop__ws_extension_next(&extensions, &extension) == 1) {
        if (is_deflate(&extension) && read_parameters(&extension, true, &offer)) {
            accept_offer(&offer, options, out_deflate, &answer);
            write_text(&answer, out_text);
            return true;
        }
    }
    return false;
}

/* ---- Clients ---- */

void bop__ws_deflate_offer(const struct bop_ws_deflate_options *options,
                           char out_text[BOP_WS_EXTENSION_TEXT_MAX])
{
    unsigned client_bits = bits_or_max(options->client_bits);
    struct agreed offer = {
        .server_no_takeover = !options->server_takeover,
        .client_no_takeover = !options->client_takeover,
        .server_bits = bits_or_max(options->server_bits),
        .has_client_bits = true,
        .client_bits = client_bits < BITS_MAX ? client_bits : 0,
    };

    offer.has_server_bits = offer.server_bits < BITS_MAX;
    write_text(&offer, out_text);
}

static int refuse(const char **out_why, const char *why)
{
    *out_why = why;
    return BOP_EPROTOCOL;
}

int bop__ws_deflate_agree(const struct ws_extension *extension,
                          const struct bop_ws_deflate_options *options,
                          struct bop_ws_deflate *out_deflate, const char **out_why)
{
    unsigned server_bits = bits_or_max(options->server_bits);
    unsigned client_bits = bits_or_max(options->client_bits);
    struct agreed answer;

    if (!options->enabled || !is_deflate(extension)) {
        return refuse(out_why, "an extension that was not offered");
    }
    if (out_deflate->on) {
        return refuse(out_why, "permessage-deflate twice");
    }
    if (!read_parameters(extension, false, &answer)) {
        return refuse(out_why, "a parameter of permessage-deflate that makes no sense");
    }
    if (!options->server_takeover && !answer.server_no_takeover) {
        return refuse(out_why, "server_no_context_takeover was not accepted");
    }
    if ((answer.has_server_bits && answer.server_bits > server_bits) ||
        (!answer.has_server_bits && server_bits < BITS_MAX)) {
        return refuse(out_why, "server_max_window_bits is not what was offered");
    }
    if (answer.has_client_bits && answer.client_bits > client_bits) {
        return refuse(out_why, "client_max_window_bits is above what was offered");
    }
    *out_deflate = (struct bop_ws_deflate){
        .on = true,
        .server_takeover = !answer.server_no_takeover,
        .client_takeover = !answer.client_no_takeover && options->client_takeover,
        .server_bits = (uint8_t)(answer.has_server_bits ? answer.server_bits : server_bits),
        .client_bits = (uint8_t)(answer.has_client_bits ? answer.client_bits : client_bits),
    };
    return 0;
}
