/*
 * The file of tokens: what it may say, and what is said about it when it is wrong.
 */
#include "tap.h"

#include "tokens.h"

#define HASH "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static const struct bop_node_token *read_list(const char *text, struct tokens **out_tokens,
                                              size_t *out_count)
{
    struct bop_error err = {0};

    REQUIRE_EQ(tokens_parse(bop_slice_cstr(text), "t.yaml", out_tokens, &err), 0);
    return tokens_list(*out_tokens, out_count);
}

TEST(tokens, are_read_with_their_rights)
{
    static const char text[] = "# a comment\n"
                               "- name: billing\n"
                               "  sha256: " HASH "\n"
                               "  rights:\n"
                               "    - {namespace: billing, right: write}\n"
                               "    - namespace: \"\"\n"
                               "      right: read\n"
                               "- name: idle\n"
                               "  certificate: idle.example.org\n"
                               "- name: ops\n"
                               "  certificate: ops.example.org\n"
                               "  rights: [{namespace: '*', right: admin}]\n";
    struct tokens *tokens;
    size_t count;
    const struct bop_node_token *list = read_list(text, &tokens, &count);

    REQUIRE_EQ(count, 3);
    CHECK_STR_EQ(list[0].name, "billing");
    REQUIRE(list[0].sha256 != NULL);
    CHECK_EQ(list[0].sha256[0], 0x00);
    CHECK_EQ(list[0].sha256[15], 0xff);
    CHECK_EQ(list[0].sha256[31], 0xff);
    CHECK(list[0].certificate == NULL);
    REQUIRE_EQ(list[0].grant_count, 2);
    CHECK_STR_EQ(list[0].grants[0].name_space, "billing");
    CHECK_EQ(list[0].grants[0].right, BOP_RIGHT_WRITE);
    CHECK_STR_EQ(list[0].grants[1].name_space, "");
    CHECK_EQ(list[0].grants[1].right, BOP_RIGHT_READ);
    CHECK_EQ(list[1].grant_count, 0);
    CHECK(list[1].sha256 == NULL);
    CHECK_STR_EQ(list[2].certificate, "ops.example.org");
    REQUIRE_EQ(list[2].grant_count, 1);
    CHECK_STR_EQ(list[2].grants[0].name_space, "*");
    CHECK_EQ(list[2].grants[0].right, BOP_RIGHT_ADMIN);
    tokens_free(tokens);
}

static void refused(const char *text, const char *why)
{
    struct tokens *tokens = NULL;
    struct bop_error err = {0};

    CHECK_EQ(tokens_parse(bop_slice_cstr(text), "t.yaml", &tokens, &err), BOP_ECONFIG);
    CHECK_STR_EQ(err.message, why);
    CHECK(tokens == NULL);
}

#define MAKES "`bop token new` makes a token and its hash"

TEST(tokens, say_what_is_wrong_and_where)
{
    refused("", "t.yaml: no token in it, so nobody could do anything; `bop token new` makes "
                "one");
    refused("[]", "t.yaml: no token in it, so nobody could do anything; `bop token new` makes "
                  "one");
    refused("name: x", "t.yaml:1: not a list of tokens; each begins with - name: NAME");
    refused("- x", "t.yaml:1: not a token; write name, sha256 and rights of each");
    refused("- [", "t.yaml:2: not YAML: did not find expected node content");
    refused("\n- name: x\n", "t.yaml:2: token x has no sha256; " MAKES);
    refused("- sha256: " HASH, "t.yaml:1: a token without a name; add name: NAME");
    refused("- name: x\n  sha256: 00", "t.yaml:2: sha256: not 64 hex digits; " MAKES);
    refused("- name: x\n  sha256: x" HASH, "t.yaml:2: sha256: not 64 hex digits; " MAKES);
    refused("- name: ''", "t.yaml:1: name: empty");
    refused("- name: [x]", "t.yaml:1: name: not a text");
    refused("- name: \"a\\nb\"", "t.yaml:1: name: not a text");
    refused("- nmae: x", "t.yaml:1: nmae: no such key; a token has name, sha256, certificate and "
                         "rights");
    refused("- [x]: y", "t.yaml:1: not a token: a key is no text");
}

#define TOKEN "- name: x\n  sha256: " HASH "\n  rights:"

TEST(tokens, say_what_is_wrong_with_rights)
{
    refused(TOKEN " all",
            "t.yaml:3: not a list of rights; write each as - {namespace: NAME, right: "
            "read}");
    refused(TOKEN "\n  - read", "t.yaml:4: not a right; write each as - {namespace: NAME, right: "
                                "read|write|admin}");
    refused(TOKEN " [{namespace: a}]",
            "t.yaml:3: a right lacks its right; write {namespace: NAME, right: read}");
    refused(TOKEN " [{right: read}]",
            "t.yaml:3: a right lacks its namespace; write {namespace: NAME, right: read}");
    refused(TOKEN " [{namespace: a, right: rw}]", "t.yaml:3: right rw: write read, write or admin");
    refused(TOKEN " [{namespace: a/b, right: read}]",
            "t.yaml:3: namespace a/b: has a '/'; it is what names have before their first one");
    refused(TOKEN " [{namespace: [], right: read}]", "t.yaml:3: namespace: not a text");
    refused(
        TOKEN " [{namespace: a, right: admin}]",
        "t.yaml:3: namespace a: admin is about the cluster, so it is given on \"*\" only; write "
        "allows everything in a namespace");
    refused(TOKEN " [{name: a}]", "t.yaml:3: name: no such key; a right has namespace and right");
}

TEST(tokens, are_bounded)
{
    struct bop_buf text;
    struct tokens *tokens = NULL;
    struct bop_error err = {0};

    bop_buf_init(&text, NULL, 0);
    REQUIRE_EQ(bop_buf_append(&text, TOKEN, strlen(TOKEN)), 0);
    for (int n = 0; n <= TOKEN_RIGHTS_MAX; n++) {
        REQUIRE_EQ(bop_buf_append(&text, "\n  - {}", 7), 0);
    }
    CHECK_EQ(tokens_parse(bop_buf_slice(&text), "t.yaml", &tokens, &err), BOP_ECONFIG);
    CHECK_STR_HAS(err.message, "more than 256 rights of one token");
    bop_buf_clear(&text);
    for (int n = 0; n <= TOKENS_MAX; n++) {
        REQUIRE_EQ(bop_buf_append(&text, "- {}\n", 5), 0);
    }
    CHECK_EQ(tokens_parse(bop_buf_slice(&text), "t.yaml", &tokens, &err), BOP_ECONFIG);
    CHECK_STR_HAS(err.message, "more than 4096 tokens");
    bop_buf_deinit(&text);
}

TEST(tokens, name_the_file_that_cannot_be_read)
{
    struct tokens *tokens = NULL;
    struct bop_error err = {0};

    CHECK_EQ(tokens_read("/nonexistent/tokens.yaml", &tokens, &err), -ENOENT);
    CHECK_STR_HAS(err.message, "tokens /nonexistent/tokens.yaml: cannot read it: ");
}
