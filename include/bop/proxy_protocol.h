/*
 * The header that a proxy sends before a connection's bytes, to tell who the
 * client is: the PROXY protocol, versions 1 and 2, as HAProxy specifies it.
 *
 * A pure decoder over memory. Whoever may connect may claim any address: only
 * listen with it where nobody but the proxy gets through.
 */
#ifndef BOP_PROXY_PROTOCOL_H
#define BOP_PROXY_PROTOCOL_H

#include <bop/address.h>
#include <bop/base.h>
#include <bop/slice.h>

enum bop_proxy_family {
    BOP_PROXY_UNSPEC = 0, /* Not told: UNKNOWN, LOCAL, or a family of the future. */
    BOP_PROXY_INET,       /* IPv4 or IPv6: see source and destination. */
    BOP_PROXY_UNIX,       /* See source_path and destination_path. */
};

/* A header of version 2 may be 64 KiB; more than this is refused. */
#define BOP_PROXY_BYTES_MAX 4096

struct bop_proxy_header {
    unsigned version; /* 1 or 2. */
    bool is_local;    /* The proxy speaks for itself (a health check): use the connection's own. */
    bool is_datagram; /* UDP or a Unix datagram socket. */
    enum bop_proxy_family family;
    struct bop_address source;         /* Of the client. */
    struct bop_address destination;    /* What the client connected to. */
    struct bop_slice source_path;      /* BOP_PROXY_UNIX: up to its first NUL. */
    struct bop_slice destination_path; /* The same. */
    struct bop_slice tlvs;             /* Version 2: for bop_proxy_tlv_next(). */
    size_t size;                       /* Of the header: what comes after it is the client's. */
};

/* Types of TLVs that the specification names. */
enum {
    BOP_PROXY_TLV_ALPN = 0x01,
    BOP_PROXY_TLV_AUTHORITY = 0x02, /* The name of SNI. */
    BOP_PROXY_TLV_CRC32C = 0x03,    /* Checked by the decoder. */
    BOP_PROXY_TLV_NOOP = 0x04,
    BOP_PROXY_TLV_UNIQUE_ID = 0x05,
    BOP_PROXY_TLV_SSL = 0x20,
    BOP_PROXY_TLV_NETNS = 0x30,
};

/**
 * Decode the header in front of bytes. Returns 0; BOP_ETRUNCATED when more must come (and what is
 * there may be its begin: anything else is refused by its first byte that differs);
 * BOP_EMALFORMED; BOP_ETOOBIG above BOP_PROXY_BYTES_MAX; BOP_ECORRUPT for a wrong checksum.
 */
BOP_API BOP_MUST_USE int bop_proxy_parse(struct bop_slice bytes,
                                         struct bop_proxy_header *out_header);

/** The next TLV. Begin with the header's tlvs, which are known to be whole; false at the end. */
BOP_API BOP_MUST_USE bool bop_proxy_tlv_next(struct bop_slice *in_out_rest, uint8_t *out_type,
                                             struct bop_slice *out_value);

#endif
