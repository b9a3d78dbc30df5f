/*
 * A server in one call, made of what any program could call itself.
 */
#include <bop/http.h>

int bop_http_serve(uint16_t port, const char *pattern, bop_http_handler_fn handler, void *user)
{
    struct bop_http_server *server = NULL;
    struct bop_loop *loop;
    int rc = bop_loop_create(NULL, &loop);

    if (rc != 0) {
        return rc;
    }
    rc = bop_http_server_create(loop, NULL, &server);
    if (rc == 0) {
        rc = bop_http_route(server, NULL, pattern, handler, user);
    }
    if (rc == 0) {
        rc = bop_http_listen(server, &(struct bop_http_listen_options){.port = port}, NULL, NULL);
    }
    if (rc == 0) {
        rc = bop_loop_run(loop);
    }
    bop_http_server_destroy(server);
    bop_loop_destroy(loop);
    return rc;
}
