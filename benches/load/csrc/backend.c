/* backend: single-threaded epoll HTTP/1.1 origin, built to be far cheaper than any proxy under test.
 *
 *   backend SPEC [SPEC...]      SPEC is PORT:BYTES, on 127.0.0.1
 *
 * Every request on PORT is answered 200 with a fixed body. Request bodies (content-length or chunked) are drained.
 * Pipelining, keep-alive and "connection: close" are honoured. Prints "READY" once all ports listen. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX 32768
#define RX_SIZE (256 * 1024)

enum body_state { NO_BODY, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_CRLF, TRAILER };

struct origin {
    int fd;
    char *response;
    size_t response_len;
};

struct conn {
    int fd;
    struct origin *origin;
    enum body_state body;
    int close_after, line_len, want_out;
    uint64_t remaining;
    char *head;
    size_t head_len;
    const char *out;
    size_t out_len;
    unsigned owed; /* responses not yet started because a large one is still being written */
};

static int ep;
static char rx[RX_SIZE];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void drop(struct conn *c) {
    close(c->fd);
    free(c->head);
    free(c);
}

static void watch(struct conn *c, int out) {
    if (c->want_out == out) return;
    struct epoll_event ev = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
    c->want_out = out;
}

/* Returns -1 when the connection is gone. */
static int flush_out(struct conn *c) {
    for (;;) {
        if (!c->out_len) {
            if (!c->owed) break;
            c->owed--;
            c->out = c->origin->response;
            c->out_len = c->origin->response_len;
        }
        ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) {
                watch(c, 1);
                return 0;
            }
            drop(c);
            return -1;
        }
        c->out += n;
        c->out_len -= n;
    }
    watch(c, 0);
    if (c->close_after && c->body == NO_BODY) {
        drop(c);
        return -1;
    }
    return 0;
}

static void parse_head(struct conn *c, const char *p, const char *end) {
    c->body = NO_BODY;
    const char *line = memchr(p, '\n', end - p);
    int http10 = line && line - p > 9 && !memcmp(line - 9, "HTTP/1.0", 8);
    c->close_after = http10;
    while (line && line + 1 < end) {
        line++;
        const char *next = memchr(line, '\n', end - line);
        size_t len = (next ? next : end) - line;
        if ((line[0] | 32) == 'c') {
            if (len > 15 && !strncasecmp(line, "content-length:", 15)) {
                c->remaining = strtoull(line + 15, NULL, 10);
                c->body = c->remaining ? LENGTH : NO_BODY;
            } else if (len > 11 && !strncasecmp(line, "connection:", 11)) {
                if (memmem(line, len, "close", 5)) c->close_after = 1;
                else if (memmem(line, len, "eep-alive", 9)) c->close_after = 0;
            }
        } else if ((line[0] | 32) == 't' && len > 18 && !strncasecmp(line, "transfer-encoding:", 18)) {
            c->body = CHUNK_SIZE;
            c->remaining = 0;
            c->line_len = 0;
        }
        line = next;
    }
}

/* Consumes body bytes; returns how many were used. Sets body to NO_BODY at the end. */
static size_t eat_body(struct conn *c, const char *p, size_t n) {
    size_t used = 0;
    while (used < n && c->body != NO_BODY) {
        char ch = p[used];
        switch (c->body) {
        case LENGTH:
        case CHUNK_DATA: {
            size_t take = n - used < c->remaining ? n - used : c->remaining;
            used += take;
            c->remaining -= take;
            if (!c->remaining) c->body = c->body == LENGTH ? NO_BODY : CHUNK_CRLF;
            break;
        }
        case CHUNK_SIZE:
            used++;
            if (ch == '\n') {
                c->body = c->remaining ? CHUNK_DATA : TRAILER;
                c->line_len = 0;
            } else if (ch != '\r' && c->line_len < 16) {
                int d = ch <= '9' ? ch - '0' : (ch | 32) - 'a' + 10;
                if (d >= 0 && d < 16) c->remaining = c->remaining * 16 + d, c->line_len++;
                else c->line_len = 99; /* chunk extension: skip */
            }
            break;
        case CHUNK_CRLF:
            used++;
            if (ch == '\n') c->body = CHUNK_SIZE, c->remaining = 0, c->line_len = 0;
            break;
        case TRAILER:
            used++;
            if (ch == '\n') {
                if (!c->line_len) c->body = NO_BODY;
                c->line_len = 0;
            } else if (ch != '\r') c->line_len++;
            break;
        default: break;
        }
    }
    return used;
}

static int feed(struct conn *c, const char *p, size_t n) {
    while (n) {
        if (c->body != NO_BODY) {
            size_t used = eat_body(c, p, n);
            p += used;
            n -= used;
            if (c->body == NO_BODY) c->owed++;
            continue;
        }
        if (!c->head_len) { /* common case: the whole head is in this read */
            const char *end = memmem(p, n, "\r\n\r\n", 4);
            if (end) {
                end += 4;
                parse_head(c, p, end);
                n -= end - p;
                p = end;
                if (c->body == NO_BODY) c->owed++;
                continue;
            }
        }
        if (!c->head && !(c->head = malloc(HEAD_MAX))) return -1;
        size_t from = c->head_len > 3 ? c->head_len - 3 : 0, take = HEAD_MAX - c->head_len;
        if (!take) return -1;
        if (take > n) take = n;
        memcpy(c->head + c->head_len, p, take);
        const char *end = memmem(c->head + from, c->head_len + take - from, "\r\n\r\n", 4);
        if (!end) {
            c->head_len += take;
            p += take;
            n -= take;
            continue;
        }
        end += 4;
        size_t used = end - c->head - c->head_len;
        parse_head(c, c->head, end);
        c->head_len = 0;
        p += used;
        n -= used;
        if (c->body == NO_BODY) c->owed++;
    }
    return 0;
}

static struct origin *listen_on(const char *spec) {
    struct origin *o = calloc(1, sizeof *o);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int port, one = 1;
    size_t body_len;
    if (sscanf(spec, "%d:%zu", &port, &body_len) != 2) fprintf(stderr, "bad SPEC %s\n", spec), exit(2);
    a.sin_port = htons(port);
    o->response = malloc(body_len + 512);
    int head = sprintf(o->response, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %zu\r\n\r\n", body_len);
    for (size_t i = 0; i < body_len; i++) o->response[head + i] = 'a' + i % 26;
    o->response_len = head + body_len;

    o->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(o->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(o->fd, (struct sockaddr *)&a, sizeof a) || listen(o->fd, 4096)) die(spec);
    return o;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct origin *origins[64];
    int n_origins = argc - 1;
    if (n_origins < 1 || n_origins > 64) return fprintf(stderr, "usage: backend PORT:BYTES ...\n"), 2;
    for (int i = 0; i < n_origins; i++) {
        origins[i] = listen_on(argv[i + 1]);
        struct epoll_event ev = {.events = EPOLLIN, .data.u64 = i};
        epoll_ctl(ep, EPOLL_CTL_ADD, origins[i]->fd, &ev);
    }
    printf("READY\n");
    fflush(stdout);
    struct epoll_event evs[512];
    for (;;) {
        int n = epoll_wait(ep, evs, 512, -1);
        for (int i = 0; i < n; i++) {
            if (evs[i].data.u64 < 64) {
                struct origin *o = origins[evs[i].data.u64];
                int fd, one = 1;
                while ((fd = accept4(o->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    struct conn *c = calloc(1, sizeof *c);
                    c->fd = fd;
                    c->origin = o;
                    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
                }
                continue;
            }
            struct conn *c = evs[i].data.ptr;
            if (evs[i].events & EPOLLOUT && flush_out(c) < 0) continue;
            if (!(evs[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
            ssize_t got = read(c->fd, rx, sizeof rx);
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN) continue;
                drop(c);
                continue;
            }
            if (feed(c, rx, got) < 0) {
                drop(c);
                continue;
            }
            if (!c->want_out) flush_out(c);
        }
    }
}
