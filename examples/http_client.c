/*
 * Fetches URLs and prints what they answer:
 *
 *      http-get [--method M] [--header "Name: value"]... [--data TEXT] [--follow]
 *               [--insecure] [--head] URL...
 *
 * Bodies go to standard output as they come, the rest to standard error. The exit
 * status is 0 if all answers came whole with a status below 400, else 1.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/http_client.h>

#define HEADERS_MAX 32

static struct bop_loop *loop;
static unsigned calls, failures;
static bool print_head;

static void on_head(struct bop_http_call *call, void *user, const struct bop_http_head *head)
{
    fprintf(stderr, "HTTP/1.%u %u %.*s\n", head->minor, head->status, (int)head->reason.size,
            (const char *)head->reason.data);
    for (unsigned i = 0; print_head && i < head->header_count; i++) {
        const struct bop_http_header *header = &head->headers[i];

        fprintf(stderr, "%.*s: %.*s\n", (int)header->name.size, (const char *)header->name.data,
                (int)header->value.size, (const char *)header->value.data);
    }
}

static void on_body(struct bop_http_call *call, void *user, struct bop_slice bytes)
{
    if (fwrite(bytes.data, 1, bytes.size, stdout) != bytes.size) {
        bop_http_call_cancel(call); /* Nobody reads any more. */
    }
}

static void on_done(struct bop_http_call *call, void *user, const struct bop_http_result *result)
{
    if (result->code != 0) {
        fprintf(stderr, "http-get: %s: %s\n", result->url, result->message);
    }
    failures += result->code != 0 || result->status >= 400;
    if (--calls == 0) {
        bop_loop_stop(loop);
    }
}

static struct bop_http_header parse_header(char *text)
{
    char *colon = strchr(text, ':');

    if (colon == NULL) {
        fprintf(stderr, "http-get: --header wants \"Name: value\", not \"%s\"\n", text);
        exit(2);
    }
    *colon++ = '\0';
    return (struct bop_http_header){bop_slice_cstr(text),
                                    bop_slice_cstr(colon + strspn(colon, " "))};
}

static bool insecure;

static struct bop_http_request parse_options(int argc, char **argv)
{
    static struct bop_http_header headers[HEADERS_MAX];
    static const struct option known[] = {
        {"method", required_argument, NULL, 'm'},
        {"header", required_argument, NULL, 'h'},
        {"data", required_argument, NULL, 'd'},
        {"follow", no_argument, NULL, 'f'},
        {"insecure", no_argument, NULL, 'i'},
        {"head", no_argument, NULL, 'H'},
        {NULL, 0, NULL, 0},
    };
    struct bop_http_request request = {
        .headers = headers, .on_head = on_head, .on_body = on_body, .on_done = on_done};
    int c;

    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c == 'm') {
            request.method = optarg;
        } else if (c == 'h' && request.header_count < HEADERS_MAX) {
            headers[request.header_count++] = parse_header(optarg);
        } else if (c == 'd') {
            request.body = bop_slice_cstr(optarg);
            request.method = request.method != NULL ? request.method : "POST";
        } else if (c == 'f') {
            request.redirects_max = 10;
        } else if (c == 'i') {
            insecure = true;
        } else if (c == 'H') {
            print_head = true;
        } else {
            exit(2);
        }
    }
    if (optind == argc) {
        fprintf(stderr, "usage: http-get [options] URL...\n");
        exit(2);
    }
    return request;
}

int main(int argc, char **argv)
{
    struct bop_http_request request = parse_options(argc, argv);
    struct bop_http_client_options options = {.user_agent = "http-get"};
    struct bop_tls_options trust_all = {.verify = BOP_TLS_VERIFY_NONE};
    struct bop_http_client *client;
    struct bop_error err = {0};

    if ((insecure && bop_tls_create(&trust_all, &options.tls, &err) != 0) ||
        bop_loop_create(NULL, &loop) != 0 || bop_http_client_create(loop, &options, &client) != 0) {
        fprintf(stderr, "http-get: cannot begin: %s\n", err.message);
        return 1;
    }
    for (int i = optind; i < argc; i++) {
        request.url = argv[i];
        if (bop_http_fetch(client, &request, NULL, &err) != 0) {
            fprintf(stderr, "http-get: %s\n", err.message);
            return 2;
        }
        calls++;
    }
    if (bop_loop_run(loop) != 0) {
        failures++;
    }
    bop_http_client_destroy(client);
    bop_loop_destroy(loop);
    bop_tls_destroy(options.tls);
    return failures > 0;
}
