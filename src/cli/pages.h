/*
 * What commands share that print what a cluster holds: scans, page after page, and bytes
 * and objects as lines.
 */
#ifndef BOP_CLI_PAGES_H
#define BOP_CLI_PAGES_H

#include <jansson.h>

#include "link.h"

/** Print an entry. Returns an exit code. */
typedef int (*pages_fn)(const struct cli_args *args, const struct bop_scan_entry *entry);

/** Connect, run a scan to its end or --limit, print each entry, and end. `doing` is for messages.
 * Returns an exit code. */
int pages_print(const struct cli_args *args, const struct bop_operation *operation,
                const char *doing, pages_fn print);

/** Connect, run one operation, end. Returns the exit code of what print made of the result; what
 * failed was said. codes for which print is called: 0, and those in also (0: none). */
typedef int (*one_fn)(const struct cli_args *args, int code, const struct bop_result *result);
int pages_one(const struct cli_args *args, const struct bop_operation *operation, const char *doing,
              int also, one_fn print);

/** Bytes for people: what would break the line, or is not text, as an escape. */
void pages_print_escaped(struct bop_slice bytes);

/** Print an object of one line and drop it. NULL stands for no memory. Returns an exit code. */
int pages_print_object(json_t *object);

#endif
