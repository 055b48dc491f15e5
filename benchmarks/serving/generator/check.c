/* Judging replies: the tensor's bytes must be the right ones, or be kept for the caller to compare. */
#define _GNU_SOURCE
#include "generator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bytes_append(Bytes *bytes, const void *data, size_t length) {
    if (bytes->length + length > bytes->capacity) {
        bytes->capacity = (bytes->length + length) * 2 + 4096;
        bytes->data = realloc(bytes->data, bytes->capacity);
        if (!bytes->data) abort();
    }
    memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
}

void bytes_drop_front(Bytes *bytes, size_t length) {
    bytes->length -= length;
    memmove(bytes->data, bytes->data + length, bytes->length);
}

Bytes bytes_read_file(const char *folder, const char *name, int number) {
    char path[4096], chunk[65536];
    if (number < 0) snprintf(path, sizeof path, "%s/%s", folder, name);
    else snprintf(path, sizeof path, "%s/%s-%d", folder, name, number);
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(2);
    }
    Bytes bytes = {0};
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, file)) > 0;) bytes_append(&bytes, chunk, n);
    fclose(file);
    return bytes;
}

void checker_load(Checker *checker, const char *folder, int distinct, const char *marker) {
    checker->distinct = distinct;
    checker->marker = marker;
    for (int i = 0; i < distinct; i++) {
        checker->exchanges[i].request = bytes_read_file(folder, "request", i);
        checker->exchanges[i].answer = bytes_read_file(folder, "answer", i);
    }
}

void checker_error(Checker *checker, const char *what, const char *detail, size_t length) {
    if (checker->errors++ > 0) return;
    size_t used = (size_t)snprintf(checker->first_error, sizeof checker->first_error, "%s: ", what);
    for (size_t i = 0; i < length && used + 1 < sizeof checker->first_error; i++) {
        char c = detail[i];
        checker->first_error[used++] = (c < ' ' || c > '~' || c == '"' || c == '\\') ? '.' : c;
    }
    checker->first_error[used] = 0;
}

static bool in_array(char c) { return c && strchr("0123456789+-.eE,[] \t\r\nNaInfity", c); }

/* The array after the marker: from its first '[' to its last ']'. */
static bool find_array(const char *marker, const char *reply, size_t length, const char **start, size_t *size) {
    const char *end = reply + length;
    const char *at = memmem(reply, length, marker, strlen(marker));
    if (!at || !(at = memchr(at, '[', (size_t)(end - at)))) return false;
    const char *stop = at;
    while (stop < end && in_array(*stop)) stop++;
    while (stop > at && stop[-1] != ']') stop--;
    *start = at;
    *size = (size_t)(stop - at);
    /* an array inside other arrays or objects: keep only the brackets that belong to it */
    int depth = 0;
    for (const char *c = at; c < stop; c++) {
        if (*c == '[') depth++;
        if (*c == ']' && --depth == 0) {
            *size = (size_t)(c + 1 - at);
            break;
        }
    }
    return true;
}

/* The quick way: the right array stands where the marker says. */
static bool starts_right(const Checker *checker, const Bytes *answer, const char *reply, size_t length) {
    const char *end = reply + length;
    if (!*checker->marker)
        return length >= answer->length && !memcmp(end - answer->length, answer->data, answer->length);
    const char *at = memmem(reply, length, checker->marker, strlen(checker->marker));
    if (!at || !(at = memchr(at, '[', (size_t)(end - at)))) return false;
    return (size_t)(end - at) >= answer->length && !memcmp(at, answer->data, answer->length);
}

static void keep_variant(Checker *checker, Exchange *exchange, const char *data, size_t size) {
    checker->different++;
    for (int i = 0; i < exchange->variant_count; i++)
        if (exchange->variants[i].length == size && !memcmp(exchange->variants[i].data, data, size)) return;
    if (exchange->variant_count == MAX_VARIANTS) {
        checker->unlisted++;
        return;
    }
    bytes_append(&exchange->variants[exchange->variant_count++], data, size);
}

void checker_judge(Checker *checker, int number, const char *reply, size_t length) {
    Exchange *exchange = &checker->exchanges[number];
    if (starts_right(checker, &exchange->answer, reply, length)) return;
    const char *start;
    size_t size = exchange->answer.length;
    if (*checker->marker) {
        if (!find_array(checker->marker, reply, length, &start, &size)) {
            checker_error(checker, "no array in the reply", reply, length);
            return;
        }
    } else {
        if (length < size) {
            checker_error(checker, "short reply", reply, length);
            return;
        }
        start = reply + length - size;
    }
    keep_variant(checker, exchange, start, size);
}

void checker_write_variants(const Checker *checker, const char *folder) {
    for (int i = 0; i < checker->distinct; i++)
        for (int n = 0; n < checker->exchanges[i].variant_count; n++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/variant-%d-%d", folder, i, n);
            FILE *file = fopen(path, "wb");
            if (!file) {
                perror(path);
                exit(2);
            }
            const Bytes *variant = &checker->exchanges[i].variants[n];
            fwrite(variant->data, 1, variant->length, file);
            fclose(file);
        }
}
