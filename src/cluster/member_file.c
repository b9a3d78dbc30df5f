/*
 * The file `member`.
 */
#include "member_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <bop/slice.h>

#define FILE_MAX 256

static const char *const state_names[] = {
    [MEMBER_NO] = "no",
    [MEMBER_YES] = "yes",
    [MEMBER_REMOVED] = "removed",
};

static void format(const struct member_file *file, char out_text[FILE_MAX])
{
    snprintf(out_text, FILE_MAX, "incarnation %016" PRIx64 "\nmember %s\n", file->incarnation,
             state_names[file->state]);
}

/* Takes exactly what format() makes. */
static int parse(struct bop_slice bytes, struct member_file *out)
{
    char text[FILE_MAX] = "", expected[FILE_MAX];
    struct member_file file;

    if (bytes.size >= FILE_MAX) {
        return BOP_ECORRUPT;
    }
    if (bytes.size > 0) {
        memcpy(text, bytes.data, bytes.size);
    }
    for (size_t n = 0; n < BOP_COUNT_OF(state_names); n++) {
        file.state = (enum member_state)n;
        if (sscanf(text, "incarnation %16" SCNx64, &file.incarnation) != 1 ||
            file.incarnation == 0) {
            return BOP_ECORRUPT;
        }
        format(&file, expected);
        if (strlen(expected) == bytes.size && memcmp(expected, text, bytes.size) == 0) {
            *out = file;
            return 0;
        }
    }
    return BOP_ECORRUPT;
}

int bop__member_file_open(struct member_file *file, struct bop_fs *fs, const char *path,
                          uint64_t incarnation, enum member_state state, struct bop_error *err)
{
    struct bop_buf buf;
    int rc;

    bop_buf_init(&buf, NULL, 0);
    rc = bop_fs_read_file(fs, path, FILE_MAX, &buf);
    if (rc == -ENOENT) {
        file->incarnation = incarnation;
        rc = bop__member_file_save(file, fs, path, state, err);
    } else if (rc < 0) {
        bop_error_set(err, rc, "read %s", path);
    } else {
        rc = parse(bop_buf_slice(&buf), file);
        if (rc < 0) {
            bop_error_say(err, rc,
                          "%s is damaged: put it back as it was, or run `bop cluster replace` for "
                          "this node and start it with --join and an empty directory",
                          path);
        }
    }
    bop_buf_deinit(&buf);
    return rc;
}

int bop__member_file_save(struct member_file *file, struct bop_fs *fs, const char *path,
                          enum member_state state, struct bop_error *err)
{
    struct member_file next = {.incarnation = file->incarnation, .state = state};
    char text[FILE_MAX];
    int rc;

    format(&next, text);
    rc = bop_fs_write_file(fs, path, bop_slice_cstr(text), err);
    if (rc == 0) {
        *file = next;
    }
    return rc;
}
