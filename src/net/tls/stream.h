/*
 * TLS of one socket, and what the sockets of a loop share for it.
 *
 * OpenSSL reads and writes through one BIO a loop, which has no memory of its
 * own: it reads from the bytes that the socket's recv brought, lent for the
 * call, and writes to `out`, which is sent from there. Only what the kernel
 * refuses is kept, per socket. So an idle connection holds what OpenSSL needs
 * and nothing besides.
 *
 *      recv --> in --> SSL_read  --> plain --> on_data
 *      queue --> gather --> SSL_write --> out --> send
 *                                          \--> unsent, if the kernel is full
 *
 * `in` and `out` are empty whenever a callback of the user runs, since that may
 * well write to another socket with TLS.
 */
#ifndef BOP_NET_TLS_STREAM_H
#define BOP_NET_TLS_STREAM_H

#include "../socket/socket_internal.h"
#include "context.h"
#include "tls_internal.h"

/* The most that a TLS record carries. */
#define BOP__TLS_RECORD_BYTES (16u * 1024)
/* Decrypted at once, and encrypted for one send. */
#define BOP__TLS_BATCH_BYTES (128u * 1024)

/** What the sockets of a loop share. */
struct bop__tls_wire {
    struct bop_loop *loop;
    BIO *bio;
    struct bop__tls_stream *stream; /* At work: for callbacks of OpenSSL. */
    struct bop_slice in;            /* Ciphertext that it may read. */
    struct bop_buf out;             /* Ciphertext that it wrote. */
    uint8_t *plain;                 /* BOP__TLS_BATCH_BYTES, lent to on_data. */
    uint8_t *gather;                /* BOP__TLS_RECORD_BYTES. */

    struct bop_list waiting; /* bop__tls_waiting.link, first come first. */
    uint64_t turn;           /* The loop's, that `steps` were made in. */
    unsigned steps;
    struct bop_post post; /* For the turn that goes on with those waiting. */
    bool posted;
};

/** Bytes of a handshake whose turn has not come. */
struct bop__tls_waiting {
    struct bop_list link;
    struct bop__tls_stream *stream;
    struct bop_buf input;
};

/** Encrypted, and refused by the kernel. */
struct bop__tls_unsent {
    size_t sent; /* Of data, meanwhile. */
    size_t size;
    uint8_t data[];
};

struct bop__tls_stream {
    struct bop__socket *sock;
    struct bop__tls_wire *wire;
    struct bop_tls *tls;
    SSL *ssl;                         /* NULL until the first bytes: idle strangers cost little. */
    struct bop__tls_unsent *unsent;   /* Or NULL. */
    struct bop__tls_waiting *waiting; /* For its turn, or NULL. */
    char *name;                       /* Clients: what sessions are kept under. */
    bool done : 1;                    /* The handshake is. */
    bool failed : 1;                  /* OpenSSL must not be used any more. */
    bool got_bye : 1;                 /* close_notify came. */
    bool wants_bye : 1;               /* It is to be sent after what is queued, */
    bool said_bye : 1;                /* and was. */
};

/* ---- wire.c ---- */

/** Of a loop, made with the first use. NULL: no memory. */
BOP_MUST_USE struct bop__tls_wire *bop__tls_wire_of(struct bop_loop *loop);
/** Put the stream to work: OpenSSL's callbacks and reads are for it. */
void bop__tls_wire_begin(struct bop__tls_stream *stream, struct bop_slice in);
/** Back from work. Returns what was not read. */
struct bop_slice bop__tls_wire_end(struct bop__tls_wire *wire);

/* ---- ration.c ---- */

/** Whether the stream may go on with its handshake in this turn; it counts if so. */
BOP_MUST_USE bool bop__tls_admit(struct bop__tls_stream *stream);
/** Keep bytes until it may; too many make it go on at once. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__tls_wait(struct bop__tls_stream *stream, struct bop_slice bytes);
/** Give up waiting. */
void bop__tls_stop_waiting(struct bop__tls_stream *stream);

/* ---- stream.c ---- */

/** Go on with bytes from the wire; those of a handshake were admitted. */
void bop__tls_go_on(struct bop__tls_stream *stream, struct bop_slice bytes);
/** Say why in the socket's error text, tell the peer, close with BOP_ETLS. */
void bop__tls_fail(struct bop__tls_stream *stream);
/** Put OpenSSL's newest error in words. */
void bop__tls_explain(struct bop__tls_stream *stream);

/* ---- output.c ---- */

/** Keep what was written to `out` behind what is unsent, to be sent soon. Returns 0, BOP_ENOMEM,
 * or BOP_EFULL for a peer that makes us answer and does not read. */
BOP_MUST_USE int bop__tls_keep_out(struct bop__tls_stream *stream);
/** Try once to send what is unsent and in `out`; forget what the kernel refuses. */
void bop__tls_send_last(struct bop__tls_stream *stream);
/** Forget what is unsent. */
void bop__tls_free_unsent(struct bop__tls_stream *stream);

#endif
