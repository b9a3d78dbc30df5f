/*
 * The API's description, docs/openapi.json, which the build puts into the library.
 */
#include "http.h"

void bop__http_serve_openapi(struct http_request *request)
{
    request->answer.status = 200;
    request->answer.type = "application/json";
    request->answer.content = bop_slice(bop__openapi_json, bop__openapi_json_size);
    bop__http_send(request);
}
