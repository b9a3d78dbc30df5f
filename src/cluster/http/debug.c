/*
 * /debug: the heap profile, and how much is logged, at run time. The state as JSON
 * is in status.c.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include <bop/heap_profile.h>
#include <bop/log.h>

#include "http.h"

/* ---- Heap profile ---- */

static void send_running(struct http_request *request)
{
    struct http_json json = bop__http_json(&request->answer.text);

    bop__json_open(&json, NULL, '{');
    bop__json_bool(&json, "running", bop_heap_profile_running());
    bop__json_close(&json, '}');
    bop__http_send_text(request, "application/json", json.code);
}

void bop__http_serve_profile_start(struct http_request *request)
{
    uint64_t sample_bytes = request->call.sample_bytes ? request->call.sample_bytes
                                                       : BOP_HEAP_PROFILE_SAMPLE_BYTES;
    int rc = bop_heap_profile_start(sample_bytes);

    /* One that runs is what was asked for. */
    if (rc < 0 && rc != BOP_EBUSY) {
        bop__http_fail_with(request, HTTP_FAILED, bop_strerror(rc));
        return;
    }
    bop_log(request->api->options.log, BOP_LOG_INFO, "http",
            "heap profile started sample_bytes=%llu", (unsigned long long)sample_bytes);
    send_running(request);
}

void bop__http_serve_profile_stop(struct http_request *request)
{
    bop_heap_profile_stop();
    bop_log(request->api->options.log, BOP_LOG_INFO, "http", "heap profile stopped");
    send_running(request);
}

/* A profile on its way; stream of its request. */
struct profile {
    char *text;
    size_t size;
    int rc;
};

static void profile_run(struct bop_task *task)
{
    struct http_request *request = BOP_CONTAINER_OF(task, struct http_request, task);
    struct profile *profile = request->stream;
    FILE *out = open_memstream(&profile->text, &profile->size);

    profile->rc = out ? bop_heap_profile_write(out) : BOP_ENOMEM;
    if (out && fclose(out) != 0 && profile->rc == 0) {
        profile->rc = BOP_ENOMEM;
    }
}

static void profile_done(struct bop_task *task)
{
    struct http_request *request = BOP_CONTAINER_OF(task, struct http_request, task);
    struct profile *profile = request->stream;
    int rc = profile->rc;

    if (request->over) {
        bop__http_idle(request);
        return;
    }
    request->busy = false;
    if (rc == 0) {
        rc = bop_buf_append(&request->answer.text, profile->text, profile->size);
    }
    bop__http_send_text(request, "application/octet-stream", rc);
}

static void profile_end(struct http_request *request)
{
    struct profile *profile = request->stream;

    free(profile->text);
    bop_free(request->api->allocator, profile, sizeof(*profile));
}

/* Writing it takes milliseconds: not on the loop. */
void bop__http_serve_profile(struct http_request *request)
{
    struct profile *profile = bop_alloc_zeroed(request->api->allocator, sizeof(*profile));

    if (!profile) {
        bop__http_fail_with(request, HTTP_BUSY, "no memory for a profile");
        return;
    }
    request->stream = profile;
    request->stream_end = profile_end;
    request->busy = true;
    request->task = (struct bop_task){.run = profile_run, .done = profile_done};
    bop_executor_submit(request->api->backend.work_executor, &request->task);
}

/* ---- Log ---- */

static void send_level(struct http_request *request)
{
    struct http_json json = bop__http_json(&request->answer.text);
    struct bop_log *log = request->api->options.log;

    if (bop_log_level_get(log) > BOP_LOG_ERROR) {
        bop__http_fail_with(request, HTTP_NOT_FOUND, "this node has no log");
        return;
    }
    bop__json_open(&json, NULL, '{');
    bop__json_text(&json, "level", bop_slice_cstr(bop_log_level_name(bop_log_level_get(log))));
    bop__json_close(&json, '}');
    bop__http_send_text(request, "application/json", json.code);
}

void bop__http_serve_log(struct http_request *request)
{
    send_level(request);
}

/* {"level": "debug"} */
void bop__http_serve_log_set(struct http_request *request)
{
    json_t *object = json_loadb(request->body.size > 0 ? (const char *)request->body.data : "",
                                request->body.size, JSON_REJECT_DUPLICATES, NULL);
    const char *name = json_string_value(json_object_get(object, "level"));
    struct bop_log *log = request->api->options.log;
    enum bop_log_level level;
    bool good = name && json_object_size(object) == 1 && bop_log_level_parse(name, &level);

    json_decref(object);
    if (!good) {
        bop__http_fail_with(request, HTTP_BAD_REQUEST,
                            "write {\"level\": \"debug\"}, info, warn or error");
        return;
    }
    if (bop_log_level_get(log) <= BOP_LOG_ERROR) { /* The one to nowhere is everybody's. */
        bop_log_level_set(log, level);
    }
    bop_log(log, BOP_LOG_INFO, "http", "log level=%s", bop_log_level_name(level));
    send_level(request);
}
