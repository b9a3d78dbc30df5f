/*
 * Words of protocols: compared without case, in the ASCII that they are in.
 */
#ifndef BOP_NET_TEXT_H
#define BOP_NET_TEXT_H

#include <string.h>
#include <strings.h>

#include <bop/slice.h>

/** Whether the text is this word. */
static inline bool bop__text_is(struct bop_slice text, const char *word)
{
    size_t size = strlen(word);

    return text.size == size &&
           (size == 0 || strncasecmp((const char *)text.data, word, size) == 0);
}

/** Whether the text begins with this word. */
static inline bool bop__text_begins(struct bop_slice text, const char *word)
{
    return text.size >= strlen(word) && bop__text_is(bop_slice(text.data, strlen(word)), word);
}

#endif
