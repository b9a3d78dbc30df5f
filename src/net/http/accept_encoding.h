/*
 * Content codings of answers: what a client takes.
 */
#ifndef BOP_NET_HTTP_ACCEPT_ENCODING_H
#define BOP_NET_HTTP_ACCEPT_ENCODING_H

#include <bop/http1.h>

enum bop__http_coding {
    BOP__HTTP_IDENTITY, /* As it is. */
    BOP__HTTP_GZIP,
    BOP__HTTP_DEFLATE, /* The zlib format (RFC 9110, 8.4.1.2). */
    BOP__HTTP_CODINGS,
};

/** How much a client likes each, in thousandths; 0: not at all, or for identity nothing was said.
 */
struct bop__http_accepts {
    uint16_t weights[BOP__HTTP_CODINGS];
};

const char *bop__http_coding_name(enum bop__http_coding coding);
/** Of a request without Accept-Encoding: nothing. */
struct bop__http_accepts bop__http_accepts(const struct bop_http_head *head);
/** Whether the client takes this one, and no less than the bytes as they are. */
bool bop__http_accepts_coding(const struct bop__http_accepts *accepts,
                              enum bop__http_coding coding);
/** The coding for what is compressed on the fly, or IDENTITY. */
enum bop__http_coding bop__http_choose_coding(const struct bop__http_accepts *accepts);

#endif
