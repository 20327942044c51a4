/* The upstream of the benchmarks: a WebSocket server that echoes, as cheaply as it can.
 *
 *     echo --port 9000 [--host 127.0.0.1]
 *     echo --unix /path.sock
 *
 * One thread, one epoll. A frame is answered while it is still coming in, so memory does not depend
 * on its size: the header goes out unmasked as soon as it is whole, the payload as it arrives. Pings
 * become pongs, a close frame is answered and ends the connection. What the socket does not take is
 * kept, and nothing more is read from that connection until it is gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server.h"

enum { READ_SIZE = 256 * 1024, MAX_HEAD = 16 * 1024, EVENTS = 512, MAX_HEADER = 14 };

struct connection {
    int fd;
    bool open;             /* the handshake is done */
    bool closing;          /* its close frame was answered: hang up when all is sent */
    bool skip;             /* the frame under way is not answered (a pong) */
    bool ends;             /* the frame under way is a close frame */
    uint8_t header_length; /* bytes of an incomplete header */
    uint8_t header[MAX_HEADER];
    uint8_t mask[4];
    uint8_t phase;      /* of the mask, at the next payload byte */
    uint64_t remaining; /* payload bytes still to come */
    char *kept;         /* a request head that is not whole, or what is not sent */
    size_t kept_length;
};

static uint8_t input[READ_SIZE];
static uint8_t output[READ_SIZE + 2 * MAX_HEADER];
static int epoll;

/* --- SHA-1 (RFC 3174) and base64, for Sec-WebSocket-Accept ------------------------------------ */

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5A827999;
        } else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ED9EBA1;
        } else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8F1BBCDC;
        } else {
            f = b ^ c ^ d;
            k = 0xCA62C1D6;
        }
        uint32_t next = rotate(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* The digest of at most 119 bytes: two blocks. */
static void sha1(const char *text, size_t length, uint8_t digest[20])
{
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t blocks[128] = {0};
    memcpy(blocks, text, length);
    blocks[length] = 0x80;
    size_t total = length < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++)
        blocks[total - 1 - i] = (uint8_t)((uint64_t)length * 8 >> (8 * i));
    for (size_t at = 0; at < total; at += 64)
        sha1_block(state, blocks + at);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t digest[20], char text[29])
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = text;
    for (int i = 0; i < 21; i += 3) {
        uint32_t last = i + 2 < 20 ? digest[i + 2] : 0;
        uint32_t bits = (uint32_t)digest[i] << 16 | (uint32_t)digest[i + 1] << 8 | last;
        for (int shift = 18; shift >= 0; shift -= 6)
            *out++ = letters[bits >> shift & 63];
    }
    text[27] = '=';
    text[28] = '\0';
}

/* --- sockets ----------------------------------------------------------------------------------- */

static void end(struct connection *c)
{
    close(c->fd);
    free(c->kept);
    free(c);
}

static void watch(struct connection *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* Send, and keep what the socket does not take. False when the connection is gone. */
static bool transmit(struct connection *c, const void *data, size_t length)
{
    if (length == 0)
        return true;
    ssize_t sent = send(c->fd, data, length, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            return false;
        sent = 0;
    }
    if ((size_t)sent == length)
        return true;
    c->kept_length = length - (size_t)sent;
    c->kept = malloc(c->kept_length);
    if (c->kept == NULL)
        die("malloc");
    memcpy(c->kept, (const char *)data + sent, c->kept_length);
    watch(c, EPOLLOUT);
    return true;
}

/* Send what was kept. False when the connection is gone. */
static bool flush(struct connection *c)
{
    char *kept = c->kept;
    size_t length = c->kept_length;
    c->kept = NULL;
    c->kept_length = 0;
    bool alive = transmit(c, kept, length);
    free(kept);
    if (alive && c->kept == NULL) {
        if (c->closing)
            return false;
        watch(c, EPOLLIN);
    }
    return alive;
}

/* --- frames ------------------------------------------------------------------------------------ */

static void unmask(struct connection *c, uint8_t *out, const uint8_t *in, size_t length)
{
    uint8_t key[8];
    for (int i = 0; i < 8; i++)
        key[i] = c->mask[(c->phase + i) & 3];
    uint64_t wide;
    memcpy(&wide, key, 8);
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        uint64_t word;
        memcpy(&word, in + i, 8);
        word ^= wide;
        memcpy(out + i, &word, 8);
    }
    for (; i < length; i++)
        out[i] = in[i] ^ key[i & 7];
    c->phase = (uint8_t)((c->phase + length) & 3);
}

static size_t header_size(const uint8_t *header)
{
    uint8_t form = header[1] & 0x7F;
    return form < 126 ? 6 : form == 126 ? 8 : 14;
}

/* Begin the frame of this whole header; write the answer's header and return its length, -1 for a
 * frame that must not be. */
static int begin_frame(struct connection *c, const uint8_t *header, uint8_t *out)
{
    uint8_t opcode = header[0] & 0x0F;
    if (!(header[1] & 0x80) || (opcode > 2 && opcode < 8) || opcode > 10)
        return -1;
    size_t size = header_size(header);
    c->remaining = header[1] & 0x7F;
    if (size > 6) {
        c->remaining = 0;
        for (size_t i = 2; i < size - 4; i++)
            c->remaining = c->remaining << 8 | header[i];
    }
    memcpy(c->mask, header + size - 4, 4);
    c->phase = 0;
    c->skip = opcode == 10;
    c->ends = opcode == 8;
    if (c->skip)
        return 0;
    memcpy(out, header, size - 4);
    if (opcode == 9)
        out[0] = 0x8A;
    out[1] &= 0x7F;
    return (int)(size - 4);
}

/* Take a header, from what was kept of it and from the input. Returns the bytes of input used. */
static size_t take_header(struct connection *c, const uint8_t *in, size_t length, bool *whole)
{
    size_t used = 0;
    *whole = false;
    while (used < length) {
        c->header[c->header_length++] = in[used++];
        if (c->header_length >= 2 && c->header_length == header_size(c->header)) {
            *whole = true;
            c->header_length = 0;
            break;
        }
    }
    return used;
}

/* Answer what was read. False when the connection is over. */
static bool echo(struct connection *c, const uint8_t *in, size_t length)
{
    uint8_t *out = output;
    size_t at = 0;
    while (!c->closing) {
        if (c->remaining > 0) {
            size_t part = length - at < c->remaining ? length - at : (size_t)c->remaining;
            if (!c->skip) {
                unmask(c, out, in + at, part);
                out += part;
            }
            at += part;
            c->remaining -= part;
            if (c->remaining > 0)
                break;
            c->closing = c->ends;
            continue;
        }
        if (at == length)
            break;
        const uint8_t *header = in + at;
        if (c->header_length == 0 && length - at >= 2 && length - at >= header_size(header)) {
            at += header_size(header);
        } else {
            bool whole;
            at += take_header(c, in + at, length - at, &whole);
            if (!whole)
                break;
            header = c->header;
        }
        int written = begin_frame(c, header, out);
        if (written < 0)
            return false;
        out += written;
        c->closing = c->ends && c->remaining == 0;
    }
    bool alive = transmit(c, output, (size_t)(out - output));
    return alive && !(c->closing && c->kept == NULL);
}

/* --- the handshake ----------------------------------------------------------------------------- */

static bool refuse(struct connection *c)
{
    static const char answer[] =
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    send(c->fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
    return false;
}

/* Keep the head until it is whole, then answer it. False when the connection is over. */
static bool shake_hands(struct connection *c, const uint8_t *in, size_t length)
{
    static const char name[] = "\r\nSec-WebSocket-Key:";
    size_t total = c->kept_length + length;
    if (total > MAX_HEAD)
        return refuse(c);
    char *head = realloc(c->kept, total + 1);
    if (head == NULL)
        die("realloc");
    memcpy(head + c->kept_length, in, length);
    head[total] = '\0';
    c->kept = head;
    c->kept_length = total;
    char *stop = strstr(head, "\r\n\r\n");
    if (stop == NULL)
        return true;
    size_t used = (size_t)(stop - head) + 4;
    const char *key = strcasestr(head, name);
    if (key == NULL || key > stop)
        return refuse(c);
    key += sizeof name - 1;
    key += strspn(key, " \t");
    size_t key_length = strcspn(key, " \t\r");
    if (key_length != 24)
        return refuse(c);
    char joined[61], accept[29], answer[160];
    uint8_t digest[20];
    memcpy(joined, key, 24);
    memcpy(joined + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 37);
    sha1(joined, 60, digest);
    base64(digest, accept);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                        accept);
    c->kept = NULL;
    c->kept_length = 0;
    c->open = true;
    bool alive = send(c->fd, answer, (size_t)size, MSG_NOSIGNAL) == size;
    if (alive && used < total)
        alive = echo(c, (uint8_t *)head + used, total - used);
    free(head);
    return alive;
}

static bool serve(struct connection *c, uint32_t events)
{
    if (events & EPOLLOUT)
        return flush(c);
    ssize_t length = recv(c->fd, input, sizeof input, 0);
    if (length < 0)
        return errno == EAGAIN;
    if (length == 0)
        return false;
    return c->open ? echo(c, input, (size_t)length) : shake_hands(c, input, (size_t)length);
}

static void welcome(int listener)
{
    int one = 1;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = calloc(1, sizeof *c);
        if (c == NULL)
            die("calloc");
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "echo: the path is too long\n");
        exit(2);
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0)
        die("listen");
    return fd;
}

int main(int argc, char **argv)
{
    const char *host = "127.0.0.1", *path = NULL;
    int port = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0)
            port = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--host") == 0)
            host = argv[i + 1];
        else if (strcmp(argv[i], "--unix") == 0)
            path = argv[i + 1];
    }
    if (path == NULL && (port <= 0 || port > 65535)) {
        fprintf(stderr, "usage: echo --port PORT [--host ADDRESS] | --unix PATH\n");
        return 2;
    }
    raise_file_limit();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = path != NULL ? listen_at(path) : listen_on(address_of(host, port));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll");
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == NULL)
                welcome(listener);
            else if (!serve(c, events[i].events))
                end(c);
        }
    }
}
