/* The load of the benchmarks: WebSocket clients, many in one thread.
 *
 *     loadgen roundtrip --connections 64 --payload 128 --in-flight 16 --seconds 3 --warmup 1
 *     loadgen rate      --connections 64 --payload 128 --rate 10000 --seconds 3 --warmup 1
 *     loadgen handshake --connections 32 --seconds 3 --warmup 1
 *     loadgen idle      --connections 8000
 *
 * with --host, --port, --path and any number of --header 'Name: value'. With --header-file FILE each
 * handshake sends one line of the file more, in turn and from the first again after the last; the
 * first to send is line --header-start, from 0, and the JSON says as `begun` how many were sent.
 * --preface LINE is sent before the request (the PROXY protocol, version 1).
 * `--payload mixed` is a fixed pseudo-random mix of 16 B to 32 KiB. With --json the messages are text
 * and look like those of a chat; without they are binary. One JSON object is written to stdout; with --marks a line
 * `begin` and a line `end` on stderr enclose what was measured, so that another program can read the
 * proxy's own clock at both. It ends by itself, at the latest after --limit seconds.
 *
 * roundtrip  closed loop: each connection keeps --in-flight messages under way
 * rate       open loop: message i is due at start + i / rate whatever came back so far, and its
 *            latency counts from then on, so that a stall is charged to all that it delays; what is
 *            not back at the end counts with its age
 * handshake  connect, upgrade, check the answer, exchange close frames, hang up; again. With
 *            --refused STATUS that must be the answer, and after a 101 the server's close frame
 * idle       opens the connections, sends one message over each, writes its JSON and then holds them
 *            until stdin ends, and answers pings; from one source address for each 20,000 connections
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define SECOND UINT64_C(1000000000)

enum {
    READ_SIZE = 256 * 1024,
    EVENTS = 512,
    MAX_REQUEST = 16 * 1024,
    MAX_ANSWER = 4096,
    MIXED_FRAMES = 1024,
    RATE_FRAMES = 64,
    RATE_RING = 4096,          /* messages of one connection that may be under way at a fixed rate */
    PER_ADDRESS = 20000,       /* connections from one source address */
    CONNECTING = 64,           /* connections that are being opened at a time */
    MANTISSA = 7,              /* bits: the histogram is exact to 1/128 */
    BUCKETS = 64 << MANTISSA,
};

/* The answer that belongs to the key of RFC 6455 section 1.3, which every request carries. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum mode { ROUNDTRIP, RATE, HANDSHAKE, IDLE };
enum state { UNUSED, CONNECTS, SHAKES, OPEN, LEAVES };

struct options {
    enum mode mode;
    const char *host;
    int port;
    const char *path;
    const char *header_file;
    uint64_t header_start;
    const char *preface;
    int refused; /* the status of a refusal; 0: the handshake must succeed */
    int connections;
    uint32_t payload; /* 0: mixed */
    int in_flight;
    double rate;
    double seconds;
    double warmup;
    int limit;
    bool marks;
    bool json;
};

struct connection {
    int fd;
    enum state state;
    uint32_t watched;
    uint64_t began; /* of its handshake */
    char *answer;   /* a response head that is not whole */
    size_t answer_length;
    uint8_t header[10]; /* of a frame, not whole */
    uint8_t header_length;
    uint64_t length;    /* payload bytes of the frame under way, */
    uint64_t remaining; /* and how many of them are still to come */
    bool inside;        /* a frame is under way */
    uint32_t frame;     /* next frame of the tape to send */
    uint32_t expected;  /* next frame of the tape to come back */
    uint32_t unsent;    /* frames to send */
    size_t sent;        /* bytes sent of the next frame */
    uint64_t *times;    /* ring: when each message under way was (to be) sent */
    uint32_t first, under_way;
};

static struct options options = {
    .host = "127.0.0.1", .path = "/", .connections = 64, .payload = 128, .in_flight = 1,
    .rate = 10000, .seconds = 3, .warmup = 1, .limit = 0,
};
static char request[MAX_REQUEST]; /* without its last header and the empty line */
static size_t request_length;
static char **lines; /* of --header-file */
static uint64_t line_count, begun;
static uint8_t input[READ_SIZE];
static int epoll;
static struct connection *connections;
static struct sockaddr_in target;

/* The tape: frames in the order of sending, twice over, so that a run of frames is contiguous. */
static uint8_t *tape;
static size_t *tape_at;
static uint32_t *tape_payload;
static uint32_t tape_frames;
static uint32_t ring_size;

static uint64_t measured_from, measured_to;
static bool measuring;
static uint64_t messages, bytes, errors, overruns;
static uint64_t histogram[BUCKETS], highest;
static char first_error[160];

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* --- latencies: a histogram of logarithmic buckets, each split in 128 ---------------------------- */

static uint32_t bucket_of(uint64_t value)
{
    if (value < 1u << MANTISSA)
        return (uint32_t)value;
    int shift = 63 - __builtin_clzll(value) - MANTISSA;
    return ((uint32_t)(shift + 1) << MANTISSA) + (uint32_t)((value >> shift) - (1u << MANTISSA));
}

static uint64_t value_of(uint32_t bucket)
{
    uint32_t group = bucket >> MANTISSA, rest = bucket & ((1u << MANTISSA) - 1);
    if (group == 0)
        return rest;
    return (((uint64_t)rest + (1u << MANTISSA)) << (group - 1)) + (UINT64_C(1) << (group - 1)) / 2;
}

static void note(uint64_t latency)
{
    histogram[bucket_of(latency)]++;
    messages++;
    if (latency > highest)
        highest = latency;
}

static double percentile_us(double share)
{
    uint64_t wanted = (uint64_t)((double)messages * share), seen = 0;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > wanted)
            return (double)value_of(i) / 1000;
    }
    return (double)highest / 1000;
}

/* --- what is sent -------------------------------------------------------------------------------- */

static uint64_t random_state = UINT64_C(0x9E3779B97F4A7C15);

static uint64_t next_random(void) /* xorshift64* */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

/* 16 B to 32 KiB: the power of two is uniform, and so is the size between it and the next. */
static uint32_t mixed_size(void)
{
    uint32_t low = 16u << (next_random() % 11);
    return low + (uint32_t)(next_random() % low);
}

/* A message of a chat, as long as asked for, under a random mask. */
static size_t put_chat(uint8_t *out, uint32_t payload)
{
    static const char head[] = "{\"type\":\"chat\",\"text\":\"", end[] = "\"}";
    uint8_t mask[4];
    for (int i = 0; i < 4; i++)
        out[i] = mask[i] = (uint8_t)(next_random() >> 56);
    for (uint32_t i = 0; i < payload; i++) {
        char letter = i < sizeof head - 1             ? head[i]
                      : i + sizeof end - 1 >= payload ? end[i + sizeof end - 1 - payload]
                                                      : (char)('a' + i % 26);
        out[4 + i] = (uint8_t)letter ^ mask[i & 3];
    }
    return payload + 4;
}

static size_t put_frame(uint8_t *out, uint32_t payload)
{
    size_t at = 0;
    out[at++] = options.json ? 0x81 : 0x82;
    if (payload < 126) {
        out[at++] = (uint8_t)(0x80 | payload);
    } else if (payload < 65536) {
        out[at++] = 0x80 | 126;
        out[at++] = (uint8_t)(payload >> 8);
        out[at++] = (uint8_t)payload;
    } else {
        out[at++] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            out[at++] = (uint8_t)((uint64_t)payload >> shift);
    }
    if (options.json)
        return at + put_chat(out + at, payload);
    /* A random mask over any payload is random bytes. */
    for (uint32_t i = 0; i < payload + 4; i++)
        out[at++] = (uint8_t)(next_random() >> 56);
    return at;
}

static void make_tape(void)
{
    tape_frames = options.payload == 0      ? MIXED_FRAMES
                  : options.mode == RATE    ? RATE_FRAMES
                                            : (uint32_t)options.in_flight;
    tape_at = calloc(2 * (size_t)tape_frames + 1, sizeof *tape_at);
    tape_payload = calloc(tape_frames, sizeof *tape_payload);
    if (tape_at == NULL || tape_payload == NULL)
        die("no memory");
    size_t largest = 0;
    for (uint32_t i = 0; i < tape_frames; i++) {
        tape_payload[i] = options.payload ? options.payload : mixed_size();
        largest += tape_payload[i] + 14;
    }
    tape = malloc(2 * largest);
    if (tape == NULL)
        die("no memory");
    for (uint32_t i = 0; i < tape_frames; i++)
        tape_at[i + 1] = tape_at[i] + put_frame(tape + tape_at[i], tape_payload[i]);
    size_t once = tape_at[tape_frames];
    memcpy(tape + once, tape, once);
    for (uint32_t i = 1; i <= tape_frames; i++)
        tape_at[tape_frames + i] = once + tape_at[i];
}

static void make_request(char **headers, int count)
{
    const char *preface = options.preface != NULL ? options.preface : "";
    int length = snprintf(request, sizeof request,
                          "%s%sGET %s HTTP/1.1\r\nHost: %s:%d\r\nConnection: Upgrade\r\n"
                          "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                          "Sec-WebSocket-Key: " KEY "\r\n",
                          preface, *preface != '\0' ? "\r\n" : "", options.path, options.host,
                          options.port);
    for (int i = 0; i < count && length < MAX_REQUEST; i++)
        length += snprintf(request + length, sizeof request - (size_t)length, "%s\r\n", headers[i]);
    if (length > MAX_REQUEST - 2)
        die("the request is too long");
    request_length = (size_t)length;
}

static void read_lines(void)
{
    FILE *file = fopen(options.header_file, "r");
    if (file == NULL)
        die("%s: %s", options.header_file, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, file)) > 0) {
        if (line[length - 1] == '\n')
            line[--length] = '\0';
        if (length == 0 || request_length + (size_t)length + 4 > MAX_REQUEST)
            die("%s: line %" PRIu64 " is empty or too long", options.header_file, line_count + 1);
        if ((line_count & (line_count + 1)) == 0) /* room for twice as many */
            lines = realloc(lines, 2 * (line_count + 1) * sizeof *lines);
        if (lines == NULL)
            die("no memory");
        lines[line_count++] = line;
        line = NULL;
    }
    free(line);
    fclose(file);
    if (line_count == 0)
        die("%s: no lines", options.header_file);
}

/* The request of the next handshake, whole in `request`; its length. */
static size_t next_request(void)
{
    size_t length = request_length;
    if (line_count > 0) {
        const char *line = lines[(options.header_start + begun) % line_count];
        size_t more = strlen(line);
        memcpy(request + length, line, more);
        memcpy(request + length + more, "\r\n", 2);
        length += more + 2;
    }
    memcpy(request + length, "\r\n", 2);
    begun++;
    return length + 2;
}

/* --- connections --------------------------------------------------------------------------------- */

static void watch(struct connection *c, uint32_t wanted)
{
    if (wanted == c->watched)
        return;
    c->watched = wanted;
    struct epoll_event event = {.events = wanted, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

static void open_connection(struct connection *c)
{
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (options.mode == IDLE && options.connections > PER_ADDRESS) {
        uint32_t number = 2 + (uint32_t)((c - connections) / PER_ADDRESS);
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + number);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&source, sizeof source) < 0)
            die("bind: %s", strerror(errno));
    }
    c->state = CONNECTS;
    c->answer_length = 0;
    c->header_length = 0;
    c->inside = false;
    c->began = now_ns();
    if (connect(c->fd, (struct sockaddr *)&target, sizeof target) < 0 && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    c->watched = EPOLLOUT;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void close_connection(struct connection *c)
{
    close(c->fd);
    c->state = UNUSED;
}

/* Something that must not be. In `handshake` it is counted, elsewhere it ends the program. */
static void fail(struct connection *c, const char *what, const char *text)
{
    if (options.mode != HANDSHAKE)
        die("%s: %s", what, text);
    if (first_error[0] == '\0') {
        snprintf(first_error, sizeof first_error, "%s: %.60s", what, text);
        for (char *p = first_error; *p != '\0'; p++)
            if (*p < ' ' || *p == '"' || *p == '\\')
                *p = ' ';
    }
    errors++;
    close_connection(c);
}

/* Send what is to be sent, as far as the socket takes it. */
static void send_frames(struct connection *c)
{
    while (c->unsent > 0) {
        uint32_t last = c->frame + c->unsent;
        if (last > 2 * tape_frames)
            last = 2 * tape_frames;
        size_t from = tape_at[c->frame] + c->sent;
        ssize_t sent = send(c->fd, tape + from, tape_at[last] - from, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN)
                fail(c, "send", strerror(errno));
            else
                watch(c, EPOLLIN | EPOLLOUT);
            return;
        }
        size_t end = from + (size_t)sent;
        while (c->unsent > 0 && tape_at[c->frame + 1] <= end) {
            c->frame++;
            c->unsent--;
        }
        c->sent = end - tape_at[c->frame];
        if (c->frame >= tape_frames)
            c->frame -= tape_frames;
    }
    watch(c, EPOLLIN);
}

/* Put `count` messages on their way, all sent (or due) at `when`. */
static void add_messages(struct connection *c, uint32_t count, uint64_t when)
{
    for (uint32_t i = 0; i < count; i++) {
        c->times[(c->first + c->under_way) % ring_size] = when;
        c->under_way++;
    }
    c->unsent += count;
}

/* One message has come back. */
static void take_message(struct connection *c, uint64_t length, uint64_t now)
{
    if (c->under_way == 0 || length != tape_payload[c->expected])
        die("an echo that was not asked for, of %" PRIu64 " bytes", length);
    c->expected = (c->expected + 1) % tape_frames;
    uint64_t when = c->times[c->first];
    c->first = (c->first + 1) % ring_size;
    c->under_way--;
    if (measuring && (options.mode != RATE || when >= measured_from)) {
        note(now - when);
        bytes += length;
    }
}

/* Read frames; returns how many messages came back. */
static uint32_t take_frames(struct connection *c, const uint8_t *in, size_t length, uint64_t now)
{
    uint32_t count = 0;
    size_t at = 0;
    for (;;) {
        if (c->inside) {
            uint64_t part = length - at < c->remaining ? length - at : c->remaining;
            at += part;
            c->remaining -= part;
            if (c->remaining > 0)
                break;
            c->inside = false;
            take_message(c, c->length, now);
            count++;
        }
        if (at == length)
            break;
        c->header[c->header_length++] = in[at++];
        if (c->header_length < 2)
            continue;
        uint8_t form = c->header[1];
        uint8_t size = form < 126 ? 2 : form == 126 ? 4 : 10;
        if (c->header_length < size)
            continue;
        if (c->header[0] != (options.json ? 0x81 : 0x82))
            die("a frame of type 0x%02x came back", c->header[0]);
        c->remaining = form;
        if (size > 2) {
            c->remaining = 0;
            for (uint8_t i = 2; i < size; i++)
                c->remaining = c->remaining << 8 | c->header[i];
        }
        c->header_length = 0;
        c->inside = true;
        c->length = c->remaining;
    }
    return count;
}

/* Whether a whole head is the refusal that is wanted, as far as it has come; a 101 is followed by a
 * close frame. */
static bool take_refusal(struct connection *c, const char *body)
{
    char wanted[] = "HTTP/1.1 000 ";
    snprintf(wanted, sizeof wanted, "HTTP/1.1 %03d ", options.refused);
    bool closes = options.refused == 101;
    if (strncmp(c->answer, wanted, 13) != 0 || (closes && *body != '\0' && *body != '\x88')) {
        fail(c, "handshake", c->answer);
        return false;
    }
    if (closes && *body == '\0')
        return false;
    c->answer_length = 0;
    return true;
}

/* The answer to the handshake: true once it is whole and good. */
static bool take_answer(struct connection *c, const uint8_t *in, size_t length)
{
    if (c->answer == NULL && (c->answer = malloc(MAX_ANSWER + 1)) == NULL)
        die("no memory");
    if (c->answer_length + length > MAX_ANSWER)
        length = MAX_ANSWER - c->answer_length;
    memcpy(c->answer + c->answer_length, in, length);
    c->answer_length += length;
    c->answer[c->answer_length] = '\0';
    char *end = strstr(c->answer, "\r\n\r\n");
    if (end == NULL) {
        if (c->answer_length == MAX_ANSWER)
            fail(c, "handshake", "the answer has no end");
        return false;
    }
    if (options.refused != 0)
        return take_refusal(c, end + 4);
    if (strncmp(c->answer, "HTTP/1.1 101 ", 13) != 0 || strstr(c->answer, ACCEPT) == NULL) {
        fail(c, "handshake", c->answer);
        return false;
    }
    if (end[4] != '\0') {
        fail(c, "handshake", "data behind the answer that nobody asked for");
        return false;
    }
    if (options.mode != HANDSHAKE) {
        free(c->answer);
        c->answer = NULL;
    }
    c->answer_length = 0;
    return true;
}

static void begin_handshake(struct connection *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
        fail(c, "connect", strerror(error));
        return;
    }
    size_t length = next_request();
    if (send(c->fd, request, length, MSG_NOSIGNAL) != (ssize_t)length) {
        fail(c, "send", strerror(errno));
        return;
    }
    c->state = SHAKES;
    watch(c, EPOLLIN);
}

static void say_goodbye(struct connection *c)
{
    static const uint8_t farewell[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8};
    if (send(c->fd, farewell, sizeof farewell, MSG_NOSIGNAL) != sizeof farewell)
        fail(c, "send", strerror(errno));
    else
        c->state = LEAVES;
}

/* Something can be read. Returns how many messages came back; the state may have changed. */
static uint32_t receive(struct connection *c, uint64_t *now)
{
    ssize_t length = recv(c->fd, input, sizeof input, 0);
    *now = now_ns();
    if (length < 0 && errno == EAGAIN)
        return 0;
    if (c->state == LEAVES) {
        /* Not all proxies hang up first (RFC 6455 section 7.1.1), so the answer is enough. */
        if (length <= 0 || input[0] == 0x88)
            close_connection(c);
        return 0;
    }
    if (length <= 0) {
        fail(c, "receive", length == 0 ? "end of file" : strerror(errno));
        return 0;
    }
    if (c->state == OPEN)
        return take_frames(c, input, (size_t)length, *now);
    if (take_answer(c, input, (size_t)length))
        c->state = OPEN;
    return 0;
}

/* --- the modes ----------------------------------------------------------------------------------- */

static int wait_for_events(struct epoll_event *events, uint64_t until)
{
    uint64_t now = now_ns();
    uint64_t rest = until > now ? until - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(rest / SECOND), .tv_nsec = (long)(rest % SECOND)};
    int count = epoll_pwait2(epoll, events, EVENTS, &timeout, NULL);
    if (count < 0 && errno != EINTR)
        die("epoll: %s", strerror(errno));
    return count < 0 ? 0 : count;
}

/* Open all connections, a few at a time, and send one message over each where `touch` is set. */
static void open_all(bool touch)
{
    struct epoll_event events[EVENTS];
    int opened = 0, done = 0;
    while (done < options.connections) {
        while (opened < options.connections && opened - done < CONNECTING)
            open_connection(&connections[opened++]);
        int count = wait_for_events(events, now_ns() + 10 * SECOND);
        if (count == 0)
            die("%d of %d connections are open, and nothing happens", done, options.connections);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            enum state before = c->state;
            uint64_t now;
            if (before == CONNECTS) {
                begin_handshake(c);
                continue;
            }
            uint32_t back = receive(c, &now);
            if (c->state == OPEN && before == SHAKES) {
                if (touch) {
                    add_messages(c, 1, now);
                    send_frames(c);
                } else {
                    done++;
                }
            }
            done += (int)back;
        }
    }
}

static void mark(const char *text)
{
    if (options.marks) {
        fprintf(stderr, "%s\n", text);
        fflush(stderr);
    }
}

/* Keep the clock of what is measured; true when it is over. */
static bool over(uint64_t now)
{
    if (!measuring && now >= measured_from) {
        measured_from = now;
        measured_to = now + (uint64_t)(options.seconds * 1e9);
        measuring = true;
        mark("begin");
    } else if (measuring && now >= measured_to) {
        measured_to = now;
        mark("end");
        return true;
    }
    return false;
}

static void run_roundtrip(void)
{
    struct epoll_event events[EVENTS];
    uint64_t now = now_ns();
    measured_from = now + (uint64_t)(options.warmup * 1e9);
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        c->frame = c->expected = (uint32_t)i * 37 % tape_frames;
        add_messages(c, (uint32_t)options.in_flight, now);
        send_frames(c);
    }
    for (;;) {
        if (over(now))
            return;
        int count = wait_for_events(events, measuring ? measured_to : measured_from);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & ~(uint32_t)EPOLLOUT) {
                uint32_t back = receive(c, &now);
                if (back > 0)
                    add_messages(c, back, now);
            }
            if (c->unsent > 0)
                send_frames(c);
        }
        now = now_ns();
    }
}

/* What was due but has not come back counts as it stands: else a stall at the end would be free. */
static void note_missing(void)
{
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        for (uint32_t j = 0; j < c->under_way; j++) {
            uint64_t when = c->times[(c->first + j) % ring_size];
            if (when >= measured_from && when < measured_to)
                note(measured_to - when);
        }
    }
}

static void run_rate(void)
{
    struct epoll_event events[EVENTS];
    prctl(PR_SET_TIMERSLACK, 1UL);
    double gap = 1e9 / options.rate;
    uint64_t start = now_ns(), sent = 0;
    measured_from = start + (uint64_t)(options.warmup * 1e9);
    for (;;) {
        uint64_t now = now_ns();
        if (over(now)) {
            note_missing();
            return;
        }
        while (start + (uint64_t)((double)sent * gap) <= now) {
            struct connection *c = &connections[sent % (uint64_t)options.connections];
            if (c->under_way < ring_size)
                add_messages(c, 1, start + (uint64_t)((double)sent * gap));
            else
                overruns++;
            if (c->unsent > 0)
                send_frames(c);
            sent++;
        }
        int count = wait_for_events(events, start + (uint64_t)((double)sent * gap));
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                receive(c, &now);
            if (c->unsent > 0)
                send_frames(c);
        }
    }
}

static void run_handshake(void)
{
    struct epoll_event events[EVENTS];
    measured_from = now_ns() + (uint64_t)(options.warmup * 1e9);
    for (;;) {
        uint64_t now = now_ns();
        if (over(now))
            return;
        for (int i = 0; i < options.connections; i++) {
            struct connection *c = &connections[i];
            if (c->state != UNUSED && now - c->began > 5 * SECOND)
                fail(c, "handshake", "not done in 5 s");
            if (c->state == UNUSED)
                open_connection(c);
        }
        int count = wait_for_events(events, measuring ? measured_to : measured_from);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->state == CONNECTS) {
                begin_handshake(c);
                continue;
            }
            enum state before = c->state;
            receive(c, &now);
            if (c->state == OPEN && before == SHAKES) {
                if (measuring)
                    note(now - c->began);
                if (options.refused == 0 || options.refused == 101)
                    say_goodbye(c);
                else
                    close_connection(c);
            }
        }
    }
}

/* Answers the pings that came over an idle connection; each comes whole. */
static void answer_pings(struct connection *c)
{
    uint8_t pong[6 + 125] = {0x8A};
    ssize_t length = recv(c->fd, input, sizeof input, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0)
        die("an idle connection has ended");
    for (ssize_t at = 0; at < length; at += 2 + input[at + 1]) {
        uint8_t size = input[at + 1];
        if (input[at] != 0x89 || size > 125 || at + 2 + size > length)
            die("a frame of type 0x%02x came over an idle connection", input[at]);
        pong[1] = 0x80 | size; /* the mask is zeros */
        memcpy(pong + 6, input + at + 2, size);
        if (send(c->fd, pong, 6 + (size_t)size, MSG_NOSIGNAL) != 6 + size)
            die("a pong cannot be sent");
    }
}

static void hold(void)
{
    struct epoll_event events[EVENTS];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    printf("{\"mode\": \"idle\", \"open\": %d}\n", options.connections);
    fflush(stdout);
    for (int i = 0; i < options.connections; i++)
        watch(&connections[i], EPOLLIN);
    /* A file cannot be watched, and ends at once. */
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0)
        return;
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            char byte[64];
            if (events[i].data.ptr != NULL)
                answer_pings(events[i].data.ptr);
            else if (read(STDIN_FILENO, byte, sizeof byte) == 0)
                return;
        }
    }
}

static void report(void)
{
    static const char *const names[] = {"roundtrip", "rate", "handshake", "idle"};
    double seconds = (double)(measured_to - measured_from) / 1e9;
    printf("{\"mode\": \"%s\", \"connections\": %d, \"payload\": %" PRIu32 ", \"in_flight\": %d, "
           "\"seconds\": %.6f, \"count\": %" PRIu64 ", \"per_second\": %.1f, \"bytes\": %" PRIu64 ", "
           "\"begun\": %" PRIu64 ", \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, \"errors\": %" PRIu64 ", "
           "\"overruns\": %" PRIu64 ", \"first_error\": \"%s\"}\n",
           names[options.mode], options.connections, options.payload, options.in_flight, seconds,
           messages, (double)messages / seconds, bytes, begun, percentile_us(0.5),
           percentile_us(0.99), (double)highest / 1000, errors, overruns, first_error);
}

/* --- the command line ---------------------------------------------------------------------------- */

static double number(const char *text, const char *name, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(value >= low && value <= high))
        die("--%s is from %g to %g", name, low, high);
    return value;
}

static enum mode mode_of(const char *text)
{
    static const char *const names[] = {"roundtrip", "rate", "handshake", "idle"};
    for (int i = 0; i < 4; i++)
        if (strcmp(text, names[i]) == 0)
            return (enum mode)i;
    die("the mode is roundtrip, rate, handshake or idle");
}

static void parse(int argc, char **argv)
{
    static const struct option known[] = {
        {"host", 1, NULL, 'h'},      {"port", 1, NULL, 'p'},     {"path", 1, NULL, 'P'},
        {"header", 1, NULL, 'H'},    {"connections", 1, NULL, 'c'}, {"payload", 1, NULL, 's'},
        {"in-flight", 1, NULL, 'f'}, {"rate", 1, NULL, 'r'},     {"seconds", 1, NULL, 'd'},
        {"warmup", 1, NULL, 'w'},    {"limit", 1, NULL, 'l'},    {"marks", 0, NULL, 'm'},
        {"header-file", 1, NULL, 'F'}, {"header-start", 1, NULL, 'S'}, {"preface", 1, NULL, 'a'},
        {"refused", 1, NULL, 'R'},   {"json", 0, NULL, 'j'},
        {NULL, 0, NULL, 0},
    };
    char *headers[32];
    int count = 0, letter;
    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (letter) {
        case 'h': options.host = optarg; break;
        case 'p': options.port = (int)number(optarg, "port", 1, 65535); break;
        case 'P': options.path = optarg; break;
        case 'H':
            if (count == 32)
                die("too many headers");
            headers[count++] = optarg;
            break;
        case 'F': options.header_file = optarg; break;
        case 'S': options.header_start = (uint64_t)number(optarg, "header-start", 0, 1e15); break;
        case 'a': options.preface = optarg; break;
        case 'R': options.refused = (int)number(optarg, "refused", 100, 599); break;
        case 'c': options.connections = (int)number(optarg, "connections", 1, 1e6); break;
        case 's':
            options.payload = strcmp(optarg, "mixed") == 0
                                  ? 0
                                  : (uint32_t)number(optarg, "payload", 1, 16 << 20);
            break;
        case 'f': options.in_flight = (int)number(optarg, "in-flight", 1, MIXED_FRAMES); break;
        case 'r': options.rate = number(optarg, "rate", 1, 1e6); break;
        case 'd': options.seconds = number(optarg, "seconds", 0.01, 3600); break;
        case 'w': options.warmup = number(optarg, "warmup", 0, 3600); break;
        case 'l': options.limit = (int)number(optarg, "limit", 1, 86400); break;
        case 'm': options.marks = true; break;
        case 'j': options.json = true; break;
        default: exit(2);
        }
    }
    if (optind != argc - 1 || options.port == 0)
        die("usage: loadgen MODE --port PORT [--flag value]...; see the head of loadgen.c");
    options.mode = mode_of(argv[optind]);
    if (options.json && options.payload < 32)
        die("--json takes a --payload of 32 bytes at least");
    make_request(headers, count);
    if (options.header_file != NULL)
        read_lines();
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    if (options.limit == 0)
        options.limit =
            options.mode == IDLE ? 600 : (int)(options.seconds + options.warmup) + 30;
    alarm((unsigned)options.limit);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    target.sin_family = AF_INET;
    target.sin_port = htons((uint16_t)options.port);
    if (inet_pton(AF_INET, options.host, &target.sin_addr) != 1)
        die("--host is an IPv4 address");
    make_tape();
    ring_size = options.mode == RATE ? RATE_RING : (uint32_t)options.in_flight;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc((size_t)options.connections, sizeof *connections);
    uint64_t *times = calloc((size_t)options.connections * ring_size, sizeof *times);
    if (epoll < 0 || connections == NULL || times == NULL)
        die("no memory");
    for (int i = 0; i < options.connections; i++)
        connections[i].times = times + (size_t)i * ring_size;
    if (options.mode == HANDSHAKE) {
        run_handshake();
    } else {
        open_all(options.mode == IDLE);
        if (options.mode == IDLE) {
            hold();
            return 0;
        }
        if (options.mode == ROUNDTRIP)
            run_roundtrip();
        else
            run_rate();
    }
    report();
    return errors > 0 && messages == 0 ? 1 : 0;
}
