/*
 * What taking a request's head apart costs, in CPU time, for each engine of this
 * processor: a bare request of 69 bytes and a browser's of 703.
 *
 * Prints "ENGINE_BYTES nanoseconds", the median of rounds, and "ENGINE_BYTES_best",
 * which tells more where others share the machine. The bytes are the same each
 * time, so branches are predicted well; parsers are commonly compared so.
 *
 * usage: net_parse [ROUNDS [PARSES_A_ROUND]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "net/http/parse.h"

static const char small[] = "GET /hello/page HTTP/1.1\r\n"
                            "Host: localhost:8080\r\n"
                            "Accept: text/html\r\n"
                            "\r\n";

static const char browser[] =
    "GET /archive/2024/11/pictures-of-the-old-harbour-at-night.jpeg HTTP/1.1\r\n"
    "Host: media.example.org\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0 "
    "ExampleBar/1.9\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Accept-Language: de,en-us;q=0.7,en;q=0.3\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Accept-Charset: ISO-8859-1,utf-8;q=0.7,*;q=0.7\r\n"
    "Keep-Alive: 115\r\n"
    "Connection: keep-alive\r\n"
    "Cookie: visits_of_reader=12; last_visit_of_reader=1731922451; "
    "__stat=173192245.1731922451.1731922451.1731922451.1731922451.1; "
    "__from=173192245.1731922451.1.1.source=(referral)|by=news.example.com|at=/front/|"
    "kind=referral; theme=dark; lang=de; sid=qwertzuiopasdfghjkl\r\n"
    "\r\n";

static const char *cut_to(const char *text, size_t size)
{
    if (strlen(text) != size) {
        fprintf(stderr, "a request has %zu bytes, not %zu\n", strlen(text), size);
        exit(1);
    }
    return text;
}

static double cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double one_round(const struct bop__http_engine *engine, struct bop_slice bytes, long parses)
{
    static struct bop_http_head head;
    double start = cpu_ns();

    for (long i = 0; i < parses; i++) {
        if (bop__http_parse_request(engine, bytes, NULL, &head, NULL) != 0) {
            fprintf(stderr, "a request is refused\n");
            exit(1);
        }
        __asm__ volatile("" : : "r"(&head) : "memory"); /* All of it is wanted. */
    }
    return (cpu_ns() - start) / (double)parses;
}

static void measure(const struct bop__http_engine *engine, struct bop_slice bytes, int rounds,
                    long parses)
{
    double *times = calloc((size_t)rounds, sizeof(times[0]));

    if (!times) {
        exit(1);
    }
    for (int i = 0; i < rounds; i++) {
        times[i] = one_round(engine, bytes, parses);
    }
    qsort(times, (size_t)rounds, sizeof(times[0]), by_value);
    printf("%s_%zu %.1f\n", engine->name, bytes.size, times[rounds / 2]);
    printf("%s_%zu_best %.1f\n", engine->name, bytes.size, times[0]);
    free(times);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 21;
    long parses = argc > 2 ? atol(argv[2]) : 100000;
    const struct bop__http_engine *engine;

    if (rounds < 1 || parses < 1) {
        fprintf(stderr, "usage: net_parse [ROUNDS [PARSES_A_ROUND]]\n");
        return 2;
    }
    for (unsigned at = 0; (engine = bop__http_engine_at(at)) != NULL; at++) {
        measure(engine, bop_slice_cstr(cut_to(small, 69)), rounds, parses);
        measure(engine, bop_slice_cstr(cut_to(browser, 703)), rounds, parses);
    }
    return 0;
}
