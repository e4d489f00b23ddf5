/* The upstream of the benchmark: answers chat requests in four dialects, as fast as one thread can.
 *
 *     mock PORT
 *
 * What it answers stands in the request's model, so that a gateway passes the order on without knowing:
 *
 *     "model":"mock-COUNT-PAUSE"    with "stream":true, COUNT pieces of text, PAUSE milliseconds apart (0: at once);
 *                                   without, one whole answer after PAUSE milliseconds
 *     "model":"mock-COUNT-PAUSE-call"  the same pieces, as those of a tool's arguments; not in the Gemini API, which sends
 *                                   those at once
 *
 * A path that ends in /messages is answered as Anthropic Messages, one in /responses as OpenAI Responses, one that asks
 * to generate content as the Gemini API (whose model and whose wish to stream stand in the path), every other POST as
 * OpenAI Chat Completions, and every GET with an empty list of models. Each piece of text holds `@` and the time at which it was written (CLOCK_MONOTONIC,
 * nanoseconds, 16 digits of hex), by which load.c knows how long it was under way.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 65536, EVENTS = 256, PIECES_AT_ONCE = 64, HEADROOM = 2048 };

typedef struct {
    char *data;
    size_t length, size;
} Buffer;

enum Dialect { CHAT, MESSAGES, RESPONSES, GEMINI };

typedef struct {
    int open, waiting, usage;
    enum Dialect dialect;
    int count, left, pause;     /* pieces of the answer, those still to write, ms between them */
    int begun;                  /* the stream's head was written */
    int calls;                  /* the pieces are of a tool's arguments */
    int streams;                /* 0: one whole answer */
    int active;                 /* an answer is being written */
    long long due;              /* ns; when the next piece is to be written */
    Buffer in, out;
    size_t sent;
} Peer;

static Peer *peers[MOST];
static int busy[MOST], busy_count; /* descriptors with an answer under way */
static int poller;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void reserve(Buffer *b, size_t more) {
    if (b->length + more <= b->size) return;
    while (b->size < b->length + more) b->size = b->size ? b->size * 2 : 8192;
    b->data = realloc(b->data, b->size);
    if (!b->data) fail("memory");
}

static void add(Buffer *b, const char *data, size_t length) {
    reserve(b, length);
    memcpy(b->data + b->length, data, length);
    b->length += length;
}

/* One piece of a body with unknown length: its size in hex, the text, a line end. */
static void piece(Buffer *b, const char *form, ...) {
    char text[HEADROOM], head[16];
    va_list arguments;
    va_start(arguments, form);
    int length = vsnprintf(text, sizeof text, form, arguments);
    va_end(arguments);
    if (length < 0 || length >= (int)sizeof text) abort();
    add(b, head, (size_t)snprintf(head, sizeof head, "%x\r\n", length));
    add(b, text, (size_t)length);
    add(b, "\r\n", 2);
}

#define CHUNK "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"mock\","
#define BLOCK "event: content_block_"
#define CALL "\"tool_calls\":[{\"index\":0,"
#define RESPONSE "\"response\":{\"id\":\"resp_mock\",\"object\":\"response\",\"created_at\":1700000000,\"model\":\"mock\","
#define PART "\"item_id\":\"msg_mock\",\"output_index\":0,\"content_index\":0,"
#define GENERATED "data: {\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"%s\"}]},\"index\":0%s}],"
#define BESIDE "\"usageMetadata\":{\"promptTokenCount\":20,\"candidatesTokenCount\":%d,\"totalTokenCount\":%d}," \
    "\"modelVersion\":\"mock\",\"responseId\":\"r-mock\"}"

/* One event of Responses: its kind, its number, and the rest of its fields. */
static void event(Peer *p, const char *kind, int number, const char *form, ...) {
    char rest[HEADROOM - 256];
    va_list arguments;
    va_start(arguments, form);
    vsnprintf(rest, sizeof rest, form, arguments);
    va_end(arguments);
    piece(&p->out, "event: response.%s\ndata: {\"type\":\"response.%s\",%s,\"sequence_number\":%d}\n\n", kind, kind, rest, number);
}

/* A piece of the arguments. */
static void argument(Peer *p, const char *text, int number) {
    if (p->dialect == RESPONSES)
        event(p, "function_call_arguments.delta", number, "\"item_id\":\"fc_mock\",\"output_index\":0,\"delta\":\"%s\"", text);
    else if (p->dialect == MESSAGES)
        piece(&p->out, BLOCK "delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\","
              "\"partial_json\":\"%s\"}}\n\n", text);
    else
        piece(&p->out, CHUNK "\"choices\":[{\"index\":0,\"delta\":{" CALL "\"function\":{\"arguments\":\"%s\"}}]},\"finish_reason\":null}]}\n\n", text);
}

/* The call, and the first bytes of its arguments. */
static void call_begins(Peer *p) {
    if (p->dialect == RESPONSES)
        event(p, "output_item.added", 1, "\"output_index\":0,\"item\":{\"id\":\"fc_mock\",\"type\":\"function_call\","
              "\"status\":\"in_progress\",\"call_id\":\"call_mock\",\"name\":\"write\",\"arguments\":\"\"}");
    else if (p->dialect == MESSAGES)
        piece(&p->out, BLOCK "start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\","
              "\"id\":\"call_mock\",\"name\":\"write\",\"input\":{}}}\n\n");
    else
        piece(&p->out, CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"," CALL "\"id\":\"call_mock\",\"type\":\"function\","
              "\"function\":{\"name\":\"write\",\"arguments\":\"\"}}]},\"finish_reason\":null}]}\n\n");
    argument(p, "{\\\"text\\\":\\\"", 2);
}

static void stream_head(Peer *p) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    add(&p->out, head, sizeof head - 1);
    if (p->dialect == GEMINI) return;
    if (p->dialect == RESPONSES) {
        event(p, "created", 0, RESPONSE "\"status\":\"in_progress\",\"output\":[]}");
        if (p->calls) {
            call_begins(p);
            return;
        }
        event(p, "output_item.added", 1, "\"output_index\":0,\"item\":{\"id\":\"msg_mock\",\"type\":\"message\","
              "\"status\":\"in_progress\",\"role\":\"assistant\",\"content\":[]}");
        event(p, "content_part.added", 2, PART "\"part\":{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[]}");
        return;
    }
    if (p->dialect == CHAT) {
        if (p->calls)
            call_begins(p);
        else
            piece(&p->out, CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n");
        return;
    }
    piece(&p->out, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_mock\",\"type\":\"message\","
          "\"role\":\"assistant\",\"model\":\"mock\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
          "\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\n");
    if (p->calls)
        call_begins(p);
    else
        piece(&p->out, BLOCK "start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
}

static void stream_piece(Peer *p, long long at) {
    char text[32];
    if (p->dialect == GEMINI) {
        snprintf(text, sizeof text, " @%016llx", at);
        piece(&p->out, GENERATED BESIDE "\r\n\r\n", text, "", p->count - p->left + 1, p->count - p->left + 21);
    } else if (p->calls) {
        snprintf(text, sizeof text, " @%016llx", at);
        argument(p, text, p->count - p->left + 3);
    } else if (p->dialect == RESPONSES)
        event(p, "output_text.delta", p->count - p->left + 3, PART "\"delta\":\" @%016llx\"", at);
    else if (p->dialect == MESSAGES)
        piece(&p->out, BLOCK "delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" @%016llx\"}}\n\n", at);
    else
        piece(&p->out, CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" @%016llx\"},\"finish_reason\":null}]}\n\n", at);
}

static void stream_end(Peer *p) {
    int count = p->count;
    if (p->calls) argument(p, "\\\"}", count + 3);
    if (p->dialect == GEMINI) {
        piece(&p->out, GENERATED BESIDE "\r\n\r\n", "", ",\"finishReason\":\"STOP\"", count, count + 20);
    } else if (p->dialect == RESPONSES) {
        if (p->calls)
            event(p, "output_item.done", count + 4, "\"output_index\":0,\"item\":{\"id\":\"fc_mock\",\"type\":\"function_call\","
                  "\"status\":\"completed\",\"call_id\":\"call_mock\",\"name\":\"write\"}");
        else {
            event(p, "output_text.done", count + 3, PART "\"text\":\"\"");
            event(p, "output_item.done", count + 4, "\"output_index\":0,\"item\":{\"id\":\"msg_mock\",\"type\":\"message\","
                  "\"status\":\"completed\",\"role\":\"assistant\",\"content\":[]}");
        }
        event(p, "completed", count + 5, RESPONSE "\"status\":\"completed\",\"output\":[],\"usage\":{\"input_tokens\":20,"
              "\"output_tokens\":%d,\"total_tokens\":%d}}", count, count + 20);
    } else if (p->dialect == MESSAGES) {
        piece(&p->out, BLOCK "stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
        piece(&p->out, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"%s\",\"stop_sequence\":null},"
              "\"usage\":{\"output_tokens\":%d}}\n\n", p->calls ? "tool_use" : "end_turn", count);
        piece(&p->out, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    } else {
        piece(&p->out, CHUNK "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"%s\"}]}\n\n", p->calls ? "tool_calls" : "stop");
        if (p->usage)
            piece(&p->out, CHUNK "\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n", count, count + 20);
        piece(&p->out, "data: [DONE]\n\n");
    }
    add(&p->out, "0\r\n\r\n", 5);
}

#define WORDS "The quick brown fox jumps over the lazy dog while the relay counts what it sees and passes the rest on. "

static void whole_answer(Peer *p) {
    static const char words[] = WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS "MOCK";
    char body[HEADROOM], head[128];
    int length;
    if (p->dialect == GEMINI)
        length = snprintf(body, sizeof body, "{\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"%s\"}]},"
                          "\"index\":0,\"finishReason\":\"STOP\"}]," BESIDE, words, 180, 200);
    else if (p->dialect == RESPONSES)
        length = snprintf(body, sizeof body, "{\"id\":\"resp_mock\",\"object\":\"response\",\"created_at\":1700000000,\"model\":\"mock\","
                          "\"status\":\"completed\",\"output\":[{\"id\":\"msg_mock\",\"type\":\"message\",\"status\":\"completed\","
                          "\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"%s\",\"annotations\":[]}]}],"
                          "\"usage\":{\"input_tokens\":20,\"output_tokens\":180,\"total_tokens\":200}}", words);
    else if (p->dialect == MESSAGES)
        length = snprintf(body, sizeof body, "{\"id\":\"msg_mock\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"mock\","
                          "\"content\":[{\"type\":\"text\",\"text\":\"%s\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,"
                          "\"usage\":{\"input_tokens\":20,\"output_tokens\":180}}", words);
    else
        length = snprintf(body, sizeof body, "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"mock\","
                          "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},\"finish_reason\":\"stop\"}],"
                          "\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":180,\"total_tokens\":200}}", words);
    add(&p->out, head, (size_t)snprintf(head, sizeof head,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", length));
    add(&p->out, body, (size_t)length);
}

static void hang_up(int fd) {
    Peer *p = peers[fd];
    for (int i = 0; i < busy_count; i++)
        if (busy[i] == fd) busy[i--] = busy[--busy_count];
    free(p->in.data);
    free(p->out.data);
    free(p);
    peers[fd] = NULL;
    close(fd);
}

/* Write what waits. False: the peer is gone. */
static int flush(int fd) {
    Peer *p = peers[fd];
    while (p->sent < p->out.length) {
        ssize_t n = send(fd, p->out.data + p->sent, p->out.length - p->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (n < 0) return 0;
        p->sent += (size_t)n;
    }
    int waiting = p->sent < p->out.length;
    if (!waiting) p->sent = p->out.length = 0;
    if (waiting != p->waiting) {
        struct epoll_event e = {.events = EPOLLIN | (waiting ? EPOLLOUT : 0), .data.fd = fd};
        p->waiting = waiting;
        epoll_ctl(poller, EPOLL_CTL_MOD, fd, &e);
    }
    return 1;
}

/* Where a request in the buffer ends, or 0 if it is not complete. `*body` is where its body begins. */
static size_t request_end(Buffer *b, size_t *body) {
    char *end = memmem(b->data, b->length, "\r\n\r\n", 4);
    if (!end) return 0;
    *body = (size_t)(end - b->data) + 4;
    size_t length = 0;
    for (char *line = b->data; line && line < end; line = memmem(line, (size_t)(end - line), "\r\n", 2)) {
        if (*line == '\r') line += 2;
        if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, NULL, 10);
    }
    return *body + length <= b->length ? *body + length : 0;
}

/* Begin the answer to the request in the buffer, if there is a complete one. */
static void answer(int fd) {
    Peer *p = peers[fd];
    size_t body, end;
    if (p->active || !p->in.length || !(end = request_end(&p->in, &body))) return;
    char *line_end = memmem(p->in.data, body, " HTTP/", 6);
    int count = 0, pause = 0;
    if (!strncmp(p->in.data, "GET ", 4)) {
        static const char none[] =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n{\"object\":\"list\",\"data\":[]}";
        add(&p->out, none, sizeof none - 1);
    } else {
        char *text = p->in.data + body;
        size_t length = end - body;
        size_t path = line_end ? (size_t)(line_end - p->in.data) : 0;
        char *generate = memmem(p->in.data, path, "enerateContent", 14);
        char *model = generate ? memmem(p->in.data, path, "/mock-", 6) : memmem(text, length, "\"mock-", 6);
        char *streams = memmem(text, length, "\"stream\"", 8);
        char call = 0;
        if (model) sscanf(model + 6, "%d-%d-%c", &count, &pause, &call);
        p->calls = call == 'c' && !generate;
        p->streams = generate ? memmem(p->in.data, path, ":streamG", 8) != NULL
                              : streams && memmem(streams, 16 < length ? 16 : length, "true", 4);
        p->usage = memmem(text, length, "include_usage", 13) != NULL;
        p->dialect = generate ? GEMINI
                     : path > 9 && !memcmp(line_end - 9, "/messages", 9) ? MESSAGES
                     : path > 10 && !memcmp(line_end - 10, "/responses", 10) ? RESPONSES : CHAT;
        p->count = p->left = count;
        p->begun = 0;
        p->pause = pause;
        p->active = 1;
        p->due = p->streams ? now() : now() + pause * 1000000LL;
        busy[busy_count++] = fd;
    }
    memmove(p->in.data, p->in.data + end, p->in.length - end);
    p->in.length -= end;
}

/* Write what is due of one answer. False: the peer is gone. */
static int proceed(int fd, long long at) {
    Peer *p = peers[fd];
    if (p->due > at || p->waiting) return 1;
    if (!p->streams) {
        whole_answer(p);
        p->active = 0;
        return flush(fd);
    }
    if (!p->begun) {
        p->begun = 1;
        stream_head(p);
    } else {
        /* Paced pieces are written one by one. Without a pause each has a send of its own too, several in a row. */
        for (int n = p->pause ? 1 : PIECES_AT_ONCE; n && p->left && !p->waiting; n--, p->left--) {
            stream_piece(p, now());
            if (!flush(fd)) return 0;
        }
        if (!p->left) {
            stream_end(p);
            p->active = 0;
        }
    }
    p->due += p->pause * 1000000LL;
    return flush(fd);
}

static void read_some(int fd) {
    Peer *p = peers[fd];
    for (;;) {
        reserve(&p->in, 65536);
        ssize_t n = recv(fd, p->in.data + p->in.length, 65536, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (n <= 0) {
            hang_up(fd);
            return;
        }
        p->in.length += (size_t)n;
        if (n < 65536) break;
    }
    answer(fd);
    if (!flush(fd)) hang_up(fd);
}

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: mock PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(arguments[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) fail("listen");
    socklen_t size = sizeof address;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    poller = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, ready[EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        /* Answers without a pause, or due within the millisecond that epoll counts in, must not wait. */
        int timeout = -1;
        long long at = now();
        for (int i = 0; i < busy_count && timeout; i++) {
            Peer *p = peers[busy[i]];
            if (p->waiting) continue;
            long long wait = (p->due - at + 999999) / 1000000;
            if (wait < 0) wait = 0;
            if (timeout < 0 || wait < timeout) timeout = (int)wait;
        }
        int found = epoll_wait(poller, ready, EVENTS, timeout);
        for (int i = 0; i < found; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                int peer;
                while ((peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (peer >= MOST) {
                        close(peer);
                        continue;
                    }
                    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    peers[peer] = calloc(1, sizeof(Peer));
                    struct epoll_event new = {.events = EPOLLIN, .data.fd = peer};
                    epoll_ctl(poller, EPOLL_CTL_ADD, peer, &new);
                }
                continue;
            }
            if (!peers[fd]) continue;
            if (ready[i].events & EPOLLOUT && !flush(fd)) {
                hang_up(fd);
                continue;
            }
            if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_some(fd);
        }
        at = now();
        for (int i = 0; i < busy_count;) {
            int fd = busy[i];
            if (!proceed(fd, at)) {
                hang_up(fd);
            } else if (!peers[fd]->active) {
                busy[i] = busy[--busy_count];
                answer(fd);
            } else {
                i++;
            }
        }
    }
}
