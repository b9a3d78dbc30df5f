/*
 * Shared by status.c and health.c.
 */
#ifndef BOP_CLUSTER_HTTP_STATUS_H
#define BOP_CLUSTER_HTTP_STATUS_H

#include <stdio.h>
#include <stdlib.h>

#include "http.h"

/** Slices are borrowed until the next call. */
void bop__http_status(struct http_api *api, struct bop_status_response *out);

/** "leader", ... Never NULL. */
const char *bop__http_state_name(uint8_t state);

#endif
