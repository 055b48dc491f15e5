/* gRPC over HTTP/2 without TLS (RFC 9113): one unary call at a time on each connection.
 *
 * A call has succeeded when a whole message came before the end of its stream: gRPC sends no message with
 * an error. So trailers need no decoding, and neither does any other header.
 */
#include "generator.h"

#include <string.h>

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum { SETTING_INITIAL_WINDOW = 4, SETTING_FRAME_SIZE = 5 };
enum { FRAME_HEAD = 9, GRPC_PREFIX = 5, DEFAULT_WINDOW = 65535, DEFAULT_FRAME = 16384, OUR_FRAME = 1 << 20 };
#define MAX_WINDOW 0x7fffffffu
#define REFILL (1u << 29)

static Bytes header_block;

void grpc_set_headers(Bytes block) { header_block = block; }

static uint32_t u32(const char *at) {
    const unsigned char *b = (const unsigned char *)at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void put_u32(char *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (char)(value >> (24 - 8 * i));
}

static void frame(Connection *connection, int type, int flags, uint32_t stream, const void *data, size_t size) {
    char head[FRAME_HEAD] = {(char)(size >> 16), (char)(size >> 8), (char)size, (char)type, (char)flags};
    put_u32(head + 5, stream);
    bytes_append(&connection->out, head, sizeof head);
    bytes_append(&connection->out, data, size);
}

static void grow_window(Connection *connection, uint32_t by) {
    char payload[4];
    put_u32(payload, by);
    frame(connection, WINDOW_UPDATE, 0, 0, payload, sizeof payload);
}

static void grpc_open(Connection *connection) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    bytes_append(&connection->out, preface, sizeof preface - 1);
    char settings[12] = {0, SETTING_INITIAL_WINDOW, 0, 0, 0, 0, 0, SETTING_FRAME_SIZE};
    put_u32(settings + 2, MAX_WINDOW);
    put_u32(settings + 8, OUR_FRAME);
    frame(connection, SETTINGS, 0, 0, settings, sizeof settings);
    grow_window(connection, MAX_WINDOW - DEFAULT_WINDOW);
    connection->peer_initial_window = connection->connection_window = DEFAULT_WINDOW;
    connection->peer_frame_size = DEFAULT_FRAME;
    connection->stream = (uint32_t)-1;
}

/* Send as much of the message as the peer's windows allow. */
static void send_message(Connection *connection) {
    const Bytes *message = connection->message;
    while (message && connection->message_done < message->length) {
        size_t size = message->length - connection->message_done;
        int64_t window = connection->stream_window < connection->connection_window
                             ? connection->stream_window : connection->connection_window;
        if (window <= 0) return;
        if (size > (size_t)window) size = (size_t)window;
        if (size > connection->peer_frame_size) size = connection->peer_frame_size;
        bool last = connection->message_done + size == message->length;
        frame(connection, DATA, last ? END_STREAM : 0, connection->stream,
              message->data + connection->message_done, size);
        connection->message_done += size;
        connection->stream_window -= (int64_t)size;
        connection->connection_window -= (int64_t)size;
    }
}

static void grpc_request(Connection *connection, const Bytes *request) {
    connection->stream += 2;
    connection->body.length = 0;
    connection->message = request;
    connection->message_done = 0;
    connection->stream_window = connection->peer_initial_window;
    frame(connection, HEADERS, END_HEADERS, connection->stream, header_block.data, header_block.length);
    send_message(connection);
}

static void on_settings(Connection *connection, int flags, const char *payload, size_t size) {
    if (flags & ACK) return;
    for (size_t at = 0; at + 6 <= size; at += 6) {
        uint32_t value = u32(payload + at + 2);
        int id = payload[at + 1];
        if (payload[at] != 0) continue; /* gRPC's own settings have high numbers */
        if (id == SETTING_FRAME_SIZE) connection->peer_frame_size = value;
        if (id == SETTING_INITIAL_WINDOW) {
            connection->stream_window += (int64_t)value - connection->peer_initial_window;
            connection->peer_initial_window = value;
        }
    }
    frame(connection, SETTINGS, ACK, 0, "", 0);
}

static void on_data(Connection *connection, int flags, const char *payload, size_t size) {
    connection->received += size;
    if (connection->received >= REFILL) {
        grow_window(connection, (uint32_t)connection->received);
        connection->received = 0;
    }
    size_t padding = 0;
    if (flags & PADDED) {
        padding = (unsigned char)*payload++;
        size--;
    }
    bytes_append(&connection->body, payload, size - padding);
}

static Progress finish(Connection *connection, const char **why) {
    const Bytes *body = &connection->body;
    if (body->length < GRPC_PREFIX || body->data[0] != 0 || u32(body->data + 1) != body->length - GRPC_PREFIX) {
        *why = "the call ended without a message";
        return FAILED;
    }
    connection->message = NULL; /* what still comes on this stream is of no interest */
    return REPLY;
}

static Progress on_frame(Connection *c, int type, int flags, uint32_t stream, const char *payload, size_t size,
                         const char **why) {
    bool ours = stream == c->stream && c->message;
    switch (type) {
    case SETTINGS:
        on_settings(c, flags, payload, size);
        break;
    case PING:
        if (!(flags & ACK)) frame(c, PING, ACK, 0, payload, size);
        break;
    case WINDOW_UPDATE:
        if (stream == 0) c->connection_window += u32(payload) & MAX_WINDOW;
        else if (ours) c->stream_window += u32(payload) & MAX_WINDOW;
        break;
    case GOAWAY:
        *why = "the server closed the connection (GOAWAY)";
        return FAILED;
    case RST_STREAM:
        if (!ours) break;
        *why = "the server reset the stream";
        return FAILED;
    case DATA:
        on_data(c, flags, payload, size);
        if (ours && flags & END_STREAM) return finish(c, why);
        break;
    case HEADERS:
        if (ours && flags & END_STREAM) return finish(c, why);
        break;
    default:
        break;
    }
    return MORE;
}

static Progress grpc_read(Connection *connection, const char **why) {
    Bytes *in = &connection->in;
    size_t at = 0;
    Progress progress = MORE;
    while (progress != FAILED && in->length - at >= FRAME_HEAD) { /* also what follows a reply: windows, pings */
        const char *head = in->data + at;
        size_t size = u32(head) >> 8;
        if (in->length - at < FRAME_HEAD + size) break;
        Progress now = on_frame(connection, head[3], head[4], u32(head + 5) & MAX_WINDOW, head + FRAME_HEAD, size, why);
        if (now != MORE) progress = now;
        at += FRAME_HEAD + size;
    }
    bytes_drop_front(in, at);
    if (progress == MORE) send_message(connection);
    return progress;
}

const Protocol GRPC = {grpc_open, grpc_request, grpc_read};
