/* Owns the order of an encoder's stages, and their spread over threads; knows no file and no text.
 *
 * A window's tokens are cut into blocks of rows. Within a layer a block needs others only for their keys
 * and values, so one phase is: attention to all keys, the rest of the layer, and the next layer's queries,
 * keys and values. Threads take blocks of a phase until none is left and begin the next phase when all
 * are done: whoever is late holds nobody up, and a run ends well with any number of threads.
 */
#include <math.h>
#include <sched.h>
#include <string.h>

#include "attention.h"
#include "pool.h"

/* Rows of a block: each reads all weights, so with few of them it is memory that takes the time; with many,
 * what lies between two products leaves the cache. */
enum { LEAST_ROWS = 16, MOST_ROWS = 48, MAX_PHASES = 64, SPINS = 4000 };

typedef struct {
    const Model *model;
    const int64_t *ids, *types;
    float *start, *end; /* (tokens) logits */
    Shape shape;
    Memory memory[2]; /* of this layer and of the next */
    Queries queries;
    float *states;    /* (tokens, hidden) */
    char *scratch;
    size_t scratch_bytes; /* of each thread */
    int rows, blocks, threads;
    atomic_int seats, taken[MAX_PHASES], done[MAX_PHASES];
} Run;

typedef struct {
    Rounded rounded;
    float *wide, *narrow; /* (rows, max(3 hidden, inner)), (rows, hidden) */
    float *shares, *scores;
    int16_t *chances;
} Scratch;

static void embed(const Model *m, int64_t id, int64_t type, int position, float *out) {
    const Table *tables[] = {&m->words, &m->positions, &m->types};
    int64_t rows[] = {id, position, type};
    for (int i = 0; i < m->hidden; i += 16) {
        __m512 sum = _mm512_setzero_ps();
        for (int j = 0; j < 3; j++) {
            if (!tables[j]->rows) continue;
            const uint8_t *row = tables[j]->rows + rows[j] * m->hidden;
            __m512 x = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(row + i))));
            x = _mm512_sub_ps(x, _mm512_set1_ps(tables[j]->zero));
            sum = _mm512_fmadd_ps(x, _mm512_set1_ps(tables[j]->scale), sum);
        }
        _mm512_storeu_ps(out + i, sum);
    }
}

/* states = norm(states + added), one row; `added` may be NULL. */
static void add_and_norm(const Norm *norm, float epsilon, const float *added, int hidden, float *states) {
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int i = 0; i < hidden; i += 16) {
        __m512 x = _mm512_loadu_ps(states + i);
        if (added) x = _mm512_add_ps(x, _mm512_loadu_ps(added + i));
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
        x = _mm512_fmadd_ps(x, _mm512_loadu_ps(norm->gain + i), _mm512_loadu_ps(norm->shift + i));
        _mm512_storeu_ps(states + i, x);
    }
}

static void add_and_norm_rows(const Norm *norm, float epsilon, const float *added, int rows, int hidden,
                              float *states) {
    for (size_t r = 0; r < (size_t)rows; r++)
        add_and_norm(norm, epsilon, added + r * hidden, hidden, states + r * hidden);
}

static void round_rows(const float *values, const float *smooth, int rows, int inner, const Rounded *out) {
    for (int r = 0; r < rows; r++) round_row(values + (size_t)r * inner, smooth, inner, out, r);
}

static void finish_layer(const Run *run, const Layer *layer, int first, int rows, const Scratch *s) {
    const Model *m = run->model;
    int hidden = m->hidden;
    float *states = run->states + (size_t)first * hidden;
    round_rows(s->narrow, layer->out.smooth, rows, hidden, &s->rounded);
    product(&layer->out, &s->rounded, rows, s->narrow, hidden);
    add_and_norm_rows(&layer->after_attention, m->epsilon, s->narrow, rows, hidden, states);
    round_rows(states, layer->up.smooth, rows, hidden, &s->rounded);
    (m->activation == GELU ? product_gelu : product_relu)(&layer->up, &s->rounded, rows, s->wide, m->inner);
    round_rows(s->wide, layer->down.smooth, rows, m->inner, &s->rounded);
    product(&layer->down, &s->rounded, rows, s->narrow, hidden);
    add_and_norm_rows(&layer->after_down, m->epsilon, s->narrow, rows, hidden, states);
}

static void answer(const Run *run, int first, int rows) {
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

/* Everything of one phase for one block of rows; phase 0 makes the embeddings. */
static void block(const Run *run, int phase, int number, const Scratch *s) {
    const Model *m = run->model;
    int first = number * run->rows, hidden = m->hidden;
    int rows = run->shape.tokens - first < run->rows ? run->shape.tokens - first : run->rows;
    float *states = run->states + (size_t)first * hidden;
    if (phase == 0) {
        for (int r = 0; r < rows; r++) {
            int t = first + r;
            embed(m, run->ids[t], run->types[t], t, states + (size_t)r * hidden);
            add_and_norm(&m->after_embedding, m->epsilon, NULL, hidden, states + (size_t)r * hidden);
        }
    } else {
        attend(&run->shape, &run->queries, &run->memory[(phase - 1) % 2], first, rows, s->shares, s->scores,
               s->chances, s->narrow);
        finish_layer(run, &m->layers[phase - 1], first, rows, s);
    }
    if (phase == m->depth) {
        answer(run, first, rows);
        return;
    }
    const Product *qkv = &m->layers[phase].qkv;
    round_rows(states, qkv->smooth, rows, hidden, &s->rounded);
    product(qkv, &s->rounded, rows, s->wide, 3 * (size_t)hidden);
    for (int r = 0; r < rows; r++)
        remember(s->wide + (size_t)r * 3 * hidden, first + r, &run->shape, &run->queries,
                 &run->memory[phase % 2]);
}

/* How many times `part` it takes to hold `whole`. */
static int over(int whole, int part) { return (whole + part - 1) / part; }

static void *cut(char **at, size_t bytes) {
    void *piece = *at;
    *at += (bytes + 63) / 64 * 64; /* whole cache lines */
    return piece;
}

/* Lay out one thread's scratch from `at`; returns its end. */
static char *lay_scratch(const Run *run, char *at, Scratch *s) {
    size_t hidden = run->model->hidden, inner = run->model->inner, rows = run->rows;
    size_t wide = 3 * hidden > inner ? 3 * hidden : inner;
    s->rounded.bytes = cut(&at, rows * (hidden > inner ? hidden : inner));
    s->rounded.low = cut(&at, rows * sizeof(float));
    s->rounded.step = cut(&at, rows * sizeof(float));
    s->wide = cut(&at, rows * wide * sizeof(float));
    s->narrow = cut(&at, rows * hidden * sizeof(float));
    s->shares = cut(&at, run->shape.padded * sizeof(float));
    s->scores = cut(&at, TILE * run->shape.padded * sizeof(float));
    s->chances = cut(&at, TILE * run->shape.padded * sizeof(int16_t));
    return at;
}

/* Lay out what the threads share from `at`; returns its end. */
static char *lay_run(Run *run, char *at) {
    size_t hidden = run->model->hidden, tokens = run->shape.tokens, padded = run->shape.padded;
    size_t heads = run->model->heads;
    run->states = cut(&at, tokens * hidden * sizeof(float));
    run->queries.rows = cut(&at, tokens * hidden);
    run->queries.step = cut(&at, tokens * heads * sizeof(float));
    for (int i = 0; i < 2; i++) {
        run->memory[i].keys = cut(&at, padded * hidden);
        run->memory[i].origins = cut(&at, padded * heads * sizeof(int32_t));
        run->memory[i].values = cut(&at, padded * hidden * sizeof(int16_t));
        run->memory[i].key_step = cut(&at, padded * heads * sizeof(float));
        run->memory[i].value_step = cut(&at, padded * heads * sizeof(float));
    }
    return at;
}

/* What every thread of a run does: blocks of a phase until none is left, then the next phase. */
static void work(void *given) {
    Run *run = given;
    int seat = atomic_fetch_add(&run->seats, 1);
    if (seat >= run->threads) return;
    unsigned int rounding = _mm_getcsr();
    _mm_setcsr(rounding | 0x8040); /* numbers too small to be fast are zero */
    Scratch scratch;
    lay_scratch(run, run->scratch + seat * run->scratch_bytes, &scratch);
    for (int phase = 0; phase <= run->model->depth; phase++) {
        int number;
        while ((number = atomic_fetch_add(&run->taken[phase], 1)) < run->blocks) {
            block(run, phase, number, &scratch);
            atomic_fetch_add_explicit(&run->done[phase], 1, memory_order_release);
        }
        for (int spins = 0; atomic_load_explicit(&run->done[phase], memory_order_acquire) < run->blocks;) {
            _mm_pause();
            if (++spins % SPINS == 0) sched_yield();
        }
    }
    _mm_setcsr(rounding);
}

/* For the caller to see whether its own description of a model fits. */
int qa_model_bytes(void) { return sizeof(Model); }

void *qa_pool(int helpers) { return pool_new(helpers); }

/* Interleave int8 weights (inner, columns) by fours of rows and panels of 64 columns, for `Product`. */
void qa_pack(const int8_t *weights, int inner, int columns, int8_t *packed) {
    for (int panel = 0; panel < columns / PANEL; panel++)
        for (int k = 0; k < inner; k += 4)
            for (int c = 0; c < PANEL; c++)
                for (int i = 0; i < 4; i++)
                    *packed++ = weights[(size_t)(k + i) * columns + panel * PANEL + c];
}

/* Logits (2, tokens) of one window: starts, then ends. `pool` NULL works in this thread alone. Returns 0; 1
 * for an id beyond its table or too many tokens, 2 where memory is short. */
int qa_run(const Model *model, void *pool, const int64_t *ids, const int64_t *types, int tokens, float *logits) {
    if (tokens < 1 || tokens > MAX_TOKENS || tokens > model->positions.count || model->depth >= MAX_PHASES)
        return 1;
    for (int t = 0; t < tokens; t++) {
        if (ids[t] < 0 || ids[t] >= model->words.count) return 1;
        if (model->types.rows && (types[t] < 0 || types[t] >= model->types.count)) return 1;
    }
    int width = model->hidden / model->heads;
    int threads = pool ? ((Pool *)pool)->helpers + 1 : 1;
    int share = over(tokens, threads) > LEAST_ROWS ? over(tokens, threads) : LEAST_ROWS;
    Run run = {
        .model = model, .ids = ids, .types = types, .start = logits, .end = logits + tokens,
        .shape = {.heads = model->heads, .width = width, .tokens = tokens,
                  .padded = over(tokens, PANEL) * PANEL},
    };
    run.rows = over(share, over(share, MOST_ROWS));
    run.rows += run.rows % 2; /* values are kept in pairs of tokens */
    run.blocks = over(tokens, run.rows);
    run.threads = run.blocks < threads ? run.blocks : threads;
    Scratch unused;
    run.scratch_bytes = (size_t)(lay_scratch(&run, NULL, &unused) - (char *)NULL);
    size_t shared = (size_t)(lay_run(&run, NULL) - (char *)NULL);
    char *memory = aligned_alloc(64, shared + run.threads * run.scratch_bytes);
    if (!memory) return 2;
    run.scratch = lay_run(&run, memory);
    if (pool)
        pool_call(pool, work, &run);
    else
        work(&run);
    free(memory);
    return 0;
}
