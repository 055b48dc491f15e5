/* A closed-loop load generator for one core: HTTP/1.1 and gRPC, every reply checked.
 *
 * generator http|grpc ADDRESS FOLDER DISTINCT CONNECTIONS WARMUP_S SECONDS MARKER
 *
 * ADDRESS   host:port (IPv4) or unix:/path
 * FOLDER    request-<i> (what is sent: a whole HTTP/1.1 request, or a gRPC message with its 5-byte prefix),
 *           answer-<i> (the bytes of the output tensor in a right reply), headers (gRPC: the HPACK block);
 *           tensors that differ from answer-<i> are left as variant-<i>-<n> for the caller to judge
 * MARKER    the JSON key after which the output array stands, with its quotes; empty: the tensor is the
 *           last bytes of the reply
 *
 * Each connection sends its next request when it has read the whole reply to the last one. Requests take
 * turns. Results go to standard output as one JSON object; exit code 0 also when replies were wrong.
 */
#ifndef GENERATOR_H
#define GENERATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *data;
    size_t length, capacity;
} Bytes;

void bytes_append(Bytes *bytes, const void *data, size_t length);
void bytes_drop_front(Bytes *bytes, size_t length);
Bytes bytes_read_file(const char *folder, const char *name, int number);

enum { MAX_DISTINCT = 64, MAX_VARIANTS = 512 };

typedef struct {
    Bytes request, answer;
    Bytes variants[MAX_VARIANTS];
    int variant_count;
} Exchange;

/* check.c: compares the tensor in a reply with the right one. */
typedef struct {
    Exchange exchanges[MAX_DISTINCT];
    int distinct;
    const char *marker;
    uint64_t different, unlisted, errors;
    char first_error[400];
} Checker;

void checker_load(Checker *checker, const char *folder, int distinct, const char *marker);
void checker_judge(Checker *checker, int exchange, const char *reply, size_t length);
void checker_error(Checker *checker, const char *what, const char *detail, size_t length);
void checker_write_variants(const Checker *checker, const char *folder);

/* A connection of either protocol. `out` is sent as the socket takes it, `in` holds what is not parsed yet. */
typedef struct {
    int fd, exchange;
    bool waiting; /* a request is under way */
    uint64_t sent_ns;
    Bytes out, in, body;
    size_t out_done;
    /* http2.c */
    uint32_t stream, peer_frame_size;
    int64_t connection_window, stream_window, peer_initial_window;
    uint64_t received;
    size_t message_done;
    const Bytes *message;
} Connection;

typedef enum { MORE, REPLY, FAILED } Progress;

/* http1.c and http2.c: the same three functions for each protocol. */
typedef struct {
    void (*open)(Connection *connection);
    void (*request)(Connection *connection, const Bytes *request);
    /* Consume what can be parsed of `in`. REPLY: `body` holds the payload. FAILED: `*why` says what. */
    Progress (*read)(Connection *connection, const char **why);
} Protocol;

extern const Protocol HTTP1;
extern const Protocol GRPC;
void grpc_set_headers(Bytes block);

#endif
