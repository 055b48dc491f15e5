/* HTTP/1.1: a request is sent as it is; a reply ends by Content-Length or by its last chunk. */
#define _GNU_SOURCE
#include "generator.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void http1_open(Connection *connection) { (void)connection; }

static void http1_request(Connection *connection, const Bytes *request) {
    bytes_append(&connection->out, request->data, request->length);
}

/* The value of header *name* in the head, or NULL. The head ends with an empty line. */
static const char *header(const char *head, size_t length, const char *name) {
    size_t size = strlen(name);
    for (const char *line = head; (line = memchr(line, '\n', length - (size_t)(line - head))) != NULL;) {
        line++;
        if ((size_t)(head + length - line) > size && !strncasecmp(line, name, size) && line[size] == ':')
            return line + size + 1;
    }
    return NULL;
}

/* Decode chunks from `in` at *offset into `body`; `in` is left alone until the last chunk has come. */
static Progress read_chunks(Connection *connection, size_t offset) {
    Bytes *in = &connection->in;
    connection->body.length = 0;
    for (;;) {
        char *line = in->data + offset;
        char *end = memmem(line, in->length - offset, "\r\n", 2);
        if (!end) return MORE;
        size_t size = strtoul(line, NULL, 16);
        size_t start = (size_t)(end + 2 - in->data);
        if (in->length < start + size + 2) return MORE;
        bytes_append(&connection->body, in->data + start, size);
        offset = start + size + 2;
        if (size == 0) break;
    }
    bytes_drop_front(in, offset);
    return REPLY;
}

static Progress http1_read(Connection *connection, const char **why) {
    Bytes *in = &connection->in;
    char *end = memmem(in->data, in->length < 65536 ? in->length : 65536, "\r\n\r\n", 4);
    if (!end) return MORE;
    size_t head = (size_t)(end + 4 - in->data);
    if (head < 16 || memcmp(in->data + 8, " 200", 4)) {
        *why = "not a 200";
        return FAILED;
    }
    const char *length = header(in->data, head, "content-length");
    if (!length) return read_chunks(connection, head);
    size_t size = strtoul(length, NULL, 10);
    if (in->length < head + size) return MORE;
    connection->body.length = 0;
    bytes_append(&connection->body, in->data + head, size);
    bytes_drop_front(in, head + size);
    return REPLY;
}

const Protocol HTTP1 = {http1_open, http1_request, http1_read};
