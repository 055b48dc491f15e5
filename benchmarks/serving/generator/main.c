/* The closed loop: connections, the clock and the figures. See generator.h. */
#define _GNU_SOURCE
#include "generator.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 1024, READ_SIZE = 1 << 18, STALL_MS = 30000 };

typedef struct {
    uint64_t from_ns, until_ns, answers;
    uint32_t *latencies_us10; /* tenths of a microsecond */
    size_t recorded, capacity;
    double cpu_from_s, cpu_s;
    bool measuring;
} Figures;

static Checker checker;
static Connection connections[MAX_CONNECTIONS];
static Figures figures;
static const Protocol *protocol;
static int next_exchange, under_way, poller;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double cpu_s(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int dial(const char *address) {
    union {
        struct sockaddr any;
        struct sockaddr_in ip;
        struct sockaddr_un local;
    } to = {0};
    socklen_t size;
    if (!strncmp(address, "unix:", 5)) {
        to.local.sun_family = AF_UNIX;
        snprintf(to.local.sun_path, sizeof to.local.sun_path, "%s", address + 5);
        size = sizeof to.local;
    } else {
        char host[64] = "";
        const char *colon = strrchr(address, ':');
        if (!colon || (size_t)(colon - address) >= sizeof host) exit(2);
        memcpy(host, address, (size_t)(colon - address));
        to.ip.sin_family = AF_INET;
        to.ip.sin_port = htons((uint16_t)atoi(colon + 1));
        if (inet_pton(AF_INET, host, &to.ip.sin_addr) != 1) exit(2);
        size = sizeof to.ip;
    }
    int fd = socket(to.any.sa_family, SOCK_STREAM, 0), on = 1;
    if (fd < 0 || connect(fd, &to.any, size)) {
        perror(address);
        exit(3);
    }
    if (to.any.sa_family == AF_INET) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

/* Send what is left of `out`; ask to be woken when the socket takes more. */
static bool flush(Connection *connection) {
    Bytes *out = &connection->out;
    while (connection->out_done < out->length) {
        ssize_t n = send(connection->fd, out->data + connection->out_done, out->length - connection->out_done,
                         MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (n < 0) break;
        connection->out_done += (size_t)n;
    }
    bool blocked = connection->out_done < out->length;
    if (!blocked) connection->out_done = out->length = 0;
    struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0u), .data.ptr = connection};
    static bool was_blocked[MAX_CONNECTIONS];
    bool *was = &was_blocked[connection - connections];
    if (*was != blocked) epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
    *was = blocked;
    return true;
}

static void ask(Connection *connection) {
    connection->exchange = next_exchange++ % checker.distinct;
    connection->waiting = true;
    under_way++;
    connection->sent_ns = now_ns();
    protocol->request(connection, &checker.exchanges[connection->exchange].request);
}

static void give_up(Connection *connection, const char *why) {
    checker_error(&checker, why, connection->in.data, connection->in.length);
    if (connection->waiting) under_way--;
    connection->waiting = false;
    close(connection->fd);
    connection->fd = -1;
}

static void record(uint64_t sent_ns, uint64_t now) {
    if (now >= figures.until_ns || now < figures.from_ns) return;
    figures.answers++;
    if (figures.recorded == figures.capacity) {
        figures.capacity = figures.capacity * 2 + 65536;
        figures.latencies_us10 = realloc(figures.latencies_us10, figures.capacity * sizeof(uint32_t));
        if (!figures.latencies_us10) abort();
    }
    figures.latencies_us10[figures.recorded++] = (uint32_t)((now - sent_ns) / 100);
}

static void keep_cpu(uint64_t now) {
    if (!figures.measuring && now >= figures.from_ns && now < figures.until_ns) {
        figures.measuring = true;
        figures.cpu_from_s = cpu_s();
    } else if (figures.measuring && now >= figures.until_ns) {
        figures.measuring = false;
        figures.cpu_s = cpu_s() - figures.cpu_from_s;
    }
}

/* Take what has come; false: the connection is of no more use. */
static bool receive(Connection *connection, const char **why) {
    static char chunk[READ_SIZE];
    ssize_t n = recv(connection->fd, chunk, sizeof chunk, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) {
        *why = "the server closed the connection";
        return false;
    }
    bytes_append(&connection->in, chunk, (size_t)n);
    Progress progress = protocol->read(connection, why);
    if (progress == FAILED) return false;
    if (progress == REPLY) {
        uint64_t now = now_ns();
        keep_cpu(now);
        record(connection->sent_ns, now);
        connection->waiting = false;
        under_way--;
        /* the server works on the next request while this reply is judged, if there is to be one */
        int answered = connection->exchange;
        Bytes reply = connection->body;
        connection->body = (Bytes){0};
        bool sent = true;
        if (now < figures.until_ns) {
            ask(connection);
            sent = flush(connection);
        }
        checker_judge(&checker, answered, reply.data, reply.length);
        free(connection->body.data);
        connection->body = reply;
        connection->body.length = 0;
        if (!sent) *why = "the server closed the connection";
        return sent;
    }
    return true;
}

static void run(void) {
    struct epoll_event events[64];
    while (under_way > 0) {
        int n = epoll_wait(poller, events, 64, STALL_MS);
        if (n == 0) {
            checker_error(&checker, "no reply for 30 s", "", 0);
            return;
        }
        for (int i = 0; i < n; i++) {
            Connection *connection = events[i].data.ptr;
            const char *why = "the server closed the connection";
            if (connection->fd < 0) continue;
            if (!receive(connection, &why) || !flush(connection)) give_up(connection, why);
        }
        keep_cpu(now_ns());
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile_us(double q) {
    if (!figures.recorded) return 0;
    size_t at = (size_t)(q * (double)(figures.recorded - 1) + 0.5);
    return figures.latencies_us10[at] / 10.0;
}

static void report(double seconds) {
    qsort(figures.latencies_us10, figures.recorded, sizeof(uint32_t), by_size);
    printf("{\"seconds\": %.3f, \"answers\": %llu, \"errors\": %llu, \"different\": %llu, \"unlisted\": %llu, ",
           seconds, (unsigned long long)figures.answers, (unsigned long long)checker.errors,
           (unsigned long long)checker.different, (unsigned long long)checker.unlisted);
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, ", quantile_us(0.5),
           quantile_us(0.9), quantile_us(0.99), quantile_us(1.0));
    printf("\"generator_busy\": %.3f, \"first_error\": \"%s\"}\n", figures.cpu_s / seconds, checker.first_error);
}

int main(int argc, char **argv) {
    if (argc != 9) {
        fprintf(stderr, "generator http|grpc ADDRESS FOLDER DISTINCT CONNECTIONS WARMUP_S SECONDS MARKER\n");
        return 2;
    }
    const char *address = argv[2], *folder = argv[3];
    int distinct = atoi(argv[4]), count = atoi(argv[5]);
    double warm_up_s = atof(argv[6]), seconds = atof(argv[7]);
    if (distinct < 1 || distinct > MAX_DISTINCT || count < 1 || count > MAX_CONNECTIONS || seconds <= 0) return 2;
    protocol = strcmp(argv[1], "grpc") ? &HTTP1 : &GRPC;
    if (protocol == &GRPC) grpc_set_headers(bytes_read_file(folder, "headers", -1));
    checker_load(&checker, folder, distinct, argv[8]);
    poller = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        Connection *connection = &connections[i];
        connection->fd = dial(address);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event);
        protocol->open(connection);
    }
    figures.from_ns = now_ns() + (uint64_t)(warm_up_s * 1e9);
    figures.until_ns = figures.from_ns + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < count; i++) {
        ask(&connections[i]);
        if (!flush(&connections[i])) give_up(&connections[i], "the server closed the connection");
    }
    run();
    checker_write_variants(&checker, folder);
    report(seconds);
    return 0;
}
