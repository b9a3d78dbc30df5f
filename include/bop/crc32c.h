/*
 * CRC-32C (Castagnoli), the checksum of everything we put on disk.
 *
 * Uses the processor's instruction where there is one (SSE4.2, chosen at run
 * time), else a table. Both are public so that tests can compare them.
 * RFC 3720 appendix B.4 has the test vectors.
 */
#ifndef BOP_CRC32C_H
#define BOP_CRC32C_H

#include <bop/base.h>

/** The checksum of data, going on from crc (0 to begin). Any thread. */
BOP_API uint32_t bop_crc32c(uint32_t crc, const void *data, size_t size);

/** The same by table, on any machine. */
BOP_API uint32_t bop_crc32c_table(uint32_t crc, const void *data, size_t size);

/** True if bop_crc32c() uses the processor's instruction. */
BOP_API bool bop_crc32c_is_hardware(void);

#endif
