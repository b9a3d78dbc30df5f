/*
 * Frames and what a decoder must make of them (see frame_fixture.h for the words).
 *
 * fails_at: how many bytes of a server's frames are needed to see the error; of a client's, whose
 * frames have keys, fails_at_keys bytes more. 0: not looked at.
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

#define SIZED(first, size) (first), NULL, (size)

/* clang-format off */
static const struct frame_case frame_cases[] = {
    /* ---- 5.2, 5.6: data frames ---- */
    {"an empty text", {{TEXT("")}, END}, "T()"},
    {"a text", {{TEXT("Hello")}, END}, "T(Hello)"},
    {"a text of one byte", {{TEXT("x")}, END}, "T(x)"},
    {"a binary", {{FRAME(0x82, "\x00\xff\x80")}, END}, "B(\\00\\ff\\80)"},
    {"an empty binary", {{FRAME(0x82, "")}, END}, "B()"},
    {"two texts", {{TEXT("one")}, {TEXT("two")}, END}, "T(one) T(two)"},
    {"text, binary, text", {{TEXT("a")}, {FRAME(0x82, "b")}, {TEXT("c")}, END}, "T(a) B(b) T(c)"},
    {"eight small ones", {{TEXT("1")}, {TEXT("2")}, {TEXT("3")}, {TEXT("4")}, {TEXT("5")},
      {TEXT("6")}, {TEXT("7")}, {TEXT("8")}, END}, "T(1) T(2) T(3) T(4) T(5) T(6) T(7) T(8)"},
    {"empty ones", {{TEXT("")}, {FRAME(0x82, "")}, {TEXT("")}, END}, "T() B() T()"},
    {"text of 124 bytes", {{SIZED(0x81, 124)}, {TEXT("!")}, END}, "T(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) T(!)"},
    {"text of 125 bytes", {{SIZED(0x81, 125)}, {TEXT("!")}, END}, "T(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) T(!)"},
    {"text of 126 bytes", {{SIZED(0x81, 126)}, {TEXT("!")}, END}, "T(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) T(!)"},
    {"text of 127 bytes", {{SIZED(0x81, 127)}, {TEXT("!")}, END}, "T(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) T(!)"},
    {"text of 256 bytes", {{SIZED(0x81, 256)}, {TEXT("!")}, END}, "T(#256) T(!)"},
    {"text of 1,024 bytes", {{SIZED(0x81, 1024)}, {TEXT("!")}, END}, "T(#1024) T(!)"},
    {"text of 65,535 bytes", {{SIZED(0x81, 65535)}, {TEXT("!")}, END}, "T(#65535) T(!)"},
    {"text of 65,536 bytes", {{SIZED(0x81, 65536)}, {TEXT("!")}, END}, "T(#65536) T(!)"},
    {"binary of 65,535 bytes", {{SIZED(0x82, 65535)}, {TEXT("!")}, END}, "B(#65535) T(!)"},
    {"binary of 65,536 bytes", {{SIZED(0x82, 65536)}, {TEXT("!")}, END}, "B(#65536) T(!)"},
    {"binary of 70,001 bytes", {{SIZED(0x82, 70001)}, {TEXT("!")}, END}, "B(#70001) T(!)"},
    {"binary of every size of vectors", {{SIZED(0x82, 31)}, {SIZED(0x82, 32)}, {SIZED(0x82, 33)},
      {SIZED(0x82, 47)}, {SIZED(0x82, 48)}, {SIZED(0x82, 63)}, {SIZED(0x82, 64)},
      {SIZED(0x82, 201)}, END},
     "B(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) B(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) "
     "B(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) B(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) "
     "B(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) "
     "B(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) "
     "B(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) B(#201)"},

    /* ---- 5.1: masking ---- */
    {"mask: a text of the other role", {{TEXT("Hello"), WIRE_OTHER_ROLE}, END}, "!1002", 2, 0},
    {"mask: an empty text of the other role", {{TEXT(""), WIRE_OTHER_ROLE}, END}, "!1002", 2, 0},
    {"mask: a ping of the other role", {{FRAME(0x89, ""), WIRE_OTHER_ROLE}, END}, "!1002", 2, 0},
    {"mask: a close of the other role", {{FRAME(0x88, "\x03\xe8"), WIRE_OTHER_ROLE}, END}, "!1002", 2, 0},
    {"mask: a long one of the other role", {{SIZED(0x82, 300), WIRE_OTHER_ROLE}, END}, "!1002", 2, 0},
    {"mask: after a good one", {{TEXT("a")}, {TEXT("b"), WIRE_OTHER_ROLE}, END}, "T(a) !1002", 5, 4},
    {"mask: a continuation of the other role", {{FRAME(0x01, "a")}, {FRAME(0x80, "b"), WIRE_OTHER_ROLE}, END}, "!1002", 5, 4},

    /* ---- 5.2: lengths ---- */
    {"length: 16 bits for 0", {{FRAME(0x82, ""), WIRE_SIZE_16}, END}, "!1002", 4, 0},
    {"length: 16 bits for 5", {{TEXT("Hello"), WIRE_SIZE_16}, END}, "!1002", 4, 0},
    {"length: 16 bits for 125", {{SIZED(0x82, 125), WIRE_SIZE_16}, END}, "!1002", 4, 0},
    {"length: 16 bits for 126", {{SIZED(0x82, 201), WIRE_SIZE_16}, END}, "B(#201)"},
    {"length: 64 bits for 0", {{FRAME(0x82, ""), WIRE_SIZE_64}, END}, "!1002", 10, 0},
    {"length: 64 bits for 5", {{TEXT("Hello"), WIRE_SIZE_64}, END}, "!1002", 10, 0},
    {"length: 64 bits for 125", {{SIZED(0x82, 125), WIRE_SIZE_64}, END}, "!1002", 10, 0},
    {"length: 64 bits for 126", {{SIZED(0x82, 126), WIRE_SIZE_64}, END}, "!1002", 10, 0},
    {"length: 64 bits for 65,535", {{SIZED(0x82, 65535), WIRE_SIZE_64}, END}, "!1002", 10, 0},
    {"length: 64 bits for 65,536", {{SIZED(0x82, 65536), WIRE_SIZE_64}, END}, "B(#65536)"},
    {"length: the topmost bit", {{FRAME(0x82, ""), WIRE_SIZE_TOP}, END}, "!1002", 3, 0},
    {"length: the topmost bit and more", {{SIZED(0x82, 65536), WIRE_SIZE_TOP}, END}, "!1002", 3, 0},
    {"length: the topmost bit of a continuation", {{FRAME(0x02, "a")}, {FRAME(0x80, ""), WIRE_SIZE_TOP}, END}, "!1002", 6, 4},

    /* ---- 5.2: reserved bits ---- */
    {"rsv: 1 in a text", {{FRAME(0xc1, "Hello")}, END}, "!1002", 1, 0},
    {"rsv: 2 in a text", {{FRAME(0xa1, "Hello")}, END}, "!1002", 1, 0},
    {"rsv: 3 in a text", {{FRAME(0x91, "Hello")}, END}, "!1002", 1, 0},
    {"rsv: 1 and 2 in a text", {{FRAME(0xe1, "Hello")}, END}, "!1002", 1, 0},
    {"rsv: 1 and 3 in a binary", {{FRAME(0xd2, "Hello")}, END}, "!1002", 1, 0},
    {"rsv: 2 and 3 in a binary", {{FRAME(0xb2, "Hello")}, END}, "!1002", 1, 0},
    {"rsv: all in a text", {{FRAME(0xf1, "Hello")}, END}, "!1002", 1, 0},
    {"rsv: 1 in an empty text", {{FRAME(0xc1, "")}, END}, "!1002", 1, 0},
    {"rsv: 1 in a ping", {{FRAME(0xc9, "")}, END}, "!1002", 1, 0},
    {"rsv: 2 in a ping", {{FRAME(0xa9, "")}, END}, "!1002", 1, 0},
    {"rsv: 3 in a pong", {{FRAME(0x9a, "")}, END}, "!1002", 1, 0},
    {"rsv: 1 in a close", {{FRAME(0xc8, "")}, END}, "!1002", 1, 0},
    {"rsv: all in a close", {{FRAME(0xf8, "")}, END}, "!1002", 1, 0},
    {"rsv: after a good text", {{TEXT("a")}, {FRAME(0xa1, "b")}, {FRAME(0x89, "")}, END}, "T(a) !1002", 4, 4},
    {"rsv: in a continuation", {{FRAME(0x01, "a")}, {FRAME(0xc0, "b")}, END}, "!1002", 4, 4},
    {"rsv: of a fragment", {{FRAME(0x21, "a")}, {FRAME(0x80, "b")}, END}, "!1002", 1, 0},

    /* ---- RFC 7692, 6: RSV1 once permessage-deflate was agreed on ---- */
    {"rsv1: a compressed text", {{FRAME(0xc1, "\xf2\x48\xcd\xc9\xc9\x07")}, END}, "T(z:\\f2H\\cd\\c9\\c9\\07)", .deflate = true},
    {"rsv1: a compressed binary", {{FRAME(0xc2, "abc")}, END}, "B(z:abc)", .deflate = true},
    {"rsv1: a compressed one in fragments", {{FRAME(0x41, "\xff")}, {FRAME(0x00, "b")}, {FRAME(0x80, "\xff")}, END}, "T(z:\\ffb\\ff)", .deflate = true},
    {"rsv1: a plain text", {{TEXT("plain")}, END}, "T(plain)", .deflate = true},
    {"rsv1: compressed and plain in turn", {{FRAME(0xc1, "a")}, {TEXT("b")}, {FRAME(0xc2, "c")}, END}, "T(z:a) T(b) B(z:c)", .deflate = true},
    {"rsv1: a plain text is checked", {{FRAME(0xc1, "\xff")}, {TEXT("\xff")}, END}, "T(z:\\ff) !1007", 6, 8, .deflate = true},
    {"rsv1: on a last fragment", {{FRAME(0x41, "a")}, {FRAME(0xc0, "b")}, END}, "!1002", 4, 4, .deflate = true},
    {"rsv1: on a middle fragment", {{FRAME(0x41, "a")}, {FRAME(0x40, "b")}, END}, "!1002", 4, 4, .deflate = true},
    {"rsv1: on a fragment of a plain one", {{FRAME(0x01, "a")}, {FRAME(0xc0, "b")}, END}, "!1002", 4, 4, .deflate = true},
    {"rsv1: on a ping", {{FRAME(0xc9, "a")}, END}, "!1002", 1, 0, .deflate = true},
    {"rsv1: on a pong", {{FRAME(0xca, "")}, END}, "!1002", 1, 0, .deflate = true},
    {"rsv1: on a close", {{FRAME(0xc8, "")}, END}, "!1002", 1, 0, .deflate = true},
    {"rsv1: with rsv2", {{FRAME(0xe1, "a")}, END}, "!1002", 1, 0, .deflate = true},
    {"rsv1: with rsv3", {{FRAME(0xd1, "a")}, END}, "!1002", 1, 0, .deflate = true},
    {"rsv1: rsv2 alone", {{FRAME(0xa1, "a")}, END}, "!1002", 1, 0, .deflate = true},
    {"rsv1: a ping between fragments", {{FRAME(0x41, "a")}, {FRAME(0x89, "p")}, {FRAME(0x80, "b")}, END}, "P(p) T(z:ab)", .deflate = true},
    {"rsv1: an empty payload", {{FRAME(0xc1, "")}, END}, "T(z:)", .deflate = true},

    /* ---- 5.4: fragmentation ---- */
    {"fragments: two", {{FRAME(0x01, "Hel")}, {FRAME(0x80, "lo")}, END}, "T(Hello)"},
    {"fragments: three", {{FRAME(0x02, "a")}, {FRAME(0x00, "b")}, {FRAME(0x80, "c")}, END}, "B(abc)"},
    {"fragments: empty ones", {{FRAME(0x01, "")}, {FRAME(0x00, "")}, {FRAME(0x80, "")}, END}, "T()"},
    {"fragments: empty ones around", {{FRAME(0x01, "")}, {FRAME(0x00, "mid")}, {FRAME(0x80, "")}, END}, "T(mid)"},
    {"fragments: an empty end", {{FRAME(0x01, "a")}, {FRAME(0x80, "")}, END}, "T(a)"},
    {"fragments: long ones", {{SIZED(0x02, 300)}, {SIZED(0x00, 70000)}, {SIZED(0x80, 1)}, END}, "B(#70301)"},
    {"fragments: two messages of them", {{FRAME(0x01, "a")}, {FRAME(0x80, "b")}, {FRAME(0x02, "c")}, {FRAME(0x80, "d")}, END}, "T(ab) B(cd)"},
    {"fragments: a ping between", {{FRAME(0x01, "a")}, {FRAME(0x89, "ping")}, {FRAME(0x80, "b")}, END}, "P(ping) T(ab)"},
    {"fragments: pings and pongs between", {{FRAME(0x01, "a")}, {FRAME(0x89, "1")}, {FRAME(0x00, "b")}, {FRAME(0x8a, "2")}, {FRAME(0x89, "")}, {FRAME(0x80, "c")}, END}, "P(1) O(2) P() T(abc)"},
    {"fragments: a close between", {{FRAME(0x01, "a")}, {FRAME(0x88, "\x03\xe8")}, END}, "X(1000)"},
    {"fragments: a continuation of nothing", {{FRAME(0x80, "a")}, END}, "!1002", 1, 0},
    {"fragments: an empty continuation of nothing", {{FRAME(0x80, "")}, END}, "!1002", 1, 0},
    {"fragments: an unfinished continuation of nothing", {{FRAME(0x00, "a")}, END}, "!1002", 1, 0},
    {"fragments: a continuation after the end", {{FRAME(0x01, "a")}, {FRAME(0x80, "b")}, {FRAME(0x80, "c")}, END}, "T(ab) !1002", 7, 8},
    {"fragments: a continuation after a whole text", {{TEXT("a")}, {FRAME(0x00, "b")}, END}, "T(a) !1002", 4, 4},
    {"fragments: a continuation after a ping", {{FRAME(0x89, "")}, {FRAME(0x80, "b")}, END}, "P() !1002", 3, 4},
    {"fragments: a text inside", {{FRAME(0x01, "a")}, {TEXT("b")}, END}, "!1002", 4, 4},
    {"fragments: a binary inside", {{FRAME(0x01, "a")}, {FRAME(0x82, "b")}, END}, "!1002", 4, 4},
    {"fragments: another beginning inside", {{FRAME(0x01, "a")}, {FRAME(0x01, "b")}, {FRAME(0x80, "c")}, END}, "!1002", 4, 4},
    {"fragments: a text after a continuation", {{FRAME(0x01, "a")}, {FRAME(0x00, "b")}, {TEXT("c")}, END}, "!1002", 7, 8},
    {"fragments: a text after a ping inside", {{FRAME(0x01, "a")}, {FRAME(0x89, "")}, {TEXT("c")}, END}, "P() !1002", 6, 8},
    {"fragments: an empty text inside an empty one", {{FRAME(0x01, "")}, {TEXT("")}, END}, "!1002", 3, 4},
    {"fragments: the same after an empty message", {{FRAME(0x01, "")}, {FRAME(0x80, "")}, {TEXT("x")}, END}, "T() T(x)"},

    /* ---- 5.5: control frames ---- */
    {"ping: empty", {{FRAME(0x89, "")}, END}, "P()"},
    {"ping: with a payload", {{FRAME(0x89, "ping")}, END}, "P(ping)"},
    {"ping: with bytes that are no text", {{FRAME(0x89, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff")}, END}, "P(\\00\\ff\\fe\\fd\\fc\\fb\\00\\ff)"},
    {"ping: of 125 bytes", {{SIZED(0x89, 125)}, END}, "P(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx)"},
    {"ping: of 126 bytes", {{SIZED(0x89, 126)}, END}, "!1002", 2, 0},
    {"ping: of 65,536 bytes", {{SIZED(0x89, 65536)}, END}, "!1002", 2, 0},
    {"ping: 16 bits of length for 5", {{FRAME(0x89, "Hello"), WIRE_SIZE_16}, END}, "!1002", 2, 0},
    {"ping: 64 bits of length for 5", {{FRAME(0x89, "Hello"), WIRE_SIZE_64}, END}, "!1002", 2, 0},
    {"ping: fragmented", {{FRAME(0x09, "a")}, {FRAME(0x80, "b")}, END}, "!1002", 1, 0},
    {"ping: fragmented, empty", {{FRAME(0x09, "")}, END}, "!1002", 1, 0},
    {"ping: ten", {{FRAME(0x89, "0")}, {FRAME(0x89, "1")}, {FRAME(0x89, "2")}, {FRAME(0x89, "3")}, {FRAME(0x89, "4")}, {FRAME(0x89, "5")}, {FRAME(0x89, "6")}, {FRAME(0x89, "7")}, {FRAME(0x89, "8")}, {FRAME(0x89, "9")}, END},
     "P(0) P(1) P(2) P(3) P(4) P(5) P(6) P(7) P(8) P(9)"},
    {"pong: unasked for", {{FRAME(0x8a, "")}, END}, "O()"},
    {"pong: unasked for, with a payload", {{FRAME(0x8a, "pong")}, {FRAME(0x89, "p")}, END}, "O(pong) P(p)"},
    {"pong: of 125 bytes of no text", {{FRAME(0x8a, "\xff\xff\xff")}, END}, "O(\\ff\\ff\\ff)"},
    {"pong: of 126 bytes", {{SIZED(0x8a, 126)}, END}, "!1002", 2, 0},
    {"pong: fragmented", {{FRAME(0x0a, "a")}, END}, "!1002", 1, 0},
    {"ping: between messages", {{TEXT("a")}, {FRAME(0x89, "p")}, {TEXT("b")}, END}, "T(a) P(p) T(b)"},
    {"ping: a size limit is none for it", {{FRAME(0x89, "ping")}, END}, "P(ping)", .max = 1},

    /* ---- 5.5.1, 7: closing ---- */
    {"close: empty", {{FRAME(0x88, "")}, END}, "X(1005)"},
    {"close: half a code", {{FRAME(0x88, "\x03")}, END}, "!1002", 3, 4},
    {"close: 1000", {{FRAME(0x88, "\x03\xe8")}, END}, "X(1000)"},
    {"close: with a reason", {{FRAME(0x88, "\x03\xe8" "bye")}, END}, "X(1000 bye)"},
    {"close: with a reason in Greek", {{FRAME(0x88, "\x03\xe9\xce\xba")}, END}, "X(1001 \\ce\\ba)"},
    {"close: with the longest reason", {{FRAME(0x88, "\x03\xe8" "123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123")}, END},
     "X(1000 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123)"},
    {"close: too long", {{SIZED(0x88, 126)}, END}, "!1002", 2, 0},
    {"close: fragmented", {{FRAME(0x08, "\x03\xe8")}, END}, "!1002", 1, 0},
    {"close: a reason that is not UTF-8", {{FRAME(0x88, "\x03\xe8\xff")}, END}, "!1007", 5, 4},
    {"close: a reason that is cut", {{FRAME(0x88, "\x03\xe8" "a\xce")}, END}, "!1007", 6, 4},
    {"close: a reason with a surrogate", {{FRAME(0x88, "\x03\xe8\xed\xa0\x80")}, END}, "!1007", 7, 4},
    {"close: an overlong reason", {{FRAME(0x88, "\x03\xe8\xc0\x80")}, END}, "!1007", 6, 4},
    {"close: a bad code and a bad reason", {{FRAME(0x88, "\x03\xed\xff")}, END}, "!1002", 5, 4},
    {"close: after a text", {{TEXT("a")}, {FRAME(0x88, "\x03\xe8")}, END}, "T(a) X(1000)"},
    {"close: after a ping", {{FRAME(0x89, "a")}, {FRAME(0x88, "\x0f\xa0")}, END}, "P(a) X(4000)"},

    /* ---- 8.1: UTF-8, here only that it is looked at; see test_utf8.c for the sequences ---- */
    {"utf8: Greek", {{TEXT("\xce\xba\xcf\x8c\xcf\x83\xce\xbc\xce\xb5")}, END}, "T(\\ce\\ba\\cf\\8c\\cf\\83\\ce\\bc\\ce\\b5)"},
    {"utf8: cut between fragments", {{FRAME(0x01, "\xce")}, {FRAME(0x80, "\xba")}, END}, "T(\\ce\\ba)"},
    {"utf8: cut into three", {{FRAME(0x01, "\xf0")}, {FRAME(0x00, "\x9f\x98")}, {FRAME(0x80, "\x80")}, END}, "T(\\f0\\9f\\98\\80)"},
    {"utf8: cut around empty fragments", {{FRAME(0x01, "\xe2")}, {FRAME(0x00, "")}, {FRAME(0x00, "\x82")}, {FRAME(0x89, "\xff")}, {FRAME(0x80, "\xac")}, END}, "P(\\ff) T(\\e2\\82\\ac)"},
    {"utf8: a NUL", {{TEXT("\x00")}, END}, "T(\\00)"},
    {"utf8: a bad byte", {{TEXT("Hello\xff!!!")}, END}, "!1007", 8, 4},
    {"utf8: a bad first byte", {{TEXT("\x80zzzzzzzz")}, END}, "!1007", 3, 4},
    {"utf8: a bad byte in an unfinished fragment", {{FRAME(0x01, "a\xc0z")}, {FRAME(0x80, "b")}, END}, "!1007", 4, 4},
    {"utf8: a bad byte in the second fragment", {{FRAME(0x01, "a")}, {FRAME(0x80, "\xffz")}, END}, "!1007", 6, 8},
    {"utf8: a surrogate over two fragments", {{FRAME(0x01, "\xed")}, {FRAME(0x80, "\xa0\x80")}, END}, "!1007", 6, 8},
    {"utf8: above U+10FFFF over two fragments", {{FRAME(0x01, "\xf4")}, {FRAME(0x80, "\x90\x80\x80")}, END}, "!1007", 6, 8},
    {"utf8: an end within a character", {{TEXT("a\xce")}, END}, "!1007", 4, 4},
    {"utf8: an end within a character after fragments", {{FRAME(0x01, "\xf0\x9f")}, {FRAME(0x80, "\x98")}, END}, "!1007", 7, 8},
    {"utf8: an empty last fragment within a character", {{FRAME(0x01, "\xce")}, {FRAME(0x80, "")}, END}, "!1007", 5, 8},
    {"utf8: not of binaries", {{FRAME(0x82, "\xce")}, {FRAME(0x02, "\xff")}, {FRAME(0x80, "\x80")}, END}, "B(\\ce) B(\\ff\\80)"},
    {"utf8: each message begins anew", {{FRAME(0x82, "\xce")}, {TEXT("a")}, END}, "B(\\ce) T(a)"},
    {"utf8: a bad byte after a good message", {{TEXT("ok")}, {TEXT("\xfe")}, END}, "T(ok) !1007", 7, 8},

    /* ---- Limits ---- */
    {"limit: a message as big as may be", {{TEXT("12345")}, END}, "T(12345)", .max = 5},
    {"limit: one byte more", {{TEXT("123456")}, END}, "!1009", 2, 4, .max = 5},
    {"limit: over fragments", {{FRAME(0x01, "123")}, {FRAME(0x80, "45")}, END}, "T(12345)", .max = 5},
    {"limit: one more over fragments", {{FRAME(0x01, "123")}, {FRAME(0x80, "456")}, END}, "!1009", 7, 8, .max = 5},
    {"limit: one more in the third", {{FRAME(0x02, "12345")}, {FRAME(0x00, "")}, {FRAME(0x00, "6")}, END}, "!1009", 11, 12, .max = 5},
    {"limit: of each message", {{TEXT("12345")}, {TEXT("12345")}, END}, "T(12345) T(12345)", .max = 5},
    {"limit: seen in the header", {{0x82, NULL, 1 << 30, WIRE_HEADER}, END}, "!1009", 10, 4, .max = 1 << 20},
    {"limit: of 2^62 bytes", {{0x82, NULL, (size_t)1 << 62, WIRE_HEADER}, END}, "!1009", 10, 4, .max = 1 << 20},
    {"limit: of two times 2^62 bytes, none set", {{0x82, NULL, (size_t)1 << 62, WIRE_HEADER}, END}, ""},
    {"limit: not of what is compressed", {{FRAME(0xc1, "123456")}, END}, "T(z:123456)", .max = 5, .deflate = true},
};
/* clang-format on */
