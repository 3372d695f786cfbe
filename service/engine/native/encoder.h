/* Owns the order of an encoder's stages, and their spread over threads; knows no file and no ONNX Runtime.
 *
 * A window's tokens are cut into blocks of rows. Within a layer a block needs the others only for their keys and
 * values, so one phase is: attention over all keys, the rest of the layer, and the next layer's queries, keys and
 * values. Workers take blocks of a phase from an atomic counter until none is left and begin the next phase when
 * all blocks are done, so a worker that starts late delays nobody, and any number of workers completes a run.
 */
#ifndef QA_ENCODER_H
#define QA_ENCODER_H

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attention.h"
#include "buffers.h"

/* Rows of a block: each block reads all weights, so few rows are bound by memory bandwidth; with many, the
 * intermediate results of a layer, 11 KB a row for a width of 384, leave the L2 cache. */
enum { LEAST_ROWS = 16, MOST_ROWS = 48, MOST_ROWS_LARGE_L2 = 96, SPINS = 4000 };
static int most_rows = MOST_ROWS;

/* Call once, before any run. */
static void choose_rows(void) {
#ifdef _SC_LEVEL2_CACHE_SIZE
    if (sysconf(_SC_LEVEL2_CACHE_SIZE) >= 2 << 20) most_rows = MOST_ROWS_LARGE_L2; /* 7% faster (Granite Rapids) */
#endif
}

typedef struct {
    const Model *model;
    Tables tables;
    const int64_t *ids, *types; /* (tokens) */
    float *start, *end;         /* (tokens) logits */
    Shape shape;
    KeyValueCache cache[2]; /* of this layer and of the next */
    Queries queries;
    float *states; /* (tokens, hidden) */
    char *scratch;
    size_t scratch_bytes; /* of each worker */
    int rows, blocks, workers;
    atomic_int entered, taken[MAX_LAYERS + 1], done[MAX_LAYERS + 1];
} Run;

typedef struct {
    QuantizedRows quantized;
    float *wide, *narrow; /* (rows, max(3 hidden, inner)), (rows, hidden) */
    AttentionScratch attention;
} Scratch;

static void embed(const Tables *tables, int hidden, int64_t id, int64_t type, int position, float *out) {
    const Table *summed[] = {&tables->words, &tables->positions, &tables->types};
    int64_t rows[] = {id, position, type};
    for (int i = 0; i < hidden; i += 16) {
        __m512 sum = _mm512_setzero_ps();
        for (int j = 0; j < 3; j++) {
            if (!summed[j]->rows) continue;
            const uint8_t *row = summed[j]->rows + rows[j] * hidden;
            __m512 x = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(row + i))));
            x = _mm512_sub_ps(x, _mm512_set1_ps(summed[j]->zero_point));
            sum = _mm512_fmadd_ps(x, _mm512_set1_ps(summed[j]->scale), sum);
        }
        _mm512_storeu_ps(out + i, sum);
    }
}

/* states = layer_norm(states + residual), one row; `residual` may be NULL. */
static void add_layer_norm(const LayerNorm *norm, float epsilon, const float *residual, int hidden,
                           float *states) {
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int i = 0; i < hidden; i += 16) {
        __m512 x = _mm512_loadu_ps(states + i);
        if (residual) x = _mm512_add_ps(x, _mm512_loadu_ps(residual + i));
        _mm512_storeu_ps(states + i, x);
        sum = _mm512_add_ps(sum, x);
    }
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / (float)hidden);
    for (int i = 0; i < hidden; i += 16) {
        __m512 x = _mm512_sub_ps(_mm512_loadu_ps(states + i), mean);
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    __m512 inverse = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)hidden + epsilon));
    for (int i = 0; i < hidden; i += 16) {
        __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(states + i), mean), inverse);
        x = _mm512_fmadd_ps(x, _mm512_loadu_ps(norm->gamma + i), _mm512_loadu_ps(norm->beta + i));
        _mm512_storeu_ps(states + i, x);
    }
}

static void add_layer_norm_rows(const LayerNorm *norm, float epsilon, const float *residual, int rows, int hidden,
                                float *states) {
    for (size_t r = 0; r < (size_t)rows; r++)
        add_layer_norm(norm, epsilon, residual + r * hidden, hidden, states + r * hidden);
}

/* From the attention output in s->narrow to the layer's output in the block's states. */
static void finish_layer(const Run *run, const Layer *layer, int first, int rows, const Scratch *s) {
    const Model *m = run->model;
    int hidden = m->hidden;
    float *states = run->states + (size_t)first * hidden;
    quantize_rows(s->narrow, layer->out.smooth, rows, hidden, &s->quantized);
    linear(&layer->out, &s->quantized, rows, s->narrow, hidden);
    add_layer_norm_rows(&layer->after_attention, m->epsilon, s->narrow, rows, hidden, states);
    quantize_rows(states, layer->up.smooth, rows, hidden, &s->quantized);
    (m->activation == GELU ? linear_gelu : linear_relu)(&layer->up, &s->quantized, rows, s->wide, m->inner);
    quantize_rows(s->wide, layer->down.smooth, rows, m->inner, &s->quantized);
    linear(&layer->down, &s->quantized, rows, s->narrow, hidden);
    add_layer_norm_rows(&layer->after_feed_forward, m->epsilon, s->narrow, rows, hidden, states);
}

static void span_logits(const Run *run, int first, int rows) {
    const Model *m = run->model;
    for (int t = first; t < first + rows; t++) {
        const float *state = run->states + (size_t)t * m->hidden;
        __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int i = 0; i < m->hidden; i += 16)
            for (int j = 0; j < 2; j++)
                sums[j] = _mm512_fmadd_ps(_mm512_loadu_ps(state + i),
                                          _mm512_loadu_ps(m->head + j * m->hidden + i), sums[j]);
        run->start[t] = _mm512_reduce_add_ps(sums[0]) + m->head_bias[0];
        run->end[t] = _mm512_reduce_add_ps(sums[1]) + m->head_bias[1];
    }
}

/* One phase for one block of rows; phase 0 makes the embeddings. */
static void run_block(const Run *run, int phase, int number, const Scratch *s) {
    const Model *m = run->model;
    int first = number * run->rows, hidden = m->hidden;
    int rows = run->shape.tokens - first < run->rows ? run->shape.tokens - first : run->rows;
    float *states = run->states + (size_t)first * hidden;
    if (phase == 0) {
        for (int r = 0; r < rows; r++) {
            int t = first + r;
            embed(&run->tables, hidden, run->ids[t], run->types ? run->types[t] : 0, t, states + (size_t)r * hidden);
            add_layer_norm(&m->after_embedding, m->epsilon, NULL, hidden, states + (size_t)r * hidden);
        }
    } else {
        attend(&run->shape, &run->queries, &run->cache[(phase - 1) % 2], first, rows, &s->attention, s->narrow);
        finish_layer(run, &m->layers[phase - 1], first, rows, s);
    }
    if (phase == m->depth) {
        span_logits(run, first, rows);
        return;
    }
    const Linear *qkv = &m->layers[phase].qkv;
    quantize_rows(states, qkv->smooth, rows, hidden, &s->quantized);
    linear(qkv, &s->quantized, rows, s->wide, 3 * (size_t)hidden);
    for (int r = 0; r < rows; r++)
        store_qkv(s->wide + (size_t)r * 3 * hidden, first + r, &run->shape, &run->queries,
                  &run->cache[phase % 2]);
}

static int ceil_div(int whole, int part) { return (whole + part - 1) / part; }

/* The next `bytes` of a buffer, in whole cache lines. With `at` beginning at NULL, only sizes are added up. */
static void *take(char **at, size_t bytes) {
    char *piece = *at;
    *at = (char *)((uintptr_t)piece + (bytes + 63) / 64 * 64);
    return piece;
}

/* Lay out one worker's scratch from `at`; returns its end. */
static char *lay_out_scratch(const Run *run, char *at, Scratch *s) {
    size_t hidden = run->model->hidden, inner = run->model->inner, rows = run->rows;
    size_t wide = 3 * hidden > inner ? 3 * hidden : inner;
    size_t tiled = (size_t)ceil_div(run->rows, TILE_ROWS) * TILE_ROWS;
    s->quantized.bytes = take(&at, tiled * (hidden > inner ? hidden : inner));
    s->quantized.minimum = take(&at, rows * sizeof(float));
    s->quantized.scale = take(&at, rows * sizeof(float));
    s->wide = take(&at, rows * wide * sizeof(float));
    s->narrow = take(&at, rows * hidden * sizeof(float));
    s->attention.relative_scale = take(&at, run->shape.padded * sizeof(float));
    s->attention.scores = take(&at, TILE * run->shape.padded * sizeof(float));
    s->attention.probabilities = take(&at, TILE * run->shape.padded * sizeof(int16_t));
    return at;
}

/* Lay out what the workers share from `at`; returns its end. */
static char *lay_out_run(Run *run, char *at) {
    size_t hidden = run->model->hidden, tokens = run->shape.tokens, padded = run->shape.padded;
    size_t heads = run->model->heads;
    run->states = take(&at, tokens * hidden * sizeof(float));
    run->queries.rows = take(&at, tokens * hidden);
    run->queries.scale = take(&at, tokens * heads * sizeof(float));
    for (int i = 0; i < 2; i++) {
        run->cache[i].keys = take(&at, padded * hidden);
        run->cache[i].key_offsets = take(&at, padded * heads * sizeof(int32_t));
        run->cache[i].values = take(&at, padded * hidden * sizeof(int16_t));
        run->cache[i].key_scale = take(&at, padded * heads * sizeof(float));
        run->cache[i].value_scale = take(&at, padded * heads * sizeof(float));
    }
    return at;
}

/* What each worker of a run does. */
static void run_phases(Run *run) {
    int worker = atomic_fetch_add(&run->entered, 1);
    if (worker >= run->workers) return;
    unsigned int mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* flush denormals to zero: they are many times slower */
    acquire_tiles();
    Scratch scratch;
    lay_out_scratch(run, run->scratch + worker * run->scratch_bytes, &scratch);
    for (int phase = 0; phase <= run->model->depth; phase++) {
        int number;
        while ((number = atomic_fetch_add(&run->taken[phase], 1)) < run->blocks) {
            run_block(run, phase, number, &scratch);
            atomic_fetch_add_explicit(&run->done[phase], 1, memory_order_release);
        }
        for (int spins = 0; atomic_load_explicit(&run->done[phase], memory_order_acquire) < run->blocks;) {
            _mm_pause();
            if (++spins % SPINS == 0) sched_yield();
        }
    }
    release_tiles();
    _mm_setcsr(mode);
}

/* Plan a run of one window over at most `threads` workers and acquire its memory, which the caller releases.
 * Returns NULL where memory is short. */
static char *plan_run(Run *run, int threads) {
    const Model *m = run->model;
    run->shape.heads = m->heads;
    run->shape.width = m->hidden / m->heads;
    run->shape.padded = ceil_div(run->shape.tokens, PANEL) * PANEL;
    int share = ceil_div(run->shape.tokens, threads) > LEAST_ROWS ? ceil_div(run->shape.tokens, threads) : LEAST_ROWS;
    run->rows = ceil_div(share, ceil_div(share, most_rows));
    run->rows += run->rows % 2; /* values are stored in pairs of tokens */
    run->blocks = ceil_div(run->shape.tokens, run->rows);
    run->workers = run->blocks < threads ? run->blocks : threads;
    Scratch unused;
    run->scratch_bytes = (size_t)(uintptr_t)lay_out_scratch(run, NULL, &unused);
    size_t shared = (size_t)(uintptr_t)lay_out_run(run, NULL);
    char *memory = acquire_buffer(shared + run->workers * run->scratch_bytes);
    if (memory) run->scratch = lay_out_run(run, memory);
    return memory;
}

#endif
