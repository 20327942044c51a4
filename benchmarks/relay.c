/* The limit that the benchmarks compare with: a TCP relay that checks nothing.
 *
 *     relay --port 8080 --upstream 9000 [--host 127.0.0.1] [--buffer 262144]
 *
 * One thread, one epoll. What is read from one side is written to the other at once; what that side
 * does not take is kept, and the first is not read until it is gone. An end of file is passed on.
 * The buffer is as large as pays off: with 64 KiB, messages of that size cost half as much again.
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
#include <unistd.h>

#include "server.h"

enum { LARGEST = 1024 * 1024, EVENTS = 512 };

struct pair;

struct side {
    struct pair *pair;
    int fd;
    uint32_t watched;
    bool ended;   /* it will send nothing more */
    char *kept;   /* what this side has not taken yet */
    size_t at;
    size_t length;
};

struct pair {
    struct side client, upstream;
    struct pair *next_dead;
    bool connected;
    bool dead;
};

static char buffer[LARGEST];
static size_t buffer_size = 256 * 1024;
static int epoll;
static struct sockaddr_in upstream_address;
static struct pair *graveyard; /* freed after the batch: later events may still name them */

static struct side *other(struct side *s)
{
    return s == &s->pair->client ? &s->pair->upstream : &s->pair->client;
}

static void bury(struct pair *p)
{
    if (p->dead)
        return;
    p->dead = true;
    close(p->client.fd);
    close(p->upstream.fd);
    p->next_dead = graveyard;
    graveyard = p;
}

static void empty_graveyard(void)
{
    while (graveyard != NULL) {
        struct pair *p = graveyard;
        graveyard = p->next_dead;
        free(p->client.kept);
        free(p->upstream.kept);
        free(p);
    }
}

/* Watch for what can be done: read where the other side keeps up, write where something is kept. */
static void watch(struct side *s)
{
    uint32_t wanted = 0;
    if (s->pair->connected && !s->ended && other(s)->kept == NULL)
        wanted |= EPOLLIN;
    if (s->kept != NULL || !s->pair->connected)
        wanted |= EPOLLOUT;
    if (wanted == s->watched)
        return;
    s->watched = wanted;
    struct epoll_event event = {.events = wanted, .data.ptr = s};
    epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event);
}

static void read_from(struct side *s)
{
    struct side *to = other(s);
    ssize_t length = recv(s->fd, buffer, buffer_size, 0);
    if (length < 0) {
        if (errno != EAGAIN)
            bury(s->pair);
        return;
    }
    if (length == 0) {
        s->ended = true;
        shutdown(to->fd, SHUT_WR);
        if (to->ended)
            bury(s->pair);
        else
            watch(s);
        return;
    }
    ssize_t sent = send(to->fd, buffer, (size_t)length, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) {
            bury(s->pair);
            return;
        }
        sent = 0;
    }
    if (sent < length) {
        to->at = 0;
        to->length = (size_t)(length - sent);
        to->kept = malloc(to->length);
        if (to->kept == NULL)
            die("malloc");
        memcpy(to->kept, buffer + sent, to->length);
        watch(s);
        watch(to);
    }
}

static void write_to(struct side *s)
{
    ssize_t sent = send(s->fd, s->kept + s->at, s->length - s->at, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            bury(s->pair);
        return;
    }
    s->at += (size_t)sent;
    if (s->at == s->length) {
        free(s->kept);
        s->kept = NULL;
        watch(s);
        watch(other(s));
    }
}

static void finish_connect(struct pair *p)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(p->upstream.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
        bury(p);
        return;
    }
    p->connected = true;
    watch(&p->client);
    watch(&p->upstream);
}

static void serve(struct side *s, uint32_t events)
{
    struct pair *p = s->pair;
    if (p->dead)
        return;
    if (!p->connected) {
        if (s == &p->upstream)
            finish_connect(p);
        else if (events & (EPOLLERR | EPOLLHUP))
            bury(p);
        return;
    }
    if (events & EPOLLOUT && s->kept != NULL)
        write_to(s);
    if (!p->dead && events & EPOLLIN)
        read_from(s);
    else if (!p->dead && events & (EPOLLERR | EPOLLHUP))
        bury(p);
}

static void add(struct side *s, struct pair *p, int fd, uint32_t events)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    s->pair = p;
    s->fd = fd;
    s->watched = events;
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void welcome(int listener)
{
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client < 0)
            return;
        int upstream = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (upstream < 0) {
            close(client);
            continue;
        }
        const struct sockaddr *address = (const struct sockaddr *)&upstream_address;
        if (connect(upstream, address, sizeof upstream_address) < 0 && errno != EINPROGRESS) {
            close(client);
            close(upstream);
            continue;
        }
        struct pair *p = calloc(1, sizeof *p);
        if (p == NULL)
            die("calloc");
        add(&p->client, p, client, 0);
        add(&p->upstream, p, upstream, EPOLLOUT);
    }
}

int main(int argc, char **argv)
{
    const char *host = "127.0.0.1";
    int port = 0, upstream = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0)
            port = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--upstream") == 0)
            upstream = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--host") == 0)
            host = argv[i + 1];
        else if (strcmp(argv[i], "--buffer") == 0)
            buffer_size = (size_t)atol(argv[i + 1]);
    }
    if (port <= 0 || port > 65535 || upstream <= 0 || upstream > 65535 ||
        buffer_size < 1 || buffer_size > LARGEST) {
        fprintf(stderr, "usage: relay --port PORT --upstream PORT [--host ADDRESS] [--buffer BYTES]\n");
        return 2;
    }
    raise_file_limit();
    upstream_address = address_of(host, upstream);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(address_of(host, port));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll");
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                welcome(listener);
            else
                serve(events[i].data.ptr, events[i].events);
        }
        empty_graveyard();
    }
}
