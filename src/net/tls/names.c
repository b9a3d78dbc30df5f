/*
 * Names of identities, sorted, so that a handshake costs two searches by halves
 * at most: its name, and its name with the first label replaced by '*'.
 */
#include <string.h>

#include "context.h"

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

bool bop__tls_name_normalize(const char *name, bool wildcard_allowed,
                             char out_name[BOP__TLS_NAME_MAX + 1])
{
    size_t size = strlen(name);
    size_t i = 0;

    if (size > 1 && name[size - 1] == '.') {
        size--;
    }
    if (size == 0 || size > BOP__TLS_NAME_MAX) {
        return false;
    }
    if (wildcard_allowed && size > 2 && name[0] == '*' && name[1] == '.') {
        out_name[i++] = '*';
    }
    for (; i < size; i++) {
        char c = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + ('a' - 'A')) : name[i];

        if (!is_name_char(c) || (c == '.' && (i == 0 || out_name[i - 1] == '.'))) {
            return false; /* No label is empty. */
        }
        out_name[i] = c;
    }
    out_name[size] = '\0';
    return true;
}

bool bop__tls_set_find(const struct bop__tls_set *set, const char *name, size_t *out_index)
{
    size_t low = 0, high = set->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(set->names[middle].name, name);

        if (order == 0) {
            *out_index = middle;
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *out_index = low;
    return false;
}

SSL_CTX *bop__tls_set_match(const struct bop__tls_set *set, const char *name)
{
    char wildcard[BOP__TLS_NAME_MAX + 2];
    const char *dot = strchr(name, '.');
    size_t index;

    if (bop__tls_set_find(set, name, &index)) {
        return set->names[index].ctx;
    }
    if (dot == NULL || dot == name) {
        return NULL;
    }
    wildcard[0] = '*';
    memcpy(wildcard + 1, dot, strlen(dot) + 1); /* At most as long as the name, which is checked. */
    return bop__tls_set_find(set, wildcard, &index) ? set->names[index].ctx : NULL;
}

static void deinit_name(struct bop__tls_name *name)
{
    OPENSSL_free(name->name);
    bop__tls_source_deinit(&name->source);
    SSL_CTX_free(name->ctx);
}

int bop__tls_set_put(struct bop__tls_set *set, const struct bop__tls_name *name)
{
    struct bop__tls_name *grown;
    size_t index;

    if (bop__tls_set_find(set, name->name, &index)) {
        deinit_name(&set->names[index]);
        set->names[index] = *name;
        return 0;
    }
    /* Names are added seldom, and so a block that is always full will do. */
    grown = OPENSSL_realloc(set->names, (set->count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return BOP_ENOMEM;
    }
    set->names = grown;
    memmove(&grown[index + 1], &grown[index], (set->count - index) * sizeof(*grown));
    grown[index] = *name;
    set->count++;
    return 0;
}

void bop__tls_set_remove(struct bop__tls_set *set, const char *name)
{
    size_t index;

    if (!bop__tls_set_find(set, name, &index)) {
        return;
    }
    deinit_name(&set->names[index]);
    set->count--;
    memmove(&set->names[index], &set->names[index + 1], (set->count - index) * sizeof(*set->names));
}

void bop__tls_set_deinit(struct bop__tls_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        deinit_name(&set->names[i]);
    }
    OPENSSL_free(set->names);
    SSL_CTX_free(set->ctx);
    memset(set, 0, sizeof(*set));
}
