/*
 * Drawing is bounded to ten times a second: a terminal is slower than a cluster.
 */
#include "progress.h"

#include <inttypes.h>
#include <unistd.h>

#include <bop/clock.h>

#define DRAW_EVERY_US 100000
#define LINE_EVERY_US 1000000
#define BAR_WIDTH     24
#define RATE_WEIGHT   0.4 /* Of the newest piece in the rate. */

const char *count_text(uint64_t count, char out_text[COUNT_TEXT_MAX])
{
    char digits[COUNT_TEXT_MAX];
    int size = snprintf(digits, sizeof(digits), "%" PRIu64, count);
    int used = 0;

    for (int i = 0; i < size; i++) {
        if (i > 0 && (size - i) % 3 == 0) {
            out_text[used++] = ',';
        }
        out_text[used++] = digits[i];
    }
    out_text[used] = '\0';
    return out_text;
}

static uint64_t now_us(void)
{
    return bop_clock_monotonic_us(bop_clock_system());
}

void progress_init(struct progress *progress, FILE *out, const char *what, uint64_t total,
                   bool lines)
{
    uint64_t now = now_us();

    *progress = (struct progress){
        .out = out,
        .what = what,
        .total = total,
        .started_us = now,
        .shown_us = now,
        .terminal = isatty(fileno(out)) == 1,
        .lines = lines,
    };
}

static void draw_bar(const struct progress *progress, uint64_t count)
{
    unsigned filled = (unsigned)(bop_min_u64(count, progress->total) * BAR_WIDTH / progress->total);

    fputc('[', progress->out);
    for (unsigned i = 0; i < BAR_WIDTH; i++) {
        fputc(i < filled ? '=' : i == filled ? '>' : ' ', progress->out);
    }
    fprintf(progress->out, "] %3u%%  ",
            (unsigned)(bop_min_u64(count, progress->total) * 100 / progress->total));
}

static void draw(struct progress *progress, uint64_t count, const char *note)
{
    char counted[COUNT_TEXT_MAX], total[COUNT_TEXT_MAX], rate[COUNT_TEXT_MAX];

    if (progress->terminal) {
        fputs("\r\033[K", progress->out);
    }
    if (progress->total > 0) {
        if (progress->terminal) {
            draw_bar(progress, count);
        }
        fprintf(progress->out, "%s %s of %s", progress->what, count_text(count, counted),
                count_text(progress->total, total));
    } else {
        fprintf(progress->out, "%s %s", progress->what, count_text(count, counted));
    }
    fprintf(progress->out, "  %s/s%s%s", count_text((uint64_t)progress->rate, rate),
            note[0] ? "  " : "", note);
    if (!progress->terminal) {
        fputc('\n', progress->out);
    }
    fflush(progress->out);
    progress->drawn = progress->terminal;
}

void progress_show(struct progress *progress, uint64_t count, const char *note)
{
    uint64_t now = now_us(), passed = now - progress->shown_us;
    double rate;

    if (!(progress->terminal || progress->lines) ||
        passed < (progress->terminal ? DRAW_EVERY_US : LINE_EVERY_US)) {
        return;
    }
    rate = (double)(count - progress->shown_count) * 1e6 / (double)passed;
    if (progress->terminal && progress->shown_count > 0) {
        rate = RATE_WEIGHT * rate + (1 - RATE_WEIGHT) * progress->rate;
    }
    progress->rate = rate;
    progress->shown_us = now;
    progress->shown_count = count;
    draw(progress, count, note);
}

void progress_clear(struct progress *progress)
{
    if (progress->drawn) {
        fputs("\r\033[K", progress->out);
        fflush(progress->out);
        progress->drawn = false;
    }
}

double progress_seconds(const struct progress *progress)
{
    return (double)(now_us() - progress->started_us) / 1e6;
}
