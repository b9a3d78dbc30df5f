/*
 * TLS as the socket's own files see it. A socket with TLS has `tls` set; the
 * bytes of the wire and those of its user part here:
 *
 *      recv -> bop__tls_received -> bop__socket_received -> on_data
 *      bop_socket_write -> the queue, in the clear -> bop__tls_send -> send
 *
 * The queue is encrypted when it is sent, so that what a turn wrote goes out in
 * as few records and calls as possible.
 */
#ifndef BOP_NET_TLS_INTERNAL_H
#define BOP_NET_TLS_INTERNAL_H

#include <bop/slice.h>
#include <bop/tls.h>

struct bop__socket;
struct bop_loop;
struct bop__tls_stream; /* OpenSSL's state of one socket. */

/** Whoever keeps rules longer than the call that was given them has a reference. */
void bop__tls_ref(struct bop_tls *tls);
void bop__tls_unref(struct bop_tls *tls);

/**
 * Begin TLS on a socket that has just been accepted or connected, or within the
 * on_data that took what comes before it in the clear: what that leaves is the
 * handshake's. name: what to send as SNI and to verify (client).
 * The socket's on_open comes when the handshake is done; a failure closes it
 * with BOP_ETLS. Returns 0 or BOP_ENOMEM.
 */
BOP_MUST_USE int bop__tls_start(struct bop__socket *socket, struct bop_tls *tls, const char *name);

/** Bytes came from the wire: goes on with the handshake or hands plain bytes to
 * bop__socket_received(). May close the socket. */
void bop__tls_received(struct bop__socket *socket, struct bop_slice bytes);

/** The wire's end came. Without close_notify before it, it is a truncation: -ECONNRESET. */
void bop__tls_end(struct bop__socket *socket);

/** Encrypt and send what is queued, as far as the kernel takes it: as bop__socket_send(). */
BOP_MUST_USE int bop__tls_send(struct bop__socket *socket);

/** Bytes encrypted and not yet taken by the kernel: they keep the socket watched for writing. */
size_t bop__tls_unsent(const struct bop__socket *socket);

/** Send close_notify after what is queued: the sending side is done. */
void bop__tls_shutdown(struct bop__socket *socket);

/** Free the state. The socket is closing. */
void bop__tls_free(struct bop__socket *socket);

/** Free what the sockets of a loop shared. None of them has TLS any more. */
void bop__tls_wire_free(struct bop_loop *loop);

#endif
