/*
 * Listings: ListObjectsV2, page by page. A server may lie, by accident or not:
 * a key that is not under the prefix or not above the one before it ends the
 * walk, and so does a page that leads to itself; a walk always gets on.
 *
 * Where libcurl cannot sign a '+' in a query (s3_request.c), the server is asked for a shorter
 * prefix and the rest is left out here, and a page is asked for by the last key
 * instead of a token.
 */
#include "s3.h"

#include <stdio.h>

#define EMPTY_PAGES_MAX 100 /* Pages without a key, in a row: filtered ones are like that. */

struct walk {
    struct s3 *s3;
    const char *prefix;                 /* With the store's own. */
    char asked[BOP_OBJECT_KEY_MAX + 1]; /* Of it, what the server is asked for. */
    int (*fn)(void *user, const char *key, const struct bop_object_info *info);
    void *user;
    int result; /* Of fn. */
    char last[BOP_OBJECT_KEY_MAX + 1];
};

static int count_only(BOP_UNUSED void *user, BOP_UNUSED const char *key,
                      BOP_UNUSED const struct bop_object_info *info)
{
    return 0;
}

/* A page is read once to see that it is whole, before anything of it is handed out: so it can be
 * asked for again. */
static int judge_page(struct s3 *s3, struct s3_request *request, struct bop_error *err)
{
    struct s3_page *page = request->user;
    int rc;

    page->fn = count_only;
    rc = bop__s3_xml_page(s3->allocator, bop_buf_slice(&request->response.body), page);
    if (rc == BOP_ENOMEM) {
        return bop__s3_fail(s3, request, rc, err, "%s", bop_strerror(rc));
    }
    if (rc != 0 || (page->truncated && !page->token[0])) {
        return bop__s3_fail(s3, request, BOP_ECORRUPT, err, "the listing cannot be read");
    }
    return 0;
}

static int on_key(void *user, const char *key, const struct bop_object_info *info)
{
    struct walk *walk = user;

    if (strncmp(key, walk->asked, strlen(walk->asked)) != 0 || strcmp(key, walk->last) <= 0) {
        return BOP_ECORRUPT;
    }
    snprintf(walk->last, sizeof(walk->last), "%s", key);
    if (strncmp(key, walk->prefix, strlen(walk->prefix)) != 0) {
        return 0;
    }
    key += strlen(walk->s3->prefix);
    /* The prefix itself, as a folder's mark, is no key of ours. */
    walk->result = key[0] ? walk->fn(walk->user, key, info) : 0;
    return walk->result;
}

static int list_page(struct walk *walk, struct s3_page *page, const char *token,
                     struct bop_error *err)
{
    struct s3 *s3 = walk->s3;
    struct s3_request request = {
        .verb = "list", .method = S3_GET, .judge = judge_page, .user = page};
    bool by_key = token[0] && !bop__s3_query_signable(s3, token);
    int rc;

    if (token[0] && !by_key) {
        request.params[request.param_count++] = (struct s3_param){"continuation-token", token};
    }
    request.params[request.param_count++] = (struct s3_param){"encoding-type", "url"};
    request.params[request.param_count++] = (struct s3_param){"list-type", "2"};
    request.params[request.param_count++] = (struct s3_param){"prefix", walk->asked};
    if (by_key) {
        /* The walk changes its last key while the page is read, not before. */
        request.params[request.param_count++] = (struct s3_param){"start-after", walk->last};
    }
    rc = bop__s3_run(s3, &request, err);
    if (rc == 0) {
        page->fn = on_key;
        page->user = walk;
        rc = bop__s3_xml_page(s3->allocator, bop_buf_slice(&request.response.body), page);
        if (walk->result != 0) {
            rc = walk->result;
        } else if (rc == BOP_ENOMEM) {
            bop__s3_fail(s3, &request, rc, err, "%s", bop_strerror(rc));
        } else if (rc != 0) {
            rc = bop__s3_fail(s3, &request, BOP_ECORRUPT, err,
                              "the listing has keys out of order or of another prefix");
        }
    }
    bop__s3_done(&request);
    return rc;
}

static int list_all(struct walk *walk, struct s3_page *page, struct bop_error *err)
{
    struct s3_request named = {.verb = "list"};
    char token[S3_XML_TEXT_MAX] = "";
    unsigned empty = 0;
    int rc;

    do {
        rc = list_page(walk, page, token, err);
        if (rc != 0) {
            return rc;
        }
        empty = page->keys > 0 ? 0 : empty + 1;
        if (page->truncated && (empty > EMPTY_PAGES_MAX || strcmp(page->token, token) == 0)) {
            return bop__s3_fail(walk->s3, &named, BOP_ECORRUPT, err, "the listing does not end");
        }
        snprintf(token, sizeof(token), "%s", page->token);
    } while (page->truncated);
    return 0;
}

int bop__s3_list(struct bop_object_store *self, const char *prefix,
                 int (*fn)(void *user, const char *key, const struct bop_object_info *info),
                 void *user, struct bop_error *err)
{
    struct s3 *s3 = bop__s3_of(self);
    struct walk walk = {.s3 = s3, .fn = fn, .user = user};
    char whole[BOP_OBJECT_KEY_MAX + 1];
    struct s3_page *page;
    int rc;

    prefix = prefix ? prefix : "";
    if ((size_t)snprintf(whole, sizeof(whole), "%s%s", s3->prefix, prefix) >= sizeof(whole)) {
        return bop_error_say(err, BOP_EINVAL, "list: the prefix is longer than a key");
    }
    page = bop_alloc_zeroed(s3->allocator, sizeof(*page));
    if (!page) {
        return bop_error_set(err, BOP_ENOMEM, "list");
    }
    walk.prefix = whole;
    snprintf(walk.asked, sizeof(walk.asked), "%.*s",
             (int)(bop__s3_query_signable(s3, whole) ? strlen(whole) : strcspn(whole, "+")), whole);
    rc = list_all(&walk, page, err);
    bop_free(s3->allocator, page, sizeof(*page));
    return rc;
}
