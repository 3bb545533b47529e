/* loadgen: a single-threaded epoll HTTP/1.1 load generator for JSON and SSE.
 *
 *   loadgen --port P [--path /v1/chat/completions] [--body FILE] [--header 'K: V']...
 *           [--conns 32] [--secs 5] [--warm 1] [--rate R] [--count N] [--save FILE] [--bare 1]
 *
 * Without --rate: closed loop, every connection always has one request in
 * flight.  With --rate: open loop, arrivals on a fixed schedule; latency counts
 * from the scheduled time, so a stalled server is not forgiven (no coordinated
 * omission).  Prints one JSON object.  Times are microseconds.  --save writes
 * the body of the first response.  Every "@@@@@@@@" in the body is replaced by
 * eight hexadecimal digits that differ from request to request and run to run.
 * --bare leaves out the headers of OpenAI's Python client.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct { uint32_t *v; size_t n, cap; } series;
typedef struct {
    int fd, status;
    enum { HEAD, SIZE, CHUNK, CHUNK_END, TRAILER, LENGTH, UNTIL_CLOSE } phase;
    bool busy, close, saw_nl, counted;
    size_t head_n;
    int64_t left;                       /* bytes left of the body or of this chunk */
    char head[16384];
    uint64_t born, begun, first, last;  /* due time, send time, first body byte, last event */
    uint32_t events;
} conn;

static int ep, port, n_conn = 32, next_idle;
static char *req, *save_path, *marks[16]; static size_t req_n, n_marks; static uint32_t serial;
static series lat, ttfb, gap;
static uint64_t ok, bad, broken, events, body_bytes, t0, t_end, started, limit, peak_queue;
static FILE *save;
static conn *cs, **idle;

static uint64_t now_us(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}
static void put(series *s, uint64_t v) {
    if (s->n == s->cap) s->v = realloc(s->v, (s->cap = s->cap ? s->cap * 2 : 65536) * sizeof *s->v);
    s->v[s->n++] = v > UINT32_MAX ? UINT32_MAX : v;
}
static int cmp(const void *a, const void *b) { uint32_t x = *(uint32_t *)a, y = *(uint32_t *)b; return (x > y) - (x < y); }
static void report(const char *name, series *s) {
    qsort(s->v, s->n, sizeof *s->v, cmp);
    double sum = 0; for (size_t i = 0; i < s->n; i++) sum += s->v[i];
    #define Q(q) (s->n ? s->v[(size_t)((s->n - 1) * (q))] : 0)
    printf(",\"%s\":{\"n\":%zu,\"mean\":%.1f,\"p50\":%u,\"p90\":%u,\"p99\":%u,\"p999\":%u,\"max\":%u}",
           name, s->n, s->n ? sum / s->n : 0, Q(.5), Q(.9), Q(.99), Q(.999), Q(1));
}
static void dial(conn *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(c->fd, (void *)&a, sizeof a)) { perror("connect"); exit(1); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
}
static void fire(conn *c, uint64_t born) {
    c->busy = true; c->close = c->saw_nl = false; c->phase = HEAD;
    c->head_n = 0; c->events = 0; c->first = c->last = 0;
    c->begun = now_us(); c->born = born ? born : c->begun;
    c->counted = c->born >= t0; started++;
    char digits[9]; snprintf(digits, sizeof digits, "%08x", serial++);
    for (size_t i = 0; i < n_marks; i++) memcpy(marks[i], digits, 8);
    if (send(c->fd, req, req_n, MSG_NOSIGNAL) != (ssize_t)req_n) { broken++; close(c->fd); dial(c); send(c->fd, req, req_n, MSG_NOSIGNAL); }
}
static void finish(conn *c, bool whole) {
    uint64_t t = now_us();
    if (c->counted && t <= t_end + 30000000) {
        if (!whole) broken++;
        else if (c->status / 100 == 2) { ok += t <= t_end; put(&lat, t - c->born); }
        else bad++;
    }
    if (save) { fclose(save); save = NULL; }
    if (!whole || c->close) { close(c->fd); dial(c); }
    c->busy = false;
    idle[next_idle++] = c;
}
/* Count SSE events: blank lines in the body. */
static void on_body(conn *c, const char *p, size_t n) {
    uint64_t t = now_us();
    if (!c->first) { c->first = t; if (c->counted) put(&ttfb, t - c->born); }
    if (save) fwrite(p, 1, n, save);
    uint32_t before = c->events;
    const char *end = p + n;
    if (c->saw_nl && *p == '\n') c->events++;
    for (const char *q = p; (q = memmem(q, end - q, "\n\n", 2)); q += 2) c->events++;
    c->saw_nl = n > 1 ? (end[-1] == '\n' && end[-2] != '\n') : (*p == '\n' && !c->saw_nl);
    if (c->counted) {
        body_bytes += n;
        if (t <= t_end) events += c->events - before;
        if (c->events > before) { if (c->last) put(&gap, t - c->last); c->last = t; }
    }
}
/* HTTP/1.1 response parser: head, then a body by length, by chunks or until close. */
static void feed(conn *c, const char *p, size_t n) {
    while (n) switch (c->phase) {
    case HEAD: {
        size_t had = c->head_n, k = n < sizeof c->head - 1 - had ? n : sizeof c->head - 1 - had;
        memcpy(c->head + had, p, k); c->head_n += k; c->head[c->head_n] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end) { if (k < n) finish(c, false); return; }
        size_t used = end + 4 - c->head - had;
        p += used; n -= used; end[2] = 0;
        c->status = atoi(c->head + 9);
        c->close = strcasestr(c->head, "\r\nconnection: close") != NULL;
        char *v = strcasestr(c->head, "\r\ncontent-length:");
        bool chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
        c->left = v ? atoll(v + 17) : 0; c->head_n = 0;
        c->phase = chunked ? SIZE : v ? LENGTH : UNTIL_CLOSE;
        if (c->phase == LENGTH && !c->left) { finish(c, true); return; }
        break;
    }
    case SIZE: case TRAILER:                                /* one line */
        n--;
        if (*p != '\n') { if (c->head_n < 64) c->head[c->head_n++] = *p; p++; break; }
        p++; c->head[c->head_n] = 0;
        if (c->phase == SIZE) { c->left = strtoll(c->head, NULL, 16); c->phase = c->left ? CHUNK : TRAILER; }
        else if (c->head_n <= 1) { finish(c, true); return; }
        c->head_n = 0;
        break;
    case CHUNK_END:
        n--; if (*p++ == '\n') c->phase = SIZE;
        break;
    case LENGTH: case CHUNK: case UNTIL_CLOSE: {
        size_t k = c->phase == UNTIL_CLOSE || n < (size_t)c->left ? n : (size_t)c->left;
        on_body(c, p, k);
        p += k; n -= k; c->left -= k;
        if (c->left || c->phase == UNTIL_CLOSE) break;
        if (c->phase == LENGTH) { finish(c, true); return; }
        c->phase = CHUNK_END;
        break;
    }
    }
}
int main(int argc, char **argv) {
    const char *path = "/v1/chat/completions", *body_file = NULL;
    char extra[8192] = ""; double secs = 5, warm = 1, rate = 0; bool bare = false;
    for (int i = 1; i + 1 < argc; i += 2) {
        char *k = argv[i], *v = argv[i + 1];
        if (!strcmp(k, "--port")) port = atoi(v);
        else if (!strcmp(k, "--path")) path = v;
        else if (!strcmp(k, "--body")) body_file = v;
        else if (!strcmp(k, "--header")) { strcat(extra, v); strcat(extra, "\r\n"); }
        else if (!strcmp(k, "--conns")) n_conn = atoi(v);
        else if (!strcmp(k, "--secs")) secs = atof(v);
        else if (!strcmp(k, "--warm")) warm = atof(v);
        else if (!strcmp(k, "--rate")) rate = atof(v);
        else if (!strcmp(k, "--count")) limit = atoll(v);
        else if (!strcmp(k, "--save")) save_path = v;
        else if (!strcmp(k, "--bare")) bare = atoi(v);
        else { fprintf(stderr, "unknown option %s\n", k); return 2; }
    }
    char body[1 << 20] = "{}"; size_t body_n = 2;
    if (body_file) { FILE *f = fopen(body_file, "r"); if (!f) { perror(body_file); return 1; } body_n = fread(body, 1, sizeof body, f); fclose(f); }
    const char *client = bare ? "" : "user-agent: OpenAI/Python 2.8.0\r\nx-stainless-lang: python\r\nx-stainless-async: async:asyncio\r\n";
    req_n = asprintf(&req, "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\naccept: application/json\r\n"
                     "%s%scontent-length: %zu\r\n\r\n%.*s", path, port, client, extra, body_n, (int)body_n, body);
    serial = (uint32_t)now_us() * 2654435761u;
    for (char *p = req; n_marks < 16 && (p = strstr(p, "@@@@@@@@")); p += 8) marks[n_marks++] = p;
    ep = epoll_create1(0);
    cs = calloc(n_conn, sizeof *cs); idle = calloc(n_conn, sizeof *idle);
    for (int i = 0; i < n_conn; i++) { dial(&cs[i]); idle[next_idle++] = &cs[i]; }
    if (save_path) save = fopen(save_path, "w");
    uint64_t begin = now_us(), n_arrived = 0, stop;
    t0 = begin + warm * 1e6; t_end = t0 + secs * 1e6; stop = t_end + 30000000;
    static char buf[1 << 18];
    struct epoll_event ev[256];
    for (;;) {
        uint64_t t = now_us(), wake = t_end;
        bool more = t < t_end && (!limit || started < limit);
        while (more && next_idle) {
            uint64_t born = 0;
            if (rate > 0) {
                born = begin + (uint64_t)(n_arrived * 1e6 / rate);
                if (born > t) { wake = born; break; }
                n_arrived++;
                uint64_t q = (uint64_t)((t - begin) * rate / 1e6); q = q > n_arrived ? q - n_arrived : 0;
                if (q > peak_queue) peak_queue = q;
            }
            fire(idle[--next_idle], born);
            more = !limit || started < limit;
        }
        if (!more && next_idle == n_conn) break;
        if (t > stop) break;
        if (!more) wake = stop;
        uint64_t d = wake > t ? wake - t : 0;
        struct timespec ts = {d / 1000000, d % 1000000 * 1000};
        int n = epoll_pwait2(ep, ev, 256, &ts, NULL);
        for (int i = 0; i < n; i++) {
            conn *c = ev[i].data.ptr;
            ssize_t k = recv(c->fd, buf, sizeof buf, MSG_DONTWAIT);
            if (k < 0 && errno == EAGAIN) continue;
            if (k <= 0) {
                if (c->busy) finish(c, c->phase == UNTIL_CLOSE);
                else { close(c->fd); dial(c); }
            } else if (c->busy) feed(c, buf, k);
        }
    }
    uint64_t unfinished = n_conn - next_idle;
    double span = (limit && now_us() < t_end ? now_us() - t0 : t_end - t0) / 1e6;
    printf("{\"secs\":%.3f,\"ok\":%zu,\"rps\":%.1f,\"bad\":%lu,\"broken\":%lu,\"unfinished\":%lu,\"events\":%lu,\"events_s\":%.1f,"
           "\"body_bytes\":%lu,\"peak_queue\":%lu", span, lat.n, ok / span, bad, broken, unfinished, events, events / span, body_bytes, peak_queue);
    report("lat", &lat); report("ttfb", &ttfb); report("gap", &gap);
    puts("}");
    return 0;
}
