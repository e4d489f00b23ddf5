/* The client of the benchmark: sends one request over and over, and tells how that went as one line of JSON.
 *
 *     load -p PORT [-P PATH] [-H HEADER]... -b FILE [-m TEXT] [-c CONNECTIONS] [-n REQUESTS] [-t SECONDS] [-r RATE]
 *
 *     -b FILE   the body               -c  requests at a time (1)        -n  requests in all (no limit)
 *     -m TEXT   what a good answer     -t  seconds in which requests     -r  requests a second, sent when they are due
 *               holds                      begin (no limit)                  and not when the one before is answered
 *
 * A request is good if it is answered with status 200, to its end, with TEXT in it. Latencies are microseconds: `p50` and
 * `p99` of whole requests, `first` until the first byte, and `piece` of each `@` and time in a stream (see mock.c).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, READ = 65536, HEAD = 16384, CARRY = 32, STAMP = 17, GRACE = 20 };
static const unsigned CLOCK = 0xffffffff; /* what epoll calls the timer */
enum Part { IN_HEAD, IN_BODY, IN_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER };

typedef struct {
    int fd, active, status, good, first, closing, line;
    enum Part part;
    long long began, left;  /* ns; bytes of the body or chunk that are missing, -1: until the connection ends */
    size_t sent, head_length, carried;
    char head[HEAD], carry[CARRY];
} Connection;

typedef struct {
    unsigned *values;
    size_t count, size;
} Times;

static struct sockaddr_in address = {.sin_family = AF_INET};
static Connection *connections;
static int *idle, idle_count, running, poller;
static char *request, *marker = "";
static size_t request_length;
static long good, bad, begun, pieces;
static Times whole, first, under_way;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void note(Times *t, long long nanoseconds) {
    if (t->count == t->size) {
        t->size = t->size ? t->size * 2 : 4096;
        t->values = realloc(t->values, t->size * sizeof *t->values);
        if (!t->values) fail("memory");
    }
    t->values[t->count++] = nanoseconds < 0 ? 0 : (unsigned)(nanoseconds / 1000);
}

static int ascending(const void *a, const void *b) {
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

static unsigned quantile(Times *t, double share) {
    if (!t->count) return 0;
    return t->values[(size_t)(share * (double)(t->count - 1) + 0.5)];
}

static void drop(Connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static void finish(Connection *c, int complete) {
    long long at = now();
    if (complete && c->status == 200 && c->good) {
        good++;
        note(&whole, at - c->began);
    } else {
        bad++;
    }
    c->active = 0;
    running--;
    if (!complete || c->closing) drop(c);
    idle[idle_count++] = (int)(c - connections);
}

/* Wait for room to write only while there is something to write. */
static void watch(Connection *c, int operation, int writing) {
    struct epoll_event e = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.u32 = (unsigned)(c - connections)};
    epoll_ctl(poller, operation, c->fd, &e);
}

static void dial(Connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) fail("connect");
    watch(c, EPOLL_CTL_ADD, 1);
}

static void push(Connection *c) {
    while (c->sent < request_length) {
        ssize_t n = send(c->fd, request + c->sent, request_length - c->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            watch(c, EPOLL_CTL_MOD, 1);
            return;
        }
        if (n < 0) {
            finish(c, 0);
            return;
        }
        c->sent += (size_t)n;
    }
    watch(c, EPOLL_CTL_MOD, 0);
}

static void start(long long due) {
    Connection *c = &connections[idle[--idle_count]];
    c->active = 1;
    c->began = due;
    c->sent = c->head_length = c->carried = 0;
    c->status = c->good = c->first = c->closing = c->line = 0;
    c->part = IN_HEAD;
    c->good = !*marker;
    begun++;
    running++;
    if (c->fd < 0) dial(c);
    else push(c);
}

/* Look at a piece of the body: for the marker, and for times. Either may be cut anywhere. */
static void look(Connection *c, const char *data, size_t length) {
    static char text[CARRY + READ];
    memcpy(text, c->carry, c->carried);
    memcpy(text + c->carried, data, length);
    size_t total = c->carried + length, old = c->carried;
    if (!c->good) c->good = memmem(text, total, marker, strlen(marker)) != NULL;
    long long at = 0;
    for (char *p = text; (p = memchr(p, '@', total - (size_t)(p - text))) != NULL; p++) {
        size_t end = (size_t)(p - text) + STAMP;
        /* What was complete in the bytes carried over was counted then. */
        if (end > total) break;
        if (end <= old) continue;
        char digits[STAMP] = {0};
        memcpy(digits, p + 1, STAMP - 1);
        if (!at) at = now();
        note(&under_way, at - (long long)strtoull(digits, NULL, 16));
        pieces++;
    }
    c->carried = total < CARRY ? total : CARRY;
    memcpy(c->carry, text + total - c->carried, c->carried);
}

/* What the head says. False: it is not HTTP. */
static int read_head(Connection *c) {
    char *text = c->head;
    if (sscanf(text, "HTTP/1.%*d %d", &c->status) != 1) return 0;
    c->left = -1;
    c->part = IN_BODY;
    for (char *line = strstr(text, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, "content-length:", 15)) c->left = strtoll(line + 15, NULL, 10);
        if (!strncasecmp(line, "connection: close", 17)) c->closing = 1;
        if (!strncasecmp(line, "transfer-encoding: chunked", 26)) c->part = IN_SIZE;
    }
    if (c->part == IN_BODY && c->left < 0) c->closing = 1;
    return 1;
}

/* One byte of a chunk's size, of the line end after its data, or of the trailer. True: the answer is complete. */
static int frame(Connection *c, char byte) {
    switch (c->part) {
    case IN_SIZE:
        if (byte == '\n') {
            c->head[c->line] = 0;
            c->left = strtoll(c->head, NULL, 16);
            c->line = 0;
            c->part = c->left ? IN_CHUNK : IN_TRAILER;
        } else if (c->line < 32) {
            c->head[c->line++] = byte;
        }
        return 0;
    case AFTER_CHUNK:
        if (byte == '\n') c->part = IN_SIZE;
        return 0;
    default:
        if (byte != '\n') {
            c->line += byte != '\r';
            return 0;
        }
        if (!c->line) return 1;
        c->line = 0;
        return 0;
    }
}

/* Take in what was read. True: the answer is complete. */
static int take(Connection *c, const char *data, size_t length) {
    if (!c->first) {
        c->first = 1;
        note(&first, now() - c->began);
    }
    if (c->part == IN_HEAD) {
        size_t before = c->head_length, room = HEAD - 1 - before, n = length < room ? length : room;
        memcpy(c->head + before, data, n);
        c->head_length += n;
        c->head[c->head_length] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end) return 0;
        size_t used = (size_t)(end - c->head) + 4 - before;
        end[2] = 0;
        if (!read_head(c)) return 0;
        data += used;
        length -= used;
    }
    if (c->part == IN_BODY && !c->left) return 1;
    while (length) {
        if (c->part == IN_BODY || c->part == IN_CHUNK) {
            size_t n = c->left >= 0 && (size_t)c->left < length ? (size_t)c->left : length;
            look(c, data, n);
            data += n;
            length -= n;
            if (c->left < 0) continue;
            c->left -= (long long)n;
            if (c->left) continue;
            if (c->part == IN_BODY) return 1;
            c->part = AFTER_CHUNK;
        } else {
            length--;
            if (frame(c, *data++)) return 1;
        }
    }
    return 0;
}

static void receive(Connection *c) {
    static char data[READ];
    while (c->fd >= 0) {
        ssize_t n = recv(c->fd, data, READ, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n <= 0) {
            if (c->active) finish(c, n == 0 && c->part == IN_BODY && c->left < 0);
            else drop(c);
            return;
        }
        if (!c->active) {
            drop(c);
            return;
        }
        if (take(c, data, (size_t)n)) {
            finish(c, 1);
            return;
        }
        if (n < READ) return;
    }
}

static char *read_file(const char *name, size_t *length) {
    FILE *file = fopen(name, "rb");
    if (!file) fail(name);
    size_t size = 1 << 20;
    char *text = malloc(size);
    *length = fread(text, 1, size, file);
    if (*length == size) {
        fprintf(stderr, "%s is longer than a megabyte\n", name);
        exit(1);
    }
    fclose(file);
    return text;
}

/* Have the timer ring at a time. epoll's own wait counts in milliseconds, which is more than some answers take. */
static void set(int timer, long long at) {
    struct itimerspec when = {.it_value = {.tv_sec = at / 1000000000LL, .tv_nsec = at % 1000000000LL}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int count, char **arguments) {
    char *path = "/v1/chat/completions", *file = NULL, headers[4096] = "";
    int size = 1, port = 0, option;
    long most = 0;
    double seconds = 0, rate = 0;
    while ((option = getopt(count, arguments, "p:P:H:b:m:c:n:t:r:")) != -1) switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'P': path = optarg; break;
        case 'b': file = optarg; break;
        case 'm': marker = optarg; break;
        case 'c': size = atoi(optarg); break;
        case 'n': most = atol(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'H':
            if (strlen(headers) + strlen(optarg) + 3 > sizeof headers) return 2;
            strcat(strcat(headers, optarg), "\r\n");
            break;
        default: return 2;
    }
    if (!port || !file || size < 1 || strlen(marker) >= CARRY || (!most && seconds <= 0)) {
        fprintf(stderr, "load: -p, -b, and -n or -t are needed; -m takes up to %d characters\n", CARRY - 1);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    address.sin_port = htons((unsigned short)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    size_t length;
    char *body = read_file(file, &length);
    request = malloc(length + 8192);
    request_length = (size_t)sprintf(request,
        "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n%scontent-length: %zu\r\n\r\n",
        path, port, headers, length);
    memcpy(request + request_length, body, length);
    request_length += length;
    connections = calloc((size_t)size, sizeof *connections);
    idle = calloc((size_t)size, sizeof *idle);
    for (int i = size - 1; i >= 0; i--) {
        connections[i].fd = -1;
        idle[idle_count++] = i;
    }
    poller = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event tick = {.events = EPOLLIN, .data.u32 = CLOCK};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &tick);
    long long opened = now(), end = seconds > 0 ? opened + (long long)(seconds * 1e9) : 0, due = opened, last = opened;
    struct epoll_event ready[EVENTS];
    for (;;) {
        long long at = now();
        int more = (!most || begun < most) && (!end || at < end);
        while (more && idle_count && (rate <= 0 || due <= at)) {
            start(rate > 0 ? due : now());
            if (rate > 0) due += (long long)(1e9 / rate);
            more = !most || begun < most;
        }
        if (!more && !running) break;
        /* Nobody answers for so long only if nobody ever will. */
        if (at - last > GRACE * 1000000000LL) break;
        if (more && rate > 0 && idle_count) set(timer, due);
        int found = epoll_wait(poller, ready, EVENTS, 1000);
        if (found > 0) last = now();
        for (int i = 0; i < found; i++) {
            if (ready[i].data.u32 == CLOCK) {
                unsigned long long ticks;
                if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) fail("timer");
                continue;
            }
            Connection *c = &connections[ready[i].data.u32];
            if (c->fd < 0) continue;
            if (ready[i].events & EPOLLOUT && c->active) push(c);
            if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
        }
    }
    bad += running;
    double took = (double)(now() - opened) / 1e9;
    Times *all[] = {&whole, &first, &under_way};
    for (int i = 0; i < 3; i++) qsort(all[i]->values, all[i]->count, sizeof(unsigned), ascending);
    printf("{\"ok\":%ld,\"bad\":%ld,\"seconds\":%.4f,\"per_second\":%.1f,\"p50\":%u,\"p99\":%u,\"first_p50\":%u,\"first_p99\":%u,"
           "\"pieces\":%ld,\"piece_p50\":%u,\"piece_p99\":%u}\n", good, bad, took, (double)good / took, quantile(&whole, 0.5),
           quantile(&whole, 0.99), quantile(&first, 0.5), quantile(&first, 0.99), pieces, quantile(&under_way, 0.5),
           quantile(&under_way, 0.99));
    return 0;
}
