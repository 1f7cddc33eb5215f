/* kload: single-threaded epoll HTTP/1.1 load generator.
 *
 * Closed loop (default): every connection sends its next request as soon as the previous response is complete.
 * Open loop (-R): requests are due on a schedule that does not depend on the proxy; latency counts from the due time, so a
 * stalled proxy is charged for everything it held up (no coordinated omission).
 *
 *   -p PORT     port on 127.0.0.1                 -c N        connections (64)
 *   -d SECONDS  measured time (3)                 -w SECONDS  warm-up, not counted (0.5)
 *   -H HOST     host header                       -u PATH     request target (/)
 *   -b BYTES    POST with a body of BYTES         -f FILE     targets, one "HOST PATH [Header: value]" per line, taken at random
 *   -P          PROXY protocol v2 header (with the 0xD0 peer-principal TLV ztunnel sends) on every connection
 *   -D IP:PORT  destination written in that header (10.96.1.1:80)
 *   -n N        requests per connection, then reconnect (0: keep alive for ever)
 *   -R RATE     open loop, requests per second    -O          open loop with Poisson arrivals
 *   -I          idle mode: one request on each connection, print HELD, then hold them until stdin closes
 *
 * Prints START and END on stdout at the edges of the measured window, then one line of JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RX_SIZE (512 * 1024)
#define HEAD_MAX 16384
#define SUB 7 /* 2^7 linear steps per power of two: under 1% error */
#define BUCKETS ((64 - SUB) << SUB)

enum phase { CONNECTING, FREE, HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_CRLF, TRAILER, UNTIL_CLOSE };

struct request {
    char *data;
    size_t len;
};

struct conn {
    int fd, status, close_after, line_len, got_any, registered;
    enum phase phase;
    unsigned done;
    uint64_t due, remaining;
    struct request *req;
    size_t sent;
    int pp_sent;
    char *head;
    size_t head_len;
    struct conn *next_free;
};

static struct {
    int port, conns, pp, per_conn, idle, poisson;
    double seconds, warmup, rate;
    size_t body;
    const char *host, *path, *targets, *dst;
} opt = {.port = 8080, .conns = 64, .seconds = 3, .warmup = 0.5, .host = "bench.example.com", .path = "/", .dst = "10.96.1.1:80"};

static struct {
    uint64_t requests, bytes, non2xx, connect_err, read_err, reset_in_flight, closed_idle, conns_opened, s429;
} stat;

static uint64_t hist[BUCKETS], hist_max;
static double hist_sum;
static int ep, measuring, n_requests;
static struct request *requests;
static struct conn *free_list;
static char rx[RX_SIZE];
static unsigned char pp_header[256];
static size_t pp_len;
static uint64_t rng = 0x9E3779B97F4A7C15ull, now, due_next;
static unsigned src_ip;

static uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t next_random(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void record(uint64_t ns) {
    unsigned i;
    if (ns < (1u << SUB)) i = ns;
    else {
        int e = 63 - __builtin_clzll(ns);
        i = ((e - SUB + 1) << SUB) + ((ns >> (e - SUB)) & ((1 << SUB) - 1));
    }
    hist[i]++;
    hist_sum += ns;
    if (ns > hist_max) hist_max = ns;
}

static double percentile_us(double q) {
    uint64_t total = 0, want, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += hist[i];
    if (!total) return 0;
    want = ceil(total * q);
    for (int i = 0; i < BUCKETS; i++) {
        seen += hist[i];
        if (seen >= want && hist[i]) {
            if (i < (1 << SUB)) return i / 1e3;
            int e = (i >> SUB) + SUB - 1;
            uint64_t low = (1ull << e) + ((uint64_t)(i & ((1 << SUB) - 1)) << (e - SUB));
            return (low + (1ull << (e - SUB)) / 2) / 1e3;
        }
    }
    return hist_max / 1e3;
}

static void build_request(struct request *r, const char *host, const char *path, const char *header) {
    size_t cap = opt.body + strlen(host) + strlen(path) + (header ? strlen(header) : 0) + 256;
    r->data = malloc(cap);
    int n = sprintf(r->data, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: kload/1\r\nAccept: */*\r\n", opt.body ? "POST" : "GET", path, host);
    if (header) n += sprintf(r->data + n, "%s\r\n", header);
    if (opt.body) n += sprintf(r->data + n, "Content-Type: application/json\r\nContent-Length: %zu\r\n", opt.body);
    n += sprintf(r->data + n, "\r\n");
    if (opt.body) {
        memset(r->data + n, 'x', opt.body);
        const char json[] = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"";
        if (opt.body > sizeof json + 8) {
            memcpy(r->data + n, json, sizeof json - 1);
            memcpy(r->data + n + opt.body - 4, "\"}]}", 4);
        }
    }
    r->len = n + opt.body;
}

static void load_targets(void) {
    if (!opt.targets) {
        requests = malloc(sizeof *requests);
        build_request(requests, opt.host, opt.path, NULL);
        n_requests = 1;
        return;
    }
    FILE *f = fopen(opt.targets, "r");
    if (!f) perror(opt.targets), exit(1);
    char line[4096];
    int cap = 0;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *path = strchr(line, ' ');
        if (!path) continue;
        *path++ = 0;
        char *header = strchr(path, ' ');
        if (header) *header++ = 0;
        if (n_requests == cap) requests = realloc(requests, (cap = cap ? cap * 2 : 256) * sizeof *requests);
        build_request(&requests[n_requests++], line, path, header);
    }
    fclose(f);
    if (!n_requests) fprintf(stderr, "no targets\n"), exit(1);
}

static void build_pp(void) {
    static const char principal[] = "spiffe://cluster.local/ns/default/sa/client";
    static const unsigned char sig[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
    char ip[64];
    const char *colon = strchr(opt.dst, ':');
    snprintf(ip, sizeof ip, "%.*s", (int)(colon - opt.dst), opt.dst);
    unsigned char *p = pp_header;
    memcpy(p, sig, 12);
    p[12] = 0x21;
    p[13] = 0x11;
    uint16_t len = 12 + 3 + sizeof principal - 1;
    p[14] = len >> 8;
    p[15] = len;
    in_addr_t src = inet_addr("10.244.1.7"), dst = inet_addr(ip);
    memcpy(p + 16, &src, 4);
    memcpy(p + 20, &dst, 4);
    uint16_t sp = htons(41234), dp = htons(atoi(colon + 1));
    memcpy(p + 24, &sp, 2);
    memcpy(p + 26, &dp, 2);
    p[28] = 0xD0;
    p[29] = 0;
    p[30] = sizeof principal - 1;
    memcpy(p + 31, principal, sizeof principal - 1);
    pp_len = 16 + len;
}

static void dispatch(struct conn *c, uint64_t due);

static void lost(struct conn *c, int in_flight);

static int open_conn(struct conn *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) perror("socket"), exit(1);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (opt.per_conn || opt.conns > 10000) { /* spread over source addresses so that TIME_WAIT cannot use up the ports */
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        struct sockaddr_in s = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + src_ip++ % 32)};
        bind(c->fd, (struct sockaddr *)&s, sizeof s);
    }
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(opt.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int rc = connect(c->fd, (struct sockaddr *)&a, sizeof a);
    if (rc && errno != EINPROGRESS) {
        if (measuring) stat.connect_err++;
        close(c->fd);
        c->fd = -1;
        return -1;
    }
    if (measuring) stat.conns_opened++;
    c->done = c->head_len = 0;
    c->pp_sent = !opt.pp;
    c->phase = FREE;
    c->close_after = 0;
    c->req = NULL;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | (rc ? EPOLLOUT : 0), .data.ptr = c};
    c->registered = rc ? 1 : 0;
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
    if (rc) c->phase = CONNECTING;
    return 0;
}

static void want_out(struct conn *c, int on) {
    if (c->registered == on) return;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | (on ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
    c->registered = on;
}

static void push(struct conn *c) {
    if (c->sent >= c->req->len && c->pp_sent) return;
    ssize_t n;
    size_t header = 0;
    if (!c->pp_sent) {
        struct iovec v[2] = {{pp_header, pp_len}, {c->req->data, c->req->len}};
        n = writev(c->fd, v, 2);
        header = pp_len;
    } else n = send(c->fd, c->req->data + c->sent, c->req->len - c->sent, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno == EAGAIN) want_out(c, 1);
        else lost(c, 1);
        return;
    }
    if (header) {
        if ((size_t)n < header) fprintf(stderr, "short PROXY header write\n"), exit(1);
        n -= header;
        c->pp_sent = 1;
    }
    c->sent += n;
    want_out(c, c->sent < c->req->len);
}

static void dispatch(struct conn *c, uint64_t due) {
    c->req = &requests[n_requests == 1 ? 0 : next_random() % n_requests];
    c->sent = 0;
    c->due = due;
    c->phase = HEAD;
    c->got_any = 0;
    push(c);
}

static void make_free(struct conn *c) {
    c->phase = FREE;
    if (opt.idle) return;
    if (opt.rate > 0) {
        c->next_free = free_list;
        free_list = c;
    } else dispatch(c, now);
}

static void reopen(struct conn *c) {
    epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
    close(c->fd);
    if (open_conn(c) == 0 && c->phase == FREE) make_free(c);
}

static void lost(struct conn *c, int in_flight) {
    if (measuring) {
        if (in_flight) stat.reset_in_flight++;
        else stat.closed_idle++;
    }
    if (!in_flight && opt.rate > 0) { /* unlink from the free list */
        struct conn **p = &free_list;
        while (*p && *p != c) p = &(*p)->next_free;
        if (*p) *p = c->next_free;
    }
    reopen(c);
}

static void complete(struct conn *c) {
    if (measuring) {
        stat.requests++;
        record(now - c->due);
        if (c->status < 200 || c->status > 299) stat.non2xx++;
        if (c->status == 429) stat.s429++;
    }
    c->done++;
    if (c->close_after || (opt.per_conn && c->done >= (unsigned)opt.per_conn)) reopen(c);
    else make_free(c);
}

static void parse_head(struct conn *c, const char *p, const char *end) {
    c->status = atoi(p + 9);
    c->phase = UNTIL_CLOSE;
    int known = 0;
    if (c->status == 204 || c->status == 304) known = 1, c->phase = LENGTH, c->remaining = 0;
    const char *line = memchr(p, '\n', end - p);
    while (line && line + 1 < end) {
        line++;
        const char *next = memchr(line, '\n', end - line);
        size_t len = (next ? next : end) - line;
        char first = line[0] | 32;
        if (first == 'c' && len > 11) {
            if (!known && len > 15 && !strncasecmp(line, "content-length:", 15)) {
                c->remaining = strtoull(line + 15, NULL, 10);
                c->phase = LENGTH;
            } else if (!strncasecmp(line, "connection:", 11) && memmem(line, len, "close", 5)) c->close_after = 1;
        } else if (first == 't' && !known && len > 18 && !strncasecmp(line, "transfer-encoding:", 18)) {
            c->phase = CHUNK_SIZE;
            c->remaining = 0;
            c->line_len = 0;
        }
        line = next;
    }
}

/* Feeds response bytes; returns 1 if the response is complete, 0 if more is needed, -1 on garbage. */
static int feed(struct conn *c, const char *p, size_t n) {
    if (c->phase == HEAD) {
        const char *end;
        if (!c->head_len && (end = memmem(p, n, "\r\n\r\n", 4))) {
            end += 4;
            parse_head(c, p, end);
            n -= end - p;
            p = end;
        } else {
            if (!c->head) c->head = malloc(HEAD_MAX);
            size_t before = c->head_len, take = n < HEAD_MAX - before ? n : HEAD_MAX - before;
            memcpy(c->head + before, p, take);
            c->head_len += take;
            if (!(end = memmem(c->head, c->head_len, "\r\n\r\n", 4))) return take < n ? -1 : 0;
            end += 4;
            parse_head(c, c->head, end);
            size_t used = end - c->head - before;
            c->head_len = 0;
            p += used;
            n -= used;
        }
        if (c->status == 100) {
            c->phase = HEAD;
            return n ? feed(c, p, n) : 0;
        }
    }
    if (c->phase == LENGTH) {
        c->remaining -= n < c->remaining ? n : c->remaining;
        return !c->remaining;
    }
    if (c->phase == UNTIL_CLOSE) return 0;
    for (size_t i = 0; i < n;) {
        char ch = p[i];
        switch (c->phase) {
        case CHUNK_DATA: {
            size_t take = n - i < c->remaining ? n - i : c->remaining;
            i += take;
            c->remaining -= take;
            if (!c->remaining) c->phase = CHUNK_CRLF;
            break;
        }
        case CHUNK_SIZE:
            i++;
            if (ch == '\n') c->phase = c->remaining ? CHUNK_DATA : TRAILER, c->line_len = 0;
            else if (ch != '\r') {
                int d = ch <= '9' ? ch - '0' : (ch | 32) - 'a' + 10;
                if (d < 0 || d > 15) return -1;
                c->remaining = c->remaining * 16 + d;
            }
            break;
        case CHUNK_CRLF:
            i++;
            if (ch == '\n') c->phase = CHUNK_SIZE, c->remaining = 0;
            break;
        case TRAILER:
            i++;
            if (ch == '\n') {
                if (!c->line_len) return 1;
                c->line_len = 0;
            } else if (ch != '\r') c->line_len++;
            break;
        default: return -1;
        }
    }
    return 0;
}

static void readable(struct conn *c) {
    ssize_t n = recv(c->fd, rx, sizeof rx, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        int in_flight = c->phase != FREE && c->phase != CONNECTING;
        if (n == 0 && c->phase == UNTIL_CLOSE) {
            c->close_after = 1;
            complete(c);
        } else lost(c, in_flight);
        return;
    }
    if (measuring) stat.bytes += n;
    if (c->phase == FREE) { /* bytes nobody asked for, e.g. a 408 before close */
        lost(c, 0);
        return;
    }
    int r = feed(c, rx, n);
    if (r < 0) {
        stat.read_err++;
        reopen(c);
    } else if (r) complete(c);
}

static double cpu_seconds(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static void schedule_next(void) {
    double gap = 1e9 / opt.rate;
    if (opt.poisson) gap *= -log(((next_random() >> 11) + 1) * (1.0 / 9007199254740993.0));
    due_next += (uint64_t)gap;
}

int main(int argc, char **argv) {
    int o;
    while ((o = getopt(argc, argv, "p:c:d:w:H:u:b:f:PD:n:R:OI")) != -1) switch (o) {
        case 'p': opt.port = atoi(optarg); break;
        case 'c': opt.conns = atoi(optarg); break;
        case 'd': opt.seconds = atof(optarg); break;
        case 'w': opt.warmup = atof(optarg); break;
        case 'H': opt.host = optarg; break;
        case 'u': opt.path = optarg; break;
        case 'b': opt.body = strtoull(optarg, NULL, 10); break;
        case 'f': opt.targets = optarg; break;
        case 'P': opt.pp = 1; break;
        case 'D': opt.dst = optarg; break;
        case 'n': opt.per_conn = atoi(optarg); break;
        case 'R': opt.rate = atof(optarg); break;
        case 'O': opt.poisson = 1; break;
        case 'I': opt.idle = 1; break;
        default: return 2;
        }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000);
    struct rlimit lim = {opt.conns + 512, opt.conns + 512};
    if (opt.conns > 900) setrlimit(RLIMIT_NOFILE, &lim);
    load_targets();
    build_pp();
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct conn *conns = calloc(opt.conns, sizeof *conns);
    now = clock_ns();
    if (opt.idle) { /* open in small batches so that no listen queue overflows */
        int held = 0;
        for (int i = 0; i < opt.conns; i++) {
            struct conn *c = &conns[i];
            if (open_conn(c)) continue;
            struct timeval tv = {5, 0};
            fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) & ~O_NONBLOCK);
            setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
            dispatch(c, now);
            int r = 0;
            while (!r) {
                ssize_t n = recv(c->fd, rx, sizeof rx, 0);
                if (n <= 0) break;
                r = feed(c, rx, n);
            }
            if (r == 1 && c->status == 200) held++;
        }
        printf("HELD %d\n", held);
        fflush(stdout);
        while (getchar() != EOF) {}
        return 0;
    }
    uint64_t start = now, begin = start + opt.warmup * 1e9, stop = begin + opt.seconds * 1e9;
    due_next = start;
    for (int i = 0; i < opt.conns; i++)
        if (open_conn(&conns[i]) == 0 && conns[i].phase == FREE) make_free(&conns[i]);
    struct epoll_event evs[512];
    double cpu0 = 0;
    uint64_t unsent = 0;
    for (;;) {
        now = clock_ns();
        if (!measuring && now >= begin) {
            measuring = 1;
            cpu0 = cpu_seconds();
            printf("START\n");
            fflush(stdout);
        }
        if (now >= stop) break;
        uint64_t wake = measuring ? stop : begin;
        if (opt.rate > 0) {
            while (free_list && due_next <= now) {
                struct conn *c = free_list;
                free_list = c->next_free;
                uint64_t due = due_next;
                schedule_next();
                dispatch(c, due);
            }
            if (free_list && due_next < wake) wake = due_next;
        }
        uint64_t wait = wake > now ? wake - now : 0;
        struct timespec ts = {wait / 1000000000ull, wait % 1000000000ull};
        int n = epoll_pwait2(ep, evs, 512, &ts, NULL);
        now = clock_ns();
        for (int i = 0; i < n; i++) {
            struct conn *c = evs[i].data.ptr;
            if (c->fd < 0) continue;
            if (c->phase == CONNECTING) {
                int err = 0;
                socklen_t l = sizeof err;
                getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &l);
                if (err) {
                    if (measuring) stat.connect_err++;
                    reopen(c);
                    continue;
                }
                want_out(c, 0);
                make_free(c);
                continue;
            }
            if (evs[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
                readable(c);
                continue;
            }
            if (evs[i].events & EPOLLOUT && c->req) push(c);
        }
        if (opt.per_conn)
            for (int i = 0; i < opt.conns && stat.connect_err; i++)
                if (conns[i].fd < 0) open_conn(&conns[i]);
    }
    double cpu = cpu_seconds() - cpu0;
    if (opt.rate > 0)
        while (due_next < stop) unsent++, schedule_next();
    printf("END\n");
    printf("{\"requests\":%lu,\"seconds\":%.6f,\"rps\":%.1f,\"bytes\":%lu,\"non2xx\":%lu,\"s429\":%lu,\"connect_err\":%lu,\"read_err\":%lu,"
           "\"reset_in_flight\":%lu,\"closed_idle\":%lu,\"conns_opened\":%lu,\"unsent\":%lu,\"client_cpu\":%.4f,"
           "\"lat_us\":{\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}}\n",
           stat.requests, (now - begin) / 1e9, stat.requests / ((now - begin) / 1e9), stat.bytes, stat.non2xx, stat.s429, stat.connect_err,
           stat.read_err, stat.reset_in_flight, stat.closed_idle, stat.conns_opened, unsent, cpu,
           stat.requests ? hist_sum / stat.requests / 1e3 : 0,
           percentile_us(.5), percentile_us(.9), percentile_us(.99), percentile_us(.999), hist_max / 1e3);
    return 0;
}
