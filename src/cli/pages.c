/* Scans and results as lines: pages.h. */
#include "pages.h"

#define PAGE_ENTRIES 1000

void pages_print_escaped(struct bop_slice bytes)
{
    bool text = bop_slice_is_utf8(bytes);

    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t byte = bytes.data[i];

        if (byte == '\n') {
            fputs("\\n", stdout);
        } else if (byte == '\t') {
            fputs("\\t", stdout);
        } else if (byte == '\\') {
            fputs("\\\\", stdout);
        } else if (byte < ' ' || byte == 0x7f || (byte >= 0x80 && !text)) {
            printf("\\x%02x", byte);
        } else {
            putchar(byte);
        }
    }
}

int pages_print_object(json_t *object)
{
    int rc = object ? json_dumpf(object, stdout, JSON_COMPACT) : -1;

    json_decref(object);
    putchar('\n');
    return rc < 0 ? cli_complain(CLI_FAILED, "cannot write the output") : CLI_OK;
}

/* ---- Scans ---- */

struct scan {
    const struct cli_args *args;
    const char *doing;
    pages_fn print;
    struct link link;
    struct bop_operation operation;
    struct bop_buf buf;
    struct bop_buf cursor;
    uint64_t left;
    struct bop_client_view view; /* id 0: none; the pages are of whatever there is. */
};

/* All pages are of one revision, if there is more than one. */
static int open_view(struct scan *scan)
{
    int rc;

    if (scan->args->stale || scan->left <= PAGE_ENTRIES) {
        return CLI_OK;
    }
    rc = link_view_open(&scan->link, &scan->view);
    return rc < 0 ? link_complain(&scan->link, rc, "%s", scan->doing) : CLI_OK;
}

/* Who reads slowly, as a person does, is better served with what is there now than not at all. */
static int call(struct scan *scan, struct bop_result *page)
{
    int rc = link_view_call(&scan->link, scan->view.id ? &scan->view : NULL, &scan->operation,
                            &scan->buf, page);

    if (rc == BOP_ENOVIEW) {
        fprintf(stderr,
                "bop: %s: not read for long, or a server was lost: the rest is as it is now\n",
                scan->doing);
        scan->view.id = 0;
        rc = link_call(&scan->link, &scan->operation, &scan->buf, page);
    }
    return rc;
}

/* The next page, behind which the cursor moves on. */
static int scan_page(struct scan *scan)
{
    struct bop_scan_entry entry;
    struct bop_result page;
    int exit_code = CLI_OK;
    int rc;

    scan->operation.cursor = bop_buf_slice(&scan->cursor);
    scan->operation.limit = (uint32_t)bop_min_u64(scan->left, PAGE_ENTRIES);
    rc = call(scan, &page);
    if (rc < 0) {
        return link_complain(&scan->link, rc, "%s", scan->doing);
    }
    while (exit_code == CLI_OK && scan->left > 0 && bop_scan_next(&page.entries, &entry)) {
        exit_code = scan->print(scan->args, &entry);
        scan->left--;
    }
    bop_buf_clear(&scan->cursor);
    if (bop_buf_append(&scan->cursor, page.cursor.data, page.cursor.size) < 0) {
        return cli_complain(CLI_FAILED, "%s: out of memory", scan->doing);
    }
    return ferror(stdout) ? CLI_FAILED : exit_code;
}

int pages_print(const struct cli_args *args, const struct bop_operation *operation,
                const char *doing, pages_fn print)
{
    /* To go over to the leader would end the view. */
    struct link_options options = {.args = args, .timeout_ms = CLI_TIMEOUT_MS, .pin = true};
    struct scan scan = {.args = args,
                        .doing = doing,
                        .print = print,
                        .operation = *operation,
                        .left = args->limit ? args->limit : UINT64_MAX};
    int exit_code;

    bop_buf_init(&scan.buf, NULL, 0);
    bop_buf_init(&scan.cursor, NULL, 0);
    exit_code = link_open(&options, &scan.link);
    if (exit_code == CLI_OK) {
        exit_code = open_view(&scan);
    }
    while (exit_code == CLI_OK && scan.left > 0) {
        exit_code = scan_page(&scan);
        if (scan.cursor.size == 0) {
            break;
        }
    }
    link_close(&scan.link);
    bop_buf_deinit(&scan.buf);
    bop_buf_deinit(&scan.cursor);
    return cli_finish_output(exit_code);
}

/* ---- One request ---- */

int pages_one(const struct cli_args *args, const struct bop_operation *operation, const char *doing,
              int also, one_fn print)
{
    struct link_options options = {.args = args, .timeout_ms = CLI_TIMEOUT_MS, .pin = args->stale};
    struct bop_result result;
    struct bop_buf buf;
    struct link link;
    int exit_code, rc;

    exit_code = link_open(&options, &link);
    if (exit_code == CLI_OK) {
        bop_buf_init(&buf, NULL, 0);
        rc = link_call(&link, operation, &buf, &result);
        exit_code = rc == 0 || (also != 0 && rc == also) ? print(args, rc, &result)
                                                         : link_complain(&link, rc, "%s", doing);
        bop_buf_deinit(&buf);
    }
    link_close(&link);
    return cli_finish_output(exit_code);
}
