/*
 * Sequences after Markus Kuhn's stress test, RFC 3629 and Unicode's table 3-7: good, cut, and bad
 * with the number of bytes before the first that no continuation saves.
 */
/* clang-format off */
static const struct text_case utf8_cases[] = {
    {"nothing", GOOD("")},
    {"ASCII", GOOD("Hello")},
    {"a NUL", GOOD("a\0b")},
    {"U+7F", GOOD("\x7f")},
    {"Greek", GOOD("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5")},
    {"Hello-µ@ßöäüàá", GOOD("Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!")},

    /* First and last of each size. */
    {"U+80", GOOD("\xc2\x80")},
    {"U+7FF", GOOD("\xdf\xbf")},
    {"U+800", GOOD("\xe0\xa0\x80")},
    {"U+FFF", GOOD("\xe0\xbf\xbf")},
    {"U+1000", GOOD("\xe1\x80\x80")},
    {"U+CFFF", GOOD("\xec\xbf\xbf")},
    {"U+D000", GOOD("\xed\x80\x80")},
    {"U+D7FF", GOOD("\xed\x9f\xbf")},
    {"U+E000", GOOD("\xee\x80\x80")},
    {"U+FFFD", GOOD("\xef\xbf\xbd")},
    {"U+FFFE", GOOD("\xef\xbf\xbe")},
    {"U+FFFF", GOOD("\xef\xbf\xbf")},
    {"U+FEFF", GOOD("\xef\xbb\xbf")},
    {"U+10000", GOOD("\xf0\x90\x80\x80")},
    {"U+3FFFF", GOOD("\xf0\xbf\xbf\xbf")},
    {"U+40000", GOOD("\xf1\x80\x80\x80")},
    {"U+FFFFF", GOOD("\xf3\xbf\xbf\xbf")},
    {"U+100000", GOOD("\xf4\x80\x80\x80")},
    {"U+10FFFF", GOOD("\xf4\x8f\xbf\xbf")},
    {"a sequence of all sizes", GOOD("a\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80z")},
    {"no characters: U+FDD0, U+1FFFE", GOOD("\xef\xb7\x90\xf0\x9f\xbf\xbe")},

    /* Above what there is. */
    {"U+110000", BAD("\xf4\x90\x80\x80", 1)},
    {"U+13FFFF", BAD("\xf4\xbf\xbf\xbf", 1)},
    {"U+140000", BAD("\xf5\x80\x80\x80", 0)},
    {"U+1FFFFF", BAD("\xf7\xbf\xbf\xbf", 0)},
    {"U+200000 in five", BAD("\xf8\x88\x80\x80\x80", 0)},
    {"U+3FFFFFF in five", BAD("\xfb\xbf\xbf\xbf\xbf", 0)},
    {"U+4000000 in six", BAD("\xfc\x84\x80\x80\x80\x80", 0)},
    {"U+7FFFFFFF in six", BAD("\xfd\xbf\xbf\xbf\xbf\xbf", 0)},
    {"FE", BAD("\xfe", 0)},
    {"FF", BAD("\xff", 0)},
    {"FE FE FF FF", BAD("\xfe\xfe\xff\xff", 0)},

    /* Continuations of nothing. */
    {"80", BAD("\x80", 0)},
    {"BF", BAD("\xbf", 0)},
    {"80 BF", BAD("\x80\xbf", 0)},
    {"80 BF 80", BAD("\x80\xbf\x80", 0)},
    {"80 BF 80 BF", BAD("\x80\xbf\x80\xbf", 0)},
    {"a continuation after ASCII", BAD("a\x80", 1)},
    {"one too many after two", BAD("\xc2\x80\x80", 2)},
    {"one too many after three", BAD("\xe1\x80\x80\x80", 3)},
    {"one too many after four", BAD("\xf1\x80\x80\x80\x80", 4)},

    /* First bytes followed by something else. */
    {"C2 and a space", BAD("\xc2 ", 1)},
    {"DF and a letter", BAD("\xdf" "a", 1)},
    {"E0 and a space", BAD("\xe0 ", 1)},
    {"EF and a letter", BAD("\xef" "a", 1)},
    {"F0 and a space", BAD("\xf0 ", 1)},
    {"F4 and a letter", BAD("\xf4" "a", 1)},
    {"two first bytes", BAD("\xc2\xc2\x80", 1)},
    {"a long one inside", BAD("\xe1\xe1\x80\x80", 1)},
    {"a third byte missing", BAD("\xe1\x80" "a", 2)},
    {"a third byte that begins", BAD("\xe1\x80\xc2\x80", 2)},
    {"a fourth byte missing", BAD("\xf1\x80\x80" "a", 3)},
    {"a fourth byte that begins", BAD("\xf1\x80\x80\xf1\x80\x80\x80", 3)},
    {"a third of four missing", BAD("\xf1\x80" "a", 2)},

    /* Cut at the end. */
    {"C2", CUT("\xc2")},
    {"DF", CUT("\xdf")},
    {"E0", CUT("\xe0")},
    {"E0 A0", CUT("\xe0\xa0")},
    {"ED 9F", CUT("\xed\x9f")},
    {"EF BF", CUT("\xef\xbf")},
    {"F0", CUT("\xf0")},
    {"F0 90", CUT("\xf0\x90")},
    {"F0 90 80", CUT("\xf0\x90\x80")},
    {"F4 8F BF", CUT("\xf4\x8f\xbf")},

    /* Longer than needed. */
    {"2F in two", BAD("\xc0\xaf", 0)},
    {"2F in three", BAD("\xe0\x80\xaf", 1)},
    {"2F in four", BAD("\xf0\x80\x80\xaf", 1)},
    {"2F in five", BAD("\xf8\x80\x80\x80\xaf", 0)},
    {"2F in six", BAD("\xfc\x80\x80\x80\x80\xaf", 0)},
    {"7F in two", BAD("\xc1\xbf", 0)},
    {"7FF in three", BAD("\xe0\x9f\xbf", 1)},
    {"FFFF in four", BAD("\xf0\x8f\xbf\xbf", 1)},
    {"0 in two", BAD("\xc0\x80", 0)},
    {"0 in three", BAD("\xe0\x80\x80", 1)},
    {"0 in four", BAD("\xf0\x80\x80\x80", 1)},

    /* Surrogates. */
    {"U+D800", BAD("\xed\xa0\x80", 1)},
    {"U+DB7F", BAD("\xed\xad\xbf", 1)},
    {"U+DB80", BAD("\xed\xae\x80", 1)},
    {"U+DBFF", BAD("\xed\xaf\xbf", 1)},
    {"U+DC00", BAD("\xed\xb0\x80", 1)},
    {"U+DFFF", BAD("\xed\xbf\xbf", 1)},
    {"a pair of them", BAD("\xed\xa0\x80\xed\xb0\x80", 1)},
    {"Greek, then U+D800", BAD("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80" "edited", 12)},
    {"Greek, then U+110000", BAD("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80" "edited", 12)},
};
/* clang-format on */
