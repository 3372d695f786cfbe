/* Owns the memory of runs, kept from one run to the next; knows not what lies in it.
 *
 * Buffers of megabytes that come and go between small allocations fragment the C library's heap: before version
 * 2.38 glibc does not find freed aligned blocks again, and a busy service grew by megabytes a second. As many
 * buffers are kept as runs were side by side.
 */
#ifndef QA_BUFFERS_H
#define QA_BUFFERS_H

#include <pthread.h>
#include <stdlib.h>

enum { BUFFER_HEADER = 64 }; /* keeps what follows aligned to cache lines */

typedef struct Buffer {
    struct Buffer *next;
    size_t bytes;
} Buffer;

static pthread_mutex_t buffers_lock = PTHREAD_MUTEX_INITIALIZER;
static Buffer *free_buffers;

/* At least `bytes`, aligned to 64; NULL where memory is short. To be given back with `release_buffer`. */
static char *acquire_buffer(size_t bytes) {
    pthread_mutex_lock(&buffers_lock);
    Buffer *found = free_buffers;
    if (found) free_buffers = found->next;
    pthread_mutex_unlock(&buffers_lock);
    if (!found || found->bytes < bytes) {
        free(found);
        size_t size = BUFFER_HEADER + (bytes + 63) / 64 * 64;
        found = aligned_alloc(64, size);
        if (!found) return NULL;
        found->bytes = size - BUFFER_HEADER;
    }
    return (char *)found + BUFFER_HEADER;
}

static void release_buffer(char *memory) {
    Buffer *buffer = (Buffer *)(memory - BUFFER_HEADER);
    pthread_mutex_lock(&buffers_lock);
    buffer->next = free_buffers;
    free_buffers = buffer;
    pthread_mutex_unlock(&buffers_lock);
}

#endif
