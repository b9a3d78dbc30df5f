/*
 * Frames and what a decoder must make of them (see frame_fixture.h for the words).
 *
 * fails_at: how many bytes may be needed to see the error, at a client; at a server the frames'
 * keys come on top (fails_at_keys bytes). 0: not looked at.
 */
struct frame_case {
    const char *name;
    struct wire_frame frames[12];
    const char *expected;
    size_t fails_at;
    size_t fails_at_keys;
    uint64_t max;
    bool deflate;
};

static const struct frame_case frame_cases[] = {
    /* ---- 5.2, 5.6: data frames ---- */
    {"an empty text", {{TEXT("")}, END}, "T()"},
    {"a text", {{TEXT("Hello")}, END}, "T(Hello)"},
    {"a binary", {{FRAME(0x82, "\x00\xff\x80")}, END}, "B(\\00\\ff\\80)"},
    {"an empty binary", {{FRAME(0x82, "")}, END}, "B()"},
};
