/* mock_llm: a single-threaded epoll server that imitates an LLM API.
 *
 *   POST /v1/chat/completions   OpenAI JSON, or SSE when the body has "stream": true
 *   POST /v1/messages           Anthropic JSON / SSE
 *   POST /v1/embeddings         OpenAI embedding (256 dimensions)
 *   POST /v1/traces, /v1/metrics   an OTLP/HTTP collector that takes everything
 *   GET  /stats                 {"requests":N,"streams":N,"connections":N}
 *
 * Options: --port P  --chunks N (SSE events, 64)  --error-every N (every Nth call fails)
 *          --delay-ms D     (50)     pause before the first byte of a "mock-slow" request
 *          --interval-us U  (20000)  pause between the events of a "mock-paced" stream
 *
 * A request chooses its behaviour by the text "mock-slow", "mock-paced" or
 * "mock-error" anywhere in its body; the "user" field survives most gateways.
 *
 * Everything is precomputed, so a response costs one recv and one send.  A
 * stream is one send per event (TCP_NODELAY), like a real provider.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
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

typedef struct { char *p; size_t n; } blob;
typedef struct { blob *ev; int n; } script;            /* an SSE reply: head, events, tail */

typedef struct conn {
    int fd, step;
    bool dead, want_out, queued, paced;
    char *in; size_t in_n, in_cap;
    const script *run;                                  /* reply in progress */
    size_t off;                                         /* sent bytes of run->ev[step] */
    uint64_t due;
    struct conn *next, *next_free;
} conn;
typedef struct { conn *head, *tail; } fifo;             /* equal delays, so FIFO is time order */

static int ep, chunks = 64, error_every;
static uint64_t delay_ns = 50000000, interval_ns = 20000000, n_req, n_stream, n_conn;
static fifo q_delay, q_pace;
static conn *graveyard;
static script oa_json, oa_sse, an_json, an_sse, emb_json, fail, notfound, otlp;

static uint64_t now_ns(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}
static void die(const char *m) { perror(m); exit(1); }

/* ---- canned replies ---------------------------------------------------- */
static void add(script *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(script *s, const char *fmt, ...) {
    va_list ap; va_start(ap, fmt); char *p; int n = vasprintf(&p, fmt, ap); va_end(ap);
    s->ev = realloc(s->ev, sizeof(blob) * (s->n + 1));
    s->ev[s->n++] = (blob){p, n};
}
#define API_HEADERS \
    "date: Sun, 22 Nov 2026 22:00:00 GMT\r\nserver: mock-llm\r\nopenai-organization: org-bench\r\n" \
    "openai-processing-ms: 12\r\nopenai-version: 2020-10-01\r\nx-ratelimit-limit-requests: 10000\r\n" \
    "x-ratelimit-limit-tokens: 2000000\r\nx-ratelimit-remaining-requests: 9999\r\n" \
    "x-ratelimit-remaining-tokens: 1999700\r\nx-request-id: req_0123456789abcdef0123456789abcdef\r\n"

static void whole(script *s, const char *status, const char *body) {
    add(s, "HTTP/1.1 %s\r\ncontent-type: application/json\r\n" API_HEADERS "content-length: %zu\r\n\r\n%s",
        status, strlen(body), body);
}
static void sse_head(script *s) {
    add(s, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
        API_HEADERS "transfer-encoding: chunked\r\n\r\n");
}
static void event(script *s, const char *name, const char *data) {
    char *b; int n = name ? asprintf(&b, "event: %s\ndata: %s\n\n", name, data) : asprintf(&b, "data: %s\n\n", data);
    add(s, "%x\r\n%s\r\n", n, b);
    free(b);
}
static void build(void) {
    whole(&oa_json, "200 OK",
        "{\"id\":\"chatcmpl-BenchAbCdEfGhIjKlMnOpQrStUv\",\"object\":\"chat.completion\",\"created\":1795384800,"
        "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
        "\"A circuit breaker stops calls to a failing dependency, lets it recover, and probes it before traffic returns.\","
        "\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":220,"
        "\"completion_tokens\":24,\"total_tokens\":244,\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0}},"
        "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench000001\"}");
    whole(&an_json, "200 OK",
        "{\"id\":\"msg_01BenchAbCdEfGhIjKlMnOp\",\"type\":\"message\",\"role\":\"assistant\",\"model\":"
        "\"claude-sonnet-4-20250514\",\"content\":[{\"type\":\"text\",\"text\":\"A circuit breaker stops calls to a "
        "failing dependency, lets it recover, and probes it before traffic returns.\"}],\"stop_reason\":\"end_turn\","
        "\"stop_sequence\":null,\"usage\":{\"input_tokens\":220,\"cache_creation_input_tokens\":0,"
        "\"cache_read_input_tokens\":0,\"output_tokens\":24}}");
    whole(&fail, "503 Service Unavailable",
        "{\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"param\":null,\"code\":\"overloaded\"}}");
    whole(&notfound, "404 Not Found", "{\"error\":{\"message\":\"no such route\",\"type\":\"invalid_request_error\"}}");

    add(&otlp, "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");

    char *vec = malloc(256 * 16), *b; size_t n = 0;
    for (int i = 0; i < 256; i++) n += sprintf(vec + n, "%s%.7f", i ? "," : "", (i * 37 % 101 - 50) / 800.0);
    if (asprintf(&b, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[%s]}],"
        "\"model\":\"text-embedding-3-small\",\"usage\":{\"prompt_tokens\":220,\"total_tokens\":220}}", vec) < 0) exit(1);
    whole(&emb_json, "200 OK", b); free(b); free(vec);

    const char *oa = "{\"id\":\"chatcmpl-BenchAbCdEfGhIjKlMnOp\",\"object\":\"chat.completion.chunk\",\"created\":1795384800,"
        "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[%s]%s}";
    char *d, *c;
    sse_head(&oa_sse);
    for (int i = 0; i < chunks; i++) {
        if (asprintf(&c, "{\"index\":0,\"delta\":{\"content\":\" tok%02d\"},\"finish_reason\":%s}", i % 100,
                     i == chunks - 1 ? "\"stop\"" : "null") < 0 || asprintf(&d, oa, c, "") < 0) exit(1);
        event(&oa_sse, NULL, d); free(c); free(d);
    }
    if (asprintf(&d, oa, "", ",\"usage\":{\"prompt_tokens\":220,\"completion_tokens\":64,\"total_tokens\":284}") < 0) exit(1);
    event(&oa_sse, NULL, d); free(d);
    event(&oa_sse, NULL, "[DONE]");
    add(&oa_sse, "0\r\n\r\n");

    sse_head(&an_sse);
    event(&an_sse, "message_start", "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_01Bench\",\"type\":\"message\","
        "\"role\":\"assistant\",\"model\":\"claude-sonnet-4-20250514\",\"content\":[],\"stop_reason\":null,"
        "\"usage\":{\"input_tokens\":220,\"output_tokens\":1}}}");
    event(&an_sse, "content_block_start",
        "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}");
    for (int i = 0; i < chunks; i++) {
        if (asprintf(&d, "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" tok%02d\"}}",
                     i % 100) < 0) exit(1);
        event(&an_sse, "content_block_delta", d); free(d);
    }
    event(&an_sse, "content_block_stop", "{\"type\":\"content_block_stop\",\"index\":0}");
    event(&an_sse, "message_delta", "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},"
        "\"usage\":{\"output_tokens\":64}}");
    event(&an_sse, "message_stop", "{\"type\":\"message_stop\"}");
    add(&an_sse, "0\r\n\r\n");
}

/* ---- connections ------------------------------------------------------- */
static void push(fifo *q, conn *c, uint64_t due) {
    c->due = due; c->next = NULL; c->queued = true;
    if (q->tail) q->tail->next = c; else q->head = c;
    q->tail = c;
}
static conn *pop_due(fifo *q, uint64_t t) {
    conn *c = q->head;
    if (!c || c->due > t) return NULL;
    if (!(q->head = c->next)) q->tail = NULL;
    c->queued = false;
    return c;
}
static void interest(conn *c, bool out) {
    if (c->want_out == out) return;
    c->want_out = out;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}
static void drop(conn *c) {
    if (c->dead) return;
    c->dead = true; close(c->fd); n_conn--;
    if (!c->queued) { c->next_free = graveyard; graveyard = c; }
}
static void bury(void) {
    while (graveyard) { conn *c = graveyard; graveyard = c->next_free; free(c->in); free(c); }
}
static void serve(conn *c);

/* Send the reply in progress until it ends, blocks, or has to be paced. */
static void pump(conn *c) {
    while (c->run) {
        blob *e = &c->run->ev[c->step];
        ssize_t k = send(c->fd, e->p + c->off, e->n - c->off, MSG_NOSIGNAL);
        if (k < 0) { if (errno == EAGAIN) interest(c, true); else drop(c); return; }
        if ((c->off += k) < e->n) continue;
        c->off = 0;
        if (++c->step == c->run->n) { c->run = NULL; break; }
        if (c->paced && c->step > 1 && c->step < c->run->n - 1) { push(&q_pace, c, c->due + interval_ns); return; }
    }
    interest(c, false);
    if (c->in_n) serve(c);                              /* pipelined request already buffered */
}
static void start(conn *c, const script *s, bool slow) {
    c->run = s; c->step = 0; c->off = 0; c->due = now_ns();
    if (slow) push(&q_delay, c, c->due + delay_ns); else pump(c);
}
static const char *header(const char *h, const char *end, const char *name) {
    size_t n = strlen(name);
    for (const char *p = memchr(h, '\n', end - h); p && p + 1 + n < end; p = memchr(p + 1, '\n', end - p - 1))
        if (!strncasecmp(p + 1, name, n)) return p + 1 + n;
    return NULL;
}
/* Answer the first complete request in the input buffer, if there is one. */
static void serve(conn *c) {
    if (c->run || c->queued) return;
    char *end = memmem(c->in, c->in_n, "\r\n\r\n", 4);
    if (!end) return;
    char *body = end + 4, *limit = c->in + c->in_n;
    size_t used, body_n = 0;
    const char *v;
    if ((v = header(c->in, end, "content-length:"))) {
        body_n = strtoul(v, NULL, 10);
        if ((size_t)(limit - body) < body_n) return;
        used = body - c->in + body_n;
    } else if (header(c->in, end, "transfer-encoding:")) {
        char *z = body;
        for (;;) {                                      /* walk the chunks */
            char *nl = memmem(z, limit - z, "\r\n", 2);
            if (!nl) return;
            size_t k = strtoul(z, NULL, 16);
            if ((size_t)(limit - nl) < k + 4) return;
            z = nl + k + 4;
            if (!k) break;
        }
        body_n = z - body; used = z - c->in;
    } else used = body - c->in;

    #define HAS(text) (memmem(body, body_n, text, sizeof text - 1) != NULL)
    const script *s;
    bool stream = HAS("\"stream\":true") || HAS("\"stream\": true"), slow = HAS("mock-slow");
    c->paced = stream && HAS("mock-paced");
    char *path = memchr(c->in, ' ', end - c->in); path = path ? path + 1 : c->in;
    static script stats;
    if (!strncmp(path, "/v1/chat/completions", 20) || !strncmp(path, "/chat/completions", 17)) s = stream ? &oa_sse : &oa_json;
    else if (!strncmp(path, "/v1/messages", 12)) s = stream ? &an_sse : &an_json;
    else if (!strncmp(path, "/v1/embeddings", 14)) s = &emb_json;
    else if (!strncmp(path, "/v1/traces", 10) || !strncmp(path, "/v1/metrics", 11)) s = &otlp;
    else if (!strncmp(path, "/stats", 6)) {
        char b[128]; snprintf(b, sizeof b, "{\"requests\":%lu,\"streams\":%lu,\"connections\":%lu}", n_req, n_stream, n_conn);
        for (int i = 0; i < stats.n; i++) free(stats.ev[i].p);
        stats.n = 0; whole(&stats, "200 OK", b); s = &stats;
    } else s = &notfound;
    if (s != &stats && s != &otlp) { n_req++; n_stream += stream; if ((error_every && n_req % error_every == 0) || HAS("mock-error")) s = &fail; }
    c->in_n -= used; memmove(c->in, c->in + used, c->in_n);
    start(c, s, slow);
}
static void readable(conn *c) {
    if (c->in_cap - c->in_n < 16384) c->in = realloc(c->in, c->in_cap += 65536);
    ssize_t k = recv(c->fd, c->in + c->in_n, c->in_cap - c->in_n, 0);
    if (k == 0 || (k < 0 && errno != EAGAIN)) { drop(c); return; }
    if (k > 0) { c->in_n += k; serve(c); }
}

int main(int argc, char **argv) {
    int port = 9001, one = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        long v = atol(argv[i + 1]);
        if (!strcmp(argv[i], "--port")) port = v;
        else if (!strcmp(argv[i], "--delay-ms")) delay_ns = v * 1000000ull;
        else if (!strcmp(argv[i], "--interval-us")) interval_ns = v * 1000ull;
        else if (!strcmp(argv[i], "--chunks")) chunks = v;
        else if (!strcmp(argv[i], "--error-every")) error_every = v;
        else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
    }
    build();
    int ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 4096)) die("listen");
    ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, ev[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &e);
    for (;;) {
        uint64_t due = UINT64_MAX, t = now_ns();
        if (q_delay.head) due = q_delay.head->due;
        if (q_pace.head && q_pace.head->due < due) due = q_pace.head->due;
        struct timespec ts = {0}, *to = NULL;
        if (due != UINT64_MAX) { if (due > t) { ts.tv_sec = (due - t) / 1000000000; ts.tv_nsec = (due - t) % 1000000000; } to = &ts; }
        int n = epoll_pwait2(ep, ev, 256, to, NULL);
        for (int i = 0; i < n; i++) {
            conn *c = ev[i].data.ptr;
            if (!c) {
                for (int fd; (fd = accept4(ls, NULL, NULL, SOCK_NONBLOCK)) >= 0; n_conn++) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    c = calloc(1, sizeof *c); c->fd = fd;
                    e.events = EPOLLIN; e.data.ptr = c; epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
                }
                continue;
            }
            if (c->dead) continue;
            if (ev[i].events & (EPOLLERR | EPOLLHUP)) { drop(c); continue; }
            if (ev[i].events & EPOLLIN) readable(c);
            if (!c->dead && (ev[i].events & EPOLLOUT) && !c->queued) pump(c);
        }
        t = now_ns();
        for (conn *c; (c = pop_due(&q_delay, t)) || (c = pop_due(&q_pace, t));) {
            if (c->dead) { c->next_free = graveyard; graveyard = c; } else pump(c);
        }
        bury();
    }
}
