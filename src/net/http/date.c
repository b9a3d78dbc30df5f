/*
 * Dates of HTTP: RFC 9110, 5.6.7.
 *
 * One form is written, three are read:
 *
 *      Sun, 06 Nov 1994 08:49:37 GMT     IMF-fixdate
 *      Sunday, 06-Nov-94 08:49:37 GMT    RFC 850, years of two digits
 *      Sun Nov  6 08:49:37 1994          asctime()
 *
 * The name of the day has to be one, but not the right one: nobody decides by it.
 * Two digits from 70 on are of the 1900s, the others of the 2000s: a pure function
 * knows no "50 years from now", and what sends this form is that old.
 */
#include <bop/http1.h>

static const char days[7][10] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                 "Thursday", "Friday", "Saturday"};
static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

#define DAY_S        INT64_C(86400)
#define YEAR_9999_S  INT64_C(253402300799) /* The last second that four digits can tell. */
#define CYCLE_DAYS   146097                /* Of 400 years. */
#define EPOCH_OFFSET 719468                /* Days from 1 March 0000 to 1 January 1970. */

/* ---- Calendar: years that begin in March, so that the odd day comes last ---- */

static int64_t days_from_date(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year, cycle, of_cycle, of_year;

    cycle = y / 400;
    of_cycle = y % 400;
    of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return cycle * CYCLE_DAYS + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year -
           EPOCH_OFFSET;
}

static void date_from_days(int64_t count, unsigned *out_year, unsigned *out_month,
                           unsigned *out_day)
{
    int64_t since = count + EPOCH_OFFSET, of_cycle, year, of_year, month;

    of_cycle = since % CYCLE_DAYS;
    year = (of_cycle - of_cycle / 1460 + of_cycle / 36524 - of_cycle / (CYCLE_DAYS - 1)) / 365;
    of_year = of_cycle - (365 * year + year / 4 - year / 100);
    month = (5 * of_year + 2) / 153;
    *out_day = (unsigned)(of_year - (153 * month + 2) / 5 + 1);
    *out_month = (unsigned)(month < 10 ? month + 3 : month - 9);
    *out_year = (unsigned)(year + since / CYCLE_DAYS * 400 + (*out_month <= 2));
}

static unsigned days_of_month(unsigned year, unsigned month)
{
    static const uint8_t counts[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && leap ? 29 : counts[month - 1];
}

/* ---- Writing ---- */

static void put_number(char *text, unsigned value, int digits)
{
    for (int i = digits - 1; i >= 0; i--, value /= 10) {
        text[i] = (char)('0' + value % 10);
    }
}

void bop_http_date_format(int64_t unix_s, char out_text[30])
{
    unsigned year, month, day, second;
    int64_t count;

    /* What four digits cannot tell becomes the nearest that they can. */
    unix_s = unix_s < 0 ? 0 : unix_s > YEAR_9999_S ? YEAR_9999_S : unix_s;
    count = unix_s / DAY_S;
    second = (unsigned)(unix_s % DAY_S);
    date_from_days(count, &year, &month, &day);
    memcpy(out_text, "Day, 00 Mon 0000 00:00:00 GMT", 30);
    memcpy(out_text, days[(count + 4) % 7], 3); /* 1 January 1970 was a Thursday. */
    put_number(out_text + 5, day, 2);
    memcpy(out_text + 8, months[month - 1], 3);
    put_number(out_text + 12, year, 4);
    put_number(out_text + 17, second / 3600, 2);
    put_number(out_text + 20, second / 60 % 60, 2);
    put_number(out_text + 23, second % 60, 2);
}

/* ---- Reading ---- */

struct date {
    unsigned year;
    unsigned month;
    unsigned day;
    unsigned hour;
    unsigned minute;
    unsigned second;
};

static const uint8_t *read_day(const uint8_t *at, const uint8_t *end, bool is_long)
{
    for (size_t i = 0; i < 7; i++) {
        size_t size = is_long ? strlen(days[i]) : 3;

        if ((size_t)(end - at) >= size && memcmp(at, days[i], size) == 0) {
            return at + size;
        }
    }
    return NULL;
}

static const uint8_t *read_month(const uint8_t *at, const uint8_t *end, unsigned *out_month)
{
    for (unsigned i = 0; i < 12; i++) {
        if (end - at >= 3 && memcmp(at, months[i], 3) == 0) {
            *out_month = i + 1;
            return at + 3;
        }
    }
    return NULL;
}

static unsigned *number_of(struct date *date, char name)
{
    switch (name) {
    case 'Y':
        return &date->year;
    case 'd':
        return &date->day;
    case 'h':
        return &date->hour;
    case 'm':
        return &date->minute;
    default:
        return &date->second;
    }
}

/*
 * Read text by a form: "0" is a digit of the number that was named last, "D" a
 * day's name (three letters), "L" a long one, "M" a month's, "_" a digit or a
 * space, "Y", "d", "h", "m", "s" name the number that follows; all else stands
 * for itself.
 */
static bool read_form(struct bop_slice text, const char *form, struct date *date)
{
    const uint8_t *at = text.data, *end = text.data + text.size;
    unsigned *number = &date->day;

    for (; *form != '\0' && at; form++) {
        if (strchr("Ydhms", *form)) {
            number = number_of(date, *form);
        } else if (*form == 'D' || *form == 'L') {
            at = read_day(at, end, *form == 'L');
        } else if (*form == 'M') {
            at = read_month(at, end, &date->month);
        } else if (at == end) {
            return false;
        } else if (*form == '0' || (*form == '_' && *at != ' ')) {
            if (*at < '0' || *at > '9') {
                return false;
            }
            *number = *number * 10 + (*at++ - (unsigned)'0');
        } else if (*at++ != (uint8_t)(*form == '_' ? ' ' : *form)) {
            return false;
        }
    }
    return at == end && at;
}

bool bop_http_date_parse(struct bop_slice text, int64_t *out_unix_s)
{
    /* "GMT" is taken off first: an "M" in a form is a month. */
    static const char *const forms[] = {"D, d00 M Y0000 h00:m00:s00 ", "L, d00-M-Y00 h00:m00:s00 ",
                                        "D M d_0 h00:m00:s00 Y0000"};
    struct date date;
    struct bop_slice rest = text;
    size_t which, first = 2;

    if (text.size < 24 || text.size > 33) {
        return false;
    }
    if (memcmp(text.data + text.size - 3, "GMT", 3) == 0) {
        rest.size -= 3;
        first = 0;
    }
    for (which = first; which < (first == 0 ? 2u : 3u); which++) {
        date = (struct date){0};
        if (read_form(rest, forms[which], &date)) {
            break;
        }
    }
    if (which == (first == 0 ? 2u : 3u)) {
        return false;
    }
    if (which == 1) {
        date.year += date.year >= 70 ? 1900 : 2000;
    }
    if (date.year == 0 || date.day == 0 || date.day > days_of_month(date.year, date.month) ||
        date.hour > 23 || date.minute > 59 || date.second > 60) {
        return false;
    }
    *out_unix_s = days_from_date(date.year, date.month, date.day) * DAY_S + date.hour * 3600 +
                  date.minute * 60 + date.second;
    return true;
}
